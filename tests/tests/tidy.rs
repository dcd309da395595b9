//! House style that a machine can check. What outgrew its size is printed, not failed; what must
//! never be there fails.

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_path_buf()
}

fn rust_files(dir: &Path, out: &mut Vec<PathBuf>) {
    for e in std::fs::read_dir(dir).expect("a folder").flatten() {
        let p = e.path();
        let name = e.file_name().to_string_lossy().into_owned();
        if p.is_dir() && !name.starts_with('.') && name != "target" {
            rust_files(&p, out);
        } else if p.extension().is_some_and(|x| x == "rs") {
            out.push(p);
        }
    }
}

fn sources() -> Vec<(String, String)> {
    let mut files = vec![];
    rust_files(&root(), &mut files);
    files.sort();
    let read = |p: PathBuf| {
        let name = p.strip_prefix(root()).expect("inside").display().to_string();
        (name, std::fs::read_to_string(&p).expect("a text file"))
    };
    files.into_iter().map(read).collect()
}

#[test]
fn large_files_are_printed() {
    for (name, text) in sources() {
        let lines = text.lines().count();
        if lines > 500 {
            println!("{name}: {lines} lines (more than 500)");
        }
    }
}

#[test]
fn every_module_says_its_purpose() {
    let bare: Vec<String> = sources()
        .into_iter()
        .filter(|(_, t)| !t.trim().is_empty() && !t.starts_with("//!"))
        .map(|(n, _)| n)
        .collect();
    assert!(bare.is_empty(), "files without a //! line at their top: {bare:?}");
}

#[test]
fn nothing_is_left_undone() {
    let words = ["todo!(", "unimplemented!(", concat!("FIX", "ME"), concat!("XX", "X")];
    let mut found = vec![];
    for (name, text) in sources() {
        for (i, line) in text.lines().enumerate() {
            if words.iter().any(|w| line.contains(w)) && !name.ends_with("tidy.rs") {
                found.push(format!("{name}:{}", i + 1));
            }
        }
    }
    assert!(found.is_empty(), "unfinished on its face: {found:?}");
}

#[test]
fn unsafe_blocks_say_why_they_are_sound() {
    let mut bare = vec![];
    for (name, text) in sources() {
        let mut last = 0usize;
        for (i, line) in text.lines().enumerate().map(|(i, l)| (i + 1, l)) {
            if line.contains("SAFETY") {
                last = i;
            }
            let code = line.split("//").next().unwrap_or_default();
            let opens = code.contains("unsafe {") || code.contains("unsafe impl");
            if opens && (last == 0 || i - last > 4) && !name.ends_with("tidy.rs") {
                bare.push(format!("{name}:{i}"));
            }
        }
    }
    assert!(bare.is_empty(), "unsafe without a SAFETY comment just above: {bare:?}");
}
