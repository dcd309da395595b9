//! Puts a damaged bundle's hashes right, so that the damage reaches what lies behind them.

use hub_abi::bundle::Manifest;
use std::ops::Range;

const PAGE: usize = 4096;

fn u64_at(b: &[u8], at: usize) -> Option<usize> {
    let word = b.get(at..at.checked_add(8)?)?;
    usize::try_from(u64::from_le_bytes(word.try_into().ok()?)).ok()
}

/// Where the sections of a bundle lie, by name; `None` where the bytes are too damaged.
pub fn sections(b: &[u8]) -> Option<Vec<(String, Range<usize>)>> {
    let shoff = u64_at(b, 40)?;
    let headers = b.get(shoff..)?;
    let range = |i: usize| -> Option<Range<usize>> {
        let at = i.checked_mul(64)?;
        let (start, len) = (u64_at(headers, at + 24)?, u64_at(headers, at + 32)?);
        Some(start..start.checked_add(len)?).filter(|r| r.end <= shoff)
    };
    let count = headers.len() / 64;
    let ranges: Vec<Range<usize>> = (1..count.min(64)).map(range).collect::<Option<_>>()?;
    let names = b.get(ranges.last()?.clone())?;
    let name = |i: usize| -> Option<String> {
        let at = headers.get((i + 1) * 64..(i + 1) * 64 + 4)?;
        let rest = names.get(u32::from_le_bytes(at.try_into().ok()?) as usize..)?;
        let end = rest.iter().position(|&c| c == 0)?;
        String::from_utf8(rest[..end].to_vec()).ok()
    };
    (0..ranges.len()).map(|i| Some((name(i)?, ranges[i].clone()))).collect()
}

/// Puts sizes and hashes of the manifest and the seal right. `None` where the bytes are too damaged
/// for that.
pub fn reseal(mut b: Vec<u8>) -> Option<Vec<u8>> {
    let all = sections(&b)?;
    let names = all.last()?.1.clone();
    let headers = b.get(u64_at(&b, 40)?..)?.to_vec();
    let find = |n: &str| all.iter().find(|a| a.0 == n).map(|a| a.1.clone());
    let (manifest, seal) = (find(".hub.manifest")?, find(".hub.seal")?);
    let (mut m, rest) = postcard::take_from_bytes::<Manifest>(&b[manifest.clone()]).ok()?;
    let rest = rest.to_vec();
    for s in &mut m.sections {
        let r = find(&s.name)?;
        s.hash = *blake3::hash(&b[r.clone()]).as_bytes();
        (s.offset, s.len) = (r.start as u64, r.len() as u64);
    }
    let mut fresh = postcard::to_stdvec(&m).ok()?;
    fresh.extend(rest);
    if fresh.len() != manifest.len() || seal.len() != 16 + 96 || b.len() < PAGE {
        return None;
    }
    b[manifest.clone()].copy_from_slice(&fresh);
    let mut hasher = blake3::Hasher::new();
    let middle = *hasher.update(&b[names.clone()]).update(&headers).finalize().as_bytes();
    let hashes = [*blake3::hash(&b[..PAGE]).as_bytes(), middle, *blake3::hash(&fresh).as_bytes()];
    b[seal.start + 16..seal.end].copy_from_slice(&hashes.concat());
    Some(b)
}
