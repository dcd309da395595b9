"""Families of `differ.py` for com.microsoft: what ONNX Runtime's transformer optimiser and quantiser write."""

import numpy as np


def families(d):
    """`d`: the names of differ.py."""
    f, i, u8, s, case, pick, maybe, MS, F16 = d.f, d.i, d.u8, d.s, d.case, d.pick, d.maybe, d.MS, d.F16
    ms = lambda op, ins, **a: case(op, ins, domain=MS, **a)

    def sizes():
        h = pick(1, 2, 4)
        size = pick(4, 8)
        return pick(1, 2), pick(1, 3, 4), h, size, h * size

    def ms_attention():
        b, n, h, size, w = sizes()
        hidden = pick(w, 8)
        ins = [f(b, n, hidden), f(hidden, 3 * w), maybe(f(3 * w), f(3 * w))]
        past = pick(0, 0, 3)
        t = n + past
        mask = pick(None, i(b, lo=1, hi=t + 1, t=np.int32), i(b, t, lo=0, hi=2, t=np.int32), i(b, n, t, lo=0, hi=2, t=np.int32),
                    np.concatenate([np.full(b, t), np.zeros(b)]).astype(np.int32))
        if past and mask is not None and mask.ndim == 1:
            mask = None
        cache = f(2, b, h, past, size) if past else None
        bias = maybe(f(pick(1, b), pick(1, h), n, t)) if mask is None or mask.ndim < 3 else None
        ms("Attention", ins + [mask, cache, bias], outs=2 if past else 1, num_heads=h, unidirectional=maybe(1), scale=maybe(0.3), mask_filter_value=maybe(-1e4), static=maybe(True))
        q, k, v = f(b, n, w), f(b, pick(n, 5), w), None
        v = f(*k.shape)
        t = k.shape[1]
        form = pick("plain", "heads", "packed_kv", "packed_qkv", "past")
        if form == "heads":
            k, v = f(b, h, t, size), f(b, h, t, size)
        ins = [q, k, v]
        if form == "packed_kv":
            ins = [q, f(b, t, h, 2, size), None]
        if form == "packed_qkv":
            ins, t = [f(b, n, h, 3, size), None, None], n
        bias = maybe(f(3 * w)) if form in ("plain", "past") else None
        past = pick(2, 3) if form == "past" else 0
        key_mask = maybe(pick(i(b, t + past, lo=0, hi=2, t=np.int32), i(b, lo=1, hi=t + 1, t=np.int32) if not past else None))
        extra = maybe(f(pick(1, b), pick(1, h), n, t + past))
        caches = [f(b, h, past, size), f(b, h, past, size)] if past else []
        ms("MultiHeadAttention", ins + [bias, key_mask, extra] + caches, outs=3 if past else 1, num_heads=h, scale=maybe(0.4), unidirectional=maybe(1) if n == t else None)

    def ms_group_query():
        b, n, _, _, _ = sizes()
        hk, share, size = pick(1, 2), pick(1, 2, 4), 16
        h = hk * share
        past = pick(0, 0, 4)
        n = 1 if past and pick(0, 1) else n
        lens = np.full(b, past + n - 1, np.int32)
        total = s(past + n, np.int32)
        packed = pick(False, False, True)
        qkv = [f(b, n, (h + 2 * hk) * size), None, None] if packed else [f(b, n, h * size), f(b, n, hk * size), f(b, n, hk * size)]
        cache = [f(b, hk, past, size), f(b, hk, past, size)]
        rotary = pick(0, 0, 1)
        table = [f(16, size // 2), f(16, size // 2)] if rotary else [None, None]
        at = maybe(np.tile(np.arange(past, past + n, dtype=np.int64), (b, 1))) if rotary else None
        bias = maybe(f(pick(1, b), pick(1, h), n, past + n)) if pick(0, 1) else None
        a = dict(num_heads=h, kv_num_heads=hk, scale=maybe(0.4), softcap=maybe(1.5), local_window_size=pick(-1, -1, 2), do_rotary=rotary or None,
                 rotary_interleaved=maybe(1) if rotary else None, smooth_softmax=maybe(1) if pick(0, 1) else None)
        sink = f(h) if a["smooth_softmax"] is None and pick(0, 1) else None
        ms("GroupQueryAttention", qkv + cache + [lens, total] + table + [at, bias, sink], outs=3, fixed=pick((), (6,)), static=maybe(True), **a)
        # What stands behind a prompt's own end is anything, so all are as long.
        n = 4
        lens = np.full(b, n - 1, np.int32)
        qkv = [f(b, n, h * size), f(b, n, hk * size), f(b, n, hk * size), None, None]
        ms("GroupQueryAttention", qkv + [lens, s(n, np.int32)] + table, outs=3, num_heads=h, kv_num_heads=hk, do_rotary=rotary or None)
        # A shared buffer: longer than what it holds.
        qkv = [f(b, 1, h * size), f(b, 1, hk * size), f(b, 1, hk * size), f(b, hk, 8, size), f(b, hk, 8, size)]
        ms("GroupQueryAttention", qkv + [np.full(b, 3, np.int32), s(4, np.int32)] + table, outs=3, show=1, num_heads=h, kv_num_heads=hk, do_rotary=rotary or None)

    def ms_norms():
        b, n, h, size, w = sizes()
        x = f(b, n, w)
        skip = pick(f(b, n, w), f(1, n, w), f(n, w))
        outs = pick(1, ["y0", "", "", "y3"])
        ms("SkipLayerNormalization", [x, skip, f(w), maybe(f(w)), maybe(f(w))], outs=outs, epsilon=maybe(1e-4))
        ms("SkipSimplifiedLayerNormalization", [x, skip, f(w), maybe(f(w))], outs=outs, epsilon=maybe(1e-4))
        case("SimplifiedLayerNormalization", [x, f(w)], outs=pick(1, 2), axis=-1, epsilon=1e-5)
        ids = i(b, n, lo=0, hi=9, t=np.int32)
        seg = maybe(i(b, n, lo=0, hi=2, t=np.int32))
        ms("EmbedLayerNormalization", [ids, seg, f(9, w), f(8, w), None if seg is None else f(2, w), f(w), f(w), maybe(i(b, n, lo=0, hi=2, t=np.int32)),
                                       maybe(i(pick(1, b), n, lo=0, hi=8, t=np.int32))], outs=pick(2, 3), epsilon=maybe(1e-6), mask_index_type=maybe(0, 1))
        x = 3 * f(b, n, w)
        for op in ("Gelu", "QuickGelu"):
            ms(op, [x], **({"alpha": maybe(1.1)} if op == "QuickGelu" else {}))
        ms("FastGelu", [x, maybe(f(w))])
        ms("BiasGelu", [x, f(w)])
        ms("FastGelu", [x.astype(F16), maybe(f(w).astype(F16))])
        half = pick(size // 2, size // 4) or 1
        q = pick(f(b, n, w), f(b, h, n, size))
        at = pick(i(b, n, lo=0, hi=16), s([2], np.int64))
        ms("RotaryEmbedding", [q, at, f(24, half), f(24, half)], interleaved=maybe(1), num_heads=h, rotary_embedding_dim=2 * half if half * 2 != size else pick(0, size), scale=None)
        ms("RotaryEmbedding", [f(b, n, w), i(b, n, lo=0, hi=16), f(24, size // 2), f(24, size // 2)], interleaved=maybe(1))
        ms("BiasSoftmax", [f(2, h, 3, 4), f(2, 1, 1, 4)], axis=3, is_inner_broadcast=0)
        ms("GatedRMSNorm", [f(2, 3, 8), f(8), f(2, 3, 8)], epsilon=maybe(1e-4), activation=pick("silu", "sigmoid", None))
        ms("ScaledSiLU", [f(2, 3)], alpha=maybe(1.5))
        rule = pick("linear", "gated", "delta", "gated_delta")
        hk, share, dk, dv, t = pick(1, 2), pick(1, 2), 4, pick(4, 6), pick(1, 3)
        decay = f(b, t, hk * pick(1, dk), lo=-2, hi=0) if "gated" in rule else None
        beta = f(b, t, hk, lo=0, hi=1) if "delta" in rule else None
        ms("LinearAttention", [f(b, t, hk * share * dk), f(b, t, hk * dk), f(b, t, hk * dv), maybe(f(b, hk, dk, dv)), decay, beta], outs=2, q_num_heads=hk * share, kv_num_heads=hk,
           update_rule=rule, scale=maybe(0.3))
        ms("CausalConvWithState", [f(b, 3, t), f(3, 1, 4), maybe(f(3)), maybe(f(b, 3, 3))], outs=2, activation=pick("none", "silu"))
        ms("GatedAdd", [f(2, 3), f(2, 3), f(2, 3)])

    def ms_products():
        b, n, h, size, w = sizes()
        ta, tb = maybe(1), maybe(1)
        lead = pick((), (2,), (2, 3))
        ms("FusedMatMul", [f(*lead, *((5, n) if ta else (n, 5))), f(*lead, *((w, 5) if tb else (5, w)))], transA=ta, transB=tb, alpha=maybe(0.5))
        ms("FusedMatMul", [f(3, 2, 4), f(2, 4, 5)], transBatchA=1)
        ms("FusedMatMul", [f(2, 3, 4), f(4, 2, 5)], transBatchB=1, transA=None)
        ms("FusedGemm", [f(3, 4), f(4, 5), maybe(f(5))], activation=pick("Relu", "LeakyRelu", "Sigmoid", "Tanh"), activation_alpha=0.2, alpha=maybe(0.5))
        act = pick("Relu", "Tanh", "Sigmoid", "LeakyRelu", "Clip", "HardSigmoid", None)
        params = {"LeakyRelu": [0.2], "Clip": [-0.5, 0.5], "HardSigmoid": [0.2, 0.5]}.get(act)
        z = maybe(f(1, 4, 6, 6)) if act != "Clip" else None
        ms("FusedConv", [f(1, 3, 6, 6), f(4, 3, 3, 3), maybe(f(4), f(4)), z], activation=act, activation_params=params, pads=[1, 1, 1, 1])
        bits, block = pick(2, 4, 4, 8), pick(16, 32)
        k, out = pick(32, 48, 40), pick(5, 8)
        blocks = -(-k // block)
        weights = u8(out, blocks, block * bits // 8)
        zero = pick(None, u8(out * (-(-blocks * bits // 8))), f(out, blocks, lo=0, hi=2 ** bits - 1))
        ms("MatMulNBits", [f(2, 3, k), weights, f(out * blocks), zero, None, maybe(f(out))], fixed=(1, 2, 3, 4, 5), K=k, N=out, bits=bits, block_size=block, accuracy_level=maybe(pick(0, 1)))
        ms("MatMulNBits", [f(2, 3, k), u8(out, blocks, block // 2), f(out * blocks), None, i(blocks * block, lo=0, hi=blocks, t=np.int32)], fixed=(1, 2, 4), K=k, N=out, bits=4, block_size=block)
        rows = pick(16, 32)
        for kind, t in (("u8", u8), ("packed", u8)):
            data = u8(7, rows * 2) if kind == "u8" else u8(7, rows)
            width = 8 if kind == "u8" else 4
            cols = rows * 2
            nb = cols // 16
            z = maybe(u8(7, nb) if width == 8 else u8(7, nb // 2))
            ms("GatherBlockQuantized", [data, i(2, 3, lo=0, hi=7), f(7, nb), z], fixed=(0, 2, 3), bits=width, block_size=16, gather_axis=0, quantize_axis=1)
        experts, inter, top = 4, 8, pick(1, 2)
        kind = pick("relu", "gelu", "silu", "identity")
        ms("MoE", [f(3, 8), f(3, experts), f(experts, inter, 8), maybe(f(experts, inter)), f(experts, 8, inter), maybe(f(experts, 8))], k=top, activation_type=kind, normalize_routing_weights=maybe(1))
        ms("MoE", [f(2, 3, 8), f(6, experts), f(experts, 2 * inter, 8), f(experts, 2 * inter), f(experts, 8, inter), f(experts, 8)], k=top, activation_type="swiglu", swiglu_fusion=pick(1, 2),
           activation_alpha=1.702, activation_beta=1.0, swiglu_limit=pick(7.0, 1.0), normalize_routing_weights=maybe(1))
        ms("MatMulBnb4", [f(2, 32), u8(32 * 8 // 2), f(32 * 8 // 16, lo=0.1)], fixed=(1, 2), K=32, N=8, block_size=16, quant_type=pick(0, 1))
        ms("Inverse", [f(2, 3, 3) + 3 * np.eye(3, dtype=np.float32)])
        ms("CDist", [f(3, 4), f(5, 4)], metric=pick("euclidean", "sqeuclidean"))
        ms("Trilu", [f(3, 4)], upper=maybe(0))
        ms("Pad", [f(2, 3), s([1, 0, 0, 2], np.int64), maybe(s(1.5))], fixed=(1,), mode="constant")
        ms("UnfoldTensor", [f(2, 8)], dim=-1, size=3, step=2)
        ms("NGramRepeatBlock", [i(2, 5, lo=0, hi=3), f(2, 6)], ngram_size=2)
        ms("MaxpoolWithMask", [f(1, 2, 6, 6), np.ones((1, 2, 6, 6), np.int32)], kernel_shape=[2, 2], strides=[2, 2])
        ms("GatherND", [f(3, 4), i(2, 1, lo=0, hi=3)])
        ms("Unique", [f(8).round()], outs=3)
        ms("CropAndResize", [f(1, 2, 5, 5), s([[0, 0, 1, 1], [0.1, 0.2, 0.8, 0.7]]), s([0, 0], np.int32), s([3, 4], np.int32)], mode=pick("bilinear", "nearest"), fixed=(3,))
        ms("ConvTransposeWithDynamicPads", [f(1, 2, 4, 4), f(2, 3, 3, 3), s([1, 1, 1, 1], np.int64), maybe(f(3))], fixed=(1, 2), strides=[2, 2])
        ms("SparseToDenseMatMul", [f(2, 3), f(3, 4)])

    def ms_quantised():
        t = pick(np.uint8, np.int8)
        q = lambda *sh: i(*sh, lo=np.iinfo(t).min, hi=np.iinfo(t).max + 1, t=t)
        z = lambda: s(pick(0, 3, 100), t)
        sc = lambda: s(round(float(np.exp(f(lo=-4.5, hi=-3))), 4))
        a, b = q(2, 3, 4), q(*pick((4,), (2, 3, 4), (1,), (3, 1)))
        for op in ("QLinearAdd", "QLinearMul"):
            ms(op, [a, sc(), z(), b, sc(), z(), s(0.05), z()], fixed=pick((), (1, 2, 4, 5, 6, 7)))
        ms("QLinearSigmoid", [a, sc(), z(), s(1 / 256), s(0, t)], fixed=range(1, 5))
        ms("QLinearLeakyRelu", [a, sc(), z(), s(0.05), z()], fixed=range(1, 5), alpha=maybe(0.2))
        ms("QLinearSoftmax", [a, sc(), z(), s(1 / 256), s(0 if t is np.uint8 else -128, t)], fixed=range(1, 5), axis=pick(-1, 1), opset_=pick(12, 13))
        image = q(1, 3, 6, 6)
        last = maybe(1)
        ms("QLinearGlobalAveragePool", [image, sc(), z(), s(0.02), z()], fixed=range(1, 5), channels_last=last)
        ms("QLinearAveragePool", [image, sc(), z(), s(0.02), z()], fixed=range(1, 5), kernel_shape=[2, 2], strides=maybe([2, 2]), channels_last=last, ceil_mode=maybe(1),
           pads=maybe([1, 1, 0, 0]), count_include_pad=maybe(1))
        ms("QLinearConcat", [s(0.05), z(), a, sc(), z(), q(2, 2, 4), sc(), z()], axis=1, fixed=pick((), (0, 1, 3, 4, 6, 7)))
        ms("QLinearWhere", [i(2, 3, 4, lo=0, hi=2).astype(bool), a, sc(), z(), q(2, 3, 4), sc(), z(), s(0.05), z()])
        ms("QLinearReduceMean", [a, sc(), z(), sc(), z()], axes=[-1], keepdims=maybe(0))
        per = maybe(1)
        w = i(5, 4, lo=-128, hi=128, t=np.int8)
        sw, zw = (f(5, lo=0.01, hi=0.05), i(5, lo=0, hi=1, t=np.int8)) if per else (s(0.02), s(3, np.int8))
        ms("QGemm", [q(3, 4), sc(), z(), w, sw, zw, maybe(i(5, lo=-99, hi=99, t=np.int32))] + maybe([s(0.5), z()], []), transB=1, alpha=maybe(0.5), fixed=range(1, 9))
        wk = i(4, 5, lo=-128, hi=128, t=np.int8)
        ms("DynamicQuantizeMatMul", [f(2, 3, 4), wk, sw, maybe(zw), maybe(f(5))], fixed=(1, 2, 3))
        ms("MatMulIntegerToFloat", [u8(2, 3, 4), wk, sc(), sw, maybe(s(9, np.uint8)), maybe(zw), maybe(f(5))], fixed=(1, 2, 3, 4, 5))
        ms("QuantizeLinear", [f(2, 3), s(0.02), s(pick(0, 9), pick(np.uint8, np.int8, np.uint16, np.int16))])
        ms("DequantizeLinear", [q(2, 3), f(3, lo=0.1), q(3)], axis=1)
        ms("QLinearConv", [u8(1, 6, 6, 3), s(0.02), s(120, np.uint8), u8(4, 3, 3, 3), s(0.02), s(120, np.uint8), s(0.5), s(9, np.uint8)], fixed=range(1, 8), channels_last=1)
        ms("NhwcMaxPool", [u8(1, 6, 6, 3)], kernel_shape=[2, 2], strides=maybe([2, 2]), pads=maybe([1, 0, 0, 1]))
        ms("MatMulInteger16", [i(3, 4, t=np.int16), i(4, 5, t=np.int16)])
        h = 4
        ms("DynamicQuantizeLSTM", [f(3, 2, 4), u8(1, 4, 16), u8(1, 4, 16), maybe(f(1, 32)), None, None, None, None, s([0.02]), s([128], np.uint8), s([0.02]), s([128], np.uint8)], outs=3,
           fixed=(1, 2, 8, 9, 10, 11), hidden_size=h)
        ms("QAttention", [u8(2, 4, 8), u8(8, 24), f(24), s(0.02), s(0.02), pick(None, s([3, 4], np.int32)), s(120, np.uint8), s(128, np.uint8)], num_heads=2, unidirectional=maybe(1))

    return [ms_attention, ms_group_query, ms_norms, ms_products, ms_quantised]
