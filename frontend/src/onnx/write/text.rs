//! Strings, places of keys, and images' files.

use super::cx::{Got, SymAt, Writer, X, int, string};
use hub_abi::prim::{Pixel, TextOp};
use hub_abi::{Dim, Dtype, Sym};

impl Writer {
    /// The place of the first of `keys` [K] that equals each element, -1 where none does.
    pub fn find(&mut self, x: &X, keys: &X, [dims, from]: [&[Dim]; 2]) -> Got<X> {
        let none = self.scalar(Dtype::I64, -1.0);
        if from.first().is_some_and(|k| k.is(0)) {
            return self.expand(&none, &[], dims);
        }
        let last = dims.len() as i64;
        let each = self.unsqueeze(x, last);
        let mut same = self.op("Equal", &[&each, keys])?;
        if x.ty.is_float() {
            let (a, b) = (self.op("IsNaN", &[&each])?, self.op("IsNaN", &[keys])?);
            let both = self.op("And", &[&a, &b])?;
            same = self.op("Or", &[&same, &both])?;
        }
        let same = self.cast(&same, Dtype::I32);
        let attrs = vec![int("axis", last), int("keepdims", 0)];
        let at = self.op_with("ArgMax", &[&same], &[], attrs)?;
        let axes = self.ints(&[last]);
        let any = self.op_with("ReduceMax", &[&same], &[&axes], vec![int("keepdims", 0)])?;
        let any = self.cast(&any, Dtype::Bool);
        self.select(&any, &at, &none)
    }

    /// An operator on strings: names of its outputs.
    pub fn text(&mut self, op: &TextOp, xs: &[X], dims: &[Dim]) -> Got<Vec<String>> {
        let x = &xs[0].name;
        Ok(vec![match op {
            TextOp::Concat => self.raw("StringConcat", &[x, &xs[1].name], vec![]),
            TextOp::Matches { pattern } => {
                self.raw("RegexFullMatch", &[x], vec![string("pattern", pattern)])
            }
            TextOp::Case { upper } => {
                // It takes vectors only.
                let flat = self.ints(&[-1]);
                let flat = self.raw("Reshape", &[x, &flat], vec![]);
                let way = string("case_change_action", if *upper { "UPPER" } else { "LOWER" });
                let y = self.raw("StringNormalizer", &[&flat], vec![way]);
                let shape = self.shape(dims)?;
                self.raw("Reshape", &[&y, &shape], vec![])
            }
            TextOp::Split { delimiter, most, width } => {
                let mut attrs = vec![];
                if let Some(d) = delimiter {
                    attrs.push(string("delimiter", d));
                }
                if let Some(n) = most {
                    attrs.push(int("maxsplit", i64::try_from(*n).unwrap_or(i64::MAX)));
                }
                let outs = self.raw_n("StringSplit", &[x], attrs, 2);
                self.bind(*width, SymAt::Axis(outs[0].clone(), dims.len()));
                return Ok(outs);
            }
        }])
    }

    /// The pixels of an image's file.
    pub fn image(&mut self, bytes: &X, pixel: Pixel, [height, width]: [Sym; 2]) -> X {
        let format = match pixel {
            Pixel::Rgb => "RGB",
            Pixel::Bgr => "BGR",
            Pixel::Grey => "Grayscale",
        };
        let name = self.raw("ImageDecoder", &[&bytes.name], vec![string("pixel_format", format)]);
        self.bind(height, SymAt::Axis(name.clone(), 0));
        self.bind(width, SymAt::Axis(name.clone(), 1));
        X { name, ty: Dtype::U8 }
    }
}
