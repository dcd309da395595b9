//! A few changes of every small model ([`mutate`]), read: the same ones in every run, another kind from
//! model to model.

mod mutate;

use mutate::cases::{Known, committed};
use mutate::{How, run};

/// `HUB_MUTATE=1` makes every change instead (`N`: one of N), `HUB_MUTATE_ONLY=TEXT` only those of
/// models with that in their names.
#[test]
fn changed_models_are_refused_or_read() {
    let mut cases = committed();
    assert!(cases.len() > 2000, "{} models", cases.len());
    let known = Known::of(&cases);
    let only = std::env::var("HUB_MUTATE_ONLY").unwrap_or_default();
    cases.retain(|c| c.name.contains(&only));
    let stride = std::env::var("HUB_MUTATE").ok().and_then(|n| n.parse().ok());
    let stride = stride.unwrap_or(67).max(1);
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let how = How { stride, passes: 1, whole: 8, jobs };
    let report = run(&cases, &known, &how, &|_, _| {});
    println!("{report}");
    assert!(report.faults.is_empty(), "{report}");
}
