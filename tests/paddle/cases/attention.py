"""Attention and its relatives, which Paddle runs on GPUs: answers are compositions of its operators."""
from goldens import composed, f, i, np, paddle

from paddle.nn import functional as F

SDPA = "softmax(q k' * scale + mask) v, heads first"


def attend(q, k, v, mask=None, causal=False, scale=None, first=False):
    """What `paddle.nn.functional.scaled_dot_product_attention` composes: [B, S, H, D]."""
    q, k, v = (x.transpose([0, 2, 1, 3]) for x in (q, k, v))
    if k.shape[1] != q.shape[1]:
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    s = q.matmul(k, transpose_y=True) * (scale or q.shape[-1] ** -0.5)
    if mask is not None:
        s = s + mask
    if causal:
        past = 0 if first else k.shape[2] - q.shape[2]
        seen = np.tril(np.ones((q.shape[2], k.shape[2])), past) > 0
        s = paddle.where(paddle.to_tensor(seen), s, paddle.full_like(s, -1e30))
    return F.softmax(s).matmul(v).transpose([0, 2, 1, 3])


qkv = lambda s=3, t=3, h=2, m=2: {"q": f(2, s, h, 4), "k": f(2, t, m, 4), "v": f(2, t, m, 4)}  # noqa: E731
for ins, at in ((qkv(), {}), (qkv(), {"causal": True}), (qkv(2, 5), {"causal": True}), (qkv(3, 4, 4, 2), {}), ({**qkv(3, 4), "attn_mask": f(2, 1, 3, 4)}, {})):
    composed("flash_attn", ins, {"dropout": 0.0, "is_test": True, **at}, outs="out", by=lambda q, k, v, attn_mask=None, at=at: attend(q, k, v, attn_mask, at.get("causal", False)), says=SDPA,
             order="q k v fixed_seed_offset attn_mask", results="out softmax softmax_lse seed_offset")
long = lambda **m: {"query": f(2, 3, 2, 4), "key": f(2, 4, 2, 4), "value": f(2, 4, 2, 4), **m}  # noqa: E731
for ins, at in ((long(), {"scale": -1.0}), (long(), {"scale": 0.25, "causal": True}), (long(bias=f(2, 2, 3, 4)), {"scale": 0.5})):
    composed("memory_efficient_attention", ins, {"max_seqlen_q": -1, "max_seqlen_k": -1, "causal": False, "dropout_p": 0.0, "is_test": True, **at}, outs="output",
             by=lambda query, key, value, bias=None, at=at: attend(query, key, value, bias, at.get("causal", False), at["scale"] if at["scale"] > 0 else None, True), says=SDPA,
             order="query key value bias cu_seqlens_q cu_seqlens_k causal_diagonal seqlen_k", results="output logsumexp seed_and_offset")


def unpadded(q, k, v, cu_seqlens_q, cu_seqlens_k, causal=False):
    parts = []
    a, b = cu_seqlens_q.numpy(), cu_seqlens_k.numpy()
    for n in range(len(a) - 1):
        own = (q[a[n]:a[n + 1]], k[b[n]:b[n + 1]], v[b[n]:b[n + 1]])
        parts.append(attend(*(x.unsqueeze(0) for x in own), causal=causal, scale=0.5)[0])
    return paddle.concat(parts)


offs = lambda *v: np.array(v, "int32")  # noqa: E731
for causal in (False, True):
    ins = {"q": f(5, 2, 4), "k": f(7, 2, 4), "v": f(7, 2, 4), "cu_seqlens_q": offs(0, 2, 5), "cu_seqlens_k": offs(0, 3, 7)}
    composed("flash_attn_unpadded", ins, {"scale": 0.5, "dropout": 0.0, "causal": causal, "is_test": True}, outs="out", by=lambda q, k, v, cu_seqlens_q, cu_seqlens_k, c=causal: unpadded(q, k, v, cu_seqlens_q, cu_seqlens_k, c),
             says=SDPA + ", a sequence at a time", order="q k v cu_seqlens_q cu_seqlens_k fixed_seed_offset attn_mask", results="out softmax softmax_lse seed_offset")


def variable(query, key, value, seq_lens, kv_seq_lens, mask, scale=0.5):
    s = query.matmul(key, transpose_y=True) * scale + mask
    t = paddle.arange(key.shape[2], dtype="int32")
    s = paddle.where(t < kv_seq_lens.reshape([-1, 1, 1, 1]), s, paddle.full_like(s, -1e30))
    v = F.softmax(s).matmul(value)
    rows = paddle.arange(query.shape[2], dtype="int32").reshape([1, 1, -1, 1]) < seq_lens.reshape([-1, 1, 1, 1])
    return paddle.where(rows, v, paddle.zeros_like(v))


composed("variable_length_memory_efficient_attention", {"query": f(2, 2, 3, 4), "key": f(2, 2, 5, 4), "value": f(2, 2, 5, 4), "seq_lens": np.array([[3], [2]], "int32"), "kv_seq_lens": np.array([[5], [4]], "int32"), "mask": f(2, 1, 3, 5)},
         {"scale": 0.5, "causal": False, "pre_cache_length": 0}, outs="out", order="query key value seq_lens kv_seq_lens mask", by=variable, says=SDPA + ", keys and queries behind a row's end left out")


def multihead(input, w, bias, biasqk=None):
    b, s, n = input.shape
    v = (input.matmul(w.reshape([n, -1])) + bias.reshape([-1])).reshape([b, s, 3, 2, n // 2])
    return attend(v[:, :, 0], v[:, :, 1], v[:, :, 2], biasqk, scale=0.5).reshape([b, s, n])


composed("multihead_matmul", {"Input": f(2, 3, 8), "W": f(8, 3, 8, lo=-1, hi=1), "Bias": f(3, 8), "BiasQK": f(2, 2, 3, 3)}, {"alpha": 0.5, "head_number": 2}, outs="Out", by=multihead, says=SDPA + ", of a packed projection", order="Input W Bias BiasQK")
composed("multihead_matmul", {"Input": f(1, 4, 4), "W": f(4, 3, 4, lo=-1, hi=1), "Bias": f(3, 4)}, {"alpha": 0.5, "head_number": 2}, outs="Out", by=multihead, says=SDPA + ", of a packed projection", order="Input W Bias BiasQK")


def angles(steps, width, base=10000.0):
    a = np.arange(steps)[:, None] * base ** (-(np.arange(width) // 2 * 2) / width)
    return paddle.to_tensor(np.sin(a).astype("float32").reshape(1, steps, 1, width)), paddle.to_tensor(np.cos(a).astype("float32").reshape(1, steps, 1, width))


def turned(x, sin, cos, near=True):
    if near:
        y = paddle.stack([-x[..., 1::2], x[..., 0::2]], -1).reshape(x.shape)
    else:
        half = x.shape[-1] // 2
        y = paddle.concat([-x[..., half:], x[..., :half]], -1)
    return x * cos + y * sin


def rope(q, k=None, v=None, sin=None, cos=None, position_ids=None, near=True, base=10000.0):
    if sin is None:
        sin, cos = angles(q.shape[1] + 8, q.shape[3], base)
    if position_ids is not None:
        sin, cos = (t[0].index_select(position_ids.reshape([-1])).reshape([*position_ids.shape, 1, -1]) for t in (sin, cos))
    else:
        sin, cos = sin[:, :q.shape[1]], cos[:, :q.shape[1]]
    return [turned(x, sin, cos, near) for x in (q, k, v) if x is not None]


ROPE = "x cos + y sin, y the other of each pair, as in Paddle's test of the operator"
one = lambda: f(2, 3, 2, 4)  # noqa: E731
table = lambda: f(1, 6, 1, 4, lo=-1, hi=1)  # noqa: E731
for near in (True, False):
    at = {"use_neox_rotary_style": near}
    composed("fused_rotary_position_embedding", {"q": one(), "k": one(), "v": one()}, at, outs="out_q out_k out_v", by=lambda n=near, **x: rope(near=n, **x), says=ROPE, order="q k v sin cos position_ids", results="out_q out_k out_v")
    composed("fused_rotary_position_embedding", {"q": one(), "k": one(), "sin": table(), "cos": table()}, at, outs="out_q out_k", by=lambda n=near, **x: rope(near=n, **x), says=ROPE, order="q k v sin cos position_ids", results="out_q out_k out_v")
    composed("fused_rotary_position_embedding", {"q": one(), "sin": table(), "cos": table(), "position_ids": i(2, 3, hi=6)}, at, outs="out_q", by=lambda n=near, **x: rope(near=n, **x), says=ROPE, order="q k v sin cos position_ids", results="out_q out_k out_v")
composed("fused_rotary_position_embedding", {"q": one()}, {"rotary_emb_base": 500.0}, outs="out_q", by=lambda q: rope(q, base=500.0), says=ROPE, order="q k v sin cos position_ids", results="out_q out_k out_v")
for causal in (False, True):
    composed("flash_attn_qkvpacked", {"qkv": f(2, 3, 3, 2, 4)}, {"causal": causal, "dropout": 0.0, "is_test": True}, outs="out", order="qkv fixed_seed_offset attn_mask", results="out softmax softmax_lse seed_offset",
             by=lambda qkv, c=causal: attend(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2], causal=c), says=SDPA + ", of queries, keys and values in one")
composed("fused_dot_product_attention", {"q": f(2, 3, 2, 4), "k": f(2, 3, 2, 4), "v": f(2, 3, 2, 4)}, {"scaling_factor": 0.5, "dropout_probability": 0.0, "is_training": False, "mask_type_str": "causal", "bias_type_str": "none"}, outs="out",
         order="q k v bias cu_seqlen_q cu_seqlen_kv", results="out softmax_out rng_state", by=lambda q, k, v: attend(q, k, v, causal=True, scale=0.5), says=SDPA)
