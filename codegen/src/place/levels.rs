//! Lists of steps while they are written: the model's, and those of the open branches and loops.

use hub_abi::plan::{Block, Step};
use hub_ir::Region;

/// Deepest nesting of blocks that is placed natively; what lies deeper runs on the host.
pub const MAX_DEEP: usize = hub_abi::bundle::check_plan::MAX_BLOCKS_DEEP / 2;

/// A list that is still written.
struct Level {
    region: Region,
    is_loop: bool,
    steps: Vec<Step>,
}

/// The open lists, the model's first, the innermost last.
pub struct Levels {
    open: Vec<Level>,
    /// Where steps go, if not to the innermost list.
    at: Option<usize>,
}

impl Levels {
    /// The model's list.
    pub fn new(root: Region) -> Levels {
        Levels { open: vec![Level { region: root, is_loop: false, steps: vec![] }], at: None }
    }

    /// Appends a step.
    pub fn push(&mut self, s: Step) {
        let at = self.at.unwrap_or(self.open.len() - 1);
        self.open[at].steps.push(s);
    }

    /// Lets steps go to the list of that level until it is called again; gives what was before.
    pub fn aim(&mut self, at: Option<usize>) -> Option<usize> {
        std::mem::replace(&mut self.at, at)
    }

    /// How many blocks are open around the innermost list.
    pub fn depth(&self) -> usize {
        self.open.len() - 1
    }

    /// Is a loop open?
    pub fn in_loop(&self) -> bool {
        self.open.iter().any(|l| l.is_loop)
    }

    /// Opens a list for a region.
    pub fn enter(&mut self, region: Region, is_loop: bool) {
        self.open.push(Level { region, is_loop, steps: vec![] });
    }

    /// Closes the innermost list.
    pub fn leave(&mut self, region: u32) -> Block {
        let steps = self.open.pop().map_or(vec![], |l| l.steps);
        Block { region, steps }
    }

    /// The level at which what does not change in the loops around the innermost list is made: the
    /// outermost that is not outside `region`, where the value is defined, nor outside a branch.
    pub fn home(&self, region: Region) -> usize {
        let made = self.open.iter().position(|l| l.region == region).unwrap_or(0);
        let mut at = self.open.len() - 1;
        while at > made && self.open[at].is_loop {
            at -= 1;
        }
        at
    }

    /// Lengths of the lists.
    pub fn lens(&self) -> Vec<usize> {
        self.open.iter().map(|l| l.steps.len()).collect()
    }

    /// Goes back to these lengths.
    pub fn truncate(&mut self, lens: &[usize]) {
        self.open.truncate(lens.len());
        self.at = None;
        self.open.iter_mut().zip(lens).for_each(|(l, &n)| l.steps.truncate(n));
    }
}
