//! What crosses crates: fixtures, conformance, crate directions, tidiness.
#![forbid(unsafe_code)]
