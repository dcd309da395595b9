//! Writes a legal kernel as OpenCL C, a statement an instruction. Register 7 is the variable `v7`,
//! parameter 2 is `a2`, axis 3 is `x3`; `lane16` is an item's lane among 16.
//!
//! Invariants: branches and loops are the same for a whole group, so that barriers may stand in them;
//! a store is done by one item a lane.

use super::super::simt::order::Order;
use super::table::{self, binary, compare, convert, memory, ty, unary};
use crate::kir::*;
use hub_abi::Dtype;
use std::collections::BTreeSet;
use std::fmt::Write;

/// Bytes of local memory through which lanes are exchanged.
pub const EXCHANGE: u64 = 2 * 8 * super::ITEMS;

struct Renderer<'k> {
    k: &'k Kernel,
    body: String,
    depth: usize,
    order: Order,
    /// Numbers of lanes that lane numbers are asked for.
    lanes: BTreeSet<u8>,
    /// Tables of selectors.
    tables: Vec<Vec<u8>>,
    /// Lanes are exchanged.
    exchanges: bool,
}

/// OpenCL C of a legal kernel.
pub fn render(k: &Kernel) -> String {
    let mut r = Renderer {
        k,
        body: String::new(),
        depth: 1,
        order: Order::new(k),
        lanes: BTreeSet::new(),
        tables: vec![],
        exchanges: false,
    };
    r.stmts(&k.body);
    r.finish()
}

fn reg(r: Reg) -> String {
    format!("v{}", r.0)
}

/// A constant of 64 bits; the least one has no literal.
fn long(n: i64) -> String {
    match n {
        i64::MIN => "LONG_MIN".into(),
        n => format!("{n}L"),
    }
}

fn scalar(s: Scalar) -> String {
    match s {
        Scalar::Const(n) => long(n),
        Scalar::Param(p) => format!("a{}", p.0),
        Scalar::Reg(r) => reg(r),
    }
}

fn coef(c: Coef) -> String {
    match (c.param, c.mul) {
        (None, n) => long(n),
        (Some(p), 1) => format!("a{}", p.0),
        (Some(p), n) => format!("a{} * {}", p.0, long(n)),
    }
}

/// An affine expression of 64 bits.
fn affine(a: &Affine) -> String {
    let mut terms: Vec<String> = vec![];
    for (v, c) in &a.terms {
        let by = coef(*c);
        terms.push(match v {
            Var::One => by,
            Var::Axis(x) if by == "1L" => format!("x{}", x.0),
            Var::Axis(x) => format!("x{} * {by}", x.0),
            Var::Reg(r) if by == "1L" => reg(*r),
            Var::Reg(r) => format!("{} * {by}", reg(*r)),
        });
    }
    if a.offset != 0 || terms.is_empty() {
        terms.push(long(a.offset));
    }
    terms.join(" + ")
}

impl Renderer<'_> {
    fn line(&mut self, text: &str) {
        let _ = writeln!(self.body, "{:1$}{text}", "", 2 * self.depth);
    }

    fn set(&mut self, dst: Reg, value: String) {
        self.line(&format!("{} = {value};", reg(dst)));
    }

    fn barrier(&mut self) {
        self.order.barrier();
        self.line("barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE);");
    }

    /// The number of this item's lane among so many.
    fn lane(&mut self, lanes: u8) -> String {
        self.lanes.insert(lanes);
        format!("lane{lanes}")
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

    fn block(&mut self, body: &[Stmt]) {
        self.depth += 1;
        self.stmts(body);
        self.depth -= 1;
    }

    fn branch(&mut self, c: &Cond, then: &[Stmt], els: &[Stmt]) {
        let holds = compare(c.op, Elem::I64, &scalar(c.a), &scalar(c.b));
        self.line(&format!("if ({holds}) {{"));
        let before = self.order.mark();
        self.block(then);
        let after = self.order.back(before);
        if !els.is_empty() {
            self.line("} else {");
            self.block(els);
        }
        self.line("}");
        self.order.join(after);
    }

    fn repeat(&mut self, axis: AxisId, extent: Scalar, body: &[Stmt]) {
        let x = format!("x{}", axis.0);
        let n = match extent {
            // The loop may assign it.
            Scalar::Reg(r) => {
                self.line(&format!("{{ const long n{x} = {};", reg(r)));
                format!("n{x}")
            }
            n => scalar(n),
        };
        self.line(&format!("for ({x} = 0; {x} < {n}; ++{x}) {{"));
        let before = self.order.mark();
        if self.order.repeats(body) {
            self.depth += 1;
            self.barrier();
            self.depth -= 1;
        }
        self.block(body);
        self.order.join(before);
        self.line(if matches!(extent, Scalar::Reg(_)) { "} }" } else { "}" });
    }

    fn inst(&mut self, i: &Inst) {
        use Inst::*;
        if i.addr().is_some() {
            return self.memory(i);
        }
        match i {
            Lanes { dst, count } => {
                let lane = self.lane(self.k.ty(*dst).lanes);
                self.set(*dst, format!("(long){lane} < {}", scalar(*count)));
            }
            SetStatus { mask } => {
                let status = self.k.status().expect("verified");
                self.line(&format!("if ({}) *a{} = 1u;", reg(*mask), status.0));
            }
            Extract { dst, a, lane } => self.exchange(*dst, *a, *a, &lane.to_string()),
            Shuffle { dst, a, b, sel } => {
                let at = self.selector(sel);
                self.exchange(*dst, *a, *b, &at);
            }
            i => self.value(i),
        }
    }

    /// What every item does for its lane.
    fn value(&mut self, i: &Inst) {
        use Inst::*;
        let Some(dst) = i.dst() else { return };
        let t = self.k.ty(dst);
        let e = t.elem;
        let text = match i {
            Const { bits, .. } => match e {
                Elem::F32 => format!("as_float(0x{:08X}u)", *bits as u32),
                Elem::F64 => format!("as_double(0x{bits:016X}ul)"),
                Elem::I32 => format!("(int)0x{:08X}u", *bits as u32),
                Elem::I64 => format!("(long)0x{bits:016X}ul"),
                Elem::Mask => i32::from(*bits != 0).to_string(),
            },
            Splat { src, .. } => reg(*src),
            Iota { .. } => self.lane(t.lanes),
            Index { at, .. } => affine(at),
            Un { op, a, .. } => unary(*op, e, &reg(*a)),
            Bin { op, a, b, .. } => binary(*op, e, &reg(*a), &reg(*b)),
            Fma { a, b, c, .. } => format!("fma({}, {}, {})", reg(*a), reg(*b), reg(*c)),
            Cmp { op, a, b, .. } => compare(*op, self.k.ty(*a).elem, &reg(*a), &reg(*b)),
            Select { mask, a, b, .. } => format!("{} ? {} : {}", reg(*mask), reg(*a), reg(*b)),
            Cvt { a, .. } => convert(self.k.ty(*a).elem, e, &reg(*a)),
            Bitcast { a, .. } => format!("as_{}({})", ty(e), reg(*a)),
            i => unreachable!("{i} is not legal"),
        };
        self.set(dst, text);
    }

    /// `dst` is what item `at` of `a`, or of `b` from 32 on, holds.
    fn exchange(&mut self, dst: Reg, a: Reg, b: Reg, at: &str) {
        self.exchanges = true;
        let (e, u) = (self.k.ty(a).elem, table::bits(self.k.ty(a).elem));
        let as_bits = |r: Reg| match e {
            Elem::Mask => format!("(uint){}", reg(r)),
            _ => format!("as_{u}({})", reg(r)),
        };
        // Others may still read what was exchanged before.
        self.barrier();
        self.line(&format!("((__local {u} *)room)[item] = {};", as_bits(a)));
        if a != b {
            self.line(&format!("((__local {u} *)room)[32 + item] = {};", as_bits(b)));
        }
        self.barrier();
        let read = format!("((__local {u} *)room)[{at}]");
        self.set(dst, if e == Elem::Mask { read } else { format!("as_{}({read})", ty(e)) });
    }

    /// Where this item's element comes from: an item's number, and 32 more of the second operand.
    fn selector(&mut self, sel: &[u8]) -> String {
        let n = sel.len() as u8;
        let lane = self.lane(n);
        let of: Vec<u8> = sel.iter().map(|s| if *s < n { *s } else { *s - n + 32 }).collect();
        let by = of[0];
        if of.iter().enumerate().all(|(l, s)| l as u8 ^ by == *s) {
            return format!("{lane} ^ {by}");
        }
        if of.iter().all(|s| *s == by) {
            return by.to_string();
        }
        let at = self.tables.iter().position(|t| *t == of).unwrap_or(self.tables.len());
        if at == self.tables.len() {
            self.tables.push(of);
        }
        format!("{}_sel{at}[{lane}]", self.k.name)
    }

    fn memory(&mut self, i: &Inst) {
        use Inst::*;
        let Some(addr) = i.addr() else { return };
        let (r, dtype, mask) = match i {
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
        if self.order.access(addr.base, store) {
            self.barrier();
            // (The access itself comes after it.)
            self.order.access(addr.base, store);
        }
        let lanes = self.k.ty(r).lanes;
        let along = match i {
            LoadSplat { .. } => None,
            Load { .. } | Store { .. } => Some(long(dtype.size() as i64)),
            LoadStrided { stride, .. } | StoreStrided { stride, .. } => Some(coef(*stride)),
            _ => None,
        };
        let mut at = affine(&addr.at);
        if let (Some(step), true) = (along, lanes > 1) {
            let lane = self.lane(lanes);
            let _ = write!(at, " + (long){lane} * ({step})");
        }
        if let Gather { idx, stride, .. } = i {
            let _ = write!(at, " + (long){} * ({})", reg(*idx), coef(*stride));
        }
        let (space, base) = match addr.base {
            Base::Param(p) => ("__global", format!("a{}", p.0)),
            Base::Scratch => ("__local", "scratch".into()),
        };
        let constant = if store { "" } else { "const " };
        let place = format!("({space} {constant}{} *)({base} + ({at}))", memory(dtype));
        match store {
            true => self.store(r, dtype, mask, &place),
            false => self.load(r, dtype, mask, &place),
        }
    }

    fn load(&mut self, dst: Reg, dtype: Dtype, mask: Option<Reg>, place: &str) {
        let e = self.k.ty(dst).elem;
        let got = match dtype {
            Dtype::F16 => format!("vload_half(0, {place})"),
            Dtype::BF16 => format!("as_float((uint)*{place} << 16)"),
            _ => format!("({})*{place}", ty(e)),
        };
        self.set(
            dst,
            match mask {
                None => got,
                Some(m) => format!("{} ? {got} : ({})0", reg(m), ty(e)),
            },
        );
    }

    fn store(&mut self, src: Reg, dtype: Dtype, mask: Option<Reg>, place: &str) {
        let (t, r) = (self.k.ty(src), reg(src));
        let what = match dtype {
            Dtype::F16 => format!("vstore_half_rte({r}, 0, {place})"),
            Dtype::BF16 => format!("*{place} = to_bf16({r})"),
            Dtype::F32 if t.elem == Elem::F64 => format!("*{place} = convert_float_rte({r})"),
            _ => format!("*{place} = ({}){r}", memory(dtype)),
        };
        let mut when: Vec<String> = mask.iter().map(|m| reg(*m)).collect();
        if u64::from(t.lanes) < super::ITEMS {
            when.push(format!("item < {}", t.lanes));
        }
        match when.is_empty() {
            true => self.line(&format!("{what};")),
            false => self.line(&format!("if ({}) {what};", when.join(" && "))),
        }
    }

    /// The function around the body.
    fn finish(self) -> String {
        let (k, mut out) = (self.k, String::new());
        for (i, t) in self.tables.iter().enumerate() {
            let entries: Vec<String> = t.iter().map(u8::to_string).collect();
            let (n, entries) = (t.len(), entries.join(", "));
            let _ = writeln!(out, "__constant uchar {}_sel{i}[{n}] = {{{entries}}};", k.name);
        }
        let params: Vec<String> = k.params.iter().enumerate().map(parameter).collect();
        let _ = writeln!(out, "__kernel __attribute__((reqd_work_group_size(32, 1, 1)))");
        let _ = writeln!(out, "void {}({})\n{{", k.name, params.join(", "));
        self.prologue(&mut out);
        out.push_str(&self.body);
        out.push_str("}\n");
        out
    }

    fn prologue(&self, out: &mut String) {
        let k = self.k;
        let mut line = |text: String| {
            let _ = writeln!(out, "  {text}");
        };
        for (i, p) in k.params.iter().enumerate() {
            match p.kind {
                ParamKind::Ptr { .. } => line(format!("__global uchar *a{i} = p{i} + o{i};")),
                ParamKind::Status => {
                    line(format!("__global uint *a{i} = (__global uint *)(p{i} + o{i});"))
                }
                ParamKind::Size => {}
            }
        }
        line("const int item = (int)get_local_id(0);".into());
        for n in &self.lanes {
            line(format!("const int lane{n} = item & {};", n - 1));
        }
        if k.scratch_bytes > 0 {
            let n = k.scratch_bytes;
            line(format!("__local uchar scratch[{n}] __attribute__((aligned(64)));"));
        }
        if self.exchanges {
            line(format!("__local ulong room[{}];", EXCHANGE / 8));
        }
        for (i, t) in k.regs.iter().enumerate() {
            line(format!("{} v{i} = 0;", ty(t.elem)));
        }
        let grid = |a: usize| k.grid.iter().position(|g| g.axis.0 as usize == a);
        (0..k.axes.len()).filter(|a| grid(*a).is_none()).for_each(|a| line(format!("long x{a};")));
        line("long rest = (long)get_group_id(0);".into());
        for (i, g) in k.grid.iter().enumerate().rev() {
            let (x, n) = (g.axis.0, coef(g.extent));
            if i == 0 {
                line(format!("const long x{x} = rest;"));
            } else {
                line(format!("const long x{x} = rest % ({n}); rest /= ({n});"));
            }
        }
    }
}

/// A parameter of the function: two for what lies in a buffer.
fn parameter((i, p): (usize, &Param)) -> String {
    match p.kind {
        ParamKind::Size => format!("long a{i}"),
        _ => format!("__global uchar *p{i}, ulong o{i}"),
    }
}
