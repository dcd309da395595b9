//! A walk over protobuf bytes before they are decoded: it finds the byte at which they are wrong,
//! and refuses what would take far more memory decoded than as a file.
//!
//! Invariant: the walk allocates nothing, and its depth is bounded by [`DEPTH`].

use crate::error::FrontendError;
use crate::options::Limits;

/// Depth of nested messages that are decoded (prost's own limit).
const DEPTH: usize = 100;
/// Memory that a string takes beside its bytes.
const STRING: u64 = 48;

/// What a field holds.
pub(crate) enum Kind {
    /// One integer or bool.
    Int,
    /// Integers, packed or not.
    Ints,
    /// One float.
    Float,
    /// Floats, packed or not.
    Floats,
    /// One double.
    Double,
    /// Doubles, packed or not.
    Doubles,
    /// UTF-8.
    Text,
    /// Any bytes.
    Bytes,
    /// A message.
    Message(&'static Message),
}

/// A message: its name, its size in memory, and its fields by number.
pub(crate) struct Message {
    pub name: &'static str,
    pub size: usize,
    pub fields: &'static [(u64, &'static str, Kind)],
}

/// Checks that `bytes` are a message of this kind, and within limits when decoded.
pub(crate) fn check(bytes: &[u8], root: &Message, limits: &Limits) -> Result<(), FrontendError> {
    let mut w = Walk { bytes, at: 0, decoded: 0, most: limits.parsed_bytes };
    w.message(root, bytes.len(), 1)
}

struct Walk<'b> {
    bytes: &'b [u8],
    at: usize,
    /// Bytes that the decoded messages take, about.
    decoded: u64,
    most: u64,
}

type Res<T = ()> = Result<T, FrontendError>;

impl Walk<'_> {
    fn wrong<T>(&self, at: usize, what: impl Into<String>) -> Res<T> {
        Err(FrontendError::invalid(what)
            .at_byte(at as u64)
            .advise("is the file cut off or damaged?"))
    }

    fn takes(&mut self, bytes: u64) -> Res {
        self.decoded = self.decoded.saturating_add(bytes);
        if self.decoded <= self.most {
            return Ok(());
        }
        let what = format!("the file would take more than {} bytes when decoded", self.most);
        Err(FrontendError::limit(what).at_byte(self.at as u64))
    }

    fn varint(&mut self, end: usize) -> Res<u64> {
        let start = self.at;
        let mut v = 0u64;
        for i in 0..10 {
            let Some(&b) = self.bytes[..end].get(self.at) else {
                return self.wrong(start, "a number is cut off");
            };
            self.at += 1;
            if i == 9 && b > 1 {
                break;
            }
            v |= u64::from(b & 127) << (7 * i);
            if b < 128 {
                return Ok(v);
            }
        }
        self.wrong(start, "a number of more than 64 bits")
    }

    /// Where `len` bytes from here end, within `end`.
    fn span(&self, len: u64, end: usize, what: &str) -> Res<usize> {
        let left = end - self.at;
        match usize::try_from(len).ok().filter(|&n| n <= left) {
            Some(n) => Ok(self.at + n),
            None => self.wrong(self.at, format!("{what} has {len} bytes, {left} are left")),
        }
    }

    fn message(&mut self, m: &Message, end: usize, depth: usize) -> Res {
        if depth > DEPTH {
            let what = format!("messages nest deeper than {DEPTH}");
            return Err(FrontendError::limit(what).at_byte(self.at as u64));
        }
        self.takes(m.size as u64)?;
        while self.at < end {
            let start = self.at;
            let key = self.varint(end)?;
            let (number, wire) = (key >> 3, key & 7);
            if key > u64::from(u32::MAX) || number == 0 {
                return self.wrong(start, format!("{}: {number} is no field number", m.name));
            }
            match m.fields.iter().find(|f| f.0 == number) {
                Some((_, name, kind)) => self.field(m.name, name, kind, wire, (start, end), depth),
                None => self.skip(number, wire, end, depth),
            }?;
        }
        Ok(())
    }

    /// A known field; `span` is where its key starts and where its message ends.
    fn field(
        &mut self,
        message: &str,
        name: &str,
        kind: &Kind,
        wire: u64,
        (start, end): (usize, usize),
        depth: usize,
    ) -> Res {
        let width = match kind {
            Kind::Float | Kind::Floats => 4,
            Kind::Double | Kind::Doubles => 8,
            _ => 0,
        };
        match (kind, wire) {
            (Kind::Int, 0) => self.varint(end).map(|_| ()),
            (Kind::Ints, 0) => {
                self.takes(8)?;
                self.varint(end).map(|_| ())
            }
            (Kind::Float | Kind::Floats, 5) | (Kind::Double | Kind::Doubles, 1) => {
                self.at = self.span(width, end, name)?;
                Ok(())
            }
            (Kind::Ints | Kind::Floats | Kind::Doubles, 2) => self.packed(name, width, end),
            (Kind::Text | Kind::Bytes, 2) => {
                self.takes(STRING)?;
                let to = self.length(name, end)?;
                if let (Kind::Text, Err(e)) = (kind, std::str::from_utf8(&self.bytes[self.at..to]))
                {
                    let at = self.at + e.valid_up_to();
                    return self.wrong(at, format!("{message}.{name} is not UTF-8"));
                }
                self.at = to;
                Ok(())
            }
            (Kind::Message(inner), 2) => {
                let to = self.length(name, end)?;
                self.message(inner, to, depth + 1)
            }
            _ => self.wrong(start, format!("{message}.{name} has the wrong wire type {wire}")),
        }
    }

    fn length(&mut self, name: &str, end: usize) -> Res<usize> {
        let len = self.varint(end)?;
        self.span(len, end, name)
    }

    /// Several numbers in one field, of `width` bytes each (0 for varints).
    fn packed(&mut self, name: &str, width: u64, end: usize) -> Res {
        let to = self.length(name, end)?;
        let len = (to - self.at) as u64;
        if width > 0 {
            if !len.is_multiple_of(width) {
                return self.wrong(self.at, format!("{name}: {len} bytes are no whole numbers"));
            }
            self.at = to;
            return Ok(());
        }
        self.takes(self.bytes[self.at..to].iter().filter(|&&b| b < 128).count() as u64 * 8)?;
        while self.at < to {
            self.varint(to)?;
        }
        Ok(())
    }

    /// A field that nothing here reads.
    fn skip(&mut self, number: u64, wire: u64, end: usize, depth: usize) -> Res {
        let start = self.at;
        match wire {
            0 => self.varint(end).map(|_| ()),
            1 | 5 => {
                self.at = self.span(if wire == 1 { 8 } else { 4 }, end, "a number")?;
                Ok(())
            }
            2 => {
                self.at = self.length("a field", end)?;
                Ok(())
            }
            3 if depth < DEPTH => loop {
                let key = self.varint(end)?;
                if key & 7 == 4 {
                    if key >> 3 == number {
                        return Ok(());
                    }
                    return self.wrong(start, "a group ends that did not start");
                }
                self.skip(key >> 3, key & 7, end, depth + 1)?;
            },
            _ => self.wrong(start, format!("wire type {wire} is none")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static INNER: Message = Message {
        name: "Inner",
        size: 1000,
        fields: &[(1, "text", Kind::Text), (2, "inner", Kind::Message(&INNER))],
    };
    static OUTER: Message = Message {
        name: "Outer",
        size: 100,
        fields: &[
            (1, "n", Kind::Int),
            (2, "ns", Kind::Ints),
            (3, "inner", Kind::Message(&INNER)),
            (4, "floats", Kind::Floats),
        ],
    };

    /// The byte that an error names, and its exit code.
    #[track_caller]
    fn fault(bytes: &[u8]) -> (u64, i32) {
        let limits = Limits { parsed_bytes: 200_000, ..Limits::default() };
        let e = check(bytes, &OUTER, &limits).expect_err("damaged");
        (e.place.offset.expect("an offset"), e.exit_code())
    }

    #[test]
    fn the_byte_that_is_wrong_is_named() {
        let ok = [8, 1, 18, 2, 1, 2, 26, 3, 10, 1, b'x', 34, 4, 0, 0, 0, 0, 0x5B, 8, 1, 0x5C];
        assert!(check(&ok, &OUTER, &Limits::default()).is_ok());
        assert_eq!(fault(&[8, 1, 8, 128]), (3, 4), "a cut number");
        assert_eq!(fault(&[8, 255, 255, 255, 255, 255, 255, 255, 255, 255, 127]), (1, 4));
        assert_eq!(fault(&[8, 1, 26, 9, 10, 1]), (4, 4), "a length past the end");
        assert_eq!(fault(&[26, 4, 10, 2, b'x', 0xFF]), (5, 4), "not UTF-8");
        assert_eq!(fault(&[8, 1, 10, 1, 0]), (2, 4), "a number as bytes");
        assert_eq!(fault(&[8, 1, 0, 1]), (2, 4), "field 0");
        assert_eq!(fault(&[34, 3, 0, 0, 0]), (2, 4), "a float of three bytes");
        assert_eq!(fault(&[0x5B, 0x64]), (1, 4), "a group that another one ends");
        assert_eq!(fault(&[0x5E]), (1, 4), "wire type 6");
    }

    #[test]
    fn small_files_do_not_grow_large() {
        let many = [26, 0].repeat(300);
        assert_eq!(fault(&many).1, 9, "many empty messages");
        let mut deep = vec![];
        for _ in 0..101 {
            let mut outer = vec![18];
            let mut n = deep.len();
            while n > 127 {
                outer.push(n as u8 | 128);
                n >>= 7;
            }
            outer.push(n as u8);
            outer.extend(&deep);
            deep = outer;
        }
        deep[0] = 26;
        assert_eq!(fault(&deep).1, 9, "deep messages");
    }
}
