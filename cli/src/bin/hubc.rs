//! `hubc`: Hub's compiler for build pipelines and compiler engineers.

use clap::{CommandFactory, Parser};
use hub_cli::args::{Hubc, HubcCommand};
use hub_cli::{commands, guarded};
use hub_runtime::program::{Memory, catch_cut_files};
use std::process::ExitCode;

#[global_allocator]
static MEMORY: Memory = Memory;

fn main() -> ExitCode {
    catch_cut_files();
    let args = Hubc::parse();
    guarded(|| match args.command {
        HubcCommand::Optimize(a) => commands::optimize::run(a),
        HubcCommand::Run(a) => commands::run::run(a),
        HubcCommand::Bench(a) => commands::bench::run(a),
        HubcCommand::Compare(a) => commands::compare::run(a),
        HubcCommand::Inspect(a) => commands::inspect::run(a),
        HubcCommand::Sign(a) => commands::sign::run(a),
        HubcCommand::Convert(a) => commands::convert::run(a),
        HubcCommand::Completions(a) => commands::completions::run(a, Hubc::command()),
    })
}
