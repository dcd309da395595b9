//! Branches whose condition is known.

mod common;

use common::outputs;
use hub_ir::text::{parse, print};
use hub_passes::Options;
use hub_portable::{Tensor, Value};

/// What an optimised graph gives for `x` = 1, 2, 3, 4, which is what it gave before; and its text.
fn both(text: &str) -> (Vec<f32>, String) {
    let before = parse(text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    let x = [Value::from(Tensor::new(&[4], vec![1f32, 2.0, 3.0, 4.0]).unwrap())];
    let numbers = |g| -> Vec<f32> {
        let out = outputs(g, &x).unwrap_or_else(|e| panic!("{e}\n{}", print(g))).remove(0);
        out.tensor().unwrap().view::<f32>().unwrap().into_owned()
    };
    let want = numbers(&before);
    let mut g = before.clone();
    let options = Options { check_ir: true, ..Options::default() };
    hub_passes::optimize(&mut g, &options).unwrap_or_else(|e| panic!("{e}\n{}", print(&g)));
    assert_eq!(numbers(&g), want, "{}", print(&g));
    (want, print(&g))
}

/// Where the branches differ in size, what stands after them is of a size that only the node bound.
#[test]
fn of_different_sizes() {
    for (c, want) in [("true", vec![2.0, 3.0]), ("false", vec![2.0, 3.0, 4.0, 5.0])] {
        let (got, text) = both(&format!(
            "sym S 0..9
graph(%0: f32[4] \"x\") {{
  %1: bool[] = const {c}
  %2: f32[S] = if(%1) \"branch\" do {{
    %3: f32[2] = slice(%0) {{len: [2], start: [0], step: [1]}}
    return %3
  }} do {{
    return %0
  }}
  %4: f32[] = const 1
  %5: f32[S] = broadcast(%4) {{shape: [S]}}
  %6: f32[S] = add(%2, %5)
  return %6 \"y\"
}}"
        ));
        assert_eq!(got, want);
        assert!(!text.contains("if("), "{text}");
    }
}
