//! Control flow.
//!
//! Loops carry what their body changes; a carried dim that the body changes becomes a symbol, found
//! by building the body again until its types stay.

use super::arrays::join_elem;
use super::ctx::Res;
use super::import::Import;
use super::program::{Attr, Dialect, OpDesc, Var, VarType};
use super::uses::assigned;
use crate::FrontendError;
use crate::options::DIM_MAX;
use hub_ir::{Builder, Control, Dim, Dtype, Outside, Region, Sym, Type, Value};

/// How often a loop's body is built before its types must stay.
const ROUNDS: usize = 4;
/// How often bodies of loops are built in all.
const MOST_BUILDS: usize = 1 << 12;

impl Import<'_, '_> {
    /// Imports an operator that moves values between variables, or that holds blocks.
    pub fn control(&mut self, b: &mut Builder<'_>, op: &OpDesc) -> Res {
        match op.kind.as_str() {
            "feed" | "data" | "assert" => Ok(()),
            "fetch" | "builtin.shadow_output" => self.fetch(op),
            "while" => self.while_loop(b, op),
            "if" => self.pir_if(b, op),
            "conditional_block" | "conditional_block_infer" => self.conditional_block(b, op),
            "select_input" => self.select_input(b, op),
            "cf.yield" => {
                let vars: Vec<Var> = op.ins.iter().flat_map(|(_, v)| v).copied().collect();
                self.yielded = vars.into_iter().map(|v| self.one(v)).collect::<Res<_>>()?;
                Ok(())
            }
            "builtin.combine" => {
                let mut all = vec![];
                for &v in op.ins.iter().flat_map(|(_, v)| v) {
                    all.push(self.one(v)?);
                }
                self.set_outs(op, |_| Some(all.clone()));
                Ok(())
            }
            "builtin.split" | "builtin.slice" => {
                let list = op.ins.iter().flat_map(|(_, v)| v).next().copied();
                let list = list.and_then(|v| self.current(v).cloned()).unwrap_or_default();
                let first = match op.attrs.get("index") {
                    Some(Attr::Int(i)) => usize::try_from(*i).unwrap_or(usize::MAX),
                    _ => 0,
                };
                self.set_outs(op, |k| list.get(first.saturating_add(k)).map(|&v| vec![v]));
                Ok(())
            }
            "nop" | "depend" | "assign" | "share_data" | "share_data_" | "print" | "memcpy"
            | "memcpy_d2h" | "memcpy_h2d" | "assign_out_" => {
                let v = self.operand(op, 0, if op.kind == "print" { "In" } else { "X" })?;
                self.set_outs(op, |_| Some(vec![v]));
                Ok(())
            }
            _ => self.array(b, op),
        }
    }

    /// Gives results, in the order of all slots, their values.
    pub fn set_outs(&mut self, op: &OpDesc, of: impl Fn(usize) -> Option<Vec<Value>>) {
        for (k, &var) in op.outs.iter().flat_map(|(_, v)| v).enumerate() {
            if let Some(values) = of(k) {
                self.set(var, values);
            }
        }
    }

    fn while_loop(&mut self, b: &mut Builder<'_>, op: &OpDesc) -> Res {
        let &[block] = &op.blocks[..] else {
            return Err(FrontendError::invalid("a while operator holds one block"));
        };
        let legacy = self.program.dialect == Dialect::Legacy;
        let cond_var = if legacy {
            let slot = op.ins.iter().find(|(s, _)| s == "Condition");
            slot.and_then(|(_, v)| v.first()).copied()
        } else {
            op.ins.first().and_then(|(_, v)| v.first()).copied()
        };
        let cond_var = cond_var.ok_or_else(|| FrontendError::invalid("no condition"))?;
        // What the loop carries: PIR's own list, then what the body changes from outside.
        let program = self.program;
        let args: &[Var] = if legacy { &[] } else { &program.blocks[block].args };
        let given: Vec<Var> = match legacy {
            true => vec![],
            false => op.ins[1..].iter().flat_map(|(_, v)| v).copied().collect(),
        };
        if given.len() != args.len() {
            return Err(FrontendError::invalid("the loop's block takes another number of values"));
        }
        let mut changed = assigned(self, &[block]);
        for &v in &changed {
            let array = matches!(program.vars[self.root(v)].ty, VarType::Array(..));
            let declared_outside = !legacy || op.outs.iter().any(|(_, vs)| vs.contains(&v));
            if array && declared_outside && self.current(v).is_none() && !args.contains(&v) {
                self.empty_array(b, v)?;
            }
        }
        changed.retain(|&v| v != cond_var && !args.contains(&v) && self.current(v).is_some());
        let mut init: Vec<Value> = given.iter().map(|&v| self.one(v)).collect::<Res<_>>()?;
        for &v in &changed {
            init.push(self.one(v)?);
        }
        let carried: Vec<Var> = args.iter().chain(&changed).copied().collect();
        let first = self.one(cond_var)?;
        let first = flag(b, first)?;
        let mark = self.mark();
        let body = |walk: &mut Self,
                    inner: &mut Builder<'_>,
                    params: &[Value]|
         -> Res<Vec<Value>> {
            walk.back_to(mark);
            for (&var, &v) in carried.iter().zip(params) {
                walk.set(var, vec![v]);
            }
            walk.block(inner, block, None)?;
            inner.name.clone_from(&op.place);
            let mut results =
                if legacy { vec![walk.one(cond_var)?] } else { std::mem::take(&mut walk.yielded) };
            if results.len() != args.len() + 1 {
                let what = "the loop's block yields another number of values";
                return Err(FrontendError::invalid(what));
            }
            for &v in &changed {
                results.push(walk.one(v)?);
            }
            results[0] = flag(inner, results[0])?;
            Ok(results)
        };
        let outs = self.looped(b, first, &init, body)?;
        self.back_to(mark);
        let results = if legacy { vec![] } else { op.outs.iter().flat_map(|(_, v)| v).collect() };
        for (&&var, &v) in results.iter().zip(&outs) {
            self.set(var, vec![v]);
        }
        for (&var, &v) in changed.iter().zip(&outs[args.len()..]) {
            self.set(var, vec![v]);
        }
        if legacy {
            // The loop ends when its condition is false.
            let no = b.scalar(Dtype::Bool, 0.0);
            let no = b.reshape(no, vec![1i64.into()])?;
            self.set(cond_var, vec![no]);
        }
        Ok(())
    }

    /// A loop while a condition holds, whose body gives (condition, carried…).
    fn looped(
        &mut self,
        b: &mut Builder<'_>,
        first: Value,
        init: &[Value],
        body: impl Fn(&mut Self, &mut Builder<'_>, &[Value]) -> Res<Vec<Value>>,
    ) -> Res<Vec<Value>> {
        let (mut init, outer) = (init.to_vec(), b.g.syms.len());
        let mut types: Vec<Type> = init.iter().map(|&v| b.g.ty(v).clone()).collect();
        let mut made = vec![];
        for _ in 0..ROUNDS {
            self.builds += 1;
            if self.builds > MOST_BUILDS {
                return Err(FrontendError::bound("loops nest too often"));
            }
            let outside = Outside::now(b);
            let region = b.g.new_region();
            b.g.add_param(region, Type::tensor(Dtype::I64, vec![]));
            let params: Vec<Value> =
                types.iter().map(|t| b.g.add_param(region, t.clone())).collect();
            let mut inner = b.nested();
            self.depth += 1;
            let results = body(self, &mut inner, &params);
            self.depth -= 1;
            let mut results = results?;
            let mut stable = true;
            let mut stand_ins = vec![];
            for (i, (ty, v)) in types.iter_mut().zip(&mut results[1..]).enumerate() {
                *v = same_rank(&mut inner, *v, ty)?;
                if unlike(ty, inner.g.ty(*v)) && !is_read(inner.g, params[i]) {
                    stand_ins.push((i, *v));
                    continue;
                }
                let have = inner.g.ty(*v).clone();
                let joined = join(&mut inner, ty, &have, &mut made)?;
                stable &= joined == *ty;
                *ty = joined;
            }
            outside.close(&mut inner)?;
            inner.into_region(region);
            // What the body sets before it reads it may be anything before: exporters write a number.
            for &(i, like) in &stand_ins {
                init[i] = placeholder(b, like, outer)?;
                types[i] = b.g.ty(init[i]).clone();
            }
            if !stable || !stand_ins.is_empty() {
                continue;
            }
            b.g.regions[region].results = results;
            let outs = types.iter().map(|t| fresh_symbols(b, t, &made)).collect();
            let Region(body) = region;
            let carried = init.len() as u32;
            let control = Control::Loop { body, has_trip: false, has_cond: true, carried };
            let ins: Vec<Value> = [first].iter().chain(&init).copied().collect();
            return Ok(b.control(control, &ins, outs));
        }
        Err(FrontendError::unsupported("a loop whose values change type in every round"))
    }

    fn pir_if(&mut self, b: &mut Builder<'_>, op: &OpDesc) -> Res {
        let &[yes, no] = &op.blocks[..] else {
            return Err(FrontendError::invalid("an if operator holds two blocks"));
        };
        let cond = self.operand(op, 0, "Cond")?;
        let cond = flag(b, cond)?;
        let mut changed = assigned(self, &[yes, no]);
        changed.retain(|&v| self.current(v).is_some());
        let branch = |walk: &mut Self, b: &mut Builder<'_>, block: usize| {
            walk.branch(b, |walk, inner| {
                walk.yielded = vec![];
                walk.block(inner, block, None)?;
                let mut results = std::mem::take(&mut walk.yielded);
                for &v in &changed {
                    results.push(walk.one(v)?);
                }
                Ok(results)
            })
        };
        let yes = branch(self, b, yes)?;
        let no = branch(self, b, no)?;
        let outs = merge(b, cond, yes, no)?;
        let results: Vec<Var> = op.outs.iter().flat_map(|(_, v)| v).copied().collect();
        if outs.len() != results.len() + changed.len() {
            return Err(FrontendError::invalid("a branch yields another number of values"));
        }
        for (&var, &v) in results.iter().chain(&changed).zip(&outs) {
            self.set(var, vec![v]);
        }
        Ok(())
    }

    /// Builds a region; the walk's variables are as before afterwards.
    fn branch(
        &mut self,
        b: &mut Builder<'_>,
        body: impl FnOnce(&mut Self, &mut Builder<'_>) -> Res<Vec<Value>>,
    ) -> Res<Branch> {
        let mark = self.mark();
        let outside = Outside::now(b);
        let region = b.g.new_region();
        let mut inner = b.nested();
        let name = inner.name.clone();
        self.depth += 1;
        let results = body(self, &mut inner);
        self.depth -= 1;
        inner.name = name;
        let results = results?;
        outside.close(&mut inner)?;
        inner.into_region(region);
        self.back_to(mark);
        Ok(Branch { region, results })
    }

    /// Changes variables if its condition holds. One that had no value before has zeros otherwise:
    /// the program selects the other branch's value then.
    fn conditional_block(&mut self, b: &mut Builder<'_>, op: &OpDesc) -> Res {
        let &[block] = &op.blocks[..] else {
            return Err(FrontendError::invalid("a conditional block operator holds one block"));
        };
        let cond = self.operand(op, 0, "Cond")?;
        let cond = flag(b, cond)?;
        let mut changed = assigned(self, &[block]);
        let wanted: Vec<Var> =
            op.outs.iter().filter(|(s, _)| s == "Out").flat_map(|(_, v)| v).copied().collect();
        changed.retain(|&v| wanted.contains(&v) || self.current(v).is_some());
        // Symbols from here on are bound within the branch.
        let outer = b.g.syms.len();
        let yes = self.branch(b, |walk, inner| {
            walk.block(inner, block, None)?;
            changed.iter().map(|&v| walk.one(v)).collect()
        })?;
        let no = self.branch(b, |walk, inner| {
            let one = |(&var, &like): (&Var, &Value)| match walk.current(var) {
                Some(_) => walk.one(var),
                None => placeholder(inner, like, outer),
            };
            changed.iter().zip(&yes.results).map(one).collect()
        })?;
        let outs = merge(b, cond, yes, no)?;
        for (&var, &v) in changed.iter().zip(&outs) {
            self.set(var, vec![v]);
        }
        Ok(())
    }

    fn select_input(&mut self, b: &mut Builder<'_>, op: &OpDesc) -> Res {
        let mask = self.operand(op, 0, "Mask")?;
        let cond = flag(b, mask)?;
        let xs: Vec<Var> =
            op.ins.iter().filter(|(s, _)| s != "Mask").flat_map(|(_, v)| v).copied().collect();
        // PIR gives (mask, in0, in1), the mask without a name of its own.
        let xs = if self.program.dialect == Dialect::Pir { &xs[1..] } else { &xs[..] };
        let &[no, yes] = xs else {
            return Err(FrontendError::unsupported("a selection among other than two values"));
        };
        let yes = self.branch(b, |walk, _| Ok(vec![walk.one(yes)?]))?;
        let no = self.branch(b, |walk, _| Ok(vec![walk.one(no)?]))?;
        let outs = merge(b, cond, yes, no)?;
        self.set_outs(op, |k| outs.get(k).map(|&v| vec![v]));
        Ok(())
    }
}

/// A built region with its results, which it does not list yet.
struct Branch {
    region: Region,
    results: Vec<Value>,
}

fn merge(b: &mut Builder<'_>, cond: Value, yes: Branch, mut no: Branch) -> Res<Vec<Value>> {
    if yes.results.len() != no.results.len() {
        return Err(FrontendError::invalid("two branches give different numbers of values"));
    }
    let mut outs = vec![];
    for (&y, n) in yes.results.iter().zip(&mut no.results) {
        let ty = b.g.ty(y).clone();
        let mut inner = b.nested();
        *n = same_rank(&mut inner, *n, &ty)?;
        inner.into_region(no.region);
        let other = b.g.ty(*n).clone();
        outs.push(join(b, &ty, &other, &mut vec![])?);
    }
    let (Region(then), Region(orelse)) = (yes.region, no.region);
    b.g.regions[yes.region].results = yes.results;
    b.g.regions[no.region].results = no.results;
    Ok(b.control(Control::If { then, orelse }, &[cond], outs))
}

/// Types that no dims can join.
fn unlike(a: &Type, b: &Type) -> bool {
    match (a.as_tensor(), b.as_tensor()) {
        (Some(a), Some(b)) => a.dtype != b.dtype || a.dims.len() != b.dims.len(),
        _ => false,
    }
}

/// Does any node read the value?
fn is_read(g: &hub_ir::Graph, v: Value) -> bool {
    g.nodes.iter().any(|(_, n)| n.inputs.contains(&v))
}

/// A condition as a bool scalar.
fn flag(b: &mut Builder<'_>, v: Value) -> Res<Value> {
    let v = b.cast(v, Dtype::Bool)?;
    Ok(b.reshape(v, vec![])?)
}

/// Zeros like a value of another region: its dims where the first `outer` symbols give them, else 1.
fn placeholder(b: &mut Builder<'_>, like: Value, outer: usize) -> Res<Value> {
    match b.g.ty(like).clone() {
        Type::Tensor(t) => {
            let zero = b.scalar(t.dtype, 0.0);
            let one = |d: &Dim| {
                let mut known = true;
                d.each_sym(&mut |s| known &= (s.0 as usize) < outer);
                if known { d.clone() } else { 1i64.into() }
            };
            Ok(b.broadcast(zero, t.dims.iter().map(one).collect())?)
        }
        Type::Seq(elem) => {
            let ty = Type::Seq(elem.clone());
            Ok(b.control(Control::SeqNew { elem: *elem }, &[], vec![ty])[0])
        }
        Type::Opt(_) => Err(FrontendError::unsupported("an optional")),
    }
}

/// Paddle writes scalars as `[]` and as `[1]` alike.
fn same_rank(b: &mut Builder<'_>, v: Value, like: &Type) -> Res<Value> {
    let (Type::Tensor(have), Type::Tensor(want)) = (b.g.ty(v).clone(), like) else {
        return Ok(v);
    };
    if have.dims.len() != want.dims.len() && have.count().is(1) && want.count().is(1) {
        return Ok(b.reshape(v, want.dims.clone())?);
    }
    Ok(v)
}

/// One type for two values: dims that differ become a symbol, which `made` lists. A dim of `a` that
/// is such a symbol already stays.
fn join(b: &mut Builder<'_>, a: &Type, c: &Type, made: &mut Vec<Sym>) -> Res<Type> {
    match (a, c) {
        (Type::Tensor(x), Type::Tensor(y)) => {
            if x.dtype != y.dtype || x.dims.len() != y.dims.len() {
                return Err(FrontendError::invalid(format!(
                    "a value is {} of rank {} on one way and {} of rank {} on another",
                    x.dtype,
                    x.dims.len(),
                    y.dtype,
                    y.dims.len()
                )));
            }
            let mut dim = |(p, q): (&Dim, &Dim)| {
                if p == q || p.as_sym().is_some_and(|s| made.contains(&s)) {
                    return p.clone();
                }
                made.push(b.g.new_sym("carried", 0, DIM_MAX));
                Dim::from(made[made.len() - 1])
            };
            Ok(Type::tensor(x.dtype, x.dims.iter().zip(&y.dims).map(&mut dim).collect()))
        }
        (Type::Seq(x), Type::Seq(y)) => join_elem(x, y),
        _ => Err(FrontendError::invalid("a value is a tensor on one way and an array on another")),
    }
}

/// The type with symbols of its own for dims that a loop's body changes.
fn fresh_symbols(b: &mut Builder<'_>, t: &Type, made: &[Sym]) -> Type {
    let Type::Tensor(t) = t else { return t.clone() };
    let mut dim = |d: &Dim| match d.as_sym() {
        Some(s) if made.contains(&s) => Dim::from(b.g.new_sym("carried", 0, DIM_MAX)),
        _ => d.clone(),
    };
    Type::tensor(t.dtype, t.dims.iter().map(&mut dim).collect())
}
