//! Prepared operators: what each means, by the portable primitives on gathered operands.
//!
//! The primitives are what the fixtures' goldens and ONNX's suite judge; no compiled kernel has a part in
//! this. A copy is made here, element by element.

use crate::device::{Device, Queue};
use hub_abi::device::OpTensor;
use hub_abi::prim::{Geometry, Prim, ReduceOp};
use hub_abi::{Dim, Dtype};
use hub_plugin::{self as plugin, DEVICE, Failure, Got, REFUSED, UNSUPPORTED};
use hub_portable::{Limits, Tensor, fold};
use serde_json::Value;
use std::sync::Arc;

/// Bytes that products ask for as workspace, so that it is there and lies apart.
const WORKSPACE: u64 = 4096;

enum What {
    Copy,
    Prim(Prim),
}

/// An operator made ready.
pub struct Operator {
    name: String,
    what: What,
    inputs: Vec<OpTensor>,
    outputs: Vec<OpTensor>,
    workspace: u64,
}

fn bad<T>(status: i32, what: impl Into<String>) -> Got<T> {
    Err(Failure::new(status, what))
}

fn list(v: &Value, key: &str) -> Got<Vec<i64>> {
    let found =
        v[key].as_array().map(|a| a.iter().map(Value::as_i64).collect::<Option<Vec<i64>>>());
    found.flatten().ok_or_else(|| Failure::new(REFUSED, format!("attribute '{key}' is no list")))
}

fn geometry(v: &Value) -> Got<Geometry> {
    let pads = list(v, "paddings")?;
    let (before, after) = pads.split_at(pads.len() / 2);
    let dims = |p: &[i64]| p.iter().map(|n| Dim::from(*n)).collect();
    Ok(Geometry {
        stride: list(v, "strides")?,
        dilation: list(v, "dilations")?,
        before: dims(before),
        after: dims(after),
    })
}

impl plugin::Operator<Device> for Operator {
    fn new(
        _: &Arc<Device>,
        name: &str,
        attributes: &str,
        ins: &[OpTensor],
        outs: &[OpTensor],
    ) -> Got<Operator> {
        let v: Value = serde_json::from_str(attributes)
            .map_err(|e| Failure::new(REFUSED, format!("attributes of {name}: {e}")))?;
        let (mut workspace, arity) =
            (0, if matches!(name, "MatMul" | "Convolution") { 2 } else { 1 });
        let what = match name {
            "Copy" => What::Copy,
            "MatMul" => {
                workspace = WORKSPACE;
                What::Prim(product(ins, outs)?)
            }
            "Convolution" => {
                let groups = v["groups"].as_i64().unwrap_or(0);
                What::Prim(Prim::Conv { geo: geometry(&v)?, groups })
            }
            "MaxPool" | "SumPool" => {
                let op = if name == "MaxPool" { ReduceOp::Max } else { ReduceOp::Sum };
                What::Prim(Prim::Window { op, kernel: list(&v, "kernel")?, geo: geometry(&v)? })
            }
            _ => return bad(UNSUPPORTED, format!("there is no operator {name}")),
        };
        if ins.len() != arity || outs.len() != 1 {
            return bad(REFUSED, format!("{name} of {} and {} tensors", ins.len(), outs.len()));
        }
        for t in ins.iter().chain(outs) {
            let n = usize::try_from(t.rank).ok().filter(|n| *n <= 8);
            let known = n.and_then(|n| {
                Dtype::from_onnx(t.dtype).filter(|d| d.size() > 0)?;
                (0..n).all(|a| t.dims[a] >= 0 && t.strides[a] >= 0).then_some(())
            });
            if known.is_none() {
                return bad(REFUSED, format!("{name} of a tensor {t:?}"));
            }
        }
        Ok(Operator {
            name: name.into(),
            what,
            inputs: ins.to_vec(),
            outputs: outs.to_vec(),
            workspace,
        })
    }

    fn workspace(&self) -> u64 {
        self.workspace
    }

    fn tensors(&self) -> usize {
        self.inputs.len() + self.outputs.len()
    }

    unsafe fn run(self: &Arc<Self>, queue: &Queue, addresses: &[u64], workspace: u64) -> Got<()> {
        let (me, addresses) = (self.clone(), addresses.to_vec());
        queue.put(move |d| {
            let done = me.compute(d, &addresses, workspace);
            done.map_err(|e| Failure { what: format!("operator {}: {}", me.name, e.what), ..e })
        });
        Ok(())
    }
}

impl Operator {
    fn compute(&self, d: &Device, addresses: &[u64], workspace: u64) -> Got<()> {
        let (from, to) = addresses.split_at(self.inputs.len());
        let ins: Vec<View> = self.inputs.iter().zip(from).map(|(t, a)| View::new(t, *a)).collect();
        let outs: Vec<View> = self.outputs.iter().zip(to).map(|(t, a)| View::new(t, *a)).collect();
        for v in ins.iter().chain(&outs) {
            if v.at % v.size != 0 {
                return bad(DEVICE, format!("a tensor at {:#x} is not aligned", v.at));
            }
        }
        for o in &outs {
            if ins.iter().any(|i| i.meets(o)) {
                return bad(DEVICE, "an output lies where an input does");
            }
            if self.workspace > 0
                && o.range().0 < workspace + self.workspace
                && workspace < o.range().1
            {
                return bad(DEVICE, "an output lies in the workspace");
            }
        }
        if self.workspace > 0 {
            // It is there, and nobody else's.
            d.write(workspace, &vec![0x5A; self.workspace as usize])?;
        }
        let bytes = ins.iter().map(|v| v.gather(d)).collect::<Got<Vec<_>>>()?;
        match &self.what {
            What::Copy => outs[0].scatter(d, &bytes[0]),
            What::Prim(p) => {
                let made = self.computed(p, &ins, &bytes)?;
                outs[0].scatter(d, made.bytes())
            }
        }
    }

    fn computed(&self, p: &Prim, ins: &[View], bytes: &[Vec<u8>]) -> Got<Tensor> {
        let failed = |e: hub_portable::PrimError| Failure::new(REFUSED, e.to_string());
        let product = matches!(p, Prim::Contract { .. });
        let tensors = ins.iter().zip(bytes).map(|(v, b)| {
            // A product's operand may be the same for all of an axis.
            let lead = if product { v.dims.len() - 2 } else { 0 };
            let one = |a: usize| a >= lead || v.dims[a] != 1;
            let dims = (0..v.dims.len()).filter(|a| one(*a)).map(|a| v.dims[a] as usize);
            Tensor::from_bytes(v.dtype, &dims.collect::<Vec<_>>(), b)
        });
        let tensors = tensors.collect::<Result<Vec<_>, _>>().map_err(failed)?;
        let limits = Limits { work: u64::MAX, ..Limits::default() };
        let made = fold(p, &tensors, &limits).map_err(failed)?;
        match made.into_iter().next() {
            Some(t) => Ok(t),
            None => bad(REFUSED, "no result"),
        }
    }
}

/// A product of matrices, leading axes of size 1 being left out of an operand.
fn product(ins: &[OpTensor], outs: &[OpTensor]) -> Got<Prim> {
    let ([a, b], [c]) = (ins, outs) else {
        return bad(REFUSED, "MatMul of other than two tensors");
    };
    let rank = c.rank;
    if rank < 2 || a.rank != rank || b.rank != rank {
        return bad(REFUSED, "MatMul of tensors of different ranks");
    }
    let n = rank as usize;
    let lead = |t: &OpTensor| -> Vec<u8> {
        (0..n - 2).filter(|i| t.dims[*i] != 1).map(|i| i as u8).collect()
    };
    let (row, column, sum) = (n as u8, n as u8 + 1, n as u8 + 2);
    let spread = |t: &OpTensor| (0..n - 2).all(|i| t.dims[i] == c.dims[i] || t.dims[i] == 1);
    let fits = a.dims[n - 2] == c.dims[n - 2]
        && b.dims[n - 1] == c.dims[n - 1]
        && a.dims[n - 1] == b.dims[n - 2]
        && (0..n - 2).all(|i| a.dims[i].max(b.dims[i]) == c.dims[i]);
    if !fits || !spread(a) || !spread(b) {
        return bad(REFUSED, "MatMul of tensors that do not fit");
    }
    Ok(Prim::Contract {
        a: lead(a).into_iter().chain([row, sum]).collect(),
        b: lead(b).into_iter().chain([sum, column]).collect(),
        out: lead(c).into_iter().chain([row, column]).collect(),
    })
}

/// A tensor in memory.
struct View {
    at: u64,
    dtype: Dtype,
    size: u64,
    dims: Vec<i64>,
    strides: Vec<i64>,
}

impl View {
    fn new(t: &OpTensor, at: u64) -> View {
        let dtype = Dtype::from_onnx(t.dtype).unwrap_or(Dtype::U8);
        let n = t.rank as usize;
        let (dims, strides) = (t.dims[..n].to_vec(), t.strides[..n].to_vec());
        View { at, dtype, size: dtype.size() as u64, dims, strides }
    }

    /// First byte, and the one after the last.
    fn range(&self) -> (u64, u64) {
        let reach: i64 = self.dims.iter().zip(&self.strides).map(|(d, s)| (d - 1).max(0) * s).sum();
        (self.at, self.at + (reach as u64 + 1) * self.size)
    }

    /// Addresses of rows of neighbours, and their lengths in elements, in order.
    fn runs(&self, f: &mut dyn FnMut(u64, usize) -> Got<()>) -> Got<()> {
        if self.dims.contains(&0) {
            return Ok(());
        }
        let n = self.dims.len();
        let near = n > 0 && self.strides[n - 1] == 1;
        let (outer, len) = if near { (n - 1, self.dims[n - 1] as usize) } else { (n, 1) };
        let mut at = vec![0i64; outer];
        loop {
            let offset: i64 = at.iter().zip(&self.strides).map(|(i, s)| i * s).sum();
            f(self.at + offset as u64 * self.size, len)?;
            let Some(a) = (0..outer).rev().find(|&a| at[a] + 1 < self.dims[a]) else {
                return Ok(());
            };
            at[a] += 1;
            at[a + 1..].fill(0);
        }
    }

    /// The elements in order.
    fn gather(&self, d: &Device) -> Got<Vec<u8>> {
        let mut out = vec![];
        self.runs(&mut |at, n| {
            let first = out.len();
            out.resize(first + n * self.size as usize, 0);
            d.read(at, &mut out[first..])
        })?;
        Ok(out)
    }

    fn scatter(&self, d: &Device, bytes: &[u8]) -> Got<()> {
        let mut rest = bytes;
        self.runs(&mut |at, n| {
            let Some((now, later)) = rest.split_at_checked(n * self.size as usize) else {
                return bad(DEVICE, "a result of another size");
            };
            rest = later;
            d.write(at, now)
        })?;
        match rest.is_empty() {
            true => Ok(()),
            false => bad(DEVICE, "a result of another size"),
        }
    }

    /// Is an element of one of the other's bytes?
    fn meets(&self, o: &View) -> bool {
        let ((a, b), (c, d)) = (self.range(), o.range());
        let count = |v: &View| v.dims.iter().product::<i64>();
        if a >= d || c >= b || count(self) == 0 || count(o) == 0 {
            return false;
        }
        let mut mine = vec![];
        let _ = self.runs(&mut |at, n| {
            mine.push((at, at + n as u64 * self.size));
            Ok(())
        });
        mine.sort_unstable();
        let mut met = false;
        let _ = o.runs(&mut |at, n| {
            let end = at + n as u64 * o.size;
            let i = mine.partition_point(|m| m.1 <= at);
            met |= mine.get(i).is_some_and(|m| m.0 < end);
            Ok(())
        });
        met
    }
}
