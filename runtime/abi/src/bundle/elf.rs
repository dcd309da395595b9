//! The ELF64 container: encoding of its headers, and a reader that takes nothing on trust.

use super::{BundleError, Fault, MAX_SECTIONS, PAGE, broken, over};

/// Bytes of the ELF header.
pub const EHDR: usize = 64;
/// Bytes of one program header.
pub const PHDR: usize = 56;
/// Bytes of one section header.
pub const SHDR: usize = 64;
/// Bytes of one symbol.
pub const SYM: usize = 24;

/// `sh_type` of bytes without further meaning.
pub const PROGBITS: u32 = 1;
/// `sh_type` of a symbol table.
pub const SYMTAB: u32 = 2;
/// `sh_type` of a string table.
pub const STRTAB: u32 = 3;
/// `sh_flags` of code: allocated and executable.
pub const CODE: u64 = 2 | 4;

/// A section as its header describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// Name.
    pub name: String,
    /// `sh_type`.
    pub kind: u32,
    /// `sh_flags`.
    pub flags: u64,
    /// File offset.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
    /// `sh_link`.
    pub link: u32,
    /// `sh_info`.
    pub info: u32,
    /// `sh_entsize`.
    pub entsize: u64,
}

impl Section {
    /// Where it ends, in bytes; checked when the container was read.
    pub fn end(&self) -> u64 {
        self.offset + self.len
    }
}

/// The first page: ELF header and one loadable segment a code section, addresses being offsets.
pub fn head(sections: &[Section], shoff: u64) -> Vec<u8> {
    let code: Vec<&Section> = sections.iter().filter(|s| s.flags == CODE).collect();
    let mut b = Vec::with_capacity(PAGE as usize);
    b.extend([0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    put16(&mut b, &[3, 62]); // a shared object for x86-64
    put32(&mut b, &[1]);
    put64(&mut b, &[0, if code.is_empty() { 0 } else { EHDR as u64 }, shoff]);
    put32(&mut b, &[0]);
    let shnum = sections.len() as u16 + 1;
    let phentsize = if code.is_empty() { 0 } else { PHDR as u16 };
    put16(&mut b, &[EHDR as u16, phentsize, code.len() as u16, SHDR as u16, shnum, shnum - 1]);
    for s in code {
        put32(&mut b, &[1, 5]); // load, read and execute
        put64(&mut b, &[s.offset, s.offset, s.offset, s.len, s.len, PAGE]);
    }
    assert!(b.len() <= PAGE as usize, "more code sections than program headers fit");
    b.resize(PAGE as usize, 0);
    b
}

/// The section header table; `names` are offsets into the section name table.
pub fn section_headers(sections: &[Section], names: &[u32]) -> Vec<u8> {
    let mut b = vec![0; SHDR];
    for (s, &name) in sections.iter().zip(names) {
        put32(&mut b, &[name, s.kind]);
        let addr = if s.flags == CODE { s.offset } else { 0 };
        put64(&mut b, &[s.flags, addr, s.offset, s.len]);
        put32(&mut b, &[s.link, s.info]);
        put64(&mut b, &[PAGE, s.entsize]);
    }
    b
}

/// A local function symbol of section `shndx`.
pub fn symbol(name: u32, shndx: u16, addr: u64, len: u64) -> Vec<u8> {
    let mut b = vec![];
    put32(&mut b, &[name]);
    b.extend([2, 0]); // local function, default visibility
    put16(&mut b, &[shndx]);
    put64(&mut b, &[addr, len]);
    b
}

fn put16(b: &mut Vec<u8>, v: &[u16]) {
    v.iter().for_each(|x| b.extend(x.to_le_bytes()));
}
fn put32(b: &mut Vec<u8>, v: &[u32]) {
    v.iter().for_each(|x| b.extend(x.to_le_bytes()));
}
fn put64(b: &mut Vec<u8>, v: &[u64]) {
    v.iter().for_each(|x| b.extend(x.to_le_bytes()));
}

/// What the container says, checked.
pub struct Container {
    /// Sections in file order, without the null section.
    pub sections: Vec<Section>,
    /// Where the section headers start.
    pub shoff: u64,
}

struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn get<const N: usize>(&self, at: u64) -> Result<[u8; N], BundleError> {
        let lo = usize::try_from(at).unwrap_or(usize::MAX);
        match lo.checked_add(N).and_then(|hi| self.0.get(lo..hi)) {
            Some(s) => Ok(s.try_into().expect("the slice has N bytes")),
            None => broken(at, "the file ends too early"),
        }
    }
    fn u16(&self, at: u64) -> Result<u16, BundleError> {
        self.get(at).map(u16::from_le_bytes)
    }
    fn u32(&self, at: u64) -> Result<u32, BundleError> {
        self.get(at).map(u32::from_le_bytes)
    }
    fn u64(&self, at: u64) -> Result<u64, BundleError> {
        self.get(at).map(u64::from_le_bytes)
    }
}

fn foreign<T>(offset: u64, what: &str) -> Result<T, BundleError> {
    Err(BundleError { fault: Fault::Foreign, what: what.into(), offset })
}

/// Reads and checks headers: every section aligned, in file order, without overlap or hole, names
/// valid and distinct, padding zero, the file ending with the section headers.
pub fn read(file: &[u8]) -> Result<Container, BundleError> {
    let b = Bytes(file);
    if !file.starts_with(&[0x7f, b'E', b'L', b'F']) {
        return foreign(0, "not a bundle: it does not start as an ELF file does");
    }
    if file.len() < PAGE as usize {
        return broken(file.len() as u64, "the file ends within its first page");
    }
    if b.get::<2>(4)? != [2, 1] || b.u16(18)? != 62 {
        return foreign(4, "not a bundle: not a little-endian 64-bit x86 ELF file");
    }
    let (shoff, shnum) = (b.u64(40)?, b.u16(60)?);
    if b.u16(58)? as usize != SHDR {
        return broken(58, "section headers of an unknown size");
    }
    if shnum as usize > MAX_SECTIONS {
        return over(60, format!("{shnum} sections, more than {MAX_SECTIONS}"));
    }
    let table = u64::from(shnum) * SHDR as u64;
    if shnum < 2 || shoff.checked_add(table) != Some(file.len() as u64) {
        return broken(40, "the section headers do not end the file");
    }
    if file[shoff as usize..][..SHDR].iter().any(|&x| x != 0) {
        return broken(shoff, "the null section is not null");
    }
    let mut sections = Vec::with_capacity(usize::from(shnum));
    for i in 1..u64::from(shnum) {
        sections.push(raw_section(&b, shoff + i * SHDR as u64)?);
    }
    check_layout(file, &sections, shoff)?;
    let strndx = usize::from(b.u16(62)?);
    name_sections(&b, &mut sections, strndx, shoff)?;
    Ok(Container { sections, shoff })
}

fn raw_section(b: &Bytes<'_>, at: u64) -> Result<Section, BundleError> {
    Ok(Section {
        name: String::new(),
        kind: b.u32(at + 4)?,
        flags: b.u64(at + 8)?,
        offset: b.u64(at + 24)?,
        len: b.u64(at + 32)?,
        link: b.u32(at + 40)?,
        info: b.u32(at + 44)?,
        entsize: b.u64(at + 56)?,
    })
}

fn check_layout(file: &[u8], sections: &[Section], shoff: u64) -> Result<(), BundleError> {
    let mut end = PAGE;
    for (i, s) in sections.iter().enumerate() {
        let header = shoff + (i as u64 + 1) * SHDR as u64;
        let want = end.checked_next_multiple_of(PAGE);
        if want != Some(s.offset) {
            return broken(header + 24, format!("section {} starts at {}", i + 1, s.offset));
        }
        let new_end = s.offset.checked_add(s.len).filter(|&e| e <= shoff);
        let Some(new_end) = new_end else {
            return broken(header + 32, format!("section {} passes the end", i + 1));
        };
        zeros(file, end, s.offset)?;
        end = new_end;
    }
    if end.checked_next_multiple_of(PAGE) != Some(shoff) {
        return broken(40, "a hole before the section headers");
    }
    zeros(file, end, shoff)
}

fn zeros(file: &[u8], lo: u64, hi: u64) -> Result<(), BundleError> {
    let gap = &file[lo as usize..hi as usize];
    // All of them in vectors first: which one it is matters only where one is.
    if gap.iter().fold(0, |any, x| any | x) == 0 {
        return Ok(());
    }
    let first = gap.iter().position(|&x| x != 0).unwrap_or(0);
    broken(lo + first as u64, "bytes between sections are not zero")
}

fn name_sections(
    b: &Bytes<'_>,
    sections: &mut [Section],
    strndx: usize,
    shoff: u64,
) -> Result<(), BundleError> {
    let Some(t) = strndx.checked_sub(1).and_then(|i| sections.get(i)) else {
        return broken(62, "the section names are in no section");
    };
    let table = &b.0[t.offset as usize..(t.offset + t.len) as usize];
    for i in 0..sections.len() {
        let at = shoff + (i as u64 + 1) * SHDR as u64;
        let start = b.u32(at)? as usize;
        let name = table.get(start..).and_then(|r| {
            let n = r.iter().take(96).position(|&c| c == 0)?;
            std::str::from_utf8(&r[..n]).ok()
        });
        let Some(name) = name.filter(|n| n.bytes().all(|c| c.is_ascii_graphic())) else {
            return broken(at, format!("section {} has no readable name", i + 1));
        };
        if name.is_empty() || sections[..i].iter().any(|s| s.name == name) {
            return broken(at, format!("section name '{name}' is empty or taken"));
        }
        sections[i].name = name.to_string();
    }
    Ok(())
}
