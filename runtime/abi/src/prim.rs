//! The primitives: the closed set of operations that everything expands into and every target runs.
//!
//! A primitive's meaning is a function on slices in `runtime/portable`; its type inference is in
//! [`crate::shape`]. Attributes that are sizes are [`Dim`]s, so that one graph serves every
//! binding of its symbols; no primitive takes a shape as a tensor.

use crate::dim::{Dim, Sym};
use crate::dtype::Dtype;
use serde::{Deserialize, Serialize};

/// Elementwise functions of one argument. The result has the argument's dtype, but for the
/// predicates `IsNan` and `IsInf`, which give bool.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum UnaryOp {
    Neg,
    Abs,
    /// -1, 0 or 1; NaN stays NaN.
    Sign,
    Floor,
    Ceil,
    /// To nearest, halves to even.
    Round,
    /// Towards zero.
    Trunc,
    Sqrt,
    /// `1 / sqrt(x)`.
    Rsqrt,
    /// `1 / x`.
    Recip,
    Exp,
    Expm1,
    Log,
    Log1p,
    Sin,
    Cos,
    Tan,
    Asin,
    Acos,
    Atan,
    Sinh,
    Cosh,
    Tanh,
    Asinh,
    Acosh,
    Atanh,
    Erf,
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// Logical not of a bool.
    Not,
    /// Bitwise complement of an integer.
    BitNot,
    IsNan,
    /// Either infinity.
    IsInf,
}

/// Elementwise functions of two arguments of one dtype, with NumPy's broadcasting. Comparisons
/// give bool.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum BinaryOp {
    Add,
    Sub,
    Mul,
    /// Integers truncate towards zero; MIN / -1 wraps; a zero divisor is a reported error.
    Div,
    /// Remainder with the divisor's sign (Python's `%`); integers report a zero divisor.
    Mod,
    /// Remainder with the dividend's sign (C's `fmod`).
    Rem,
    Pow,
    /// NaN if either is NaN.
    Max,
    /// NaN if either is NaN.
    Min,
    And,
    Or,
    Xor,
    BitAnd,
    BitOr,
    BitXor,
    /// Bits past the width give 0.
    Shl,
    /// Logical for unsigned, arithmetic for signed.
    Shr,
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    Atan2,
}

/// How a reduction, scan or scatter combines elements.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum ReduceOp {
    Sum,
    Prod,
    Max,
    Min,
    /// Sum divided by the count; floats only (integers divide truncating).
    Mean,
    And,
    Or,
}

/// How a scatter writes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum ScatterOp {
    /// The last update in row-major order wins.
    Set,
    Add,
    Mul,
    Max,
    Min,
}

/// How [`Prim::Pad`] fills.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum PadMode {
    Constant,
    /// Mirror without repeating the edge.
    Reflect,
    Edge,
    Wrap,
}

/// Geometry of a convolution or window over the spatial axes (all but the first two).
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Geometry {
    /// Step between outputs, one a spatial axis, ≥ 1.
    pub stride: Vec<i64>,
    /// Distance between taps, ≥ 1.
    pub dilation: Vec<i64>,
    /// Elements before the first, per axis; may be negative (crop).
    pub before: Vec<Dim>,
    /// Elements after the last, per axis.
    pub after: Vec<Dim>,
}

/// What a random tensor is drawn from.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Distribution {
    Uniform { lo: f64, hi: f64 },
    Normal { mean: f64, std: f64 },
}

/// What [`Prim::Text`] does. Host only: no target has strings.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum TextOp {
    /// `(a, b)`: joined, broadcasting.
    Concat,
    /// `(x)`: bool, whether the whole string matches a regular expression (RE2's syntax, ASCII
    /// classes).
    Matches {
        /// The expression.
        pattern: String,
    },
    /// `(x)`: in capitals, or without.
    Case {
        /// To capitals.
        upper: bool,
    },
    /// `(x)`: pieces as `x.shape ++ [width]` (empty past a string's last) and how many each string
    /// has as int64; binds the width, which is the most pieces of any.
    Split {
        /// What stands between pieces; without one, runs of white space (which no piece keeps).
        delimiter: Option<String>,
        /// Most splits of a string, from its start.
        most: Option<u64>,
        /// Bound to the last size.
        width: Sym,
    },
}

/// What a pixel of [`Prim::DecodeImage`] holds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Pixel {
    Rgb,
    Bgr,
    Grey,
}

impl Pixel {
    /// Values a pixel.
    pub fn channels(self) -> usize {
        if self == Pixel::Grey { 1 } else { 3 }
    }
}

/// A primitive operation. Inputs are listed in each variant's comment.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Prim {
    /// `(x)`: elementwise.
    Unary(UnaryOp),
    /// `(a, b)`: elementwise, broadcasting.
    Binary(BinaryOp),
    /// `(cond: bool, a, b)`: `cond ? a : b`, broadcasting all three.
    Select,
    /// `(x)`: value conversion. Float to int is Rust's saturating `as`; to bool is `x != 0`;
    /// int to int wraps; to a float8 saturates if `saturate`, else overflows to NaN or infinity.
    Cast {
        /// Target dtype.
        to: Dtype,
        /// Only for 8-bit floats.
        saturate: bool,
    },
    /// `(x)`: the same bits as another dtype of the same size.
    Bitcast {
        /// Target dtype.
        to: Dtype,
    },
    /// `(x)`: NumPy broadcast to `shape`.
    Broadcast {
        /// Full output shape.
        shape: Vec<Dim>,
    },
    /// `(x)`: the same elements in row-major order.
    Reshape {
        /// Full output shape; its element count equals the input's.
        shape: Vec<Dim>,
    },
    /// `(x)`: output axis `i` is input axis `perm[i]`.
    Transpose {
        /// A permutation of the axes.
        perm: Vec<u32>,
    },
    /// `(x)`: output element `i` of an axis is input element `start + i * step`.
    Slice {
        /// First element, per axis.
        start: Vec<Dim>,
        /// Output size, per axis.
        len: Vec<Dim>,
        /// Step, per axis; may be negative, never 0.
        step: Vec<i64>,
    },
    /// `(x, value)`: pads each axis; negative amounts crop. `value` is a scalar of x's dtype and
    /// present in every mode.
    Pad {
        /// Before the first element, per axis.
        before: Vec<Dim>,
        /// After the last element, per axis.
        after: Vec<Dim>,
        /// Fill.
        mode: PadMode,
    },
    /// `(x0, x1, …)`: joins along an axis.
    Concat {
        /// The axis.
        axis: u32,
    },
    /// `()`: `0, 1, 2, …` along an axis, broadcast over the others.
    Iota {
        /// Element type.
        dtype: Dtype,
        /// Output shape.
        shape: Vec<Dim>,
        /// The counting axis.
        axis: u32,
    },
    /// `()`: these sizes as an int64 vector, or as a scalar where `scalar` (then exactly one).
    Dims {
        /// The sizes.
        dims: Vec<Dim>,
        /// Rank 0 instead of rank 1.
        scalar: bool,
    },
    /// `(x: any integer tensor)`, no outputs: binds the elements, in row-major order, to symbols.
    /// A value outside a symbol's bounds is a reported error.
    BindSyms {
        /// One a element.
        syms: Vec<Sym>,
    },
    /// `(data, indices: i32|i64)`: `out = data.shape[..axis] ++ indices.shape ++
    /// data.shape[axis+1..]`. Negative indices count from the end; out of range is an error.
    Gather {
        /// The axis.
        axis: u32,
    },
    /// `(data, indices)`: ONNX GatherElements. Index rules as in `Gather`.
    GatherElements {
        /// The axis.
        axis: u32,
    },
    /// `(data, indices)`: ONNX GatherND.
    GatherNd {
        /// Leading axes shared by both.
        batch: u32,
    },
    /// `(data, indices, updates)`: ONNX ScatterElements.
    ScatterElements {
        /// The axis.
        axis: u32,
        /// Combination.
        op: ScatterOp,
    },
    /// `(data, indices, updates)`: ONNX ScatterND.
    ScatterNd {
        /// Combination.
        op: ScatterOp,
    },
    /// `(x)`: combines over axes; an empty `axes` copies. Floats narrower than f32 and f32 itself
    /// accumulate in f32 pairwise or better.
    Reduce {
        /// Combination.
        op: ReduceOp,
        /// Sorted, distinct.
        axes: Vec<u32>,
        /// Keep them as size 1.
        keep: bool,
    },
    /// `(x)`: int64 index of the greatest (or least) element along an axis. NaN counts as greatest.
    ArgReduce {
        /// Greatest or least.
        max: bool,
        /// The axis.
        axis: u32,
        /// Keep it as size 1.
        keep: bool,
        /// Of equals, the last instead of the first.
        last: bool,
    },
    /// `(x)`: running combination along an axis.
    Cumulative {
        /// Combination (Sum or Prod or Max or Min).
        op: ReduceOp,
        /// The axis.
        axis: u32,
        /// Leave out the element itself.
        exclusive: bool,
        /// From the end.
        reverse: bool,
    },
    /// `(a, b)`: an einsum of two operands. Each axis carries a label; a label that is not in `out`
    /// is summed; a label may miss on one side (broadcast). No label repeats within one list.
    /// Integers of 8 bits accumulate and give i32; f32 and narrower accumulate in f32.
    Contract {
        /// Labels of a's axes.
        a: Vec<u8>,
        /// Labels of b's axes.
        b: Vec<u8>,
        /// Labels of the output's axes.
        out: Vec<u8>,
    },
    /// `(x: [N, C, spatial…], w: [M, C/groups, kernel…])`: cross-correlation, zero padding.
    /// 8-bit integers give i32 (x and w may differ in sign).
    Conv {
        /// Strides, dilations, pads.
        geo: Geometry,
        /// Channel groups.
        groups: i64,
    },
    /// `(x: [N, C, spatial…], w: [C, M/groups, kernel…])`: its transpose. Output size per axis is
    /// `(in-1)*stride + (k-1)*dilation + 1 - before - after`, so `after` already has ONNX's
    /// output_padding taken off.
    ConvTranspose {
        /// Strides, dilations, pads (crops of the output).
        geo: Geometry,
        /// Channel groups.
        groups: i64,
    },
    /// `(x: [N, C, spatial…])`: Max (padding never wins) or Sum (padding is zero) over windows.
    Window {
        /// Max or Sum.
        op: ReduceOp,
        /// Window size per spatial axis.
        kernel: Vec<i64>,
        /// Strides, dilations, pads; `after` is what makes the last window whole (ceil mode is
        /// resolved into it).
        geo: Geometry,
    },
    /// `(x: [N, C, spatial…])`: where `Window{Max}` found each maximum, as int64 row-major index
    /// into the whole x (or, if `column_major`, with the spatial axes reversed).
    WindowArgMax {
        /// Window size per spatial axis.
        kernel: Vec<i64>,
        /// As in `Window`.
        geo: Geometry,
        /// ONNX MaxPool's storage_order.
        column_major: bool,
    },
    /// `(x)`: the k greatest or least along an axis and their int64 indices: two outputs. Equals
    /// come by ascending index. NaN counts as greatest.
    TopK {
        /// How many.
        k: Dim,
        /// The axis.
        axis: u32,
        /// Greatest or least.
        largest: bool,
        /// In order of value; else in order of index.
        sorted: bool,
    },
    /// `(x)`: int64 [rank, count] indices of elements that are not zero; binds `count`.
    NonZero {
        /// Bound to the number found.
        count: Sym,
    },
    /// `(x, keys: [K])`: int64 place of the first key that equals each element, -1 where none does.
    /// Strings too; NaN equals NaN.
    Find,
    /// Works on strings.
    Text(TextOp),
    /// `(bytes: u8 [n])`: the image as u8 [height, width, channels]; binds the sizes.
    DecodeImage {
        /// What a pixel holds.
        pixel: Pixel,
        /// Bound to the number of rows.
        height: Sym,
        /// Bound to the number of columns.
        width: Sym,
    },
    /// `()`: random numbers, the same in each run: NumPy's of a seed below 2^32, else of a
    /// counter-based generator.
    Random {
        /// What from.
        dist: Distribution,
        /// Element type.
        dtype: Dtype,
        /// Output shape.
        shape: Vec<Dim>,
        /// The seed; distinct per node where the model gave none.
        seed: u64,
    },
}

impl Prim {
    /// Elementwise: unary, binary, select or cast.
    pub fn is_elementwise(&self) -> bool {
        matches!(self, Prim::Unary(_) | Prim::Binary(_) | Prim::Select | Prim::Cast { .. })
    }

    /// Only moves elements: each output element is one input element (or padding).
    pub fn is_movement(&self) -> bool {
        use Prim::*;
        matches!(
            self,
            Broadcast { .. } | Reshape { .. } | Transpose { .. } | Slice { .. } | Concat { .. }
        )
    }

    /// Has an effect beyond its outputs (binds symbols), so it may not be removed or duplicated.
    pub fn is_effect(&self) -> bool {
        !self.binds().is_empty() || matches!(self, Prim::BindSyms { .. })
    }

    /// Symbols that running it binds.
    pub fn binds(&self) -> Vec<Sym> {
        match self {
            Prim::BindSyms { syms } => syms.clone(),
            Prim::NonZero { count } => vec![*count],
            Prim::DecodeImage { height, width, .. } => vec![*height, *width],
            Prim::Text(TextOp::Split { width, .. }) => vec![*width],
            _ => vec![],
        }
    }

    /// The same primitive with every [`Dim`] replaced by `f` of it.
    pub fn map_dims<E>(&self, f: &mut dyn FnMut(&Dim) -> Result<Dim, E>) -> Result<Prim, E> {
        let mut out = self.clone();
        let lists: [Option<&mut Vec<Dim>>; 2] = match &mut out {
            Prim::Broadcast { shape }
            | Prim::Reshape { shape }
            | Prim::Iota { shape, .. }
            | Prim::Random { shape, .. } => [Some(shape), None],
            Prim::Dims { dims, .. } => [Some(dims), None],
            Prim::Slice { start, len, .. } => [Some(start), Some(len)],
            Prim::Pad { before, after, .. } => [Some(before), Some(after)],
            Prim::Conv { geo, .. }
            | Prim::ConvTranspose { geo, .. }
            | Prim::Window { geo, .. }
            | Prim::WindowArgMax { geo, .. } => [Some(&mut geo.before), Some(&mut geo.after)],
            Prim::TopK { k, .. } => {
                *k = f(k)?;
                [None, None]
            }
            _ => [None, None],
        };
        for d in lists.into_iter().flatten().flatten() {
            *d = f(d)?;
        }
        Ok(out)
    }

    /// Number of outputs.
    pub fn outputs(&self) -> usize {
        match self {
            Prim::TopK { .. } | Prim::Text(TextOp::Split { .. }) => 2,
            Prim::BindSyms { .. } => 0,
            _ => 1,
        }
    }
}
