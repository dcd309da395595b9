//! Bundle bytes, as they are and sealed again: opened, bound, interpreted, and run where they verify.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hub_fuzz::bundle(data));
