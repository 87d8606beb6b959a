//! How fast a file goes from one node to another over loopback TCP, and what idle nodes cost. Prints its figures.
//!
//! `cargo bench -p bbh-node` moves 512 MiB; `cargo bench -p bbh-node -- 2048` that many MiB.

#![allow(clippy::unwrap_used, reason = "a bench stops at the first failure")]

use std::fs;
use std::io::Write;
use std::time::{Duration, Instant};

use bbh_node::{NodeHandle, NodeOptions};

fn switches() -> u64 {
    // Voluntary context switches of all threads: what wakes the processor. Linux only.
    let threads = fs::read_dir("/proc/self/task").map(|tasks| tasks.flatten().collect::<Vec<_>>()).unwrap_or_default();
    let of = |path: std::path::PathBuf| {
        let status = fs::read_to_string(path.join("status")).ok()?;
        let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches"))?;
        line.split_whitespace().last()?.parse::<u64>().ok()
    };
    threads.into_iter().filter_map(|task| of(task.path())).sum()
}

fn resident() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or("VmRSS: unknown");
    line.split_once(':').map_or("unknown", |(_, value)| value.trim()).to_owned()
}

/// Processor time of each thread so far, in hundredths of a second: unlike the clock, it does not depend on what else the
/// machine does. Linux only.
fn busy() -> Vec<(String, u64)> {
    let threads = fs::read_dir("/proc/self/task").map(|tasks| tasks.flatten().collect::<Vec<_>>()).unwrap_or_default();
    let of = |path: std::path::PathBuf| {
        let stat = fs::read_to_string(path.join("stat")).ok()?;
        let (head, tail) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = tail.split_whitespace().collect();
        let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
        let id = path.file_name()?.to_string_lossy().into_owned();
        Some((format!("{} {id}", head.split_once('(')?.1), ticks))
    };
    threads.into_iter().filter_map(|task| of(task.path())).collect()
}

async fn idle(what: &str, seconds: u64) {
    tokio::time::sleep(Duration::from_secs(3)).await;
    let before = switches();
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let rate = (switches() - before) as f64 / seconds as f64;
    println!("{what}: {rate:.2} wake-ups a second in the process, resident {}", resident());
}

fn main() {
    let mib: usize = std::env::args().filter_map(|argument| argument.parse().ok()).next().unwrap_or(512);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("big.bin");
        let mut hasher = blake3::Hasher::new();
        let mut out = fs::File::create(&file).unwrap();
        for number in 0..mib {
            let block: Vec<u8> = (0..1 << 20).map(|byte: usize| (byte.wrapping_mul(number | 1) >> 7) as u8).collect();
            hasher.update(&block);
            out.write_all(&block).unwrap();
        }
        drop(out);
        let content = bbh_types::ContentId::from_bytes(*hasher.finalize().as_bytes());

        let listening = NodeOptions { listen: Some("127.0.0.1:0".into()), ..NodeOptions::new(folder.path().join("1")) };
        let one = NodeHandle::start(listening).await.unwrap();
        idle("one node without links", 10).await;
        let peers = vec![one.listening().unwrap().to_string()];
        let two = NodeHandle::start(NodeOptions { peers, ..NodeOptions::new(folder.path().join("2")) }).await.unwrap();
        while two.status().await.unwrap().links == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        idle("two nodes with a link", 20).await;

        let begun = Instant::now();
        one.share(vec![file], |_| {}).await.unwrap();
        let took = begun.elapsed().as_secs_f64();
        println!("sharing {mib} MiB: {took:.2} s, {:.0} MB/s", (mib << 20) as f64 / took / 1e6);
        let before = busy();
        let begun = Instant::now();
        two.download(content, None, false).await.unwrap();
        let mut arrived = None;
        let done = two
            .wait_for(content, |view| {
                if view.size == Some(view.verified) {
                    arrived.get_or_insert_with(Instant::now);
                }
            })
            .await
            .unwrap();
        assert_eq!(done.state, "complete", "{done:?}");
        let rate = |end: Instant| (mib << 20) as f64 / (end - begun).as_secs_f64() / 1e6;
        for (thread, ticks) in busy() {
            let earlier = before.iter().find(|(name, _)| *name == thread).map_or(0, |(_, ticks)| *ticks);
            if ticks - earlier > 1 {
                let per_gb = (ticks - earlier) as f64 * 10.0 / ((mib << 20) as f64 / 1e9);
                println!("  thread {thread}: {per_gb:.0} ms of processor time per GB");
            }
        }
        println!("arrived and verified: {:.0} MB/s", arrived.map_or(0.0, rate));
        println!("moved, hashed again and shared: {:.0} MB/s, resident {}", rate(Instant::now()), resident());
        two.stop().await;
        one.stop().await;
    });
}
