//! What a run has to say, for people and for machines.

use super::expected::{Table, Wrong};
use super::workers::Work;
use super::{Engine, Kind, Outcome};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Version of the JSON form; raised when a field changes its meaning or goes away.
pub const SCHEMA: u32 = 1;

/// A finished run.
pub struct Run<'a> {
    /// The suite's folder.
    pub suite: String,
    /// The tier of compiled models.
    pub tier: String,
    /// What was run.
    pub work: &'a [Work],
    /// How it went, in the order of `work`.
    pub outcomes: &'a [Outcome],
    /// What was expected to fail.
    pub table: &'a Table,
    /// How that list is wrong.
    pub wrong: &'a Wrong,
    /// Seconds taken.
    pub seconds: f64,
}

#[derive(Clone, Copy, Default)]
struct Count {
    passed: usize,
    by_distribution: usize,
    total: usize,
}

impl Count {
    fn add(&mut self, o: &Outcome) {
        self.total += 1;
        self.passed += usize::from(o.passed());
        self.by_distribution += usize::from(o.kind == Kind::PassByDistribution);
    }
}

impl Run<'_> {
    fn all(&self) -> impl Iterator<Item = (&Work, &Outcome)> {
        self.work.iter().zip(self.outcomes)
    }

    /// Counts by path and group.
    fn counts(&self) -> BTreeMap<Engine, BTreeMap<&str, Count>> {
        let mut counts: BTreeMap<Engine, BTreeMap<&str, Count>> = BTreeMap::new();
        for (w, o) in self.all() {
            counts.entry(w.engine).or_default().entry(&w.test.group).or_default().add(o);
        }
        counts
    }

    /// Failures in order, then counts, then what is wrong with the table.
    pub fn text(&self) -> String {
        let mut t = String::new();
        // Writing to a string does not fail.
        let _never = self.write(&mut t);
        t
    }

    fn write(&self, t: &mut String) -> std::fmt::Result {
        for (w, o) in self.all().filter(|(_, o)| !o.passed()) {
            let why: String = o.why.replace('\n', " ").chars().take(300).collect();
            writeln!(t, "{:9} {:11} {}: {why}", w.engine, o.kind, w.test.id())?;
            match self.table.why(w) {
                Some(known) => writeln!(t, "          expected: {known}")?,
                None => writeln!(t, "          not expected")?,
            }
        }
        for (w, o) in self.all().filter(|(_, o)| o.kind == Kind::PassByDistribution) {
            let id = w.test.id();
            writeln!(t, "{:9} judged by dtype, shape and distribution: {id}, {}", w.engine, o.why)?;
        }
        for (engine, groups) in self.counts() {
            let mut sum = (0, 0);
            write!(t, "{engine:9}")?;
            for (group, c) in groups {
                write!(t, "  {group} {}/{}", c.passed, c.total)?;
                // The graphs with generated weights are counted apart, as the suite does.
                if group != "light" {
                    sum = (sum.0 + c.passed, sum.1 + c.total);
                }
            }
            match sum {
                (_, 0) => writeln!(t)?,
                (passed, total) => writeln!(t, "  = {passed} of {total} without light")?,
            }
        }
        let compiled = self.outcomes.iter().filter_map(|o| o.steps);
        let (native, whole) = compiled.fold((0, 0), |(n, w), (kernels, host)| {
            (n + usize::from(kernels > 0), w + usize::from(host == 0))
        });
        writeln!(
            t,
            "compiled for {}: {native} bundles call kernels, {whole} need no portable step; {:.1} s",
            self.tier, self.seconds
        )?;
        for (list, what) in [
            (&self.wrong.unexpected, "fails, but is not in the table"),
            (&self.wrong.passes, "passes, but is in the table"),
            (&self.wrong.unknown, "is in the table, but not in the suite"),
        ] {
            list.iter().try_for_each(|(e, id)| writeln!(t, "wrong: {e} {id} {what}"))?;
        }
        let verdict = if self.wrong.nothing() { "right" } else { "WRONG" };
        writeln!(t, "the table of expected failures is {verdict}")
    }

    /// The same for machines: `schema` is [`SCHEMA`].
    pub fn json(&self) -> Value {
        let counts: BTreeMap<String, BTreeMap<&str, Value>> = self
            .counts()
            .into_iter()
            .map(|(engine, groups)| {
                let groups = groups.into_iter().map(|(g, c)| {
                    let by = c.by_distribution;
                    (g, json!({"passed": c.passed, "total": c.total, "by_distribution": by}))
                });
                (engine.to_string(), groups.collect())
            })
            .collect();
        let ids = |list: &[(Engine, String)]| -> Vec<Value> {
            list.iter().map(|(e, id)| json!({"path": e, "test": id})).collect()
        };
        let tests = self.all().map(|(w, o)| {
            let mut v = json!({"path": w.engine, "test": w.test.id(), "outcome": o.kind});
            if !o.why.is_empty() {
                v["why"] = json!(o.why);
            }
            if let Some((kernels, host)) = o.steps {
                v["kernels"] = json!(kernels);
                v["portable_steps"] = json!(host);
            }
            if let Some(known) = self.table.why(w) {
                v["expected"] = json!(known);
            }
            v
        });
        json!({
            "schema": SCHEMA,
            "suite": self.suite,
            "tier": self.tier,
            "seconds": self.seconds,
            "counts": counts,
            "tests": tests.collect::<Vec<_>>(),
            "table": {
                "right": self.wrong.nothing(),
                "unexpected": ids(&self.wrong.unexpected),
                "passes": ids(&self.wrong.passes),
                "unknown": ids(&self.wrong.unknown),
            },
        })
    }
}
