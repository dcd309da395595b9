//! Queues: a stream each, with pinned memory between the caller's and the device's; and what they record.
//!
//! Invariant: a half of the pinned memory is written by the host only when the copies from it are done
//! (its event has passed), and read only after the copy to it is.

use crate::Said;
use crate::device::Device;
use crate::module::Kernel;
use cudarc::driver::result;
use cudarc::driver::sys::{self, CUevent_flags, CUstreamCaptureMode};
use hub_plugin::{self as plugin, DEVICE, Failure, Got};
use std::cell::{Cell, OnceCell};
use std::ffi::c_void;
use std::sync::Arc;

/// Bytes of each of the two halves of the pinned memory.
const HALF: usize = 2 << 20;
/// Offsets in it are multiples of this.
const ALIGN: usize = 64;

/// A queue of a device.
pub struct Queue {
    device: Arc<Device>,
    stream: sys::CUstream,
    /// Made when first used.
    staging: OnceCell<Staging>,
    recording: Cell<bool>,
}

/// Pinned memory.
struct Staging {
    at: *mut u8,
    /// One a half: passed when the copies from or to it are done.
    events: [sys::CUevent; 2],
    /// The half in use, and how much of it is.
    half: Cell<usize>,
    used: Cell<usize>,
}

impl Drop for Queue {
    fn drop(&mut self) {
        if self.device.here().is_err() {
            return;
        }
        // SAFETY: made for this queue, destroyed once, when everything put into the stream is done.
        unsafe {
            let _ = result::stream::synchronize(self.stream);
            if let Some(s) = self.staging.get() {
                s.events.iter().for_each(|e| _ = result::event::destroy(*e));
                let _ = result::free_host(s.at.cast());
            }
            let _ = result::stream::destroy(self.stream);
        }
    }
}

impl Queue {
    /// An empty one.
    pub fn new(device: &Arc<Device>) -> Got<Queue> {
        device.here()?;
        let kind = result::stream::StreamKind::NonBlocking;
        let stream = result::stream::create(kind).said("cuStreamCreate")?;
        let (staging, recording) = (OnceCell::new(), Cell::new(false));
        Ok(Queue { device: device.clone(), stream, staging, recording })
    }

    /// The thread is the device's; nothing is being recorded.
    fn steady(&self, what: &str) -> Got<()> {
        if self.recording.get() {
            return Err(Failure::new(DEVICE, format!("{what} while a queue records")));
        }
        self.device.here()
    }

    fn staging(&self) -> Got<&Staging> {
        if let Some(s) = self.staging.get() {
            return Ok(s);
        }
        // SAFETY: plain memory, which this queue gives back.
        let at = unsafe { result::malloc_host(2 * HALF, 0) }.said("cuMemHostAlloc")?;
        let event = || {
            let flags = CUevent_flags::CU_EVENT_DISABLE_TIMING;
            result::event::create(flags).said("cuEventCreate")
        };
        let events = event().and_then(|a| {
            let other = event();
            // SAFETY: just made, and not used.
            other.map(|b| [a, b]).inspect_err(|_| _ = unsafe { result::event::destroy(a) })
        });
        // SAFETY: just made, and not used.
        let events = events.inspect_err(|_| _ = unsafe { result::free_host(at) })?;
        let (half, used) = (Cell::new(0), Cell::new(0));
        Ok(self.staging.get_or_init(|| Staging { at: at.cast(), events, half, used }))
    }

    /// Copies to the device, in pieces that fit the pinned memory.
    pub fn write(&self, to: u64, from: &[u8]) -> Got<()> {
        self.steady("a write")?;
        let mut done = 0;
        while done < from.len() {
            let s = self.staging()?;
            if s.used.get() == HALF {
                self.turn(s)?;
            }
            let n = (HALF - s.used.get()).min(from.len() - done);
            // SAFETY: `n` bytes are left in the half, whose earlier copies read other bytes of it; the
            // stream reads these before the half is written again.
            unsafe {
                let pinned = s.at.add(s.half.get() * HALF + s.used.get());
                std::ptr::copy_nonoverlapping(from[done..].as_ptr(), pinned, n);
                let address = to + done as u64;
                let call = sys::cuMemcpyHtoDAsync_v2(address, pinned.cast(), n, self.stream);
                call.said(&format!("cuMemcpyHtoDAsync of {n} bytes to {address:#x}"))?;
            }
            s.used.set((s.used.get() + n).next_multiple_of(ALIGN));
            done += n;
        }
        Ok(())
    }

    /// Goes to the other half, when its copies are done.
    fn turn(&self, s: &Staging) -> Got<()> {
        let half = s.half.get();
        // SAFETY: events and stream are this queue's.
        unsafe {
            result::event::record(s.events[half], self.stream).said("cuEventRecord")?;
            result::event::synchronize(s.events[1 - half]).said("cuEventSynchronize")?;
        }
        s.half.set(1 - half);
        s.used.set(0);
        Ok(())
    }

    /// Copies from the device, after everything before; one piece comes while the last is copied out.
    pub fn read(&self, to: &mut [u8], from: u64) -> Got<()> {
        self.steady("a read")?;
        if to.is_empty() {
            return Ok(());
        }
        let s = self.staging()?;
        if to.len() <= HALF {
            // SAFETY: what the stream copied from the half before comes before, and when all is done it
            // holds the bytes.
            unsafe {
                let call = sys::cuMemcpyDtoHAsync_v2(s.at.cast(), from, to.len(), self.stream);
                call.said(&format!("cuMemcpyDtoHAsync of {} bytes from {from:#x}", to.len()))?;
                self.wait()?;
                std::ptr::copy_nonoverlapping(s.at, to.as_mut_ptr(), to.len());
            }
            return Ok(());
        }
        // Copies from the pinned memory come before in the stream, so that both halves are free.
        let mut before: Option<(usize, &mut [u8])> = None;
        for (i, piece) in to.chunks_mut(HALF).enumerate() {
            let (half, address, n) = (i % 2, from + (i * HALF) as u64, piece.len());
            // SAFETY: a half holds the piece, and what it held was copied out; the event is this queue's.
            unsafe {
                let pinned = s.at.add(half * HALF).cast::<c_void>();
                let call = sys::cuMemcpyDtoHAsync_v2(pinned, address, n, self.stream);
                call.said(&format!("cuMemcpyDtoHAsync of {n} bytes from {address:#x}"))?;
                result::event::record(s.events[half], self.stream).said("cuEventRecord")?;
            }
            if let Some((half, last)) = before.replace((half, piece)) {
                s.bring(half, last)?;
            }
        }
        if let Some((half, last)) = before {
            s.bring(half, last)?;
        }
        self.wait()
    }

    /// Waits until everything is done.
    pub fn wait(&self) -> Got<()> {
        self.steady("waiting")?;
        // SAFETY: the stream is this queue's.
        unsafe { result::stream::synchronize(self.stream) }.said("cuStreamSynchronize")?;
        if let Some(s) = self.staging.get() {
            s.used.set(0);
        }
        Ok(())
    }

    /// Runs tiles.
    ///
    /// # Safety
    /// The kernel stays within the memory that its arguments lead to.
    pub unsafe fn launch(&self, kernel: &Kernel, tiles: u64, args: &[u64]) -> Got<()> {
        self.device.here()?;
        let (shape, name) = (kernel.shape, &kernel.name);
        let blocks = shape.blocks(tiles);
        let too_many = || Failure::new(DEVICE, format!("kernel {name}: {tiles} tiles"));
        let blocks = blocks.ok_or_else(too_many)?;
        if args.len() * 8 != shape.args && !(args.is_empty() && shape.args == 8) {
            return Err(Failure::new(DEVICE, format!("kernel {name}: {} arguments", args.len())));
        }
        // The only parameter is the argument block; CUDA copies it.
        let none = 0u64;
        let block = if args.is_empty() { &raw const none } else { args.as_ptr() };
        let mut params = [block.cast_mut().cast::<c_void>()];
        // SAFETY: the block has as many bytes as the kernel's parameter; what the kernel does is the
        // caller's promise.
        let done = unsafe {
            sys::cuLaunchKernel(
                kernel.function,
                blocks,
                1,
                1,
                shape.threads,
                1,
                1,
                shape.shared,
                self.stream,
                params.as_mut_ptr(),
                std::ptr::null_mut(),
            )
        };
        done.said(&format!("cuLaunchKernel of {name}, {blocks} blocks of {}", shape.threads))
    }
}

impl Staging {
    /// Copies out of a half, when the copy to it is done.
    fn bring(&self, half: usize, to: &mut [u8]) -> Got<()> {
        // SAFETY: the event is this memory's; after it the half holds the bytes.
        unsafe {
            result::event::synchronize(self.events[half]).said("cuEventSynchronize")?;
            let pinned = self.at.add(half * HALF);
            std::ptr::copy_nonoverlapping(pinned, to.as_mut_ptr(), to.len());
        }
        Ok(())
    }
}

/// Launches that a queue recorded: a CUDA graph.
pub struct Recorded {
    device: Arc<Device>,
    exec: sys::CUgraphExec,
}

impl Drop for Recorded {
    fn drop(&mut self) {
        if !self.exec.is_null() && self.device.here().is_ok() {
            // SAFETY: made once; CUDA frees it when the launches under way are done.
            let _ = unsafe { result::graph::exec_destroy(self.exec) };
        }
    }
}

impl plugin::Graph<Queue> for Recorded {
    fn record(queue: &Queue) -> Got<()> {
        queue.steady("recording")?;
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream is this queue's, and not the default one.
        unsafe { result::stream::begin_capture(queue.stream, mode) }
            .said("cuStreamBeginCapture")?;
        queue.recording.set(true);
        Ok(())
    }

    fn recorded(queue: &Queue) -> Got<Recorded> {
        if !queue.recording.replace(false) {
            return Err(Failure::new(DEVICE, "nothing is being recorded"));
        }
        queue.device.here()?;
        let mut made = Recorded { device: queue.device.clone(), exec: std::ptr::null_mut() };
        // SAFETY: the stream is capturing; the graph is this function's, and an executable graph is a
        // copy of it.
        unsafe {
            let graph = result::stream::end_capture(queue.stream).said("cuStreamEndCapture")?;
            let done = sys::cuGraphInstantiateWithFlags(&mut made.exec, graph, 0);
            let done = done.said("cuGraphInstantiate");
            let _ = result::graph::destroy(graph);
            done?;
            result::graph::upload(made.exec, queue.stream).said("cuGraphUpload")?;
        }
        Ok(made)
    }

    fn replay(&self, queue: &Queue) -> Got<()> {
        queue.steady("a replay")?;
        // SAFETY: the graph was recorded for this device, and addresses in it are the caller's promise.
        unsafe { result::graph::launch(self.exec, queue.stream) }.said("cuGraphLaunch")
    }
}
