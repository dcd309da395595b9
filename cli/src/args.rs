//! Command lines. The texts here are what `--help` prints.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

const CODES: &str = "Exit codes: 0 ok, 2 usage, 3 unsupported operator or target, 4 invalid input, \
5 accuracy gate or mismatch, 6 speed gate, 7 integrity, 8 I/O, 9 limit exceeded, 70 internal error.";

/// A finite number, 0 or more: a gate that is NaN would let everything pass.
fn magnitude(text: &str) -> Result<f64, &'static str> {
    let x = text.parse().ok().filter(|x: &f64| x.is_finite() && *x >= 0.0);
    x.ok_or("not a finite number, 0 or more")
}

/// Deploys neural networks: freezes a trained model into one bundle file that runs at once.
#[derive(Parser, Debug)]
#[command(name = "hub", version, after_help = CODES)]
pub struct Hub {
    /// What to do.
    #[command(subcommand)]
    pub command: HubCommand,
}

/// Commands of `hub`.
#[derive(Subcommand, Debug)]
#[expect(clippy::large_enum_variant, reason = "one is made per process")]
pub enum HubCommand {
    /// Compiles a model (ONNX or Paddle) into a bundle
    Export(Export),
    /// Prints a shell's completion script
    Completions(Completions),
}

/// Hub's compiler for build pipelines and compiler engineers.
#[derive(Parser, Debug)]
#[command(name = "hubc", version, after_help = CODES)]
pub struct Hubc {
    /// What to do.
    #[command(subcommand)]
    pub command: HubcCommand,
}

/// Commands of `hubc`.
#[derive(Subcommand, Debug)]
pub enum HubcCommand {
    /// Compiles a model into a bundle, showing what the compiler does on request
    Optimize(Optimize),
    /// Runs a bundle on tensors from a safetensors file
    Run(Run),
    /// Measures a bundle
    Bench(Bench),
    /// Runs a model or bundle and compares its outputs with a golden file
    Compare(Compare),
    /// Says what a model or bundle is, and what each step of it does
    Inspect(Inspect),
    /// Signs a bundle, for runtimes that run only signed machine code (HUB_TRUST=signed)
    Sign(Sign),
    /// Writes a model (ONNX or Paddle) as an ONNX file, as it is or after a pass
    Convert(Convert),
    /// Prints a shell's completion script
    Completions(Completions),
}

/// Number formats of weights and activations.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
#[allow(missing_docs)]
pub enum Precision {
    F32,
    Bf16,
    F16,
    Int8,
}

/// Bounds of what a command may use.
#[derive(Args, Clone, Debug, Default)]
pub struct Limiting {
    /// Raise or lower a limit (listed below); repeatable
    #[arg(long = "limit", value_name = "NAME=VALUE")]
    pub limits: Vec<String>,
}

/// What both compiling commands take.
#[derive(Args, Debug)]
pub struct Build {
    /// An ONNX file, a Paddle .json or .pdmodel file, __model__, or a folder that holds one
    pub model: PathBuf,
    /// The bundle to write
    #[arg(short, long)]
    pub output: PathBuf,
    /// Devices to compile for: cpu, cuda (PTX for compute capability 8.0 and above; run by an
    /// interpreter so far, not on a GPU), opencl (OpenCL C 1.2), ascend (operators and Ascend C for
    /// NPU architecture 2201; run in an emulation so far, not on an NPU)
    #[arg(long, value_delimiter = ',', default_value = "cpu")]
    pub target: Vec<String>,
    /// CPU tiers to compile for: amx and avx512bf16 (for --precision bf16), avx512, avx2, portable [default:
    /// avx2 and this machine's best; all of them for --precision bf16]
    #[arg(long, value_delimiter = ',')]
    pub cpu: Vec<String>,
    /// Admit no algorithm that adds rounding error: no Winograd convolutions, no shorter sigmoid and tanh
    #[arg(long)]
    pub exact: bool,
    /// Measure other kernels on this machine for so many seconds and keep the fastest
    #[arg(long, value_name = "S")]
    pub tune: Option<f64>,
    /// Number format: bf16 or f16 rounds what convolutions and contractions multiply (sums,
    /// normalisation, softmax and what makes an output stay f32); bf16 is for processors with such
    /// instructions and for GPUs, f16 for GPUs (it runs on processors too, no faster than f32); the
    /// report says what was rounded (this version has no int8)
    #[arg(long, value_enum, default_value = "f32")]
    pub precision: Precision,
    /// Calibration inputs for int8 (not in this version)
    #[arg(long, value_name = "DATA.safetensors")]
    pub calibrate: Option<PathBuf>,
    /// Accuracy that quantization may cost (not in this version)
    #[arg(long, value_name = "F")]
    pub max_drop: Option<f64>,
    /// Inclusive bounds of a dimension; an anonymous one is INPUT.AXIS
    #[arg(long = "dim", value_name = "NAME=MIN..MAX")]
    pub dims: Vec<String>,
    /// Fixes a dimension
    #[arg(long, value_name = "NAME=N")]
    pub specialize: Vec<String>,
    /// Check the bundle against the reference on generated inputs (exit code 5 if it is off)
    #[arg(long)]
    pub verify: bool,
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
    /// Bounds.
    #[command(flatten)]
    pub limits: Limiting,
}

/// `hub export`.
#[derive(Args, Debug)]
#[command(after_help = crate::limits::help())]
pub struct Export {
    /// What and how.
    #[command(flatten)]
    pub build: Build,
}

/// What `--emit` prints.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Emit {
    /// The graph after the last pass.
    Ir,
    /// Every kernel in the kernel IR.
    Kernels,
    /// Every kernel's machine code, disassembled.
    Asm,
    /// The module of PTX (with --target cuda).
    Ptx,
    /// The program in OpenCL C (with --target opencl).
    Opencl,
    /// The program in Ascend C, a line for each operator of the device (with --target ascend).
    Ascend,
}

/// `hubc optimize`.
#[derive(Args, Debug)]
#[command(after_help = crate::limits::help())]
pub struct Optimize {
    /// What and how.
    #[command(flatten)]
    pub build: Build,
    /// Print the graph after this pass ("all" for every pass); repeatable
    #[arg(long, value_name = "PASS")]
    pub print_after: Vec<String>,
    /// Verify the graph after every pass
    #[arg(long)]
    pub check_ir: bool,
    /// Print an intermediate form to standard output
    #[arg(long, value_enum)]
    pub emit: Vec<Emit>,
}

/// How a bundle is run.
#[derive(Args, Clone, Debug)]
pub struct Running {
    /// Threads; 0 means the cores that this process may use
    #[arg(long, default_value_t = 0)]
    pub threads: i32,
    /// Device: cpu; a driver's name and a number, as opencl:0 (libhub_NAME.so beside the program, or in
    /// a folder that HUB_DEVICES names); or best: CUDA, Ascend or OpenCL, the first that the bundle has
    /// code for and that is not the host's processor, else cpu
    #[arg(long, default_value = "cpu")]
    pub device: String,
    /// Force a CPU tier that the bundle holds: amx, avx512bf16, avx512, avx2, portable
    #[arg(long)]
    pub cpu: Option<String>,
    /// Do not check the weights' hash first
    #[arg(long)]
    pub no_verify: bool,
    /// Bounds.
    #[command(flatten)]
    pub limits: Limiting,
}

/// `hubc run`.
#[derive(Args, Debug)]
#[command(after_help = crate::limits::help())]
pub struct Run {
    /// The bundle
    pub bundle: PathBuf,
    /// Input tensors, by the model's names
    #[arg(long, value_name = "IN.safetensors")]
    pub inputs: PathBuf,
    /// Where outputs go
    #[arg(long, value_name = "OUT.safetensors")]
    pub outputs: Option<PathBuf>,
    /// How.
    #[command(flatten)]
    pub running: Running,
}

/// `hubc bench`.
#[derive(Args, Debug)]
#[command(after_help = crate::limits::help())]
pub struct Bench {
    /// The bundle
    pub bundle: PathBuf,
    /// Input tensors; without them, generated ones
    #[arg(long, value_name = "IN.safetensors")]
    pub inputs: Option<PathBuf>,
    /// Size of a dynamic dimension in generated inputs
    #[arg(long = "dim", value_name = "NAME=N")]
    pub dims: Vec<String>,
    /// How long to measure
    #[arg(long, default_value_t = 3.0, value_parser = magnitude)]
    pub seconds: f64,
    /// Exit with code 6 if the median is above this
    #[arg(long, value_name = "F", value_parser = magnitude)]
    pub max_ms: Option<f64>,
    /// Print each step's time, and which part of it is the machine's limit
    #[arg(long)]
    pub profile: bool,
    /// Write a trace for Perfetto
    #[arg(long, value_name = "OUT.json")]
    pub trace: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// How.
    #[command(flatten)]
    pub running: Running,
}

/// `hubc compare`.
#[derive(Args, Debug)]
#[command(after_help = crate::limits::help())]
pub struct Compare {
    /// A model (compiled first) or a bundle
    pub model: PathBuf,
    /// Expected outputs `out:NAME`, and perhaps inputs `in:NAME`
    #[arg(long, value_name = "G.safetensors")]
    pub golden: PathBuf,
    /// Input tensors, if the golden file has none
    #[arg(long, value_name = "IN.safetensors")]
    pub inputs: Option<PathBuf>,
    /// Greatest difference allowed, as a share of the greatest golden magnitude
    #[arg(long, default_value_t = 1e-4, value_parser = magnitude)]
    pub rtol: f64,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// How.
    #[command(flatten)]
    pub running: Running,
}

/// `hubc inspect`.
#[derive(Args, Debug)]
#[command(after_help = crate::limits::help())]
pub struct Inspect {
    /// A model or a bundle
    pub model: PathBuf,
    /// Tier whose steps are listed [default: the one that runs here]
    #[arg(long)]
    pub cpu: Option<String>,
    /// Size of a dynamic dimension, to evaluate sizes with
    #[arg(long = "dim", value_name = "NAME=N")]
    pub dims: Vec<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Bounds.
    #[command(flatten)]
    pub limits: Limiting,
}

/// `hubc convert`.
#[derive(Args, Debug)]
#[command(after_help = crate::limits::help())]
pub struct Convert {
    /// An ONNX file, a Paddle .json or .pdmodel file, __model__, or a folder that holds one
    pub model: PathBuf,
    /// The ONNX file to write (opset 21)
    #[arg(short, long, value_name = "OUT.onnx")]
    pub output: PathBuf,
    /// Convert the graph as it is after this pass [default: as imported]
    #[arg(long, value_name = "PASS")]
    pub after: Option<String>,
    /// Keep weights in OUT.onnx.data (they go there by themselves where 2 GiB are not enough)
    #[arg(long)]
    pub external_data: bool,
    /// Inclusive bounds of a dimension; an anonymous one is INPUT.AXIS
    #[arg(long = "dim", value_name = "NAME=MIN..MAX")]
    pub dims: Vec<String>,
    /// Fixes a dimension
    #[arg(long, value_name = "NAME=N")]
    pub specialize: Vec<String>,
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
    /// Limits.
    #[command(flatten)]
    pub limits: Limiting,
}

/// `completions`.
#[derive(Args, Debug)]
pub struct Completions {
    /// The shell
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

/// `hubc sign`.
#[derive(Args, Debug)]
pub struct Sign {
    /// The bundle
    pub bundle: PathBuf,
    /// Ed25519 private key in PEM form (openssl genpkey -algorithm ed25519)
    #[arg(long, value_name = "KEY.pem")]
    pub key: PathBuf,
    /// Where the signed bundle goes [default: the bundle is replaced]
    #[arg(short, long)]
    pub output: Option<PathBuf>,
}
