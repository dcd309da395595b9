//! The driver: one forward sweep a time over every region, until nothing fires.

use super::Rule;
use super::pattern::{Match, Pat, Users, match_root};
use crate::context::{Changed, Context, PassError, Refusal};
use hub_abi::shape::Type;
use hub_ir::build::Builder;
use hub_ir::{Graph, Node, Op, Region, Value};
use std::collections::HashMap;
use std::rc::Rc;

/// Applies rules until none fires (or the sweeps of the options are used up).
pub fn apply(g: &mut Graph, cx: &Context, rules: &[Rule]) -> Result<Changed, PassError> {
    let mut changed = false;
    for _ in 0..cx.options.sweeps {
        if !apply_once(g, cx, rules)? {
            break;
        }
        changed = true;
    }
    Ok(changed)
}

/// One sweep.
pub fn apply_once(g: &mut Graph, cx: &Context, rules: &[Rule]) -> Result<Changed, PassError> {
    let uses = g.use_counts();
    let patterns = rules.iter().map(|r| (r.pattern)()).collect();
    let mut sweep = Sweep {
        cx,
        rules,
        patterns,
        map: HashMap::new(),
        uses,
        users: Rc::new(users(g)),
        refusals: vec![],
        fired: false,
    };
    let root = g.root();
    sweep.region(g, root);
    // Values may be used before they are replaced only by results of enclosing regions.
    g.replace(&sweep.map);
    cx.refused(sweep.refusals);
    if sweep.fired {
        crate::dce::remove_dead(g);
    }
    Ok(sweep.fired)
}

struct Sweep<'a> {
    cx: &'a Context,
    rules: &'a [Rule],
    patterns: Vec<Pat>,
    /// Replaced values.
    map: HashMap<Value, Value>,
    uses: Vec<u32>,
    users: Rc<Users>,
    refusals: Vec<Refusal>,
    fired: bool,
}

impl Sweep<'_> {
    fn region(&mut self, g: &mut Graph, r: Region) {
        let nodes = std::mem::take(&mut g.regions[r].nodes);
        let constraints = g.constraints.0.len();
        let mut out = Vec::with_capacity(nodes.len());
        for n in nodes {
            for v in &mut g.nodes[n].inputs {
                while let Some(&w) = self.map.get(v) {
                    *v = w;
                }
            }
            let sub =
                if matches!(g.nodes[n].op, Op::Group { .. }) { vec![] } else { g.regions_of(n) };
            for s in sub {
                self.region(g, s);
            }
            self.node(g, n, &mut out);
        }
        g.regions[r].nodes = out;
        if r != g.root() {
            // What a region needs was checked in it when it was built (see `hub_ir::Outside`).
            g.constraints.0.truncate(constraints);
        }
    }

    /// Tries every rule on a node; what is built goes before it.
    fn node(&mut self, g: &mut Graph, n: Node, out: &mut Vec<Node>) {
        if matches!(g.nodes[n].op, Op::Const(_)) || g.nodes[n].outputs.is_empty() {
            out.push(n);
            return;
        }
        for i in 0..self.rules.len() {
            let Some(m) = match_root(g, &self.patterns[i], n, &self.users) else { continue };
            if let Some((made, news)) = self.attempt(g, i, &m) {
                self.commit(g, n, &made, &news);
                out.extend(made);
                // Its outputs have no uses now; dead code elimination takes it away.
                out.push(n);
                self.cx.fired(self.rules[i].name, 1);
                return;
            }
        }
        out.push(n);
    }

    fn attempt(
        &mut self,
        g: &mut Graph,
        rule: usize,
        m: &Match,
    ) -> Option<(Vec<Node>, Vec<Value>)> {
        let rule = &self.rules[rule];
        let name = g.nodes[m.root].name.clone();
        let mut refuse = |why: &'static str| {
            if !why.is_empty() {
                self.refusals.push(Refusal { rule: rule.name, node: name.clone(), why });
            }
        };
        if !rule.shared
            && let Some(why) = shared_interior(g, m, &self.uses)
        {
            refuse(why);
            return None;
        }
        if let Err(why) = (rule.when)(g, m) {
            refuse(why);
            return None;
        }
        let mut b = Builder::new(g, &name);
        let built = (rule.build)(&mut b, m);
        let made = b.finish();
        let news = match built {
            Ok(news) => news,
            Err(_) => {
                refuse("the replacement does not fit the operands");
                return None;
            }
        };
        let olds = &g.nodes[m.root].outputs;
        if olds.len() != news.len() || olds.iter().zip(&news).any(|(o, n)| !same_type(g, *o, *n)) {
            refuse("the replacement has another type");
            return None;
        }
        Some((made, news))
    }

    fn commit(&mut self, g: &mut Graph, root: Node, made: &[Node], news: &[Value]) {
        self.fired = true;
        self.uses.resize(g.values.len(), 0);
        for &n in made {
            for v in g.nodes[n].inputs.iter().filter_map(|v| v.some()) {
                self.uses[v.0 as usize] += 1;
            }
        }
        for (o, &v) in g.nodes[root].outputs.clone().into_iter().zip(news) {
            self.uses[v.0 as usize] += std::mem::take(&mut self.uses[o.0 as usize]);
            self.map.insert(o, v);
        }
        self.release(g, root);
    }

    /// A dead node's operands lose a use, and so on up.
    fn release(&mut self, g: &Graph, n: Node) {
        let mut dead = vec![n];
        while let Some(n) = dead.pop() {
            for v in g.nodes[n].inputs.iter().filter_map(|v| v.some()) {
                let u = &mut self.uses[v.0 as usize];
                *u = u.saturating_sub(1);
                if let (0, Some(d)) = (*u, g.def(v))
                    && g.nodes[d].outputs.iter().all(|o| self.uses[o.0 as usize] == 0)
                {
                    dead.push(d);
                }
            }
        }
    }
}

fn users(g: &Graph) -> Users {
    let mut users = Users::new();
    for n in g.walk() {
        for v in g.nodes[n].inputs.iter().filter_map(|v| v.some()) {
            let list = users.entry(v).or_default();
            if list.last() != Some(&n) {
                list.push(n);
            }
        }
    }
    for r in g.live_regions() {
        for v in &g.regions[r].results {
            users.remove(v);
        }
    }
    users
}

/// An interior value that something outside the match uses too.
fn shared_interior(g: &Graph, m: &Match, uses: &[u32]) -> Option<&'static str> {
    let mut inside: HashMap<Value, u32> = HashMap::new();
    let mut nodes = m.interior.clone();
    nodes.sort_unstable();
    nodes.dedup();
    for &n in nodes.iter().chain([&m.root]) {
        for &v in &g.nodes[n].inputs {
            *inside.entry(v).or_default() += 1;
        }
    }
    let shared = nodes.iter().flat_map(|&n| &g.nodes[n].outputs).any(|v| {
        uses.get(v.0 as usize).copied().unwrap_or(0) > inside.get(v).copied().unwrap_or(0)
    });
    shared.then_some("an interior value has other uses")
}

/// Same dtype and rank, and dims not provably different.
fn same_type(g: &Graph, a: Value, b: Value) -> bool {
    match (g.ty(a), g.ty(b)) {
        (Type::Tensor(a), Type::Tensor(b)) => {
            a.dtype == b.dtype && a.rank() == b.rank() && a.dims == b.dims
        }
        (a, b) => a == b,
    }
}
