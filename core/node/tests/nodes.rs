//! Whole nodes with real files, sockets and radios.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs::{self, File};
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bbh_node::air::{HubConfig, serve};
use bbh_node::view::{SearchHit, Status};
use bbh_node::{AirOptions, Disk, NodeError, NodeHandle, NodeOptions, SharedThing, StartError, SystemDisk};
use bbh_types::{ContentId, Query, SearchMode};
use rand_chacha::ChaCha12Rng;
use rand_core::{Rng, SeedableRng};
use tokio::net::TcpListener;
use tokio::time::timeout;

const MIB: usize = 1 << 20;

async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(30), work).await.unwrap_or_else(|_| panic!("{what} takes too long"))
}

/// Waits until the node's status is as wanted.
async fn until(node: &NodeHandle, what: &str, wanted: impl Fn(&Status) -> bool) {
    let mut events = node.events();
    soon(what, async {
        while !wanted(&node.status().await.unwrap()) {
            let _ = events.recv().await;
        }
    })
    .await;
}

async fn connected(node: &NodeHandle) {
    until(node, "joining", |status| status.role != "free" && status.links > 0).await;
}

fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    ChaCha12Rng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

fn content_of(bytes: &[u8]) -> ContentId {
    ContentId::from_bytes(*blake3::hash(bytes).as_bytes())
}

async fn listener(data: &Path) -> (NodeHandle, String) {
    let node = NodeHandle::start(NodeOptions { listen: Some("127.0.0.1:0".into()), ..NodeOptions::new(data) });
    let node = soon("starting", node).await.unwrap();
    let address = node.listening().unwrap().to_string();
    (node, address)
}

async fn dialler(data: &Path, peer: &str) -> NodeHandle {
    let options = NodeOptions { peers: vec![peer.to_owned()], ..NodeOptions::new(data) };
    soon("starting", NodeHandle::start(options)).await.unwrap()
}

async fn share(node: &NodeHandle, path: &Path) {
    let report = soon("sharing", node.share(vec![path.to_owned()], |_| {})).await.unwrap();
    assert_eq!(report.problems, Vec::<String>::new());
    assert!(!report.files.is_empty());
}

async fn search(node: &NodeHandle, words: &str) -> Vec<SearchHit> {
    let query = Query::new([words], SearchMode::All).unwrap();
    let stream = node.search(query, Some(Duration::from_secs(2))).await.unwrap();
    soon("searching", stream.collect()).await
}

#[tokio::test]
async fn a_file_is_found_by_a_word_fetched_over_tcp_and_shared_further() {
    let folder = tempfile::tempdir().unwrap();
    let music = folder.path().join("music");
    fs::create_dir(&music).unwrap();
    let song = bytes(1, 3 * MIB + 12_345);
    fs::write(music.join("Hopfen und Malz.ogg"), &song).unwrap();
    fs::write(music.join("Malzbier.txt"), "recipe").unwrap();

    let (one, address) = listener(&folder.path().join("1")).await;
    share(&one, &music).await;
    let two = dialler(&folder.path().join("2"), &address).await;
    connected(&one).await;
    connected(&two).await;

    let devices = soon("listing", two.devices()).await.unwrap();
    assert_eq!(devices.len(), 1);
    assert_eq!((devices[0].node_id, devices[0].hops, devices[0].direct), (one.node_id(), 1, true));
    assert!(soon("pinging", two.ping(one.node_id())).await.unwrap().is_some());

    assert_eq!(search(&two, "schnaps").await, []);
    let hits = search(&two, "HOPFEN malz").await;
    assert_eq!(hits.len(), 1, "{hits:?}");
    let content = content_of(&song);
    assert_eq!((hits[0].content_id, hits[0].size), (content, song.len() as u64));
    assert_eq!(hits[0].sources[0].node_id, one.node_id());
    let json = serde_json::to_value(&hits[0]).unwrap();
    assert_eq!(json["content_id"], content.to_string());
    assert_eq!(json["names"][0], "Hopfen und Malz.ogg");
    assert_eq!(json["kind"], "audio");
    assert!(json["sources"][0]["queue_position"].is_null());

    two.download(content, None, false).await.unwrap();
    let mut states = Vec::new();
    let done = soon("downloading", two.wait_for(content, |view| states.push(view.state))).await.unwrap();
    assert_eq!((done.state, done.verified, &done.error), ("complete", song.len() as u64, &None), "{states:?}");
    let path = PathBuf::from(done.path.unwrap());
    assert_eq!(path, folder.path().join("2/downloads/Hopfen und Malz.ogg"));
    assert!(fs::read(&path).unwrap() == song);
    let shared = two.shared().await.unwrap();
    assert_eq!(shared[0].content_id, content);
    assert_eq!(serde_json::to_value(&shared[0]).unwrap()["md5"].as_str().unwrap().len(), 32);
    assert_eq!(fs::read_dir(folder.path().join("2/partial")).unwrap().count(), 0);

    // What is here already is complete at once, and copied where it is wanted.
    let copy = folder.path().join("elsewhere");
    let held = two.download(content, Some(copy.clone()), false).await.unwrap();
    assert_eq!(held.state, "complete");
    assert!(fs::read(copy.join("Hopfen und Malz.ogg")).unwrap() == song);
    assert_eq!(held.path.unwrap(), copy.join("Hopfen und Malz.ogg").to_string_lossy());

    // Taken out, it is found no more; the file stays.
    one.unshare(SharedThing::Content(content)).await.unwrap();
    let found = search(&two, "hopfen").await;
    assert_eq!(found, [], "only this node has it now, which does not ask itself");
    assert!(music.join("Hopfen und Malz.ogg").exists());
    assert!(matches!(one.unshare(SharedThing::Content(content)).await, Err(NodeError::Failed(_))));

    two.stop().await;
    until(&one, "noticing that the other has gone", |status| status.links == 0).await;
    assert_eq!(two.status().await.unwrap_err(), NodeError::Stopped);
    one.stop().await;
}

#[tokio::test]
async fn a_download_goes_on_after_a_restart_where_it_was_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("film.mkv");
    let film = bytes(2, 6 * MIB);
    fs::write(&file, &film).unwrap();
    let content = content_of(&film);

    let hub = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = hub.local_addr().unwrap().to_string();
    // Slow enough to be interrupted, and with short inquiries.
    let mut config = HubConfig { seed: Some(3), ..HubConfig::default() };
    config.air.rate = 2_500_000;
    config.air.inquiry_full = Duration::from_millis(300);
    config.air.inquiry_low = Duration::from_millis(600);
    let hub = tokio::spawn(serve(hub, config));
    let options = |name: &str, x: f64| NodeOptions {
        air: Some(AirOptions { hub: address.clone(), x, y: 0.0 }),
        settings: vec![("name".to_owned(), name.to_owned())],
        ..NodeOptions::new(folder.path().join(name))
    };
    let one = NodeHandle::start(options("one", 0.0)).await.unwrap();
    let two = NodeHandle::start(options("two", 5.0)).await.unwrap();
    share(&one, &file).await;
    connected(&one).await;
    connected(&two).await;

    two.download(content, Some(folder.path().join("films")), false).await.unwrap();
    let mut events = two.events();
    soon("half of it", async {
        while two.one_download(content).await.unwrap().unwrap().verified < 3 * MIB as u64 {
            let _ = events.recv().await;
        }
    })
    .await;
    two.stop().await;
    let part = folder.path().join(format!("two/partial/{content}.part"));
    assert!(part.exists());
    drop(two);

    let two = NodeHandle::start(options("two", 5.0)).await.unwrap();
    let kept = two.one_download(content).await.unwrap().unwrap();
    assert!(kept.verified >= MIB as u64, "at least what was recorded half way is not fetched again: {kept:?}");
    assert!(["searching", "waiting", "active"].contains(&kept.state), "{kept:?}");
    let done = soon("the rest", two.wait_for(content, |_| {})).await.unwrap();
    assert_eq!(done.state, "complete", "{done:?}");
    assert!(done.verified == film.len() as u64);
    let path = PathBuf::from(done.path.unwrap());
    assert_eq!(path.parent(), Some(folder.path().join("films").as_path()), "the folder asked for is kept");
    assert!(fs::read(path).unwrap() == film);

    two.move_to(500.0, 0.0).await.unwrap();
    until(&two, "losing the neighbour", |status| status.links == 0).await;
    assert!(matches!(two.move_to(f64::NAN, 0.0).await, Err(NodeError::Usage(_))));
    two.stop().await;
    one.stop().await;
    hub.abort();
}

/// A disk with as much room as the test says.
struct SmallDisk(AtomicU64);

impl Disk for SmallDisk {
    fn free_bytes(&self, _folder: &Path) -> io::Result<u64> {
        Ok(self.0.load(Ordering::Relaxed))
    }

    fn write_at(&self, file: &File, bytes: &[u8], start: u64) -> io::Result<()> {
        SystemDisk.write_at(file, bytes, start)
    }
}

#[tokio::test]
async fn a_full_disk_is_told_before_the_first_byte_and_the_download_goes_on_when_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("big.iso");
    let big = bytes(4, 2 * MIB);
    fs::write(&file, &big).unwrap();
    let (one, address) = listener(&folder.path().join("1")).await;
    share(&one, &file).await;
    let disk = Arc::new(SmallDisk(AtomicU64::new(MIB as u64)));
    let options = NodeOptions { peers: vec![address], disk: disk.clone(), ..NodeOptions::new(folder.path().join("2")) };
    let two = NodeHandle::start(options).await.unwrap();
    connected(&two).await;

    let content = content_of(&big);
    two.download(content, None, false).await.unwrap();
    let failed = soon("the refusal", two.wait_for(content, |_| {})).await.unwrap();
    assert_eq!(failed.state, "failed");
    let error = failed.error.unwrap();
    assert!(error.contains("no room") && error.contains("free at least"), "{error}");

    disk.0.store(1 << 40, Ordering::Relaxed);
    two.resume(content).await.unwrap();
    let done = soon("downloading", async {
        loop {
            // The failure may still be what stands there for a moment.
            let view = two.wait_for(content, |_| {}).await.unwrap();
            if view.state == "complete" {
                return view;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(fs::read(done.path.unwrap()).unwrap() == big);
    two.stop().await;
    one.stop().await;
}

#[tokio::test]
async fn one_data_folder_is_one_node_with_its_settings_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let named = NodeOptions { settings: vec![("name".into(), "Anna".into())], ..NodeOptions::new(&data) };
    let first = NodeHandle::start(named).await.unwrap();
    let Err(error) = NodeHandle::start(NodeOptions::new(&data)).await else { panic!("two nodes in one folder") };
    assert!(matches!(error, StartError::InUse(_)), "{error}");

    first.set("max_links", "6").await.unwrap();
    first.set("search_timeout", "3.5").await.unwrap();
    let error = first.set("max_links", "60").await.unwrap_err();
    assert!(matches!(&error, NodeError::Usage(text) if text.contains("1 to 8")), "{error}");
    let status = serde_json::to_value(first.status().await.unwrap()).unwrap();
    assert_eq!(status["name"], "Anna");
    assert_eq!(status["role"], "free");
    assert!(status["tree_id"].is_null() && status["parent"].is_null());
    assert_eq!(status["children"].as_array().unwrap().len(), 0);
    assert_eq!(status["fingerprint"].as_str().unwrap().split('-').count(), 8);
    assert!(matches!(first.move_to(1.0, 1.0).await, Err(NodeError::Usage(_))));
    assert!(first.pause(ContentId::from_bytes([1; 32])).await.is_err());
    let id = first.node_id();
    first.stop().await;

    let second = NodeHandle::start(NodeOptions::new(&data)).await.unwrap();
    assert_eq!(second.node_id(), id);
    let settings = serde_json::to_value(second.settings().await.unwrap()).unwrap();
    assert_eq!(settings["name"], "Anna");
    assert_eq!(settings["max_links"], 6);
    assert_eq!(settings["search_timeout"], 3.5);
    assert_eq!(settings["download_dir"], data.join("downloads").to_str().unwrap());
    let ended = second.clone();
    let waiting = tokio::spawn(async move { ended.ended().await });
    tokio::task::yield_now().await;
    second.stop().await;
    soon("ending", waiting).await.unwrap();
}

#[tokio::test]
async fn the_nodes_own_secrets_are_not_shared_with_the_folder_around_them() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("letter.txt"), "hello").unwrap();
    let data = folder.path().join("data");
    let node = NodeHandle::start(NodeOptions::new(&data)).await.unwrap();
    fs::write(data.join("control.json"), "token").unwrap();
    let report = soon("sharing", node.share(vec![folder.path().to_owned()], |_| {})).await.unwrap();
    let names: Vec<_> = report.files.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(names, ["letter.txt"]);
    node.stop().await;
}

#[tokio::test]
async fn an_address_in_use_is_named_and_leaves_nothing_running() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let options = NodeOptions { listen: Some(address.clone()), ..NodeOptions::new(folder.path()) };
    let Err(error) = NodeHandle::start(options).await else { panic!("it listens at a taken address") };
    assert!(error.to_string().contains(&address), "{error}");
    let Err(error) = NodeHandle::start(NodeOptions {
        air: Some(AirOptions { hub: address, x: 0.0, y: 0.0 }),
        settings: vec![("max_links".into(), "99".into())],
        ..NodeOptions::new(folder.path())
    })
    .await
    else {
        panic!("it starts with nonsense")
    };
    assert!(error.to_string().contains("1 to 8"), "{error}");
    NodeHandle::start(NodeOptions::new(folder.path())).await.unwrap().stop().await;
}
