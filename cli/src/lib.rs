//! hub-cli
#![forbid(unsafe_code)]
