//! External data: tensors whose bytes lie in files beside the model.
//!
//! Such a path comes from the model and is not trusted: it must be relative, without `..`, must not
//! leave the model's folder through a link, and names a regular file that has no other name.

use super::proto::StringStringEntryProto;
use crate::error::FrontendError;
use crate::options::Limits;
use crate::sniff::read_file;
use bytes::Bytes;
use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

/// The files read so far.
#[derive(Debug)]
pub(crate) struct External {
    folder: PathBuf,
    files: HashMap<String, Bytes>,
    /// Bytes of all constants read so far, external or not.
    total: u64,
}

impl External {
    /// For a model file: data lie in its folder.
    pub(crate) fn beside(model: &Path) -> External {
        let folder = model.parent().filter(|p| !p.as_os_str().is_empty());
        External {
            folder: folder.unwrap_or(Path::new(".")).to_owned(),
            files: HashMap::new(),
            total: 0,
        }
    }

    /// Counts a constant that was read.
    pub(crate) fn count(&mut self, bytes: usize, limits: &Limits) -> Result<(), FrontendError> {
        self.total = self.total.saturating_add(bytes as u64);
        if self.total <= limits.constant_bytes {
            return Ok(());
        }
        let what = format!("constants of more than {} bytes in all", limits.constant_bytes);
        Err(FrontendError::limit(what))
    }

    /// The bytes that `external_data` names, of the given length.
    pub(crate) fn read(
        &mut self,
        entries: &[StringStringEntryProto],
        want: u64,
        limits: &Limits,
    ) -> Result<Bytes, FrontendError> {
        let find = |k: &str| entries.iter().find(|e| e.key == k).map(|e| e.value.as_str());
        let number = |k: &str| match find(k) {
            None => Ok(None),
            Some(text) => text.trim().parse::<u64>().map(Some).map_err(|_| {
                FrontendError::invalid(format!("external data: {k} '{text}' is not a size"))
            }),
        };
        let location = find("location")
            .ok_or_else(|| FrontendError::invalid("external data without a location"))?;
        let offset = number("offset")?.unwrap_or(0);
        let len = number("length")?.unwrap_or(want);
        if len != want {
            return Err(FrontendError::invalid(format!(
                "external data of {len} bytes for a tensor of {want}"
            )));
        }
        let file = self.file(location, limits)?;
        let end = offset.checked_add(len).filter(|&e| e <= file.len() as u64);
        let end = end.ok_or_else(|| {
            FrontendError::invalid(format!(
                "external data {offset}+{len} is past the end of '{location}' ({} bytes)",
                file.len()
            ))
        })?;
        Ok(file.slice(offset as usize..end as usize))
    }

    fn file(&mut self, location: &str, limits: &Limits) -> Result<Bytes, FrontendError> {
        if let Some(bytes) = self.files.get(location) {
            return Ok(bytes.clone());
        }
        let path = self.checked(location)?;
        let bytes = read_file(&path, limits)?;
        self.files.insert(location.to_string(), bytes.clone());
        Ok(bytes)
    }

    fn checked(&self, location: &str) -> Result<PathBuf, FrontendError> {
        let refuse = |why: &str| {
            Err(FrontendError::invalid(format!("external data '{location}' {why}"))
                .advise("keep external data as plain files inside the model's folder"))
        };
        let relative = Path::new(location);
        let plain = |c: Component<'_>| matches!(c, Component::Normal(_) | Component::CurDir);
        if location.is_empty() || location.contains(['\0', '\\']) {
            return refuse("is not a path");
        }
        if !relative.components().all(plain) {
            return refuse("leaves the model's folder");
        }
        let path = self.folder.join(relative);
        let io = |e: std::io::Error| FrontendError::io(&path, &e);
        let real = path.canonicalize().map_err(io)?;
        let folder = self.folder.canonicalize().map_err(|e| FrontendError::io(&self.folder, &e))?;
        if !real.starts_with(&folder) {
            return refuse("leaves the model's folder through a link");
        }
        if other_names(&real).map_err(io)? {
            return refuse("is a hard link");
        }
        Ok(real)
    }
}

#[cfg(unix)]
fn other_names(path: &Path) -> std::io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    Ok(std::fs::metadata(path)?.nlink() > 1)
}

#[cfg(not(unix))]
fn other_names(_path: &Path) -> std::io::Result<bool> {
    Ok(false)
}
