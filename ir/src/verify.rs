//! The verifier: what must hold of every graph, and which operations each stage admits.
//!
//! Checked: definitions before uses (a region sees what encloses it), one definition a value,
//! operand counts, types against inference (source operators' by their expansion), regions of groups and control, names of inputs and
//! outputs, and the stage's legality row. It asserts compiler bugs: frontends hand in only what the
//! builder accepted.

use crate::entity::{Node, Region, Value};
use crate::expand::expand_checked;
use crate::graph::{Def, Graph, GroupKind, Op};
use crate::ops::OpError;
use crate::text::print_node;
use hub_abi::pgraph::Control;
use hub_abi::prim::Prim;
use hub_abi::shape::{Constraints, TensorType, Type};
use std::collections::HashSet;

/// How far a graph has come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Stage {
    /// As a frontend made it.
    Imported,
    /// Folded and simplified.
    Typed,
    /// Source operators recovered from what exporters decompose.
    Raised,
    /// Only primitives in groups, movement, constants and control.
    Fused,
    /// Precision and quantisation applied.
    Quantised,
    /// Layouts and memory classes chosen.
    Placed,
    /// Ready for the plan.
    Planned,
}

/// What a stage admits.
struct Row {
    stage: Stage,
    source: bool,
    groups: bool,
    /// Primitives outside groups.
    bare: fn(&Prim) -> bool,
}

fn any(_: &Prim) -> bool {
    true
}

/// Outside groups from fusion on: what moves data or has no fused form.
fn ungrouped(p: &Prim) -> bool {
    !(p.is_elementwise() || is_anchor(p))
}

/// What a group is built around.
fn is_anchor(p: &Prim) -> bool {
    use Prim::*;
    matches!(p, Contract { .. } | Conv { .. } | Window { .. } | Reduce { .. } | ArgReduce { .. })
}

const STAGES: [Row; 7] = [
    Row { stage: Stage::Imported, source: true, groups: false, bare: any },
    Row { stage: Stage::Typed, source: true, groups: false, bare: any },
    Row { stage: Stage::Raised, source: true, groups: false, bare: any },
    Row { stage: Stage::Fused, source: false, groups: true, bare: ungrouped },
    Row { stage: Stage::Quantised, source: false, groups: true, bare: ungrouped },
    Row { stage: Stage::Placed, source: false, groups: true, bare: ungrouped },
    Row { stage: Stage::Planned, source: false, groups: true, bare: ungrouped },
];

/// What is wrong and where.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{place}: {what}")]
pub struct VerifyError {
    /// The node as text, or the graph.
    pub place: String,
    /// What does not hold.
    pub what: String,
}

/// Checks a graph; the first thing that does not hold.
pub fn verify(g: &Graph, stage: Stage) -> Result<(), VerifyError> {
    let fail = |what: String| Err(VerifyError { place: "graph".into(), what });
    let root = match g.root {
        Some(r) if g.regions.get(r).is_some() => r,
        _ => return fail("no root region".into()),
    };
    let (params, results) = (g.regions[root].params.len(), g.regions[root].results.len());
    if params != g.inputs.len() || results != g.outputs.len() {
        return fail(format!(
            "{params} params and {results} results for {} input and {} output names",
            g.inputs.len(),
            g.outputs.len()
        ));
    }
    if let Some(s) = g.syms.iter().find(|s| s.min > s.max) {
        return fail(format!("symbol {} has bounds {}..{}", s.name, s.min, s.max));
    }
    let row = STAGES.iter().find(|r| r.stage == stage).expect("every stage has a row");
    let mut v = Verifier { g, row, defined: HashSet::new(), regions: HashSet::new() };
    v.region(root, None)?;
    sources(g)
}

/// Source operators' results against their inference, which is their expansion. The graph is
/// expanded as a whole, as everything that runs it does: an operand's type is then what expansion
/// gives its maker, which may be more precise than what the graph says.
fn sources(g: &Graph) -> Checked {
    if !g.walk().iter().any(|&n| matches!(g.nodes[n].op, Op::Source(_))) {
        return Ok(());
    }
    let mut whole = g.clone();
    let fits = |g: &Graph, n: Node, outs: &[Value]| {
        let want: Vec<Type> = outs.iter().map(|&v| g.ty(v).clone()).collect();
        unlike(g, n, &want).map_or(Ok(()), |what| Err(OpError::new(what)))
    };
    match expand_checked(&mut whole, |_, _| true, fits) {
        // Too much is not wrong; whoever expands the graph in earnest says so.
        Err((n, e)) if !e.limit => Err(VerifyError { place: print_node(&whole, n), what: e.what }),
        _ => Ok(()),
    }
}

/// How a node's outputs differ from these types, if they do.
fn unlike(g: &Graph, n: Node, want: &[Type]) -> Option<String> {
    let got: Vec<&Type> = g.nodes[n].outputs.iter().map(|&v| g.ty(v)).collect();
    if got.len() != want.len() {
        return Some(format!("{} outputs expected", want.len()));
    }
    let differs = got.iter().zip(want).find(|(a, b)| !agree(a, b));
    differs.map(|(a, b)| format!("inference gives {b:?}, not {a:?}"))
}

struct Verifier<'g> {
    g: &'g Graph,
    row: &'g Row,
    /// Visible where the walk is.
    defined: HashSet<Value>,
    regions: HashSet<Region>,
}

type Checked = Result<(), VerifyError>;

impl Verifier<'_> {
    fn fail<T>(&self, n: Option<Node>, what: impl Into<String>) -> Result<T, VerifyError> {
        let place = n.map_or_else(|| "region".to_string(), |n| print_node(self.g, n));
        Err(VerifyError { place, what: what.into() })
    }

    fn region(&mut self, r: Region, inside: Option<Node>) -> Checked {
        if !self.regions.insert(r) {
            return self.fail(inside, format!("{r} is used twice"));
        }
        let data = &self.g.regions[r];
        let mut mine = vec![];
        for (i, &v) in data.params.iter().enumerate() {
            if self.g.values[v].def != Def::Param(r, i as u32) {
                return self.fail(inside, format!("param {v} does not know its region"));
            }
            self.define(v, inside, &mut mine)?;
        }
        for &n in &data.nodes {
            for &v in &self.g.nodes[n].inputs {
                if !v.is_none() && !self.defined.contains(&v) {
                    return self.fail(Some(n), format!("{v} is used before it is defined"));
                }
            }
            self.node(n, inside)?;
            for (i, &v) in self.g.nodes[n].outputs.iter().enumerate() {
                if self.g.values[v].def != Def::Node(n, i as u32) {
                    return self.fail(Some(n), format!("output {v} does not know its node"));
                }
                self.define(v, Some(n), &mut mine)?;
            }
        }
        for &v in &data.results {
            if !self.defined.contains(&v) {
                return self.fail(inside, format!("result {v} is not defined"));
            }
        }
        for v in mine {
            self.defined.remove(&v);
        }
        Ok(())
    }

    fn define(&mut self, v: Value, n: Option<Node>, mine: &mut Vec<Value>) -> Checked {
        mine.push(v);
        if self.defined.insert(v) { Ok(()) } else { self.fail(n, format!("{v} is defined twice")) }
    }

    fn node(&mut self, n: Node, inside: Option<Node>) -> Checked {
        let node = &self.g.nodes[n];
        let in_group = inside.is_some_and(|m| matches!(self.g.nodes[m].op, Op::Group { .. }));
        match &node.op {
            Op::Const(c) => {
                let Some(data) = self.g.consts.get(*c) else {
                    return self.fail(Some(n), "no such constant");
                };
                let size = data.ty.dtype.size() as i64;
                let bytes = data.ty.count().as_const().and_then(|k| k.checked_mul(size));
                if bytes != Some(data.data.len() as i64) {
                    return self.fail(Some(n), "a constant's bytes do not fit its type");
                }
                self.types(n, &[Type::Tensor(data.ty.clone())])
            }
            Op::Prim(p) => {
                if !in_group && !(self.row.bare)(p) {
                    return self.fail(Some(n), "a primitive outside groups");
                }
                self.prim(n, p)
            }
            Op::Source(s) => {
                if !self.row.source || in_group {
                    return self.fail(Some(n), "a source operator at a stage without them");
                }
                self.operands(n, s.operands())
            }
            Op::Group { kind, region } => {
                if !self.row.groups || in_group {
                    return self.fail(Some(n), "a group where none may be");
                }
                self.group(n, *kind, *region)
            }
            Op::Control(c) => {
                if in_group {
                    return self.fail(Some(n), "control inside a group");
                }
                self.control(n, c)
            }
        }
    }

    fn types(&self, n: Node, want: &[Type]) -> Checked {
        unlike(self.g, n, want).map_or(Ok(()), |what| self.fail(Some(n), what))
    }

    fn prim(&self, n: Node, p: &Prim) -> Checked {
        let mut ins = vec![];
        for &v in &self.g.nodes[n].inputs {
            match v.some().and_then(|v| self.g.ty(v).as_tensor()) {
                Some(t) => ins.push(t.clone()),
                None => return self.fail(Some(n), "a primitive's operand is no tensor"),
            }
        }
        match p.infer(&ins, &mut Constraints::default()) {
            Ok(t) => self.types(n, &t.into_iter().map(Type::Tensor).collect::<Vec<_>>()),
            Err(e) => self.fail(Some(n), e.what),
        }
    }

    fn operands(&self, n: Node, names: &[&str]) -> Checked {
        let ins = &self.g.nodes[n].inputs;
        let repeats = names.last().is_some_and(|s| s.ends_with('*'));
        if ins.len() > names.len() && !repeats {
            return self.fail(Some(n), format!("at most {} operands expected", names.len()));
        }
        for (i, name) in names.iter().enumerate() {
            let given = ins.get(i).is_some_and(|v| !v.is_none());
            if !given && !name.ends_with(['?', '*']) {
                return self.fail(Some(n), format!("operand '{name}' is left out"));
            }
        }
        let tensor = |v: &Value| v.is_none() || self.g.ty(*v).as_tensor().is_some();
        if !ins.iter().all(tensor) {
            return self.fail(Some(n), "an operand is no tensor");
        }
        Ok(())
    }

    /// Params are the inputs, results the outputs, and nothing else is seen from outside.
    fn group(&mut self, n: Node, kind: GroupKind, r: Region) -> Checked {
        let g = self.g;
        let node = &g.nodes[n];
        let data = &g.regions[r];
        let same = |a: &[Value], b: &[Value]| {
            a.len() == b.len()
                && a.iter().zip(b).all(|(x, y)| !y.is_none() && agree(g.ty(*x), g.ty(*y)))
        };
        if !same(&data.params, &node.inputs) || !same(&data.results, &node.outputs) {
            return self.fail(Some(n), "a group's region does not fit its operands and results");
        }
        let anchors = data.nodes.iter().filter(|m| match (&g.nodes[**m].op, kind) {
            (Op::Prim(Prim::Contract { .. }), GroupKind::Contract)
            | (Op::Prim(Prim::Conv { .. }), GroupKind::Conv)
            | (Op::Prim(Prim::Window { .. }), GroupKind::Window) => true,
            (Op::Prim(p), _) => is_anchor(p) && kind != GroupKind::Row,
            _ => false,
        });
        let want = usize::from(!matches!(kind, GroupKind::Map | GroupKind::Row));
        if anchors.count() != want {
            return self.fail(Some(n), format!("a {kind:?} group has {want} anchor"));
        }
        let outside = std::mem::take(&mut self.defined);
        let checked = self.region(r, Some(n));
        self.defined = outside;
        checked
    }

    fn control(&mut self, n: Node, c: &Control) -> Checked {
        let g = self.g;
        let (ins, outs) = (g.nodes[n].inputs.len(), g.nodes[n].outputs.len());
        for r in g.regions_of(n) {
            if g.regions.get(r).is_none() {
                return self.fail(Some(n), format!("no region {r}"));
            }
            let (params, results) = (g.regions[r].params.len(), g.regions[r].results.len());
            let fits = match c {
                Control::If { .. } => params == 0 && results == outs && ins == 1,
                Control::Loop { has_trip, has_cond, carried, .. } => {
                    let carried = *carried as usize;
                    let lead = usize::from(*has_trip) + usize::from(*has_cond);
                    ins == lead + carried && params == 1 + carried && results == 1 + outs
                }
                Control::Scan { carried, .. } => {
                    params == ins && results == outs && *carried as usize <= ins.min(outs)
                }
                _ => true,
            };
            if !fits {
                return self.fail(Some(n), format!("{r} has {params} params, {results} results"));
            }
            self.region(r, Some(n))?;
            let mut pairs = g.regions[r].results.iter().zip(&g.nodes[n].outputs);
            if matches!(c, Control::If { .. }) && !pairs.all(|(&v, &o)| gives(g.ty(v), g.ty(o))) {
                return self.fail(Some(n), format!("{r} gives values of other types"));
            }
        }
        Ok(())
    }
}

/// May a branch that makes `a` be the one of a node that gives `b`? Where branches differ in size, the
/// node's is a symbol.
fn gives(a: &Type, b: &Type) -> bool {
    match (a, b) {
        (Type::Tensor(a), Type::Tensor(b)) => agree_tensor(a, b),
        _ => alike(a, b),
    }
}

/// Equal but for sizes.
fn alike(a: &Type, b: &Type) -> bool {
    match (a, b) {
        (Type::Tensor(a), Type::Tensor(b)) => a.dtype == b.dtype && a.rank() == b.rank(),
        (Type::Seq(a), Type::Seq(b)) | (Type::Opt(a), Type::Opt(b)) => alike(a, b),
        _ => false,
    }
}

/// Equal, or not provably different (equalities of symbols are checked when they are bound).
fn agree(a: &Type, b: &Type) -> bool {
    match (a, b) {
        (Type::Tensor(a), Type::Tensor(b)) => agree_tensor(a, b),
        (Type::Seq(a), Type::Seq(b)) | (Type::Opt(a), Type::Opt(b)) => agree(a, b),
        _ => false,
    }
}

fn agree_tensor(a: &TensorType, b: &TensorType) -> bool {
    let refuted =
        |(x, y): (&hub_abi::Dim, &hub_abi::Dim)| x.sub(y).as_const().is_some_and(|d| d != 0);
    a.dtype == b.dtype && a.rank() == b.rank() && !a.dims.iter().zip(&b.dims).any(refuted)
}
