//! How a command fails: what happened, what to do, and the exit code.

use std::fmt;
use std::path::Path;

/// A wrong command line or input that does not fit.
pub const USAGE: u8 = 2;
/// An operator, precision or target that is not there.
pub const UNSUPPORTED: u8 = 3;
/// A file that contradicts its format.
pub const INVALID: u8 = 4;
/// Answers are off.
pub const MISMATCH: u8 = 5;
/// Slower than asked.
pub const SLOW: u8 = 6;
/// A file cannot be read or written.
pub const IO: u8 = 8;
/// More than a limit allows.
pub const LIMIT: u8 = 9;
/// A bug of ours.
pub const INTERNAL: u8 = 70;

/// Why a command ends without success.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// Exit code.
    pub code: u8,
    /// What happened and where.
    pub what: String,
    /// What to do next.
    pub help: Option<String>,
}

impl Failure {
    /// A failure without advice.
    pub fn new(code: u8, what: impl Into<String>) -> Failure {
        Failure { code, what: what.into(), help: None }
    }

    /// Adds advice.
    pub fn help(mut self, help: impl Into<String>) -> Failure {
        self.help = Some(help.into());
        self
    }

    /// A file that could not be read or written.
    pub fn io(path: &Path, e: impl fmt::Display) -> Failure {
        Failure::new(IO, format!("{}: {e}", path.display()))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |s: &str| s.lines().map(crate::plain).collect::<Vec<_>>().join("\n");
        write!(f, "error: {}", text(&self.what))?;
        match &self.help {
            Some(h) => write!(f, "\n  help: {}", text(h)),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Failure {}

impl From<hub_runtime::Error> for Failure {
    fn from(e: hub_runtime::Error) -> Failure {
        let failure = Failure::new(u8::try_from(e.code()).unwrap_or(INTERNAL), e.to_string());
        match crate::limits::named(&failure.what).filter(|_| failure.code == LIMIT) {
            Some(name) => failure.help(format!("--limit {name}=VALUE allows more")),
            None => failure,
        }
    }
}

impl From<hub_frontend::FrontendError> for Failure {
    fn from(mut e: hub_frontend::FrontendError) -> Failure {
        let code = u8::try_from(e.exit_code()).unwrap_or(INTERNAL);
        let help = e.place.help.take();
        Failure { code, what: e.to_string(), help }
    }
}

impl From<hub_passes::PassError> for Failure {
    fn from(e: hub_passes::PassError) -> Failure {
        let code = if e.is_limit() { LIMIT } else { INTERNAL };
        Failure::new(code, e.to_string())
    }
}

impl From<hub_codegen::place::PlaceError> for Failure {
    fn from(e: hub_codegen::place::PlaceError) -> Failure {
        match e {
            hub_codegen::place::PlaceError::Limit { .. } => Failure::new(LIMIT, e.to_string()),
            hub_codegen::place::PlaceError::Kernels { .. } => {
                Failure::new(LIMIT, e.to_string()).help("--limit kernels=VALUE allows more")
            }
            _ => Failure::new(INTERNAL, format!("internal error: {e}")),
        }
    }
}
