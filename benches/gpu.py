#!/usr/bin/env python3
"""Are bundles right on a GPU, and how fast beside torch.compile (max-autotune) and ONNX Runtime's CUDA
provider, on the same model and device?

Ours runs through the C interface of libhub_runtime.so, whose driver libhub_cuda.so lies beside it. Each
fixture is exported, run and checked against its golden; then all engines sit in this one process and
take turns in shuffled rounds. A time is the median of medians, a ratio the median over rounds of
(peer's time / ours), so above 1 means that ours is faster. A run brings the inputs from the host's
memory to the device and the outputs back, for every engine. In f32 no engine may use TF32.

    cargo build --release
    python3 -m venv ~/hub-gpu && ~/hub-gpu/bin/pip install numpy onnx==1.17.0 onnxruntime-gpu \\
        safetensors torch torchvision transformers
    ~/hub-gpu/bin/python benches/gpu.py resnet50_torch bert_base_hf

Peers that are not installed are left out, by name. PyTorch has no part of a fixture's file: it times the
same architecture from torchvision or transformers with weights of its own. Without names: all fixtures.
Exits with 1 if an answer is wrong, with 3 if there is no GPU.
"""
import argparse, os, random, statistics as stats, subprocess, sys, tempfile
import numpy as np
from safetensors.numpy import load_file
from speed import BIN, ROOT, Hub, error, fixture, slot, to_onnx

# By precision: the greatest error that is right.
MOST = {'f32': 1e-4, 'bf16': 1e-2, 'f16': 1e-2}


def vision(name):
    import torchvision
    return getattr(torchvision.models, name)(weights=None)


def bert():
    import transformers
    return transformers.BertModel(transformers.BertConfig(), attn_implementation='sdpa')


# Fixtures whose architecture PyTorch's libraries have.
TORCH = {
    'resnet50_torch': lambda: vision('resnet50'),
    'mobilenet_v3_large_torchscript': lambda: vision('mobilenet_v3_large'),
    'efficientnet_b0_torch': lambda: vision('efficientnet_b0'),
    'squeezenet1_1_p2o': lambda: vision('squeezenet1_1'),
    'bert_base_hf': bert,
}


def torch_compiled(name, inputs, precision):
    """torch.compile at its most: CUDA graphs, tuned kernels."""
    import torch
    torch.set_float32_matmul_precision('highest')
    torch.backends.cudnn.allow_tf32 = False
    dtype = {'f32': torch.float32, 'bf16': torch.bfloat16, 'f16': torch.float16}[precision]
    model = TORCH[name]().eval().to('cuda', dtype)
    here = {k: torch.from_numpy(np.array(v)) for k, v in inputs.items()}
    here = {k: (v.to(dtype) if v.is_floating_point() else v).pin_memory() for k, v in here.items()}
    there = {k: v.cuda() for k, v in here.items()}
    if any(v.ndim == 4 for v in there.values()):
        model = model.to(memory_format=torch.channels_last)
        there = {k: v.contiguous(memory_format=torch.channels_last) for k, v in there.items()}
    compiled = torch.compile(model, mode='max-autotune')

    def run():
        with torch.inference_mode():
            for k, v in here.items():
                there[k].copy_(v, non_blocking=True)
            out = compiled(**there) if name == 'bert_base_hf' else compiled(*there.values())
            out = out[0] if not torch.is_tensor(out) else out
            return [out.float().cpu().numpy()]
    for _ in range(5):
        run()
    return run


def ort_cuda(onnx, inputs):
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    cuda = ('CUDAExecutionProvider', {'use_tf32': '0'})
    session = onnxruntime.InferenceSession(onnx, options, providers=[cuda])
    if 'CUDAExecutionProvider' not in session.get_providers():
        raise RuntimeError('its CUDA provider does not start')
    return lambda: session.run(None, inputs)


def peers(name, model, folder, inputs, golden, args):
    """Engines beside ours that run, and whose answers (where they are this model's) are right."""
    engines = {}
    try:
        run = ort_cuda(to_onnx(model, folder), inputs)
        off = error(run(), golden)
        if off > 1e-3:
            print(f'  ort is off by {off:.1e}: left out')
        elif args.precision == 'f32':
            engines['ort'] = run
    except Exception as e:
        print(f'  ort is left out: {str(e)[:160]!r}')
    if name in TORCH:
        try:
            engines['torch'] = torch_compiled(name, inputs, args.precision)
        except Exception as e:
            print(f'  torch is left out: {str(e)[:160]!r}')
    return engines


def measure(name, args):
    """A row; is the answer right?"""
    with tempfile.TemporaryDirectory() as folder:
        model, golden = fixture(name, folder)
        inputs = load_file(os.path.join(os.path.dirname(model), 'inputs.safetensors'))
        bundle = os.path.join(folder, 'm.hub')
        target = args.device.split(':')[0]
        subprocess.run([os.path.join(BIN, 'hub'), 'export', model, '-o', bundle, '--target', target,
                        '--precision', args.precision], check=True, capture_output=True)
        ours = Hub(bundle, 1, args.device)
        ours.feed(inputs)
        # (The first run of dynamic sizes is not what later ones are.)
        for _ in range(3):
            ours.run()
        off = error([o.copy() for o in ours.outputs()], golden)
        right = off <= MOST[args.precision]
        engines = {'hub': ours.run}
        if right and not args.check:
            engines |= peers(name, model, folder, inputs, golden, args)
        times = {k: [] for k in engines}
        for _ in range(0 if args.check else args.rounds):
            for k in random.sample(sorted(engines), len(engines)):
                times[k].append(slot(engines[k], 0.05))
        ms = {k: round(stats.median(v) * 1e3, 3) for k, v in times.items() if v}
        ratios = {k: round(stats.median(p / o for p, o in zip(v, times['hub'])), 2)
                  for k, v in times.items() if k != 'hub'}
        print(f'{name:32} {"off by" if right else "WRONG,"} {off:.1e}  ms {ms}  ratios {ratios}  '
              f'load {ours.load * 1e3:.1f} ms', flush=True)
        ours.close()
        return right


def fixtures():
    root = os.path.join(ROOT, 'models', 'fixtures')
    return sorted(n for n in os.listdir(root) if os.path.exists(os.path.join(root, n, 'fixture.json')))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('names', nargs='*', help='fixtures (default: all)')
    p.add_argument('--device', default='cuda:0', help='as cuda:0, or another driver\'s, as opencl:0')
    p.add_argument('--precision', choices=sorted(MOST), default='f32')
    p.add_argument('--rounds', type=int, default=9)
    p.add_argument('--check', action='store_true', help='answers only, no times')
    args = p.parse_args()
    try:
        gpu = subprocess.run(['nvidia-smi', '--query-gpu=name,driver_version', '--format=csv,noheader'],
                             capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        gpu = 'nvidia-smi says nothing'
    print(f'{args.device} ({gpu}), {args.precision}')
    random.seed(1)
    wrong = []
    for name in args.names or fixtures():
        try:
            if not measure(name, args):
                wrong.append(name)
        except RuntimeError as e:
            if str(e).startswith('status 3'):
                print(f'no device {args.device} here: {e}')
                sys.exit(3)
            print(f'{name:32} FAILED: {e}')
            wrong.append(name)
        except subprocess.CalledProcessError as e:
            print(f'{name:32} FAILED: {e.stderr}')
            wrong.append(name)
    if wrong:
        print('wrong: ' + ', '.join(wrong))
        sys.exit(1)


if __name__ == '__main__':
    main()
