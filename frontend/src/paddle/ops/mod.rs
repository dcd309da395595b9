//! The two tables of operators. A row names an operator and the function that imports it; PIR's
//! rows also name its positional operands and results, as ProgramDesc calls them, so that one
//! function serves both.
//!
//! To add an operator: a function in a file here, and a row in each table.

use super::ctx::{Ctx, Res};
use super::program::Dialect;

mod conv;
mod deform;
mod detection;
mod elementwise;
mod fill;
mod index;
mod matmul;
mod misc;
mod nms;
mod norm;
mod quant;
mod rearrange;
mod reduce;
mod rnn;
mod shape;
#[cfg(test)]
mod tests;

/// A row of a table.
pub struct Row {
    /// Names of positional operands, apart by spaces.
    pub ins: &'static str,
    /// Names of positional results.
    pub outs: &'static str,
    /// Builds the operator.
    pub import: fn(&mut Ctx<'_, '_>) -> Res,
}

/// The row of an operator; an in-place variant (`relu_`) has its plain one's.
pub fn find(dialect: Dialect, kind: &str) -> Option<Row> {
    match dialect {
        Dialect::Legacy => {
            let (_, import) = LEGACY.iter().find(|(names, _)| has(names, kind))?;
            Some(Row { ins: "", outs: "", import: *import })
        }
        Dialect::Pir => {
            let plain = kind.strip_suffix('_').unwrap_or(kind);
            let row = PIR.iter().find(|r| has(r.0, kind) || has(r.0, plain))?;
            Some(Row { ins: row.1, outs: row.2, import: row.3 })
        }
    }
}

fn has(names: &str, kind: &str) -> bool {
    names.split(' ').any(|n| n == kind)
}

type Import = fn(&mut Ctx<'_, '_>) -> Res;

/// ProgramDesc's operators.
const LEGACY: &[(&str, Import)] = &[
    ("conv2d conv3d depthwise_conv2d", conv::conv),
    ("conv2d_transpose conv3d_transpose depthwise_conv2d_transpose", conv::conv_transpose),
    ("pool2d pool3d max_pool2d_with_index max_pool3d_with_index", conv::pool),
    ("nearest_interp nearest_interp_v2 bilinear_interp bilinear_interp_v2", conv::interp),
    ("bicubic_interp bicubic_interp_v2 linear_interp linear_interp_v2", conv::interp),
    ("trilinear_interp trilinear_interp_v2", conv::interp),
    ("elementwise_add elementwise_sub elementwise_mul elementwise_div", elementwise::binary),
    ("elementwise_max elementwise_min elementwise_pow elementwise_mod", elementwise::binary),
    ("elementwise_fmax elementwise_fmin grad_add maximum minimum atan2", elementwise::binary),
    ("equal not_equal less_than less_equal greater_than greater_equal", elementwise::binary),
    ("logical_and logical_or logical_xor", elementwise::binary),
    ("bitwise_and bitwise_or bitwise_xor", elementwise::binary),
    ("elementwise_floordiv", elementwise::floor_divide),
    ("sigmoid tanh exp expm1 log log1p sqrt rsqrt reciprocal abs floor ceil", elementwise::unary),
    ("round trunc sin cos tan asin acos atan sinh cosh asinh acosh", elementwise::unary),
    ("atanh erf sign isnan_v2 isinf_v2 bitwise_not", elementwise::unary),
    ("logical_not", elementwise::logical_not),
    ("isfinite_v2", elementwise::is_finite),
    ("relu relu6 brelu hardtanh leaky_relu elu gelu silu swish", elementwise::activation),
    ("hard_sigmoid hard_swish mish", elementwise::activation),
    ("softplus", elementwise::softplus),
    ("square log2 log10 softsign logsigmoid tanh_shrink stanh selu celu", elementwise::composed),
    ("hard_shrink softshrink thresholded_relu", elementwise::composed),
    ("clip", elementwise::clip),
    ("scale", elementwise::scale),
    ("pow", elementwise::pow),
    ("increment", elementwise::increment),
    ("sum", elementwise::sum_of),
    ("where", elementwise::select),
    ("prelu", elementwise::prelu),
    ("dropout", elementwise::dropout),
    ("cast", elementwise::cast),
    ("matmul matmul_v2 bmm mv", matmul::matmul),
    ("mul", matmul::mul),
    ("fc", matmul::fc),
    ("addmm", matmul::addmm),
    ("dot", matmul::dot),
    ("lrn", norm::lrn),
    ("maxout", misc::maxout),
    ("equal_all", misc::equal_all),
    ("dist", reduce::dist),
    ("reshape reshape2", shape::reshape),
    ("flatten flatten2", shape::flatten2),
    ("flatten_contiguous_range", shape::flatten),
    ("transpose transpose2", shape::transpose),
    ("squeeze squeeze2", shape::squeeze),
    ("unsqueeze unsqueeze2", shape::unsqueeze),
    ("concat", shape::concat),
    ("stack", shape::stack),
    ("split", shape::split),
    ("unbind unstack", shape::unbind),
    ("slice", shape::slice),
    ("strided_slice", shape::strided_slice),
    ("shape", shape::shape),
    ("size", shape::size),
    ("expand_v2 expand_as_v2", shape::expand),
    ("expand tile", shape::tile),
    ("pad pad2d pad3d", shape::pad),
    ("pixel_shuffle pixel_unshuffle shuffle_channel", rearrange::pixel_shuffle),
    ("flip reverse", rearrange::flip),
    ("roll", rearrange::roll),
    ("meshgrid", rearrange::meshgrid),
    ("tril_triu", rearrange::triangle),
    ("fill_constant", fill::full),
    ("fill_any_like fill_zeros_like", fill::full_like),
    ("empty", fill::zeros),
    ("fill_constant_batch_size_like", fill::full_batch_size_like),
    ("assign_value", fill::assign_value),
    ("range", fill::arange),
    ("linspace", fill::linspace),
    ("eye", fill::eye),
    ("gaussian_random uniform_random", fill::random),
    ("one_hot one_hot_v2", fill::one_hot),
    ("reduce_sum reduce_mean reduce_max reduce_min reduce_prod", reduce::reduce),
    ("reduce_all reduce_any reduce_amax reduce_amin", reduce::reduce),
    ("mean", reduce::mean_all),
    ("logsumexp", reduce::logsumexp),
    ("p_norm", reduce::p_norm),
    ("softmax log_softmax", reduce::softmax),
    ("cumsum cumprod", reduce::cumsum),
    ("arg_max arg_min", reduce::arg),
    ("top_k top_k_v2", reduce::top_k),
    ("argsort", reduce::argsort),
    ("batch_norm sync_batch_norm", norm::batch_norm),
    ("layer_norm", norm::layer_norm),
    ("instance_norm", norm::instance_norm),
    ("group_norm", norm::group_norm),
    ("affine_channel", norm::affine_channel),
    ("norm", norm::l2_normalize),
    ("gather index_select", index::gather),
    ("gather_nd", index::gather_nd),
    ("index_sample take_along_axis", index::gather_elements),
    ("scatter", index::scatter),
    ("scatter_nd_add", index::scatter_nd_add),
    ("put_along_axis", index::put_along_axis),
    ("lookup_table lookup_table_v2", index::embedding),
    ("where_index", index::non_zero),
    ("masked_select", index::masked_select),
    ("rnn", rnn::rnn),
    ("yolo_box", detection::yolo_box),
    ("prior_box", detection::prior_box),
    ("box_coder", detection::box_coder),
    ("multiclass_nms multiclass_nms2 multiclass_nms3", nms::multiclass_nms),
    ("matrix_nms", nms::matrix_nms),
    ("deformable_conv deformable_conv_v1", deform::deformable_conv),
    ("fake_quantize_dequantize_moving_average_abs_max", quant::fake_quantize),
    ("fake_quantize_dequantize_abs_max", quant::fake_quantize),
    ("fake_channel_wise_quantize_dequantize_abs_max", quant::fake_quantize),
    ("quantize_linear", quant::quantize),
    ("dequantize_linear", quant::dequantize),
    ("moving_average_abs_max_scale", quant::observed),
    ("set_value", misc::set_value),
    ("unfold", misc::unfold),
    ("temporal_shift", misc::temporal_shift),
    ("repeat_interleave", misc::repeat_interleave),
    ("einsum", misc::einsum),
    ("sequence_mask", misc::sequence_mask),
    ("affine_grid", misc::affine_grid),
    ("grid_sampler", misc::grid_sample),
    ("partial_concat partial_sum", misc::partial),
];

/// PIR's operators, with the names of their operands and results.
const PIR: &[(&str, &str, &str, Import)] = &[
    ("conv2d conv3d depthwise_conv2d", "Input Filter", "Output", conv::conv),
    (
        "conv2d_transpose depthwise_conv2d_transpose",
        "Input Filter OutputSize",
        "Output",
        conv::conv_transpose,
    ),
    ("conv3d_transpose", "Input Filter", "Output", conv::conv_transpose),
    ("pool2d", "X KernelSize", "Out", conv::pool),
    ("pool3d", "X", "Out", conv::pool),
    ("max_pool2d_with_index max_pool3d_with_index", "X", "Out Mask", conv::pool),
    ("nearest_interp bilinear_interp bicubic_interp", INTERP, "Out", conv::interp),
    ("linear_interp trilinear_interp", INTERP, "Out", conv::interp),
    ("add subtract multiply divide maximum minimum fmax fmin", "X Y", "Out", elementwise::binary),
    ("elementwise_pow remainder atan2 grad_add", "X Y", "Out", elementwise::binary),
    ("equal not_equal less_than less_equal", "X Y", "Out", elementwise::binary),
    ("greater_than greater_equal", "X Y", "Out", elementwise::binary),
    ("logical_and logical_or logical_xor", "X Y", "Out", elementwise::binary),
    ("bitwise_and bitwise_or bitwise_xor", "X Y", "Out", elementwise::binary),
    ("floor_divide", "X Y", "Out", elementwise::floor_divide),
    ("sigmoid tanh exp expm1 log log1p sqrt rsqrt reciprocal", "X", "Out", elementwise::unary),
    ("abs floor ceil round trunc sin cos tan asin acos atan", "X", "Out", elementwise::unary),
    ("sinh cosh asinh acosh atanh erf sign isnan isinf", "X", "Out", elementwise::unary),
    ("bitwise_not", "X", "Out", elementwise::unary),
    ("logical_not", "X", "Out", elementwise::logical_not),
    ("isfinite", "X", "Out", elementwise::is_finite),
    ("relu relu6 hardtanh leaky_relu elu gelu silu swish", "X", "Out", elementwise::activation),
    ("hardsigmoid hardswish mish", "X", "Out", elementwise::activation),
    ("softplus", "X", "Out", elementwise::softplus),
    ("square log2 log10 softsign logsigmoid tanh_shrink", "X", "Out", elementwise::composed),
    ("stanh selu celu hardshrink softshrink", "X", "Out", elementwise::composed),
    ("thresholded_relu", "X", "Out", elementwise::composed),
    ("clip", "X Min Max", "Out", elementwise::clip),
    ("scale", "X ScaleTensor", "Out", elementwise::scale),
    ("pow", "X", "Out", elementwise::pow),
    ("increment", "X", "Out", elementwise::increment),
    ("add_n", "X", "Out", elementwise::sum_of),
    ("where", "Condition X Y", "Out", elementwise::select),
    ("prelu", "X Alpha", "Out", elementwise::prelu),
    ("dropout", "X Seed P", "Out Mask", elementwise::dropout),
    ("cast", "X", "Out", elementwise::cast),
    ("matmul bmm", "X Y", "Out", matmul::matmul),
    ("mv", "X Vec", "Out", matmul::matmul),
    ("matmul_with_flatten", "X Y", "Out", matmul::mul),
    ("fc", "Input W Bias", "Out", matmul::fc),
    ("addmm", "Input X Y", "Out", matmul::addmm),
    ("dot", "X Y", "Out", matmul::dot),
    ("maxout", "X", "Out", misc::maxout),
    ("equal_all", "X Y", "Out", misc::equal_all),
    ("dist", "X Y", "Out", reduce::dist),
    ("cumprod", "X", "Out", reduce::cumsum),
    ("reshape", "X Shape", "Out", shape::reshape),
    ("flatten", "X", "Out", shape::flatten),
    ("transpose", "X", "Out", shape::transpose),
    ("squeeze", "X Axes", "Out", shape::squeeze),
    ("unsqueeze", "X Axes", "Out", shape::unsqueeze),
    ("concat", "X Axis", "Out", shape::concat),
    ("stack", "X", "Y", shape::stack),
    ("split", "X Sections Axis", "Out", shape::split),
    ("split_with_num", "X Axis", "Out", shape::split),
    ("unbind", "X", "Out", shape::unbind),
    ("unstack", "X", "Y", shape::unbind),
    ("slice", "Input StartsTensor EndsTensor", "Out", shape::slice),
    ("strided_slice", "Input StartsTensor EndsTensor StridesTensor", "Out", shape::strided_slice),
    ("shape shape64", "Input", "Out", shape::shape),
    ("numel", "Input", "Out", shape::size),
    ("expand", "X Shape", "Out", shape::expand),
    ("expand_as", "X Y", "Out", shape::expand),
    ("tile", "X RepeatTimes", "Out", shape::tile),
    ("pad", "X PadValue", "Out", shape::pad),
    ("pad3d", "X Paddings", "Out", shape::pad),
    ("pixel_shuffle pixel_unshuffle shuffle_channel", "X", "Out", rearrange::pixel_shuffle),
    ("channel_shuffle", "X", "Out", rearrange::pixel_shuffle),
    ("flip reverse", "X", "Out", rearrange::flip),
    ("roll", "X Shifts", "Out", rearrange::roll),
    ("meshgrid", "X", "Out", rearrange::meshgrid),
    ("tril triu", "X", "Out", rearrange::triangle),
    ("full", "", "Out", fill::full),
    ("full_int_array", "", "Out", fill::int_array),
    ("full_with_tensor", "ValueTensor ShapeTensor", "Out", fill::full),
    ("full_like", "X Value", "Out", fill::full_like),
    ("zeros_like ones_like", "X", "Out", fill::full_like),
    ("zeros ones empty", "ShapeTensor", "Out", fill::zeros),
    ("full_batch_size_like", "Input", "Out", fill::full_batch_size_like),
    ("assign_value", "", "Out", fill::assign_value),
    ("arange", "Start End Step", "Out", fill::arange),
    ("linspace", "Start Stop Num", "Out", fill::linspace),
    ("eye", "Rows Columns", "Out", fill::eye),
    ("gaussian", "ShapeTensor", "Out", fill::random),
    ("uniform", "ShapeTensor Min Max", "Out", fill::random),
    ("one_hot", "X depth_tensor", "Out", fill::one_hot),
    ("sum max min prod", "X Axis", "Out", reduce::reduce),
    ("mean amax amin all any", "X Axis", "Out", reduce::reduce),
    ("mean_all", "X", "Out", reduce::mean_all),
    ("logsumexp", "X Axis", "Out", reduce::logsumexp),
    ("p_norm", "X", "Out", reduce::p_norm),
    ("softmax log_softmax", "X", "Out", reduce::softmax),
    ("cumsum", "X Axis", "Out", reduce::cumsum),
    ("argmax argmin", "X Axis", "Out", reduce::arg),
    ("topk", "X K", "Out Indices", reduce::top_k),
    ("argsort", "X", "Out Indices", reduce::argsort),
    ("batch_norm sync_batch_norm", "X Mean Variance Scale Bias", "Y", norm::batch_norm),
    ("layer_norm", "X Scale Bias", "Y", norm::layer_norm),
    ("instance_norm", "X Scale Bias", "Y", norm::instance_norm),
    ("group_norm", "X Scale Bias", "Y", norm::group_norm),
    ("affine_channel", "X Scale Bias", "Out", norm::affine_channel),
    ("norm", "X", "Out Norm", norm::l2_normalize),
    ("gather", "X Index Axis", "Out", index::gather),
    ("index_select", "X Index", "Out", index::gather),
    ("gather_nd", "X Index", "Out", index::gather_nd),
    ("index_sample take_along_axis", "X Index", "Out", index::gather_elements),
    ("scatter", "X Ids Updates", "Out", index::scatter),
    ("scatter_nd_add", "X Index Updates", "Out", index::scatter_nd_add),
    ("put_along_axis", "Input Index Value", "Result", index::put_along_axis),
    ("embedding", "Ids W", "Out", index::embedding),
    ("nonzero", "Condition", "Out", index::non_zero),
    ("masked_select", "X Mask", "Y", index::masked_select),
    ("rnn", "Input PreState WeightList SequenceLength DropoutIn", "Out Dropout State", rnn::rnn),
    ("yolo_box", "X ImgSize", "Boxes Scores", detection::yolo_box),
    ("prior_box", "Input Image", "Boxes Variances", detection::prior_box),
    ("box_coder", "PriorBox PriorBoxVar TargetBox", "OutputBox", detection::box_coder),
    ("multiclass_nms3", "BBoxes Scores RoisNum", "Out Index NmsRoisNum", nms::multiclass_nms),
    ("matrix_nms", "BBoxes Scores", "Out Index RoisNum", nms::matrix_nms),
    ("deformable_conv", "Input Offset Filter Mask", "Output", deform::deformable_conv),
    ("fake_quantize_dequantize_moving_average_abs_max", "X InScale", "Out", quant::fake_quantize),
    ("fake_quantize_dequantize_abs_max", "X", "Out", quant::fake_quantize),
    ("fake_channel_wise_quantize_dequantize_abs_max", "X", "Out", quant::fake_quantize),
    ("quantize_linear", "X Scale ZeroPoint", "Y", quant::quantize),
    ("dequantize_linear", "X Scale ZeroPoint", "Y", quant::dequantize),
    ("set_value", SLICED, "Out", misc::set_value),
    (
        "set_value_with_tensor",
        "Input ValueTensor StartsTensorList EndsTensorList StepsTensorList",
        "Out",
        misc::set_value,
    ),
    ("unfold", "X", "Y", misc::unfold),
    ("temporal_shift", "X", "Out", misc::temporal_shift),
    ("repeat_interleave", "X", "Out", misc::repeat_interleave),
    ("einsum", "Operands", "Out", misc::einsum),
    ("sequence_mask", "X MaxLenTensor", "Y", misc::sequence_mask),
    ("affine_grid", "Theta OutputShape", "Output", misc::affine_grid),
    ("grid_sample", "X Grid", "Output", misc::grid_sample),
    ("partial_concat partial_sum", "X", "Out", misc::partial),
];

/// Operands of PIR's interpolations.
const INTERP: &str = "X OutSize SizeTensor Scale";

/// Operands of PIR's set_value.
const SLICED: &str = "Input StartsTensorList EndsTensorList StepsTensorList";
