//! bbh, the desktop peer.

mod air;
mod args;
mod commands;
mod control;
mod demo;
mod failure;
mod output;
mod process;
mod records;
mod run;
mod sim;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Cli, Command};
use crate::failure::Failure;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match start(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("bbh: {}", output::plain(&failure.to_string()));
            ExitCode::from(failure.exit_code())
        }
    }
}

fn start(command: Command) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("the system gives no resources: {error}")))?;
    runtime.block_on(async {
        match command {
            Command::Demo(args) => demo::run(&args).await,
            Command::Air(args) => air::run(&args).await,
            Command::Sim(args) => sim::run_sim(&args),
            Command::Run(args) => run::run(&args).await,
            asking => commands::run(asking).await,
        }
    })
}
