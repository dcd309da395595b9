//! Changes of ONNX models.

use super::turn::{self, INTS, REALS, TEXTS, Turn};
use hub_abi::Dtype;
use hub_frontend::onnx;
use hub_frontend::onnx::proto::*;
use std::collections::BTreeMap;

/// Attributes that are seen anywhere, by operator and name.
pub type Known = BTreeMap<String, BTreeMap<String, AttributeProto>>;

/// Element types to change to: one of each kind.
const DTYPES: [i32; 10] = [1, 2, 6, 7, 8, 9, 10, 14, 17, 22];
/// Versions of the operators to change to.
const VERSIONS: [i64; 9] = [0, 1, 6, 9, 11, 13, 18, 24, i64::MAX];
/// What constants are filled with.
const FILLS: [f64; 8] =
    [0.0, 1.0, -1.0, 7.0, 4294967296.0, i64::MAX as f64, i64::MIN as f64, f64::NAN];
/// Tensors of more elements are left as they are.
const MOST: i64 = 1 << 16;

/// Notes what attributes a graph's operators have.
pub fn learn(g: &GraphProto, known: &mut Known) {
    for n in &g.node {
        for a in &n.attribute {
            known.entry(n.op_type.clone()).or_default().entry(a.name.clone()).or_insert(a.clone());
            a.g.iter().for_each(|g| learn(g, known));
        }
    }
}

/// Offers every change of a model.
pub fn model(t: &mut Turn, m: &mut ModelProto, known: &Known) -> bool {
    for i in 0..m.opset_import.len() {
        let o = &mut m.opset_import[i];
        let at = format!("version of '{}'", o.domain);
        if turn::one(t, &at, &mut o.version, &VERSIONS) {
            return true;
        }
    }
    let Some(g) = &mut m.graph else { return false };
    if graph(t, "", g, known) {
        return true;
    }
    for f in &mut m.functions {
        let names: Vec<String> = f.input.iter().chain(&f.output).cloned().collect();
        for k in 0..f.node.len() {
            let at = format!("{} node {k}", f.name);
            if node(t, &at, &mut f.node[k], &names, known) {
                return true;
            }
        }
    }
    false
}

fn graph(t: &mut Turn, at: &str, g: &mut GraphProto, known: &Known) -> bool {
    for i in 0..g.input.len() {
        let name = format!("{at}input {}", g.input[i].name);
        if value(t, &name, &mut g.input[i]) || constant(t, &name, i, g) {
            return true;
        }
    }
    let unused = |name: &str| name.starts_with("in:") || name.starts_with("out:");
    for x in g.initializer.iter_mut().filter(|x| !unused(&x.name)) {
        let name = format!("{at}constant {}", x.name);
        if tensor(t, &name, x) {
            return true;
        }
    }
    let names: Vec<String> = g
        .input
        .iter()
        .map(|i| &i.name)
        .chain(g.initializer.iter().map(|x| &x.name).filter(|n| !unused(n)))
        .chain(g.node.iter().flat_map(|n| &n.output))
        .cloned()
        .collect();
    for k in 0..g.node.len() {
        let label = format!("{at}node {k} {}", g.node[k].op_type);
        if node(t, &label, &mut g.node[k], &names, known) {
            return true;
        }
    }
    for o in &mut g.output {
        let name = format!("{at}output {}", o.name);
        if let Some(x) = o.r#type.as_mut().and_then(|x| x.tensor_type.as_mut())
            && turn::one(t, &name, &mut x.elem_type, &DTYPES)
        {
            return true;
        }
    }
    if !at.is_empty() {
        if turn::list(t, &format!("{at}outputs"), &mut g.output, &[]) {
            return true;
        }
        if turn::list(t, &format!("{at}inputs"), &mut g.input, &[]) {
            return true;
        }
    }
    false
}

/// The tensor within a type.
fn tensor_type(x: &mut TypeProto) -> Option<&mut TensorTypeProto> {
    if x.tensor_type.is_some() {
        return x.tensor_type.as_mut();
    }
    let inner = x.sequence_type.as_mut().or(x.optional_type.as_mut())?;
    tensor_type(inner.elem_type.as_mut()?)
}

fn value(t: &mut Turn, at: &str, v: &mut ValueInfoProto) -> bool {
    let Some(ty) = &mut v.r#type else { return false };
    for (what, seq) in [("a sequence", true), ("an optional", false)] {
        if t.take(|| format!("{at}: {what} of it")) {
            let elem = Some(Box::new(ElemTypeProto { elem_type: Some(Box::new(ty.clone())) }));
            *ty = match seq {
                true => TypeProto { sequence_type: elem, ..Default::default() },
                false => TypeProto { optional_type: elem, ..Default::default() },
            };
            return true;
        }
    }
    let Some(x) = tensor_type(ty) else { return false };
    if turn::one(t, &format!("{at}: element type"), &mut x.elem_type, &DTYPES) {
        return true;
    }
    let Some(shape) = &mut x.shape else { return false };
    let of = |n| DimensionProto { dim_value: Some(n), dim_param: None };
    if turn::dims(t, at, &mut shape.dim, of) {
        return true;
    }
    if !shape.dim.is_empty() && t.take(|| format!("{at}: all sizes unknown")) {
        for (i, d) in shape.dim.iter_mut().enumerate() {
            *d = DimensionProto { dim_value: None, dim_param: Some(format!("{at}.{i}")) };
        }
        return true;
    }
    if t.take(|| format!("{at}: no shape")) {
        x.shape = None;
        return true;
    }
    false
}

/// An input becomes a constant of one number.
fn constant(t: &mut Turn, at: &str, i: usize, g: &mut GraphProto) -> bool {
    let v = &g.input[i];
    let ty = v.r#type.as_ref().and_then(|x| x.tensor_type.as_ref());
    let Some((ty, shape)) = ty.and_then(|x| Some((x.elem_type, x.shape.as_ref()?))) else {
        return false;
    };
    if plain(ty).is_none() {
        return false;
    }
    for x in FILLS {
        if t.take(|| format!("{at}: a constant of {x}s")) {
            let dims = shape.dim.iter().map(|d| d.dim_value.unwrap_or(2)).collect();
            let mut c =
                TensorProto { name: v.name.clone(), dims, data_type: ty, ..Default::default() };
            fill(&mut c, x);
            g.input.remove(i);
            g.initializer.push(c);
            return true;
        }
    }
    false
}

/// A type whose elements are whole bytes.
fn plain(dtype: i32) -> Option<Dtype> {
    Dtype::from_onnx(dtype).filter(|d| d.packed_bits().is_none() && *d != Dtype::Str)
}

fn count(dims: &[i64]) -> Option<usize> {
    let n = dims.iter().try_fold(1i64, |n, &d| n.checked_mul(d))?;
    (0..=MOST).contains(&n).then_some(n as usize)
}

fn fill(c: &mut TensorProto, x: f64) {
    let (Some(dtype), Some(n)) = (plain(c.data_type), count(&c.dims)) else { return };
    c.raw_data = Some(hub_ir::build::scalar_bytes(dtype, x).repeat(n).into());
}

/// As many bytes as the shape says, if it says how many.
fn fit(c: &mut TensorProto) {
    let (Some(dtype), Some(n)) = (plain(c.data_type), count(&c.dims)) else { return };
    let mut raw = c.raw_data.take().unwrap_or_default().to_vec();
    raw.resize(n * dtype.size(), 0);
    c.raw_data = Some(raw.into());
}

fn tensor(t: &mut Turn, at: &str, c: &mut TensorProto) -> bool {
    let strings = c.data_type == Dtype::Str as i32;
    if let (Some(_), Ok(read)) = (plain(c.data_type), onnx::tensor_of(c)) {
        c.raw_data = Some(read.data);
        (c.float_data, c.int32_data, c.int64_data) = Default::default();
        (c.double_data, c.uint64_data) = Default::default();
    } else if !strings {
        return turn::dims(t, at, &mut c.dims, |n| n);
    }
    if turn::dims(t, at, &mut c.dims, |n| n) {
        match strings {
            true => c.string_data.resize(count(&c.dims).unwrap_or(1), Default::default()),
            false => fit(c),
        }
        return true;
    }
    if strings {
        let hostile = [bytes(""), bytes(TEXTS[2]), vec![0xff, 0xfe].into()];
        return turn::list(t, at, &mut c.string_data, &hostile);
    }
    if c.dims.len() > 1 && t.take(|| format!("{at}: flat")) {
        c.dims = vec![count(&c.dims).unwrap_or(1) as i64];
        return true;
    }
    for dtype in DTYPES {
        if t.take(|| format!("{at}: of element type {dtype}")) {
            c.data_type = dtype;
            fit(c);
            return true;
        }
    }
    for x in FILLS {
        if t.take(|| format!("{at}: all of it {x}")) {
            fill(c, x);
            return true;
        }
        if t.take(|| format!("{at}: its first element {x}")) {
            let one = plain(c.data_type).map(|d| hub_ir::build::scalar_bytes(d, x));
            let mut raw = c.raw_data.take().unwrap_or_default().to_vec();
            for (to, from) in raw.iter_mut().zip(one.unwrap_or_default()) {
                *to = from;
            }
            c.raw_data = Some(raw.into());
            return true;
        }
    }
    for (what, len) in [("without data", 0), ("a byte short", 1)] {
        if t.take(|| format!("{at}: {what}")) {
            let mut raw = c.raw_data.take().unwrap_or_default().to_vec();
            raw.truncate(if len == 0 { 0 } else { raw.len().saturating_sub(1) });
            c.raw_data = Some(raw.into());
            return true;
        }
    }
    false
}

fn bytes(s: &str) -> bytes::Bytes {
    bytes::Bytes::copy_from_slice(s.as_bytes())
}

fn node(t: &mut Turn, at: &str, n: &mut NodeProto, names: &[String], known: &Known) -> bool {
    for i in 0..n.input.len() {
        if t.take(|| format!("{at}: operand {i} is left out")) {
            n.input[i].clear();
            return true;
        }
        if t.take(|| format!("{at}: operand {i} is taken away")) {
            n.input.remove(i);
            return true;
        }
        if t.take(|| format!("{at}: operand {i} twice")) {
            n.input.insert(i, n.input[i].clone());
            return true;
        }
        let other =
            n.input.iter().cycle().skip(i + 1).take(n.input.len()).find(|o| **o != n.input[i]);
        if let Some(other) = other.cloned()
            && t.take(|| format!("{at}: operand {i} is another"))
        {
            n.input[i] = other;
            return true;
        }
    }
    for more in [1, 2, 4, 40] {
        let Some(v) = n.input.last().or(names.first()).cloned() else { break };
        if t.take(|| format!("{at}: {more} operands more")) {
            n.input.resize(n.input.len() + more, v);
            return true;
        }
    }
    for i in 0..n.output.len() {
        if t.take(|| format!("{at}: result {i} is left out")) {
            n.output[i].clear();
            return true;
        }
    }
    if t.take(|| format!("{at}: more results")) {
        n.output.extend((0..4).map(|i| format!("more.{i}")));
        return true;
    }
    for i in 0..n.attribute.len() {
        let at = format!("{at}: {}", n.attribute[i].name);
        if t.take(|| format!("{at} is left out")) {
            n.attribute.remove(i);
            return true;
        }
        if attribute(t, &at, &mut n.attribute[i], known) {
            return true;
        }
    }
    let mut seen = known.get(&n.op_type).into_iter().flatten();
    seen.any(|(name, a)| {
        if n.attribute.iter().any(|a| a.name == *name) {
            return false;
        }
        let mut a = a.clone();
        let at = format!("{at}: with {name}");
        let made = t.take(|| at.clone()) || attribute(t, &at, &mut a, known);
        if made {
            n.attribute.push(a);
        }
        made
    })
}

fn attribute(t: &mut Turn, at: &str, a: &mut AttributeProto, known: &Known) -> bool {
    let reals = REALS.map(|x| x as f32);
    let texts = [bytes(TEXTS[0]), bytes(TEXTS[1]), bytes(TEXTS[2]), vec![0xff, 0xfe].into()];
    let changed = match a.r#type {
        attr::INT => turn::one(t, at, a.i.get_or_insert_default(), &INTS),
        attr::FLOAT => turn::one(t, at, a.f.get_or_insert_default(), &reals),
        attr::STRING => turn::one(t, at, a.s.get_or_insert_default(), &texts),
        attr::INTS => turn::list(t, at, &mut a.ints, &INTS),
        attr::FLOATS => turn::list(t, at, &mut a.floats, &reals),
        attr::STRINGS => turn::list(t, at, &mut a.strings, &texts),
        attr::TENSOR => a.t.as_mut().is_some_and(|x| tensor(t, at, x)),
        attr::GRAPH => a.g.as_mut().is_some_and(|g| graph(t, &format!("{at}/"), g, known)),
        _ => false,
    };
    if changed {
        return true;
    }
    if t.take(|| format!("{at}: of another type")) {
        a.r#type = if a.r#type == attr::INTS { attr::FLOAT } else { attr::INTS };
        return true;
    }
    false
}
