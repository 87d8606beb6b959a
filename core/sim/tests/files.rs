//! Files found and fetched over several hops, through the whole protocol: links, sessions, credit, tree.

use std::time::Duration;

use bbh_air::Config;
use bbh_proto::api::DownloadState;
use bbh_proto::{Command, Event};
use bbh_sim::invariants::one_tree_each;
use bbh_sim::{NodeIndex, Setup, SharedContent, World};
use bbh_types::{ContentId, Query, SearchMode};
use rand_chacha::ChaCha12Rng;
use rand_core::{Rng, SeedableRng};

const MINUTE: Duration = Duration::from_secs(60);

fn random_file(name: &str, size: usize) -> SharedContent {
    let mut bytes = vec![0; size];
    ChaCha12Rng::seed_from_u64(size as u64).fill_bytes(&mut bytes);
    SharedContent::new(name, bytes)
}

/// A chain in which only neighbours hear each other, grown into one tree.
fn chain(config: Config, seed: u64, length: usize) -> (World, Vec<NodeIndex>) {
    let mut world = World::new(config, seed);
    let nodes = (0..length).map(|n| world.add(Setup::at(8.0 * n as f64, 0.0))).collect();
    world.run_until(MINUTE, |world| one_tree_each(world).is_ok()).expect("a chain becomes one tree");
    (world, nodes)
}

fn download(world: &mut World, node: NodeIndex, content: ContentId) {
    world.command(node, Command::Download { content, name: None, size: None, queue_only: false });
}

fn state(world: &World, node: NodeIndex, content: ContentId) -> Option<DownloadState> {
    world.node(node)?.downloads().into_iter().find(|status| status.content == content).map(|status| status.state)
}

fn verified(world: &World, node: NodeIndex) -> u64 {
    world.node(node).map_or(0, |node| node.downloads().iter().map(|status| status.verified).sum())
}

/// Waits for the file and compares it; returns the time it took.
fn complete(world: &mut World, node: NodeIndex, file: &SharedContent, of: &Bytes) -> Duration {
    let took = world.run_until(20 * MINUTE, |world| state(world, node, file.id()) == Some(DownloadState::Complete));
    let status = world.node(node).map(|node| (node.downloads(), node.counters()));
    let took = took.unwrap_or_else(|| panic!("not complete: {status:?}"));
    assert_eq!(world.disk(node).bytes(file.id()), Some(of.0.as_slice()), "every byte is the same");
    took
}

/// The bytes to compare with.
struct Bytes(Vec<u8>);

fn shared(world: &mut World, node: NodeIndex, file: &SharedContent) -> Bytes {
    world.share(node, file.clone());
    Bytes(world.disk(node).bytes(file.id()).expect("it has just been shared").to_vec())
}

#[test]
fn a_file_is_found_by_word_and_fetched_over_four_hops() {
    let (mut world, nodes) = chain(Config::default(), 1, 5);
    let file = random_file("Blue Brewery Horse.mp3", 500_000);
    let bytes = shared(&mut world, nodes[0], &file);
    let query = Query::new(["brewery"], SearchMode::All).unwrap();
    world.command(nodes[4], Command::Search { search: 5, query, timeout: None });
    world.run_for(Duration::from_secs(11));
    let events: Vec<Event> = world.take_events(nodes[4]).into_iter().map(|(_, event)| event).collect();
    let hit = events.iter().find_map(|event| match event {
        Event::SearchHits { search: 5, source, hops, files, .. } => Some((*source, *hops, files.clone())),
        _ => None,
    });
    assert_eq!(hit, Some((world.id(nodes[0]), 4, vec![file.record.clone()])));
    assert!(events.contains(&Event::SearchDone { search: 5 }));
    download(&mut world, nodes[4], file.id());
    complete(&mut world, nodes[4], &file, &bytes);
}

#[test]
fn a_transfer_over_several_hops_uses_the_radios_well() {
    // The rate of 176 kB/s is shared by all links of a radio, so a relay can pass on half of it at best.
    for (hops, least) in [(1, 0.85), (2, 0.40), (4, 0.40)] {
        let (mut world, nodes) = chain(Config::default(), 2, hops + 1);
        let file = random_file("big.bin", 3 << 20);
        let bytes = shared(&mut world, nodes[0], &file);
        world.run_for(Duration::from_secs(15));
        download(&mut world, nodes[hops], file.id());
        let took = complete(&mut world, nodes[hops], &file, &bytes);
        let share = file.record.size as f64 / took.as_secs_f64() / 176_000.0;
        println!("{hops} hops: {share:.3} R");
        assert!(share > least, "{hops} hops: {share:.3} R, at least {least} expected");
    }
}

#[test]
fn a_relay_that_dies_is_replaced_and_nothing_verified_is_fetched_again() {
    for seed in 0..5 {
        let (mut world, nodes) = chain(Config::default(), seed, 5);
        let spare = world.add(Setup::at(16.0, 8.0));
        let file = random_file("big.bin", 2 << 20);
        let bytes = shared(&mut world, nodes[0], &file);
        world.run_until(MINUTE, |world| one_tree_each(world).is_ok()).unwrap();
        download(&mut world, nodes[4], file.id());
        world.run_until(5 * MINUTE, |world| verified(world, nodes[4]) > 1 << 20).expect("half of it comes");
        world.kill(nodes[2]);
        world.move_to(spare, 16.0, 1.0);
        complete(&mut world, nodes[4], &file, &bytes);
        assert_eq!(world.disk(nodes[4]).written, file.record.size, "each byte was written once");
    }
}

#[test]
fn a_downloader_that_dies_resumes_from_what_was_saved() {
    let (mut world, nodes) = chain(Config::default(), 3, 3);
    let file = random_file("big.bin", 6 << 20);
    let bytes = shared(&mut world, nodes[0], &file);
    download(&mut world, nodes[2], file.id());
    world.run_until(5 * MINUTE, |world| verified(world, nodes[2]) > 5 << 20).expect("most of it comes");
    world.kill(nodes[2]);
    world.run_for(Duration::from_secs(5));
    world.start(nodes[2]);
    complete(&mut world, nodes[2], &file, &bytes);
    let twice = world.disk(nodes[2]).written - file.record.size;
    assert!(twice <= 4 << 20, "{twice} bytes were fetched twice");
}

#[test]
fn another_source_takes_over_when_the_first_is_gone() {
    let (mut world, nodes) = chain(Config::default(), 4, 4);
    let file = random_file("big.bin", 2 << 20);
    let bytes = shared(&mut world, nodes[0], &file);
    download(&mut world, nodes[1], file.id());
    complete(&mut world, nodes[1], &file, &bytes);
    world.kill(nodes[0]);
    world.run_for(Duration::from_secs(10));
    download(&mut world, nodes[3], file.id());
    complete(&mut world, nodes[3], &file, &bytes);
}

#[test]
fn devices_lists_every_other_node_with_its_distance() {
    let (mut world, nodes) = chain(Config::default(), 5, 5);
    for (at, &node) in nodes.iter().enumerate() {
        world.take_events(node);
        world.command(node, Command::ListDevices { token: 9 });
        world.run_for(Duration::from_secs(4));
        let devices = world.take_events(node).into_iter().find_map(|(_, event)| match event {
            Event::Devices { token: 9, devices } => Some(devices),
            _ => None,
        });
        let mut found: Vec<_> = devices.unwrap().into_iter().map(|(device, _)| (device.node, device.hops)).collect();
        let mut expected: Vec<_> = (0..5)
            .filter(|&other| other != at)
            .map(|other| (world.id(nodes[other]), at.abs_diff(other) as u8))
            .collect();
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "as seen by node {at}");
    }
}

#[test]
fn a_ping_during_a_full_transfer_over_four_hops_does_not_wait_for_it() {
    let (mut world, nodes) = chain(Config::default(), 6, 5);
    let file = random_file("big.bin", 4 << 20);
    shared(&mut world, nodes[0], &file);
    download(&mut world, nodes[4], file.id());
    world.run_until(MINUTE, |world| verified(world, nodes[4]) > 200_000).expect("it begins");
    let to = world.id(nodes[0]);
    let mut times = Vec::new();
    for token in 0..20 {
        world.take_events(nodes[4]);
        world.command(nodes[4], Command::Ping { node: to, token });
        world.run_for(Duration::from_secs(1));
        times.extend(world.take_events(nodes[4]).into_iter().find_map(|(_, event)| match event {
            Event::Pong { time, .. } => time,
            _ => None,
        }));
    }
    times.sort();
    println!("ping over 4 hops at full rate: {:?} … {:?}", times.first(), times.last());
    assert_eq!(times.len(), 20, "all came back within a second");
}
