//! Single operators against values worked out by hand from Paddle's documentation, run through the
//! reference meaning of their graphs.

mod draws;
mod flow;
mod more;

use crate::LoadOptions;
use crate::paddle::import;
use crate::paddle::params::Tensor as Data;
use crate::paddle::program::{Attr, Block, Dialect, OpDesc, Param, Program, VarInfo, VarType};
use hub_abi::Dtype;
use hub_ir::portable::to_portable;
use hub_ir::verify::{Stage, verify};
use hub_portable::{BytesStore, Limits, Tensor};
use std::sync::Arc;

/// A program with one operator, being put together.
pub struct One {
    program: Program,
    data: Vec<Data>,
    feeds: Vec<Tensor>,
    op: OpDesc,
}

pub fn var(p: &mut Program, dtype: Dtype, dims: &[usize]) -> usize {
    let dims = dims.iter().map(|&d| d as i64).collect();
    let name = format!("v{:03}", p.vars.len());
    p.vars.push(VarInfo { name, ty: VarType::Tensor(dtype, dims) });
    p.vars.len() - 1
}

pub fn op(kind: &str) -> OpDesc {
    let (ins, outs) = (vec![], vec![]);
    OpDesc { kind: kind.into(), place: kind.into(), ins, outs, attrs: [].into(), blocks: vec![] }
}

pub fn f32s(dims: &[usize], xs: &[f32]) -> Tensor {
    Tensor::new(dims, xs.to_vec()).unwrap()
}

pub fn i64s(dims: &[usize], xs: &[i64]) -> Tensor {
    Tensor::new(dims, xs.to_vec()).unwrap()
}

/// 0, 1, 2, …
pub fn count(dims: &[usize]) -> Tensor {
    let n = dims.iter().product::<usize>();
    f32s(dims, &(0..n).map(|i| i as f32).collect::<Vec<_>>())
}

impl One {
    pub fn legacy(kind: &str) -> One {
        One::new(Dialect::Legacy, kind)
    }

    pub fn pir(kind: &str) -> One {
        One::new(Dialect::Pir, kind)
    }

    fn new(dialect: Dialect, kind: &str) -> One {
        let blocks = vec![Block::default()];
        let program =
            Program { dialect, vars: vec![], blocks, params: vec![], lods: Default::default() };
        One { program, data: vec![], feeds: vec![], op: op(kind) }
    }

    fn slot(mut self, slot: &str, v: usize) -> One {
        let legacy = self.program.dialect == Dialect::Legacy;
        let name = if legacy { slot } else { "" };
        match self.op.ins.iter_mut().find(|(s, _)| legacy && s == slot) {
            Some((_, vars)) => vars.push(v),
            None => self.op.ins.push((name.into(), vec![v])),
        }
        self
    }

    /// An operand that is an input of the model. PIR's come in order; the slot's name is not used.
    pub fn input(mut self, slot: &str, t: Tensor) -> One {
        let v = var(&mut self.program, t.dtype(), t.dims());
        let mut feed = op("data");
        feed.outs.push((String::new(), vec![v]));
        self.program.blocks[0].ops.push(feed);
        self.feeds.push(t);
        self.slot(slot, v)
    }

    /// An operand that is a constant.
    pub fn constant(mut self, slot: &str, t: Tensor) -> One {
        let v = var(&mut self.program, t.dtype(), t.dims());
        let dims: Vec<i64> = t.dims().iter().map(|&d| d as i64).collect();
        let (dtype, name) = (t.dtype(), self.program.vars[v].name.clone());
        self.program.params.push(Param { var: v, name, ty: (dtype, dims.clone()) });
        self.data.push(Data { dtype, dims, data: t.bytes().to_vec().into() });
        self.slot(slot, v)
    }

    /// Several operands as one of PIR's lists.
    pub fn list(mut self, ts: Vec<Tensor>) -> One {
        let mut combine = op("builtin.combine");
        for t in ts {
            self = self.input("", t);
            combine.ins.push(self.op.ins.pop().unwrap());
        }
        self.program.vars.push(VarInfo { name: "list".into(), ty: VarType::Other });
        let v = self.program.vars.len() - 1;
        combine.outs.push((String::new(), vec![v]));
        self.program.blocks[0].ops.push(combine);
        self.slot("", v)
    }

    /// An operand that is left out.
    pub fn none(mut self) -> One {
        self.op.ins.push((String::new(), vec![]));
        self
    }

    pub fn attr(mut self, name: &str, a: Attr) -> One {
        self.op.attrs.insert(name.into(), a);
        self
    }

    pub fn int(self, name: &str, k: i64) -> One {
        self.attr(name, Attr::Int(k))
    }

    pub fn float(self, name: &str, k: f64) -> One {
        self.attr(name, Attr::Float(k))
    }

    pub fn ints(self, name: &str, k: &[i64]) -> One {
        self.attr(name, Attr::Ints(k.to_vec()))
    }

    pub fn flag(self, name: &str, k: bool) -> One {
        self.attr(name, Attr::Bool(k))
    }

    pub fn text(self, name: &str, k: &str) -> One {
        self.attr(name, Attr::Str(k.into()))
    }

    /// Runs it; the results of the slots, a PIR list's apart.
    pub fn run(mut self, slots: &[(&str, Dtype)], each: usize) -> Vec<Tensor> {
        let legacy = self.program.dialect == Dialect::Legacy;
        let mut fetched = vec![];
        let mut split = None;
        for &(slot, dtype) in slots {
            let (name, n) = if legacy { (slot, each) } else { ("", 1) };
            let vars: Vec<usize> = (0..n)
                .map(|_| {
                    let v = var(&mut self.program, dtype, &[]);
                    if !legacy && each > 1 {
                        self.program.vars[v].ty = VarType::List(vec![VarType::Other; each]);
                    }
                    v
                })
                .collect();
            self.op.outs.push((name.into(), vars.clone()));
            if !legacy && each > 1 {
                let mut apart = op("builtin.split");
                apart.ins.push((String::new(), vars));
                let parts: Vec<usize> =
                    (0..each).map(|_| var(&mut self.program, dtype, &[])).collect();
                apart.outs = parts.iter().map(|&p| (String::new(), vec![p])).collect();
                fetched.extend(parts);
                split = Some(apart);
            } else {
                fetched.extend(vars);
            }
        }
        let ops = &mut self.program.blocks[0].ops;
        ops.push(self.op);
        ops.extend(split);
        for (i, v) in fetched.into_iter().enumerate() {
            let mut fetch = op("fetch");
            fetch.ins.push(("X".into(), vec![v]));
            fetch.attrs.insert("col".into(), Attr::Int(i as i64));
            fetch.attrs.insert("name".into(), Attr::Str(format!("out{i}")));
            ops.push(fetch);
        }
        answers(&self.program, self.data, self.feeds)
    }

    /// Its only result, of f32, is this.
    #[track_caller]
    pub fn gives(self, slot: &str, dims: &[usize], want: &[f32]) {
        let outs = self.run(&[(slot, Dtype::F32)], 1);
        same(&outs[0], dims, want);
    }

    /// Its only result, of int64, is this.
    #[track_caller]
    pub fn gives_i64(self, slot: &str, dims: &[usize], want: &[i64]) {
        let outs = self.run(&[(slot, Dtype::I64)], 1);
        assert_eq!(outs[0].dims(), dims);
        assert_eq!(outs[0].to_i64s().unwrap(), want);
    }
}

#[track_caller]
pub fn same(t: &Tensor, dims: &[usize], want: &[f32]) {
    let have = t.view::<f32>().unwrap();
    assert_eq!(t.dims(), dims, "{have:?}");
    assert_eq!(have.len(), want.len());
    for (h, w) in have.iter().zip(want) {
        assert!((h - w).abs() <= 1e-5 * w.abs().max(1.0), "{have:?} where {want:?} is right");
    }
}

/// Imports a program and runs the reference meaning of its graph.
pub fn answers(program: &Program, data: Vec<Data>, feeds: Vec<Tensor>) -> Vec<Tensor> {
    let ops = &program.blocks[0].ops;
    let kind = ops.iter().map(|o| o.kind.clone()).collect::<Vec<_>>().join(" ");
    let (g, _) = import::import(program, data, &LoadOptions::default())
        .unwrap_or_else(|e| panic!("{kind}: {e}"));
    verify(&g, Stage::Imported).unwrap_or_else(|e| panic!("{kind}: {e}"));
    let (p, store) = to_portable(&g).unwrap_or_else(|e| panic!("{kind}: {e}"));
    let mut bytes = vec![0; store.len as usize];
    for (at, piece) in &store.pieces {
        bytes[*at as usize..*at as usize + piece.len()].copy_from_slice(piece);
    }
    let inputs: Vec<hub_portable::Value> = feeds.into_iter().map(Into::into).collect();
    let store = BytesStore::new(Arc::new(bytes));
    let outs = hub_portable::run(&p, &store, &inputs, &Limits::default());
    let outs = outs.unwrap_or_else(|e| panic!("{kind}: {e}"));
    outs.iter().map(|v| v.tensor().unwrap().clone()).collect()
}

#[test]
fn elementwise_aligns_at_its_axis() {
    let x = || count(&[2, 3, 2]);
    let y = f32s(&[3], &[10.0, 20.0, 30.0]);
    let want = [10., 11., 22., 23., 34., 35., 16., 17., 28., 29., 40., 41.];
    One::legacy("elementwise_add").input("X", x()).input("Y", y).int("axis", 1).gives(
        "Out",
        &[2, 3, 2],
        &want,
    );
    // Ones at the end of y do not count.
    let y = f32s(&[2, 3, 1], &[1.; 6]);
    let want: Vec<f32> = (1..13).map(|i| i as f32).collect();
    One::legacy("elementwise_add").input("X", x()).input("Y", y).int("axis", 0).gives(
        "Out",
        &[2, 3, 2],
        &want,
    );
    let floor = |a: i64, b: i64, q: i64| {
        let (a, b) = (i64s(&[1], &[a]), i64s(&[1], &[b]));
        One::pir("floor_divide").input("", a).input("", b).gives_i64("Out", &[1], &[q]);
    };
    floor(-7, 2, -4);
    floor(7, -2, -4);
    floor(6, 3, 2);
    // Python's remainder.
    let (a, b) = (f32s(&[2], &[-7.0, 7.0]), f32s(&[2], &[3.0, -3.0]));
    One::pir("remainder").input("", a).input("", b).gives("Out", &[2], &[2.0, -2.0]);
}

#[test]
fn activations_have_paddles_defaults() {
    let x = || f32s(&[4], &[-4.0, -1.0, 0.5, 7.0]);
    let run = |kind: &str, want: &[f32]| One::pir(kind).input("", x()).gives("Out", &[4], want);
    run("relu6", &[0.0, 0.0, 0.5, 6.0]);
    run("leaky_relu", &[-0.08, -0.02, 0.5, 7.0]);
    run("hardsigmoid", &[0.0, 0.3, 0.6, 1.0]);
    run("hardswish", &[0.0, -1.0 / 3.0, 0.5 * 3.5 / 6.0, 7.0]);
    run("silu", &[-0.07194484, -0.26894143, 0.3112297, 6.993622]);
    run("softsign", &[-0.8, -0.5, 1.0 / 3.0, 0.875]);
    run("logsigmoid", &[-4.01815, -1.3132616, -0.474077, -0.0009114664]);
    run("thresholded_relu", &[0.0, 0.0, 0.0, 7.0]);
    run("softshrink", &[-3.5, -0.5, 0.0, 6.5]);
    run("hardshrink", &[-4.0, -1.0, 0.0, 7.0]);
    run("celu", &[-0.9816844, -0.63212055, 0.5, 7.0]);
    let alpha = f32s(&[2], &[0.5, 2.0]);
    let x = f32s(&[1, 2, 2], &[-4.0, 1.0, -1.0, 3.0]);
    let p = One::legacy("prelu").input("X", x).constant("Alpha", alpha).text("mode", "channel");
    p.gives("Out", &[1, 2, 2], &[-2.0, 1.0, -2.0, 3.0]);
    let d = One::legacy("dropout").input("X", f32s(&[2], &[1.0, 2.0])).float("dropout_prob", 0.25);
    d.gives("Out", &[2], &[0.75, 1.5]);
}

#[test]
fn scale_and_clip_take_operands() {
    let s = |after| {
        let s = One::legacy("scale").input("X", f32s(&[2], &[1.0, 2.0]));
        s.float("scale", 3.0).float("bias", 1.0).flag("bias_after_scale", after)
    };
    s(true).gives("Out", &[2], &[4.0, 7.0]);
    s(false).gives("Out", &[2], &[6.0, 9.0]);
    let s = One::pir("scale").input("", i64s(&[2], &[5, -5])).input("", f32s(&[1], &[2.0]));
    s.float("bias", 1.0).gives_i64("Out", &[2], &[11, -9]);
    let c = One::pir("clip").input("", f32s(&[3], &[-3.0, 0.5, 9.0]));
    let c = c.constant("", f32s(&[1], &[-1.0])).input("", f32s(&[], &[2.0]));
    c.gives("Out", &[3], &[-1.0, 0.5, 2.0]);
}

#[test]
fn slices_count_from_the_end_and_drop_axes() {
    let s = |starts: &[i64], ends: &[i64], drop: &[i64]| {
        One::legacy("slice")
            .input("Input", count(&[3, 4]))
            .ints("axes", &[0, 1])
            .ints("starts", starts)
            .ints("ends", ends)
            .ints("decrease_axis", drop)
    };
    s(&[-2, 1], &[2147483647, -1], &[]).gives("Out", &[2, 2], &[5., 6., 9., 10.]);
    s(&[1, -1], &[2, 2147483647], &[0, 1]).gives("Out", &[], &[7.]);
    s(&[0, 3], &[1, 100], &[0]).gives("Out", &[1], &[3.]);
    let back = One::pir("strided_slice").input("", count(&[5]));
    let back = back.constant("", i64s(&[1], &[3])).constant("", i64s(&[1], &[-6]));
    let back = back.constant("", i64s(&[1], &[-2])).ints("axes", &[0]);
    back.gives("Out", &[2], &[3., 1.]);
    let on = One::legacy("strided_slice").input("Input", count(&[7])).ints("axes", &[0]);
    let on = on.ints("starts", &[1]).ints("ends", &[7]).ints("strides", &[3]);
    on.gives("Out", &[2], &[1., 4.]);
}

#[test]
fn shapes_are_inferred_from_what_is_left() {
    let r =
        |shape: &[i64]| One::legacy("reshape2").input("X", count(&[2, 3, 2])).ints("shape", shape);
    assert_eq!(r(&[0, -1]).run(&[("Out", Dtype::F32)], 1)[0].dims(), [2, 6]);
    assert_eq!(r(&[-1, 0, 1]).run(&[("Out", Dtype::F32)], 1)[0].dims(), [4, 3, 1]);
    let parts = One::pir("split").input("", count(&[1, 6])).constant("", i64s(&[3], &[1, -1, 2]));
    let parts = parts.constant("", i64s(&[1], &[1])).run(&[("Out", Dtype::F32)], 3);
    assert_eq!(parts.iter().map(|p| p.dims()[1]).collect::<Vec<_>>(), [1, 3, 2]);
    same(&parts[2], &[1, 2], &[4., 5.]);
    let e = One::legacy("expand_v2").input("X", count(&[2, 1])).ints("shape", &[3, -1, 2]);
    e.gives("Out", &[3, 2, 2], &[0., 0., 1., 1., 0., 0., 1., 1., 0., 0., 1., 1.]);
    let t = One::legacy("expand").input("X", count(&[1, 2])).ints("expand_times", &[2, 2]);
    t.gives("Out", &[2, 4], &[0., 1., 0., 1., 0., 1., 0., 1.]);
    let u = One::pir("unsqueeze").input("", count(&[2])).constant("", i64s(&[2], &[0, -1]));
    assert_eq!(u.run(&[("Out", Dtype::F32)], 1)[0].dims(), [1, 2, 1]);
    let s = One::pir("stack").list(vec![count(&[2]), f32s(&[2], &[5., 6.])]).int("axis", -1);
    s.gives("Y", &[2, 2], &[0., 5., 1., 6.]);
}

#[test]
fn pads_come_last_axis_first() {
    let p = One::pir("pad3d").input("", count(&[1, 1, 1, 2, 2]));
    let p = p.constant("", i64s(&[6], &[1, 0, 0, 1, 0, 0])).float("pad_value", 9.0);
    p.gives("Out", &[1, 1, 1, 3, 3], &[9., 0., 1., 9., 2., 3., 9., 9., 9.]);
    let p = One::legacy("pad2d").input("X", count(&[1, 1, 2, 3])).ints("paddings", &[0, 1, 2, 0]);
    let want = [2., 1., 0., 1., 2., 5., 4., 3., 4., 5., 2., 1., 0., 1., 2.];
    p.text("mode", "reflect").gives("Out", &[1, 1, 3, 5], &want);
}

#[test]
fn pools_count_as_paddle_does() {
    let p = |kind: &str| {
        One::legacy("pool2d")
            .input("X", count(&[1, 1, 3, 3]))
            .text("pooling_type", kind)
            .ints("ksize", &[2, 2])
            .ints("strides", &[2, 2])
    };
    p("max").gives("Out", &[1, 1, 1, 1], &[4.]);
    p("max").flag("ceil_mode", true).gives("Out", &[1, 1, 2, 2], &[4., 5., 7., 8.]);
    let padded = |exclusive| p("avg").ints("paddings", &[1, 1]).flag("exclusive", exclusive);
    padded(true).gives("Out", &[1, 1, 2, 2], &[0., 1.5, 4.5, 6.]);
    padded(false).gives("Out", &[1, 1, 2, 2], &[0., 0.75, 2.25, 6.]);
    p("avg").flag("adaptive", true).gives("Out", &[1, 1, 2, 2], &[2., 3., 5., 6.]);
    p("avg").flag("global_pooling", true).gives("Out", &[1, 1, 1, 1], &[4.]);
    p("max").text("padding_algorithm", "SAME").gives("Out", &[1, 1, 2, 2], &[4., 5., 7., 8.]);
}

#[test]
fn convolutions_pad_on_both_sides_apart() {
    let w = || f32s(&[1, 1, 2, 2], &[1., 0., 0., 1.]);
    let c = || One::legacy("conv2d").input("Input", count(&[1, 1, 2, 2])).constant("Filter", w());
    c().ints("paddings", &[1, 0, 0, 1]).gives("Output", &[1, 1, 2, 2], &[1., 0., 3., 1.]);
    c().text("padding_algorithm", "SAME").gives("Output", &[1, 1, 2, 2], &[3., 1., 2., 3.]);
    // Channels last: the same picture.
    let x = count(&[1, 2, 2, 1]);
    let c = One::legacy("conv2d").input("Input", x).constant("Filter", w());
    c.text("data_format", "NHWC").gives("Output", &[1, 1, 1, 1], &[3.]);
    let t = One::legacy("conv2d_transpose").input("Input", f32s(&[1, 1, 1, 2], &[1., 2.]));
    let t = t.constant("Filter", f32s(&[1, 1, 1, 2], &[1., 10.])).ints("strides", &[1, 2]);
    t.ints("output_padding", &[0, 1]).gives("Output", &[1, 1, 1, 5], &[1., 10., 2., 20., 0.]);
}

#[test]
fn interpolation_has_three_ways_to_align() {
    let i = |corners, mode| {
        One::legacy("bilinear_interp_v2")
            .input("X", f32s(&[1, 1, 1, 2], &[0., 6.]))
            .int("out_h", 1)
            .int("out_w", 4)
            .flag("align_corners", corners)
            .int("align_mode", mode)
    };
    i(true, 1).gives("Out", &[1, 1, 1, 4], &[0., 2., 4., 6.]);
    i(false, 1).gives("Out", &[1, 1, 1, 4], &[0., 3., 6., 6.]);
    i(false, 0).gives("Out", &[1, 1, 1, 4], &[0., 1.5, 4.5, 6.]);
    let n = |corners| {
        One::pir("nearest_interp")
            .input("", count(&[1, 1, 1, 3]))
            .none()
            .none()
            .none()
            .int("out_h", 1)
            .int("out_w", 5)
            .flag("align_corners", corners)
    };
    n(false).gives("Out", &[1, 1, 1, 5], &[0., 0., 1., 1., 2.]);
    n(true).gives("Out", &[1, 1, 1, 5], &[0., 1., 1., 2., 2.]);
}

#[test]
fn products_flatten_and_transpose() {
    let m = One::legacy("mul").input("X", count(&[2, 1, 2])).constant("Y", count(&[2, 3]));
    m.int("x_num_col_dims", 2).gives("Out", &[2, 1, 3], &[3., 4., 5., 9., 14., 19.]);
    let m = One::legacy("mul").input("X", count(&[1, 2, 2])).constant("Y", count(&[4, 1]));
    m.gives("Out", &[1, 1], &[14.]);
    let m = One::legacy("matmul").input("X", count(&[2, 2])).input("Y", count(&[2, 2]));
    let m = m.flag("transpose_Y", true).float("alpha", 0.5);
    m.gives("Out", &[2, 2], &[0.5, 1.5, 1.5, 6.5]);
}

#[test]
fn reductions_scans_and_orders() {
    let s = One::pir("sum").input("", count(&[2, 2])).constant("", i64s(&[0], &[]));
    s.gives("Out", &[], &[6.]);
    let s = One::legacy("reduce_mean").input("X", count(&[2, 2])).ints("dim", &[-1]);
    s.flag("keep_dim", true).gives("Out", &[2, 1], &[0.5, 2.5]);
    let c = One::legacy("cumsum").input("X", count(&[4])).int("axis", 0).flag("reverse", true);
    c.flag("exclusive", true).gives("Out", &[4], &[6., 5., 3., 0.]);
    let l = One::pir("logsumexp").input("", f32s(&[2], &[0., 0.])).ints("axis", &[0]);
    l.gives("Out", &[], &[std::f32::consts::LN_2]);
    let n = One::legacy("p_norm").input("X", f32s(&[1, 2], &[3., 4.])).float("porder", 2.0);
    n.int("axis", -1).gives("Out", &[1], &[5.]);
    let x = f32s(&[4], &[2., 5., 5., 1.]);
    let t = One::legacy("top_k").input("X", x.clone()).int("k", 2);
    let t = t.run(&[("Out", Dtype::F32), ("Indices", Dtype::I64)], 1);
    same(&t[0], &[2], &[5., 5.]);
    assert_eq!(t[1].to_i64s().unwrap(), [1, 2]);
    let a = One::pir("argsort").input("", x.clone()).int("axis", 0);
    let a = a.run(&[("Out", Dtype::F32), ("Indices", Dtype::I64)], 1);
    assert_eq!(a[1].to_i64s().unwrap(), [3, 0, 1, 2]);
    One::pir("argmax").input("", x).constant("", i64s(&[], &[0])).gives_i64("Out", &[], &[1]);
}

#[test]
fn gathers_and_scatters() {
    let g = One::legacy("gather").input("X", count(&[3, 2])).input("Index", i64s(&[2, 1], &[2, 0]));
    g.gives("Out", &[2, 2], &[4., 5., 0., 1.]);
    let s = |overwrite| {
        One::legacy("scatter")
            .input("X", f32s(&[3], &[9.; 3]))
            .input("Ids", i64s(&[2], &[1, 1]))
            .input("Updates", f32s(&[2], &[1., 2.]))
            .flag("overwrite", overwrite)
    };
    s(true).gives("Out", &[3], &[9., 2., 9.]);
    s(false).gives("Out", &[3], &[9., 3., 9.]);
    let e = One::legacy("lookup_table").constant("W", f32s(&[2, 1], &[7., 8.]));
    let e = e.input("Ids", i64s(&[1, 3, 1], &[0, 1, 1])).int("padding_idx", 0);
    e.gives("Out", &[1, 3, 1], &[0., 8., 8.]);
    let o = One::legacy("one_hot_v2").input("X", i64s(&[2], &[2, 0])).int("depth", 3);
    o.gives("Out", &[2, 3], &[0., 0., 1., 1., 0., 0.]);
    let w = One::pir("nonzero").input("", f32s(&[2, 2], &[0., 1., 2., 0.]));
    w.gives_i64("Out", &[2, 2], &[0, 1, 1, 0]);
}

#[test]
fn movement_of_other_kinds() {
    let r = One::legacy("roll").input("X", count(&[2, 3])).ints("shifts", &[1]).ints("axis", &[1]);
    r.gives("Out", &[2, 3], &[2., 0., 1., 5., 3., 4.]);
    let f = One::pir("flip").input("", count(&[2, 2])).ints("axis", &[0]);
    f.gives("Out", &[2, 2], &[2., 3., 0., 1.]);
    let t = One::legacy("tril_triu").input("X", f32s(&[2, 2], &[1.; 4])).flag("lower", true);
    t.gives("Out", &[2, 2], &[1., 0., 1., 1.]);
    let p = One::legacy("pixel_shuffle").input("X", count(&[1, 4, 1, 2])).int("upscale_factor", 2);
    p.gives("Out", &[1, 1, 2, 4], &[0., 2., 1., 3., 4., 6., 5., 7.]);
    let a = One::pir("arange").constant("", i64s(&[1], &[1])).constant("", i64s(&[1], &[8]));
    a.constant("", i64s(&[1], &[3])).gives_i64("Out", &[3], &[1, 4, 7]);
    let l = One::pir("linspace").constant("", f32s(&[1], &[0.])).constant("", f32s(&[1], &[1.]));
    l.constant("", i64s(&[1], &[5])).gives("Out", &[5], &[0., 0.25, 0.5, 0.75, 1.]);
    let v = One::legacy("assign_value").int("dtype", 5).ints("shape", &[2]);
    v.attr("fp32_values", Attr::Floats(vec![1.5, 2.5])).gives("Out", &[2], &[1.5, 2.5]);
}

#[test]
fn normalisations() {
    let i =
        One::legacy("instance_norm").input("X", f32s(&[1, 1, 2], &[1., 3.])).float("epsilon", 0.0);
    i.gives("Y", &[1, 1, 2], &[-1., 1.]);
    let g = One::legacy("group_norm").input("X", f32s(&[1, 2, 1], &[1., 3.])).float("epsilon", 0.0);
    let g = g.constant("Scale", f32s(&[2], &[1., 2.])).constant("Bias", f32s(&[2], &[0., 1.]));
    g.int("groups", 1).gives("Y", &[1, 2, 1], &[-1., 3.]);
    let l = One::legacy("layer_norm").input("X", f32s(&[1, 2], &[1., 3.])).float("epsilon", 0.0);
    l.int("begin_norm_axis", 1).gives("Y", &[1, 2], &[-1., 1.]);
    let n = One::legacy("norm").input("X", f32s(&[1, 2], &[3., 4.])).int("axis", 1);
    n.gives("Out", &[1, 2], &[0.6, 0.8]);
}

#[test]
fn axes_may_be_an_operand_of_any_reduction() {
    for kind in ["mean", "amax", "logsumexp"] {
        let axis = i64s(&[1], &[1]);
        let one = One::pir(kind).input("", count(&[2, 3])).constant("", axis);
        let outs = one.flag("keepdim", true).run(&[("Out", Dtype::F32)], 1);
        assert_eq!(outs[0].dims(), [2, 1], "{kind}");
    }
}

#[test]
fn an_operand_that_nobody_reads_is_refused() {
    let mut one = One::pir("relu").input("", count(&[2])).input("", count(&[2]));
    let out = var(&mut one.program, Dtype::F32, &[2]);
    one.op.outs.push((String::new(), vec![out]));
    one.program.blocks[0].ops.push(one.op);
    let mut fetch = op("fetch");
    fetch.ins.push(("X".into(), vec![out]));
    one.program.blocks[0].ops.push(fetch);
    let e = import::import(&one.program, one.data, &LoadOptions::default()).expect_err("refused");
    assert!(e.to_string().contains("operand 1 has no meaning"), "{e}");
}
