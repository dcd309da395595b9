//! Puts seeded weights into an ONNX file.
//!
//! An initializer of the graph whose `doc_string` is `seeded {json}` gets `raw_data` and an empty `doc_string`;
//! every other byte of the file stays, unknown fields included. So this works on protobuf's wire format, not on
//! messages: `ModelProto.graph` is field 7, `GraphProto.initializer` 5, `TensorProto.{dims, name, raw_data,
//! doc_string}` are 1, 8, 9 and 12. Weights are made while they are written and never held.

use crate::seed::{self, Dtype, Spec};
use serde::Deserialize;
use std::io::{self, Write};
use std::ops::Range;

const GRAPH: u64 = 7;
const INITIALIZER: u64 = 5;
const DIMS: u64 = 1;
const NAME: u64 = 8;
const RAW_DATA: u64 = 9;
const DOC_STRING: u64 = 12;
const BYTES: u64 = 2;

/// The file to write, as pieces in order.
pub(crate) struct Plan<'a> {
    pieces: Vec<Piece<'a>>,
}

enum Piece<'a> {
    /// Bytes of the skeleton.
    Copy(&'a [u8]),
    /// Tags and lengths that changed.
    New(Vec<u8>),
    /// A tensor's `raw_data`.
    Seeded { name: &'a str, dtype: Dtype, count: u64, spec: Spec },
}

#[derive(Deserialize)]
struct Seeded {
    dtype: Dtype,
    #[serde(flatten)]
    spec: Spec,
}

impl<'a> Plan<'a> {
    /// Plans the full file of a skeleton. The error says what in the skeleton is malformed.
    pub(crate) fn new(skeleton: &'a [u8]) -> Result<Plan<'a>, String> {
        let mut plan = Plan { pieces: Vec::new() };
        for field in Fields::of(skeleton) {
            let field = field?;
            if field.number == GRAPH && field.wire == BYTES {
                let graph = Plan::of_graph(field.payload)?;
                plan.pieces.push(Piece::New(header(GRAPH, graph.len())));
                plan.pieces.extend(graph.pieces);
            } else {
                plan.pieces.push(Piece::Copy(field.whole));
            }
        }
        Ok(plan)
    }

    fn of_graph(graph: &'a [u8]) -> Result<Plan<'a>, String> {
        let mut plan = Plan { pieces: Vec::new() };
        for field in Fields::of(graph) {
            let field = field?;
            let tensor = match (field.number, field.wire) {
                (INITIALIZER, BYTES) => Plan::of_tensor(field.payload)?,
                _ => None,
            };
            if let Some(tensor) = tensor {
                plan.pieces.push(Piece::New(header(INITIALIZER, tensor.len())));
                plan.pieces.extend(tensor.pieces);
            } else {
                plan.pieces.push(Piece::Copy(field.whole));
            }
        }
        Ok(plan)
    }

    /// `None` for a tensor that is not seeded.
    fn of_tensor(tensor: &'a [u8]) -> Result<Option<Plan<'a>>, String> {
        let text = |b: &'a [u8]| std::str::from_utf8(b).map_err(|e| format!("initializer: {e}"));
        let (mut name, mut doc, mut dims) = ("", "", Vec::new());
        for field in Fields::of(tensor) {
            let field = field?;
            match (field.number, field.wire) {
                (NAME, BYTES) => name = text(field.payload)?,
                (DOC_STRING, BYTES) => doc = text(field.payload)?,
                (DIMS, BYTES) => {
                    let mut at = 0;
                    while at < field.payload.len() {
                        dims.push(varint(field.payload, &mut at)?);
                    }
                }
                (DIMS, _) => dims.push(varint(field.payload, &mut 0)?),
                _ => {}
            }
        }
        let Some(json) = doc.strip_prefix("seeded ") else { return Ok(None) };
        let fail = |e: String| format!("initializer {name:?}: {e}");
        let Seeded { dtype, spec } = serde_json::from_str(json).map_err(|e| fail(e.to_string()))?;
        let shape: Option<Vec<usize>> = dims.iter().map(|&d| usize::try_from(d).ok()).collect();
        let count = shape.and_then(|s| seed::elements(&s));
        let count = count.ok_or_else(|| fail(format!("shape {dims:?} is out of range")))?;

        // Fields stand in the order of their numbers, as protobuf's own writers leave them.
        let mut pieces = Vec::new();
        for field in Fields::of(tensor) {
            let field = field?;
            if field.number == DOC_STRING {
                pieces.push(Piece::New(header(RAW_DATA, count * dtype.size() as u64)));
                pieces.push(Piece::Seeded { name, dtype, count, spec });
                pieces.push(Piece::New(header(DOC_STRING, 0)));
            } else {
                pieces.push(Piece::Copy(field.whole));
            }
        }
        Ok(Some(Plan { pieces }))
    }

    /// Bytes of all pieces.
    fn len(&self) -> u64 {
        let len = |p: &Piece| match p {
            Piece::Copy(b) => b.len() as u64,
            Piece::New(b) => b.len() as u64,
            Piece::Seeded { dtype, count, .. } => count * dtype.size() as u64,
        };
        self.pieces.iter().map(len).sum()
    }

    /// Writes the file.
    pub(crate) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        for piece in &self.pieces {
            match piece {
                Piece::Copy(bytes) => out.write_all(bytes)?,
                Piece::New(bytes) => out.write_all(bytes)?,
                Piece::Seeded { name, dtype, count, spec } => {
                    seed::write(out, name, *dtype, *count, *spec)?
                }
            }
        }
        Ok(())
    }
}

/// Tag and length of a field of bytes.
fn header(number: u64, len: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    push_varint(&mut bytes, number << 3 | BYTES);
    push_varint(&mut bytes, len);
    bytes
}

/// Appends a base-128 varint, least significant group first.
pub(crate) fn push_varint(out: &mut Vec<u8>, mut v: u64) {
    while v > 127 {
        out.push(v as u8 | 128);
        v >>= 7;
    }
    out.push(v as u8);
}

/// Reads a varint at `*at` and moves past it.
fn varint(bytes: &[u8], at: &mut usize) -> Result<u64, String> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte =
            *bytes.get(*at).ok_or_else(|| format!("the file ends inside a number, at {at}"))?;
        *at += 1;
        value |= u64::from(byte & 127) << shift;
        if byte < 128 {
            return Ok(value);
        }
    }
    Err(format!("a number longer than ten bytes, at {at}"))
}

/// One field of a message.
struct Field<'a> {
    number: u64,
    wire: u64,
    /// What follows tag and length.
    payload: &'a [u8],
    /// Tag and all.
    whole: &'a [u8],
}

/// The fields of a message in order; after an error there are no more.
struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    fn of(bytes: &'a [u8]) -> Fields<'a> {
        Fields { bytes, at: 0 }
    }

    fn read(&mut self) -> Result<Field<'a>, String> {
        let start = self.at;
        let tag = varint(self.bytes, &mut self.at)?;
        let (number, wire) = (tag >> 3, tag & 7);
        let payload: Range<usize> = match wire {
            0 => {
                let begin = self.at;
                varint(self.bytes, &mut self.at)?;
                begin..self.at
            }
            1 => self.at..self.at.saturating_add(8),
            BYTES => {
                let len = varint(self.bytes, &mut self.at)?;
                self.at..self.at.saturating_add(usize::try_from(len).unwrap_or(usize::MAX))
            }
            5 => self.at..self.at.saturating_add(4),
            _ => {
                return Err(format!(
                    "field {number} at {start} has wire type {wire}, which ONNX does not use"
                ));
            }
        };
        let short = || format!("field {number} at {start} is longer than what is left");
        let contents = self.bytes.get(payload.clone()).ok_or_else(short)?;
        self.at = payload.end;
        Ok(Field { number, wire, payload: contents, whole: &self.bytes[start..self.at] })
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.bytes.len() {
            return None;
        }
        let field = self.read();
        if field.is_err() {
            self.at = self.bytes.len();
        }
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn skeleton() -> Vec<u8> {
        std::fs::read(crate::root().join("fixtures/squeezenet1_1_p2o/model.onnx")).unwrap()
    }

    /// `digits` has its weights inside, so its plan is a copy.
    #[test]
    fn a_file_without_seeded_weights_stays_as_it_is() {
        let file = std::fs::read(crate::root().join("digits/model.onnx")).unwrap();
        let mut copy = Vec::new();
        Plan::new(&file).unwrap().write(&mut copy).unwrap();
        assert!(copy == file);
    }

    /// A model of one packed-dims initializer and fields that no ONNX has.
    #[test]
    fn unknown_fields_and_packed_dims_are_kept() {
        let doc = br#"seeded {"lo": 0, "hi": 1, "dtype": "uint8"}"#;
        let mut tensor = vec![0x0A, 2, 2, 3];
        tensor.extend([0x42, 1, b'w', 0xF9, 0x7F, 1, 2, 3, 4, 5, 6, 7, 8, 0x62, doc.len() as u8]);
        let mut want = tensor[..tensor.len() - 2].to_vec();
        want.extend([0x4A, 6, 0, 0, 0, 0, 0, 0, 0x62, 0]);
        tensor.extend(doc);
        let wrap = |t: &[u8]| {
            let graph = [header(INITIALIZER, t.len() as u64), t.to_vec()].concat();
            [vec![0x08, 9], header(GRAPH, graph.len() as u64), graph, vec![0xFD, 0x7F, 1, 2, 3, 4]]
                .concat()
        };
        let mut got = Vec::new();
        Plan::new(&wrap(&tensor)).unwrap().write(&mut got).unwrap();
        assert_eq!(got, wrap(&want));
    }

    proptest! {
        #[test]
        fn damaged_skeletons_do_not_panic(at in any::<prop::sample::Index>(), bytes: [u8; 3], cut in any::<prop::sample::Index>()) {
            let mut file = skeleton();
            let k = at.index(file.len() - 3);
            file[k..k + 3].copy_from_slice(&bytes);
            let _ = Plan::new(&file).map(|p| p.len());
            let _ = Plan::new(&file[..cut.index(file.len())]).map(|p| p.len());
        }
    }
}
