//! Random small graphs: compiled code against the reference.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hub_fuzz::differential(data));
