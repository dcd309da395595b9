//! The table of tests that are not expected to pass, and whether it is right.
//!
//! A line is `PATH GROUP/NAME: WHY`, where PATH is `reference`, `compiled` or `both`; `#` starts a
//! comment. The table is wrong in either direction: a failure that is not in it, and a line whose
//! test passes or does not exist.

use super::workers::Work;
use super::{Engine, Outcome};
use std::collections::{BTreeMap, BTreeSet};

/// Failing tests by path and `group/name`, with the reason.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Table(BTreeMap<(Engine, String), String>);

impl Table {
    /// Reads a table; the error names the line.
    pub fn parse(text: &str) -> Result<Table, String> {
        let mut table = Table::default();
        for (n, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let bad = |what: &str| format!("line {}: {what}: {line}", n + 1);
            let (head, why) = line.split_once(": ").ok_or_else(|| bad("no ': WHY'"))?;
            let (path, id) = head.split_once(' ').ok_or_else(|| bad("no PATH"))?;
            let engines = match path {
                "both" => &Engine::ALL[..],
                "reference" => &[Engine::Reference],
                "compiled" => &[Engine::Compiled],
                _ => return Err(bad("PATH is reference, compiled or both")),
            };
            for &e in engines {
                let key = (e, id.trim().to_string());
                if table.0.insert(key, why.trim().to_string()).is_some() {
                    return Err(bad("listed twice"));
                }
            }
        }
        Ok(table)
    }

    /// The table that these outcomes make, as text. Reasons of `self` are kept; others are what was
    /// seen.
    pub fn bless(&self, work: &[Work], outcomes: &[Outcome]) -> String {
        let mut lines: BTreeMap<(String, String), Vec<Engine>> = BTreeMap::new();
        for (w, o) in work.iter().zip(outcomes).filter(|(_, o)| !o.passed()) {
            let seen = || format!("{}, {}", o.kind, o.why.replace('\n', " "));
            let why = self.0.get(&(w.engine, w.test.id())).cloned().unwrap_or_else(seen);
            lines.entry((w.test.id(), why)).or_default().push(w.engine);
        }
        let line = |((id, why), engines): (&(String, String), &Vec<Engine>)| match &engines[..] {
            [one] => format!("{one} {id}: {why}\n"),
            _ => format!("both {id}: {why}\n"),
        };
        lines.iter().map(line).collect()
    }

    /// The reason given for a failure.
    pub fn why(&self, w: &Work) -> Option<&str> {
        self.0.get(&(w.engine.expected(), w.test.id())).map(|s| s.as_str())
    }
}

/// How a table is wrong.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Wrong {
    /// Failures that are not in it: path and test.
    pub unexpected: Vec<(Engine, String)>,
    /// Lines whose test passes.
    pub passes: Vec<(Engine, String)>,
    /// Lines whose test does not exist.
    pub unknown: Vec<(Engine, String)>,
}

impl Wrong {
    /// Is the table right after all?
    pub fn nothing(&self) -> bool {
        self.unexpected.is_empty() && self.passes.is_empty() && self.unknown.is_empty()
    }
}

/// Holds a table to outcomes. `whole` says that every test of the suite was run, so that a line
/// without a test is one too many.
pub fn check(table: &Table, work: &[Work], outcomes: &[Outcome], whole: bool) -> Wrong {
    let mut wrong = Wrong::default();
    let mut known = BTreeSet::new();
    for (w, o) in work.iter().zip(outcomes) {
        let key = (w.engine.expected(), w.test.id());
        match (o.passed(), table.0.contains_key(&key)) {
            (true, true) => wrong.passes.push(key.clone()),
            (false, false) => wrong.unexpected.push(key.clone()),
            _ => {}
        }
        known.insert(key);
    }
    if whole {
        let unknown = table.0.keys().filter(|k| !known.contains(k));
        wrong.unknown.extend(unknown.cloned());
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::super::{Kind, Test};
    use super::*;

    fn work(name: &str) -> Work {
        let test = Test { group: "node".into(), name: name.into(), at: "".into() };
        Work { test, engine: Engine::Compiled }
    }

    #[test]
    fn a_table_is_wrong_in_either_direction() {
        let work = [work("good"), work("bad")];
        let outcomes = [Outcome::fail(Kind::Pass, ""), Outcome::fail(Kind::Run, "a reason")];
        let check = |text: &str, whole: bool| {
            check(&Table::parse(text).expect("a table"), &work, &outcomes, whole)
        };
        let id = |name: &str| vec![(Engine::Compiled, format!("node/{name}"))];
        assert!(check("# a comment\n\ncompiled node/bad: why", true).nothing());
        assert_eq!(check("", true).unexpected, id("bad"));
        let both = check("compiled node/bad: x\ncompiled node/good: x", true);
        assert_eq!((both.passes, both.unexpected), (id("good"), vec![]));
        let gone = "compiled node/bad: x\ncompiled node/gone: x";
        assert_eq!(check(gone, true).unknown, id("gone"));
        assert!(check(gone, false).nothing());
    }

    #[test]
    fn a_table_is_read_and_made() {
        for bad in ["both", "both x", "other node/x: y", "both n/x: y\ncompiled n/x: y"] {
            assert!(Table::parse(bad).is_err(), "{bad}");
        }
        let outcomes = [Outcome::fail(Kind::Run, "a\nreason"), Outcome::fail(Kind::Pass, "")];
        let text = Table::default().bless(&[work("a"), work("b")], &outcomes);
        assert_eq!(text, "compiled node/a: run, a reason\n");
        let known = Table::parse("compiled node/a: known").expect("a table");
        assert_eq!(known.bless(&[work("a")], &outcomes[..1]), "compiled node/a: known\n");
    }
}
