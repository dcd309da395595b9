//! What is known of values, and the way back to what was known earlier.
//!
//! A control node is tried natively and may turn out to belong on the host: what the try learned is
//! then undone. Undoing costs what was learned since, not what is known.

use hub_ir::Value;
use std::collections::HashMap;

/// A map by value that goes back to any earlier state.
#[derive(Debug)]
pub struct Kept<V> {
    now: HashMap<Value, V>,
    /// What each change replaced, oldest first.
    before: Vec<(Value, Option<V>)>,
}

/// A state to go back to.
#[derive(Debug, Clone, Copy)]
pub struct State(usize);

impl<V> Default for Kept<V> {
    fn default() -> Self {
        Self { now: HashMap::new(), before: vec![] }
    }
}

impl<V> Kept<V> {
    /// What is known of a value.
    pub fn get(&self, v: &Value) -> Option<&V> {
        self.now.get(v)
    }

    /// Is anything known of it?
    pub fn contains(&self, v: &Value) -> bool {
        self.now.contains_key(v)
    }

    /// From now on this holds of the value.
    pub fn insert(&mut self, v: Value, known: V) {
        let old = self.now.insert(v, known);
        self.before.push((v, old));
    }

    /// Nothing is known of the value any more.
    pub fn remove(&mut self, v: &Value) {
        if let Some(old) = self.now.remove(v) {
            self.before.push((*v, Some(old)));
        }
    }

    /// Inserts all of these.
    pub fn extend(&mut self, all: impl IntoIterator<Item = (Value, V)>) {
        all.into_iter().for_each(|(v, known)| self.insert(v, known));
    }

    /// The state as it is.
    pub fn state(&self) -> State {
        State(self.before.len())
    }

    /// Goes back to a state that was taken on the way here.
    pub fn back_to(&mut self, s: State) {
        for (v, old) in self.before.drain(s.0..).rev() {
            match old {
                Some(old) => _ = self.now.insert(v, old),
                None => _ = self.now.remove(&v),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_change_is_undone_in_order() {
        let mut k = Kept::default();
        let [a, b, c] = [Value(0), Value(1), Value(2)];
        k.extend([(a, 1), (b, 2)]);
        let outer = k.state();
        k.insert(a, 10);
        k.remove(&b);
        let inner = k.state();
        k.insert(a, 100);
        k.insert(b, 20);
        k.insert(c, 3);
        k.remove(&c);
        k.back_to(inner);
        assert_eq!([a, b, c].map(|v| k.get(&v).copied()), [Some(10), None, None]);
        k.back_to(outer);
        assert_eq!([a, b, c].map(|v| k.get(&v).copied()), [Some(1), Some(2), None]);
    }
}
