//! Program to graph: walks the blocks in order, keeping each variable's current value, so that
//! ProgramDesc's mutable variables and PIR's in-place operators end up as single definitions.

use super::ctx::{Ctx, Operands, Res};
use super::ops::{self, Row};
use super::params::Tensor;
use super::program::{Attr, Dialect, OpDesc, Program, Var, VarType};
use crate::options::DimNames;
use crate::{FrontendError, LoadOptions, UnsupportedOp};
use hub_ir::graph::ConstData;
use hub_ir::{Builder, Dim, Dtype, Graph, TensorType, Type, Value};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Operators that the walk itself handles.
pub const CONTROL: &[&str] = &[
    "feed",
    "data",
    "fetch",
    "while",
    "if",
    "conditional_block",
    "conditional_block_infer",
    "select_input",
    "cf.yield",
    "builtin.combine",
    "builtin.split",
    "builtin.slice",
    "builtin.shadow_output",
    "create_array",
    "array_length",
    "array_read",
    "array_write_",
    "array_to_tensor",
    "write_to_array",
    "read_from_array",
    "lod_array_length",
    "tensor_array_to_tensor",
    "assign",
    "assign_out_",
    "share_data",
    "share_data_",
    "print",
    "memcpy",
    "memcpy_d2h",
    "memcpy_h2d",
];

/// The state of the walk.
pub struct Import<'p, 'o> {
    pub program: &'p Program,
    /// Current values of variables; a PIR list has several.
    pub env: Vec<Option<Vec<Value>>>,
    /// What PIR's in-place results stand for.
    pub alias: HashMap<Var, Var>,
    names: DimNames<'o>,
    outputs: BTreeMap<i64, Vec<(String, Value)>>,
    /// Operands of the last `cf.yield`.
    pub yielded: Vec<Value>,
    pub depth: usize,
    /// Bodies of loops built so far.
    pub builds: usize,
    /// Offsets of the sequences that values hold (LoD): int64 `[sequences + 1]`.
    pub lods: HashMap<Value, Value>,
    /// Complex tensors, held as pairs along a last axis.
    pub pairs: HashSet<Value>,
    /// What variables were before they were set within a region, to undo it.
    undo: Vec<(Var, Option<Vec<Value>>)>,
    options: &'o LoadOptions,
}

/// The graph of a program with its parameters' data, which come in the program's order.
pub fn import(program: &Program, data: Vec<Tensor>, options: &LoadOptions) -> Res<Graph> {
    let keep = live(program);
    check_known(program, &keep)?;
    let mut g = Graph::new();
    let root = g.root();
    let mut walk = Import {
        program,
        env: vec![None; program.vars.len()],
        alias: aliases(program),
        names: DimNames::new(options),
        outputs: BTreeMap::new(),
        yielded: vec![],
        depth: 0,
        builds: 0,
        lods: HashMap::new(),
        pairs: HashSet::new(),
        undo: vec![],
        options,
    };
    let mut inputs = walk.inputs()?;
    // ProgramDesc numbers its inputs; the operators come in reverse.
    inputs.sort_by_key(|i| i.0);
    for (_, var, name) in inputs {
        let v = walk.input(&mut g, var, &name).map_err(|e| e.at(&name))?;
        walk.env[var] = Some(vec![v]);
        if program.lods.contains(&var) {
            let name = format!("{name}.lod0");
            let count = walk.names.dim(&mut g, &name, 0, None);
            let offsets = g.add_input(&name, Type::tensor(Dtype::I64, vec![count]));
            walk.lods.insert(v, offsets);
        }
    }
    let mut b = Builder::new(&mut g, "");
    let used = used_vars(program);
    for (p, t) in program.params.iter().zip(data) {
        if used.contains(&p.var) {
            b.name = p.name.clone();
            let dims = t.dims.iter().map(|&d| Dim::from(d)).collect();
            let ty = TensorType { dtype: t.dtype, dims };
            let v = b.const_data(ConstData { ty, data: t.data, strings: vec![] });
            walk.env[p.var] = Some(vec![v]);
        }
    }
    walk.block(&mut b, 0, Some(&keep))?;
    b.into_region(root);
    if walk.outputs.is_empty() {
        return Err(FrontendError::invalid("the program fetches nothing"));
    }
    for (name, v) in std::mem::take(&mut walk.outputs).into_values().flatten() {
        g.add_output(&name, v);
    }
    walk.names.finish()?;
    Ok(g)
}

impl Import<'_, '_> {
    /// Runs the operators of a block; `keep` says which.
    pub fn block(&mut self, b: &mut Builder<'_>, block: usize, keep: Option<&[bool]>) -> Res {
        if self.depth > self.options.limits.nesting {
            return Err(FrontendError::limit(format!("blocks nest over {} deep", self.depth)));
        }
        let program = self.program;
        for (k, op) in program.blocks[block].ops.iter().enumerate() {
            if keep.is_some_and(|keep| !keep[k]) {
                continue;
            }
            b.name.clone_from(&op.place);
            self.op(b, op).map_err(|e| e.at(&op.place))?;
            if b.g.nodes.len() > self.options.limits.nodes.saturating_mul(2) {
                return Err(FrontendError::limit("the graph has too many nodes"));
            }
        }
        Ok(())
    }

    fn op(&mut self, b: &mut Builder<'_>, op: &OpDesc) -> Res {
        if CONTROL.contains(&op.kind.as_str()) {
            return self.control(b, op);
        }
        let dialect = self.program.dialect;
        let row = ops::find(dialect, &op.kind).ok_or_else(|| {
            FrontendError::operators(vec![UnsupportedOp {
                op: op.kind.clone(),
                count: 1,
                examples: vec![op.place.clone()],
            }])
        })?;
        let (ins, declared) = (self.operands(op, &row), self.declared(op, &row));
        let (lods, pairs) = (&mut self.lods, &mut self.pairs);
        let mut all = ins.iter().flat_map(|(_, o)| &o.values);
        if all.any(|v| pairs.contains(v)) && !ops::COMPLEX.contains(&op.kind.as_str()) {
            return Err(FrontendError::unsupported("complex operands"));
        }
        let mut ctx = Ctx { b, op, dialect, ins, declared, outs: vec![], lods, pairs };
        (row.import)(&mut ctx)?;
        ctx.all_read()?;
        super::ops::lod::inherit(&mut ctx);
        let outs = ctx.outs;
        self.bind(b, op, &row, outs)
    }

    fn operands<'a>(&self, op: &'a OpDesc, row: &Row) -> Vec<(&'a str, Operands)>
    where
        Self: 'a,
    {
        let mut names = row.ins.split_whitespace();
        let mut slots = vec![];
        for (slot, vars) in &op.ins {
            let slot = match slot.as_str() {
                "" => names.next().unwrap_or(""),
                s => s,
            };
            let mut o = Operands::default();
            for &v in vars {
                match self.current(v) {
                    Some(vs) => o.values.extend(vs),
                    None => o.missing = Some(self.program.vars[v].name.clone()),
                }
            }
            slots.push((slot, o));
        }
        slots
    }

    fn declared<'a>(&self, op: &'a OpDesc, row: &Row) -> Vec<(&'a str, Vec<VarType>)> {
        let mut names = row.outs.split_whitespace();
        let mut slots = vec![];
        for (slot, vars) in &op.outs {
            let slot = match slot.as_str() {
                "" => names.next().unwrap_or(""),
                s => s,
            };
            slots.push((slot, vars.iter().map(|&v| self.program.vars[v].ty.clone()).collect()));
        }
        slots
    }

    fn bind(
        &mut self,
        b: &mut Builder<'_>,
        op: &OpDesc,
        row: &Row,
        outs: Vec<(&'static str, Vec<Value>)>,
    ) -> Res {
        let mut names = row.outs.split_whitespace();
        for (slot, vars) in &op.outs {
            let slot = match slot.as_str() {
                "" => names.next().unwrap_or(""),
                s => s,
            };
            let Some((_, values)) = outs.iter().find(|(s, _)| s.split('|').any(|s| s == slot))
            else {
                continue;
            };
            match &vars[..] {
                [one] => {
                    let mut values = values.clone();
                    for v in &mut values {
                        *v = self.checked(b, *one, *v)?;
                    }
                    self.set(*one, values);
                }
                many => {
                    for (&var, &v) in many.iter().zip(values) {
                        let v = self.checked(b, var, v)?;
                        self.set(var, vec![v]);
                    }
                }
            }
        }
        Ok(())
    }

    /// A result within limits, and in PIR of the declared element type: there the program states what
    /// its promotion rules gave.
    fn checked(&self, b: &mut Builder<'_>, var: Var, v: Value) -> Res<Value> {
        let Some(t) = b.g.ty(v).as_tensor() else { return Ok(v) };
        if t.dims.len() > self.options.limits.rank {
            return Err(FrontendError::limit(format!("a result of rank {}", t.dims.len())));
        }
        if let Some(d) = t.dims.iter().find(|d| d.as_const().is_some_and(|k| k < 0)) {
            return Err(FrontendError::invalid(format!("a dimension of the result is {d}")));
        }
        match (&self.program.vars[var].ty, self.program.dialect) {
            (VarType::Tensor(d, _), Dialect::Pir) if *d != t.dtype && !self.pairs.contains(&v) => {
                Ok(b.cast(v, *d)?)
            }
            _ => Ok(v),
        }
    }

    /// What a variable stands for.
    pub fn root(&self, mut v: Var) -> Var {
        while let Some(&w) = self.alias.get(&v) {
            v = w;
        }
        v
    }

    /// The current values of a variable.
    pub fn current(&self, v: Var) -> Option<&Vec<Value>> {
        self.env[self.root(v)].as_ref()
    }

    /// Gives a variable new values.
    pub fn set(&mut self, v: Var, values: Vec<Value>) {
        let v = self.root(v);
        let before = self.env[v].replace(values);
        if self.depth > 0 {
            self.undo.push((v, before));
        }
    }

    /// Where to come back to with [`Import::back_to`].
    pub fn mark(&self) -> usize {
        self.undo.len()
    }

    /// Gives variables the values back that they had at a mark.
    pub fn back_to(&mut self, mark: usize) {
        while self.undo.len() > mark
            && let Some((var, before)) = self.undo.pop()
        {
            self.env[var] = before;
        }
    }

    /// The one value of a variable.
    pub fn one(&self, v: Var) -> Res<Value> {
        match self.current(v).map(Vec::as_slice) {
            Some([v]) => Ok(*v),
            Some(_) => Err(FrontendError::invalid("a list stands where one value is needed")),
            None => {
                let name = &self.program.vars[v].name;
                let what = format!("uses {name}, which nothing before it computes");
                Err(FrontendError::invalid(what))
            }
        }
    }

    /// The one value of an operand.
    pub fn operand(&self, op: &OpDesc, at: usize, slot: &str) -> Res<Value> {
        let by_name = op.ins.iter().find(|(s, _)| s == slot);
        let by_place = op.ins.get(at).filter(|(s, _)| s.is_empty());
        match by_name.or(by_place).and_then(|(_, v)| v.first()) {
            Some(&v) => self.one(v),
            None => Err(FrontendError::invalid(format!("operand {slot} is missing"))),
        }
    }

    fn inputs(&self) -> Res<Vec<(i64, Var, String)>> {
        let mut found = vec![];
        for op in &self.program.blocks[0].ops {
            let col = int_attr(op, "col");
            let out = op.outs.iter().flat_map(|(_, v)| v).next().copied();
            let found_here = match (op.kind.as_str(), out) {
                ("feed" | "data", Some(var)) => {
                    let name = match op.attrs.get("name") {
                        Some(Attr::Str(s)) => s.clone(),
                        _ => self.program.vars[var].name.clone(),
                    };
                    Some((col.unwrap_or(found.len() as i64), var, name))
                }
                _ => None,
            };
            found.extend(found_here);
        }
        let mut names = HashSet::new();
        match found.iter().find(|f| !names.insert(&f.2)) {
            Some(twice) => Err(FrontendError::invalid("two inputs have this name").at(&twice.2)),
            None => Ok(found),
        }
    }

    fn input(&mut self, g: &mut Graph, var: Var, name: &str) -> Res<Value> {
        let VarType::Tensor(dtype, dims) = &self.program.vars[var].ty else {
            return Err(FrontendError::unsupported("an input that is no dense tensor"));
        };
        if dims.len() > self.options.limits.rank {
            return Err(FrontendError::limit(format!("rank {}", dims.len())));
        }
        let dim = |(i, &d): (usize, &i64)| match d {
            0.. => Ok(Dim::from(d)),
            -1 => Ok(self.names.dim(g, name, i, None)),
            _ => Err(FrontendError::invalid(format!("a dimension is {d}"))),
        };
        let dims = dims.iter().enumerate().map(dim).collect::<Res<Vec<_>>>()?;
        Ok(g.add_input(name, Type::tensor(*dtype, dims)))
    }

    /// Makes the operand of a `fetch` an output.
    pub fn fetch(&mut self, op: &OpDesc) -> Res {
        let v = self.operand(op, 0, "X")?;
        let name = match (op.attrs.get("name"), self.program.dialect) {
            (Some(Attr::Str(s)), Dialect::Pir) => s.clone(),
            _ => match op.ins.iter().flat_map(|(_, v)| v).next() {
                Some(&var) => self.program.vars[var].name.clone(),
                None => String::new(),
            },
        };
        let col = int_attr(op, "col").unwrap_or(self.outputs.len() as i64);
        self.outputs.entry(col).or_default().push((name, v));
        Ok(())
    }
}

/// An integer attribute.
pub fn int_attr(op: &OpDesc, name: &str) -> Option<i64> {
    match op.attrs.get(name) {
        Some(Attr::Int(i)) => Some(*i),
        Some(Attr::Bool(b)) => Some((*b).into()),
        _ => None,
    }
}

/// PIR's operators whose first result is an operand, changed: which operand.
fn in_place(op: &OpDesc) -> Option<usize> {
    match op.kind.as_str() {
        "assign_out_" => Some(1),
        "batch_norm_" | "sync_batch_norm_" => None,
        k if k.ends_with('_') => Some(0),
        _ => None,
    }
}

fn aliases(program: &Program) -> HashMap<Var, Var> {
    let mut alias = HashMap::new();
    if program.dialect == Dialect::Legacy {
        return alias;
    }
    for op in program.blocks.iter().flat_map(|b| &b.ops) {
        let target = in_place(op).and_then(|i| op.ins.get(i)).and_then(|(_, v)| v.first());
        let out = op.outs.first().and_then(|(_, v)| v.first());
        if let (Some(&target), Some(&out)) = (target, out)
            && target != out
        {
            alias.insert(out, target);
        }
    }
    alias
}

/// Variables that blocks, or blocks within them, give new values.
pub fn assigned(walk: &Import<'_, '_>, blocks: &[usize]) -> Vec<Var> {
    let mut found = Assigned::default();
    for &b in blocks {
        collect(walk, b, &mut found);
    }
    found.order
}

#[derive(Default)]
struct Assigned {
    order: Vec<Var>,
    seen: HashSet<Var>,
}

fn collect(walk: &Import<'_, '_>, block: usize, found: &mut Assigned) {
    for op in &walk.program.blocks[block].ops {
        let outs: Vec<Var> = match walk.program.dialect {
            Dialect::Legacy => op.outs.iter().flat_map(|(_, v)| v).copied().collect(),
            Dialect::Pir => {
                let target = in_place(op).and_then(|i| op.ins.get(i)).map(|(_, v)| v.clone());
                target.unwrap_or_default().into_iter().map(|v| walk.root(v)).collect()
            }
        };
        for v in outs {
            if found.seen.insert(v) {
                found.order.push(v);
            }
        }
        for &b in &op.blocks {
            collect(walk, b, found);
        }
    }
}

fn used_vars(program: &Program) -> HashSet<Var> {
    let ops = program.blocks.iter().flat_map(|b| &b.ops);
    ops.flat_map(|o| &o.ins).flat_map(|(_, v)| v).copied().collect()
}

/// Which operators of the first block an output depends on. Variables are taken as a whole, so this
/// keeps more than it must where they are reused.
fn live(program: &Program) -> Vec<bool> {
    let ops = &program.blocks[0].ops;
    let mut needed: HashSet<Var> = HashSet::new();
    let mut keep = vec![false; ops.len()];
    for (k, op) in ops.iter().enumerate().rev() {
        let always = !op.blocks.is_empty()
            || ["fetch", "feed", "data", "builtin.shadow_output"].contains(&op.kind.as_str())
            || (program.dialect == Dialect::Pir && in_place(op).is_some());
        keep[k] = always || op.outs.iter().flat_map(|(_, v)| v).any(|v| needed.contains(v));
        if keep[k] {
            uses(program, op, &mut needed);
        }
    }
    keep
}

fn uses(program: &Program, op: &OpDesc, needed: &mut HashSet<Var>) {
    needed.extend(op.ins.iter().flat_map(|(_, v)| v));
    for &b in &op.blocks {
        for op in &program.blocks[b].ops {
            uses(program, op, needed);
        }
    }
}

/// All operators of the model that have no import, at once.
fn check_known(program: &Program, keep: &[bool]) -> Res {
    let mut unknown: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut todo = vec![0];
    while let Some(block) = todo.pop() {
        for (k, op) in program.blocks[block].ops.iter().enumerate() {
            if block == 0 && !keep[k] {
                continue;
            }
            let kind = op.kind.as_str();
            if !CONTROL.contains(&kind) && ops::find(program.dialect, kind).is_none() {
                unknown.entry(kind).or_default().push(&op.place);
            }
            todo.extend(&op.blocks);
        }
    }
    if unknown.is_empty() {
        return Ok(());
    }
    let prefix = if program.dialect == Dialect::Pir { "pd_op." } else { "" };
    let report = |(op, places): (&str, Vec<&str>)| UnsupportedOp {
        op: if op.contains('.') { op.to_string() } else { format!("{prefix}{op}") },
        count: places.len(),
        examples: places.iter().take(3).map(|p| p.to_string()).collect(),
    };
    Err(FrontendError::operators(unknown.into_iter().map(report).collect()))
}
