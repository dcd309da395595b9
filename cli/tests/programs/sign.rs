//! `hubc sign`, and what `HUB_TRUST=signed` runs.

use super::{Ran, folder, hubc, path, shared};
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{EncodePrivateKey, EncodePublicKey};
use std::process::Command;
use tempfile::TempDir;

/// Writes the PEM files of a key pair; gives the private one's path and the public one's.
fn pair(dir: &TempDir, seed: u8) -> (String, String) {
    let key = SigningKey::from_bytes(&[seed; 32]);
    let (private, public) =
        (path(dir, &format!("{seed}.pem")), path(dir, &format!("{seed}.pub.pem")));
    let pem = key.to_pkcs8_pem(LineEnding::LF).expect("a key");
    std::fs::write(&private, pem.as_bytes()).expect("a file");
    let pem = key.verifying_key().to_public_key_pem(LineEnding::LF).expect("a key");
    std::fs::write(&public, pem).expect("a file");
    (private, public)
}

/// `hubc inspect BUNDLE --json` under these settings of the environment.
fn inspect(bundle: &str, trust: &str, keys: &str) -> Ran {
    let mut c = Command::new(env!("CARGO_BIN_EXE_hubc"));
    c.args(["inspect", bundle, "--json"]).env("HUB_TRUST", trust).env("HUB_KEYS", keys);
    let o = c.output().expect("the program starts");
    let text = |b: Vec<u8>| String::from_utf8(b).expect("text");
    Ran { code: o.status.code().expect("a code"), out: text(o.stdout), err: text(o.stderr) }
}

fn tier(r: Ran) -> String {
    r.expect(0).json()["tier"].as_str().expect("a tier").to_string()
}

#[test]
fn signed_bundles_run_native_under_their_key_only() {
    let (s, dir) = (shared(), folder());
    let ((private, public), (other, other_public)) = (pair(&dir, 7), pair(&dir, 8));
    let native = tier(inspect(&s.bundle, "any", ""));
    assert_eq!(tier(inspect(&s.bundle, "signed", &public)), "portable");

    let signed = path(&dir, "signed.hub");
    let r = hubc(&["sign", &s.bundle, "--key", &private, "-o", &signed]).expect(0);
    assert!(
        r.out.contains("is signed by ea4a6c63e29c520abef5507b132ec5f9954776aebebe7b92421eea69")
    );
    assert_eq!(tier(inspect(&signed, "signed", &public)), native);
    assert_eq!(tier(inspect(&signed, "signed", &format!("{other_public}:{public}"))), native);
    assert_eq!(tier(inspect(&signed, "any", "")), native);
    assert_eq!(tier(inspect(&signed, "portable", &public)), "portable");
    for keys in ["", &other_public] {
        assert_eq!(tier(inspect(&signed, "signed", keys)), "portable");
    }
    let v = inspect(&signed, "any", "").json();
    assert!(v["signed_by"].as_str().is_some_and(|k| k.starts_with("ea4a6c63")), "{v}");

    // Signed again by another, in place: the first signature is gone, the rest is as it was.
    hubc(&["sign", &signed, "--key", &other]).expect(0);
    assert_eq!(tier(inspect(&signed, "signed", &public)), "portable");
    assert_eq!(tier(inspect(&signed, "signed", &other_public)), native);
    hubc(&["sign", &signed, "--key", &private]).expect(0);
    let again = path(&dir, "again.hub");
    hubc(&["sign", &s.bundle, "--key", &private, "-o", &again]).expect(0);
    assert_eq!(std::fs::read(&signed).unwrap(), std::fs::read(&again).unwrap());
}

#[test]
fn a_signature_that_does_not_fit_is_refused() {
    let (s, dir) = (shared(), folder());
    let (private, public) = pair(&dir, 7);
    let signed = path(&dir, "signed.hub");
    hubc(&["sign", &s.bundle, "--key", &private, "-o", &signed]).expect(0);
    let mut bytes = std::fs::read(&signed).unwrap();
    let key = SigningKey::from_bytes(&[7; 32]).verifying_key().to_bytes();
    let at = bytes.windows(32).position(|w| w == key).expect("the key is in the file");
    // Stripped: the signature's bytes are nothing, or it and its key are.
    for from in [at + 32, at] {
        let mut bare = bytes.clone();
        bare[from..at + 96].fill(0);
        let file = path(&dir, "stripped.hub");
        std::fs::write(&file, &bare).unwrap();
        let r = inspect(&file, "signed", &public);
        assert!(r.code == 7 || r.code == 0 && tier(r) == "portable", "a stripped signature");
    }
    bytes[at + 40] ^= 1;
    std::fs::write(&signed, &bytes).unwrap();
    inspect(&signed, "signed", &public).refuses(7, &["signature", "does not fit the manifest"]);
    // Who does not ask for signatures learns of it where everything is verified.
    hubc(&["bench", &signed, "--seconds", "0"]).refuses(7, &["does not fit the manifest"]);
}

#[test]
fn wrong_keys_are_named() {
    let (s, dir) = (shared(), folder());
    let (private, public) = pair(&dir, 7);
    let out = path(&dir, "out.hub");
    hubc(&["sign", &s.bundle, "--key", &public, "-o", &out])
        .refuses(2, &["no Ed25519 private key", "openssl genpkey"]);
    hubc(&["sign", &s.bundle, "--key", "none.pem", "-o", &out]).refuses(8, &["none.pem"]);
    inspect(&s.bundle, "signed", &private).refuses(2, &["no Ed25519 public key"]);
    inspect(&s.bundle, "sometimes", "").refuses(2, &["HUB_TRUST=sometimes"]);
    assert!(!std::path::Path::new(&out).exists());
}
