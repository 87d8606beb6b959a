//! The commands that ask the running node.

mod files;
mod network;

use std::io::{self, IsTerminal};
use std::path::PathBuf;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::value::RawValue;

use crate::args::{self, Target};
use crate::control::client::{Call, Part};
use crate::control::{Command, Content};
use crate::failure::Failure;
use crate::output;

/// Carries out any command but `demo`, `air` and `run`.
///
/// # Errors
/// What the node says, or that there is none.
pub async fn run(command: args::Command) -> Result<(), Failure> {
    match command {
        args::Command::Status(target) => network::status(&target).await,
        args::Command::Devices(target) => network::devices(&target).await,
        args::Command::Ping(args) => network::ping(&args).await,
        args::Command::Move(args) => network::move_to(&args).await,
        args::Command::Settings(target) => network::settings(&target).await,
        args::Command::Set(args) => network::set(&args).await,
        args::Command::Stop(target) => network::stop(&target).await,
        args::Command::Share(args) => files::share(&args).await,
        args::Command::Unshare(args) => files::unshare(&args).await,
        args::Command::Shared(target) => files::shared(&target).await,
        args::Command::Rescan(target) => files::rescan(&target).await,
        args::Command::Search(args) => files::search(&args).await,
        args::Command::Download(args) => files::download(&args).await,
        args::Command::Downloads(target) => files::downloads(&target).await,
        args::Command::Start(args) => files::control(&args, Command::Start).await,
        args::Command::Pause(args) => files::control(&args, Command::Pause).await,
        args::Command::Resume(args) => files::control(&args, Command::Resume).await,
        args::Command::Cancel(args) => {
            quiet(&args.target, &Command::Cancel(Content { content: args.content_id })).await
        }
        args::Command::Demo(_) | args::Command::Air(_) | args::Command::Run(_) | args::Command::Sim(_) => {
            Err(Failure::failed("this command is a process of its own"))
        }
    }
}

/// Asks, passes notes on to standard error and collects the items.
async fn items(target: &Target, command: &Command) -> Result<Vec<Box<RawValue>>, Failure> {
    let mut call = Call::new(&target.data_dir(), command).await?;
    let mut items = Vec::new();
    while let Some(part) = call.next().await? {
        match part {
            Part::Item(item) => items.push(item),
            Part::Note(note) => eprintln!("bbh: {}", output::plain(&note)),
            Part::Progress { .. } => {}
        }
    }
    Ok(items)
}

/// As [`items`], with a bar on a terminal for what reads files.
async fn items_with_bar(target: &Target, command: &Command) -> Result<Vec<Box<RawValue>>, Failure> {
    let mut call = Call::new(&target.data_dir(), command).await?;
    let bar = byte_bar();
    let mut items = Vec::new();
    while let Some(part) = call.next().await? {
        match part {
            Part::Item(item) => items.push(item),
            Part::Note(note) => bar.suspend(|| eprintln!("bbh: {}", output::plain(&note))),
            Part::Progress { done, total } => {
                bar.set_length(total);
                bar.set_position(done);
            }
        }
    }
    bar.finish_and_clear();
    Ok(items)
}

/// Asks for exactly one item.
async fn item(target: &Target, command: &Command) -> Result<Box<RawValue>, Failure> {
    let items = items(target, command).await?;
    items.into_iter().next_back().ok_or_else(|| Failure::failed("the node did not answer the question"))
}

/// A command whose success says it all; with `--json` an empty object.
async fn quiet(target: &Target, command: &Command) -> Result<(), Failure> {
    items(target, command).await?;
    if target.json { output::print("{}") } else { Ok(()) }
}

/// Paths mean the same to the node, whose working folder is another one.
fn absolute(path: &std::path::Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|error| Failure::failed(format!("{}: {error}", path.display())))
}

/// Something that turns on a terminal's standard error while one waits, and nothing elsewhere.
fn spinner(message: &'static str) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner().with_message(message);
    bar.enable_steady_tick(std::time::Duration::from_millis(120));
    bar
}

/// A bar that counts bytes on a terminal's standard error, and nothing elsewhere.
fn byte_bar() -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{wide_bar} {bytes}/{total_bytes}  {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(0).with_style(style)
}
