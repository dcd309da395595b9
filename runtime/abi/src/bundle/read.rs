//! Reading bundles that may be hostile: structure, hashes and content are checked before anything
//! is believed; every fault is an error that says where.

use super::elf::{self, Container, Section};
use super::sign::{self, Signature};
use super::*;
use crate::dim_table::reading;
use crate::pgraph::PGraph;
use crate::plan::Plan;
use serde::de::DeserializeOwned;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

const MAGIC: &[u8; 8] = b"HUBNDL\x1a\x00";
/// Bytes of the seal: magic, major, minor, four reserved bytes, then BLAKE3 of the first page, of
/// section names and headers, and of the manifest.
pub(super) const SEAL_LEN: usize = 16 + 3 * 32;

/// The seal of these parts.
pub(super) fn seal(head: &[u8], names: &[u8], headers: &[u8], manifest: &[u8]) -> Vec<u8> {
    let mut b = MAGIC.to_vec();
    b.extend(MAJOR.to_le_bytes());
    b.extend(MINOR.to_le_bytes());
    b.extend([0; 4]);
    b.extend(blake3::hash(head).as_bytes());
    b.extend(blake3::Hasher::new().update(names).update(headers).finalize().as_bytes());
    b.extend(blake3::hash(manifest).as_bytes());
    b
}

/// A bundle in memory (`B` is what holds the file's bytes) whose structure and manifest have been
/// checked.
#[derive(Debug)]
pub struct BundleView<B> {
    file: B,
    /// What the bundle is.
    pub manifest: Manifest,
    /// Read when first asked for.
    graph: OnceLock<Result<Arc<PGraph>, BundleError>>,
    consts: Range<usize>,
    manifest_at: Range<usize>,
    signature: Option<Signature>,
}

/// A tier whose plan and code have been checked.
#[derive(Debug)]
pub struct TierView {
    /// The plan.
    pub plan: Plan,
    /// Where its code lies in the file; starts at a multiple of [`PAGE`].
    pub code: Range<usize>,
}

impl<B: AsRef<[u8]>> BundleView<B> {
    /// Checks structure and manifest. The graph is checked by [`BundleView::graph`], tiers by
    /// [`BundleView::tier`], everything by [`BundleView::verify`].
    pub fn parse(file: B) -> Result<Self, BundleError> {
        let c = elf::read(file.as_ref())?;
        let (manifest, manifest_at) = read_manifest(file.as_ref(), &c)?;
        let signature = sign::find(file.as_ref(), &c)?;
        match_sections(&c, &manifest)?;
        let no_range = || BundleError {
            fault: Fault::Broken,
            what: "no section for constants".into(),
            offset: c.shoff,
        };
        let consts = manifest.section(CONSTS).map(range).ok_or_else(no_range)?;
        let graph = OnceLock::new();
        let at = manifest_at.start as u64;
        check::manifest(&manifest).or_else(|e| broken(at, format!("manifest: {e}")))?;
        Ok(BundleView { file, manifest, graph, consts, manifest_at, signature })
    }

    /// The portable graph. It is decoded and checked when first asked for: what a plan of kernels alone
    /// is bound with is in the manifest.
    pub fn graph(&self) -> Result<&Arc<PGraph>, BundleError> {
        let read = || {
            let (graph, at): (PGraph, u64) = self.table(GRAPH)?;
            let io = self.interface();
            check::graph(&graph, io).or_else(|e| broken(at, format!("graph: {e}")))?;
            self.check_interface(&graph, at)?;
            Ok(Arc::new(graph))
        };
        self.graph.get_or_init(read).as_ref().map_err(BundleError::clone)
    }

    /// Checks and decodes one tier: its plan, and the hash of its code; the graph too where the plan
    /// names something of it.
    pub fn tier(&self, name: &str) -> Result<TierView, BundleError> {
        self.checked_tier(name, Plan::names_graph)
    }

    /// A tier, checked against the graph where `with_graph` says so.
    fn checked_tier(
        &self,
        name: &str,
        with_graph: impl Fn(&Plan) -> bool,
    ) -> Result<TierView, BundleError> {
        let Some(t) = self.manifest.tiers.iter().find(|t| t.name == name) else {
            return broken(0, format!("no tier '{name}' in the bundle"));
        };
        let (plan, at): (Plan, u64) = self.table(&t.plan)?;
        let text = self.checked(&t.text)?;
        let graph = with_graph(&plan).then(|| self.graph()).transpose()?;
        check_plan::plan(&plan, graph.map(|g| &**g), self.interface(), text.len)
            .or_else(|e| broken(at, format!("plan of tier {name}: {e}")))?;
        Ok(TierView { plan, code: range(text) })
    }

    /// Checks every hash, constants included, the graph and every tier.
    pub fn verify(&self) -> Result<(), BundleError> {
        for s in &self.manifest.sections {
            self.checked(&s.name)?;
        }
        self.graph()?;
        let tier = |t: &TierInfo| self.checked_tier(&t.name, |_| true).map(|_| ());
        self.manifest.tiers.iter().try_for_each(tier)
    }

    /// Bytes of a listed section, unchecked; `None` if there is none of that name.
    pub fn section(&self, name: &str) -> Option<&[u8]> {
        self.manifest.section(name).map(|s| &self.file()[range(s)])
    }

    /// Bytes of the constants; their hash is checked by [`BundleView::verify`] only.
    pub fn consts(&self) -> &[u8] {
        &self.file()[self.consts.clone()]
    }

    /// Where the constants lie in the file.
    pub fn const_range(&self) -> Range<usize> {
        self.consts.clone()
    }

    /// The manifest as the file holds it; what a signature is over, see [`sign::message`].
    pub fn manifest_bytes(&self) -> &[u8] {
        &self.file()[self.manifest_at.clone()]
    }

    /// The signature that the file carries, unchecked.
    pub fn signature(&self) -> Option<&Signature> {
        self.signature.as_ref()
    }

    /// The whole file.
    pub fn file(&self) -> &[u8] {
        self.file.as_ref()
    }

    fn interface(&self) -> check::Interface {
        check::Interface {
            inputs: self.manifest.inputs.len(),
            outputs: self.manifest.outputs.len(),
            syms: self.manifest.syms.len(),
            consts: self.consts.len() as u64,
        }
    }

    /// What manifest and graph both say is the same.
    fn check_interface(&self, g: &PGraph, at: u64) -> Result<(), BundleError> {
        let root = &g.regions[g.root as usize];
        let same = |io: &[IoInfo], names: &[String], values: &[u32]| {
            io.len() == names.len()
                && io
                    .iter()
                    .zip(names)
                    .zip(values)
                    .all(|((i, n), &v)| i.name == *n && i.ty == g.values[v as usize])
        };
        let m = &self.manifest;
        if m.syms == g.syms
            && same(&m.inputs, &g.inputs, &root.params)
            && same(&m.outputs, &g.outputs, &root.results)
            && m.constraints == g.constraints
            && m.const_bytes == g.const_bytes()
        {
            return Ok(());
        }
        broken(at, "manifest and graph differ in inputs, outputs, symbols or constants")
    }

    /// The listed section of that name, after a check of its hash.
    fn checked(&self, name: &str) -> Result<&SectionInfo, BundleError> {
        let Some(s) = self.manifest.section(name) else {
            return broken(0, format!("no section {name}"));
        };
        if blake3::hash(&self.file()[range(s)]) != s.hash {
            return broken(s.offset, format!("section {name} does not match its hash"));
        }
        Ok(s)
    }

    /// Decodes a checked section and gives its offset too.
    fn table<T: DeserializeOwned>(&self, name: &str) -> Result<(T, u64), BundleError> {
        let s = self.checked(name)?;
        if s.len > MAX_TABLE {
            return over(s.offset, format!("section {name} has {} bytes", s.len));
        }
        match reading(|| postcard::take_from_bytes::<T>(&self.file()[range(s)])) {
            Ok((v, [])) => Ok((v, s.offset)),
            Ok((v, _)) if self.manifest.minor > MINOR => Ok((v, s.offset)),
            Ok((_, rest)) => {
                let at = s.offset + s.len - rest.len() as u64;
                broken(at, format!("section {name} goes on after its end"))
            }
            Err(e) => broken(s.offset, format!("section {name} does not decode: {e}")),
        }
    }
}

fn range(s: &SectionInfo) -> Range<usize> {
    s.offset as usize..(s.offset + s.len) as usize
}

pub(super) fn bytes<'a>(file: &'a [u8], s: &Section) -> &'a [u8] {
    &file[s.offset as usize..(s.offset + s.len) as usize]
}

fn read_manifest(file: &[u8], c: &Container) -> Result<(Manifest, Range<usize>), BundleError> {
    let find = |name: &str| match c.sections.iter().find(|s| s.name == name) {
        Some(s) => Ok(s),
        None => Err(BundleError {
            fault: Fault::Foreign,
            what: format!("not a bundle: an ELF file without section {name}"),
            offset: c.shoff,
        }),
    };
    let (s, m) = (find(SEAL)?, find(MANIFEST)?);
    let found = bytes(file, s);
    if found.len() != SEAL_LEN || &found[..8] != MAGIC {
        return broken(s.offset, "the seal has no magic number");
    }
    let major = u16::from_le_bytes([found[8], found[9]]);
    if major != MAJOR {
        let what =
            format!("bundle of major version {major}; this runtime reads {MAJOR}: export again");
        return Err(BundleError { fault: Fault::Foreign, what, offset: s.offset + 8 });
    }
    if m.len > MAX_MANIFEST {
        return over(m.offset, format!("a manifest of {} bytes", m.len));
    }
    let manifest = bytes(file, m);
    let names = c.sections.last().map_or(&[][..], |s| bytes(file, s));
    let want = seal(&file[..PAGE as usize], names, &file[c.shoff as usize..], manifest);
    for (i, what) in ["first page", "section headers", "manifest"].into_iter().enumerate() {
        let at = 16 + i * 32..48 + i * 32;
        if want[at.clone()] != found[at.clone()] {
            let place = [0, c.shoff, m.offset][i];
            return broken(place, format!("the {what} does not match the seal"));
        }
    }
    let minor = u16::from_le_bytes([found[10], found[11]]);
    match postcard::take_from_bytes::<Manifest>(manifest) {
        Ok((v, rest)) if (v.major, v.minor) == (major, minor) => {
            if found[12..16] != [0; 4] || (minor == MINOR && !rest.is_empty()) {
                return broken(m.offset, "bytes that mean nothing in seal or manifest");
            }
            Ok((v, m.offset as usize..(m.offset + m.len) as usize))
        }
        Ok(_) => broken(s.offset + 8, "seal and manifest differ in version"),
        Err(e) => broken(m.offset, format!("the manifest does not decode: {e}")),
    }
}

/// The manifest lists exactly the sections that are there, and tiers name fitting ones.
fn match_sections(c: &Container, m: &Manifest) -> Result<(), BundleError> {
    let exempt = [MANIFEST, SEAL, SIGNATURE, ".shstrtab"];
    let there = || c.sections.iter().filter(|s| !exempt.contains(&s.name.as_str()));
    if c.sections.last().is_none_or(|s| s.name != ".shstrtab") {
        return broken(c.shoff, "the section names are not the last section");
    }
    if there().count() != m.sections.len() {
        return broken(c.shoff, "the manifest does not list the sections that are there");
    }
    for (s, l) in there().zip(&m.sections) {
        if (&s.name, s.offset, s.len) != (&l.name, l.offset, l.len) {
            return broken(s.offset, format!("section {} is not as the manifest says", s.name));
        }
    }
    if m.tiers.len() > MAX_TIERS {
        return over(c.shoff, format!("{} tiers", m.tiers.len()));
    }
    for (i, t) in m.tiers.iter().enumerate() {
        let named = t.text == code_section(&t.name) && t.plan == format!(".hub.plan.{}", t.name);
        if !named || m.tiers[..i].iter().any(|o| o.name == t.name) {
            return broken(c.shoff, format!("tier '{}' is misnamed or double", t.name));
        }
        let code = c.sections.iter().find(|s| s.name == t.text);
        let machine = |s: &Section| (s.flags == elf::CODE) != is_text(&t.name);
        if !code.is_some_and(machine) {
            return broken(c.shoff, format!("tier '{}' has no code section", t.name));
        }
    }
    Ok(())
}
