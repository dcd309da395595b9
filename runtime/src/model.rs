//! An open bundle: the mapped file, its checked tables, and the native code of tiers in use.
//!
//! Opening maps the file and decodes the manifest; a tier's plan and code are checked when the first
//! session asks for it, the graph when it runs portable, a plan has steps on the host, or someone looks
//! at it. No work is done per weight: they are read where the file is mapped, by
//! all sessions of all processes.

use crate::cpu;
use crate::device::best::best;
use crate::device::far::Held;
use crate::device::plugin::PluginDevice;
use crate::device::{Driver, Kernels};
use crate::error::Error;
use crate::flow::Flow;
use crate::host::Shared;
use crate::map::{self, Code};
use crate::pool::Kernel;
use crate::trust::{self, PublicKey, Trust};
use hub_abi::bundle::{BundleError, BundleView, Fault, Manifest, TierView};
use hub_abi::pgraph::PGraph;
use hub_abi::plan::Plan;
use memmap2::Mmap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// How to open a bundle.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// Whose code may run; `None` asks the environment (`HUB_TRUST`).
    pub trust: Option<Trust>,
    /// Keys whose signature is trusted; `None` asks the environment (`HUB_KEYS`).
    pub keys: Option<Vec<PublicKey>>,
    /// Run code from sealed memory instead of the file's mapping, as where the file system refuses
    /// executable mappings.
    pub copy_code: bool,
    /// Read the whole file into memory of this process instead of mapping it, for files that others
    /// may write to or cut while they are open. Opening then takes as long as reading, and processes
    /// do not share the weights.
    pub copy: bool,
}

/// An open bundle. Clones share it; sessions keep it open.
#[derive(Clone)]
pub struct Model(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub path: PathBuf,
    file: File,
    pub bundle: Arc<BundleView<Mmap>>,
    copy_code: bool,
    /// Whether native code may run, or why it may not.
    native: Result<(), String>,
    tiers: Vec<OnceLock<Arc<Tier>>>,
    /// Tiers made ready on devices, by the devices' names.
    devices: Mutex<Vec<(String, Arc<Tier>)>>,
    host: OnceLock<Shared>,
    /// Names as C strings, inputs then outputs.
    pub names: Vec<std::ffi::CString>,
}

/// A tier in use: plan and mapped code.
pub(crate) struct Tier {
    pub plan: Plan,
    pub flow: Flow,
    pub code: Runs,
}

/// Where a tier's kernels run.
pub(crate) enum Runs {
    /// On this processor, from this mapping.
    Here(Code),
    /// On a device.
    There(There),
}

/// A tier on a device.
pub(crate) struct There {
    pub kernels: Arc<dyn Kernels>,
    /// The constants, if the device has memory of its own.
    pub consts: Option<Arc<Held>>,
}

impl Tier {
    /// The function of kernel `i` of the plan; `None` if it is not one of this processor.
    pub fn kernel(&self, i: u32) -> Option<Kernel> {
        let Runs::Here(code) = &self.code else { return None };
        let k = &self.plan.kernels[i as usize];
        let entry = &code.bytes()[k.offset as usize..][..k.len as usize];
        // SAFETY: the bytes are executable machine code whose hash was checked, which the compiler
        // wrote as a function of this signature; trust in it was decided when the tier was loaded.
        Some(unsafe { std::mem::transmute::<*const u8, Kernel>(entry.as_ptr()) })
    }
}

impl Model {
    /// Opens a bundle.
    pub fn open(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Model, Error> {
        let path = path.as_ref().to_path_buf();
        let io = |source| Error::Io { path: path.clone(), source };
        let trust = options.trust.map_or_else(Trust::from_env, Ok)?;
        let file = map::open(&path).map_err(io)?;
        let meta = file.metadata().map_err(io)?;
        if !meta.is_file() {
            return Err(io(std::io::Error::other("not a file")));
        }
        if meta.len() == 0 {
            let source = BundleError {
                fault: Fault::Foreign,
                what: "not a bundle: an empty file".into(),
                offset: 0,
            };
            return Err(Error::Bundle { path, source });
        }
        let map = match options.copy {
            true => map::copied(&file, meta.len()),
            false => map::file(&file, meta.len()),
        };
        let map = map.map_err(io)?;
        let bundle = BundleView::parse(map)
            .map_err(|source| Error::Bundle { path: path.clone(), source })?;
        let keys = match (&options.keys, trust) {
            (Some(keys), _) => keys.clone(),
            (None, Trust::Signed) => PublicKey::from_env()?,
            (None, _) => vec![],
        };
        let native = trust::admits(trust, &keys, &bundle)
            .map_err(|source| Error::Bundle { path: path.clone(), source })?;
        let m = &bundle.manifest;
        let names = m.inputs.iter().chain(&m.outputs);
        let names = names.map(|i| i.name.replace('\0', "\u{fffd}"));
        let names = names.map(|n| std::ffi::CString::new(n).unwrap_or_default()).collect();
        let tiers = m.tiers.iter().map(|_| OnceLock::new()).collect();
        Ok(Model(Arc::new(Inner {
            path,
            file,
            bundle: Arc::new(bundle),
            copy_code: options.copy_code || options.copy,
            native,
            tiers,
            devices: Mutex::new(vec![]),
            host: OnceLock::new(),
            names,
        })))
    }

    /// Checks every hash, those of the constants included, and the signature if there is one.
    pub fn verify(&self) -> Result<(), Error> {
        let bundle = &self.0.bundle;
        bundle.verify().and_then(|()| trust::check(bundle)).map_err(|e| self.0.refused(e))
    }

    /// What the bundle is.
    pub fn manifest(&self) -> &Manifest {
        &self.0.bundle.manifest
    }

    /// The portable graph.
    ///
    /// # Errors
    /// It is damaged. A session that runs portable, or whose plan has steps on the host, has read it
    /// when it was made.
    pub fn graph(&self) -> Result<&PGraph, Error> {
        self.0.bundle.graph().map(|g| &**g).map_err(|e| self.0.refused(e))
    }

    /// The whole bundle, for tools.
    pub fn bundle(&self) -> &BundleView<impl AsRef<[u8]> + use<>> {
        &self.0.bundle
    }

    /// The file that it was opened from.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// The plan of a tier, whether or not this machine runs it.
    pub fn plan(&self, tier: &str) -> Result<Plan, Error> {
        let view = self.0.bundle.tier(tier).map_err(|source| self.0.refused(source))?;
        Ok(view.plan)
    }
}

impl Inner {
    fn refused(&self, source: BundleError) -> Error {
        Error::Bundle { path: self.path.clone(), source }
    }

    fn flow(&self, plan: &Plan) -> Result<Flow, Error> {
        let graph = plan.names_graph().then(|| self.bundle.graph()).transpose();
        let graph = graph.map_err(|e| self.refused(e))?;
        Flow::of(plan, &self.bundle.manifest, graph.map(|g| &**g))
    }

    /// The graph, ready to run portable; made when first asked for.
    pub fn shared(&self) -> Result<&Shared, Error> {
        if let Some(s) = self.host.get() {
            return Ok(s);
        }
        let graph = self.bundle.graph().map_err(|e| self.refused(e))?;
        let made = Shared::new(graph, &self.bundle)?;
        Ok(self.host.get_or_init(|| made))
    }

    /// The tier to run: the one asked for, or the best of the bundle that runs here. `None` is
    /// portable, with the reason where that was not asked for.
    pub fn choose(&self, asked: Option<&str>) -> Result<(Option<Arc<Tier>>, String), Error> {
        let names: Vec<&str> = self.bundle.manifest.tiers.iter().map(|t| &t.name[..]).collect();
        if let Some(asked) = asked.filter(|a| *a != "portable") {
            if !names.contains(&asked) {
                let has = if names.is_empty() { "none".into() } else { names.join(", ") };
                let what = format!("the bundle has no tier '{asked}' (it has {has})");
                return Err(Error::Unsupported(what));
            }
            if !cpu::supports(asked) {
                let what = format!("this processor does not run tier '{asked}'");
                return Err(Error::Unsupported(what));
            }
        }
        let portable = |why: &str| Ok((None, why.to_string()));
        if asked == Some("portable") {
            return portable("");
        }
        if let Err(why) = &self.native {
            return portable(&format!("running portable: {why}"));
        }
        let usable = names.iter().copied().enumerate().filter(|(_, t)| cpu::supports(t));
        let best = match asked {
            Some(asked) => usable.clone().find(|(_, t)| *t == asked),
            None => usable.clone().max_by_key(|(_, t)| cpu::rank(t)),
        };
        match best {
            None => portable("running portable: the bundle has no code for this processor"),
            Some((i, name)) => match self.load(i, name)? {
                Some(tier) => Ok((Some(tier), String::new())),
                None => portable("running portable: executable memory is refused here"),
            },
        }
    }

    /// The best tier of the bundle that a driver runs.
    pub fn on(&self, driver: &dyn Driver) -> Result<Arc<Tier>, Error> {
        let tiers = driver.tiers();
        let has = |t: &&String| self.bundle.manifest.tiers.iter().any(|i| i.name == **t);
        let Some(name) = tiers.iter().find(has) else {
            let what = format!("the bundle has no code for this device ({})", tiers.join(", "));
            return Err(Error::Unsupported(what));
        };
        if let Err(why) = &self.native {
            return Err(Error::Unsupported(format!("no code of the bundle may run: {why}")));
        }
        let TierView { plan, code } = self.bundle.tier(name).map_err(|e| self.refused(e))?;
        let flow = self.flow(&plan)?;
        let kernels = driver.load(&self.bundle.file()[code], &plan)?;
        let consts = match kernels.apart() {
            true => Some(Arc::new(Held::with(&kernels, self.bundle.consts())?)),
            false => None,
        };
        Ok(Arc::new(Tier { plan, flow, code: Runs::There(There { kernels, consts }) }))
    }

    /// The tier on a device that a driver beside the program has; made ready once.
    pub fn on_device(&self, device: &str) -> Result<Arc<Tier>, Error> {
        self.ready(device, || PluginDevice::open(device))
    }

    /// The best device that runs the bundle and its tier; else why the processor is the best.
    pub fn on_best(&self) -> Result<Result<(String, Arc<Tier>), String>, Error> {
        let has = |tier: &str| self.bundle.manifest.tiers.iter().any(|t| t.name == tier);
        if let Err(why) = &self.native {
            return Ok(Err(why.clone()));
        }
        match best(&has) {
            Ok((name, device)) => Ok(Ok((name.clone(), self.ready(&name, || Ok(device))?))),
            Err(why) => Ok(Err(why)),
        }
    }

    fn ready(
        &self,
        name: &str,
        open: impl FnOnce() -> Result<PluginDevice, Error>,
    ) -> Result<Arc<Tier>, Error> {
        let mut ready = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, t)) = ready.iter().find(|(n, _)| n == name) {
            return Ok(t.clone());
        }
        let tier = self.on(&open()?)?;
        ready.push((name.to_string(), tier.clone()));
        Ok(tier)
    }

    /// Checks and maps a tier once; `None` where executable memory is refused.
    fn load(&self, i: usize, name: &str) -> Result<Option<Arc<Tier>>, Error> {
        if let Some(t) = self.tiers[i].get() {
            return Ok(Some(t.clone()));
        }
        let TierView { plan, code } = self.bundle.tier(name).map_err(|e| self.refused(e))?;
        let bytes = &self.bundle.file()[code.clone()];
        let mapped = match self.copy_code {
            true => Code::copy(bytes),
            false => Code::map(&self.file, &code, bytes),
        };
        let Ok(mapped) = mapped else { return Ok(None) };
        let flow = self.flow(&plan)?;
        let tier = Arc::new(Tier { plan, flow, code: Runs::Here(mapped) });
        Ok(Some(self.tiers[i].get_or_init(|| tier).clone()))
    }
}
