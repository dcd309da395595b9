//! Files where they should not be, and files that are something else.

use super::harness::{Folder, ran, refused};
use super::onnx_graphs::model;
use super::protos::*;
use hub_frontend::onnx::proto::*;
use prost::Message;

fn external(entries: &[(&str, &str)]) -> Vec<u8> {
    let entry =
        |(k, v): &(&str, &str)| StringStringEntryProto { key: k.to_string(), value: v.to_string() };
    let w = TensorProto {
        raw_data: None,
        data_location: 1,
        external_data: entries.iter().map(entry).collect(),
        ..floats("w", &[1], &[])
    };
    model(vec![node("Add", &["x", "w"], &["y"])], vec![w]).encode_to_vec()
}

#[test]
fn external_data() {
    let f = Folder::new();
    f.put("secret", 1f32.to_le_bytes());
    f.put("in/data", [0; 8]);
    let inside = f.0.path().join("in");
    let link = |to: &str, name: &str| {
        std::os::unix::fs::symlink(to, inside.join(name)).expect("a link");
    };
    link("../secret", "final");
    link("..", "parent");
    link("/etc/hostname", "absolute");
    link("loop", "loop");
    std::fs::hard_link(f.0.path().join("secret"), inside.join("hard")).expect("a link");
    let secret = f.0.path().join("secret").display().to_string();
    // With a folder in front, and with none: the folder is then where the program runs.
    let attempt = |entries: &[(&str, &str)]| {
        f.put("in/m.onnx", external(entries));
        let a = f.export("in/m.onnx");
        let b = ran(&inside, "hub", &["export", "m.onnx", "-o", "../n.hub", "--cpu", "avx2"]);
        assert_eq!(a.code, b.code, "{entries:?}: {a:?} {b:?}");
        a
    };
    for good in ["data", "./data"] {
        attempt(&[("location", good), ("offset", "4"), ("checksum", "?"), ("x", "y")])
            .succeeds(good);
    }
    let places = [
        "../secret",
        "../in/../secret",
        &secret,
        "final",
        "parent/secret",
        "absolute",
        "hard",
        "",
        ".",
    ];
    for location in places {
        attempt(&[("location", location)]).refuses(location, 4, &["'w'"]);
    }
    for location in ["missing", "loop"] {
        attempt(&[("location", location)]).refuses(location, 8, &[location]);
    }
    let sizes = [
        ("offset", "-4"),
        ("offset", "8"),
        ("offset", "18446744073709551612"),
        ("offset", "99999999999999999999"),
        ("length", "1125899906842624"),
        ("length", "-1"),
        ("length", "0x10"),
    ];
    for (key, v) in sizes {
        attempt(&[("location", "data"), (key, v)]).refuses(v, 4, &["'w'"]);
    }
    attempt(&[]).refuses("no location", 4, &["'w'"]);
}

/// The same where the tensor is an attribute, and within a branch's body.
#[test]
fn external_data_of_attributes() {
    let outside = |location: &str| {
        let entry = StringStringEntryProto { key: "location".into(), value: location.into() };
        let t = TensorProto {
            raw_data: None,
            data_location: 1,
            external_data: vec![entry],
            ..floats("w", &[1], &[])
        };
        AttributeProto {
            name: "value".into(),
            r#type: attr::TENSOR,
            t: Some(t),
            ..Default::default()
        }
    };
    let f = Folder::new();
    f.put("secret", 1f32.to_le_bytes());
    for location in ["../secret", "/etc/hostname", ""] {
        let nodes = |y: &str| {
            let w = with(node("Constant", &[], &["w"]), outside(location));
            vec![w, node("Add", &["x", "w"], &[y])]
        };
        f.put("in/m.onnx", model(nodes("y"), vec![]).encode_to_vec());
        f.export("in/m.onnx").refuses(location, 4, &["m.onnx"]);
        let branch = |name: &str, z: &str| {
            let output = vec![value(z, &[2, 3, 8, 8])];
            body(name, GraphProto { node: nodes(z), output, ..Default::default() })
        };
        let choose = with(node("If", &["c"], &["y"]), branch("then_branch", "t"));
        let choose = with(choose, branch("else_branch", "e"));
        let all = vec![
            node("ReduceMax", &["x"], &["m"]),
            with(node("Cast", &["m"], &["b"]), int("to", 9)),
            node("Reshape", &["b", "s"], &["c"]),
            choose,
        ];
        let scalar = TensorProto { dims: vec![0], ..shape("s", &[]) };
        f.put("in/m.onnx", model(all, vec![scalar]).encode_to_vec());
        f.export("in/m.onnx").refuses(location, 4, &["m.onnx"]);
    }
}

/// A pickle that would write a file if anything executed it.
#[test]
fn pickles_are_not_executed() {
    let pickle = b"\x80\x02cos\nsystem\nq\x00X\x0c\x00\x00\x00touch pwned!q\x01\x85q\x02Rq\x03.";
    for name in ["m.pdparams", "m.info", "m.onnx", "m.pdmodel", "__model__"] {
        refused("a pickle", name, pickle, 4, &["neither"]);
    }
    let f = Folder::of("m.pdmodel", super::paddle::fc().0);
    for name in ["m.pdiparams", "m.pdiparams.info"] {
        f.put(name, pickle);
    }
    f.export("m.pdmodel").refuses("pickled parameters", 4, &["m.pdiparams", "at byte"]);
    assert!(!f.0.path().join("pwned!").exists());
}

/// A pipe is not opened where a file is expected: nobody may ever write to it.
#[test]
fn pipes() {
    let f = Folder::new();
    let pipe = |name: &str| {
        f.put(&format!("{name}.beside"), []);
        let made = std::process::Command::new("mkfifo").arg(f.0.path().join(name)).status();
        assert!(made.expect("mkfifo starts").success());
    };
    pipe("p");
    f.export("p").refuses("a model", 4, &["p"]);
    pipe("in/m.json");
    pipe("in/m.onnx");
    f.export("in").refuses("a folder of pipes", 4, &["no model"]);
    pipe("external/data");
    f.put("external/m.onnx", external(&[("location", "data")]));
    f.export("external/m.onnx").refuses("external data", 4, &["'w'"]);
    f.put("paddle/m.pdmodel", super::paddle::fc().0);
    pipe("paddle/m.pdiparams");
    f.export("paddle/m.pdmodel").refuses("parameters", 4, &["m.pdiparams"]);
    f.put("sound.onnx", super::onnx_graphs::sound());
    f.export("sound.onnx").succeeds("a sound model");
    let refused = |args: &[&str], codes: &[i32]| {
        let r = ran(f.0.path(), "hubc", args);
        assert!(codes.contains(&r.code), "{args:?}: {r:?}");
        let which = if args.contains(&"/dev/zero") { "/dev/zero" } else { "p" };
        r.refuses("a pipe", r.code, &[which]);
    };
    refused(&["run", "p", "--inputs", "p"], &[4, 8]);
    refused(&["bench", "p"], &[4, 8]);
    refused(&["inspect", "p"], &[4, 8]);
    refused(&["convert", "p", "-o", "q"], &[4, 8]);
    refused(&["run", "m.hub", "--inputs", "p"], &[4]);
    refused(&["run", "m.hub", "--inputs", "/dev/zero"], &[4]);
    refused(&["compare", "m.hub", "--golden", "p"], &[4]);
}

#[test]
fn what_is_no_file() {
    let f = Folder::new();
    f.export("missing.onnx").refuses("nothing", 8, &["missing.onnx"]);
    f.export(".").refuses("an empty folder", 4, &["no model"]);
    f.put("a.onnx", []);
    f.put("b.onnx", []);
    f.export(".").refuses("two models", 2, &["several"]);
    f.export("/dev/zero").refuses("a device", 4, &["/dev/zero"]);
    f.put("huge.onnx", super::onnx_graphs::sound());
    let huge = f.0.path().join("huge.onnx");
    let file = std::fs::OpenOptions::new().write(true).open(huge).expect("a file");
    // Sparse: takes no space.
    if file.set_len(1 << 40).is_ok() {
        f.export("huge.onnx").refuses("a terabyte", 9, &["huge.onnx"]);
    }
}
