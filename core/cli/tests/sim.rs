//! `bbh sim` from outside: what it prints, where, and with which exit code.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::process::{Command, Output};

use serde_json::Value;

fn sim(line: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bbh")).arg("sim").args(line.split(' ')).output().unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[test]
fn json_is_one_document_with_what_was_asked_and_measured() {
    let output = sim("--nodes 6 --scenario crowd --seed 3 --runs 3 --json");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let document = json(&output);
    assert_eq!((&document["scenario"], &document["nodes"], &document["seed"]), (&"crowd".into(), &6.into(), &3.into()));
    assert_eq!((&document["runs"], &document["rules"], &document["max_links"]), (&3.into(), &"bbh".into(), &4.into()));
    assert_eq!((&document["one_tree"], &document["failures"]), (&3.into(), &Value::Array(Vec::new())));
    let forming = &document["metrics"]["forming"];
    assert_eq!((&forming["unit"], &forming["count"]), (&"s".into(), &3.into()));
    assert!(forming["min"].as_f64() <= forming["p50"].as_f64() && forming["p50"].as_f64() <= forming["max"].as_f64());
    assert_eq!(output.stdout, sim("--nodes 6 --scenario crowd --seed 3 --runs 3 --json").stdout, "the same each time");
}

#[test]
fn a_run_that_fails_is_told_with_its_seed_and_a_command_that_replays_it() {
    let output = sim("--nodes 40 --scenario chain --seed 5 --limit 1 --json");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let document = json(&output);
    let failure = &document["failures"][0];
    assert_eq!(failure["seed"], 5);
    let replay = failure["replay"].as_str().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains(replay), "{output:?}");
    let again = sim(replay.strip_prefix("bbh sim ").unwrap());
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains(failure["reason"].as_str().unwrap()), "{again:?}");
    let trace = String::from_utf8_lossy(&again.stdout);
    assert!(trace.lines().any(|line| line.contains(" n7 ") && line.contains("starts at")), "{trace}");
}

#[test]
fn the_picture_is_drawn_and_the_reports_rules_show_how_often_the_network_stays_split() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("plan.svg");
    let output = sim(&format!("--nodes 8 --scenario grid --observe 1 --svg {}", file.display()));
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(std::fs::read_to_string(&file).unwrap().starts_with("<svg "));
    let report = json(&sim("--nodes 64 --rules report --runs 50 --json"));
    assert!(report["one_tree"].as_u64().unwrap() < 25, "{report}");
    assert!(report["metrics"]["report_broadcast"]["p50"].as_f64() > report["metrics"]["broadcast"]["p50"].as_f64());
}

#[test]
fn wrong_usage_is_exit_code_two() {
    for line in ["--scenario hell", "--nodes 0", "--max-links 1", "--rules tsf", "--runs 0"] {
        let output = sim(line);
        assert_eq!(output.status.code(), Some(2), "{line}: {output:?}");
    }
}
