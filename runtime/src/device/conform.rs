//! What a driver has to hold to, tried out: for whoever writes one, or has a device that we do not.
//!
//! Each check is one promise of `runtime/include/hub_device.h`. Operators are compared with the portable
//! primitives; a kernel with what whoever compiled it expects.

use super::far::Held;
use super::plugin::PluginDevice;
use super::table::{Table, foreign_version};
use super::{Driver, Kernels, Queue};
use crate::error::Error;
use hub_abi::dim::Dim;
use hub_abi::operator::Operator;
use hub_abi::plan::{Arg, KernelInfo, Plan, Step};
use hub_abi::prim::{Geometry, Prim, ReduceOp};
use hub_abi::{Dtype, device as abi};
use hub_portable::{Limits, Tensor, fold};
use std::path::Path;
use std::sync::Arc;

/// A check: what was tried, and what was found (good or bad).
pub struct Finding {
    /// The promise.
    pub what: String,
    /// What was seen, or what is wrong.
    pub result: Result<String, String>,
}

/// A kernel whose answer is known.
pub struct Sample {
    /// The program.
    pub code: Vec<u8>,
    /// Its only step, whose buffers are 0 (the input) and 1 (the output).
    pub step: Step,
    /// The kernel.
    pub kernel: KernelInfo,
    /// The input's f32.
    pub input: Vec<f32>,
    /// The output's f32, and how far from them the device's may be.
    pub output: Vec<f32>,
    /// See `output`.
    pub tolerance: f32,
}

type Checked = Result<String, String>;

fn said<T>(r: Result<T, Error>) -> Result<T, String> {
    r.map_err(|e| e.to_string())
}

fn ensure(holds: bool, what: impl Into<String>) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what.into()) }
}

/// Tries out the driver in a library, on its device of that number.
pub fn conform(library: &Path, index: u32, tier: &str, sample: &Sample) -> Vec<Finding> {
    let mut all = vec![];
    let mut add = |what: &str, result: Checked| {
        let good = result.is_ok();
        all.push(Finding { what: what.into(), result });
        good
    };
    let table = said(Table::load(library));
    let version = table.as_ref().map_err(String::clone).and_then(|t| versions(t, library, tier));
    if !add("versions, name, tiers, capabilities", version) {
        return all;
    }
    let Ok(table) = table else { return all };
    add("a device that is not there is refused, with a text", absent(&table));
    let device = said(PluginDevice::at(library, index));
    let Ok(device) = device.map_err(|e| add("the device opens", Err(e))) else { return all };
    add("the device opens and says its name", device.describe());
    let plan = Plan { tier: tier.into(), ..Plan::default() };
    let empty = said(device.load(b"\n", &plan));
    let Ok(empty) = empty.map_err(|e| add("an empty program is made ready", Err(e))) else {
        return all;
    };
    add("memory: aligned, apart, keeps what is written", memory(&empty));
    add("queues: two at once, each in order", queues(&empty));
    add("memory is given back and reserved again", again(&empty));
    if table.caps() & abi::OPS == 0 {
        add("operators", Ok("the driver has none".into()));
    } else {
        add("an operator that is not there is refused", no_operator(&device));
        for (name, p) in problems() {
            add(&format!("operator {name}"), operator(&device, &plan, &p));
        }
    }
    add("a program that is none is refused", nonsense(&device, &plan, sample));
    add("a kernel", kernel(&device, &plan, sample));
    if table.caps() & abi::GRAPHS != 0 {
        add("launches are recorded, then replayed", recorded(&device, &plan, sample));
    }
    all
}

fn versions(t: &Table, library: &Path, tier: &str) -> Checked {
    let seen = t.said();
    ensure(t.tiers().iter().any(|s| s == tier), format!("{seen}, not {tier}"))?;
    let status = said(foreign_version(library))?;
    ensure(status == 3, format!("version 4000 of the table gives {status}, not 3"))?;
    Ok(seen)
}

fn absent(t: &Table) -> Checked {
    let n = said(t.count())?;
    match t.open(n + 1000) {
        Ok(_) => Err(format!("device {} of {n} opens", n + 1000)),
        Err(e) => {
            let text = e.to_string();
            ensure(text.len() > 24, "no text")?;
            Ok(format!("{n} device(s)"))
        }
    }
}

fn pattern(n: usize, seed: u32) -> Vec<u8> {
    (0..n as u32).map(|i| (i.wrapping_mul(2_654_435_761).wrapping_add(seed) >> 13) as u8).collect()
}

fn memory(k: &Arc<dyn Kernels>) -> Checked {
    let queue = said(k.queue())?;
    let mut held = vec![];
    for (i, n) in [1usize, 31, 256, 4097, 1 << 20, (5 << 20) + 3].into_iter().enumerate() {
        let bytes = pattern(n, i as u32);
        let m = said(Held::new(k, n))?;
        ensure(m.at != 0 && m.at % 256 == 0, format!("address {:#x}", m.at))?;
        said(queue.write(m.at, &bytes))?;
        held.push((m, bytes));
    }
    for (i, (a, _)) in held.iter().enumerate() {
        let apart = |b: &Held| a.at + a.len as u64 <= b.at || b.at + b.len as u64 <= a.at;
        ensure(held[..i].iter().all(|(b, _)| apart(b)), "memories overlap")?;
    }
    // A part of one, at an odd place.
    let (large, bytes) = &mut held[4];
    let part = pattern(333, 99);
    said(queue.write(large.at + 777, &part))?;
    bytes[777..777 + 333].copy_from_slice(&part);
    for (m, want) in &held {
        let mut got = vec![0; want.len()];
        said(queue.read(&mut got, m.at))?;
        ensure(got == *want, format!("{} bytes do not come back", want.len()))?;
    }
    Ok("1 byte to 5 MiB".into())
}

fn queues(k: &Arc<dyn Kernels>) -> Checked {
    let (a, b) = (said(k.queue())?, said(k.queue())?);
    let m = [said(Held::new(k, 64))?, said(Held::new(k, 64))?];
    for i in 0..50 {
        said(a.write(m[0].at, &[i; 64]))?;
        said(b.write(m[1].at, &[i + 100; 64]))?;
    }
    let mut got = [[0; 64]; 2];
    said(a.read(&mut got[0], m[0].at))?;
    said(b.read(&mut got[1], m[1].at))?;
    ensure(got == [[49; 64], [149; 64]], "the last write is not what is read")?;
    Ok("50 writes each".into())
}

fn again(k: &Arc<dyn Kernels>) -> Checked {
    for _ in 0..200 {
        said(Held::new(k, 4 << 20))?;
    }
    Ok("200 times 4 MiB".into())
}

/// An operator, its operands' dims and strides, and what it means.
struct Problem {
    operator: &'static str,
    attributes: String,
    dtype: Dtype,
    inputs: Vec<(Vec<usize>, Vec<usize>)>,
    output: (Vec<usize>, Vec<usize>),
    /// On operands that are dense, with all their axes; a copy where there is none.
    prim: Option<Prim>,
}

fn dense(dims: &[usize]) -> (Vec<usize>, Vec<usize>) {
    let stride = |a: usize| dims[a + 1..].iter().product();
    (dims.to_vec(), (0..dims.len()).map(stride).collect())
}

fn geometry(stride: i64, pads: [i64; 4]) -> (Geometry, String) {
    let dims = |p: &[i64]| p.iter().map(|n| Dim::from(*n)).collect();
    let (s, d) = (vec![stride; 2], vec![1; 2]);
    let text = format!("\"strides\":{s:?},\"dilations\":{d:?},\"paddings\":{pads:?}");
    let (before, after) = (dims(&pads[..2]), dims(&pads[2..]));
    (Geometry { stride: s, dilation: d, before, after }, text)
}

fn problems() -> Vec<(String, Problem)> {
    let mut all = vec![];
    let mut product = |name: &str, a, b, output, labels: [&[u8]; 3]| {
        let [la, lb, lc] = labels.map(<[u8]>::to_vec);
        let prim = Some(Prim::Contract { a: la, b: lb, out: lc });
        let attributes = "{}".to_string();
        let p = Problem {
            operator: "MatMul",
            attributes,
            dtype: Dtype::F32,
            inputs: vec![a, b],
            output,
            prim,
        };
        all.push((format!("MatMul, {name}"), p));
    };
    product(
        "5x7 by 7x3",
        dense(&[5, 7]),
        dense(&[7, 3]),
        dense(&[5, 3]),
        [&[0, 1], &[1, 2], &[0, 2]],
    );
    product(
        "of a transposed view",
        dense(&[64, 96]),
        (vec![96, 48], vec![1, 96]),
        dense(&[64, 48]),
        [&[0, 1], &[1, 2], &[0, 2]],
    );
    product(
        "batched, between other axes",
        (vec![2, 3, 8, 16], vec![384, 16, 48, 1]),
        (vec![2, 3, 16, 8], vec![384, 16, 1, 48]),
        dense(&[2, 3, 8, 8]),
        [&[0, 1, 2, 3], &[0, 1, 3, 4], &[0, 1, 2, 4]],
    );
    let mut image = |name: &str, operator, attributes: String, shapes: [&[usize]; 3], prim| {
        let [x, w, y] = shapes;
        let inputs = [x, w].into_iter().filter(|d| !d.is_empty()).map(dense).collect();
        let (output, dtype) = (dense(y), Dtype::F32);
        let p = Problem { operator, attributes, dtype, inputs, output, prim: Some(prim) };
        all.push((format!("{operator}, {name}"), p));
    };
    let (geo, text) = geometry(1, [1, 1, 1, 1]);
    let attributes = format!("{{{text},\"groups\":1}}");
    let conv = Prim::Conv { geo, groups: 1 };
    image(
        "3x3",
        "Convolution",
        attributes,
        [&[1, 8, 12, 12], &[16, 8, 3, 3], &[1, 16, 12, 12]],
        conv,
    );
    let (geo, text) = geometry(2, [1, 1, 1, 1]);
    let attributes = format!("{{{text},\"groups\":16}}");
    let conv = Prim::Conv { geo, groups: 16 };
    image(
        "depthwise, stride 2",
        "Convolution",
        attributes,
        [&[2, 16, 9, 9], &[16, 1, 3, 3], &[2, 16, 5, 5]],
        conv,
    );
    let (geo, text) = geometry(2, [0, 0, 1, 1]);
    let attributes = format!("{{{text},\"kernel\":[3, 3]}}");
    let max = Prim::Window { op: ReduceOp::Max, kernel: vec![3, 3], geo };
    image("padded after", "MaxPool", attributes, [&[1, 8, 12, 12], &[], &[1, 8, 6, 6]], max);
    let (geo, text) = geometry(1, [1, 1, 1, 1]);
    let attributes = format!("{{{text},\"kernel\":[3, 3]}}");
    let sum = Prim::Window { op: ReduceOp::Sum, kernel: vec![3, 3], geo };
    image("3x3", "SumPool", attributes, [&[1, 8, 6, 6], &[], &[1, 8, 6, 6]], sum);
    for (name, dtype, from, to) in [
        ("transposed f32", Dtype::F32, (vec![6, 10], vec![1, 6]), dense(&[6, 10])),
        ("bytes with gaps", Dtype::U8, dense(&[3, 5]), (vec![3, 5], vec![17, 2])),
        ("i64 that spreads", Dtype::I64, (vec![4, 3], vec![0, 1]), dense(&[4, 3])),
    ] {
        let p = Problem {
            operator: "Copy",
            attributes: "{}".into(),
            dtype,
            inputs: vec![from],
            output: to,
            prim: None,
        };
        all.push((format!("Copy, {name}"), p));
    }
    all
}

/// Bytes that a view spans.
fn span((dims, strides): &(Vec<usize>, Vec<usize>), size: usize) -> usize {
    (1 + dims.iter().zip(strides).map(|(d, s)| (d - 1) * s).sum::<usize>()) * size
}

/// Calls `f` with the number of each element and the byte where it lies.
fn each((dims, strides): &(Vec<usize>, Vec<usize>), size: usize, mut f: impl FnMut(usize, usize)) {
    for i in 0..dims.iter().product::<usize>() {
        let (mut rest, mut at) = (i, 0);
        for a in (0..dims.len()).rev() {
            at += rest % dims[a] * strides[a];
            rest /= dims[a];
        }
        f(i, at * size);
    }
}

/// An operator as the only kernel of a program.
fn record(p: &Problem) -> (Plan, Vec<u8>, Vec<u64>) {
    let types = |v: &(Vec<usize>, Vec<usize>)| (p.dtype, v.0.len());
    let op = Operator {
        name: p.operator.into(),
        inputs: p.inputs.iter().map(types).collect(),
        outputs: vec![types(&p.output)],
        attributes: p.attributes.clone(),
    };
    let code = format!("{op}\n").into_bytes();
    let info = KernelInfo {
        name: "operator".into(),
        offset: 0,
        len: code.len() as u64,
        schedule: String::new(),
        shares: vec![],
        scratch: 0,
    };
    let views = p.inputs.iter().chain([&p.output]);
    let sizes = views.flat_map(|(d, s)| d.iter().chain(s).map(|n| *n as u64)).collect();
    (Plan { kernels: vec![info], ..Plan::default() }, code, sizes)
}

fn operator(device: &PluginDevice, plan: &Plan, p: &Problem) -> Checked {
    let (mut mine, code, sizes) = record(p);
    mine.tier.clone_from(&plan.tier);
    let k = said(device.load(&code, &mine))?;
    let (queue, size) = (said(k.queue())?, p.dtype.size());
    let mut worst = 0f64;
    // Once prepared, run at two places.
    for round in 0..2u32 {
        let (mut held, mut tensors) = (vec![], vec![]);
        for (i, v) in p.inputs.iter().enumerate() {
            let (bytes, t) = data(p.dtype, v, 7 * round + i as u32)?;
            held.push(said(Held::with(&k, &bytes))?);
            tensors.push(t);
        }
        let before = vec![0xEE; span(&p.output, size)];
        held.push(said(Held::with(&k, &before))?);
        let addresses = held.iter().map(|h| h.at);
        let args: Vec<u64> = addresses.chain(sizes.iter().copied()).collect();
        said(queue.prepare(0, &args))?;
        // SAFETY: memory is there for every element of every tensor.
        said(unsafe { queue.launch(0, &args, 1) })?;
        let mut got = vec![0; before.len()];
        said(queue.read(&mut got, held[held.len() - 1].at))?;
        let want = match &p.prim {
            Some(prim) => {
                let made = fold(prim, &tensors, &Limits::default()).map_err(|e| e.to_string())?;
                made.into_iter().next().ok_or("no result")?
            }
            None => tensors[0].clone(),
        };
        worst = worst.max(compare(p, &got, want.bytes())?);
    }
    Ok(format!("off by {worst:.1e}"))
}

/// Memory that holds a view of small numbers, and the tensor that it is.
fn data(
    dtype: Dtype,
    view: &(Vec<usize>, Vec<usize>),
    seed: u32,
) -> Result<(Vec<u8>, Tensor), String> {
    let size = dtype.size();
    let noise = pattern(span(view, size) / size, seed);
    let mut bytes = Vec::with_capacity(noise.len() * size);
    for b in noise {
        match dtype {
            Dtype::F32 => bytes.extend((f32::from(b) / 64.0 - 2.0).to_le_bytes()),
            Dtype::I64 => bytes.extend(i64::from(b).to_le_bytes()),
            _ => bytes.push(b),
        }
    }
    let mut dense = vec![0; view.0.iter().product::<usize>() * size];
    each(view, size, |i, at| {
        dense[i * size..(i + 1) * size].copy_from_slice(&bytes[at..at + size]);
    });
    let tensor = Tensor::from_bytes(dtype, &view.0, &dense).map_err(|e| e.to_string())?;
    Ok((bytes, tensor))
}

fn compare(p: &Problem, got: &[u8], want: &[u8]) -> Result<f64, String> {
    let (size, mut worst, mut greatest) = (p.dtype.size(), 0f64, 0f64);
    let (mut equal, mut touched) = (true, vec![false; got.len()]);
    each(&p.output, size, |i, at| {
        let (g, w) = (&got[at..at + size], &want[i * size..(i + 1) * size]);
        touched[at..at + size].fill(true);
        let float = |b: &[u8]| f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
        if p.dtype == Dtype::F32 {
            worst = worst.max(f64::from((float(g) - float(w)).abs()));
            greatest = greatest.max(f64::from(float(w).abs()));
        }
        equal &= p.dtype == Dtype::F32 || g == w;
    });
    ensure(equal, "a copy of other elements")?;
    let stray = got.iter().zip(&touched).position(|(b, t)| !t && *b != 0xEE);
    ensure(stray.is_none(), format!("byte {stray:?}, between elements, is written"))?;
    let rel = if greatest > 0.0 { worst / greatest } else { worst };
    ensure(rel <= 1e-4, format!("off by {rel:.1e} of the greatest"))?;
    Ok(rel)
}

fn no_operator(device: &PluginDevice) -> Checked {
    let mut p = problems().remove(0).1;
    p.operator = "NoSuchOperator";
    let (mut plan, code, sizes) = record(&p);
    plan.tier = device.tiers().first().cloned().unwrap_or_default();
    let k = said(device.load(&code, &plan))?;
    let queue = said(k.queue())?;
    let args: Vec<u64> = [256; 3].into_iter().chain(sizes).collect();
    match queue.prepare(0, &args) {
        Ok(()) => Err("it is prepared".into()),
        Err(e @ Error::Unsupported(_)) => Ok(e.to_string()),
        Err(e) => Err(format!("not as unsupported: {e}")),
    }
}

fn nonsense(device: &PluginDevice, plan: &Plan, sample: &Sample) -> Checked {
    let mine = Plan {
        kernels: vec![sample.kernel.clone()],
        steps: vec![sample.step.clone()],
        ..plan.clone()
    };
    let code = b"__global__ __vector__ void nonsense(int a) { return a +; }";
    match device.load(code, &mine) {
        Ok(_) => Err("it is taken".into()),
        Err(e) => Ok(format!("{} bytes of text", e.to_string().len())),
    }
}

/// The sample, ready to be launched.
struct Ready<'a> {
    sample: &'a Sample,
    queue: Box<dyn Queue>,
    to: Held,
    args: Vec<u64>,
    tiles: u64,
    _held: [Held; 2],
}

impl<'a> Ready<'a> {
    fn of(device: &PluginDevice, plan: &Plan, s: &'a Sample) -> Result<Ready<'a>, String> {
        let (kernels, steps) = (vec![s.kernel.clone()], vec![s.step.clone()]);
        let k = said(device.load(&s.code, &Plan { kernels, steps, ..plan.clone() }))?;
        let bytes: Vec<u8> = s.input.iter().flat_map(|x| x.to_le_bytes()).collect();
        let from = said(Held::with(&k, &bytes))?;
        let to = said(Held::new(&k, 4 * s.output.len()))?;
        let status = said(Held::with(&k, &[0; 4]))?;
        let Step::Kernel { args, tiles, .. } = &s.step else {
            return Err("no kernel's step".into());
        };
        let number = |d: &Dim| d.as_const().ok_or_else(|| format!("{d} is not known"));
        let one = |a: &Arg| {
            Ok(match a {
                Arg::Size(d) => number(d)? as u64,
                Arg::Status => status.at,
                Arg::Ptr { buf, offset, .. } => {
                    let base = if *buf == 0 { from.at } else { to.at };
                    base.wrapping_add(number(offset)? as u64)
                }
            })
        };
        let args = args.iter().map(one).collect::<Result<Vec<u64>, String>>()?;
        let (queue, tiles) = (said(k.queue())?, number(tiles)? as u64);
        Ok(Ready { sample: s, queue, to, args, tiles, _held: [from, status] })
    }

    /// Writes something else over the output.
    fn clear(&self) -> Result<(), String> {
        said(self.queue.write(self.to.at, &vec![0xEE; self.to.len]))
    }

    fn launch(&self) -> Result<(), String> {
        // SAFETY: the kernel is made for memory of these sizes.
        said(unsafe { self.queue.launch(0, &self.args, self.tiles) })
    }

    fn output(&self) -> Result<Vec<u8>, String> {
        let mut got = vec![0; self.to.len];
        said(self.queue.read(&mut got, self.to.at))?;
        Ok(got)
    }

    /// How far the output is from what is expected.
    fn answer(&self) -> Result<f32, String> {
        let mut worst = 0f32;
        for (g, w) in self.output()?.chunks_exact(4).zip(&self.sample.output) {
            let g = f32::from_le_bytes([g[0], g[1], g[2], g[3]]);
            // (A NaN is not within anything.)
            ensure((g - w).abs() <= self.sample.tolerance, format!("{g} for {w}"))?;
            worst = worst.max((g - w).abs());
        }
        Ok(worst)
    }
}

fn kernel(device: &PluginDevice, plan: &Plan, s: &Sample) -> Checked {
    let (ready, mut worst) = (Ready::of(device, plan, s)?, 0f32);
    for _ in 0..2 {
        ready.clear()?;
        ready.launch()?;
        worst = worst.max(ready.answer()?);
    }
    Ok(format!("{} elements, off by {worst:.1e}", s.output.len()))
}

fn recorded(device: &PluginDevice, plan: &Plan, s: &Sample) -> Checked {
    let ready = Ready::of(device, plan, s)?;
    ready.clear()?;
    said(ready.queue.record())?;
    let put = ready.launch().and_then(|()| ready.launch());
    let made = said(ready.queue.recorded());
    put?;
    let made = made?;
    ensure(ready.output()?.iter().all(|b| *b == 0xEE), "what is recorded is done")?;
    for _ in 0..3 {
        ready.clear()?;
        said(ready.queue.replay(&made))?;
        ready.answer()?;
    }
    ensure(ready.queue.recorded().is_err(), "a recording that was not begun ends")?;
    // A recording that is given up leaves a queue that works.
    said(ready.queue.record())?;
    drop(said(ready.queue.recorded())?);
    drop(made);
    ready.clear()?;
    ready.launch()?;
    ready.answer()?;
    Ok("two launches, three times".into())
}
