//! Lanes from other lanes: shuffles of a warp, and the tables that say who gives to whom.

use super::ptx::Renderer;
use super::table;
use crate::kir::*;

impl Renderer<'_> {
    /// `dst` is another lane's `a`.
    pub(super) fn exchange(&mut self, dst: Reg, a: Reg, mode: &str, by: &str) {
        let to = self.reg(dst);
        self.exchange_to(&to, a, mode, by);
    }

    pub(super) fn shuffle(&mut self, dst: Reg, a: Reg, b: Reg, sel: &[u8]) {
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
        self.exchange_to(&first, a, "idx", &x);
        self.exchange_to(&second, b, "idx", &x);
        self.line(format!("selp.{} {d}, {first}, {second}, {p}", table::kind(e)));
    }

    fn exchange_to(&mut self, to: &str, a: Reg, mode: &str, by: &str) {
        let (s, e) = (self.reg(a), self.k.ty(a).elem);
        if e.size() == 4 {
            return self.line(format!("shfl.sync.{mode}.b32 {to}, {s}, {by}, 31, -1"));
        }
        let half: Vec<String> = (0..4).map(|_| self.temp(Elem::I32)).collect();
        self.line(format!("mov.b64 {{{}, {}}}, {s}", half[0], half[1]));
        for i in 0..2 {
            let (t, f) = (&half[2 + i], &half[i]);
            self.line(format!("shfl.sync.{mode}.b32 {t}, {f}, {by}, 31, -1"));
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
}
