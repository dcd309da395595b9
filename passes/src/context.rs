//! What passes share: options, errors, and what is recorded while they run.

use hub_ir::OpError;
use hub_ir::verify::VerifyError;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::Duration;

/// What the caller wants.
#[derive(Clone, Debug)]
pub struct Options {
    /// Verify the graph after every pass (always in tests).
    pub check_ir: bool,
    /// What folding may compute.
    pub fold: FoldLimits,
    /// Sweeps over the graph that one pass may make before it settles for what it has.
    pub sweeps: usize,
    /// Number format of what contractions multiply.
    pub precision: Precision,
}

/// Number format of operands of contractions and convolutions; sums are f32 in all of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Precision {
    /// What the model says.
    #[default]
    F32,
    /// f32 operands are rounded to bf16 ([`crate::narrow`]).
    Bf16,
    /// The same to f16.
    F16,
}

impl Precision {
    /// What operands become, where they change.
    pub fn dtype(self) -> Option<hub_abi::Dtype> {
        match self {
            Precision::F32 => None,
            Precision::Bf16 => Some(hub_abi::Dtype::BF16),
            Precision::F16 => Some(hub_abi::Dtype::F16),
        }
    }
}

impl Default for Options {
    fn default() -> Options {
        Options {
            check_ir: cfg!(debug_assertions),
            fold: FoldLimits::default(),
            sweeps: 40,
            precision: Precision::F32,
        }
    }
}

/// What constant folding may compute, all its passes together; what is over stays in the graph. A
/// run's own limits follow from the bytes of a bundle's constants, so these must follow from the
/// model's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FoldLimits {
    /// Bytes of folded constants (each of which also has no more than a few times its operands'),
    /// beside 16 times those of the model's.
    pub bytes: u64,
    /// Work computed in all, as [`hub_portable::work`] counts it, beside 512 a byte of the model's
    /// constants.
    pub work: u64,
}

impl Default for FoldLimits {
    fn default() -> FoldLimits {
        FoldLimits { bytes: 8 << 20, work: 1 << 32 }
    }
}

/// Did a pass change the graph?
pub type Changed = bool;

/// Why passes could not go on.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum PassError {
    /// An operator's expansion refused its operands.
    #[error("pass {pass}: {source}")]
    Op {
        /// The pass.
        pass: &'static str,
        /// What does not fit, and where.
        source: OpError,
    },
    /// A pass broke an invariant: a bug of this compiler. Please report it with the model.
    #[error("internal error: pass {pass} left a graph that is not legal: {source}")]
    Broken {
        /// The pass.
        pass: &'static str,
        /// What does not hold, and where.
        source: VerifyError,
    },
}

impl From<OpError> for PassError {
    fn from(source: OpError) -> PassError {
        PassError::Op { pass: "", source }
    }
}

impl PassError {
    /// Does the model ask for more than is allowed?
    pub fn is_limit(&self) -> bool {
        matches!(self, PassError::Op { source, .. } if source.limit)
    }

    pub(crate) fn in_pass(self, name: &'static str) -> PassError {
        match self {
            PassError::Op { pass: "", source } => PassError::Op { pass: name, source },
            other => other,
        }
    }
}

/// A rule that matched and did not fire.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// The rule.
    pub rule: &'static str,
    /// Name of the node where it matched.
    pub node: String,
    /// Why not.
    pub why: &'static str,
}

/// What one pass did.
#[derive(Clone, PartialEq, Debug)]
pub struct PassStat {
    /// The pass.
    pub name: &'static str,
    /// Did it change anything?
    pub changed: Changed,
    /// How long it took.
    pub time: Duration,
    /// Living nodes after it, those of regions included.
    pub nodes: usize,
}

/// What running passes did.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Report {
    /// How often each rule (or other change worth counting) fired.
    pub fired: BTreeMap<&'static str, u32>,
    /// Rules that matched and did not fire, the last sweep's.
    pub refusals: Vec<Refusal>,
    /// One a pass, in order.
    pub passes: Vec<PassStat>,
}

/// Handed to every pass.
pub struct Context {
    /// What the caller wants.
    pub options: Options,
    report: RefCell<Report>,
    /// What folding may still compute, once it has begun.
    pub(crate) fold_left: Cell<Option<FoldLimits>>,
}

/// Refusals beyond this many are not kept.
const MOST_REFUSALS: usize = 2_000;

impl Context {
    /// A context with nothing recorded.
    pub fn new(options: Options) -> Context {
        Context { options, report: RefCell::default(), fold_left: Cell::new(None) }
    }

    /// Counts a change.
    pub fn fired(&self, rule: &'static str, times: u32) {
        if times > 0 {
            *self.report.borrow_mut().fired.entry(rule).or_default() += times;
        }
    }

    /// Records refusals.
    pub fn refused(&self, more: Vec<Refusal>) {
        let kept = &mut self.report.borrow_mut().refusals;
        for r in more {
            if kept.len() < MOST_REFUSALS && !kept.contains(&r) {
                kept.push(r);
            }
        }
    }

    pub(crate) fn passed(&self, name: &'static str, changed: bool, time: Duration, nodes: usize) {
        self.report.borrow_mut().passes.push(PassStat { name, changed, time, nodes });
    }

    pub(crate) fn into_report(self) -> Report {
        self.report.into_inner()
    }
}
