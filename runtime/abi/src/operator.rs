//! Prepared operators of a device in a plan: a kernel whose code is no function but a record, one line
//! of the tier's text, which names an operator of the device and says what its tensors are.
//!
//! Such a kernel's argument block has an address for each input, then for each output, then for each of
//! these tensors, in the same order, its sizes and its strides in elements. So addresses are checked,
//! moved in loops and followed through the arena as those of other kernels are, and one record serves
//! every binding of symbols: a session prepares the operator for the sizes that it binds.

use crate::device::OpTensor;
use crate::dtype::Dtype;
use std::fmt;

/// What the line of a record begins with: a comment of the languages that such text is in.
pub const MARK: &str = "// operator ";

/// Most axes of a tensor.
pub const MAX_RANK: usize = 8;

/// An operator and the types of its tensors, sizes aside.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Operator {
    /// The device's name for it.
    pub name: String,
    /// Element type and number of axes of each input.
    pub inputs: Vec<(Dtype, usize)>,
    /// The same of each output.
    pub outputs: Vec<(Dtype, usize)>,
    /// What else it depends on: an object in JSON, without line breaks.
    pub attributes: String,
}

impl Operator {
    /// Inputs, then outputs.
    pub fn tensors(&self) -> impl Iterator<Item = &(Dtype, usize)> {
        self.inputs.iter().chain(&self.outputs)
    }

    /// Entries of the argument block, and how many of these, which come first, are addresses.
    pub fn words(&self) -> (usize, usize) {
        let addresses = self.inputs.len() + self.outputs.len();
        (addresses + self.tensors().map(|(_, rank)| 2 * rank).sum::<usize>(), addresses)
    }

    /// The tensors that the entries after the addresses describe; none where there are fewer.
    pub fn bound(&self, sizes: &[u64]) -> Option<Vec<OpTensor>> {
        let mut rest = sizes;
        let mut take = |rank: usize| {
            let (one, left) = rest.split_at_checked(rank)?;
            rest = left;
            let mut out = [0; MAX_RANK];
            out.get_mut(..rank)?.iter_mut().zip(one).for_each(|(o, n)| *o = *n as i64);
            Some(out)
        };
        let one = |(dtype, rank): &(Dtype, usize)| {
            let (dims, strides) = (take(*rank)?, take(*rank)?);
            Some(OpTensor { dtype: *dtype as i32, rank: *rank as i32, dims, strides })
        };
        self.tensors().map(one).collect()
    }

    /// Reads a record; `None` for any other text.
    pub fn parse(line: &str) -> Option<Operator> {
        let rest = line.strip_prefix(MARK)?.trim_end();
        let mut parts = rest.splitn(4, ' ');
        let name = parts.next()?.to_string();
        let (inputs, outputs) = (types(parts.next()?)?, types(parts.next()?)?);
        Some(Operator { name, inputs, outputs, attributes: parts.next()?.to_string() })
    }
}

/// As the record says it: one line, without its end.
impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |types: &[(Dtype, usize)]| {
            let each: Vec<String> =
                types.iter().map(|(d, r)| format!("{}:{r}", d.name())).collect();
            format!("({})", each.join(","))
        };
        let (ins, outs) = (list(&self.inputs), list(&self.outputs));
        write!(f, "{MARK}{} {ins} {outs} {}", self.name, self.attributes)
    }
}

fn types(list: &str) -> Option<Vec<(Dtype, usize)>> {
    let inner = list.strip_prefix('(')?.strip_suffix(')')?;
    let one = |s: &str| {
        let (dtype, rank) = s.split_once(':')?;
        let rank = rank.parse().ok().filter(|r| *r <= MAX_RANK)?;
        Some((Dtype::from_name(dtype)?, rank))
    };
    inner.split(',').filter(|s| !s.is_empty()).map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_read_back_and_sizes_have_their_places() {
        let op = Operator {
            name: "MatMul".into(),
            inputs: vec![(Dtype::F32, 2), (Dtype::BF16, 2)],
            outputs: vec![(Dtype::F32, 1)],
            attributes: r#"{"a":[1, 2]}"#.into(),
        };
        assert_eq!(Operator::parse(&format!("{op}\n")), Some(op.clone()));
        assert_eq!(op.words(), (13, 3));
        let sizes: Vec<u64> = (1..=10).collect();
        let tensors = op.bound(&sizes).expect("enough");
        assert_eq!((tensors[1].dims[..2].to_vec(), tensors[1].strides[1]), (vec![5, 6], 8));
        assert_eq!((tensors[2].dims[0], tensors[2].strides[0]), (9, 10));
        assert_eq!(op.bound(&sizes[..9]), None);
        for wrong in ["MatMul", "// operator", "// operator X (f32:9) () {}", "// operator X () {}"]
        {
            assert_eq!(Operator::parse(wrong), None, "{wrong}");
        }
    }
}
