//! The programs `hub` and `hubc`: one file a command, over the library crates.
//!
//! Invariants: results go to standard output, everything else to standard error; progress is shown
//! on a terminal only; every failure ends in [`Failure`] with the exit code of the design.
#![forbid(unsafe_code)]

pub mod args;
pub mod commands;
pub mod compile;
pub mod failure;
pub mod limits;
pub mod machine;
pub mod progress;
pub mod report;
pub mod tensors;
pub mod tune;
mod verify;

pub use failure::Failure;

use std::process::ExitCode;

/// Text of a model or bundle made fit for a terminal: what controls one, or the direction of text,
/// is escaped.
pub fn plain(text: &str) -> String {
    let escape = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let one = |c: char| if escape(c) { c.escape_default().to_string() } else { c.into() };
    text.chars().map(one).collect()
}

/// Runs a program's command and turns its result into an exit code.
pub fn finish(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(f) => {
            eprintln!("{f}");
            ExitCode::from(f.code)
        }
    }
}

/// Ends the program with exit code 8 where standard output cannot be written: quietly if its reader
/// has left, as `head` does. `println!` can only panic then.
fn leave_closed_pipes() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| match info.payload().downcast_ref::<String>() {
        Some(what) if what.starts_with("failed printing to stdout") => {
            if !what.contains("Broken pipe") {
                eprintln!("error: {what}");
            }
            std::process::exit(failure::IO.into());
        }
        _ => report(info),
    }));
}

/// Runs `f`; a panic is a bug of ours and ends in exit code 70 with a message that says so.
pub fn guarded(f: impl FnOnce() -> Result<(), Failure> + std::panic::UnwindSafe) -> ExitCode {
    leave_closed_pipes();
    match std::panic::catch_unwind(f) {
        Ok(r) => finish(r),
        Err(_) => {
            eprintln!(
                "error: internal error: this is a bug in Hub; please report it with the model"
            );
            ExitCode::from(failure::INTERNAL)
        }
    }
}
