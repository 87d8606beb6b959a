//! Sharing, searching and downloading between processes.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Air, folder_with, noise, one_tree, tagged_audio, until};

#[test]
fn a_file_is_found_by_its_tag_over_two_hops_and_arrives_whole() {
    let air = Air::start();
    let (source, relay, asker) = (air.node("source", "0,0"), air.node("relay", "8,0"), air.node("asker", "16,0"));
    one_tree(&[&source, &relay, &asker]);
    let folder = folder_with(air.folder.path(), &[("big.bin", &noise(3_000_000)), ("empty.txt", b"")]);
    tagged_audio(&folder.join("x.mp3"), "Kellerbier at Midnight");
    assert_eq!(source.json(&["share", folder.to_str().unwrap()]).as_array().unwrap().len(), 3);

    let found = asker.find("KELLERBIER");
    assert_eq!(found["names"], json!(["x.mp3"]));
    assert_eq!(found["sources"][0]["hops"], 2);
    let audio = found["content_id"].as_str().unwrap();
    let big = asker.find("big")["content_id"].as_str().unwrap().to_owned();
    let empty = asker.find("empty")["content_id"].as_str().unwrap().to_owned();
    let target = air.folder.path().join("target");
    for (content, name) in [(audio, "x.mp3"), (&big, "big.bin"), (&empty, "empty.txt")] {
        let done = asker.bbh(&["download", content, "--to", target.to_str().unwrap(), "--wait"]);
        assert_eq!(done.code, 0, "{done:?}");
        assert!(done.stdout.contains(name), "{done:?}");
        assert!(std::fs::read(target.join(name)).unwrap() == std::fs::read(folder.join(name)).unwrap(), "{name}");
    }
    let human = asker.bbh(&["search", "kellerbier", "--timeout", "2"]);
    assert!(human.stdout.contains("x.mp3") && human.stdout.contains(audio), "{human:?}");
    assert!(relay.json(&["shared"]).as_array().unwrap().is_empty(), "a relay keeps nothing");
}

#[test]
fn what_nobody_has_fails_at_once() {
    let air = Air::start();
    let (anna, ben) = (air.node("anna", "0,0"), air.node("ben", "5,0"));
    one_tree(&[&anna, &ben]);
    let begin = Instant::now();
    let failed = anna.bbh(&["download", &"cd".repeat(32), "--wait", "--json"]);
    assert_eq!(failed.code, 1, "{failed:?}");
    assert_eq!(failed.json()["state"], "failed");
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    assert_eq!(anna.bbh(&["cancel", &"cd".repeat(32)]).code, 0);
    assert_eq!(anna.json(&["downloads"]), json!([]));
}

#[test]
fn downloads_can_be_queued_started_paused_resumed_and_cancelled() {
    let air = Air::with_rate(1_000_000);
    let (source, asker) = (air.node("source", "0,0"), air.node("asker", "5,0"));
    one_tree(&[&source, &asker]);
    let folder = folder_with(air.folder.path(), &[("long.bin", &noise(6_000_000))]);
    source.json(&["share", folder.to_str().unwrap()]);
    let content = asker.find("long")["content_id"].as_str().unwrap().to_owned();
    let state = |wanted: &str| {
        until(wanted, || asker.download(&content).filter(|download| download["state"] == wanted));
    };

    assert_eq!(asker.json(&["download", &content, "--queue"])["state"], "queued");
    assert_eq!(asker.bbh(&["start", &content]).code, 0);
    until("bytes arrive", || asker.download(&content).filter(|download| download["verified"].as_u64() > Some(0)));
    assert_eq!(asker.bbh(&["pause", &content]).code, 0);
    state("paused");
    let timed_out = asker.bbh(&["download", &content, "--wait", "--timeout", "0.1"]);
    assert_eq!(timed_out.code, 1, "{timed_out:?}");
    assert_eq!(asker.bbh(&["resume", &content]).code, 0);
    state("active");
    assert_eq!(asker.bbh(&["cancel", &content]).code, 0);
    assert_eq!(asker.download(&content), None);
}

#[test]
fn a_download_goes_on_where_a_killed_node_left_it() {
    const SIZE: usize = 24_000_000;
    let air = Air::start();
    let (source, mut asker) = (air.node("source", "0,0"), air.node("asker", "5,0"));
    one_tree(&[&source, &asker]);
    let bytes = noise(SIZE);
    let folder = folder_with(air.folder.path(), &[("film.bin", &bytes)]);
    source.json(&["share", folder.to_str().unwrap()]);
    let content = asker.find("film")["content_id"].as_str().unwrap().to_owned();
    assert_eq!(asker.bbh(&["download", &content]).code, 0);
    let before = until("half of it", || {
        asker.download(&content)?["verified"].as_u64().filter(|verified| *verified > SIZE as u64 / 2)
    });
    asker.process.kill();

    let asker = air.node("asker", "5,0");
    let after = asker.download(&content).expect("it is still on the list")["verified"].as_u64().unwrap();
    assert!(after + (4 << 20) >= before, "{before} were verified, {after} are left");
    let done = asker.json(&["download", &content, "--wait"]);
    assert_eq!(done["state"], "complete");
    assert!(std::fs::read(done["path"].as_str().unwrap()).unwrap() == bytes);
}

#[cfg(unix)]
#[test]
fn the_end_of_waiting_is_not_the_end_of_the_download() {
    let air = Air::with_rate(1_000_000);
    let (source, asker) = (air.node("source", "0,0"), air.node("asker", "5,0"));
    one_tree(&[&source, &asker]);
    let folder = folder_with(air.folder.path(), &[("slow.bin", &noise(4_000_000))]);
    source.json(&["share", folder.to_str().unwrap()]);
    let content = asker.find("slow")["content_id"].as_str().unwrap().to_owned();
    let waiting = asker
        .command(&["download", &content, "--wait"])
        .stderr(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    until("bytes arrive", || asker.download(&content).filter(|download| download["verified"].as_u64() > Some(0)));
    let pid = waiting.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let ended = waiting.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(1));
    assert!(String::from_utf8(ended.stderr).unwrap().contains("goes on"));
    until("complete", || asker.download(&content).filter(|download| download["state"] == "complete"));
}
