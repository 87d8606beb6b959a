//! `bbh demo`: the main job, on one machine, before the eyes of whoever started it.

mod inputs;
mod processes;

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use tempfile::TempDir;

use self::inputs::{Inputs, TAG_WORD, sha256};
use self::processes::{Air, Node};
use crate::args::DemoArgs;
use crate::control::Command;
use crate::control::client::Part;
use crate::failure::Failure;
use crate::output::{duration, print, rate, size};
use crate::records::{self, Device, Download, Found, SharedFile, Status};

/// Metres between neighbours, and how far a radio is heard: only neighbours hear each other.
const SPACING: f64 = 8.0;
const RANGE: f64 = 10.0;

/// How often the nodes are asked how they are.
const POLL: Duration = Duration::from_millis(100);
/// How long the nodes may take to become one tree, at the beginning and after the loss.
const TREE_TIME: Duration = Duration::from_secs(45);
/// How long a download may stand still while nothing is wrong.
const STALL_TIME: Duration = Duration::from_secs(30);

/// Runs it.
///
/// # Errors
/// The first thing that did not go as it should; then the folder with the nodes' logs is kept.
pub async fn run(args: &DemoArgs) -> Result<(), Failure> {
    let folder = tempfile::Builder::new()
        .prefix("bbh-demo-")
        .tempdir()
        .map_err(|error| Failure::failed(format!("no folder for temporary files: {error}")))?;
    // When this future is dropped, the processes in it are killed: at its end, on Ctrl-C, on a panic.
    let result = tokio::select! {
        result = Demo::run(args, folder.path()) => result,
        reason = interrupted() => Err(Failure::failed(reason)),
    };
    match &result {
        Ok(()) if args.keep => print(&format!("kept: {}", keep(folder).display()))?,
        Ok(()) => {}
        Err(_) => eprintln!("The nodes' folders and logs are kept in {}", keep(folder).display()),
    }
    result
}

fn keep(folder: TempDir) -> PathBuf {
    folder.keep()
}

async fn interrupted() -> &'static str {
    #[cfg(unix)]
    if let Ok(mut terminate) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        return tokio::select! {
            _ = tokio::signal::ctrl_c() => "interrupted",
            _ = terminate.recv() => "terminated",
        };
    }
    let _ = tokio::signal::ctrl_c().await;
    "interrupted"
}

/// What the summary tells.
#[derive(Default)]
struct Figures {
    formed: Duration,
    found: Duration,
    healed: Duration,
    resumed: Duration,
    kept: u64,
    moving: Duration,
    bytes: u64,
}

struct Demo {
    start: Instant,
    air: Air,
    /// In the order of the chain; the last is the spare. A killed one stays in its place.
    nodes: Vec<Node>,
    killed: Option<usize>,
    figures: Figures,
}

impl Demo {
    async fn run(args: &DemoArgs, folder: &Path) -> Result<(), Failure> {
        let start = Instant::now();
        print("Blue Brewery Horse: files over several hops, without the Internet\n")?;
        say(
            start,
            &format!("makes a folder: a text, an MP3 with ID3v1 and ID3v2 tags, {} of random bytes", size(args.size)),
        )?;
        let inputs = Inputs::create(folder, args.size)
            .map_err(|error| Failure::failed(format!("the files to share can't be made: {error}")))?;

        let air = Air::start(folder, RANGE, args.rate).await?;
        say(
            start,
            &format!(
                "starts the air: range {RANGE} m, each radio carries {} in all ({} bytes/s)",
                rate(args.rate),
                args.rate
            ),
        )?;
        let mut nodes = Vec::new();
        for index in 0..usize::from(args.nodes) {
            let x = SPACING * index as f64;
            nodes.push(Node::start(folder, &air.address, &format!("node{index}"), x).await?);
        }
        say(
            start,
            &format!(
                "starts {} nodes, each a process of its own, {SPACING} m apart: only neighbours hear each other",
                nodes.len()
            ),
        )?;
        let mut demo = Self { start, air, nodes, killed: None, figures: Figures::default() };
        demo.form().await?;
        let (source, asker) = (0, demo.nodes.len() - 2);
        demo.share(source, &inputs).await?;
        let audio = demo.search(asker, TAG_WORD, &inputs.audio).await?;
        let large = demo.search(asker, "camera", &inputs.large).await?;
        let target = folder.join("downloaded");
        let audio_copy = demo.fetch_small(asker, &audio, &target).await?;
        let large_copy = demo.fetch_with_loss(asker, &large, &target).await?;
        demo.verify(&inputs.audio, &audio_copy)?;
        demo.verify(&inputs.large, &large_copy)?;
        demo.summary(asker - source)
    }

    fn say(&self, text: &str) -> Result<(), Failure> {
        say(self.start, text)
    }

    /// Waits until `ready` of the living nodes' states, in the order of the chain.
    async fn wait_for_tree(
        &mut self,
        what: &str,
        mut ready: impl FnMut(&[Status]) -> bool,
    ) -> Result<Vec<Status>, Failure> {
        let deadline = Instant::now() + TREE_TIME;
        loop {
            let mut states = Vec::new();
            for index in 0..self.nodes.len() {
                if self.killed != Some(index) {
                    states.push(self.nodes[index].status().await?);
                }
            }
            if ready(&states) {
                return Ok(states);
            }
            if Instant::now() > deadline {
                let roles: Vec<_> = states
                    .iter()
                    .map(|state| {
                        format!(
                            "{}: {} of {}",
                            state.name.as_deref().unwrap_or("?"),
                            state.role,
                            state.tree_id.as_deref().unwrap_or("no tree")
                        )
                    })
                    .collect();
                return Err(Failure::failed(format!(
                    "{what}: not within {} s ({})",
                    TREE_TIME.as_secs(),
                    roles.join(", ")
                )));
            }
            self.check()?;
            tokio::time::sleep(POLL).await;
        }
    }

    fn check(&mut self) -> Result<(), Failure> {
        self.air.check()?;
        let killed = self.killed;
        self.nodes
            .iter_mut()
            .enumerate()
            .filter(|(index, _)| killed != Some(*index))
            .try_for_each(|(_, node)| node.check())
    }

    async fn form(&mut self) -> Result<(), Failure> {
        let begin = Instant::now();
        let states = self.wait_for_tree("the nodes become one tree", one_tree).await?;
        self.figures.formed = begin.elapsed();
        let ids: Vec<_> = self.nodes.iter().map(|node| node.id.as_str()).collect();
        for (index, state) in states.iter().enumerate() {
            for other in state.children.iter().chain(&state.parent) {
                let place = ids.iter().position(|id| id == other);
                if place.is_none_or(|place| place.abs_diff(index) != 1) {
                    return Err(Failure::failed(format!(
                        "{} is linked to {other}, which it can't hear",
                        self.nodes[index].name
                    )));
                }
            }
        }
        let chain: Vec<_> = states
            .iter()
            .zip(&self.nodes)
            .map(
                |(state, node)| {
                    if state.parent.is_none() { format!("{} (root)", node.name) } else { node.name.clone() }
                },
            )
            .collect();
        self.say(&format!("one tree after {}: {}", duration(self.figures.formed), chain.join(" - ")))?;

        let asker = &self.nodes[self.nodes.len() - 2];
        let begin = Instant::now();
        let deadline = begin + TREE_TIME;
        loop {
            let devices: Vec<Device> = asker.ask(&Command::Devices).await?;
            let first = devices.iter().find(|device| device.node_id == ids[0]);
            if let (Some(Device { hops: Some(hops), .. }), true) = (first, devices.len() == self.nodes.len() - 1) {
                if *hops != self.nodes.len() as u64 - 2 {
                    return Err(Failure::failed(format!("{} says that node0 is {hops} hops away", asker.name)));
                }
                return self.say(&format!(
                    "{} knows {} other nodes; node0 is {hops} hops away",
                    asker.name,
                    devices.len()
                ));
            }
            if Instant::now() > deadline {
                return Err(Failure::failed(format!("{} knows only {} other nodes", asker.name, devices.len())));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn share(&mut self, source: usize, inputs: &Inputs) -> Result<(), Failure> {
        let begin = Instant::now();
        let files: Vec<SharedFile> =
            self.nodes[source].ask(&Command::Share { paths: vec![inputs.folder.clone()] }).await?;
        let bytes = files.iter().map(|file| file.size).sum();
        if files.len() != 3 {
            return Err(Failure::failed(format!("{} files are shared instead of 3", files.len())));
        }
        self.say(&format!(
            "{} shares the folder \"Brewery tour\": 3 files, {}, hashed in {}",
            self.nodes[source].name,
            size(bytes),
            duration(begin.elapsed())
        ))
    }

    /// Searches until the one file that must be found is there.
    async fn search(&mut self, asker: usize, word: &str, expected: &Path) -> Result<Found, Failure> {
        let node = &self.nodes[asker];
        let begin = Instant::now();
        let command = Command::Search {
            words: vec![word.to_owned()],
            mode: None,
            timeout: Some(10.0),
            kind: None,
            min_size: None,
            max_size: None,
        };
        let mut call = node.call(&command).await?;
        let found: Found = loop {
            match call.next().await? {
                Some(Part::Item(item)) => break records::read(&item)?,
                Some(Part::Note(_) | Part::Progress { .. }) => {}
                None => {
                    return Err(Failure::failed(format!("{} searched for \"{word}\" and found nothing", node.name)));
                }
            }
        };
        let time = begin.elapsed();
        let name = expected.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if found.names != [name.as_str()] {
            return Err(Failure::failed(format!(
                "the search for \"{word}\" found {:?} instead of {name}",
                found.names
            )));
        }
        let hops = found.sources.first().and_then(|source| source.hops).unwrap_or(0);
        if hops != asker as u64 {
            return Err(Failure::failed(format!("the source of {name} is said to be {hops} hops away, not {asker}")));
        }
        let place = if name.to_lowercase().contains(word) { "of its name" } else { "that stands only in its tags" };
        if self.figures.found.is_zero() {
            self.figures.found = time;
        }
        self.say(&format!(
            "{} searches \"{word}\": after {} found \"{name}\", {}, {hops} hops away, by a word {place}",
            self.nodes[asker].name,
            duration(time),
            size(found.size)
        ))?;
        Ok(found)
    }

    async fn order(&self, asker: usize, file: &Found, target: &Path) -> Result<(), Failure> {
        let content = file.content_id.parse().map_err(Failure::failed)?;
        let command = Command::Download { content, to: Some(target.to_owned()), queue: false, wait: false };
        self.nodes[asker].ask::<Download>(&command).await.map(drop)
    }

    /// Asks about a download until `done`; it must not lose what was verified, nor stand still for long.
    async fn follow(
        &mut self,
        asker: usize,
        content: &str,
        mut done: impl FnMut(&Download) -> bool,
        allowed: Duration,
    ) -> Result<Download, Failure> {
        let mut last = 0;
        let mut since = Instant::now();
        loop {
            let download = self.nodes[asker].download(content).await?;
            if download.verified < last {
                return Err(Failure::failed(format!("verified bytes were lost: {} after {last}", download.verified)));
            }
            if download.state == "failed" {
                return Err(Failure::failed(download.error.unwrap_or_else(|| "the download has failed".to_owned())));
            }
            if done(&download) {
                return Ok(download);
            }
            if download.verified > last {
                (last, since) = (download.verified, Instant::now());
            }
            if since.elapsed() > allowed {
                return Err(Failure::failed(format!(
                    "the download stands still at {} ({}{})",
                    size(last),
                    download.state,
                    download.error.map(|error| format!(", {error}")).unwrap_or_default()
                )));
            }
            self.check()?;
            tokio::time::sleep(POLL).await;
        }
    }

    async fn fetch_small(&mut self, asker: usize, file: &Found, target: &Path) -> Result<PathBuf, Failure> {
        let begin = Instant::now();
        self.order(asker, file, target).await?;
        let download =
            self.follow(asker, &file.content_id, |download| download.state == "complete", STALL_TIME).await?;
        self.say(&format!(
            "{} downloads it: {} in {}",
            self.nodes[asker].name,
            size(file.size),
            duration(begin.elapsed())
        ))?;
        path_of(&download)
    }

    async fn fetch_with_loss(&mut self, asker: usize, file: &Found, target: &Path) -> Result<PathBuf, Failure> {
        let bar = progress_bar(file.size);
        let relay = asker / 2;
        let spare = self.nodes.len() - 1;
        self.say(&format!("{} downloads {} over {asker} hops", self.nodes[asker].name, size(file.size)))?;
        let begin = Instant::now();
        self.order(asker, file, target).await?;
        let half = file.size / 2;
        let show = |download: &Download| {
            bar.set_position(download.verified);
            bar.set_message(if download.state == "active" { rate(download.rate) } else { download.state.clone() });
        };
        let before = self
            .follow(
                asker,
                &file.content_id,
                |download| {
                    show(download);
                    download.verified >= half
                },
                STALL_TIME,
            )
            .await?;
        self.figures.moving = begin.elapsed();
        self.figures.bytes = before.verified;
        let lost_at = Instant::now();
        self.nodes[relay].kill().await?;
        self.killed = Some(relay);
        bar.suspend(|| {
            self.say(&format!(
                "{} of {} are here, at {}: kills the relay {} (SIGKILL), the chain is cut",
                size(before.verified),
                size(file.size),
                rate(per_second(before.verified, self.figures.moving)),
                self.nodes[relay].name
            ))
        })?;

        // What was under way still arrives; then the loss is noticed.
        let waiting = self
            .follow(
                asker,
                &file.content_id,
                |download| {
                    show(download);
                    download.state == "waiting" || download.state == "searching"
                },
                STALL_TIME,
            )
            .await?;
        self.figures.kept = waiting.verified;
        let x = SPACING * relay as f64;
        self.nodes[spare].ask::<records::Ping>(&Command::Move { x, y: 0.0 }).await?;
        bar.suspend(|| {
            self.say(&format!(
                "noticed after {}, the download waits at {}; moves the spare {} into the gap",
                duration(lost_at.elapsed()),
                size(waiting.verified),
                self.nodes[spare].name
            ))
        })?;

        let moved_at = Instant::now();
        let bridge = self.nodes[spare].id.clone();
        self.wait_for_tree("the tree heals", |states| {
            one_tree(states) && states.iter().filter(|state| state.links >= 2).any(|state| state.node_id == bridge)
        })
        .await?;
        self.figures.healed = moved_at.elapsed();
        bar.suspend(|| self.say(&format!("one tree again, {} after the move", duration(self.figures.healed))))?;

        let resumed = self
            .follow(
                asker,
                &file.content_id,
                |download| {
                    show(download);
                    download.verified > waiting.verified
                },
                STALL_TIME,
            )
            .await?;
        self.figures.resumed = moved_at.elapsed();
        bar.suspend(|| {
            self.say(&format!(
                "resumes from {}, {} after the move; nothing verified is fetched again",
                size(waiting.verified),
                duration(self.figures.resumed)
            ))
        })?;

        let again = Instant::now();
        let complete = self
            .follow(
                asker,
                &file.content_id,
                |download| {
                    show(download);
                    download.state == "complete"
                },
                STALL_TIME,
            )
            .await?;
        self.figures.moving += again.elapsed();
        self.figures.bytes += complete.verified - resumed.verified;
        bar.finish_and_clear();
        self.say(&format!("complete, {} after it was ordered", duration(begin.elapsed())))?;
        path_of(&complete)
    }

    fn verify(&self, original: &Path, copy: &Path) -> Result<(), Failure> {
        let hash = |path: &Path| sha256(path).map_err(|error| Failure::failed(format!("{}: {error}", path.display())));
        let (expected, arrived) = (hash(original)?, hash(copy)?);
        let name = copy.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if expected != arrived {
            return Err(Failure::failed(format!(
                "\"{name}\" is not what was shared: SHA-256 {arrived}, not {expected}"
            )));
        }
        self.say(&format!("SHA-256 of \"{name}\" is equal: {arrived}"))
    }

    fn summary(&self, hops: usize) -> Result<(), Failure> {
        let figures = &self.figures;
        let lines = [
            ("nodes", format!("{} processes, {hops} hops from source to asker", self.nodes.len())),
            ("forming the tree", duration(figures.formed)),
            ("search by tag", format!("{} to the first result", duration(figures.found))),
            (
                "transfer",
                format!(
                    "{}, {} while bytes moved",
                    size(figures.bytes),
                    rate(per_second(figures.bytes, figures.moving))
                ),
            ),
            ("healing", format!("{} from the spare's move to one tree", duration(figures.healed))),
            (
                "resuming",
                format!("{} from the move to new bytes, from {}", duration(figures.resumed), size(figures.kept)),
            ),
            ("verified", "every byte of both files (BLAKE3 on arrival, SHA-256 at the end)".to_owned()),
            ("in all", duration(self.start.elapsed())),
        ];
        print("")?;
        lines.iter().try_for_each(|(key, value)| print(&format!("{key:<18} {value}")))
    }
}

/// All have the same tree, exactly one has no parent.
fn one_tree(states: &[Status]) -> bool {
    let tree = states.first().and_then(|state| state.tree_id.as_ref());
    tree.is_some()
        && states.iter().all(|state| state.tree_id.as_ref() == tree)
        && states.iter().filter(|state| state.parent.is_none()).count() == 1
}

fn path_of(download: &Download) -> Result<PathBuf, Failure> {
    download.path.as_ref().map(PathBuf::from).ok_or_else(|| Failure::failed("the complete file has no path"))
}

fn per_second(bytes: u64, time: Duration) -> u64 {
    (bytes as f64 / time.as_secs_f64().max(0.001)) as u64
}

fn say(start: Instant, text: &str) -> Result<(), Failure> {
    print(&format!("[{:5.1} s] {text}", start.elapsed().as_secs_f64()))
}

fn progress_bar(size: u64) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("          {bar:40} {bytes}/{total_bytes}  {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(size).with_style(style)
}
