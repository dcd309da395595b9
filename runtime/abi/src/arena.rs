//! The arena planner: offsets for buffers with lifetimes, and an independent checker. The compiler
//! uses it for static shapes, the runtime at every new binding of symbols. What a plan does in the
//! memory that it was given is followed in [`crate::trace`].

use crate::plan::{Buf, Plan};

/// A buffer to place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Size in bytes.
    pub bytes: u64,
    /// First step (inclusive) at which it is live.
    pub first: u32,
    /// Last step (inclusive).
    pub last: u32,
}

/// Buffers start at multiples of this many bytes.
pub const ALIGN: u64 = 64;

/// A placement.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Placement {
    /// Byte offset of each block.
    pub offsets: Vec<u64>,
    /// Bytes in all.
    pub total: u64,
}

/// The blocks that a plan's arena buffers need: one each, or one for several that take over each
/// other's room.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Rooms {
    /// The blocks.
    pub blocks: Vec<Block>,
    /// The block of each buffer; `None` for what lies elsewhere.
    pub of: Vec<Option<usize>>,
}

/// Blocks for the arena buffers that have a size in `lens` (one entry a buffer of the plan). A
/// buffer joins the room of the one it was made over if that one is numbered lower and has a size.
pub fn rooms(plan: &Plan, lens: &[Option<u64>]) -> Rooms {
    let mut r = Rooms { blocks: vec![], of: vec![None; lens.len()] };
    for (i, (b, len)) in plan.bufs.iter().zip(lens).enumerate() {
        let (Buf::Arena { first, last, over, .. }, Some(bytes)) = (b, *len) else { continue };
        let (first, last) = (*first, *last);
        let room = over.and_then(|o| r.of[..i].get(o as usize).copied().flatten());
        let room = room.unwrap_or_else(|| {
            r.blocks.push(Block { bytes, first, last });
            r.blocks.len() - 1
        });
        let block = &mut r.blocks[room];
        block.bytes = block.bytes.max(bytes);
        (block.first, block.last) = (block.first.min(first), block.last.max(last));
        r.of[i] = Some(room);
    }
    r
}

/// Places blocks, each at the lowest gap among blocks that live at the same time: greatest first, or
/// where that leaves gaps of 3 %, in whichever of a few orders needs least. `None` if the sizes
/// overflow.
pub fn place(blocks: &[Block]) -> Option<Placement> {
    let mut order: Vec<usize> = (0..blocks.len()).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(blocks[i].bytes), i));
    let mut best = place_in(blocks, &order)?;
    let least = lower_bound(blocks);
    if blocks.len() > MOST_TRIED || best.total - least.min(best.total) <= least / 32 {
        return Some(best);
    }
    let long = |b: &Block| u64::from(b.last - b.first) + 1;
    let area = |i: usize| std::cmp::Reverse(blocks[i].bytes.saturating_mul(long(&blocks[i])));
    let mut by_area = order.clone();
    by_area.sort_by_key(|&i| area(i));
    let mut by_life = order.clone();
    by_life.sort_by_key(|&i| std::cmp::Reverse(long(&blocks[i])));
    for order in [by_breadth(blocks, &order), by_area, by_life] {
        let other = place_in(blocks, &order)?;
        if other.total < best.total {
            best = other;
        }
    }
    Some(best)
}

/// More blocks are placed in one order only.
const MOST_TRIED: usize = 1024;

/// Steps at which most is live first: all of their blocks before those of others, in the given order.
fn by_breadth(blocks: &[Block], order: &[usize]) -> Vec<usize> {
    let live = |step: u32| blocks.iter().filter(move |b| b.first <= step && step <= b.last);
    let sum = |step: u32| live(step).fold(0u64, |n, b| n.saturating_add(b.bytes));
    // No more is live between two blocks' beginnings than at the first.
    let mut steps: Vec<(u64, u32)> = blocks.iter().map(|b| (sum(b.first), b.first)).collect();
    steps.sort_unstable_by(|a, b| b.cmp(a));
    steps.dedup();
    let mut left = order.to_vec();
    let mut out = Vec::with_capacity(order.len());
    for (_, step) in steps {
        let there = |i: &usize| blocks[*i].first <= step && step <= blocks[*i].last;
        out.extend(left.iter().copied().filter(there));
        left.retain(|i| !there(i));
    }
    out
}

/// Places blocks in that order.
fn place_in(blocks: &[Block], order: &[usize]) -> Option<Placement> {
    let mut offsets = vec![0; blocks.len()];
    let mut placed: Vec<usize> = Vec::with_capacity(blocks.len());
    let mut busy: Vec<(u64, u64)> = Vec::with_capacity(blocks.len());
    let mut total = 0;
    for &i in order {
        let b = blocks[i];
        let together = |j: &&usize| blocks[**j].first <= b.last && b.first <= blocks[**j].last;
        busy.clear();
        busy.extend(
            placed.iter().filter(together).map(|&j| (offsets[j], offsets[j] + blocks[j].bytes)),
        );
        busy.sort_unstable();
        let mut at = 0u64;
        for &(lo, hi) in &busy {
            if lo >= at.checked_add(b.bytes)? {
                break;
            }
            at = at.max(hi.checked_next_multiple_of(ALIGN)?);
        }
        offsets[i] = at;
        total = total.max(at.checked_add(b.bytes)?);
        placed.push(i);
    }
    Some(Placement { offsets, total })
}

/// Greatest sum of sizes live at one step: no placement can be smaller.
pub fn lower_bound(blocks: &[Block]) -> u64 {
    let mut by_start: Vec<&Block> = blocks.iter().collect();
    let mut by_end = by_start.clone();
    by_start.sort_unstable_by_key(|b| b.first);
    by_end.sort_unstable_by_key(|b| b.last);
    let mut gone = by_end.into_iter().peekable();
    let (mut live, mut most) = (0u128, 0u128);
    for b in by_start {
        while let Some(past) = gone.next_if(|g| g.last < b.first) {
            live -= u128::from(past.bytes);
        }
        live += u128::from(b.bytes);
        most = most.max(live);
    }
    u64::try_from(most).unwrap_or(u64::MAX)
}

/// Checks a placement from its definition: aligned, inside, and no two live blocks overlap.
pub fn check(blocks: &[Block], p: &Placement) -> Result<(), String> {
    for (i, a) in blocks.iter().enumerate() {
        let end = p.offsets[i].checked_add(a.bytes).ok_or("a block wraps")?;
        if !p.offsets[i].is_multiple_of(ALIGN) || end > p.total {
            return Err(format!("block {i} is misaligned or past the end"));
        }
        for (j, b) in blocks.iter().enumerate().take(i) {
            let together = a.first <= b.last && b.first <= a.last;
            let apart = end <= p.offsets[j] || p.offsets[j] + b.bytes <= p.offsets[i];
            if together && !apart {
                return Err(format!("blocks {j} and {i} overlap while both live"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_needs_two_buffers() {
        let blocks: Vec<Block> =
            (0..10).map(|i| Block { bytes: 1000, first: i, last: i + 1 }).collect();
        let p = place(&blocks).unwrap();
        check(&blocks, &p).unwrap();
        assert_eq!(p.total, 2024);
        assert_eq!(lower_bound(&blocks), 2000);
    }

    proptest::proptest! {
        #[test]
        fn placements_are_sound_and_every_block_is_in_every_order(
            sizes in proptest::collection::vec((0u64..5000, 0u32..40, 0u32..8), 0..60),
        ) {
            let blocks: Vec<Block> = sizes
                .iter()
                .map(|&(bytes, first, life)| Block { bytes, first, last: first + life })
                .collect();
            let p = place(&blocks).unwrap();
            check(&blocks, &p).unwrap();
            let live = |s| blocks.iter().filter(move |b: &&Block| b.first <= s && s <= b.last);
            let most = (0..50).map(|s| live(s).map(|b| b.bytes).sum::<u64>()).max();
            assert_eq!(most, Some(lower_bound(&blocks)));
            assert!(p.total >= lower_bound(&blocks));
            let order: Vec<usize> = (0..blocks.len()).collect();
            let mut breadth = by_breadth(&blocks, &order);
            breadth.sort_unstable();
            assert_eq!(breadth, order);
        }
    }

    #[test]
    fn the_checker_sees_overlap() {
        let b = Block { bytes: 64, first: 0, last: 1 };
        let p = Placement { offsets: vec![0, 0], total: 64 };
        assert!(check(&[b, b], &p).is_err());
    }

    #[test]
    fn overflow_is_no_placement() {
        let b = Block { bytes: u64::MAX - 10, first: 0, last: 1 };
        assert_eq!(place(&[b, b]), None);
    }
}
