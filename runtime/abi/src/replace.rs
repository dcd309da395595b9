//! Files that are there whole or not at all.

use std::fs::File;
use std::io::{self, BufWriter};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// Numbers of temporary files: threads may write to one name.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// Writes a file through `fill` under a temporary name beside `path`, then renames it: who has the
/// old file open keeps it whole. What is there and is no regular file (a device, a pipe) stays what
/// it is and is written in place. Gives what `fill` gives.
pub fn replace<T>(
    path: &Path,
    fill: impl FnOnce(&mut BufWriter<File>) -> io::Result<T>,
) -> io::Result<T> {
    let write = |to: &Path| {
        let mut out = BufWriter::with_capacity(1 << 20, File::create(to)?);
        let made = fill(&mut out)?;
        out.into_inner().map_err(|e| e.into_error())?;
        Ok(made)
    };
    if std::fs::metadata(path).is_ok_and(|m| !m.is_file()) {
        return write(path);
    }
    let name = path.file_name().ok_or_else(|| io::Error::other("the path names no file"))?;
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let aside = format!(".{}.{}.{number}.part", name.to_string_lossy(), std::process::id());
    let aside = path.with_file_name(aside);
    let made = write(&aside).and_then(|made| std::fs::rename(&aside, path).map(|()| made));
    if made.is_err() {
        let _not_there_or_not_ours = std::fs::remove_file(&aside);
    }
    made
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn who_has_the_old_file_open_keeps_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, "old").unwrap();
        let old = File::open(&path).unwrap();
        assert_eq!(replace(&path, |out| out.write(b"new!")).unwrap(), 4);
        assert_eq!(std::fs::read(&path).unwrap(), b"new!");
        assert_eq!(io::read_to_string(old).unwrap(), "old");
        let failed = replace(&path, |_| Err::<(), _>(io::Error::other("no")));
        assert!(failed.is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"new!");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_device_stays_a_device() {
        use std::os::unix::fs::FileTypeExt;
        let dir = tempfile::tempdir().unwrap();
        // Through a link of our own: were the name replaced, it would be this one, not the system's.
        let link = dir.path().join("null");
        std::os::unix::fs::symlink("/dev/null", &link).unwrap();
        let device = |p: &Path| std::fs::metadata(p).unwrap().file_type().is_char_device();
        assert!(device(&link), "/dev/null is no device here");
        replace(&link, |out| out.write_all(b"gone")).unwrap();
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
        assert!(device(&link));
    }
}
