//! `hubc sign`: vouches for a bundle's machine code.

use crate::args::Sign;
use crate::failure::{Failure, USAGE};
use ed25519_dalek::pkcs8::DecodePrivateKey;
use ed25519_dalek::{Signer, SigningKey};
use hub_abi::bundle::{Signature, attach, message};
use hub_abi::replace;
use hub_runtime::{Model, OpenOptions, PublicKey, Trust};
use std::path::Path;

/// Checks the bundle whole, signs its manifest, and writes it with the signature.
pub fn run(a: Sign) -> Result<(), Failure> {
    let key = private_key(&a.key)?;
    let options = OpenOptions { trust: Some(Trust::Portable), ..Default::default() };
    let model = Model::open(&a.bundle, &options)?;
    model.verify()?;
    let bundle = model.bundle();
    let signature = Signature {
        key: key.verifying_key().to_bytes(),
        bytes: key.sign(&message(bundle.manifest_bytes())).to_bytes(),
    };
    let output = a.output.as_ref().unwrap_or(&a.bundle);
    replace(output, |f| attach(bundle.file(), &signature, f))
        .map_err(|e| Failure::io(output, e))?;
    println!("{} is signed by {}", output.display(), PublicKey(signature.key));
    Ok(())
}

fn private_key(path: &Path) -> Result<SigningKey, Failure> {
    let text = std::fs::read_to_string(path).map_err(|e| Failure::io(path, e))?;
    SigningKey::from_pkcs8_pem(&text).map_err(|e| {
        let what = format!("{}: no Ed25519 private key in PEM form: {e}", path.display());
        Failure::new(USAGE, what).help("make one: openssl genpkey -algorithm ed25519 -out KEY.pem")
    })
}
