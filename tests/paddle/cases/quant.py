"""Simulated and stored quantisation."""
from goldens import f, i, np, op

one = lambda v: np.array([v], "float32")  # noqa: E731
x = f(3, 4)
for rt in ({}, {"round_type": 0}):
    op("fake_quantize_abs_max", {"X": x}, {"bit_length": 8, **rt})
    op("fake_quantize_dequantize_abs_max", {"X": x}, {"bit_length": 8, **rt})
    for ax in (0, 1):
        op("fake_channel_wise_quantize_abs_max", {"X": x}, {"bit_length": 8, "quant_axis": ax, **rt}, outs="Out OutScale")
        op("fake_channel_wise_quantize_dequantize_abs_max", {"X": x}, {"bit_length": 8, "quant_axis": ax, **rt}, outs="Out OutScale")
    op("fake_quantize_range_abs_max", {"X": x, "InScale": one(1.5)}, {"bit_length": 8, "is_test": True, **rt}, outs="Out")
    op("fake_quantize_moving_average_abs_max", {"X": x, "InScale": one(1.5)}, {"bit_length": 8, "is_test": True, **rt}, outs="Out")
    op("fake_quantize_dequantize_moving_average_abs_max", {"X": x, "InScale": one(1.5)}, {"bit_length": 8, "is_test": True, **rt}, outs="Out")
op("fake_quantize_abs_max", {"X": x}, {"bit_length": 4})
op("fake_dequantize_max_abs", {"X": f(3, 4, lo=-127, hi=127).round(), "Scale": one(1.5)}, {"max_range": 127.0})
op("fake_channel_wise_dequantize_max_abs", {"X": f(3, 4, lo=-127, hi=127).round(), "Scales": [f(3, lo=0.5)]}, {"quant_bits": [8], "quant_axis": 0})
op("fake_channel_wise_dequantize_max_abs", {"X": f(3, 4, lo=-127, hi=127).round(), "Scales": [f(4, lo=0.5)]}, {"quant_bits": [8], "quant_axis": 1, "x_num_col_dims": 1})
op("fake_channel_wise_dequantize_max_abs", {"X": f(3, 4, lo=-127, hi=127).round(), "Scales": [f(4, lo=0.5), one(2.0)]}, {"quant_bits": [8, 8], "quant_axis": 0, "x_num_col_dims": 1})
op("moving_average_abs_max_scale", {"X": x, "InAccum": one(1.0), "InState": one(1.0)}, {"is_test": True}, outs="Out")
zp, q = {"axis": -1}, {"bit_length": 8, "is_test": True, "only_observer": False}
for rt in ({}, {"round_type": 1}):
    op("quantize_linear", {"X": x, "Scale": one(1.5), "ZeroPoint": one(0.0)}, {"quant_axis": -1, "qmin": -128, "qmax": 127, **q, **rt}, outs="Y")
    op("quantize_linear", {"X": x, "Scale": f(3, lo=0.5), "ZeroPoint": np.zeros(3, "float32")}, {"quant_axis": 0, "qmin": -128, "qmax": 127, **q, **rt}, outs="Y")
op("quantize_linear", {"X": x, "Scale": f(4, lo=0.5), "ZeroPoint": np.zeros(4, "float32")}, {"quant_axis": 1, "qmin": -128, "qmax": 127, **q}, outs="Y")
op("quantize_linear", {"X": x, "Scale": one(0.5), "ZeroPoint": one(0.0)}, {"quant_axis": -1, "qmin": -128, "qmax": 127, **q}, outs="Y")
# PIR's executor of 3.3.1 cannot run dequantize_linear (it quantises again, or refuses).
op("dequantize_linear", {"X": f(3, 4, lo=-127, hi=127).round(), "Scale": one(1.5), "ZeroPoint": one(0.0)}, {"quant_axis": -1, "qmin": -128, "qmax": 127, **q}, outs="Y", pir=False)
op("dequantize_linear", {"X": i(3, 4, lo=-127, hi=127, dtype="int8"), "Scale": f(3, lo=0.5), "ZeroPoint": np.zeros(3, "float32")}, {"quant_axis": 0, "qmin": -128, "qmax": 127, **q}, outs="Y", pir=False)
op("dequantize_linear", {"X": i(3, 4, lo=-127, hi=127, dtype="int8"), "Scale": f(4, lo=0.5), "ZeroPoint": np.zeros(4, "float32")}, {"quant_axis": 1, "qmin": -128, "qmax": 127, **q}, outs="Y", pir=False)
op("dequantize_abs_max", {"X": i(3, 4, lo=-127, hi=127, dtype="int8"), "Scale": one(2.0)}, {"max_range": 127.0})
op("dequantize_log", {"X": i(3, 4, lo=-127, hi=127, dtype="int8"), "Dict": f(128, lo=0)}, pir=False)
