//! Runs the programs as children, measured and bounded.

use hub_models::{NamedTensor, TensorFile, Tensors};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// KiB of address space that a program gets.
const MEMORY: u64 = 2 << 20;
/// Seconds of processor time that it gets: the machine may be busy with other things.
const SECONDS: u64 = 20;
/// How long it may take all the same.
const TIME: Duration = Duration::from_secs(300);

/// What a program did.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ran {
    /// It failed with this code and says each of `words`; nothing of a crash, and nothing that
    /// writes to a terminal.
    #[track_caller]
    pub fn refuses(&self, what: &str, code: i32, words: &[&str]) {
        assert_eq!(self.code, code, "{what}: {self:?}");
        assert!(self.err.contains("error: "), "{what}: {self:?}");
        self.clean(what);
        for w in words {
            assert!(self.err.contains(w), "{what}: no {w:?} in: {}", self.err);
        }
    }

    /// It succeeded.
    #[track_caller]
    pub fn succeeds(&self, what: &str) {
        assert_eq!(self.code, 0, "{what}: {self:?}");
        self.clean(what);
    }

    #[track_caller]
    fn clean(&self, what: &str) {
        assert!(!self.err.contains("panicked"), "{what}: {self:?}");
        let bad = |c: char| c.is_control() && c != '\n';
        assert!(!self.err.contains(bad) && !self.out.contains(bad), "{what}: {self:?}");
    }
}

/// Where the programs are; they are built first, which is quick where nothing changed.
fn program(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let me = std::env::current_exe().expect("a test has a file");
        let folder = me.parent().and_then(Path::parent).expect("target/PROFILE/deps").to_owned();
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--locked", "--workspace", "--bins"]);
        if folder.ends_with("release") {
            build.arg("--release");
        }
        build.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        assert!(build.status().expect("cargo starts").success(), "the programs build");
        folder
    });
    folder.join(name)
}

/// Runs a program in `folder`; a crash, a hang or too much memory fails the test.
#[track_caller]
pub fn ran(folder: &Path, name: &str, args: &[&str]) -> Ran {
    ran_within(MEMORY, folder, name, args)
}

/// As [`ran`], in so many KiB of address space.
#[track_caller]
pub fn ran_within(memory: u64, folder: &Path, name: &str, args: &[&str]) -> Ran {
    let script = format!("ulimit -v {memory}; ulimit -t {SECONDS}; ulimit -c 0; exec \"$@\"");
    let (out, err) = (folder.join("stdout.txt"), folder.join("stderr.txt"));
    let file = |p: &Path| std::fs::File::create(p).expect("a file");
    let mut child = Command::new("sh")
        .args(["-c", &script, "sh"])
        .arg(program(name))
        .args(args)
        .current_dir(folder)
        .env_remove("HUB_TRUST")
        .env_remove("HUB_CPU")
        .stdin(Stdio::null())
        .stdout(file(&out))
        .stderr(file(&err))
        .spawn()
        .expect("a shell starts");
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            break status;
        }
        if start.elapsed() > TIME {
            child.kill().expect("it can be killed");
            panic!("{name} {args:?} takes more than {TIME:?}");
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let text = |p: &Path| String::from_utf8_lossy(&std::fs::read(p).expect("output")).into_owned();
    let (out, err) = (text(&out), text(&err));
    let Some(code) = status.code() else { panic!("{name} {args:?} crashes: {status}\n{err}") };
    assert!(code != 70 && code < 128, "{name} {args:?}: {code}\n{err}");
    Ran { code, out, err }
}

/// A folder with files in it.
pub struct Folder(pub TempDir);

impl Folder {
    pub fn new() -> Folder {
        Folder(tempfile::tempdir().expect("a folder"))
    }

    /// A folder that holds one file.
    pub fn of(name: &str, bytes: impl AsRef<[u8]>) -> Folder {
        let f = Folder::new();
        f.put(name, bytes);
        f
    }

    pub fn put(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("writable");
        std::fs::write(path, bytes).expect("writable");
    }

    /// `hub export` of a file of it to `m.hub`, for AVX2.
    #[track_caller]
    pub fn export(&self, model: &str) -> Ran {
        ran(self.0.path(), "hub", &["export", model, "-o", "m.hub", "--cpu", "avx2"])
    }

    /// `hubc run` of `m.hub` on a tier, with inputs; outputs go to `out.safetensors`.
    #[track_caller]
    pub fn run(&self, tier: &str, inputs: &[(&str, NamedTensor)]) -> Ran {
        let tensors: Tensors = inputs.iter().map(|(n, t)| (n.to_string(), t.clone())).collect();
        let file = self.0.path().join("in.safetensors");
        hub_models::write(&file, &TensorFile::from(tensors)).expect("writable");
        let args = ["run", "m.hub", "--inputs", "in.safetensors", "--outputs", "out.safetensors"];
        ran(self.0.path(), "hubc", &[&args[..], &["--threads", "2", "--cpu", tier]].concat())
    }

    /// The outputs of the last run.
    pub fn outputs(&self) -> Tensors {
        hub_models::read(self.0.path().join("out.safetensors")).expect("outputs").tensors
    }
}

/// Tiers to run on.
pub fn tiers() -> Vec<&'static str> {
    let native = hub_runtime::supports("avx2").then_some("avx2");
    native.into_iter().chain(["portable"]).collect()
}

/// Exports a model that must be refused.
#[track_caller]
pub fn refused(what: &str, name: &str, bytes: impl AsRef<[u8]>, code: i32, words: &[&str]) {
    let f = Folder::of(name, bytes);
    f.export(name).refuses(what, code, &[&[name], words].concat());
    assert!(!f.0.path().join("m.hub").exists(), "{what}: a bundle was written");
}
