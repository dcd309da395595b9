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

#[test]
fn sizes_that_only_a_run_knows_give_the_same() {
    let mut cases = hub_models::formats().unwrap();
    let pir = |c: &hub_models::Case| c.model.extension().is_some_and(|e| e == "json");
    cases.retain(|c| pir(c) && c.model.with_extension("pdiparams").is_file());
    assert!(cases.len() >= 7, "{} models", cases.len());
    for case in &cases {
        let c = common::check_dynamic(case).unwrap_or_else(|e| panic!("{}: {e}", case.name));
        assert!(c.ok(), "{}: {c}", case.name);
    }
}
