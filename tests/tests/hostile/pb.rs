//! Protobuf by hand, so that it can be wrong in any way.

/// Fields one after another.
#[derive(Clone, Default)]
pub struct Pb(pub Vec<u8>);

impl Pb {
    pub fn new() -> Pb {
        Pb::default()
    }

    pub fn raw(mut self, bytes: &[u8]) -> Pb {
        self.0.extend(bytes);
        self
    }

    fn varint(mut self, mut v: u64) -> Pb {
        while v > 127 {
            self.0.push(v as u8 | 128);
            v >>= 7;
        }
        self.0.push(v as u8);
        self
    }

    pub fn int(self, field: u64, v: i64) -> Pb {
        self.varint(field << 3).varint(v as u64)
    }

    /// Bytes, text or a message, of the length that is said.
    pub fn long(self, field: u64, len: u64, bytes: &[u8]) -> Pb {
        self.varint(field << 3 | 2).varint(len).raw(bytes)
    }

    pub fn bytes(self, field: u64, bytes: &[u8]) -> Pb {
        self.long(field, bytes.len() as u64, bytes)
    }

    pub fn text(self, field: u64, text: &str) -> Pb {
        self.bytes(field, text.as_bytes())
    }

    pub fn message(self, field: u64, m: &Pb) -> Pb {
        self.bytes(field, &m.0)
    }
}
