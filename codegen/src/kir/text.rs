//! The text form of kernels, for people (`--emit kernels`).

use super::inst::*;
use super::types::*;
use hub_abi::Dtype;
use std::fmt::{Display, Formatter, Result, Write};

impl Display for Elem {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(match self {
            Elem::F32 => "f32",
            Elem::F64 => "f64",
            Elem::I32 => "i32",
            Elem::I64 => "i64",
            Elem::Mask => "mask",
        })
    }
}

impl Display for RegTy {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        if self.lanes == 1 {
            write!(f, "{}", self.elem)
        } else {
            write!(f, "{}x{}", self.elem, self.lanes)
        }
    }
}

impl Display for Reg {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "v{}", self.0)
    }
}

/// Prints with the kernel's names.
struct Names<'a>(&'a Kernel);

impl Names<'_> {
    fn param(&self, p: ParamId) -> &str {
        self.0.params.get(p.0 as usize).map_or("?", |p| p.name.as_str())
    }

    fn axis(&self, a: AxisId) -> &str {
        self.0.axes.get(a.0 as usize).map_or("?", |a| a.as_str())
    }

    fn scalar(&self, s: Scalar) -> String {
        match s {
            Scalar::Const(n) => n.to_string(),
            Scalar::Param(p) => self.param(p).to_string(),
            Scalar::Reg(r) => r.to_string(),
        }
    }

    fn coef(&self, c: Coef) -> String {
        match (c.param, c.mul) {
            (None, n) => n.to_string(),
            (Some(p), 1) => self.param(p).to_string(),
            (Some(p), n) => format!("{n}*{}", self.param(p)),
        }
    }

    fn affine(&self, a: &Affine) -> String {
        let mut s = String::new();
        for (v, c) in &a.terms {
            let _ = match v {
                Var::One => write!(s, " + {}", self.coef(*c)),
                Var::Axis(x) => write!(s, " + {}*{}", self.axis(*x), self.coef(*c)),
                Var::Reg(r) => write!(s, " + {r}*{}", self.coef(*c)),
            };
        }
        if a.offset != 0 || s.is_empty() {
            let _ = write!(s, " + {}", a.offset);
        }
        s[3..].to_string()
    }

    fn addr(&self, a: &Addr) -> String {
        let base = match a.base {
            Base::Param(p) => self.param(p),
            Base::Scratch => "scratch",
        };
        if a.at == Affine::default() {
            format!("[{base}]")
        } else {
            format!("[{base} + {}]", self.affine(&a.at))
        }
    }

    fn mem(&self, a: &Addr, d: Dtype, mask: Option<Reg>) -> String {
        let m = mask.map_or(String::new(), |m| format!(" if {m}"));
        format!("{d} {}{m}", self.addr(a))
    }

    fn inst(&self, i: &Inst) -> String {
        use Inst::*;
        let body = match i {
            Const { dst, bits } => self.constant(*dst, *bits),
            Splat { src, .. } => format!("splat {src}"),
            Iota { .. } => "iota".into(),
            Index { at, .. } => format!("index {}", self.affine(at)),
            Un { op, a, .. } => format!("{} {a}", lower(op)),
            Bin { op, a, b, .. } => format!("{} {a}, {b}", lower(op)),
            Fma { a, b, c, .. } => format!("fma {a}, {b}, {c}"),
            Dot2 { a, b, c, .. } => format!("dot2 {a}, {b}, {c}"),
            Cmp { op, a, b, .. } => format!("cmp.{} {a}, {b}", lower(op)),
            Lanes { count, .. } => format!("lanes {}", self.scalar(*count)),
            Select { mask, a, b, .. } => format!("select {mask}, {a}, {b}"),
            Cvt { a, mode, .. } => format!("cvt.{} {a}", lower(mode)),
            Bitcast { a, .. } => format!("bitcast {a}"),
            Scale2 { a, n, .. } => format!("scale2 {a}, {n}"),
            Load { addr, dtype, mask, .. } => format!("load {}", self.mem(addr, *dtype, *mask)),
            LoadSplat { addr, dtype, .. } => format!("load.splat {}", self.mem(addr, *dtype, None)),
            LoadStrided { addr, stride, dtype, mask, .. } => {
                format!(
                    "load.strided {} step {}",
                    self.mem(addr, *dtype, *mask),
                    self.coef(*stride)
                )
            }
            Gather { addr, idx, stride, dtype, mask, .. } => {
                format!("gather {} at {idx}*{}", self.mem(addr, *dtype, *mask), self.coef(*stride))
            }
            Store { src, addr, dtype, mask } => {
                format!("store {} = {src}", self.mem(addr, *dtype, *mask))
            }
            StoreStrided { src, addr, stride, dtype, mask } => {
                let step = self.coef(*stride);
                format!("store.strided {} step {step} = {src}", self.mem(addr, *dtype, *mask))
            }
            Reduce { op, a, .. } => format!("reduce.{} {a}", lower(op)),
            Extract { a, lane, .. } => format!("extract {a}[{lane}]"),
            Shuffle { a, b, sel, .. } => format!("shuffle {a}, {b} {sel:?}"),
            Prefetch { addr, level } => format!("prefetch.{level} {}", self.addr(addr)),
            CheckIndex { idx, bound, .. } => format!("check {idx} < {}", self.scalar(*bound)),
            SetStatus { mask } => format!("status {mask}"),
            Barrier => "barrier".to_string(),
            TileConfig { shapes } => format!("tile.config {shapes:?}"),
            TileZero { tile } => format!("tile.zero t{tile}"),
            TileLoad { tile, addr, stride, .. } => {
                format!("tile.load t{tile} = {} step {}", self.addr(addr), self.coef(*stride))
            }
            TileStore { tile, addr, stride } => {
                format!("tile.store {} step {} = t{tile}", self.addr(addr), self.coef(*stride))
            }
            TileDot2 { acc, a, b, dtype } => format!("tile.dot2 {dtype} t{acc} += t{a}, t{b}"),
        };
        match i.dst() {
            Some(d) => format!("{d}:{} = {body}", self.0.ty(d)),
            None => body,
        }
    }

    fn constant(&self, dst: Reg, bits: u64) -> String {
        match self.0.ty(dst).elem {
            Elem::F32 => format!("const {:?}", f32::from_bits(bits as u32)),
            Elem::F64 => format!("const {:?}", f64::from_bits(bits)),
            Elem::I32 => format!("const {}", bits as i32),
            Elem::I64 => format!("const {}", bits as i64),
            Elem::Mask => format!("const {}", bits != 0),
        }
    }

    fn stmts(&self, f: &mut Formatter<'_>, stmts: &[Stmt], depth: usize) -> Result {
        let pad = "  ".repeat(depth);
        for s in stmts {
            match s {
                Stmt::Inst(i) => writeln!(f, "{pad}{}", self.inst(i))?,
                Stmt::For { axis, extent, unroll, body } => {
                    let u = if *unroll > 1 { format!(" unroll {unroll}") } else { String::new() };
                    writeln!(f, "{pad}for {} in {}{u}:", self.axis(*axis), self.scalar(*extent))?;
                    self.stmts(f, body, depth + 1)?;
                }
                Stmt::If { cond, then, els } => {
                    let (a, b) = (self.scalar(cond.a), self.scalar(cond.b));
                    writeln!(f, "{pad}if {a} {} {b}:", lower(&cond.op))?;
                    self.stmts(f, then, depth + 1)?;
                    if !els.is_empty() {
                        writeln!(f, "{pad}else:")?;
                        self.stmts(f, els, depth + 1)?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// A variant's name in lower case.
fn lower(x: &impl std::fmt::Debug) -> String {
    format!("{x:?}").to_lowercase()
}

impl Display for Kernel {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let n = Names(self);
        writeln!(f, "kernel {}", self.name)?;
        for p in &self.params {
            match &p.kind {
                ParamKind::Ptr { dtype, access } => {
                    writeln!(f, "  param {}: {} {dtype}", p.name, lower(access))?
                }
                ParamKind::Size => writeln!(f, "  param {}: size", p.name)?,
                ParamKind::Status => writeln!(f, "  param {}: status", p.name)?,
            }
        }
        if self.scratch_bytes > 0 {
            writeln!(f, "  scratch {}", self.scratch_bytes)?;
        }
        for g in &self.grid {
            writeln!(f, "  grid {} in {}", n.axis(g.axis), n.coef(g.extent))?;
        }
        if let Some(op) = &self.operator {
            writeln!(f, "  {op}")?;
        }
        n.stmts(f, &self.body, 1)
    }
}

impl Display for Inst {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "{self:?}")
    }
}
