//! Hostile files: everything that a model, its weights or a bundle may try, given to the real
//! programs under a limit of 2 GiB and 20 seconds. Each ends in a typed error with its place and
//! the right exit code, or, where the file is a valid model after all, in the defined answer.
//!
//! The files are made here by small builders; nothing is stored.

mod blowups;
mod bundles;
mod files;
mod harness;
mod onnx_bytes;
mod onnx_graphs;
mod onnx_runs;
mod paddle;
mod pb;
mod pir;
#[path = "../../../frontend/tests/protos/mod.rs"]
mod protos;
#[path = "../../../fuzz/src/reseal.rs"]
mod reseal;
mod work;
