//! What a module's text says of its kernels: how they are launched.
//!
//! `.visible .entry NAME(.param .align 8 .b8 args[BYTES])` and `.reqntid THREADS` are PTX's own.
//! Comments in front of the entry say the rest: `// hub tiles_per_block N` (without it a tile is a warp's)
//! and `// hub shared_bytes N`, bytes of `.extern .shared` memory (without it none).

use std::collections::HashMap;

/// Threads of a warp.
const WARP: u32 = 32;

/// How a kernel is launched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Threads of a block.
    pub threads: u32,
    /// Tiles that a block does.
    pub tiles: u32,
    /// Bytes of the argument block.
    pub args: usize,
    /// Bytes of shared memory beside what the text declares.
    pub shared: u32,
}

impl Shape {
    /// Blocks that do so many tiles; `None` where they are more than a grid has.
    pub fn blocks(&self, tiles: u64) -> Option<u32> {
        let blocks = tiles.div_ceil(u64::from(self.tiles));
        u32::try_from(blocks).ok().filter(|b| (1..=i32::MAX as u32).contains(b))
    }
}

/// The kernels of a module by name; what cannot be read is left out.
pub fn kernels(text: &str) -> HashMap<&str, Shape> {
    let mut all = HashMap::new();
    let (mut tiles, mut shared, mut entry) = (None, 0, None);
    for line in text.lines().map(str::trim) {
        if let Some(n) = line.strip_prefix("// hub tiles_per_block ") {
            tiles = n.trim().parse::<u32>().ok().filter(|n| *n > 0);
        } else if let Some(n) = line.strip_prefix("// hub shared_bytes ") {
            shared = n.trim().parse().unwrap_or(0);
        } else if let Some(head) = line.strip_prefix(".visible .entry ") {
            let said = (tiles.take(), std::mem::take(&mut shared));
            entry = head.split_once('(').map(|(name, params)| (name.trim(), bytes(params), said));
        } else if let Some(n) = line.strip_prefix(".reqntid ") {
            let threads = n.split(',').next().and_then(|n| n.trim().parse::<u32>().ok());
            if let (Some((name, Some(args), said)), Some(threads)) = (entry.take(), threads)
                && threads > 0
                && threads % WARP == 0
            {
                let (tiles, shared) = (said.0.unwrap_or(threads / WARP), said.1);
                all.insert(name, Shape { threads, tiles, args, shared });
            }
        }
    }
    all
}

/// Bytes of the only parameter.
fn bytes(params: &str) -> Option<usize> {
    let n = params.split_once('[')?.1.split_once(']')?.0;
    n.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = ".version 7.0\n.target sm_80\n\
        .visible .entry plain(.param .align 8 .b8 args[24])\n.reqntid 128, 1, 1\n{\n}\n\
        // hub shared_bytes 65536\n// hub tiles_per_block 1\n.const .align 4 .b8 x_sel0[2] = {0, 1};\n\
        .visible .entry whole(.param .align 8 .b8 args[8])\n.reqntid 256, 1, 1\n{\n}\n\
        .visible .entry odd(.param .align 8 .b8 args[8])\n.reqntid 33, 1, 1\n{\n}\n";

    #[test]
    fn entries_say_how_they_are_launched() {
        let all = kernels(TEXT);
        assert_eq!(all["plain"], Shape { threads: 128, tiles: 4, args: 24, shared: 0 });
        assert_eq!(all["whole"], Shape { threads: 256, tiles: 1, args: 8, shared: 65536 });
        assert_eq!(all.len(), 2);
        let plain = all["plain"];
        assert_eq!([1, 4, 5, 9].map(|n| plain.blocks(n)), [Some(1), Some(1), Some(2), Some(3)]);
        assert_eq!(plain.blocks(0), None);
        assert_eq!(plain.blocks(1 << 33), None);
        assert_eq!(plain.blocks((1 << 33) - 4), Some((1 << 31) - 1));
    }
}
