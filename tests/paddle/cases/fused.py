"""Fused operators, attention."""
from goldens import f, i, np, op, paddle, pir, program

op("fused_elemwise_activation", {"X": f(2, 3), "Y": f(2, 3)}, {"functor_list": ["elementwise_add", "relu"], "axis": -1}, outs="Out")
op("fused_elemwise_activation", {"X": f(2, 3), "Y": f(3)}, {"functor_list": ["relu", "elementwise_add"], "axis": 1}, outs="Out")
op("fused_elemwise_activation", {"X": f(2, 3), "Y": f(2, 3)}, {"functor_list": ["scale", "elementwise_add"], "scale": 2.0}, outs="Out")
op("fused_elemwise_add_activation", {"X": f(2, 3), "Y": f(2, 3)}, {"functor_list": ["elementwise_add", "relu"]}, outs="Out")
op("fusion_squared_mat_sub", {"X": f(2, 3), "Y": f(3, 4)}, {"scalar": 0.5}, outs="Out")
op("fusion_repeated_fc_relu", {"X": f(2, 3), "W": [f(3, 4), f(4, 2)], "Bias": [f(4), f(2)]}, outs="Out")
pir("swiglu", {"x": f(2, 4)}, lambda C, x: C.swiglu(x, None))
