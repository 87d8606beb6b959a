//! Uploads: offers, slots, the queue, the stream.

use bbh_bao::GROUP;
use bbh_proto::api::{Command, DownloadState};
use bbh_types::{BoundedVec, ContentId};
use bbh_wire::Message;
use bbh_wire::message::{
    CancelReason, DownloadCancel, DownloadInquiry, DownloadOrder, DownloadReply, Offer, UploadAck, UploadStart,
};

use crate::world::{World, ms, secs};

const MIB: usize = 1 << 20;

fn order(transfer: u32, content: ContentId, ranges: &[(u64, u64)], granted: u64) -> DownloadOrder {
    DownloadOrder { transfer, content, ranges: BoundedVec::new(ranges.to_vec()).unwrap(), granted }
}

fn starts(world: &World, peer: usize) -> Vec<Option<u16>> {
    let starts = world.peers[peer].heard.iter().filter_map(|(_, message)| match message {
        Message::UploadStart(UploadStart { queue_position, .. }) => Some(*queue_position),
        _ => None,
    });
    starts.collect()
}

fn cancels(world: &World, peer: usize) -> Vec<CancelReason> {
    let cancels = world.peers[peer].heard.iter().filter_map(|(_, message)| match message {
        Message::DownloadCancel(DownloadCancel { by_downloader: false, reason, .. }) => Some(*reason),
        _ => None,
    });
    cancels.collect()
}

fn sent_to(world: &World, peer: usize) -> u64 {
    world.peers[peer].arrived.iter().map(|(_, _, start, end)| end - start).sum()
}

#[test]
fn only_who_has_it_answers_a_broadcast_and_everybody_answers_when_asked_alone() {
    let mut world = World::new(3, 1);
    let content = world.share(1, "beer", &[7; 100]);
    for (broadcast, replies) in [(true, 1), (false, 2)] {
        world.peers[0].heard.clear();
        for to in [1, 2] {
            world.inject(0, to, broadcast, DownloadInquiry { inquiry: 5, content });
        }
        world.run_for(secs(1));
        let offers: Vec<_> = world.peers[0].heard.iter().map(|(from, message)| (*from, message.clone())).collect();
        assert_eq!(offers.len(), replies);
        let available = Offer::Available { size: 100, queue_position: None };
        assert!(offers.contains(&(1, DownloadReply { inquiry: 5, content, offer: available }.into())));
        let absent = DownloadReply { inquiry: 5, content, offer: Offer::Absent };
        assert_eq!(offers.contains(&(2, absent.into())), !broadcast);
    }
}

#[test]
fn with_one_slot_the_second_waits_with_its_place_and_proceeds() {
    let mut world = World::new(4, 2);
    let bytes = world.bytes(4 * MIB);
    let content = world.share(0, "beer", &bytes);
    world.peers[0].settings.upload_slots = 1;
    world.rate = 1_000_000;
    for peer in 1..=3 {
        world.download(peer, content);
        world.run_for(ms(500));
    }
    assert_eq!(world.state(1, content), DownloadState::Active);
    for (peer, place) in [(2, 1), (3, 2)] {
        let status = world.status(peer, content);
        assert_eq!(status.state, DownloadState::Waiting);
        assert_eq!(status.sources[0].queue_position, Some(place));
        assert!(status.error.unwrap().contains("queue"));
    }
    let uploads = world.peers[0].files.uploads();
    assert_eq!(uploads.iter().map(|upload| upload.queue_position).collect::<Vec<_>>(), [None, Some(1), Some(2)]);
    assert!(uploads[0].sent > 0 && uploads[0].rate > 0 && uploads[0].name == "beer");
    for peer in 1..=3 {
        world.run_until_state(peer, content, DownloadState::Complete, secs(20));
    }
    assert_eq!(starts(&world, 3).first(), Some(&Some(2)));
    assert!(starts(&world, 3).contains(&Some(1)), "told when its place changes");
}

#[test]
fn a_long_wait_in_the_queue_is_survived_and_a_silent_one_loses_its_place() {
    let mut world = World::new(4, 3);
    let bytes = world.bytes(6 * MIB);
    let content = world.share(0, "beer", &bytes);
    world.peers[0].settings.upload_slots = 1;
    world.rate = 50_000;
    world.download(1, content);
    world.run_for(secs(2));
    world.download(2, content);
    // Orders once and never again.
    world.peers[3].scripted = true;
    world.inject(3, 0, false, order(9, content, &[(0, GROUP)], 1 << 20));
    world.run_for(secs(10));
    assert_eq!(world.peers[0].files.uploads().len(), 3);
    world.run_for(secs(80));
    assert_eq!(world.state(2, content), DownloadState::Waiting);
    let waiting: Vec<_> = world.peers[0].files.uploads().into_iter().map(|upload| upload.node).collect();
    assert_eq!(waiting, [world.peers[1].id, world.peers[2].id]);
    for peer in [1, 2] {
        world.run_until_state(peer, content, DownloadState::Complete, secs(300));
    }
}

#[test]
fn who_waits_in_a_queue_takes_a_free_slot_elsewhere() {
    let mut world = World::new(4, 4);
    let bytes = world.bytes(6 * MIB);
    let content = world.share(0, "beer", &bytes);
    world.peers[0].settings.upload_slots = 1;
    world.rate = 30_000;
    world.download(1, content);
    world.run_for(secs(2));
    world.download(2, content);
    world.run_for(secs(2));
    assert_eq!(world.state(2, content), DownloadState::Waiting);
    world.share(3, "beer", &bytes);
    world.run_for(secs(40));
    assert_eq!(world.state(2, content), DownloadState::Active);
    assert!(world.peers[2].arrived.iter().all(|piece| piece.0 == 3));
    assert_eq!(world.peers[0].files.uploads().len(), 1, "the place in the first queue is given back");
}

#[test]
fn more_slots_take_in_who_waits() {
    let mut world = World::new(3, 5);
    let bytes = world.bytes(8 * MIB);
    let content = world.share(0, "beer", &bytes);
    world.peers[0].settings.upload_slots = 1;
    for peer in 1..=2 {
        world.download(peer, content);
        world.run_for(ms(500));
    }
    assert_eq!(world.state(2, content), DownloadState::Waiting);
    world.peers[0].settings.upload_slots = 2;
    let settings = world.peers[0].settings.clone();
    world.command(0, Command::Configure(settings));
    world.run_for(ms(200));
    assert_eq!(world.state(2, content), DownloadState::Active);
}

#[test]
fn no_more_is_sent_than_granted_and_going_on_needs_an_ack() {
    let mut world = World::new(2, 6);
    world.peers[1].scripted = true;
    let bytes = world.bytes(4 * MIB);
    let content = world.share(0, "beer", &bytes);
    world.inject(1, 0, false, order(1, content, &[(0, 4 * MIB as u64)], 200_000));
    world.run_for(secs(5));
    let first = sent_to(&world, 1);
    assert!((100_000..200_000).contains(&first), "{first}");
    assert_eq!(world.peers[0].files.uploads().len(), 1);
    world.inject(1, 0, false, UploadAck { transfer: 1, received: 0, granted: 400_000 });
    world.run_for(secs(5));
    assert!((300_000..400_000).contains(&sent_to(&world, 1)));
    world.run_for(secs(31));
    assert!(world.peers[0].files.uploads().is_empty(), "who grants nothing more loses the slot");
    assert_eq!(world.next_timeout(0), None);
}

#[test]
fn the_same_order_again_replaces_what_was_not_sent() {
    let mut world = World::new(2, 7);
    world.peers[1].scripted = true;
    let bytes = world.bytes(4 * MIB);
    let content = world.share(0, "beer", &bytes);
    world.inject(1, 0, false, order(1, content, &[(0, 4 * MIB as u64)], 100_000));
    world.run_for(secs(1));
    let before = world.peers[1].arrived.len();
    world.inject(1, 0, false, order(1, content, &[(2 * MIB as u64, 2 * MIB as u64 + GROUP)], 300_000));
    world.run_for(secs(1));
    let after: Vec<_> = world.peers[1].arrived[before..].iter().map(|piece| (piece.2, piece.3)).collect();
    assert_eq!(after, [(2 * MIB as u64, 2 * MIB as u64 + GROUP)]);
}

#[test]
fn wrong_orders_and_absent_contents_are_refused() {
    let mut world = World::new(2, 8);
    world.peers[1].scripted = true;
    let content = world.share(0, "beer", &[1; 100_000]);
    for ranges in [&[(1, GROUP)][..], &[(0, 200_000)], &[(GROUP, GROUP)], &[]] {
        world.inject(1, 0, false, order(1, content, ranges, 1 << 20));
    }
    world.run_for(secs(1));
    // Orders with one number while the library is asked count as one.
    assert_eq!(cancels(&world, 1), [CancelReason::BadOrder]);
    world.inject(1, 0, false, order(2, ContentId::from_bytes([3; 32]), &[(0, GROUP)], 1 << 20));
    world.run_for(secs(1));
    assert_eq!(cancels(&world, 1), [CancelReason::BadOrder, CancelReason::Absent]);
    assert!(world.peers[0].files.uploads().is_empty());
    assert_eq!(sent_to(&world, 1), 0);
}

#[test]
fn a_file_that_can_not_be_read_ends_the_transfer() {
    let mut world = World::new(2, 9);
    world.peers[1].scripted = true;
    let content = world.share(0, "beer", &[1; 100_000]);
    world.peers[0].broken_library = true;
    world.inject(1, 0, false, order(1, content, &[(0, 100_000)], 1 << 20));
    world.run_for(secs(1));
    assert_eq!(cancels(&world, 1), [CancelReason::Failed]);
    world.run_for(secs(3));
    assert!(world.peers[0].files.uploads().is_empty());
}

#[test]
fn the_queue_is_bounded_and_says_so() {
    let mut world = World::new(70, 10);
    let content = world.share(0, "beer", &[1; 100_000]);
    world.peers[0].settings.upload_slots = 0;
    for peer in 1..70 {
        world.peers[peer].scripted = true;
        world.inject(peer, 0, false, order(1, content, &[(0, GROUP)], 1 << 20));
        world.run_for(ms(2));
    }
    world.run_for(secs(1));
    let full = (1..70).filter(|&peer| cancels(&world, peer) == [CancelReason::Full]).count();
    assert_eq!((world.peers[0].files.uploads().len(), full), (64, 5));
    world.inject(69, 0, true, DownloadInquiry { inquiry: 1, content });
    world.run_for(secs(1));
    let reply = DownloadReply { inquiry: 1, content, offer: Offer::Full };
    assert_eq!(world.peers[69].heard.last(), Some(&(0, reply.into())));
}

#[test]
fn an_unreachable_downloader_frees_its_slot() {
    let mut world = World::new(3, 11);
    let bytes = world.bytes(8 * MIB);
    let content = world.share(0, "beer", &bytes);
    world.peers[0].settings.upload_slots = 1;
    for peer in 1..=2 {
        world.download(peer, content);
        world.run_for(ms(500));
    }
    world.part(1, &[0, 2], false);
    world.run_for(secs(2));
    world.part(1, &[0], true);
    world.run_for(secs(11));
    assert_eq!(world.state(2, content), DownloadState::Active);
    world.run_until_state(2, content, DownloadState::Complete, secs(20));
}

#[test]
fn several_transfers_of_one_downloader_share_a_slot_and_both_move() {
    let mut world = World::new(3, 12);
    world.peers[0].settings.upload_slots = 1;
    let contents: Vec<_> = (0..3)
        .map(|_| {
            let bytes = world.bytes(3 * MIB);
            world.share(0, "beer", &bytes)
        })
        .collect();
    world.download(1, contents[0]);
    world.download(1, contents[1]);
    world.run_for(secs(1));
    assert!(contents[..2].iter().all(|&content| world.status(1, content).verified > 0));
    world.download(2, contents[2]);
    world.run_for(secs(1));
    assert_eq!(world.state(2, contents[2]), DownloadState::Waiting);
    for (peer, content) in [(1, contents[0]), (1, contents[1]), (2, contents[2])] {
        world.run_until_state(peer, content, DownloadState::Complete, secs(20));
    }
}
