//! Signatures: who vouches for a bundle's machine code.
//!
//! Section [`SIGNATURE`] holds an Ed25519 public key (32 bytes) and a signature (64 bytes) over
//! [`message`]: a fixed prefix and the manifest, which holds a hash of every other section. Making
//! and checking one is for who has the cryptography; here it is only carried. Attaching one changes
//! nothing before the seal, so that a bundle can be signed where the key is, after it was compiled.

use super::write::{Sections, finish};
use super::{MANIFEST, SIGNATURE, broken, elf, read};
use std::io::{self, Seek, Write};

/// Bytes of the section: key and signature.
pub(super) const LEN: usize = 32 + 64;

/// An Ed25519 signature, unchecked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Signature {
    /// The public key that it is said to be of.
    pub key: [u8; 32],
    /// The signature's bytes.
    pub bytes: [u8; 64],
}

impl Signature {
    /// Reads the section's bytes; `None` where they are of another length.
    pub(super) fn decode(b: &[u8]) -> Option<Signature> {
        let (key, bytes) = b.split_at_checked(32)?;
        Some(Signature { key: key.try_into().ok()?, bytes: bytes.try_into().ok()? })
    }

    fn encode(&self) -> [u8; LEN] {
        let mut b = [0; LEN];
        b[..32].copy_from_slice(&self.key);
        b[32..].copy_from_slice(&self.bytes);
        b
    }
}

/// What is signed for a bundle with these manifest bytes ([`super::BundleView::manifest_bytes`]).
pub fn message(manifest: &[u8]) -> Vec<u8> {
    [&b"hub bundle signature 1\0"[..], manifest].concat()
}

/// Writes `file`, a bundle that was checked, again with this signature in place of any that it has.
/// `out` starts at position 0. Gives the size.
///
/// # Errors
/// What writing says; `InvalidInput` if `file` is no bundle.
pub fn attach<W: Write + Seek>(file: &[u8], by: &Signature, out: &mut W) -> io::Result<u64> {
    let invalid = |e| io::Error::new(io::ErrorKind::InvalidInput, e);
    let c = elf::read(file).map_err(invalid)?;
    let Some(i) = c.sections.iter().position(|s| s.name == MANIFEST) else {
        return Err(invalid(broken::<()>(c.shoff, "no manifest").unwrap_err()));
    };
    let (manifest, end) = (read::bytes(file, &c.sections[i]), c.sections[i].end() as usize);
    let mut sections = Sections::resumed(out, c.sections[..=i].to_vec());
    sections.put(&file[..end])?;
    finish(sections, manifest, Some(&by.encode()))
}

/// The signature among a container's sections.
pub(super) fn find(
    file: &[u8],
    c: &elf::Container,
) -> Result<Option<Signature>, super::BundleError> {
    let Some(s) = c.sections.iter().find(|s| s.name == SIGNATURE) else { return Ok(None) };
    match Signature::decode(read::bytes(file, s)) {
        Some(s) => Ok(Some(s)),
        None => broken(s.offset, format!("a signature of {} bytes, not {LEN}", s.len)),
    }
}
