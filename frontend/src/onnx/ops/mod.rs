//! Imports of operators, by family. To add one: a row in its family's `OPS`, and a function where
//! a closure does not do.

use super::table::Row;

mod activation;
mod attention;
mod contrib;
mod contrib_attention;
mod contrib_blocks;
mod contrib_experts;
mod contrib_misc;
mod contrib_quant;
mod control;
mod deform;
mod detect;
mod dynamic;
mod einsum;
mod elementwise;
mod generate;
mod gradient;
mod index;
mod linalg;
mod linear_attention;
mod loss;
mod ml;
mod ml_forest;
mod ml_linear;
mod ml_tree;
mod nn;
mod pool;
mod quant;
mod random;
mod recurrent;
mod reduce;
mod resize;
mod sample;
mod scan;
mod sequence;
mod shape;
mod signal;
mod spatial;
mod text;
mod training;

/// All rows.
pub(crate) const TABLES: &[&[Row]] = &[
    activation::OPS,
    attention::OPS,
    signal::OPS,
    random::OPS,
    deform::OPS,
    detect::OPS,
    sample::OPS,
    scan::OPS,
    loss::OPS,
    einsum::OPS,
    recurrent::OPS,
    quant::OPS,
    contrib::OPS,
    contrib_attention::OPS,
    contrib_blocks::OPS,
    contrib_experts::OPS,
    contrib_misc::OPS,
    contrib_quant::OPS,
    control::OPS,
    elementwise::OPS,
    generate::OPS,
    index::OPS,
    linalg::OPS,
    linear_attention::OPS,
    ml::OPS,
    ml_linear::OPS,
    ml_tree::OPS,
    nn::OPS,
    training::OPS,
    pool::OPS,
    reduce::OPS,
    resize::OPS,
    sequence::OPS,
    shape::OPS,
    text::OPS,
];
