//! `hubc convert`: a model as an ONNX file.

use crate::args::Convert;
use crate::compile::{load_options, same_file};
use crate::failure::{Failure, USAGE};
use crate::limits::Limits;
use crate::plain;
use crate::report::{SCHEMA, kib};
use hub_frontend::onnx::write::{WriteOptions, WriteReport, convert};
use hub_ir::Graph;
use hub_passes::FoldLimits;
use serde_json::json;

/// Loads, runs passes where asked, writes.
pub fn run(a: Convert) -> Result<(), Failure> {
    if same_file(&a.model, &a.output) {
        let what = format!("{} is the model itself", a.output.display());
        return Err(Failure::new(USAGE, what).help("write to another file"));
    }
    let limits = Limits::of(&a.limits.limits)?;
    let mut options = load_options(&a.dims, &a.specialize)?;
    options.limits = limits.model;
    let mut loaded = hub_frontend::load(&a.model, &options)?;
    loaded.warnings.iter().for_each(|w| eprintln!("warning: {}", plain(w)));
    if let Some(last) = &a.after {
        passes_until(&mut loaded.graph, last, limits.fold)?;
    }
    let name = a.model.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let how = WriteOptions { external_data: a.external_data, name, ..WriteOptions::default() };
    let written = convert(&loaded.graph, &how)?.save(&a.output)?;
    report(&a, &written);
    Ok(())
}

/// Runs the passes up to one.
fn passes_until(g: &mut Graph, last: &str, fold: FoldLimits) -> Result<(), Failure> {
    let names: Vec<&str> = hub_passes::PASSES.iter().map(|p| p.name).collect();
    if !names.contains(&last) {
        return Err(Failure::new(USAGE, format!("there is no pass '{last}'"))
            .help(format!("passes: {}", names.join(", "))));
    }
    let options = hub_passes::Options { fold, ..hub_passes::Options::default() };
    hub_passes::run_until(g, &options, last, &mut |_, _| {})?;
    Ok(())
}

fn report(a: &Convert, w: &WriteReport) {
    if a.json {
        let data = w.external_bytes;
        println!(
            "{}",
            json!({ "schema": SCHEMA, "output": a.output, "nodes": w.nodes, "functions": w.functions,
                    "constants": w.initializers, "bytes": w.bytes, "external_bytes": data })
        );
        return;
    }
    let beside = w.external_bytes.map_or(String::new(), |n| format!(", {} beside it", kib(n)));
    println!(
        "{}: {} nodes, {} functions, {} constants, {}{beside}",
        a.output.display(),
        w.nodes,
        w.functions,
        w.initializers,
        kib(w.bytes)
    );
}
