//! Small fixtures through every tier: the formats, and digits. The large ones are checked in
//! release by `--bin fixtures`.

use hub_models::Tolerance;

#[test]
fn small_models_match_their_goldens_on_every_tier() {
    let dir = tempfile::tempdir().expect("a folder");
    let (mut problems, mut over) = (vec![], 0);
    for t in ["avx512", "avx2"].iter().filter(|t| !hub_runtime::supports(t)) {
        println!("ignored: tier {t} is not on this machine");
    }
    for case in hub_models::formats().expect("the formats") {
        let bundle = dir.path().join("m.hub");
        if let Err(e) = hub_tests::export(&case, &bundle) {
            problems.push(format!("{}: {e}", case.name));
            continue;
        }
        match hub_tests::check_memory(&bundle) {
            Ok(n) => over += n,
            Err(e) => problems.push(format!("{}: {e}", case.name)),
        }
        for tier in hub_tests::tiers() {
            for threads in [1, 2] {
                match hub_tests::check(&case, &bundle, tier, threads, Tolerance::default()) {
                    Ok(c) if c.ok() => {}
                    Ok(c) => problems.push(format!("{} {tier} ×{threads}: {c}", case.name)),
                    Err(e) => problems.push(format!("{} {tier} ×{threads}: {e}", case.name)),
                }
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(over > 0, "no result takes the room of an operand");
}

#[test]
fn two_exports_are_the_same_bytes() {
    let dir = tempfile::tempdir().expect("a folder");
    let case = &hub_models::Digits::load().expect("digits").cases()[0];
    let (a, b) = (dir.path().join("a.hub"), dir.path().join("b.hub"));
    hub_tests::export(case, &a).expect("exports");
    hub_tests::export(case, &b).expect("exports");
    let same = std::fs::read(a).expect("a") == std::fs::read(b).expect("b");
    assert!(same, "two exports differ");
}
