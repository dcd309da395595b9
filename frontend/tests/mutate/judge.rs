//! What becomes of a changed model, and what of it is a fault.

use super::cases::Model;
use hub_frontend::FrontendError;
use hub_frontend::onnx::write::{WriteOptions, convert};
use hub_ir::Graph;
use hub_ir::verify::{Stage, verify};
use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, Once};
use std::time::Duration;

/// Processor time above which a change is a fault.
pub const SLOW: Duration = Duration::from_secs(2);

/// How far a changed model goes after it is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Depth {
    /// Not at all.
    Read,
    /// It is optimised, every pass's result verified.
    Passes,
    /// It is written as ONNX, interpreted, optimised, interpreted again, and compiled.
    Whole,
}

/// What is done with graphs that were read; a panic is a fault.
pub type Further = dyn Fn(Graph, Depth) + Sync;

/// What became of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum End {
    /// It was refused with this exit code; `placed` if the error names a node or a place in the file.
    Refused {
        /// The exit code.
        code: i32,
        /// Whether it says where.
        placed: bool,
    },
    /// It is a model after all.
    Accepted,
    /// A panic, or an answer that may not be: where, and what.
    Fault(String, String),
}

thread_local! {
    static JUDGING: Cell<bool> = const { Cell::new(false) };
    static PANIC: RefCell<Option<(String, String)>> = const { RefCell::new(None) };
}

/// Panics while a model is judged are noted instead of printed.
fn note_panics() {
    static ONCE: Once = Once::new();
    static SEEN: Mutex<Option<HashSet<String>>> = Mutex::new(None);
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !JUDGING.get() {
                return before(info);
            }
            let at =
                info.location().map_or("nowhere".into(), |l| format!("{}:{}", l.file(), l.line()));
            let text = info.payload_as_str().unwrap_or("no message").to_string();
            // A trace is slow to make: of each place one.
            let mut seen = SEEN.lock().unwrap_or_else(|e| e.into_inner());
            let new = seen.get_or_insert_default().insert(at.clone());
            let trace = if new { callers() } else { String::new() };
            PANIC.with(|p| *p.borrow_mut() = Some((at, text + &trace)));
        }));
    });
}

/// Who called, as far as it is this project's code.
fn callers() -> String {
    let all = Backtrace::force_capture().to_string();
    let lines = all.lines().filter_map(|l| l.trim().strip_prefix("at "));
    let own =
        lines.filter(|l| l.contains(".rs:") && !l.contains("/rustc/") && !l.contains("judge.rs"));
    let own = own.filter(|l| !l.contains(".cargo") && !l.contains("rustlib"));
    own.take(6).map(|l| format!("\n        from {l}")).collect()
}

/// Reads a model and goes on to a depth.
pub fn judge(model: &Model, depth: Depth, further: &Further) -> End {
    note_panics();
    JUDGING.set(true);
    let end = catch_unwind(AssertUnwindSafe(|| end(model, depth, further)));
    JUDGING.set(false);
    match end {
        Ok(end) => end,
        Err(_) => {
            let (at, text) = PANIC.with(|p| p.borrow_mut().take()).unwrap_or_default();
            End::Fault(at, text)
        }
    }
}

fn end(model: &Model, depth: Depth, further: &Further) -> End {
    let g = match model.load() {
        Ok(l) => l.graph,
        Err(e) => return refused(&e),
    };
    if let Err(e) = verify(&g, Stage::Imported) {
        return End::Fault("the imported graph".into(), e.to_string());
    }
    if depth == Depth::Whole
        && let Err(e) = convert(&g, &WriteOptions::default())
        && !matches!(e.exit_code(), 3 | 4 | 9)
    {
        return End::Fault("written as ONNX".into(), e.to_string());
    }
    further(g, depth);
    End::Accepted
}

fn refused(e: &FrontendError) -> End {
    let (code, text) = (e.exit_code(), e.to_string());
    if !matches!(code, 3 | 4 | 8 | 9) {
        return End::Fault(format!("exit code {code}"), text);
    }
    if text.chars().any(char::is_control) {
        return End::Fault("an error that writes to a terminal".into(), text);
    }
    let placed = e.place.node.is_some() || e.place.offset.is_some();
    End::Refused { code, placed }
}
