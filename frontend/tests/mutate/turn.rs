//! One change at a time: a walk over a model offers every change it knows, and the one whose turn it
//! is, is made.

/// Numbers where an integer stands.
pub const INTS: [i64; 7] = [0, -1, 1, 7, 1 << 31, i64::MIN, i64::MAX];
/// Sizes of an axis.
pub const SIZES: [i64; 5] = [0, 1, 5, -1, 1 << 62];
/// Numbers where a real stands.
pub const REALS: [f64; 6] = [0.0, -1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 3e38];
/// Texts where a text stands.
pub const TEXTS: [&str; 3] = ["", "nonsense", "\u{1b}[31m\u{7f}$(x)\n"];
/// More axes than any limit allows.
const MANY: usize = 70;

/// Counts the changes that a walk offers down to the one that is to be made.
pub struct Turn {
    left: usize,
    made: Option<String>,
}

impl Turn {
    /// Change number `n` is to be made.
    pub fn nth(n: usize) -> Turn {
        Turn { left: n, made: None }
    }

    /// Is it this one's turn? `what` says what it does. After it nothing has its turn.
    pub fn take(&mut self, what: impl FnOnce() -> String) -> bool {
        if self.made.is_some() {
            return false;
        }
        if self.left > 0 {
            self.left -= 1;
            return false;
        }
        self.made = Some(what());
        true
    }

    /// What was done; else how many changes were offered less than were asked for.
    pub fn end(self) -> Result<String, usize> {
        self.made.ok_or(self.left)
    }
}

/// Changes of a shape whose sizes are `T`s.
pub fn dims<T>(t: &mut Turn, at: &str, dims: &mut Vec<T>, of: impl Fn(i64) -> T) -> bool {
    let rank = dims.len();
    if rank > 0 && t.take(|| format!("{at}: a scalar")) {
        dims.clear();
        return true;
    }
    if rank > 1 && t.take(|| format!("{at}: one axis")) {
        dims.truncate(1);
        return true;
    }
    if rank > 1 && t.take(|| format!("{at}: without its first axis")) {
        dims.remove(0);
        return true;
    }
    if rank > 2 && t.take(|| format!("{at}: without its last axis")) {
        dims.pop();
        return true;
    }
    if t.take(|| format!("{at}: an axis before")) {
        dims.insert(0, of(1));
        return true;
    }
    if t.take(|| format!("{at}: an axis behind")) {
        dims.push(of(1));
        return true;
    }
    if t.take(|| format!("{at}: {MANY} axes")) {
        dims.resize_with(MANY, || of(1));
        return true;
    }
    for (axis, d) in dims.iter_mut().enumerate() {
        for n in SIZES {
            if t.take(|| format!("{at}: axis {axis} of size {n}")) {
                *d = of(n);
                return true;
            }
        }
    }
    false
}

/// Changes of a list: empty, shorter, longer, and its first and last element each of `values`.
pub fn list<T: Clone>(t: &mut Turn, at: &str, list: &mut Vec<T>, values: &[T]) -> bool {
    if !list.is_empty() && t.take(|| format!("{at}: empty")) {
        list.clear();
        return true;
    }
    if list.len() > 1 && t.take(|| format!("{at}: shorter")) {
        list.pop();
        return true;
    }
    if let Some(more) = list.last().or(values.first()).cloned() {
        if t.take(|| format!("{at}: longer")) {
            list.push(more.clone());
            return true;
        }
        if t.take(|| format!("{at}: much longer")) {
            list.resize(list.len() + MANY, more);
            return true;
        }
    }
    let last = list.len().saturating_sub(1);
    for (i, e) in list.iter_mut().enumerate().filter(|(i, _)| [0, last].contains(i)) {
        for (k, v) in values.iter().enumerate() {
            if t.take(|| format!("{at}: element {i} the hostile value {k}")) {
                e.clone_from(v);
                return true;
            }
        }
    }
    false
}

/// Changes of one value to each of `values`.
pub fn one<T: Clone>(t: &mut Turn, at: &str, value: &mut T, values: &[T]) -> bool {
    for (k, v) in values.iter().enumerate() {
        if t.take(|| format!("{at}: the hostile value {k}")) {
            value.clone_from(v);
            return true;
        }
    }
    false
}
