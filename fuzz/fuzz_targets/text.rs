//! The IR's text form: parsed, printed, parsed again, optimised, interpreted.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hub_fuzz::text(data));
