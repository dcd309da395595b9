//! `hub-models list` and `hub-models materialise NAME OUT_DIR`: the fixtures from the command line.
//!
//! `materialise` writes the full model and, beside it, `inputs.safetensors` and `golden.safetensors`, so that
//! `hub export`, `hubc run` and `hubc compare` have all they ask for.
#![forbid(unsafe_code)]

use hub_models::{Error, Fixture, Result, formats, write};
use std::path::Path;
use std::process::ExitCode;

const USAGE: &str = "usage: hub-models list\n       hub-models materialise NAME|all OUT_DIR";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["list"] => list(),
        ["materialise", "all", out] => Fixture::names().and_then(|names| {
            names.iter().try_for_each(|n| materialise(n, &Path::new(out).join(n)))
        }),
        ["materialise", name, out] => materialise(name, Path::new(out)),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("hub-models: {e}");
            ExitCode::from(match e {
                Error::Io { .. } => 8,
                Error::UnknownFixture { .. } => 2,
                _ => 4,
            })
        }
    }
}

fn list() -> Result<()> {
    for f in Fixture::all()? {
        let inputs: Vec<_> = f.inputs.iter().map(|i| format!("{} {:?}", i.name, i.shape)).collect();
        println!("{:32} {:13} {}", f.name, format!("{:?}", f.format), inputs.join(", "));
    }
    for case in formats()? {
        println!("{:46} {}", case.name, case.model.display());
    }
    Ok(())
}

fn materialise(name: &str, out: &Path) -> Result<()> {
    let fixture = Fixture::load(name)?;
    let model = fixture.materialise(out)?;
    write(out.join("inputs.safetensors"), &fixture.inputs()?.into())?;
    write(out.join("golden.safetensors"), &fixture.golden()?)?;
    println!("{}", model.display());
    Ok(())
}
