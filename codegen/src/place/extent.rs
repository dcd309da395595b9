//! Refuses what no memory holds before anything is computed with its sizes.
//!
//! Lowerings and layouts multiply sizes that are constants (extents, pitches, estimates) in 64 bits.
//! With every tensor of at most 2^40 elements, and every geometry likewise, none of these products
//! overflows; sizes that are not constants are `Dim`s, whose arithmetic saturates.

use super::PlaceError;
use hub_abi::Dim;
use hub_abi::prim::{Geometry, Prim};
use hub_ir::{Graph, Node, Op, Type, Value};

/// Elements of a tensor (axes of none left out), or taps, or a step of a geometry.
const MOST: i64 = 1 << 40;

/// Every value and geometry of a graph.
///
/// # Errors
/// The first that is too large, by its node.
pub fn check(g: &Graph) -> Result<(), PlaceError> {
    let at = |n: Option<Node>| n.map_or(String::new(), |n| g.nodes[n].name.clone());
    for r in g.live_regions() {
        for &v in &g.regions[r].params {
            value(g, v, &at(None))?;
        }
        for &n in &g.regions[r].nodes {
            let node = &g.nodes[n];
            for v in node.outputs.iter().filter_map(|v| v.some()) {
                value(g, v, &node.name)?;
            }
            if let Op::Prim(p) = &node.op {
                prim(p, &node.name)?;
            }
        }
    }
    Ok(())
}

fn value(g: &Graph, v: Value, node: &str) -> Result<(), PlaceError> {
    let Type::Tensor(t) = g.ty(v) else { return Ok(()) };
    let known = t.dims.iter().filter_map(Dim::as_const).filter(|&d| d != 0);
    small(known, node, "a tensor's number of elements")
}

fn prim(p: &Prim, node: &str) -> Result<(), PlaceError> {
    let (geo, kernel) = match p {
        Prim::Conv { geo, .. } | Prim::ConvTranspose { geo, .. } => (geo, &[][..]),
        Prim::Window { geo, kernel, .. } | Prim::WindowArgMax { geo, kernel, .. } => {
            (geo, &kernel[..])
        }
        _ => return Ok(()),
    };
    small(kernel.iter().copied(), node, "a window's number of taps")?;
    let Geometry { stride, dilation, before, after } = geo;
    let steps = stride.iter().chain(dilation).copied();
    let edges = before.iter().chain(after).filter_map(Dim::as_const);
    for step in steps.chain(edges) {
        small([step], node, "a window's step or padding")?;
    }
    Ok(())
}

fn small(
    factors: impl IntoIterator<Item = i64>,
    node: &str,
    what: &'static str,
) -> Result<(), PlaceError> {
    let need = factors.into_iter().fold(1i64, |n, f| n.saturating_mul(f.saturating_abs()));
    if need <= MOST { Ok(()) } else { Err(PlaceError::Limit { node: node.into(), what, need }) }
}

#[cfg(test)]
mod tests {
    use super::super::{PlaceError, compile};
    use crate::place::Backend;
    use crate::targets::x86::X86Backend;

    fn compiled(text: &str) -> Result<(), PlaceError> {
        let mut g = hub_ir::text::parse(text).expect("a graph");
        let avx2 = X86Backend::of_tier("avx2").expect("a tier");
        compile(&mut g, &[&avx2 as &dyn Backend], &Default::default()).map(|_| ())
    }

    /// A fuzzer's: the estimate of a row's scratch overflowed.
    #[test]
    fn what_no_memory_holds_is_not_compiled() {
        let most = i64::MAX;
        let row = |dims: &str| {
            format!(
                "graph(%0: f32[{dims}] \"x\") {{\n  %1: f32[] = reduce(%0) {{axes: [0, 1], \
                 keep: false, op: Sum}} \"sum\"\n  return %1 \"y\"\n}}"
            )
        };
        let pool = |kernel: i64, channels: i64| {
            format!(
                "graph(%0: f32[1, {channels}, 4] \"x\") {{\n  %1: f32[1, {channels}, 4] = \
                 window(%0) {{geo: {{after: [{after}], before: [0], dilation: [1], stride: [1]}}, \
                 kernel: [{kernel}], op: Max}} \"pool\"\n  return %1 \"y\"\n}}",
                after = kernel - 1
            )
        };
        for text in [
            row(&format!("{most}, 1")),
            row(&format!("0, {most}")),
            row("4294967296, 4294967296"),
            pool(2, most),
            pool(1 << 41, 3),
        ] {
            let e = compiled(&text).expect_err(&text);
            assert!(matches!(e, PlaceError::Limit { .. }), "{text}: {e}");
        }
        for text in [row("0, 4294967296"), row("3, 5"), pool(2, 3)] {
            compiled(&text).expect(&text);
        }
    }
}
