//! The programs `hub` and `hubc` as users run them: arguments in; exit code, standard output,
//! standard error and files out.

mod convert;
mod export;
mod inspect;
mod onnx;
mod refusals;
mod run;
mod sign;

use hub_models::{Digits, NamedTensor, TensorFile, Tensors};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use tempfile::TempDir;

/// What a program did.
#[derive(Debug)]
struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Ran {
    /// The exit code must be this.
    fn expect(self, code: i32) -> Ran {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.out, self.err);
        self
    }

    /// It must fail with this code and say each of `words` on standard error, nothing on standard
    /// output, and nothing of a panic.
    fn refuses(self, code: i32, words: &[&str]) {
        let r = self.expect(code);
        assert!(r.err.starts_with("error: "), "{r:?}");
        assert!(!r.err.contains("panicked"), "{r:?}");
        assert_eq!(r.out, "");
        for w in words {
            assert!(r.err.contains(w), "no {w:?} in: {}", r.err);
        }
    }

    /// Standard output as JSON, whose schema must be known.
    fn json(&self) -> Value {
        let v: Value = serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {self:?}"));
        assert_eq!(v["schema"], 1, "{v}");
        v
    }
}

fn ran(program: &str, args: &[&str]) -> Ran {
    let o = Command::new(program).args(args).output().expect("the program starts");
    let text = |b: Vec<u8>| String::from_utf8(b).expect("text");
    Ran { code: o.status.code().expect("an exit code"), out: text(o.stdout), err: text(o.stderr) }
}

fn hub(args: &[&str]) -> Ran {
    ran(env!("CARGO_BIN_EXE_hub"), args)
}

fn hubc(args: &[&str]) -> Ran {
    ran(env!("CARGO_BIN_EXE_hubc"), args)
}

/// A file of `models/`.
fn model(file: &str) -> String {
    hub_models::root().join(file).display().to_string()
}

/// A folder for one test.
fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

fn path(dir: &TempDir, file: &str) -> String {
    dir.path().join(file).display().to_string()
}

/// Files that many tests read: written once a run, in the build folder.
struct Shared {
    /// digits (ONNX) with every tier.
    bundle: String,
    /// Its test images.
    inputs: String,
    /// Their logits.
    golden: String,
    digits: Digits,
}

fn shared() -> &'static Shared {
    static SHARED: OnceLock<Shared> = OnceLock::new();
    SHARED.get_or_init(|| {
        let base = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let dir: PathBuf = base.join("programs");
        std::fs::create_dir_all(&dir).expect("a folder");
        let file = |name: &str| dir.join(name).display().to_string();
        let digits = Digits::load().expect("digits");
        let (inputs, golden) = (file("in.safetensors"), file("golden.safetensors"));
        write(&inputs, [("image", digits.test_image.clone())]);
        write(&golden, [("out:fetch_name_0", digits.test_logits.clone())]);
        let bundle = file("digits.hub");
        hub(&["export", &model("digits/model.onnx"), "-o", &bundle]).expect(0);
        Shared { bundle, inputs, golden, digits }
    })
}

fn write<const N: usize>(path: &str, tensors: [(&str, NamedTensor); N]) {
    let tensors: Tensors = tensors.into_iter().map(|(n, t)| (n.to_string(), t)).collect();
    hub_models::write(path, &TensorFile::from(tensors)).expect("a file");
}
