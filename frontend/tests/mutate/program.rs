//! Changes of ProgramDesc models.

use super::turn::{self, INTS, REALS, TEXTS, Turn};
use hub_frontend::paddle::proto::*;
use std::collections::{BTreeMap, BTreeSet};

/// Attributes and slots that are seen anywhere, by operator.
#[derive(Default)]
pub struct Known {
    attrs: BTreeMap<String, BTreeMap<String, Attr>>,
    slots: BTreeMap<String, BTreeSet<String>>,
}

/// Element types to change to: one of each kind.
const DTYPES: [i32; 8] = [0, 2, 3, 4, 5, 20, 23, 25];
/// Kinds of variables to change to: step scopes, an array, raw.
const KINDS: [i32; 3] = [11, 13, 17];
const LEVELS: [i32; 5] = [0, 1, 2, -1, i32::MAX];
/// Attributes that mean nothing.
const NOISE: [&str; 6] =
    ["op_callstack", "op_namescope", "op_role", "op_role_var", "op_device", "with_quant_attr"];

impl Known {
    /// Notes what a program's operators have.
    pub fn learn(&mut self, p: &ProgramDesc) {
        for o in p.blocks.iter().flat_map(|b| &b.ops) {
            let slots = self.slots.entry(o.r#type.clone()).or_default();
            slots.extend(o.inputs.iter().map(|s| s.parameter.clone()));
            let attrs = self.attrs.entry(o.r#type.clone()).or_default();
            for a in &o.attrs {
                attrs.entry(a.name.clone()).or_insert(a.clone());
            }
        }
    }
}

/// Offers every change of a program.
pub fn program(t: &mut Turn, p: &mut ProgramDesc, known: &Known) -> bool {
    let fed: Vec<String> = p
        .blocks
        .iter()
        .flat_map(|b| &b.ops)
        .filter(|o| o.r#type == "feed")
        .flat_map(|o| o.outputs.iter().flat_map(|s| s.arguments.clone()))
        .collect();
    for (k, b) in p.blocks.iter_mut().enumerate() {
        for v in &mut b.vars {
            let at = format!("variable {}", v.name);
            if variable(t, &at, v, fed.contains(&v.name)) {
                return true;
            }
        }
        let names: Vec<String> = b.vars.iter().map(|v| v.name.clone()).collect();
        for (i, o) in b.ops.iter_mut().enumerate() {
            let at = format!("block {k} operator {i} {}", o.r#type);
            let changed = match o.r#type.as_str() {
                "feed" => feed(t, &at, o, &b.vars),
                _ => operator(t, &at, o, &names, &fed, known),
            };
            if changed {
                return true;
            }
        }
        let at = format!("block {k}: parent");
        if turn::one(t, &at, &mut b.parent_idx, &[-1, 0, 7, i32::MIN, i32::MAX]) {
            return true;
        }
    }
    false
}

fn variable(t: &mut Turn, at: &str, v: &mut VarDesc, fed: bool) -> bool {
    let Some(ty) = &mut v.r#type else { return false };
    let Some(lod) = &mut ty.dense_tensor else { return false };
    if let Some(x) = &mut lod.tensor {
        if fed && turn::dims(t, at, &mut x.dims, |n| n) {
            return true;
        }
        if fed && !x.dims.is_empty() && t.take(|| format!("{at}: all sizes unknown")) {
            x.dims.fill(-1);
            return true;
        }
        if turn::one(t, &format!("{at}: element type"), &mut x.data_type, &DTYPES) {
            return true;
        }
    }
    let levels = lod.lod_level.get_or_insert_default();
    if fed && turn::one(t, &format!("{at}: levels"), levels, &LEVELS) {
        return true;
    }
    if turn::one(t, &format!("{at}: kind"), &mut ty.r#type, &KINDS) {
        return true;
    }
    if t.take(|| format!("{at}: persistable, or not")) {
        v.persistable = Some(v.persistable != Some(true));
        return true;
    }
    false
}

/// An input becomes a constant of one number.
fn feed(t: &mut Turn, at: &str, o: &mut OpDesc, vars: &[VarDesc]) -> bool {
    let out = o.outputs.iter().flat_map(|s| &s.arguments).next().cloned().unwrap_or_default();
    let ty = vars.iter().find(|v| v.name == out).and_then(|v| v.r#type.as_ref());
    let Some(x) = ty.and_then(|x| x.dense_tensor.as_ref()?.tensor.as_ref()) else { return false };
    for n in ["0", "1", "-1", "7", "4294967296", "9223372036854775807", "nan"] {
        if !t.take(|| format!("{at}: a constant of {n}s")) {
            continue;
        }
        let attr =
            |name: &str, kind| Attr { name: name.into(), r#type: kind, ..Default::default() };
        let longs = x.dims.iter().map(|&d| if d < 0 { 2 } else { d }).collect();
        *o = OpDesc {
            r#type: "fill_constant".into(),
            inputs: vec![],
            outputs: vec![Slot { parameter: "Out".into(), arguments: vec![out] }],
            attrs: vec![
                Attr { longs, ..attr("shape", 11) },
                Attr { i: Some(x.data_type), ..attr("dtype", 0) },
                Attr { s: Some(n.into()), ..attr("str_value", 2) },
            ],
        };
        return true;
    }
    false
}

fn operator(
    t: &mut Turn,
    at: &str,
    o: &mut OpDesc,
    names: &[String],
    fed: &[String],
    known: &Known,
) -> bool {
    for i in 0..o.inputs.len() {
        let at = format!("{at}: {}", o.inputs[i].parameter);
        if t.take(|| format!("{at} is left out")) {
            o.inputs.remove(i);
            return true;
        }
        let list = &mut o.inputs[i].arguments;
        // Another variable of the block, what is fed last, and one that nothing makes.
        let others: Vec<String> =
            [names.first(), names.last(), fed.last()].into_iter().flatten().cloned().collect();
        if turn::list(t, &at, list, &[&others[..], &["nothing".into()]].concat()) {
            return true;
        }
    }
    for slot in known.slots.get(&o.r#type).into_iter().flatten() {
        if o.inputs.iter().any(|s| s.parameter == *slot) {
            continue;
        }
        for name in fed {
            if t.take(|| format!("{at}: with {slot}={name}")) {
                o.inputs.push(Slot { parameter: slot.clone(), arguments: vec![name.clone()] });
                return true;
            }
        }
    }
    for s in &mut o.outputs {
        let at = format!("{at}: result {}", s.parameter);
        if turn::list(t, &at, &mut s.arguments, &["elsewhere".to_string()]) {
            return true;
        }
    }
    for i in 0..o.attrs.len() {
        if NOISE.contains(&o.attrs[i].name.as_str()) {
            continue;
        }
        let at = format!("{at}: {}", o.attrs[i].name);
        if t.take(|| format!("{at} is left out")) {
            o.attrs.remove(i);
            return true;
        }
        if attribute(t, &at, &mut o.attrs[i]) {
            return true;
        }
    }
    let mut seen = known.attrs.get(&o.r#type).into_iter().flatten();
    seen.any(|(name, a)| {
        if NOISE.contains(&name.as_str()) || o.attrs.iter().any(|a| a.name == *name) {
            return false;
        }
        let mut a = a.clone();
        let at = format!("{at}: with {name}");
        let made = t.take(|| at.clone()) || attribute(t, &at, &mut a);
        if made {
            o.attrs.push(a);
        }
        made
    })
}

fn attribute(t: &mut Turn, at: &str, a: &mut Attr) -> bool {
    let ints = [0, -1, 1, 7, i32::MIN, i32::MAX];
    let reals = REALS.map(|x| x as f32);
    let texts = TEXTS.map(String::from);
    let changed = match a.r#type {
        0 => turn::one(t, at, a.i.get_or_insert_default(), &ints),
        1 => turn::one(t, at, a.f.get_or_insert_default(), &reals),
        2 => turn::one(t, at, a.s.get_or_insert_default(), &texts),
        3 => turn::list(t, at, &mut a.ints, &ints),
        4 => turn::list(t, at, &mut a.floats, &reals),
        5 => turn::list(t, at, &mut a.strings, &texts),
        6 => {
            let b = a.b.get_or_insert_default();
            let not = [!*b];
            turn::one(t, at, b, &not)
        }
        7 => turn::list(t, at, &mut a.bools, &[false, true]),
        8 => turn::one(t, at, a.block_idx.get_or_insert_default(), &ints),
        9 => turn::one(t, at, a.l.get_or_insert_default(), &INTS),
        10 => turn::list(t, at, &mut a.blocks_idx, &ints),
        11 => turn::list(t, at, &mut a.longs, &INTS),
        12 => turn::list(t, at, &mut a.float64s, &REALS),
        15 => turn::one(t, at, a.float64.get_or_insert_default(), &REALS),
        16 => {
            let hostile: Vec<Scalar> = REALS.iter().map(|&r| scalar(3, 0, r)).collect();
            let whole: Vec<Scalar> = INTS.iter().map(|&i| scalar(2, i, 0.0)).collect();
            turn::one(t, at, a.scalar.get_or_insert_default(), &[hostile, whole].concat())
        }
        _ => false,
    };
    if changed {
        return true;
    }
    // As a list where it is one, and the other way round; 64 bits wide; a variable's name.
    for kind in [0, 3, 9, 11, 13] {
        if a.r#type != kind && t.take(|| format!("{at}: of type {kind}")) {
            a.r#type = kind;
            a.var_name = Some("nothing".into());
            (a.i, a.l) = (Some(-3), Some(i64::MAX));
            (a.ints, a.longs) = (vec![-3, 5], vec![i64::MIN, 5]);
            return true;
        }
    }
    false
}

fn scalar(kind: i32, i: i64, r: f64) -> Scalar {
    Scalar { r#type: kind, b: None, i: Some(i), r: Some(r) }
}
