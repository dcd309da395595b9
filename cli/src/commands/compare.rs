//! `hubc compare`: outputs against a golden file.

use crate::args::Compare;
use crate::compile::{Job, compile};
use crate::failure::{Failure, INVALID, MISMATCH, USAGE};
use crate::limits::Limits;
use crate::plain;
use crate::report::SCHEMA;
use crate::tensors::{self, Inputs};
use hub_models::Tolerance;
use serde_json::json;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Compiles if need be, runs, compares; exit code 5 where an output is off.
pub fn run(a: Compare) -> Result<(), Failure> {
    let golden = tensors::read(&a.golden)?;
    let (bundle, _temporary) = bundle_of(&a.model, Limits::of(&a.running.limits.limits)?)?;
    let mut o = tensors::open(&bundle, &a.running, Inputs::Given)?;
    let given = match &a.inputs {
        Some(path) => tensors::read(path)?.tensors,
        None => hub_models::inputs_of(&golden),
    };
    if given.is_empty() && !o.model.manifest().inputs.is_empty() {
        return Err(Failure::new(USAGE, "the golden file has no inputs")
            .help("give them with --inputs IN.safetensors"));
    }
    let inputs = tensors::inputs_for(&o, &given)?;
    let out = o.run(&inputs)?;
    let tolerance = Tolerance { rtol: a.rtol, ..Tolerance::default() };
    let c = hub_models::compare(&golden, &out, tolerance)
        .map_err(|e| Failure::new(INVALID, e.to_string()))?;
    if a.json {
        let outputs: Vec<_> = c
            .outputs
            .iter()
            .map(|r| json!({ "name": r.name, "error": r.error, "ok": r.ok, "problem": r.problem }))
            .collect();
        println!("{}", json!({ "schema": SCHEMA, "ok": c.ok(), "outputs": outputs }));
    } else {
        c.to_string().lines().for_each(|l| println!("{}", plain(l)));
    }
    if c.ok() {
        return Ok(());
    }
    Err(Failure::new(MISMATCH, format!("the outputs differ from the golden by {:.1e}", c.error())))
}

/// A bundle as it is; a model compiled into a temporary one, removed with the guard.
fn bundle_of(path: &Path, limits: Limits) -> Result<(PathBuf, Option<Temporary>), Failure> {
    if is_bundle(path) {
        return Ok((path.to_path_buf(), None));
    }
    let file = std::env::temp_dir().join(format!("hub-compare-{}.hub", std::process::id()));
    let temporary = Temporary(file.clone());
    let mut job = Job::plain(path, &file);
    job.limit(limits);
    compile(&job)?;
    Ok((file, Some(temporary)))
}

/// Does the file begin as bundles (ELF files) do?
pub fn is_bundle(path: &Path) -> bool {
    let mut head = [0; 4];
    if !path.is_file() {
        return false;
    }
    let read = std::fs::File::open(path).and_then(|mut f| f.read_exact(&mut head));
    read.is_ok() && head == *b"\x7fELF"
}

struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _gone_already = std::fs::remove_file(&self.0);
    }
}
