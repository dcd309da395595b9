//! hub-codegen
#![forbid(unsafe_code)]
