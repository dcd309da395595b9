//! Building kernels: fresh registers, nested loops by closures, one method an instruction.

use super::inst::*;
use super::types::*;
use hub_abi::Dtype;

/// Builds one [`Kernel`]. Loops and branches take closures; value methods make a fresh register and
/// return it, `*_to` methods assign an existing one (accumulators).
#[derive(Debug)]
pub struct KernelBuilder {
    kernel: Kernel,
    open: Vec<Vec<Stmt>>,
}

impl KernelBuilder {
    /// A kernel without parameters and statements.
    pub fn new(name: impl Into<String>) -> KernelBuilder {
        KernelBuilder {
            kernel: Kernel {
                name: name.into(),
                params: vec![],
                grid: vec![],
                team: None,
                axes: vec![],
                regs: vec![],
                scratch_bytes: 0,
                rowwise: vec![],
                operator: None,
                body: vec![],
            },
            open: vec![vec![]],
        }
    }

    /// The kernel without its statements, to write others in their place; its registers stay.
    pub fn rewriting(k: &Kernel) -> KernelBuilder {
        let kernel = Kernel {
            name: k.name.clone(),
            params: k.params.clone(),
            grid: k.grid.clone(),
            team: k.team,
            axes: k.axes.clone(),
            regs: k.regs.clone(),
            rowwise: k.rowwise.clone(),
            operator: k.operator.clone(),
            scratch_bytes: k.scratch_bytes,
            body: vec![],
        };
        KernelBuilder { kernel, open: vec![vec![]] }
    }

    /// Says that two parameters are addressed row by row ([`Kernel::rowwise`]).
    pub fn rowwise(&mut self, read: ParamId, written: ParamId) {
        self.kernel.rowwise.push((read, written));
    }

    /// The finished kernel (not yet verified).
    pub fn finish(mut self) -> Kernel {
        assert_eq!(self.open.len(), 1, "unclosed block in kernel {}", self.kernel.name);
        self.kernel.body = self.open.pop().unwrap_or_default();
        self.kernel
    }

    fn param(&mut self, name: impl Into<String>, kind: ParamKind) -> ParamId {
        self.kernel.params.push(Param { name: name.into(), kind });
        ParamId(self.kernel.params.len() as u32 - 1)
    }

    /// A pointer parameter.
    pub fn ptr(&mut self, name: impl Into<String>, dtype: Dtype, access: Access) -> ParamId {
        self.param(name, ParamKind::Ptr { dtype, access })
    }

    /// A size parameter (a count, or a stride in bytes).
    pub fn size(&mut self, name: impl Into<String>) -> ParamId {
        self.param(name, ParamKind::Size)
    }

    /// Gives every tile to so many workers; the axis says which of them one is.
    pub fn team(&mut self, size: u8) -> AxisId {
        let axis = self.axis("member");
        self.kernel.team = Some(Team { axis, size });
        axis
    }

    /// The workers of a tile wait for one another.
    pub fn barrier(&mut self) {
        self.inst(Inst::Barrier);
    }

    /// The status parameter (made once).
    pub fn status(&mut self) -> ParamId {
        match self.kernel.status() {
            Some(p) => p,
            None => self.param("status", ParamKind::Status),
        }
    }

    /// A fresh axis, for a [`Stmt::For`] pushed by hand.
    pub fn axis(&mut self, name: impl Into<String>) -> AxisId {
        self.kernel.axes.push(name.into());
        AxisId(self.kernel.axes.len() as u32 - 1)
    }

    /// A grid axis; the first one declared is outermost.
    pub fn grid(&mut self, name: impl Into<String>, extent: impl Into<Coef>) -> AxisId {
        let axis = self.axis(name);
        self.kernel.grid.push(GridAxis { axis, extent: extent.into() });
        axis
    }

    /// Reserves scratch, aligned to 64 bytes; returns its offset from [`Addr::scratch`].
    pub fn scratch(&mut self, bytes: u64) -> i64 {
        let at = self.kernel.scratch_bytes.next_multiple_of(64);
        self.kernel.scratch_bytes = (at + bytes).next_multiple_of(64);
        at as i64
    }

    /// A fresh register.
    pub fn reg(&mut self, ty: RegTy) -> Reg {
        self.kernel.regs.push(ty);
        Reg(self.kernel.regs.len() as u32 - 1)
    }

    /// Type of a register.
    pub fn ty(&self, r: Reg) -> RegTy {
        self.kernel.ty(r)
    }

    /// Appends a statement.
    pub fn push(&mut self, s: Stmt) {
        self.open.last_mut().expect("a block is open").push(s)
    }

    /// Appends an instruction.
    pub fn inst(&mut self, i: Inst) {
        self.push(Stmt::Inst(i))
    }

    /// Statements that `f` makes, not appended.
    pub fn block(&mut self, f: impl FnOnce(&mut Self)) -> Vec<Stmt> {
        self.open.push(vec![]);
        f(self);
        self.open.pop().expect("the block opened above")
    }

    /// Opens a block that [`KernelBuilder::end`] closes, where a closure would borrow too much.
    pub fn begin(&mut self) {
        self.open.push(vec![]);
    }

    /// Closes the innermost open block and gives its statements, not appended.
    pub fn end(&mut self) -> Vec<Stmt> {
        assert!(self.open.len() > 1, "no open block in kernel {}", self.kernel.name);
        self.open.pop().unwrap_or_default()
    }

    /// `for axis in 0..extent`.
    pub fn for_(
        &mut self,
        name: impl Into<String>,
        extent: impl Into<Scalar>,
        unroll: u32,
        f: impl FnOnce(&mut Self, AxisId),
    ) {
        let axis = self.axis(name);
        let body = self.block(|b| f(b, axis));
        self.push(Stmt::For { axis, extent: extent.into(), unroll, body })
    }

    /// `if a op b { then } else { els }` on i64 values.
    pub fn if_else(
        &mut self,
        op: CmpOp,
        a: impl Into<Scalar>,
        b: impl Into<Scalar>,
        then: impl FnOnce(&mut Self),
        els: impl FnOnce(&mut Self),
    ) {
        let cond = Cond { op, a: a.into(), b: b.into() };
        let then = self.block(then);
        let els = self.block(els);
        self.push(Stmt::If { cond, then, els })
    }

    /// `if a op b { then }` on i64 values.
    pub fn if_(
        &mut self,
        op: CmpOp,
        a: impl Into<Scalar>,
        b: impl Into<Scalar>,
        then: impl FnOnce(&mut Self),
    ) {
        self.if_else(op, a, b, then, |_| {})
    }

    fn fresh(&mut self, ty: RegTy, f: impl FnOnce(Reg) -> Inst) -> Reg {
        let dst = self.reg(ty);
        self.inst(f(dst));
        dst
    }

    /// A constant given as bits.
    pub fn const_bits(&mut self, ty: RegTy, bits: u64) -> Reg {
        self.fresh(ty, |dst| Inst::Const { dst, bits })
    }

    /// A constant given as a number, rounded to the element.
    pub fn const_f(&mut self, ty: RegTy, v: f64) -> Reg {
        self.const_bits(ty, float_bits(ty.elem, v))
    }

    /// An integer constant.
    pub fn const_i(&mut self, ty: RegTy, v: i64) -> Reg {
        let bits = if ty.elem == Elem::I32 { v as u32 as u64 } else { v as u64 };
        self.const_bits(ty, bits)
    }

    /// Zero of any type.
    pub fn zero(&mut self, ty: RegTy) -> Reg {
        self.const_bits(ty, 0)
    }

    /// Assigns a constant given as a number (floats) to `dst`.
    pub fn const_f_to(&mut self, dst: Reg, v: f64) {
        let bits = float_bits(self.ty(dst).elem, v);
        self.inst(Inst::Const { dst, bits })
    }

    /// A scalar in every one of `lanes` lanes.
    pub fn splat(&mut self, src: Reg, lanes: usize) -> Reg {
        let ty = RegTy::new(self.ty(src).elem, lanes);
        self.fresh(ty, |dst| Inst::Splat { dst, src })
    }

    /// Lane numbers.
    pub fn iota(&mut self, ty: RegTy) -> Reg {
        self.fresh(ty, |dst| Inst::Iota { dst })
    }

    /// An affine expression as an i64 scalar.
    pub fn index(&mut self, at: Affine) -> Reg {
        self.fresh(RegTy::INDEX, |dst| Inst::Index { dst, at })
    }

    /// An i64 scalar of any uniform operand.
    pub fn scalar(&mut self, s: impl Into<Scalar>) -> Reg {
        match s.into() {
            Scalar::Const(n) => self.const_i(RegTy::INDEX, n),
            Scalar::Param(p) => self.index(Affine::default().plus(Var::One, p)),
            Scalar::Reg(r) => r,
        }
    }

    /// One operand.
    pub fn un(&mut self, op: UnOp, a: Reg) -> Reg {
        self.fresh(self.ty(a), |dst| Inst::Un { op, dst, a })
    }

    /// Two operands.
    pub fn bin(&mut self, op: BinOp, a: Reg, b: Reg) -> Reg {
        self.fresh(self.ty(a), |dst| Inst::Bin { op, dst, a, b })
    }

    /// Two operands into `dst`.
    pub fn bin_to(&mut self, op: BinOp, dst: Reg, a: Reg, b: Reg) {
        self.inst(Inst::Bin { op, dst, a, b })
    }

    /// `dst = a`.
    pub fn copy_to(&mut self, dst: Reg, a: Reg) {
        self.inst(Inst::Un { op: UnOp::Copy, dst, a })
    }

    /// A fresh copy.
    pub fn copy(&mut self, a: Reg) -> Reg {
        self.un(UnOp::Copy, a)
    }

    /// a + b
    pub fn add(&mut self, a: Reg, b: Reg) -> Reg {
        self.bin(BinOp::Add, a, b)
    }

    /// a − b
    pub fn sub(&mut self, a: Reg, b: Reg) -> Reg {
        self.bin(BinOp::Sub, a, b)
    }

    /// a × b
    pub fn mul(&mut self, a: Reg, b: Reg) -> Reg {
        self.bin(BinOp::Mul, a, b)
    }

    /// a ÷ b
    pub fn div(&mut self, a: Reg, b: Reg) -> Reg {
        self.bin(BinOp::Div, a, b)
    }

    /// Minimum; the second operand where either is NaN.
    pub fn min(&mut self, a: Reg, b: Reg) -> Reg {
        self.bin(BinOp::Min, a, b)
    }

    /// Maximum; the second operand where either is NaN.
    pub fn max(&mut self, a: Reg, b: Reg) -> Reg {
        self.bin(BinOp::Max, a, b)
    }

    /// a × b + c
    pub fn fma(&mut self, a: Reg, b: Reg, c: Reg) -> Reg {
        self.fresh(self.ty(a), |dst| Inst::Fma { dst, a, b, c })
    }

    /// `acc = a × b + acc`
    pub fn fma_acc(&mut self, acc: Reg, a: Reg, b: Reg) {
        self.inst(Inst::Fma { dst: acc, a, b, c: acc })
    }

    /// `acc = a · b + acc` on pairs of bf16.
    pub fn dot2_acc(&mut self, acc: Reg, a: Reg, b: Reg) {
        self.inst(Inst::Dot2 { dst: acc, a, b, c: acc })
    }

    /// A comparison, as a mask.
    pub fn cmp(&mut self, op: CmpOp, a: Reg, b: Reg) -> Reg {
        let ty = self.ty(a).with(Elem::Mask);
        self.fresh(ty, |dst| Inst::Cmp { op, dst, a, b })
    }

    /// The mask of the first `count` of `lanes` lanes.
    pub fn first_lanes(&mut self, lanes: usize, count: impl Into<Scalar>) -> Reg {
        let count = count.into();
        self.fresh(RegTy::new(Elem::Mask, lanes), |dst| Inst::Lanes { dst, count })
    }

    /// `mask ? a : b`
    pub fn select(&mut self, mask: Reg, a: Reg, b: Reg) -> Reg {
        self.fresh(self.ty(a), |dst| Inst::Select { dst, mask, a, b })
    }

    /// Value conversion as Rust's `as`.
    pub fn cvt(&mut self, a: Reg, elem: Elem) -> Reg {
        let ty = self.ty(a).with(elem);
        self.fresh(ty, |dst| Inst::Cvt { dst, a, mode: CvtMode::As })
    }

    /// Float to integer, nearest even, in-range values only.
    pub fn cvt_round(&mut self, a: Reg, elem: Elem) -> Reg {
        let ty = self.ty(a).with(elem);
        self.fresh(ty, |dst| Inst::Cvt { dst, a, mode: CvtMode::Round })
    }

    /// The same bits as another element of that size.
    pub fn bitcast(&mut self, a: Reg, elem: Elem) -> Reg {
        let ty = self.ty(a).with(elem);
        self.fresh(ty, |dst| Inst::Bitcast { dst, a })
    }

    /// `a × 2^n`
    pub fn scale2(&mut self, a: Reg, n: Reg) -> Reg {
        self.fresh(self.ty(a), |dst| Inst::Scale2 { dst, a, n })
    }

    /// Contiguous lanes.
    pub fn load(&mut self, ty: RegTy, addr: Addr, dtype: Dtype, mask: Option<Reg>) -> Reg {
        self.fresh(ty, |dst| Inst::Load { dst, addr, dtype, mask })
    }

    /// One element in every lane.
    pub fn load_splat(&mut self, ty: RegTy, addr: Addr, dtype: Dtype) -> Reg {
        self.fresh(ty, |dst| Inst::LoadSplat { dst, addr, dtype })
    }

    /// Lanes `stride` bytes apart.
    pub fn load_strided(
        &mut self,
        ty: RegTy,
        addr: Addr,
        stride: impl Into<Coef>,
        dtype: Dtype,
        mask: Option<Reg>,
    ) -> Reg {
        let stride = stride.into();
        self.fresh(ty, |dst| Inst::LoadStrided { dst, addr, stride, dtype, mask })
    }

    /// Lanes at `addr + idx × stride`.
    pub fn gather(
        &mut self,
        ty: RegTy,
        addr: Addr,
        idx: Reg,
        stride: impl Into<Coef>,
        dtype: Dtype,
        mask: Option<Reg>,
    ) -> Reg {
        let stride = stride.into();
        self.fresh(ty, |dst| Inst::Gather { dst, addr, idx, stride, dtype, mask })
    }

    /// Stores contiguous lanes.
    pub fn store(&mut self, src: Reg, addr: Addr, dtype: Dtype, mask: Option<Reg>) {
        self.inst(Inst::Store { src, addr, dtype, mask })
    }

    /// Stores lanes `stride` bytes apart.
    pub fn store_strided(
        &mut self,
        src: Reg,
        addr: Addr,
        stride: impl Into<Coef>,
        dtype: Dtype,
        mask: Option<Reg>,
    ) {
        self.inst(Inst::StoreStrided { src, addr, stride: stride.into(), dtype, mask })
    }

    /// All lanes to one.
    pub fn reduce(&mut self, op: ReduceOp, a: Reg) -> Reg {
        let ty = RegTy::new(self.ty(a).elem, 1);
        self.fresh(ty, |dst| Inst::Reduce { op, dst, a })
    }

    /// One lane as a scalar.
    pub fn extract(&mut self, a: Reg, lane: u8) -> Reg {
        let ty = RegTy::new(self.ty(a).elem, 1);
        self.fresh(ty, |dst| Inst::Extract { dst, a, lane })
    }

    /// A constant permutation of two registers' lanes.
    pub fn shuffle(&mut self, a: Reg, b: Reg, sel: Vec<u8>) -> Reg {
        self.fresh(self.ty(a), |dst| Inst::Shuffle { dst, a, b, sel })
    }

    /// Hints that the line at `addr` will be read.
    pub fn prefetch(&mut self, addr: Addr, level: u8) {
        self.inst(Inst::Prefetch { addr, level })
    }

    /// An index made safe; makes the status parameter if there is none.
    pub fn check_index(&mut self, idx: Reg, bound: impl Into<Scalar>) -> Reg {
        self.status();
        let bound = bound.into();
        self.fresh(self.ty(idx), |dst| Inst::CheckIndex { dst, idx, bound })
    }

    /// Reports a status where any lane of `mask` is on.
    pub fn set_status(&mut self, mask: Reg) {
        self.status();
        self.inst(Inst::SetStatus { mask })
    }
}

/// Bits of `v` rounded to a float element.
fn float_bits(elem: Elem, v: f64) -> u64 {
    match elem {
        Elem::F32 => (v as f32).to_bits() as u64,
        Elem::F64 => v.to_bits(),
        _ => panic!("a float constant needs a float register"),
    }
}
