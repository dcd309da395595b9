//! ProgramDesc to [`Program`]: variables are resolved through enclosing blocks, attributes lose
//! their protobuf kinds, attributes given as variables become slots.

use super::program::{
    Attr, Block, Dialect, OpDesc, Param, Program, Var, VarInfo, VarType, dtype_of_number,
};
use super::proto;
use crate::{FrontendError, Limits};
use bytes::Bytes;
use prost::Message;
use std::collections::{BTreeMap, HashMap};

/// `VarType.Type` of what is not in a parameter file though it is persistable.
const FEED_MINIBATCH: i32 = 9;
const FETCH_LIST: i32 = 10;
const RAW: i32 = 17;
const DENSE_TENSOR: i32 = 7;
const TENSOR_ARRAY: i32 = 13;

/// Most levels of sequences of sequences (LoD).
const MOST_LEVELS: i32 = 4;

/// Attributes that say where an operator came from, not what it does.
const NOISE: [&str; 5] = ["op_callstack", "op_namescope", "op_role", "op_role_var", "op_device"];

/// Reads the bytes of a `.pdmodel` or `__model__` file. Also gives Paddle's version, if it says.
pub fn parse(bytes: Bytes, limits: &Limits) -> Result<(Program, String), FrontendError> {
    crate::wire::check(&bytes, &super::schema::PROGRAM, limits)?;
    let desc = proto::ProgramDesc::decode(bytes)
        .map_err(|e| FrontendError::invalid(format!("not a ProgramDesc: {e}")))?;
    if desc.blocks.is_empty() {
        return Err(FrontendError::invalid("the program has no block"));
    }
    let ops: usize = desc.blocks.iter().map(|b| b.ops.len()).sum();
    if ops > limits.nodes {
        return Err(FrontendError::limit(format!("{ops} operators are over {}", limits.nodes)));
    }
    let version = match desc.version.and_then(|v| v.version) {
        Some(v) if v > 0 => {
            format!("paddle {}.{}.{}", v / 1_000_000, v / 1000 % 1000, v % 1000)
        }
        _ => "paddle".to_string(),
    };
    let mut reader = Reader {
        vars: vec![],
        lods: BTreeMap::new(),
        scopes: vec![],
        parents: vec![],
        depths: vec![],
    };
    let mut params = vec![];
    for (i, b) in desc.blocks.iter().enumerate() {
        reader.declare(i, b, &mut params)?;
        if reader.depths[i] > limits.nesting {
            return Err(FrontendError::limit(format!("blocks nest over {} deep", limits.nesting)));
        }
    }
    params.sort_by(|a: &Param, b: &Param| a.name.as_bytes().cmp(b.name.as_bytes()));
    if let Some(w) = params.windows(2).find(|w| w[0].name == w[1].name) {
        return Err(FrontendError::invalid("declared twice").at(&w[0].name));
    }
    let mut blocks: Vec<Block> = vec![];
    // A sub-block follows the block that uses it, and has one user: blocks form a tree.
    let mut depth: Vec<Option<usize>> = vec![None; desc.blocks.len()];
    depth[0] = Some(0);
    for (i, b) in desc.blocks.iter().enumerate() {
        let ops = b.ops.iter().enumerate().map(|(k, o)| reader.op(i, k, o, desc.blocks.len()));
        let ops = ops.collect::<Result<Vec<_>, _>>()?;
        for (op, &sub) in ops.iter().flat_map(|o| o.blocks.iter().map(move |s| (o, s))) {
            let below = depth[i].unwrap_or(0) + 1;
            if depth[sub].replace(below).is_some() {
                return Err(
                    FrontendError::invalid("uses a block of another operator").at(&op.place)
                );
            }
            if below > limits.nesting {
                return Err(FrontendError::limit(format!("blocks nest over {} deep", below - 1)));
            }
        }
        blocks.push(Block { args: vec![], ops });
    }
    let (vars, lods) = (reader.vars, reader.lods);
    let program = Program { dialect: Dialect::Legacy, vars, blocks, params, lods };
    Ok((program, version))
}

struct Reader {
    vars: Vec<VarInfo>,
    lods: BTreeMap<Var, usize>,
    scopes: Vec<HashMap<String, Var>>,
    parents: Vec<Option<usize>>,
    depths: Vec<usize>,
}

impl Reader {
    fn declare(
        &mut self,
        i: usize,
        b: &proto::BlockDesc,
        params: &mut Vec<Param>,
    ) -> Result<(), FrontendError> {
        // A parent comes first, so that walking up ends.
        let parent = usize::try_from(b.parent_idx).ok();
        if parent.is_some_and(|p| p >= i) {
            return Err(FrontendError::invalid(format!(
                "block {i} says that its parent is block {}",
                b.parent_idx
            )));
        }
        self.parents.push(parent);
        self.depths.push(parent.map_or(0, |p| self.depths[p] + 1));
        let mut scope = HashMap::new();
        for v in &b.vars {
            let ty = var_type(v.r#type.as_ref()).map_err(|e| e.at(&v.name))?;
            let kind = v.r#type.as_ref().map_or(RAW, |t| t.r#type);
            let var = self.vars.len();
            let in_file = v.persistable == Some(true)
                && i == 0
                && ![FEED_MINIBATCH, FETCH_LIST, RAW].contains(&kind);
            if in_file {
                let VarType::Tensor(dtype, dims) = ty.clone() else {
                    return Err(FrontendError::unsupported(format!(
                        "a persistable variable of type {kind}, which is no dense tensor"
                    ))
                    .at(&v.name));
                };
                params.push(Param { var, name: v.name.clone(), ty: (dtype, dims) });
            }
            let tensor = v.r#type.as_ref().and_then(|t| t.dense_tensor.as_ref());
            if let Some(levels @ 1..) = tensor.and_then(|t| t.lod_level) {
                if levels > MOST_LEVELS {
                    let what = format!("{levels} levels of sequences are over {MOST_LEVELS}");
                    return Err(FrontendError::limit(what).at(&v.name));
                }
                self.lods.insert(var, levels as usize);
            }
            self.vars.push(VarInfo { name: v.name.clone(), ty });
            scope.insert(v.name.clone(), var);
        }
        self.scopes.push(scope);
        Ok(())
    }

    /// The variable that `name` means in a block; one that no block declares is made there.
    fn resolve(&mut self, block: usize, name: &str) -> Var {
        let mut at = Some(block);
        while let Some(b) = at {
            if let Some(&v) = self.scopes[b].get(name) {
                return v;
            }
            at = self.parents[b];
        }
        let v = self.vars.len();
        self.vars.push(VarInfo { name: name.to_string(), ty: VarType::Other });
        self.scopes[block].insert(name.to_string(), v);
        v
    }

    fn op(
        &mut self,
        block: usize,
        k: usize,
        o: &proto::OpDesc,
        blocks: usize,
    ) -> Result<OpDesc, FrontendError> {
        let slots = |me: &mut Self, list: &[proto::Slot]| -> Vec<(String, Vec<Var>)> {
            let vars = |me: &mut Self, s: &proto::Slot| {
                s.arguments
                    .iter()
                    .filter(|a| !a.is_empty() && *a != "@EMPTY@")
                    .map(|a| me.resolve(block, a))
                    .collect()
            };
            list.iter().map(|s| (s.parameter.clone(), vars(me, s))).collect()
        };
        let (mut ins, outs) = (slots(self, &o.inputs), slots(self, &o.outputs));
        let first = outs.iter().flat_map(|(_, v)| v).next().map(|&v| self.vars[v].name.as_str());
        let place = match first {
            Some(out) => format!("{} -> {out}", o.r#type),
            None => format!("{} (block {block}, operator {k})", o.r#type),
        };
        let mut attrs = BTreeMap::new();
        let mut subs = vec![];
        for a in o.attrs.iter().filter(|a| !NOISE.contains(&a.name.as_str())) {
            match a.r#type {
                // VAR, VARS: the value comes as a tensor.
                13 | 14 => {
                    let names = a.var_name.iter().chain(&a.vars_name);
                    let vars = names.map(|n| self.resolve(block, n)).collect();
                    ins.push((a.name.clone(), vars));
                }
                // BLOCK, BLOCKS.
                8 | 10 => {
                    for &b in a.block_idx.iter().chain(&a.blocks_idx) {
                        let b = usize::try_from(b).ok().filter(|&b| b > block && b < blocks);
                        subs.push(b.ok_or_else(|| {
                            FrontendError::invalid("names a block that does not follow").at(&place)
                        })?);
                    }
                }
                _ => {
                    attrs.insert(a.name.clone(), attr(a));
                }
            }
        }
        Ok(OpDesc { kind: o.r#type.clone(), place, ins, outs, attrs, blocks: subs })
    }
}

fn var_type(t: Option<&proto::VarType>) -> Result<VarType, FrontendError> {
    let Some(t) = t else { return Ok(VarType::Other) };
    let tensor = match t.r#type {
        DENSE_TENSOR => t.dense_tensor.as_ref(),
        TENSOR_ARRAY => t.tensor_array.as_ref(),
        _ => return Ok(VarType::Other),
    };
    let Some(d) = tensor.and_then(|t| t.tensor.as_ref()) else { return Ok(VarType::Other) };
    let dtype = dtype_of_number(d.data_type.into()).ok_or_else(|| {
        FrontendError::unsupported(format!("element type {} of a variable", d.data_type))
    })?;
    Ok(match t.r#type {
        TENSOR_ARRAY => VarType::Array(dtype, d.dims.clone()),
        _ => VarType::Tensor(dtype, d.dims.clone()),
    })
}

fn attr(a: &proto::Attr) -> Attr {
    let real = |x: f32| f64::from(x);
    match a.r#type {
        0 => a.i.map_or(Attr::Other, |x| Attr::Int(x.into())),
        1 => a.f.map_or(Attr::Other, |x| Attr::Float(real(x))),
        2 => a.s.clone().map_or(Attr::Other, Attr::Str),
        3 => Attr::Ints(a.ints.iter().map(|&x| x.into()).collect()),
        4 => Attr::Floats(a.floats.iter().map(|&x| real(x)).collect()),
        5 => Attr::Strs(a.strings.clone()),
        6 => a.b.map_or(Attr::Other, Attr::Bool),
        7 => Attr::Bools(a.bools.clone()),
        9 => a.l.map_or(Attr::Other, Attr::Int),
        11 => Attr::Ints(a.longs.clone()),
        12 => Attr::Floats(a.float64s.clone()),
        15 => a.float64.map_or(Attr::Other, Attr::Float),
        16 => a.scalar.as_ref().map_or(Attr::Other, scalar),
        17 => scalars(&a.scalars),
        _ => Attr::Other,
    }
}

fn scalar(s: &proto::Scalar) -> Attr {
    match (s.r#type, s.b, s.i, s.r) {
        (1, Some(b), ..) => Attr::Bool(b),
        (2, _, Some(i), _) => Attr::Int(i),
        (3, .., Some(r)) => Attr::Float(r),
        _ => Attr::Other,
    }
}

fn scalars(list: &[proto::Scalar]) -> Attr {
    let all: Vec<Attr> = list.iter().map(scalar).collect();
    list_attr(&all)
}

/// One list from a list of scalars: integers and truth values stay, any real makes all real.
pub fn list_attr(all: &[Attr]) -> Attr {
    let ints = |a: &Attr| match a {
        Attr::Int(i) => Some(*i),
        _ => None,
    };
    let reals = |a: &Attr| match a {
        Attr::Int(i) => Some(*i as f64),
        Attr::Float(f) => Some(*f),
        _ => None,
    };
    let bools = |a: &Attr| match a {
        Attr::Bool(b) => Some(*b),
        _ => None,
    };
    let strs = |a: &Attr| match a {
        Attr::Str(s) => Some(s.clone()),
        _ => None,
    };
    let list = all.iter().map(ints).collect::<Option<_>>().map(Attr::Ints);
    let list = list.or_else(|| all.iter().map(reals).collect::<Option<_>>().map(Attr::Floats));
    let list = list.or_else(|| all.iter().map(bools).collect::<Option<_>>().map(Attr::Bools));
    let list = list.or_else(|| all.iter().map(strs).collect::<Option<_>>().map(Attr::Strs));
    list.unwrap_or(Attr::Other)
}
