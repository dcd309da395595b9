//! No serialised graph, however damaged, makes the interpreter panic or run on.

mod common;
use common::*;
use hub_abi::pgraph::{Control, PGraph, POp};
use hub_abi::prim::{Prim, UnaryOp};
use hub_abi::shape::Type;
use hub_abi::{Dim, Dtype};
use hub_portable::{BytesStore, Limits, Tensor, Value, run};
use proptest::prelude::*;
use std::sync::Arc;

/// A loop that grows a sequence, a branch, a group and a scan.
fn mixed() -> PGraph {
    let mut b = Build::default();
    let n = b.sym("N", 0, 8);
    let dims = [n.clone()];
    let (count, xs) = (b.t(Dtype::I64, &[]), b.t(Dtype::I64, &dims));
    let seq = Type::Seq(Box::new(int_type()));
    let (s0, s1, s2) = (b.value(seq.clone()), b.value(seq.clone()), b.value(seq));
    let (i, yes) = (b.t(Dtype::I64, &[]), b.t(Dtype::Bool, &[]));
    let body = vec![
        control(Control::SeqInsert, &[s1, i], &[s2]),
        prim(Prim::Binary(hub_abi::prim::BinaryOp::Le), &[i, i], &[yes]),
    ];
    let body = b.region(&[i, s1], body, &[yes, s2]);
    let (last, len, cond) =
        (b.value(Type::Seq(Box::new(int_type()))), b.t(Dtype::I64, &[]), b.t(Dtype::Bool, &[]));
    let (p, q) = (b.t(Dtype::I64, &dims), b.t(Dtype::I64, &dims));
    let then = b.region(&[], vec![add([xs, xs], p)], &[p]);
    let neg = b.t(Dtype::I64, &dims);
    let group = b.region(&[q], vec![prim(Prim::Unary(UnaryOp::Neg), &[q], &[neg])], &[neg]);
    let grouped = b.t(Dtype::I64, &dims);
    let orelse = b.region(&[], vec![node(POp::Group(group), &[xs], &[grouped])], &[grouped]);
    let chosen = b.t(Dtype::I64, &dims);
    let (s, x, y) = (b.t(Dtype::I64, &[]), b.t(Dtype::I64, &[]), b.t(Dtype::I64, &[]));
    let step = b.region(&[s, x], vec![add([s, x], y)], &[y, y]);
    let (total, sums) = (b.t(Dtype::I64, &[]), b.t(Dtype::I64, &dims));
    let nodes = vec![
        control(Control::SeqNew { elem: int_type() }, &[], &[s0]),
        control(
            Control::Loop { body, has_trip: true, has_cond: false, carried: 1 },
            &[count, s0],
            &[last],
        ),
        control(Control::SeqLen, &[last], &[len]),
        prim(Prim::Cast { to: Dtype::Bool, saturate: false }, &[len], &[cond]),
        control(Control::If { then, orelse }, &[cond], &[chosen]),
        control(
            Control::Scan { body: step, carried: 1, trip: n, reverse: true },
            &[len, chosen],
            &[total, sums],
        ),
    ];
    b.root(&[count, xs], nodes, &[total, sums]);
    b.0.constraints.push((Dim::from(3i64), Dim::from(hub_abi::Sym(0))));
    b.0
}

fn inputs() -> Vec<Value> {
    vec![Tensor::scalar(2i64).into(), i64s(&[1, 2, 3]).into()]
}

fn limits() -> Limits {
    Limits { tensor_bytes: 1 << 16, live_bytes: 1 << 18, steps: 2000, work: 1 << 26, sequence: 64 }
}

#[test]
fn the_graph_itself_runs() {
    let store = BytesStore::new(Arc::new([0u8; 0]));
    let out = run(&mixed(), &store, &inputs(), &limits()).unwrap();
    assert_eq!((ints(&out[0]), ints(&out[1])), (vec![14], vec![14, 12, 8]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn damaged_graphs_give_errors(hits in prop::collection::vec((any::<usize>(), any::<u8>()), 1..4), small in any::<bool>()) {
        let graph = if small { growing(true).0 } else { mixed() };
        let mut bytes = postcard::to_stdvec(&graph).unwrap();
        let n = bytes.len();
        for (at, v) in hits {
            bytes[at % n] = if v > 200 { v } else { v % 40 };
        }
        if let Ok(graph) = postcard::from_bytes::<PGraph>(&bytes) {
            let store = BytesStore::new(Arc::new([0u8; 0]));
            let _ = run(&graph, &store, &inputs(), &limits());
        }
    }
}
