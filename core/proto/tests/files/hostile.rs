//! Messages that no honest node would send.

use bbh_bao::GROUP;
use bbh_proto::api::{Command, DownloadState};
use bbh_types::{BoundedBytes, BoundedVec, ContentId};
use bbh_wire::Message;
use bbh_wire::message::{
    CancelReason, DownloadCancel, DownloadInquiry, DownloadOrder, DownloadReply, MAX_RANGES, Offer, SearchReply,
    SearchRequest, UploadAck, UploadData, UploadStart,
};
use proptest::prelude::*;

use crate::world::{World, ms, secs, word};

const SIZE: u64 = 5 * GROUP + 7;

/// A world in which node 1 is hostile, 0 shares a file and downloads another one, and 2 is honest.
fn world() -> (World, ContentId, ContentId) {
    let mut world = World::new(3, 77);
    world.peers[1].scripted = true;
    let (shared, wanted) = (world.bytes(SIZE as usize), world.bytes(SIZE as usize));
    let shared = world.share(0, "shared", &shared);
    let wanted = world.share(2, "wanted", &wanted);
    (world, shared, wanted)
}

fn offset() -> impl Strategy<Value = u64> {
    prop_oneof![
        Just(0),
        (0..7u64).prop_map(|group| group * GROUP),
        Just(SIZE),
        0..SIZE + 3,
        Just(u64::MAX),
        Just(u64::MAX - 1),
        any::<u64>(),
    ]
}

/// Numbers that hit what is going on now and then.
fn number(near: u32) -> impl Strategy<Value = u32> {
    prop_oneof![(0..4u32).prop_map(move |step| near.wrapping_add(step)), 0..4u32, any::<u32>()]
}

fn message(near: u32, contents: [ContentId; 2]) -> impl Strategy<Value = (bool, Message)> {
    let content =
        move || prop_oneof![Just(contents[0]), Just(contents[1]), any::<[u8; 32]>().prop_map(ContentId::from_bytes)];
    let reason = prop_oneof![
        Just(CancelReason::Stopped),
        Just(CancelReason::Absent),
        Just(CancelReason::BadOrder),
        Just(CancelReason::Full),
        Just(CancelReason::Failed),
    ];
    let place = || prop::option::of(any::<u16>());
    let offer = prop_oneof![
        (offset(), place()).prop_map(|(size, queue_position)| Offer::Available { size, queue_position }),
        Just(Offer::Full),
        Just(Offer::Absent),
    ];
    let messages = prop_oneof![
        any::<u32>().prop_map(|search| SearchRequest { search, query: word("s") }.into()),
        (number(near), any::<u16>(), place()).prop_map(|(search, page, queue_position)| {
            SearchReply { search, page, last: true, queue_position, files: BoundedVec::default() }.into()
        }),
        (any::<u32>(), content()).prop_map(|(inquiry, content)| DownloadInquiry { inquiry, content }.into()),
        (number(near), content(), offer).prop_map(|(inquiry, content, offer)| DownloadReply {
            inquiry,
            content,
            offer
        }
        .into()),
        (number(near), content(), prop::collection::vec((offset(), offset()), 0..MAX_RANGES), offset()).prop_map(
            |(transfer, content, ranges, granted)| {
                let ranges = BoundedVec::new(ranges).unwrap();
                DownloadOrder { transfer, content, ranges, granted }.into()
            }
        ),
        (number(near), any::<bool>(), reason).prop_map(|(transfer, by_downloader, reason)| DownloadCancel {
            transfer,
            by_downloader,
            reason
        }
        .into()),
        (number(near), offset(), place()).prop_map(|(transfer, size, queue_position)| UploadStart {
            transfer,
            size,
            queue_position
        }
        .into()),
        (number(near), offset(), offset(), prop::collection::vec(any::<u8>(), 0..200)).prop_map(
            |(transfer, start, end, slice)| {
                UploadData { transfer, start, end, slice: BoundedBytes::new(slice).unwrap() }.into()
            }
        ),
        (number(near), offset(), offset()).prop_map(|(transfer, received, granted)| UploadAck {
            transfer,
            received,
            granted
        }
        .into()),
    ];
    (any::<bool>(), messages)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_messages_neither_panic_nor_hinder_an_honest_download(
        messages in (any::<u32>(), Just(()))
            .prop_flat_map(|_| {
                let (world, shared, wanted) = world();
                drop(world);
                prop::collection::vec(message(0, [shared, wanted]), 400)
            })
    ) {
        let (mut world, _, wanted) = world();
        world.download(0, wanted);
        for (index, (broadcast, mut message)) in messages.into_iter().enumerate() {
            // Every second number is one that node 0 uses at the moment.
            let near = world.peers[1].heard.iter().rev().find_map(|(_, heard)| match heard {
                Message::DownloadOrder(order) => Some(order.transfer),
                Message::DownloadInquiry(inquiry) => Some(inquiry.inquiry),
                _ => None,
            });
            if let Some(near) = near && index % 2 == 0 {
                match &mut message {
                    Message::DownloadReply(reply) => reply.inquiry = near,
                    Message::UploadStart(start) => start.transfer = near,
                    Message::UploadData(data) => data.transfer = near,
                    _ => {}
                }
            }
            world.inject(1, 0, broadcast, message);
            world.run_for(ms(7));
        }
        world.run_for(secs(5));
        if world.state(0, wanted) == DownloadState::Failed {
            world.command(0, Command::Start(wanted));
        }
        world.run_until_state(0, wanted, DownloadState::Complete, secs(300));
        world.assert_complete(0, 2, wanted);
        prop_assert!(world.peers[0].reserved.iter().all(|size| *size == SIZE));
    }
}

#[test]
fn ten_thousand_hostile_messages_leave_bounded_traces() {
    let (mut world, shared, wanted) = world();
    world.peers[0].library_busy = true;
    world.peers[0].settings.upload_slots = 1;
    for index in 0..10_000u32 {
        let content = if index % 2 == 0 { shared } else { wanted };
        let ranges = BoundedVec::new(vec![(0, u64::MAX); MAX_RANGES]).unwrap();
        world.inject(1, 0, true, DownloadInquiry { inquiry: index, content });
        world.inject(1, 0, false, DownloadOrder { transfer: index, content, ranges, granted: u64::MAX });
        world.inject(1, 0, false, UploadAck { transfer: index, received: u64::MAX, granted: u64::MAX });
        let slice = BoundedBytes::new(vec![0; 1000]).unwrap();
        world.inject(1, 0, false, UploadData { transfer: index, start: 0, end: GROUP, slice });
        world.inject(1, 0, false, UploadStart { transfer: index, size: u64::MAX, queue_position: None });
        let offer = Offer::Available { size: u64::MAX, queue_position: None };
        world.inject(1, 0, false, DownloadReply { inquiry: index, content, offer });
    }
    assert!(world.peers[0].unanswered.len() <= 64, "{}", world.peers[0].unanswered.len());
    world.run_for(ms(100));
    assert!(world.peers[1].heard.len() <= 64, "no answer for each: {}", world.peers[1].heard.len());
    world.library_wakes(0);
    world.run_for(secs(1));
    assert!(world.peers[0].files.uploads().is_empty());
    assert!(world.peers[0].files.downloads().is_empty());
    world.download(2, shared);
    world.run_until_state(2, shared, DownloadState::Complete, secs(10));
}

#[test]
fn a_source_that_floods_beyond_its_grant_is_dropped() {
    let mut world = World::new(3, 78);
    world.peers[1].scripted = true;
    let bytes = world.bytes(8 << 20);
    let content = world.share(2, "wanted", &bytes);
    world.set_hops(0, 2, 5);
    world.download(0, content);
    world.run_for(ms(60));
    let inquiry = world.peers[1].heard.iter().find_map(|(_, message)| match message {
        Message::DownloadInquiry(inquiry) => Some(inquiry.inquiry),
        _ => None,
    });
    let offer = Offer::Available { size: 8 << 20, queue_position: None };
    world.inject(1, 0, false, DownloadReply { inquiry: inquiry.unwrap(), content, offer });
    let order = |world: &World| {
        world.peers[1].heard.iter().find_map(|(_, message)| match message {
            Message::DownloadOrder(order) => Some(order.transfer),
            _ => None,
        })
    };
    world.run_until(secs(2), |world| order(world).is_some());
    let transfer = order(&world).unwrap();
    // True pieces, but the same ones over and over.
    let mut hasher = bbh_bao::Hasher::new();
    hasher.update(&bytes);
    let (_, outboard) = hasher.finalize();
    let mut send = |start: usize, end: usize| {
        let range = start as u64..end as u64;
        let slice = bbh_bao::encode_slice(8 << 20, range.clone(), &outboard, &bytes[start..end]).unwrap();
        let slice = BoundedBytes::new(slice).unwrap();
        world.inject(1, 0, false, UploadData { transfer, start: range.start, end: range.end, slice });
    };
    send((8 << 20) - GROUP as usize, 8 << 20);
    for _ in 0..200 {
        send(0, 65_536);
    }
    assert_eq!(world.status(0, content).verified, 65_536 + GROUP);
    world.run_until_state(0, content, DownloadState::Complete, secs(30));
    assert!(world.status(0, content).sources.iter().all(|source| source.node == world.peers[2].id));
    assert_eq!(world.peers[0].finished[&content], bytes);
}

#[test]
fn a_source_that_holds_the_proof_of_the_size_back_is_left_for_another() {
    let mut world = World::new(3, 79);
    world.peers[1].scripted = true;
    let bytes = world.bytes(8 << 20);
    let content = world.share(2, "wanted", &bytes);
    world.set_hops(0, 2, 5);
    world.download(0, content);
    let mut hasher = bbh_bao::Hasher::new();
    hasher.update(&bytes);
    let (_, outboard) = hasher.finalize();
    let (mut seen, mut at) = (0, 0);
    for _ in 0..3_000 {
        world.run_for(ms(10));
        let heard: Vec<_> = world.peers[1].heard[seen..].iter().map(|(_, message)| message.clone()).collect();
        seen += heard.len();
        for message in heard {
            match message {
                Message::DownloadInquiry(DownloadInquiry { inquiry, content }) => {
                    let offer = Offer::Available { size: 8 << 20, queue_position: None };
                    world.inject(1, 0, false, DownloadReply { inquiry, content, offer });
                }
                Message::DownloadOrder(DownloadOrder { transfer, granted, .. }) if granted > 70_000 => {
                    let range = at as u64..at as u64 + 65_536;
                    let data = &bytes[at..at + 65_536];
                    let slice = bbh_bao::encode_slice(8 << 20, range.clone(), &outboard, data).unwrap();
                    let slice = BoundedBytes::new(slice).unwrap();
                    world.inject(1, 0, false, UploadData { transfer, start: range.start, end: range.end, slice });
                    at = (at + 65_536) % (7 << 20);
                }
                _ => {}
            }
        }
        if world.state(0, content) == DownloadState::Complete {
            break;
        }
    }
    assert!(at > 0);
    assert_eq!(world.peers[0].finished[&content], bytes);
}
