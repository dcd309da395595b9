//! Sessions: one arena, one set of threads, one model.

use crate::accept;
use crate::bind;
use crate::cpu::{self, FloatState};
use crate::describe::{self, StepInfo, Summary};
use crate::device::Driver;
use crate::error::Error;
use crate::host;
use crate::map::CodeFrom;
use crate::model::{Model, Runs, Tier};
use crate::native::{Native, Profile};
use crate::pool::Pool;
use crate::run::{check_rooms, copy_out};
use crate::tensor::{Given, Made, Outputs, Room, TensorView};
use hub_abi::Dtype;
use hub_abi::dim::SymEnv;
use hub_portable::{Limits, Tensor, Value};
use std::marker::PhantomData;
use std::sync::Arc;

/// How a session runs.
#[derive(Clone, Debug, Default)]
pub struct SessionOptions {
    /// Threads, the caller included; 0 is the cores that this process may use.
    pub threads: usize,
    /// `cpu`, or empty for it; a driver's name and a device's number, as `opencl:0`; or `best`: the
    /// first of CUDA's, Ascend's and OpenCL's devices that the bundle has code for and that is not
    /// the host's processor, else the processor ([`Session::warning`] then says why).
    pub device: String,
    /// The tier to run (`avx512`, `avx2`, `portable`); `None` asks the environment (`HUB_CPU`),
    /// then takes the best.
    pub tier: Option<String>,
    /// What a run may use.
    pub limits: Limits,
}

/// Runs a model. Used by one thread at a time; keeps its model open.
pub struct Session {
    model: Model,
    mode: Mode,
    threads: usize,
    warning: String,
    device: String,
    limits: Limits,
    made: Vec<Made>,
    /// Outputs of a portable run, kept for the caller.
    values: Vec<Value>,
}

enum Mode {
    Native(Box<Native>),
    Portable,
}

impl Session {
    /// A session on a model.
    pub fn new(model: &Model, options: &SessionOptions) -> Result<Session, Error> {
        let found = match &options.device[..] {
            "" | "cpu" => None,
            "best" => Some(model.0.on_best()?),
            name => Some(Ok((name.to_string(), model.0.on_device(name)?))),
        };
        let why = match found {
            Some(Ok((device, tier))) => {
                let options = SessionOptions { threads: 1, ..options.clone() };
                let session = Session::start(model, &options, Some(tier), String::new())?;
                return Ok(Session { device, ..session });
            }
            Some(Err(why)) => format!("running on cpu: {why}"),
            None => String::new(),
        };
        let env = std::env::var("HUB_CPU").ok().filter(|v| !v.is_empty());
        let asked = options.tier.clone().or(env);
        let (tier, warning) = model.0.choose(asked.as_deref())?;
        let all = [why, warning].into_iter().filter(|w| !w.is_empty()).collect::<Vec<_>>();
        Session::start(model, options, tier, all.join("; "))
    }

    /// A session whose kernels a driver runs.
    ///
    /// # Errors
    /// The bundle has no code for it, or what the driver says.
    pub fn on(
        model: &Model,
        options: &SessionOptions,
        driver: &dyn Driver,
    ) -> Result<Session, Error> {
        let session = Session::start(model, options, Some(model.0.on(driver)?), String::new())?;
        Ok(Session { device: String::new(), ..session })
    }

    fn start(
        model: &Model,
        options: &SessionOptions,
        tier: Option<Arc<Tier>>,
        warning: String,
    ) -> Result<Session, Error> {
        let threads = if options.threads == 0 { cpu::cores() } else { options.threads };
        if threads > 1024 {
            return Err(Error::Usage(format!("{threads} threads, more than 1024")));
        }
        let mode = match tier {
            None => {
                model.graph()?;
                Mode::Portable
            }
            Some(tier) => {
                let pool = Pool::new(threads);
                let pool = pool.map_err(|e| Error::Limit(format!("{threads} threads: {e}")))?;
                Mode::Native(Box::new(Native::new(model, tier, pool, options.limits)?))
            }
        };
        let made = |o: &hub_abi::bundle::IoInfo| Made {
            dtype: o.ty.as_tensor().map_or(Dtype::F32, |t| t.dtype),
            dims: Vec::with_capacity(8),
            at: std::ptr::null(),
            len: 0,
        };
        let made = model.manifest().outputs.iter().map(made).collect();
        let limits = options.limits;
        let (model, values, device) = (model.clone(), vec![], "cpu".to_string());
        let mut s = Session { model, mode, threads, warning, device, limits, made, values };
        s.bind_static()?;
        Ok(s)
    }

    /// Binds at once what has only one binding.
    fn bind_static(&mut self) -> Result<(), Error> {
        let dims = |i: &hub_abi::bundle::IoInfo| {
            let dims = i.ty.as_tensor()?.const_dims()?;
            dims.into_iter().map(|d| usize::try_from(d).ok()).collect::<Option<Vec<_>>>()
        };
        let dims: Option<Vec<Vec<usize>>> = self.model.manifest().inputs.iter().map(dims).collect();
        match dims {
            Some(dims) => self.bind(&dims.iter().map(|d| &d[..]).collect::<Vec<_>>()),
            None => Ok(()),
        }
    }

    /// Prepares for inputs of these dims, without running.
    pub fn bind(&mut self, dims: &[&[usize]]) -> Result<(), Error> {
        self.check_count(dims.len())?;
        let Mode::Native(n) = &mut self.mode else { return Ok(()) };
        let given = dims.iter().zip(&self.model.manifest().inputs).map(|(dims, i)| {
            let dtype = i.ty.as_tensor()?.dtype;
            Some(Given { dtype, dims, at: std::ptr::null(), len: 0 })
        });
        let given: Vec<_> = given.collect();
        n.accept(&given)?;
        n.bind_stage(0)?;
        n.record_ahead()
    }

    /// Runs the model on tensors in the model's order.
    pub fn run(&mut self, inputs: &[TensorView<'_>]) -> Result<Outputs<'_>, Error> {
        match inputs.len() {
            0..=16 => {
                let mut given = [None; 16];
                given.iter_mut().zip(inputs).for_each(|(g, v)| *g = Some(v.into()));
                // SAFETY: views are readable while they live, and no rooms are given.
                unsafe { self.run_raw(&given[..inputs.len()], &[])? };
            }
            _ => {
                let given: Vec<Option<Given<'_>>> = inputs.iter().map(|v| Some(v.into())).collect();
                // SAFETY: as above.
                unsafe { self.run_raw(&given, &[])? };
            }
        }
        Ok(self.outputs())
    }

    /// Runs the model on any values, sequences, optionals and strings included. What is no value of
    /// an input's type is refused.
    pub fn run_values(&mut self, inputs: &[Value]) -> Result<Vec<Value>, Error> {
        self.check_count(inputs.len())?;
        let Mode::Native(n) = &mut self.mode else {
            self.run_portable(inputs.to_vec())?;
            return Ok(self.values.clone());
        };
        let in_buffer = |v: &Value| matches!(v, Value::Tensor(t) if t.dtype() != Dtype::Str);
        if !n.heaped.is_empty() || !inputs.iter().all(in_buffer) {
            self.model.0.shared()?.check(inputs)?;
        }
        n.host.clear();
        for &(i, v) in &n.heaped {
            n.host.set(self.model.graph()?, v, inputs[i].clone());
        }
        // Strings have no bytes, but dims that bind symbols.
        let given = inputs.iter().map(|value| match value {
            Value::Tensor(t) => Some(Given {
                dtype: t.dtype(),
                dims: t.dims(),
                at: t.bytes().as_ptr(),
                len: t.bytes().len(),
            }),
            _ => None,
        });
        let given: Vec<_> = given.collect();
        self.check_given(&given)?;
        let Mode::Native(n) = &mut self.mode else { return Ok(vec![]) };
        let _float = FloatState::set();
        // SAFETY: the values live until the run ends, and no rooms are given.
        unsafe { n.run(&given, &[], &mut self.made)? };
        self.values_made()
    }

    /// The outputs of a native run as values.
    fn values_made(&self) -> Result<Vec<Value>, Error> {
        let Mode::Native(n) = &self.mode else { return Ok(vec![]) };
        let outputs = self.outputs();
        let values = outputs.iter().zip(&n.tier.plan.outputs);
        let values = values.map(|(t, source)| match source {
            hub_abi::plan::OutputSource::Heap(v) => {
                n.host.get(*v).cloned().ok_or_else(|| Error::plan(format!("no value {v}")))
            }
            hub_abi::plan::OutputSource::Buf(_) => Tensor::from_bytes(t.dtype, t.dims, t.data)
                .map(Value::from)
                .map_err(|e| Error::plan(e.to_string())),
        });
        values.collect()
    }

    fn check_count(&self, n: usize) -> Result<(), Error> {
        let want = self.model.manifest().inputs.len();
        if n == want {
            return Ok(());
        }
        Err(Error::Usage(format!("{n} inputs given, the model takes {want}")))
    }

    /// Inputs that are tensors must be of the inputs' dtypes and as long as their dims say.
    fn check_given(&self, inputs: &[Option<Given<'_>>]) -> Result<(), Error> {
        for (info, given) in self.model.manifest().inputs.iter().zip(inputs) {
            let Some(given) = given else { continue };
            let fail = |what| Err(Error::Input { name: info.name.clone(), what });
            let Some(t) = info.ty.as_tensor() else {
                return fail("it is no tensor: use run_values".into());
            };
            if t.dtype != given.dtype {
                return fail(format!("elements of {} given, {} expected", given.dtype, t.dtype));
            }
            if given.need().is_none_or(|need| need > given.len) {
                return fail(format!("{} bytes do not hold {:?}", given.len, given.dims));
            }
        }
        Ok(())
    }

    /// Runs on memory by address.
    ///
    /// # Safety
    /// Inputs are readable, and rooms writable, for their lengths while the run lasts.
    pub(crate) unsafe fn run_raw(
        &mut self,
        inputs: &[Option<Given<'_>>],
        rooms: &[Room],
    ) -> Result<(), Error> {
        self.check_count(inputs.len())?;
        self.check_given(inputs)?;
        for (info, given) in self.model.manifest().inputs.iter().zip(inputs) {
            if given.is_none_or(|g| g.dtype == Dtype::Str) {
                let what = "it has no bytes: use run_values".into();
                return Err(Error::Input { name: info.name.clone(), what });
            }
        }
        let _float = FloatState::set();
        match &mut self.mode {
            Mode::Native(n) => {
                n.host.clear();
                for k in 0..n.heaped.len() {
                    let (i, v) = n.heaped[k];
                    // SAFETY: by the caller's promise.
                    let value = unsafe { value_of(inputs[i].as_ref())? };
                    n.host.set(self.model.graph()?, v, value);
                }
                // SAFETY: by the caller's promise.
                unsafe { n.run(inputs, rooms, &mut self.made) }
            }
            Mode::Portable => {
                let m = self.model.manifest();
                let mut env = SymEnv::new(m.syms.len());
                accept::accept(m, inputs, &mut env)?;
                accept::check_constraints(m, &env)?;
                // SAFETY: by the caller's promise.
                let values = inputs.iter().map(|g| unsafe { value_of(g.as_ref()) });
                let values = values.collect::<Result<_, Error>>()?;
                self.run_portable(values)?;
                check_rooms(rooms, &self.made, std::iter::repeat(true))?;
                // SAFETY: by the caller's promise.
                unsafe { copy_out(rooms, &mut self.made) }
            }
        }
    }

    fn run_portable(&mut self, inputs: Vec<Value>) -> Result<(), Error> {
        let _float = FloatState::set();
        self.values = self.model.0.shared()?.run(inputs, &self.limits)?;
        for (m, v) in self.made.iter_mut().zip(&self.values) {
            match v {
                Value::Tensor(t) => m.set(t),
                _ => m.clear(),
            }
        }
        Ok(())
    }

    fn outputs(&self) -> Outputs<'_> {
        Outputs { made: &self.made, names: &self.model.manifest().outputs, session: PhantomData }
    }

    pub(crate) fn made(&self) -> &[Made] {
        &self.made
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The tier that runs: its name, or `portable`.
    pub fn tier(&self) -> &str {
        match &self.mode {
            Mode::Native(n) => &n.tier.plan.tier,
            Mode::Portable => "portable",
        }
    }

    /// Threads, the caller included.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// The device that it runs on: `cpu`, or as `opencl:0`; empty for a driver of the caller's own.
    pub fn device(&self) -> &str {
        &self.device
    }

    /// Why the session runs portable though that was not asked for, or on the processor though the
    /// best device was asked for; empty if it does not.
    pub fn warning(&self) -> &str {
        &self.warning
    }

    /// Where native code is executed from; `None` when portable or on a device.
    pub fn code_from(&self) -> Option<CodeFrom> {
        match &self.mode {
            Mode::Native(n) => match &n.tier.code {
                Runs::Here(code) => Some(code.from),
                Runs::There(_) => None,
            },
            Mode::Portable => None,
        }
    }

    /// What each step does; numbers are those of the last binding.
    pub fn steps(&self) -> Vec<StepInfo> {
        // What the session needs of the graph was read when it was made.
        let graph = match &self.mode {
            Mode::Native(n) if !n.tier.plan.names_graph() => None,
            _ => self.model.graph().ok(),
        };
        match (&self.mode, graph) {
            (Mode::Native(n), g) => describe::steps(&n.tier.plan, g, Some(&n.env)),
            (Mode::Portable, g) => g.map_or(vec![], describe::portable),
        }
    }

    /// Memory and work of the last binding.
    pub fn summary(&self) -> Summary {
        match &self.mode {
            Mode::Native(n) => describe::summary(n),
            Mode::Portable => Summary::default(),
        }
    }

    /// Starts (from zero) or stops measuring the time of each step.
    pub fn set_profile(&mut self, on: bool) {
        if let Mode::Native(n) = &mut self.mode {
            let slots = bind::slots(&n.tier.plan.steps) as usize;
            n.profile = on.then(|| Profile { nanos: vec![0; slots], runs: 0 });
        }
    }

    /// What was measured since profiling was switched on; `None` when it is off or portable.
    pub fn profile(&self) -> Option<&Profile> {
        match &self.mode {
            Mode::Native(n) => n.profile.as_ref(),
            Mode::Portable => None,
        }
    }
}

/// The value that lies in the caller's memory.
///
/// # Safety
/// It is readable for its length.
unsafe fn value_of(given: Option<&Given<'_>>) -> Result<Value, Error> {
    let Some(g) = given else {
        return Err(Error::Internal("a value without bytes".into()));
    };
    // SAFETY: by the caller's promise.
    let bytes = unsafe { g.bytes() };
    let t = Tensor::from_bytes(g.dtype, g.dims, &bytes[..g.need().unwrap_or(0)]);
    Ok(Value::from(t.map_err(|e| Error::Usage(e.to_string()))?))
}

// SAFETY: a session's raw pointers lead to memory that it owns (arena, heap, status word) or are
// dead between runs; nothing is bound to the thread that made it.
unsafe impl Send for Session {}

const _: fn() = || {
    fn sync<T: Send + Sync>() {}
    sync::<Model>();
    sync::<host::Shared>();
};
