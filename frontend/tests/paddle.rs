//! Every small Paddle model, in every layout, answers as Paddle does.

mod common;

#[test]
fn small_models_and_digits_match_their_goldens() {
    let mut cases = hub_models::formats().unwrap();
    cases.retain(|c| !c.name.ends_with("onnx"));
    assert!(cases.len() >= 24, "{} models", cases.len());
    for case in &cases {
        let c = common::check(case).unwrap_or_else(|e| panic!("{}: {e}", case.name));
        assert!(c.ok(), "{}: {c}", case.name);
    }
}
