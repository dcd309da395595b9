"""Makes the files beside it: one operator each, with inputs and ONNX Runtime's outputs inside.

    python make.py        (needs numpy, onnx and onnxruntime)

Inputs and outputs are initializers called `in:NAME` and `out:NAME`, which nothing in the graph uses.
"""
import os
import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

MS, ML = "com.microsoft", "ai.onnx.ml"
HERE = os.path.dirname(os.path.abspath(__file__))
ort.set_default_logger_severity(4)
R = np.random.RandomState(7)


def f(*shape):
    return R.uniform(-1, 1, shape).astype(np.float32)


def case(name, op, domain, ins, outs=1, fixed=(), opset=17, version=1, **attrs):
    """`ins`: arrays, None where left out; those whose place is in `fixed` become initializers."""
    attrs = {k.rstrip("_"): v for k, v in attrs.items()}
    names = [f"x{i}" if a is not None else "" for i, a in enumerate(ins)]
    outputs = [f"y{i}" for i in range(outs)] if isinstance(outs, int) else outs
    node = helper.make_node(op, names, outputs, domain=domain, name="n", **attrs)
    fed = {n: a for i, (n, a) in enumerate(zip(names, ins)) if a is not None and i not in fixed}
    kept = [numpy_helper.from_array(ins[i], names[i]) for i in fixed if ins[i] is not None]
    infos = [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape) for n, a in fed.items()]
    results = [onnx.ValueInfoProto(name=o) for o in outputs if o]
    graph = helper.make_graph([node], name, infos, results, kept)
    sets = [helper.make_opsetid("", opset), helper.make_opsetid(MS, 1), helper.make_opsetid(ML, version)]
    model = helper.make_model(graph, opset_imports=sets, ir_version=9 if opset < 23 else 11)
    try:
        session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        got = session.run(None, fed)
    except Exception as e:
        print(name, "skipped:", str(e)[:160])
        return
    for n, a in fed.items():
        model.graph.initializer.append(numpy_helper.from_array(a, "in:" + n))
    for n, a in zip([o for o in outputs if o], got):
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(a), "out:" + n))
    with open(os.path.join(HERE, name + ".onnx"), "wb") as out:
        out.write(model.SerializeToString())


def u8(*shape):
    return R.randint(0, 256, shape).astype(np.uint8)


def s(x, t=np.float32):
    return np.array(x, t)


def transformers():
    b, n, h, d = 2, 4, 2, 8
    w = h * d
    x, wt, bias = f(b, n, w), f(w, 3 * w), f(3 * w)
    case("attention", "Attention", MS, [x, wt, bias], num_heads=h)
    case("attention_unidirectional", "Attention", MS, [x, wt, bias], num_heads=h, unidirectional=1)
    case("attention_lengths", "Attention", MS, [x, wt, bias, s([3, 2], np.int32)], num_heads=h)
    case("attention_ends_starts", "Attention", MS, [x, wt, bias, s([4, 3, 1, 0], np.int32)], num_heads=h)
    case("attention_mask", "Attention", MS, [x, wt, bias, s([[1, 1, 1, 0], [1, 1, 0, 0]], np.int32)], num_heads=h)
    case("attention_mask3", "Attention", MS, [x, wt, bias, R.randint(0, 2, (b, n, n)).astype(np.int32)], num_heads=h)
    case("attention_past", "Attention", MS, [x, wt, bias, None, f(2, b, h, 3, d)], outs=2, num_heads=h, unidirectional=1)
    case("attention_bias", "Attention", MS, [x, wt, bias, None, None, f(b, h, n, n)], num_heads=h)
    case("attention_sizes", "Attention", MS, [x, f(w, 2 * w + 8), f(2 * w + 8)], num_heads=h, qkv_hidden_sizes=[w, w, 8])
    q, k, v = f(b, n, w), f(b, 5, w), f(b, 5, w)
    case("mha", "MultiHeadAttention", MS, [q, k, v], num_heads=h)
    case("mha_bias_mask", "MultiHeadAttention", MS, [q, k, v, f(3 * w), R.randint(0, 2, (b, 5)).astype(np.int32), f(1, h, n, 5)], num_heads=h)
    case("mha_cross", "MultiHeadAttention", MS, [q, f(b, h, 5, d), f(b, h, 5, d)], num_heads=h)
    case("mha_past", "MultiHeadAttention", MS, [q, f(b, n, w), f(b, n, w), None, None, None, f(b, h, 3, d), f(b, h, 3, d)], outs=3, num_heads=h, scale=0.4)
    case("mha_unidirectional", "MultiHeadAttention", MS, [q, f(b, n, w), f(b, n, w)], num_heads=h, unidirectional=1)
    cos, sin = f(16, d // 2), f(16, d // 2)
    ids = s([[0, 1, 2, 3], [3, 4, 5, 6]], np.int64)
    for pairs in (0, 1):
        case(f"rotary_{pairs}", "RotaryEmbedding", MS, [q, ids, cos, sin], interleaved=pairs)
        case(f"rotary_heads_{pairs}", "RotaryEmbedding", MS, [f(b, h, n, d), s([2], np.int64), cos, sin], interleaved=pairs)
    case("rotary_part", "RotaryEmbedding", MS, [q, ids, cos[:, :2].copy(), sin[:, :2].copy()], num_heads=h, rotary_embedding_dim=4)
    g, hk, d = 4, 2, 16
    cos, sin = f(16, d // 2), f(16, d // 2)
    prompt = [f(b, n, g * d), f(b, n, hk * d), f(b, n, hk * d), f(b, hk, 0, d), f(b, hk, 0, d), s([3, 3], np.int32), s([4], np.int32)]
    case("gqa_prompt", "GroupQueryAttention", MS, prompt, outs=3, num_heads=g, kv_num_heads=hk)
    case("gqa_rotary", "GroupQueryAttention", MS, prompt + [cos, sin], outs=3, num_heads=g, kv_num_heads=hk, do_rotary=1)
    step = [f(b, 1, g * d), f(b, 1, hk * d), f(b, 1, hk * d), f(b, hk, 5, d), f(b, hk, 5, d), s([5, 5], np.int32), s([6], np.int32)]
    case("gqa_step", "GroupQueryAttention", MS, step, outs=3, num_heads=g, kv_num_heads=hk)
    case("gqa_step_rotary", "GroupQueryAttention", MS, step + [cos, sin], outs=3, num_heads=g, kv_num_heads=hk, do_rotary=1, rotary_interleaved=1)
    case("gqa_window", "GroupQueryAttention", MS, step, outs=3, num_heads=g, kv_num_heads=hk, local_window_size=3)
    case("gqa_window_prompt", "GroupQueryAttention", MS, prompt, outs=3, num_heads=g, kv_num_heads=hk, local_window_size=2)
    case("gqa_softcap", "GroupQueryAttention", MS, step, outs=3, num_heads=g, kv_num_heads=hk, softcap=0.5, scale=0.7)
    case("gqa_smooth", "GroupQueryAttention", MS, step, outs=3, num_heads=g, kv_num_heads=hk, smooth_softmax=1)
    case("gqa_sink", "GroupQueryAttention", MS, step + [None, None, None, None, f(g)], outs=3, num_heads=g, kv_num_heads=hk)
    case("gqa_bias", "GroupQueryAttention", MS, step + [None, None, None, f(1, g, 1, 6)], outs=3, num_heads=g, kv_num_heads=hk)
    packed = [f(b, n, (g + 2 * hk) * d), None, None] + prompt[3:]
    case("gqa_packed", "GroupQueryAttention", MS, packed + [cos, sin], outs=3, num_heads=g, kv_num_heads=hk, do_rotary=1)
    case("skip_layer_norm", "SkipLayerNormalization", MS, [x, f(b, n, w), f(w), f(w), f(w)], outs=["y0", "", "", "y3"], epsilon=1e-5)
    case("skip_rms_norm", "SkipSimplifiedLayerNormalization", MS, [x, f(b, n, w), f(w), f(w)], outs=["y0", "", "", "y3"], epsilon=1e-5)
    case("rms_norm", "SimplifiedLayerNormalization", "", [x, f(w)], epsilon=1e-5, axis=-1)
    case("layer_norm_1", "LayerNormalization", "", [x, f(w), f(w)], opset=16, epsilon=1e-5, axis=-1)
    tokens = R.randint(0, 9, (b, n)).astype(np.int32)
    embed = [tokens, R.randint(0, 2, (b, n)).astype(np.int32), f(9, w), f(8, w), f(2, w), f(w), f(w), s([[1, 1, 1, 0], [1, 1, 0, 0]], np.int32)]
    case("embed", "EmbedLayerNormalization", MS, embed, outs=3, epsilon=1e-6)
    case("embed_bare", "EmbedLayerNormalization", MS, [tokens, None, f(9, w), f(8, w), None, f(w), f(w)], outs=2)
    for name in ("Gelu", "QuickGelu"):
        case(name.lower(), name, MS, [3 * x])
    case("fast_gelu", "FastGelu", MS, [3 * x, f(w)])
    case("bias_gelu", "BiasGelu", MS, [3 * x, f(w)])
    case("fused_matmul", "FusedMatMul", MS, [f(2, 4, 3), f(2, 4, 5)], transA=1, alpha=0.5)
    case("fused_matmul_batch", "FusedMatMul", MS, [f(3, 2, 4), f(2, 4, 5)], transBatchA=1)
    case("fused_gemm", "FusedGemm", MS, [f(3, 4), f(4, 5), f(5)], activation="LeakyRelu", activation_alpha=0.2, alpha=0.5)
    case("fused_conv", "FusedConv", MS, [f(1, 3, 6, 6), f(4, 3, 3, 3), f(4), f(1, 4, 6, 6)], activation="Relu", pads=[1, 1, 1, 1])
    case("inverse", "Inverse", MS, [f(2, 4, 4)])
    case("grid_sample", "GridSample", MS, [f(1, 2, 4, 5), f(1, 3, 3, 2)], mode="bilinear", padding_mode="border")
    case("cdist", "CDist", MS, [f(3, 4), f(5, 4)], metric="euclidean")
    case("nhwc_max_pool", "NhwcMaxPool", MS, [u8(1, 6, 6, 3)], kernel_shape=[2, 2], strides=[2, 2])
    for bits in (4, 8):
        for zero in (0, 1):
            nb, block = 3, 16
            wq = u8(5, nb, block * bits // 8)
            z = [u8(5 * ((nb * bits + 7) // 8))] if zero else []
            case(f"matmul_{bits}bits_{zero}", "MatMulNBits", MS, [f(2, 3, 40), wq, f(5 * nb)] + z, fixed=range(1, 3 + zero), K=40, N=5, bits=bits, block_size=block)


def quantised():
    a, b = u8(2, 3, 4), u8(4)
    sa, za, sb, zb, sy, zy = s(0.02), s(120, np.uint8), s(0.03), s(7, np.uint8), s(0.05), s(100, np.uint8)
    for op in ("Add", "Mul"):
        case(f"qlinear_{op.lower()}", f"QLinear{op}", MS, [a, sa, za, b, sb, zb, sy, zy])
    case("qlinear_sigmoid", "QLinearSigmoid", MS, [a, sa, za, s(1 / 256), s(0, np.uint8)], fixed=range(1, 5))
    case("qlinear_leaky", "QLinearLeakyRelu", MS, [a, sa, za, sy, zy], fixed=range(1, 5), alpha=0.2)
    case("qlinear_softmax", "QLinearSoftmax", MS, [a, sa, za, s(1 / 256), s(0, np.uint8)], fixed=range(1, 5), axis=-1, opset_=17)
    image = u8(1, 3, 6, 6)
    for last in (0, 1):
        case(f"qlinear_global_{last}", "QLinearGlobalAveragePool", MS, [image, sa, za, sy, zy], fixed=range(1, 5), channels_last=last)
        case(f"qlinear_average_{last}", "QLinearAveragePool", MS, [image, sa, za, sy, zy], fixed=range(1, 5), kernel_shape=[2, 2], strides=[2, 2], channels_last=last)
    case("qlinear_concat", "QLinearConcat", MS, [sy, zy, a, sa, za, u8(2, 2, 4), sb, zb], axis=1)
    case("qlinear_where", "QLinearWhere", MS, [R.randint(0, 2, (2, 3, 4)).astype(bool), a, sa, za, u8(2, 3, 4), sb, zb, sy, zy])
    x, w = u8(3, 4), u8(5, 4).astype(np.int8)
    zw = s(0, np.int8)
    case("qgemm", "QGemm", MS, [x, sa, za, w, sb, zw, R.randint(-99, 99, (5,)).astype(np.int32), sy, zy], transB=1)
    case("qgemm_float", "QGemm", MS, [x, sa, za, w, f(5) ** 2 + 0.01, np.zeros(5, np.int8)], transB=1, alpha=0.5)
    wk = u8(4, 5)
    case("dynamic_matmul", "DynamicQuantizeMatMul", MS, [f(2, 3, 4), wk, s(0.02), s(110, np.uint8), f(5)])
    case("integer_to_float", "MatMulIntegerToFloat", MS, [u8(2, 3, 4), wk, sa, f(5) ** 2 + 0.01, za, u8(5), f(5)])
    case("qattention", "QAttention", MS, [u8(2, 4, 8), u8(8, 24), f(24), sa, sb, None, za, s(128, np.uint8)], num_heads=2)
    case("ms_quantize", "QuantizeLinear", MS, [3 * f(2, 3), s(0.02), s(1000, np.uint16)])
    case("ms_dequantize", "DequantizeLinear", MS, [u8(2, 3), s([0.1, 0.2, 0.3]), s([1, 2, 3], np.uint8)], axis=1)


def classic():
    x = f(5, 3)
    case("scaler", "Scaler", ML, [x], offset=[0.1, 0.2, 0.3], scale=[2.0, 3.0, 4.0])
    for norm in ("MAX", "L1", "L2"):
        case(f"normalizer_{norm.lower()}", "Normalizer", ML, [x], norm=norm)
    nan = x.copy()
    nan[1, 2] = np.nan
    case("imputer", "Imputer", ML, [nan], imputed_value_floats=[7.0, 8.0, 9.0], replaced_value_float=float("nan"))
    case("binarizer", "Binarizer", ML, [x], threshold=0.1)
    case("one_hot", "OneHotEncoder", ML, [s([[1], [4], [2]], np.int64)], cats_int64s=[1, 2, 3], zeros=1)
    case("extractor", "ArrayFeatureExtractor", ML, [x, s([[0, 2]], np.int64)])
    case("vectorizer", "FeatureVectorizer", ML, [x, f(5, 2)], inputdimensions=[3, 2])
    case("linear_regressor", "LinearRegressor", ML, [x], coefficients=[1.0, 2.0, 3.0, 0.5, 0.25, 0.125], intercepts=[0.5, -0.5], targets=2)
    for post in ("NONE", "LOGISTIC", "SOFTMAX"):
        low = post.lower()
        case(f"linear_classifier_{low}", "LinearClassifier", ML, [x], outs=2, coefficients=[float(v) for v in f(9)], intercepts=[0.1, 0.2, 0.3], classlabels_ints=[4, 5, 6], post_transform=post)
        case(f"linear_binary_{low}", "LinearClassifier", ML, [x], outs=2, coefficients=[1.0, -2.0, 0.5], intercepts=[0.1], classlabels_ints=[4, 6], post_transform=post)
        forest(f"trees_{low}", x, post)
    for aggregate in ("SUM", "AVERAGE", "MIN", "MAX"):
        regress(f"trees_{aggregate.lower()}", x, aggregate)
    support(x)


TREE = dict(
    nodes_treeids=[0, 0, 0, 0, 0, 1, 1, 1],
    nodes_nodeids=[0, 1, 2, 3, 4, 0, 1, 2],
    nodes_featureids=[0, 1, 0, 0, 0, 2, 0, 0],
    nodes_modes=["BRANCH_LEQ", "BRANCH_GT", "LEAF", "LEAF", "LEAF", "BRANCH_LT", "LEAF", "LEAF"],
    nodes_values=[0.1, -0.2, 0.0, 0.0, 0.0, 0.3, 0.0, 0.0],
    nodes_truenodeids=[1, 3, 0, 0, 0, 1, 0, 0],
    nodes_falsenodeids=[2, 4, 0, 0, 0, 2, 0, 0],
    nodes_missing_value_tracks_true=[0] * 8,
    nodes_hitrates=[1.0] * 8,
)
LEAVES = [(0, 2), (0, 3), (0, 4), (1, 1), (1, 2)]


def leaves(kind, pairs):
    trees, nodes, ids, weights = zip(*[(*LEAVES[leaf], c, w) for leaf, c, w in pairs])
    return {f"{kind}_treeids": list(trees), f"{kind}_nodeids": list(nodes), f"{kind}_ids": list(ids), f"{kind}_weights": [float(w) for w in weights]}


def forest(name, x, post):
    three = [(i, c, 0.1 * (i + 1) * (c + 1) - 0.3) for i in range(5) for c in range(3)]
    case(name, "TreeEnsembleClassifier", ML, [x], outs=2, classlabels_strings=["a", "b", "c"], post_transform=post, **leaves("class", three), **TREE)
    for sign, word in ((1, "positive"), (-1, "signed")):
        single = [(i, 0, (0.1 * (i + 1)) * (sign if i == 1 or i == 4 else 1)) for i in range(5)]
        case(f"{name}_{word}", "TreeEnsembleClassifier", ML, [x], outs=2, classlabels_int64s=[3, 9], post_transform=post, **leaves("class", single), **TREE)


def regress(name, x, aggregate):
    two = [(i, c, 0.1 * (i + 1) * (c + 1) - 0.3) for i in range(5) for c in range(2)]
    nan = x.copy()
    nan[0, 0] = np.nan
    case(name, "TreeEnsembleRegressor", ML, [nan], n_targets=2, aggregate_function=aggregate, base_values=[0.5, -0.5], **leaves("target", two), **TREE)


def support(x):
    vectors = [float(v) for v in f(12)]
    for kind in ("LINEAR", "POLY", "RBF", "SIGMOID"):
        params = [0.3, 0.2, 2.0]
        low = kind.lower()
        case(f"svr_{low}", "SVMRegressor", ML, [x], coefficients=[0.5, -0.25, 1.0, 0.125], kernel_params=params, kernel_type=kind, n_supports=4, rho=[0.2], support_vectors=vectors)
        case(f"svc_{low}", "SVMClassifier", ML, [x], outs=2, classlabels_ints=[4, 6], coefficients=[0.5, -0.25, 1.0, -0.8], kernel_params=params, kernel_type=kind, rho=[0.05], support_vectors=vectors, vectors_per_class=[2, 2])
    case("svr_one_class", "SVMRegressor", ML, [x], coefficients=[0.5, -0.25, 1.0, 0.125], kernel_params=[0.3, 0.2, 2.0], kernel_type="RBF", n_supports=4, rho=[-0.5], one_class=1, support_vectors=vectors)
    case("svc_prob", "SVMClassifier", ML, [x], outs=2, classlabels_ints=[4, 6], coefficients=[0.5, -0.25, 1.0, -0.8], kernel_params=[0.3, 0.2, 2.0], kernel_type="RBF", rho=[0.05], support_vectors=vectors, vectors_per_class=[2, 2], prob_a=[-1.5], prob_b=[0.1])
    three = [float(v) for v in f(8)]
    case("svc_three", "SVMClassifier", ML, [x], outs=2, classlabels_ints=[4, 6, 7], coefficients=three, kernel_params=[0.3, 0.2, 2.0], kernel_type="RBF", rho=[0.05, -0.1, 0.2], support_vectors=vectors, vectors_per_class=[2, 1, 1])
    case("svc_three_prob", "SVMClassifier", ML, [x], outs=2, classlabels_ints=[4, 6, 7], coefficients=three, kernel_params=[0.3, 0.2, 2.0], kernel_type="RBF", rho=[0.05, -0.1, 0.2], support_vectors=vectors, vectors_per_class=[2, 1, 1], prob_a=[-1.5, -1.2, -0.7], prob_b=[0.1, 0.0, -0.1])
    case("svc_linear_model", "SVMClassifier", ML, [x], outs=2, classlabels_ints=[4, 6, 7], coefficients=[float(v) for v in f(9)], kernel_type="LINEAR", kernel_params=[0.0, 0.0, 0.0], rho=[0.1])


def words():
    text = np.array([["the", "cat", "sat", "the", "cat"]], object)
    pool = ["the", "cat", "sat", "the", "cat", "cat", "sat"]
    for mode in ("TF", "IDF", "TFIDF"):
        for skip in (0, 2):
            grams = dict(min_gram_length=1, max_gram_length=2, max_skip_count=skip, mode=mode, ngram_counts=[0, 3], ngram_indexes=[3, 0, 1, 2, 4], weights=[0.5, 1.5, 2.5, 3.5, 4.5])
            numbers = s([[1, 2, 3, 1, 2], [2, 3, 9, 1, 1]], np.int64)
            case(f"tfidf_{mode.lower()}_{skip}", "TfIdfVectorizer", "", [numbers], pool_int64s=[1, 2, 3, 1, 2, 2, 3], **grams)


def blocks():
    """Weights of few bits, and mixtures of experts."""
    k, n, block = 40, 5, 16
    nb = 3
    for bits in (2, 4, 8):
        wq = u8(n, nb, block * bits // 8)
        case(f"matmul_{bits}bits_real_zero", "MatMulNBits", MS, [f(2, 3, k), wq, f(n * nb), f(n, nb) + 2, None, f(n)], fixed=range(1, 6), K=k, N=n, bits=bits, block_size=block)
    case("matmul_2bits", "MatMulNBits", MS, [f(2, 3, k), u8(n, nb, 4), f(n * nb), u8(n)], fixed=range(1, 4), K=k, N=n, bits=2, block_size=block)
    order = R.randint(0, nb, nb * block).astype(np.int32)
    case("matmul_4bits_order", "MatMulNBits", MS, [f(2, 3, k), u8(n, nb, 8), f(n * nb), None, order], fixed=(1, 2, 4), K=k, N=n, bits=4, block_size=block)
    for kind in (0, 1):
        case(f"matmul_bnb4_{kind}", "MatMulBnb4", MS, [f(2, 32), u8(128), np.abs(f(16))], fixed=(1, 2), K=32, N=8, block_size=16, quant_type=kind)
    at = s([[0, 3, 6], [2, 2, 5]], np.int64)
    case("gather_8bits", "GatherBlockQuantized", MS, [u8(7, 32), at, f(7, 2), u8(7, 2)], fixed=(0, 2, 3), bits=8, block_size=16, gather_axis=0, quantize_axis=1)
    case("gather_4bits", "GatherBlockQuantized", MS, [u8(7, 16), at, f(7, 2), u8(7, 1)], fixed=(0, 2, 3), bits=4, block_size=16, gather_axis=0, quantize_axis=1)
    case("gather_4bits_no_zero", "GatherBlockQuantized", MS, [u8(7, 16), at, f(7, 2)], fixed=(0, 2), bits=4, block_size=16, gather_axis=0, quantize_axis=1)
    e, w, h = 4, 8, 6
    for act in ("relu", "gelu", "silu", "identity"):
        case(f"moe_{act}", "MoE", MS, [f(3, w), f(3, e), f(e, h, w), f(e, h), f(e, w, h), f(e, w)], k=2, activation_type=act, normalize_routing_weights=int(act != "gelu"))
    case("moe_top1", "MoE", MS, [f(2, 3, w), f(6, e), f(e, h, w), None, f(e, w, h)], k=1)
    case("moe_swiglu", "MoE", MS, [f(3, w), f(3, e), 2 * f(e, 2 * h, w), f(e, 2 * h), f(e, w, h), f(e, w)], k=2, activation_type="swiglu", swiglu_fusion=1, activation_alpha=1.702, activation_beta=1.0, swiglu_limit=1.0, normalize_routing_weights=1)
    w, h = 32, 16
    scaled = [u8(e, h, w // 2), np.abs(f(e, h)) / 20, f(e, h), u8(e, w, h // 2), np.abs(f(e, w)) / 20]
    case("qmoe_4bits", "QMoE", MS, [f(3, w), f(3, e)] + scaled, fixed=range(2, 7), k=2, activation_type="silu", normalize_routing_weights=1, expert_weight_bits=4)
    case("unique_first", "Unique", MS, [s([3, 1, 3, 2, 1, 7])], outs=3)
    case("unfold", "UnfoldTensor", MS, [f(2, 8)], dim=-1, size=3, step=2)


def modern():
    """Versions 23 to 26 of ONNX's own operators, and what the suite has no test of."""
    b, hq, hk, n, d = 2, 4, 2, 3, 8
    q, k, v = f(b, hq, n, d), f(b, hk, n, d), f(b, hk, n, d)
    hidden = R.randint(0, 2, (b, 1, n, n)).astype(bool)
    case("attention23", "Attention", "", [q, k, v, hidden], opset=23, softcap=1.5)
    case("attention23_causal", "Attention", "", [q, k, v, f(n, n)], opset=23, is_causal=1, scale=0.3)
    past = [f(b, hk, 4, d), f(b, hk, 4, d)]
    case("attention23_past", "Attention", "", [q, k, v, f(n, n + 4)] + past, outs=3, opset=23, is_causal=1)
    flat = [f(b, n, hq * d), f(b, n, hk * d), f(b, n, hk * d)]
    case("attention23_flat", "Attention", "", flat, opset=23, q_num_heads=hq, kv_num_heads=hk, is_causal=1)
    case("attention24_lengths", "Attention", "", [q, f(b, hk, 6, d), f(b, hk, 6, d), None, None, None, s([3, 5], np.int64)], opset=24, is_causal=1)
    at = R.randint(0, 16, (b, n))
    for pairs in (0, 1):
        case(f"rotary23_{pairs}", "RotaryEmbedding", "", [f(b, hq, n, d), f(16, d // 2), f(16, d // 2), at], opset=23, interleaved=pairs)
        case(f"rotary23_part_{pairs}", "RotaryEmbedding", "", [f(b, n, hq * d), f(b, n, 2), f(b, n, 2)], opset=23, num_heads=hq, rotary_embedding_dim=4, interleaved=pairs)
    case("rms23", "RMSNormalization", "", [f(2, 3, 4), f(3, 4)], opset=23, axis=1, epsilon=1e-3)
    for mode in ("linear", "circular"):
        case(f"tensor_scatter_{mode}", "TensorScatter", "", [f(b, hk, 8, d), f(b, hk, 2, d), s([1, 6], np.int64)], opset=24, mode=mode)
    case("swish24", "Swish", "", [f(2, 3)], opset=24, alpha=0.7)
    case("cum_prod", "CumProd", "", [f(2, 3, 4), s(1, np.int64)], opset=26, fixed=(1,), exclusive=1, reverse=1)
    x = f(1, 2, 8, 8)
    rois = s([[0, 0, 7, 7], [1, 2, 3, 3], [0, 4, 6, 5], [2, 2, 2, 2]])
    for mode in ("avg", "max"):
        case(f"roi_align_{mode}", "RoiAlign", "", [x, rois, s([0] * 4, np.int64)], opset=16, output_height=2, output_width=3, mode=mode)
    carry = helper.make_tensor_value_info("h", TensorProto.FLOAT, [2])
    row = helper.make_tensor_value_info("r", TensorProto.FLOAT, [2])
    outs = [helper.make_tensor_value_info(o, TensorProto.FLOAT, [2]) for o in ("h2", "o")]
    body = helper.make_graph([helper.make_node("Add", ["h", "r"], ["h2"]), helper.make_node("Mul", ["h2", "r"], ["o"])], "b", [carry, row], outs)
    for back in (0, 1):
        case(f"scan8_lengths_{back}", "Scan", "", [s([2, 4, 3], np.int64), f(3, 2), f(3, 4, 2)], outs=2, opset=8, body=body, num_scan_inputs=1, directions=[back])


def steps():
    case("gated_rms", "GatedRMSNorm", MS, [f(2, 3, 8), f(4), f(2, 3, 8)], epsilon=1e-4)
    case("gated_rms_sigmoid", "GatedRMSNorm", MS, [f(2, 3, 8), f(8), f(2, 3, 8)], activation="sigmoid")
    case("scaled_silu", "ScaledSiLU", MS, [f(2, 3)], alpha=1.5)
    case("scaled_silu_by", "ScaledSiLU", MS, [f(2, 3), s(0.75)])
    ids = s([[1, 2, 3, 1, 2], [0, 0, 0, 4, 0]], np.int64)
    for n in (1, 2, 3, 6):
        case(f"ngram_block_{n}", "NGramRepeatBlock", MS, [ids, f(2, 6)], ngram_size=n)
    rois = s([[0, 0, 1, 1], [0.1, 0.2, 0.8, 0.7], [0.9, 0.4, 0.2, 1.3]])
    for mode in ("bilinear", "nearest"):
        case(f"crop_{mode}", "CropAndResize", MS, [f(2, 2, 5, 6), rois, s([1, 0, 1], np.int32), s([3, 4], np.int32)], fixed=(3,), mode=mode, extrapolation_value=0.5)
    case("crop_one", "CropAndResize", MS, [f(2, 2, 5, 6), rois, s([1, 0, 1], np.int32), s([1, 1], np.int32)], fixed=(3,))
    case("conv_transpose_pads", "ConvTransposeWithDynamicPads", MS, [f(1, 2, 4, 5), f(2, 3, 3, 3), s([1, 0, 1, 2], np.int64), f(3)], fixed=(1, 2), strides=[2, 1], output_padding=[1, 0])
    for t in (np.int32, np.uint32, np.float32, np.int64, np.float64):
        case(f"murmur_{np.dtype(t).name}", "MurmurHash3", MS, [(R.randint(0, 1 << 30, 5) * 1.5).astype(t)], seed=7)
    for way in ("forward", "reverse"):
        lstm = [f(3, 2, 4), 2 * f(1, 12, 4), 2 * f(1, 12, 3), f(1, 24), s([3, 1], np.int32), f(1, 2, 3), 3 * f(1, 2, 3), f(1, 9)]
        case(f"lstm_clip_{way}", "LSTM", "", lstm, outs=3, hidden_size=3, clip=0.5, direction=way, input_forget=int(way == "reverse"))
    case("murmur_signed", "MurmurHash3", MS, [s([3, -4], np.int32)], positive=0)


transformers()
quantised()
classic()
words()
blocks()
modern()
steps()
