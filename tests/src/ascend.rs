//! The Ascend target in the emulation of its device: not on an NPU.

use crate::{compare_on, export_one};
use hub_cli::Failure;
use hub_cli::report::Report;
use hub_cli::tensors::Opened;
use hub_models::{Case, Comparison, Tolerance};
use hub_runtime::{Error, Model, OpenOptions, Session, SessionOptions};
use std::path::Path;

/// The name of the tier.
pub const TIER: &str = "dav2201";
/// The device that is used.
pub const DEVICE: &str = "ascendemu:0";

/// Exports a case's model for Ascend.
pub fn export(case: &Case, bundle: &Path) -> Result<Report, Failure> {
    export_one(case, bundle, TIER)
}

/// A session on a device.
///
/// # Errors
/// No driver, no device, or what the device says of the bundle's code.
pub fn session(bundle: &Path, device: &str) -> Result<(Model, Session), Error> {
    let model = Model::open(bundle, &OpenOptions::default())?;
    let options = SessionOptions { device: device.into(), ..Default::default() };
    let session = Session::new(&model, &options)?;
    Ok((model, session))
}

/// Why nothing can be emulated here, if nothing can: there is no C++ compiler.
pub fn absent() -> Option<String> {
    hub_ascendemu::compiler().err()
}

/// Runs a bundle in the emulation and compares with the case's golden.
pub fn check(case: &Case, bundle: &Path, tolerance: Tolerance) -> Result<Comparison, Failure> {
    let (model, session) = session(bundle, DEVICE)?;
    compare_on(case, Opened { model, session }, tolerance)
}
