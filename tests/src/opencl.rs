//! The OpenCL target on whatever OpenCL device is there: PoCL in CI.

use crate::{compare_on, export_one};
use hub_cli::Failure;
use hub_cli::report::Report;
use hub_cli::tensors::Opened;
use hub_models::{Case, Comparison, Tolerance};
use hub_runtime::{Error, Model, OpenOptions, Session, SessionOptions};
use std::path::Path;

/// The name of the tier.
pub const TIER: &str = "cl12";
/// The device that is used.
pub const DEVICE: &str = "opencl:0";

/// Exports a case's model for OpenCL.
pub fn export(case: &Case, bundle: &Path) -> Result<Report, Failure> {
    export_one(case, bundle, TIER)
}

/// A session on the device.
///
/// # Errors
/// No driver, no device, or what the device says of the bundle's code.
pub fn session(bundle: &Path) -> Result<(Model, Session), Error> {
    let model = Model::open(bundle, &OpenOptions::default())?;
    let options = SessionOptions { device: DEVICE.into(), ..Default::default() };
    let session = Session::new(&model, &options)?;
    Ok((model, session))
}

/// Why no device can be used here, if none can: no OpenCL, or no device.
pub fn absent(bundle: &Path) -> Option<String> {
    match session(bundle) {
        Err(Error::Unsupported(why)) if !why.contains("refuses") => Some(why),
        _ => None,
    }
}

/// Runs a bundle on the device and compares with the case's golden.
pub fn check(case: &Case, bundle: &Path, tolerance: Tolerance) -> Result<Comparison, Failure> {
    let (model, session) = session(bundle)?;
    compare_on(case, Opened { model, session }, tolerance)
}
