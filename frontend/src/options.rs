//! What a caller may say about a model: bounds of its dimensions, and limits of what is read.

use crate::error::FrontendError;
use hub_abi::{Dim, Dtype};
use hub_ir::Graph;
use std::collections::{BTreeMap, BTreeSet};

/// Bounds on what a model file may ask for. Exceeding one is [`crate::ErrorKind::Limit`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a model file, and of one external data file.
    pub file_bytes: u64,
    /// Bytes of one tensor.
    pub tensor_bytes: u64,
    /// Bytes of all constants together.
    pub constant_bytes: u64,
    /// Bytes of a sparse tensor when dense.
    pub sparse_bytes: u64,
    /// Bytes that a model's messages take when decoded, their raw data aside, about.
    pub parsed_bytes: u64,
    /// Nodes of the imported graph, bodies included.
    pub nodes: usize,
    /// Calls of the model's own functions that are expanded.
    pub calls: usize,
    /// Depth of bodies and function calls (of messages it is fixed at 100).
    pub nesting: usize,
    /// Axes of one tensor.
    pub rank: usize,
}

impl Default for Limits {
    /// 64 GiB a file, a tensor and all constants, 1 GiB decoded, 100,000 nodes (which
    /// compile in about ten seconds), 64 levels, 64 axes.
    fn default() -> Limits {
        Limits {
            file_bytes: 64 << 30,
            tensor_bytes: 64 << 30,
            constant_bytes: 64 << 30,
            sparse_bytes: 512 << 20,
            parsed_bytes: 1 << 30,
            nodes: 100_000,
            calls: 100_000,
            nesting: 64,
            rank: 64,
        }
    }
}

/// How a model is to be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadOptions {
    /// Inclusive bounds of dimensions by name; an anonymous dimension is `INPUT.AXIS`. Without
    /// bounds a dimension is in `0..=2^31-1`.
    pub bounds: BTreeMap<String, (i64, i64)>,
    /// Dimensions fixed to a size, by the same names.
    pub fixed: BTreeMap<String, i64>,
    /// Limits.
    pub limits: Limits,
}

/// Greatest size of a dimension without bounds of its own.
pub const DIM_MAX: i64 = i32::MAX as i64;

impl LoadOptions {
    /// Parses `NAME=MIN..MAX` into [`LoadOptions::bounds`].
    pub fn bound(&mut self, text: &str) -> Result<(), FrontendError> {
        let parsed = text.rsplit_once('=').and_then(|(name, range)| {
            let (lo, hi) = range.split_once("..")?;
            Some((name, lo.trim().parse().ok()?, hi.trim().parse().ok()?))
        });
        match parsed {
            Some((name, lo, hi)) if 0 <= lo && lo <= hi => {
                self.bounds.insert(name.to_string(), (lo, hi));
                Ok(())
            }
            _ => Err(FrontendError::usage(format!("'{text}' is not NAME=MIN..MAX"))),
        }
    }

    /// Parses `NAME=N` into [`LoadOptions::fixed`].
    pub fn fix(&mut self, text: &str) -> Result<(), FrontendError> {
        let parsed =
            text.rsplit_once('=').and_then(|(name, n)| Some((name, n.trim().parse().ok()?)));
        match parsed {
            Some((name, n)) if n >= 0 => {
                self.fixed.insert(name.to_string(), n);
                Ok(())
            }
            _ => Err(FrontendError::usage(format!("'{text}' is not NAME=N"))),
        }
    }
}

/// Gives dimensions of a model's inputs their symbols, one a name.
#[derive(Debug)]
pub struct DimNames<'a> {
    options: &'a LoadOptions,
    known: BTreeMap<String, Dim>,
    used: BTreeSet<String>,
}

impl<'a> DimNames<'a> {
    /// No names yet.
    pub fn new(options: &'a LoadOptions) -> DimNames<'a> {
        DimNames { options, known: BTreeMap::new(), used: BTreeSet::new() }
    }

    /// The unknown dimension `axis` of `input`, under its own name if it has one.
    pub fn dim(&mut self, g: &mut Graph, input: &str, axis: usize, name: Option<&str>) -> Dim {
        let anonymous = format!("{input}.{axis}");
        // `INPUT.AXIS` also reaches a named dimension, unless its name says something already.
        let name = name.filter(|n| !n.is_empty()).unwrap_or(&anonymous);
        if let Some(d) = self.known.get(name) {
            return d.clone();
        }
        let spell =
            |t: &str| self.options.fixed.contains_key(t) || self.options.bounds.contains_key(t);
        let key = if spell(name) { name } else { &anonymous };
        let d = if let Some(&n) = self.options.fixed.get(key) {
            Dim::from(n)
        } else {
            let (lo, hi) = self.options.bounds.get(key).copied().unwrap_or((0, DIM_MAX));
            if lo == hi { Dim::from(lo) } else { Dim::from(g.new_sym(name, lo, hi)) }
        };
        self.used.insert(key.to_string());
        self.known.insert(name.to_string(), d.clone());
        d
    }

    /// An error if an option names a dimension that the model does not have.
    pub fn finish(self) -> Result<(), FrontendError> {
        let asked = self.options.fixed.keys().chain(self.options.bounds.keys());
        let unknown: Vec<&String> = asked.filter(|n| !self.used.contains(*n)).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let names: Vec<&String> = self.known.keys().collect();
        Err(FrontendError::usage(format!("no dimension is called {unknown:?}"))
            .advise(format!("the model's dimensions are {names:?}")))
    }
}

/// Bytes of a tensor of these sizes, or why it may not be: negative, overflowing, over a limit.
pub fn tensor_bytes(limits: &Limits, dtype: Dtype, dims: &[i64]) -> Result<u64, FrontendError> {
    if dims.len() > limits.rank {
        return Err(FrontendError::limit(format!("rank {} is over {}", dims.len(), limits.rank)));
    }
    if let Some(d) = dims.iter().find(|&&d| d < 0) {
        return Err(FrontendError::invalid(format!("a dimension is {d}")));
    }
    if dims.contains(&0) {
        return Ok(0);
    }
    let size = dims.iter().try_fold(dtype.size().max(1) as u64, |n, &d| n.checked_mul(d as u64));
    match size {
        Some(n) if n <= limits.tensor_bytes => Ok(n),
        _ => Err(FrontendError::limit(format!(
            "a tensor of shape {dims:?} is over {} bytes",
            limits.tensor_bytes
        ))),
    }
}
