//! Which file is the model, and which format it has.

use crate::error::FrontendError;
use crate::options::Limits;
use bytes::Bytes;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// What a model file is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Format {
    Onnx,
    PaddleProgram,
    PaddlePir,
}

/// Opens a regular file. What else there is, is not opened: that alone may wait for ever (a pipe),
/// or do something (a device).
fn open(path: &Path) -> Result<File, FrontendError> {
    let io = |e: std::io::Error| FrontendError::io(path, &e);
    if !std::fs::metadata(path).map_err(io)?.is_file() {
        return Err(FrontendError::invalid("not a regular file").in_file(path));
    }
    File::open(path).map_err(io)
}

/// The whole of a file within the limit.
pub(crate) fn read_file(path: &Path, limits: &Limits) -> Result<Bytes, FrontendError> {
    let io = |e: std::io::Error| FrontendError::io(path, &e);
    let file = open(path)?;
    let meta = file.metadata().map_err(io)?;
    let too_long = || {
        FrontendError::limit(format!("the file is over {} bytes", limits.file_bytes)).in_file(path)
    };
    if meta.len() > limits.file_bytes {
        return Err(too_long());
    }
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(meta.len() as usize).map_err(|_| too_long())?;
    // One byte more than the limit tells that a file that grows is too long.
    file.take(limits.file_bytes.saturating_add(1)).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > limits.file_bytes {
        return Err(too_long());
    }
    Ok(bytes.into())
}

/// The model file of a path: itself, or the one that a folder holds.
pub(crate) fn model_file(path: &Path) -> Result<PathBuf, FrontendError> {
    let io = |e: std::io::Error| FrontendError::io(path, &e);
    if !std::fs::metadata(path).map_err(io)?.is_dir() {
        return Ok(path.to_owned());
    }
    let mut found = vec![];
    for entry in std::fs::read_dir(path).map_err(io)? {
        let file = entry.map_err(io)?.path();
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let model = name == "__model__"
            || [".onnx", ".pdmodel"].iter().any(|e| name.ends_with(e))
            || (name.ends_with(".json") && starts_like_pir(&file));
        if model && file.is_file() {
            found.push(file);
        }
    }
    found.sort();
    match &found[..] {
        [one] => Ok(one.clone()),
        [] => Err(FrontendError::invalid("the folder holds no model")
            .in_file(path)
            .advise("give an ONNX file, a Paddle .json or .pdmodel file, or __model__")),
        _ => Err(FrontendError::usage(format!("the folder holds several models: {found:?}"))
            .in_file(path)
            .advise("name the file")),
    }
}

fn starts_like_pir(path: &Path) -> bool {
    let mut head = vec![];
    let read = open(path).map(|f| f.take(4096).read_to_end(&mut head));
    matches!(read, Ok(Ok(_))) && String::from_utf8_lossy(&head).contains("\"base_code\"")
}

/// The format, by the first bytes: JSON is PIR; in protobuf field 1 is ONNX's `ir_version` (a
/// number) or ProgramDesc's blocks (messages), and only ONNX has a field 7 (the graph).
pub(crate) fn format(path: &Path, limits: &Limits) -> Result<Format, FrontendError> {
    let bytes = head(path, limits)?;
    if bytes.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'{') {
        return Ok(Format::PaddlePir);
    }
    let mut rest = &bytes[..];
    while let Some((tag, wire)) = key(&mut rest) {
        match (tag, wire) {
            (1, 0) | (7, 2) => return Ok(Format::Onnx),
            (1, 2) => return Ok(Format::PaddleProgram),
            _ => {}
        }
        if skip(&mut rest, wire).is_none() {
            break;
        }
    }
    Err(FrontendError::invalid("neither an ONNX model nor a Paddle program")
        .in_file(path)
        .advise("give an ONNX file, a Paddle .json or .pdmodel file, or __model__"))
}

/// The first bytes; fields before ONNX's first tell-tale one are short (names and versions).
fn head(path: &Path, limits: &Limits) -> Result<Vec<u8>, FrontendError> {
    let io = |e: std::io::Error| FrontendError::io(path, &e);
    let file = open(path)?;
    let mut head = vec![];
    file.take(limits.file_bytes.min(1 << 20)).read_to_end(&mut head).map_err(io)?;
    Ok(head)
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut v = 0u64;
    for shift in (0..64).step_by(7) {
        let (&b, tail) = rest.split_first()?;
        *rest = tail;
        v |= u64::from(b & 127) << shift;
        if b < 128 {
            return Some(v);
        }
    }
    None
}

fn key(rest: &mut &[u8]) -> Option<(u64, u64)> {
    varint(rest).map(|k| (k >> 3, k & 7))
}

fn skip(rest: &mut &[u8], wire: u64) -> Option<()> {
    let n = match wire {
        0 => return varint(rest).map(|_| ()),
        1 => 8,
        2 => usize::try_from(varint(rest)?).ok()?,
        5 => 4,
        _ => return None,
    };
    *rest = rest.get(n..)?;
    Some(())
}
