//! Which groups would need themselves: an order of execution of what is grouped so far, kept while
//! groups are made.
//!
//! Invariants: the positions of one group have one rank, different groups and lone positions have
//! different ones, and what a position reads has a lower rank or is in its own group. So a search
//! for a cycle never leaves the ranks that the new group spans.

use std::collections::{BTreeSet, HashSet};

/// The order.
pub struct Order {
    /// Positions that each position reads (in its regions too).
    reads: Vec<Vec<usize>>,
    rank: Vec<usize>,
    /// Positions of each rank; none where groups have taken them to another.
    of_rank: Vec<Vec<usize>>,
}

impl Order {
    /// Nothing is grouped; positions are in an order of execution.
    pub fn new(reads: Vec<Vec<usize>>) -> Order {
        let rank = (0..reads.len()).collect();
        let of_rank = (0..reads.len()).map(|i| vec![i]).collect();
        Order { reads, rank, of_rank }
    }

    /// Would the set, as one node, depend on itself?
    pub fn cyclic(&self, set: &BTreeSet<usize>) -> bool {
        self.needed(set).is_none()
    }

    /// Ranks within the set's span that the set needs; none if the set is among them.
    fn needed(&self, set: &BTreeSet<usize>) -> Option<HashSet<usize>> {
        let least = set.iter().map(|&i| self.rank[i]).min().unwrap_or(0);
        let mut ranks = HashSet::new();
        let mut todo: Vec<usize> = vec![];
        let outside = |i: &&usize| !set.contains(i) && self.rank[**i] > least;
        for &i in set {
            todo.extend(self.reads[i].iter().filter(outside));
        }
        while let Some(i) = todo.pop() {
            if !ranks.insert(self.rank[i]) {
                continue;
            }
            for &member in &self.of_rank[self.rank[i]] {
                if set.contains(&member) || self.reads[member].iter().any(|j| set.contains(j)) {
                    return None;
                }
                todo.extend(self.reads[member].iter().filter(outside));
            }
        }
        Some(ranks)
    }

    /// Makes a group of a set that is not cyclic.
    pub fn join(&mut self, set: &BTreeSet<usize>) {
        let Some(needed) = self.needed(set) else { return };
        let ranks = || set.iter().map(|&i| self.rank[i]);
        let (Some(least), Some(most)) = (ranks().min(), ranks().max()) else { return };
        let span = least..=most;
        let taken: Vec<(usize, Vec<usize>)> =
            span.map(|r| (r, std::mem::take(&mut self.of_rank[r]))).collect();
        let (mut before, mut after, mut joined) = (vec![], vec![], vec![]);
        for (r, positions) in taken {
            match positions.first() {
                None => {}
                Some(i) if set.contains(i) => joined.extend(positions),
                Some(_) if needed.contains(&r) => before.push(positions),
                Some(_) => after.push(positions),
            }
        }
        for (k, positions) in before.into_iter().chain([joined]).chain(after).enumerate() {
            positions.iter().for_each(|&i| self.rank[i] = least + k);
            self.of_rank[least + k] = positions;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A cycle by definition: groups as nodes, and everything that the set reaches backwards.
    fn by_definition(reads: &[Vec<usize>], group: &[usize], set: &BTreeSet<usize>) -> bool {
        let mut seen = vec![false; reads.len()];
        let mut todo: Vec<usize> = set.iter().flat_map(|&i| reads[i].clone()).collect();
        todo.retain(|i| !set.contains(i));
        while let Some(i) = todo.pop() {
            for j in (0..reads.len()).filter(|&j| group[j] == group[i]) {
                if set.contains(&j) {
                    return true;
                }
                if !std::mem::replace(&mut seen[j], true) {
                    todo.extend(reads[j].iter().filter(|k| group[**k] != group[i]));
                }
            }
        }
        false
    }

    proptest! {
        #[test]
        fn cycles_are_those_of_the_definition(
            edges in proptest::collection::vec(proptest::collection::btree_set(0usize..14, 0..3), 14),
            sets in proptest::collection::vec(proptest::collection::btree_set(0usize..14, 2..5), 1..8),
        ) {
            let earlier = |(i, e): (usize, &BTreeSet<usize>)| e.iter().copied().filter(|j| *j < i).collect();
            let reads: Vec<Vec<usize>> = edges.iter().enumerate().map(earlier).collect();
            let mut group: Vec<usize> = (0..14).collect();
            let mut order = Order::new(reads.clone());
            for set in sets {
                // Only what is in no group yet is grouped.
                let alone = |i: &usize| group.iter().filter(|g| **g == group[*i]).count() == 1;
                let set: BTreeSet<usize> = set.into_iter().filter(alone).collect();
                let cyclic = by_definition(&reads, &group, &set);
                prop_assert_eq!(order.cyclic(&set), cyclic, "{:?} in {:?}", set, group);
                if !cyclic && !set.is_empty() {
                    order.join(&set);
                    let first = *set.first().unwrap();
                    set.iter().for_each(|&i| group[i] = first);
                }
            }
        }
    }
}
