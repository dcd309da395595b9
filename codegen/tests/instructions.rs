//! Every instruction on every element, lane count and tier, as machine code against the
//! interpreter, on random values and on the awkward ones.

mod common;
use common::{Same, check};
use hub_abi::Dtype;
use hub_codegen::kir::interp::Arg;
use hub_codegen::kir::*;
use hub_codegen::target::Target;

const TILES: usize = 24;

/// Bytes of `n` values of an element: special ones first, then random bits.
fn values(e: Elem, n: usize, seed: u64) -> Vec<u8> {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = move || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x
    };
    let f32s = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        0.5,
        2.5,
        -3.5,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
        1e-40,
        -1e-40,
        f32::MAX,
        f32::MIN,
        2147483648.0,
        -2147483648.0,
        2147483520.0,
        8388609.0,
        1e19,
        -1e19,
        0.1,
        1.5,
        -1.5,
    ];
    let i64s = [0, 1, -1, 2, i64::MIN, i64::MAX, i32::MIN as i64, i32::MAX as i64, 255, -128, 7];
    (0..n)
        .flat_map(|i| {
            let r = next();
            let plain = (r % 20001) as f64 / 100.0 - 100.0;
            match (e, r >> 61) {
                (Elem::F32, 0) => f32s[i % f32s.len()].to_bits().to_le_bytes().to_vec(),
                (Elem::F32, 1) => (r as u32).to_le_bytes().to_vec(),
                (Elem::F32, _) => (plain as f32).to_le_bytes().to_vec(),
                (Elem::F64, 0) => (f32s[i % f32s.len()] as f64).to_le_bytes().to_vec(),
                (Elem::F64, 1) => r.rotate_left(17).to_le_bytes().to_vec(),
                (Elem::F64, _) => plain.to_le_bytes().to_vec(),
                (Elem::I32, 0) => (i64s[i % i64s.len()] as i32).to_le_bytes().to_vec(),
                (Elem::I32, 1) => (r as i32).to_le_bytes().to_vec(),
                (Elem::I32, _) => (plain as i32).to_le_bytes().to_vec(),
                (Elem::I64, 0) => i64s[i % i64s.len()].to_le_bytes().to_vec(),
                (Elem::I64, 1) => r.rotate_left(9).to_le_bytes().to_vec(),
                (_, _) => (plain as i64).to_le_bytes().to_vec(),
            }
        })
        .collect()
}

fn dtype(e: Elem) -> Dtype {
    match e {
        Elem::F32 => Dtype::F32,
        Elem::F64 => Dtype::F64,
        Elem::I32 => Dtype::I32,
        _ => Dtype::I64,
    }
}

fn same(e: Elem) -> Same {
    match e {
        Elem::F32 => Same::F32,
        Elem::F64 => Same::F64,
        _ => Same::Bits,
    }
}

const ELEMS: [Elem; 4] = [Elem::F32, Elem::F64, Elem::I32, Elem::I64];

fn types() -> Vec<RegTy> {
    let mut v = vec![];
    for e in ELEMS {
        for lanes in [1, 2, 4, 8, 16] {
            let bytes = e.size() * lanes;
            if lanes == 1 || (16..=64).contains(&bytes) {
                v.push(RegTy::new(e, lanes));
            }
        }
    }
    v
}

/// Tiers that must take a type.
fn expected(t: RegTy) -> usize {
    let tiers = common::tiers().len();
    if t.elem.size() * t.lanes as usize > 32 { tiers.saturating_sub(1) } else { tiers }
}

/// Builds `f(operands) → result` over `sources`, runs it on values and compares.
fn run_op(
    name: &str,
    sources: &[RegTy],
    out: RegTy,
    fix: impl Fn(usize, &mut Vec<u8>),
    f: impl FnOnce(&mut KernelBuilder, &[Reg]) -> Reg,
) {
    let mut b = KernelBuilder::new(name);
    let ps: Vec<ParamId> =
        sources.iter().map(|t| b.ptr("x", dtype(t.elem), Access::Read)).collect();
    let d = b.ptr("d", dtype(out.elem), Access::Write);
    let g = b.grid("t", TILES as i64);
    let bytes = |t: RegTy| (t.elem.size() * t.lanes as usize) as i64;
    let xs: Vec<Reg> = sources
        .iter()
        .zip(&ps)
        .map(|(t, p)| b.load(*t, Addr::param(*p).plus(g, bytes(*t)), dtype(t.elem), None))
        .collect();
    let r = f(&mut b, &xs);
    b.store(r, Addr::param(d).plus(g, bytes(out)), dtype(out.elem), None);
    let k = b.finish();
    let mut bufs: Vec<Vec<u8>> = sources
        .iter()
        .enumerate()
        .map(|(i, t)| values(t.elem, TILES * t.lanes as usize, i as u64 + 11))
        .collect();
    bufs.iter_mut().enumerate().for_each(|(i, b)| fix(i, b));
    bufs.push(vec![0xaa; TILES * bytes(out) as usize]);
    let mut args: Vec<Arg> = (0..bufs.len()).map(|buf| Arg::Buf { buf, offset: 0 }).collect();
    if k.status().is_some() {
        args.push(Arg::Status);
    }
    let ran = check(&k, &args, &bufs, same(out.elem));
    let want = sources.iter().chain([&out]).map(|t| expected(*t)).min().unwrap();
    assert_eq!(ran, want, "{name} on {out} was refused by a tier");
}

fn none(_: usize, _: &mut Vec<u8>) {}

#[test]
fn unary() {
    use UnOp::*;
    for t in types() {
        let floats = [Copy, Neg, Abs, Sqrt, Floor, Ceil, RoundEven, Trunc];
        let ints = [Copy, Neg, Abs, Not];
        let ops: &[UnOp] = if t.elem.is_float() { &floats } else { &ints };
        for op in ops {
            run_op(&format!("{op:?}"), &[t], t, none, |b, x| b.un(*op, x[0]));
        }
    }
}

#[test]
fn binary() {
    use BinOp::*;
    for t in types() {
        let floats = [Add, Sub, Mul, Div, Min, Max, And, Or, Xor, AndNot];
        let ints =
            [Add, Sub, Mul, Div, Rem, Min, Max, UMin, UMax, And, Or, Xor, AndNot, Shl, Shr, UShr];
        let ops: &[BinOp] = if t.elem.is_float() { &floats } else { &ints };
        for op in ops {
            let shift = matches!(op, Shl | Shr | UShr);
            let width = t.elem.size();
            let fix = |i: usize, v: &mut Vec<u8>| {
                if shift && i == 1 {
                    for c in v.chunks_mut(width) {
                        let n = c[0] % (8 * width as u8);
                        c.fill(0);
                        c[0] = n;
                    }
                }
            };
            run_op(&format!("{op:?}"), &[t, t], t, fix, |b, x| b.bin(*op, x[0], x[1]));
            run_op(&format!("{op:?} in place"), &[t, t], t, fix, |b, x| {
                b.bin_to(*op, x[1], x[0], x[1]);
                x[1]
            });
            run_op(&format!("{op:?} const"), &[t], t, none, |b, x| {
                let k = if t.elem.is_float() { b.const_f(t, 1.5) } else { b.const_i(t, 3) };
                b.bin(*op, x[0], k)
            });
            if !shift {
                run_op(&format!("const {op:?}"), &[t], t, none, |b, x| {
                    let k = if t.elem.is_float() { b.const_f(t, -2.5) } else { b.const_i(t, -7) };
                    b.bin(*op, k, x[0])
                });
            }
        }
    }
}

#[test]
fn fused_multiply_add_in_every_operand_order() {
    for t in types().into_iter().filter(|t| t.elem.is_float()) {
        run_op("fma", &[t, t, t], t, none, |b, x| b.fma(x[0], x[1], x[2]));
        run_op("fma reused", &[t, t, t], t, none, |b, x| {
            let r = b.fma(x[0], x[1], x[2]);
            let s = b.fma(x[2], x[0], r);
            b.fma(s, x[1], x[0])
        });
        for which in 0..3 {
            run_op("fma into an operand", &[t, t, t], t, none, |b, x| {
                b.inst(Inst::Fma { dst: x[which], a: x[0], b: x[1], c: x[2] });
                x[which]
            });
            run_op("fma with a constant", &[t, t], t, none, |b, x| {
                let k = b.const_f(t, 0.75);
                let mut v = vec![x[0], x[1]];
                v.insert(which, k);
                let r = b.fma(v[0], v[1], v[2]);
                b.add(r, x[0])
            });
        }
        run_op("fma of one value", &[t], t, none, |b, x| b.fma(x[0], x[0], x[0]));
        run_op("fma onto itself", &[t], t, none, |b, x| {
            b.inst(Inst::Fma { dst: x[0], a: x[0], b: x[0], c: x[0] });
            x[0]
        });
        run_op("fma of constants", &[t], t, none, |b, x| {
            let (p, q, z) = (b.const_f(t, 3.0), b.const_f(t, 0.1), b.zero(t));
            let r = b.fma(p, q, p);
            let s = b.fma(z, r, q);
            let u = b.fma(s, x[0], z);
            b.fma(r, s, u)
        });
    }
}

#[test]
fn comparison_and_selection() {
    use CmpOp::*;
    for t in types() {
        for op in [Eq, Ne, Lt, Le, Gt, Ge, ULt, ULe] {
            if t.elem.is_float() && matches!(op, ULt | ULe) {
                continue;
            }
            // few distinct values, so that equality happens
            let fix = |i: usize, v: &mut Vec<u8>| {
                let n = t.elem.size();
                if i == 1 && v.len() > 6 * n {
                    v[..n].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0][..n]);
                }
            };
            run_op(&format!("cmp {op:?}"), &[t, t, t, t], t, fix, |b, x| {
                let m = b.cmp(op, x[0], x[1]);
                b.select(m, x[2], x[3])
            });
            run_op(&format!("cmp {op:?} of equals"), &[t, t], t, none, |b, x| {
                let m = b.cmp(op, x[0], x[0]);
                let k = if t.elem.is_float() { b.const_f(t, 9.0) } else { b.const_i(t, 9) };
                b.select(m, k, x[1])
            });
        }
        for op in [BinOp::And, BinOp::Or, BinOp::Xor, BinOp::AndNot] {
            run_op(&format!("mask {op:?}"), &[t, t, t], t, none, |b, x| {
                let m = b.cmp(Lt, x[0], x[1]);
                let n = b.cmp(Gt, x[1], x[2]);
                let m = b.un(UnOp::Not, m);
                let r = b.bin(op, m, n);
                let r2 = b.copy(r);
                b.select(r2, x[0], x[2])
            });
        }
        run_op("constant masks", &[t, t], t, none, |b, x| {
            let mt = t.with(Elem::Mask);
            let (on, off) = (b.const_bits(mt, 1), b.zero(mt));
            let p = b.select(on, x[0], x[1]);
            let q = b.select(off, x[0], x[1]);
            b.bin(BinOp::Xor, p, q)
        });
        for n in -1..=t.lanes as i64 + 1 {
            run_op("first lanes", &[t, t], t, none, |b, x| {
                let m = b.first_lanes(t.lanes as usize, n);
                b.select(m, x[0], x[1])
            });
        }
    }
}

#[test]
fn conversion() {
    for s in types() {
        for e in ELEMS {
            let t = s.with(e);
            let fits = e.size() * s.lanes as usize;
            if s.lanes > 1 && !(16..=64).contains(&fits) {
                continue;
            }
            run_op(&format!("cvt {s} to {t}"), &[s], t, none, |b, x| b.cvt(x[0], e));
            if s.elem.is_float() && e.is_int() {
                run_op(&format!("round {s} to {t}"), &[s], t, none, |b, x| b.cvt_round(x[0], e));
            }
            if s.elem.size() == e.size() {
                run_op(&format!("bitcast {s} to {t}"), &[s], t, none, |b, x| b.bitcast(x[0], e));
            }
        }
    }
}

#[test]
fn scaling_by_powers_of_two() {
    for t in types().into_iter().filter(|t| t.elem == Elem::F32) {
        let fix = |i: usize, v: &mut Vec<u8>| {
            for (n, c) in v.chunks_mut(4).enumerate() {
                let a = [1.0, -0.7, 1.4, 0.0, 3.9, f32::INFINITY, 0.26][n % 7];
                let e = [0.0, -126.0, 127.0, -149.0, 128.0, -151.0, -130.0, 4096.0, 5.0, -4096.0];
                let x = if i == 0 { a } else { e[n % 10] };
                c.copy_from_slice(&f32::to_le_bytes(x));
            }
        };
        run_op("scale2", &[t, t], t, fix, |b, x| b.scale2(x[0], x[1]));
    }
}

#[test]
fn across_lanes() {
    for t in types() {
        for op in [ReduceOp::Add, ReduceOp::Mul, ReduceOp::Min, ReduceOp::Max] {
            run_op(&format!("reduce {op:?}"), &[t], t, none, |b, x| {
                let r = b.reduce(op, x[0]);
                b.splat(r, t.lanes as usize)
            });
        }
        for lane in 0..t.lanes {
            run_op("extract", &[t], RegTy { lanes: 1, ..t }, none, |b, x| b.extract(x[0], lane));
        }
        if t.elem.is_int() {
            run_op("iota", &[t], t, none, |b, x| {
                let i = b.iota(t);
                b.add(i, x[0])
            });
        }
        if t.lanes > 1 {
            let n = t.lanes;
            let per = (16 / t.elem.size()) as u8;
            // lane l within 128-bit lane k of n/per
            let unpack = move |i: u8, high: u8| {
                let (k, l) = (i / per, i % per);
                (l % 2) * n + k * per + l / 2 + high * per / 2
            };
            let patterns: [Box<dyn Fn(u8) -> u8>; 12] = [
                Box::new(move |i| n - 1 - i),
                Box::new(move |i| (i % 2) * n + i / 2),
                Box::new(move |i| (i * 5 + 3) % (2 * n)),
                Box::new(move |i| n + i),
                Box::new(|_| 0),
                Box::new(move |i| unpack(i, 0)),
                Box::new(move |i| unpack(i, 1)),
                Box::new(move |i| (unpack(i, 1) + n) % (2 * n)),
                // in-lane pairs of pairs
                Box::new(move |i| (i / per) * per + if i % per < per / 2 { per / 2 } else { n }),
                // whole 128-bit lanes
                Box::new(move |i| ((i / per * 2) % (2 * n / per)) * per + i % per),
                Box::new(move |i| ((i / per * 2 + 1) % (2 * n / per)) * per + i % per),
                Box::new(move |i| (i + n + per) % (2 * n)),
            ];
            for p in patterns {
                let sel: Vec<u8> = (0..n).map(&p).collect();
                run_op("shuffle", &[t, t], t, none, |b, x| b.shuffle(x[0], x[1], sel));
            }
        }
    }
}

#[test]
fn checked_indices() {
    for t in types().into_iter().filter(|t| t.elem.is_int()) {
        for (bound, inside) in [(7, false), (101, true), (0, false)] {
            let fix = |_: usize, v: &mut Vec<u8>| {
                for c in v.chunks_mut(t.elem.size()) {
                    let x = if inside { (c[0] as i8).clamp(-100, 100) } else { c[0] as i8 };
                    let x = (x as i64).to_le_bytes();
                    let n = c.len();
                    c.copy_from_slice(&x[..n]);
                }
            };
            run_op("check", &[t], t, fix, |b, x| b.check_index(x[0], bound));
        }
        run_op("status", &[t, t], t, none, |b, x| {
            let m = b.cmp(CmpOp::Eq, x[0], x[1]);
            b.set_status(m);
            x[0]
        });
    }
}

/// Every memory element and register type, masked and not, contiguous, splat, strided, gathered.
#[test]
fn memory() {
    for t in types() {
        for d in Dtype::all().filter(|d| t.elem.accepts(*d)) {
            for masked in [false, true] {
                memory_case(t, d, masked);
            }
        }
    }
}

fn memory_case(t: RegTy, d: Dtype, masked: bool) {
    let lanes = t.lanes as i64;
    let size = d.size() as i64;
    let mut b = KernelBuilder::new(format!("{d} as {t}, masked {masked}"));
    let src = b.ptr("s", d, Access::Read);
    let idx = b.ptr("i", Dtype::I32, Access::Read);
    let dst = b.ptr("d", d, Access::Write);
    let (stride, count) = (b.size("stride"), b.size("count"));
    let g = b.grid("t", 4);
    let m = masked.then(|| b.first_lanes(t.lanes as usize, count));
    let row = 8 * 16 * size;
    let out = |n: i64| Addr::param(dst).plus(g, row).offset(n * 16 * size);
    let at = Addr::param(src).plus(g, row);
    let v = b.load(t, at.clone(), d, m);
    b.store(v, out(0), d, m);
    let v = b.load_splat(t, at.clone().offset(size), d);
    b.store(v, out(1), d, m);
    let v = b.load_strided(t, at.clone(), stride, d, m);
    b.store(v, out(2), d, None);
    let v = b.load_strided(t, at.clone(), 3 * size, d, m);
    b.store_strided(v, out(3), size, d, m);
    b.store_strided(v, out(4), stride, d, m); // two elements apart: rows 4 and 5
    let it = RegTy::new(if t.elem.size() == 8 { Elem::I64 } else { Elem::I32 }, t.lanes as usize);
    if t.lanes > 1 {
        let i = b.load(it, Addr::param(idx).plus(g, 64), Dtype::I32, None);
        let v = b.gather(t, at.clone(), i, size, d, m);
        b.store(v, out(6), d, None);
        let v = b.gather(t, at, i, stride, d, m);
        b.store(v, out(7), d, None);
    }
    let k = b.finish();
    let n = 4 * 8 * 16;
    let mut data = match d {
        Dtype::F32 => values(Elem::F32, n, 5),
        Dtype::F64 => values(Elem::F64, n, 6),
        Dtype::F16 | Dtype::BF16 => values(Elem::I64, n / 4, 7),
        _ => values(Elem::I32, n * size as usize / 4, 8),
    };
    if d == Dtype::Bool {
        data.iter_mut().for_each(|x| *x &= 1);
    }
    assert_eq!(data.len(), n * size as usize);
    let ids: Vec<u8> = (0..64u32).flat_map(|i| ((i * 7) % 60).to_le_bytes()).collect();
    let bufs = vec![data, ids, vec![0x55; n * size as usize]];
    let same = match d {
        Dtype::F32 => Same::F32,
        Dtype::F64 => Same::F64,
        Dtype::F16 => Same::F16,
        Dtype::BF16 => Same::BF16,
        _ => Same::Bits,
    };
    for count in if masked { vec![0, 1, lanes / 2, lanes - 1, lanes] } else { vec![lanes] } {
        let buf = |buf| Arg::Buf { buf, offset: 0 };
        let args = [buf(0), buf(1), buf(2), Arg::Size(2 * size), Arg::Size(count)];
        let ran = check(&k, &args, &bufs, same);
        let it_bytes = it.elem.size() * t.lanes as usize;
        let must = expected(t).min(if t.lanes > 1 && it_bytes > 32 { expected(it) } else { 9 });
        assert_eq!(ran, must, "{} refused", k.name);
    }
}

/// Stores that round: f32 to f16 and bf16, f64 to f32, wide integers to narrow ones.
#[test]
fn narrowing_stores() {
    for t in types() {
        for d in Dtype::all().filter(|d| t.elem.accepts(*d)) {
            let mut b = KernelBuilder::new(format!("store {t} as {d}"));
            let src = b.ptr("s", dtype(t.elem), Access::Read);
            let dst = b.ptr("d", d, Access::Write);
            let g = b.grid("t", TILES as i64);
            let lanes = t.lanes as i64;
            let at = Addr::param(src).plus(g, t.elem.size() as i64 * lanes);
            let v = b.load(t, at, dtype(t.elem), None);
            b.store(v, Addr::param(dst).plus(g, d.size() as i64 * lanes), d, None);
            let k = b.finish();
            let n = TILES * lanes as usize;
            let bufs = vec![values(t.elem, n, 3), vec![0; n * d.size()]];
            let buf = |buf| Arg::Buf { buf, offset: 0 };
            let same = match d {
                Dtype::F32 => Same::F32,
                Dtype::F64 => Same::F64,
                Dtype::F16 => Same::F16,
                Dtype::BF16 => Same::BF16,
                _ => Same::Bits,
            };
            assert_eq!(check(&k, &[buf(0), buf(1)], &bufs, same), expected(t), "{}", k.name);
        }
    }
}
/// The elementary functions, whose machine code must give the interpreter's very bits.
#[test]
fn elementary_functions() {
    type F = fn(&mut KernelBuilder, Reg) -> Reg;
    let functions: [(&str, F); 19] = [
        ("exp", math::exp),
        ("exp2", math::exp2),
        ("expm1", math::expm1),
        ("log", math::log),
        ("log1p", math::log1p),
        ("sigmoid", math::sigmoid),
        ("tanh", math::tanh),
        ("erf", math::erf),
        ("sin", math::sin),
        ("cos", math::cos),
        ("tan", math::tan),
        ("atan", math::atan),
        ("asin", math::asin),
        ("sinh", math::sinh),
        ("cosh", math::cosh),
        ("asinh", math::asinh),
        ("acosh", math::acosh),
        ("atanh", math::atanh),
        ("softplus", math::softplus),
    ];
    // sin and cos are meant for moderate arguments; beyond, n no longer fits an integer either way
    let fix = |_: usize, v: &mut Vec<u8>| {
        for c in v.chunks_mut(4) {
            let x = f32::from_le_bytes(c.try_into().unwrap());
            if x.abs() > 1e30 && x.is_finite() {
                c.copy_from_slice(&(x / 1e30).to_le_bytes());
            }
        }
    };
    for t in types().into_iter().filter(|t| t.elem == Elem::F32) {
        for (name, f) in functions {
            run_op(name, &[t], t, fix, |b, x| f(b, x[0]));
        }
        run_op("pow", &[t, t], t, fix, |b, x| math::pow(b, x[0], x[1]));
    }
}

#[test]
fn dot_products_of_pairs() {
    let (f, i) = (RegTy::new(Elem::F32, 4), RegTy::new(Elem::I32, 4));
    let tiers = common::tiers();
    let have = tiers.iter().filter(|t| Target::of(**t).has_dot2()).count();
    for lanes in [4u8, 8, 16] {
        let (f, i) = (RegTy { lanes, ..f }, RegTy { lanes, ..i });
        for order in 0..3 {
            let mut b = KernelBuilder::new("dot2");
            let ps: Vec<ParamId> =
                [Dtype::I32, Dtype::I32, Dtype::F32].map(|d| b.ptr("x", d, Access::Read)).to_vec();
            let d = b.ptr("d", Dtype::F32, Access::Write);
            let g = b.grid("t", TILES as i64);
            let at = |p: ParamId| Addr::param(p).plus(g, 4 * i64::from(lanes));
            let c = b.load(f, at(ps[2]), Dtype::F32, None);
            let acc = b.copy(c);
            let x = b.load(i, at(ps[0]), Dtype::I32, None);
            let y = match order {
                0 => b.load(i, at(ps[1]), Dtype::I32, None),
                _ => b.load_splat(i, at(ps[1]), Dtype::I32),
            };
            match order {
                1 => b.dot2_acc(acc, y, x),
                _ => b.dot2_acc(acc, x, y),
            }
            b.store(acc, at(d), Dtype::F32, None);
            let k = b.finish();
            let n = TILES * lanes as usize;
            let bufs = [values(Elem::I32, n, 3), values(Elem::F32, n, 5), values(Elem::F32, n, 7)];
            let mut bufs = bufs.to_vec();
            bufs[0] = values(Elem::F32, n, 9);
            bufs.push(vec![0xaa; n * 4]);
            let args: Vec<Arg> = (0..4).map(|buf| Arg::Buf { buf, offset: 0 }).collect();
            assert_eq!(check(&k, &args, &bufs, Same::F32), have, "{lanes} lanes, {order}");
        }
    }
}
