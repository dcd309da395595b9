//! Reference evaluation of graphs, and graphs before and after passes as text.
#![allow(dead_code)]

use hub_ir::portable::{Store, to_portable};
use hub_ir::text::{parse, print};
use hub_ir::verify::{Stage, verify};
use hub_ir::{Dtype, Graph, Value as Id};
use hub_passes::{Options, Report, run_until};
use hub_portable::{BytesStore, ConstStore, ExecFault, Limits, Tensor, Value};
use std::fmt::Write;
use std::sync::Arc;

/// Runs the passes up to `last`; gives the graph after as text, with what was refused by rules whose
/// name holds `about`. Fails where the outputs differ from those before.
pub fn check(text: &str, last: &str, about: &str) -> String {
    let (_, g, report) = run(text, last);
    after(&g, &report, about)
}

/// The graph before the pass `raise` (tidied by the passes ahead of it) and after it.
pub fn raised(text: &str, about: &str) -> String {
    let (before, g, report) = run(text, "raise");
    let mut tidy = before.clone();
    run_until(&mut tidy, &Options::default(), "cse-typed", &mut |_, _| {}).unwrap();
    format!("{}\n==>\n{}", print(&tidy).trim_end(), after(&g, &report, about))
}

fn after(g: &Graph, report: &Report, about: &str) -> String {
    let mut out = print(g);
    for r in report.refusals.iter().filter(|r| r.rule.contains(about)) {
        let _ = writeln!(out, "refused {}: {}", r.rule, r.why);
    }
    out
}

/// A graph, and what the passes up to `last` make of it: the same outputs, or it fails.
fn run(text: &str, last: &str) -> (Graph, Graph, Report) {
    let before = parse(text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    verify(&before, Stage::Imported).unwrap_or_else(|e| panic!("{e}"));
    let mut g = before.clone();
    let options = Options { check_ir: true, ..Options::default() };
    let report = run_until(&mut g, &options, last, &mut |_, _| {}).unwrap();
    let inputs = inputs(&before);
    let (want, got) = (outputs(&before, &inputs).unwrap(), outputs(&g, &inputs).unwrap());
    for (w, g) in want.iter().zip(&got) {
        let d = difference(w, g);
        assert!(d <= 1e-5, "differs by {d}\n{text}\n{}", print(&before));
    }
    (before, g, report)
}

/// Random inputs; a symbol is 3.
fn inputs(g: &Graph) -> Vec<Value> {
    let env = hub_abi::SymEnv(vec![Some(3); g.syms.len()]);
    let one = |(i, v): (usize, &Id)| {
        let dims: Vec<usize> =
            g.dims(*v).iter().map(|d| usize::try_from(d.eval(&env).unwrap()).unwrap()).collect();
        let x = random(&dims, i as u32 + 7);
        match (&x, g.dtype(*v)) {
            (Value::Tensor(t), Dtype::Bool) => {
                let bits = t.view::<f32>().unwrap().iter().map(|&x| u8::from(x > 0.0)).collect();
                let bits: Vec<u8> = bits;
                Value::Tensor(Tensor::from_bytes(Dtype::Bool, &dims, &bits).unwrap())
            }
            _ => x,
        }
    };
    g.regions[g.root()].params.iter().enumerate().map(one).collect()
}

/// A graph's text from one with names: `in NAME: TYPE`, `NAME: TYPE = op(args) {attrs}` (a number
/// among the arguments is a f32 scalar), `out NAME…`.
pub fn named(text: &str) -> String {
    let (mut params, mut body, mut names) = (vec![], String::new(), Vec::<String>::new());
    let id = |names: &[String], n: &str| names.iter().rposition(|x| x == n);
    for line in text.lines().map(str::trim).filter(|l| !l.is_empty()) {
        if let Some(rest) = line.strip_prefix("in ") {
            let (name, ty) = rest.split_once(": ").unwrap();
            params.push(format!("%{}: {ty} \"{name}\"", names.len()));
            names.push(name.to_string());
        } else if let Some(rest) = line.strip_prefix("out ") {
            let one = |n: &str| format!("%{} \"{n}\"", id(&names, n).unwrap());
            let all: Vec<String> = rest.split_whitespace().map(one).collect();
            let _ = writeln!(body, "  return {}", all.join(", "));
        } else {
            let (head, call) = line.split_once(" = ").unwrap();
            let (name, ty) = head.split_once(": ").unwrap();
            let Some((op, rest)) = call.split_once('(') else {
                let _ = writeln!(body, "  %{}: {ty} = {call}", names.len());
                names.push(name.to_string());
                continue;
            };
            let (args, attrs) = rest.split_once(')').unwrap();
            let mut ids = vec![];
            for a in args.split(", ").filter(|a| !a.is_empty()) {
                let at = id(&names, a).unwrap_or_else(|| {
                    let _ = writeln!(body, "  %{}: f32[] = const {a}", names.len());
                    names.push(String::new());
                    names.len() - 1
                });
                ids.push(format!("%{at}"));
            }
            let _ = writeln!(body, "  %{}: {ty} = {op}({}){attrs}", names.len(), ids.join(", "));
            names.push(name.to_string());
        }
    }
    format!("graph({}) {{\n{body}}}", params.join(", "))
}

/// Outputs of a graph by the portable interpreter.
pub fn outputs(g: &Graph, inputs: &[Value]) -> Result<Vec<Value>, String> {
    let (p, store) = to_portable(g).map_err(|e| e.to_string())?;
    hub_portable::run(&p, &Pieces(store), inputs, &Limits::default()).map_err(|e| e.to_string())
}

struct Pieces(Store);

impl ConstStore for Pieces {
    fn load(&self, p: &hub_abi::pgraph::PGraph, index: u32) -> Result<Tensor, ExecFault> {
        let at = p.consts[index as usize].offset;
        let i = self.0.pieces.partition_point(|piece| piece.0 < at);
        // Pieces of no bytes share an offset with the next.
        let len = p.consts[index as usize].len as usize;
        let found = self.0.pieces[i..].iter().take_while(|piece| piece.0 == at);
        let piece =
            found.map(|piece| &piece.1).find(|b| b.len() == len).expect("a constant's bytes");
        let mut local = p.clone_const(index);
        local.consts[0].offset = 0;
        BytesStore::new(Arc::new(piece.clone())).load(&local, 0)
    }
}

trait OneConst {
    fn clone_const(&self, i: u32) -> hub_abi::pgraph::PGraph;
}

impl OneConst for hub_abi::pgraph::PGraph {
    fn clone_const(&self, i: u32) -> hub_abi::pgraph::PGraph {
        let consts = vec![self.consts[i as usize].clone()];
        hub_abi::pgraph::PGraph { consts, ..Default::default() }
    }
}

/// A tensor of moderate pseudo-random floats.
pub fn random(dims: &[usize], seed: u32) -> Value {
    let n: usize = dims.iter().product();
    let xs: Vec<f32> = (0..n as u32)
        .map(|i| {
            let h = (i ^ seed.rotate_left(13)).wrapping_mul(2654435761).wrapping_add(seed);
            ((h ^ (h >> 15)).wrapping_mul(0x85eb_ca6b) >> 8) as f32 / 8388608.0 - 1.0
        })
        .collect();
    Value::Tensor(Tensor::new(dims, xs).unwrap())
}

/// Greatest difference over the greatest reference element; infinite where types, shapes,
/// non-finite elements or more than a thousandth of the integers differ.
pub fn difference(want: &Value, got: &Value) -> f64 {
    let (Value::Tensor(a), Value::Tensor(b)) = (want, got) else {
        return if format!("{want:?}") == format!("{got:?}") { 0.0 } else { f64::INFINITY };
    };
    if a.dtype() != b.dtype() || a.dims() != b.dims() {
        return f64::INFINITY;
    }
    if a.dtype() != Dtype::F32 {
        // An argmax may tie: one in a thousand may differ.
        let size = a.dtype().size().max(1);
        let pairs = a.bytes().chunks(size).zip(b.bytes().chunks(size));
        let unequal = pairs.filter(|(x, y)| x != y).count();
        return if unequal * 1000 <= a.count() { 0.0 } else { f64::INFINITY };
    }
    let (x, y) = (a.view::<f32>().unwrap(), b.view::<f32>().unwrap());
    let scale = x.iter().filter(|x| x.is_finite()).fold(1e-3f64, |m, x| m.max(f64::from(x.abs())));
    x.iter().zip(y.iter()).fold(0.0, |worst: f64, (&p, &q)| {
        let same = p == q || p.is_nan() && q.is_nan();
        let d = if same { 0.0 } else { f64::from((p - q).abs()) / scale };
        worst.max(if d.is_nan() { f64::INFINITY } else { d })
    })
}
