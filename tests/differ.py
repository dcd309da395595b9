#!/usr/bin/env python3
"""Random models of one operator each beside ONNX Runtime: writes them as a suite that the conformance runner reads.

    tests/differ.py DIR [--seed N] [--rounds N] [--only TEXT]
    cargo run --release -p hub-tests --bin conformance -- DIR --expect tests/differ.txt

Each round draws every family below once more: attributes, ranks, element types, optional operands, old and new opsets,
which operands are constants, and which sizes are known only when the model runs. What ONNX Runtime refuses is left out
and counted. Not part of the default tests: a search for differences, whose finds become tests.

Needs the Python packages onnx, onnxruntime and numpy.
"""

import argparse
import collections
import pathlib
import shutil
import sys

try:
    import numpy as np
    import onnx
    import onnxruntime as ort
    from onnx import TensorProto, helper, numpy_helper
except ImportError as missing:
    print(f"ignored: differ.py needs the Python package {missing.name}")
    sys.exit(0)

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
MS, ML = "com.microsoft", "ai.onnx.ml"
R = np.random.RandomState(0)
CASES = []
F32, F64, F16 = np.float32, np.float64, np.float16


def pick(*xs):
    return xs[R.randint(len(xs))]


def maybe(x, other=None):
    return x if R.rand() < 0.5 else other


def f(*shape, t=F32, lo=-2.0, hi=2.0):
    return R.uniform(lo, hi, shape).astype(t)


def i(*shape, lo=-8, hi=9, t=np.int64):
    return np.array(R.randint(lo, hi, shape), dtype=t)


def u8(*shape):
    return i(*shape, lo=0, hi=256, t=np.uint8)


def any_type(*shape, types="f4 f8 f2 i1 i2 i4 i8 u1 u2 u4 u8"):
    t = np.dtype(pick(*types.split()))
    if t.kind == "f":
        return f(*shape, t=t)
    return i(*shape, lo=0 if t.kind == "u" else -9, hi=10, t=t)


def dims(rank, lo=1, hi=5):
    return [int(R.randint(lo, hi)) for _ in range(rank)]


def s(x, t=F32):
    return np.array(x, t)


def case(op, ins, outs=1, fixed=(), opset=17, domain="", static=False, show=None, **attrs):
    """One node. `ins`: arrays, None where left out; those at `fixed` become initializers. Only the first `show` outputs
    are the model's."""
    attrs = {k.rstrip("_"): v for k, v in attrs.items() if v is not None}
    while ins and ins[-1] is None:
        ins = ins[:-1]
    names = [f"x{k}" if a is not None else "" for k, a in enumerate(ins)]
    outputs = [f"y{k}" for k in range(outs)] if isinstance(outs, int) else outs
    node = helper.make_node(op, names, outputs, domain=domain, name="n", **attrs)
    fed = {n: a for k, (n, a) in enumerate(zip(names, ins)) if a is not None and k not in fixed}
    kept = [numpy_helper.from_array(ins[k], names[k]) for k in fixed if k < len(ins) and ins[k] is not None]
    graph(op, [node], fed, [o for o in outputs if o][:show], kept, opset, static)


def graph(name, nodes, fed, outputs, kept=(), opset=17, static=False):
    CASES.append((name, nodes, fed, outputs, list(kept), opset, static))


def info(name, a, loose):
    if isinstance(a, list):
        t = helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(a[0].dtype), [None] * a[0].ndim)
        return helper.make_value_info(name, helper.make_sequence_type_proto(t))
    # The last axis often means something (channels, coordinates); an axis of 1 may be there to broadcast.
    named = lambda k, d: loose and d > 1 and k < a.ndim - 1 and R.rand() < 0.7
    shape = [f"{name}_{k}" if named(k, d) else d for k, d in enumerate(a.shape)]
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(a.dtype), shape)


def build(nodes, fed, outputs, kept, opset, static):
    loose = not static and R.rand() < 0.4
    infos = [info(n, a, loose) for n, a in fed.items()]
    results = [onnx.ValueInfoProto(name=o) for o in outputs]
    g = helper.make_graph(nodes, "g", infos, results, kept)
    sets = [helper.make_opsetid("", opset), helper.make_opsetid(MS, 1), helper.make_opsetid(ML, 3)]
    return helper.make_model(g, opset_imports=sets, ir_version=10 if opset < 23 else 11)


def proto(a):
    return numpy_helper.from_list(a).SerializeToString() if isinstance(a, list) else numpy_helper.from_array(np.asarray(a)).SerializeToString()


def value_type(a):
    if isinstance(a, list):
        inner = value_type(a[0]) if a else helper.make_tensor_type_proto(TensorProto.FLOAT, [])
        return helper.make_sequence_type_proto(inner)
    a = np.asarray(a)
    t = TensorProto.STRING if a.dtype.kind in "OUS" else helper.np_dtype_to_tensor_dtype(a.dtype)
    return helper.make_tensor_type_proto(t, [None] * a.ndim)


def write(folder, model, fed, got):
    data = folder / "test_data_set_0"
    data.mkdir(parents=True)
    for out, a in zip(model.graph.output, got):
        out.type.CopyFrom(value_type(a))
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    for k, a in enumerate(fed.values()):
        (data / f"input_{k}.pb").write_bytes(proto(a))
    for k, a in enumerate(got):
        (data / f"output_{k}.pb").write_bytes(proto(a))


# ---- families ----

def elementwise():
    sh = dims(R.randint(0, 4))
    for op, v in (("Neg", 13), ("Abs", 13), ("Sign", 13)):
        case(op, [any_type(*sh, types="f4 f8 i1 i4 i8")], opset=v)
    for op in "Floor Ceil Round Sqrt Reciprocal Exp Log Sin Cos Tan Asin Acos Atan Sinh Cosh Tanh Asinh Acosh Atanh Erf Sigmoid".split():
        case(op, [f(*sh, t=pick(F32, F32, F64), lo=0.1, hi=1.5)], opset=pick(13, 17, 22))
    for op in "Relu Elu HardSigmoid HardSwish Softplus Softsign Selu Celu ThresholdedRelu LeakyRelu Shrink Mish".split():
        a = {"alpha": round(R.uniform(0.1, 2), 2)} if op in ("Elu", "HardSigmoid", "Celu", "ThresholdedRelu", "LeakyRelu") and R.rand() < 0.6 else {}
        if op == "Shrink":
            a = {"lambd": 0.7, "bias": 0.3}
        case(op, [f(*sh, lo=-4, hi=4)], opset=18 if op == "Mish" else pick(14, 16), **a)
    case("Clip", [f(*sh)], opset=pick(7, 10), min=-0.5, max=maybe(0.7))
    case("Clip", [any_type(*sh, types="f4 f8 i1 u1 i4 i8"), None, None], opset=13)
    case("Clip", [f(*sh), maybe(s(-0.3)), maybe(s(0.4))], opset=pick(11, 12, 13), fixed=pick((), (1, 2)))
    case("PRelu", [f(2, 3, 4), f(*pick((3, 1), (4,), (1,), (2, 3, 4)))], opset=pick(7, 9, 16))
    case("Gelu", [f(*sh)], opset=20, approximate=pick("none", "tanh"))
    case("Cast", [any_type(*sh)], opset=pick(9, 13, 19), to=pick(1, 2, 3, 5, 6, 7, 9, 10, 11, 12, 13))
    case("IsInf", [s([1, np.inf, -np.inf, np.nan])], opset=pick(10, 20), detect_negative=maybe(0), detect_positive=maybe(0))
    case("Not", [i(*sh, lo=0, hi=2).astype(bool)])


def broadcast(rank=3):
    full = dims(rank)
    low = [1 if R.rand() < 0.4 else d for d in full][R.randint(0, rank):]
    return maybe((full, low), (low, full))


def binary():
    a, b = broadcast()
    for op in "Add Sub Mul Div".split():
        t = pick("f4", "f8", "i4", "i8", "f4")
        x, y = any_type(*a, types=t), any_type(*b, types=t)
        if op == "Div":
            y = y + (np.abs(y) < 0.5) * 2
            y = y.astype(x.dtype)
        case(op, [x, y], opset=pick(7, 13, 14), fixed=pick((), (1,)))
    for op in "Equal Less Greater LessOrEqual GreaterOrEqual".split():
        t = pick("f4", "f8", "i4", "i8")
        case(op, [np.round(any_type(*a, types=t)), np.round(any_type(*b, types=t))], opset=pick(13, 16))
    for op in "And Or Xor".split():
        case(op, [i(*a, lo=0, hi=2).astype(bool), i(*b, lo=0, hi=2).astype(bool)])
    t = pick("f4 f8 i4 i8 i1 u1 i2 u2 u4 u8".split())
    x, y = any_type(*a, types=pick(*t)), any_type(*b, types=pick(*t)).astype(pick(*t))
    y = y.astype(x.dtype)
    y = np.where(np.abs(y.astype(F64)) < 0.5, np.array(3).astype(y.dtype), y)
    case("Mod", [x, y], opset=13, fmod=1 if x.dtype.kind == "f" else maybe(1))
    case("Pow", [any_type(*a, types="f4 f8 i4 i8").clip(1), any_type(*b, types="f4 i4 i8 f8").clip(-2, 3)], opset=pick(13, 15))
    case("BitShift", [u8(*a), i(*b, lo=0, hi=8, t=np.uint8)], direction=pick("LEFT", "RIGHT"))
    for op in "BitwiseAnd BitwiseOr BitwiseXor".split():
        case(op, [i(*a, t=np.int32), i(*b, t=np.int32)], opset=18)
    for op in "Max Min Sum Mean".split():
        case(op, [f(*a), f(*b), f(1)][:R.randint(1, 4)], opset=pick(8, 13))
    case("Max", [any_type(3, types="i4"), any_type(3, types="i4")], opset=13)
    case("Where", [i(*a, lo=0, hi=2).astype(bool), f(*b), f(1)], opset=pick(9, 16))
    case("Expand", [f(*[1 if R.rand() < .5 else d for d in a]), s(a, np.int64)], fixed=pick((), (1,)), opset=13)


def reduce():
    rank = R.randint(1, 5)
    sh, axes = dims(rank), sorted(R.choice(rank, R.randint(1, rank + 1), replace=False).tolist())
    axes = [a - rank if R.rand() < 0.4 else a for a in axes]
    for op in "Sum Mean Prod Max Min L1 L2 SumSquare LogSum LogSumExp".split():
        x = any_type(*sh, types="f4 f4 f8 i4" + (" i8 i1 u1" if op in ("Max", "Min") else ""))
        if op in ("LogSum", "LogSumExp"):
            x = f(*sh, lo=0.1, hi=2)
        keep = maybe(0)
        if R.rand() < 0.5:
            case("Reduce" + op, [x] + ([maybe(s(axes, np.int64))] if op == "Sum" else []), opset=13, keepdims=keep,
                 fixed=(1,), **({} if op == "Sum" else {"axes": maybe(axes)}))
        else:
            case("Reduce" + op, [x, maybe(s(axes, np.int64), maybe(s([], np.int64)))], opset=18, keepdims=keep, fixed=(1,), noop_with_empty_axes=maybe(1))
    for op in ("ArgMax", "ArgMin"):
        case(op, [any_type(*sh, types="f4 i4 f8 i1 u1")], opset=pick(11, 12, 13), axis=axes[0], keepdims=maybe(0), select_last_index=None)
        case(op, [i(*sh, hi=3, lo=0, t=np.int32)], opset=13, axis=axes[0], keepdims=maybe(0), select_last_index=maybe(1))
    case("CumSum", [any_type(*sh, types="f4 f8 i4 i8"), s(axes[0], pick(np.int32, np.int64))], opset=pick(11, 14), fixed=(1,), exclusive=maybe(1), reverse=maybe(1))
    k = int(R.randint(1, sh[axes[0]] + 1))
    case("TopK", [f(*sh), s([k], np.int64)], outs=2, opset=pick(10, 11), fixed=(1,), axis=axes[0])
    case("TopK", [f(*sh, t=pick(F32, F64)), s([k], np.int64)], outs=2, opset=11, fixed=pick((), (1,)), axis=axes[0], largest=maybe(0))
    for op in ("Softmax", "LogSoftmax", "Hardmax"):
        case(op, [f(*sh)], opset=pick(8, 11, 13), axis=int(axes[0] % rank))
    case("Softmax", [f(*sh)], opset=pick(8, 13))
    case("LpNormalization", [f(*sh, lo=0.2)], axis=axes[0], p=pick(1, 2))


def resize():
    n = pick(1, 2, 2, 3)
    x = f(1, pick(1, 2), *dims(n, 2, 6))
    mode = pick("nearest", "linear", "cubic") if n == 2 else pick("nearest", "linear")
    # Sizes that scales make whole, so that engines agree on what a scale means.
    up = [float(pick(1, 2, 3, 0.5, 1.5, 2.5)) for _ in range(n)]
    sizes = [max(1, int(np.floor(d * u))) for d, u in zip(x.shape[2:], up)]
    scales = s([1, 1] + up)
    coord = pick("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "half_pixel_symmetric")
    attrs = dict(mode=mode, coordinate_transformation_mode=coord, nearest_mode=pick("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"))
    if mode == "cubic":
        attrs.update(cubic_coeff_a=pick(-0.75, -0.5), exclude_outside=maybe(1))
    old = coord if coord != "half_pixel_symmetric" else "half_pixel"
    fixed = pick((1, 2, 3), (1, 2, 3), ())
    case("Resize", [x, scales], opset=10, fixed=(1,), mode=pick("nearest", "linear") if n == 2 else "nearest")
    by_size = R.rand() < 0.5
    if by_size:
        case("Resize", [x, s([]), s([]), s(list(x.shape[:2]) + sizes, np.int64)], opset=pick(11, 13), fixed=fixed, **{**attrs, "coordinate_transformation_mode": old})
    else:
        case("Resize", [x, s([]), scales], opset=pick(11, 13), fixed=fixed, **{**attrs, "coordinate_transformation_mode": old})
    new = {**attrs, "antialias": maybe(1) if mode != "nearest" else None}
    if R.rand() < 0.4:
        case("Resize", [x, None, s(up)], opset=pick(18, 19), fixed=fixed, axes=list(range(2, 2 + n)), **new)
    else:
        policy = pick("stretch", "not_larger", "not_smaller")
        case("Resize", [x, None, None, s(sizes, np.int64)], opset=pick(18, 19), fixed=fixed, axes=list(range(2, 2 + n)), keep_aspect_ratio_policy=policy, **new)
    roi = s([0] * 2 + [round(R.uniform(-0.2, 0.4), 2) for _ in range(n)] + [1] * 2 + [round(R.uniform(0.6, 1.2), 2) for _ in range(n)])
    case("Resize", [x, roi, s([]), s(list(x.shape[:2]) + sizes, np.int64)], opset=pick(11, 13), fixed=fixed,
         **{**attrs, "coordinate_transformation_mode": "tf_crop_and_resize", "extrapolation_value": pick(0.0, 7.5)})
    case("Upsample", [x], opset=7, mode=pick("nearest", "linear") if n == 2 else "nearest", scales=[1.0, 1.0] + [float(pick(1, 2, 3)) for _ in range(n)])
    case("Upsample", [x, s([1, 1] + [float(pick(1, 2, 3)) for _ in range(n)])], opset=9, fixed=(1,), mode=pick("nearest", "linear") if n == 2 else "nearest")


def spatial(n, hi=9):
    return dims(n, 5, hi)


def windows(n, k):
    a = {"kernel_shape": k, "strides": maybe([int(R.randint(1, 4)) for _ in range(n)]), "dilations": maybe([int(R.randint(1, 3)) for _ in range(n)])}
    if R.rand() < 0.35:
        a["auto_pad"] = pick("SAME_UPPER", "SAME_LOWER", "VALID")
        if a["auto_pad"] != "VALID":
            a["dilations"] = None
    else:
        a["pads"] = maybe([int(R.randint(0, min(k))) for _ in range(2 * n)])
    return a


def convolution():
    for _ in range(3):
        n, g = pick(1, 2, 2, 3), pick(1, 1, 2, 3)
        cin, cout, k = g * R.randint(1, 3), g * R.randint(1, 4), dims(n, 1, 4)
        a = windows(n, k)
        a["kernel_shape"] = maybe(k)
        case("Conv", [f(pick(1, 2), cin, *spatial(n)), f(cout, cin // g, *k), maybe(f(cout))], opset=pick(7, 11, 22), fixed=pick((1, 2), ()), group=g, static=True, **a)
        a = windows(n, k)
        x = f(pick(1, 2), cin, *spatial(n, 7))
        if R.rand() < 0.3:
            a["output_padding"] = [int(R.randint(0, st)) for st in (a["strides"] or [1] * n)]
        case("ConvTranspose", [x, f(cin, cout // g, *k), maybe(f(cout))], opset=pick(7, 11), fixed=(1, 2), group=g, **a)
        st = [int(R.randint(1, 3)) for _ in range(n)]
        shape = [(d - 1) * t + kk + pick(0, 1, -1) for d, t, kk in zip(x.shape[2:], st, k)]
        case("ConvTranspose", [x, f(cin, cout // g, *k)], opset=11, fixed=(1,), group=g, strides=st, output_shape=shape, auto_pad=pick("SAME_UPPER", "SAME_LOWER", None), static=True)
    x, w = u8(1, 2, 6, 6), u8(4, 2, 3, 3)
    a = windows(2, [3, 3])
    case("ConvInteger", [x, w, maybe(s(7, np.uint8)), maybe(s(3, np.uint8))], opset=10, fixed=(1, 2, 3), static=True, **a)
    per = R.rand() < 0.5
    w = i(4, 2, 3, 3, lo=-128, hi=128, t=np.int8)
    ws = f(4, lo=0.01, hi=0.02) if per else s(0.015)
    case("QLinearConv", [x, s(0.02), s(120, np.uint8), w, ws, i(4, lo=0, hi=1, t=np.int8) if per else s(0, np.int8), s(0.5), s(100, np.uint8), maybe(i(4, lo=-500, hi=500, t=np.int32))],
         opset=10, fixed=(1, 2, 3, 4, 5, 6, 7, 8), static=True, **a)


def pooling():
    for _ in range(2):
        n = pick(1, 2, 2, 3)
        k = dims(n, 1, 4)
        x = f(pick(1, 2), 2, *spatial(n))
        a = windows(n, k)
        case("MaxPool", [x], outs=pick(1, 2), opset=pick(11, 12), ceil_mode=maybe(1), storage_order=maybe(1) if R.rand() < .3 else None, **a)
        case("MaxPool", [x], opset=8, **{**a, "dilations": None})
        case("MaxPool", [u8(*x.shape)], opset=12, ceil_mode=maybe(1), **a)
        case("AveragePool", [x], opset=pick(7, 10, 11), count_include_pad=maybe(1), **{**a, "dilations": None})
        case("AveragePool", [x], opset=pick(11, 19), count_include_pad=maybe(1), ceil_mode=maybe(1), **{**a, "dilations": None})
        case("AveragePool", [x], opset=19, count_include_pad=maybe(1), **a)
        case("LpPool", [x], opset=pick(11, 18), p=pick(1, 2, 3), **{**a, "dilations": None})
        for op in ("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"):
            case(op, [x], opset=pick(7, 17))
    x = f(1, 2, 6, 6)
    nodes = [helper.make_node("MaxPool", ["x"], ["a", "b"], kernel_shape=[2, 2], strides=[2, 2]),
             helper.make_node("MaxUnpool", ["a", "b"], ["y"], kernel_shape=[2, 2], strides=[2, 2])]
    graph("MaxUnpool", nodes, {"x": x}, ["y"])
    rois = s([[0, 0, 0, 3, 3], [0, 1, 1, 5, 4]])
    case("MaxRoiPool", [x, rois], pooled_shape=[2, 2], spatial_scale=1.0)
    rois = np.sort(f(3, 2, 2, lo=0, hi=5), axis=1).reshape(3, 4)
    case("RoiAlign", [x, rois.astype(F32), s([0, 0, 0], np.int64)], opset=pick(10, 16), fixed=(2,), output_height=2, output_width=3, sampling_ratio=pick(0, 2), spatial_scale=pick(1.0, 0.5), mode=pick("avg", "max"))
    mode = pick("bilinear", "nearest", "bicubic")
    case("GridSample", [x, f(1, 3, 4, 2, lo=-1.3, hi=1.3)], opset=16, mode=mode, padding_mode=pick("zeros", "border", "reflection"), align_corners=maybe(1))
    mode = pick("linear", "nearest", "cubic")
    case("GridSample", [x, f(1, 3, 4, 2, lo=-1.3, hi=1.3)], opset=20, mode=mode, padding_mode=pick("zeros", "border", "reflection"), align_corners=maybe(1))
    case("AffineGrid", [f(2, 2, 3), s([2, 3, 4, 5], np.int64)], opset=20, fixed=pick((1,), ()), align_corners=maybe(1))
    case("Col2Im", [f(1, 2 * 4, 9), s([4, 4], np.int64), s([2, 2], np.int64)], opset=18, fixed=(1, 2))


def normalisation():
    sh = [2, 4] + dims(pick(0, 1, 2, 2, 3))
    ch = lambda lo=-1.0: f(4, lo=lo)
    stats = [ch(), ch(), ch(), ch(0.2)]
    case("BatchNormalization", [f(*sh)] + stats, opset=pick(7, 9, 14, 15), fixed=pick((1, 2, 3, 4), ()), epsilon=maybe(1e-3))
    if len(sh) == 4:
        per = [f(*sh[1:]) for _ in range(3)] + [f(*sh[1:], lo=0.2)]
        case("BatchNormalization", [f(*sh)] + per, opset=7, spatial=0, static=True)
    case("BatchNormalization", [f(*sh)] + stats, outs=3, opset=15, training_mode=1, momentum=0.8)
    if len(sh) > 2:
        case("InstanceNormalization", [f(*sh), ch(), ch()], opset=pick(7, 17), epsilon=maybe(1e-2))
        case("LRN", [f(*sh)], size=pick(1, 2, 3, 5), alpha=0.3, beta=0.6, bias=1.5)
        case("GroupNormalization", [f(*sh), ch(), ch()], opset=21, num_groups=pick(1, 2, 4))
        case("GroupNormalization", [f(*sh), f(2), f(2)], opset=18, num_groups=2)
    axis = int(R.randint(-len(sh), 0))
    tail = sh[axis:]
    case("LayerNormalization", [f(*sh), f(*tail), maybe(f(*tail))], outs=pick(1, 3), axis=axis, epsilon=maybe(1e-3))
    case("RMSNormalization", [f(*sh), f(*tail)], opset=23, axis=axis, epsilon=maybe(1e-3))
    case("MeanVarianceNormalization", [f(2, 3, 4, 5)], opset=pick(9, 13), axes=maybe([0, 2, 3], maybe([1, 2])))


def recurrent():
    t, b, n, h = dims(4, 1, 5)
    way = pick("forward", "reverse", "bidirectional")
    d = 2 if way == "bidirectional" else 1
    acts = {"RNN": ["Tanh", "Relu", "Sigmoid"], "GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Relu"]}
    for op, gates in (("RNN", 1), ("GRU", 3), ("LSTM", 4)):
        ins = [f(t, b, n), f(d, gates * h, n), f(d, gates * h, h), maybe(f(d, 2 * gates * h)), maybe(i(b, lo=1, hi=t + 1, t=np.int32)), maybe(f(d, b, h))]
        a = {"hidden_size": h, "direction": way, "clip": maybe(0.8) if R.rand() < .3 else None}
        if R.rand() < 0.4:
            per = len({"RNN": "f", "GRU": "fg", "LSTM": "fgh"}[op])
            a["activations"] = [pick(*acts[op]) for _ in range(per)] * d
        if R.rand() < 0.3:
            pool = ["HardSigmoid", "LeakyRelu", "Elu", "Softsign", "Softplus", "Affine", "ScaledTanh", "ThresholdedRelu"]
            per = {"RNN": 1, "GRU": 2, "LSTM": 3}[op]
            names = [pick(*pool) for _ in range(per * d)]
            alphas = [0.3] * sum(x in ("HardSigmoid", "LeakyRelu", "Elu", "Affine", "ScaledTanh", "ThresholdedRelu") for x in names)
            betas = [0.6] * sum(x in ("HardSigmoid", "Affine", "ScaledTanh") for x in names)
            a.update(activations=names, activation_alpha=alphas or None, activation_beta=betas or None)
        if op == "GRU":
            a["linear_before_reset"] = maybe(1)
        if op == "LSTM":
            ins += [maybe(f(d, b, h)), maybe(f(d, 3 * h))]
            a["input_forget"] = maybe(1) if R.rand() < .3 else None
        case(op, ins, outs=3 if op == "LSTM" else 2, opset=pick(7, 14), fixed=pick((1, 2, 3), ()), **a)


def indexing():
    rank = R.randint(1, 4)
    sh = dims(rank, 2, 6)
    axis = int(R.randint(-rank, rank))
    size = sh[axis]
    x = any_type(*sh, types="f4 i8 i4 u1 f8")
    case("Gather", [x, i(*dims(R.randint(0, 3)), lo=-size, hi=size, t=pick(np.int32, np.int64))], opset=pick(11, 13), axis=axis, fixed=pick((), (1,)))
    ish = list(sh)
    ish[axis] = pick(1, 2, size)
    ix = i(*ish, lo=-size, hi=size)
    case("GatherElements", [x, ix], opset=pick(11, 13), axis=axis)
    up = any_type(*ish, types=x.dtype.str[1:])
    order = np.argsort(R.rand(*ish), axis=axis) if ish[axis] == size else ix[tuple(slice(0, 1) if k == axis % rank else slice(None) for k in range(rank))]
    case("ScatterElements", [x, order.astype(np.int64), up if order.shape == up.shape else up[tuple(slice(0, 1) if k == axis % rank else slice(None) for k in range(rank))]], opset=pick(11, 13), axis=axis)
    case("ScatterElements", [f(*sh), ix, f(*ish)], opset=pick(16, 18), axis=axis, reduction=pick("add", "mul", "max", "min"))
    m = R.randint(1, rank + 1)
    tuples = np.stack([i(3, lo=-d, hi=d) for d in sh[:m]], axis=-1)
    case("GatherND", [x, tuples], opset=pick(11, 13))
    case("ScatterND", [f(*sh), tuples, f(3, *sh[m:])], opset=pick(16, 18), reduction=pick("add", "mul", "max", "min"))
    case("GatherND", [f(2, 3, 4), i(2, 2, 1, lo=0, hi=3)], opset=12, batch_dims=1)
    case("OneHot", [i(*dims(R.randint(1, 3)), lo=-4, hi=5, t=pick(np.int64, np.int32)).astype(pick(np.int64, np.int32)), s(pick(4, [4]), np.int64), s([0.5, 2])], opset=pick(9, 11), axis=pick(-1, 0), fixed=(1,))
    case("Compress", [x, i(size, lo=0, hi=2).astype(bool)], opset=pick(9, 11), axis=axis)
    case("Compress", [x, i(int(R.randint(1, 4)), lo=0, hi=2).astype(bool)], opset=11)
    case("NonZero", [i(*sh, lo=0, hi=2, t=pick(np.int32, np.int64))], opset=13)
    case("Unique", [i(*sh, lo=0, hi=4)], outs=4, opset=11, axis=maybe(axis), sorted_=None, sorted=maybe(0))
    case("ReverseSequence", [f(3, 4, 2), s([1, 3, 2, 2] if R.rand() < 2 else [1], np.int64)], opset=10, time_axis=0, batch_axis=1)
    case("Trilu", [f(*dims(R.randint(2, 4))), maybe(s(int(R.randint(-3, 4)), np.int64))], opset=14, upper=maybe(0), fixed=pick((), (1,)))
    boxes = f(2, 6, 4, lo=0, hi=1)
    corners = np.concatenate([np.minimum(boxes[..., :2], boxes[..., 2:]), np.maximum(boxes[..., :2], boxes[..., 2:])], -1)
    case("NonMaxSuppression", [corners, f(2, 3, 6, lo=0, hi=1), s([2], np.int64), s([0.4]), maybe(s([0.3]))], opset=pick(10, 11), fixed=pick((2, 3, 4), ()), center_point_box=maybe(1))


def shapes():
    rank = R.randint(1, 5)
    sh = dims(rank, 1, 5)
    x = any_type(*sh, types="f4 i8 i4 u1 f8 i2")
    axis = int(R.randint(-rank, rank))
    perm = R.permutation(rank).tolist()
    case("Transpose", [x], perm=maybe(perm), opset=13)
    case("Flatten", [x], axis=int(R.randint(0, rank + 1)), opset=pick(9, 13))
    n = int(np.prod(sh))
    case("Reshape", [x, s(pick([-1], [1, -1], [0] + [-1], [n, 1]), np.int64)], opset=pick(7, 13, 14), fixed=pick((), (1,)))
    case("Tile", [x, i(rank, lo=1, hi=4)], opset=13, fixed=pick((), (1,)))
    case("Concat", [x, any_type(*[2 if k == axis % rank else d for k, d in enumerate(sh)], types=x.dtype.str[1:])], axis=axis, opset=13)
    parts = [1, 2, 3][:R.randint(1, 4)]
    y = f(*[sum(parts) if k == axis % rank else d for k, d in enumerate(sh)])
    case("Split", [y], outs=len(parts), axis=axis, split=parts, opset=11)
    case("Split", [y, s(parts, np.int64)], outs=len(parts), axis=axis, opset=13, fixed=(1,))
    case("Split", [f(*[7 if k == axis % rank else d for k, d in enumerate(sh)])], outs=3, axis=axis, opset=18, num_outputs=3)
    ones = list(sh)
    ones.insert(R.randint(0, rank + 1), 1)
    at = ones.index(1)
    case("Squeeze", [f(*ones)], opset=11, axes=[at])
    case("Squeeze", [f(*ones), s([at - len(ones)], np.int64)], opset=13, fixed=pick((), (1,)))
    case("Unsqueeze", [x], opset=11, axes=[0, rank + 1])
    case("Unsqueeze", [x, s([-1, 0], np.int64)], opset=13, fixed=pick((), (1,)))
    case("Shape", [x], opset=15, start=maybe(int(R.randint(-rank, rank))), end=maybe(int(R.randint(-rank, rank + 1))))
    case("Size", [x])
    starts, ends, steps, axes = [], [], [], []
    for k in R.choice(rank, R.randint(1, rank + 1), replace=False):
        step = pick(1, 1, 2, -1, -2)
        a, b = int(R.randint(-sh[k] - 1, sh[k] + 1)), pick(int(R.randint(-sh[k] - 1, sh[k] + 2)), 2**31 - 1, -2**31)
        axes.append(int(k) if R.rand() < .5 else int(k) - rank), starts.append(a), ends.append(b), steps.append(step)
    case("Slice", [x] + [s(v, np.int64) for v in (starts, ends, axes, steps)], opset=pick(10, 13), fixed=pick((1, 2, 3, 4), ()), static=maybe(True))
    case("Slice", [x], opset=9, starts=[0], ends=[pick(2, -1, 9999)], axes=maybe([0]))
    pads = [int(R.randint(0, 2)) for _ in range(2 * rank)]
    case("Pad", [x.astype(F32)], opset=7, pads=pads, mode="constant", value=1.5)
    mode = pick("constant", "edge", "reflect")
    big = f(*[d + 1 for d in sh])
    case("Pad", [big, s(pads, np.int64), maybe(s(2.5)) if mode == "constant" else None], opset=pick(11, 13), fixed=pick((1,), (1, 2)), mode=mode)
    case("Pad", [big, s([-1 if p and mode == "constant" else p for p in pads], np.int64)], opset=13, fixed=(1,), mode=mode)
    mode = pick("constant", "edge", "reflect", "wrap")
    case("Pad", [big, s([1, 1], np.int64), None, s([axis], np.int64)], opset=pick(18, 19) if mode != "wrap" else 19, fixed=(1, 3), mode=mode)
    case("DepthToSpace", [f(1, 8, 2, 3)], blocksize=2, mode=pick("DCR", "CRD"), opset=13)
    case("SpaceToDepth", [f(1, 2, 4, 6)], blocksize=2)
    case("EyeLike", [f(3, 4)], k=pick(0, 1, -1), dtype=maybe(7))
    t = pick(np.int64, np.int32, F32, F64)
    case("Range", [s(pick(0, 2, -3), t), s(pick(7, 9), t), s(pick(1, 2, 3), t)], fixed=pick((), (0, 1, 2)))
    case("ConstantOfShape", [s(dims(R.randint(0, 3)), np.int64)], fixed=pick((), (0,)), value=helper.make_tensor("v", 1, [1], [2.5]))
    case("CenterCropPad", [f(5, 4, 3), s([3, 6], np.int64)], opset=18, fixed=pick((), (1,)), axes=[0, 1])


def products():
    a, b, k = dims(3)
    case("MatMul", [f(*pick((a, k), (2, a, k), (3, 1, a, k), (k,))), f(*pick((k, b), (2, k, b), (k,)))], opset=pick(9, 13))
    case("MatMul", [i(a, k, t=np.int32), i(k, b, t=np.int32)], opset=13)
    ta, tb = maybe(1), maybe(1)
    case("Gemm", [f(*((k, a) if ta else (a, k))), f(*((b, k) if tb else (k, b))), maybe(f(*pick((b,), (1, b), (a, 1), (a, b), ())))], opset=pick(7, 9, 11, 13), transA=ta, transB=tb, alpha=maybe(0.5), beta=maybe(2.0), fixed=pick((), (1,)))
    for eq, shs in (("bij,bjk->bik", [(2, a, k), (2, k, b)]), ("...ij,...jk->...ik", [(2, a, k), (k, b)]), ("ij->ji", [(a, b)]), ("ii->i", [(a, a)]), ("ij,kj->ik", [(a, k), (b, k)]),
                    ("bhsd,bhtd->bhst", [(1, 2, a, k), (1, 2, b, k)]), ("i,j->ij", [(a,), (b,)]), ("ij", [(a, b)]), ("ba", [(a, b)]), ("ijk->", [(a, b, k)]), ("...i->...", [(a, b)]),
                    ("ab,bc,cd->ad", [(a, b), (b, k), (k, 2)]), ("i,i", [(a,), (a,)]), ("b n h w, n d -> b d h w", [(1, a, 2, 3), (a, b)])):
        if R.rand() < 0.3:
            case("Einsum", [f(*x) for x in shs], opset=12, equation=eq)
    case("MatMulInteger", [u8(2, a, k), pick(u8(k, b), i(k, b, t=np.int8)), maybe(s(3, np.uint8))], opset=10)
    case("QLinearMatMul", [u8(a, k), s(0.02), s(113, np.uint8), u8(k, b), s(0.03), s(120, np.uint8), s(0.05), s(110, np.uint8)], opset=10, fixed=range(1, 8))
    case("DynamicQuantizeLinear", [f(a, k)], outs=3, opset=11)
    case("Det", [f(2, 3, 3)], opset=11)


def quantised():
    x = f(3, 4, 5)
    t = pick(np.uint8, np.int8, np.uint16, np.int16)
    axis = pick(0, 1, 2, -1)
    n = x.shape[axis]
    zero = i(n, lo=0, hi=9, t=t)
    op = pick(10, 13, 19, 21) if np.dtype(t).itemsize == 1 else 21
    case("QuantizeLinear", [x, s(0.03), maybe(s(5, np.uint8))], opset=pick(10, 13, 19, 21), fixed=(1, 2))
    if op > 10:
        case("QuantizeLinear", [x, f(n, lo=0.01, hi=0.05), zero], opset=op, fixed=(1, 2), axis=axis)
        case("DequantizeLinear", [i(3, 4, 5, lo=0, hi=100, t=t), f(n, lo=0.01, hi=0.05), maybe(zero)], opset=op, fixed=(1, 2), axis=axis)
    case("DequantizeLinear", [i(3, 4, t=np.int32), s(0.1)], opset=13)
    case("QuantizeLinear", [f(4, 6), f(4, 3, lo=0.01, hi=0.05), i(4, 3, lo=0, hi=9, t=np.uint8)], opset=21, fixed=(1, 2), axis=1, block_size=2)
    case("DequantizeLinear", [u8(4, 6), f(2, 6, lo=0.01, hi=0.05), i(2, 6, lo=0, hi=9, t=np.uint8)], opset=21, fixed=(1, 2), axis=0, block_size=2)
    case("QuantizeLinear", [x.astype(F16), s(0.03, F16), s(5, np.uint8)], opset=19, fixed=(1, 2))
    case("DequantizeLinear", [u8(3, 4), s(0.03, F16), s(5, np.uint8)], opset=19, fixed=(1, 2))


def sequences():
    parts = [helper.make_node("SplitToSequence", ["x"] + maybe(["k"], []), ["q"], axis=pick(0, 1), keepdims=1)]
    x = f(6, 4)
    op = pick("ConcatFromSequence", "SequenceAt", "SequenceLength", "SequenceInsert", "SequenceErase")
    kept = [numpy_helper.from_array(s(2, np.int64), "k"), numpy_helper.from_array(s(pick(0, 1, -1), np.int64), "p")]
    if op == "ConcatFromSequence":
        tail = [helper.make_node(op, ["q"], ["y"], axis=pick(0, 1))]
    elif op == "SequenceInsert":
        tail = [helper.make_node(op, ["q", "x", "p"], ["r"]), helper.make_node("SequenceLength", ["r"], ["y"])]
    elif op == "SequenceErase":
        tail = [helper.make_node(op, ["q", "p"], ["r"]), helper.make_node("ConcatFromSequence", ["r"], ["y"], axis=0)]
    elif op == "SequenceAt":
        tail = [helper.make_node(op, ["q", "p"], ["y"])]
    else:
        tail = [helper.make_node(op, ["q"], ["y"])]
    graph(op, parts + tail, {"x": x}, ["y"], kept, opset=pick(11, 17))


def control():
    info = lambda n, t=1, sh=None: helper.make_tensor_value_info(n, t, sh)
    body = helper.make_graph([helper.make_node("Add", ["a", "w"], ["b"]), helper.make_node("Identity", ["b"], ["c"]), helper.make_node("Identity", ["cond"], ["cond2"])],
                             "body", [info("it", 7, []), info("cond", 9, []), info("a", 1, [3])], [info("cond2", 9, []), info("b", 1, [3]), info("c", 1, [3])])
    node = helper.make_node("Loop", ["n", "", "x"], ["y", "z"], body=body)
    graph("Loop", [node], {"n": s(int(R.randint(0, 5)), np.int64), "x": f(3), "w": f(3)}, ["y", "z"], opset=pick(11, 13, 16))
    grow = helper.make_graph([helper.make_node("Concat", ["a", "w"], ["b"], axis=0), helper.make_node("ReduceSum", ["b"], ["t"], keepdims=0), helper.make_node("Less", ["t", "top"], ["go"])],
                             "grow", [info("it", 7, []), info("cond", 9, []), info("a", 1, [None])], [info("go", 9, []), info("b", 1, [None])])
    kept = [numpy_helper.from_array(s(float(R.uniform(2, 9))), "top"), numpy_helper.from_array(s(True, bool), "yes")]
    graph("Loop", [helper.make_node("Loop", ["n", "yes", "x"], ["y"], body=grow)], {"n": s(7, np.int64), "x": f(2, lo=0), "w": f(2, lo=0.1)}, ["y"], kept, opset=13)
    step = helper.make_graph([helper.make_node("Add", ["h", "r"], ["h2"]), helper.make_node("Mul", ["h2", "r"], ["o"])],
                             "step", [info("h", 1, [2]), info("r", 1, [2])], [info("h2", 1, [2]), info("o", 1, [2])])
    graph("Scan", [helper.make_node("Scan", ["h0", "xs"], ["hn", "os"], body=step, num_scan_inputs=1, scan_input_directions=[pick(0, 1)], scan_output_directions=[pick(0, 1)], scan_input_axes=[1], scan_output_axes=[1])],
          {"h0": f(2), "xs": f(2, 4)}, ["hn", "os"], opset=pick(9, 11, 16))
    lens = R.rand() < 0.5
    graph("Scan", [helper.make_node("Scan", ["l" if lens else "", "h0", "xs"], ["hn", "os"], body=step, num_scan_inputs=1, directions=[pick(0, 1)])],
          {**({"l": s([2, 4, 3], np.int64)} if lens else {}), "h0": f(3, 2), "xs": f(3, 4, 2)}, ["hn", "os"], opset=8, static=True)
    then = helper.make_graph([helper.make_node("Relu", ["x"], ["t"])], "then", [], [info("t")])
    other = helper.make_graph([helper.make_node("Concat", ["x", "x"], ["e"], axis=0)], "else", [], [info("e")])
    graph("If", [helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other)], {"c": s(bool(R.randint(2)), bool), "x": f(2, 3)}, ["y"], opset=pick(11, 13, 16))


def signal():
    n = int(R.randint(4, 10))
    for op in ("HannWindow", "HammingWindow", "BlackmanWindow"):
        case(op, [s(n, np.int64)], fixed=pick((), (0,)), periodic=maybe(0))
    case("DFT", [f(2, n, pick(1, 2))], opset=17, axis=1, onesided=None, inverse=None)
    case("DFT", [f(2, n, 1)], opset=17, axis=1, onesided=1)
    case("DFT", [f(2, n, 2), s(n + pick(-1, 0, 2), np.int64), s(1, np.int64)], opset=20, fixed=(1, 2), inverse=maybe(1))
    case("STFT", [f(1, 32, 1), s(pick(4, 8), np.int64), f(8), s(8, np.int64)], fixed=(1, 3), onesided=maybe(0))
    case("MelWeightMatrix", [s(8, np.int64), s(16, np.int64), s(8000, np.int64), s(0.0), s(4000.0)], fixed=range(5))


def modern():
    b, hq, hk, sq, d = 2, 4, pick(1, 2, 4), int(R.randint(1, 5)), 8
    past = pick(0, 0, 3)
    sk = pick(sq, sq, sq + 2)
    q, k, v = f(b, hq, sq, d), f(b, hk, sk, d), f(b, hk, sk, d)
    t = past + sk
    mask = pick(None, f(sq, t), f(b, 1, sq, t), i(sq, t, lo=0, hi=2).astype(bool), i(b, hq, sq, t, lo=0, hi=4).astype(bool))
    cache = [f(b, hk, past, d), f(b, hk, past, d)] if past else [None, None]
    attrs = dict(is_causal=maybe(1), scale=maybe(0.4), softcap=maybe(1.5) if R.rand() < .5 else None)
    if R.rand() < 0.5:
        flat = lambda a: np.ascontiguousarray(a.transpose(0, 2, 1, 3)).reshape(b, a.shape[2], -1)
        q, k, v = flat(q), flat(k), flat(v)
        attrs.update(q_num_heads=hq, kv_num_heads=hk)
    case("Attention", [q, k, v, mask] + cache, outs=3 if past else 1, opset=pick(23, 24), **attrs)
    case("Attention", [q, k, v, mask] + cache, outs=4 if past else ["y0", "", "", "y3"], opset=23, qk_matmul_output_mode=pick(0, 1, 2, 3), **attrs)
    case("Attention", [q, k, v, None, None, None, i(b, lo=1, hi=sk + 1)], opset=24, **attrs)
    case("RotaryEmbedding", [f(b, hq, sq, d), f(16, d // 2), f(16, d // 2), i(b, sq, lo=0, hi=16)], opset=23, interleaved=maybe(1))
    case("RotaryEmbedding", [f(b, sq, hq * d), f(b, sq, d // 4), f(b, sq, d // 4)], opset=23, num_heads=hq, rotary_embedding_dim=d // 2, interleaved=maybe(1))
    case("TensorScatter", [f(b, hk, 8, d), f(b, hk, 2, d), maybe(i(b, lo=0, hi=6))], opset=24, mode=pick("linear", "circular"))
    case("Swish", [f(2, 3)], opset=24, alpha=maybe(0.7))
    case("CumProd", [f(2, 3, 4), s(pick(0, 1, -1), np.int64)], opset=26, fixed=(1,), exclusive=maybe(1), reverse=maybe(1))


FAMILIES = [elementwise, binary, reduce, resize, convolution, pooling, normalisation, recurrent, indexing, shapes, products, quantised, sequences, control, signal, modern]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("out", help="folder of the suite; what it holds is replaced")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--only", default="", help="families with this in their name")
    args = p.parse_args()
    ort.set_default_logger_severity(4)
    families = [*FAMILIES, *contrib_families()]
    root = pathlib.Path(args.out) / "ort"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    refused, written = collections.Counter(), 0
    for family in families:
        if args.only not in family.__name__:
            continue
        for r in range(args.rounds):
            R.seed([args.seed, r, sum(map(ord, family.__name__))])
            CASES.clear()
            family()
            for k, (name, nodes, fed, outputs, kept, opset, static) in enumerate(CASES):
                model = build(nodes, fed, outputs, kept, opset, static)
                try:
                    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
                    got = session.run(None, fed)
                    write(root / f"{family.__name__}_{name}_{r}_{k}", model, fed, got)
                    written += 1
                except Exception as e:
                    refused[f"{name}-{opset}: {str(e)[:110]}".replace("\n", " ")] += 1
    for why, n in sorted(refused.items()):
        print(n, why)
    print(f"{written} models written, {sum(refused.values())} refused by ONNX Runtime")


def contrib_families():
    import differ_ms

    return differ_ms.families(sys.modules[__name__])


if __name__ == "__main__":
    main()
