//! Many short worlds in which anything happens: whatever the seed, no ring forms, a search reaches every node of a
//! quiet tree exactly once, and when all is quiet each group is one tree with right tables.
//!
//! `BBH_SIM_RUNS` sets how many (`scripts/sim-long` runs 10,000), `BBH_SIM_SEED` the first seed. A failure names its
//! seed and the command that replays it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use bbh_sim::{Options, Scenario, run};

/// Takes about 40 s on two cores in the dev profile.
const USUAL_RUNS: u64 = 200;

fn number(variable: &str, usual: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable} must be a number, not {text:?}")),
        Err(_) => usual,
    }
}

/// What a seed runs.
fn options(seed: u64) -> Options {
    let nodes = 3 + seed as usize % 14;
    let max_links = [4, 3, 8, 4][seed as usize / 14 % 4];
    Options { max_links, ..Options::new(Scenario::Random, nodes, seed) }
}

#[test]
fn whatever_happens_the_invariants_hold_and_one_tree_is_left() {
    let (first, runs) = (number("BBH_SIM_SEED", 0), number("BBH_SIM_RUNS", USUAL_RUNS));
    let next = AtomicU64::new(first);
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + runs {
                        return;
                    }
                    let options = options(seed);
                    let outcome = catch_unwind(AssertUnwindSafe(|| run(&options, &mut |_| ()).failure));
                    let failure = outcome.unwrap_or_else(|_| Some("the run panicked, see above".to_owned()));
                    if let Some(failure) = failure {
                        let Options { nodes, max_links, .. } = options;
                        let replay = format!(
                            "bbh sim --scenario random --nodes {nodes} --max-links {max_links} --seed {seed} --trace"
                        );
                        println!("seed {seed}: {failure}\n    {replay}");
                        failures.lock().unwrap().push(seed);
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{} of {runs} runs failed: seeds {failures:?}", failures.len());
}

#[test]
fn a_run_is_the_same_each_time_and_its_trace_tells_of_it() {
    let options = Options { trace: true, ..options(5) };
    let whole = || {
        let mut lines = Vec::new();
        let outcome = run(&options, &mut |note| lines.push(note));
        (outcome, lines)
    };
    let first = whole();
    assert!(first.1.len() > 100);
    assert_eq!(first, whole());
}
