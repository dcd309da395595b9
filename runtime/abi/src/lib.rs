//! hub-abi
#![forbid(unsafe_code)]
