//! From the product of probabilities and values back to queries and keys.

use super::{Product, beyond, only_use};
use crate::rewrite::{Match, number_of};
use hub_abi::Dim;
use hub_abi::prim::{BinaryOp, Prim, UnaryOp};
use hub_ir::ops::attention::{Adjust, Zero};
use hub_ir::{Graph, Node, Op, Source, Value};

type Walk<T> = Result<T, &'static str>;

/// An attention as it was found.
pub struct Found {
    /// Batch labels of the first product's result, then that of the queries' and the keys' rows.
    pub scores: Rows,
    /// Its operands: queries and keys with the labels of their axes, and the summed label.
    pub q: (Value, Vec<u8>),
    pub k: (Value, Vec<u8>),
    pub depth: u8,
    /// Factor of the scores, those on q and k aside.
    pub scale: f64,
    /// Steps from the scores on.
    pub steps: Vec<Step>,
    pub zero: Zero,
    /// The leading axes that scores have on the way: the first product's first, the second's last.
    pub leads: Vec<Vec<Dim>>,
    /// Labels of the probabilities in the second product.
    pub probs: Rows,
    /// The values with the labels of their axes, and the label of their columns.
    pub v: (Value, Vec<u8>),
    pub column: u8,
    /// Labels of the second product's result.
    pub out: Vec<u8>,
}

/// Labels of `[batch…, query, key]`.
pub struct Rows {
    pub batch: Vec<u8>,
    pub query: u8,
    pub key: u8,
}

/// One step of the scores.
pub struct Step {
    pub adjust: Adjust,
    /// The mask, what it is multiplied by, and which of the leads it was applied among.
    pub mask: Option<Mask>,
}

/// A mask operand.
pub struct Mask {
    pub value: Value,
    pub factor: f64,
    pub lead: usize,
}

/// Finds the attention whose second product is the root of a match. An empty reason where no
/// softmax is multiplied.
pub fn find(g: &Graph, m: &Match) -> Walk<Found> {
    let root = Product::of(g, m.root).ok_or("")?;
    let mut why = "";
    for side in [0, 1] {
        let (p, v) = (root.sides[side].clone(), root.sides[1 - side].clone());
        let (Ok(rows), [column]) = (Rows::of(&p.1, &root.out, &v.1), &beyond(&v.1, &p.1)[..])
        else {
            continue;
        };
        let mut walk = Walker::new(g, m, p.0, rows.1);
        match walk.run() {
            Ok(first) => {
                return walk.found(first, (rows.0, v, *column, root.out));
            }
            Err(reason) if why.is_empty() => why = reason,
            Err(_) => {}
        }
    }
    Err(why)
}

impl Rows {
    /// Of probabilities in a product that sums the keys; and is the key the last axis?
    fn of(p: &[u8], out: &[u8], v: &[u8]) -> Walk<(Rows, bool)> {
        let [key] = beyond(p, out)[..] else { return Err("") };
        let (batch, last) = p.split_at(p.len().checked_sub(2).ok_or("")?);
        let query = if last[1] == key { last[0] } else { last[1] };
        let whole = last.contains(&key) && v.contains(&key) && !v.contains(&query);
        if !whole {
            return Err("");
        }
        Ok((Rows { batch: batch.to_vec(), query, key }, last[1] == key))
    }
}

/// Where the walk is.
struct Walker<'a> {
    g: &'a Graph,
    m: &'a Match,
    at: Value,
    /// The node that uses it.
    by: Vec<Node>,
    /// Is the key's the last axis (else it is the one before)?
    key_last: bool,
    /// Leading axes, from the probabilities' back.
    leads: Vec<Vec<Dim>>,
    zero: Zero,
    /// The condition of [`Zero::Hidden`], whether it says what is hidden, and among which leads.
    hides: Option<(Value, bool, usize)>,
    factor: f64,
    /// Steps from the softmax back.
    steps: Vec<Step>,
}

/// How deep sums of scores and masks may nest.
const MOST_STEPS: usize = 32;

impl<'a> Walker<'a> {
    fn new(g: &'a Graph, m: &'a Match, at: Value, key_last: bool) -> Walker<'a> {
        let lead = lead(g, at);
        Walker {
            g,
            m,
            at,
            by: vec![m.root],
            key_last,
            leads: vec![lead],
            zero: Zero::Never,
            hides: None,
            factor: 1.0,
            steps: vec![],
        }
    }

    /// To the first product's node.
    fn run(&mut self) -> Walk<Node> {
        self.pass_softmax()?;
        for _ in 0..MOST_STEPS {
            let n = self.node().ok_or("the scores are no product of two tensors")?;
            if Product::of(self.g, n).is_some() {
                self.owned()?;
                return Ok(n);
            }
            self.step(n)?;
        }
        Err("more steps than any known exporter writes")
    }

    fn node(&self) -> Option<Node> {
        self.g.def(self.at)
    }

    fn prim(&self) -> Option<(Node, &'a Prim)> {
        self.g.as_prim(self.at)
    }

    /// Nothing else uses the value, which is left for one of its node's operands.
    fn owned(&self) -> Walk<()> {
        if only_use(self.m, self.at, &self.by) {
            Ok(())
        } else {
            Err("an interior value has other uses")
        }
    }

    fn go(&mut self, n: Node, to: Value) -> Walk<()> {
        self.owned()?;
        (self.at, self.by) = (to, vec![n]);
        Ok(())
    }

    /// Back over a reshape of leading axes or a swap of the last two.
    fn moved(&mut self, n: Node, p: &Prim) -> Walk<bool> {
        let x = *self.g.nodes[n].inputs.first().unwrap_or(&Value::NONE);
        match p {
            Prim::Transpose { perm } => {
                let r = perm.len();
                let swapped = |i: usize| match r - i {
                    1 => r.wrapping_sub(2),
                    2 => r - 1,
                    _ => i,
                };
                let swaps = r >= 2 && (0..r).all(|i| perm[i] as usize == swapped(i));
                if !swaps {
                    return Err("the scores are transposed");
                }
                self.go(n, x)?;
                self.key_last = !self.key_last;
            }
            Prim::Reshape { shape } => {
                let from = self.g.dims(x);
                if !ends_alike(from, shape) {
                    return Err("the scores are reshaped");
                }
                self.go(n, x)?;
                self.leads.push(lead(self.g, x));
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// From the probabilities to the softmax's operand.
    fn pass_softmax(&mut self) -> Walk<()> {
        loop {
            let n = self.node().ok_or("")?;
            match &self.g.nodes[n].op {
                Op::Source(Source::Softmax(s)) if !s.log => {
                    let rank = self.g.dims(self.at).len();
                    if s.axis + if self.key_last { 1 } else { 2 } != rank {
                        return Err("the softmax is along another axis than the product sums");
                    }
                    return self.go(n, self.g.nodes[n].inputs[0]);
                }
                Op::Prim(p @ (Prim::Transpose { .. } | Prim::Reshape { .. })) => {
                    // Movement before any softmax is no attention to report on.
                    self.moved(n, p).map_err(|_| "")?;
                }
                Op::Prim(Prim::Select) => self.zeroed(n)?,
                _ => return Err(""),
            }
        }
    }

    /// Zero where NaN or hidden, else the probability.
    fn zeroed(&mut self, n: Node) -> Walk<()> {
        let [cond, a, b] = self.g.nodes[n].inputs[..] else { return Err("") };
        let is_zero = |v| number_of(self.g, v) == Some(0.0);
        if self.zero != Zero::Never || !self.key_last {
            return Err("");
        }
        let (p, hides) = match (is_zero(a), is_zero(b)) {
            (true, false) => (b, true),
            (false, true) => (a, false),
            _ => return Err(""),
        };
        let nan = match self.g.as_prim(cond) {
            Some((t, Prim::Unary(UnaryOp::IsNan))) if self.g.nodes[t].inputs[0] == p => Some(t),
            _ => None,
        };
        if self.g.dims(p) != self.g.dims(self.at) {
            return Err("");
        }
        self.go(n, p)?;
        match nan {
            Some(t) if hides => {
                self.by.push(t);
                self.zero = Zero::Nan;
            }
            Some(_) => return Err(""),
            None => {
                self.zero = Zero::Hidden;
                self.hides = Some((cond, hides, self.leads.len() - 1));
            }
        }
        Ok(())
    }

    /// One step back from the softmax's operand.
    fn step(&mut self, n: Node) -> Walk<()> {
        let Some((_, p)) = self.prim() else {
            return Err("the scores are no product of two tensors");
        };
        if self.moved(n, p)? {
            return Ok(());
        }
        let ins = &self.g.nodes[n].inputs;
        match p {
            Prim::Binary(op @ (BinaryOp::Mul | BinaryOp::Div)) => self.scaled(n, *op),
            Prim::Binary(BinaryOp::Add) => {
                let (s, mask) = self.scores_and_mask(ins[0], ins[1])?;
                self.masked(n, s, mask, Adjust::Add)
            }
            Prim::Binary(BinaryOp::Sub) if self.is_scores(ins[0], MOST_STEPS) => {
                self.masked(n, ins[0], ins[1], Adjust::Subtract)
            }
            Prim::Binary(BinaryOp::Max) => self.at_least(n),
            Prim::Select => self.selected(n),
            Prim::Cast { .. } => Err("the softmax computes in another type"),
            _ => Err("the scores are no product of two tensors"),
        }
    }

    fn scaled(&mut self, n: Node, op: BinaryOp) -> Walk<()> {
        let [a, b] = self.g.nodes[n].inputs[..] else { return Err("") };
        let (x, k) = match (number_of(self.g, a), number_of(self.g, b)) {
            (_, Some(k)) => (a, k),
            (Some(k), None) if op == BinaryOp::Mul => (b, k),
            _ => return Err("the scores are scaled by more than one number"),
        };
        let k = if op == BinaryOp::Div { 1.0 / k } else { k };
        if !k.is_finite() || k == 0.0 || self.g.dims(x) != self.g.dims(self.at) {
            return Err("the scores are scaled by more than one number");
        }
        if let Some((t, Prim::Unary(UnaryOp::Tanh))) = self.g.as_prim(x) {
            return self.capped(n, t, x, k);
        }
        self.factor *= k;
        self.go(n, x)
    }

    /// `k * tanh(y / k)`.
    fn capped(&mut self, n: Node, tanh: Node, x: Value, k: f64) -> Walk<()> {
        let y = self.g.nodes[tanh].inputs[0];
        let Some((d, Prim::Binary(op @ (BinaryOp::Mul | BinaryOp::Div)))) = self.g.as_prim(y)
        else {
            return Err("a tanh of the scores without its divisor");
        };
        let [s, c] = self.g.nodes[d].inputs[..] else { return Err("") };
        let c = number_of(self.g, c).map(|c| if *op == BinaryOp::Div { c } else { 1.0 / c });
        if c.is_none_or(|c| (c - k).abs() > 1e-6 * k.abs()) || self.factor != 1.0 {
            return Err("a tanh of the scores without its divisor");
        }
        self.go(n, x)?;
        self.go(tanh, y)?;
        self.go(d, s)?;
        self.steps.push(Step { adjust: Adjust::Cap { bound: k }, mask: None });
        Ok(())
    }

    fn at_least(&mut self, n: Node) -> Walk<()> {
        let [x, b] = self.g.nodes[n].inputs[..] else { return Err("") };
        match number_of(self.g, b) {
            Some(bound) if self.factor > 0.0 && self.g.dims(x) == self.g.dims(self.at) => {
                let bound = bound * self.factor;
                self.go(n, x)?;
                self.steps.push(Step { adjust: Adjust::AtLeast { bound }, mask: None });
                Ok(())
            }
            _ => Err("the scores are bounded by more than one number"),
        }
    }

    fn selected(&mut self, n: Node) -> Walk<()> {
        let [cond, a, b] = self.g.nodes[n].inputs[..] else { return Err("") };
        match (number_of(self.g, a), number_of(self.g, b)) {
            (Some(fill), None) => {
                self.masked(n, b, cond, Adjust::Hidden { fill: fill * self.factor })
            }
            (None, Some(fill)) => {
                self.masked(n, a, cond, Adjust::Seen { fill: fill * self.factor })
            }
            _ => Err("hidden scores become more than one number"),
        }
    }

    fn masked(&mut self, n: Node, s: Value, value: Value, adjust: Adjust) -> Walk<()> {
        let bool_mask = matches!(adjust, Adjust::Seen { .. } | Adjust::Hidden { .. });
        let factor = if bool_mask { 1.0 } else { self.factor };
        if !self.key_last {
            return Err("the scores are masked before they are transposed");
        }
        if self.g.dims(s) != self.g.dims(self.at) {
            return Err("the mask repeats the scores");
        }
        if factor != 1.0 && self.g.as_const(value).is_none() {
            return Err("the mask is scaled with the scores");
        }
        self.go(n, s)?;
        let mask = Some(Mask { value, factor, lead: self.leads.len() - 1 });
        self.steps.push(Step { adjust, mask });
        Ok(())
    }

    /// Which operand of a sum are the scores.
    fn scores_and_mask(&self, a: Value, b: Value) -> Walk<(Value, Value)> {
        match (self.is_scores(a, MOST_STEPS), self.is_scores(b, MOST_STEPS)) {
            (true, _) => Ok((a, b)),
            (false, true) => Ok((b, a)),
            _ => Err("the scores are no product of two tensors"),
        }
    }

    /// Does a chain of steps lead from a value to a product of two computed tensors?
    fn is_scores(&self, v: Value, fuel: usize) -> bool {
        let Some(n) = self.g.def(v).filter(|_| fuel > 0) else { return false };
        if let Some(p) = Product::of(self.g, n) {
            return p.sides.iter().all(|s| self.g.as_const(s.0).is_none());
        }
        let ins = &self.g.nodes[n].inputs;
        let any = |vs: &[Value]| vs.iter().any(|&v| self.is_scores(v, fuel / 2));
        match &self.g.nodes[n].op {
            Op::Prim(Prim::Binary(_)) => any(ins),
            Op::Prim(Prim::Select) => any(&ins[1..]),
            Op::Prim(Prim::Reshape { .. } | Prim::Transpose { .. }) => any(ins),
            Op::Prim(Prim::Unary(UnaryOp::Tanh)) => any(ins),
            _ => false,
        }
    }

    /// The first product's operands, and all that was seen on the way.
    fn found(mut self, first: Node, second: (Rows, (Value, Vec<u8>), u8, Vec<u8>)) -> Walk<Found> {
        let p = Product::of(self.g, first).expect("the walk ends at a product");
        let rank = p.out.len();
        let (batch, last) = p.out.split_at(rank.checked_sub(2).ok_or("the scores are a vector")?);
        let (query, key) = if self.key_last { (last[0], last[1]) } else { (last[1], last[0]) };
        let [a, b] = p.sides;
        let (q, k) = if b.1.contains(&key) { (a, b) } else { (b, a) };
        let own = !q.1.contains(&key) && !k.1.contains(&query) && q.1.contains(&query);
        let summed = (beyond(&q.1, &p.out), beyond(&k.1, &p.out));
        let ([depth], true) = (&summed.0[..], summed.0 == summed.1 && own) else {
            return Err("the scores are another product than of rows and rows");
        };
        self.check_zero()?;
        self.steps.reverse();
        let last = self.leads.len() - 1;
        self.leads.reverse();
        for m in self.steps.iter_mut().filter_map(|s| s.mask.as_mut()) {
            m.lead = last - m.lead;
        }
        Ok(Found {
            scores: Rows { batch: batch.to_vec(), query, key },
            depth: *depth,
            q,
            k,
            scale: self.factor,
            steps: self.steps,
            zero: self.zero,
            leads: self.leads,
            probs: second.0,
            v: second.1,
            column: second.2,
            out: second.3,
        })
    }

    /// What hides probabilities must be what hid the scores last.
    fn check_zero(&self) -> Walk<()> {
        let Some(wanted) = self.hides else { return Ok(()) };
        let last = self.steps.iter().find_map(|s| {
            let mask = s.mask.as_ref()?;
            match &s.adjust {
                Adjust::Hidden { .. } => Some((mask.value, true, mask.lead)),
                Adjust::Seen { .. } => Some((mask.value, false, mask.lead)),
                _ => None,
            }
        });
        if last == Some(wanted) {
            return Ok(());
        }
        Err("probabilities are hidden by another mask than scores")
    }
}

fn lead(g: &Graph, v: Value) -> Vec<Dim> {
    let d = g.dims(v);
    d[..d.len().saturating_sub(2)].to_vec()
}

/// The last two axes are the same.
fn ends_alike(a: &[Dim], b: &[Dim]) -> bool {
    a.len() >= 2 && b.len() >= 2 && a[a.len() - 2..] == b[b.len() - 2..]
}
