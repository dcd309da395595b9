//! Writes a legal kernel as PTX, line by line. Registers are virtual: register `v7` of the kernel is
//! `%f7`, `%l7`… by its element, and temporaries follow.
//!
//! Invariants: branches are the same for a whole warp; a store is done by one thread a lane; where a
//! thread may read what another of its warp has written, or write what another reads, a warp's barrier
//! stands between. None stands between two writes: a kernel writes no byte of an output twice
//! ([`crate::kir::share`] stands on that too), and scratch is read before it is written again.

use super::addr::{Lane, Sums, lane_of};
use super::table;
use crate::kir::*;
use hub_abi::Dtype;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// A kernel being written.
pub(super) struct Renderer<'k> {
    pub(super) k: &'k Kernel,
    pub(super) sums: Sums,
    body: String,
    temps: BTreeMap<&'static str, u32>,
    labels: u32,
    /// Numbers of lanes that lane numbers (`true`: or stores) are asked for.
    lanes: BTreeSet<u8>,
    stores: BTreeSet<u8>,
    /// Tables of selectors, 32 bytes each.
    tables: Vec<Vec<u8>>,
    /// Memory that is both read and written.
    shared: BTreeSet<Base>,
    /// Of which, what was read and what was written since the last barrier.
    read: BTreeSet<Base>,
    written: BTreeSet<Base>,
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
        tables: vec![],
        shared: both(k),
        read: BTreeSet::new(),
        written: BTreeSet::new(),
    };
    r.stmts(&k.body);
    r.finish(warps)
}

/// Memory that a kernel reads and writes.
fn both(k: &Kernel) -> BTreeSet<Base> {
    let (mut reads, mut writes) = (BTreeSet::new(), BTreeSet::new());
    touched(&k.body, &mut |b, w| {
        if w {
            writes.insert(b)
        } else {
            reads.insert(b)
        };
    });
    reads.intersection(&writes).copied().collect()
}

fn touched(body: &[Stmt], f: &mut dyn FnMut(Base, bool)) {
    for s in body {
        match s {
            Stmt::Inst(i) => {
                if let Some(a) = i.addr() {
                    f(a.base, i.writes_memory())
                }
            }
            Stmt::For { body, .. } => touched(body, f),
            Stmt::If { then, els, .. } => {
                touched(then, f);
                touched(els, f);
            }
        }
    }
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

    fn temp_of(&mut self, letter: &'static str) -> String {
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

    fn scalar(&self, s: Scalar) -> String {
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
        for s in body {
            match s {
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
        let (read, written) = (self.read.clone(), self.written.clone());
        self.sums.open();
        self.stmts(then);
        self.sums.close();
        if !els.is_empty() {
            self.line(format!("bra.uni {end}"));
        }
        let _ = writeln!(self.body, "{other}:");
        let after = (std::mem::replace(&mut self.read, read), {
            std::mem::replace(&mut self.written, written)
        });
        if !els.is_empty() {
            self.sums.open();
            self.stmts(els);
            self.sums.close();
            let _ = writeln!(self.body, "{end}:");
        }
        self.read.extend(after.0);
        self.written.extend(after.1);
    }

    /// The first operand of a comparison is a register.
    fn in_register(&mut self, x: String) -> String {
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
        let before = (self.read.clone(), self.written.clone());
        let mut again = false;
        touched(body, &mut |b, _| again |= self.shared.contains(&b));
        if again {
            // What the iteration before did.
            self.barrier();
        }
        self.sums.enter(axis, &regs);
        self.stmts(body);
        self.sums.leave(axis);
        self.line(format!("add.s64 {x}, {x}, 1"));
        self.line(format!("setp.lt.s64 {p}, {x}, {n}"));
        self.line(format!("@{p} bra.uni {head}"));
        let _ = writeln!(self.body, "{end}:");
        self.read.extend(before.0);
        self.written.extend(before.1);
    }

    fn barrier(&mut self) {
        self.read.clear();
        self.written.clear();
        self.line("bar.warp.sync -1".into());
    }

    fn inst(&mut self, i: &Inst) {
        use Inst::*;
        if i.addr().is_some() {
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

    /// `dst` is another lane's `a`.
    fn exchange(&mut self, dst: Reg, a: Reg, mode: &str, by: &str) {
        let (d, s, e) = (self.reg(dst), self.reg(a), self.k.ty(a).elem);
        if e.size() == 4 {
            return self.line(format!("shfl.sync.{mode}.b32 {d}, {s}, {by}, 31, -1"));
        }
        let half: Vec<String> = (0..4).map(|_| self.temp(Elem::I32)).collect();
        self.line(format!("mov.b64 {{{}, {}}}, {s}", half[0], half[1]));
        for i in 0..2 {
            let (to, from) = (&half[2 + i], &half[i]);
            self.line(format!("shfl.sync.{mode}.b32 {to}, {from}, {by}, 31, -1"));
        }
        self.line(format!("mov.b64 {d}, {{{}, {}}}", half[2], half[3]));
    }

    fn shuffle(&mut self, dst: Reg, a: Reg, b: Reg, sel: &[u8]) {
        let n = sel.len() as u8;
        let one = match sel.iter().filter(|s| **s >= n).count() {
            _ if a == b => Some(a),
            0 => Some(a),
            c if c == sel.len() => Some(b),
            _ => None,
        };
        let own: Vec<u8> = sel.iter().map(|s| s % n).collect();
        if let Some(a) = one {
            if own.iter().enumerate().all(|(l, s)| l as u8 ^ own[0] == *s) {
                return self.exchange(dst, a, "bfly", &own[0].to_string());
            }
            let at = self.selector(&own);
            return self.exchange(dst, a, "idx", &at);
        }
        let at = self.selector(sel);
        let (x, p) = (self.temp(Elem::I32), self.temp(Elem::Mask));
        self.line(format!("setp.lt.u32 {p}, {at}, {n}"));
        self.line(format!("and.b32 {x}, {at}, {}", n - 1));
        let e = self.k.ty(dst).elem;
        let (d, first) = (self.reg(dst), self.temp(e));
        // Both are read before `dst`, which may be one of them, is written.
        let second = self.temp(e);
        self.exchange_to(&first, a, &x);
        self.exchange_to(&second, b, &x);
        self.line(format!("selp.{} {d}, {first}, {second}, {p}", table::kind(e)));
    }

    fn exchange_to(&mut self, to: &str, a: Reg, by: &str) {
        let e = self.k.ty(a).elem;
        let s = self.reg(a);
        if e.size() == 4 {
            return self.line(format!("shfl.sync.idx.b32 {to}, {s}, {by}, 31, -1"));
        }
        let half: Vec<String> = (0..4).map(|_| self.temp(Elem::I32)).collect();
        self.line(format!("mov.b64 {{{}, {}}}, {s}", half[0], half[1]));
        for i in 0..2 {
            let (t, f) = (&half[2 + i], &half[i]);
            self.line(format!("shfl.sync.idx.b32 {t}, {f}, {by}, 31, -1"));
        }
        self.line(format!("mov.b64 {to}, {{{}, {}}}", half[2], half[3]));
    }

    /// This thread's entry of a table.
    fn selector(&mut self, sel: &[u8]) -> String {
        let n = sel.len() as u8;
        let (at, x) = (self.temp(Elem::I32), self.lane(n));
        let by = sel[0];
        if sel.iter().enumerate().all(|(l, s)| (l as u8 + by) % n == *s) {
            self.line(format!("add.s32 {at}, {x}, {by}"));
            self.line(format!("and.b32 {at}, {at}, {}", n - 1));
            return at;
        }
        if sel.iter().all(|s| *s == by) {
            self.line(format!("mov.b32 {at}, {by}"));
            return at;
        }
        let table = match self.tables.iter().position(|t| t == sel) {
            Some(i) => i,
            None => {
                self.tables.push(sel.to_vec());
                self.tables.len() - 1
            }
        };
        let (base, from) = (self.temp(Elem::I64), self.temp(Elem::I64));
        self.line(format!("mov.b64 {base}, {}_sel{table}", self.k.name));
        self.line(format!("mad.wide.s32 {from}, {x}, 1, {base}"));
        self.line(format!("ld.const.u8 {at}, [{from}]"));
        at
    }

    fn memory(&mut self, i: &Inst) {
        use Inst::*;
        let Some(addr) = i.addr() else { return };
        let (reg, dtype, mask) = match i {
            Load { dst, dtype, mask, .. }
            | LoadStrided { dst, dtype, mask, .. }
            | Gather { dst, dtype, mask, .. } => (*dst, *dtype, *mask),
            LoadSplat { dst, dtype, .. } => (*dst, *dtype, None),
            Store { src, dtype, mask, .. } | StoreStrided { src, dtype, mask, .. } => {
                (*src, *dtype, *mask)
            }
            _ => return,
        };
        let store = i.writes_memory();
        self.ordered(addr.base, store);
        let lane = match i {
            LoadSplat { .. } => Lane::None,
            i => lane_of(self.k, i),
        };
        let (at, offset) = self.address(addr, lane);
        let space = if addr.base == Base::Scratch { "shared" } else { "global" };
        let at = match offset {
            0 => format!("[{at}]"),
            n => format!("[{at}{n:+}]"),
        };
        match store {
            true => self.store(reg, dtype, mask, space, &at),
            false => self.load(reg, dtype, mask, space, &at),
        }
    }

    /// A barrier, where this access needs one before it.
    fn ordered(&mut self, base: Base, store: bool) {
        if !self.shared.contains(&base) {
            return;
        }
        let others = if store { &self.read } else { &self.written };
        if others.contains(&base) {
            self.barrier();
        }
        if store {
            self.written.insert(base)
        } else {
            self.read.insert(base)
        };
    }

    fn load(&mut self, dst: Reg, dtype: Dtype, mask: Option<Reg>, space: &str, at: &str) {
        let (e, d) = (self.k.ty(dst).elem, self.reg(dst));
        // Half floats come as bits, f32 for f64 as f32.
        let half = matches!(dtype, Dtype::F16 | Dtype::BF16);
        let raw = match (e, dtype) {
            (_, Dtype::F16) => self.temp_of("h"),
            (_, Dtype::BF16) => self.temp(Elem::I32),
            (Elem::F64, Dtype::F32) => self.temp(Elem::F32),
            _ => d.clone(),
        };
        let on = match mask {
            None => String::new(),
            Some(m) => {
                let zero = match (half, e, dtype) {
                    (true, _, Dtype::F16) => format!("mov.b16 {raw}, 0"),
                    (_, Elem::F64, Dtype::F64) => format!("mov.f64 {raw}, 0d0000000000000000"),
                    (false, Elem::F32 | Elem::F64, _) => format!("mov.f32 {raw}, 0f00000000"),
                    (false, Elem::I64, _) => format!("mov.b64 {raw}, 0"),
                    _ => format!("mov.b32 {raw}, 0"),
                };
                self.line(zero);
                format!("@{} ", self.reg(m))
            }
        };
        self.line(format!("{on}ld.{space}.{} {raw}, {at}", table::access(dtype)));
        match (e, dtype) {
            (_, Dtype::F16) => self.line(format!("cvt.f32.f16 {d}, {raw}")),
            (_, Dtype::BF16) => {
                self.line(format!("shl.b32 {raw}, {raw}, 16"));
                self.line(format!("mov.b32 {d}, {raw}"));
            }
            (Elem::F64, Dtype::F32) => self.line(format!("cvt.f64.f32 {d}, {raw}")),
            _ => {}
        }
    }

    fn store(&mut self, src: Reg, dtype: Dtype, mask: Option<Reg>, space: &str, at: &str) {
        let ty = self.k.ty(src);
        let mut raw = self.reg(src);
        match (ty.elem, dtype) {
            (_, Dtype::F16) => {
                let h = self.temp_of("h");
                self.line(format!("cvt.rn.f16.f32 {h}, {raw}"));
                raw = h;
            }
            (_, Dtype::BF16) => raw = self.bf16_of(&raw),
            (Elem::F64, Dtype::F32) => {
                let f = self.temp(Elem::F32);
                self.line(format!("cvt.rn.f32.f64 {f}, {raw}"));
                raw = f;
            }
            _ => {}
        }
        let mut on = mask.map(|m| self.reg(m));
        if ty.lanes < 32 {
            self.stores.insert(ty.lanes);
            let first = format!("%first{}", ty.lanes);
            on = Some(match on {
                None => first,
                Some(m) => {
                    let p = self.temp(Elem::Mask);
                    self.line(format!("and.pred {p}, {m}, {first}"));
                    p
                }
            });
        }
        let on = on.map_or(String::new(), |p| format!("@{p} "));
        let kind = match dtype {
            Dtype::I8 => "u8",
            Dtype::I16 => "u16",
            Dtype::I32 => "u32",
            d => table::access(d),
        };
        self.line(format!("{on}st.{space}.{kind} {at}, {raw}"));
    }

    /// Rounds to nearest even by hand; a NaN stays one.
    fn bf16_of(&mut self, x: &str) -> String {
        let (bits, odd, nan) = (self.temp(Elem::I32), self.temp(Elem::I32), self.temp(Elem::Mask));
        let (sum, quiet) = (self.temp(Elem::I32), self.temp(Elem::I32));
        self.line(format!("mov.b32 {bits}, {x}"));
        self.line(format!("shr.u32 {odd}, {bits}, 16"));
        self.line(format!("or.b32 {quiet}, {odd}, 64"));
        self.line(format!("and.b32 {odd}, {odd}, 1"));
        self.line(format!("add.s32 {sum}, {bits}, 32767"));
        self.line(format!("add.s32 {sum}, {sum}, {odd}"));
        self.line(format!("shr.u32 {sum}, {sum}, 16"));
        self.line(format!("setp.neu.f32 {nan}, {x}, {x}"));
        self.line(format!("selp.b32 {sum}, {quiet}, {sum}, {nan}"));
        sum
    }

    /// The entry around the body.
    fn finish(self, warps: u64) -> String {
        let (k, mut out) = (self.k, String::new());
        for (i, t) in self.tables.iter().enumerate() {
            let bytes: Vec<String> = t.iter().map(u8::to_string).collect();
            let _ = writeln!(
                out,
                ".const .align 4 .b8 {}_sel{i}[{}] = {{{}}};",
                k.name,
                t.len(),
                bytes.join(", ")
            );
        }
        let n = 8 * k.params.len().max(1);
        let _ = writeln!(out, ".visible .entry {}(.param .align 8 .b8 args[{n}])", k.name);
        // One block a processor is enough: left to itself ptxas spills to make room for more.
        let _ = writeln!(out, ".reqntid {}, 1, 1\n.minnctapersm 1\n{{", 32 * warps);
        self.declare(&mut out, warps);
        self.prologue(&mut out, warps);
        out.push_str(&self.body);
        out.push_str("DONE:\n\tret;\n}\n");
        out
    }

    fn declare(&self, out: &mut String, warps: u64) {
        let k = self.k;
        let elems = [Elem::F32, Elem::F64, Elem::I32, Elem::I64, Elem::Mask];
        let half = ("h", "b16", true);
        let of = elems.map(|e| (table::letter(e), table::kind(e), false));
        for (letter, kind, temps_only) in of.into_iter().chain([half]) {
            let temps = self.temps.get(letter).copied();
            let used = !temps_only && k.regs.iter().any(|t| table::letter(t.elem) == letter);
            if let Some(n) = temps.or(used.then_some(k.regs.len() as u32)) {
                let _ = writeln!(out, "\t.reg .{kind} %{letter}<{n}>;");
            }
        }
        let _ = writeln!(out, "\t.reg .b64 %a<{}>;", k.params.len().max(1));
        let _ = writeln!(out, "\t.reg .b64 %x<{}>;", k.axes.len().max(1));
        let _ = writeln!(out, "\t.reg .b64 %scratch, %n;");
        let _ = writeln!(out, "\t.reg .b32 %zero, %thread, %warp, %tile, %tiles, %rest, %t;");
        let _ = writeln!(out, "\t.reg .pred %past;");
        for n in &self.lanes {
            let _ = writeln!(out, "\t.reg .b32 %lane{n};");
        }
        for n in &self.stores {
            let _ = writeln!(out, "\t.reg .pred %first{n};");
        }
        if k.scratch_bytes > 0 {
            let bytes = warps * k.scratch_bytes;
            let _ = writeln!(out, "\t.shared .align 64 .b8 room[{bytes}];");
        }
    }

    /// Arguments, the thread's place, and which tile this warp does.
    fn prologue(&self, out: &mut String, warps: u64) {
        let k = self.k;
        let mut line = |text: String| {
            let _ = writeln!(out, "\t{text};");
        };
        for i in 0..k.params.len() {
            line(format!("ld.param.b64 %a{i}, [args+{}]", 8 * i));
        }
        line("mov.b32 %zero, 0".into());
        line("mov.u32 %t, %tid.x".into());
        line("and.b32 %thread, %t, 31".into());
        line("shr.u32 %warp, %t, 5".into());
        line("mov.u32 %t, %ctaid.x".into());
        line(format!("mad.lo.s32 %tile, %t, {warps}, %warp"));
        // Tiles are fewer than 2^32: no more blocks than 2^31 are ever launched.
        line("mov.b32 %tiles, 1".into());
        for g in &k.grid {
            match (g.extent.param, g.extent.mul) {
                (Some(p), _) => {
                    line(format!("max.s64 %n, %a{}, 0", p.0));
                    line("cvt.u32.u64 %t, %n".into());
                    line("mul.lo.s32 %tiles, %tiles, %t".into());
                }
                (None, n) => line(format!("mul.lo.s32 %tiles, %tiles, {}", n.max(0))),
            }
        }
        line("setp.ge.u32 %past, %tile, %tiles".into());
        line("@%past bra.uni DONE".into());
        line("mov.b32 %rest, %tile".into());
        for (i, g) in k.grid.iter().enumerate().rev() {
            let x = format!("%x{}", g.axis.0);
            if i == 0 {
                line(format!("cvt.u64.u32 {x}, %rest"));
                continue;
            }
            let n = match (g.extent.param, g.extent.mul) {
                (Some(p), _) => {
                    line(format!("cvt.u32.u64 %t, %a{}", p.0));
                    "%t".to_string()
                }
                (None, n) => n.to_string(),
            };
            line(format!("rem.u32 %tile, %rest, {n}"));
            line(format!("cvt.u64.u32 {x}, %tile"));
            line(format!("div.u32 %rest, %rest, {n}"));
        }
        for n in &self.lanes {
            line(format!("and.b32 %lane{n}, %thread, {}", n - 1));
        }
        for n in &self.stores {
            line(format!("setp.lt.u32 %first{n}, %thread, {n}"));
        }
        if k.scratch_bytes > 0 {
            line("mov.b64 %scratch, room".into());
            line(format!("mad.wide.s32 %scratch, %warp, {}, %scratch", k.scratch_bytes));
        }
    }
}
