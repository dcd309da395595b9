//! Operators of detectors, quantised models and the like.

use super::{One, count, f32s, i64s};
use crate::paddle::program::Attr;
use hub_abi::Dtype;
use hub_portable::Tensor;

#[test]
fn assignments_to_slices() {
    let s = One::pir("set_value_with_tensor_").input("", count(&[3, 3]));
    let s = s.input("", f32s(&[2], &[8., 9.])).constant("", i64s(&[2], &[1, 0]));
    let s = s.constant("", i64s(&[2], &[2, 2])).constant("", i64s(&[2], &[1, 1]));
    let s = s.ints("axes", &[0, 1]).ints("decrease_axes", &[0]);
    s.gives("Out", &[3, 3], &[0., 1., 2., 8., 9., 5., 6., 7., 8.]);
    // A column: its axis is dropped from the value.
    let s = One::legacy("set_value").input("Input", count(&[2, 2])).ints("axes", &[1]);
    let s = s.ints("starts", &[1]).ints("ends", &[2]).ints("steps", &[1]).ints("shape", &[2]);
    let s = s.attr("fp32_values", Attr::Floats(vec![7., 8.])).ints("decrease_axes", &[1]);
    s.gives("Out", &[2, 2], &[0., 7., 2., 8.]);
}

#[test]
fn patches_shifts_and_sums() {
    let u = One::legacy("unfold").input("X", count(&[1, 1, 2, 3])).ints("kernel_sizes", &[2, 2]);
    u.gives("Y", &[1, 4, 2], &[0., 1., 1., 2., 3., 4., 4., 5.]);
    let t = One::legacy("temporal_shift").input("X", count(&[2, 4, 1, 1])).int("seg_num", 2);
    t.gives("Out", &[2, 4, 1, 1], &[0., 5., 2., 3., 0., 0., 6., 7.]);
    let r = One::pir("repeat_interleave").input("", count(&[2])).int("repeats", 2).int("axis", 0);
    r.gives("Out", &[4], &[0., 0., 1., 1.]);
    let e = One::pir("einsum").list(vec![count(&[2, 2]), count(&[2, 2]), f32s(&[2], &[1., 10.])]);
    // sum over j, k of a[i,j] b[j,k] c[k]: b·c = [10, 32].
    e.text("equation", "ij,jk,k->i").gives("Out", &[2], &[32., 116.]);
    let e = One::pir("einsum").list(vec![count(&[2, 3])]).text("equation", "ij->ji");
    e.gives("Out", &[3, 2], &[0., 3., 1., 4., 2., 5.]);
    let s = One::legacy("sequence_mask").input("X", i64s(&[2], &[1, 3])).int("maxlen", -1);
    s.int("out_dtype", 5).gives("Y", &[2, 3], &[1., 0., 0., 1., 1., 1.]);
}

#[test]
fn sampling_through_an_affine_grid() {
    let same_place = f32s(&[1, 2, 3], &[1., 0., 0., 0., 1., 0.]);
    let g =
        One::legacy("affine_grid").input("Theta", same_place).ints("output_shape", &[1, 1, 2, 2]);
    let grid = [-1., -1., 1., -1., -1., 1., 1., 1.];
    g.gives("Output", &[1, 2, 2, 2], &grid);
    let s = |points: &[f32], mode| {
        let grid = f32s(&[1, 1, points.len() / 2, 2], points);
        One::legacy("grid_sampler")
            .input("X", count(&[1, 1, 2, 3]))
            .input("Grid", grid)
            .text("padding_mode", mode)
    };
    // x over -1..1 is 0..2, y is 0..1.
    let points = [-1., -1., 0.5, 0., 3., 1., -1.5, -1.];
    s(&points, "zeros").gives("Output", &[1, 1, 1, 4], &[0., 3., 0., 0.]);
    s(&points, "border").gives("Output", &[1, 1, 1, 4], &[0., 3., 5., 0.]);
}

/// Four boxes of one image; the second overlaps the first by 0.6, the third neither, the fourth the
/// third by half.
fn detections() -> (Tensor, Tensor) {
    let boxes = [0., 0., 10., 10., 0., 0., 10., 6., 20., 20., 30., 30., 20., 20., 30., 25.];
    let scores = [0.5, 0.9, 0.3, 0.8, 0.05, 0.4, 0.7, 0.6];
    (f32s(&[1, 4, 4], &boxes), f32s(&[1, 2, 4], &scores))
}

#[test]
fn greedy_suppression_by_class() {
    let nms = |threshold: f64, keep: i64| {
        let (boxes, scores) = detections();
        let n = One::legacy("multiclass_nms3").input("BBoxes", boxes).input("Scores", scores);
        let n = n.int("background_label", -1).float("score_threshold", 0.1).int("nms_top_k", 4);
        let n = n.float("nms_threshold", threshold).int("keep_top_k", keep);
        n.run(&[("Out", Dtype::F32), ("Index", Dtype::I32), ("NmsRoisNum", Dtype::I32)], 1)
    };
    // Class 0: 0.9 (box 1) removes box 0, 0.8 (box 3) stays at 0.5 but removes box 2 at 0.4.
    let out = nms(0.55, 10);
    let rows = |t: &Tensor| -> Vec<(f32, f32)> {
        t.view::<f32>().unwrap().chunks(6).map(|r| (r[0], r[1])).collect()
    };
    let all = [(0., 0.9), (0., 0.8), (0., 0.3), (1., 0.7), (1., 0.6), (1., 0.4)];
    assert_eq!(rows(&out[0]), all);
    assert_eq!(out[1].to_i64s().unwrap(), [1, 3, 2, 2, 3, 1]);
    assert_eq!(out[2].to_i64s().unwrap(), [6]);
    let out = nms(0.45, 10);
    assert_eq!(rows(&out[0]), [(0., 0.9), (0., 0.8), (1., 0.7), (1., 0.4)]);
    // The best three of all, by class.
    let out = nms(0.55, 3);
    assert_eq!(rows(&out[0]), [(0., 0.9), (0., 0.8), (1., 0.7)]);
    let (boxes, scores) = detections();
    let none = One::pir("multiclass_nms3").input("", boxes).input("", scores).none();
    let none = none.float("score_threshold", 0.95).int("background_label", 0).int("keep_top_k", 5);
    let none = none.run(&[("Out", Dtype::F32)], 1);
    assert_eq!(none[0].dims(), [0, 6]);
}

#[test]
fn scores_decay_by_overlap() {
    let (boxes, scores) = detections();
    let n = One::legacy("matrix_nms").input("BBoxes", boxes).input("Scores", scores);
    let n = n.int("background_label", 0).float("score_threshold", 0.1).float("post_threshold", 0.2);
    let out = n.run(&[("Out", Dtype::F32), ("Index", Dtype::I32)], 1);
    // Class 1 alone: 0.7 stays, 0.6 overlaps it by half, 0.4 overlaps nothing above the threshold.
    let have: Vec<f32> = out[0].view::<f32>().unwrap().chunks(6).map(|r| r[1]).collect();
    assert_eq!(have.len(), 3);
    for (h, w) in have.iter().zip([0.7, 0.4, 0.3]) {
        assert!((h - w).abs() < 1e-5, "{have:?}");
    }
    assert_eq!(out[1].to_i64s().unwrap(), [2, 1, 3]);
}

#[test]
fn anchors_and_their_decoding() {
    let p = One::legacy("prior_box")
        .input("Input", count(&[1, 1, 1, 2]))
        .input("Image", count(&[1, 1, 4, 8]));
    let p = p.attr("min_sizes", Attr::Floats(vec![2.0])).attr("max_sizes", Attr::Floats(vec![8.0]));
    let want =
        [0.125, 0.25, 0.375, 0.75, 0., 0., 0.5, 1., 0.625, 0.25, 0.875, 0.75, 0.5, 0., 1., 1.];
    p.gives("Boxes", &[1, 2, 2, 4], &want);
    let b = One::legacy("box_coder").input("PriorBox", f32s(&[1, 4], &[0., 0., 2., 4.]));
    let b = b.input("TargetBox", f32s(&[1, 1, 4], &[1., 1., 0., std::f32::consts::LN_2]));
    let b = b.text("code_type", "decode_center_size");
    let b = b.attr("variance", Attr::Floats(vec![0.5, 0.25, 1.0, 1.0]));
    b.gives("OutputBox", &[1, 1, 4], &[1., -1., 3., 7.]);
}

#[test]
fn deformable_convolution_with_whole_offsets_is_a_shifted_one() {
    // One tap, one channel: the filter doubles what lies one to the right, half of it masked.
    let offset = f32s(&[1, 2, 2, 2], &[0., 0., 0., 0., 1., 1., 1., 0.5]);
    let mask = f32s(&[1, 1, 2, 2], &[1., 1., 0.5, 1.]);
    let d = One::legacy("deformable_conv").input("Input", count(&[1, 1, 2, 2]));
    let d = d
        .input("Offset", offset)
        .input("Mask", mask)
        .constant("Filter", f32s(&[1, 1, 1, 1], &[2.]));
    d.gives("Output", &[1, 1, 2, 2], &[2., 0., 3., 3.]);
    // No offsets: a convolution.
    let x = || count(&[1, 2, 3, 3]);
    let w = || f32s(&[1, 2, 2, 2], &[1., 2., 3., 4., 5., 6., 7., 8.]);
    let plain = One::legacy("conv2d").input("Input", x()).constant("Filter", w());
    let plain = plain.ints("paddings", &[1, 0]).run(&[("Output", Dtype::F32)], 1);
    let d = One::pir("deformable_conv").input("", x()).input("", f32s(&[1, 16, 4, 2], &[0.; 128]));
    let d = d.constant("", w()).none().ints("paddings", &[1, 0]).int("deformable_groups", 2);
    d.gives("Output", &[1, 1, 4, 2], &plain[0].view::<f32>().unwrap());
}

#[test]
fn quantisation_is_simulated() {
    let x = || f32s(&[4], &[-3.0, -0.5, 0.011, 1.0]);
    let q = One::legacy("fake_quantize_dequantize_moving_average_abs_max").input("X", x());
    let q = q.constant("InScale", f32s(&[1], &[1.27]));
    q.gives("Out", &[4], &[-1.27, -0.5, 0.01, 1.0]);
    let q = One::legacy("quantize_linear").input("X", x()).constant("Scale", f32s(&[1], &[1.27]));
    let q = q.int("quant_axis", -1).run(&[("Y", Dtype::I8)], 1);
    let q: Vec<f32> = q[0].view::<f32>().unwrap().to_vec();
    assert_eq!(q, [-128.0, -50.0, 1.0, 100.0]);
    let w = Tensor::new(&[2, 1], vec![127i8, -127]).unwrap();
    let d = One::legacy("dequantize_linear").constant("X", w).int("quant_axis", 0);
    d.constant("Scale", f32s(&[2], &[1., 2.])).gives("Y", &[2, 1], &[1., -2.]);
}

#[test]
fn halves_are_normalised_with_wide_parameters() {
    let x = Tensor::from_bytes(Dtype::F16, &[1, 2], &[0x00, 0x3c, 0x00, 0x42]).unwrap();
    let l = One::legacy("layer_norm").input("X", x).float("epsilon", 0.0).int("begin_norm_axis", 1);
    let l = l.constant("Scale", f32s(&[2], &[1., 2.])).constant("Bias", f32s(&[2], &[0., 1.]));
    let out = l.run(&[("Y", Dtype::F16)], 1);
    assert_eq!(out[0].bytes(), [0x00, 0xbc, 0x00, 0x42]);
}

#[test]
fn channels_compete() {
    let l = One::legacy("lrn").input("X", f32s(&[1, 3, 1, 1], &[1., 2., 3.])).int("n", 3);
    let l = l.float("k", 1.0).float("alpha", 1.0).float("beta", 1.0);
    l.gives("Out", &[1, 3, 1, 1], &[1. / 6., 2. / 15., 3. / 14.]);
    let m = One::legacy("maxout").input("X", f32s(&[1, 4], &[1., 3., 2., 0.])).int("groups", 2);
    m.gives("Out", &[1, 2], &[3., 2.]);
    let d = One::pir("dist").input("", f32s(&[2], &[4., 1.])).input("", f32s(&[2], &[1., 5.]));
    d.gives("Out", &[], &[5.]);
}

#[test]
fn an_attribute_may_be_a_variable() {
    let r = One::legacy("cumsum").input("X", count(&[2, 2])).constant("axis", i64s(&[1], &[0]));
    r.gives("Out", &[2, 2], &[0., 1., 2., 4.]);
    let f = One::legacy("fill_constant").int("dtype", 5).float("value", 2.0);
    f.constant("shape", i64s(&[2], &[1, 2])).gives("Out", &[1, 2], &[2., 2.]);
}
