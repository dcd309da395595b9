//! Convolutions as multiply-accumulate problems: output pixels are rows, the input is broadcast with
//! overlapping rows, filters are packed by output channels. Any number of spatial axes.

use super::across;
use super::chain;
use super::contract::{anchor, param};
use super::contract_mac::{
    Axis, Body, Mac, PANEL, in_pairs, likely_count, lower_mac, refused, step_of, whole_pairs,
    worth_panels,
};
use super::cx::Made;
use super::depthwise;
use super::winograd;
use crate::target::Target;
use crate::task::{Format, Lowered, Operand, Refused, Task};
use hub_abi::Dim;
use hub_abi::pgraph::Packing;
use hub_abi::prim::{Geometry, Prim};
use hub_ir::Value;

/// Lowers a group around a [`Prim::Conv`].
///
/// # Errors
/// What placement has to do first, or why there is no native kernel.
pub fn lower(task: &Task<'_>, target: &Target) -> Result<Lowered, Refused> {
    if let Some(c) = chain::find(task)? {
        return chain::lower(&c, target);
    }
    with_conv(task, |c| {
        if across::applies(c, target) {
            return lower_mac(task, target, &across::problem(c)?);
        }
        match winograd::lower(c, target)? {
            Ok(made) => Ok(made),
            Err(choice) => lower_mac(task, &Target { choice, ..*target }, &mac(c, target)?),
        }
    })
}

/// The problem of a group around a [`Prim::Conv`].
///
/// # Errors
/// As [`lower`].
pub fn problem(task: &Task<'_>, target: &Target) -> Result<Mac, Refused> {
    with_conv(task, |c| mac(c, target))
}

fn mac(c: &Conv<'_, '_>, target: &Target) -> Result<Mac, Refused> {
    if c.is_depthwise() {
        return depthwise::problem(c.task, c);
    }
    c.build(target).map_err(refused)
}

/// Calls `f` with the convolution that a group is around.
///
/// # Errors
/// As [`lower`].
pub fn with_conv<T>(
    task: &Task<'_>,
    f: impl FnOnce(&Conv<'_, '_>) -> Result<T, Refused>,
) -> Result<T, Refused> {
    let (node, prim) = anchor(task, |p| matches!(p, Prim::Conv { .. }))?;
    let Prim::Conv { geo, groups } = prim else { unreachable!("the filter above") };
    let ins = &task.g.nodes[node].inputs;
    let (x, w) = (param(task, ins[0])?, param(task, ins[1])?);
    let out = task.g.nodes[node].outputs[0];
    padded(task, x, geo)?;
    f(&Conv { task, x, w, out, geo, groups: *groups })
}

/// Asks for a halo where a window may lie partly outside.
///
/// # Errors
/// [`Refused::Relayout`] to channel-last, which gives a halo.
pub fn padded(task: &Task<'_>, x: usize, geo: &Geometry) -> Result<(), Refused> {
    let inside = |d: &Dim| d.as_const().is_some_and(|k| k <= 0);
    if geo.before.iter().chain(&geo.after).all(inside) || task.inputs[x].halo {
        return Ok(());
    }
    Err(Refused::Relayout { input: x, axis: 1 })
}

/// Elements from an operand's origin to the first element of the first window.
pub fn first_window(x: &Operand, geo: &Geometry) -> Dim {
    let each = geo.before.iter().zip(&x.strides[2..]).map(|(b, s)| b.mul(s).times(-1));
    each.fold(Dim::from(0i64), |a, b| a.add(&b))
}

/// A convolution and its operands.
pub struct Conv<'t, 'g> {
    /// The group.
    pub task: &'t Task<'g>,
    /// Input `[N, C, spatial…]`.
    pub x: usize,
    /// Filter `[M, C / groups, taps…]`.
    pub w: usize,
    /// The convolution's result `[N, M, spatial…]`.
    pub out: Value,
    /// Strides, dilations, pads.
    pub geo: &'t Geometry,
    /// Channel groups.
    pub groups: i64,
}

impl Conv<'_, '_> {
    /// One input and one output channel a group, filters known.
    pub fn is_depthwise(&self) -> bool {
        let w = &self.task.inputs[self.w];
        let known = w.constant || w.format != Format::Strided;
        known && self.groups > 1 && w.dims[1].is(1) && w.dims[0].is(self.groups)
    }

    /// The problem of a convolution that is not depthwise.
    pub fn build(&self, target: &Target) -> Made<Mac> {
        let (x, w) = (&self.task.inputs[self.x], &self.task.inputs[self.w]);
        let dims = self.task.g.dims(self.out);
        let zero = Dim::from(0i64);
        let m = w.dims[0].div(&self.groups.into());
        let c = w.dims[1].clone();
        let axis = |dim: &Dim, s: Dim, v: Dim, out| Axis { dim: dim.clone(), s, v, out };
        let mut batch = vec![axis(&dims[0], x.strides[0].clone(), zero.clone(), Some((0, 1)))];
        let step = |a: usize| x.strides[a + 2].times(self.geo.stride[a]);
        let rows: Vec<Axis> = (0..self.geo.stride.len())
            .map(|a| axis(&dims[a + 2], step(a), zero.clone(), Some((a + 2, 1))))
            .collect();
        let wide = m.as_const();
        let by_tap = |a: usize| x.strides[a + 2].times(self.geo.dilation[a]);
        let taps = |v: &dyn Fn(usize) -> Dim| -> Vec<Axis> {
            let each = (0..rows.len()).map(|a| axis(&w.dims[a + 2], by_tap(a), v(a), None));
            each.collect()
        };
        let known = w.constant || w.format != Format::Strided;
        let pixels = likely_count(&dims[2..]).saturating_mul(likely_count(&dims[..1]));
        let narrow = in_pairs(self.task, target, self.out, self.x, self.w);
        let elements = Dim::product(&w.dims).as_const().map(|n| n / self.groups);
        let copied = !narrow && elements.is_some_and(|n| worth_panels(n, w.dtype, pixels));
        let packed = (known || copied).then_some(wide).flatten();
        let (mut k, n_v, panel, group_v);
        let even = c.as_const().is_some_and(|c| whole_pairs(self.task, self.x, c));
        let even = even && x.strides[1].is(1);
        let pairs = even && packed.is_some() && narrow;
        if let Some(wide) = packed {
            let (packing, sum) = self.packing(wide, pairs)?;
            if w.format != Format::Packed(packing.clone()) {
                return Err(Refused::Pack { input: self.w, packing }.into());
            }
            let channels = c.as_const().unwrap_or(0);
            let after = |a: usize| Dim::product(&w.dims[a + 3..]).times(channels * PANEL);
            k = taps(&after);
            k.push(axis(&c, x.strides[1].clone(), PANEL.into(), None));
            (n_v, panel) = (Dim::from(sum), Some(sum * PANEL));
            group_v = Dim::from((wide + PANEL - 1) / PANEL * sum * PANEL);
        } else {
            if !w.strides[0].is(1) || w.format != Format::Strided {
                return Err(Refused::Relayout { input: self.w, axis: 0 }.into());
            }
            k = taps(&|a| w.strides[a + 2].clone());
            k.push(axis(&c, x.strides[1].clone(), w.strides[1].clone(), None));
            (n_v, panel) = (Dim::from(1i64), None);
            group_v = m.clone();
        }
        if let (true, Some(wide)) = (self.groups > 1, wide) {
            let s = x.strides[1].mul(&c);
            batch.push(axis(&self.groups.into(), s, group_v, Some((1, wide))));
        } else if self.groups > 1 {
            return super::cx::unsupported("groups of channels whose number is not constant");
        }
        let mut mac = Mac {
            name: "conv",
            body: Body::Broadcast,
            anchor: self.out,
            scalar: self.x,
            vector: Some(self.w),
            batch,
            rows,
            n: axis(&m, zero, n_v, Some((1, 1))),
            panel,
            pairs,
            k,
            start: first_window(x, self.geo),
            footprint: likely_count(&x.dims[1..]) / self.groups,
        };
        mac.simplify();
        Ok(mac)
    }

    /// How the filter is packed, and products a feature.
    fn packing(&self, n: i64, pairs: bool) -> Made<(Packing, i64)> {
        let w = &self.task.inputs[self.w];
        let of = |d: &[Dim]| Dim::product(d).as_const().filter(|&k| k > 0);
        let (Some(taps), Some(c)) = (of(&w.dims[2..]), of(&w.dims[1..2])) else {
            return super::cx::unsupported("an empty filter");
        };
        let packing = Packing {
            outer: self.groups as u64,
            n: n as u64,
            k: (taps * c) as u64,
            k_major: false,
            taps: taps as u64,
            block: PANEL as u64,
            v: step_of(pairs),
        };
        Ok((packing, taps * c))
    }
}
