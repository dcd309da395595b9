//! Writes a legal kernel as PTX, line by line. Registers are virtual: register `v7` of the kernel is
//! `%f7`, `%l7`… by its element, and temporaries follow.
//!
//! Invariants: branches are the same for a whole warp; a store is done by one thread a lane; where a
//! thread may read what another of its warp has written, or write what another reads, a warp's barrier
//! stands between. None stands between two writes: a kernel writes no byte of an output twice
//! ([`crate::kir::share`] stands on that too), and scratch is read before it is written again.

use super::super::simt::order::Order;
use super::addr::Sums;
use super::table;
use super::tensor::Tiles;
use crate::kir::*;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// A kernel being written.
pub(super) struct Renderer<'k> {
    pub(super) k: &'k Kernel,
    pub(super) sums: Sums,
    pub(super) body: String,
    pub(super) temps: BTreeMap<&'static str, u32>,
    labels: u32,
    /// Numbers of lanes that lane numbers (`true`: or stores) are asked for.
    pub(super) lanes: BTreeSet<u8>,
    pub(super) stores: BTreeSet<u8>,
    /// Threads are asked for their place in a fragment.
    pub(super) fragments: bool,
    /// Tables of selectors, 32 bytes each.
    pub(super) tables: Vec<Vec<u8>>,
    pub(super) order: Order,
    /// Tile registers as they are configured.
    pub(super) tiles: Tiles,
}

/// PTX of a legal kernel with so many warps a block.
pub(super) fn render(k: &Kernel, warps: u64) -> String {
    let mut r = Renderer {
        k,
        sums: Sums::new(k),
        body: String::new(),
        temps: BTreeMap::new(),
        labels: 0,
        lanes: BTreeSet::new(),
        stores: BTreeSet::new(),
        fragments: false,
        tables: vec![],
        order: Order::new(k),
        tiles: Tiles::default(),
    };
    r.stmts(&k.body);
    r.finish(warps)
}

/// Registers that statements assign.
fn assigned(body: &[Stmt], out: &mut Vec<Reg>) {
    for s in body {
        match s {
            Stmt::Inst(i) => out.extend(i.dst()),
            Stmt::For { body, .. } => assigned(body, out),
            Stmt::If { then, els, .. } => {
                assigned(then, out);
                assigned(els, out);
            }
        }
    }
}

impl Renderer<'_> {
    pub(super) fn line(&mut self, text: String) {
        self.body.push('\t');
        self.body.push_str(&text);
        self.body.push_str(";\n");
    }

    pub(super) fn temp(&mut self, e: Elem) -> String {
        self.temp_of(table::letter(e))
    }

    pub(super) fn temp_of(&mut self, letter: &'static str) -> String {
        let next = self.temps.entry(letter).or_insert(self.k.regs.len() as u32);
        *next += 1;
        format!("%{letter}{}", *next - 1)
    }

    pub(super) fn reg(&self, r: Reg) -> String {
        format!("%{}{}", table::letter(self.k.ty(r).elem), r.0)
    }

    pub(super) fn param(&self, p: ParamId) -> String {
        format!("%a{}", p.0)
    }

    pub(super) fn axis(&self, a: AxisId) -> String {
        format!("%x{}", a.0)
    }

    /// The number of this thread's lane among so many.
    pub(super) fn lane(&mut self, lanes: u8) -> String {
        self.lanes.insert(lanes);
        format!("%lane{lanes}")
    }

    /// A coefficient as an operand.
    pub(super) fn coef(&mut self, c: Coef) -> String {
        match (c.param, c.mul) {
            (None, n) => n.to_string(),
            (Some(p), 1) => self.param(p),
            (Some(p), n) => {
                let out = self.temp(Elem::I64);
                self.line(format!("mul.lo.s64 {out}, {}, {n}", self.param(p)));
                out
            }
        }
    }

    pub(super) fn scalar(&self, s: Scalar) -> String {
        match s {
            Scalar::Const(n) => n.to_string(),
            Scalar::Param(p) => self.param(p),
            Scalar::Reg(r) => self.reg(r),
        }
    }

    fn label(&mut self) -> String {
        self.labels += 1;
        format!("L{}", self.labels)
    }

    fn stmts(&mut self, body: &[Stmt]) {
        for (i, s) in body.iter().enumerate() {
            match s {
                Stmt::Inst(Inst::TileConfig { shapes }) => self.configure(shapes, &body[i + 1..]),
                Stmt::Inst(i) => self.inst(i),
                Stmt::If { cond, then, els } => self.branch(cond, then, els),
                Stmt::For { axis, extent, body, .. } => self.repeat(*axis, *extent, body),
            }
        }
    }

    fn branch(&mut self, c: &Cond, then: &[Stmt], els: &[Stmt]) {
        let p = self.temp(Elem::Mask);
        let (a, b) = (self.scalar(c.a), self.scalar(c.b));
        let a = self.in_register(a);
        self.line(format!("{} {p}, {a}, {b}", table::compare(c.op, Elem::I64)));
        let (other, end) = (self.label(), self.label());
        self.line(format!("@!{p} bra.uni {other}"));
        let before = self.order.mark();
        self.sums.open();
        self.stmts(then);
        self.sums.close();
        if !els.is_empty() {
            self.line(format!("bra.uni {end}"));
        }
        let _ = writeln!(self.body, "{other}:");
        let after = self.order.back(before);
        if !els.is_empty() {
            self.sums.open();
            self.stmts(els);
            self.sums.close();
            let _ = writeln!(self.body, "{end}:");
        }
        self.order.join(after);
    }

    /// The first operand of a comparison is a register.
    pub(super) fn in_register(&mut self, x: String) -> String {
        if x.starts_with('%') {
            return x;
        }
        let t = self.temp(Elem::I64);
        self.line(format!("mov.b64 {t}, {x}"));
        t
    }

    fn repeat(&mut self, axis: AxisId, extent: Scalar, body: &[Stmt]) {
        let mut regs = vec![];
        assigned(body, &mut regs);
        self.ahead(body, &regs, axis);
        let (x, p, mut n) = (self.axis(axis), self.temp(Elem::Mask), self.scalar(extent));
        if matches!(extent, Scalar::Reg(r) if regs.contains(&r)) {
            let kept = self.temp(Elem::I64);
            self.line(format!("mov.b64 {kept}, {n}"));
            n = kept;
        }
        let (head, end) = (self.label(), self.label());
        self.line(format!("mov.b64 {x}, 0"));
        if !matches!(extent, Scalar::Const(n) if n > 0) {
            self.line(format!("setp.ge.s64 {p}, {x}, {n}"));
            self.line(format!("@{p} bra.uni {end}"));
        }
        let _ = writeln!(self.body, "{head}:");
        let before = self.order.mark();
        if self.order.repeats(body) {
            self.wait();
        }
        self.sums.enter(axis, &regs);
        self.stmts(body);
        self.sums.leave(axis);
        self.line(format!("add.s64 {x}, {x}, 1"));
        self.line(format!("setp.lt.s64 {p}, {x}, {n}"));
        self.line(format!("@{p} bra.uni {head}"));
        let _ = writeln!(self.body, "{end}:");
        self.order.join(before);
    }

    /// A warp's barrier.
    pub(super) fn wait(&mut self) {
        self.line("bar.warp.sync -1".into());
    }

    pub(super) fn inst(&mut self, i: &Inst) {
        use Inst::*;
        if matches!(i, TileZero { .. } | TileLoad { .. } | TileStore { .. } | TileDot2 { .. }) {
            self.tile(i);
        } else if i.addr().is_some() {
            self.memory(i);
        } else {
            match i {
                Index { dst, at } => self.index(*dst, at),
                Lanes { dst, count } => {
                    let lane = self.lane(self.k.ty(*dst).lanes);
                    let wide = self.temp(Elem::I64);
                    self.line(format!("cvt.u64.u32 {wide}, {lane}"));
                    let (d, n) = (self.reg(*dst), self.scalar(*count));
                    self.line(format!("setp.lt.s64 {d}, {wide}, {n}"));
                }
                SetStatus { mask } => {
                    let status = self.k.status().expect("verified");
                    let one = self.temp(Elem::I32);
                    self.line(format!("mov.b32 {one}, 1"));
                    let (m, at) = (self.reg(*mask), self.param(status));
                    self.line(format!("@{m} st.global.u32 [{at}], {one}"));
                }
                Barrier => {
                    self.order.barrier();
                    self.line("bar.sync 0".into());
                }
                Extract { dst, a, lane } => self.exchange(*dst, *a, "idx", &lane.to_string()),
                Shuffle { dst, a, b, sel } => self.shuffle(*dst, *a, *b, sel),
                _ => self.value(i),
            }
        }
        if let Some(d) = i.dst() {
            self.sums.assigned(d);
        }
    }

    /// What every thread does for its lane.
    fn value(&mut self, i: &Inst) {
        use Inst::*;
        let Some(dst) = i.dst() else { return };
        let (d, ty) = (self.reg(dst), self.k.ty(dst));
        let name = |r: &Reg| self.reg(*r);
        let text = match i {
            Const { bits, .. } => match ty.elem {
                Elem::F32 => format!("mov.f32 {d}, 0f{:08X}", *bits as u32),
                Elem::F64 => format!("mov.f64 {d}, 0d{bits:016X}"),
                Elem::I32 => format!("mov.b32 {d}, {}", *bits as u32 as i32),
                Elem::I64 => format!("mov.b64 {d}, {}", *bits as i64),
                Elem::Mask => format!("setp.ne.s32 {d}, %zero, {}", i32::from(*bits != 0)),
            },
            Splat { src, .. } => format!("mov.{} {d}, {}", table::kind(ty.elem), name(src)),
            Iota { .. } => {
                let lane = self.lane(ty.lanes);
                match ty.elem {
                    Elem::I64 => format!("cvt.u64.u32 {d}, {lane}"),
                    _ => format!("mov.b32 {d}, {lane}"),
                }
            }
            Un { op, a, .. } => format!("{} {d}, {}", table::unary(*op, ty.elem), name(a)),
            Bin { op, a, b, .. } => {
                let (a, mut b) = (name(a), name(b));
                let shift = matches!(op, BinOp::Shl | BinOp::Shr | BinOp::UShr);
                if shift && ty.elem == Elem::I64 {
                    let count = self.temp(Elem::I32);
                    self.line(format!("cvt.u32.u64 {count}, {b}"));
                    b = count;
                }
                format!("{} {d}, {a}, {b}", table::binary(*op, ty.elem))
            }
            Fma { a, b, c, .. } => {
                format!(
                    "fma.rn.{} {d}, {}, {}, {}",
                    table::kind(ty.elem),
                    name(a),
                    name(b),
                    name(c)
                )
            }
            Cmp { op, a, b, .. } => {
                let e = self.k.ty(*a).elem;
                format!("{} {d}, {}, {}", table::compare(*op, e), name(a), name(b))
            }
            Select { mask, a, b, .. } => {
                let ty = table::kind(ty.elem);
                format!("selp.{ty} {d}, {}, {}, {}", name(a), name(b), name(mask))
            }
            Cvt { a, .. } => {
                format!("{} {d}, {}", table::convert(self.k.ty(*a).elem, ty.elem), name(a))
            }
            Bitcast { a, .. } => format!("mov.{} {d}, {}", table::bits(ty.elem), name(a)),
            i => unreachable!("{i} is not legal"),
        };
        self.line(text);
    }

    fn index(&mut self, dst: Reg, at: &Affine) {
        let d = self.reg(dst);
        let mut sum = match &at.terms[..] {
            [] => return self.line(format!("mov.b64 {d}, {}", at.offset)),
            _ => at.offset.to_string(),
        };
        for (v, c) in &at.terms {
            let first = !sum.starts_with('%');
            let whole = match (v, c) {
                (Var::Axis(a), Coef { mul: 1, param: None }) => Some(self.axis(*a)),
                (Var::Reg(r), Coef { mul: 1, param: None }) => Some(self.reg(*r)),
                (Var::One, Coef { mul: 1, param: Some(p) }) => Some(self.param(*p)),
                _ => None,
            };
            sum = match whole {
                Some(x) if first && sum == "0" => x,
                Some(x) => {
                    let t = self.temp(Elem::I64);
                    self.line(format!("add.s64 {t}, {x}, {sum}"));
                    t
                }
                None => {
                    let from = self.in_register(sum);
                    self.plus(&from, *v, *c)
                }
            };
        }
        self.line(format!("mov.b64 {d}, {sum}"));
    }
}
