//! Every version of every operator of ONNX's own domains is imported, or named as absent with why.

use hub_frontend::onnx;

#[test]
fn every_version_has_an_import_or_a_reason() {
    let mut wrong = vec![];
    let mut seen = 0;
    for line in include_str!("operators.txt").lines().filter(|l| !l.starts_with('#')) {
        let words: Vec<&str> = line.splitn(5, ' ').collect();
        let [domain, name, version, absent @ ..] = &words[..] else { panic!("{line}") };
        let domain = if *domain == "-" { "" } else { domain };
        let version = version.parse().expect("a version");
        let reason = matches!(absent, ["absent:", why] if !why.is_empty());
        assert!(absent.is_empty() || reason, "{line}");
        if onnx::has_operator(domain, name, version) == reason {
            wrong.push(line);
        }
        seen += 1;
    }
    assert!(seen > 600, "{seen} lines");
    assert!(wrong.is_empty(), "the table is wrong about:\n{}", wrong.join("\n"));
}
