//! Sizes: a symbol is read off the axis or vector that binds it, an expression of symbols is integer
//! arithmetic on int64 vectors of one element.

use super::cx::{Got, SymAt, Taken, Writer, int};
use hub_abi::dim::{Atom, Term};
use hub_abi::shape::Type;
use hub_abi::{Dim, Sym};
use hub_ir::Value;

impl Writer {
    /// Takes the symbols that a value's type binds: those that are a whole size and not bound yet.
    pub fn bind_axes(&mut self, v: Value) -> Got<()> {
        let Type::Tensor(t) = self.g.ty(v).clone() else { return Ok(()) };
        for (i, d) in t.dims.iter().enumerate() {
            if let Some(s) = d.as_sym() {
                let at = SymAt::Axis(self.name(v)?, i);
                self.bind(s, at);
            }
        }
        Ok(())
    }

    /// Says where a symbol's value is, unless that is known.
    pub fn bind(&mut self, s: Sym, at: SymAt) {
        if self.scope.frames.iter().all(|f| !f.syms.contains_key(&s)) {
            self.top().syms.insert(s, at);
        }
    }

    /// A size as an int64 vector of one element.
    pub fn dim(&mut self, d: &Dim) -> Got<String> {
        if let Some(k) = d.as_const() {
            return Ok(self.ints(&[k]));
        }
        if let Some(name) = self.scope.frames.iter().rev().find_map(|f| f.dims.get(d)) {
            return Ok(name.clone());
        }
        let at = std::mem::replace(&mut self.at, "size".to_string());
        let name = self.compute(d);
        self.at = at;
        let name = name.map_err(|e| if self.at.is_empty() { e } else { e.at(&self.at) })?;
        self.top().dims.insert(d.clone(), name.clone());
        Ok(name)
    }

    /// A size as an int64 scalar.
    pub fn dim_scalar(&mut self, d: &Dim) -> Got<String> {
        if let Some(k) = d.as_const() {
            return Ok(self.constant(hub_abi::Dtype::I64, &[], k.to_le_bytes().to_vec()));
        }
        let (x, axis) = (self.dim(d)?, self.ints(&[0]));
        Ok(self.raw("Squeeze", &[&x, &axis], vec![]))
    }

    /// Sizes as an int64 vector.
    pub fn shape(&mut self, dims: &[Dim]) -> Got<String> {
        let mut parts = vec![];
        let mut run: Vec<i64> = vec![];
        for d in dims {
            match d.as_const() {
                Some(k) => run.push(k),
                None => {
                    if !run.is_empty() {
                        parts.push(self.ints(&run));
                        run.clear();
                    }
                    parts.push(self.dim(d)?);
                }
            }
        }
        if !run.is_empty() || parts.is_empty() {
            parts.push(self.ints(&run));
        }
        if let [one] = &parts[..] {
            return Ok(one.clone());
        }
        let parts: Vec<&str> = parts.iter().map(|s| &**s).collect();
        Ok(self.raw("Concat", &parts, vec![int("axis", 0)]))
    }

    fn compute(&mut self, d: &Dim) -> Got<String> {
        if let Some(s) = d.as_sym() {
            return self.symbol(s);
        }
        let mut sum: Option<String> = None;
        for t in d.terms() {
            let t = self.term(t)?;
            sum = Some(match sum {
                Some(s) => self.raw("Add", &[&s, &t], vec![]),
                None => t,
            });
        }
        let sum = sum.expect("a size that is no constant has a term");
        if d.konst() == 0 {
            return Ok(sum);
        }
        let k = self.ints(&[d.konst()]);
        Ok(self.raw("Add", &[&sum, &k], vec![]))
    }

    fn symbol(&mut self, s: Sym) -> Got<String> {
        let Some(at) = self.scope.frames.iter().rev().find_map(|f| f.syms.get(&s)).cloned() else {
            if self.scope.inputs.is_some() {
                let name = self.input("size", Taken::Size(s));
                self.scope.frames[0].syms.insert(s, SymAt::Vector(name.clone()));
                return Ok(name);
            }
            let name = self.g.syms[s.0 as usize].name.clone();
            return self.refuse(format!("nothing written so far says what size '{name}' is"));
        };
        Ok(match at {
            SymAt::Axis(v, i) => {
                let part = vec![int("start", i as i64), int("end", i as i64 + 1)];
                self.raw("Shape", &[&v], part)
            }
            SymAt::Element(v, i) => {
                let at = self.ints(&[i as i64]);
                self.raw("Gather", &[&v, &at], vec![])
            }
            SymAt::Vector(v) => v,
        })
    }

    fn term(&mut self, t: &Term) -> Got<String> {
        let mut product: Option<String> = None;
        for a in &t.atoms {
            let a = self.atom(a)?;
            product = Some(match product {
                Some(p) => self.raw("Mul", &[&p, &a], vec![]),
                None => a,
            });
        }
        let product = match product {
            Some(p) => p,
            None => return Ok(self.ints(&[t.coef])),
        };
        if t.coef == 1 {
            return Ok(product);
        }
        let k = self.ints(&[t.coef]);
        Ok(self.raw("Mul", &[&product, &k], vec![]))
    }

    fn atom(&mut self, a: &Atom) -> Got<String> {
        let (op, x, y) = match a {
            Atom::Sym(s) => return self.dim(&Dim::from(*s)),
            Atom::Div(x, y) => ("Div", x, y),
            Atom::Mod(x, y) => ("Mod", x, y),
            Atom::Max(x, y) => ("Max", x, y),
            Atom::Min(x, y) => ("Min", x, y),
        };
        let (p, q) = (self.dim(x)?, self.dim(y)?);
        // ONNX truncates; sizes divide downwards.
        let whole = x.bounds(&self.g.syms).0 >= 0 && y.bounds(&self.g.syms).0 >= 0;
        if op == "Div" && !whole {
            let rest = self.raw("Mod", &[&p, &q], vec![]);
            let exact = self.raw("Sub", &[&p, &rest], vec![]);
            return Ok(self.raw("Div", &[&exact, &q], vec![]));
        }
        Ok(self.raw(op, &[&p, &q], vec![]))
    }
}
