//! What the fuzz targets do with bytes: one function each.
//!
//! A refusal with a typed error is an answer; a panic, a graph that a pass or the compiler leaves
//! broken, and compiled code that differs from the reference are findings. Time and memory are
//! bounded by the fuzzer's own limits (`-timeout`, `-rss_limit_mb`).

mod bundles;
mod differ;
mod reseal;
mod run;
mod seeds;

pub use bundles::bundle;
pub use differ::differential;
pub use seeds::write as write_seeds;

use bytes::Bytes;
use hub_frontend::{FrontendError, LoadOptions, Loaded, onnx, paddle};
use hub_ir::verify::{Stage, verify};
use std::path::Path;

/// An error must have one of the exit codes that models may cause, and print.
fn refused(e: &FrontendError) {
    assert!(matches!(e.exit_code(), 2..=4 | 8 | 9), "{e}");
    assert!(!e.to_string().contains('\u{1b}'), "an error writes to the terminal");
}

fn loaded(r: Result<Loaded, FrontendError>) {
    match r {
        Err(e) => refused(&e),
        Ok(l) => run::whole(l.graph),
    }
}

/// ONNX bytes.
pub fn onnx(data: &[u8]) {
    let options = LoadOptions::default();
    let folder = Path::new("/nowhere/at/all/m.onnx");
    loaded(onnx::load_bytes(Bytes::copy_from_slice(data), folder, &options));
}

/// Splits off the parameters: the first four bytes say how long the program is.
fn parts(data: &[u8]) -> Option<(Bytes, Bytes)> {
    let (len, rest) = data.split_first_chunk::<4>()?;
    let at = (u32::from_le_bytes(*len) as usize).min(rest.len());
    let (program, params) = rest.split_at(at);
    Some((Bytes::copy_from_slice(program), Bytes::copy_from_slice(params)))
}

/// ProgramDesc bytes, with parameters.
pub fn program(data: &[u8]) {
    let Some((program, params)) = parts(data) else { return };
    if program.first() != Some(&b'{') {
        loaded(paddle::load_bytes(program, &params, &LoadOptions::default()));
    }
}

/// PIR JSON, with parameters.
pub fn pir(data: &[u8]) {
    let Some((program, params)) = parts(data) else { return };
    if program.first() == Some(&b'{') {
        loaded(paddle::load_bytes(program, &params, &LoadOptions::default()));
    }
}

/// A program whose parameters are read from a combined stream.
const PROGRAM: &str = include_str!("../../models/paddle_formats/pir/static_combined/model.json");

/// Parameter streams.
pub fn params(data: &[u8]) {
    let program = Bytes::from_static(PROGRAM.as_bytes());
    loaded(paddle::load_bytes(program, &Bytes::copy_from_slice(data), &LoadOptions::default()));
}

/// The IR's text form.
pub fn text(data: &[u8]) {
    let Ok(source) = std::str::from_utf8(data) else { return };
    let Ok(g) = hub_ir::text::parse(source) else { return };
    let printed = hub_ir::text::print(&g);
    if verify(&g, Stage::Imported).is_ok() {
        run::whole(g);
    }
    if let Ok(again) = hub_ir::text::parse(&printed) {
        assert_eq!(hub_ir::text::print(&again), printed, "the text form does not round-trip");
    }
}
