//! No primitive panics, whatever its attributes and operands: each gives tensors or an error, and
//! what it gives has the shape that inference says.

use hub_abi::prim::*;
use hub_abi::shape::{Constraints, TensorType};
use hub_abi::{Dim, Dtype, Sym};
use hub_portable::{Limits, Tensor, fold};
use proptest::prelude::*;

/// Sizes and offsets, mostly small, sometimes absurd.
fn number() -> impl Strategy<Value = i64> {
    prop_oneof![
        20 => -3i64..6,
        1 => prop::sample::select(vec![i64::MIN, i64::MAX, 1 << 40, -(1 << 40), i64::MAX / 2]),
    ]
}

fn numbers() -> impl Strategy<Value = Vec<i64>> {
    prop::collection::vec(number(), 0..5)
}

fn dtype() -> impl Strategy<Value = Dtype> {
    prop::sample::select(Dtype::all().collect::<Vec<_>>())
}

fn tensor(dtype: impl Strategy<Value = Dtype>, dims: Vec<usize>) -> impl Strategy<Value = Tensor> {
    let n: usize = dims.iter().product();
    let bytes = prop::collection::vec(prop_oneof![2 => 0u8..4, 1 => any::<u8>()], n * 16);
    (dtype, bytes).prop_map(move |(dtype, bytes)| match dtype {
        Dtype::Str => {
            Tensor::strings(&dims, bytes[..n].iter().map(|b| b.to_string()).collect()).unwrap()
        }
        d => Tensor::from_bytes(d, &dims, &bytes[..n * d.size()]).unwrap(),
    })
}

fn operand() -> impl Strategy<Value = Tensor> {
    prop::collection::vec(0usize..5, 0..5).prop_flat_map(|dims| tensor(dtype(), dims))
}

/// Operands of one dtype or of any; of one shape or of any; indices second or not.
fn operands() -> impl Strategy<Value = Vec<Tensor>> {
    let dims = || prop::collection::vec(0usize..5, 1..5);
    let same = (dtype(), dims(), dims()).prop_flat_map(|(d, a, b)| {
        (tensor(Just(d), a.clone()), tensor(Just(d), b), tensor(Just(d), a), 1usize..4)
            .prop_map(|(x, y, z, n)| [x, y, z][..n].to_vec())
    });
    let index = prop::sample::select(vec![Dtype::I32, Dtype::I64]);
    let indexed = (dtype(), dims(), dims(), index).prop_flat_map(|(d, a, b, i)| {
        let ix = tensor(Just(i), b.clone()).prop_map(|t| {
            let small: Vec<i64> = t.to_i64s().unwrap().iter().map(|v| v % 4).collect();
            let t64 = Tensor::new(t.dims(), small).unwrap();
            fold(&Prim::Cast { to: t.dtype(), saturate: false }, &[t64], &Limits::default())
                .unwrap()
                .remove(0)
        });
        (tensor(Just(d), a), ix, tensor(Just(d), b), 2usize..4)
            .prop_map(|(x, y, z, n)| [x, y, z][..n].to_vec())
    });
    prop_oneof![same, indexed, prop::collection::vec(operand(), 0..4)]
}

fn unary() -> impl Strategy<Value = UnaryOp> {
    use UnaryOp::*;
    prop::sample::select(vec![
        Neg, Abs, Sign, Floor, Round, Sqrt, Rsqrt, Recip, Exp, Log1p, Tan, Acosh, Erf, Sigmoid,
        Not, BitNot, IsNan, IsInf,
    ])
}

fn binary() -> impl Strategy<Value = BinaryOp> {
    use BinaryOp::*;
    prop::sample::select(vec![
        Add, Sub, Mul, Div, Mod, Rem, Pow, Max, Min, And, Or, Xor, BitAnd, BitOr, BitXor, Shl, Shr,
        Eq, Ne, Lt, Le, Gt, Ge, Atan2,
    ])
}

fn reduce() -> impl Strategy<Value = ReduceOp> {
    use ReduceOp::*;
    prop::sample::select(vec![Sum, Prod, Max, Min, Mean, And, Or])
}

fn scatter() -> impl Strategy<Value = ScatterOp> {
    use ScatterOp::*;
    prop::sample::select(vec![Set, Add, Mul, Max, Min])
}

fn dims(v: &[i64]) -> Vec<Dim> {
    v.iter().map(|&d| Dim::from(d)).collect()
}

fn geometry() -> impl Strategy<Value = Geometry> {
    let list = |n| prop::collection::vec(number(), n);
    (0usize..4).prop_flat_map(move |n| {
        (list(n), list(n), list(n), list(n)).prop_map(|(stride, dilation, before, after)| {
            Geometry { stride, dilation, before: dims(&before), after: dims(&after) }
        })
    })
}

fn axis() -> impl Strategy<Value = u32> {
    prop_oneof![20 => 0u32..4, 1 => any::<u32>()]
}

fn labels() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(0u8..6, 0..5)
}

fn movement() -> impl Strategy<Value = Prim> {
    let axes = || prop::collection::vec(axis(), 0..5);
    let mode = prop::sample::select(vec![
        PadMode::Constant,
        PadMode::Reflect,
        PadMode::Edge,
        PadMode::Wrap,
    ]);
    prop_oneof![
        numbers().prop_map(|v| Prim::Broadcast { shape: dims(&v) }),
        numbers().prop_map(|v| Prim::Reshape { shape: dims(&v) }),
        axes().prop_map(|perm| Prim::Transpose { perm }),
        (numbers(), numbers(), numbers()).prop_map(|(s, l, step)| Prim::Slice {
            start: dims(&s),
            len: dims(&l),
            step
        }),
        (numbers(), numbers(), mode).prop_map(|(b, a, mode)| Prim::Pad {
            before: dims(&b),
            after: dims(&a),
            mode
        }),
        axis().prop_map(|axis| Prim::Concat { axis }),
        (dtype(), numbers(), axis()).prop_map(|(dtype, v, axis)| Prim::Iota {
            dtype,
            shape: dims(&v),
            axis
        }),
        (numbers(), any::<bool>()).prop_map(|(v, scalar)| Prim::Dims { dims: dims(&v), scalar }),
        axis().prop_map(|axis| Prim::Gather { axis }),
        axis().prop_map(|axis| Prim::GatherElements { axis }),
        (0u32..3).prop_map(|batch| Prim::GatherNd { batch }),
        (axis(), scatter()).prop_map(|(axis, op)| Prim::ScatterElements { axis, op }),
        scatter().prop_map(|op| Prim::ScatterNd { op }),
    ]
}

fn arithmetic() -> impl Strategy<Value = Prim> {
    let flags = any::<(bool, bool)>;
    let axes = prop::collection::vec(axis(), 0..4);
    let dist = prop_oneof![
        any::<(f64, f64)>().prop_map(|(lo, hi)| Distribution::Uniform { lo, hi }),
        any::<(f64, f64)>().prop_map(|(mean, std)| Distribution::Normal { mean, std }),
    ];
    prop_oneof![
        unary().prop_map(Prim::Unary),
        binary().prop_map(Prim::Binary),
        Just(Prim::Select),
        (dtype(), any::<bool>()).prop_map(|(to, saturate)| Prim::Cast { to, saturate }),
        dtype().prop_map(|to| Prim::Bitcast { to }),
        prop::collection::vec(0u32..3, 0..4)
            .prop_map(|s| Prim::BindSyms { syms: s.into_iter().map(Sym).collect() }),
        (reduce(), axes, any::<bool>()).prop_map(|(op, axes, keep)| Prim::Reduce {
            op,
            axes,
            keep
        }),
        (axis(), flags(), any::<bool>()).prop_map(|(axis, (max, keep), last)| Prim::ArgReduce {
            max,
            axis,
            keep,
            last
        }),
        (reduce(), axis(), flags()).prop_map(|(op, axis, (exclusive, reverse))| Prim::Cumulative {
            op,
            axis,
            exclusive,
            reverse
        }),
        (labels(), labels(), labels()).prop_map(|(a, b, out)| Prim::Contract { a, b, out }),
        (geometry(), number()).prop_map(|(geo, groups)| Prim::Conv { geo, groups }),
        (geometry(), number()).prop_map(|(geo, groups)| Prim::ConvTranspose { geo, groups }),
        (reduce(), numbers(), geometry()).prop_map(|(op, kernel, geo)| Prim::Window {
            op,
            kernel,
            geo
        }),
        (numbers(), geometry(), any::<bool>()).prop_map(|(kernel, geo, column_major)| {
            Prim::WindowArgMax { kernel, geo, column_major }
        }),
        (number(), axis(), flags()).prop_map(|(k, axis, (largest, sorted))| Prim::TopK {
            k: Dim::from(k),
            axis,
            largest,
            sorted
        }),
        Just(Prim::NonZero { count: Sym(0) }),
        (dist, dtype(), numbers(), any::<u64>()).prop_map(|(dist, dtype, v, seed)| Prim::Random {
            dist,
            dtype,
            shape: dims(&v),
            seed
        }),
    ]
}

/// Nearly always from `least` to 3.
fn likely(least: i64) -> impl Strategy<Value = i64> {
    prop_oneof![30 => least..4, 1 => number()]
}

/// Primitives whose attributes name as many axes as their operands have.
fn ranked() -> impl Strategy<Value = (Prim, Vec<Tensor>)> {
    (1usize..4, dtype()).prop_flat_map(move |(n, d)| {
        let sizes = |least, n| prop::collection::vec(least..5usize, n);
        let list = |n| prop::collection::vec(likely(-1), n);
        let geometry = {
            let ones = |n| prop::collection::vec(likely(1), n);
            let parts = (ones(n), ones(n), list(n), list(n));
            parts.prop_map(|(stride, dilation, b, a)| Geometry {
                stride,
                dilation,
                before: dims(&b),
                after: dims(&a),
            })
        };
        let kernel = prop::collection::vec(likely(1), n);
        let x = sizes(0, n + 2).prop_flat_map(move |dims| tensor(Just(d), dims));
        let w = (0usize..4, sizes(1, n))
            .prop_flat_map(move |(m, k)| tensor(Just(d), [&[m, 2][..], &k].concat()));
        let lists = (list(n + 2), list(n + 2), list(n + 2));
        (0usize..8, geometry, kernel, x, w, lists, any::<bool>()).prop_map(
            |(which, geo, kernel, x, w, (p, q, r), flag)| {
                let groups = p[0];
                let fill = fold(
                    &Prim::Slice {
                        start: dims(&vec![0; x.rank()]),
                        len: dims(&vec![1; x.rank()]),
                        step: vec![1; x.rank()],
                    },
                    std::slice::from_ref(&x),
                    &Limits::default(),
                );
                let fill = fill.map_or(x.clone(), |f| f[0].reshaped(&[]).unwrap());
                let labels = |v: &[i64]| v.iter().map(|&l| l as u8 % 5).collect::<Vec<u8>>();
                match which {
                    0 => (Prim::Conv { geo, groups }, vec![x, w]),
                    1 => (Prim::ConvTranspose { geo, groups }, vec![x, w]),
                    2 => (Prim::Window { op: ReduceOp::Max, kernel, geo }, vec![x]),
                    3 => (Prim::WindowArgMax { kernel, geo, column_major: flag }, vec![x]),
                    4 => (Prim::Slice { start: dims(&p), len: dims(&q), step: r }, vec![x]),
                    5 => {
                        let mode = if flag { PadMode::Constant } else { PadMode::Reflect };
                        (Prim::Pad { before: dims(&p), after: dims(&q), mode }, vec![x, fill])
                    }
                    6 => (Prim::Window { op: ReduceOp::Sum, kernel, geo }, vec![x]),
                    _ => {
                        let (a, b, out) = (labels(&p), labels(&q), labels(&r[..2]));
                        (Prim::Contract { a, b, out }, vec![x.clone(), x])
                    }
                }
            },
        )
    })
}

fn check(prim: Prim, inputs: &[Tensor]) -> Result<(), TestCaseError> {
    let limits = Limits { tensor_bytes: 1 << 20, work: 1 << 26, ..Limits::default() };
    let Ok(out) = fold(&prim, inputs, &limits) else { return Ok(()) };
    let types: Vec<TensorType> = inputs.iter().map(Tensor::ty).collect();
    let want = prim.infer(&types, &mut Constraints::default()).unwrap();
    prop_assert_eq!(want.len(), out.len());
    for (want, got) in want.iter().zip(&out) {
        prop_assert_eq!(want.dtype, got.dtype(), "{:?}", prim);
        if !matches!(prim, Prim::NonZero { .. }) {
            prop_assert_eq!(&want.dims, &got.ty().dims, "{:?}", prim);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn movement_never_panics(prim in movement(), inputs in operands()) {
        check(prim, &inputs)?;
    }

    #[test]
    fn arithmetic_never_panics(prim in arithmetic(), inputs in operands()) {
        check(prim, &inputs)?;
    }

    #[test]
    fn what_nearly_fits_never_panics((prim, inputs) in ranked()) {
        check(prim, &inputs)?;
    }
}
