//! Text to instructions with their operands resolved.

use super::Fault;
use super::scalar::{self, Fun};
use std::collections::HashMap;

/// Types of operands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Ty {
    Pred,
    U8,
    S8,
    U16,
    S16,
    F16,
    U32,
    S32,
    F32,
    U64,
    S64,
    F64,
}

impl Ty {
    fn of(s: &str) -> Option<Ty> {
        Some(match s {
            "pred" => Ty::Pred,
            "u8" | "b8" => Ty::U8,
            "s8" => Ty::S8,
            "u16" | "b16" => Ty::U16,
            "s16" => Ty::S16,
            "f16" => Ty::F16,
            "u32" | "b32" => Ty::U32,
            "s32" => Ty::S32,
            "f32" => Ty::F32,
            "u64" | "b64" => Ty::U64,
            "s64" => Ty::S64,
            "f64" => Ty::F64,
            _ => return None,
        })
    }

    /// Bytes.
    pub fn size(self) -> usize {
        match self {
            Ty::Pred => 0,
            Ty::U8 | Ty::S8 => 1,
            Ty::U16 | Ty::S16 | Ty::F16 => 2,
            Ty::U32 | Ty::S32 | Ty::F32 => 4,
            Ty::U64 | Ty::S64 | Ty::F64 => 8,
        }
    }
}

/// Memory that an access names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Space {
    Param,
    Global,
    Shared,
    Const,
}

/// What an instruction does.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum Do {
    Mov,
    Pack,
    Unpack,
    Load(Space, Ty),
    Store(Space, Ty),
    /// To, from, rounding.
    Cvt(Ty, Ty, String),
    /// Comparison.
    Setp(String, Ty),
    Selp,
    /// What it computes.
    Calc(Fun),
    MadWide,
    Shfl(bool),
    /// So many values side by side.
    LoadMany(Space, Ty, usize),
    StoreMany(Space, Ty),
    /// A product of fragments, of bf16 or (`true`) f16.
    Mma(bool),
    WarpBarrier,
    BlockBarrier,
    Branch(usize),
    Return,
}

/// Where an operand is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Operand {
    Reg(usize),
    Imm(u64),
    /// A special register.
    Thread,
    Block,
    /// A register (or nothing) and a constant.
    At(Option<usize>, i64),
}

/// An instruction.
#[derive(Clone, Debug)]
pub struct Inst {
    /// What.
    pub op: Do,
    /// Registers that it writes.
    pub dst: Vec<usize>,
    /// Operands.
    pub src: Vec<Operand>,
    /// Threads that do it: those whose predicate is (`true`: is not) on.
    pub guard: Option<(usize, bool)>,
    /// Line of the text.
    pub line: usize,
}

/// A kernel.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its instructions.
    pub code: Vec<Inst>,
    /// Threads of a block.
    pub threads: usize,
    /// Tiles of a block: one a warp, where nothing else is said.
    pub per_block: usize,
    /// Registers.
    pub regs: usize,
    /// Bytes of shared memory.
    pub shared: usize,
    /// Bytes of its argument block.
    pub args: usize,
    /// Constant memory of the module.
    pub consts: Vec<u8>,
}

/// A module's kernels by name.
#[derive(Debug, Default)]
pub struct Module {
    /// Kernels.
    pub entries: HashMap<String, Entry>,
}

type Res<T> = Result<T, String>;

impl Module {
    /// Reads a module.
    ///
    /// # Errors
    /// The first line that is not of the subset.
    pub fn parse(text: &str) -> Result<Module, Fault> {
        let mut m = Module::default();
        let mut p = Parser::default();
        for (i, raw) in text.lines().enumerate() {
            let line = raw.trim();
            p.line = i + 1;
            p.statement(line, &mut m).map_err(|what| Fault { line: i + 1, what })?;
        }
        match p.open {
            None => Ok(m),
            Some(name) => Err(Fault { line: p.line, what: format!("{name} does not end") }),
        }
    }
}

/// The kernel being read.
#[derive(Default)]
struct Parser {
    line: usize,
    open: Option<String>,
    threads: usize,
    per_block: Option<usize>,
    args: usize,
    regs: HashMap<String, usize>,
    families: Vec<(String, usize)>,
    next: usize,
    shared: HashMap<String, usize>,
    room: usize,
    consts: Vec<u8>,
    tables: HashMap<String, usize>,
    code: Vec<Inst>,
    labels: HashMap<String, usize>,
    jumps: Vec<(usize, String)>,
}

fn number(s: &str) -> Res<usize> {
    s.trim().parse().map_err(|_| format!("'{s}' is no number"))
}

/// `name[count]`.
fn array(s: &str) -> Res<(&str, usize)> {
    let (name, n) = s.split_once('[').ok_or("no array")?;
    Ok((name.trim(), number(n.split(']').next().unwrap_or(""))?))
}

impl Parser {
    fn statement(&mut self, line: &str, m: &mut Module) -> Res<()> {
        if let Some(n) = line.strip_prefix("// hub tiles_per_block ") {
            self.per_block = Some(number(n)?);
        }
        if line.is_empty() || line == "{" || line.starts_with("//") {
            return Ok(());
        }
        for skip in [".version ", ".target ", ".address_size ", ".minnctapersm "] {
            if line.starts_with(skip) {
                return Ok(());
            }
        }
        if let Some(rest) = line.strip_prefix(".const .align 4 .b8 ") {
            return self.table(rest);
        }
        if let Some(rest) = line.strip_prefix(".visible .entry ") {
            let (name, params) = rest.split_once('(').ok_or("no parameters")?;
            let one = params.trim_end_matches(')').strip_prefix(".param .align 8 .b8 ");
            self.args = array(one.ok_or("parameters of another kind")?)?.1;
            self.open = Some(name.trim().to_string());
            return Ok(());
        }
        if let Some(rest) = line.strip_prefix(".reqntid ") {
            self.threads = number(rest.split(',').next().unwrap_or(""))?;
            return Ok(());
        }
        if line == "}" {
            return self.close(m);
        }
        if self.open.is_none() {
            return Err(format!("'{line}' outside a kernel"));
        }
        if let Some(label) = line.strip_suffix(':') {
            self.labels.insert(label.into(), self.code.len());
            return Ok(());
        }
        let line = line.strip_suffix(';').ok_or("no semicolon")?;
        if let Some(rest) = line.strip_prefix(".reg ") {
            return self.registers(rest);
        }
        if let Some(rest) = line.strip_prefix(".shared .align ") {
            let (_, rest) = rest.split_once(".b8 ").ok_or("shared memory of another kind")?;
            let (name, n) = array(rest)?;
            self.shared.insert(name.into(), self.room);
            self.room += n;
            return Ok(());
        }
        self.instruction(line)
    }

    fn table(&mut self, rest: &str) -> Res<()> {
        let (head, values) = rest.split_once('=').ok_or("a table without values")?;
        let (name, n) = array(head)?;
        let list = values.trim().trim_start_matches('{').trim_end_matches(';');
        let list = list.trim_end_matches('}');
        let bytes: Vec<u8> =
            list.split(',').map(|v| number(v).map(|n| n as u8)).collect::<Res<_>>()?;
        if bytes.len() != n {
            return Err(format!("{} values of {n}", bytes.len()));
        }
        self.tables.insert(name.into(), self.consts.len());
        self.consts.extend(bytes);
        Ok(())
    }

    fn registers(&mut self, rest: &str) -> Res<()> {
        let (_, names) = rest.split_once(' ').ok_or("no registers")?;
        for name in names.split(',') {
            let name = name.trim();
            match name.split_once('<') {
                Some((family, n)) => {
                    let n = number(n.trim_end_matches('>'))?;
                    self.families.push((family.into(), self.next));
                    (0..n).for_each(|i| {
                        self.regs.insert(format!("{family}{i}"), self.next + i);
                    });
                    self.next += n;
                }
                None => {
                    self.regs.insert(name.into(), self.next);
                    self.next += 1;
                }
            }
        }
        Ok(())
    }

    fn close(&mut self, m: &mut Module) -> Res<()> {
        let name = self.open.take().ok_or("nothing is open")?;
        for (at, label) in &self.jumps {
            let to = *self.labels.get(label).ok_or(format!("no label {label}"))?;
            self.code[*at].op = Do::Branch(to);
        }
        let entry = Entry {
            code: std::mem::take(&mut self.code),
            threads: self.threads,
            per_block: self.per_block.unwrap_or(self.threads / super::WARP),
            regs: self.next,
            shared: self.room,
            args: self.args,
            consts: std::mem::take(&mut self.consts),
        };
        *self = Parser { line: self.line, ..Parser::default() };
        match m.entries.insert(name.clone(), entry) {
            None => Ok(()),
            Some(_) => Err(format!("{name} twice")),
        }
    }

    fn reg(&self, s: &str) -> Res<usize> {
        self.regs.get(s).copied().ok_or_else(|| format!("'{s}' is not declared"))
    }

    fn operand(&self, s: &str) -> Res<Operand> {
        let s = s.trim();
        Ok(match s {
            "%tid.x" => Operand::Thread,
            "%ctaid.x" => Operand::Block,
            _ if s.starts_with('%') => Operand::Reg(self.reg(s)?),
            _ if s.starts_with("0f") => {
                let bits = u32::from_str_radix(&s[2..], 16).map_err(|e| e.to_string())?;
                Operand::Imm(bits.into())
            }
            _ if s.starts_with("0d") => {
                Operand::Imm(u64::from_str_radix(&s[2..], 16).map_err(|e| e.to_string())?)
            }
            _ if s.starts_with('[') => self.place(s)?,
            _ => match (self.shared.get(s), self.tables.get(s)) {
                (Some(at), _) | (_, Some(at)) => Operand::Imm(*at as u64),
                _ => match s.parse::<i64>() {
                    Ok(n) => Operand::Imm(n as u64),
                    Err(_) => return Err(format!("operand '{s}'")),
                },
            },
        })
    }

    /// `[%l1+8]`, `[args+8]`.
    fn place(&self, s: &str) -> Res<Operand> {
        let inner = s.trim_start_matches('[').trim_end_matches(']');
        let cut = inner[1..].find(['+', '-']).map(|i| i + 1);
        let (name, offset) = cut.map_or((inner, "0"), |i| inner.split_at(i));
        let offset = offset.trim_start_matches('+');
        let offset = offset.parse::<i64>().map_err(|_| format!("offset '{offset}'"))?;
        if i32::try_from(offset).is_err() {
            return Err(format!("offset {offset} is beyond 32 bits"));
        }
        match name {
            "args" => Ok(Operand::At(None, offset)),
            r => Ok(Operand::At(Some(self.reg(r)?), offset)),
        }
    }

    fn instruction(&mut self, line: &str) -> Res<()> {
        let mut rest = line.trim();
        let mut guard = None;
        if let Some(after) = rest.strip_prefix('@') {
            let (p, tail) = after.split_once(' ').ok_or("a guard alone")?;
            let not = p.starts_with('!');
            guard = Some((self.reg(p.trim_start_matches('!'))?, not));
            rest = tail.trim();
        }
        let (name, operands) = rest.split_once(' ').unwrap_or((rest, ""));
        let parts: Vec<&str> = name.split('.').collect();
        let (op, writes) = self.meaning(&parts, operands)?;
        let line = self.line;
        let groups = operands.replace(['{', '}'], "");
        let list: Vec<&str> = groups.split(',').map(str::trim).filter(|s| !s.is_empty()).collect();
        if matches!(op, Do::Branch(_)) {
            self.jumps.push((self.code.len(), list[0].into()));
            self.code.push(Inst { op, dst: vec![], src: vec![], guard, line });
            return Ok(());
        }
        let dst = list[..writes].iter().map(|r| self.reg(r)).collect::<Res<_>>()?;
        let src = list[writes..].iter().map(|s| self.operand(s)).collect::<Res<_>>()?;
        self.code.push(Inst { op, dst, src, guard, line });
        Ok(())
    }

    /// What a name means, and how many operands it writes.
    fn meaning(&self, parts: &[&str], operands: &str) -> Res<(Do, usize)> {
        let bad = || format!("instruction '{}'", parts.join("."));
        let ty = |s: &str| Ty::of(s).ok_or_else(bad);
        let last = || ty(parts.last().copied().unwrap_or(""));
        let space = |s: &str| match s {
            "param" => Ok(Space::Param),
            "global" => Ok(Space::Global),
            "shared" => Ok(Space::Shared),
            "const" => Ok(Space::Const),
            _ => Err(bad()),
        };
        Ok(match parts {
            ["mov", "b64"] if operands.trim_start().starts_with('{') => (Do::Unpack, 2),
            ["mov", "b64"] if operands.contains('{') => (Do::Pack, 1),
            ["mov", _] => (Do::Mov, 1),
            ["ld", s, t] => (Do::Load(space(s)?, ty(t)?), 1),
            ["st", s, t] => (Do::Store(space(s)?, ty(t)?), 0),
            ["ld", s, v @ ("v2" | "v4"), t] => {
                let n = number(&v[1..])?;
                (Do::LoadMany(space(s)?, ty(t)?, n), n)
            }
            ["st", s, "v2", t] => (Do::StoreMany(space(s)?, ty(t)?), 0),
            ["mma", "sync", "aligned", "m16n8k16", "row", "col", "f32", a, b, "f32"] if a == b => {
                match *a {
                    "bf16" => (Do::Mma(false), 4),
                    "f16" => (Do::Mma(true), 4),
                    _ => return Err(bad()),
                }
            }
            ["cvt", to, from] => (Do::Cvt(ty(to)?, ty(from)?, String::new()), 1),
            ["cvt", round, to, from] => (Do::Cvt(ty(to)?, ty(from)?, round.to_string()), 1),
            ["setp", cmp, t] => (Do::Setp(cmp.to_string(), ty(t)?), 1),
            ["selp", _] => (Do::Selp, 1),
            ["mad", "wide", "s32"] => (Do::MadWide, 1),
            ["shfl", "sync", "bfly", "b32"] => (Do::Shfl(true), 1),
            ["shfl", "sync", "idx", "b32"] => (Do::Shfl(false), 1),
            ["bar", "warp", "sync"] => (Do::WarpBarrier, 0),
            ["bar", "sync"] => (Do::BlockBarrier, 0),
            ["bra", "uni"] => (Do::Branch(0), 0),
            ["ret"] => (Do::Return, 0),
            [.., _] => {
                let name = parts[..parts.len() - 1].join(".");
                (Do::Calc(scalar::calc(&name, last()?).ok_or_else(bad)?), 1)
            }
            [] => return Err(bad()),
        })
    }
}
