//! One file a command.

pub mod bench;
pub mod compare;
pub mod completions;
pub mod convert;
pub mod export;
pub mod inspect;
pub mod optimize;
pub mod run;
pub mod sign;
