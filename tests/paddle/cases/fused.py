"""Fused operators, attention."""
from goldens import composed, f, i, np, op, paddle, pir, program

op("fused_elemwise_activation", {"X": f(2, 3), "Y": f(2, 3)}, {"functor_list": ["elementwise_add", "relu"], "axis": -1}, outs="Out")
op("fused_elemwise_activation", {"X": f(2, 3), "Y": f(3)}, {"functor_list": ["relu", "elementwise_add"], "axis": 1}, outs="Out")
op("fused_elemwise_activation", {"X": f(2, 3), "Y": f(2, 3)}, {"functor_list": ["scale", "elementwise_add"], "scale": 2.0}, outs="Out")
op("fused_elemwise_add_activation", {"X": f(2, 3), "Y": f(2, 3)}, {"functor_list": ["elementwise_add", "relu"]}, outs="Out")
op("fusion_squared_mat_sub", {"X": f(2, 3), "Y": f(3, 4)}, {"scalar": 0.5}, outs="Out")
op("fusion_repeated_fc_relu", {"X": f(2, 3), "W": [f(3, 4), f(4, 2)], "Bias": [f(4), f(2)]}, outs="Out")
pir("swiglu", {"x": f(2, 4)}, lambda C, x: C.swiglu(x, None))


# ---- Paddle runs these on other devices only ----

from paddle.nn import functional as F  # noqa: E402

composed("fused_softmax_mask", {"X": f(1, 2, 3, 4), "Mask": f(1, 1, 3, 4)}, outs="Out", order="X Mask", by=lambda x, mask: F.softmax(x + mask), says="softmax(x + mask)")
composed("fused_softmax_mask_upper_triangle", {"X": f(1, 2, 4, 4)}, outs="Out", order="X", by=lambda x: F.softmax(paddle.where(paddle.tril(paddle.ones_like(x)) > 0, x, paddle.full_like(x, -1e30))), says="softmax of the lower triangle")


def norm(x, scale, bias, eps=1e-5, axis=-1):
    dims = x.shape[axis:]
    return F.layer_norm(x, dims, scale.reshape(dims), bias.reshape(dims), eps)


LN = "layer_norm of "
composed("skip_layernorm", {"X": f(2, 3, 4), "Y": f(2, 3, 4), "Scale": f(4), "Bias": f(4)}, {"epsilon": 1e-5, "begin_norm_axis": 2}, outs="Out", order="X Y Scale Bias", by=lambda x, y, scale, bias: norm(x + y, scale, bias), says=LN + "x + y")
composed("fused_embedding_eltwise_layernorm", {"Ids": [i(2, 3, 1, hi=5), i(2, 3, 1, hi=6)], "Embs": [f(5, 4), f(6, 4)], "Scale": f(4), "Bias": f(4)}, {"epsilon": 1e-5}, outs="Out", order="Ids Embs Bias Scale",
         by=lambda ids, embs, scale, bias: norm(sum(F.embedding(a.squeeze(-1), e) for a, e in zip(ids, embs)), scale, bias), says=LN + "the sum of embeddings")
composed("fused_fc_elementwise_layernorm", {"X": f(3, 4), "W": f(4, 5), "Y": f(3, 5), "Bias0": f(5), "Scale": f(5), "Bias1": f(5)}, {"activation_type": "relu", "epsilon": 1e-5, "begin_norm_axis": 1, "x_num_col_dims": 1},
         outs="Out", order="X W Y Bias0 Scale Bias1", results="Out Mean Variance", by=lambda x, w, y, bias0, scale, bias1: norm(F.relu(x.matmul(w) + bias0) + y, scale, bias1), says=LN + "relu(x w + bias0) + y")
composed("rms_norm", {"x": f(2, 3, 4), "scale": f(4)}, {"normalized_shape": [4], "epsilon": 1e-5}, outs="y", order="x scale", results="y invvar", by=lambda x, scale: x * (x.square().mean(-1, keepdim=True) + 1e-5).rsqrt() * scale, says="x / sqrt(mean(x x) + epsilon) * scale")
composed("rms_norm", {"x": f(2, 3, 4), "scale": f(12)}, {"normalized_shape": [3, 4], "epsilon": 1e-3}, outs="y", order="x scale", results="y invvar", by=lambda x, scale: x * (x.square().mean([1, 2], keepdim=True) + 1e-3).rsqrt() * scale.reshape([3, 4]), says="x / sqrt(mean(x x) + epsilon) * scale")
for name, act in (("gelu", F.gelu), ("relu", F.relu), ("silu", F.silu), ("swiglu", lambda x: F.swiglu(x)), ("geglu", lambda x: F.gelu(x.chunk(2, -1)[0]) * x.chunk(2, -1)[1])):
    composed("fused_bias_act", {"x": f(3, 8), "bias": f(8)}, {"act_method": name}, outs="out", order="x bias dequant_scales shift smooth", by=lambda x, bias, act=act: act(x + bias), says=f"{name}(x + bias)")
composed("fused_gemm_epilogue", {"X": f(3, 4), "Y": f(5, 4), "Bias": f(5)}, {"trans_x": False, "trans_y": True, "activation": "relu"}, outs="Out", by=lambda x, y, bias: F.relu(x.matmul(y, transpose_y=True) + bias), says="relu(x y' + bias)", order="X Y Bias", results="Out ReserveSpace")
composed("fused_dropout_add", {"x": f(3, 4), "y": f(3, 4)}, {"p": 0.25, "is_test": True, "mode": "downgrade_in_infer", "seed": 0, "fix_seed": False}, outs="out", order="x y seed_tensor", results="out seed_offset", by=lambda x, y: x * 0.75 + y, says="x * (1 - p) + y")
composed("fused_bias_dropout_residual_layer_norm", {"X": f(2, 3, 4), "Residual": f(2, 3, 4), "Bias": f(4), "LnScale": f(4), "LnBias": f(4)}, {"dropout_rate": 0.25, "is_test": True, "dropout_implementation": "upscale_in_train", "ln_epsilon": 1e-5},
         outs="Y", order="X Residual Bias LnScale LnBias", results="Y BiasDropoutResidualOut DropoutMaskOut LnMean LnVariance", by=lambda x, residual, bias, lnscale, lnbias: norm(residual + x + bias, lnscale, lnbias), says=LN + "residual + x + bias")
composed("fused_bias_residual_layernorm", {"x": f(3, 4), "bias": f(4), "residual": f(3, 4), "norm_weight": f(4), "norm_bias": f(4)}, {"epsilon": 1e-5, "residual_alpha": 0.5, "begin_norm_axis": 1, "quant_scale": -1.0, "quant_round_type": 0, "quant_max_bound": 0.0, "quant_min_bound": 0.0},
         outs="out residual_out", order="x bias residual norm_weight norm_bias", results="out residual_out mean variance", by=lambda x, bias, residual, norm_weight, norm_bias: [norm(x + bias + residual * 0.5, norm_weight, norm_bias), x + bias + residual * 0.5], says=LN + "x + bias + alpha residual")
FF = dict(Linear1Weight=f(4, 6), Linear1Bias=f(6), Linear2Weight=f(6, 4), Linear2Bias=f(4))
for pre in (True, False):
    n = "1" if pre else "2"
    composed("fused_feedforward", {"X": f(2, 3, 4), **FF, f"Ln{n}Scale": f(4), f"Ln{n}Bias": f(4)}, {"pre_layer_norm": pre, "ln1_epsilon": 1e-5, "ln2_epsilon": 1e-5, "act_method": "gelu", "dropout1_rate": 0.0, "dropout2_rate": 0.0, "is_test": True,
             "dropout1_implementation": "upscale_in_train", "dropout2_implementation": "upscale_in_train"}, outs="Out", order="X Dropout1Seed Dropout2Seed Linear1Weight Linear1Bias Linear2Weight Linear2Bias Ln1Scale Ln1Bias Ln2Scale Ln2Bias",
             results="Out Dropout1Mask Dropout2Mask Ln1Mean Ln1Variance Ln2Mean Ln2Variance Linear1Out Ln1Out Dropout1Out Dropout2Out", by=lambda x, linear1weight, linear1bias, linear2weight, linear2bias, pre=pre, **ln: (lambda s, b: (lambda h: x + h if pre else norm(x + h, s, b))(F.gelu((norm(x, s, b) if pre else x).matmul(linear1weight) + linear1bias).matmul(linear2weight) + linear2bias))(*ln.values()),
             says="linear, gelu, linear, a residual, " + LN + ("what comes in" if pre else "the sum"))
composed("weight_only_linear", {"x": f(2, 4), "weight": i(3, 4, lo=-127, hi=127, dtype="int8"), "bias": f(3), "weight_scale": f(3, lo=0.01, hi=0.5)}, {"weight_dtype": "int8", "arch": 80, "group_size": -1}, outs="out", order="x weight bias weight_scale", by=lambda x, weight, bias, weight_scale: x.matmul((weight.astype("float32") * weight_scale.unsqueeze(1)).t()) + bias, says="x (weight * scale)' + bias")
for name, best in (("max", paddle.max), ("min", paddle.min)):
    composed(name + "_with_index", {"x": f(3, 4)}, dict(dim=1, keepdim=False, flatten=False), outs="values indices", order="x",
             by=lambda x, n=name: [getattr(paddle, n)(x, 1), getattr(paddle, "arg" + n)(x, 1)], says=f"{name} and arg{name}")
composed("conv2d_transpose_bias", {"Input": f(1, 2, 3, 3), "Filter": f(2, 3, 2, 2), "Bias": f(3)}, {"strides": [2, 2], "paddings": [0, 0], "groups": 1, "dilations": [1, 1]}, outs="Output",
         order="Input Filter Bias", by=lambda input, filter, bias: F.conv2d_transpose(input, filter, bias, 2), says="conv2d_transpose with its bias")
composed("depthwise_conv2d_bias", {"Input": f(1, 2, 3, 3), "Filter": f(2, 1, 2, 2), "Bias": f(2)}, {"strides": [1, 1], "paddings": [1, 1], "groups": 2, "dilations": [1, 1]}, outs="Output",
         order="Input Filter Bias", by=lambda input, filter, bias: F.conv2d(input, filter, bias, 1, 1, groups=2), says="conv2d with its bias")
composed("fused_conv2d_add_act", {"Input": f(1, 2, 3, 3), "Filter": f(3, 2, 2, 2), "Bias": f(3), "ResidualData": f(1, 3, 2, 2)}, {"strides": [1, 1], "paddings": [0, 0], "groups": 1, "dilations": [1, 1], "activation": "relu"}, outs="Output",
         order="Input Filter Bias ResidualData", by=lambda input, filter, bias, residualdata: F.relu(F.conv2d(input, filter, bias) + residualdata), says="relu(conv2d + residual)")
for kind, act in (("add", "relu"), ("mul", ""), ("sub", ""), ("div", "")):
    composed("fused_elementwise_" + kind, {"X": f(2, 3), "Y": f(2, 3, lo=1)}, {"axis": -1, "fuse_activation": act, "fused_output_scale": 0.5}, outs="Out", order="X Y",
             by=lambda x, y, k=kind, a=act: (F.relu if a else lambda v: v)({"add": x + y, "mul": x * y, "sub": x - y, "div": x / y}[k]) * 0.5, says="an activation of both, scaled")
composed("fast_ln", {"x": f(2, 4), "scale": f(4), "bias": f(4)}, {"epsilon": 1e-5}, outs="y", order="x scale bias", results="y mean invvar", by=norm, says=LN + "the last axis")
for kind in ("fast_rms_norm", "fused_rms_norm_ext"):
    composed(kind, {"x": f(2, 4), "scale": f(4)}, {"epsilon": 1e-5}, outs="y", order="x scale", results="y invvar", by=lambda x, scale: x * (x.square().mean(-1, keepdim=True) + 1e-5).rsqrt() * scale, says="x / sqrt(mean(x x) + epsilon) * scale")
for kind in ("gemm_epilogue", "linear_v2"):
    composed(kind, {"X": f(3, 4), "Y": f(4, 5), "Bias": f(5)}, {"activation_type": "relu"} if kind[0] == "g" else {"transpose_weight": False}, outs="Out", order="X Y Bias",
             by=lambda x, y, bias, k=kind: (F.relu if k[0] == "g" else lambda v: v)(x.matmul(y) + bias), says="x y + bias")
composed("llm_int8_linear", {"x": f(2, 4), "weight": i(3, 4, lo=-127, hi=127, dtype="int8"), "bias": f(3), "weight_scale": f(3, lo=0.01, hi=0.5)}, {"threshold": 6.0}, outs="out", order="x weight bias weight_scale",
         by=lambda x, weight, bias, weight_scale: x.matmul((weight.astype("float32") * weight_scale.unsqueeze(1)).t()) + bias, says="x (weight * scale)' + bias")
L = dict(Input=f(3, 2, 3), InitH=f(1, 2, 2), InitC=f(1, 2, 2))
LW = [f(8, 3), f(8, 2), f(8), f(8)]


def lstm(input, inith, initc, weightlist=None, w=None):
    cell = paddle.nn.LSTM(3, 2, time_major=True)
    if w is not None:
        at = np.cumsum([0, 24, 16, 8, 8])
        weightlist = [w[a:b] for a, b in zip(at, at[1:])]
    for p, v in zip(cell.parameters(), weightlist):
        p.set_value(v.reshape(p.shape))
    y, (h, c) = cell(input, (inith, initc))
    return [t.detach() for t in (y, h, c)]


at = dict(hidden_size=2, num_layers=1, is_bidirec=False, dropout_prob=0.0, is_test=True)
for more in ({"WeightList": LW}, {"W": np.concatenate([w.ravel() for w in LW])}):
    composed("cudnn_lstm", {**L, **more}, at, outs="Out LastH LastC", order="Input InitH InitC W WeightList SequenceLength", results="Out LastH LastC", by=lstm, says="paddle.nn.LSTM")
composed("depthwise_conv3d_bias", {"Input": f(1, 2, 3, 3, 3), "Filter": f(2, 1, 2, 2, 2), "Bias": f(2)}, {"strides": [1, 1, 1], "paddings": [0, 0, 0], "groups": 2, "dilations": [1, 1, 1]}, outs="Output",
         order="Input Filter Bias", by=lambda input, filter, bias: F.conv3d(input, filter, bias, groups=2), says="conv3d with its bias")
composed("batch_fc", {"Input": f(2, 3, 4), "W": f(2, 4, 5), "Bias": f(2, 5)}, {}, outs="Out", order="Input W Bias", by=lambda input, w, bias: F.relu(input.matmul(w) + bias.unsqueeze(1)), says="relu(x w + bias) a slot, as Paddle's test of the operator")
composed("interp_antialias", {"X": f(1, 2, 7, 8)}, {"out_d": -1, "out_h": 3, "out_w": 5, "interp_method": "bilinear", "align_corners": False, "align_mode": 0}, outs="Out", order="X OutSize SizeTensor Scale",
         by=lambda x: F.interpolate(x, [3, 5], mode="bilinear", antialias=True), says="paddle.nn.functional.interpolate, which calls it")
