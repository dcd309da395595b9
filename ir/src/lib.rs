//! hub-ir
#![forbid(unsafe_code)]
