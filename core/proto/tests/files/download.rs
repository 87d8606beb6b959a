//! Downloads.

use bbh_bao::GROUP;
use bbh_proto::api::{Command, DownloadState, Event, Intent};
use bbh_types::ContentId;
use bbh_wire::Message;
use bbh_wire::message::{CancelReason, DownloadCancel};

use crate::world::{Lie, World, ms, secs};

const MIB: usize = 1 << 20;

/// A world in which node 0 downloads and the others share the same file.
fn world(peers: usize, seed: u64, size: usize) -> (World, ContentId) {
    let mut world = World::new(peers, seed);
    let bytes = world.bytes(size);
    let mut content = ContentId::from_bytes([0; 32]);
    for peer in 1..peers {
        content = world.share(peer, "beer.txt", &bytes);
    }
    (world, content)
}

fn arrived_bytes(world: &World, peer: usize) -> u64 {
    world.peers[peer].arrived.iter().map(|(_, _, start, end)| end - start).sum()
}

#[test]
fn files_of_all_sizes_arrive_to_the_last_byte() {
    let group = GROUP as usize;
    for (seed, size) in [0, 1, group - 1, group, group + 1, 4 * group, 5 * MIB + 3].into_iter().enumerate() {
        let (mut world, content) = world(2, seed as u64, size);
        world.download(0, content);
        assert_eq!(world.state(0, content), DownloadState::Searching);
        world.run_until_state(0, content, DownloadState::Complete, secs(10));
        world.assert_complete(0, 1, content);
        assert_eq!(arrived_bytes(&world, 0), size as u64, "nothing twice");
        world.run_for(secs(5));
        assert_eq!(world.peers[0].saved[&content].intent, Intent::Complete);
        assert_eq!(world.next_timeout(0), None, "nothing ticks when all is done");
        assert_eq!(world.next_timeout(1), None);
        assert!(world.peers[1].files.uploads().is_empty());
    }
}

#[test]
fn space_is_taken_only_for_a_size_that_is_proven() {
    let (mut world, content) = world(2, 1, 3 * MIB);
    world.download(0, content);
    world.run_until(secs(10), |world| !world.peers[0].arrived.is_empty());
    assert_eq!(world.peers[0].arrived[0].3, 3 * MIB as u64, "the last group comes first");
    world.run_until_state(0, content, DownloadState::Complete, secs(10));
    assert_eq!(world.peers[0].reserved, [3 * MIB as u64]);
}

#[test]
fn progress_is_told_but_not_for_every_piece() {
    let (mut world, content) = world(2, 2, 20 * MIB);
    world.download(0, content);
    world.run_until_state(0, content, DownloadState::Active, secs(10));
    world.run_for(secs(2));
    let rate = world.status(0, content).rate;
    assert!((2_000_000..5_000_000).contains(&rate), "{rate}");
    world.peers[0].events.clear();
    world.run_for(secs(2));
    let events = world.peers[0].events.len();
    assert!((4..=9).contains(&events), "{events}");
}

#[test]
fn when_the_source_vanishes_another_brings_only_the_rest() {
    let (mut world, content) = world(3, 3, 8 * MIB);
    world.download(0, content);
    world.run_until(secs(10), |world| world.status(0, content).verified > 3 * MIB as u64);
    let first = world.peers[0].arrived[0].0;
    world.part(first, &[0, 3 - first], false);
    world.run_until_state(0, content, DownloadState::Complete, secs(30));
    world.assert_complete(0, 3 - first, content);
    assert!(world.peers[0].arrived.iter().any(|piece| piece.0 != first));
    assert_eq!(arrived_bytes(&world, 0), 8 * MIB as u64, "what was verified is not fetched again");
}

#[test]
fn a_relay_that_says_unreachable_makes_the_change_quick() {
    let (mut world, content) = world(3, 4, 8 * MIB);
    world.download(0, content);
    world.run_until(secs(10), |world| world.status(0, content).verified > MIB as u64);
    let first = world.peers[0].arrived[0].0;
    world.part(first, &[0, 3 - first], false);
    world.run_for(ms(1500));
    world.part(first, &[0], true);
    world.run_for(ms(1500));
    assert!(world.peers[0].arrived.iter().any(|piece| piece.0 != first));
}

#[test]
fn a_word_that_the_source_is_gone_is_not_believed_while_it_sends() {
    let (mut world, content) = world(2, 5, 8 * MIB);
    world.download(0, content);
    world.run_until(secs(10), |world| world.status(0, content).verified > MIB as u64);
    let inquiries = |world: &World| {
        world.peers[1].heard.iter().filter(|(_, message)| matches!(message, Message::DownloadInquiry(_))).count()
    };
    for _ in 0..100 {
        let source = world.peers[1].id;
        world.call(0, |files, cx| bbh_proto::messaging::Manager::handle_unreachable(files, cx, source));
        world.run_for(ms(10));
    }
    assert_eq!(inquiries(&world), 1);
    world.run_until_state(0, content, DownloadState::Complete, secs(10));
}

#[test]
fn a_source_that_flips_a_byte_is_dropped_and_never_asked_again() {
    let (mut world, content) = world(3, 6, 2 * MIB);
    world.peers[1].lie = Some(Lie::FlipByte);
    // The liar looks better.
    world.set_hops(0, 2, 4);
    world.download(0, content);
    world.run_until_state(0, content, DownloadState::Complete, secs(20));
    world.assert_complete(0, 2, content);
    assert!(world.status(0, content).sources.iter().all(|source| source.node == world.peers[2].id));
    world.command(0, Command::Cancel(content));
    world.peers[1].heard.clear();
    world.download(0, content);
    world.run_until_state(0, content, DownloadState::Complete, secs(20));
    assert!(
        !world.peers[1].heard.iter().any(|(_, message)| matches!(message, Message::DownloadOrder(_))),
        "the liar is remembered"
    );
}

#[test]
fn a_wrong_size_is_found_out_before_space_is_taken() {
    for size in [0, 5, GROUP as usize, MIB] {
        let (mut world, content) = world(3, 7, size);
        world.peers[1].lie = Some(Lie::Size);
        world.set_hops(0, 2, 4);
        world.download(0, content);
        world.run_until_state(0, content, DownloadState::Complete, secs(20));
        world.assert_complete(0, 2, content);
        assert_eq!(world.peers[0].reserved, [size as u64]);
    }
}

#[test]
fn only_liars_means_waiting_with_no_wrong_byte_kept() {
    let (mut world, content) = world(2, 8, MIB);
    world.peers[1].lie = Some(Lie::FlipByte);
    world.download(0, content);
    world.run_for(secs(30));
    let status = world.status(0, content);
    assert_eq!((status.state, status.verified), (DownloadState::Waiting, 0));
    assert!(status.error.is_some());
}

#[test]
fn pause_stops_the_source_and_resume_fetches_only_the_rest() {
    let (mut world, content) = world(2, 9, 8 * MIB);
    world.download(0, content);
    world.run_until(secs(10), |world| world.status(0, content).verified > 2 * MIB as u64);
    world.command(0, Command::Pause(content));
    assert_eq!(world.state(0, content), DownloadState::Paused);
    world.run_for(secs(1));
    let verified = world.status(0, content).verified;
    let saved: u64 = world.peers[0].saved[&content].verified.iter().map(|range| range.end - range.start).sum();
    assert_eq!((saved, world.peers[0].saved[&content].intent), (verified, Intent::Paused), "all is recorded");
    let arrived = arrived_bytes(&world, 0);
    world.run_for(secs(30));
    assert_eq!(arrived_bytes(&world, 0), arrived);
    assert_eq!(world.next_timeout(0), None);
    assert!(world.peers[1].files.uploads().is_empty());
    world.command(0, Command::Resume(content));
    world.run_until_state(0, content, DownloadState::Complete, secs(20));
    world.assert_complete(0, 1, content);
    assert_eq!(arrived_bytes(&world, 0) - arrived, 8 * MIB as u64 - verified);
}

#[test]
fn cancel_takes_it_off_the_list_and_the_disk_and_it_can_be_fetched_anew() {
    let (mut world, content) = world(2, 10, 8 * MIB);
    world.peers[0].disk_delay = ms(150);
    world.download(0, content);
    world.run_until(secs(10), |world| world.status(0, content).verified > 2 * MIB as u64);
    world.command(0, Command::Cancel(content));
    assert!(world.peers[0].files.downloads().is_empty());
    assert!(world.peers[0].temporary.is_empty() && world.peers[0].saved.is_empty());
    // Answers of the disk to writes of before are still under way.
    world.download(0, content);
    world.run_until_state(0, content, DownloadState::Complete, secs(20));
    world.assert_complete(0, 1, content);
}

#[test]
fn after_a_kill_at_any_moment_at_most_4_mib_are_fetched_again() {
    let size = 24 * MIB as u64;
    for (seed, delay) in [(11, 1), (12, 40), (13, 300)] {
        let (mut world, content) = world(2, seed, size as usize);
        world.rate = 50_000_000;
        world.latency = ms(3);
        world.peers[0].disk_delay = ms(delay);
        world.download(0, content);
        let mut goal = 0;
        for _ in 0..5 {
            goal += 4 * MIB as u64 + 123_456;
            world.run_until(secs(60), |world| world.status(0, content).verified >= goal);
            let verified = world.status(0, content).verified;
            world.restart(0);
            let kept = world.status(0, content).verified;
            assert!(verified - kept <= 4 * MIB as u64, "{verified} {kept}");
        }
        world.run_until_state(0, content, DownloadState::Complete, secs(60));
        world.assert_complete(0, 1, content);
    }
}

#[test]
fn a_clean_stop_loses_nothing_that_the_disk_has() {
    let (mut world, content) = world(2, 21, 8 * MIB);
    world.rate = 1_000_000;
    world.download(0, content);
    world.run_until(secs(10), |world| world.status(0, content).verified > MIB as u64 / 2);
    assert!(world.peers[0].saved.get(&content).is_none_or(|record| record.verified.is_empty()), "not due yet");
    world.command(0, Command::Stop);
    let saved: u64 = world.peers[0].saved[&content].verified.iter().map(|range| range.end - range.start).sum();
    let writing = world.status(0, content).verified - saved;
    assert!(writing <= 128 * 1024, "all but the pieces on their way to the disk: {writing}");
}

#[test]
fn what_was_recorded_as_verified_is_never_fetched_again() {
    let (mut world, content) = world(2, 14, 8 * MIB);
    world.download(0, content);
    world.run_until(secs(10), |world| world.status(0, content).verified > 5 * MIB as u64);
    let recorded = world.peers[0].saved[&content].verified.clone();
    let heard = world.peers[1].heard.len();
    world.restart(0);
    world.run_until_state(0, content, DownloadState::Complete, secs(20));
    let orders = world.peers[1].heard[heard..].iter().filter_map(|(_, message)| match message {
        Message::DownloadOrder(order) => Some(order.ranges.clone()),
        _ => None,
    });
    let ranges: Vec<_> = orders.flat_map(|ranges| ranges.into_inner()).collect();
    assert!(!ranges.is_empty());
    for (start, end) in ranges {
        assert!(!recorded.overlaps(&(start..end)), "{start}..{end}");
    }
}

#[test]
fn a_full_disk_is_told_before_the_first_byte_is_written() {
    let (mut world, content) = world(2, 15, 2 * MIB);
    world.peers[0].disk_room = MIB as u64;
    world.download(0, content);
    world.run_until_state(0, content, DownloadState::Failed, secs(10));
    assert_eq!(world.status(0, content).error.as_deref(), Some("the disk is full"));
    world.peers[0].disk_room = u64::MAX;
    world.command(0, Command::Resume(content));
    world.run_until_state(0, content, DownloadState::Complete, secs(10));
    world.assert_complete(0, 1, content);
}

#[test]
fn a_disk_that_fills_up_fails_the_download_and_keeps_what_is_there() {
    let (mut world, content) = world(2, 16, 6 * MIB);
    world.peers[0].writable = 2 * MIB as u64;
    world.download(0, content);
    world.run_until_state(0, content, DownloadState::Failed, secs(10));
    assert_eq!(world.status(0, content).error.as_deref(), Some("the disk is full"));
    world.run_for(secs(5));
    let kept = world.status(0, content).verified;
    assert!(kept > MIB as u64, "{kept}");
    world.peers[0].writable = u64::MAX;
    world.peers[0].arrived.clear();
    world.command(0, Command::Resume(content));
    world.run_until_state(0, content, DownloadState::Complete, secs(10));
    world.assert_complete(0, 1, content);
    assert_eq!(arrived_bytes(&world, 0), 6 * MIB as u64 - kept);
}

#[test]
fn a_slow_disk_holds_the_source_back() {
    let (mut world, content) = world(2, 17, 8 * MIB);
    world.rate = 100_000_000;
    world.latency = ms(2);
    world.peers[0].disk_delay = secs(6);
    world.download(0, content);
    world.run_for(secs(5));
    assert!(arrived_bytes(&world, 0) <= 5 * MIB as u64, "{}", arrived_bytes(&world, 0));
    world.run_until_state(0, content, DownloadState::Complete, secs(300));
    world.assert_complete(0, 1, content);
    assert_eq!(arrived_bytes(&world, 0), 8 * MIB as u64);
    let asked = world.peers[1].heard.iter().filter(|(_, message)| matches!(message, Message::DownloadInquiry(_)));
    assert_eq!(asked.count(), 1, "a slow disk is no silent source");
}

#[test]
fn a_file_that_nobody_has_fails_with_a_reason() {
    let (mut world, _) = world(3, 18, 10);
    let content = ContentId::from_bytes([9; 32]);
    world.download(0, content);
    world.run_for(secs(9));
    assert_eq!(world.state(0, content), DownloadState::Searching);
    world.run_for(secs(2));
    let status = world.status(0, content);
    assert_eq!(status.state, DownloadState::Failed);
    assert!(status.error.unwrap().contains("nobody"));
    assert_eq!(world.next_timeout(0), None);
}

#[test]
fn without_any_other_device_it_fails_with_another_reason() {
    let (mut world, content) = world(2, 19, 10);
    world.part(0, &[1], false);
    world.download(0, content);
    world.run_until_state(0, content, DownloadState::Failed, secs(11));
    assert!(world.status(0, content).error.unwrap().contains("no other device"));
    world.join(0, &[1]);
    world.command(0, Command::Start(content));
    world.run_until_state(0, content, DownloadState::Complete, secs(11));
}

#[test]
fn a_source_that_no_longer_has_it_is_an_immediate_no() {
    let (mut world, content) = world(2, 20, MIB);
    world.download(0, content);
    world.run_until(secs(1), |world| {
        world.peers[0].heard.iter().any(|(_, message)| matches!(message, Message::DownloadReply(_)))
    });
    world.peers[1].library.clear();
    world.run_until_state(0, content, DownloadState::Failed, secs(1));
    assert!(world.status(0, content).error.unwrap().contains("any more"));
}

#[test]
fn a_source_that_leaves_and_comes_back_goes_on() {
    let (mut world, content) = world(2, 21, 8 * MIB);
    world.download(0, content);
    world.run_until(secs(10), |world| world.status(0, content).verified > 2 * MIB as u64);
    world.part(0, &[1], false);
    world.run_until_state(0, content, DownloadState::Waiting, secs(5));
    world.run_for(secs(60));
    let status = world.status(0, content);
    assert_eq!((status.state, status.rate), (DownloadState::Waiting, 0));
    assert!(status.error.is_some());
    world.peers[0].arrived.clear();
    let verified = status.verified;
    world.join(0, &[1]);
    world.run_for(secs(3));
    assert_ne!(world.state(0, content), DownloadState::Waiting, "asks as soon as the network changes");
    world.run_until_state(0, content, DownloadState::Complete, secs(20));
    world.assert_complete(0, 1, content);
    assert_eq!(arrived_bytes(&world, 0), 8 * MIB as u64 - verified);
}

#[test]
fn a_restored_download_waits_for_its_source_instead_of_failing() {
    let (mut world, content) = world(2, 22, 4 * MIB);
    world.download(0, content);
    world.run_until(secs(10), |world| world.status(0, content).verified > 2 * MIB as u64);
    world.part(0, &[1], false);
    world.restart(0);
    world.run_for(secs(40));
    assert_eq!(world.state(0, content), DownloadState::Waiting);
    world.join(0, &[1]);
    world.run_until_state(0, content, DownloadState::Complete, secs(20));
    world.assert_complete(0, 1, content);
}

#[test]
fn five_percent_of_all_messages_may_get_lost() {
    for seed in 100..110 {
        let (mut world, content) = world(2, seed, 5 * MIB + 3);
        world.loss = 50;
        world.download(0, content);
        world.run_until_state(0, content, DownloadState::Complete, secs(300));
        world.assert_complete(0, 1, content);
    }
}

#[test]
fn small_files_survive_heavy_loss() {
    for seed in 200..230 {
        let (mut world, content) = world(3, seed, 40_000);
        world.loss = 200;
        world.download(0, content);
        world.run_until(secs(600), |world| {
            matches!(world.state(0, content), DownloadState::Complete | DownloadState::Failed)
        });
        world.assert_complete(0, 1, content);
    }
}

#[test]
fn a_path_slower_than_the_patience_is_no_stall() {
    let (mut world, content) = world(2, 23, 300_000);
    world.rate = 8_000;
    world.latency = ms(400);
    world.download(0, content);
    world.run_until_state(0, content, DownloadState::Complete, secs(120));
    world.assert_complete(0, 1, content);
    assert!(arrived_bytes(&world, 0) < 500_000, "{}", arrived_bytes(&world, 0));
}

#[test]
fn a_congested_path_gets_a_small_window() {
    let (mut world, content) = world(2, 24, 4 * MIB);
    world.congested = true;
    world.rate = 200_000;
    world.download(0, content);
    world.run_for(secs(10));
    let acks = world.peers[1].heard.iter().filter_map(|(_, message)| match message {
        Message::UploadAck(ack) => Some(ack.granted - ack.received),
        _ => None,
    });
    assert!(acks.skip(5).all(|ahead| ahead <= 256 * 1024));
    world.run_until_state(0, content, DownloadState::Complete, secs(60));
}

#[test]
fn the_nearer_of_two_sources_is_chosen() {
    let (mut world, content) = world(3, 25, MIB);
    world.set_hops(0, 1, 5);
    world.set_hops(0, 2, 2);
    world.download(0, content);
    world.run_until_state(0, content, DownloadState::Complete, secs(10));
    assert!(world.peers[0].arrived.iter().all(|piece| piece.0 == 2));
}

#[test]
fn eight_run_and_the_rest_wait_their_turn() {
    let mut world = World::new(2, 26);
    let contents: Vec<_> = (0..20u8)
        .map(|number| {
            let mut bytes = world.bytes(300_000);
            bytes[0] = number;
            world.share(1, "beer", &bytes)
        })
        .collect();
    for &content in &contents {
        world.download(0, content);
    }
    let states: Vec<_> = contents.iter().map(|&content| world.state(0, content)).collect();
    assert!(states[..8].iter().all(|state| *state == DownloadState::Searching));
    assert!(states[8..].iter().all(|state| *state == DownloadState::Waiting));
    world.run_until(secs(120), |world| {
        contents.iter().all(|&content| world.state(0, content) == DownloadState::Complete)
    });
    let order: Vec<_> = world.peers[0].files.downloads().into_iter().map(|status| status.content).collect();
    assert_eq!(order, contents, "the list keeps its order");
}

#[test]
fn downloads_that_wait_for_a_source_hold_nobody_up() {
    let mut world = World::new(3, 27);
    let gone: Vec<_> = (0..10u8)
        .map(|number| {
            let mut bytes = world.bytes(MIB);
            bytes[0] = number;
            world.share(1, "gone", &bytes)
        })
        .collect();
    for &content in &gone {
        world.download(0, content);
    }
    world.run_for(secs(1));
    world.part(1, &[0, 2], false);
    let bytes = world.bytes(MIB);
    let there = world.share(2, "there", &bytes);
    world.download(0, there);
    world.run_until_state(0, there, DownloadState::Complete, secs(60));
    world.join(1, &[0, 2]);
    world.run_until(secs(300), |world| gone.iter().all(|&content| world.state(0, content) == DownloadState::Complete));
}

#[test]
fn queue_only_stays_until_started_and_survives_a_restart() {
    let (mut world, content) = world(2, 28, MIB);
    world.command(0, Command::Download { content, name: Some("b".into()), size: Some(3), queue_only: true });
    world.run_for(secs(60));
    assert_eq!(world.state(0, content), DownloadState::Queued);
    world.restart(0);
    let status = world.status(0, content);
    assert_eq!((status.state, status.name.as_str()), (DownloadState::Queued, "b"));
    world.command(0, Command::Start(content));
    world.run_until_state(0, content, DownloadState::Complete, secs(10));
    world.run_for(ms(100));
    world.restart(0);
    assert_eq!(world.state(0, content), DownloadState::Complete);
    assert!(world.status(0, content).path.is_some());
}

#[test]
fn a_source_that_refuses_is_left_alone_for_a_while() {
    let (mut world, content) = world(2, 29, MIB);
    world.peers[1].broken_library = true;
    world.download(0, content);
    world.run_for(secs(100));
    let orders = |world: &World| {
        world.peers[1].heard.iter().filter(|(_, message)| matches!(message, Message::DownloadOrder(_))).count()
    };
    assert!((3..=15).contains(&orders(&world)), "{}", orders(&world));
    world.peers[1].broken_library = false;
    world.run_until_state(0, content, DownloadState::Complete, secs(40));
    world.assert_complete(0, 1, content);
}

#[test]
fn a_transfer_that_the_other_stops_goes_on_after_asking_again() {
    let (mut world, content) = world(2, 30, 8 * MIB);
    world.download(0, content);
    world.run_until(secs(10), |world| world.status(0, content).verified > MIB as u64);
    let order = world.peers[1].heard.iter().find_map(|(_, message)| match message {
        Message::DownloadOrder(order) => Some(order.transfer),
        _ => None,
    });
    let cancel = DownloadCancel { transfer: order.unwrap(), by_downloader: false, reason: CancelReason::Stopped };
    world.inject(1, 0, false, cancel);
    world.run_until_state(0, content, DownloadState::Complete, secs(30));
    world.assert_complete(0, 1, content);
}

#[test]
fn the_list_is_bounded_and_makes_room_by_forgetting_complete_ones() {
    let mut world = World::new(1, 31);
    let content = |number: u16| {
        let mut bytes = [0; 32];
        bytes[..2].copy_from_slice(&number.to_be_bytes());
        ContentId::from_bytes(bytes)
    };
    for number in 0..1100 {
        let command = Command::Download { content: content(number), name: None, size: None, queue_only: true };
        world.command(0, command);
    }
    assert_eq!(world.peers[0].files.downloads().len(), 1000);
    let told =
        world.peers[0].events.iter().filter(|(_, event)| *event == Event::DownloadChanged(content(1099))).count();
    assert_eq!(told, 1);
}

#[test]
fn a_thousand_waiting_downloads_ask_at_a_bearable_rate() {
    let mut world = World::new(2, 32);
    for number in 0..1000u16 {
        let mut bytes = [1; 32];
        bytes[..2].copy_from_slice(&number.to_be_bytes());
        let record = bbh_proto::api::DownloadRecord {
            content: ContentId::from_bytes(bytes),
            name: String::new(),
            size: None,
            verified: Default::default(),
            intent: Intent::Active,
            path: None,
        };
        world.command(0, Command::Restore(record));
    }
    world.run_for(secs(1500));
    world.peers[1].heard.clear();
    world.run_for(secs(100));
    let asked = world.peers[1].heard.len();
    assert!((50..=2000).contains(&asked), "{asked}");
}

#[test]
fn going_on_while_the_disk_still_writes_is_no_dead_end() {
    let (mut world, content) = world(2, 33, 16 * MIB);
    world.rate = 50_000_000;
    world.peers[0].disk_delay = secs(1);
    world.download(0, content);
    for _ in 0..6 {
        world.run_until_state(0, content, DownloadState::Active, secs(10));
        world.run_for(ms(1300));
        world.command(0, Command::Pause(content));
        world.command(0, Command::Resume(content));
    }
    world.run_until_state(0, content, DownloadState::Complete, secs(60));
    world.assert_complete(0, 1, content);
}
