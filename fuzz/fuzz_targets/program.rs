//! ProgramDesc bytes (and the parameters behind them): read, optimised, compiled, interpreted.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hub_fuzz::program(data));
