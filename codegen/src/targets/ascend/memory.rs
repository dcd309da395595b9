//! Loads and stores: neighbours as copies through a queue, others element by element.

use super::render::{Renderer, affine, coef, reg, seen};
use super::table::{memory, ty};
use crate::kir::*;
use hub_abi::Dtype;

/// What a lane adds to an address.
enum Step {
    /// Its number of elements.
    Next,
    /// Bytes a lane.
    Stride(Coef),
    /// A register's lane, so many bytes each.
    Index(Reg, Coef),
}

/// Element type in memory for the scalar unit, which sees bf16 as its bits.
fn words(d: Dtype) -> &'static str {
    if d == Dtype::BF16 { "uint16_t" } else { memory(d) }
}

/// An element of memory as a register's.
fn widened(d: Dtype, e: Elem, x: &str) -> String {
    match d {
        Dtype::BF16 => format!("HubFloat((uint32_t){x} << 16)"),
        _ => format!("({}){x}", ty(e)),
    }
}

/// A register's element for memory.
fn narrowed(d: Dtype, x: &str) -> String {
    match d {
        Dtype::BF16 => format!("HubToBf16({x})"),
        _ => format!("({}){x}", memory(d)),
    }
}

/// Do vector instructions convert between it and a register's lanes? How, to and from the register.
fn cast(d: Dtype) -> Option<Option<[&'static str; 2]>> {
    match d {
        Dtype::F32 | Dtype::I32 | Dtype::U32 => Some(None),
        Dtype::F16 | Dtype::BF16 => Some(Some(["RoundMode::CAST_NONE", "RoundMode::CAST_RINT"])),
        _ => None,
    }
}

impl Renderer<'_> {
    pub(super) fn memory(&mut self, i: &Inst) {
        use Inst::*;
        match i {
            Load { dst, addr, dtype, mask } => self.load(*dst, addr, *dtype, *mask, Step::Next),
            LoadStrided { dst, addr, stride, dtype, mask } => {
                self.load(*dst, addr, *dtype, *mask, Step::Stride(*stride))
            }
            Gather { dst, addr, idx, stride, dtype, mask } => {
                self.load(*dst, addr, *dtype, *mask, Step::Index(*idx, *stride))
            }
            LoadSplat { dst, addr, dtype } => {
                let one = self.peek(addr, "0", *dtype, self.ty(*dst).elem);
                let t = ty(self.ty(*dst).elem);
                match self.full(*dst) {
                    _ if self.ty(*dst).is_scalar() => self.line(&format!("{} = {one};", reg(*dst))),
                    true => {
                        self.line(&format!("{{ const {t} y = {one};"));
                        self.vector(&format!("Duplicate({}, y, 64)", reg(*dst)));
                        self.line("}");
                    }
                    false => {
                        self.line(&format!("{{ const {t} y = {one};"));
                        self.each_lane(*dst, &[], "y");
                        self.line("}");
                    }
                }
            }
            Store { src, addr, dtype, mask } => self.store(*src, addr, *dtype, *mask, Step::Next),
            StoreStrided { src, addr, stride, dtype, mask } => {
                self.store(*src, addr, *dtype, *mask, Step::Stride(*stride))
            }
            i => unreachable!("{i} is not legal"),
        }
    }

    /// One element, `more` bytes from an address.
    fn peek(&self, addr: &Addr, more: &str, d: Dtype, e: Elem) -> String {
        let (w, at) = (words(d), affine(&addr.at));
        let read = match addr.base {
            Base::Param(p) => format!("HubPeek<{w}>(a{} + ({at}) + ({more}))", p.0),
            Base::Scratch => format!("HubLook<{w}>(scratch, ({at}) + ({more}))"),
        };
        widened(d, e, &read)
    }

    fn poke(&self, addr: &Addr, more: &str, d: Dtype, x: &str) -> String {
        let (w, at) = (words(d), affine(&addr.at));
        let x = narrowed(d, x);
        match addr.base {
            Base::Param(p) => format!("HubPoke<{w}>(room, a{} + ({at}) + ({more}), {x});", p.0),
            Base::Scratch => format!("HubPut<{w}>(scratch, ({at}) + ({more}), {x});"),
        }
    }

    /// Bytes from the address to lane `l`.
    fn step(&self, step: &Step, d: Dtype) -> String {
        match step {
            Step::Next => format!("l * {}LL", d.size()),
            Step::Stride(by) => format!("l * {}", coef(*by)),
            Step::Index(r, by) => format!("(int64_t){} * {}", self.lane(*r), coef(*by)),
        }
    }

    /// A tensor of neighbours in scratch that vector instructions may read and write, if they may.
    fn place(&self, addr: &Addr) -> Option<String> {
        let whole = |n: i64| n % 32 == 0;
        let aligned = addr.at.terms.iter().all(|(_, c)| c.param.is_none() && whole(c.mul));
        (addr.base == Base::Scratch && aligned && whole(addr.at.offset))
            .then(|| seen(&format!("scratch[{}]", affine(&addr.at)), "int32_t"))
    }

    /// How many lanes are accessed: of neighbours, if a mask leaves out none or the last ones.
    fn count(&self, r: Reg, mask: Option<Reg>, step: &Step) -> Option<String> {
        match (mask, step) {
            _ if self.ty(r).is_scalar() => None,
            (None, Step::Next) => Some(self.ty(r).lanes.to_string()),
            (Some(m), Step::Next) if self.counted(m) => Some(format!("c{}", m.0)),
            _ => None,
        }
    }

    fn load(&mut self, dst: Reg, addr: &Addr, d: Dtype, mask: Option<Reg>, step: Step) {
        let (e, v) = (self.ty(dst).elem, reg(dst));
        let reads: Vec<Reg> = match &step {
            Step::Index(r, _) => mask.iter().chain([r]).copied().collect(),
            _ => mask.into_iter().collect(),
        };
        let Some(n) = self.count(dst, mask, &step) else {
            let more = if self.ty(dst).is_scalar() { "0".into() } else { self.step(&step, d) };
            let one = self.peek(addr, &more, d, e);
            let value = match mask {
                Some(m) => format!("{} ? {one} : ({})0", self.on(m), ty(e)),
                None => one,
            };
            return self.each_lane_read(dst, &reads, &value);
        };
        if self.full(dst) && mask.is_some() {
            self.vector(&format!("Duplicate({v}, ({})0, 64)", ty(e)));
        }
        let (bits, t) = (seen(&v, "int32_t"), memory(d));
        let Base::Param(p) = addr.base else {
            if let (Some(from), true, Some(None)) = (self.place(addr), self.full(dst), cast(d)) {
                let call = format!("Adds({bits}, {from}, (int32_t)0, {n})");
                return self.guarded(&n, mask, |r| r.vector(&call));
            }
            let one = self.peek(addr, &self.step(&step, d), d, e);
            return self.each_lane(dst, &[], &format!("l < {n} ? {one} : ({})0", ty(e)));
        };
        let at = format!("a{} + ({})", p.0, affine(&addr.at));
        match cast(d).filter(|_| self.full(dst)) {
            Some(how) => self.guarded(&n, mask, |r| {
                r.line(&format!("{{ LocalTensor<{t}> t = HubTake<{t}>(room, {at}, {n});"));
                r.vector(&match how {
                    Some([widen, _]) => format!("Cast({v}, t, {widen}, {n})"),
                    None => format!("Adds({bits}, {}, (int32_t)0, {n})", seen("t", "int32_t")),
                });
                r.line("room.in.FreeTensor(t); }");
            }),
            None => {
                let w = words(d);
                self.line(&format!(
                    "if ({n} > 0) {{ LocalTensor<{w}> t = HubTake<{w}>(room, {at}, {n});"
                ));
                let one = widened(d, e, "t.GetValue(l)");
                self.each_lane(dst, &[], &format!("l < {n} ? {one} : ({})0", ty(e)));
                self.line("room.in.FreeTensor(t); }");
                if mask.is_some() {
                    self.line("else {");
                    self.each_lane(dst, &[], &format!("({})0", ty(e)));
                    self.line("}");
                }
            }
        }
    }

    /// As [`Renderer::each_lane`], for values that are not tensors' alone.
    fn each_lane_read(&mut self, dst: Reg, reads: &[Reg], value: &str) {
        let counted = reads.iter().any(|r| self.ty(*r).elem == Elem::Mask && self.counted(*r));
        let reads: Vec<Reg> = match counted {
            true => reads.iter().copied().filter(|r| self.ty(*r).elem != Elem::Mask).collect(),
            false => reads.to_vec(),
        };
        self.each_lane(dst, &reads, value);
    }

    /// Is lane `l` of a mask on?
    fn on(&self, mask: Reg) -> String {
        match self.counted(mask) {
            true => format!("l < c{}", mask.0),
            false => self.lane(mask),
        }
    }

    /// Something that is done where a mask leaves anything.
    fn guarded(&mut self, n: &str, mask: Option<Reg>, f: impl FnOnce(&mut Self)) {
        if mask.is_some() {
            self.line(&format!("if ({n} > 0) {{"));
        }
        f(self);
        if mask.is_some() {
            self.line("}");
        }
    }

    fn store(&mut self, src: Reg, addr: &Addr, d: Dtype, mask: Option<Reg>, step: Step) {
        let v = reg(src);
        let Some(n) = self.count(src, mask, &step) else {
            return self.store_each(src, addr, d, mask, &step);
        };
        let (bits, t) = (seen(&v, "int32_t"), memory(d));
        let Base::Param(p) = addr.base else {
            if let (Some(to), true, Some(None)) = (self.place(addr), self.full(src), cast(d)) {
                let call = format!("Adds({to}, {bits}, (int32_t)0, {n})");
                return self.guarded(&n, mask, |r| r.vector(&call));
            }
            let one = self.poke(addr, &self.step(&step, d), d, &self.lane(src));
            return self.alone(&[format!("for (int l = 0; l < {n}; ++l) {one}")]);
        };
        let at = format!("a{} + ({})", p.0, affine(&addr.at));
        self.guarded(&n, mask, |r| match cast(d).filter(|_| r.full(src)) {
            Some(how) => {
                r.line(&format!("{{ LocalTensor<{t}> t = room.out.AllocTensor<{t}>();"));
                r.vector(&match how {
                    Some([_, narrow]) => format!("Cast(t, {v}, {narrow}, {n})"),
                    None => format!("Adds({}, {bits}, (int32_t)0, {n})", seen("t", "int32_t")),
                });
                r.line(&format!("HubGive(room, {at}, t, {n}); }}"));
            }
            None => {
                let w = words(d);
                let one = narrowed(d, &r.lane(src));
                r.line(&format!("{{ LocalTensor<{w}> t = room.out.AllocTensor<{w}>();"));
                r.alone(&[format!("for (int l = 0; l < {n}; ++l) t.SetValue(l, {one});")]);
                r.line(&format!("HubGive(room, {at}, t, {n}); }}"));
            }
        });
    }

    fn store_each(&mut self, src: Reg, addr: &Addr, d: Dtype, mask: Option<Reg>, step: &Step) {
        let t = self.ty(src);
        let when = mask.map_or(String::new(), |m| format!("if ({}) ", self.on(m)));
        if t.is_scalar() {
            let one = self.poke(addr, "0", d, &reg(src));
            return self.line(&format!("{when}{one}"));
        }
        let mut lines = vec!["{".to_string()];
        let masks: Vec<Reg> = mask.into_iter().filter(|m| !self.counted(*m)).collect();
        lines.extend(self.masks(&masks));
        let one = self.poke(addr, &self.step(step, d), d, &self.lane(src));
        lines.push(format!("for (int l = 0; l < {}; ++l) {when}{one} }}", t.lanes));
        self.alone(&lines);
    }
}
