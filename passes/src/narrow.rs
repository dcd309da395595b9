//! `--precision bf16` (or f16): operands of contractions and convolutions become bf16, sums stay f32.
//!
//! It runs on groups. A value that passes between groups may be stored as bf16: the group that makes
//! it rounds it as its last act, groups that read it widen it first, and what only moves it moves
//! the narrow form. Inside groups everything is computed in f32, so normalisation, softmax,
//! reductions and sums lose nothing but the rounding of their operands. Values that movement joins
//! (a reshape's operand and result, a concatenation's parts) are of one *class* and change together.
//!
//! Stay f32: inputs and outputs of the model, what control flow carries (a recurrent state), what
//! the host computes, reduced values that nothing multiplies, biases; and contractions that are
//! *sensitive*, whose result is an output of the model but for elementwise operators, movement, a
//! softmax or an argmax (classifiers, boxes). Depthwise convolutions stay f32 too, with what they read:
//! they have few taps and no use for pairs. What stays is reported ([`Context::refused`]). Weights that
//! are multiplied with a recurrent state become bf16 all the same: reading them is what such a step
//! takes, a row at a time. (A convolution's are read for every pixel, and would lose Winograd.)

use crate::context::{Changed, Context, PassError, Refusal};
use bytes::Bytes;
use hub_abi::Dtype;
use hub_abi::prim::{Prim, UnaryOp};
use hub_ir::graph::ConstData;
use hub_ir::{Def, Graph, GroupKind, Node, Op, Region, Type, Value};
use std::collections::{HashMap, HashSet};

/// Contractions of fewer products a sum stay f32.
const FEWEST_PRODUCTS: i64 = 8;
/// The same in networks with depthwise convolutions: their thin layers, which gain little, carry what
/// all later ones add to, and rounding grows on the way (EfficientNet-B0's answer was off by 1 − cosine
/// = 6e-4 to 1.5e-3 with 8 here, as chance has it, and by 1e-4 to 2e-4 with this).
const FEWEST_BESIDE_DEPTHWISE: i64 = 100;

/// Why what a loop carries stays f32.
const CARRIED: &str = "carried by a loop";

/// The name that reports are filed under.
pub const RULE: &str = "narrow";

/// The pass.
pub fn run(g: &mut Graph, cx: &Context) -> Result<Changed, PassError> {
    let Some(dtype) = cx.options.precision.dtype() else { return Ok(false) };
    let classes = Classes::of(g);
    let depthwise = groups(g).into_iter().any(|n| is_depthwise(g, n));
    let fewest = if depthwise { FEWEST_BESIDE_DEPTHWISE } else { FEWEST_PRODUCTS };
    let sensitive = sensitive(g);
    let mut wanted = HashSet::new();
    let mut narrow: Vec<(Node, Vec<Value>)> = vec![];
    // Those whose weights alone are narrow.
    let mut weights: Vec<(Node, Vec<Value>)> = vec![];
    let (mut refusals, mut wide_uses) = (vec![], HashSet::new());
    for n in groups(g) {
        let Some(operands) = multiplied(g, n) else { continue };
        let why = match sensitive.contains(&n) {
            true => Some("it makes an output of the model"),
            false => unfit(g, &classes, n, &operands, fewest),
        };
        if let Some(mut why) = why {
            wide_uses.extend(operands.iter().map(|v| classes.find(*v)));
            let product = group(g, n).is_some_and(|x| x.0 == GroupKind::Contract);
            if product && why == CARRIED && operands.iter().any(|v| g.as_const(*v).is_some()) {
                weights.push((n, operands.clone()));
                why = "carried by a loop; its weights are narrow";
            }
            if !is_depthwise(g, n) {
                refusals.push(Refusal { rule: RULE, node: g.nodes[n].name.clone(), why });
            }
            continue;
        }
        let values = operands.iter().filter(|v| g.as_const(**v).is_none());
        wanted.extend(values.map(|v| classes.find(*v)));
        narrow.push((n, operands));
    }
    let images = classes.images(g);
    wanted.extend(images.into_iter().filter(|c| !wide_uses.contains(c)));
    cx.fired("narrow-contraction", narrow.len() as u32);
    cx.fired("narrow-weights", weights.len() as u32);
    cx.refused(refusals);
    let stored = classes.members(g, &wanted);
    cx.fired("narrow-value", stored.len() as u32);
    let mut change = Change { g, dtype, weights: HashMap::new() };
    stored.iter().for_each(|v| change.store(*v));
    for n in groups(change.g) {
        change.read(n, &stored);
    }
    for (n, operands) in narrow.iter().chain(&weights) {
        change.weights(*n, operands);
    }
    crate::dce::remove_dead(g);
    Ok(!stored.is_empty())
}

/// Living groups.
fn groups(g: &Graph) -> Vec<Node> {
    let is = |n: &Node| matches!(g.nodes[*n].op, Op::Group { .. });
    g.walk().into_iter().filter(is).collect()
}

fn group(g: &Graph, n: Node) -> Option<(GroupKind, Region)> {
    match g.nodes[n].op {
        Op::Group { kind, region } => Some((kind, region)),
        _ => None,
    }
}

/// The node of a group around a contraction, convolution or window.
fn anchor(g: &Graph, n: Node) -> Option<Node> {
    let (_, r) = group(g, n)?;
    let is =
        |p: &Prim| matches!(p, Prim::Contract { .. } | Prim::Conv { .. } | Prim::Window { .. });
    g.regions[r].nodes.iter().copied().find(|m| matches!(&g.nodes[*m].op, Op::Prim(p) if is(p)))
}

/// The group's operand that a value inside it is.
fn outer(g: &Graph, n: Node, v: Value) -> Option<Value> {
    let (_, r) = group(g, n)?;
    match g.values[v].def {
        Def::Param(q, i) if q == r => Some(g.nodes[n].inputs[i as usize]),
        _ => None,
    }
}

/// Both operands of the f32 contraction or convolution that a group is built around.
fn multiplied(g: &Graph, n: Node) -> Option<Vec<Value>> {
    let a = anchor(g, n)?;
    if matches!(g.nodes[a].op, Op::Prim(Prim::Window { .. })) {
        return None;
    }
    let ins = g.nodes[a].inputs.iter().take(2);
    let found: Option<Vec<Value>> = ins.map(|v| outer(g, n, *v)).collect();
    found.filter(|f| f.len() == 2 && f.iter().all(|v| is_f32(g, *v)))
}

fn is_f32(g: &Graph, v: Value) -> bool {
    matches!(g.ty(v), Type::Tensor(t) if t.dtype == Dtype::F32)
}

/// One input channel a group.
fn is_depthwise(g: &Graph, n: Node) -> bool {
    let Some(a) = anchor(g, n) else { return false };
    let Op::Prim(Prim::Conv { groups, .. }) = g.nodes[a].op else { return false };
    let w = g.dims(g.nodes[a].inputs[1]);
    groups > 1 && w[1].is(1)
}

/// Why a contraction stays f32, if it does.
fn unfit(
    g: &Graph,
    classes: &Classes,
    n: Node,
    operands: &[Value],
    fewest: i64,
) -> Option<&'static str> {
    let values: Vec<Value> =
        operands.iter().copied().filter(|v| g.as_const(*v).is_none()).collect();
    if values.is_empty() {
        return Some("its operands are constants");
    }
    if is_depthwise(g, n) {
        return Some("it is depthwise");
    }
    if products(g, n).is_some_and(|k| k < fewest) {
        return Some("its sums are short");
    }
    values.iter().find_map(|v| classes.why_not(*v))
}

/// Products summed, where that is a constant.
fn products(g: &Graph, n: Node) -> Option<i64> {
    let a = anchor(g, n)?;
    let ins = &g.nodes[a].inputs;
    let dims = match &g.nodes[a].op {
        Op::Prim(Prim::Conv { .. }) => g.dims(ins[1])[1..].to_vec(),
        Op::Prim(Prim::Contract { a: la, out, .. }) => {
            let summed = la.iter().zip(g.dims(ins[0])).filter(|(l, _)| !out.contains(l));
            summed.map(|(_, d)| d.clone()).collect()
        }
        _ => return None,
    };
    dims.iter().try_fold(1i64, |n, d| n.checked_mul(d.as_const()?))
}

/// Groups whose contraction makes an output of the model but for what this walks through.
fn sensitive(g: &Graph) -> HashSet<Node> {
    let mut todo: Vec<Value> = g.regions[g.root()].results.clone();
    let (mut seen, mut found) = (HashSet::new(), HashSet::new());
    while let Some(v) = todo.pop() {
        let Some(n) = g.def(v).filter(|_| seen.insert(v)) else { continue };
        let through = match &g.nodes[n].op {
            Op::Prim(p) => p.is_movement(),
            Op::Group { kind: GroupKind::Map, .. } => true,
            Op::Group { kind: GroupKind::Row, region } => chooses(g, *region),
            Op::Group { .. } => {
                found.insert(n);
                false
            }
            _ => false,
        };
        if through {
            todo.extend(g.nodes[n].inputs.iter().filter_map(|v| v.some()));
        }
    }
    found
}

/// Is a row group a softmax or an argmax?
fn chooses(g: &Graph, r: Region) -> bool {
    g.regions[r].nodes.iter().any(|&n| {
        matches!(g.nodes[n].op, Op::Prim(Prim::ArgReduce { .. } | Prim::Unary(UnaryOp::Exp)))
    })
}

/// Values that movement joins, and which classes may change.
struct Classes {
    parent: HashMap<Value, Value>,
    /// Why a class stays f32.
    fixed: HashMap<Value, &'static str>,
}

impl Classes {
    fn of(g: &Graph) -> Classes {
        let mut c = Classes { parent: HashMap::new(), fixed: HashMap::new() };
        let mut fixed: Vec<(Value, &'static str)> = vec![];
        let inside = group_regions(g);
        let regions = g.live_regions().into_iter().filter(|r| !inside.contains(r));
        for r in regions {
            let data = &g.regions[r];
            let edge = if r == g.root() { "the model's input" } else { CARRIED };
            fixed.extend(data.params.iter().map(|v| (*v, edge)));
            fixed.extend(data.results.iter().map(|v| (*v, "a result of the model or of a loop")));
            for &n in &data.nodes {
                c.node(g, n, &mut fixed);
            }
        }
        for (v, why) in fixed {
            let root = c.find(v);
            c.fixed.entry(root).or_insert(why);
        }
        c
    }

    fn node(&mut self, g: &Graph, n: Node, fixed: &mut Vec<(Value, &'static str)>) {
        let node = &g.nodes[n];
        let all = node.inputs.iter().chain(&node.outputs).filter_map(|v| v.some());
        match &node.op {
            Op::Prim(p) if p.is_movement() => {
                let all: Vec<Value> = all.collect();
                all.windows(2).for_each(|w| self.join(w[0], w[1]));
            }
            Op::Group { .. } => {
                let other = all.filter(|v| !is_f32(g, *v));
                fixed.extend(other.map(|v| (v, "its operand is not f32")));
            }
            Op::Const(_) => fixed.extend(all.map(|v| (v, "its operand is a constant, moved"))),
            _ => fixed.extend(all.map(|v| (v, "its operand is not made or read by a kernel"))),
        }
    }

    fn find(&self, mut v: Value) -> Value {
        while let Some(&p) = self.parent.get(&v) {
            v = p;
        }
        v
    }

    fn join(&mut self, a: Value, b: Value) {
        let (a, b) = (self.find(a), self.find(b));
        if a != b {
            self.parent.insert(a, b);
        }
    }

    fn why_not(&self, v: Value) -> Option<&'static str> {
        self.fixed.get(&self.find(v)).copied()
    }

    /// Classes of what convolutions and windows make or read: images, but for those of one pixel.
    fn images(&self, g: &Graph) -> HashSet<Value> {
        let mut out = HashSet::new();
        for n in groups(g) {
            let kind = group(g, n).map(|x| x.0);
            if !matches!(kind, Some(GroupKind::Conv | GroupKind::Window)) {
                continue;
            }
            let read = anchor(g, n).and_then(|a| outer(g, n, g.nodes[a].inputs[0]));
            for &v in g.nodes[n].outputs.iter().chain(&read) {
                let dims = g.ty(v).as_tensor().map_or(&[][..], |t| &t.dims);
                let pixels = dims.iter().skip(2).any(|d| !d.is(1));
                if pixels && is_f32(g, v) && self.why_not(v).is_none() {
                    out.insert(self.find(v));
                }
            }
        }
        out
    }

    /// Values of classes that may change.
    fn members(&self, g: &Graph, wanted: &HashSet<Value>) -> HashSet<Value> {
        let mut out = HashSet::new();
        let inside = group_regions(g);
        for r in g.live_regions().into_iter().filter(|r| !inside.contains(r)) {
            for &n in &g.regions[r].nodes {
                let made = g.nodes[n].outputs.iter().copied();
                out.extend(made.filter(|v| wanted.contains(&self.find(*v))));
            }
        }
        out.retain(|v| self.why_not(*v).is_none());
        out
    }
}

fn group_regions(g: &Graph) -> HashSet<Region> {
    groups(g).into_iter().filter_map(|n| group(g, n)).map(|x| x.1).collect()
}

struct Change<'g> {
    g: &'g mut Graph,
    /// What becomes narrow is of this type.
    dtype: Dtype,
    /// The narrow form of constants.
    weights: HashMap<Value, Value>,
}

impl Change<'_> {
    fn retype(&mut self, v: Value) {
        if let Type::Tensor(t) = &mut self.g.values[v].ty {
            t.dtype = self.dtype;
        }
    }

    /// A cast of `v`, listed nowhere yet.
    fn cast(&mut self, v: Value, to: Dtype) -> Node {
        let mut t = self.g.tensor(v).clone();
        t.dtype = to;
        self.g.make_node(
            Op::Prim(Prim::Cast { to, saturate: true }),
            vec![v],
            vec![Type::Tensor(t)],
            RULE,
        )
    }

    /// The value is bf16 from where it is made.
    fn store(&mut self, v: Value) {
        self.retype(v);
        let Def::Node(n, i) = self.g.values[v].def else { return };
        let Some((_, r)) = group(self.g, n) else { return };
        let result = self.g.regions[r].results[i as usize];
        let cast = self.cast(result, self.dtype);
        self.g.regions[r].nodes.push(cast);
        self.g.regions[r].results[i as usize] = self.g.nodes[cast].outputs[0];
    }

    /// A group widens the operands that are bf16 now.
    fn read(&mut self, n: Node, stored: &HashSet<Value>) {
        let Some((_, r)) = group(self.g, n) else { return };
        for i in 0..self.g.nodes[n].inputs.len() {
            if stored.contains(&self.g.nodes[n].inputs[i]) {
                self.widen(r, i);
            }
        }
    }

    /// Makes param `i` of a region bf16, and its uses read it widened.
    fn widen(&mut self, r: Region, i: usize) {
        let p = self.g.regions[r].params[i];
        self.retype(p);
        let cast = self.cast(p, Dtype::F32);
        let wide = self.g.nodes[cast].outputs[0];
        for m in self.g.regions[r].nodes.clone() {
            let uses = &mut self.g.nodes[m].inputs;
            uses.iter_mut().filter(|v| **v == p).for_each(|v| *v = wide);
        }
        self.g.regions[r].results.iter_mut().filter(|v| **v == p).for_each(|v| *v = wide);
        self.g.regions[r].nodes.insert(0, cast);
    }

    /// Constant operands of a contraction become bf16.
    fn weights(&mut self, n: Node, operands: &[Value]) {
        let Some((_, r)) = group(self.g, n) else { return };
        for i in 0..self.g.nodes[n].inputs.len() {
            let v = self.g.nodes[n].inputs[i];
            if operands.contains(&v) && self.g.as_const(v).is_some() {
                self.g.nodes[n].inputs[i] = self.rounded(v);
                self.widen(r, i);
            }
        }
    }

    /// The bf16 form of a constant, beside it.
    fn rounded(&mut self, v: Value) -> Value {
        if let Some(w) = self.weights.get(&v) {
            return *w;
        }
        let c = self.g.as_const(v).expect("callers asked");
        let mut ty = c.ty.clone();
        ty.dtype = self.dtype;
        let f16 = self.dtype == Dtype::F16;
        let narrow = |b: &[u8]| {
            let x = f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
            if f16 {
                half::f16::from_f32(x).to_le_bytes()
            } else {
                half::bf16::from_f32(x).to_le_bytes()
            }
        };
        let data: Vec<u8> = c.data.chunks_exact(4).flat_map(narrow).collect();
        let data = ConstData { ty: ty.clone(), data: Bytes::from(data), strings: vec![] };
        let id = self.g.consts.push(data);
        let old = self.g.def(v).expect("a constant has a node");
        let name = self.g.nodes[old].name.clone();
        let made = self.g.make_node(Op::Const(id), vec![], vec![Type::Tensor(ty)], &name);
        for r in self.g.live_regions() {
            let nodes = &mut self.g.regions[r].nodes;
            if let Some(at) = nodes.iter().position(|m| *m == old) {
                nodes.insert(at + 1, made);
                break;
            }
        }
        let w = self.g.nodes[made].outputs[0];
        self.weights.insert(v, w);
        w
    }
}
