//! The C table of `runtime/include/hub_device.h` from traits: a driver in Rust says what its devices,
//! queues and kernels do, and [`driver!`] exports it.
//!
//! The glue is here once: pointers to boxes and back, a thread's last failure as text, panics as status
//! 70, capability bits from what a driver has types for ([`Absent`] is none). What stays unsafe in a
//! driver is what a device does with addresses.

mod table;

pub use hub_abi;
pub use table::{api, table};

use hub_abi::device::OpTensor;
use std::fmt;
use std::sync::Arc;

/// Nothing of the kind.
pub const UNSUPPORTED: i32 = 3;
/// Code that the device refuses.
pub const REFUSED: i32 = 4;
/// The device failed.
pub const DEVICE: i32 = 8;
/// No memory is left.
pub const LIMIT: i32 = 9;
/// Anything else.
pub const INTERNAL: i32 = 70;

/// A failed call: a status of `hub.h`, and what happened.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The status.
    pub status: i32,
    /// For people, the device's own number included.
    pub what: String,
}

impl Failure {
    /// A failure of that status.
    pub fn new(status: i32, what: impl Into<String>) -> Failure {
        Failure { status, what: what.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

/// What a call gives.
pub type Got<T> = Result<T, Failure>;

/// A driver: which devices there are.
pub trait Driver: 'static {
    /// The word before the colon in `opencl:0`.
    const NAME: &'static str;
    /// Tiers whose code it runs, best first, separated by commas.
    const TIERS: &'static str;
    /// Its devices.
    type Device: Device;

    /// Devices there are.
    ///
    /// # Errors
    /// Why there are none, where the vendor's library is absent; the caller then hears of 0 devices.
    fn count() -> Got<u32>;

    /// Opens a device.
    ///
    /// # Errors
    /// There is none of that number, or what it says.
    fn open(index: u32) -> Got<Self::Device>;
}

/// An opened device; several threads use it at once.
pub trait Device: Sized + Send + Sync + 'static {
    /// Its queues.
    type Queue: 'static;
    /// Code made ready.
    type Module: 'static;
    /// A kernel of a module; it may be used as long as its module lives.
    type Kernel: 'static;
    /// What a queue records, or [`Absent`].
    type Graph: Graph<Self::Queue>;
    /// Prepared operators, or [`Absent`].
    type Operator: Operator<Self>;

    /// Its name and version.
    ///
    /// # Errors
    /// What it says.
    fn describe(&self) -> Got<String>;

    /// What it is, by the numbers of [`hub_abi::device`].
    ///
    /// # Errors
    /// What it says.
    fn kind(&self) -> Got<u32>;

    /// Reserves memory, aligned to 256 bytes; its address.
    ///
    /// # Errors
    /// There is none left.
    fn reserve(&self, bytes: u64) -> Got<u64>;

    /// Gives memory back.
    fn release(&self, address: u64);

    /// An empty queue.
    ///
    /// # Errors
    /// What the device says.
    fn queue(self: &Arc<Self>) -> Got<Self::Queue>;

    /// Copies to the device; `from` may be changed afterwards.
    ///
    /// # Errors
    /// The address is none of the device's, or it fails.
    fn write(queue: &Self::Queue, to: u64, from: &[u8]) -> Got<()>;

    /// Copies from the device, after everything before.
    ///
    /// # Errors
    /// The address is none of the device's, or what came before failed.
    fn read(queue: &Self::Queue, to: &mut [u8], from: u64) -> Got<()>;

    /// Waits until everything is done.
    ///
    /// # Errors
    /// What came before failed.
    fn wait(queue: &Self::Queue) -> Got<()>;

    /// Makes a tier's code ready.
    ///
    /// # Errors
    /// The device's compiler refuses it.
    fn module(self: &Arc<Self>, tier: &str, code: &[u8]) -> Got<Self::Module>;

    /// A kernel by name; `kinds` says of each argument what it is.
    ///
    /// # Errors
    /// There is none of that name, or none with such arguments.
    fn kernel(module: &Self::Module, name: &str, kinds: &[u8]) -> Got<Self::Kernel>;

    /// Runs so many tiles, at least one, or puts that into the queue. There are as many arguments as
    /// there were kinds.
    ///
    /// # Safety
    /// The kernel stays within the memory that its arguments lead to, which is the device's.
    ///
    /// # Errors
    /// What the device says.
    unsafe fn launch(
        queue: &Self::Queue,
        kernel: &Arc<Self::Kernel>,
        tiles: u64,
        args: &[u64],
    ) -> Got<()>;
}

/// What a queue recorded, to be done again as a whole.
pub trait Graph<Q>: Sized + 'static {
    /// Are there any?
    const THERE: bool = true;

    /// From here on the queue records what it is given instead of doing it.
    ///
    /// # Errors
    /// What the device says.
    fn record(queue: &Q) -> Got<()>;

    /// Ends recording; the queue is as before it, whatever this gives.
    ///
    /// # Errors
    /// Nothing was recorded, or what the device says.
    fn recorded(queue: &Q) -> Got<Self>;

    /// Puts what was recorded into the queue.
    ///
    /// # Errors
    /// What the device says.
    fn replay(&self, queue: &Q) -> Got<()>;
}

/// An operator made ready for tensors of some types.
pub trait Operator<D: Device>: Sized + 'static {
    /// Are there any?
    const THERE: bool = true;

    /// Makes one ready.
    ///
    /// # Errors
    /// There is no such operator, or not for such tensors.
    fn new(
        device: &Arc<D>,
        name: &str,
        attributes: &str,
        inputs: &[OpTensor],
        outputs: &[OpTensor],
    ) -> Got<Self>;

    /// Bytes of workspace that each run needs.
    fn workspace(&self) -> u64;

    /// Tensors, each of which has an address in a run.
    fn tensors(&self) -> usize;

    /// Puts a run into a queue.
    ///
    /// # Safety
    /// Memory is there for every element of every tensor, and for the workspace.
    ///
    /// # Errors
    /// What the device says.
    unsafe fn run(self: &Arc<Self>, queue: &D::Queue, addresses: &[u64], workspace: u64)
    -> Got<()>;
}

/// No graphs, or no operators: there is no value of it.
pub enum Absent {}

impl<Q> Graph<Q> for Absent {
    const THERE: bool = false;

    fn record(_: &Q) -> Got<()> {
        Err(Failure::new(UNSUPPORTED, "nothing is recorded here"))
    }

    fn recorded(_: &Q) -> Got<Absent> {
        Err(Failure::new(UNSUPPORTED, "nothing is recorded here"))
    }

    fn replay(&self, _: &Q) -> Got<()> {
        match *self {}
    }
}

impl<D: Device> Operator<D> for Absent {
    const THERE: bool = false;

    fn new(_: &Arc<D>, name: &str, _: &str, _: &[OpTensor], _: &[OpTensor]) -> Got<Absent> {
        Err(Failure::new(UNSUPPORTED, format!("there is no operator {name}")))
    }

    fn workspace(&self) -> u64 {
        match *self {}
    }

    fn tensors(&self) -> usize {
        match *self {}
    }

    unsafe fn run(self: &Arc<Self>, _: &D::Queue, _: &[u64], _: u64) -> Got<()> {
        match **self {}
    }
}

/// Exports a [`Driver`]: the library's `hub_device_get_api`, and its `TABLE`.
#[macro_export]
macro_rules! driver {
    ($driver:ty) => {
        /// The driver's table.
        pub static TABLE: $crate::hub_abi::device::Api = $crate::table::<$driver>();

        /// The entry of the library: see `hub_device.h`.
        ///
        /// # Safety
        /// `out` may be written to.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn hub_device_get_api(
            major: u32,
            out: *mut *const $crate::hub_abi::device::Api,
        ) -> i32 {
            // SAFETY: by the caller's promise.
            unsafe { $crate::api(&TABLE, major, out) }
        }
    };
}
