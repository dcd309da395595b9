#!/usr/bin/env python3
"""Records what Paddle itself answers for single operators, in both of its formats.

    python goldens.py                 # all families in cases/, into data/FAMILY.jsonl
    python goldens.py detection nn    # these families

Run with paddlepaddle 3.3.1 (CPU). Operators that 3.3.1 dropped (`old=True` in a case) need 2.6.2: run
the script again with that version's interpreter; each run replaces only the lines that it can make.

A case names a ProgramDesc operator with inputs and attributes (`op`), or a Python function that
appends PIR operators (`pir`), or one that builds a whole ProgramDesc (`program`). For `op`:

- the ProgramDesc holds only the attributes that the case gives, so that a reader's own defaults are
  what is tested; Paddle's defaults are filled in when Paddle reads the same bytes;
- the PIR program is what Paddle's own translator makes of it, unless the case says `pir=False`;
- both are run by Paddle's executor from the very bytes that are recorded. PIR's answers are written
  down only where they differ from ProgramDesc's.

One line of a data file is one case, as JSON: `op`, `case`, `paddle`, `ops` (of ProgramDesc), `in` {name: [dtype, dims,
values]}, `lod` {name: offsets}, `legacy` (base64 of ProgramDesc), `pir` (the program), `out` and
where it differs `out_pir` (lists of [dtype, dims, values]), and `by` where a composition of Paddle's operators answers
for one that its CPU build cannot run. Reals that JSON lacks are texts.
"""
import base64
import importlib
import json
import os
import sys
import tempfile
import zlib

os.environ.setdefault("GLOG_minloglevel", "3")
os.environ["FLAGS_enable_pir_api"] = "0"
os.environ["FLAGS_use_mkldnn"] = "0"
os.environ["FLAGS_use_stride_kernel"] = "0"
import numpy as np  # noqa: E402
import paddle  # noqa: E402
from paddle.base import core  # noqa: E402
from paddle.base.framework import OpProtoHolder  # noqa: E402
from paddle.base.proto import framework_pb2 as pb  # noqa: E402

paddle.enable_static()
HERE = os.path.dirname(os.path.abspath(__file__))
VERSION = paddle.__version__
NEW = VERSION.startswith("3.")
PROTOS = OpProtoHolder.instance()
EXE = paddle.static.Executor()
CASES = []


class Lod:
    """A tensor with offsets of sequences along its first axis, or a list of them for each level."""

    def __init__(self, data, offsets):
        self.data, self.offsets = data, offsets
        self.shape, self.dtype = data.shape, data.dtype

    def levels(self):
        return self.offsets if isinstance(self.offsets[0], list) else [self.offsets]


class Bf16:
    """A tensor that is fed as bfloat16 (its values must be exact in it)."""

    def __init__(self, data):
        self.data = data
        self.shape, self.dtype = data.shape, "bfloat16"


SEED = [0]


def rng():
    SEED[0] += 1
    return np.random.RandomState(SEED[0] * 7919 % 2**31)


def f(*dims, lo=-2.0, hi=2.0, dtype="float32"):
    """Seeded reals on a grid of 1/64, so that they print short."""
    steps = rng().randint(int(lo * 64), int(hi * 64) + 1, size=dims)
    return (steps / 64.0).astype(dtype)


def i(*dims, lo=0, hi=10, dtype="int64"):
    """Seeded integers, `hi` left out."""
    return rng().randint(lo, hi, size=dims).astype(dtype)


def b(*dims):
    return rng().randint(0, 2, size=dims).astype(bool)


def op(kind, ins, attrs=None, outs=None, const="", pir=True, old=False, tag="", legacy=True):
    """A case of one ProgramDesc operator.

    ins: slot -> array, Lod, or list of them; slots named in `const` are constants of the program.
    outs: slots, or {slot: count}; by default those that are no by-product.
    """
    CASES.append(dict(how="op", op=kind, ins=ins, attrs=attrs or {}, outs=outs, const=const.split(),
                      pir=pir, old=old, tag=tag, legacy=legacy))


def pir(kind, ins, build, tag=""):
    """A case of PIR alone: `build(C, *ins)` appends operators by `paddle._C_ops` and gives outputs."""
    CASES.append(dict(how="pir", op=kind, ins=ins, build=build, old=False, tag=tag))


def composed(kind, ins, attrs=None, outs=None, by=None, says="", order=None, results=None, tag=""):
    """A case of an operator that Paddle's CPU build cannot run, nor build. The answers are those of
    `by(**ins)`, a function that composes Paddle's Python operators as `says` tells; they are recorded
    as such. Both programs are written by hand as Paddle writes them: slots of ProgramDesc are the
    names of `ins` and `outs`, those of PIR stand in `order` (and results in `results`), where it has
    the operator; ProgramDesc lacks it where `attrs` is a `Pir`.
    """
    CASES.append(dict(how="composed", op=kind, ins=ins, attrs=attrs or {}, outs=outs.split(), by=by, says=says,
                      order=order and order.split(), results=(results or outs).split(), old=False, tag=tag))


class Pir(dict):
    """Attributes of an operator that only PIR has."""


def program(kind, ins, build, old=False, pir=True, tag=""):
    """A case of a whole program: `build(**ins)` uses `paddle.static` and gives outputs."""
    CASES.append(dict(how="program", op=kind, ins=ins, build=build, old=old, pir=pir, tag=tag))


# ---- ProgramDesc ----

def dtype_name(a):
    return str(a.dtype)


def feeds_of(ins):
    for slot, v in ins.items():
        many = isinstance(v, list)
        for k, a in enumerate(v if many else [v]):
            yield slot, f"{slot.lower()}{k}" if many else slot.lower(), a


def new_var(block, name, a):
    v = block.create_var(name=name, shape=list(a.shape), dtype=dtype_name(a), need_check_feed=True,
                         **({"lod_level": 1} if isinstance(a, Lod) and not NEW else {}))
    return v


CONSTANTS = {"float32": "fp32_values", "int32": "int32_values", "int64": "int64_values",
             "bool": "bool_values", "float64": "fp64_values"}


def constant(block, name, a):
    block.create_var(name=name, shape=list(a.shape), dtype=dtype_name(a))
    attrs = {"shape": list(a.shape), "dtype": core.VarDesc.VarType.Type
             if False else paddle.base.framework.convert_np_dtype_to_dtype_(a.dtype)}
    key = "values" if NEW else CONSTANTS[dtype_name(a)]
    attrs[key] = a.ravel().tolist()
    block.append_op(type="assign_value", outputs={"Out": [name]}, attrs=attrs)


def io_vars(block):
    T = core.VarDesc.VarType
    block.create_var(name="feed", type=T.FEED_MINIBATCH, persistable=True)
    block.create_var(name="fetch", type=T.FETCH_LIST, persistable=True)


def default_outs(kind):
    outs = [o for o in PROTOS.get_op_proto(kind).outputs]
    plain = [o.name for o in outs if not o.intermediate and not getattr(o, "extra", False)]
    return [n for n in plain if n not in ("XShape", "ReserveSpace")]


def desc_of(c):
    """ProgramDesc bytes of an `op` case, what is fed, and names of what is fetched."""
    main = paddle.static.Program()
    with paddle.static.program_guard(main, paddle.static.Program()):
        block = main.global_block()
        io_vars(block)
        slots, fed = {}, {}
        for slot, name, a in feeds_of(c["ins"]):
            slots.setdefault(slot, []).append(name)
            if slot in c["const"]:
                constant(block, name, a)
                continue
            new_var(block, name, a)
            block.append_op(type="feed", inputs={"X": ["feed"]}, outputs={"Out": [name]},
                            attrs={"col": len(fed)})
            fed[name] = a
        outs = c["outs"] or default_outs(c["op"])
        if isinstance(outs, str):
            outs = outs.split()
        outs = outs if isinstance(outs, dict) else {o: 1 for o in outs}
        results, names = {}, []
        for slot, n in outs.items():
            results[slot] = [f"out_{slot.lower()}{k or ''}" for k in range(n)]
            names += results[slot]
        # By-products must be there for Paddle to run, but are not fetched.
        for o in PROTOS.get_op_proto(c["op"]).outputs:
            if o.name not in results and (not o.dispensable or o.name == "DropoutState"):
                same = slots.get(o.name.removesuffix("Out"), ["by_" + o.name.lower()])
                results[o.name] = same if o.name in ("MeanOut", "VarianceOut") else ["by_" + o.name.lower()]
        for n in sum(results.values(), []):
            if n not in block.vars:
                block.create_var(name=n, dtype="float32")
        block.append_op(type=c["op"], inputs=slots, outputs=results, attrs=dict(c["attrs"]))
        for k, n in enumerate(names):
            block.append_op(type="fetch", inputs={"X": [n]}, outputs={"Out": ["fetch"]},
                            attrs={"col": k})
    whole = pb.ProgramDesc.FromString(main.desc.serialize_to_string())
    lods(whole, fed)
    desc = pb.ProgramDesc.FromString(whole.SerializeToString())
    lean(whole, {})
    lean(desc, {c["op"]: set(c["attrs"])})
    return desc.SerializeToString(), fed, names, whole.SerializeToString()


def typed(raw, names, outs):
    """Declares results as they turned out: not all operators say so by themselves."""
    desc = pb.ProgramDesc.FromString(raw)
    kinds = dict(bool=0, int16=1, int32=2, int64=3, float16=4, float32=5, float64=6, uint8=20, int8=21, bfloat16=22,
                 complex64=23)
    found = dict(zip(names, outs))
    for v in desc.blocks[0].vars:
        if v.name in found:
            t = v.type.dense_tensor if NEW else v.type.lod_tensor
            t.tensor.data_type = kinds[found[v.name][0]]
    return desc.SerializeToString()


def lods(desc, fed):
    """Declares which inputs carry offsets (3.x's Python no longer can)."""
    for v in desc.blocks[0].vars:
        if isinstance(fed.get(v.name), Lod):
            t = v.type.dense_tensor if NEW else v.type.lod_tensor
            setattr(t, t.DESCRIPTOR.fields_by_number[2].name, len(fed[v.name].levels()))


NOISE = {"op_role", "op_role_var", "op_namescope", "op_callstack", "op_device", "with_quant_attr",
         "mkldnn_data_type", "use_mkldnn", "use_quantizer", "use_cudnn", "is_cost_skip"}


def lean(desc, given):
    """Keeps only attributes that a case gives, and no noise."""
    desc.ClearField("op_version_map")
    for block in desc.blocks:
        for o in block.ops:
            keep = given.get(o.type)
            if keep is not None:
                attrs = [a for a in o.attrs if a.name in keep]
            else:
                attrs = [a for a in o.attrs if a.name not in NOISE]
            del o.attrs[:]
            o.attrs.extend(attrs)
            for group in (o.inputs, o.outputs):
                full = [s for s in group if s.arguments]
                del group[:]
                group.extend(full)


def feed_value(a):
    if isinstance(a, Lod):
        t = core.DenseTensor() if NEW else core.LoDTensor()
        t.set(a.data, core.CPUPlace())
        t.set_lod(a.levels())
        return t
    if isinstance(a, Bf16):
        return (a.data.view(np.uint32) >> 16).astype(np.uint16)
    return a


def run_desc(raw, fed, names):
    p = paddle.static.Program.parse_from_string(raw)
    feed = {n: feed_value(a) for n, a in fed.items()}
    with paddle.static.scope_guard(paddle.static.Scope()):
        return EXE.run(p, feed=feed, fetch_list=names, return_numpy=False)


# ---- PIR ----

def translated(raw):
    p = paddle.static.Program.parse_from_string(raw)
    return serialized(paddle.pir.translate_to_pir(p.desc))


def serialized(program):
    with tempfile.TemporaryDirectory() as d:
        path = os.path.join(d, "m.json")
        core.serialize_pir_program(program, path, True, False, False)
        with open(path) as file:
            return file.read()


def run_pir(text, fed):
    from paddle.pir_utils import IrGuard
    with IrGuard(), tempfile.TemporaryDirectory() as d:
        path = os.path.join(d, "m.json")
        with open(path, "w") as file:
            file.write(text)
        p = paddle.static.Program()
        core.deserialize_pir_program(path, p)
        block = p.global_block()
        fetches = [o for o in block.ops if o.name() == "pd_op.fetch"]
        fetches.sort(key=lambda o: o.attrs()["col"])
        values = [o.operand_source(0) for o in fetches]
        for o in fetches:
            block.remove_op(o)
        feed = {n: feed_value(a) for n, a in fed.items()}
        return EXE.run(p, feed=feed, fetch_list=values, return_numpy=False)


def pir_of(c):
    """A PIR program appended by a function."""
    from paddle.pir_utils import IrGuard
    with IrGuard():
        main = paddle.static.Program()
        with paddle.static.program_guard(main, paddle.static.Program()):
            fed, vals = {}, []
            for slot, name, a in feeds_of(c["ins"]):
                v = paddle.static.data(name, list(a.shape), dtype_name(a))
                fed[name] = a
                vals.append(v)
            outs = c["build"](paddle._C_ops, *vals)
            outs = outs if isinstance(outs, (list, tuple)) else [outs]
            for k, o in enumerate(outs):
                paddle._C_ops.fetch(o, f"out{k}", k)
        return serialized(main), fed


def program_of(c):
    """ProgramDesc of a program that a function builds."""
    main, start = paddle.static.Program(), paddle.static.Program()
    with paddle.static.program_guard(main, start):
        fed = {name: a for _, name, a in feeds_of(c["ins"])}
        vs = {n: paddle.static.data(n, list(a.shape), dtype_name(a),
                                    **({"lod_level": 1} if isinstance(a, Lod) and not NEW else {}))
              for n, a in fed.items()}
        outs = c["build"](**vs)
        outs = outs if isinstance(outs, (list, tuple)) else [outs]
        block = main.global_block()
        io_vars(block)
        for k, n in reversed(list(enumerate(fed))):
            block._prepend_op(type="feed", inputs={"X": ["feed"]}, outputs={"Out": [n]},
                              attrs={"col": k})
        for k, o in enumerate(outs):
            block.append_op(type="fetch", inputs={"X": [o]}, outputs={"Out": ["fetch"]},
                            attrs={"col": k})
    desc = pb.ProgramDesc.FromString(main.desc.serialize_to_string())
    lean(desc, {})
    lods(desc, fed)
    raw = desc.SerializeToString()
    return raw, fed, [o.name for o in outs], raw


# ---- recording ----

def number(x):
    if isinstance(x, (bool, np.bool_)):
        return int(x)
    if isinstance(x, (int, np.integer)):
        return int(x)
    if isinstance(x, (complex, np.complexfloating)):
        return [number(x.real), number(x.imag)]
    if not np.isfinite(x):
        return "nan" if np.isnan(x) else "inf" if x > 0 else "-inf"
    short = float(np.format_float_positional(x, unique=True)) if x.dtype != np.float64 else float(x)
    return int(short) if short == int(short) and abs(short) < 2**53 else short


def tensor(t):
    if isinstance(t, Lod):
        t = t.data
    if isinstance(t, Bf16):
        return ["bfloat16", list(t.data.shape), [number(x) for x in t.data.ravel()]]
    if not isinstance(t, np.ndarray):
        dtype = str(t._dtype()).split(".")[-1].lower() if hasattr(t, "_dtype") else ""
        t = np.array(t)
        if dtype in ("bf16", "bfloat16") and t.dtype == np.uint16:
            t = (t.astype(np.uint32) << 16).view(np.float32)
            return ["bfloat16", list(t.shape), [number(x) for x in t.ravel()]]
    return [str(t.dtype), list(t.shape), [number(x) for x in t.ravel()]]


def answers(c):
    """What a composition of Paddle's own operators gives."""
    def given(a):
        return [given(v) for v in a] if isinstance(a, list) else paddle.to_tensor(a)

    paddle.disable_static()
    try:
        got = c["by"](**{slot.lower(): given(a) for slot, a in c["ins"].items()})
        got = got if isinstance(got, (list, tuple)) else [got]
        return [tensor(t.numpy()) for t in got]
    finally:
        paddle.enable_static()


KINDS = dict(bool=0, int16=1, int32=2, int64=3, float16=4, float32=5, float64=6, uint8=20, int8=21, bfloat16=22)
SHORT = dict(bool="bool", int16="i16", int32="i32", int64="i64", float16="f16", float32="f32", float64="f64", uint8="ui8",
             int8="i8", bfloat16="bf16")


def desc_by_hand(c, out):
    """ProgramDesc bytes of a composed case."""
    desc = pb.ProgramDesc()
    block = desc.blocks.add(idx=0, parent_idx=-1)

    def var(name, kind, dtype=None, dims=()):
        v = block.vars.add(name=name, persistable=kind != 7)
        v.type.type = kind
        if dtype:
            v.type.dense_tensor.tensor.data_type = KINDS[dtype]
            v.type.dense_tensor.tensor.dims.extend(dims)

    def add(kind, ins, outs, attrs):
        o = block.ops.add(type=kind)
        for group, slots in ((o.inputs, ins), (o.outputs, outs)):
            for slot, names in slots.items():
                group.add(parameter=slot, arguments=names)
        for n, v in attrs.items():
            kind, field = {bool: (6, "b"), int: (0, "i"), float: (1, "f"), str: (2, "s")}.get(type(v), (3, "ints"))
            a = o.attrs.add(name=n, type=kind)
            getattr(a, field).extend(v) if field == "ints" else setattr(a, field, v)

    var("feed", 9)
    var("fetch", 10)
    slots, fed = {}, {}
    for slot, name, a in feeds_of(c["ins"]):
        var(name, 7, dtype_name(a), a.shape)
        slots.setdefault(slot, []).append(name)
        add("feed", {"X": ["feed"]}, {"Out": [name]}, {"col": len(fed)})
        fed[name] = a
    for slot, t in zip(c["outs"], out):
        var(f"out_{slot.lower()}", 7, t[0], t[1])
    add(c["op"], slots, {s: [f"out_{s.lower()}"] for s in c["outs"]}, c["attrs"])
    for k, slot in enumerate(c["outs"]):
        add("fetch", {"X": [f"out_{slot.lower()}"]}, {"Out": ["fetch"]}, {"col": k})
    return desc.SerializeToString()


def pir_by_hand(c, out):
    """The PIR program of a composed case."""
    ops, count = [], [0]

    def fresh():
        count[0] += 1
        return count[0]

    def result(dtype, dims):
        return {"%": fresh(), "TT": {"#": "0.t_dtensor", "D": [{"#": "0.t_" + SHORT[dtype]}, list(dims), "NCHW", [], 0]}}

    def attr(name, v):
        kind = {bool: "a_bool", int: "a_i32", float: "a_f32", str: "a_str"}.get(type(v))
        at = {"#": "0." + kind, "D": v} if kind else {"#": "0.a_array", "D": [{"#": "0.a_i64", "D": k} for k in v]}
        return {"N": name, "AT": at}

    def add(kind, ins, outs, attrs):
        ops.append({"#": kind, "A": attrs, "I": [{"%": k} for k in ins], "O": outs})
        return [o["%"] for o in outs]

    ids = {}
    for slot, name, a in feeds_of(c["ins"]):
        shape = {"N": "shape", "AT": {"#": "1.a_intarray", "D": list(a.shape)}}
        dtype = {"N": "dtype", "AT": {"#": "1.a_dtype", "D": dtype_name(a)}}
        made = add("1.data", [], [result(dtype_name(a), a.shape)], [attr("name", name), shape, dtype])
        ids.setdefault(slot, []).extend(made)
    ins = []
    for slot in c["order"]:
        own = ids.get(slot, [0])
        if isinstance(c["ins"].get(slot), list):
            types = [o["O"][0]["TT"] for o in ops if o["O"][0]["%"] in own]
            own = add("0.combine", own, [{"%": fresh(), "TT": {"#": "0.t_vec", "D": types}}], [])
        ins += own
    by_name = dict(zip(c["outs"], out))
    outs = [result(*by_name[s][:2]) if s in by_name else {"%": fresh(), "TT": {"#": "NULL"}} for s in c["results"]]
    made = dict(zip(c["results"], add("1." + c["op"], ins, outs, [attr(n, v) for n, v in c["attrs"].items()])))
    for k, slot in enumerate(c["outs"]):
        add("1.fetch", [made[slot]], [result(*by_name[slot][:2])], [attr("name", f"out{k}"), attr("col", k)])
    return {"base_code": {"magic": "pir", "trainable": False, "version": 4},
            "program": {"regions": [{"#": "region_0", "blocks": [{"#": "block_0", "args": [], "ops": ops}]}]}}


def compose(c, line):
    line["in"] = {n: tensor(a) for _, n, a in feeds_of(c["ins"])}
    line["by"] = c["says"]
    line["out"] = answers(c)
    if not isinstance(c["attrs"], Pir):
        line["ops"] = sorted({c["op"], "feed", "fetch"})
        line["legacy"] = base64.b64encode(desc_by_hand(c, line["out"])).decode()
    if c["order"]:
        line["pir"] = pir_by_hand(c, line["out"])
    return line


def record(c, name):
    line = {"op": c["op"], "case": name, "paddle": VERSION}
    raw = text = None
    if c["how"] == "composed":
        return compose(c, line)
    if c["how"] == "pir":
        text, fed = pir_of(c)
    else:
        raw, fed, names, whole = (desc_of if c["how"] == "op" else program_of)(c)
    line["in"] = {n: tensor(a) for n, a in fed.items()}
    if any(isinstance(a, Lod) for a in fed.values()):
        line["lod"] = {n: a.offsets for n, a in fed.items() if isinstance(a, Lod)}
    if raw is not None:
        try:
            got = run_desc(raw, fed, names)
        except Exception:  # noqa: BLE001
            # Some attributes have no default in Paddle itself.
            raw, got = whole, run_desc(whole, fed, names)
        line["out"] = [tensor(t) for t in got]
        whole = typed(whole, names, line["out"])
        kinds = {o.type for b in pb.ProgramDesc.FromString(raw).blocks for o in b.ops}
        line["ops"] = sorted(kinds)
        if c.get("legacy", True):
            line["legacy"] = base64.b64encode(raw).decode()
        if c["pir"] and NEW:
            text = translated(whole)
    if text is not None:
        got = [tensor(t) for t in run_pir(text, fed)]
        if "out" not in line:
            line["out"] = got
        elif got != line["out"]:
            line["out_pir"] = got
        line["pir"] = json.loads(text)
    return line


def family(name):
    CASES.clear()
    SEED[0] = zlib.crc32(name.encode()) % 100003
    importlib.import_module(f"cases.{name}")
    path = os.path.join(HERE, "data", f"{name}.jsonl")
    before = {}
    if os.path.exists(path):
        with open(path) as file:
            before = {json.loads(l)["case"]: l.rstrip("\n") for l in file}
    lines, seen, failed = [], {}, 0
    for c in CASES:
        seen[c["op"]] = seen.get(c["op"], 0) + 1
        case = f"{c['op']}.{c['tag'] or seen[c['op']]}"
        if c["old"] == NEW:
            if case in before:
                lines.append(before[case])
            continue
        try:
            lines.append(json.dumps(record(c, case), separators=(",", ":")))
        except Exception as e:  # noqa: BLE001
            failed += 1
            text = str(e).strip().splitlines()
            text = [l for l in text if "Error" in l or "Hint" in l or "support" in l] or text[-1:]
            print(f"{case}: {type(e).__name__}: {' '.join(text)[:400]}")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write("".join(l + "\n" for l in lines))
    print(f"{name}: {len(lines)} cases, {failed} failed, {os.path.getsize(path) // 1024} KiB")
    return failed


def main():
    sys.path.insert(0, HERE)
    sys.modules.setdefault("goldens", sys.modules["__main__"])
    wanted = sys.argv[1:] or sorted(
        f[:-3] for f in os.listdir(os.path.join(HERE, "cases")) if f.endswith(".py") and f[0] != "_")
    sys.exit(1 if sum([family(n) for n in wanted]) else 0)


if __name__ == "__main__":
    main()
