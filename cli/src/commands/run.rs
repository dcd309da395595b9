//! `hubc run`: a bundle on given tensors.

use crate::args::Run;
use crate::failure::Failure;
use crate::plain;
use crate::tensors::{self, Inputs};

/// Runs once and writes the outputs, or shows their first values.
pub fn run(a: Run) -> Result<(), Failure> {
    let mut o = tensors::open(&a.bundle, &a.running, Inputs::Given)?;
    let file = tensors::read(&a.inputs)?;
    let inputs = tensors::inputs_for(&o, &file.tensors)?;
    let out = o.run(&inputs)?;
    if let Some(path) = &a.outputs {
        return tensors::write(path, &o, &out);
    }
    for (name, t) in &out {
        println!("{}: {} {:?} {}", plain(name), t.dtype, t.shape, tensors::glimpse(t));
    }
    Ok(())
}
