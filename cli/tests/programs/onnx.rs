//! Tiny ONNX files written field by field, by ONNX's field numbers.

/// A chain of one-input operators on an f32 tensor.
pub struct Onnx {
    nodes: Vec<Vec<u8>>,
    input: Vec<u8>,
    output: Vec<u8>,
}

fn varint(mut n: u64, out: &mut Vec<u8>) {
    while n > 127 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// A field of bytes.
fn field(number: u64, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![];
    varint(number << 3 | 2, &mut out);
    varint(bytes.len() as u64, &mut out);
    out.extend_from_slice(bytes);
    out
}

/// A field with a number.
fn number(number: u64, value: u64) -> Vec<u8> {
    let mut out = vec![];
    varint(number << 3, &mut out);
    varint(value, &mut out);
    out
}

/// ValueInfoProto { name: 1, type: 2 { tensor_type: 1 { elem_type: 1, shape: 2 { dim: 1 {
/// dim_value: 1 } } } } }, of f32.
fn value_info(name: &str, dims: &[u64]) -> Vec<u8> {
    let dims: Vec<u8> = dims.iter().flat_map(|&d| field(1, &number(1, d))).collect();
    let tensor = [number(1, 1), field(2, &dims)].concat();
    [field(1, name.as_bytes()), field(2, &field(1, &tensor))].concat()
}

impl Onnx {
    /// A graph from `input` to `output`, both of these dims.
    pub fn new(input: &str, output: &str, dims: &[u64]) -> Onnx {
        let (input, output) = (value_info(input, dims), value_info(output, dims));
        Onnx { nodes: vec![], input, output }
    }

    /// Adds NodeProto { input: 1, output: 2, name: 3, op_type: 4, domain: 7 }.
    pub fn node(&mut self, op: &str, domain: &str, from: &str, to: &str) -> &mut Onnx {
        let name = format!("{op}_{to}");
        let fields = [(1, from), (2, to), (3, &name[..]), (4, op), (7, domain)];
        let node = fields.iter().filter(|f| !f.1.is_empty()).map(|f| field(f.0, f.1.as_bytes()));
        self.nodes.push(node.collect::<Vec<_>>().concat());
        self
    }

    /// ModelProto { ir_version: 1, graph: 7 { node: 1, name: 2, input: 11, output: 12 },
    /// opset_import: 8 { domain: 1, version: 2 } }.
    pub fn bytes(&self) -> Vec<u8> {
        let mut graph: Vec<u8> = self.nodes.iter().flat_map(|n| field(1, n)).collect();
        graph.extend(field(2, b"tiny"));
        graph.extend(field(11, &self.input));
        graph.extend(field(12, &self.output));
        let own = number(2, 17);
        let other = [field(1, b"com.example"), number(2, 1)].concat();
        [number(1, 8), field(7, &graph), field(8, &own), field(8, &other)].concat()
    }
}
