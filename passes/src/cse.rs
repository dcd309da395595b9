//! Common subexpressions: nodes of one operation on the same operands become one, a region seeing
//! those of the regions around it. Constants of equal contents too.

use crate::context::{Changed, Context, PassError};
use hub_abi::prim::Prim;
use hub_ir::text::hash;
use hub_ir::{Graph, Op, Region, Value};
use std::collections::HashMap;

/// The pass.
pub fn run(g: &mut Graph, cx: &Context) -> Result<Changed, PassError> {
    let mut s = Cse { seen: HashMap::new(), map: HashMap::new(), merged: 0 };
    let root = g.root();
    s.region(g, root);
    g.replace(&s.map);
    cx.fired("cse", s.merged);
    Ok(s.merged > 0)
}

struct Cse {
    /// Outputs of what was seen, by operation and operands.
    seen: HashMap<(String, Vec<Value>), Vec<Value>>,
    map: HashMap<Value, Value>,
    merged: u32,
}

impl Cse {
    fn region(&mut self, g: &mut Graph, r: Region) {
        let mut mine = vec![];
        let mut kept = vec![];
        for n in std::mem::take(&mut g.regions[r].nodes) {
            for v in &mut g.nodes[n].inputs {
                if let Some(&w) = self.map.get(v) {
                    *v = w;
                }
            }
            for s in g.regions_of(n) {
                self.region(g, s);
            }
            let Some(op) = key(g, &g.nodes[n].op) else {
                kept.push(n);
                continue;
            };
            let key = (op, g.nodes[n].inputs.clone());
            let outs = g.nodes[n].outputs.clone();
            match self.seen.get(&key) {
                Some(first) if same(g, first, &outs) => {
                    self.map.extend(outs.into_iter().zip(first.iter().copied()));
                    self.merged += 1;
                }
                _ => {
                    self.seen.insert(key.clone(), outs);
                    mine.push(key);
                    kept.push(n);
                }
            }
        }
        g.regions[r].nodes = kept;
        for k in mine {
            self.seen.remove(&k);
        }
    }
}

/// Same types, and for constants the same bytes (a hash may collide).
fn same(g: &Graph, a: &[Value], b: &[Value]) -> bool {
    let one = |(a, b): (&Value, &Value)| {
        let (x, y) = (g.as_const(*a), g.as_const(*b));
        g.ty(*a) == g.ty(*b) && x.map(|c| &c.data) == y.map(|c| &c.data)
    };
    a.len() == b.len() && a.iter().zip(b).all(one)
}

/// What tells operations apart; none for those that must not be merged.
fn key(g: &Graph, op: &Op) -> Option<String> {
    match op {
        Op::Const(c) => {
            let c = &g.consts[*c];
            Some(format!("const {:?} {} {}", c.ty, c.data.len(), hash(c)))
        }
        Op::Prim(Prim::Random { .. }) => None,
        Op::Prim(p) if p.is_effect() => None,
        Op::Prim(p) => Some(format!("{p:?}")),
        Op::Source(s) => Some(format!("@{s:?}")),
        Op::Group { .. } | Op::Control(_) => None,
    }
}
