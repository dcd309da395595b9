//! `hub`: deploys neural networks.

use clap::{CommandFactory, Parser};
use hub_cli::args::{Hub, HubCommand};
use hub_cli::{commands, guarded};
use hub_runtime::program::{Memory, catch_cut_files};
use std::process::ExitCode;

#[global_allocator]
static MEMORY: Memory = Memory;

fn main() -> ExitCode {
    catch_cut_files();
    let args = Hub::parse();
    guarded(|| match args.command {
        HubCommand::Export(a) => commands::export::run(a),
        HubCommand::Completions(a) => commands::completions::run(a, Hub::command()),
    })
}
