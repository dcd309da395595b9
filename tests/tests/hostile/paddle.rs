//! ProgramDesc files and parameter streams.

use super::harness::{Folder, refused};
use super::pb::Pb;
use hub_models::NamedTensor;

/// `VarType.Type` of a dense tensor, and of its f32 elements.
const DENSE: i64 = 7;
const F32: i64 = 5;

/// A tensor's description.
fn desc(elem: i64, dims: &[i64]) -> Pb {
    dims.iter().fold(Pb::new().int(1, elem), |p, &d| p.int(2, d))
}

fn var_of(name: &str, kind: i64, elem: i64, dims: &[i64], persistable: bool) -> Pb {
    let ty = Pb::new().int(1, kind).message(3, &Pb::new().message(1, &desc(elem, dims)));
    Pb::new().text(1, name).message(2, &ty).int(3, persistable.into())
}

fn var(name: &str, dims: &[i64], persistable: bool) -> Pb {
    var_of(name, DENSE, F32, dims, persistable)
}

fn slots(field: u64, list: &[(&str, &str)]) -> Pb {
    let slot = |(k, v): &(&str, &str)| Pb::new().text(1, k).text(2, v);
    list.iter().fold(Pb::new(), |p, s| p.message(field, &slot(s)))
}

fn op(kind: &str, ins: &[(&str, &str)], outs: &[(&str, &str)]) -> Pb {
    slots(1, ins).raw(&slots(2, outs).0).text(3, kind)
}

/// An operator's int attribute.
fn with_int(op: Pb, name: &str, v: i64) -> Pb {
    op.message(4, &Pb::new().text(1, name).int(2, 0).int(3, v))
}

fn with_ints(op: Pb, name: &str, v: &[i64]) -> Pb {
    let a = Pb::new().text(1, name).int(2, 3);
    op.message(4, &v.iter().fold(a, |p, &i| p.int(6, i)))
}

/// An operator's block attribute.
fn with_block(op: Pb, v: i64) -> Pb {
    op.message(4, &Pb::new().text(1, "sub_block").int(2, 8).int(12, v))
}

fn block(idx: i64, parent: i64, vars: &[Pb], ops: &[Pb]) -> Pb {
    let p = Pb::new().int(1, idx).int(2, parent);
    let p = vars.iter().fold(p, |p, v| p.message(3, v));
    ops.iter().fold(p, |p, o| p.message(4, o))
}

fn program(blocks: &[Pb]) -> Pb {
    blocks.iter().fold(Pb::new(), |p, b| p.message(1, b))
}

fn feed() -> Pb {
    with_int(op("feed", &[("X", "feed")], &[("Out", "x")]), "col", 0)
}

fn fetch(name: &str) -> Pb {
    with_int(op("fetch", &[("X", name)], &[("Out", "fetch")]), "col", 0)
}

fn vars(more: &[Pb]) -> Vec<Pb> {
    let lists = [
        var_of("feed", 9, F32, &[], true),
        var_of("fetch", 10, F32, &[], true),
        var("x", &[-1, 3, 8, 8], false),
        var("y", &[-1, 3, 8, 8], false),
    ];
    [&lists[..], more].concat()
}

/// `y = x + b + c`, both of one element.
pub fn fc() -> Pb {
    let more = [var("b", &[1], true), var("c", &[1], true), var("t", &[-1, 3, 8, 8], false)];
    let ops = [
        feed(),
        op("elementwise_add", &[("X", "x"), ("Y", "b")], &[("Out", "t")]),
        op("elementwise_add", &[("X", "t"), ("Y", "c")], &[("Out", "y")]),
        fetch("y"),
    ];
    program(&[block(0, -1, &vars(&more), &ops)])
}

/// One operator between feed and fetch.
fn one(o: Pb) -> Vec<u8> {
    program(&[block(0, -1, &vars(&[]), &[feed(), o, fetch("y")])]).0
}

/// A record of a parameter stream.
fn record(desc: &Pb, data: &[u8]) -> Vec<u8> {
    let len = (desc.0.len() as u32).to_le_bytes();
    [&[0; 4][..], &[0; 8], &[0; 4], &len[..], &desc.0, data].concat()
}

#[track_caller]
fn params(what: &str, stream: &[u8], words: &[&str]) {
    let f = Folder::of("m.pdmodel", fc().0);
    f.put("m.pdiparams", stream);
    f.export("m.pdmodel").refuses(what, 4, &[&["m.pdiparams"], words].concat());
}

#[test]
fn streams_of_parameters() {
    let good = record(&desc(F32, &[1]), &1f32.to_le_bytes());
    let both = [&good[..], &good].concat();
    let f = Folder::of("m.pdmodel", fc().0);
    f.put("m.pdiparams", &both);
    f.export("m.pdmodel").succeeds("the sound program");
    f.run("portable", &[("x", NamedTensor::f32(&[1, 3, 8, 8], &[1.0; 192]))]).succeeds("it");
    for cut in 0..both.len() {
        if cut % 3 == 0 {
            params(&format!("cut at {cut}"), &both[..cut], &["at byte"]);
        }
    }
    params("too long", &[&both[..], &[0]].concat(), &["at byte"]);
    params("one more tensor", &[&both[..], &good].concat(), &["at byte"]);
    let other = record(&desc(F32, &[2]), &[0; 8]);
    params("another shape", &[&good[..], &other].concat(), &["'c'", "at byte"]);
    params("the wrong order", &[&other[..], &good].concat(), &["'b'", "at byte"]);
    let double = record(&desc(6, &[1]), &[0; 8]);
    params("another element type", &[&good[..], &double].concat(), &["'c'", "at byte"]);
    params("an unknown one", &[&good[..], &record(&desc(999, &[1]), &[0; 4])].concat(), &["'c'"]);
    params("a negative size", &[&good[..], &record(&desc(F32, &[-1]), &[])].concat(), &["'c'"]);
    let mut lod = both.clone();
    lod[4..12].copy_from_slice(&u64::MAX.to_le_bytes());
    params("2^64 levels", &lod, &["'b'", "at byte"]);
    let mut len = both.clone();
    len[16..20].copy_from_slice(&u32::MAX.to_le_bytes());
    params("a description of 4 GiB", &len, &["'b'", "at byte"]);
    let huge = record(&desc(F32, &[1 << 62, 8]), &[]);
    let f = Folder::of("m.pdmodel", fc().0);
    f.put("m.pdiparams", huge);
    f.export("m.pdmodel").refuses("2^62 × 8", 9, &["'b'", "at byte"]);
    let f = Folder::of("m.pdmodel", fc().0);
    f.export("m.pdmodel").refuses("no parameters", 4, &["m.pdiparams"]);
}

/// Parameters in files of their own names.
#[test]
fn parameters_by_name() {
    for name in ["../b", "/etc/passwd", "a/../../b", "b\0c", "."] {
        let ops = [
            feed(),
            op("elementwise_add", &[("X", "x"), ("Y", name)], &[("Out", "y")]),
            fetch("y"),
        ];
        let p = program(&[block(0, -1, &vars(&[var(name, &[1], true)]), &ops)]);
        let f = Folder::of("in/__model__", &p.0);
        f.put("b", record(&desc(F32, &[1]), &[0; 4]));
        f.export("in").refuses(name, 4, &["__model__"]);
    }
}

#[test]
fn damaged_programs() {
    let whole = fc().0;
    for end in [1, 9, whole.len() / 2, whole.len() - 1] {
        refused(&format!("cut at {end}"), "m.pdmodel", &whole[..end], 4, &[]);
    }
    let bad = [
        ("a varint without end", Pb::new().raw(&[10, 30]).raw(&[0xFF; 30]), "at byte"),
        ("a length past the end", Pb::new().long(1, 1 << 40, b"x"), "at byte"),
        ("no UTF-8", program(&[block(0, -1, &[Pb::new().bytes(1, &[0xFF])], &[])]), "at byte"),
    ];
    for (what, p, place) in bad {
        refused(what, "m.pdmodel", p.0, 4, &[place]);
    }
    let many = Pb::new().raw(&[0x22, 0].repeat(8 << 20));
    refused("millions of operators", "m.pdmodel", program(&[many]).0, 9, &["100000"]);
}

#[test]
fn blocks() {
    let sub = |parent: i64, o: Pb| {
        let ops = [
            feed(),
            with_block(op("conditional_block", &[("Cond", "x")], &[("Out", "y")]), 1),
            fetch("y"),
        ];
        program(&[block(0, -1, &vars(&[]), &ops), block(1, parent, &[], &[o])]).0
    };
    let relu = || op("relu", &[("X", "x")], &[("Out", "y")]);
    refused("its own parent", "m.pdmodel", sub(1, relu()), 4, &["parent"]);
    refused("a parent that comes later", "m.pdmodel", sub(9, relu()), 4, &["parent"]);
    let again = with_block(op("while", &[("Condition", "x")], &[("Out", "y")]), 1);
    refused("a block within itself", "m.pdmodel", sub(0, again), 4, &["block"]);
    for n in [-1, 2, i64::from(i32::MAX)] {
        let o = with_block(op("while", &[("X", "x"), ("Condition", "x")], &[("Out", "y")]), n);
        refused("a block that is not there", "m.pdmodel", one(o), 4, &["while"]);
    }
    let deep: Vec<Pb> = (0..500)
        .map(|i| {
            let o = with_block(op("while", &[("Condition", "x")], &[("Out", "y")]), i + 1);
            let v = if i == 0 { vars(&[]) } else { vec![] };
            let ops = if i == 0 {
                vec![feed(), o, fetch("y")]
            } else if i < 499 {
                vec![o]
            } else {
                vec![relu()]
            };
            block(i, i - 1, &v, &ops)
        })
        .collect();
    refused("500 blocks deep", "m.pdmodel", program(&deep).0, 9, &["nest"]);
    refused(
        "no operators",
        "m.pdmodel",
        program(&[block(0, -1, &vars(&[]), &[])]).0,
        4,
        &["fetches"],
    );
}

#[test]
fn operators() {
    let o = |kind: &str| op(kind, &[("X", "x")], &[("Out", "y")]);
    refused("an unknown operator", "m.pdmodel", one(o("frobnicate")), 3, &["frobnicate"]);
    refused("no input", "m.pdmodel", one(op("relu", &[], &[("Out", "y")])), 4, &["relu"]);
    refused(
        "no variable",
        "m.pdmodel",
        one(op("relu", &[("X", "nope")], &[("Out", "y")])),
        4,
        &["nope"],
    );
    for axis in [4, -5, i64::from(i32::MAX), i64::from(i32::MIN)] {
        let n = with_int(o("softmax"), "axis", axis);
        refused("an axis", "m.pdmodel", one(n), 4, &["softmax"]);
    }
    for axis in [&[0, 0, 1, 2][..], &[0, 1], &[0, 1, 2, 7], &[-9, 0, 1, 2]] {
        let n = with_ints(o("transpose2"), "axis", axis);
        refused("a permutation", "m.pdmodel", one(n), 4, &["transpose2"]);
    }
    for to in [&[-1, -1][..], &[-5, 3]] {
        let n = with_ints(o("reshape2"), "shape", to);
        refused("a shape", "m.pdmodel", one(n), 4, &["reshape2"]);
    }
    for k in [&[0, 0][..], &[-1, 3], &[1, 1, 1]] {
        let n = with_ints(with_ints(o("pool2d"), "ksize", k), "strides", &[1, 1]);
        refused("a window", "m.pdmodel", one(n), 4, &["pool2d"]);
    }
    let n = with_ints(with_ints(o("pool2d"), "ksize", &[2, 2]), "strides", &[0, 0]);
    refused("a stride of 0", "m.pdmodel", one(n), 4, &["pool2d"]);
}

/// Offsets that are not those of five rows' sequences are an error that says so.
#[test]
fn wrong_sequences() {
    let tensor = Pb::new().message(1, &desc(F32, &[-1, 2])).int(2, 1);
    let ty = Pb::new().int(1, DENSE).message(3, &tensor);
    let x = Pb::new().text(1, "x").message(2, &ty);
    let list = [var_of("feed", 9, F32, &[], true), var_of("fetch", 10, F32, &[], true), x];
    let rows = || NamedTensor::f32(&[5, 2], &[1.0; 10]);
    for kind in ["sequence_pool", "sequence_softmax", "sequence_reverse"] {
        let slot = if kind == "sequence_reverse" { "Y" } else { "Out" };
        let ops = [feed(), op(kind, &[("X", "x")], &[(slot, "y")]), fetch("y")];
        let out = [var("y", &[-1, 2], false)];
        let f =
            Folder::of("m.pdmodel", program(&[block(0, -1, &[&list[..], &out].concat(), &ops)]).0);
        f.export("m.pdmodel").succeeds(kind);
        for tier in super::harness::tiers() {
            let run = |offsets: &[i64]| {
                let given = NamedTensor::i64(&[offsets.len()], offsets);
                f.run(tier, &[("x", rows()), ("x.lod0", given)])
            };
            run(&[0, 2, 5]).succeeds(kind);
            run(&[0, 0, 5, 5]).succeeds(kind);
            let wrong: [&[i64]; 10] = [
                &[0],
                &[0, 4, 2, 5],
                &[0, 4],
                &[1, 5],
                &[0, 9],
                &[0, 9, 5],
                &[-3, 5],
                &[0, i64::MAX],
                &[i64::MIN, i64::MAX],
                &[1 << 40, 1 << 41],
            ];
            for offsets in wrong {
                let what = format!("{kind} of {offsets:?} on {tier}");
                run(offsets).refuses(&what, 4, &["wrong offsets in x.lod0"]);
            }
            run(&[]).refuses("no offset at all", 2, &["x.lod0"]);
            let none = f.run(tier, &[("x", rows())]);
            none.refuses("no offsets", 2, &["x.lod0"]);
        }
    }
}

#[test]
fn bombs() {
    let fill = with_ints(op("fill_constant", &[], &[("Out", "z")]), "shape", &[1 << 20, 1 << 20]);
    let fill = with_int(fill, "dtype", F32);
    let add = op("elementwise_add", &[("X", "z"), ("Y", "z")], &[("Out", "y")]);
    let more = [var("z", &[1 << 20, 1 << 20], false)];
    let p = program(&[block(0, -1, &vars(&more), &[feed(), fill, add, fetch("y")])]);
    let f = Folder::of("m.pdmodel", p.0);
    let r = f.export("m.pdmodel");
    if r.code == 0 {
        for tier in super::harness::tiers() {
            let x = [("x", NamedTensor::f32(&[1, 3, 8, 8], &[1.0; 192]))];
            f.run(tier, &x).refuses("a constant of 4 TiB", 9, &["limit"]);
        }
    } else {
        r.refuses("a constant of 4 TiB", 9, &[]);
    }
}
