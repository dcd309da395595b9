//! The rule by which outputs match a golden.
//!
//! A golden holds `out:NAME`, whole, or flattened and thinned to every `stride`-th element where its metadata says
//! `stride:NAME`. An output of floats matches when max|Δ| ≤ R × max|golden|; one of integers or booleans when nearly
//! all elements are equal (an argmax may tie). Name, dtype and shape must be the golden's. Two NaNs are equal, and
//! so are two infinities of one sign; any other non-finite element is an infinite error.

use crate::{Error, NamedTensor, Result, TensorFile, Tensors};
use half::{bf16, f16};
use std::fmt;
use std::path::Path;

/// How close is close enough.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tolerance {
    /// Floats: max|Δ| over max|golden|.
    pub rtol: f64,
    /// Integers and booleans: the share of elements that must be equal.
    pub equal: f64,
}

impl Default for Tolerance {
    fn default() -> Self {
        Tolerance { rtol: 1e-4, equal: 0.999 }
    }
}

/// How one output compares with its golden.
#[derive(Debug, Clone, PartialEq)]
pub struct OutputReport {
    /// The output's name.
    pub name: String,
    /// Floats: max|Δ| / max|golden|. Others: the share of unequal elements. Infinite where nothing can be compared.
    pub error: f64,
    /// Floats: the greatest |Δ|. Others: the number of unequal elements.
    pub worst: f64,
    /// Where `worst` is, as an index into the compared elements.
    pub at: usize,
    /// The number of elements compared.
    pub count: usize,
    /// Floats: 1 − cosine of outputs and golden, the greater of plain and about the golden's mean; else 0. This is
    /// what low precisions are judged by; `ok` does not depend on it.
    pub cosine: f64,
    /// Whether the output matches.
    pub ok: bool,
    /// Why nothing could be compared: missing, another dtype or shape.
    pub problem: Option<String>,
}

/// How all outputs of a golden compare.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// One report for each output of the golden, by name.
    pub outputs: Vec<OutputReport>,
}

impl OutputReport {
    fn new(name: &str) -> OutputReport {
        let name = name.to_owned();
        OutputReport {
            name,
            error: 0.0,
            worst: 0.0,
            at: 0,
            count: 0,
            cosine: 0.0,
            ok: true,
            problem: None,
        }
    }

    /// Turns the report into one of an output that cannot be compared.
    pub(crate) fn refuse(&mut self, problem: &str) {
        (self.ok, self.error, self.worst) = (false, f64::INFINITY, f64::INFINITY);
        self.problem = Some(problem.to_owned());
    }
}

impl Comparison {
    /// Whether every output matches.
    pub fn ok(&self) -> bool {
        self.outputs.iter().all(|o| o.ok)
    }

    /// The greatest error of all outputs.
    pub fn error(&self) -> f64 {
        self.outputs.iter().map(|o| o.error).fold(0.0, f64::max)
    }
}

impl fmt::Display for OutputReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.ok { "ok" } else { "WRONG" };
        match &self.problem {
            Some(problem) => write!(f, "{}: {verdict}, {problem}", self.name),
            None => write!(
                f,
                "{}: {verdict} {:.1e} over {} elements",
                self.name, self.error, self.count
            ),
        }
    }
}

/// One line for each output.
impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (k, output) in self.outputs.iter().enumerate() {
            write!(f, "{}{output}", if k == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

/// The inputs that a golden brings along (`in:NAME`), by the model's names; empty when it brings none.
pub fn inputs_of(golden: &TensorFile) -> Tensors {
    golden.with_prefix("in:")
}

/// Compares outputs, by the model's names, with a golden. Outputs that the golden lacks are not looked at.
///
/// The error is for a golden that cannot be one: no `out:NAME`, a stride that is no number, a dtype that cannot be
/// compared. An output that is missing or of another dtype or shape is reported as wrong.
pub fn compare(golden: &TensorFile, got: &Tensors, tolerance: Tolerance) -> Result<Comparison> {
    let fail = |problem: String| Error::malformed(Path::new("golden"))(problem);
    let mut outputs = Vec::new();
    for (name, want) in &golden.tensors {
        let Some(name) = name.strip_prefix("out:") else { continue };
        let mut report = OutputReport::new(name);
        let stride = match golden.metadata.get(&format!("stride:{name}")) {
            None => None,
            Some(text) => {
                let n = text.parse().ok().filter(|&n: &usize| n > 0);
                Some(n.ok_or_else(|| {
                    fail(format!("stride:{name} is {text:?}, not a positive number"))
                })?)
            }
        };
        let kind = Kind::of(&want.dtype);
        let kind = kind.ok_or_else(|| {
            fail(format!("out:{name} is {}, which cannot be compared", want.dtype))
        })?;
        match got.get(name) {
            None => report.refuse("there is no such output"),
            Some(have) => match mismatch(want, have, stride, kind) {
                Some(problem) => report.refuse(&problem),
                None => kind.measure(want, have, stride.unwrap_or(1), tolerance, &mut report),
            },
        }
        outputs.push(report);
    }
    if outputs.is_empty() {
        return Err(fail("it holds no tensor called out:NAME".to_owned()));
    }
    Ok(Comparison { outputs })
}

/// Why two tensors cannot be compared, if they cannot.
fn mismatch(
    want: &NamedTensor,
    have: &NamedTensor,
    stride: Option<usize>,
    kind: Kind,
) -> Option<String> {
    if want.dtype != have.dtype {
        return Some(format!("{} where {} is right", have.dtype, want.dtype));
    }
    let flat = stride.is_some_and(|s| want.shape == [count(have, kind).div_ceil(s)]);
    if want.shape != have.shape && !flat {
        let thinned = stride.map_or(String::new(), |s| format!(" (one element in {s})"));
        return Some(format!(
            "shape {:?} where the golden has {:?}{thinned}",
            have.shape, want.shape
        ));
    }
    if count(want, kind) != count(have, kind).div_ceil(if flat { stride.unwrap_or(1) } else { 1 }) {
        return Some("as many bytes as its shape says are not there".to_owned());
    }
    None
}

fn count(t: &NamedTensor, kind: Kind) -> usize {
    t.data.len() / kind.size()
}

/// How the bytes of an element are compared.
#[derive(Clone, Copy)]
enum Kind {
    /// As a float (or, of 8 bytes twice 4, as two: complex), decoded from so many bytes.
    Float(usize, fn(&[u8]) -> [f64; 2]),
    /// Bit for bit, so many bytes.
    Exact(usize),
}

impl Kind {
    fn of(dtype: &str) -> Option<Kind> {
        fn f32_at(b: &[u8], k: usize) -> f64 {
            f64::from(f32::from_le_bytes([b[k], b[k + 1], b[k + 2], b[k + 3]]))
        }
        Some(match dtype {
            "F64" => Kind::Float(8, |b| [f64::from_le_bytes(std::array::from_fn(|k| b[k])), 0.0]),
            "F32" => Kind::Float(4, |b| [f32_at(b, 0), 0.0]),
            "F16" => Kind::Float(2, |b| [f16::from_le_bytes([b[0], b[1]]).to_f64(), 0.0]),
            "BF16" => Kind::Float(2, |b| [bf16::from_le_bytes([b[0], b[1]]).to_f64(), 0.0]),
            "C64" => Kind::Float(8, |b| [f32_at(b, 0), f32_at(b, 4)]),
            "F8_E4M3" => Kind::Float(1, |b| [float8(b[0], 3, 7, Nan::AllOnes), 0.0]),
            "F8_E5M2" => Kind::Float(1, |b| [float8(b[0], 2, 15, Nan::Ieee), 0.0]),
            "F8_E4M3FNUZ" => Kind::Float(1, |b| [float8(b[0], 3, 8, Nan::MinusZero), 0.0]),
            "F8_E5M2FNUZ" => Kind::Float(1, |b| [float8(b[0], 2, 16, Nan::MinusZero), 0.0]),
            "I64" | "U64" => Kind::Exact(8),
            "I32" | "U32" => Kind::Exact(4),
            "I16" | "U16" => Kind::Exact(2),
            "I8" | "U8" | "BOOL" => Kind::Exact(1),
            _ => return None,
        })
    }

    fn size(self) -> usize {
        match self {
            Kind::Float(size, _) | Kind::Exact(size) => size,
        }
    }

    fn measure(
        self,
        want: &NamedTensor,
        have: &NamedTensor,
        stride: usize,
        t: Tolerance,
        r: &mut OutputReport,
    ) {
        // A golden of the output's own shape is whole, whatever its stride says of a single element.
        let stride = if count(want, self) == count(have, self) { 1 } else { stride };
        r.count = count(want, self);
        let size = self.size();
        let pairs = want.data.chunks_exact(size).zip(have.data.chunks_exact(size).step_by(stride));
        match self {
            Kind::Exact(_) => {
                for (k, _) in pairs.enumerate().filter(|(_, (w, h))| w != h) {
                    r.at = if r.worst == 0.0 { k } else { r.at };
                    r.worst += 1.0;
                }
                r.error = r.worst / r.count.max(1) as f64;
                r.ok = r.worst <= (1.0 - t.equal) * r.count as f64 + 1e-9;
            }
            Kind::Float(_, decode) => {
                let mut greatest = 0.0f64;
                for (k, (w, h)) in pairs.clone().enumerate() {
                    for (w, h) in decode(w).into_iter().zip(decode(h)) {
                        let d = difference(w, h);
                        if d > r.worst {
                            (r.worst, r.at) = (d, k);
                        }
                        greatest = if w.is_finite() { greatest.max(w.abs()) } else { greatest };
                    }
                }
                r.ok = r.worst <= t.rtol * greatest;
                r.error = if r.worst == 0.0 { 0.0 } else { r.worst / greatest };
                r.cosine = cosine(pairs.map(|(w, h)| (decode(w)[0], decode(h)[0])), r.count);
            }
        }
    }
}

/// |Δ|, infinite where just one of the two is finite or a number.
fn difference(want: f64, have: f64) -> f64 {
    if want == have || want.is_nan() && have.is_nan() {
        0.0
    } else if want.is_finite() && have.is_finite() {
        (want - have).abs()
    } else {
        f64::INFINITY
    }
}

/// The greater of 1 − cosine about zero and about the golden's mean: each alone passes some constant answer.
fn cosine(pairs: impl Iterator<Item = (f64, f64)> + Clone, count: usize) -> f64 {
    let mean = pairs.clone().map(|(w, _)| w).sum::<f64>() / count.max(1) as f64;
    let about = |c: f64| {
        let (mut wh, mut ww, mut hh) = (0.0, 0.0, 0.0);
        for (w, h) in pairs.clone().map(|(w, h)| (w - c, h - c)) {
            (wh, ww, hh) = (wh + w * h, ww + w * w, hh + h * h);
        }
        if ww == 0.0 && hh == 0.0 {
            0.0
        } else {
            1.0 - wh / (f64::sqrt(ww) * f64::sqrt(hh) + 1e-30)
        }
    };
    about(0.0).max(about(mean))
}

/// Where an 8-bit format keeps what is not a number.
enum Nan {
    /// The top exponent holds infinity and NaNs, as in IEEE 754.
    Ieee,
    /// All exponent and mantissa bits set; no infinity.
    AllOnes,
    /// The pattern of minus zero; no infinity.
    MinusZero,
}

/// Decodes a float of 8 bits with so many mantissa bits (OCP 8-bit floating point, and the FNUZ variants).
fn float8(b: u8, mantissa_bits: u32, bias: i32, nan: Nan) -> f64 {
    let sign = if b & 0x80 == 0 { 1.0 } else { -1.0 };
    let (exponent, mantissa) =
        (i32::from((b & 0x7F) >> mantissa_bits), b & ((1 << mantissa_bits) - 1));
    let top = 0x7F >> mantissa_bits;
    match nan {
        Nan::MinusZero if b == 0x80 => return f64::NAN,
        Nan::AllOnes if b & 0x7F == 0x7F => return f64::NAN,
        Nan::Ieee if exponent == top => {
            return if mantissa == 0 { sign * f64::INFINITY } else { f64::NAN };
        }
        _ => {}
    }
    let fraction = f64::from(mantissa) / f64::from(1u32 << mantissa_bits);
    let magnitude = match exponent {
        0 => fraction * f64::powi(2.0, 1 - bias),
        e => (1.0 + fraction) * f64::powi(2.0, e - bias),
    };
    sign * magnitude
}
