//! Writes a legal kernel as Ascend C, a few calls an instruction. Register 7 is `v7`, parameter 2 is
//! `a2`, axis 3 is `x3`; `c7` is how many lanes a mask of first lanes has on.
//!
//! Invariants: each vector instruction is followed by a barrier of its pipe, and what the scalar unit does
//! to tensors stands between barriers of all pipes, so that nothing overlaps but copies in queues.

use super::table::{self, binary, compare, convert, ty, unary};
use crate::kir::*;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// Lanes of a vector instruction's repeat.
pub const LANES: u8 = 64;
/// The barrier of all pipes.
const ALL: &str = "PipeBarrier<PIPE_ALL>();";

pub(super) struct Renderer<'k> {
    pub(super) k: &'k Kernel,
    body: String,
    depth: usize,
    /// Masks of first lanes, and of these the ones that are asked for lane by lane.
    first: BTreeSet<Reg>,
    asked: BTreeSet<Reg>,
    /// What registers hold that are constants.
    consts: BTreeMap<Reg, u64>,
    /// Tables of selectors.
    tables: Vec<Vec<u8>>,
    /// Nothing came after the last barrier of all pipes.
    settled: bool,
}

/// Ascend C of a legal kernel.
pub fn render(k: &Kernel) -> String {
    let mut r = Renderer {
        k,
        body: String::new(),
        depth: 2,
        first: BTreeSet::new(),
        asked: BTreeSet::new(),
        consts: BTreeMap::new(),
        tables: vec![],
        settled: false,
    };
    r.study();
    r.stmts(&k.body);
    r.finish()
}

/// Bytes of a register's tensor; none of a scalar.
fn slot(t: RegTy) -> u64 {
    match (t.lanes, t.elem) {
        (1, _) => 0,
        (_, Elem::Mask) => 32,
        (n, e) => (u64::from(n) * e.size() as u64).next_multiple_of(32),
    }
}

/// Bytes of unified buffer that a kernel takes beside its queues.
pub fn room(k: &Kernel) -> u64 {
    let regs: u64 = k.regs.iter().map(|t| slot(*t)).sum();
    regs + 4 * u64::from(LANES) + k.scratch_bytes.next_multiple_of(32)
}

pub(super) fn reg(r: Reg) -> String {
    format!("v{}", r.0)
}

fn long(n: i64) -> String {
    match n {
        i64::MIN => "(-9223372036854775807LL - 1)".into(),
        n => format!("{n}LL"),
    }
}

pub(super) fn scalar(s: Scalar) -> String {
    match s {
        Scalar::Const(n) => long(n),
        Scalar::Param(p) => format!("a{}", p.0),
        Scalar::Reg(r) => reg(r),
    }
}

pub(super) fn coef(c: Coef) -> String {
    match (c.param, c.mul) {
        (None, n) => long(n),
        (Some(p), 1) => format!("a{}", p.0),
        (Some(p), n) => format!("a{} * {}", p.0, long(n)),
    }
}

/// An affine expression of 64 bits.
pub(super) fn affine(a: &Affine) -> String {
    let mut terms: Vec<String> = vec![];
    for (v, c) in &a.terms {
        let by = coef(*c);
        terms.push(match v {
            Var::One => by,
            Var::Axis(x) if by == "1LL" => format!("x{}", x.0),
            Var::Axis(x) => format!("x{} * {by}", x.0),
            Var::Reg(r) if by == "1LL" => reg(*r),
            Var::Reg(r) => format!("{} * {by}", reg(*r)),
        });
    }
    if a.offset != 0 || terms.is_empty() {
        terms.push(long(a.offset));
    }
    terms.join(" + ")
}

/// A constant of an element.
fn literal(e: Elem, bits: u64) -> String {
    match e {
        Elem::F32 => {
            let v = f32::from_bits(bits as u32);
            let plain = v.is_finite() && (v == 0.0 || v.is_normal());
            if plain { format!("{v:e}f") } else { format!("HubFloat({:#x}u)", bits as u32) }
        }
        Elem::I32 => format!("(int32_t){:#x}u", bits as u32),
        Elem::I64 => long(bits as i64),
        _ => (bits != 0).to_string(),
    }
}

/// A tensor's elements as others.
pub(super) fn seen(tensor: &str, as_type: &str) -> String {
    format!("{tensor}.ReinterpretCast<{as_type}>()")
}

impl Renderer<'_> {
    /// Which masks are of first lanes, and which registers are constants.
    fn study(&mut self) {
        let (mut made, mut other) = (BTreeMap::<Reg, Vec<Option<u64>>>::new(), BTreeSet::new());
        let (mut first, mut asked) = (BTreeSet::new(), BTreeSet::new());
        each(&self.k.body, &mut |i| {
            if let Some(d) = i.dst() {
                let bits = if let Inst::Const { bits, .. } = i { Some(*bits) } else { None };
                made.entry(d).or_default().push(bits);
                _ = if matches!(i, Inst::Lanes { .. }) { first.insert(d) } else { other.insert(d) };
            }
            let mut uses = vec![];
            i.uses(|r| uses.push(r));
            if let Inst::Load { mask: Some(m), .. } | Inst::Store { mask: Some(m), .. } = i {
                uses.retain(|r| r != m);
            }
            asked.extend(uses);
        });
        self.first = first.difference(&other).copied().collect();
        self.asked = asked;
        let single = made.into_iter().filter_map(|(r, d)| match d[..] {
            [Some(bits)] => Some((r, bits)),
            _ => None,
        });
        self.consts = single.collect();
    }

    pub(super) fn line(&mut self, text: &str) {
        let _ = writeln!(self.body, "{:1$}{text}", "", 2 * self.depth);
        self.settled = text == ALL;
    }

    /// What the scalar unit does to tensors: other pipes wait.
    pub(super) fn alone(&mut self, lines: &[String]) {
        if !self.settled {
            self.line(ALL);
        }
        lines.iter().for_each(|l| self.line(l));
        self.line(ALL);
    }

    /// A vector instruction.
    pub(super) fn vector(&mut self, call: &str) {
        self.line(&format!("{call}; PipeBarrier<PIPE_V>();"));
    }

    pub(super) fn ty(&self, r: Reg) -> RegTy {
        self.k.ty(r)
    }

    /// Do vector instructions compute it?
    pub(super) fn full(&self, r: Reg) -> bool {
        let t = self.ty(r);
        t.lanes == LANES && matches!(t.elem, Elem::F32 | Elem::I32)
    }

    /// Is it a mask of first lanes, of which only their number is known?
    pub(super) fn counted(&self, mask: Reg) -> bool {
        self.first.contains(&mask) && !self.ty(mask).is_scalar()
    }

    fn stmts(&mut self, body: &[Stmt]) {
        for s in body {
            match s {
                Stmt::Inst(i) => self.inst(i),
                Stmt::If { cond, then, els } => {
                    let holds = compare(cond.op, Elem::I64, &scalar(cond.a), &scalar(cond.b));
                    self.line(&format!("if ({holds}) {{"));
                    self.block(then);
                    if !els.is_empty() {
                        self.line("} else {");
                        self.block(els);
                    }
                    self.line("}");
                }
                Stmt::For { axis, extent, body, .. } => {
                    let x = format!("x{}", axis.0);
                    // The loop may assign a register.
                    self.line(&format!("{{ const int64_t n{x} = {};", scalar(*extent)));
                    self.line(&format!("for ({x} = 0; {x} < n{x}; ++{x}) {{"));
                    self.block(body);
                    self.line("} }");
                }
            }
        }
    }

    fn block(&mut self, body: &[Stmt]) {
        self.depth += 1;
        self.stmts(body);
        self.depth -= 1;
    }

    fn inst(&mut self, i: &Inst) {
        use Inst::*;
        if i.addr().is_some() {
            return self.memory(i);
        }
        match i {
            Lanes { dst, count } => self.lanes(*dst, *count),
            SetStatus { mask } => self.status(*mask),
            CheckIndex { dst, idx, bound } => self.check_index(*dst, *idx, *bound),
            Extract { dst, a, lane } => {
                let read = format!("{} = {}.GetValue({lane});", reg(*dst), reg(*a));
                self.alone(&[read]);
            }
            Reduce { op, dst, a } => self.reduce(*op, *dst, *a),
            Shuffle { dst, a, b, sel } => self.shuffle(*dst, (*a, *b), sel),
            i => {
                let Some(dst) = i.dst() else { return };
                if !self.by_vector(i, dst) {
                    self.by_lane(i, dst);
                }
            }
        }
    }

    /// Writes a vector instruction, if one does this.
    fn by_vector(&mut self, i: &Inst, dst: Reg) -> bool {
        use Inst::*;
        let (d, e) = (reg(dst), self.ty(dst).elem);
        let mask64 = e == Elem::Mask && self.ty(dst).lanes == LANES;
        let call = match i {
            _ if !self.full(dst) && !mask64 => return false,
            Const { bits, .. } if !mask64 => format!("Duplicate({d}, {}, 64)", literal(e, *bits)),
            Splat { src, .. } if !mask64 => format!("Duplicate({d}, {}, 64)", reg(*src)),
            Iota { .. } if e == Elem::I32 => format!("CreateVecIndex({d}, (int32_t)0, 64)"),
            Un { op: UnOp::Copy, a, .. } | Bitcast { a, .. } if !mask64 => {
                let (d, a) = (seen(&d, "int32_t"), seen(&reg(*a), "int32_t"));
                format!("Adds({d}, {a}, (int32_t)0, 64)")
            }
            Un { op: UnOp::Not, a, .. } => {
                let (d, a, n) = (seen(&d, "uint16_t"), seen(&reg(*a), "uint16_t"), sixteens(e));
                format!("Not({d}, {a}, {n})")
            }
            Un { op, a, .. } => match table::vector_unary(*op, e) {
                Some((name, "")) => format!("{name}({d}, {}, 64)", reg(*a)),
                Some((name, more)) => format!("{name}({d}, {}, {more}, 64)", reg(*a)),
                None => return false,
            },
            Bin { op, a, b, .. } => return self.binary(*op, dst, *a, *b),
            Fma { a, b, c, .. } if dst == *c && dst != *a && dst != *b => {
                format!("MulAddDst({d}, {}, {}, 64)", reg(*a), reg(*b))
            }
            Fma { a, b, c, .. } => {
                self.vector(&format!("Mul(tmp, {}, {}, 64)", reg(*a), reg(*b)));
                format!("Add({d}, tmp, {}, 64)", reg(*c))
            }
            Cmp { op, a, b, .. } if self.ty(*a).elem == Elem::F32 => {
                let Some(mode) = table::vector_compare(*op) else { return false };
                format!("Compare({d}, {}, {}, {mode}, 64)", reg(*a), reg(*b))
            }
            Select { mask, a, b, .. } if !self.counted(*mask) || self.asked.contains(mask) => {
                let [d, a, b] = [dst, *a, *b].map(|r| match e {
                    Elem::F32 => reg(r),
                    _ => seen(&reg(r), "float"),
                });
                let mode = "SELMODE::VSEL_TENSOR_TENSOR_MODE";
                format!("Select({d}, {}, {a}, {b}, {mode}, 64)", reg(*mask))
            }
            Cvt { a, .. } if self.full(*a) => {
                let mode = if e == Elem::I32 { "CAST_TRUNC" } else { "CAST_RINT" };
                format!("Cast({d}, {}, RoundMode::{mode}, 64)", reg(*a))
            }
            _ => return false,
        };
        self.vector(&call);
        true
    }

    fn binary(&mut self, op: BinOp, dst: Reg, a: Reg, b: Reg) -> bool {
        let (d, e) = (reg(dst), self.ty(dst).elem);
        let (l, r) = (reg(a), reg(b));
        let n = sixteens(e);
        let bits = |x: &str| seen(x, "uint16_t");
        if let Some(name) = table::vector_binary(op, e) {
            self.vector(&format!("{name}({d}, {l}, {r}, 64)"));
            return true;
        }
        if let Some(name) = table::vector_bits(op) {
            self.vector(&format!("{name}({}, {}, {}, {n})", bits(&d), bits(&l), bits(&r)));
            return true;
        }
        let by = self.consts.get(&b).filter(|_| e == Elem::I32);
        match (op, by) {
            // What both have is taken from what any has.
            (BinOp::Xor, _) if e != Elem::Mask => {
                self.vector(&format!("And({}, {}, {}, {n})", bits("tmp"), bits(&l), bits(&r)));
                self.vector(&format!("Or({}, {}, {}, {n})", bits(&d), bits(&l), bits(&r)));
                let (d, t) = (seen(&d, "int32_t"), seen("tmp", "int32_t"));
                self.vector(&format!("Sub({d}, {d}, {t}, 64)"));
            }
            (BinOp::Shl, Some(k)) => {
                self.vector(&format!("ShiftLeft({d}, {l}, (int32_t){k}, 64)"));
            }
            (BinOp::Shr, Some(k)) => {
                self.vector(&format!("ShiftRight({d}, {l}, (int32_t){k}, 64)"));
            }
            (BinOp::UShr, Some(k)) => {
                let (d, l) = (seen(&d, "uint32_t"), seen(&l, "uint32_t"));
                self.vector(&format!("ShiftRight({d}, {l}, (uint32_t){k}, 64)"));
            }
            _ => return false,
        }
        true
    }

    /// An operand of lane `l`, or a scalar.
    pub(super) fn lane(&self, r: Reg) -> String {
        let t = self.ty(r);
        match (t.is_scalar(), t.elem) {
            (true, _) => reg(r),
            (_, Elem::Mask) => format!("(bool)(m{} >> l & 1)", r.0),
            _ => format!("{}.GetValue(l)", reg(r)),
        }
    }

    /// The bits of masks that a loop over lanes reads.
    pub(super) fn masks(&self, of: &[Reg]) -> Vec<String> {
        let vectors = of.iter().filter(|r| {
            let t = self.ty(**r);
            t.elem == Elem::Mask && !t.is_scalar()
        });
        let distinct: BTreeSet<Reg> = vectors.copied().collect();
        distinct.iter().map(|r| format!("const uint64_t m{0} = HubMask(v{0});", r.0)).collect()
    }

    /// A value for each lane, `l` being its number; or one for a scalar.
    pub(super) fn each_lane(&mut self, dst: Reg, reads: &[Reg], value: &str) {
        let (t, d) = (self.ty(dst), reg(dst));
        if t.is_scalar() {
            let vectors = reads.iter().any(|r| !self.ty(*r).is_scalar());
            let set = format!("{d} = {value};");
            return if vectors { self.alone(&[set]) } else { self.line(&set) };
        }
        let mut lines = vec!["{".to_string()];
        lines.extend(self.masks(reads));
        let over = format!("for (int l = 0; l < {}; ++l)", t.lanes);
        if t.elem == Elem::Mask {
            lines.push("uint64_t bits = 0;".into());
            lines.push(format!("{over} bits |= (uint64_t)({value}) << l;"));
            lines.push(format!("HubSetMask({d}, bits); }}"));
        } else {
            lines.push(format!("{over} {d}.SetValue(l, {value}); }}"));
        }
        self.alone(&lines);
    }

    /// An instruction by the scalar unit.
    fn by_lane(&mut self, i: &Inst, dst: Reg) {
        use Inst::*;
        let e = self.ty(dst).elem;
        let x = |r: Reg| self.lane(r);
        let value = match i {
            Const { bits, .. } => literal(e, *bits),
            Splat { src, .. } => reg(*src),
            Iota { .. } => format!("({})l", ty(e)),
            Index { at, .. } => affine(at),
            Un { op, a, .. } => unary(*op, e, &x(*a)),
            Bin { op, a, b, .. } => binary(*op, e, &x(*a), &x(*b)),
            Fma { a, b, c, .. } => format!("{} * {} + {}", x(*a), x(*b), x(*c)),
            Cmp { op, a, b, .. } => compare(*op, self.ty(*a).elem, &x(*a), &x(*b)),
            Select { mask, a, b, .. } => format!("{} ? {} : {}", x(*mask), x(*a), x(*b)),
            Cvt { a, mode: CvtMode::Round, .. } if self.ty(*a).elem.is_float() => {
                format!("HubNear<{}>({})", ty(e), x(*a))
            }
            Cvt { a, .. } => convert(self.ty(*a).elem, e, &x(*a)),
            Bitcast { a, .. } if e == Elem::F32 => format!("HubFloat((uint32_t){})", x(*a)),
            Bitcast { a, .. } => format!("(int32_t)HubBits({})", x(*a)),
            i => unreachable!("{i} is not legal"),
        };
        let mut reads = vec![];
        i.uses(|r| reads.push(r));
        self.each_lane(dst, &reads, &value);
    }

    fn lanes(&mut self, dst: Reg, count: Scalar) {
        let (n, t) = (scalar(count), self.ty(dst));
        if t.is_scalar() {
            return self.line(&format!("{} = 0 < {n};", reg(dst)));
        }
        let n = format!("HubWithin({n}, {})", t.lanes);
        if !self.first.contains(&dst) {
            return self.alone(&[format!("HubSetMask({}, HubFirst({n}));", reg(dst))]);
        }
        self.line(&format!("c{} = {n};", dst.0));
        if self.asked.contains(&dst) {
            self.alone(&[format!("HubSetMask({}, HubFirst(c{}));", reg(dst), dst.0)]);
        }
    }

    fn status(&mut self, mask: Reg) {
        let status = self.k.status().expect("verified").0;
        let t = self.ty(mask);
        let any = match t.is_scalar() {
            true => reg(mask),
            false => format!("HubMask({}) & HubFirst({})", reg(mask), t.lanes),
        };
        self.alone(&[format!("if ({any}) HubPoke<uint32_t>(room, a{status}, 1u);")]);
    }

    fn check_index(&mut self, dst: Reg, idx: Reg, bound: Scalar) {
        let (t, status) = (self.ty(dst), self.k.status().expect("verified").0);
        let (set, over) = match t.is_scalar() {
            true => (format!("{} = ({})i", reg(dst), ty(t.elem)), String::new()),
            false => {
                let over = format!("for (int l = 0; l < {}; ++l) ", t.lanes);
                (format!("{}.SetValue(l, ({})i)", reg(dst), ty(t.elem)), over)
            }
        };
        let (x, n) = (self.lane(idx), scalar(bound));
        self.alone(&[
            "{ bool bad = false;".into(),
            format!("{over}{{ int64_t i = {x}; if (i < 0) i += {n};"),
            format!("if (i < 0 || i >= {n}) {{ bad = true; i = 0; }} {set}; }}"),
            format!("if (bad) HubPoke<uint32_t>(room, a{status}, 1u); }}"),
        ]);
    }

    /// Halves are folded together, the last few by the scalar unit.
    fn reduce(&mut self, op: ReduceOp, dst: Reg, a: Reg) {
        let (t, d) = (self.ty(a), reg(dst));
        if t.is_scalar() {
            return self.line(&format!("{d} = {};", reg(a)));
        }
        let (mut n, mut from) = (t.lanes, reg(a));
        if self.full(a) {
            let name = format!("{op:?}");
            let to = if t.elem == Elem::F32 { "tmp".to_string() } else { seen("tmp", "int32_t") };
            while n > 8 {
                n /= 2;
                self.vector(&format!("{name}({to}, {from}, {from}[{n}], {n})"));
                from = to.clone();
            }
        }
        let mut lines = vec!["{".to_string()];
        let mut xs: Vec<String> = (0..n).map(|l| format!("y{l}")).collect();
        for (l, y) in xs.iter().enumerate() {
            lines.push(format!("{0} {y} = {from}.GetValue({l});", ty(t.elem)));
        }
        while xs.len() > 1 {
            let half = xs.len() / 2;
            for i in 0..half {
                let value = binary(op.bin(), t.elem, &xs[i], &xs[i + half]);
                lines.push(format!("{} = {value};", xs[i]));
            }
            xs.truncate(half);
        }
        lines.push(format!("{d} = y0; }}"));
        self.alone(&lines);
    }

    fn shuffle(&mut self, dst: Reg, (a, b): (Reg, Reg), sel: &[u8]) {
        let (t, d, n) = (ty(self.ty(dst).elem), reg(dst), sel.len());
        let at = self.tables.iter().position(|t| t == sel).unwrap_or(self.tables.len());
        if at == self.tables.len() {
            self.tables.push(sel.to_vec());
        }
        // The destination may be an operand.
        self.alone(&[
            format!("{{ {t} y[{n}];"),
            format!("for (int l = 0; l < {n}; ++l) {{ const int s = sel{at}[l];"),
            format!("y[l] = s < {n} ? {0}.GetValue(s) : {1}.GetValue(s - {n}); }}", reg(a), reg(b)),
            format!("for (int l = 0; l < {n}; ++l) {d}.SetValue(l, y[l]); }}"),
        ]);
    }

    /// The function around the body.
    fn finish(self) -> String {
        let (k, mut out) = (self.k, String::new());
        let each = k.params.iter().enumerate().map(|(i, p)| match p.kind {
            ParamKind::Size => format!("int64_t a{i}"),
            _ => format!("GM_ADDR a{i}"),
        });
        let params: Vec<String> = each.chain(["int64_t tiles".to_string()]).collect();
        let _ = writeln!(out, "extern \"C\" __global__ __vector__ void {}(", k.name);
        let _ = writeln!(out, "    {}) {{", params.join(", "));
        let mut line = |text: String| {
            let _ = writeln!(out, "  {text}");
        };
        line("HubRoom room;".into());
        let bytes = super::BUFFER;
        line(format!("room.pipe.InitBuffer(room.in, 2, {bytes});"));
        line(format!("room.pipe.InitBuffer(room.out, 2, {bytes});"));
        let regs = room(k) - k.scratch_bytes.next_multiple_of(32);
        line(format!("room.pipe.InitBuffer(room.regs, {regs});"));
        line("LocalTensor<float> tmp = room.regs.GetWithOffset<float>(64, 0);".into());
        if k.scratch_bytes > 0 {
            let n = k.scratch_bytes.next_multiple_of(32);
            line(format!("room.pipe.InitBuffer(room.scratch, {n});"));
            line("LocalTensor<uint8_t> scratch = room.scratch.Get<uint8_t>();".into());
        }
        let mut at = 4 * u64::from(LANES);
        for (i, t) in k.regs.iter().enumerate() {
            let r = Reg(i as u32);
            if t.is_scalar() {
                line(format!("{} v{i} = 0;", ty(t.elem)));
                continue;
            }
            let (e, n) = match t.elem {
                Elem::Mask => ("uint8_t", 32),
                e => (ty(e), u64::from(t.lanes)),
            };
            line(format!("LocalTensor<{e}> v{i} = room.regs.GetWithOffset<{e}>({n}, {at});"));
            if t.elem == Elem::Mask && self.first.contains(&r) {
                line(format!("int64_t c{i} = 0;"));
            }
            at += slot(*t);
        }
        for (i, t) in self.tables.iter().enumerate() {
            let entries: Vec<String> = t.iter().map(u8::to_string).collect();
            line(format!("const uint8_t sel{i}[{}] = {{{}}};", t.len(), entries.join(", ")));
        }
        let grid = |a: usize| k.grid.iter().position(|g| g.axis.0 as usize == a);
        let loops = (0..k.axes.len()).filter(|a| grid(*a).is_none());
        loops.for_each(|a| line(format!("int64_t x{a};")));
        line("for (int64_t tile = GetBlockIdx(); tile < tiles; tile += GetBlockNum()) {".into());
        line("  int64_t rest = tile;".into());
        for (i, g) in k.grid.iter().enumerate().rev() {
            let (x, n) = (g.axis.0, coef(g.extent));
            if i == 0 {
                line(format!("  const int64_t x{x} = rest;"));
            } else {
                line(format!("  const int64_t x{x} = rest % ({n}); rest /= ({n});"));
            }
        }
        out.push_str(&self.body);
        out.push_str("  }\n}\n");
        out
    }
}

/// Sixteen-bit words of a full register, or of a mask.
fn sixteens(e: Elem) -> u32 {
    if e == Elem::Mask { 4 } else { 128 }
}

fn each(body: &[Stmt], f: &mut dyn FnMut(&Inst)) {
    for s in body {
        match s {
            Stmt::Inst(i) => f(i),
            Stmt::For { body, .. } => each(body, f),
            Stmt::If { then, els, .. } => {
                each(then, f);
                each(els, f);
            }
        }
    }
}
