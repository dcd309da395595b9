//! Source operators: what ONNX and Paddle have and the primitives do not. One row of the table
//! below declares one; its attributes, meaning and name live in one file of this folder.
//!
//! To add an operator: a struct with its attributes and `impl SourceOp` in a file here, and a row.

use crate::build::{Builder, Built};
use crate::entity::Value;
use serde::{Deserialize, Serialize};

pub mod activation;
pub mod attention;
pub mod conv;
pub mod detection;
pub mod linalg;
pub mod matmul;
pub mod norm;
pub mod pool;
pub mod quant;
pub mod resize;
pub mod rnn;

/// Why a node does not make sense.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{}{what}", .node.as_ref().map(|n| format!("node '{n}': ")).unwrap_or_default())]
pub struct OpError {
    /// The node, where known.
    pub node: Option<String>,
    /// What does not fit.
    pub what: String,
    /// It makes sense, but is more than is allowed.
    pub limit: bool,
}

impl OpError {
    /// An error that does not know its node yet.
    pub fn new(what: impl Into<String>) -> OpError {
        OpError { node: None, what: what.into(), limit: false }
    }

    /// More than is allowed.
    pub fn limit(what: impl Into<String>) -> OpError {
        OpError { limit: true, ..OpError::new(what) }
    }

    /// Names the node, unless an inner one is named.
    pub fn at(mut self, node: &str) -> OpError {
        self.node.get_or_insert_with(|| node.to_string());
        self
    }
}

impl From<hub_abi::shape::ShapeError> for OpError {
    fn from(e: hub_abi::shape::ShapeError) -> OpError {
        OpError::new(e.what)
    }
}

/// What every source operator has.
pub trait SourceOp {
    /// Builds its definition on the given operands ([`Value::NONE`] where one is left out);
    /// gives the outputs.
    fn expand(&self, b: &mut Builder<'_>, ins: &[Value]) -> Built<Vec<Value>>;
}

macro_rules! source_ops {
    ($($(#[$doc:meta])* $variant:ident($ty:path) $name:literal [$($input:literal),*],)*) => {
        /// A source operator.
        #[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
        pub enum Source {
            $($(#[$doc])* $variant($ty),)*
        }

        impl Source {
            /// Its name in the text form.
            pub fn name(&self) -> &'static str {
                match self { $(Source::$variant(_) => $name,)* }
            }

            /// Names of its operands; one that ends in `?` may be left out, in `*` may repeat.
            pub fn operands(&self) -> &'static [&'static str] {
                match self { $(Source::$variant(_) => &[$($input),*],)* }
            }

            /// Its definition in primitives.
            pub fn expand(&self, b: &mut Builder<'_>, ins: &[Value]) -> Built<Vec<Value>> {
                match self { $(Source::$variant(op) => op.expand(b, ins),)* }
            }

            /// The attributes as JSON, for the text form.
            pub fn attrs(&self) -> serde_json::Value {
                match self { $(Source::$variant(op) => serde_json::to_value(op),)* }
                    .expect("attributes are plain data")
            }

            /// An operator of that name with those attributes.
            pub fn from_parts(name: &str, attrs: serde_json::Value) -> Result<Source, String> {
                match name {
                    $($name => serde_json::from_value(attrs).map(Source::$variant)
                        .map_err(|e| e.to_string()),)*
                    _ => Err(format!("no operator is called {name}")),
                }
            }
        }

        $(impl From<$ty> for Source {
            fn from(op: $ty) -> Source { Source::$variant(op) }
        })*
    };
}

source_ops! {
    /// Convolution with optional bias.
    Conv(conv::Conv) "conv" ["x", "w", "bias?"],
    /// Transposed convolution with optional bias.
    ConvTranspose(conv::ConvTranspose) "conv_transpose" ["x", "w", "bias?"],
    /// NumPy matmul with optional transposition of the last two axes.
    MatMul(matmul::MatMul) "matmul" ["a", "b"],
    /// Softmax of scaled, masked products of queries and keys, times values.
    Attention(attention::Attention) "attention" ["q", "k", "v", "masks*"],
    /// Inference batch normalisation.
    BatchNorm(norm::BatchNorm) "batch_norm" ["x", "scale", "bias", "mean", "var"],
    /// Normalisation over the trailing axes.
    LayerNorm(norm::LayerNorm) "layer_norm" ["x", "scale?", "bias?"],
    /// Division by the root of the mean square over the trailing axes.
    RmsNorm(norm::RmsNorm) "rms_norm" ["x", "scale?"],
    /// Softmax or its logarithm along one axis.
    Softmax(norm::Softmax) "softmax" ["x"],
    /// An activation function of one argument.
    Activation(activation::Activation) "activation" ["x"],
    /// Greatest of windows, with indices if asked.
    MaxPool(pool::MaxPool) "max_pool" ["x"],
    /// Mean of windows.
    AvgPool(pool::AvgPool) "avg_pool" ["x"],
    /// p-norm of windows.
    LpPool(pool::LpPool) "lp_pool" ["x"],
    /// Pooling into a given number of bins.
    AdaptivePool(pool::AdaptivePool) "adaptive_pool" ["x"],
    /// To integers or small floats by scale and zero point.
    Quantize(quant::Quantize) "quantize" ["x", "scale", "zero?"],
    /// Back from them.
    Dequantize(quant::Dequantize) "dequantize" ["x", "scale", "zero?"],
    /// Interpolation along axes.
    Resize(resize::Resize) "resize" ["x", "scales?", "roi?"],
    /// One direction of an LSTM layer.
    Lstm(rnn::Lstm) "lstm" ["x", "w", "r", "bias?", "h0?", "c0?", "lengths?", "peephole?"],
    /// One direction of a GRU layer.
    Gru(rnn::Gru) "gru" ["x", "w", "r", "bias?", "rbias?", "h0?", "lengths?"],
    /// One direction of a simple recurrent layer.
    Rnn(rnn::Rnn) "rnn" ["x", "w", "r", "bias?", "h0?", "lengths?"],
    /// Determinants of the last two axes.
    Det(linalg::Det) "det" ["x"],
    /// Inverses of the last two axes.
    Inverse(linalg::Inverse) "inverse" ["x"],
    /// Boxes and scores of a YOLO head.
    YoloBox(detection::YoloBox) "yolo_box" ["x", "img_size"],
}
