//! PIR JSON to [`Program`]: a strict walk over the parsed JSON. Errors name the block and operator.

use super::legacy::list_attr;
use super::program::{
    Attr, Block, Dialect, OpDesc, Param, Program, Var, VarInfo, VarType, dtype_of_name,
};
use crate::{FrontendError, Limits};
use serde_json::Value as Json;
use std::collections::{BTreeMap, HashMap};

/// Versions of the format that are known; they differ in what this reader accepts in any.
const VERSIONS: std::ops::RangeInclusive<i64> = 0..=4;

/// Reads the bytes of a PIR file. Also gives its version as text.
pub fn parse(bytes: &[u8], limits: &Limits) -> Result<(Program, String), FrontendError> {
    decoded(bytes, limits)?;
    let json: Json = serde_json::from_slice(bytes).map_err(|e| {
        let error = FrontendError::invalid(format!("not PIR JSON: {e}"));
        error.at_byte(offset(bytes, e.line(), e.column()))
    })?;
    let base = get(&json, "base_code").map_err(FrontendError::invalid)?;
    if base.get("magic").and_then(Json::as_str) != Some("pir") {
        return Err(FrontendError::invalid("base_code.magic is not \"pir\""));
    }
    let version = base.get("version").and_then(Json::as_i64).unwrap_or(0);
    if !VERSIONS.contains(&version) {
        return Err(FrontendError::unsupported(format!("PIR version {version}"))
            .advise("export with a Paddle whose PIR version is at most 4"));
    }
    let trainable = base.get("trainable").and_then(Json::as_bool).unwrap_or(true);
    let mut reader = Reader {
        vars: vec![],
        blocks: vec![Block::default()],
        params: vec![],
        ids: HashMap::new(),
        trainable,
        ops: 0,
        limits,
    };
    let regions = get(&json, "program").and_then(|p| list(p, "regions"));
    let regions = regions.map_err(FrontendError::invalid)?;
    let [region] = regions else {
        return Err(FrontendError::invalid("a program has one region"));
    };
    reader.blocks[0] = reader.region(region, 0)?;
    let mut params = reader.params;
    params.sort_by(|a, b| a.name.as_bytes().cmp(b.name.as_bytes()));
    // One name twice is one tensor in the file, and one parameter.
    if let Some(w) = params.windows(2).find(|w| w[0].name == w[1].name) {
        return Err(FrontendError::invalid("a parameter is declared twice").at(&w[0].name));
    }
    let (vars, blocks) = (reader.vars, reader.blocks);
    let lods = Default::default();
    let program = Program { dialect: Dialect::Pir, vars, blocks, params, lods };
    Ok((program, format!("pir {version}")))
}

/// Refuses a text that would take too much memory as values: about 48 bytes each.
fn decoded(bytes: &[u8], limits: &Limits) -> Result<(), FrontendError> {
    let values = bytes.iter().filter(|b| matches!(b, b',' | b':' | b'[' | b'{')).count() as u64;
    let most = limits.parsed_bytes;
    if values.saturating_mul(48).saturating_add(bytes.len() as u64) <= most {
        return Ok(());
    }
    Err(FrontendError::limit(format!("the file would take more than {most} bytes when decoded")))
}

/// The byte at a line and column, both counted from 1 (0 is the beginning).
fn offset(bytes: &[u8], line: usize, column: usize) -> u64 {
    let ends = bytes.iter().enumerate().filter(|(_, b)| **b == b'\n').map(|(i, _)| i + 1);
    let start = line.checked_sub(2).and_then(|n| ends.clone().nth(n)).unwrap_or(0);
    (start + column.saturating_sub(1)).min(bytes.len()) as u64
}

type Res<T> = Result<T, String>;

fn get<'j>(j: &'j Json, key: &str) -> Res<&'j Json> {
    j.get(key).ok_or_else(|| format!("\"{key}\" is missing"))
}

fn list<'j>(j: &'j Json, key: &str) -> Res<&'j [Json]> {
    let l = get(j, key)?.as_array();
    l.map(Vec::as_slice).ok_or_else(|| format!("\"{key}\" is not a list"))
}

fn text<'j>(j: &'j Json, key: &str) -> Res<&'j str> {
    get(j, key)?.as_str().ok_or_else(|| format!("\"{key}\" is not text"))
}

fn int(j: &Json, key: &str) -> Res<i64> {
    get(j, key)?.as_i64().ok_or_else(|| format!("\"{key}\" is not an integer"))
}

struct Reader<'l> {
    vars: Vec<VarInfo>,
    blocks: Vec<Block>,
    params: Vec<Param>,
    ids: HashMap<i64, Var>,
    trainable: bool,
    ops: usize,
    limits: &'l Limits,
}

impl Reader<'_> {
    /// The one block of a region.
    fn region(&mut self, region: &Json, depth: usize) -> Result<Block, FrontendError> {
        if depth > self.limits.nesting {
            return Err(FrontendError::limit(format!("blocks nest over {depth} deep")));
        }
        let blocks = list(region, "blocks").map_err(FrontendError::invalid)?;
        let [block] = blocks else {
            return Err(FrontendError::unsupported("a region of several blocks"));
        };
        let label = block.get("#").and_then(Json::as_str).unwrap_or("block").to_string();
        let bad = |e: String| FrontendError::invalid(e).at(&label);
        let mut args = vec![];
        for a in list(block, "args").map_err(bad)? {
            let ty = get(a, "TT").and_then(var_type).map_err(bad)?;
            args.push(int(a, "#").and_then(|id| self.define(id, ty)).map_err(bad)?);
        }
        let mut ops = vec![];
        for (k, o) in list(block, "ops").map_err(bad)?.iter().enumerate() {
            self.ops += 1;
            if self.ops > self.limits.nodes {
                let most = self.limits.nodes;
                return Err(FrontendError::limit(format!("more than {most} operators")));
            }
            let name = text(o, "#").unwrap_or("?");
            let place = format!("{label}, operator {k} ({name})");
            let bad = |e: String| FrontendError::invalid(e).at(&place);
            let kind = kind(text(o, "#").map_err(bad)?);
            if kind == "builtin.parameter" {
                self.parameter(o).map_err(bad)?;
                continue;
            }
            let mut op = self.op(o, kind).map_err(bad)?;
            if let Some(regions) = o.get("regions") {
                let regions = regions.as_array().ok_or_else(|| bad("regions: no list".into()))?;
                for r in regions {
                    let block = self.region(r, depth + 1)?;
                    self.blocks.push(block);
                    op.blocks.push(self.blocks.len() - 1);
                }
            }
            // Results are defined after the regions, which cannot use them.
            op.outs = self.outs(o).map_err(bad)?;
            ops.push(op);
        }
        Ok(Block { args, ops })
    }

    fn define(&mut self, id: i64, ty: VarType) -> Res<Var> {
        if id == 0 {
            return Err("id 0 is defined".into());
        }
        let var = self.vars.len();
        if self.ids.insert(id, var).is_some() {
            return Err(format!("id %{id} is defined twice"));
        }
        self.vars.push(VarInfo { name: format!("%{id}"), ty });
        Ok(var)
    }

    fn parameter(&mut self, o: &Json) -> Res<()> {
        let out = get(o, "O")?;
        let ty = var_type(get(out, "TT")?)?;
        let name = match list(o, "A")? {
            [.., Json::String(name)] => name.clone(),
            _ => return Err("a parameter's name is missing".into()),
        };
        let var = self.define(int(out, "%")?, ty.clone())?;
        self.vars[var].name = name.clone();
        let persistable = match o.get("OA").and_then(Json::as_array).map(Vec::as_slice) {
            Some([p, ..]) => p.as_i64() == Some(1) || p.as_bool() == Some(true),
            Some([]) if self.trainable => return Err("\"OA\" is empty".into()),
            None if self.trainable => return Err("\"OA\" is missing".into()),
            // Without these flags only the exporter's own naming tells what has no data.
            _ => !name.ends_with("__non_persistable"),
        };
        if persistable {
            let VarType::Tensor(dtype, dims) = ty else {
                return Err(format!("parameter {name} is no tensor"));
            };
            self.params.push(Param { var, name, ty: (dtype, dims) });
        }
        Ok(())
    }

    fn op(&mut self, o: &Json, kind: String) -> Res<OpDesc> {
        let mut ins = vec![];
        for i in list(o, "I")? {
            ins.push((
                String::new(),
                match int(i, "%")? {
                    0 => vec![],
                    id => vec![*self.ids.get(&id).ok_or_else(|| format!("%{id} is not defined"))?],
                },
            ));
        }
        let mut attrs = BTreeMap::new();
        for a in list(o, "A")? {
            let name = text(a, "N")?;
            let value =
                get(a, "AT").and_then(attr).map_err(|e| format!("attribute {name}: {e}"))?;
            attrs.insert(name.to_string(), value);
        }
        let id = match o.get("O").and_then(Json::as_array).and_then(|l| l.first()) {
            Some(out) => format!("%{}", int(out, "%")?),
            None => "nothing".into(),
        };
        let place = format!("{kind} -> {id}");
        Ok(OpDesc { kind, place, ins, outs: vec![], attrs, blocks: vec![] })
    }

    fn outs(&mut self, o: &Json) -> Res<Vec<(String, Vec<Var>)>> {
        let mut outs = vec![];
        for out in list(o, "O")? {
            let ty = var_type(get(out, "TT")?)?;
            let id = int(out, "%")?;
            // A result that is not wanted has no type and id 0.
            let vars = if id == 0 { vec![] } else { vec![self.define(id, ty)?] };
            outs.push((String::new(), vars));
        }
        Ok(outs)
    }
}

/// Dialect and operator without compression: pd_op's names are bare, others keep a prefix.
fn kind(name: &str) -> String {
    if name == "p" {
        return "builtin.parameter".into();
    }
    let Some((dialect, op)) = name.split_once('.') else { return name.to_string() };
    match dialect {
        "0" | "builtin" => format!("builtin.{op}"),
        "1" | "pd_op" => op.to_string(),
        "2" | "cf" => format!("cf.{op}"),
        "3" => format!("custom_op.{op}"),
        "4" => format!("dist.{op}"),
        _ => name.to_string(),
    }
}

fn ints(j: &Json) -> Res<Vec<i64>> {
    let l = j.as_array().ok_or("dims are not a list")?;
    l.iter().map(|d| d.as_i64().ok_or_else(|| "a dim is not an integer".into())).collect()
}

fn var_type(t: &Json) -> Res<VarType> {
    if t.is_string() {
        return Ok(VarType::Other);
    }
    let name = text(t, "#")?;
    let short = name.split_once('.').map_or(name, |(_, n)| n);
    let dense = || -> Res<_> {
        let d = list(t, "D")?;
        let (Some(dtype), Some(dims)) = (d.first(), d.get(1)) else {
            return Err(format!("type {name} is too short"));
        };
        let dtype = text(dtype, "#")?;
        let of = dtype.split_once('.').map_or(dtype, |(_, n)| n);
        let known = dtype_of_name(of).ok_or_else(|| format!("element type {dtype} is unknown"))?;
        Ok((known, ints(dims)?))
    };
    Ok(match short {
        "t_dtensor" => dense().map(|(t, d)| VarType::Tensor(t, d))?,
        "t_dense_tensor_array" => dense().map(|(t, d)| VarType::Array(t, d))?,
        "t_vec" => VarType::List(list(t, "D")?.iter().map(var_type).collect::<Res<_>>()?),
        _ => VarType::Other,
    })
}

fn real(a: &Json) -> Res<f64> {
    if let Some(v) = a.get("VD") {
        return match v.as_str() {
            Some("INF") => Ok(f64::INFINITY),
            Some("-INF") => Ok(f64::NEG_INFINITY),
            Some("NaN" | "NAN") => Ok(f64::NAN),
            _ => Err("\"VD\" is neither INF, -INF nor NaN".into()),
        };
    }
    get(a, "D")?.as_f64().ok_or_else(|| "\"D\" is not a number".into())
}

fn attr(a: &Json) -> Res<Attr> {
    let name = text(a, "#")?;
    Ok(match name.split_once('.').map_or(name, |(_, n)| n) {
        "a_bool" => Attr::Bool(get(a, "D")?.as_bool().ok_or("\"D\" is not a truth value")?),
        "a_i32" | "a_i64" | "a_index" => Attr::Int(int(a, "D")?),
        "a_f32" | "a_f64" => Attr::Float(real(a)?),
        "a_str" | "a_dtype" | "a_layout" | "a_tensorname" => Attr::Str(text(a, "D")?.into()),
        "a_intarray" => Attr::Ints(ints(get(a, "D")?)?),
        "a_array" => {
            let all = list(a, "D")?.iter().map(attr).collect::<Res<Vec<_>>>()?;
            list_attr(&all)
        }
        "a_scalar" => match a.get("D") {
            Some(Json::Array(d)) => match d.get(1) {
                Some(Json::Bool(b)) => Attr::Bool(*b),
                Some(n) if n.is_i64() => Attr::Int(n.as_i64().unwrap_or_default()),
                Some(n) if n.is_number() => Attr::Float(n.as_f64().unwrap_or_default()),
                Some(Json::String(s)) => match s.as_str() {
                    "INF" | "inf" => Attr::Float(f64::INFINITY),
                    "-INF" | "-inf" => Attr::Float(f64::NEG_INFINITY),
                    "NaN" | "nan" => Attr::Float(f64::NAN),
                    _ => Attr::Other,
                },
                _ => Attr::Other,
            },
            _ => Attr::Float(real(a)?),
        },
        _ => Attr::Other,
    })
}
