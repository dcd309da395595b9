//! Short names for ONNX's messages.
#![allow(dead_code)]

use hub_frontend::onnx::proto::*;

/// A node.
pub fn node(op: &str, ins: &[&str], outs: &[&str]) -> NodeProto {
    let text = |v: &[&str]| v.iter().map(|s| s.to_string()).collect();
    NodeProto { op_type: op.into(), input: text(ins), output: text(outs), ..Default::default() }
}

/// The node with one attribute more.
pub fn with(mut n: NodeProto, a: AttributeProto) -> NodeProto {
    n.attribute.push(a);
    n
}

/// A list attribute.
pub fn ints(name: &str, v: &[i64]) -> AttributeProto {
    AttributeProto { name: name.into(), r#type: attr::INTS, ints: v.to_vec(), ..Default::default() }
}

/// A number attribute.
pub fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto { name: name.into(), r#type: attr::INT, i: Some(i), ..Default::default() }
}

/// A graph attribute.
pub fn body(name: &str, g: GraphProto) -> AttributeProto {
    AttributeProto { name: name.into(), r#type: attr::GRAPH, g: Some(g), ..Default::default() }
}

/// A float value of these sizes; -1 is an unknown one.
pub fn value(name: &str, dims: &[i64]) -> ValueInfoProto {
    let dim =
        dims.iter().map(|&d| DimensionProto { dim_value: Some(d), dim_param: None }).collect();
    let shape = Some(TensorShapeProto { dim });
    let tensor_type = Some(TensorTypeProto { elem_type: 1, shape });
    ValueInfoProto {
        name: name.into(),
        r#type: Some(TypeProto { tensor_type, ..Default::default() }),
    }
}

/// An int64 vector.
pub fn shape(name: &str, v: &[i64]) -> TensorProto {
    TensorProto {
        name: name.into(),
        dims: vec![v.len() as i64],
        data_type: 7,
        int64_data: v.to_vec(),
        ..Default::default()
    }
}

/// A float tensor.
pub fn floats(name: &str, dims: &[i64], raw: &[f32]) -> TensorProto {
    let raw: Vec<u8> = raw.iter().flat_map(|x| x.to_le_bytes()).collect();
    TensorProto {
        name: name.into(),
        dims: dims.to_vec(),
        data_type: 1,
        raw_data: Some(raw.into()),
        ..Default::default()
    }
}

/// A string attribute.
pub fn string(name: &str, s: &str) -> AttributeProto {
    let s = s.as_bytes().to_vec().into();
    AttributeProto { name: name.into(), r#type: attr::STRING, s: Some(s), ..Default::default() }
}

/// A float attribute.
pub fn float(name: &str, f: f32) -> AttributeProto {
    AttributeProto { name: name.into(), r#type: attr::FLOAT, f: Some(f), ..Default::default() }
}
