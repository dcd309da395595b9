#!/usr/bin/env python3
"""How fast is a bundle beside ONNX Runtime, OpenVINO and, for its own models, Paddle Inference with
oneDNN, on the same model, machine and threads?

Ours runs through the C interface of libhub_runtime.so. All engines sit in this one process and
take turns in shuffled rounds; a round times each engine for a quarter of a second after a rest. A
ratio is the median over rounds of (peer's time / ours), so above 1 means that ours is faster. Every
engine's answer is checked against the fixture's golden before it is timed. OpenVINO is pinned to
f32, or with --precision bf16 to bf16: it is the only peer then, and answers are judged by their
cosine (its own, where it is off, are timed all the same). Load is construction of
the engine, imports and conversions aside, the quickest of five; `first` is construction and one run,
the quickest of three.

    cargo build --release
    python3 -m venv ~/hub-peers && ~/hub-peers/bin/pip install numpy onnx==1.17.0 onnxruntime \
        openvino safetensors paddlepaddle==3.3.1 paddle2onnx==2.1.0
    ~/hub-peers/bin/python benches/speed.py --threads 1 resnet50_torch ernie_base_pir

A model of your own is named by its file, with `inputs.safetensors` beside it, and `golden.safetensors`
(`out:NAME`) where there is one; else the answers of the first peer that runs it are the golden.
"""
import argparse, ctypes, os, random, re, statistics as stats, subprocess, sys, tempfile, time
import json
import numpy as np
from safetensors.numpy import load_file

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BIN = os.path.join(os.environ.get('CARGO_TARGET_DIR', os.path.join(ROOT, 'target')), 'release')
DEFAULT = ['resnet50_torch', 'mobilenet_v3_large_torchscript', 'efficientnet_b0_torch',
           'squeezenet1_1_p2o', 'seg_hrnet_w32s_pir', 'det_yolo_mnv1_pir', 'ocr_crnn_dynw_pir',
           'ernie_base_pir', 'ernie_nano_dyn_pir', 'bert_base_hf', 'senta_bilstm_pir']
LOADS = 5  # of each engine: the first ones find the caches full of other things
ONNX_DTYPE = {'float32': 1, 'int32': 6, 'int64': 7}
NUMPY_DTYPE = {number: np.dtype(name) for name, number in ONNX_DTYPE.items()}


class Tensor(ctypes.Structure):
    """struct hub_tensor"""
    _fields_ = [('dtype', ctypes.c_int32), ('rank', ctypes.c_int32), ('dims', ctypes.c_int64 * 8),
                ('data', ctypes.c_void_p), ('bytes', ctypes.c_size_t)]


class Hub:
    """A bundle, opened and ready, through the C interface."""

    def __init__(self, bundle, threads, device='cpu'):
        self.lib = ctypes.CDLL(os.path.join(BIN, 'libhub_runtime.so'))
        self.lib.hub_last_error.restype = ctypes.c_char_p
        self.model, self.session = ctypes.c_void_p(), ctypes.c_void_p()
        start = time.perf_counter()
        self.check(self.lib.hub_model_open(bundle.encode(), ctypes.byref(self.model)))
        self.check(self.lib.hub_session_new(self.model, device.encode(), threads,
                                            ctypes.byref(self.session)))
        self.load = time.perf_counter() - start
        self.input_names, self.output_names = self.names(0), self.names(1)

    def check(self, status):
        if status:
            raise RuntimeError(f'status {status}: {self.lib.hub_last_error().decode()}')

    def names(self, is_output):
        found = []
        while True:
            name, spec = ctypes.c_char_p(), Tensor()
            if self.lib.hub_model_io(self.model, is_output, ctypes.c_size_t(len(found)),
                                     ctypes.byref(name), ctypes.byref(spec)):
                return found
            found.append(name.value.decode())

    def feed(self, inputs):
        self.keep = [np.asarray(inputs[n], order='C') for n in self.input_names]
        self.ins = (Tensor * len(self.keep))()
        self.outs = (Tensor * len(self.output_names))()
        for t, a in zip(self.ins, self.keep):
            t.dtype, t.rank, t.data, t.bytes = ONNX_DTYPE[str(a.dtype)], a.ndim, a.ctypes.data, a.nbytes
            t.dims[:a.ndim] = a.shape

    def run(self):
        for t in self.outs:
            t.data = None
        self.check(self.lib.hub_session_run(self.session, self.ins, ctypes.c_size_t(len(self.ins)),
                                            self.outs, ctypes.c_size_t(len(self.outs))))

    def close(self):
        self.lib.hub_session_free(self.session)
        self.lib.hub_model_close(self.model)

    def outputs(self):
        return [np.frombuffer(ctypes.string_at(t.data, t.bytes), NUMPY_DTYPE[t.dtype])
                .reshape(t.dims[:t.rank]) for t in self.outs]


def ort(onnx, inputs, threads):
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(onnx, options, providers=['CPUExecutionProvider'])
    return lambda: session.run(None, inputs)


def openvino(path, inputs, threads, precision):
    import openvino
    core = openvino.Core()
    model = core.read_model(path)
    model.reshape({k: list(v.shape) for k, v in inputs.items()})
    compiled = core.compile_model(model, 'CPU', {
        'INFERENCE_NUM_THREADS': threads, 'INFERENCE_PRECISION_HINT': precision,
        'PERFORMANCE_HINT': 'LATENCY', 'NUM_STREAMS': 1})
    request = compiled.create_infer_request()

    def run():
        request.infer(inputs, share_inputs=True, share_outputs=True)
        return [request.get_output_tensor(i).data for i in range(len(compiled.outputs))]
    return run


def paddle(model, inputs, threads):
    """Paddle Inference with oneDNN."""
    from paddle import inference
    params = next(f for f in os.listdir(os.path.dirname(model)) if f.endswith('.pdiparams'))
    config = inference.Config(model, os.path.join(os.path.dirname(model), params))
    config.disable_gpu()
    config.enable_mkldnn()
    config.set_cpu_math_library_num_threads(threads)
    config.disable_glog_info()
    predictor = inference.create_predictor(config)
    for name in predictor.get_input_names():
        predictor.get_input_handle(name).copy_from_cpu(inputs[name])
    outputs = [predictor.get_output_handle(n) for n in predictor.get_output_names()]

    def run():
        predictor.run()
        return [o.copy_to_cpu() for o in outputs]
    return run


def to_onnx(model, folder):
    """A Paddle model as ONNX, for engines that read no Paddle: by paddle2onnx, or where that fails by
    `hubc convert`. Paddle 3.3 writes interpolation scales as f64, which paddle2onnx 2.1 refuses, so its
    copy of the graph says f32."""
    if model.endswith('.onnx'):
        return model
    done = os.path.join(folder, 'p2o.onnx')
    if os.path.exists(done):
        return done
    try:
        return by_paddle2onnx(model, folder)
    except (subprocess.CalledProcessError, FileNotFoundError):
        ours = os.path.join(folder, 'hubc.onnx')
        subprocess.run([os.path.join(BIN, 'hubc'), 'convert', model, '-o', ours], check=True,
                       capture_output=True)
        return ours


def by_paddle2onnx(model, folder):
    source, copy, target = os.path.dirname(model), os.path.join(folder, 'p2o'), os.path.join(folder, 'p2o.onnx')
    os.mkdir(copy)
    params = next(f for f in os.listdir(source) if f.endswith('.pdiparams'))
    os.symlink(os.path.join(source, params), os.path.join(copy, params))
    graph = open(model, 'rb').read()
    if model.endswith('.json'):
        graph = re.sub(rb'"0\.a_array","D":\[\{"#":"0\.a_f64"[^\]]*\]\},"N":"scale"',
                       lambda m: m[0].replace(b'a_f64', b'a_f32'), graph)
    open(os.path.join(copy, os.path.basename(model)), 'wb').write(graph)
    tool = os.path.join(os.path.dirname(sys.executable), 'paddle2onnx')
    subprocess.run([tool, '--model_dir', copy, '--model_filename', os.path.basename(model),
                    '--params_filename', params, '--save_file', target, '--opset_version', '17'],
                   check=True, capture_output=True)
    return target


def quickest(make):
    """Makes an engine LOADS times: the last one, and the least time."""
    times = []
    for _ in range(LOADS):
        start = time.perf_counter()
        made = make()
        times.append(time.perf_counter() - start)
    return made, min(times)


def first_answer(make):
    """Least seconds of three from making an engine to the end of its first run."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        make()()
        times.append(time.perf_counter() - start)
    return min(times)


def error(outputs, golden):
    """Greatest difference over the greatest golden magnitude, over all outputs in order."""
    worst = 0.0
    for (want, stride), got in zip(golden, outputs):
        got = np.asarray(got).reshape(-1)[::stride]
        if want.dtype.kind in 'iub':
            worst = max(worst, 0.0 if (got == want).mean() >= 0.999 else 1.0)
        else:
            worst = max(worst, float(np.abs(got - want).max() / np.abs(want).max()))
    return worst


def off_cosine(outputs, golden):
    """1 - cosine, the greater of plain and about the golden's mean, over all float outputs."""
    worst = 0.0
    for (want, stride), got in zip(golden, outputs):
        if want.dtype.kind == 'f':
            w, g = want.astype(np.float64), np.asarray(got).reshape(-1)[::stride].astype(np.float64)
            for c in (0.0, w.mean()):
                a, b = w - c, g - c
                worst = max(worst, 1 - float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b) + 1e-30)))
    return worst


def slot(run, rest):
    """Median seconds of a run over a quarter of a second."""
    time.sleep(rest)
    run(), run()
    times, start = [], time.perf_counter()
    while len(times) < 3 or time.perf_counter() - start < 0.25:
        t = time.perf_counter()
        run()
        times.append(time.perf_counter() - t)
    return stats.median(times)


def fixture(name, folder):
    """A fixture's model file, and its golden outputs with their strides."""
    out = subprocess.run([os.path.join(BIN, 'hub-models'), 'materialise', name, folder],
                         check=True, capture_output=True, text=True).stdout
    model = out.strip().splitlines()[-1]
    meta = json.load(open(os.path.join(ROOT, 'models', 'fixtures', name, 'fixture.json')))
    values = load_file(os.path.join(os.path.dirname(model), 'golden.safetensors'))
    return model, [(values['out:' + o['name']].reshape(-1), o['stride']) for o in meta['outputs']]


def measure(name, args):
    with tempfile.TemporaryDirectory() as folder:
        own = os.path.isfile(name)
        model, golden = (os.path.abspath(name), None) if own else fixture(name, folder)
        here = os.path.dirname(model)
        inputs = load_file(os.path.join(here, 'inputs.safetensors'))
        bundle = os.path.join(folder, 'm.hub')
        start = time.perf_counter()
        subprocess.run([os.path.join(BIN, 'hub'), 'export', model, '-o', bundle, '--target', 'cpu',
                        '--precision', args.precision],
                       check=True, capture_output=True)
        export = time.perf_counter() - start
        ours = Hub(bundle, args.threads)
        ours.feed(inputs)
        ours.run()
        beside = os.path.join(here, 'golden.safetensors')
        if own and os.path.exists(beside):
            values = load_file(beside)
            golden = [(values['out:' + n].reshape(-1), 1) for n in ours.output_names]
        answer = [o.copy() for o in ours.outputs()]
        judge, most = (error, 1e-4) if args.precision == 'f32' else (off_cosine, 1e-3)
        loads = {'hub': min([ours.load] + [Hub(bundle, args.threads).load for _ in range(LOADS - 1)])}
        engines = {'hub': ours.run}

        def ready():
            hub = Hub(bundle, args.threads)
            hub.feed(inputs)
            return hub.run
        firsts = {'hub': first_answer(ready)}
        import openvino as _  # (its import is not its load)
        onnx = to_onnx(model, folder)
        # OpenVINO reads ProgramDesc, and of PIR nothing.
        readable = onnx if model.endswith('.json') else model
        makers = {'ort': lambda: ort(onnx, inputs, args.threads),
                  'openvino': lambda: openvino(readable, inputs, args.threads, args.precision)}
        if args.precision != 'f32':
            del makers['ort']
        elif not model.endswith('.onnx'):
            makers['paddle'] = lambda: paddle(model, inputs, args.threads)
        for peer, make in makers.items():
            try:
                run, loads[peer] = quickest(make)
                firsts[peer] = first_answer(make)
                given = run()
                golden = golden or [(np.array(o).reshape(-1), 1) for o in given]
                off = judge(given, golden)
                out = off > most and args.precision == 'f32'
                if off > most:
                    print(f'  {peer} is off by {off:.1e}' + ': left out' * out)
                if not out:
                    engines[peer] = run
            except Exception as e:
                print(f'  {peer} does not run {name}: {str(e)[:160]!r}')
        if golden is None:
            raise RuntimeError('no peer runs it: there is nothing to compare with')
        off = judge(answer, golden)
        if off > most:
            raise RuntimeError(f'wrong answer: {off:.1e}')
        times = {k: [] for k in engines}
        for _ in range(args.rounds):
            for k in random.sample(sorted(engines), len(engines)):
                times[k].append(slot(engines[k], 0.3 if args.threads > 1 else 0.05))
        ms = {k: round(stats.median(v) * 1e3, 3) for k, v in times.items()}
        ratios = {k: stats.median(p / o for p, o in zip(v, times['hub']))
                  for k, v in times.items() if k != 'hub'}
        best = min(ratios.values()) if ratios else float('nan')
        load = {k: round(v * 1e3, 3 if k == 'hub' else 2) for k, v in loads.items()}
        first = {k: round(v * 1e3, 2) for k, v in firsts.items()}
        opens = min([v for k, v in loads.items() if k != 'hub'], default=float('nan')) / loads['hub']
        label = os.path.basename(here) if own else name
        print(f'{label:32} ratio to the best peer {best:5.2f}  ms {ms}  load ms {load} '
              f'({opens:.0f} times)  first ms {first}  export {export:.1f} s', flush=True)
        return best


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('names', nargs='*', default=DEFAULT, help='fixtures (see: hub-models list), or model files')
    p.add_argument('--threads', type=int, default=1)
    p.add_argument('--precision', choices=['f32', 'bf16'], default='f32')
    p.add_argument('--rounds', type=int, default=9)
    args = p.parse_args()
    flags = set(next((l for l in open('/proc/cpuinfo') if l.startswith('flags')), '').split())
    wanted = ['avx2', 'fma', 'avx512f', 'avx512_vnni', 'avx512_bf16', 'amx_tile']
    cpu = next((l.split(':')[1].strip() for l in open('/proc/cpuinfo') if l.startswith('model name')), '?')
    print(f'{cpu}; features {[f for f in wanted if f in flags]}; {args.threads} thread(s)')
    random.seed(1)
    ratios = [r for r in (measure(n, args) for n in args.names) if r == r]
    if ratios:
        print(f'geometric mean {float(np.exp(np.mean(np.log(ratios)))):.2f}, least {min(ratios):.2f}')


if __name__ == '__main__':
    main()
