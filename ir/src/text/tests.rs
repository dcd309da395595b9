//! The text form round-trips, reads well and refuses nonsense.

use super::*;
use crate::verify::{Stage, verify};
use crate::{Graph, Op};
use proptest::prelude::*;
use std::collections::HashMap;

/// Everything that counts in a graph, in order of definition, numbers of entities aside.
fn essence(g: &Graph) -> Vec<String> {
    let mut out =
        vec![format!("{:?} {:?} {:?} {:?}", g.syms, g.constraints.0, g.inputs, g.outputs)];
    let mut number = HashMap::new();
    for r in g.live_regions() {
        for &v in &g.regions[r].params {
            number.insert(v, number.len());
        }
        for &n in &g.regions[r].nodes {
            for &v in &g.nodes[n].outputs {
                number.insert(v, number.len());
            }
        }
    }
    for r in g.live_regions() {
        let id = |v: &crate::Value| v.some().map(|v| number[&v]);
        let types = |vs: &[crate::Value]| vs.iter().map(|&v| g.ty(v).clone()).collect::<Vec<_>>();
        let ids = |vs: &[crate::Value]| vs.iter().map(id).collect::<Vec<_>>();
        let data = &g.regions[r];
        out.push(format!("{:?} {:?}", types(&data.params), ids(&data.results)));
        for &n in &data.nodes {
            let d = &g.nodes[n];
            let op = match &d.op {
                Op::Const(c) => format!("{:?}", g.consts[*c]),
                Op::Control(c) => format!("{:?}", std::mem::discriminant(c)),
                Op::Group { kind, .. } => format!("{kind:?}"),
                op => format!("{op:?}"),
            };
            let known: Vec<_> = d.outputs.iter().map(|v| g.content.get(v)).collect();
            let (ins, types) = (ids(&d.inputs), types(&d.outputs));
            out.push(format!("{} {op} {ins:?} {types:?} {known:?}", d.name));
        }
    }
    out
}

fn side(g: &Graph) -> HashMap<u64, crate::graph::ConstData> {
    g.consts.iter().map(|(_, c)| (hash(c), c.clone())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn random_graphs_round_trip(choices in prop::collection::vec(any::<u32>(), 0..40)) {
        let g = crate::sample::graph(&choices);
        verify(&g, Stage::Imported).unwrap();
        let text = print(&g);
        let back = parse_with(&text, &side(&g)).map_err(|e| format!("{e}\n{text}")).unwrap();
        prop_assert_eq!(print(&back), text);
        prop_assert_eq!(essence(&back), essence(&g));
        verify(&back, Stage::Imported).unwrap();
    }

    #[test]
    fn no_text_panics(choices in prop::collection::vec(any::<u32>(), 0..12),
                      cuts in prop::collection::vec((any::<u16>(), any::<u8>()), 1..4)) {
        let mut text = print(&crate::sample::graph(&choices)).into_bytes();
        for (at, with) in cuts {
            if text.is_empty() { break; }
            let at = at as usize % text.len();
            match with % 3 {
                0 => { text.remove(at); }
                1 => text[at] = with,
                _ => text.truncate(at),
            }
        }
        if let Ok(g) = parse(&String::from_utf8_lossy(&text)) {
            let _ = verify(&g, Stage::Imported);
        }
    }
}

/// The verifier infers source operators again, by their expansion.
#[test]
fn operators_that_do_not_fit_are_not_verified() {
    let wrong = [
        ("f32[2, 3]", "@batch_norm(%0, %1, %1, %1, %1) {eps: 0.1f}", "3"),
        ("f32[2, 4]", "@batch_norm(%0, %2, %1, %1, %1) {eps: 0.1f}", "f16"),
        ("f32[2, 4]", "@batch_norm(%1, %1, %1, %1, %1) {eps: 0.1f}", "rank"),
        ("f32[2, 4]", "@layer_norm(%0, %1, %1) {axis: 9, eps: 0.1f}", ""),
        ("f32[2, 4]", "@softmax(%0) {axis: 2, log: false}", ""),
        ("f32[2, 5]", "@activation(%0) {kind: gelu}", "inference gives"),
        ("f16[2, 4]", "@activation(%0) {kind: gelu}", "inference gives"),
        ("f32[2, 4]", "@matmul(%0, %0) {trans_a: false, trans_b: false}", ""),
        ("f32[2, 4]", "@softmax(%3) {axis: 0, log: false}", "no tensor"),
    ];
    for (ty, made, why) in wrong {
        let text = format!(
            "graph(%0: f32[2, 4] \"x\", %1: f32[4] \"s\", %2: f16[4] \"h\", %3: seq(f32[2]) \"q\") {{
  %4: {ty} = {made}
  return %4 \"y\"
}}"
        );
        let g = parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
        let e = verify(&g, Stage::Imported).expect_err(made);
        assert!(e.place.starts_with("%4") && e.what.contains(why), "{made}: {e}");
    }
    let g = parse("sym N 12..4\ngraph(%0: f32[N] \"x\") {\n  return %0 \"y\"\n}").unwrap();
    assert!(verify(&g, Stage::Imported).unwrap_err().what.contains("12..4"));
    for ty in ["f32[2, 2]", "f32[3]", "f16[2]", "seq(f32[2])"] {
        let text = format!(
            "graph(%0: bool[] \"c\", %1: f32[2] \"x\") {{
  %2: {ty} = if(%0) do {{
    return %1
  }} do {{
    return %1
  }}
  return %2 \"y\"
}}"
        );
        let e = verify(&parse(&text).unwrap(), Stage::Imported).unwrap_err();
        assert!(e.what.contains("other types"), "{e}");
    }
    // What one operator gives is what the next takes, whatever the text says of it.
    let text = "\
sym N 0..9
graph(%0: f32[2, 4] \"x\", %1: f32[3, 2] \"w\") {
  %2: f32[2, N] = @softmax(%0) {axis: 1, log: false}
  %3: f32[2, 2] = @matmul(%2, %1) {trans_a: false, trans_b: false}
  return %3 \"y\"
}";
    let g = parse(text).unwrap();
    assert!(verify(&g, Stage::Imported).is_err());
}

#[test]
fn every_form_prints_and_parses() {
    let text = "\
sym N 1..64
sym `a b` 0..2147483647
sym Sum 1..4
require 2*N == 8
graph(%0: f32[N, 3] \"x\", %1: seq(f32[`a b`]) \"s.q\", %2: i64[3] \"idx\") {
  %3: f32[3, 2] = const [1, 2, 3, 4.5, -0.25, 1e-5]
  %4: f32[100] = const all 0.5 \"bias\"
  %5: i64[] = const -7
  %6: f16[2] = const [NaN, inf]
  %7: f8e5m2[2] = const [0x3c, 0x40]
  %8: str[2] = const [\"a\",\"b\\\"c\"]
  %9: bool[] = const true
  bind_syms(%2) {syms: [N, `a b`, Sum]}
  %10: f32[N, 2] = @matmul(%0, %3) {trans_a: false, trans_b: false} \"fc\"
  %11: f32[N, 2] = @activation(%10) {alpha: 0.1f, kind: leaky_relu}
  %12: f32[N, 2] = @activation(%10) {hi: \"inf\", kind: clip, lo: 0.0}
  %13: f32[N, 1] = reduce(%12) {axes: [1], keep: true, op: \"Sum\"}
  %14: f32[2*N] = reshape(%11) {shape: [2*N]}
  %15: f32[N, 1, 8, 8], %16: i64[N, 1, 8, 8] = top_k(%0) {axis: 0, k: div(N + Sum, 2), largest: true, sorted: false}
  %17: f32[N, 2] = if(%9) \"branch\" do {
    %18: f32[N, 2] = is_nan(%11)
    return %18
  } do {
    return %12
  }
  %19: f32[N, 2] = group map(%17, %13) do (%20: f32[N, 2], %21: f32[N, 1]) {
    %22: f32[N, 2] = add(%20, %21)
    return %22
  }
  %23: f32[N, 2] = scan(%19) {carried: 1, reverse: false, trip: 0} do (%24: f32[N, 2]) {
    return %24
  }
  %25: seq(f32[`a b`]) = seq_new {elem: {Tensor: {dims: [`a b`], dtype: F32}}}
  %26: i64[] = seq_len(%25)
  %27: f32[N, 2] = @conv(%23, %0, _) {geo: {after: [0], before: [-1], dilation: [1], stride: [2]}, groups: 1}
  return %27 \"y\", %14 \"flat\"
}
";
    let g = parse(text).unwrap();
    assert_eq!(print(&g), text);
}

#[test]
fn errors_say_where() {
    let fails = |text: &str| parse(text).unwrap_err().to_string();
    insta::assert_snapshot!(fails("graph() {\n  %0: f32[2] = neg(%1)\n return\n}"), @"line 2, column 22: %1 is not defined before");
    insta::assert_snapshot!(fails("graph(%0: f32[Q]) { return }"), @"line 1, column 15: a known symbol instead of 'Q' expected");
    insta::assert_snapshot!(fails("graph(%0: f32[1]) { %1: f32[1] = frob(%0) return }"), @"line 1, column 43: frob: no such operation");
    insta::assert_snapshot!(fails("graph() { %1: f32[9] = const #00ff return }"), @r#"line 1, column 35: a constant that is given beside the text (by its hash) expected, at " return }""#);
}

#[test]
fn a_sample_reads_well() {
    let choices: Vec<u32> = (1..24u32).map(|i| i.wrapping_mul(2654435761)).collect();
    insta::assert_snapshot!(print(&crate::sample::graph(&choices)));
}
