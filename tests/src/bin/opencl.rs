//! Every fixture on the first OpenCL device, beside its golden.
//! `cargo run --release -p hub-tests --bin opencl [NAME…]`. Exits with 1 if an answer is wrong.

use hub_models::Tolerance;
use hub_tests::opencl;
use std::process::ExitCode;
use std::time::Instant;

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let (Ok(cases), Ok(dir)) = (hub_models::cases(), tempfile::tempdir()) else {
        eprintln!("error: no fixtures, or no folder for them");
        return ExitCode::from(8);
    };
    let bundle = dir.path().join("m.hub");
    let (mut right, mut rows) = (0, 0);
    for case in &cases {
        if !wanted.is_empty() && !wanted.iter().any(|w| case.name.contains(w)) {
            continue;
        }
        rows += 1;
        let start = Instant::now();
        if let Err(e) = opencl::export(case, &bundle) {
            println!("{:<42} {e}", case.name);
            continue;
        }
        let exported = start.elapsed().as_secs_f64();
        if let Some(why) = opencl::absent(&bundle) {
            println!("ignored: fixtures on OpenCL ({why})");
            return ExitCode::SUCCESS;
        }
        let seconds = || start.elapsed().as_secs_f64() - exported;
        match opencl::check(case, &bundle, Tolerance::default()) {
            Ok(c) => {
                println!(
                    "{:<42} export {exported:>4.1} s, run {:>5.1} s, {c}",
                    case.name,
                    seconds()
                );
                right += usize::from(c.ok());
            }
            Err(e) => println!("{:<42} {e}", case.name),
        }
    }
    println!("{right} of {rows} right");
    ExitCode::from(u8::from(right != rows || rows == 0))
}
