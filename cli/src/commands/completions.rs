//! `completions`: a shell's completion script.

use crate::args::Completions;
use crate::failure::Failure;

/// Prints the script for `command`.
pub fn run(a: Completions, mut command: clap::Command) -> Result<(), Failure> {
    let name = command.get_name().to_string();
    clap_complete::generate(a.shell, &mut command, name, &mut std::io::stdout());
    Ok(())
}
