//! The x86 tiers as placement sees them.

use crate::kir::Kernel;
use crate::place::Backend;
use crate::target::{Target, Tier};
use hub_ir::Region;
use iced_x86::{Decoder, DecoderOptions, Formatter, GasFormatter};
use std::collections::HashMap;

/// One tier of x86-64.
pub struct X86Backend {
    target: Target,
    choices: Choices,
}

/// Which kernel a group gets, where it is not the first that the model ranks ([`Target::choice`]).
pub type Choices = HashMap<Region, usize>;

impl X86Backend {
    /// The tier of that name, if there is a code generator for it.
    pub fn of_tier(name: &str) -> Option<X86Backend> {
        let tier = Tier::ALL.into_iter().find(|t| t.name() == name)?;
        Some(X86Backend { target: Target::of(tier), choices: Choices::new() })
    }

    /// Only sums as operators define them, if `exact`.
    pub fn exact(mut self, exact: bool) -> X86Backend {
        self.target.exact = exact;
        self
    }

    /// Takes these kernels for these groups.
    pub fn choose(mut self, choices: Choices) -> X86Backend {
        self.choices = choices;
        self
    }
}

impl Backend for X86Backend {
    fn target(&self) -> &Target {
        &self.target
    }

    fn tier(&self) -> &str {
        self.target.tier.name()
    }

    fn choice(&self, region: Region) -> usize {
        self.choices.get(&region).copied().unwrap_or(0)
    }

    fn emit(&self, kernel: &Kernel) -> Result<Vec<u8>, String> {
        super::emit(kernel, &self.target).map(|c| c.bytes).map_err(|e| e.to_string())
    }
}

/// Machine code as text, an instruction a line, in GNU syntax; data after the code reads as
/// instructions that mean nothing.
pub fn disassemble(code: &[u8]) -> String {
    let mut format = GasFormatter::new();
    let mut text = String::new();
    for i in Decoder::with_ip(64, code, 0, DecoderOptions::NONE).iter() {
        text.push_str(&format!("{:6x}  ", i.ip()));
        format.format(&i, &mut text);
        text.push('\n');
    }
    text
}
