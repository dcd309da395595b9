//! Operators of detectors that only Paddle has.

use super::{OpError, SourceOp};
use crate::build::{Builder, Built};
use crate::entity::Value;
use hub_abi::prim::{BinaryOp, Prim, UnaryOp};
use hub_abi::{Dim, Dtype};
use serde::{Deserialize, Serialize};

/// `(x: [N, A*(5+classes), H, W], img_size: [N, 2] (height, width))
/// -> boxes: [N, A*H*W, 4] (x1, y1, x2, y2 in pixels), scores: [N, A*H*W, classes]`. Paddle yolo_box:
/// boxes whose confidence is under the threshold, and their scores, are zero.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct YoloBox {
    /// Width and height of each anchor box, in input pixels.
    pub anchors: Vec<i64>,
    /// How many classes.
    pub classes: i64,
    /// Least confidence.
    pub threshold: f64,
    /// Input pixels a cell.
    pub downsample: i64,
    /// Clip boxes to the image.
    pub clip: bool,
    /// How far centres reach past their cell.
    pub scale_xy: f64,
    /// If each anchor has a predicted overlap (in A channels before all others): its exponent.
    pub iou_aware: Option<f64>,
}

impl YoloBox {
    fn check(&self) -> Built<i64> {
        let n = self.anchors.len() as i64 / 2;
        let whole = self.anchors.len().is_multiple_of(2) && n > 0;
        if !whole
            || !(1..=1 << 20).contains(&self.classes)
            || self.downsample < 1
            || self.anchors.len() > 1 << 10
        {
            return Err(OpError::new("anchors, classes or downsampling ratio make no sense"));
        }
        Ok(n)
    }

    /// Channel `from..from+len` of every anchor: `[N, A, len, H, W]`.
    fn part(&self, b: &mut Builder<'_>, x: Value, from: i64, len: i64) -> Built {
        b.narrow(x, 2, from.into(), len.into())
    }

    /// Centres along one axis in image pixels: `(cell + scaled sigmoid) * image / cells`.
    fn centre(&self, b: &mut Builder<'_>, t: Value, axis: u32, image: Value) -> Built {
        let dims = b.g.dims(t).to_vec();
        let cells = dims[axis as usize].clone();
        let s = b.un(UnaryOp::Sigmoid, t)?;
        let s = b.bin_scalar(BinaryOp::Mul, s, self.scale_xy)?;
        let s = b.bin_scalar(BinaryOp::Add, s, -0.5 * (self.scale_xy - 1.0))?;
        let mut shape = vec![Dim::from(1i64); dims.len()];
        shape[axis as usize] = cells.clone();
        let cell = b.prim(Prim::Iota { dtype: Dtype::F32, shape, axis }, &[])?;
        let at = b.add(s, cell)?;
        let at = b.mul(at, image)?;
        let n = float_dim(b, cells)?;
        b.div(at, n)
    }

    /// Extents in image pixels: `exp(t) * anchor * image / (downsample * cells)`.
    fn extent(
        &self,
        b: &mut Builder<'_>,
        t: Value,
        axis: usize,
        image: Value,
        side: usize,
    ) -> Built {
        let cells = b.g.dims(t)[axis].clone();
        let sides: Vec<f32> = self.anchors.chunks(2).map(|a| a[side] as f32).collect();
        let sides = b.floats(&[1, sides.len() as i64, 1, 1, 1], &sides);
        let e = b.un(UnaryOp::Exp, t)?;
        let e = b.mul(e, sides)?;
        let e = b.mul(e, image)?;
        let input = float_dim(b, cells.times(self.downsample))?;
        b.div(e, input)
    }
}

fn float_dim(b: &mut Builder<'_>, d: Dim) -> Built {
    match d.as_const() {
        Some(k) => Ok(b.scalar(Dtype::F32, k as f64)),
        None => {
            let d = b.dim_scalar(d);
            b.cast(d, Dtype::F32)
        }
    }
}

impl SourceOp for YoloBox {
    fn expand(&self, b: &mut Builder<'_>, ins: &[Value]) -> Built<Vec<Value>> {
        let a = self.check()?;
        let &[x, size] = ins else { return Err(OpError::new("x and img_size are needed")) };
        let [n, _, h, w] = &b.g.dims(x).to_vec()[..] else {
            return Err(OpError::new("x must be of rank 4"));
        };
        let size = b.cast(size, Dtype::F32)?;
        let mut image = [size; 2];
        for (i, v) in image.iter_mut().enumerate() {
            let one = b.narrow(size, 1, (i as i64).into(), 1i64.into())?;
            let dims = b.g.dims(one)[0].clone();
            let shape = [dims, 1i64.into(), 1i64.into(), 1i64.into(), 1i64.into()];
            *v = b.reshape(one, shape.to_vec())?;
        }
        let [image_h, image_w] = image;
        let mut x = x;
        let mut iou = None;
        if self.iou_aware.is_some() {
            let own = b.narrow(x, 1, 0i64.into(), a.into())?;
            let shape = [n.clone(), a.into(), 1i64.into(), h.clone(), w.clone()];
            iou = Some(b.reshape(own, shape.to_vec())?);
            let rest = b.g.dims(x)[1].plus(-a);
            x = b.narrow(x, 1, a.into(), rest)?;
        }
        let per = 5 + self.classes;
        let shape = vec![n.clone(), a.into(), per.into(), h.clone(), w.clone()];
        let x = b.reshape(x, shape)?;
        let part = |b: &mut Builder<'_>, i| self.part(b, x, i, 1);
        let (tx, ty, tw, th) = (part(b, 0)?, part(b, 1)?, part(b, 2)?, part(b, 3)?);
        let conf = part(b, 4)?;
        let mut conf = b.un(UnaryOp::Sigmoid, conf)?;
        if let (Some(iou), Some(factor)) = (iou, self.iou_aware) {
            let iou = b.un(UnaryOp::Sigmoid, iou)?;
            let iou = b.bin_scalar(BinaryOp::Pow, iou, factor)?;
            let own = b.bin_scalar(BinaryOp::Pow, conf, 1.0 - factor)?;
            conf = b.mul(own, iou)?;
        }
        let (cx, cy) = (self.centre(b, tx, 4, image_w)?, self.centre(b, ty, 3, image_h)?);
        let bw = self.extent(b, tw, 4, image_w, 0)?;
        let bh = self.extent(b, th, 3, image_h, 1)?;
        let mut sides = vec![];
        for sign in [BinaryOp::Sub, BinaryOp::Add] {
            for (c, e, image) in [(cx, bw, image_w), (cy, bh, image_h)] {
                let half = b.bin_scalar(BinaryOp::Div, e, 2.0)?;
                let mut s = b.bin(sign, c, half)?;
                if self.clip && sign == BinaryOp::Sub {
                    s = b.bin_scalar(BinaryOp::Max, s, 0.0)?;
                } else if self.clip {
                    let last = b.bin_scalar(BinaryOp::Sub, image, 1.0)?;
                    s = b.min(s, last)?;
                }
                sides.push(s);
            }
        }
        let boxes = b.concat(&sides, 2)?;
        let scores = self.part(b, x, 5, self.classes)?;
        let scores = b.un(UnaryOp::Sigmoid, scores)?;
        let scores = b.mul(scores, conf)?;
        let drop = b.bin_scalar(BinaryOp::Lt, conf, self.threshold)?;
        let zero = b.scalar(Dtype::F32, 0.0);
        let mut outs = vec![];
        for (v, width) in [(boxes, 4), (scores, self.classes)] {
            let v = b.select(drop, zero, v)?;
            let v = b.transpose(v, &[0, 1, 3, 4, 2])?;
            let count = h.mul(w).times(a);
            outs.push(b.reshape(v, vec![n.clone(), count, width.into()])?);
        }
        Ok(outs)
    }
}
