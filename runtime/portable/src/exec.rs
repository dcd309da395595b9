//! The interpreter of portable graphs.
//!
//! Model inputs bind symbols: a dim that is one symbol takes the actual size, and every other dim
//! must agree. Constraints are checked as soon as their symbols are bound. Iterations of a loop
//! start from the bindings from before the loop, so params of its body may bind anew each time;
//! what a control node gives binds the symbols of its outputs' types that nothing bound yet.
//! A value is freed after its last use, and moved into it where possible.

use crate::error::{ExecError, ExecFault, Limits, PrimError};
use crate::eval::eval;
use crate::program::{Program, has_regions, malformed};
use crate::store::ConstStore;
use crate::tensor::Tensor;
use crate::value::Value;
use crate::work::{NODE, work};
use hub_abi::dim::{DimError, Sym, SymEnv};
use hub_abi::pgraph::{PGraph, PNode, POp, RegionId, ValueId};
use hub_abi::shape::Type;
use std::ops::Deref;

/// A value and the bytes counted for it.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub value: Value,
    pub bytes: u64,
}

impl From<Value> for Held {
    fn from(value: Value) -> Held {
        let bytes = value.byte_len();
        Held { value, bytes }
    }
}

impl From<Tensor> for Held {
    fn from(t: Tensor) -> Held {
        Value::Tensor(t).into()
    }
}

/// The state of a run: bindings of symbols and the values that are alive.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Bindings of symbols.
    pub env: SymEnv,
    values: Vec<Option<Held>>,
    live: u64,
    steps: u64,
    work: u64,
}

impl Frame {
    /// Nothing bound, nothing alive.
    pub fn new(graph: &PGraph) -> Frame {
        let env = SymEnv::new(graph.syms.len());
        Frame { env, values: vec![None; graph.values.len()], live: 0, steps: 0, work: 0 }
    }

    /// The value, where it is alive.
    pub fn get(&self, id: ValueId) -> Option<&Value> {
        self.values.get(id as usize)?.as_ref().map(|h| &h.value)
    }

    /// Puts a value in. An id that the graph lacks is ignored.
    pub fn set(&mut self, id: ValueId, value: Value) {
        self.put(id, value.into());
    }

    /// Takes a value out.
    pub fn take(&mut self, id: ValueId) -> Option<Value> {
        self.remove(id).map(|h| h.value)
    }

    /// Frees all values and starts counting steps and work anew; bindings stay.
    pub fn clear(&mut self) {
        self.values.fill(None);
        (self.live, self.steps, self.work) = (0, 0, 0);
    }

    /// Bytes of the values that are alive.
    pub fn live_bytes(&self) -> u64 {
        self.live
    }

    /// Adds to (or takes from) the memory counted as alive.
    pub(crate) fn count(&mut self, bytes: i128) {
        self.live = (i128::from(self.live) + bytes).clamp(0, u64::MAX.into()) as u64;
    }

    fn put(&mut self, id: ValueId, held: Held) {
        if let Some(slot) = self.values.get_mut(id as usize) {
            self.live = self.live.saturating_add(held.bytes);
            if let Some(old) = slot.replace(held) {
                self.live = self.live.saturating_sub(old.bytes);
            }
        }
    }

    fn remove(&mut self, id: ValueId) -> Option<Held> {
        let held = self.values.get_mut(id as usize)?.take()?;
        self.live = self.live.saturating_sub(held.bytes);
        Some(held)
    }
}

/// Runs a whole graph on inputs in the graph's order.
pub fn run(
    graph: &PGraph,
    consts: &dyn ConstStore,
    inputs: &[Value],
    limits: &Limits,
) -> Result<Vec<Value>, ExecError> {
    Program::new(graph)?.run(consts, inputs.to_vec(), limits)
}

/// Runs node `index` of a region: operands are read from `frame`, which gets the results
/// and any symbols that it binds. Values are not freed.
pub fn run_node<G: Deref<Target = PGraph>>(
    program: &Program<G>,
    region: RegionId,
    index: usize,
    frame: &mut Frame,
    consts: &dyn ConstStore,
    limits: &Limits,
) -> Result<(), ExecError> {
    let graph = program.graph();
    let Some(node) = graph.regions.get(region as usize).and_then(|r| r.nodes.get(index)) else {
        return malformed("", format!("region {region} has no node {index}"));
    };
    let limits = &limits.given(0);
    let mut m = Machine::new(program, consts, limits, frame);
    m.node(node, &[])
}

/// Checks a value of the frame against its type; dims that are symbols not bound yet get bound.
pub fn admit_value<G: Deref<Target = PGraph>>(
    program: &Program<G>,
    id: ValueId,
    frame: &mut Frame,
    limits: &Limits,
) -> Result<(), ExecError> {
    let graph = program.graph();
    let (Some(value), Some(ty)) = (frame.get(id).cloned(), graph.values.get(id as usize)) else {
        return malformed("", format!("value {id} is not made yet"));
    };
    let done = Machine::new(program, &NoConsts, limits, frame).admit(&value, ty);
    done.map_err(|fault| ExecError { node: String::new(), op: String::new(), fault })
}

impl<G: Deref<Target = PGraph>> Program<G> {
    /// Runs the graph on inputs in its order; gives its outputs in order.
    pub fn run(
        &self,
        consts: &dyn ConstStore,
        inputs: Vec<Value>,
        limits: &Limits,
    ) -> Result<Vec<Value>, ExecError> {
        let graph = self.graph();
        let mut frame = Frame::new(graph);
        self.bind_inputs(&mut frame, &inputs)?;
        let bytes = inputs.iter().fold(graph.const_bytes(), |n, v| n.saturating_add(v.byte_len()));
        let limits = &limits.given(bytes);
        let mut m = Machine::new(self, consts, limits, &mut frame);
        let inputs = inputs.into_iter().map(Held::from).collect();
        let out = m.region(graph.root, inputs)?;
        Ok(out.into_iter().map(|h| h.value).collect())
    }

    /// Binds symbols from the shapes of the model's inputs and checks types, bounds and
    /// constraints. Nothing is put in the frame but bindings.
    pub fn bind_inputs(&self, frame: &mut Frame, inputs: &[Value]) -> Result<(), ExecError> {
        let graph = self.graph();
        let root = &graph.regions[graph.root as usize];
        if root.params.len() != inputs.len() {
            let what = format!("{} inputs for {} given", root.params.len(), inputs.len());
            return malformed("", what);
        }
        let limits = Limits::default();
        let mut m = Machine::new(self, &NoConsts, &limits, frame);
        // Twice: a dim may be an expression of a symbol that a later input binds.
        for (i, (&id, v)) in
            root.params.iter().zip(inputs).chain(root.params.iter().zip(inputs)).enumerate()
        {
            m.admit(v, &graph.values[id as usize]).map_err(|f| {
                let name = graph.inputs.get(i % inputs.len()).cloned().unwrap_or_default();
                let fault = ExecFault::Input { name, what: f.to_string() };
                ExecError { node: String::new(), op: String::new(), fault }
            })?;
        }
        Ok(())
    }
}

struct NoConsts;

impl ConstStore for NoConsts {
    fn load(&self, _: &PGraph, index: u32) -> Result<Tensor, ExecFault> {
        Err(ExecFault::Const { index, what: "there are no constants here".into() })
    }
}

/// A graph being run.
pub(crate) struct Machine<'a> {
    pub graph: &'a PGraph,
    regions: &'a [crate::program::RegionInfo],
    constraints: &'a [Vec<u32>],
    consts: &'a dyn ConstStore,
    pub limits: &'a Limits,
    pub frame: &'a mut Frame,
}

impl<'a> Machine<'a> {
    fn new<G: Deref<Target = PGraph>>(
        p: &'a Program<G>,
        consts: &'a dyn ConstStore,
        limits: &'a Limits,
        frame: &'a mut Frame,
    ) -> Machine<'a> {
        let (regions, constraints) = (&p.regions[..], &p.constraints[..]);
        Machine { graph: p.graph(), regions, constraints, consts, limits, frame }
    }

    /// Runs a region once; its params must have been checked against their types.
    pub(crate) fn region(
        &mut self,
        id: RegionId,
        params: Vec<Held>,
    ) -> Result<Vec<Held>, ExecError> {
        let region = &self.graph.regions[id as usize];
        let info = &self.regions[id as usize];
        if region.params.len() != params.len() {
            let what =
                format!("region {id} takes {} values, not {}", region.params.len(), params.len());
            return malformed("", what);
        }
        for (&v, held) in region.params.iter().zip(params) {
            self.frame.put(v, held);
        }
        info.unused.iter().for_each(|&v| drop(self.frame.remove(v)));
        for (node, drops) in region.nodes.iter().zip(&info.drops) {
            self.node(node, drops)?;
        }
        let result = |v: &ValueId| match self.frame.values.get(*v as usize) {
            Some(Some(h)) => Ok(h.clone()),
            _ => malformed("", format!("region {id} gives value {v} which is not made yet")),
        };
        let results = region.results.iter().map(result).collect::<Result<Vec<_>, _>>()?;
        for v in region.results.iter().filter(|v| info.local.contains(v)) {
            self.frame.remove(*v);
        }
        Ok(results)
    }

    /// Runs a node and then frees `drops`.
    fn node(&mut self, node: &PNode, drops: &[ValueId]) -> Result<(), ExecError> {
        let at = |fault| ExecError { node: node.name.clone(), op: op_name(&node.op), fault };
        self.step().map_err(at)?;
        let inputs = self.operands(node, drops).map_err(at)?;
        let outputs = match &node.op {
            POp::Const(i) => {
                let t = self.consts.load(self.graph, *i).map_err(at)?;
                vec![Held { value: t.into(), bytes: 0 }]
            }
            POp::Prim(prim) => self.primitive(prim, inputs).map_err(at)?,
            POp::Group(r) => {
                self.admit_params(*r, &inputs).map_err(at)?;
                self.region(*r, inputs)?
            }
            POp::Control(c) => self.control(c, node, inputs)?,
        };
        if outputs.len() != node.outputs.len() {
            let what = format!("{} results where {} are named", outputs.len(), node.outputs.len());
            return Err(at(ExecFault::Malformed(what)));
        }
        for (&id, held) in node.outputs.iter().zip(outputs) {
            let ty = &self.graph.values[id as usize];
            self.admit(&held.value, ty).map_err(at)?;
            self.frame.put(id, held);
        }
        drops.iter().for_each(|&v| drop(self.frame.remove(v)));
        self.check_live().map_err(at)
    }

    pub(crate) fn check_live(&self) -> Result<(), ExecFault> {
        let (need, limit) = (u128::from(self.frame.live), self.limits.live_bytes);
        if need > u128::from(limit) {
            let what = "the memory of all values in bytes";
            return Err(PrimError::Limit { what, need, limit }.into());
        }
        Ok(())
    }

    pub(crate) fn step(&mut self) -> Result<(), ExecFault> {
        self.frame.steps += 1;
        if self.frame.steps <= self.limits.steps {
            return Ok(());
        }
        let (what, limit) = ("the number of nodes run", self.limits.steps);
        Err(PrimError::Limit { what, need: u128::from(limit) + 1, limit }.into())
    }

    /// What is left of the run's limits for one primitive.
    fn rest(&self) -> Result<Limits, ExecFault> {
        let (work, limit) = (self.frame.work, self.limits.work);
        if work > limit {
            let what = "the amount of work of a run";
            return Err(PrimError::Limit { what, need: work.into(), limit }.into());
        }
        let room = self.limits.live_bytes.saturating_sub(self.frame.live);
        let tensor_bytes = self.limits.tensor_bytes.min(room);
        Ok(Limits { tensor_bytes, work: (limit - work).max(1), ..*self.limits })
    }

    /// A node's operands, moved out of the frame where this is their last use.
    fn operands(&mut self, node: &PNode, drops: &[ValueId]) -> Result<Vec<Held>, ExecFault> {
        let may_move = !has_regions(node);
        let one = |(i, id): (usize, &ValueId)| {
            let last = may_move && drops.contains(id) && !node.inputs[i + 1..].contains(id);
            let held =
                if last { self.frame.remove(*id) } else { self.frame.values[*id as usize].clone() };
            held.ok_or_else(|| ExecFault::Malformed(format!("value {id} is not made yet")))
        };
        node.inputs.iter().enumerate().map(one).collect()
    }

    fn primitive(
        &mut self,
        prim: &hub_abi::Prim,
        inputs: Vec<Held>,
    ) -> Result<Vec<Held>, ExecFault> {
        let tensor = |h: Held| match h.value {
            Value::Tensor(t) => Ok(t),
            v => Err(ExecFault::Kind { need: "tensor", got: v.kind() }),
        };
        let tensors = inputs.into_iter().map(tensor).collect::<Result<Vec<_>, _>>()?;
        let out = eval(prim, &self.frame.env, &tensors, &self.rest()?)?;
        let dims = |ts: &[Tensor]| -> u64 {
            let ins: Vec<&[usize]> = tensors.iter().map(Tensor::dims).collect();
            work(prim, &ins, &ts.iter().map(Tensor::dims).collect::<Vec<_>>())
        };
        self.frame.work = self.frame.work.saturating_add(dims(&out.outputs)).saturating_add(NODE);
        for (s, v) in out.bound {
            self.bind(s, v)?;
        }
        Ok(out.outputs.into_iter().map(Held::from).collect())
    }

    /// Binds a symbol, checking its bounds and the constraints that it takes part in.
    fn bind(&mut self, s: Sym, value: i64) -> Result<(), PrimError> {
        let info = self.graph.syms.get(s.0 as usize).ok_or(PrimError::NoSymbol(s))?;
        if value < info.min || value > info.max {
            return Err(PrimError::outside(info, value));
        }
        self.frame.env.set(s, value);
        for &c in self.constraints.get(s.0 as usize).into_iter().flatten() {
            let (a, b) = &self.graph.constraints[c as usize];
            match (a.eval(&self.frame.env), b.eval(&self.frame.env)) {
                (Ok(x), Ok(y)) if x == y => {}
                (Ok(x), Ok(y)) => {
                    let show = |d: &hub_abi::Dim| d.display(&self.graph.syms).to_string();
                    return Err(PrimError::Unequal { left: show(a), a: x, right: show(b), b: y });
                }
                (Err(DimError::Unbound(_)), _) | (_, Err(DimError::Unbound(_))) => {}
                (Err(e), _) | (_, Err(e)) => return Err(e.into()),
            }
        }
        Ok(())
    }

    /// Checks what a region is given against its params' types.
    pub(crate) fn admit_params(&mut self, id: RegionId, given: &[Held]) -> Result<(), ExecFault> {
        let params = &self.graph.regions[id as usize].params;
        let mut pairs = params.iter().zip(given);
        pairs.try_for_each(|(&v, h)| self.admit(&h.value, &self.graph.values[v as usize]))
    }

    /// Checks a value against a type; dims that are symbols not bound yet get bound.
    pub(crate) fn admit(&mut self, value: &Value, ty: &Type) -> Result<(), ExecFault> {
        let (t, want) = match (value, ty) {
            (Value::Tensor(t), Type::Tensor(want)) => (t, want),
            (Value::Seq(_), Type::Seq(_)) | (Value::Opt(None), Type::Opt(_)) => return Ok(()),
            (Value::Opt(Some(v)), Type::Opt(ty)) => return self.admit_kind(v, ty),
            (v, ty) => {
                let need = match ty {
                    Type::Tensor(_) => "tensor",
                    Type::Seq(_) => "sequence",
                    Type::Opt(_) => "optional",
                };
                return Err(ExecFault::Kind { need, got: v.kind() });
            }
        };
        let show = |m: &Machine| {
            let dims: Vec<String> =
                want.dims.iter().map(|d| d.display(&m.graph.syms).to_string()).collect();
            format!(
                "{} {:?} where {}[{}] is expected",
                t.dtype(),
                t.dims(),
                want.dtype,
                dims.join(", ")
            )
        };
        if t.dtype() != want.dtype || t.rank() != want.rank() {
            return Err(PrimError::Misfit(show(self)).into());
        }
        for (&size, d) in t.dims().iter().zip(&want.dims) {
            match (d.eval(&self.frame.env), d.as_sym()) {
                (Ok(k), _) if usize::try_from(k) == Ok(size) => {}
                (Ok(_), _) => return Err(PrimError::Misfit(show(self)).into()),
                (Err(_), Some(s)) => self.bind(s, size as i64)?,
                (Err(DimError::Unbound(_)), None) => {}
                (Err(e), None) => return Err(PrimError::from(e).into()),
            }
        }
        Ok(())
    }

    /// Checks a value inside another: its kind, dtype and rank (dims may differ).
    fn admit_kind(&self, value: &Value, ty: &Type) -> Result<(), ExecFault> {
        match (value, ty) {
            (Value::Tensor(t), Type::Tensor(w)) if t.dtype() == w.dtype && t.rank() == w.rank() => {
                Ok(())
            }
            (Value::Seq(_), Type::Seq(_)) | (Value::Opt(None), Type::Opt(_)) => Ok(()),
            (Value::Opt(Some(v)), Type::Opt(ty)) => self.admit_kind(v, ty),
            _ => Err(ExecFault::Kind { need: "value of another type", got: value.kind() }),
        }
    }
}

/// The name of what a node does, e.g. `Gather`, `Binary(Add)`, `Loop`.
pub(crate) fn op_name(op: &POp) -> String {
    let text = match op {
        POp::Const(_) => "Const".into(),
        POp::Group(_) => "Group".into(),
        POp::Prim(p) => format!("{p:?}"),
        POp::Control(c) => format!("{c:?}"),
    };
    text.split(" {").next().unwrap_or_default().to_string()
}
