//! What is no dense tensor, and what sessions share.

mod common;
use common::*;
use hub_abi::dtype::Dtype;
use hub_abi::pgraph::{Control, POp};
use hub_abi::plan::{Buf, OutputSource, Step};
use hub_abi::shape::Type;
use hub_runtime::{Model, OpenOptions, Session, SessionOptions, Tensor, TensorView, Value};

/// `(seq, x) -> (insert(seq, x), len)`, in a plan of host steps.
fn append() -> Writer {
    let elem = || tensor(Dtype::F32, &[dim(2)]);
    let g = graph(
        &[],
        vec![
            Type::Seq(Box::new(elem())),
            elem(),
            Type::Seq(Box::new(elem())),
            tensor(Dtype::I64, &[]),
        ],
        vec![
            node(POp::Control(Control::SeqInsert), &[0, 1], &[2], "insert"),
            node(POp::Control(Control::SeqLen), &[2], &[3], "length"),
        ],
        &[0, 1],
        &[2, 3],
    );
    let p = plan(
        vec![Buf::Input(1), Buf::Output { index: 1, bytes: dim(8) }],
        vec![
            Step::Host { node: 0, inputs: vec![(1, 0)], outputs: vec![] },
            Step::Host { node: 1, inputs: vec![], outputs: vec![(3, 1)] },
        ],
        vec![OutputSource::Heap(2), OutputSource::Buf(1)],
    );
    writer("append", g, Some(p))
}

#[test]
fn sequences_cross_the_rust_interface() {
    let dir = Scratch::new("values");
    let path = dir.write("m.hub", append());
    for tier in if native() { &["avx2", "portable"][..] } else { &["portable"] } {
        let mut s = session(&path, Some(tier), 1);
        let x = |v: f32| Value::from(Tensor::new(&[2], vec![v, v + 1.]).unwrap());
        let mut seq = Value::seq(vec![]);
        for n in 1..=3i64 {
            let out = s.run_values(&[seq, x(n as f32)]).unwrap();
            assert_eq!(out[1], Value::from(Tensor::scalar(n)), "{tier}");
            seq = out[0].clone();
        }
        assert_eq!(seq.as_seq().unwrap(), [x(1.), x(2.), x(3.)]);
        // A tensor in a sequence's place is refused, by the interface for tensors too.
        assert!(s.run_values(&[x(1.), x(2.)]).is_err());
        let data = [0u8; 8];
        let view = TensorView { dtype: Dtype::F32, dims: &[2], data: &data };
        assert_eq!(s.run(&[view, view]).err().unwrap().code(), 2);
    }
}

/// `(strings[n], x[n]) -> (the strings, x + x)`: sizes are bound by what has no bytes, too.
#[test]
fn strings_bind_sizes_and_cross_the_rust_interface() {
    use hub_abi::prim::{BinaryOp, Prim};
    let n = || sym(0);
    let add = POp::Prim(Prim::Binary(BinaryOp::Add));
    let reshape = POp::Prim(Prim::Reshape { shape: vec![n(), dim(1)] });
    let g = graph(
        &[("n", 0, 100)],
        vec![
            tensor(Dtype::Str, &[n()]),
            tensor(Dtype::F32, &[]),
            tensor(Dtype::Str, &[n(), dim(1)]),
            tensor(Dtype::F32, &[]),
        ],
        vec![node(reshape, &[0], &[2], "reshape"), node(add, &[1, 1], &[3], "add")],
        &[0, 1],
        &[2, 3],
    );
    let p = plan(
        vec![Buf::Input(1), Buf::Output { index: 1, bytes: dim(4) }],
        vec![
            Step::Host { node: 0, inputs: vec![], outputs: vec![] },
            Step::Host { node: 1, inputs: vec![(1, 0)], outputs: vec![(3, 1)] },
        ],
        vec![OutputSource::Heap(2), OutputSource::Buf(1)],
    );
    let dir = Scratch::new("strings");
    let path = dir.write("m.hub", writer("strings", g, Some(p)));
    let text = |dims: &[usize], n: usize| {
        let all = (0..n).map(|i| format!("word {i}")).collect();
        Value::from(Tensor::strings(dims, all).unwrap())
    };
    let x = Value::from(Tensor::scalar(1.5f32));
    for tier in if native() { &["avx2", "portable"][..] } else { &["portable"] } {
        let mut s = session(&path, Some(tier), 1);
        for n in [2usize, 5, 0] {
            let out = s.run_values(&[text(&[n], n), x.clone()]).unwrap();
            assert_eq!(out, [text(&[n, 1], n), Value::from(Tensor::scalar(3f32))], "{tier}");
        }
        let wrong = [text(&[1, 1], 1), Value::seq(vec![]), Value::Opt(None), x.clone()];
        for w in wrong {
            assert_eq!(s.run_values(&[w, x.clone()]).err().unwrap().code(), 2, "{tier}");
        }
    }
}

#[test]
fn sessions_share_a_model_and_run_at_once() {
    let dir = Scratch::new("share");
    let path = dir.write("m.hub", triple());
    for copy_code in [false, true] {
        let options = OpenOptions { copy_code, ..Default::default() };
        let model = Model::open(&path, &options).unwrap();
        std::thread::scope(|scope| {
            for i in 0..4usize {
                let model = model.clone();
                scope.spawn(move || {
                    let options = SessionOptions { threads: 2, ..Default::default() };
                    let mut s = Session::new(&model, &options).unwrap();
                    drop(model);
                    for n in [10 + i, 3, 50 + i] {
                        let x = vec![i as f32 + 0.5; n * 4];
                        let data = bytes(&x, f32::to_le_bytes);
                        let view = TensorView { dtype: Dtype::F32, dims: &[n, 4], data: &data };
                        let out = s.run(&[view]).unwrap();
                        assert_eq!(f32s(out.get(0).data), vec![3. * (i as f32 + 0.5); n * 4]);
                    }
                });
            }
        });
    }
}

/// `out = in + w` in one host step; the constant is in no buffer.
#[test]
fn host_steps_find_constants_by_themselves() {
    use hub_abi::pgraph::PConst;
    use hub_abi::prim::{BinaryOp, Prim};
    use hub_abi::shape::TensorType;
    let ty = TensorType { dtype: Dtype::F32, dims: vec![dim(2)] };
    let add = POp::Prim(Prim::Binary(BinaryOp::Add));
    let mut g = graph(
        &[],
        vec![Type::Tensor(ty.clone()); 3],
        vec![node(POp::Const(0), &[], &[1], "w"), node(add, &[0, 1], &[2], "add")],
        &[0],
        &[2],
    );
    g.consts = vec![PConst { ty, offset: 0, len: 8, packing: None }];
    let p = plan(
        vec![Buf::Input(0)],
        vec![Step::Host { node: 1, inputs: vec![(0, 0)], outputs: vec![] }],
        vec![OutputSource::Heap(2)],
    );
    let mut w = writer("const", g, Some(p));
    w.add_const(bytes(&[10f32, 20.], f32::to_le_bytes));
    let dir = Scratch::new("const");
    let path = dir.write("m.hub", w);
    for tier in if native() { &["avx2", "portable"][..] } else { &["portable"] } {
        let mut s = session(&path, Some(tier), 1);
        let data = bytes(&[1f32, 2.], f32::to_le_bytes);
        for _ in 0..2 {
            let view = TensorView { dtype: Dtype::F32, dims: &[2], data: &data };
            assert_eq!(f32s(s.run(&[view]).unwrap().get(0).data), [11., 22.]);
        }
    }
}
