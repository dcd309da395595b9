//! Whose machine code may run. A bundle holds machine code and is trusted like a shared library.

use crate::error::Error;
use ed25519_dalek::pkcs8::DecodePublicKey;
use ed25519_dalek::{Signature, VerifyingKey};
use hub_abi::bundle::{self, BundleError, BundleView, Fault};
use std::path::Path;

/// Whose machine code may run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Trust {
    /// Every bundle's.
    #[default]
    Any,
    /// Only that of bundles signed by a trusted key; others run portable.
    Signed,
    /// None: everything runs portable.
    Portable,
}

impl Trust {
    /// What `HUB_TRUST` says; unset is [`Trust::Any`].
    pub fn from_env() -> Result<Trust, Error> {
        match std::env::var("HUB_TRUST").as_deref() {
            Err(_) | Ok("" | "any") => Ok(Trust::Any),
            Ok("signed") => Ok(Trust::Signed),
            Ok("portable") => Ok(Trust::Portable),
            Ok(o) => Err(Error::Usage(format!("HUB_TRUST={o}: any, signed or portable expected"))),
        }
    }
}

/// A public key that may sign bundles: 32 bytes of Ed25519 (RFC 8032).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PublicKey(pub [u8; 32]);

impl PublicKey {
    /// The key in a PEM file, as `openssl pkey -pubout` writes it.
    pub fn read(path: &Path) -> Result<PublicKey, Error> {
        let text = std::fs::read_to_string(path);
        let text = text.map_err(|source| Error::Io { path: path.into(), source })?;
        let key = VerifyingKey::from_public_key_pem(&text).map_err(|e| {
            Error::Usage(format!("{}: no Ed25519 public key in PEM form: {e}", path.display()))
        })?;
        Ok(PublicKey(key.to_bytes()))
    }

    /// The keys in the files that `HUB_KEYS` lists, separated as in `PATH`; unset is none.
    pub fn from_env() -> Result<Vec<PublicKey>, Error> {
        let list = std::env::var_os("HUB_KEYS").unwrap_or_default();
        let files = std::env::split_paths(&list).filter(|p| !p.as_os_str().is_empty());
        files.map(|p| PublicKey::read(&p)).collect()
    }
}

impl std::fmt::Display for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

/// Whether native code of this bundle may run; `Ok(Err(why))` says why it runs portable.
///
/// # Errors
/// A signature under a trusted key that the manifest does not fit: the bundle was changed.
pub(crate) fn admits(
    trust: Trust,
    keys: &[PublicKey],
    bundle: &BundleView<impl AsRef<[u8]>>,
) -> Result<Result<(), String>, BundleError> {
    match trust {
        Trust::Any => return Ok(Ok(())),
        Trust::Portable => return Ok(Err("HUB_TRUST=portable".into())),
        Trust::Signed => {}
    }
    let Some(s) = bundle.signature() else {
        return Ok(Err("HUB_TRUST=signed and the bundle is not signed".into()));
    };
    let key = PublicKey(s.key);
    if !keys.contains(&key) {
        return Ok(Err(format!(
            "HUB_TRUST=signed and the bundle's key {key} is not among the trusted ones (HUB_KEYS)"
        )));
    }
    check(bundle).map(Ok)
}

/// The signature, if there is one, fits the manifest; whose it is does not matter here.
pub(crate) fn check(bundle: &BundleView<impl AsRef<[u8]>>) -> Result<(), BundleError> {
    let Some(s) = bundle.signature() else { return Ok(()) };
    let message = bundle::message(bundle.manifest_bytes());
    let fits = VerifyingKey::from_bytes(&s.key)
        .and_then(|k| k.verify_strict(&message, &Signature::from_bytes(&s.bytes)));
    fits.map_err(|_| BundleError {
        fault: Fault::Broken,
        what: format!("the signature of key {} does not fit the manifest", PublicKey(s.key)),
        offset: 0,
    })
}
