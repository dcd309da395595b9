//! `hubc inspect`, what `hubc optimize` prints, and completions.

use super::{Ran, folder, hubc, model, path, shared};

#[test]
fn a_model_shows_inputs_outputs_and_operators() {
    let file = model("digits/pir");
    let r = hubc(&["inspect", &file]).expect(0);
    for part in
        ["paddle-pir", "input   image: f32[image.0, 1, 8, 8]", "output  fetch_name_0", "conv"]
    {
        assert!(r.out.contains(part), "no {part:?} in {}", r.out);
    }
    let v = hubc(&["inspect", &file, "--json"]).expect(0).json();
    assert_eq!(v["inputs"][0]["name"], "image");
    assert_eq!(v["outputs"][0]["type"], "f32[image.0, 10]");
    assert_eq!(v["operators"]["conv"], 8);
}

#[test]
fn a_bundle_lists_each_step_with_kernel_tier_and_schedule() {
    let s = shared();
    for tier in ["avx512", "avx2"] {
        if !hub_runtime::supports(tier) {
            println!("ignored: tier {tier} is not on this machine");
            continue;
        }
        let v = hubc(&["inspect", &s.bundle, "--cpu", tier, "--json"]).expect(0).json();
        assert_eq!((&v["tier"], &v["precision"]), (&tier.into(), &"f32".into()));
        let text = hubc(&["inspect", &s.bundle, "--cpu", tier]).expect(0).out;
        let steps = v["steps"].as_array().expect("steps");
        assert!(steps.len() >= 8, "a step for each convolution: {v}");
        for step in steps {
            assert_eq!(step["tier"], tier);
            for k in ["kernel", "schedule", "node"] {
                let word = step[k].as_str().filter(|w| !w.is_empty());
                let word = word.unwrap_or_else(|| panic!("no {k} in {step}"));
                assert!(text.contains(word), "no {word:?} in {text}");
            }
            assert!(step["tiles"].as_i64() >= Some(1), "{step}");
        }
        let sections = v["sections"].as_array().expect("sections");
        assert!(sections.iter().any(|x| x["name"] == format!(".text.{tier}")), "{v}");
    }
}

#[test]
fn a_bundle_says_which_file_it_was_made_of() {
    let dir = folder();
    let (file, bundle) = (model("digits/model.onnx"), path(&dir, "m.hub"));
    hubc(&["optimize", &file, "-o", &bundle, "--exact"]).expect(0);
    let want = blake3::hash(&std::fs::read(&file).expect("the model")).to_hex().to_string();
    let v = hubc(&["inspect", &bundle, "--json"]).expect(0).json();
    assert_eq!(v["source_blake3"], want.as_str());
    assert!(v["options"].to_string().contains("exact"), "{v}");
    assert!(hubc(&["inspect", &bundle]).expect(0).out.contains(&want));
}

#[test]
fn sizes_of_steps_follow_the_dimension_given() {
    let s = shared();
    let bytes = |n: &str| {
        let v = hubc(&["inspect", &s.bundle, "--json", "--dim", n]).expect(0).json();
        v["arena_bytes"].as_u64().expect("a size")
    };
    if hub_runtime::best_tier().is_some() {
        assert!(bytes("DynamicDimension.0=64") > 8 * bytes("DynamicDimension.0=4"));
    }
    hubc(&["inspect", &s.bundle, "--dim", "other=4"]).refuses(2, &["other", "DynamicDimension.0"]);
}

#[test]
fn a_bundle_that_admits_few_sizes_is_inspected_and_measured() {
    let dir = folder();
    let (file, bundle) = (model("paddle_formats/pir/dbnet.json"), path(&dir, "m.hub"));
    hubc(&["optimize", &file, "-o", &bundle]).expect(0);
    hubc(&["inspect", &bundle]).expect(0);
    hubc(&["bench", &bundle, "--seconds", "0"]).expect(0);
}

fn optimize(file: &str, more: &[&str]) -> Ran {
    let dir = folder();
    let (file, bundle) = (model(file), path(&dir, "m.hub"));
    let r = hubc(&[&["optimize", &file, "-o", &bundle][..], more].concat());
    let written = std::path::Path::new(&bundle).exists();
    assert_eq!(written, r.code == 0, "a bundle is there just where it succeeds");
    r
}

/// Small constants print whole, so what is printed is all there is of the graph.
#[test]
fn what_print_after_prints_parses_back() {
    for file in ["paddle_formats/pir/ifnet.json", "paddle_formats/pir/whilenet.json"] {
        for (option, value) in [("--print-after", "fuse"), ("--emit", "ir")] {
            let r = optimize(file, &[option, value, "--check-ir"]).expect(0);
            let g = hub_ir::text::parse(&r.out);
            let g = g.unwrap_or_else(|e| panic!("{file} {value}: {e:?}\n{}", r.out));
            let body = r.out.strip_prefix("// after fuse\n").unwrap_or(&r.out);
            assert_eq!(hub_ir::text::print(&g).trim(), body.trim());
            assert!(r.err.contains("bundle "), "the report stands aside: {}", r.err);
        }
    }
}

#[test]
fn every_pass_can_be_printed_and_others_are_named() {
    let all = optimize("digits/model.onnx", &["--print-after", "all"]).expect(0).out;
    let passes: Vec<&str> = all.lines().filter_map(|l| l.strip_prefix("// after ")).collect();
    assert!(passes.contains(&"raise") && passes.contains(&"fuse"), "{passes:?}");
    let one = optimize("digits/model.onnx", &["--print-after", "raise"]).expect(0).out;
    assert_eq!(one.lines().filter(|l| l.starts_with("// after ")).count(), 1);
    let r = optimize("digits/model.onnx", &["--print-after", "nonsense"]);
    r.refuses(2, &["nonsense", "raise", "fuse"]);
}

#[test]
fn kernels_and_machine_code_are_emitted_for_the_tiers_asked() {
    let with = |what: &str| {
        optimize("paddle_formats/pir/convnet.json", &["--emit", what, "--cpu", "avx2"])
            .expect(0)
            .out
    };
    let (kernels, asm) = (with("kernels"), with("asm"));
    assert!(kernels.starts_with("// tier avx2\nkernel "), "{kernels:.200}");
    assert!(kernels.contains("param ") && kernels.contains("fma"));
    assert!(asm.contains("vfmadd") && asm.contains("ymm") && !asm.contains("zmm"));
    let names = |text: &str, lead: &str| -> Vec<String> {
        let lines = text.lines().filter_map(|l| l.strip_prefix(lead));
        lines.map(|l| l.split([' ', '(']).next().unwrap_or_default().to_string()).collect()
    };
    for name in names(&kernels, "kernel ") {
        assert!(asm.contains(&format!("{name} (avx2, ")), "{name} has no machine code");
    }
}

#[test]
fn completions_are_scripts() {
    for (shell, word) in [("bash", "complete -F"), ("zsh", "#compdef"), ("fish", "complete -c")] {
        let r = hubc(&["completions", shell]).expect(0);
        assert!(r.out.contains(word) && r.out.contains("compare"), "{shell}");
        let r = super::hub(&["completions", shell]).expect(0);
        assert!(r.out.contains(word) && r.out.contains("export"), "{shell}");
    }
}

#[test]
fn bash_accepts_its_completions() {
    let script = hubc(&["completions", "bash"]).expect(0).out;
    let dir = folder();
    let file = path(&dir, "hubc.bash");
    std::fs::write(&file, script).expect("a file");
    match std::process::Command::new("bash").args(["-n", &file]).status() {
        Ok(status) => assert!(status.success()),
        Err(_) => println!("ignored: there is no bash here"),
    }
}
