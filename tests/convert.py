#!/usr/bin/env python3
"""Every fixture out again: `hubc convert`, `onnx.checker`, ONNX Runtime, golden.

    tests/convert.py [--hubc PATH] [--fixtures DIR] [--only TEXT] [--suite]

Converts every model that has a golden (`models/paddle_formats`, `models/digits`, and the seeded fixtures that
`cargo run --release -p hub-models -- materialise all DIR` wrote to DIR), some of them also after passes, checks the
files with `onnx.checker.check_model(full_check=True)` and runs them in ONNX Runtime: max|d| <= 1e-4 max|golden|, integers
99.9 % equal. `--suite` instead takes the node tests that the onnx package brings and counts what converts, what checks,
and what ONNX Runtime answers as expected.

Needs the Python packages onnx, onnxruntime and numpy; says so and ends well where they are absent. Exit code 5 where
something is off.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

try:
    import numpy as np
    import onnx
    import onnxruntime as ort
except ImportError as missing:
    print(f"ignored: convert.py needs the Python package {missing.name}")
    sys.exit(0)

ROOT = pathlib.Path(__file__).resolve().parent.parent
RTOL = 1e-4
# Graphs of these models are converted after passes too: one of each kind.
STAGED = ["digits/pir", "digits/onnx", "lstmnet", "ifnet", "detnet", "resnet50_torch", "ernie_nano_dyn_pir", "ocr_crnn_dynw_pir", "det_yolo_mnv1_pir"]
STAGES = ["simplify", "raise", "cse", "fuse"]
DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U8": "u1", "U16": "<u2",
          "U32": "<u4", "U64": "<u8", "BOOL": "?"}

# Node tests whose converted file ONNX Runtime does not answer as the original, and why.
KNOWN = {}


def safetensors(path):
    """Tensors by name, and the metadata."""
    raw = pathlib.Path(path).read_bytes()
    n = int.from_bytes(raw[:8], "little")
    head = json.loads(raw[8:8 + n])
    meta = head.pop("__metadata__", {})
    out = {}
    for name, t in head.items():
        a, b = t["data_offsets"]
        out[name] = np.frombuffer(raw[8 + n + a:8 + n + b], DTYPES[t["dtype"]]).reshape(t["shape"])
    return out, meta


def cases(fixtures):
    """(name, model file, inputs, golden, metadata)."""
    models = ROOT / "models"
    for golden in sorted((models / "paddle_formats").rglob("*.golden.safetensors")):
        stem = str(golden).removesuffix(".golden.safetensors")
        file = next(p for p in (stem + ".json", stem + ".pdmodel", stem) if pathlib.Path(p).is_file())
        tensors, meta = safetensors(golden)
        ins = {k[3:]: v for k, v in tensors.items() if k.startswith("in:")}
        yield str(pathlib.Path(stem).relative_to(models)), file, ins, tensors, meta
    data, _ = safetensors(models / "digits/digits.safetensors")
    for name, file, out in (("onnx", "model.onnx", "fetch_name_0"), ("pir", "pir/inference.json", "fetch_name_0"),
                            ("legacy", "legacy/inference.pdmodel", "linear_0.tmp_1")):
        yield f"digits/{name}", models / "digits" / file, {"image": data["test_image"]}, {"out:" + out: data["test_logits"]}, {}
    for folder in sorted(pathlib.Path(fixtures).iterdir()) if fixtures else []:
        if not (folder / "golden.safetensors").is_file():
            continue
        names = ["model.onnx", "__model__"]
        found = [folder / n for n in names] + sorted(folder.glob("*.json")) + sorted(folder.glob("*.pdmodel"))
        file = next(p for p in found if p.is_file())
        ins, _ = safetensors(folder / "inputs.safetensors")
        golden, meta = safetensors(folder / "golden.safetensors")
        yield folder.name, file, ins, golden, meta


def value(raw, t):
    """A test's tensor, sequence or optional."""
    if t.HasField("optional_type"):
        return onnx.numpy_helper.to_optional(onnx.OptionalProto.FromString(raw))
    if t.HasField("sequence_type"):
        return onnx.numpy_helper.to_list(onnx.SequenceProto.FromString(raw))
    return onnx.numpy_helper.to_array(onnx.TensorProto.FromString(raw))


def error(want, got, stride):
    """The golden's rule: a share of the greatest magnitude, or of unequal elements."""
    if want is None or isinstance(want, list):
        if want is None or got is None or len(want) != len(got):
            return 0.0 if want is got else f"{got}, not {want}"
        return max((error(w, g, 1) for w, g in zip(want, got)), key=lambda e: (isinstance(e, str), str(e)), default=0.0)
    got = np.asarray(got)
    if stride > 1 or want.shape != got.shape:
        if want.ndim != 1 and want.size == got.size:
            return f"shape {got.shape}, not {want.shape}"
        got = got.reshape(-1)[::stride]
        want = want.reshape(-1)
    if want.shape != got.shape:
        return f"shape {got.shape}, not {want.shape}"
    if want.dtype.kind in "OSU":
        return 0.0 if want.astype(str).tolist() == got.astype(str).tolist() else 1.0
    if want.dtype.kind != "f":
        return 0.0 if want.size == 0 or np.mean(want != got) <= 1e-3 else 1.0
    if want.size == 0:
        return 0.0
    a, b = want.astype(np.float64), got.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):
        worst = np.max(np.where(same, 0, np.abs(a - b)))
    return float(worst / max(np.max(np.abs(a[np.isfinite(a)]), initial=0), 1e-30)) if worst else 0.0


def session(path):
    options = ort.SessionOptions()
    options.log_severity_level = 4
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def convert(hubc, model, out, after=None, more=()):
    command = [hubc, "convert", str(model), "-o", str(out), *more] + (["--after", after] if after else [])
    done = subprocess.run(command, capture_output=True, text=True)
    return None if done.returncode == 0 else f"exit {done.returncode}: {done.stderr.strip()}"


def one(hubc, model, ins, golden, meta, out, after, more=()):
    """None, or what is wrong."""
    problem = convert(hubc, model, out, after, more)
    if problem:
        return problem
    onnx.checker.check_model(str(out), full_check=True)
    s = session(out)
    feeds = {i.name: ins[i.name] for i in s.get_inputs()}
    names = [o.name for o in s.get_outputs()]
    got = dict(zip(names, s.run(names, feeds)))
    worst = 0.0
    for key, want in golden.items():
        if not key.startswith("out:"):
            continue
        e = error(want, got[key[4:]], int(meta.get("stride:" + key[4:], 1)))
        if isinstance(e, str):
            return f"{key[4:]}: {e}"
        worst = max(worst, e)
    return worst if worst <= RTOL else f"off by {worst:.1e}"


def fixtures(args):
    bad = done = 0
    with tempfile.TemporaryDirectory() as tmp:
        out = pathlib.Path(tmp) / "m.onnx"
        for name, model, ins, golden, meta in cases(args.fixtures):
            if args.only not in name:
                continue
            stages = [None] + (STAGES if any(name.endswith(s) for s in STAGED) else [])
            runs = [(s, ()) for s in stages] + ([(None, ("--external-data",))] if name == "digits/pir" else [])
            for after, more in runs:
                try:
                    r = one(args.hubc, model, ins, golden, meta, out, after, more)
                except Exception as e:  # a checker's or engine's refusal, in its own words
                    r = f"{type(e).__name__}: {str(e)[:600]}"
                done += 1
                bad += isinstance(r, str)
                print(f"{name:34} {after or 'imported':10} {' '.join(more)} {'WRONG ' + r if isinstance(r, str) else f'ok {r:.1e}'}", flush=True)
    print(f"{done - bad} of {done} conversions check, run and match")
    return bad


def suite(args):
    """Node tests of the onnx package: converted, checked, run by ONNX Runtime beside the original."""
    data = pathlib.Path(args.data or pathlib.Path(onnx.__file__).parent / "backend/test/data") / "node"
    counts, notes = {}, []
    with tempfile.TemporaryDirectory() as tmp:
        for folder in sorted(data.iterdir()):
            if args.only not in folder.name:
                continue
            out = pathlib.Path(tmp) / "m.onnx"
            verdict, why = suite_one(args.hubc, folder, out)
            counts[verdict] = counts.get(verdict, 0) + 1
            if verdict in ("not converted", "not valid", "differs", "engine has the original only"):
                notes.append(f"{folder.name}: {verdict}: {why}")
    print("\n".join(notes))
    for verdict, n in sorted(counts.items()):
        print(f"{n:5} {verdict}")
    wrong = {n.split(": ")[0] for n in notes}
    known = {n for n in KNOWN if args.only in n}
    for name in sorted(wrong - known):
        print(f"wrong: {name} is not expected to fail")
    for name in sorted(known - wrong):
        print(f"wrong: {name} is listed in KNOWN and does not fail")
    return len(wrong ^ known)


def suite_one(hubc, folder, out):
    if convert_problem := convert(hubc, folder / "model.onnx", out):
        imported = subprocess.run([hubc, "inspect", str(folder / "model.onnx")], capture_output=True)
        return ("not converted" if imported.returncode == 0 else "not imported"), convert_problem[:200]
    try:
        onnx.checker.check_model(str(out), full_check=True)
    except Exception as e:
        return "not valid", str(e)[:300]
    model = onnx.load(str(out))
    test = folder / "test_data_set_0"
    io = [*model.graph.input, *model.graph.output]
    if any(i.type.tensor_type.elem_type in range(16, 23) for i in io):
        return "element types that NumPy lacks: not run", ""
    read = lambda kind, k, info: value((test / f"{kind}_{k}.pb").read_bytes(), info.type)
    try:
        s = session(out)
        ins = {i.name: read("input", k, i) for k, i in enumerate(model.graph.input)}
        got = s.run(None, ins)
    except Exception as e:
        try:
            session(folder / "model.onnx")
        except Exception:
            return "engine has neither", str(e)[:200]
        return "engine has the original only", str(e)[:300]
    for k, g in enumerate(got):
        want = read("output", k, model.graph.output[k])
        e = error(want, g, 1)
        if isinstance(e, str) or e > 1e-3:
            try:
                original = session(folder / "model.onnx").run(None, ins)
                right = error(want, original[k], 1)
            except Exception as refusal:
                right = str(refusal)[:100]
            return ("differs", str(e)) if isinstance(right, float) and right <= 1e-3 else ("engine is wrong on the original too", str(right))
    return "same", ""


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--hubc", default=str(ROOT / "target/release/hubc"))
    p.add_argument("--fixtures", help="folder of materialised fixtures")
    p.add_argument("--only", default="", help="cases whose name holds this")
    p.add_argument("--suite", action="store_true", help="the onnx package's node tests instead")
    p.add_argument("--data", help="folder of that suite [default: the onnx package's]")
    args = p.parse_args()
    sys.exit(5 if (suite(args) if args.suite else fixtures(args)) else 0)
