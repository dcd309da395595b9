//! A stand-in for libcuda, for tests: the calls of CUDA's driver interface that Hub's CUDA driver makes,
//! on the host. A test puts the library as `libcuda.so.1` where `LD_LIBRARY_PATH` leads, and the driver
//! finds one GPU, whose kernels are interpreted PTX (`hub_testrun::ptx`).
//!
//! Written from CUDA's documentation, knowing nothing of the driver. It is as late as a GPU: what is put
//! into a stream is done when somebody waits, so that memory given back or written too early shows. It
//! checks what a GPU would answer with an error, or not at all: handles, the thread's context, addresses
//! (within an allocation, aligned), sizes of blocks and grids, pinned memory, captures. A fault of a
//! kernel is an error of every later call, as a GPU's is, and its text goes to stderr. Where
//! [`REPORT`] names a file, what was done is written there when the last context is released.
//!
//! It says nothing of speed, nor that a GPU runs these kernels.

mod calls;
mod gpu;

pub use calls::*;

/// A file for the counts: `launches replays replayed left`, a line each time the last context goes.
pub const REPORT: &str = "HUB_CUDAEMU_REPORT";

/// The compute capability that the GPU says, times ten, where that is not 80.
pub const CAPABILITY: &str = "HUB_CUDAEMU_CAPABILITY";
