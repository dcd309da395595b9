//! Writing bundles: constants are streamed from where they lie, nothing is held twice.

use super::elf::{self, Section};
use super::*;
use crate::dim_table::writing;
use crate::pgraph::PGraph;
use crate::plan::Plan;
use crate::replace;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;

/// Code and plan of one tier.
pub struct TierCode {
    /// The plan; its `tier` names the tier and its kernels lie in `code`.
    pub plan: Plan,
    /// Machine code, position-independent; or a device's text.
    pub code: Vec<u8>,
}

/// Collects a bundle's parts and writes them. `B` is whatever holds constants' bytes (slices of the
/// model's file, owned vectors…).
pub struct BundleWriter<B> {
    /// The manifest; the writer fills in version, tiers and sections.
    pub manifest: Manifest,
    /// The portable graph.
    pub graph: PGraph,
    /// Native tiers, best first.
    pub tiers: Vec<TierCode>,
    /// Further sections (name, bytes) for those who know them.
    pub extra: Vec<(String, Vec<u8>)>,
    consts: Vec<(u64, B)>,
    const_len: u64,
    /// Tests of the reader write what the writer would refuse.
    pub(super) unchecked: bool,
}

impl<B: AsRef<[u8]>> BundleWriter<B> {
    /// A bundle of this graph, as yet without constants and tiers.
    pub fn new(manifest: Manifest, graph: PGraph) -> Self {
        BundleWriter {
            manifest,
            graph,
            tiers: vec![],
            extra: vec![],
            consts: vec![],
            const_len: 0,
            unchecked: false,
        }
    }

    /// Appends a constant and gives its byte offset in the constants section.
    pub fn add_const(&mut self, bytes: B) -> u64 {
        let at = self.const_len.next_multiple_of(CONST_ALIGN);
        self.const_len = at + bytes.as_ref().len() as u64;
        self.consts.push((at, bytes));
        at
    }

    /// Bytes of the constants section so far.
    pub fn const_len(&self) -> u64 {
        self.const_len
    }

    /// Writes the bundle to a temporary file beside `path`, then renames it. Gives its size.
    pub fn write(self, path: &Path) -> io::Result<u64> {
        replace(path, |out| self.write_to(out))
    }

    /// Writes the bundle to memory.
    pub fn to_vec(self) -> io::Result<Vec<u8>> {
        let mut out = io::Cursor::new(vec![]);
        self.write_to(&mut out)?;
        Ok(out.into_inner())
    }

    /// Writes the bundle, which starts at position 0 of `out`. Gives its size.
    pub fn write_to<W: Write + Seek>(mut self, out: &mut W) -> io::Result<u64> {
        if !self.unchecked {
            self.check()?;
        }
        let mut file = Sections { out, at: 0, done: vec![], hashes: vec![] };
        file.put(&[0; PAGE as usize])?;
        let (strtab, symtab) = self.put_tiers(&mut file)?;
        file.section(GRAPH, &writing(|| encode(&self.graph))?)?;
        for (name, bytes) in &self.extra {
            file.section(name, bytes)?;
        }
        self.put_consts(&mut file)?;
        let shndx = file.done.len() as u32 + 1;
        file.section(".symtab", &symtab)?;
        let symbols = (symtab.len() / elf::SYM) as u32;
        let last = file.done.last_mut().expect("a section was just written");
        (last.kind, last.link, last.info) = (elf::SYMTAB, shndx + 1, symbols);
        last.entsize = elf::SYM as u64;
        file.section(".strtab", &strtab)?;
        file.done.last_mut().expect("a section was just written").kind = elf::STRTAB;
        self.seal(file)
    }

    fn check(&self) -> io::Result<()> {
        let bad = |what: String| Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        if self.tiers.len() > MAX_TIERS
            || self.extra.len() + 3 * self.tiers.len() + 8 > MAX_SECTIONS
        {
            return bad("too many tiers or sections for a bundle".into());
        }
        let io = check::Interface {
            inputs: self.manifest.inputs.len(),
            outputs: self.manifest.outputs.len(),
            syms: self.manifest.syms.len(),
            consts: self.const_len,
        };
        check::manifest(&self.manifest).or_else(|e| bad(format!("manifest: {e}")))?;
        check::graph(&self.graph, io).or_else(|e| bad(format!("graph: {e}")))?;
        for t in &self.tiers {
            let code = t.code.len() as u64;
            check_plan::plan(&t.plan, Some(&self.graph), io, code)
                .or_else(|e| bad(format!("plan of tier {}: {e}", t.plan.tier)))?;
        }
        Ok(())
    }

    /// Code and plans; gives the string table and the symbol table.
    fn put_tiers<W: Write + Seek>(
        &mut self,
        file: &mut Sections<'_, W>,
    ) -> io::Result<(Vec<u8>, Vec<u8>)> {
        let (mut strtab, mut symtab) = (vec![0u8], vec![0u8; elf::SYM]);
        self.manifest.tiers.clear();
        for t in &self.tiers {
            let (tier, shndx) = (&t.plan.tier, file.done.len() as u16 + 1);
            let info = TierInfo {
                name: tier.clone(),
                text: code_section(tier),
                plan: format!(".hub.plan.{tier}"),
            };
            file.section(&info.text, &t.code)?;
            if is_text(&info.name) {
                self.manifest.tiers.push(info);
                continue;
            }
            let text = file.done.last_mut().expect("a section was just written");
            text.flags = elf::CODE;
            for k in &t.plan.kernels {
                let name = strtab.len() as u32;
                strtab.extend(k.name.bytes().filter(|&c| c != 0));
                strtab.push(0);
                symtab.extend(elf::symbol(name, shndx, text.offset.wrapping_add(k.offset), k.len));
            }
            self.manifest.tiers.push(info);
        }
        for (t, info) in self.tiers.iter().zip(&self.manifest.tiers) {
            file.section(&info.plan, &writing(|| encode(&t.plan))?)?;
        }
        Ok((strtab, symtab))
    }

    fn put_consts<W: Write + Seek>(&mut self, file: &mut Sections<'_, W>) -> io::Result<()> {
        file.begin(CONSTS)?;
        let mut hash = blake3::Hasher::new();
        let mut at = 0u64;
        for (start, bytes) in self.consts.drain(..) {
            let gap = [0u8; CONST_ALIGN as usize];
            for part in [&gap[..(start - at) as usize], bytes.as_ref()] {
                hash.update(part);
                file.put(part)?;
            }
            at = start + bytes.as_ref().len() as u64;
        }
        file.end(hash.finalize().into());
        Ok(())
    }

    /// The manifest, and all that follows it.
    fn seal<W: Write + Seek>(mut self, mut file: Sections<'_, W>) -> io::Result<u64> {
        let listed = file.done.iter().zip(&file.hashes);
        self.manifest.constraints = std::mem::take(&mut self.graph.constraints);
        self.manifest.const_bytes = self.graph.const_bytes();
        self.manifest.sections = listed
            .map(|(s, &hash)| SectionInfo {
                name: s.name.clone(),
                offset: s.offset,
                len: s.len,
                hash,
            })
            .collect();
        (self.manifest.major, self.manifest.minor) = (MAJOR, MINOR);
        let manifest = encode(&self.manifest)?;
        file.section(MANIFEST, &manifest)?;
        finish(file, &manifest, None)
    }
}

/// What follows the manifest: seal, signature, section names, section headers; then the first page.
/// Gives the file's size.
pub(super) fn finish<W: Write + Seek>(
    mut file: Sections<'_, W>,
    manifest: &[u8],
    signature: Option<&[u8]>,
) -> io::Result<u64> {
    file.begin(SEAL)?;
    // Everything after the seal's start has a known place, so the headers can be hashed first.
    let seal_at = file.at;
    file.put(&[0; read::SEAL_LEN])?;
    file.end([0; 32]);
    if let Some(signature) = signature {
        file.section(SIGNATURE, signature)?;
    }
    let mut names = vec![0u8];
    let mut at = vec![];
    for s in file.done.iter().map(|s| s.name.as_str()).chain([".shstrtab"]) {
        at.push(names.len() as u32);
        names.extend(s.bytes());
        names.push(0);
    }
    file.section(".shstrtab", &names)?;
    file.done.last_mut().expect("a section was just written").kind = elf::STRTAB;
    file.pad()?;
    let shoff = file.at;
    let headers = elf::section_headers(&file.done, &at);
    file.put(&headers)?;
    let size = file.at;
    let head = elf::head(&file.done, shoff);
    file.out.seek(SeekFrom::Start(0))?;
    file.out.write_all(&head)?;
    file.out.seek(SeekFrom::Start(seal_at))?;
    file.out.write_all(&read::seal(&head, &names, &headers, manifest))?;
    file.out.seek(SeekFrom::Start(size))?;
    Ok(size)
}

fn encode<T: Serialize>(v: &T) -> io::Result<Vec<u8>> {
    postcard::to_stdvec(v).map_err(io::Error::other)
}

/// The file as it grows.
pub(super) struct Sections<'w, W> {
    out: &'w mut W,
    at: u64,
    done: Vec<Section>,
    hashes: Vec<[u8; 32]>,
}

impl<'w, W: Write + Seek> Sections<'w, W> {
    /// A file whose first sections are these; the caller puts their bytes.
    pub(super) fn resumed(out: &'w mut W, done: Vec<Section>) -> Self {
        Sections { out, at: 0, done, hashes: vec![] }
    }

    pub(super) fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.at += bytes.len() as u64;
        self.out.write_all(bytes)
    }

    fn pad(&mut self) -> io::Result<()> {
        let gap = self.at.next_multiple_of(PAGE) - self.at;
        self.put(&[0; PAGE as usize][..gap as usize])
    }

    fn begin(&mut self, name: &str) -> io::Result<()> {
        self.pad()?;
        if self.done.iter().any(|s| s.name == name) {
            let what = format!("two sections are called {name}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        self.done.push(Section {
            name: name.into(),
            kind: elf::PROGBITS,
            flags: 0,
            offset: self.at,
            len: 0,
            link: 0,
            info: 0,
            entsize: 0,
        });
        Ok(())
    }

    fn end(&mut self, hash: [u8; 32]) {
        let s = self.done.last_mut().expect("a section was begun");
        s.len = self.at - s.offset;
        self.hashes.push(hash);
    }

    fn section(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.begin(name)?;
        self.put(bytes)?;
        self.end(blake3::hash(bytes).into());
        Ok(())
    }
}
