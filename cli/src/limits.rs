//! `--limit NAME=VALUE`: one table of everything that is bounded, with its default.

use crate::failure::{Failure, USAGE};

/// Bounds of a command: on what is read, on what the compiler computes, on what a run uses.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    /// Of the model's file.
    pub model: hub_frontend::Limits,
    /// Of folding constants.
    pub fold: hub_passes::FoldLimits,
    /// Of making kernels.
    pub compile: hub_codegen::place::Limits,
    /// Of a run.
    pub run: hub_runtime::Limits,
}

/// One limit.
struct Row {
    name: &'static str,
    /// What it bounds.
    what: &'static str,
    /// Counted in bytes.
    bytes: bool,
    get: fn(&Limits) -> u64,
    set: fn(&mut Limits, u64),
}

macro_rules! row {
    ($name:literal, $bytes:literal, $($at:ident).+, $what:literal) => {
        Row {
            name: $name,
            what: $what,
            bytes: $bytes,
            get: |l| l.$($at).+ as u64,
            set: |l, v| l.$($at).+ = v.try_into().unwrap_or_else(|_| !0),
        }
    };
}

const ROWS: &[Row] = &[
    row!("file", true, model.file_bytes, "a model file, and each file of external data"),
    row!("decoded", true, model.parsed_bytes, "the model's messages when decoded, weights aside"),
    row!("tensor", true, model.tensor_bytes, "one tensor of the model"),
    row!("constants", true, model.constant_bytes, "all constants of the model"),
    row!("sparse", true, model.sparse_bytes, "a sparse tensor when dense"),
    row!("nodes", false, model.nodes, "nodes of the graph, bodies and expanded calls included"),
    row!("calls", false, model.calls, "calls of the model's own functions that are expanded"),
    row!("nesting", false, model.nesting, "depth of bodies and calls"),
    row!("rank", false, model.rank, "axes of a tensor"),
    row!("fold", true, fold.bytes, "constants computed while compiling (and 16 times the model's)"),
    row!("fold-work", false, fold.work, "multiply-adds (or what takes as long) while compiling"),
    row!("kernels", false, compile.kernels, "kernels that differ, for each tier"),
    row!("run-tensor", true, run.tensor_bytes, "one tensor of a run"),
    row!("arena", true, run.live_bytes, "memory of a run"),
    row!("steps", false, run.steps, "portable nodes of a run, each iteration counted"),
    row!("work", false, run.work, "multiply-adds (or what takes as long) of a run"),
    row!("sequence", false, run.sequence, "elements of a sequence"),
];

impl Limits {
    /// The defaults with these `NAME=VALUE` options applied.
    pub fn of(options: &[String]) -> Result<Limits, Failure> {
        let mut limits = Limits::default();
        for o in options {
            let wrong = |what: String| Failure::new(USAGE, what).help(help());
            let (name, value) = o.split_once('=').unwrap_or((o, ""));
            let row = ROWS.iter().find(|r| r.name == name);
            let row = row.ok_or_else(|| wrong(format!("there is no limit '{name}'")))?;
            let value = number(value).filter(|v| *v > 0);
            let value = value.ok_or_else(|| {
                wrong(format!("--limit {o}: a number above 0 is needed (K, M, G, T: 1024 each)"))
            })?;
            (row.set)(&mut limits, value);
        }
        Ok(limits)
    }
}

/// The option that raises the limit of a run that a sentence of the runtime's is about.
pub fn named(sentence: &str) -> Option<&'static str> {
    const OF: [(&str, &str); 6] = [
        ("amount of work", "work"),
        ("number of nodes run", "steps"),
        ("arena", "arena"),
        ("memory of all values", "arena"),
        ("tensor's size", "run-tensor"),
        ("elements of a sequence", "sequence"),
    ];
    OF.iter().find(|(words, _)| sentence.contains(words)).map(|(_, name)| *name)
}

fn number(text: &str) -> Option<u64> {
    let unit = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(unit);
    let power = match unit {
        "" => 0,
        "K" | "k" => 1,
        "M" | "m" => 2,
        "G" | "g" => 3,
        "T" | "t" => 4,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << (10 * power))
}

/// The greatest unit that divides a number.
fn short(n: u64) -> String {
    let units = [(40, "T"), (30, "G"), (20, "M"), (10, "K")];
    let fit = units.iter().find(|(p, _)| n > 0 && n.is_multiple_of(1 << p));
    fit.map_or(n.to_string(), |(p, u)| format!("{}{u}", n >> p))
}

/// Names, meanings and defaults, a line each.
pub fn help() -> String {
    let defaults = Limits::default();
    let run = hub_runtime::Limits::LIVE;
    let line = |r: &Row| {
        let default = match (r.name, (r.get)(&defaults)) {
            ("arena", 0) => {
                use hub_runtime::Limits as L;
                let (per, most) = (L::LIVE_PER_BYTE, short(L::LIVE_MOST));
                format!(
                    "{}, and {per} a byte of constants and inputs up to {most}, or {} a byte",
                    short(run),
                    L::LIVE_PER_BYTE_LARGE
                )
            }
            ("work", 0) => {
                use hub_runtime::Limits as L;
                let (base, per, free) = (L::WORK, L::WORK_PER_BYTE, L::WORK_FREE_BYTES);
                format!(
                    "{}, and {} a byte of constants and inputs (those made up aside) above {}",
                    short(base),
                    short(per),
                    short(free)
                )
            }
            (_, n) => short(n),
        };
        let unit = if r.bytes { "bytes of " } else { "" };
        format!("  {:<11} {unit}{} [{default}]", r.name, r.what)
    };
    let lines: Vec<String> = ROWS.iter().map(line).collect();
    format!("Limits (--limit NAME=VALUE, exit code 9):\n{}", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_set_by_name() {
        let set = ["nodes=12".to_string(), "arena=3G".into(), "steps=1k".into()];
        let l = Limits::of(&set).unwrap();
        assert_eq!((l.model.nodes, l.run.live_bytes, l.run.steps), (12, 3 << 30, 1024));
        for wrong in
            ["nodes", "nodes=", "nodes=0", "nodes=-1", "nodes=3X", "what=1", "arena=99999999999T"]
        {
            assert_eq!(Limits::of(&[wrong.to_string()]).unwrap_err().code, USAGE, "{wrong}");
        }
    }

    #[test]
    fn help_names_every_limit_with_its_default() {
        let text = help();
        assert!(ROWS.iter().all(|r| text.contains(r.name)), "{text}");
        assert!(text.contains("[64G]") && text.contains("[1G, and 64 a byte"), "{text}");
    }
}
