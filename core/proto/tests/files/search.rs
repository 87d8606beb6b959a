//! Searches.

use bbh_proto::api::{Command, Event};
use bbh_types::{BoundedVec, NodeId};
use bbh_wire::Message;
use bbh_wire::message::{SearchReply, SearchRequest};

use crate::world::{World, ms, secs, word};

/// Who was found having how many files, per search.
fn hits(world: &World, peer: usize, search: u32) -> Vec<(NodeId, u8, usize)> {
    let hits = world.peers[peer].events.iter().filter_map(|(_, event)| match event {
        Event::SearchHits { search: other, source, hops, files, .. } if *other == search => {
            Some((*source, *hops, files.len()))
        }
        _ => None,
    });
    hits.collect()
}

fn done(world: &World, peer: usize, search: u32) -> usize {
    world.peers[peer].events.iter().filter(|(_, event)| *event == Event::SearchDone { search }).count()
}

fn search(world: &mut World, peer: usize, number: u32, text: &str) {
    world.command(peer, Command::Search { search: number, query: word(text), timeout: None });
}

#[test]
fn a_search_finds_what_others_have_with_hops_and_ends_at_its_time() {
    let mut world = World::new(4, 1);
    world.set_hops(0, 2, 3);
    world.share(0, "my own ale.txt", b"0");
    let _ = world.share(1, "pale ale.txt", b"1");
    world.share(2, "brown ale.txt", b"2");
    world.share(2, "red ale.txt", b"3");
    world.share(3, "stout.txt", b"4");
    search(&mut world, 0, 7, "ale");
    search(&mut world, 0, 8, "stout");
    world.run_for(ms(9_999));
    let mut found = hits(&world, 0, 7);
    found.sort_by_key(|hit| hit.1);
    assert_eq!(found, [(world.peers[1].id, 1, 1), (world.peers[2].id, 3, 2)], "own files are not shown");
    assert_eq!(hits(&world, 0, 8), [(world.peers[3].id, 1, 1)]);
    assert_eq!(done(&world, 0, 7), 0);
    world.run_for(ms(2));
    assert_eq!((done(&world, 0, 7), done(&world, 0, 8)), (1, 1));
    assert_eq!(world.next_timeout(0), None, "nothing ticks afterwards");
}

#[test]
fn who_has_nothing_stays_silent_and_the_search_just_ends() {
    let mut world = World::new(3, 2);
    world.share(1, "stout.txt", b"1");
    search(&mut world, 0, 1, "ale");
    world.run_for(secs(11));
    assert!(hits(&world, 0, 1).is_empty());
    assert_eq!(done(&world, 0, 1), 1);
    assert!(world.peers[0].heard.is_empty());
}

#[test]
fn replies_come_in_pages_and_all_of_them_count() {
    let mut world = World::new(2, 3);
    for number in 0..150 {
        world.share(1, &format!("ale {number}"), format!("{number}").as_bytes());
    }
    search(&mut world, 0, 1, "ale");
    world.run_for(secs(11));
    let sizes: Vec<_> = hits(&world, 0, 1).into_iter().map(|hit| hit.2).collect();
    assert_eq!(sizes, [64, 64, 22]);
}

#[test]
fn late_unsolicited_and_repeated_replies_are_dropped() {
    let mut world = World::new(2, 4);
    world.share(1, "ale", b"1");
    search(&mut world, 0, 1, "ale");
    world.run_for(secs(1));
    let Some((_, Message::SearchReply(reply))) = world.peers[0].heard.last().cloned() else { panic!("no reply") };
    assert_eq!(hits(&world, 0, 1).len(), 1);
    world.inject(1, 0, false, reply.clone());
    world.inject(1, 0, false, SearchReply { search: reply.search.wrapping_add(1), ..reply.clone() });
    assert_eq!(hits(&world, 0, 1).len(), 1);
    world.run_for(secs(10));
    world.inject(1, 0, false, reply);
    assert_eq!(hits(&world, 0, 1).len(), 1);
}

#[test]
fn a_cancelled_search_is_done_at_once_and_its_replies_are_late() {
    let mut world = World::new(2, 5);
    world.share(1, "ale", b"1");
    search(&mut world, 0, 1, "ale");
    world.command(0, Command::CancelSearch { search: 1 });
    assert_eq!(done(&world, 0, 1), 1);
    world.run_for(secs(20));
    assert!(hits(&world, 0, 1).is_empty());
    assert_eq!(done(&world, 0, 1), 1);
}

#[test]
fn nodes_that_appear_during_the_search_are_asked_too() {
    let mut world = World::new(2, 6);
    world.share(1, "ale", b"1");
    world.part(0, &[1], false);
    search(&mut world, 0, 1, "ale");
    world.run_for(secs(3));
    assert_eq!(done(&world, 0, 1), 0, "without a network it lasts as long as with one");
    world.join(0, &[1]);
    world.run_for(secs(8));
    assert_eq!(hits(&world, 0, 1).len(), 1);
    assert_eq!(done(&world, 0, 1), 1);
}

#[test]
fn a_flood_from_one_source_leaves_others_served() {
    let mut world = World::new(3, 7);
    world.share(1, "ale", b"1");
    world.peers[1].library_busy = true;
    for search in 0..10_000 {
        world.inject(0, 1, true, SearchRequest { search, query: word("ale") });
    }
    assert!(world.peers[1].unanswered.len() <= 16, "{}", world.peers[1].unanswered.len());
    search(&mut world, 2, 1, "ale");
    world.run_for(secs(1));
    world.library_wakes(1);
    world.run_for(secs(1));
    assert_eq!(hits(&world, 2, 1).len(), 1);
}

#[test]
fn what_one_search_takes_is_bounded() {
    let mut world = World::new(2, 8);
    world.share(1, "ale", b"1");
    search(&mut world, 0, 1, "ale");
    world.run_for(secs(1));
    let Some((_, Message::SearchReply(reply))) = world.peers[0].heard.last().cloned() else { panic!("no reply") };
    let files = vec![reply.files[0].clone(); 64];
    for page in 0..10_000 {
        let files = BoundedVec::new(files.clone()).unwrap();
        world.inject(1, 0, false, SearchReply { page, last: false, files, ..reply.clone() });
    }
    let found: usize = hits(&world, 0, 1).into_iter().map(|hit| hit.2).sum();
    assert!(found <= 64 * 64, "{found}");
    for number in 0..100 {
        search(&mut world, 0, 1000 + number, "ale");
    }
    let ended = (0..100).filter(|number| done(&world, 0, 1000 + number) == 1).count();
    assert!(ended >= 100 - 64, "the oldest give way");
}
