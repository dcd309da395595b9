//! `hub`: deploys neural networks.

use clap::{CommandFactory, Parser};
use hub_cli::args::{Hub, HubCommand};
use hub_cli::{commands, guarded};
use std::process::ExitCode;

fn main() -> ExitCode {
    let args = Hub::parse();
    guarded(|| match args.command {
        HubCommand::Export(a) => commands::export::run(a),
        HubCommand::Completions(a) => commands::completions::run(a, Hub::command()),
    })
}
