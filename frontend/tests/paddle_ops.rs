//! Every operator of the tables answers as Paddle itself does, in both of Paddle's formats.
//!
//! The answers are recorded by `tests/paddle/goldens.py`. `OPERATORS.md` beside the importer is made
//! here: `HUB_BLESS=1 cargo test -p hub-frontend --test paddle_ops` writes it anew.

mod goldens;

use goldens::Form;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

const GONE: &str = "gone from Paddle 3.3.1 and 2.6.2";
const UNBUILT: &str = "Paddle 3.3.1 does not run it on a CPU in this format";
const RANDOM: &str = "its results are random";
const WALK: &str = "moves values; no single operator shows it";
const OLD: &str = "older than the Paddle that records";
const FILES: &str = "reads files; the conformance suite of ONNX shows its primitive";
const WRITTEN: &str = "Paddle 3.3.1 writes other operators in its place";

/// Operators of the tables that no golden holds, and why.
const WITHOUT: &[(Form, &str, &str)] = &[
    (Form::Legacy, "flatten grad_add hardtanh lstm_unit maximum minimum", GONE),
    (Form::Legacy, "one_hot pad2d squeeze unsqueeze sync_batch_norm", GONE),
    (Form::Legacy, "gaussian_random uniform_random multinomial empty randint randperm", RANDOM),
    (Form::Legacy, "bernoulli exponential gaussian_inplace uniform_random_inplace", RANDOM),
    (Form::Legacy, "uniform_random_batch_size_like gaussian_random_batch_size_like", RANDOM),
    (Form::Legacy, "truncated_gaussian_random gumbel_softmax", RANDOM),
    (Form::Legacy, "poisson binomial standard_gamma dirichlet", RANDOM),
    (
        Form::Legacy,
        "conditional_block_infer memcpy memcpy_d2h memcpy_h2d print assert nop depend",
        WALK,
    ),
    (Form::Pir, "isclose allclose data_norm dequantize_linear dequantize_log fc l1_norm", UNBUILT),
    (Form::Pir, "sync_batch_norm grad_add", UNBUILT),
    (Form::Pir, "gaussian uniform multinomial empty empty_like randint randperm", RANDOM),
    (Form::Pir, "bernoulli exponential gaussian_inplace uniform_inplace", RANDOM),
    (Form::Pir, "uniform_random_batch_size_like truncated_gaussian_random", RANDOM),
    (Form::Pir, "gumbel_softmax", RANDOM),
    (Form::Pir, "poisson binomial standard_gamma dirichlet", RANDOM),
    (Form::Legacy, "cos_sim expand_as isfinite isinf isnan lstmp minus space_to_depth", OLD),
    (Form::Legacy, "decode_jpeg", FILES),
    (Form::Pir, "decode_jpeg", FILES),
    (Form::Pir, "anchor_generator attention_lstm bipartite_match box_clip", UNBUILT),
    (Form::Pir, "legacy_matmul legacy_reshape lookup_table range_v2 soft_relu", UNBUILT),
    (
        Form::Pir,
        "builtin.shadow_output memcpy memcpy_d2h memcpy_h2d select_input assert nop depend",
        WALK,
    ),
    (Form::Pir, "ones ones_like zeros zeros_like", WRITTEN),
];

/// Names that Paddle2ONNX lists and that are no operators.
const NO_OPERATOR: &[&str] = &["sel"];

#[test]
fn operators_answer_as_paddle_does() {
    let mut wrong = vec![];
    let mut count = 0;
    for (family, cases) in goldens::all() {
        for golden in cases {
            for form in [Form::Legacy, Form::Pir].into_iter().filter(|&f| golden.has(f)) {
                count += 1;
                if let Err(e) = golden.check(form) {
                    wrong.push(format!("{family} {} {form:?}: {e}", golden.case));
                }
            }
        }
    }
    assert!(count >= 1500, "{count} models");
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
}

/// How many goldens hold each operator.
fn counts(form: Form) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for golden in goldens::all().into_values().flatten() {
        for name in golden.operators(form) {
            *counts.entry(name).or_insert(0) += 1;
        }
    }
    counts
}

fn plain(name: &str) -> &str {
    name.strip_suffix('_').unwrap_or(name)
}

/// Names of the table, sorted, with how many goldens hold each.
fn covered(form: Form) -> Vec<(&'static str, usize)> {
    let (legacy, pir) = hub_frontend::paddle_operators();
    let mut names = if form == Form::Legacy { legacy } else { pir };
    names.sort_unstable();
    names.dedup();
    let counts = counts(form);
    let of =
        |name: &str| counts.iter().filter(|(n, _)| plain(n) == plain(name)).map(|(_, c)| c).sum();
    names.into_iter().map(|n| (n, of(n))).collect()
}

fn reason(form: Form, name: &str) -> Option<&'static str> {
    WITHOUT.iter().find(|w| w.0 == form && w.1.split(' ').any(|n| n == name)).map(|w| w.2)
}

#[test]
fn every_operator_has_a_golden_or_a_reason() {
    let mut wrong = vec![];
    for form in [Form::Legacy, Form::Pir] {
        for (name, count) in covered(form) {
            match (count, reason(form, name)) {
                (0, None) => wrong.push(format!("{form:?} {name} has no golden")),
                (1.., Some(_)) => wrong.push(format!("{form:?} {name} is listed, but has one")),
                _ => {}
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_paddle2onnx_maps_is_mapped() {
    let (legacy, pir) = hub_frontend::paddle_operators();
    for (list, known) in [("legacy", legacy), ("pir", pir)] {
        let names = std::fs::read_to_string(goldens::folder().join(format!("names_{list}.txt")));
        for name in names.expect("the names").lines() {
            let found = known.contains(&name) || known.contains(&plain(name));
            assert_ne!(found, NO_OPERATOR.contains(&name), "{list}: {name}");
        }
    }
}

#[test]
fn the_table_of_operators_is_up_to_date() {
    let mut text = String::from(
        "# Paddle's operators that Hub reads\n\n\
         Made by `HUB_BLESS=1 cargo test -p hub-frontend --test paddle_ops` from the tables in \
         `ops/mod.rs`. The number says how many\nof the goldens that Paddle recorded \
         (`tests/paddle/`) hold the operator; where there is none, why.\n",
    );
    for (form, title) in [(Form::Legacy, "ProgramDesc"), (Form::Pir, "PIR")] {
        let rows = covered(form);
        let held = rows.iter().filter(|r| r.1 > 0).count();
        let _ = write!(text, "\n## {title}: {} operators, {held} with goldens\n\n", rows.len());
        text.push_str("| operator | goldens |\n|---|---|\n");
        for (name, count) in rows {
            let cell = match (count, reason(form, name)) {
                (0, Some(why)) => why.to_string(),
                (n, _) => n.to_string(),
            };
            let _ = writeln!(text, "| {name} | {cell} |");
        }
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/paddle/OPERATORS.md");
    if std::env::var_os("HUB_BLESS").is_some() {
        std::fs::write(&path, &text).expect("written");
    }
    let have = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(have == text, "OPERATORS.md is out of date: run this test with HUB_BLESS=1");
}
