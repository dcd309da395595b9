//! Random graphs through all passes, and snapshots of single passes.

use crate::{Options, run_until};
use hub_ir::text::{hash, parse, parse_with, print};
use hub_ir::verify::{Stage, verify};
use proptest::prelude::*;

/// The text of a graph after the passes up to the one called `last` ("" for all).
pub(crate) fn after(text: &str, last: &str) -> String {
    let mut g = parse(text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    verify(&g, Stage::Imported).unwrap_or_else(|e| panic!("{e}"));
    run_until(&mut g, &Options::default(), last, &mut |_, _| {}).unwrap();
    print(&g)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn random_graphs_stay_legal(choices in prop::collection::vec(any::<u32>(), 0..40)) {
        let mut g = hub_ir::sample::graph(&choices);
        run_until(&mut g, &Options::default(), "", &mut |_, _| {}).unwrap();
        let side = g.consts.iter().map(|(_, c)| (hash(c), c.clone())).collect();
        let text = print(&g);
        prop_assert_eq!(print(&parse_with(&text, &side).unwrap()), text);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn random_graphs_stay_legal_at_bf16(choices in prop::collection::vec(any::<u32>(), 0..40)) {
        let mut g = hub_ir::sample::graph(&choices);
        let types: Vec<_> = g.regions[g.root()].results.iter().map(|v| g.ty(*v).clone()).collect();
        let options = Options { precision: crate::Precision::Bf16, ..Options::default() };
        run_until(&mut g, &options, "", &mut |_, _| {}).unwrap();
        for (v, t) in g.regions[g.root()].results.iter().zip(&types) {
            let dtype = |t: &hub_ir::Type| t.as_tensor().map(|t| t.dtype);
            prop_assert_eq!(dtype(g.ty(*v)), dtype(t));
        }
    }
}

#[test]
fn bf16_lies_between_groups_only() {
    let mut g = parse("
graph(%0: f32[1, 16, 8, 8] \"x\") {
  %1: f32[16, 16, 3, 3] = const all 0.3
  %2: f32[16, 16, 3, 3] = const all 0.3
  %3: f32[1, 16, 8, 8] = @conv(%0, %1) {geo: {stride: [1, 1], dilation: [1, 1], before: [1, 1], after: [1, 1]}, groups: 1} \"c1\"
  %4: f32[1, 16, 8, 8] = @activation(%3) {kind: relu}
  %5: f32[1, 16, 8, 8] = @conv(%4, %2) {geo: {stride: [1, 1], dilation: [1, 1], before: [1, 1], after: [1, 1]}, groups: 1} \"c2\"
  %6: f32[1, 16, 8, 8] = add(%5, %4)
  %7: f32[1, 16, 8, 8] = @conv(%6, %2) {geo: {stride: [1, 1], dilation: [1, 1], before: [1, 1], after: [1, 1]}, groups: 1} \"c3\"
  return %7 \"y\"
}").unwrap();
    let options = Options { precision: crate::Precision::Bf16, ..Options::default() };
    let report = run_until(&mut g, &options, "", &mut |_, _| {}).unwrap();
    // The first reads an input of the model, the last makes an output.
    assert_eq!(report.fired.get("narrow-contraction"), Some(&1));
    let why: Vec<&str> =
        report.refusals.iter().filter(|r| r.rule == "narrow").map(|r| r.why).collect();
    assert_eq!(why, ["the model's input", "it makes an output of the model"]);
    let dtypes: Vec<_> = g.regions[g.root()].nodes.iter().map(|n| &g.nodes[*n]).collect();
    let groups = dtypes.iter().filter(|n| matches!(n.op, hub_ir::Op::Group { .. }));
    let made: Vec<hub_ir::Dtype> = groups.map(|n| g.dtype(n.outputs[0])).collect();
    use hub_ir::Dtype::{BF16, F32};
    assert_eq!(made, [BF16, F32, F32], "{}", print(&g));
}

#[test]
fn a_residual_block_is_three_groups() {
    insta::assert_snapshot!(after("
sym N 1..8
graph(%0: f32[N, 4, 8, 8] \"x\") {
  %1: f32[4, 4, 3, 3] = const all 0.5
  %2: f32[4] = const [1, 2, 3, 4]
  %3: f32[N, 4, 8, 8] = @conv(%0, %1, %2) {geo: {stride: [1, 1], dilation: [1, 1], before: [1, 1], after: [1, 1]}, groups: 1} \"c1\"
  %4: f32[N, 4, 8, 8] = @activation(%3) {kind: swish, beta: 1.0}
  %5: f32[N, 4, 8, 8] = @conv(%4, %1) {geo: {stride: [1, 1], dilation: [1, 1], before: [1, 1], after: [1, 1]}, groups: 1} \"c2\"
  %6: f32[N, 4, 8, 8] = add(%5, %0)
  %7: f32[N, 4, 8, 8] = @activation(%6) {kind: relu}
  %8: f32[N, 4, 1, 1] = reduce(%7) {axes: [2, 3], keep: true, op: Mean}
  %9: f32[N, 4] = reshape(%8) {shape: [N, 4]}
  %10: f32[N, 4] = @softmax(%9) {axis: 1, log: false}
  return %10 \"y\"
}", ""));
}

#[test]
fn embeddings_norm_and_attention() {
    insta::assert_snapshot!(after(
        "
sym N 1..8
sym S 1..64
graph(%0: i64[N, S] \"ids\", %1: f32[N, 2, S, 4] \"k\") {
  %2: f32[100, 8] = const all 0.5
  %3: f32[64, 8] = const all 0.25
  %4: f32[N, S, 8] = gather(%2, %0) {axis: 0}
  %5: i64[S] = iota() {axis: 0, dtype: I64, shape: [S]}
  %6: f32[S, 8] = gather(%3, %5) {axis: 0}
  %7: f32[N, S, 8] = add(%4, %6)
  %8: f32[8] = const [1, 2, 3, 4, 5, 6, 7, 8]
  %9: f32[N, S, 8] = @layer_norm(%7, %8, %8) {axis: 2, eps: 1e-5f} \"ln\"
  %10: f32[8, 8] = const all 0.125
  %11: f32[N, S, 8] = @matmul(%9, %10) {trans_a: false, trans_b: false} \"q\"
  %12: f32[N, S, 8] = add(%11, %8)
  %13: f32[N, S, 2, 4] = reshape(%12) {shape: [N, S, 2, 4]}
  %14: f32[N, 2, S, 4] = transpose(%13) {perm: [0, 2, 1, 3]}
  %15: f32[N, 2, S, S] = @matmul(%14, %1) {trans_a: false, trans_b: true} \"qk\"
  %16: f32[] = const 2
  %17: f32[N, 2, S, S] = div(%15, %16)
  %18: f32[N, 2, S, S] = @softmax(%17) {axis: 3, log: false} \"probs\"
  %19: f32[N, 2, S, 4] = @matmul(%18, %1) {trans_a: false, trans_b: false} \"ctx\"
  return %19 \"y\", %7 \"sum\"
}",
        ""
    ));
}

#[test]
fn a_function_behind_a_reshape_joins_the_product() {
    insta::assert_snapshot!(after(
        "
graph(%0: f32[2, 3, 8] \"x\") {
  %1: f32[6, 8] = reshape(%0) {shape: [6, 8]}
  %2: f32[8, 4] = const all 0.5
  %3: f32[6, 4] = @matmul(%1, %2) {trans_a: false, trans_b: false} \"fc\"
  %4: f32[2, 3, 4] = reshape(%3) {shape: [2, 3, 4]}
  %5: f32[4] = const [1, 2, 3, 4]
  %6: f32[2, 3, 4] = add(%4, %5)
  %7: f32[2, 3, 4] = @activation(%6) {kind: gelu}
  return %7 \"y\"
}",
        ""
    ));
}

#[test]
fn a_factor_near_one_is_not_one() {
    let text = after(
        "
graph(%0: f32[2, 3] \"x\") {
  %1: f32[] = const 0.999995
  %2: f32[2, 3] = mul(%0, %1)
  return %2 \"y\"
}",
        "",
    );
    assert!(text.contains("0.999995"), "{text}");
}
