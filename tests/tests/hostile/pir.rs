//! PIR JSON.

use super::harness::{Folder, refused};
use serde_json::{Value, json};

fn tensor(dims: &[i64]) -> Value {
    json!({"#": "0.t_dtensor", "D": [{"#": "0.t_f32"}, dims, "NCHW", [], 0]})
}

fn op(name: &str, ins: &[i64], outs: &[i64], attrs: Value) -> Value {
    let ins: Vec<Value> = ins.iter().map(|i| json!({"%": i})).collect();
    let outs: Vec<Value> =
        outs.iter().map(|i| json!({"%": i, "TT": tensor(&[-1, 3, 8, 8])})).collect();
    json!({"#": name, "I": ins, "O": outs, "A": attrs, "OA": []})
}

fn attr(name: &str, ty: &str, v: Value) -> Value {
    json!({"N": name, "AT": {"#": ty, "D": v}})
}

fn data() -> Value {
    op("1.data", &[], &[1], json!([attr("name", "0.a_str", json!("x"))]))
}

fn fetch(v: i64) -> Value {
    let a = json!([attr("name", "0.a_str", json!("y")), attr("col", "0.a_i32", json!(0))]);
    op("1.fetch", &[v], &[99], a)
}

fn parameter(id: i64, name: &str) -> Value {
    json!({"#": "p", "A": [0, 0, 0, name], "O": {"%": id, "TT": tensor(&[1])}, "OA": []})
}

fn program(ops: &[Value]) -> Value {
    json!({"base_code": {"magic": "pir", "version": 1, "trainable": false},
           "program": {"regions": [{"#": "region_0", "blocks": [{"#": "block_0", "args": [], "ops": ops}]}]}})
}

fn sound() -> Value {
    program(&[data(), op("1.relu", &[1], &[2], json!([])), fetch(2)])
}

#[track_caller]
fn bad(what: &str, p: &Value, code: i32, words: &[&str]) {
    refused(what, "m.json", p.to_string(), code, words);
}

#[test]
fn the_sound_program_exports() {
    Folder::of("m.json", sound().to_string()).export("m.json").succeeds("sound");
}

#[test]
fn text() {
    let whole = sound().to_string();
    for end in [1, 20, whole.len() / 2, whole.len() - 1] {
        refused(&format!("cut at {end}"), "m.json", &whole[..end], 4, &["at byte"]);
    }
    refused("deep lists", "m.json", format!("{{\"a\":{}", "[".repeat(100_000)), 4, &["at byte"]);
    let list = format!("{{\"base_code\":[{}0]}}", "0,".repeat(30 << 20));
    refused("a long list", "m.json", list, 9, &["decoded"]);
    refused("no UTF-8", "m.json", [b'{', b'"', 0xFF, b'"', b':', b'1', b'}'], 4, &["at byte"]);
    refused("more than one value", "m.json", format!("{whole} {{}}"), 4, &["at byte"]);
    bad("nothing", &json!({}), 4, &[]);
    let with = |key: &str, v: Value| {
        let mut p = sound();
        p["base_code"][key] = v;
        p
    };
    bad("another magic word", &with("magic", json!("rip")), 4, &["magic"]);
    bad("a version to come", &with("version", json!(99)), 3, &["99"]);
}

#[test]
fn values() {
    let relu = |i: i64, o: i64| op("1.relu", &[i], &[o], json!([]));
    bad(
        "an unknown operator",
        &program(&[data(), op("1.frobnicate", &[1], &[2], json!([])), fetch(2)]),
        3,
        &["frobnicate"],
    );
    bad("a value that nothing makes", &program(&[data(), relu(77, 2), fetch(2)]), 4, &["relu"]);
    bad(
        "a value before it is made",
        &program(&[data(), relu(2, 3), relu(1, 2), fetch(3)]),
        4,
        &["relu"],
    );
    bad("one id twice", &program(&[data(), relu(1, 1), fetch(1)]), 4, &["relu"]);
    bad(
        "no operands",
        &program(&[data(), op("1.relu", &[], &[2], json!([])), fetch(2)]),
        4,
        &["relu"],
    );
    for id in [i64::MIN, -1, 0, i64::MAX] {
        let f = Folder::of("m.json", program(&[data(), relu(1, id), fetch(id)]).to_string());
        let r = f.export("m.json");
        assert!(matches!(r.code, 0 | 4), "id {id}: {r:?}");
    }
}

#[test]
fn missing_and_mistyped_keys() {
    let paths = [
        "/program",
        "/program/regions",
        "/program/regions/0/blocks",
        "/program/regions/0/blocks/0/ops",
        "/program/regions/0/blocks/0/ops/1/#",
        "/program/regions/0/blocks/0/ops/1/I",
        "/program/regions/0/blocks/0/ops/1/O",
        "/program/regions/0/blocks/0/ops/1/O/0/TT",
        "/program/regions/0/blocks/0/ops/1/O/0/TT/D",
        "/program/regions/0/blocks/0/ops/0/A/0/AT",
        "/program/regions/0/blocks/0/ops/0/A/0/AT/D",
        "/program/regions/0/blocks/0/ops/0/O/0/TT/D/1",
    ];
    for path in paths {
        let (parent, key) = path.rsplit_once('/').expect("a key");
        for v in [
            None,
            Some(json!(null)),
            Some(json!(-1)),
            Some(json!("x")),
            Some(json!([[[]]])),
            Some(json!({})),
        ] {
            let mut p = sound();
            let at = p.pointer_mut(parent).expect("it is there");
            match (&v, at) {
                (None, Value::Object(m)) => drop(m.remove(key)),
                (None, _) => continue,
                (Some(v), Value::Array(l)) => {
                    l[key.parse::<usize>().expect("an index")] = v.clone()
                }
                (Some(v), at) => at[key] = v.clone(),
            }
            let f = Folder::of("m.json", p.to_string());
            let r = f.export("m.json");
            // Some of these are another program, and a valid one.
            assert!(matches!(r.code, 0 | 3 | 4), "{path} = {v:?}: {r:?}");
            if r.code != 0 {
                r.refuses(path, r.code, &["m.json"]);
            }
        }
    }
    let mut p = sound();
    p["program"]["regions"][0]["blocks"][0]["ops"][0]["O"][0]["TT"] = tensor(&[1 << 62, 8, -7]);
    bad("sizes that make no sense", &p, 4, &[]);
}

#[test]
fn parameters() {
    let p = program(&[
        parameter(10, "b"),
        parameter(11, "a"),
        data(),
        op("1.add", &[1, 10], &[2], json!([])),
        op("1.add", &[2, 11], &[3], json!([])),
        fetch(3),
    ]);
    // f32 [1] by the name order a, b.
    let record = |v: f32, dims: &[u8]| {
        let desc: Vec<u8> = [&[8, 5][..], dims].concat();
        let len = (desc.len() as u32).to_le_bytes();
        [&[0; 4][..], &[0; 8], &[0; 4], &len[..], &desc, &v.to_le_bytes()].concat()
    };
    let good = [record(1.0, &[16, 1]), record(2.0, &[16, 1])].concat();
    let export = |stream: Option<&[u8]>| {
        let f = Folder::of("m.json", p.to_string());
        if let Some(s) = stream {
            f.put("m.pdiparams", s);
        }
        f.export("m.json")
    };
    export(Some(&good)).succeeds("sound");
    export(None).refuses("none", 4, &["m.pdiparams"]);
    export(Some(&good[..good.len() - 1])).refuses("too short", 4, &["m.pdiparams", "at byte"]);
    export(Some(&good[..good.len() / 2])).refuses("one is missing", 4, &["m.pdiparams", "at byte"]);
    export(Some(&[&good[..], &[0]].concat())).refuses("too long", 4, &["m.pdiparams", "at byte"]);
    let scalar = record(1.0, &[]);
    let other = [&scalar[..], &good[..good.len() / 2]].concat();
    export(Some(&other)).refuses("another shape", 4, &["m.pdiparams", "at byte"]);
    let twice = program(&[parameter(10, "a"), parameter(11, "a"), data(), fetch(1)]);
    let f = Folder::of("m.json", twice.to_string());
    f.put("m.pdiparams", &good);
    f.export("m.json").refuses("one name twice", 4, &["'a'"]);
}

/// Numbers that Paddle holds in 32 bits and the text does not.
#[test]
fn geometry_of_64_bits() {
    let list = |name: &str, v: &[i64]| {
        let items: Vec<Value> = v.iter().map(|i| json!({"#": "0.a_i32", "D": i})).collect();
        attr(name, "0.a_array", json!(items))
    };
    let good = [("strides", [1, 1]), ("paddings", [0, 0]), ("dilations", [1, 1])];
    for (kind, huge) in ["1.conv2d", "1.conv2d_transpose"].into_iter().zip([1 << 62, 1 << 40]) {
        for wrong in good.map(|(name, _)| name) {
            let of = |(name, v): (&str, [i64; 2])| {
                list(name, &if name == wrong { [huge; 2] } else { v })
            };
            let attrs: Vec<Value> = good.into_iter().map(of).collect();
            let p = program(&[data(), op(kind, &[1, 1], &[2], json!(attrs)), fetch(2)]);
            bad(wrong, &p, 4, &[&kind[2..], &huge.to_string()]);
        }
    }
}
