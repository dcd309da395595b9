//! Crate directions, read from the manifests: a crate sees only what stands to its left in the
//! design, and the runtime sees no compiler.

use std::collections::BTreeMap;
use std::path::Path;

/// Every crate with the workspace crates that it may depend on.
const MAY_SEE: &[(&str, &[&str])] = &[
    ("runtime/abi", &[]),
    ("runtime/portable", &["hub-abi"]),
    ("runtime", &["hub-abi", "hub-portable"]),
    ("runtime/devices/plugin", &["hub-abi"]),
    ("runtime/devices/opencl", &["hub-abi", "hub-plugin"]),
    ("runtime/devices/cuda", &["hub-plugin"]),
    // (It stands in for libcuda: it knows nothing of the driver.)
    ("runtime/devices/cuda/emu", &["hub-testrun"]),
    ("runtime/devices/ascend/emu", &["hub-abi", "hub-plugin", "hub-portable"]),
    ("codegen/testrun", &["hub-abi", "hub-runtime"]),
    ("ir", &["hub-abi", "hub-portable"]),
    ("frontend", &["hub-abi", "hub-portable", "hub-ir"]),
    ("passes", &["hub-abi", "hub-portable", "hub-ir", "hub-frontend"]),
    ("codegen", &["hub-abi", "hub-portable", "hub-ir", "hub-frontend", "hub-passes"]),
    ("models", &[]),
];

/// Names of workspace crates in a manifest's `[dependencies]`.
fn dependencies(manifest: &str) -> Vec<String> {
    let section = manifest.split("\n[").find(|s| s.starts_with("dependencies]"));
    let lines = section.unwrap_or_default().lines();
    let names = lines.filter_map(|l| l.split(['=', '.', ' ']).next());
    names.filter(|n| n.starts_with("hub-")).map(str::to_string).collect()
}

#[test]
fn crates_depend_only_leftwards() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let mut wrong = BTreeMap::new();
    for (folder, allowed) in MAY_SEE {
        let manifest = root.join(folder).join("Cargo.toml");
        let text = std::fs::read_to_string(&manifest).expect("a manifest");
        let text = text.replace("\r\n", "\n");
        for d in dependencies(&format!("\n{text}")) {
            if !allowed.contains(&d.as_str()) {
                wrong.entry(*folder).or_insert_with(Vec::new).push(d);
            }
        }
    }
    assert!(wrong.is_empty(), "dependencies against the direction: {wrong:?}");
}

#[test]
fn the_reader_sees_dependencies() {
    let m = "[package]\nname = \"x\"\n\n[dependencies]\nhub-ir = { workspace = true }\nhalf = \"2\"\n\n[dev-dependencies]\nhub-models = {}\n";
    assert_eq!(dependencies(&format!("\n{m}")), ["hub-ir"]);
}
