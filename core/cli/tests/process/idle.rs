//! What a node costs that has nothing to do.
#![cfg(target_os = "linux")]

use std::fs;
use std::time::Duration;

use crate::support::{Air, Node, one_tree, until};

const WINDOW: Duration = Duration::from_secs(10);

/// How often any thread of the process has gone to sleep so far.
fn sleeps(pid: u32) -> u64 {
    fs::read_dir(format!("/proc/{pid}/task"))
        .unwrap()
        .filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("status")).ok())
        .map(|status| field(&status, "voluntary_ctxt_switches:"))
        .sum()
}

fn field(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// Wake-ups per second over the quietest of a few windows: a tree that was just formed still settles.
fn wakeups(node: &Node, enough: f64) -> f64 {
    let mut least = f64::INFINITY;
    for _ in 0..4 {
        let before = sleeps(node.process.pid());
        std::thread::sleep(WINDOW);
        least = least.min((sleeps(node.process.pid()) - before) as f64 / WINDOW.as_secs_f64());
        if least < enough {
            break;
        }
    }
    least
}

fn resident_mb(node: &Node) -> f64 {
    let status = fs::read_to_string(format!("/proc/{}/status", node.process.pid())).unwrap();
    field(&status, "VmRSS:") as f64 * 1024.0 / 1e6
}

#[test]
fn alone_it_hardly_wakes_up() {
    let air = Air::start();
    let node = air.node("alone", "0,0");
    let wakeups = wakeups(&node, 1.0);
    eprintln!("alone: {wakeups:.1} wake-ups/s, {:.1} MB", resident_mb(&node));
    assert!(wakeups < 1.0, "{wakeups} wake-ups a second");
    assert!(resident_mb(&node) < 30.0, "{} MB", resident_mb(&node));
}

#[test]
fn with_four_links_it_rarely_wakes_up() {
    let air = Air::start();
    let centre = air.node("centre", "0,0");
    // Each hears the centre only.
    let around: Vec<_> = ["8,0", "-8,0", "0,8", "0,-8"].iter().map(|at| air.node(&format!("at {at}"), at)).collect();
    one_tree(&around.iter().chain([&centre]).collect::<Vec<_>>());
    until("four links", || (centre.status()["links"] == 4).then_some(()));
    let wakeups = wakeups(&centre, 3.0);
    eprintln!("four links: {wakeups:.1} wake-ups/s, {:.1} MB", resident_mb(&centre));
    assert!(wakeups <= 3.0, "{wakeups} wake-ups a second");
    assert!(resident_mb(&centre) < 30.0, "{} MB", resident_mb(&centre));
}
