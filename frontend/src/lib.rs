//! hub-frontend
#![forbid(unsafe_code)]
