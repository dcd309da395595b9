//! Bundles whose hashes fit but whose tables were made by an enemy: typed errors, never a crash.
//! (Machine code is not mutated: trust in it is decided by `HUB_TRUST`.)

mod common;
use common::*;
use hub_abi::dtype::Dtype;
use hub_abi::pgraph::PGraph;
use hub_abi::plan::Plan;
use hub_runtime::{Limits, Model, OpenOptions, Session, SessionOptions, TensorView};

/// A small generator (xorshift), so that a failure names its seed.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % n
    }
}

/// Changes a few bytes of a value's encoding; `None` where it decodes no more.
fn mutate<T>(v: &T, r: &mut Random) -> Option<T>
where
    T: serde::Serialize + serde::de::DeserializeOwned,
{
    let mut b = postcard::to_stdvec(v).unwrap();
    for _ in 0..1 + r.below(3) {
        let at = r.below(b.len());
        match r.below(4) {
            0 => b[at] = r.below(256) as u8,
            1 => b[at] ^= 1 << r.below(8),
            2 => b[at] = b[at].wrapping_add(1),
            _ => b.insert(at, 0xff),
        }
    }
    postcard::from_bytes(&b).ok()
}

fn options(tier: Option<&str>) -> SessionOptions {
    let limits = Limits {
        tensor_bytes: 1 << 20,
        live_bytes: 1 << 22,
        steps: 10_000,
        work: 1 << 26,
        sequence: 1 << 10,
    };
    SessionOptions { threads: 1, tier: tier.map(String::from), limits, ..Default::default() }
}

type Make = fn() -> Writer;
const MODELS: [Make; 4] = [triple, pick, sum_rows, nonzero_twice];

#[test]
fn mutated_graphs_open_and_run_portable_or_are_refused() {
    let dir = Scratch::new("hostile-graph");
    let (mut ran, mut refused) = (0, 0);
    for seed in 1..=2000u64 {
        let mut r = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut w = MODELS[r.below(4)]();
        w.tiers.clear();
        let Some(g) = mutate::<PGraph>(&w.graph, &mut r) else { continue };
        if g.regions.get(g.root as usize).is_none_or(|root| {
            let all = root.params.iter().chain(&root.results);
            all.into_iter().any(|&v| v as usize >= g.values.len())
        }) {
            continue;
        }
        w.manifest = hub_abi::bundle::Manifest::of("x", &g);
        w.graph = g;
        let path = dir.0.join("m.hub");
        if w.write(&path).is_err() {
            refused += 1;
            continue;
        }
        let m = Model::open(&path, &OpenOptions::default()).unwrap();
        let mut s = Session::new(&m, &options(Some("portable"))).unwrap();
        let data = [1u8; 400];
        let infos = m.manifest().inputs.clone();
        let dims: Vec<Vec<usize>> = infos
            .iter()
            .map(|i| {
                let t = i.ty.as_tensor().map_or(&[][..], |t| &t.dims);
                t.iter().map(|d| d.as_const().unwrap_or(4).clamp(0, 5) as usize).collect()
            })
            .collect();
        let views: Vec<TensorView<'_>> = infos
            .iter()
            .zip(&dims)
            .map(|(i, dims)| TensorView {
                dtype: i.ty.as_tensor().map_or(Dtype::F32, |t| t.dtype),
                dims,
                data: &data,
            })
            .collect();
        ran += usize::from(s.run(&views).is_ok());
    }
    assert!(ran > 20 && refused > 50, "{ran} ran, {refused} refused");
}

#[test]
fn mutated_plans_bind_or_are_refused() {
    if !native() {
        return;
    }
    let dir = Scratch::new("hostile-plan");
    let (mut bound, mut refused) = (0, 0);
    for seed in 1..=2000u64 {
        let mut r = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let which = r.below(4);
        let mut w = MODELS[which]();
        let Some(plan) = mutate::<Plan>(&w.tiers[0].plan, &mut r) else { continue };
        w.tiers[0].plan = plan;
        w.tiers[0].plan.tier = "avx2".into();
        let path = dir.0.join("m.hub");
        if w.write(&path).is_err() {
            refused += 1;
            continue;
        }
        let m = Model::open(&path, &OpenOptions::default()).unwrap();
        let Ok(mut s) = Session::new(&m, &options(Some("avx2"))) else { continue };
        let dims: &[&[usize]] = match which {
            0 | 2 => &[&[7, 4]],
            1 => &[&[5], &[3]],
            _ => &[&[9]],
        };
        bound += usize::from(s.bind(dims).is_ok());
    }
    assert!(bound > 20 && refused > 50, "{bound} bound, {refused} refused");
}
