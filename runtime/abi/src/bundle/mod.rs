//! The bundle: a compiled model in one file, which is an ELF64 file so that objdump, readelf and
//! perf read its code directly.
//!
//! Layout: the ELF header and program headers in the first 4 KiB, then sections, each at the next
//! multiple of 4 KiB with zero bytes between, then the section headers, which end the file. Machine
//! code lies in `.text.TIER` with one function symbol a kernel (text that a device's driver compiles: in
//! `.ptx.TIER` or `.opencl.TIER`, without symbols); what is ours lies in:
//!
//! | section | holds |
//! |---|---|
//! | `.hub.manifest` | [`Manifest`] in postcard: interface, provenance, tiers, a BLAKE3 a section |
//! | `.hub.graph` | [`crate::pgraph::PGraph`] in postcard |
//! | `.hub.plan.TIER` | [`crate::plan::Plan`] in postcard |
//! | `.hub.const` | constants, each at a multiple of 64 bytes |
//! | `.hub.seal` | magic, version, and BLAKE3 of headers and manifest |
//! | `.hub.sig` | optional: an Ed25519 key and signature ([`Signature`]) |
//!
//! Other sections (accuracy record, self-test vectors, processor, code for other targets) ride along
//! and are skipped by who does not know them. Invariants, asserted on write and checked on read: no
//! overlap, no hole, every byte of the file under a hash or checked to be zero, bounded counts. The graph
//! is decoded and checked when first asked for: plans of kernels alone are bound with the manifest.
//! The same content gives the same bytes.

pub mod check;
pub mod check_plan;
mod elf;
mod read;
mod sign;
mod write;

#[cfg(test)]
mod tests;

pub use read::{BundleView, TierView};
pub use sign::{Signature, attach, message};
pub use write::{BundleWriter, TierCode};

use crate::dim::{Dim, SymInfo};
use crate::pgraph::PGraph;
use crate::shape::Type;
use serde::{Deserialize, Serialize};

/// Major version of the format: a reader refuses others.
pub const MAJOR: u16 = 3;
/// Minor version: raised when fields or sections are appended.
pub const MINOR: u16 = 0;
/// Sections start at multiples of this many bytes.
pub const PAGE: u64 = 4096;
/// Constants start at multiples of this many bytes in their section.
pub const CONST_ALIGN: u64 = 64;
/// Most sections in a bundle.
pub const MAX_SECTIONS: usize = 256;
/// Most tiers in a bundle.
pub const MAX_TIERS: usize = 32;
/// Longest manifest in bytes.
pub const MAX_MANIFEST: u64 = 16 << 20;
/// Longest graph or plan in bytes.
pub const MAX_TABLE: u64 = 128 << 20;

/// Name of the section that holds the manifest.
pub const MANIFEST: &str = ".hub.manifest";
/// Name of the section that holds the portable graph.
pub const GRAPH: &str = ".hub.graph";
/// Name of the section that holds the constants.
pub const CONSTS: &str = ".hub.const";
/// Name of the section that holds magic, version and header hashes.
pub const SEAL: &str = ".hub.seal";
/// Name of the section for an optional signature; it is not under the manifest that it signs.
pub const SIGNATURE: &str = ".hub.sig";

/// First part of the names of sections with text that a device's driver compiles; `None` for machine
/// code. NVIDIA's and Ascend's tiers are named after their architecture, OpenCL's after its version.
fn text_kind(tier: &str) -> Option<&'static str> {
    match tier {
        t if t.starts_with("sm") => Some("ptx"),
        t if t.starts_with("cl") => Some("opencl"),
        t if t.starts_with("dav") => Some("ascendc"),
        _ => None,
    }
}

/// Is a tier's code text that a device's driver compiles, not machine code?
pub fn is_text(tier: &str) -> bool {
    text_kind(tier).is_some()
}

/// Name of the section that holds a tier's code.
pub fn code_section(tier: &str) -> String {
    format!(".{}.{tier}", text_kind(tier).unwrap_or("text"))
}

/// What is wrong with a bundle.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// It is no bundle at all, or of another version.
    Foreign,
    /// Structure, hashes or content do not hold together.
    Broken,
    /// It is beyond a limit.
    Limit,
}

/// Why a bundle was refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("bundle refused at byte {offset}: {what}")]
pub struct BundleError {
    /// What kind of fault.
    pub fault: Fault,
    /// What does not hold.
    pub what: String,
    /// Where in the file, in bytes from its start.
    pub offset: u64,
}

pub(crate) fn broken<T>(offset: u64, what: impl Into<String>) -> Result<T, BundleError> {
    Err(BundleError { fault: Fault::Broken, what: what.into(), offset })
}

pub(crate) fn over<T>(offset: u64, what: impl Into<String>) -> Result<T, BundleError> {
    Err(BundleError { fault: Fault::Limit, what: what.into(), offset })
}

/// An input or output of the model.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct IoInfo {
    /// The model's own name.
    pub name: String,
    /// Type; its dims are over [`Manifest::syms`], which carry the bounds.
    pub ty: Type,
}

/// Where a bundle comes from. Holds nothing that differs between two runs of the same export.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Provenance {
    /// Format of the source: `onnx`, `paddle-pir`, `paddle-program`…
    pub format: String,
    /// Who made the source model, as it says (exporter and version).
    pub producer: String,
    /// BLAKE3 of the source model's bytes.
    pub source: [u8; 32],
    /// Compiler and version.
    pub compiler: String,
    /// Options that shaped the result, in order.
    pub options: Vec<(String, String)>,
}

/// One tier of native code.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct TierInfo {
    /// `avx512`, `avx2`…
    pub name: String,
    /// Section that holds its code.
    pub text: String,
    /// Section that holds its plan.
    pub plan: String,
}

/// A section as the manifest lists it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct SectionInfo {
    /// Name.
    pub name: String,
    /// Where it starts, in bytes.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
    /// BLAKE3 of its bytes.
    pub hash: [u8; 32],
}

/// What a bundle is. New fields are appended, never inserted: an older reader ignores the rest.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Manifest {
    /// [`MAJOR`] of the writer.
    pub major: u16,
    /// [`MINOR`] of the writer.
    pub minor: u16,
    /// The model's name.
    pub name: String,
    /// Inputs in the model's order.
    pub inputs: Vec<IoInfo>,
    /// Outputs in the model's order.
    pub outputs: Vec<IoInfo>,
    /// Symbols that the interface's dims use, with bounds; the graph's table.
    pub syms: Vec<SymInfo>,
    /// `f32`, `bf16`, `f16` or `int8`.
    pub precision: String,
    /// Where it comes from.
    pub provenance: Provenance,
    /// Native tiers, best first. Filled in by the writer.
    pub tiers: Vec<TierInfo>,
    /// All sections but manifest, seal, signature and section names. Filled in by the writer.
    pub sections: Vec<SectionInfo>,
    /// The graph's equalities, which must hold once their symbols are bound. Filled in by the writer.
    pub constraints: Vec<(Dim, Dim)>,
    /// [`PGraph::const_bytes`] of the graph. Filled in by the writer.
    pub const_bytes: u64,
}

impl Manifest {
    /// A manifest with this graph's interface: names, types and symbols.
    ///
    /// # Panics
    /// If the root region or one of its values does not exist.
    pub fn of(name: &str, g: &PGraph) -> Manifest {
        let root = &g.regions[g.root as usize];
        let io = |names: &[String], values: &[u32]| {
            let both = names.iter().zip(values);
            both.map(|(n, &v)| IoInfo { name: n.clone(), ty: g.values[v as usize].clone() })
                .collect()
        };
        Manifest {
            name: name.into(),
            inputs: io(&g.inputs, &root.params),
            outputs: io(&g.outputs, &root.results),
            syms: g.syms.clone(),
            precision: "f32".into(),
            ..Manifest::default()
        }
    }

    /// The listed section of that name.
    pub fn section(&self, name: &str) -> Option<&SectionInfo> {
        self.sections.iter().find(|s| s.name == name)
    }
}
