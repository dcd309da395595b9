//! Compares single operators with Paddle's recorded answers, and lists what is not mapped.
//!
//!     cargo run -p hub-frontend --example paddle_ops -- [PART OF A FAMILY OR CASE]...

#[path = "../tests/goldens/mod.rs"]
mod goldens;

use goldens::Form;

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let (mut count, mut wrong) = (0, 0);
    for (family, cases) in goldens::all() {
        for golden in cases {
            let matches = |w: &String| family == *w || golden.case.starts_with(w.as_str());
            if !wanted.is_empty() && !wanted.iter().any(matches) {
                continue;
            }
            for form in [Form::Legacy, Form::Pir] {
                if golden.has(form) {
                    count += 1;
                    if let Err(e) = golden.check(form) {
                        wrong += 1;
                        println!("{family} {} {form:?}: {e}", golden.case);
                    }
                }
            }
        }
    }
    println!("{count} models, {wrong} not as they should be");
    let (legacy, pir) = hub_frontend::paddle_operators();
    for (list, known) in [("legacy", legacy), ("pir", pir)] {
        let names = goldens::folder().join(format!("names_{list}.txt"));
        let names = std::fs::read_to_string(names).unwrap_or_default();
        let missing: Vec<&str> = names.lines().filter(|n| !known.contains(n)).collect();
        println!("{list}: {} names mapped; of the listed ones not: {missing:?}", known.len());
    }
}
