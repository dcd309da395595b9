//! ONNX files that are no protobuf, or far too much of it.

use super::harness::refused;
use super::onnx_graphs::{model, relu, sound};
use super::pb::Pb;
use prost::Message;

#[test]
fn cut_files() {
    let whole = sound();
    for end in [1, 2, 7, whole.len() / 3, whole.len() / 2, whole.len() - 1] {
        refused(&format!("cut at {end}"), "m.onnx", &whole[..end], 4, &[]);
    }
    refused("empty", "m.onnx", [], 4, &["neither"]);
    refused("text", "m.onnx", "hello, I am a model", 4, &[]);
}

/// The place is the byte where it goes wrong.
#[test]
fn damaged_protobuf_names_the_byte() {
    let head = Pb::new().int(1, 8);
    let cases = [
        ("a varint without end", head.clone().raw(&[0x30]).raw(&[0xFF; 40]), "at byte 3"),
        ("a length past the end", head.clone().long(7, 1 << 40, b"x"), "at byte 9"),
        ("a length of 2^63", head.clone().long(7, 1 << 63, b"x"), "at byte"),
        ("field 0", head.clone().raw(&[0, 0]), "at byte 2"),
        ("wire type 7", head.clone().raw(&[0x3F, 0]), "at byte 2"),
        ("a group without end", head.clone().raw(&[0x3B, 8, 1]), "at byte 2"),
        ("a name that is not UTF-8", head.clone().bytes(2, &[b'x', 0xFF]), "at byte 5"),
        ("a graph that is a number", head.clone().int(7, 1), "at byte 2"),
        (
            "a node cut within the graph",
            head.message(7, &Pb::new().long(1, 99, &[10, 1, b'x'])),
            "at byte 6",
        ),
    ];
    for (what, bytes, place) in cases {
        refused(what, "m.onnx", &bytes.0, 4, &[place]);
    }
}

#[test]
fn bombs_of_messages() {
    // Graph in attribute in node in graph…, each a few bytes.
    let mut deep = Pb::new();
    for _ in 0..20_000 {
        deep = Pb::new().message(1, &Pb::new().message(5, &Pb::new().message(6, &deep)));
        if deep.0.len() > 1 << 17 {
            break;
        }
    }
    let bytes = Pb::new().int(1, 8).message(7, &deep).0;
    refused("deep nesting", "m.onnx", bytes, 9, &["nest", "at byte"]);
    let attributes = Pb::new().raw(&[0x2A, 0].repeat(4 << 20));
    let graph = Pb::new().message(1, &attributes);
    let bytes = Pb::new().int(1, 8).message(7, &graph).0;
    refused("millions of empty messages", "m.onnx", bytes, 9, &["decoded", "at byte"]);
    let nodes = Pb::new().raw(&[0x0A, 0].repeat(1 << 20));
    let bytes = Pb::new().int(1, 8).message(7, &nodes).message(8, &Pb::new().int(2, 17)).0;
    refused("a million nodes without operator", "m.onnx", bytes, 3, &["unsupported"]);
}

#[test]
fn models_without_parts() {
    type Spoil = fn(&mut hub_frontend::onnx::proto::ModelProto);
    let parts: [(&str, Spoil); 3] = [
        ("no graph", |m| m.graph = None),
        ("no version of operators", |m| m.opset_import.clear()),
        ("an input without a type", |m| {
            m.graph.as_mut().expect("a graph").input[0].r#type = None;
        }),
    ];
    for (what, spoil) in parts {
        let mut m = model(vec![relu("x", "y")], vec![]);
        spoil(&mut m);
        refused(what, "m.onnx", m.encode_to_vec(), 4, &[]);
    }
}
