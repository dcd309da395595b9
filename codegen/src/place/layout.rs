//! Layouts: which values are channel-last images, which halos they need, and places in memory.

use crate::task::{Format, Operand, power_of_two};
use hub_abi::pgraph::Packing;
use hub_abi::plan::BufId;
use hub_abi::prim::Geometry;
use hub_abi::{Dim, Dtype};
use hub_ir::{Graph, GroupKind, Node, Op, Prim, Region, TensorType, Value};
use std::collections::{HashMap, HashSet};

/// Elements around an image that hold a padding value, per spatial axis.
#[derive(Clone, PartialEq, Debug)]
pub struct Halo {
    /// Before the first.
    pub before: Vec<Dim>,
    /// After the last.
    pub after: Vec<Dim>,
    /// What they hold.
    pub fill: f64,
}

impl Halo {
    /// What a convolution or window of this geometry reads outside its input.
    pub fn of(geo: &Geometry, fill: f64) -> Halo {
        let zero = Dim::from(0i64);
        let clip = |v: &Vec<Dim>| v.iter().map(|d| d.max_of(&zero)).collect();
        Halo { before: clip(&geo.before), after: clip(&geo.after), fill }
    }

    /// No element at all?
    pub fn is_empty(&self) -> bool {
        self.before.iter().chain(&self.after).all(|d| d.is(0))
    }

    /// Does it hold what `need` asks?
    pub fn covers(&self, need: &Halo) -> bool {
        let wide = |a: &[Dim], b: &[Dim]| a.iter().zip(b).all(|(x, y)| x.max_of(y) == *x);
        need.is_empty()
            || (self.fill == need.fill
                && wide(&self.before, &need.before)
                && wide(&self.after, &need.after))
    }

    /// The smallest halo that covers both (of this one's fill).
    pub fn join(&self, o: &Halo) -> Halo {
        let wide = |a: &[Dim], b: &[Dim]| a.iter().zip(b).map(|(x, y)| x.max_of(y)).collect();
        Halo {
            before: wide(&self.before, &o.before),
            after: wide(&self.after, &o.after),
            fill: self.fill,
        }
    }
}

/// Where a value lies.
#[derive(Clone, PartialEq, Debug)]
pub struct Place {
    /// The buffer.
    pub buf: BufId,
    /// Element type.
    pub dtype: Dtype,
    /// Logical dims.
    pub dims: Vec<Dim>,
    /// Bytes from the buffer's start to element 0.
    pub offset: Dim,
    /// In elements.
    pub strides: Vec<Dim>,
    /// See [`Operand::slack`].
    pub slack: i64,
    /// What surrounds it.
    pub halo: Option<Halo>,
    /// Bytes added per iteration of the enclosing repetition.
    pub bump: Dim,
}

impl Place {
    /// Row-major from the buffer's start.
    pub fn dense(buf: BufId, t: &TensorType) -> Place {
        Place {
            buf,
            dtype: t.dtype,
            dims: t.dims.clone(),
            offset: 0i64.into(),
            strides: dense_strides(&t.dims),
            slack: 0,
            halo: None,
            bump: 0i64.into(),
        }
    }

    /// Is it row-major without gaps?
    pub fn is_dense(&self) -> bool {
        let want = dense_strides(&self.dims);
        (0..self.dims.len()).all(|i| self.dims[i].is(1) || self.strides[i] == want[i])
    }

    /// As a kernel sees it; `halo` where the kernel may read it.
    pub fn operand(&self, halo: bool) -> Operand {
        Operand {
            dtype: self.dtype,
            dims: self.dims.clone(),
            strides: self.strides.clone(),
            slack: self.slack,
            halo,
            format: Format::Strided,
            align: 1,
            constant: false,
            splat: None,
        }
    }

    /// Bytes that the address of element 0 is a multiple of.
    pub fn align(&self) -> i64 {
        power_of_two(&self.offset).min(power_of_two(&self.bump))
    }
}

/// Row-major strides in elements.
pub fn dense_strides(dims: &[Dim]) -> Vec<Dim> {
    let mut s = vec![Dim::from(1i64); dims.len()];
    for i in (0..dims.len().saturating_sub(1)).rev() {
        s[i] = s[i + 1].mul(&dims[i + 1]);
    }
    s
}

/// How a copy of a value should lie.
#[derive(Clone, PartialEq, Debug)]
pub enum Wish {
    /// Row-major.
    Dense,
    /// Channel-last with this halo.
    Image(Option<Halo>),
    /// Row-major but for this axis, which comes last.
    Unit(usize),
    /// In panels.
    Panels(Packing),
}

/// A layout before a buffer is found for it.
pub struct Shape {
    /// Bytes of the buffer.
    pub bytes: Dim,
    /// Bytes to element 0.
    pub offset: Dim,
    /// In elements.
    pub strides: Vec<Dim>,
    /// Elements of row padding.
    pub slack: i64,
}

/// The shape of a row-major tensor whose axis `last` moves to the end.
pub fn unit_shape(t: &TensorType, last: usize) -> Shape {
    let mut order: Vec<usize> = (0..t.dims.len()).filter(|&a| a != last).collect();
    order.extend((last < t.dims.len()).then_some(last));
    let dims: Vec<Dim> = order.iter().map(|&a| t.dims[a].clone()).collect();
    let mut strides = vec![Dim::from(0i64); dims.len()];
    for (s, a) in dense_strides(&dims).into_iter().zip(order) {
        strides[a] = s;
    }
    let bytes = t.count().times(t.dtype.size() as i64);
    Shape { bytes, offset: 0i64.into(), strides, slack: 0 }
}

/// The shape of a packed tensor; its strides say nothing.
pub fn panels_shape(t: &TensorType, p: &Packing) -> Shape {
    let size = t.dtype.size();
    let bytes = p.byte_lens(size).map_or(i64::MAX, |(_, b)| i64::try_from(b).unwrap_or(i64::MAX));
    Shape { bytes: bytes.into(), offset: 0i64.into(), strides: dense_strides(&t.dims), slack: 0 }
}

/// Elements of one pixel: channels rounded up to 64 bytes, never a multiple of 4 KiB (such strides
/// fall on one L1 set). Few channels are not padded: scalars are read of them, not vectors.
fn pitch(channels: i64, size: i64) -> i64 {
    let line = 64 / size;
    if channels < line / 2 {
        return channels;
    }
    let padded = (channels + line - 1) / line * line;
    if (padded * size) % 4096 == 0 { padded + line } else { padded }
}

/// The shape of a channel-last image with a halo. (Pixels of channels that are not constant are not
/// padded.)
pub fn image_shape(t: &TensorType, halo: Option<&Halo>) -> Shape {
    let size = t.dtype.size() as i64;
    let one_pixel = t.dims[2..].iter().all(|d| d.is(1)) && halo.is_none();
    let (mut run, slack) = match t.dims[1].as_const().filter(|_| !one_pixel) {
        Some(channels) => (pitch(channels, size).into(), pitch(channels, size) - channels),
        None => (t.dims[1].clone(), 0),
    };
    let mut strides = vec![Dim::from(1i64); t.dims.len()];
    let mut offset = Dim::from(0i64);
    for a in (2..t.dims.len()).rev() {
        strides[a] = run.clone();
        let mut d = t.dims[a].clone();
        if let Some(h) = halo {
            offset = offset.add(&run.mul(&h.before[a - 2]));
            d = d.add(&h.before[a - 2]).add(&h.after[a - 2]);
        }
        run = run.mul(&d);
    }
    strides[0] = run.clone();
    let bytes = run.mul(&t.dims[0]).times(size);
    Shape { bytes, offset: offset.times(size), strides, slack }
}

/// Is axis 1 of what a contraction gives the constant operand's, as the channels of a 1×1
/// convolution are? Then vectors run along it.
fn makes_channels(g: &Graph, group: Node, region: Region) -> bool {
    let of = |n: &Node| match &g.nodes[*n].op {
        Op::Prim(Prim::Contract { a, b, out }) => Some((*n, [a, b], out)),
        _ => None,
    };
    let Some((n, sides, out)) = g.regions[region].nodes.iter().find_map(of) else { return false };
    let constant = |side: usize| {
        let read = crate::task::narrow_form(g, g.nodes[n].inputs[side]);
        let param = g.regions[region].params.iter().position(|p| *p == read);
        param.is_some_and(|i| g.as_const(g.nodes[group].inputs[i]).is_some())
    };
    out.get(1).is_some_and(|l| {
        (0..2).any(|s| constant(s) && sides[s].contains(l) && !sides[1 - s].contains(l))
    })
}

/// An image of more channels is worth reading by channels.
const FEW_CHANNELS: i64 = 64;

/// Does a group make more pixels of images of few channels, as the last resize of a segmentation
/// does? What is left to do with them (a softmax or argmax over channels, an output) wants each
/// channel by itself, and few channels fill vectors badly. (Gathering along rows is slower than by
/// channels all the same.)
fn spreads(g: &Graph, n: Node, out: Value) -> bool {
    let dims = g.dims(out);
    let Op::Group { region, .. } = g.nodes[n].op else { return false };
    let Some(last) = dims.len().checked_sub(1) else { return false };
    let along_rows = |p: &Prim| matches!(p, Prim::Gather { axis } if *axis as usize == last);
    let mut inner = g.regions[region].nodes.iter();
    if inner.any(|m| matches!(&g.nodes[*m].op, Op::Prim(p) if along_rows(p))) {
        return false;
    }
    let few = dims.get(1).and_then(Dim::as_const).is_some_and(|c| c > 1 && c < FEW_CHANNELS);
    let mut images = g.nodes[n].inputs.iter().filter(|v| same_rank(g, **v, dims.len()));
    few && dims.len() >= 3 && images.all(|v| grows(g.dims(*v), dims))
}

fn same_rank(g: &Graph, v: Value, rank: usize) -> bool {
    g.ty(v).as_tensor().is_some_and(|t| t.rank() == rank)
}

/// Has a result at least twice the elements of an operand, as far as is known?
pub fn grows(from: &[Dim], to: &[Dim]) -> bool {
    let [a, b] = [from, to].map(Dim::product);
    match (a.as_const(), b.as_const()) {
        (Some(a), Some(b)) => a <= b / 2,
        _ => a != b,
    }
}

/// What is known of values before placing starts.
#[derive(Default)]
pub struct Facts {
    image: HashSet<Value>,
    /// What a convolution or window reads, or what leads to it element by element.
    looked_at: HashSet<Value>,
    halos: HashMap<Value, Halo>,
}

impl Facts {
    /// Finds images and the halos that their consumers need.
    pub fn of(g: &Graph) -> Facts {
        let mut f = Facts::default();
        for n in g.walk() {
            let Op::Group { region, .. } = g.nodes[n].op else { continue };
            if let Some((at, need)) = super::anchor_halo(g, region) {
                let image = g.nodes[n].inputs[at];
                f.looked_at.insert(image);
                if !need.is_empty() {
                    f.want(image, need);
                }
            }
        }
        for n in g.walk().into_iter().rev() {
            f.lead(g, n);
        }
        for n in g.walk() {
            f.note_images(g, n);
        }
        f
    }

    /// What a looked-at value is made of, element by element, is looked at too.
    fn lead(&mut self, g: &Graph, n: Node) {
        let node = &g.nodes[n];
        let through = match &node.op {
            Op::Group { kind, .. } => matches!(kind, GroupKind::Map | GroupKind::Row),
            Op::Prim(p) => matches!(p, Prim::Concat { .. } | Prim::Slice { .. } | Prim::Pad { .. }),
            _ => false,
        };
        let Some(&out) = node.outputs.iter().find(|v| self.looked_at.contains(v)) else { return };
        let rank = |v: Value| g.ty(v).as_tensor().map_or(0, |t| t.rank());
        if through {
            let alike =
                node.inputs.iter().filter_map(|v| v.some()).filter(|v| rank(*v) == rank(out));
            self.looked_at.extend(alike.collect::<Vec<_>>());
        }
    }

    fn note_images(&mut self, g: &Graph, n: Node) {
        let node = &g.nodes[n];
        let rank = |v: Value| g.ty(v).as_tensor().map_or(0, |t| t.rank());
        let inherits = |f: &Facts, out: Value| {
            let mut ins = node.inputs.iter().filter_map(|v| v.some());
            ins.any(|v| f.is_image(v) && rank(v) == rank(out))
        };
        for &out in &node.outputs {
            let image = match &node.op {
                Op::Group { kind: GroupKind::Conv | GroupKind::Window, .. } => true,
                Op::Group { kind: GroupKind::Map, .. } => {
                    inherits(self, out) && !(self.leaves(out) && spreads(g, n, out))
                }
                Op::Group { kind: GroupKind::Row, .. } => inherits(self, out),
                // Axes that change places before they are joined are copied: into an image then.
                Op::Prim(Prim::Reshape { .. }) => {
                    let moved = g.as_prim(node.inputs[0]);
                    let moved = moved.is_some_and(|(_, p)| matches!(p, Prim::Transpose { .. }));
                    moved && self.looked_at.contains(&out)
                }
                Op::Group { kind: GroupKind::Contract, region } => {
                    let wanted = self.looked_at.contains(&out) || inherits(self, out);
                    wanted && makes_channels(g, n, *region)
                }
                Op::Prim(Prim::Concat { .. } | Prim::Slice { .. } | Prim::Pad { .. }) => {
                    inherits(self, out)
                }
                _ => false,
            };
            if image && rank(out) >= 3 && g.dims(out)[1].as_const().is_some() {
                self.image.insert(out);
            }
        }
    }

    /// Is it made into nothing that a convolution or window reads?
    fn leaves(&self, v: Value) -> bool {
        !self.looked_at.contains(&v)
    }

    fn want(&mut self, v: Value, need: Halo) {
        let joined = match self.halos.get(&v) {
            None => need,
            // Zeros first: convolutions are many, and a window that pads is copied for.
            Some(h) if h.fill == need.fill => h.join(&need),
            Some(h) if h.fill == 0.0 => h.clone(),
            Some(_) => need,
        };
        self.halos.insert(v, joined);
    }

    /// Is it a channel-last image?
    pub fn is_image(&self, v: Value) -> bool {
        self.image.contains(&v)
    }

    /// The halo that consumers want around it.
    pub fn halo(&self, v: Value) -> Option<&Halo> {
        self.halos.get(&v)
    }

    /// Lets a concatenation carry the halos of its parts.
    pub fn widen(&mut self, v: Value, h: Halo) {
        self.want(v, h);
    }
}
