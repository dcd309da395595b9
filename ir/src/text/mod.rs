//! The text form of a graph: for people, parsed back to the same graph, held by snapshot tests.
//!
//! ```text
//! sym N 1..64
//! require 2*N == 8
//! graph(%0 "x": f32[N, 3]) {
//!   %1: f32[3, 2] = const [1, 2, 3, 4, 5, 6]
//!   %2: f32[64, 64] = const #8a3f…
//!   %3: f32[N, 2] = @matmul {trans_a: false, trans_b: false} (%0, %1) "fc"
//!   %4: f32[N, 2] = neg (%3)
//!   %5: f32[N, 2] = if (%6) then { … return %7 } else { … return %8 }
//!   return %4 "y"
//! }
//! ```
//!
//! `@name` is a source operator, a bare name a primitive (unary and binary functions by their own
//! name) or control; `group kind`, `if`, `loop` and `scan` carry regions. Values are numbered in order
//! of definition, so two graphs that differ only in what is dead print alike. `_` is an operand
//! left out; the string behind a node is its name. Names of symbols that are not plain stand
//! between backticks. `1e-5f` is a number of f32's precision.

mod attrs;
mod consts;
mod parse;
mod print;

pub use attrs::float;
pub use consts::hash;
pub use parse::{ParseError, parse, parse_with};
pub use print::{print, print_node};

#[cfg(test)]
mod tests;
