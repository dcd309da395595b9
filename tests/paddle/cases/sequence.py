"""Tensors with offsets (LoD), recurrent operators, decoding."""
from goldens import Lod, NEW, b, f, i, np, op, paddle, pir, program

OFF = [0, 2, 3, 7]
seq = lambda *d, off=OFF, **k: Lod(f(off[-1], *d, **k), off)  # noqa: E731
ids = lambda *d, off=OFF, hi=6: Lod(i(off[-1], *d, hi=hi), off)  # noqa: E731
for kind in "AVERAGE SUM SQRT MAX LAST FIRST".split():
    op("sequence_pool", {"X": seq(3)}, {"pooltype": kind}, outs="Out", pir=False)
op("sequence_pool", {"X": seq(2, off=[0, 2, 2, 5])}, {"pooltype": "SUM", "pad_value": 0.5}, outs="Out", pir=False)
op("sequence_pool", {"X": seq(2, off=[0, 2, 2, 5])}, {"pooltype": "MAX", "pad_value": 0.5}, outs="Out", pir=False)
op("sequence_softmax", {"X": seq(1)}, pir=False)
op("sequence_softmax", {"X": Lod(f(7), OFF)}, pir=False)
op("sequence_conv", {"X": seq(3), "Filter": f(9, 4)}, {"contextLength": 3, "contextStart": -1, "contextStride": 1}, pir=False)
op("sequence_conv", {"X": seq(3), "Filter": f(6, 4)}, {"contextLength": 2, "contextStart": 0, "contextStride": 1}, pir=False)
op("sequence_conv", {"X": seq(2), "Filter": f(10, 3)}, {"contextLength": 5, "contextStart": -2, "contextStride": 1}, pir=False)
op("sequence_expand", {"X": f(3, 2), "Y": seq(1)}, {"ref_level": 0}, pir=False)
op("sequence_expand", {"X": Lod(f(4, 2), [0, 2, 4]), "Y": Lod(f(3, 1), [0, 1, 3])}, {"ref_level": 0}, pir=False)
op("sequence_expand", {"X": f(3, 2), "Y": seq(1)}, pir=False)
op("sequence_expand_as", {"X": f(3, 2), "Y": seq(1)}, old=True)
op("sequence_pad", {"X": seq(2), "PadValue": np.array([0.5], "float32")}, {"padded_length": -1}, outs="Out Length", old=True)
op("sequence_pad", {"X": seq(2), "PadValue": np.array([0.0, 1.0], "float32")}, {"padded_length": 5}, outs="Out Length", old=True)
op("sequence_unpad", {"X": f(3, 4, 2), "Length": np.array([2, 4, 1], "int64")}, old=True)
op("sequence_unpad", {"X": f(3, 4), "Length": np.array([2, 4, 1], "int64")}, old=True)
op("sequence_reverse", {"X": seq(2)}, outs="Y", old=True)
op("sequence_concat", {"X": [seq(2), seq(2, off=[0, 1, 3, 4])]}, old=True)
op("sequence_slice", {"X": seq(2), "Offset": np.array([[0], [0], [1]], "int64"), "Length": np.array([[1], [1], [2]], "int64")}, old=True)
op("sequence_reshape", {"X": seq(4)}, {"new_dim": 2}, old=True)
op("sequence_enumerate", {"X": ids(1)}, {"win_size": 2, "pad_value": 0}, old=True)
op("sequence_erase", {"X": ids(1)}, {"tokens": [2, 3]}, old=True)
op("sequence_scatter", {"X": f(3, 6), "Ids": ids(1), "Updates": seq(1)}, old=True)
op("lod_reset", {"X": f(7, 2)}, {"target_lod": OFF}, pir=False)
op("lod_reset", {"X": f(7, 2), "Y": seq(1)}, pir=False)
op("lod_reset", {"X": f(7, 2), "Y": np.array(OFF, "int32")}, pir=False)


def chain(first, second):
    def build(x, **more):
        blk = x.block
        names = []
        for k, (kind, slot, out, attrs, extra) in enumerate((first, second)):
            v = blk.create_var(name=f"t{k}", dtype="float32")
            blk.append_op(type=kind, inputs={slot: [x], **{s: [more[n]] for s, n in extra.items()}}, outputs={out: [v]}, attrs=attrs)
            x = v
        return x
    return build


program("relu", {"x": seq(1)}, chain(("relu", "X", "Out", {}, {}), ("sequence_softmax", "X", "Out", {}, {})), pir=False, tag="keeps_offsets")
op("im2sequence", {"X": f(2, 2, 3, 4)}, {"kernels": [2, 2], "strides": [1, 1], "paddings": [0, 0, 0, 0]}, pir=False)
op("im2sequence", {"X": f(1, 2, 4, 4)}, {"kernels": [3, 2], "strides": [2, 1], "paddings": [1, 0, 1, 1]}, pir=False)
op("row_conv", {"X": seq(3), "Filter": f(2, 3)}, pir=False)
op("ctc_align", {"Input": Lod(np.array([[0], [1], [1], [0], [2], [2], [0], [3]], "int32"), [0, 4, 8])}, {"blank": 0, "merge_repeated": True}, outs="Output", pir=False)
op("ctc_align", {"Input": np.array([[0, 1, 1, 0, 2], [3, 3, 0, 3, 0]], "int32"), "InputLength": np.array([[5], [4]], "int32")}, {"blank": 0, "merge_repeated": True, "padding_value": -1}, outs="Output OutputLength", pir=False)
op("ctc_align", {"Input": np.array([[0, 1, 1, 0, 2], [3, 3, 0, 3, 0]], "int32"), "InputLength": np.array([[5], [4]], "int32")}, {"blank": 3, "merge_repeated": False, "padding_value": 9}, outs="Output OutputLength", pir=False)
op("crf_decoding", {"Emission": seq(3), "Transition": f(5, 3)}, pir=False)
op("crf_decoding", {"Emission": seq(3), "Transition": f(5, 3), "Label": Lod(i(7, 1, hi=3), OFF)}, pir=False)
op("crf_decoding", {"Emission": f(2, 4, 3), "Transition": f(5, 3), "Length": np.array([[4], [2]], "int64")})
D = 2
for at in ({}, {"use_peepholes": False}, {"is_reverse": True}, {"use_peepholes": False, "gate_activation": "sigmoid", "cell_activation": "relu", "candidate_activation": "tanh"}):
    bias = 7 * D if at.get("use_peepholes", True) else 4 * D
    op("lstm", {"Input": seq(4 * D), "Weight": f(D, 4 * D), "Bias": f(1, bias)}, at, outs="Hidden Cell", pir=False)
op("lstm", {"Input": seq(4 * D), "H0": f(3, D), "C0": f(3, D), "Weight": f(D, 4 * D), "Bias": f(1, 7 * D)}, outs="Hidden Cell", pir=False)
for at in ({}, {"is_reverse": True}, {"origin_mode": True}, {"activation": "relu", "gate_activation": "sigmoid"}):
    op("gru", {"Input": seq(3 * D), "Weight": f(D, 3 * D), "Bias": f(1, 3 * D)}, at, outs="Hidden", pir=False)
op("gru", {"Input": seq(3 * D), "H0": f(3, D), "Weight": f(D, 3 * D)}, outs="Hidden", pir=False)
op("gru_unit", {"Input": f(3, 3 * D), "HiddenPrev": f(3, D), "Weight": f(D, 3 * D), "Bias": f(1, 3 * D)}, outs="Hidden", pir=False)
op("gru_unit", {"Input": f(3, 3 * D), "HiddenPrev": f(3, D), "Weight": f(D, 3 * D)}, {"origin_mode": True}, outs="Hidden", pir=False)
for mode, gates, states in (("LSTM", 4, 2), ("GRU", 3, 1), ("RNN_TANH", 1, 1), ("RNN_RELU", 1, 1)):
    for dirs, layers, lens in ((1, 1, False), (2, 1, True), (1, 2, False), (2, 2, False)):
        H, I, T, B = 2, 3, 3, 2
        ws, bs = [], []
        for layer in range(layers):
            for d in range(dirs):
                ws += [f(gates * H, I if layer == 0 else dirs * H, lo=-1, hi=1), f(gates * H, H, lo=-1, hi=1)]
                bs += [f(gates * H, lo=-1, hi=1), f(gates * H, lo=-1, hi=1)]
        ins = {"Input": f(T, B, I), "PreState": [f(layers * dirs, B, H, lo=-1, hi=1) for _ in range(states)], "WeightList": ws + bs}
        if lens:
            ins["SequenceLength"] = np.array([3, 2], "int32")
        op("rnn", ins, {"mode": mode, "is_bidirec": dirs == 2, "num_layers": layers, "input_size": I, "hidden_size": H, "is_test": True},
           outs={"Out": 1, "State": states, })
op("fusion_gru", {"X": seq(3), "WeightX": f(3, 3 * D), "WeightH": f(D, 3 * D), "Bias": f(1, 3 * D)}, outs="Hidden", pir=False)
op("fusion_lstm", {"X": seq(3), "WeightX": f(3, 4 * D), "WeightH": f(D, 4 * D), "Bias": f(1, 4 * D)}, {"use_peepholes": False}, outs="Hidden Cell", pir=False)
op("fusion_seqpool_concat", {"X": [seq(2), seq(2)]}, {"pooltype": "SUM", "axis": 1}, pir=False)
op("fusion_seqconv_eltadd_relu", {"X": seq(3), "Filter": f(9, 4), "Bias": f(1, 4)}, {"contextLength": 3, "contextStart": -1, "contextStride": 1}, outs="Out", pir=False)
A = dict(X=seq(3), C0=f(3, D), H0=f(3, D), AttentionWeight=f(3 + D, 1), AttentionBias=f(1, 1), LSTMWeight=f(D + 3, 4 * D), LSTMBias=f(1, 4 * D))
op("attention_lstm", A, outs="Hidden Cell", pir=False)
op("attention_lstm", {**A, "AttentionScalar": f(1, 1), "AttentionScalarBias": f(1, 1)}, {"candidate_activation": "relu"}, outs="Hidden Cell", pir=False)
op("gru_unit", {"Input": f(2, 3 * D), "HiddenPrev": f(2, D), "Weight": f(D, 3 * D), "Bias": f(1, 3 * D)}, outs="Hidden")
op("ctc_align", {"Input": np.array([[0, 1, 1, 0, 2], [3, 3, 0, 3, 0]], "int32"), "InputLength": np.array([[5], [4]], "int32")}, {"blank": 0, "merge_repeated": True, "padding_value": -1}, outs="Output OutputLength")
TWO = [[0, 2, 3], [0, 2, 3, 7]]
for kind in ("SUM", "LAST"):
    op("sequence_pool", {"X": Lod(f(7, 2), TWO)}, {"pooltype": kind}, outs="Out", pir=False)
for level in (0, 1, -1):
    op("sequence_expand", {"X": f(2 if level == 0 else 3, 2), "Y": Lod(f(7, 1), TWO)}, {"ref_level": level}, pir=False)
op("sequence_expand", {"X": Lod(f(4, 2), [0, 1, 4]), "Y": Lod(f(7, 1), TWO)}, {"ref_level": 0}, pir=False)


def twice(x):
    for k, kind in enumerate(("SUM", "MAX")):
        v, m = (x.block.create_var(name=f"{n}{k}", dtype=d) for n, d in (("t", "float32"), ("m", "int32")))
        x.block.append_op(type="sequence_pool", inputs={"X": [x]}, outputs={"Out": [v], "MaxIndex": [m]}, attrs={"pooltype": kind})
        x = v
    return x


program("sequence_pool", {"x": Lod(f(7, 2), TWO)}, twice, pir=False, tag="twice")
