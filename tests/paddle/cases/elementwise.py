"""Arithmetic, comparisons, activations."""
from goldens import Bf16, b, f, i, np, op, pir

x, y = f(2, 3, 4), f(2, 3, 4)
for name in "add sub mul div max min pow mod floordiv fmax fmin heaviside".split():
    kind = "elementwise_" + name
    pos = name in ("pow", "div", "mod", "floordiv")
    xx = f(2, 3, 4, lo=0.25) if pos else x
    yy = f(2, 3, 4, lo=0.25) if pos else y
    op(kind, {"X": xx, "Y": yy})
    if name not in ("fmax", "fmin", "heaviside", "pow"):
        op(kind, {"X": xx, "Y": yy[0, :, :1].ravel()}, {"axis": 1})
    op(kind, {"X": i(3, 2, lo=-9, hi=9), "Y": np.array([[2, -3]], "int64")})
op("elementwise_add", {"X": f(2, 3, 4), "Y": f(4)})
op("elementwise_add", {"X": f(2, 3, 4), "Y": f(2, 3)}, {"axis": 0})
op("elementwise_mod", {"X": f(2, 3), "Y": np.array([[1.5, -0.75, 0.5]], "float32")})
op("elementwise_floordiv", {"X": i(4, lo=-9, hi=9, dtype="int32"), "Y": np.array([2, -2, 3, -3], "int32")})
op("elementwise_add", {"X": f(2, 3, dtype="float64"), "Y": f(2, 3, dtype="float64")})
for kind in "equal not_equal less_than less_equal greater_than greater_equal".split():
    op(kind, {"X": i(3, 4, hi=3), "Y": i(3, 4, hi=3)})
    op(kind, {"X": f(2, 3), "Y": f(3)})
for kind in "logical_and logical_or logical_xor".split():
    op(kind, {"X": b(3, 4), "Y": b(3, 4)})
    op(kind, {"X": i(3, 4, hi=2), "Y": i(4, hi=2)})
op("logical_not", {"X": b(3, 4)})
op("logical_not", {"X": i(3, 4, hi=2)})
for kind in "bitwise_and bitwise_or bitwise_xor".split():
    op(kind, {"X": i(3, 4, hi=256, dtype="int32"), "Y": i(3, 4, hi=256, dtype="int32")})
    op(kind, {"X": b(3, 4), "Y": b(4)})
for kind in "bitwise_left_shift bitwise_right_shift".split():
    op(kind, {"x": i(3, 4, lo=-90, hi=256, dtype="int32"), "y": i(3, 4, hi=5, dtype="int32")})
op("bitwise_not", {"X": i(3, 4, hi=256, dtype="int32")})
op("bitwise_not", {"X": b(3, 4)})

for kind in """sigmoid tanh exp expm1 sin cos tan atan sinh cosh asinh erf sign abs floor ceil round trunc
        square softsign logsigmoid tanh_shrink silu """.split():
    op(kind, {"X": f(3, 4)})
op("round", {"X": np.array([0.5, 1.5, 2.5, -0.5, -1.5, 2.4, -2.6], "float32")})
for kind in "log log2 log10 sqrt rsqrt reciprocal digamma lgamma acosh".split():
    op(kind, {"X": f(3, 4, lo=1.0625, hi=4)})
op("log1p", {"X": f(3, 4, lo=-0.75)})
for kind in "asin acos atanh erfinv".split():
    op(kind, {"X": f(3, 4, lo=-0.9, hi=0.9)})
op("atan2", {"X1": f(3, 4), "X2": f(3, 4)})
op("exp", {"X": f(3, 4, dtype="float64")})
for kind in ("abs", "sign", "square"):
    op(kind, {"X": i(6, lo=-5, hi=5, dtype="int32")})
bad = np.array([1.0, np.nan, np.inf, -np.inf, 0.0], "float32")
for kind in "isnan_v2 isinf_v2 isfinite_v2".split():
    op(kind, {"X": bad})
    op(kind, {"X": i(4)})
x = f(3, 5, lo=-8, hi=8)
op("relu", {"X": x})
op("relu6", {"X": x})
op("relu6", {"X": x}, {"threshold": 4.0}, pir=False)
op("brelu", {"X": f(3, 5, lo=-8, hi=30)})
op("brelu", {"X": x}, {"t_min": -1.0, "t_max": 2.5})
op("leaky_relu", {"X": x})
op("leaky_relu", {"X": x}, {"alpha": 0.2})
op("elu", {"X": x})
op("elu", {"X": x}, {"alpha": 0.5})
op("gelu", {"X": x})
op("gelu", {"X": x}, {"approximate": True})
op("swish", {"X": x})
op("swish", {"X": x}, {"beta": 1.0})
op("hard_sigmoid", {"X": x})
op("hard_sigmoid", {"X": x}, {"slope": 1.0 / 6, "offset": 0.4})
op("hard_swish", {"X": x})
op("hard_swish", {"X": x}, {"threshold": 5.0, "scale": 4.0, "offset": 2.0}, pir=False)
op("mish", {"X": x}, {"threshold": 20.0})
op("mish", {"X": x})
op("softplus", {"X": x})
op("softplus", {"X": x}, {"beta": 2.0, "threshold": 3.0})
op("softplus", {"X": x}, {"beta": 1.0, "threshold": 2.0})
op("selu", {"X": x})
op("celu", {"X": x})
op("celu", {"X": x}, {"alpha": 0.5})
op("stanh", {"X": x})
op("stanh", {"X": x}, {"scale_a": 0.5, "scale_b": 2.0})
op("hard_shrink", {"X": x})
op("hard_shrink", {"X": x}, {"threshold": 2.0})
op("softshrink", {"X": x})
op("softshrink", {"X": x}, {"lambda": 2.0})
op("thresholded_relu", {"X": x})
op("thresholded_relu", {"X": x}, {"threshold": 2.0})
op("logit", {"X": f(3, 4, lo=0.05, hi=0.95)})
op("logit", {"X": f(3, 4, lo=0, hi=1)}, {"eps": 0.1})
op("swiglu", {"x": f(3, 4)}, outs="out")
op("swiglu", {"x": f(3, 4), "y": f(3, 4)}, outs="out")
for kind in "i0 i0e i1 i1e".split():
    op(kind, {"x": f(3, 4)}, outs="out")
op("clip", {"X": x}, {"min": -1.0, "max": 2.0})
op("clip", {"X": x, "Min": np.array([-2.0], "float32"), "Max": np.array([0.5], "float32")},
   {"min": -9.0, "max": 9.0})
op("clip", {"X": i(5, lo=-5, hi=5)}, {"min": -2.0, "max": 2.0})
op("scale", {"X": x})
op("scale", {"X": x}, {"scale": 2.0, "bias": 0.5})
op("scale", {"X": x}, {"scale": 2.0, "bias": 0.5, "bias_after_scale": False})
op("scale", {"X": x, "ScaleTensor": np.array([3.0], "float32")}, {"bias": 1.0})
op("scale", {"X": i(4)}, {"scale": 2.0, "bias": 1.0})
op("pow", {"X": f(3, 4, lo=0.25)})
op("pow", {"X": f(3, 4, lo=0.25)}, {"factor": 2.5})
op("pow", {"X": f(3, 4)}, {"factor": 3.0})
op("pow", {"X": f(3, 4, lo=0.25), "FactorTensor": np.array([1.5], "float32")}, pir=False)
op("increment", {"X": np.array([3.0], "float32")})
op("increment", {"X": np.array([3], "int64")}, {"step": 2.0})
op("sum", {"X": [f(2, 3), f(2, 3), f(2, 3)]})
op("sum", {"X": [f(2, 3)]})
op("where", {"Condition": b(3, 4), "X": f(3, 4), "Y": f(3, 4)})
for mode, a in (("all", f(1)), ("channel", f(1, 3, 1, 1)), ("element", f(1, 3, 2, 2))):
    op("prelu", {"X": f(2, 3, 2, 2), "Alpha": a}, {"mode": mode})
op("prelu", {"X": f(2, 2, 2, 3), "Alpha": f(3)}, {"mode": "channel", "data_format": "NHWC"})
op("dropout", {"X": f(3, 4)}, {"is_test": True}, outs="Out")
op("dropout", {"X": f(3, 4)}, {"is_test": True, "dropout_prob": 0.25}, outs="Out")
op("dropout", {"X": f(3, 4)}, {"is_test": True, "dropout_implementation": "upscale_in_train"}, outs="Out")
DT = {"bool": 0, "int32": 2, "int64": 3, "float16": 4, "float32": 5, "float64": 6, "uint8": 20, "int8": 21}
for to in DT:
    op("cast", {"X": f(3, 4, lo=0 if to == "uint8" else -8, hi=8)}, {"in_dtype": 5, "out_dtype": DT[to]})
op("cast", {"X": i(4, lo=-4, hi=4)}, {"in_dtype": 3, "out_dtype": 5})
op("lerp", {"X": f(3, 4), "Y": f(3, 4), "Weight": f(4)})
pir("remainder", {"X": f(2, 3), "Y": f(3, lo=0.5)}, lambda C, x, y: C.remainder(x, y))
op("copysign", {"x": f(2, 3), "y": f(2, 3)}, outs="out")
pir("nextafter", {"X": f(2, 3), "Y": f(2, 3)}, lambda C, x, y: C.nextafter(x, y))
op("rrelu", {"X": f(2, 3)}, {"lower": 0.1, "upper": 0.3, "is_test": True}, outs="Out")
