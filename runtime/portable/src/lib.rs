//! hub-portable
#![forbid(unsafe_code)]
