//! Entities and dense maps of them.

use std::marker::PhantomData;
use std::ops::{Index, IndexMut};

/// A `u32` newtype that indexes an [`EntityMap`].
pub trait Entity: Copy + Eq + Ord {
    /// From an index.
    fn new(i: usize) -> Self;
    /// To an index.
    fn index(self) -> usize;
}

macro_rules! entity {
    ($($(#[$doc:meta])* $name:ident $prefix:literal),*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub u32);

        impl Entity for $name {
            fn new(i: usize) -> Self {
                $name(u32::try_from(i).expect("fewer than 2^32 entities"))
            }
            fn index(self) -> usize {
                self.0 as usize
            }
        }
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
    )*};
}

entity! {
    /// A value of the graph.
    Value "%",
    /// A node.
    Node "n",
    /// A region.
    Region "r",
    /// A constant of the pool.
    ConstId "c"
}

impl Value {
    /// Stands for an operand that is left out; only source operators and control have such.
    pub const NONE: Value = Value(u32::MAX);

    /// Is it [`Value::NONE`]?
    pub fn is_none(self) -> bool {
        self == Value::NONE
    }

    /// The value, unless left out.
    pub fn some(self) -> Option<Value> {
        (!self.is_none()).then_some(self)
    }
}

/// A dense map from an entity to data; entities are handed out by [`EntityMap::push`].
#[derive(Clone, Debug, PartialEq)]
pub struct EntityMap<K, V> {
    items: Vec<V>,
    key: PhantomData<K>,
}

impl<K, V> Default for EntityMap<K, V> {
    fn default() -> Self {
        EntityMap { items: vec![], key: PhantomData }
    }
}

impl<K: Entity, V> EntityMap<K, V> {
    /// Adds an item and names it.
    pub fn push(&mut self, v: V) -> K {
        self.items.push(v);
        K::new(self.items.len() - 1)
    }
    /// How many there are.
    pub fn len(&self) -> usize {
        self.items.len()
    }
    /// None at all?
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
    /// Forgets all items but the first `len`; nothing may name those that go.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.items.truncate(len);
    }
    /// The item, if the key is in range.
    pub fn get(&self, k: K) -> Option<&V> {
        self.items.get(k.index())
    }
    /// All keys, in order.
    pub fn keys(&self) -> impl DoubleEndedIterator<Item = K> + use<K, V> {
        (0..self.items.len()).map(K::new)
    }
    /// All pairs, in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (K, &V)> {
        self.items.iter().enumerate().map(|(i, v)| (K::new(i), v))
    }
}

impl<K: Entity, V> Index<K> for EntityMap<K, V> {
    type Output = V;
    fn index(&self, k: K) -> &V {
        &self.items[k.index()]
    }
}
impl<K: Entity, V> IndexMut<K> for EntityMap<K, V> {
    fn index_mut(&mut self, k: K) -> &mut V {
        &mut self.items[k.index()]
    }
}
