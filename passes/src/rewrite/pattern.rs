//! Patterns over values: matched from the root down, commutative operators both ways, with full
//! backtracking.

use hub_abi::Dtype;
use hub_abi::prim::{BinaryOp, Prim, UnaryOp};
use hub_ir::graph::ConstData;
use hub_ir::{Graph, Node, Op, Source, Value};
use std::collections::HashMap;
use std::rc::Rc;

/// A test of a primitive.
pub type PrimTest = fn(&Prim) -> bool;
/// A test of a source operator.
pub type SourceTest = fn(&Source) -> bool;

/// A pattern.
#[derive(Clone)]
pub enum Pat {
    /// Any value, bound to a slot; a slot that is bound already must be the same value.
    Slot(u8),
    /// A constant tensor, bound to a slot.
    Const(u8),
    /// A constant whose elements all are this number: exactly where f32 holds it (0.999995 is not
    /// 1), else within a relative 1e-5 (so that `sqrt(2)` matches in any spelling).
    Num(f64),
    /// A constant whose elements all are one number, bound to a number slot.
    NumIn(u8),
    /// A unary primitive.
    Un(UnaryOp, Box<Pat>),
    /// A binary primitive; commutative ones match both ways.
    Bin(BinaryOp, Box<Pat>, Box<Pat>),
    /// A primitive that passes the test, with these operands.
    Prim(PrimTest, Vec<Pat>),
    /// A source operator that passes the test; operands beyond the listed ones must be left out.
    Src(SourceTest, Vec<Pat>),
    /// The inner pattern, its value bound to a slot.
    As(u8, Box<Pat>),
    /// Any of these; the first that leads to a match.
    Any(Vec<Pat>),
}

impl Pat {
    /// A unary primitive.
    pub fn un(op: UnaryOp, x: Pat) -> Pat {
        Pat::Un(op, Box::new(x))
    }
    /// A binary primitive.
    pub fn bin(op: BinaryOp, a: Pat, b: Pat) -> Pat {
        Pat::Bin(op, Box::new(a), Box::new(b))
    }
    /// `a + b`.
    pub fn plus(a: Pat, b: Pat) -> Pat {
        Pat::bin(BinaryOp::Add, a, b)
    }
    /// `a - b`.
    pub fn minus(a: Pat, b: Pat) -> Pat {
        Pat::bin(BinaryOp::Sub, a, b)
    }
    /// `a * b`.
    pub fn times(a: Pat, b: Pat) -> Pat {
        Pat::bin(BinaryOp::Mul, a, b)
    }
    /// `a / b`.
    pub fn over(a: Pat, b: Pat) -> Pat {
        Pat::bin(BinaryOp::Div, a, b)
    }
    /// Binds the value of this pattern.
    pub fn named(self, slot: u8) -> Pat {
        Pat::As(slot, Box::new(self))
    }
}

/// How many slots a pattern may use.
const SLOTS: usize = 12;

/// A match: what the slots are bound to.
#[derive(Clone, Debug)]
pub struct Match {
    /// The node whose outputs are replaced.
    pub root: Node,
    values: [Option<Value>; SLOTS],
    numbers: [Option<f64>; SLOTS],
    /// Nodes matched below the root.
    pub interior: Vec<Node>,
    users: Rc<Users>,
}

/// The nodes that use each value, as they were when a sweep began; values that are results of a
/// region are left out.
pub(super) type Users = HashMap<Value, Vec<Node>>;

impl Match {
    /// The value bound to a slot (the rule's pattern binds it on every way to a match).
    pub fn v(&self, slot: u8) -> Value {
        self.values[slot as usize].expect("the pattern binds the slot")
    }
    /// The value bound to a slot, if the way to this match bound it.
    pub fn get(&self, slot: u8) -> Option<Value> {
        self.values[slot as usize]
    }
    /// The nodes that use a value. None are known for a region's results and for values made in this
    /// sweep.
    pub fn users(&self, v: Value) -> &[Node] {
        self.users.get(&v).map_or(&[], |u| u)
    }
    /// The number bound to a slot.
    pub fn num(&self, slot: u8) -> f64 {
        self.numbers[slot as usize].expect("the pattern binds the slot")
    }
    /// The number bound to a slot, if any.
    pub fn get_num(&self, slot: u8) -> Option<f64> {
        self.numbers[slot as usize]
    }
    /// The primitive that defines the value in a slot.
    pub fn prim<'g>(&self, g: &'g Graph, slot: u8) -> &'g Prim {
        g.as_prim(self.v(slot)).expect("the pattern says a primitive").1
    }
    /// The source operator that defines the value in a slot.
    pub fn source<'g>(&self, g: &'g Graph, slot: u8) -> &'g Source {
        let n = g.def(self.v(slot)).expect("the pattern says a source operator");
        match &g.nodes[n].op {
            Op::Source(s) => s,
            _ => unreachable!("the pattern says a source operator"),
        }
    }
    /// Operands of the node that defines the value in a slot.
    pub fn inputs<'g>(&self, g: &'g Graph, slot: u8) -> &'g [Value] {
        &g.nodes[g.def(self.v(slot)).expect("the pattern says a node")].inputs
    }
    /// The primitive at the root.
    pub fn root_prim<'g>(&self, g: &'g Graph) -> &'g Prim {
        match &g.nodes[self.root].op {
            Op::Prim(p) => p,
            _ => unreachable!("the pattern says a primitive"),
        }
    }
    /// The first output of the root.
    pub fn out(&self, g: &Graph) -> Value {
        g.nodes[self.root].outputs[0]
    }
}

/// Matches a pattern whose root is a node's first output. The operands are looked up as they are:
/// the driver keeps them current.
pub(super) fn match_root(g: &Graph, pat: &Pat, root: Node, users: &Rc<Users>) -> Option<Match> {
    let out = *g.nodes[root].outputs.first()?;
    let (values, numbers) = ([None; SLOTS], [None; SLOTS]);
    let m = Match { root, values, numbers, interior: vec![], users: users.clone() };
    go(g, vec![(pat, out)], m)
}

/// Matches a list of goals, the last first.
fn go(g: &Graph, mut goals: Vec<(&Pat, Value)>, mut m: Match) -> Option<Match> {
    while let Some((pat, v)) = goals.pop() {
        if v.is_none() {
            return None;
        }
        match pat {
            Pat::Slot(s) => match &mut m.values[*s as usize] {
                Some(bound) if *bound != v => return None,
                slot => *slot = Some(v),
            },
            Pat::Const(s) => {
                g.as_const(v)?;
                match &mut m.values[*s as usize] {
                    Some(bound) if *bound != v => return None,
                    slot => *slot = Some(v),
                }
            }
            Pat::Num(want) => {
                let got = number_of(g, v)?;
                let exact = f64::from(*want as f32) == *want;
                if (got - want).abs() > if exact { 0.0 } else { 1e-5 * want.abs() } {
                    return None;
                }
            }
            Pat::NumIn(s) => m.numbers[*s as usize] = Some(number_of(g, v)?),
            Pat::As(s, inner) => {
                m.values[*s as usize] = Some(v);
                goals.push((inner, v));
            }
            Pat::Any(options) => {
                let attempt = |p| {
                    let mut goals = goals.clone();
                    goals.push((p, v));
                    go(g, goals, m.clone())
                };
                return options.iter().find_map(attempt);
            }
            Pat::Bin(op, a, b) => {
                let ins =
                    enter(g, v, &mut m, |o| matches!(o, Op::Prim(Prim::Binary(p)) if p == op))?;
                let (x, y) = (ins[0], ins[1]);
                if commutes(*op) {
                    let mut goals = goals.clone();
                    goals.extend([(&**a, y), (&**b, x)]);
                    // The other way round is tried where this one fails.
                    let mut straight = goals[..goals.len() - 2].to_vec();
                    straight.extend([(&**a, x), (&**b, y)]);
                    return go(g, straight, m.clone()).or_else(|| go(g, goals, m));
                }
                goals.extend([(&**a, x), (&**b, y)]);
            }
            Pat::Un(op, x) => {
                let ins =
                    enter(g, v, &mut m, |o| matches!(o, Op::Prim(Prim::Unary(p)) if p == op))?;
                goals.push((x, ins[0]));
            }
            Pat::Prim(test, pats) => {
                let ins = enter(g, v, &mut m, |o| matches!(o, Op::Prim(p) if test(p)))?;
                if ins.len() != pats.len() {
                    return None;
                }
                goals.extend(pats.iter().zip(ins));
            }
            Pat::Src(test, pats) => {
                let ins = enter(g, v, &mut m, |o| matches!(o, Op::Source(s) if test(s)))?;
                let rest_absent = ins.iter().skip(pats.len()).all(|v| v.is_none());
                if ins.len() < pats.len() || !rest_absent {
                    return None;
                }
                goals.extend(pats.iter().zip(ins));
            }
        }
    }
    Some(m)
}

/// Operands of the node that defines `v` as its first output, if its operation fits.
fn enter(g: &Graph, v: Value, m: &mut Match, fits: impl Fn(&Op) -> bool) -> Option<Vec<Value>> {
    let n = g.def(v)?;
    let node = &g.nodes[n];
    if !fits(&node.op) || node.outputs[0] != v {
        return None;
    }
    if n != m.root {
        m.interior.push(n);
    }
    Some(node.inputs.clone())
}

fn commutes(op: BinaryOp) -> bool {
    use BinaryOp::*;
    matches!(op, Add | Mul | Max | Min | And | Or | Xor | BitAnd | BitOr | BitXor | Eq | Ne)
}

/// The number that every element of a constant value is.
pub fn number_of(g: &Graph, v: Value) -> Option<f64> {
    splat_of(g.as_const(v)?)
}

/// The number that every element of a constant is; floats and integers only.
pub fn splat_of(c: &ConstData) -> Option<f64> {
    let size = c.ty.dtype.size();
    let first = c.data.get(..size).filter(|b| !b.is_empty())?;
    if c.data.chunks_exact(size).any(|e| e != first) {
        return None;
    }
    Some(match c.ty.dtype {
        Dtype::F32 => f32::from_le_bytes(first.try_into().ok()?).into(),
        Dtype::F64 => f64::from_le_bytes(first.try_into().ok()?),
        Dtype::F16 => half::f16::from_le_bytes(first.try_into().ok()?).into(),
        Dtype::BF16 => half::bf16::from_le_bytes(first.try_into().ok()?).into(),
        Dtype::I64 => i64::from_le_bytes(first.try_into().ok()?) as f64,
        Dtype::I32 => i32::from_le_bytes(first.try_into().ok()?).into(),
        Dtype::I8 => (first[0] as i8).into(),
        Dtype::U8 | Dtype::Bool => first[0].into(),
        _ => return None,
    })
}
