//! Changes of PIR models.

use super::turn::{self, INTS, REALS, TEXTS, Turn};
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;

/// Attributes that are seen anywhere, by operator and name.
pub type Known = BTreeMap<String, BTreeMap<String, Json>>;

/// Element types to change to: one of each kind.
const DTYPES: [&str; 8] = ["t_f32", "t_f16", "t_i32", "t_i64", "t_ui8", "t_bool", "t_c64", "t_x"];

/// Operators of a block, and of the regions within.
fn each<'j>(block: &'j Json, see: &mut impl FnMut(&'j Json)) {
    for o in block["ops"].as_array().into_iter().flatten() {
        see(o);
        for r in o["regions"].as_array().into_iter().flatten() {
            each(&r["blocks"][0], see);
        }
    }
}

fn name(o: &Json) -> String {
    o["#"].as_str().unwrap_or_default().to_string()
}

/// Notes what attributes a program's operators have.
pub fn learn(p: &Json, known: &mut Known) {
    each(&p["program"]["regions"][0]["blocks"][0], &mut |o| {
        for a in o["A"].as_array().into_iter().flatten() {
            let Some(n) = a["N"].as_str() else { continue };
            known.entry(name(o)).or_default().entry(n.into()).or_insert(a.clone());
        }
    });
}

/// Offers every change of a program.
pub fn program(t: &mut Turn, p: &mut Json, known: &Known) -> bool {
    let root = &mut p["program"]["regions"][0]["blocks"][0];
    let mut ids = vec![];
    each(root, &mut |o| {
        ids.extend(o["O"].as_array().into_iter().flatten().filter_map(|o| o["%"].as_i64()))
    });
    block(t, "", root, &ids, known)
}

fn block(t: &mut Turn, at: &str, b: &mut Json, ids: &[i64], known: &Known) -> bool {
    for (k, a) in items(&mut b["args"]).iter_mut().enumerate() {
        if types(t, &format!("{at}argument {k}"), &mut a["TT"]) {
            return true;
        }
    }
    if turn::list(t, &format!("{at}arguments"), items(&mut b["args"]), &[]) {
        return true;
    }
    let ops = items(&mut b["ops"]);
    for (k, o) in ops.iter_mut().enumerate() {
        let at = format!("{at}operator {k} {}", name(o));
        if operator(t, &at, o, ids, known) {
            return true;
        }
        let regions = o.get_mut("regions").and_then(Json::as_array_mut);
        for (r, region) in regions.into_iter().flatten().enumerate() {
            if block(t, &format!("{at}/{r}/"), &mut region["blocks"][0], ids, known) {
                return true;
            }
        }
    }
    false
}

/// A list's elements; what is no list becomes an empty one.
fn items(j: &mut Json) -> &mut Vec<Json> {
    if !j.is_array() {
        *j = json!([]);
    }
    match j {
        Json::Array(all) => all,
        _ => unreachable!("it was made a list"),
    }
}

fn types(t: &mut Turn, at: &str, ty: &mut Json) -> bool {
    if t.take(|| format!("{at}: of no type")) {
        *ty = "NULL".into();
        return true;
    }
    if ty["#"] == "0.t_vec" {
        return items(&mut ty["D"]).iter_mut().any(|ty| types(t, at, ty));
    }
    let Some(d) = ty.get_mut("D").and_then(Json::as_array_mut).filter(|d| d.len() > 1) else {
        return false;
    };
    for dtype in DTYPES {
        if t.take(|| format!("{at}: of {dtype}")) {
            d[0] = json!({ "#": format!("0.{dtype}") });
            return true;
        }
    }
    if turn::dims(t, at, items(&mut d[1]), Json::from) {
        return true;
    }
    if d[1] != json!([]) && t.take(|| format!("{at}: all sizes unknown")) {
        items(&mut d[1]).fill(json!(-1));
        return true;
    }
    if t.take(|| format!("{at}: an array")) {
        ty["#"] = "1.t_dense_tensor_array".into();
        return true;
    }
    false
}

fn operator(t: &mut Turn, at: &str, o: &mut Json, ids: &[i64], known: &Known) -> bool {
    if name(o) == "p" {
        // A parameter: a name and flags, one result.
        return types(t, at, &mut o["O"]["TT"])
            || turn::list(t, at, items(&mut o["A"]), &["../x".into(), 7.into()]);
    }
    let operands = items(&mut o["I"]);
    // Nothing, the first and the last value, and one that does not exist.
    let mut others = vec![json!({ "%": 0 }), json!({ "%": 987_654 })];
    others.extend(ids.first().iter().chain(&ids.last()).map(|i| json!({ "%": i })));
    for i in 0..operands.len() {
        if turn::one(t, &format!("{at}: operand {i}"), &mut operands[i], &others) {
            return true;
        }
        if t.take(|| format!("{at}: operand {i} is taken away")) {
            operands.remove(i);
            return true;
        }
        if t.take(|| format!("{at}: operand {i} twice")) {
            operands.insert(i, operands[i].clone());
            return true;
        }
    }
    for o in &others {
        if t.take(|| format!("{at}: {o} as an operand more")) {
            operands.push(o.clone());
            return true;
        }
    }
    for (i, r) in items(&mut o["O"]).iter_mut().enumerate() {
        if types(t, &format!("{at}: result {i}"), &mut r["TT"]) {
            return true;
        }
    }
    if turn::list(t, &format!("{at}: results"), items(&mut o["O"]), &[]) || constant(t, at, o) {
        return true;
    }
    let kind = name(o);
    let attrs = items(&mut o["A"]);
    for i in 0..attrs.len() {
        let at = format!("{at}: {}", attrs[i]["N"]);
        if t.take(|| format!("{at} is left out")) {
            attrs.remove(i);
            return true;
        }
        if attribute(t, &at, &mut attrs[i]["AT"]) {
            return true;
        }
    }
    let mut seen = known.get(&kind).into_iter().flatten();
    seen.any(|(name, a)| {
        if attrs.iter().any(|a| a["N"].as_str() == Some(name)) {
            return false;
        }
        let mut a = a.clone();
        let at = format!("{at}: with {name}");
        let made = t.take(|| at.clone()) || attribute(t, &at, &mut a["AT"]);
        if made {
            attrs.push(a);
        }
        made
    })
}

/// An input becomes a constant of one number.
fn constant(t: &mut Turn, at: &str, o: &mut Json) -> bool {
    if !matches!(name(o).as_str(), "1.feed" | "1.data") {
        return false;
    }
    let ty = &o["O"][0]["TT"]["D"];
    let (Some(dtype), Some(dims)) = (ty[0]["#"].as_str(), ty[1].as_array()) else { return false };
    let long = match dtype.trim_start_matches("0.t_") {
        "f32" => "float32",
        "f16" => "float16",
        "f64" => "float64",
        "i32" => "int32",
        "bool" => "bool",
        _ => "int64",
    };
    for x in [0.0, 1.0, -1.0, 7.0, 4294967296.0, i64::MAX as f64] {
        if !t.take(|| format!("{at}: a constant of {x}s")) {
            continue;
        }
        let sizes: Vec<i64> = dims.iter().map(|d| d.as_i64().unwrap_or(2).max(0)).collect();
        o["A"] = json!([
            { "N": "shape", "AT": { "#": "1.a_intarray", "D": sizes } },
            { "N": "value", "AT": { "#": "0.a_f64", "D": x } },
            { "N": "dtype", "AT": { "#": "1.a_dtype", "D": long } },
        ]);
        o["#"] = "1.full".into();
        return true;
    }
    false
}

fn attribute(t: &mut Turn, at: &str, a: &mut Json) -> bool {
    let ints = INTS.map(Json::from);
    let mut reals: Vec<Json> =
        [0.0, -1.0, 3e38, 1e300].iter().map(|x| json!({ "#": "0.a_f64", "D": x })).collect();
    reals.extend(["NaN", "INF", "-INF"].map(|x| json!({ "#": "0.a_f64", "VD": x })));
    let kind = a["#"].as_str().unwrap_or_default().to_string();
    let changed = match kind.split_once('.').map_or("", |k| k.1) {
        "a_i32" | "a_i64" | "a_index" => turn::one(t, at, &mut a["D"], &ints),
        "a_f32" | "a_f64" => turn::one(t, at, a, &reals),
        "a_bool" => {
            let not = [json!(a["D"] != json!(true))];
            turn::one(t, at, &mut a["D"], &not)
        }
        "a_str" | "a_dtype" | "a_layout" | "a_tensorname" => {
            let texts = TEXTS.map(Json::from);
            turn::one(t, at, &mut a["D"], &texts)
        }
        "a_intarray" => turn::list(t, at, items(&mut a["D"]), &ints),
        "a_array" => {
            let all = items(&mut a["D"]);
            let like = all.first().and_then(|e| e["#"].as_str()).unwrap_or("0.a_i64").to_string();
            let hostile: Vec<Json> = match like.split_once('.').map_or("", |k| k.1) {
                "a_f32" | "a_f64" => reals,
                "a_str" => TEXTS.iter().map(|x| json!({ "#": like, "D": x })).collect(),
                "a_bool" => vec![json!({ "#": like, "D": true })],
                _ => INTS.iter().map(|x| json!({ "#": like, "D": x })).collect(),
            };
            turn::list(t, at, all, &hostile)
        }
        "a_scalar" => {
            let of = |x: Json| json!(["float64", x]);
            let hostile: Vec<Json> = INTS.iter().map(|&x| of(x.into())).collect();
            let texts = ["NaN", "INF", "-INF", "x"].map(|x| of(x.into()));
            turn::one(t, at, &mut a["D"], &[&hostile[..], &texts].concat())
        }
        _ => false,
    };
    if changed {
        return true;
    }
    let others = [
        json!({ "#": "0.a_i64", "D": -3 }),
        json!({ "#": "1.a_intarray", "D": [-3, REALS.len()] }),
        json!({ "#": "0.a_array", "D": [] }),
        json!({ "#": "0.a_str", "D": "x" }),
    ];
    turn::one(t, &format!("{at}: another type"), a, &others)
}
