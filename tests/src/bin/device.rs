//! Does a device driver hold to `runtime/include/hub_device.h`? For whoever writes one, and for owners of
//! devices that we have not: `cargo run --release -p hub-tests --bin device -- LIBRARY [INDEX [NAME…]]`.
//! Tries each function of the driver in that library, then runs fixtures (digits, or those of these
//! names) on the device. Exits with 1 if something does not hold.

use hub_cli::tensors::Opened;
use hub_models::Tolerance;
use hub_runtime::device::{Driver, conform, of_library};
use hub_runtime::{Model, OpenOptions, Session, SessionOptions};
use hub_tests::{compare_on, export_one, sample};
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let Some(library) = args.next() else {
        eprintln!("usage: device LIBRARY [INDEX [NAME…]]");
        return ExitCode::from(2);
    };
    let index = args.next().and_then(|i| i.parse().ok()).unwrap_or(0);
    let mut names: Vec<String> = args.collect();
    if names.is_empty() {
        names.push("digits".into());
    }
    let (library, mut wrong) = (Path::new(&library), 0);
    let mut tell = |what: &str, result: Result<String, String>| match result {
        Ok(seen) => println!("holds  {what}: {seen}"),
        Err(why) => {
            wrong += 1;
            println!("WRONG  {what}: {why}");
        }
    };
    let device = of_library(library, index);
    let known = device
        .as_ref()
        .ok()
        .and_then(|d| d.tiers().into_iter().find_map(|t| sample::sample(&t).map(|s| (t, s))));
    match (device, known) {
        (Ok(device), Some((tier, sample))) => {
            for f in conform::conform(library, index, &tier, &sample) {
                tell(&f.what, f.result);
            }
            for name in &names {
                fixtures(&device, &tier, name, &mut tell);
            }
        }
        (Err(e), _) => tell("its device", Err(e.to_string())),
        (Ok(d), None) => tell("its tiers", Err(format!("none is known: {}", d.tiers().join(", ")))),
    }
    println!("{}", if wrong == 0 { "all holds" } else { "not all holds" });
    ExitCode::from(u8::from(wrong > 0))
}

fn fixtures(
    device: &impl Driver,
    tier: &str,
    name: &str,
    tell: &mut dyn FnMut(&str, Result<String, String>),
) {
    let (Ok(cases), Ok(dir)) = (hub_models::cases(), tempfile::tempdir()) else {
        return tell(name, Err("no fixtures, or no folder for them".into()));
    };
    let bundle = dir.path().join("m.hub");
    for case in cases.iter().filter(|c| c.name.contains(name)) {
        let run = || {
            export_one(case, &bundle, tier).map_err(|e| e.to_string())?;
            let model = Model::open(&bundle, &OpenOptions::default()).map_err(|e| e.to_string())?;
            let session = Session::on(&model, &SessionOptions::default(), device);
            let session = session.map_err(|e| e.to_string())?;
            let done = compare_on(case, Opened { model, session }, Tolerance::default());
            let c = done.map_err(|e| e.to_string())?;
            if c.ok() { Ok(c.to_string()) } else { Err(c.to_string()) }
        };
        tell(&format!("fixture {}", case.name), run());
    }
}
