//! Prints how far the reference answer of each model is from its golden.
//!
//!     cargo run --release -p hub-frontend --example reference -- [--dynamic] [PART OF A NAME]...
//!
//! With `--dynamic`, PIR models whose inputs' sizes are made unknown.

#[path = "../tests/common/mod.rs"]
mod common;

use hub_models::Fixture;
use std::time::Instant;

fn main() {
    let (flags, wanted): (Vec<String>, Vec<String>) =
        std::env::args().skip(1).partition(|a| a == "--dynamic");
    let dynamic = !flags.is_empty();
    let pir = |c: &hub_models::Case| c.model.with_extension("pdiparams").is_file();
    let want = |name: &str| wanted.is_empty() || wanted.iter().any(|w| name.contains(w.as_str()));
    let mut cases = hub_models::formats().expect("the models' folder is whole");
    cases.retain(|c| want(&c.name));
    for name in Fixture::names().expect("the models' folder is whole") {
        if want(&name) {
            let fixture = Fixture::load(&name).expect("listed");
            cases.push(hub_models::Case::of(fixture).expect("written under the build folder"));
        }
    }
    if dynamic {
        cases.retain(|c| c.model.extension().is_some_and(|e| e == "json") && pir(c));
    }
    let mut wrong = 0;
    for case in &cases {
        let start = Instant::now();
        let result = if dynamic { common::check_dynamic(case) } else { common::check(case) };
        let seconds = start.elapsed().as_secs_f64();
        match result {
            Ok(c) => {
                wrong += usize::from(!c.ok());
                let verdict = if c.ok() { "ok" } else { "WRONG" };
                println!("{:45} {verdict:6} {:8.1e} {seconds:7.2} s", case.name, c.error());
                if !c.ok() {
                    println!("{c}");
                }
            }
            Err(e) => {
                wrong += 1;
                println!("{:45} FAILED {e}", case.name);
            }
        }
    }
    println!("{} models, {wrong} not as they should be", cases.len());
    std::process::exit(i32::from(wrong > 0));
}
