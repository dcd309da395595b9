//! hub-models
#![forbid(unsafe_code)]
