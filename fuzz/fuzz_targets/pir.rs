//! PIR JSON (and the parameters behind it): read, optimised, compiled, interpreted.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hub_fuzz::pir(data));
