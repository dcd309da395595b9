//! Values that a lowering has made: in registers until the enclosing loop or branch ends, given by
//! an anchor, or kept in the worker's scratch.

use super::coord::Coord;
use super::cx::LowerCx;
use crate::kir::{Addr, Base, Elem, Reg, RegTy};
use hub_ir::Value;
use std::collections::{BTreeSet, HashMap};

/// A value at coordinates in a number of lanes.
type Key = (Value, Vec<Coord>, usize);

/// Where a value is kept in the worker's scratch.
#[derive(Clone, PartialEq, Debug)]
pub struct Kept {
    /// First byte.
    pub offset: i64,
    /// Bytes from element to element, one an axis.
    pub strides: Vec<i64>,
}

/// Values made so far.
pub struct Memo {
    scopes: Vec<HashMap<Key, Reg>>,
    given: BTreeSet<Value>,
    kept: HashMap<Value, Kept>,
}

impl Default for Memo {
    fn default() -> Memo {
        Memo { scopes: vec![HashMap::new()], given: BTreeSet::new(), kept: HashMap::new() }
    }
}

impl LowerCx<'_> {
    /// A register made before for a value at coordinates.
    pub fn recall(&self, v: Value, coords: &[Coord], lanes: usize) -> Option<Reg> {
        let key = (v, coords.to_vec(), lanes);
        self.memo.scopes.iter().rev().find_map(|m| m.get(&key)).copied()
    }

    /// Remembers a register for a value at coordinates, until the enclosing loop or branch ends.
    pub fn remember(&mut self, v: Value, coords: &[Coord], lanes: usize, r: Reg) {
        let key = (v, coords.to_vec(), lanes);
        self.memo.scopes.last_mut().expect("the outermost scope stays").insert(key, r);
    }

    /// Gives the value of an anchor (an accumulator, a reduction's result) at coordinates. It is
    /// never computed otherwise.
    pub fn give(&mut self, v: Value, coords: &[Coord], r: Reg) {
        let lanes = self.b.ty(r).lanes as usize;
        self.memo.given.insert(v);
        let coords = super::value::aligned(self.task.g.dims(v), coords);
        self.remember(v, &coords, lanes, r);
    }

    /// From here on an f32 value is read from scratch, where it was put.
    pub fn keep(&mut self, v: Value, k: Kept) {
        self.memo.kept.insert(v, k);
    }

    /// The value is made or read as usual again.
    pub fn unkeep(&mut self, v: Value) {
        self.memo.kept.remove(&v);
    }

    fn scratch_at(&mut self, k: &Kept, coords: &[Coord]) -> Addr {
        let each = coords.iter().zip(&k.strides).map(|(c, &s)| c.times(&s.into()));
        let at = each.fold(Coord::from(k.offset), |a, c| a.add(&c));
        self.address(Base::Scratch, &at).0
    }

    /// Puts an f32 value at its place in scratch (all lanes).
    pub fn put_scratch(&mut self, k: &Kept, coords: &[Coord], x: Reg) {
        let addr = self.scratch_at(k, coords);
        self.b.store(x, addr, hub_abi::Dtype::F32, None);
    }

    /// Reads a value that is kept.
    pub fn take_kept(&mut self, v: Value, coords: &[Coord], lanes: usize) -> Option<Reg> {
        let k = self.memo.kept.get(&v).filter(|_| lanes == self.lanes)?.clone();
        let addr = self.scratch_at(&k, coords);
        Some(self.b.load(RegTy::new(Elem::F32, lanes), addr, hub_abi::Dtype::F32, None))
    }

    /// Was this value given (possibly at other coordinates)?
    pub fn is_given(&self, v: Value) -> bool {
        self.memo.given.contains(&v)
    }

    /// Runs `f` with a memory of its own: what it makes is forgotten afterwards.
    pub fn scope<T>(&mut self, f: impl FnOnce(&mut Self) -> T) -> T {
        self.memo.scopes.push(HashMap::new());
        let out = f(self);
        self.memo.scopes.pop();
        out
    }
}
