//! `hubc optimize`: `hub export` with the compiler laid open.

use crate::args::{Emit, Optimize};
use crate::compile::{Job, compile};
use crate::failure::Failure;

/// Compiles and writes; prints forms, and the report beside them on standard error.
pub fn run(a: Optimize) -> Result<(), Failure> {
    let mut job = Job::of(&a.build)?;
    job.check_ir = a.check_ir;
    let forms = !a.emit.is_empty() || !a.print_after.is_empty();
    job.print_after = a.print_after;
    job.emit_ir = a.emit.contains(&Emit::Ir);
    job.emit_kernels = a.emit.contains(&Emit::Kernels);
    job.emit_asm = a.emit.contains(&Emit::Asm);
    job.emit_ptx = a.emit.contains(&Emit::Ptx);
    job.emit_opencl = a.emit.contains(&Emit::Opencl);
    job.emit_ascend = a.emit.contains(&Emit::Ascend);
    let report = compile(&job)?;
    match forms && !a.build.json {
        true => report.print_aside(),
        false => report.print(a.build.json),
    }
    report.verdict()
}
