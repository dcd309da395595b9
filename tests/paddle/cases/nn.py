"""Convolutions, pools, resampling, indexing."""
from goldens import b, f, i, np, op, paddle, pir, program

I32 = lambda *v: np.array(v, "int32")  # noqa: E731
w = f(4, 3, 3, 3)
op("conv2d", {"Input": f(1, 3, 5, 5), "Filter": w})
op("conv2d", {"Input": f(1, 3, 5, 5), "Filter": w}, {"strides": [2, 1], "paddings": [1, 2], "dilations": [1, 2]})
op("conv2d", {"Input": f(1, 3, 5, 5), "Filter": w}, {"paddings": [0, 1, 2, 1]})
op("conv2d", {"Input": f(1, 3, 5, 6), "Filter": w}, {"padding_algorithm": "SAME", "strides": [2, 2]})
op("conv2d", {"Input": f(1, 3, 5, 5), "Filter": w}, {"padding_algorithm": "VALID", "paddings": [1, 1]})
op("conv2d", {"Input": f(1, 5, 5, 3), "Filter": w}, {"data_format": "NHWC", "paddings": [1, 1]})
op("conv2d", {"Input": f(1, 4, 4, 4), "Filter": f(4, 2, 2, 2)}, {"groups": 2})
op("depthwise_conv2d", {"Input": f(1, 4, 4, 4), "Filter": f(4, 1, 3, 3)}, {"groups": 4, "paddings": [1, 1]})
op("depthwise_conv2d", {"Input": f(1, 2, 4, 4), "Filter": f(4, 1, 2, 2)}, {"groups": 2})
op("conv3d", {"Input": f(1, 2, 3, 4, 4), "Filter": f(3, 2, 2, 2, 2)}, {"strides": [1, 2, 1], "paddings": [1, 0, 1]})
op("conv2d_transpose", {"Input": f(1, 3, 3, 3), "Filter": f(3, 2, 3, 3)})
op("conv2d_transpose", {"Input": f(1, 3, 3, 3), "Filter": f(3, 2, 3, 3)}, {"strides": [2, 2], "paddings": [1, 1], "output_padding": [1, 0]})
op("conv2d_transpose", {"Input": f(1, 3, 3, 3), "Filter": f(3, 2, 3, 3)}, {"strides": [2, 2], "paddings": [1, 1], "output_size": [6, 5]})
op("conv2d_transpose", {"Input": f(1, 4, 3, 3), "Filter": f(4, 1, 2, 2)}, {"groups": 2, "dilations": [2, 1]})
op("conv2d_transpose", {"Input": f(1, 3, 3, 3), "Filter": f(3, 2, 3, 3)}, {"padding_algorithm": "SAME", "strides": [2, 2]})
op("depthwise_conv2d_transpose", {"Input": f(1, 3, 3, 3), "Filter": f(3, 1, 2, 2)}, {"groups": 3, "strides": [2, 2]})
op("conv3d_transpose", {"Input": f(1, 2, 2, 2, 2), "Filter": f(2, 2, 2, 2, 2)}, {"strides": [1, 2, 2]})
x = f(1, 2, 5, 6)
for kind in ("max", "avg"):
    op("pool2d", {"X": x}, {"pooling_type": kind, "ksize": [2, 3]})
    op("pool2d", {"X": x}, {"pooling_type": kind, "ksize": [3, 3], "strides": [2, 2], "paddings": [1, 1]})
    op("pool2d", {"X": x}, {"pooling_type": kind, "ksize": [3, 3], "strides": [2, 2], "paddings": [1, 1], "exclusive": False})
    op("pool2d", {"X": x}, {"pooling_type": kind, "ksize": [2, 2], "strides": [2, 2], "ceil_mode": True})
    # Paddle's pool2d takes no account of `adaptive` with `max` (max_pool2d_with_index does), and gives the
    # least number for windows that lie outside.
    if kind == "avg":
        op("pool2d", {"X": x}, {"pooling_type": kind, "ksize": [2, 4], "adaptive": True})
        op("pool2d", {"X": x}, {"pooling_type": kind, "ksize": [1, 1], "adaptive": True})
        op("pool3d", {"X": f(1, 1, 4, 4, 5)}, {"pooling_type": kind, "ksize": [2, 2, 3], "adaptive": True})
        op("pool2d", {"X": x}, {"pooling_type": kind, "ksize": [2, 2], "strides": [2, 2], "ceil_mode": True, "paddings": [1, 1], "exclusive": False})
    op("pool2d", {"X": x}, {"pooling_type": kind, "ksize": [2, 2], "global_pooling": True, "paddings": [1, 1]})
    op("pool2d", {"X": x}, {"pooling_type": kind, "ksize": [2, 2], "strides": [2, 2], "padding_algorithm": "SAME"})
    op("pool2d", {"X": x}, {"pooling_type": kind, "ksize": [2, 2], "strides": [2, 2], "paddings": [0, 1, 1, 0]})
    op("pool2d", {"X": f(1, 4, 4, 2)}, {"pooling_type": kind, "ksize": [2, 2], "strides": [2, 2], "data_format": "NHWC"})
    op("pool3d", {"X": f(1, 1, 4, 4, 4)}, {"pooling_type": kind, "ksize": [2, 2, 2], "strides": [2, 1, 2]})
op("max_pool2d_with_index", {"X": x}, {"ksize": [2, 2], "strides": [2, 2]})
op("max_pool2d_with_index", {"X": x}, {"ksize": [3, 3], "strides": [2, 2], "paddings": [1, 1]})
op("max_pool2d_with_index", {"X": x}, {"ksize": [2, 2], "global_pooling": True})
op("max_pool2d_with_index", {"X": x}, {"ksize": [2, 4], "adaptive": True})
op("max_pool3d_with_index", {"X": f(1, 1, 4, 4, 4)}, {"ksize": [2, 2, 2], "strides": [2, 2, 2]})
op("unpool", {"X": f(1, 1, 2, 2), "Indices": np.array([[[[0, 3], [9, 14]]]], "int32")}, {"unpooling_type": "max", "ksize": [2, 2], "strides": [2, 2], "paddings": [0, 0], "output_size": [4, 4]})
op("spp", {"X": x}, {"pyramid_height": 2, "pooling_type": "max"}, old=True)
op("maxout", {"X": f(1, 4, 2, 2)}, {"groups": 2})
op("maxout", {"X": f(1, 2, 2, 4)}, {"groups": 2, "axis": -1})
for kind, dims, size, fmt in (("nearest", (1, 2, 3, 4), {"out_h": 5, "out_w": 7}, "NHWC"), ("bilinear", (1, 2, 3, 4), {"out_h": 5, "out_w": 7}, "NHWC"),
                              ("bicubic", (1, 1, 4, 4), {"out_h": 7, "out_w": 3}, "NHWC"), ("linear", (1, 2, 4), {"out_w": 7}, "NWC"),
                              ("trilinear", (1, 1, 2, 3, 4), {"out_d": 3, "out_h": 5, "out_w": 7}, "NDHWC")):
    n = len(dims) - 2
    for corners in (True, False):
        for mode in ((0, 1) if kind in ("bilinear", "linear", "trilinear") and not corners else (1,)):
            at = {"interp_method": kind, "align_corners": corners, "align_mode": mode}
            op(f"{kind}_interp_v2", {"X": f(*dims)}, {**at, **size})
            op(f"{kind}_interp_v2", {"X": f(*dims)}, {**at, "scale": [1.5] * n})
    op(f"{kind}_interp_v2", {"X": f(*dims)}, {"interp_method": kind, "align_corners": False, "scale": [0.6] * n})
    op(f"{kind}_interp_v2", {"X": f(*dims), "OutSize": I32(*([5] * n))}, {"interp_method": kind, "align_corners": False}, const="OutSize")
    op(f"{kind}_interp_v2", {"X": f(*dims), "SizeTensor": [I32(6)] * n}, {"interp_method": kind, "align_corners": False}, const="SizeTensor")
    op(f"{kind}_interp_v2", {"X": f(*dims), "Scale": np.array([2.0] * n, "float32")}, {"interp_method": kind, "align_corners": False}, const="Scale")
    op(f"{kind}_interp_v2", {"X": f(*dims)}, {"interp_method": kind, "align_corners": False, "align_mode": 0, **{k: 1 for k in size}})
    op(f"{kind}_interp", {"X": f(*dims)}, {"interp_method": kind, **size}, old=kind != "bilinear", pir=False)
    op(f"{kind}_interp", {"X": f(*dims)}, {"interp_method": kind, "align_corners": False, "scale": 2.0}, old=kind != "bilinear", pir=False)
op("bilinear_interp_v2", {"X": f(1, 3, 4, 2)}, {"interp_method": "bilinear", "align_corners": False, "data_layout": "NHWC", "out_h": 5, "out_w": 6})
for mode in ("bilinear", "nearest"):
    for pad in ("zeros", "border", "reflection"):
        for corners in (True, False):
            op("grid_sampler", {"X": f(1, 2, 3, 4), "Grid": f(1, 2, 3, 2, lo=-1.5, hi=1.5)}, {"mode": mode, "padding_mode": pad, "align_corners": corners})
op("grid_sampler", {"X": f(1, 1, 2, 3, 4), "Grid": f(1, 2, 2, 2, 3, lo=-1.25, hi=1.25)})
op("grid_sampler", {"X": f(1, 1, 2, 3, 4), "Grid": f(1, 2, 2, 2, 3, lo=-1.25, hi=1.25)}, {"mode": "nearest", "align_corners": False})
for corners in (True, False):
    op("affine_grid", {"Theta": f(2, 2, 3)}, {"output_shape": [2, 3, 4, 5], "align_corners": corners})
op("affine_grid", {"Theta": f(1, 3, 4)}, {"output_shape": [1, 1, 2, 3, 2]})
op("affine_grid", {"Theta": f(1, 2, 3), "OutputShape": I32(1, 1, 2, 3)}, const="OutputShape")
for kind, extra in (("deformable_conv", {"Mask": f(1, 9, 4, 4, lo=0, hi=1)}), ("deformable_conv_v1", {})):
    op(kind, {"Input": f(1, 2, 4, 4), "Offset": f(1, 18, 4, 4, lo=-1, hi=1), "Filter": f(2, 2, 3, 3), **extra},
       {"strides": [1, 1], "paddings": [1, 1], "dilations": [1, 1], "groups": 1, "deformable_groups": 1, "im2col_step": 1})
op("deformable_conv", {"Input": f(1, 4, 5, 5), "Offset": f(1, 16, 2, 2, lo=-1, hi=1), "Filter": f(2, 2, 2, 2), "Mask": f(1, 8, 2, 2, lo=0, hi=1)},
   {"strides": [2, 2], "paddings": [0, 0], "dilations": [1, 1], "groups": 2, "deformable_groups": 2, "im2col_step": 1})
op("row_conv", {"X": f(2, 4, 3), "Filter": f(2, 3)})
op("add_position_encoding", {"X": f(2, 3, 4)}, {"alpha": 0.5, "beta": 2.0})

# Indexing.
op("gather", {"X": f(4, 3), "Index": i(2, hi=4)})
op("gather", {"X": f(4, 3), "Index": i(2, 1, hi=4, dtype="int32")})
op("gather", {"X": f(4, 3), "Index": i(2, hi=3)}, {"axis": 1})
op("gather", {"X": f(4, 3), "Index": i(2, hi=3), "Axis": I32(1)}, const="Axis")
op("gather_nd", {"X": f(3, 4, 2), "Index": i(2, 2, hi=3)})
op("gather_nd", {"X": f(3, 4), "Index": i(2, 3, 2, hi=3, dtype="int32")})
op("index_select", {"X": f(4, 3), "Index": i(2, hi=3)}, {"dim": 1})
op("index_select", {"X": f(4, 3), "Index": i(2, hi=4, dtype="int32")})
op("index_sample", {"X": f(3, 4), "Index": i(3, 2, hi=4)})
op("take_along_axis", {"Input": f(3, 4), "Index": i(3, 2, hi=4)}, {"Axis": 1})
op("take_along_axis", {"Input": f(3, 4), "Index": i(1, 4, hi=3)}, {"Axis": 0})
for red in ("assign", "add", "mul", "multiply", "amax", "amin", "mean"):
    for own in (True, False):
        idx = np.array([[0, 0, 2], [1, 1, 3]], "int64")
        op("put_along_axis", {"Input": f(2, 4), "Index": idx, "Value": f(2, 3)}, {"Axis": 1, "Reduce": red, "Include_self": own}, legacy=True)
op("scatter", {"X": f(4, 3), "Ids": np.array([2, 0], "int64"), "Updates": f(2, 3)})
op("scatter", {"X": f(4, 3), "Ids": np.array([2, 2], "int32"), "Updates": f(2, 3)}, {"overwrite": False})
op("scatter_nd_add", {"X": f(4, 3), "Index": np.array([[1], [1], [3]], "int64"), "Updates": f(3, 3)})
op("index_add", {"X": f(4, 3), "Index": np.array([1, 1], "int64"), "AddValue": f(2, 3)}, {"axis": 0})
op("index_add", {"X": f(2, 4), "Index": np.array([3, 1], "int32"), "AddValue": f(2, 2)}, {"axis": 1})
pir("index_put", {"X": f(4, 3), "I": np.array([1, 3], "int64"), "V": f(2, 3)}, lambda C, x, k, v: C.index_put(x, [k], v, False))
pir("index_put", {"X": f(4, 3), "I": np.array([1, 1], "int64"), "J": np.array([0, 2], "int64"), "V": f(2)}, lambda C, x, k, j, v: C.index_put(x, [k, j], v, True))
pir("index_put", {"X": f(4, 3), "I": b(4, 3), "V": f(1)}, lambda C, x, k, v: C.index_put(x, [k], v, False))
op("masked_select", {"X": f(3, 4), "Mask": b(3, 4)})
op("where_index", {"Condition": b(3, 4)})
op("where_index", {"Condition": i(5, hi=2)})
op("lookup_table_v2", {"W": f(5, 3), "Ids": i(2, 2, hi=5)})
op("lookup_table_v2", {"W": f(5, 3), "Ids": np.array([1, 2, 1], "int64")}, {"padding_idx": 1})
op("lookup_table", {"W": f(5, 3), "Ids": i(4, 1, hi=5)}, pir=False)
op("lookup_table", {"W": f(5, 3), "Ids": i(2, 2, 1, hi=5)}, {"padding_idx": 2}, pir=False)
op("multiplex", {"Ids": np.array([[1], [0], [1]], "int32"), "X": [f(3, 2), f(3, 2)]})
op("gather_tree", {"Ids": i(3, 2, 2), "Parents": i(3, 2, 2, hi=2)})
op("sequence_mask", {"X": np.array([1, 3, 2], "int64")}, {"maxlen": 4, "out_dtype": 5})
op("sequence_mask", {"X": np.array([1, 3, 2], "int64")}, {"maxlen": -1, "out_dtype": 3})
op("viterbi_decode", {"Input": f(2, 3, 4), "Transition": f(4, 4), "Length": np.array([3, 2], "int64")}, {"include_bos_eos_tag": False})
op("viterbi_decode", {"Input": f(2, 3, 4), "Transition": f(4, 4), "Length": np.array([3, 3], "int64")})

# Fourier, complex.
# Complex numbers stay inside the programs: inputs and outputs are real.


def chain(*steps):
    def build(x, y=None):
        for k, (kind, attrs, dtype) in enumerate(steps):
            out = x.block.create_var(name=f"step{k}", dtype=dtype)
            more = {"Y": [y]} if kind == "complex" else {}
            x.block.append_op(type=kind, inputs={"X": [x], **more}, outputs={"Out": [out]}, attrs=attrs)
            x = out
        return x
    return build


def fft(kind, axes, norm="backward", **more):
    back = kind == "fft_c2r" or more.pop("back", False)
    return (kind, {"axes": axes, "normalization": norm, "forward": not back, **more}, "float32" if kind == "fft_c2r" else "complex64")


Z, R = ("as_complex", {}, "complex64"), ("as_real", {}, "float32")
program("fft_r2c", {"x": f(2, 6)}, chain(fft("fft_r2c", [1], onesided=True), R))
program("fft_r2c", {"x": f(4, 5)}, chain(fft("fft_r2c", [0, 1], "ortho", onesided=True), R))
program("fft_r2c", {"x": f(2, 4)}, chain(fft("fft_r2c", [1], onesided=False), R))
program("fft_c2c", {"x": f(2, 4), "y": f(2, 4)}, chain(("complex", {}, "complex64"), fft("fft_c2c", [1]), R))
program("fft_c2c", {"x": f(2, 5, 2)}, chain(Z, fft("fft_c2c", [1], back=True), R))
program("fft_c2c", {"x": f(3, 4, 2)}, chain(Z, fft("fft_c2c", [0, 1], "forward"), R))
program("fft_c2r", {"x": f(2, 4, 2)}, chain(Z, fft("fft_c2r", [1], last_dim_size=6)))
program("fft_c2r", {"x": f(2, 4, 2)}, chain(Z, fft("fft_c2r", [1], "ortho", last_dim_size=7)))
program("real", {"x": f(2, 3, 2)}, chain(Z, ("real", {}, "float32")))
program("imag", {"x": f(2, 3, 2)}, chain(Z, ("conj", {}, "complex64"), ("imag", {}, "float32")))
program("abs", {"x": f(2, 3, 2)}, chain(Z, ("abs", {}, "float32")), tag="complex")
op("frame", {"X": f(2, 8)}, {"frame_length": 4, "hop_length": 2})
op("overlap_add", {"X": f(2, 4, 3)}, {"hop_length": 2})

op("index_put", {"x": f(4, 3), "indices": [np.array([1, 3], "int64")], "value": f(2, 3)}, {"accumulate": False}, outs="out")
op("index_put", {"x": f(4, 3), "indices": [np.array([1, 1], "int64"), np.array([0, 2], "int64")], "value": f(2)}, {"accumulate": True}, outs="out")
op("index_put", {"x": f(4, 3), "indices": [b(4, 3)], "value": f(1)}, outs="out")
op("gather_tree", {"Ids": i(5, 2, 3), "Parents": i(5, 2, 3, hi=3)})


def stft(at):
    def build(x, window):
        blk, vs = x.block, [x.block.create_var(name=n, dtype=d) for n, d in (("s", "complex64"), ("r", "float32"))]
        blk.append_op(type="stft", inputs={"X": [x], "Window": [window]}, outputs={"Out": [vs[0]]}, attrs=at)
        blk.append_op(type="as_real", inputs={"X": [vs[0]]}, outputs={"Out": [vs[1]]})
        return vs[1]
    return build


for at in ({}, {"normalized": True}):
    program("stft", {"x": f(2, 24), "window": f(8, lo=0, hi=1)}, stft({"n_fft": 8, "hop_length": 4, "normalized": False, "onesided": True, **at}))
op("lp_pool2d", {"x": f(1, 2, 5, 6)}, {"kernel_size": [2, 3], "strides": [2, 2], "paddings": [0, 0], "norm_type": 2.0}, outs="out")
pir("lp_pool2d", {"x": f(1, 2, 5, 6)}, lambda C, x: C.lp_pool2d(x, [2, 3], [2, 2], [0, 0], False, True, "NCHW", "", False, False, "EXPLICIT", 2.0))
pir("lp_pool2d", {"x": f(1, 2, 5, 6, lo=0)}, lambda C, x: C.lp_pool2d(x, [2, 2], [1, 2], [0, 1], True, True, "NCHW", "", False, False, "EXPLICIT", 3.0))
op("unpool3d", {"X": f(1, 2, 1, 2, 2), "Indices": np.array([0, 5, 10, 15, 1, 4, 11, 14], "int32").reshape(1, 2, 1, 2, 2)}, {"ksize": [2, 2, 2], "strides": [2, 2, 2], "paddings": [0, 0, 0], "output_size": [1, 4, 4], "unpooling_type": "max", "data_format": "NCDHW"})
for how, corners in (("bilinear", False), ("bicubic", False)):
    pir("interp_antialias", {"x": f(1, 2, 7, 8)}, lambda C, x, h=how, k=corners: C.interp_antialias(x, None, None, None, "NCHW", -1, 3, 5, [], h, k, 0))
