//! Writes the committed corpora and ends. It is linked as the targets are, so that one build makes
//! all of them.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: {
        hub_fuzz::write_seeds();
        std::process::exit(0);
    },
    |_data: &[u8]| ()
);
