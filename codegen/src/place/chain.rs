//! Chains: a convolution whose only reader is a depthwise convolution becomes one group with it,
//! so that what lies between them stays in a core's caches ([`crate::lower::chain`]).
//!
//! Only what that lowering always takes is joined: f32, sizes that are known, filters that are
//! constants, and rows of which a core's second-level cache holds enough.

use hub_abi::Dtype;
use hub_abi::prim::Geometry;
use hub_ir::{Def, Graph, GroupKind, Node, Op, Prim, Region, Type, Value};
use std::collections::HashMap;

/// Bytes that the rows of a tile may take between the two.
const MOST_BYTES: i64 = 256 << 10;
/// Channels that are computed together, at least.
const CHANNELS: i64 = 32;

/// Joins all pairs.
pub fn chains(g: &mut Graph) {
    let uses = g.use_counts();
    for r in g.live_regions() {
        for n in g.regions[r].nodes.clone() {
            if let Some(first) = partner(g, r, n, &uses) {
                join(g, r, first, n);
            }
        }
    }
}

/// A group's only convolution.
fn convolution(g: &Graph, n: Node) -> Option<(Region, Node, &Geometry, i64)> {
    let Op::Group { kind: GroupKind::Conv, region } = g.nodes[n].op else { return None };
    let mut all = g.regions[region].nodes.iter().filter_map(|&m| match &g.nodes[m].op {
        Op::Prim(Prim::Conv { geo, groups }) => Some((region, m, geo, *groups)),
        _ => None,
    });
    all.next().filter(|_| all.next().is_none())
}

/// The value outside that an operand of an inner node is.
fn outside(g: &Graph, group: Node, region: Region, v: Value) -> Option<(usize, Value)> {
    match g.values[v].def {
        Def::Param(r, i) if r == region => Some((i as usize, g.nodes[group].inputs[i as usize])),
        _ => None,
    }
}

/// An f32 image of known sizes, with more than one pixel each way.
fn plain(g: &Graph, v: Value) -> bool {
    let known = |d: &hub_abi::Dim| d.as_const().is_some_and(|k| k > 0);
    match g.ty(v) {
        Type::Tensor(t) if t.dtype == Dtype::F32 && t.rank() == 4 => {
            t.dims.iter().all(known) && t.dims[2..].iter().all(|d| !d.is(1))
        }
        _ => false,
    }
}

/// The group that computes what depthwise group `n` of region `r` reads, if the two may be joined.
fn partner(g: &Graph, r: Region, n: Node, uses: &[u32]) -> Option<Node> {
    let (inner, conv, geo, groups) = convolution(g, n)?;
    let (at, mid) = outside(g, n, inner, g.nodes[conv].inputs[0])?;
    let (_, filter) = outside(g, n, inner, g.nodes[conv].inputs[1])?;
    let out = *g.nodes[n].outputs.first()?;
    let single = |v: Value| uses.get(v.0 as usize) == Some(&1);
    let w = g.as_const(filter)?;
    let f32s = |v: Value| g.as_const(v).is_some_and(|c| c.ty.dtype == Dtype::F32);
    let depthwise = f32s(filter) && groups > 1 && w.ty.dims[0].is(groups) && w.ty.dims[1].is(1);
    let inside = g.regions[inner].params[at];
    let read = |m: &Node| g.nodes[*m].inputs.iter().filter(|v| **v == inside).count();
    let once = g.regions[inner].nodes.iter().map(read).sum::<usize>() == 1;
    if !depthwise || !single(mid) || !once || !plain(g, mid) || !plain(g, out) {
        return None;
    }
    if g.nodes[n].outputs.len() != 1 || !holds_rows(g, mid, geo, &w.ty.dims) {
        return None;
    }
    let first = g.def(mid).filter(|m| g.regions[r].nodes.contains(m))?;
    let (inner, conv, _, groups) = convolution(g, first)?;
    let (_, x) = outside(g, first, inner, g.nodes[conv].inputs[0])?;
    let (_, filter) = outside(g, first, inner, g.nodes[conv].inputs[1])?;
    let dense = groups == 1 && f32s(filter) && g.nodes[first].outputs.len() == 1;
    (dense && plain(g, x) && g.regions[inner].results[0] != g.regions[inner].params[0])
        .then_some(first)
}

/// Does a tile hold so many rows that few are computed twice?
fn holds_rows(g: &Graph, mid: Value, geo: &Geometry, filter: &[hub_abi::Dim]) -> bool {
    let known = |d: &hub_abi::Dim| d.as_const();
    let pads =
        [&geo.before, &geo.after].into_iter().flatten().all(|d| known(d).is_some_and(|k| k >= 0));
    let (Some(h), Some(w), Some(taps)) =
        (known(&g.dims(mid)[2]), known(&g.dims(mid)[3]), known(&filter[2]))
    else {
        return false;
    };
    let reach = (taps - 1) * geo.dilation[0] + 1;
    let around = known(&geo.before[1]).unwrap_or(0) + known(&geo.after[1]).unwrap_or(0);
    let row = (w + around) * CHANNELS * 4;
    pads && (reach + 4 * geo.stride[0]).min(h + reach) * row <= MOST_BYTES
}

/// Makes `second` compute what `first` does too.
fn join(g: &mut Graph, r: Region, first: Node, second: Node) {
    let region = g.new_region();
    let mut inputs = vec![];
    let mut inner: HashMap<Value, Value> = HashMap::new();
    let mid = g.nodes[first].outputs[0];
    for n in [first, second] {
        let Op::Group { region: from, .. } = g.nodes[n].op else { unreachable!("a group") };
        for (i, v) in g.nodes[n].inputs.clone().into_iter().enumerate() {
            let param = g.regions[from].params[i];
            let new = if v == mid {
                let Op::Group { region: made, .. } = g.nodes[first].op else {
                    unreachable!("a group")
                };
                inner[&g.regions[made].results[0]]
            } else {
                inputs.push(v);
                let ty = g.ty(param).clone();
                g.add_param(region, ty)
            };
            inner.insert(param, new);
        }
        for m in g.regions[from].nodes.clone() {
            let ins = g.nodes[m].inputs.iter().map(|v| inner.get(v).copied().unwrap_or(*v));
            let ins = ins.collect();
            let types = g.nodes[m].outputs.iter().map(|&v| g.ty(v).clone()).collect();
            let (op, name) = (g.nodes[m].op.clone(), g.nodes[m].name.clone());
            let copy = g.make_node(op, ins, types, &name);
            g.regions[region].nodes.push(copy);
            let pairs = g.nodes[m].outputs.clone().into_iter().zip(g.nodes[copy].outputs.clone());
            inner.extend(pairs);
        }
        g.regions[region].results = g.regions[from].results.iter().map(|v| inner[v]).collect();
    }
    g.nodes[second].inputs = inputs;
    g.nodes[second].op = Op::Group { kind: GroupKind::Conv, region };
    g.regions[r].nodes.retain(|&n| n != first);
}
