//! The table of operators: (domain, name, first version) to the function that imports it.

use super::cx::{Cx, Got};
use super::import::domain;
use super::ops;
use hub_ir::Value;
use std::collections::HashMap;
use std::sync::OnceLock;

/// Imports one node: its outputs, in order ([`Value::NONE`] for one that is left out).
pub(crate) type ImportFn = for<'c, 'g, 'm> fn(&mut Cx<'c, 'g, 'm>) -> Got<Vec<Value>>;

/// One operator from one version on.
pub(crate) struct Row {
    domain: &'static str,
    name: &'static str,
    since: i64,
    import: ImportFn,
}

/// An operator of ONNX's own domain, from version `since` on (until a later row of that name).
pub(crate) const fn op(name: &'static str, since: i64, import: ImportFn) -> Row {
    Row { domain: "", name, since, import }
}

/// An operator of another domain.
pub(crate) const fn op_of(domain: &'static str, name: &'static str, import: ImportFn) -> Row {
    Row { domain, name, since: 1, import }
}

type Index = HashMap<(&'static str, &'static str), Vec<&'static Row>>;

/// The import of an operator at a version of its domain.
pub(crate) fn find(d: &str, name: &str, version: i64) -> Option<ImportFn> {
    static INDEX: OnceLock<Index> = OnceLock::new();
    let index = INDEX.get_or_init(|| {
        let mut index = Index::new();
        for row in ops::TABLES.iter().copied().flatten() {
            index.entry((row.domain, row.name)).or_default().push(row);
        }
        index
    });
    // The keys are 'static; a lookup needs only equal strings.
    let rows = index.get(&(domain(d), name) as &(&str, &str))?;
    let fits = rows.iter().filter(|r| r.since <= version);
    fits.max_by_key(|r| r.since).map(|r| r.import)
}

/// Is there an import of this operator at this version of its domain?
pub fn has(domain: &str, name: &str, version: i64) -> bool {
    find(domain, name, version).is_some()
}

/// Names of all operators with an import, sorted; those of other domains with their domain.
pub fn names() -> Vec<String> {
    let rows = ops::TABLES.iter().copied().flatten();
    let mut names: Vec<String> =
        rows.map(|r| {
            if r.domain.is_empty() { r.name.into() } else { format!("{}.{}", r.domain, r.name) }
        })
        .collect();
    names.sort();
    names.dedup();
    names
}
