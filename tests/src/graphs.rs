//! Graphs built by hand, through every tier: compiled, written, opened, run, and beside the
//! portable meaning of the graph before any pass.

use hub_abi::bundle::{BundleWriter, Manifest, TierCode};
use hub_codegen::place::{self, Backend};
use hub_codegen::targets::x86::X86Backend;
use hub_ir::{Builder, Graph, Value};
use hub_portable::{BytesStore, Limits, Tensor};
use hub_runtime::{Model, OpenOptions, Session, SessionOptions};
use std::path::Path;
use std::sync::Arc;

/// A graph whose root `build` makes; its values are the outputs.
pub fn graph(mut g: Graph, build: impl FnOnce(&mut Builder<'_>) -> Vec<Value>) -> Graph {
    let root = g.root();
    let mut b = Builder::new(&mut g, "test");
    let outs = build(&mut b);
    b.into_region(root);
    for (i, v) in outs.into_iter().enumerate() {
        g.add_output(&format!("y{i}"), v);
    }
    g
}

/// What a graph means: the portable interpreter on it, before any pass.
pub fn reference(
    g: &Graph,
    inputs: &[hub_portable::Value],
) -> Result<Vec<hub_portable::Value>, String> {
    let (pg, store) = hub_ir::portable::to_portable(g).map_err(|e| e.to_string())?;
    let mut flat = vec![0; store.len as usize];
    for (at, b) in &store.pieces {
        flat[*at as usize..*at as usize + b.len()].copy_from_slice(b);
    }
    let flat = BytesStore::new(Arc::new(flat));
    hub_portable::run(&pg, &flat, inputs, &Limits::default()).map_err(|e| e.to_string())
}

/// Compiles a graph for AVX-512 and AVX2 into a bundle; gives what each tier leaves to the host.
pub fn export(g: &Graph, bundle: &Path) -> Vec<Vec<(String, String)>> {
    let mut g = g.clone();
    let options = hub_passes::Options { check_ir: true, ..hub_passes::Options::default() };
    hub_passes::optimize(&mut g, &options).expect("passes");
    let of = |t| X86Backend::of_tier(t).expect("a tier");
    let backends = [of("avx512"), of("avx2")];
    let backends: Vec<&dyn Backend> = backends.iter().map(|b| b as &dyn Backend).collect();
    let mut c = place::compile(&mut g, &backends, &place::Limits::default()).expect("compiles");
    let mut w = BundleWriter::new(Manifest::of("test", &c.graph), Default::default());
    c.lay_out(&mut |b| w.add_const(b)).expect("lays out");
    w.graph = c.graph;
    let host = c.tiers.iter().map(|t| t.refused.clone()).collect();
    w.tiers = c.tiers.into_iter().map(|t| TierCode { plan: t.plan, code: t.code }).collect();
    w.write(bundle).expect("writes");
    host
}

/// A session on a tier.
pub fn session(bundle: &Path, tier: &str, threads: usize) -> Session {
    let model = Model::open(bundle, &OpenOptions::default()).expect("opens");
    let tier = Some(tier.to_string());
    Session::new(&model, &SessionOptions { tier, threads, ..Default::default() }).expect("starts")
}

/// Runs each set of inputs in turn, twice, in one session a tier and thread count, beside the
/// reference: floats within `1e-4` of the greatest, all else equal; the same bits each time. Where
/// the reference fails, so must every tier. Gives what the first tier leaves to the host.
pub fn check(g: &Graph, sets: &[Vec<Tensor>]) -> Vec<(String, String)> {
    let dir = tempfile::tempdir().expect("a folder");
    let bundle = dir.path().join("m.hub");
    let host = export(g, &bundle);
    let values = |set: &Vec<Tensor>| -> Vec<hub_portable::Value> {
        set.iter().cloned().map(Into::into).collect()
    };
    let want: Vec<_> = sets.iter().map(|s| reference(g, &values(s))).collect();
    for tier in crate::tiers() {
        let mut first: Option<Vec<Option<Vec<hub_portable::Value>>>> = None;
        for threads in [1, 2] {
            let mut s = session(&bundle, tier, threads);
            for _ in 0..2 {
                let mut got = vec![];
                for (set, want) in sets.iter().zip(&want) {
                    let out = s.run_values(&values(set));
                    match (&out, want) {
                        (Ok(out), Ok(want)) => close(tier, out, want),
                        (Err(_), Err(_)) => {}
                        (Ok(_), Err(e)) => panic!("{tier}: answers where the reference says {e}"),
                        (Err(e), Ok(_)) => panic!("{tier} ×{threads}: {e}"),
                    }
                    got.push(out.ok());
                }
                let before = first.get_or_insert_with(|| got.clone());
                assert!(same(before, &got), "{tier} ×{threads}: other bits than before");
            }
        }
    }
    host.into_iter().next().unwrap_or_default()
}

fn same(a: &[Option<Vec<hub_portable::Value>>], b: &[Option<Vec<hub_portable::Value>>]) -> bool {
    let bits = |v: &[Option<Vec<hub_portable::Value>>]| -> Vec<String> {
        let one = |v: &hub_portable::Value| match v {
            hub_portable::Value::Tensor(t) => format!("{:?} {:?}", t.dims(), t.bytes()),
            v => format!("{v:?}"),
        };
        v.iter().flatten().flatten().map(one).collect()
    };
    bits(a) == bits(b)
}

fn close(tier: &str, got: &[hub_portable::Value], want: &[hub_portable::Value]) {
    assert_eq!(got.len(), want.len());
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        let (Ok(a), Ok(b)) = (got.tensor(), want.tensor()) else {
            assert_eq!(got, want, "{tier}: output {i}");
            continue;
        };
        assert_eq!((a.dtype(), a.dims()), (b.dtype(), b.dims()), "{tier}: output {i}");
        if a.dtype() != hub_abi::Dtype::F32 {
            assert_eq!(a, b, "{tier}: output {i}");
            continue;
        }
        let f = |t: &Tensor| -> Vec<f32> {
            let one = |c: &[u8]| f32::from_le_bytes([c[0], c[1], c[2], c[3]]);
            t.bytes().chunks_exact(4).map(one).collect()
        };
        let (a, b) = (f(a), f(b));
        let top = b.iter().fold(0f32, |m, x| m.max(x.abs()));
        for (j, (x, y)) in a.iter().zip(&b).enumerate() {
            let ok = x == y || (x - y).abs() <= 1e-4 * top || (x.is_nan() && y.is_nan());
            assert!(ok, "{tier}: output {i}, element {j}: {x} for {y} (greatest {top})");
        }
    }
}
