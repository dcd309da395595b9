//! The constant pool: each constant once, packed where kernels read it packed; every tier shares it.

use super::PlaceError;
use crate::lower::winograd::filter::Filter;
use bytes::Bytes;
use hub_abi::pgraph::{PGraph, Packing};
use hub_ir::portable::Portable;
use hub_ir::{ConstId, Graph};
use std::collections::HashMap;

/// How kernels read a constant, other than row-major.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Form {
    /// In panels, a permutation that the portable graph reads too.
    Panels(Packing),
    /// Transformed, from which the filter is not had back: it is kept beside the plain one.
    Winograd(Filter),
}

/// A constant in one stored form.
pub type ConstKey = (ConstId, Option<Form>);

/// Which constants are stored in which forms.
pub struct ConstPool {
    /// Constant of each entry of the portable graph, with its bytes.
    portable: Vec<(ConstId, Bytes)>,
    /// Element size of constants.
    sizes: HashMap<ConstId, usize>,
    /// Forms that tiers read, in order of first use.
    wanted: Vec<ConstKey>,
    placed: HashMap<ConstKeyHash, (u64, u64)>,
}

/// `Form` is not hashable; its text is.
type ConstKeyHash = (ConstId, String);

fn hashed(key: &ConstKey) -> ConstKeyHash {
    (key.0, format!("{:?}", key.1))
}

impl ConstPool {
    /// A pool for the constants of a graph's portable form.
    pub fn new(g: &Graph, p: &Portable) -> ConstPool {
        let bytes = p.store.pieces.iter().map(|(_, b)| b.clone());
        let portable: Vec<_> = p.consts.iter().copied().zip(bytes).collect();
        let sizes = portable.iter().map(|(c, _)| (*c, g.consts[*c].ty.dtype.size())).collect();
        ConstPool { portable, sizes, wanted: vec![], placed: HashMap::new() }
    }

    /// Notes that a kernel reads this form.
    pub fn want(&mut self, key: &ConstKey) {
        if !self.wanted.contains(key) {
            self.wanted.push(key.clone());
        }
    }

    /// The transformed form of a constant that some kernel reads.
    pub fn transformed(&self, id: ConstId) -> Option<Filter> {
        self.wanted.iter().find_map(|k| match &k.1 {
            Some(Form::Winograd(f)) if k.0 == id => Some(*f),
            _ => None,
        })
    }

    /// Lays every constant out in the forms that kernels read. The portable graph reads one of them
    /// if it can, else a plain one is added.
    pub fn lay_out(
        &mut self,
        g: &mut PGraph,
        add: &mut dyn FnMut(Bytes) -> u64,
    ) -> Result<(), PlaceError> {
        for (i, (id, bytes)) in self.portable.clone().into_iter().enumerate() {
            let forms: Vec<ConstKey> = self.wanted.iter().filter(|k| k.0 == id).cloned().collect();
            let panels = forms.iter().find(|k| matches!(k.1, Some(Form::Panels(_))));
            let main = match panels {
                Some(one) if forms.iter().all(|k| k.1.is_some()) => one.clone(),
                _ => (id, None),
            };
            for key in std::iter::once(&main).chain(forms.iter().filter(|k| **k != main)) {
                let data = self.form(key, &bytes)?;
                let len = data.len() as u64;
                let offset = add(data);
                self.placed.insert(hashed(key), (offset, len));
            }
            let (offset, len) = self.at(&main);
            let c = &mut g.consts[i];
            let packing = match main.1 {
                Some(Form::Panels(p)) => Some(p),
                _ => None,
            };
            (c.offset, c.len, c.packing) = (offset, len, packing);
        }
        Ok(())
    }

    fn form(&self, key: &ConstKey, bytes: &Bytes) -> Result<Bytes, PlaceError> {
        let made = match &key.1 {
            None => return Ok(bytes.clone()),
            Some(Form::Panels(p)) => {
                hub_abi::pack::pack(bytes, self.sizes[&key.0], p).map_err(|e| e.to_string())
            }
            Some(Form::Winograd(f)) => {
                f.store(bytes, self.sizes[&key.0]).ok_or_else(|| "not a 3x3 filter".into())
            }
        };
        let node = format!("constant {}", key.0);
        made.map(Bytes::from).map_err(|why| PlaceError::Internal { node, why })
    }

    /// Offset and length of a form that was laid out.
    pub fn at(&self, key: &ConstKey) -> (u64, u64) {
        self.placed[&hashed(key)]
    }
}
