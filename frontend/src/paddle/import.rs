//! Program to graph: walks the blocks in order, keeping each variable's current value, so that
//! ProgramDesc's mutable variables and PIR's in-place operators end up as single definitions.

use super::ctx::{Ctx, Operands, Res};
use super::ops::{self, Row};
use super::params::Tensor;
use super::program::{Attr, Dialect, OpDesc, Program, Var, VarType};
use super::uses::{aliases, check_known, live, used_vars};
use crate::options::DimNames;
use crate::sizes::Sizes;
use crate::{FrontendError, LoadOptions, UnsupportedOp};
use hub_ir::build::Built;
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
    "assert",
    "nop",
    "depend",
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
    sizes: Sizes,
    /// Bodies of loops built so far.
    pub builds: usize,
    /// Offsets of the sequences that values hold (LoD): int64 `[sequences + 1]`.
    pub lods: HashMap<Value, Value>,
    /// Offsets of the levels above those, outermost first.
    pub outer: HashMap<Value, Vec<Value>>,
    /// Complex tensors, held as pairs along a last axis.
    pub pairs: HashSet<Value>,
    /// Shapes that the program declares and that do not follow from its operands.
    odd: Vec<String>,
    /// What variables were before they were set within a region, to undo it.
    undo: Vec<(Var, Option<Vec<Value>>)>,
    options: &'o LoadOptions,
}

/// Operators whose results Paddle itself declares with types that it does not give.
const MISDECLARED: &[&str] = &["viterbi_decode"];

/// Most warnings of one kind.
const MOST_WARNINGS: usize = 8;

/// The graph of a program with its parameters' data, which come in the program's order; and what a
/// user should know about it.
pub fn import(
    program: &Program,
    data: Vec<Tensor>,
    options: &LoadOptions,
) -> Res<(Graph, Vec<String>)> {
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
        sizes: Sizes::new(options.limits.rank),
        builds: 0,
        lods: HashMap::new(),
        outer: HashMap::new(),
        pairs: HashSet::new(),
        odd: vec![],
        undo: vec![],
        options,
    };
    let mut inputs = walk.inputs()?;
    // ProgramDesc numbers its inputs; the operators come in reverse.
    inputs.sort_by_key(|i| i.0);
    let mut given = vec![];
    for (_, var, name) in inputs {
        let v = walk.input(&mut g, var, &name).map_err(|e| e.at(&name))?;
        walk.env[var] = Some(vec![v]);
        // Offsets of all levels, those of the rows last.
        let mut levels = vec![];
        for level in 0..program.lods.get(&var).copied().unwrap_or(0) {
            let name = format!("{name}.lod{level}");
            let count = walk.names.dim(&mut g, &name, 0, None);
            // Offsets begin with a zero even where there is no sequence.
            if let Some(s) = count.as_sym() {
                let bounds = &mut g.syms[s.0 as usize];
                bounds.min = bounds.min.max(1);
            }
            levels.push(g.add_input(&name, Type::tensor(Dtype::I64, vec![count])));
        }
        if let Some((&rows, outer)) = levels.split_last() {
            walk.lods.insert(v, rows);
            walk.outer.insert(v, outer.to_vec());
            given.push((v, levels, name));
        }
    }
    let mut b = Builder::new(&mut g, "");
    for (v, levels, name) in given {
        b.name = name;
        check_levels(&mut b, v, &levels).map_err(|e| FrontendError::from(e).at(&b.name))?;
    }
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
    Ok((g, walk.odd))
}

/// Offsets of each level fit what is below it: the next level's sequences, or the rows.
fn check_levels(b: &mut Builder<'_>, v: Value, levels: &[Value]) -> Built<()> {
    for (k, &offsets) in levels.iter().enumerate() {
        let below = match levels.get(k + 1) {
            Some(&next) => b.g.dims(next)[0].plus(-1),
            None => b.g.dims(v).first().cloned().unwrap_or(1i64.into()),
        };
        let name = format!("{}.lod{k}", b.name);
        ops::lod::check(b, offsets, &below, &name)?;
    }
    Ok(())
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
        let (lods, outer, pairs) = (&mut self.lods, &mut self.outer, &mut self.pairs);
        let array = |v: &Value| b.g.ty(*v).as_tensor().is_none();
        if let Some((slot, _)) = ins.iter().find(|(_, o)| o.values.iter().any(array)) {
            return Err(FrontendError::invalid(format!("operand {slot} is a tensor array")));
        }
        let mut all = ins.iter().flat_map(|(_, o)| &o.values);
        if all.any(|v| pairs.contains(v)) && !ops::COMPLEX.contains(&op.kind.as_str()) {
            return Err(FrontendError::unsupported("complex operands"));
        }
        let mut ctx = Ctx { b, op, dialect, ins, declared, outs: vec![], lods, outer, pairs };
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
                        *v = self.checked(b, op, *one, *v)?;
                    }
                    self.set(*one, values);
                }
                many => {
                    for (&var, &v) in many.iter().zip(values) {
                        let v = self.checked(b, op, var, v)?;
                        self.set(var, vec![v]);
                    }
                }
            }
        }
        Ok(())
    }

    /// A result within limits, and in PIR of the declared element type: there the program states what
    /// its promotion rules gave.
    fn checked(&mut self, b: &mut Builder<'_>, op: &OpDesc, var: Var, v: Value) -> Res<Value> {
        self.sizes.count(b.g, v)?;
        let Some(t) = b.g.ty(v).as_tensor() else { return Ok(v) };
        if let Some(d) = t.dims.iter().find(|d| d.as_const().is_some_and(|k| k < 0)) {
            return Err(FrontendError::invalid(format!("a dimension of the result is {d}")));
        }
        let (VarType::Tensor(dtype, dims), Dialect::Pir, false) =
            (&self.program.vars[var].ty, self.program.dialect, self.pairs.contains(&v))
        else {
            return Ok(v);
        };
        let differ = |(d, &n): (&Dim, &i64)| d.as_const().is_some_and(|k| n >= 0 && k != n);
        let odd = dims.len() == t.dims.len() && t.dims.iter().zip(dims).any(differ);
        if odd && self.odd.len() < MOST_WARNINGS {
            let have: Vec<String> = t.dims.iter().map(|d| d.to_string()).collect();
            let have = have.join(", ");
            let place = &op.place;
            self.odd.push(format!(
                "'{place}': the program declares a result of {dims:?}, its operands give [{have}]"
            ));
        }
        match *dtype != t.dtype && !MISDECLARED.contains(&op.kind.as_str()) {
            true => Ok(b.cast(v, *dtype)?),
            false => Ok(v),
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
