//! ONNX's own conformance suite, through the reference and through what is compiled.
//!
//! A suite is a folder with one folder a group (`node`, `simple`, …), as `onnx/backend/test/data` of
//! the Python package has them; a test is a folder with `model.onnx` and its data sets, or, in the
//! group `light`, a file with generated weights and one known answer. Every test runs on every path,
//! in a process of its own kind (see [`workers`]), so that a crash or a hang is one test's failure.
//! Nothing is left out: a test that cannot run has failed, and [`expected`] holds the list of those
//! to the ones that did.

pub mod data;
pub mod expected;
pub mod judge;
pub mod paths;
pub mod report;
pub mod workers;

use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::{Path, PathBuf};

/// The way a test's model takes to an answer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// Import, expansion to primitives, the portable interpreter.
    Reference,
    /// Export to a bundle, open it, run it with the runtime.
    Compiled,
    /// Import, write as ONNX (as `hubc convert` does), then as the reference. Only where it is asked
    /// for, and held to the reference's table.
    Written,
}

impl Engine {
    /// Those of every run.
    pub const ALL: [Engine; 2] = [Engine::Reference, Engine::Compiled];

    /// The path whose lines of the table hold for this one.
    pub fn expected(self) -> Engine {
        if self == Engine::Written { Engine::Reference } else { self }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Engine::Reference => "reference",
            Engine::Compiled => "compiled",
            Engine::Written => "written",
        })
    }
}

/// One test of the suite.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Test {
    /// The folder it lies in: `node`, `simple`, `light`, …
    pub group: String,
    /// Its own name.
    pub name: String,
    /// Its folder; in `light`, its model.
    pub at: PathBuf,
}

impl Test {
    /// `group/name`, as the table of expected failures has it.
    pub fn id(&self) -> String {
        format!("{}/{}", self.group, self.name)
    }

    /// The model's file.
    pub fn model(&self) -> PathBuf {
        if self.at.is_dir() { self.at.join("model.onnx") } else { self.at.clone() }
    }

    /// How near a float must be: rtol and atol of |got - want| <= atol + rtol * |want|.
    pub fn tolerance(&self) -> (f64, f64) {
        match &self.group[..] {
            // The suite's own: goldens of one net were summed in another order.
            "light" if self.name.ends_with("densenet121") => (2e-3, 1e-7),
            "node" | "light" => (1e-3, 1e-7),
            _ => (1e-3, 1e-5),
        }
    }
}

/// How a test went on one path.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// `pass`, or at which stage it failed.
    pub kind: Kind,
    /// Why it failed; of a pass, what is to be said about it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// Kernels that its bundle calls, and steps that run in the portable interpreter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<(usize, usize)>,
}

impl Outcome {
    /// A failure.
    pub fn fail(kind: Kind, why: impl Into<String>) -> Outcome {
        Outcome { kind, why: why.into(), steps: None }
    }

    /// Did it pass?
    pub fn passed(&self) -> bool {
        matches!(self.kind, Kind::Pass | Kind::PassByDistribution)
    }
}

/// Where a test ended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Every output of every data set is right.
    Pass,
    /// The model draws at random without a seed; dtype, shape and distribution are right.
    PassByDistribution,
    /// The suite's files cannot be read.
    Data,
    /// An operator is not there.
    Unsupported,
    /// The model was not accepted.
    Import,
    /// It was not expanded or compiled.
    Compile,
    /// Running it failed.
    Run,
    /// It gave another answer.
    Mismatch,
    /// A panic.
    Panic,
    /// The process died.
    Crash,
    /// It took too long.
    Timeout,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = serde_json::to_value(self).ok();
        f.pad(text.as_ref().and_then(|t| t.as_str()).unwrap_or("unknown"))
    }
}

/// All tests of a suite, in order of group and name. An error says which folder cannot be read.
pub fn discover(suite: &Path) -> Result<Vec<Test>, String> {
    let entries = |dir: &Path| -> Result<Vec<PathBuf>, String> {
        let read = std::fs::read_dir(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        let mut found: Vec<PathBuf> = read.filter_map(|e| Some(e.ok()?.path())).collect();
        found.sort();
        Ok(found)
    };
    let mut tests = vec![];
    for group in entries(suite)?.into_iter().filter(|p| p.is_dir()) {
        for at in entries(&group)? {
            let light = at.extension().is_some_and(|x| x == "onnx");
            let folder = at.join("model.onnx").is_file();
            if folder || light {
                let name = if light { name_of(&at.with_extension("")) } else { name_of(&at) };
                tests.push(Test { group: name_of(&group), name, at });
            }
        }
    }
    match tests.is_empty() {
        true => Err(format!("{}: no tests (GROUP/NAME/model.onnx) in it", suite.display())),
        false => Ok(tests),
    }
}

fn name_of(p: &Path) -> String {
    p.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
