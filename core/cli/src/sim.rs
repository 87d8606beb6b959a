//! `bbh sim`: the deterministic simulator.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bbh_sim::report_rules::{self, form};
use bbh_sim::{Frame, Metric, Note, Options, Samples, Scenario, Shape, Summary, run, svg};
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::failure::Failure;
use crate::output;

/// `bbh sim`.
#[derive(Debug, Clone, Args)]
#[command(after_help = after_help())]
pub struct SimArgs {
    /// Nodes at the beginning
    #[arg(long, default_value_t = 32, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub nodes: u32,
    /// The world; see below
    #[arg(long, default_value = "hall", value_name = "NAME", value_parser = |text: &str| text.parse::<Scenario>())]
    pub scenario: Scenario,
    /// The first run's seed; the next runs take the next ones
    #[arg(long, default_value_t = 1, value_name = "S")]
    pub seed: u64,
    /// How many runs
    #[arg(long, default_value_t = 1, value_name = "K", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub runs: u64,
    /// By which rules trees form
    #[arg(long, value_enum, default_value_t = RulesArg::Bbh)]
    pub rules: RulesArg,
    /// Links of a node, the parent's included
    #[arg(long, default_value_t = 4, value_name = "M", value_parser = clap::value_parser!(u8).range(2..=8))]
    pub max_links: u8,
    /// How long the world is watched at rest, in seconds of the world
    #[arg(long, default_value_t = 60, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(0..=86_400))]
    pub observe: u64,
    /// How long the nodes may take to become one tree, in seconds of the world
    #[arg(long, default_value_t = 300, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub limit: u64,
    /// Draw the first run's floor plan and tree, at several moments, into this file
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// Print one JSON document on standard output and nothing else there
    #[arg(long)]
    pub json: bool,
    /// Tell what happens, line by line: time, node, what (with --json on standard error)
    #[arg(long)]
    pub trace: bool,
}

/// By which rules trees form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RulesArg {
    /// This program's own protocol, as phones run it
    Bbh,
    /// The 2005 report's, as an abstract model: one range, even encounters, no time
    Report,
    /// The published TSF's three link rules, as the same abstract model
    Published,
}

fn after_help() -> String {
    let mut text = "Scenarios:\n".to_owned();
    for scenario in Scenario::ALL {
        text.push_str(&format!("  {:10} {}\n", scenario.name(), scenario.description()));
    }
    text.push_str(
        "\
\nA run fails by a ring of parents, by nodes that don't become one tree, and by a search that reaches a node of a quiet
tree not or twice. Then its seed and the command that replays it are printed, and the exit code is 1. The same options
give the same run.

With --rules report and --rules published, scenario and seed say nothing of places; --max-links less one is the
number of children, and a network in which no further link is allowed counts as finished, in one tree or not.

JSON: {scenario, nodes, seed, runs, rules, max_links, one_tree: runs that ended in one tree (each group its own),
failures: [{seed, reason, replay}], metrics: {NAME: {unit, count, p50, p95, mean, min, max}}}. The names:\n",
    );
    for metric in Metric::ALL {
        let unit = if metric.unit().is_empty() { String::new() } else { format!(" [{}]", metric.unit()) };
        text.push_str(&format!("  {:22} {}{unit}\n", metric.name(), metric.description()));
    }
    text.push_str(&format!("  {:22} the same by the report's rule, to the whole table\n", REPORT_BROADCAST));
    text.push_str(
        "
Examples:
  bbh sim --nodes 64 --scenario churn --runs 20
  bbh sim --nodes 1000 --scenario stadium --svg stadium.svg
  bbh sim --nodes 8 --scenario chain --seed 7 --trace
  bbh sim --nodes 64 --max-links 4 --rules report --runs 400",
    );
    text
}

const REPORT_BROADCAST: &str = "report_broadcast";

#[derive(Debug, Serialize)]
struct Document {
    scenario: &'static str,
    nodes: u32,
    seed: u64,
    runs: u64,
    rules: RulesArg,
    max_links: u8,
    one_tree: u64,
    failures: Vec<Failed>,
    metrics: BTreeMap<&'static str, Measured>,
}

#[derive(Debug, Serialize)]
struct Failed {
    seed: u64,
    reason: String,
    replay: String,
}

#[derive(Debug, Serialize)]
struct Measured {
    unit: &'static str,
    count: usize,
    p50: f64,
    p95: f64,
    mean: f64,
    min: f64,
    max: f64,
}

impl Measured {
    fn new(unit: &'static str, summary: Summary) -> Self {
        let Summary { count, p50, p95, mean, min, max } = summary;
        Self { unit, count, p50, p95, mean, min, max }
    }
}

/// Runs the worlds.
///
/// # Errors
/// If a run fails, or the picture can't be written.
pub fn run_sim(args: &SimArgs) -> Result<(), Failure> {
    let all = match args.rules {
        RulesArg::Bbh => simulate(args),
        RulesArg::Report => model(args, report_rules::Rules::Report),
        RulesArg::Published => model(args, report_rules::Rules::Published),
    };
    if let Some(path) = &args.svg {
        let heading = format!("{} nodes, {}, seed {}", args.nodes, args.scenario, args.seed);
        std::fs::write(path, svg(&all.frames, &heading))
            .map_err(|error| Failure::failed(format!("{} can't be written: {error}", path.display())))?;
    }
    let mut metrics: BTreeMap<&'static str, Measured> = all
        .samples
        .summaries()
        .map(|(metric, summary)| (metric.name(), Measured::new(metric.unit(), summary)))
        .collect();
    if let Some(summary) = Summary::of(&all.report_broadcast) {
        metrics.insert(REPORT_BROADCAST, Measured::new("", summary));
    }
    let document = Document {
        scenario: args.scenario.name(),
        nodes: args.nodes,
        seed: args.seed,
        runs: args.runs,
        rules: args.rules,
        max_links: args.max_links,
        one_tree: all.one_tree,
        failures: all.failures,
        metrics,
    };
    if args.json {
        let text = serde_json::to_string(&document).map_err(Failure::failed)?;
        output::print(&text)?;
    } else {
        output::print(&as_text(&document))?;
    }
    for failed in &document.failures {
        eprintln!("bbh: seed {}: {}\n     replay: {}", failed.seed, failed.reason, failed.replay);
    }
    match document.failures.len() {
        0 => Ok(()),
        failed => Err(Failure::failed(format!("{failed} of {} runs failed", args.runs))),
    }
}

fn as_text(document: &Document) -> String {
    let number = |value: f64| match value.abs() {
        small if small < 10.0 => format!("{value:.3}"),
        middle if middle < 1000.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    };
    let rows: Vec<[String; 6]> = Metric::ALL
        .iter()
        .map(|metric| metric.name())
        .chain([REPORT_BROADCAST])
        .filter_map(|name| {
            let measured = document.metrics.get(name)?;
            let Measured { unit, count, p50, p95, max, .. } = measured;
            let values = [*p50, *p95, *max].map(number);
            let [p50, p95, max] = values;
            Some([name.to_owned(), p50, p95, max, (*unit).to_owned(), count.to_string()])
        })
        .collect();
    let table = output::table(["METRIC", "P50 ", "P95 ", "MAX ", "UNIT", "SAMPLES "], &rows);
    let Document { scenario, nodes, runs, one_tree, .. } = document;
    format!("{scenario}, {nodes} nodes: {one_tree} of {runs} runs ended in one tree\n{table}")
}

/// What all runs together have given.
#[derive(Default)]
struct All {
    samples: Samples,
    report_broadcast: Vec<f64>,
    one_tree: u64,
    failures: Vec<Failed>,
    frames: Vec<Frame>,
}

// ---------------------------------------------------------------- the protocol itself

fn simulate(args: &SimArgs) -> All {
    let bar = progress(args.runs);
    let next = AtomicU64::new(0);
    // In the order of seeds, whichever thread was first.
    let outcomes = Mutex::new(BTreeMap::new());
    // Lines of several runs at a time would be in no order.
    let threads = if args.trace { 1 } else { std::thread::available_parallelism().map_or(1, NonZero::get) as u64 };
    std::thread::scope(|scope| {
        for _ in 0..threads.min(args.runs) {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= args.runs {
                        return;
                    }
                    let outcome = one_run(args, n, &bar);
                    bar.inc(1);
                    if let Ok(mut outcomes) = outcomes.lock() {
                        outcomes.insert(n, outcome);
                    }
                }
            });
        }
    });
    bar.finish_and_clear();
    let mut all = All::default();
    for (n, outcome) in outcomes.into_inner().unwrap_or_default() {
        let seed = args.seed.wrapping_add(n);
        match outcome {
            Ok(outcome) => {
                all.samples.extend(outcome.samples);
                all.frames.extend(outcome.frames);
                match outcome.failure {
                    None => all.one_tree += 1,
                    Some(reason) => all.failures.push(Failed { seed, reason, replay: replay(args, seed) }),
                }
            }
            Err(reason) => all.failures.push(Failed { seed, reason, replay: replay(args, seed) }),
        }
    }
    all
}

fn one_run(args: &SimArgs, n: u64, bar: &ProgressBar) -> Result<bbh_sim::Outcome, String> {
    let seed = args.seed.wrapping_add(n);
    let options = Options {
        max_links: args.max_links,
        observe: Duration::from_secs(args.observe),
        limit: Duration::from_secs(args.limit),
        trace: args.trace,
        pictures: args.svg.is_some() && n == 0,
        ..Options::new(args.scenario, args.nodes as usize, seed)
    };
    let mut tell = |note| match note {
        Note::Trace(line) if args.json => eprintln!("{line}"),
        // A reader that has had enough ends the process there.
        Note::Trace(line) => drop(output::print(&line)),
        Note::Progress { phase, now, trees, components } => {
            let seconds = now.as_micros() / 1_000_000;
            bar.set_message(format!("seed {seed}, {seconds} s, {phase}: {trees} trees, {components} possible"));
        }
    };
    // A fault of the protocol may be a panic: its seed must be told all the same.
    catch_unwind(AssertUnwindSafe(|| run(&options, &mut tell))).map_err(|_| "the run panicked, see above".to_owned())
}

/// The command that does one run again, and tells what happens.
fn replay(args: &SimArgs, seed: u64) -> String {
    let SimArgs { nodes, scenario, max_links, observe, limit, .. } = args;
    format!(
        "bbh sim --nodes {nodes} --scenario {scenario} --seed {seed} --max-links {max_links} --observe {observe} \
         --limit {limit} --trace"
    )
}

fn progress(runs: u64) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:20} {pos}/{len} runs  {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(runs).with_style(style)
}

// ---------------------------------------------------------------- older rules

fn model(args: &SimArgs, rules: report_rules::Rules) -> All {
    let bar = progress(args.runs);
    let mut all = All::default();
    for n in 0..args.runs {
        let max_children = usize::from(args.max_links) - 1;
        let outcome = form(args.nodes as usize, max_children, rules, args.seed.wrapping_add(n));
        all.one_tree += u64::from(outcome.is_one_tree());
        let Shape { trees, largest, mean_path, diameter, depth, piconets, broadcast, report_broadcast, .. } =
            outcome.shape;
        all.samples.add(Metric::Trees, trees as f64);
        all.samples.add(Metric::MeanPath, mean_path);
        if largest > 1 {
            all.samples.add(Metric::PathPerLog, mean_path / (largest as f64).log2());
        }
        all.samples.add(Metric::Diameter, diameter as f64);
        all.samples.add(Metric::Depth, depth as f64);
        all.samples.add(Metric::Piconets, piconets as f64);
        all.samples.add(Metric::Broadcast, broadcast);
        all.report_broadcast.push(report_broadcast);
        bar.inc(1);
    }
    bar.finish_and_clear();
    all
}
