//! hub-passes
#![forbid(unsafe_code)]
