//! Between safetensors files and sessions.

use crate::args::Running;
use crate::failure::{Failure, INVALID, IO, LIMIT, USAGE};
use crate::limits::Limits;
use hub_abi::Dtype;
use hub_abi::dim::{Dim, SymInfo};
use hub_models::{NamedTensor, TensorFile, Tensors};
use hub_runtime::{Model, OpenOptions, Session, SessionOptions, TensorView};
use std::collections::BTreeMap;
use std::path::Path;

/// A bundle that is open and ready to run.
pub struct Opened {
    /// The bundle.
    pub model: Model,
    /// A session on it.
    pub session: Session,
}

/// safetensors' names of dtypes.
const NAMES: &[(Dtype, &str)] = &[
    (Dtype::F32, "F32"),
    (Dtype::F64, "F64"),
    (Dtype::F16, "F16"),
    (Dtype::BF16, "BF16"),
    (Dtype::I64, "I64"),
    (Dtype::I32, "I32"),
    (Dtype::I16, "I16"),
    (Dtype::I8, "I8"),
    (Dtype::U64, "U64"),
    (Dtype::U32, "U32"),
    (Dtype::U16, "U16"),
    (Dtype::U8, "U8"),
    (Dtype::Bool, "BOOL"),
    (Dtype::C64, "C64"),
    (Dtype::F8E4M3FN, "F8_E4M3"),
    (Dtype::F8E5M2, "F8_E5M2"),
    (Dtype::F8E4M3FNUZ, "F8_E4M3FNUZ"),
    (Dtype::F8E5M2FNUZ, "F8_E5M2FNUZ"),
];

/// The name under which a dtype is stored: its own, or where safetensors has none, the name of
/// bytes as wide.
fn stored_as(d: Dtype) -> &'static str {
    let own = NAMES.iter().find(|n| n.0 == d).map(|n| n.1);
    own.unwrap_or(if d.is_signed_int() { "I8" } else { "U8" })
}

/// Whose inputs a session runs on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Inputs {
    /// A person's, or of sizes that a person chose; or none, since nothing is run.
    Given,
    /// Made up, and run, at sizes that the file says: its author cannot ask for more work with them.
    MadeUp,
}

/// Opens a bundle; checks the weights' hash unless told not to.
pub fn open(path: &Path, how: &Running, inputs: Inputs) -> Result<Opened, Failure> {
    let options = SessionOptions {
        threads: usize::try_from(how.threads).unwrap_or(0),
        device: how.device.clone(),
        tier: how.cpu.clone(),
        limits: Limits::of(&how.limits.limits)?.run,
    };
    session(path, &options, !how.no_verify, inputs)
}

/// A session on a bundle, whose hashes are checked first where that is asked for.
pub fn session(
    path: &Path,
    options: &SessionOptions,
    verify: bool,
    inputs: Inputs,
) -> Result<Opened, Failure> {
    let model = Model::open(path, &OpenOptions::default())?;
    if verify {
        model.verify()?;
    }
    let mut options = options.clone();
    if inputs == Inputs::MadeUp {
        options.limits.work = options.limits.given(model.manifest().const_bytes).work;
    }
    let session = Session::new(&model, &options)?;
    if !session.warning().is_empty() {
        eprintln!("warning: {}", crate::plain(session.warning()));
    }
    if options.device == "best" && session.device() != "cpu" {
        eprintln!("running on {}", session.device());
    }
    Ok(Opened { model, session })
}

/// Reads a safetensors file.
pub fn read(path: &Path) -> Result<TensorFile, Failure> {
    hub_models::read(path).map_err(|e| match path.exists() {
        true => Failure::new(INVALID, e.to_string()),
        false => Failure::new(IO, format!("{}: there is no such file", path.display())),
    })
}

/// The model's inputs, in its order, from a file's tensors. Others are ignored with a warning.
pub fn inputs_for(o: &Opened, given: &Tensors) -> Result<Vec<NamedTensor>, Failure> {
    let inputs = &o.model.manifest().inputs;
    for name in given.keys().filter(|n| !inputs.iter().any(|i| i.name == **n)) {
        eprintln!("warning: the model has no input '{}': ignored", crate::plain(name));
    }
    let mut out = vec![];
    for i in inputs {
        let known = || given.keys().cloned().collect::<Vec<_>>().join(", ");
        let t = given.get(&i.name).ok_or_else(|| {
            Failure::new(USAGE, format!("input '{}' is missing", i.name))
                .help(format!("the file has: {}", known()))
        })?;
        let want = i.ty.as_tensor().map(|t| t.dtype);
        if want.is_some_and(|d| stored_as(d) != t.dtype) {
            let want = want.map_or("no tensor", stored_as);
            let what = format!("input '{}' is {}, the model takes {want}", i.name, t.dtype);
            return Err(Failure::new(USAGE, what));
        }
        out.push(t.clone());
    }
    Ok(out)
}

impl Opened {
    /// Runs once; gives the outputs by name.
    pub fn run(&mut self, inputs: &[NamedTensor]) -> Result<Tensors, Failure> {
        let dtypes: Vec<Dtype> = self.dtypes()?;
        let views: Vec<TensorView<'_>> = inputs
            .iter()
            .zip(dtypes)
            .map(|(t, dtype)| TensorView { dtype, dims: &t.shape, data: &t.data })
            .collect();
        let names: Vec<String> =
            self.model.manifest().outputs.iter().map(|o| o.name.clone()).collect();
        let outputs = self.session.run(&views)?;
        let made = outputs.iter().map(|t| NamedTensor {
            dtype: stored_as(t.dtype).to_string(),
            shape: t.dims.to_vec(),
            data: t.data.to_vec(),
        });
        Ok(names.into_iter().zip(made).collect())
    }

    /// Runs once, leaving the outputs where they are.
    pub fn run_only(&mut self, inputs: &[NamedTensor]) -> Result<(), Failure> {
        let dtypes = self.dtypes()?;
        let views: Vec<TensorView<'_>> = inputs
            .iter()
            .zip(dtypes)
            .map(|(t, dtype)| TensorView { dtype, dims: &t.shape, data: &t.data })
            .collect();
        self.session.run(&views)?;
        Ok(())
    }

    /// Dtypes of the inputs; a failure if an input or output is none that a file of tensors holds.
    fn dtypes(&self) -> Result<Vec<Dtype>, Failure> {
        let m = self.model.manifest();
        let dtype = |kind: &str, i: &hub_abi::bundle::IoInfo| {
            let dtype = i.ty.as_tensor().map(|t| t.dtype);
            dtype.filter(|d| *d != Dtype::Str).ok_or_else(|| {
                let is = if dtype.is_some() { "of strings" } else { "a sequence or optional" };
                Failure::new(USAGE, format!("{kind} '{}' is {is}", i.name))
                    .help("use the Rust interface: Session::run_values")
            })
        };
        m.outputs.iter().try_for_each(|o| dtype("output", o).map(|_| ()))?;
        m.inputs.iter().map(|i| dtype("input", i)).collect()
    }
}

/// Writes outputs; dtypes that safetensors lacks are named in the metadata.
pub fn write(path: &Path, o: &Opened, outputs: &Tensors) -> Result<(), Failure> {
    let mut metadata = BTreeMap::new();
    for i in &o.model.manifest().outputs {
        if let Some(t) = i.ty.as_tensor()
            && !NAMES.iter().any(|n| n.0 == t.dtype)
        {
            metadata.insert(format!("dtype:{}", i.name), t.dtype.name().to_string());
        }
    }
    let file = TensorFile { tensors: outputs.clone(), metadata };
    hub_models::write(path, &file).map_err(|e| Failure::io(path, e))
}

/// The first values of a tensor, for people.
pub fn glimpse(t: &NamedTensor) -> String {
    let shown: Vec<String> = match &t.dtype[..] {
        "F32" => t.as_f32().iter().flatten().take(6).map(|x| format!("{x:.6}")).collect(),
        "I64" => t.as_i64().iter().flatten().take(6).map(|x| x.to_string()).collect(),
        _ => t.data.iter().take(12).map(|b| format!("{b:02x}")).collect(),
    };
    format!("[{}, …]", shown.join(", "))
}

/// `NAME=N` options as a map.
pub fn sizes(options: &[String]) -> Result<BTreeMap<String, i64>, Failure> {
    let one = |s: &String| {
        let (name, n) = s.rsplit_once('=')?;
        Some((name.to_string(), n.parse::<i64>().ok().filter(|n| *n >= 0)?))
    };
    let wrong = |s: &String| Failure::new(USAGE, format!("'{s}' is not NAME=N"));
    options.iter().map(|s| one(s).ok_or_else(|| wrong(s))).collect()
}

/// Sizes that dynamic dimensions take in turn where none is given: not every model admits every one.
pub const SIZES: [i64; 6] = [2, 1, 8, 32, 64, 224];

/// Inputs made up for a model at the first of [`SIZES`] that it admits.
pub fn fitting(
    o: &mut Opened,
    sizes: &BTreeMap<String, i64>,
    seed: u64,
) -> Result<Vec<NamedTensor>, Failure> {
    let mut refusal = None;
    for other in SIZES {
        let inputs = generated(&o.model, sizes, other, seed)?;
        let dims: Vec<&[usize]> = inputs.iter().map(|t| &t.shape[..]).collect();
        match o.session.bind(&dims).map_err(Failure::from) {
            Ok(()) => return Ok(inputs),
            Err(f) if f.code == USAGE => refusal = refusal.or(Some(f)),
            Err(f) => return Err(f),
        }
    }
    let nothing = || Failure::new(USAGE, "no size fits");
    Err(refusal.unwrap_or_else(nothing).help("choose sizes with --dim NAME=N"))
}

/// Sizes given by name must be those of dynamic dimensions, within their bounds.
fn check_sizes(syms: &[SymInfo], sizes: &BTreeMap<String, i64>) -> Result<(), Failure> {
    for (name, n) in sizes {
        let Some(s) = syms.iter().find(|s| s.name == *name) else {
            let names: Vec<&str> = syms.iter().map(|s| &s.name[..]).collect();
            let help = format!("dynamic dimensions: {}", names.join(", "));
            let what = format!("no dynamic dimension is called '{name}'");
            return Err(Failure::new(USAGE, what).help(help));
        };
        if !(s.min..=s.max).contains(n) {
            let what = format!("{name} is {n}, outside {}..{}", s.min, s.max);
            return Err(Failure::new(USAGE, what));
        }
    }
    Ok(())
}

/// Bytes of inputs made up for a model.
const MOST_GENERATED: usize = 512 << 20;

/// Inputs made up for a model: floats in [-1, 1), integers 0 and 1, the same for the same seed.
/// Dynamic dimensions take the size given, else `other` (within their bounds).
pub fn generated(
    model: &Model,
    sizes: &BTreeMap<String, i64>,
    other: i64,
    seed: u64,
) -> Result<Vec<NamedTensor>, Failure> {
    check_sizes(&model.manifest().syms, sizes)?;
    let m = model.manifest();
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut out = vec![];
    let mut left = MOST_GENERATED;
    for i in &m.inputs {
        let Some(t) = i.ty.as_tensor() else {
            return Err(Failure::new(USAGE, format!("input '{}' is no tensor", i.name)));
        };
        let size = |d: &Dim| size_of(d, &m.syms, sizes, other);
        let shape: Vec<usize> = t.dims.iter().map(size).collect::<Result<_, _>>()?;
        let bytes = shape.iter().try_fold(t.dtype.size().max(1), |n, &d| n.checked_mul(d));
        left = bytes.and_then(|b| left.checked_sub(b)).ok_or_else(|| {
            let what = format!("inputs made up would have over {MOST_GENERATED} bytes");
            Failure::new(LIMIT, what).help("give smaller sizes, or real inputs")
        })?;
        let n: usize = shape.iter().product();
        let data: Vec<u8> = (0..n).flat_map(|_| element(t.dtype, next() >> 11)).collect();
        out.push(NamedTensor { dtype: stored_as(t.dtype).to_string(), shape, data });
    }
    Ok(out)
}

fn size_of(
    d: &Dim,
    syms: &[SymInfo],
    sizes: &BTreeMap<String, i64>,
    other: i64,
) -> Result<usize, Failure> {
    let env = hub_abi::SymEnv(
        syms.iter()
            .map(|s| Some(sizes.get(&s.name).copied().unwrap_or(other).clamp(s.min, s.max)))
            .collect(),
    );
    let n = d.eval(&env).map_err(|e| Failure::new(USAGE, e.to_string()))?;
    usize::try_from(n).map_err(|_| Failure::new(USAGE, format!("a dimension would be {n}")))
}

fn element(d: Dtype, bits: u64) -> Vec<u8> {
    let unit = (bits & 0xFF_FFFF) as f64 / f64::from(1 << 23) - 1.0;
    if d.is_float() {
        return hub_ir::build::scalar_bytes(d, unit);
    }
    hub_ir::build::scalar_bytes(d, (bits & 1) as f64)
}
