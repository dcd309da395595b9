//! Imports of operators, by family. To add one: a row in its family's `OPS`, and a function where
//! a closure does not do.

use super::table::Row;

mod activation;
mod elementwise;
mod linalg;
mod nn;
mod pool;
mod reduce;
mod shape;
mod spatial;

/// All rows.
pub(crate) const TABLES: &[&[Row]] =
    &[activation::OPS, elementwise::OPS, linalg::OPS, nn::OPS, pool::OPS, reduce::OPS, shape::OPS];
