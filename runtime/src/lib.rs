//! The runtime: opens bundles and runs them. No compiler inside.
//!
//! [`Model::open`] maps a bundle, [`Session::new`] picks the best tier that the processor runs, and
//! [`Session::run`] walks its plan on the session's threads. What has no native code runs on the
//! portable interpreter. Invariants: opening does no work per weight; a run at a known binding
//! allocates nothing and takes no lock; results are the same bits at every thread count; no bundle
//! or argument crashes the process (machine code is trusted as [`Trust`] says); the library installs
//! no signal handler ([`program`] has one for programs that want it). The C interface is in `include/hub.h`.

mod accept;
mod bind;
mod capi;
mod capi_options;
mod cpu;
pub mod describe;
pub mod device;
mod error;
mod flow;
mod host;
mod map;
mod model;
mod native;
mod ops;
mod pool;
pub mod program;
mod run;
mod session;
mod tensor;
mod trust;
mod walk;
mod work;

pub use cpu::{best as best_tier, cores, supports};
pub use describe::{StepInfo, Summary};
pub use error::Error;
pub use map::CodeFrom;
pub use model::{Model, OpenOptions};
pub use native::Profile;
pub use session::{Session, SessionOptions};
pub use tensor::{Outputs, TensorView};
pub use trust::{PublicKey, Trust};

pub use hub_abi::Dtype;
pub use hub_portable::{Limits, Tensor, Value};
