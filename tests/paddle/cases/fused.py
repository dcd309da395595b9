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

composed("fused_softmax_mask", {"X": f(1, 2, 3, 4), "Mask": f(1, 1, 3, 4)}, by=lambda x, mask: F.softmax(x + mask), says="softmax(x + mask)")
composed("fused_softmax_mask_upper_triangle", {"X": f(1, 2, 4, 4)}, by=lambda x: F.softmax(paddle.where(paddle.tril(paddle.ones_like(x)) > 0, x, paddle.full_like(x, -1e30))), says="softmax of the lower triangle")
