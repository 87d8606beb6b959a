//! A whole node, with a hostile neighbour.

use std::time::Duration;

use bbh_proto::Command;
use bbh_types::radio::{PeerAddr, RadioEvent};
use bbh_types::{BoundedBytes, BoundedVec, Query, SearchMode, TreeId};
use bbh_wire::message::{
    AttachReply, AttachRequest, AttachVerdict, CancelReason, DownloadCancel, DownloadInquiry, DownloadOrder,
    DownloadReply, Offer, Ping, Pong, SearchReply, TreeInfo, UploadAck, UploadData, UploadStart,
};
use bbh_wire::{Message, Role};

use crate::input::{Input, identity};
use crate::scene::{ENEMY, FRIEND, NODE, Scene, WITNESS};

/// Most steps, each of which may take a handshake.
const MAX_STEPS: usize = 100;
/// Most nodes a routing table keeps (docs/protocol.md, section 7).
const MAX_DESCENDANTS: usize = 20_000;

/// What the enemy is, modulo 4 (nothing yet, parent, child, parent without another neighbour), then steps, by their
/// first byte modulo 12. Numbers of strangers count modulo 3: the enemy, and two nodes that may be behind him.
///
/// | step | |
/// |---|---|
/// | 0 | `length u16`, plaintext: the enemy sends this frame |
/// | 1 | `length u16`, message: he sends this message |
/// | 2 | `stranger u8, length u16`, message: he passes on a broadcast, properly signed |
/// | 3 | `stranger u8, length u16`, message: he passes on a message under a proper session |
/// | 4 | `stranger u8, length u16`, message: he passes on a message in clear |
/// | 5 | `tenths u8`: time passes |
/// | 6 | `which u8`: the user wants something |
/// | 7 | `peer u8, length u16`, beacon: is heard |
/// | 8 | the honest neighbour takes nothing more, or begins again to do so |
/// | 9 | the enemy comes back on a new link, as what he was |
/// | 10 | `kind u8, place u16, bits u8`: he answers what the node asked last, with one byte changed |
/// | 11 | `stranger u8, kind u8, place u16, bits u8`: the same by a stranger |
///
/// Nothing is written that is not verified or that nobody has asked for; the node comes to rest after each step; and in
/// the end it still answers.
pub fn node(data: &[u8]) {
    let mut input = Input(data);
    let form = input.u8() % 4;
    let mut scene = Scene::new();
    meet(&mut scene, form);
    if form != 3 {
        scene.connect(FRIEND);
        attach(&mut scene, FRIEND, 1);
    }
    for number in 0..MAX_STEPS {
        if input.is_empty() {
            break;
        }
        step(&mut scene, &mut input, form, number as u64);
        assert!(scene.node.tree().table().len() <= MAX_DESCENDANTS);
        assert!(scene.node.downloads().len() <= 1, "one content was asked for at most");
    }
    still_answers(&mut scene);
}

fn meet(scene: &mut Scene, form: u8) {
    scene.connect(ENEMY);
    match form {
        1 | 3 => {
            // His tree is the larger one, so that the node wants to join it.
            let info = TreeInfo { tree: TreeId(7), epoch: 0, size: 100, role: Role::Root, free_slots: 3 };
            scene.tell(ENEMY, &Message::from(info).encode());
            scene.tell(ENEMY, &Message::from(AttachReply { verdict: AttachVerdict::Accepted, info }).encode());
        }
        2 => attach(scene, ENEMY, 1),
        _ => {}
    }
}

fn attach(scene: &mut Scene, number: u8, counter: u64) {
    let attachment = identity(number).attach(Scene::node_id(), counter, "a neighbour");
    scene.tell(number, &Message::from(AttachRequest { attachment, size: 1 }).encode());
}

fn stranger(input: &mut Input<'_>) -> u8 {
    [ENEMY, 4, 5][usize::from(input.u8() % 3)]
}

fn step(scene: &mut Scene, input: &mut Input<'_>, form: u8, number: u64) {
    match input.u8() % 12 {
        0 => scene.say(ENEMY, input.string()),
        1 => scene.tell(ENEMY, input.string()),
        2 => {
            let by = stranger(input);
            scene.broadcast(by, input.string());
        }
        3 => {
            let by = stranger(input);
            scene.send_from_afar(by, input.string());
        }
        4 => {
            let by = stranger(input);
            scene.clear(by, input.string());
        }
        5 => scene.wait(Duration::from_millis(100) * u32::from(input.u8())),
        6 => command(scene, input.u8()),
        7 => {
            let (peer, beacon) = (PeerAddr(input.u8().into()), input.string().to_vec());
            scene.node.handle_radio(scene.now, RadioEvent::Discovered { peer, beacon });
            scene.settle();
        }
        8 => match scene.neighbour(FRIEND).map(|friend| friend.stalled) {
            Some(true) => scene.unstall(FRIEND),
            Some(false) => {
                if let Some(friend) = scene.neighbour(FRIEND) {
                    friend.stalled = true;
                }
            }
            None => {}
        },
        9 => {
            meet(scene, form);
            if form == 2 {
                attach(scene, ENEMY, 2 + number);
            }
        }
        10 => {
            if let Some(answer) = answer(scene, input) {
                scene.tell(ENEMY, &answer);
            }
        }
        _ => {
            let by = stranger(input);
            if let Some(answer) = answer(scene, input) {
                scene.send_from_afar(by, &answer);
            }
        }
    }
}

fn command(scene: &mut Scene, which: u8) {
    let content = scene.wanted.id;
    let command = match which % 9 {
        0 => Command::Download { content, name: None, size: None, queue_only: false },
        1 => Command::Search {
            search: 1,
            query: Query::new(["beer"], SearchMode::Any).expect("one word is enough"),
            timeout: None,
        },
        2 => Command::Pause(content),
        3 => Command::Resume(content),
        4 => Command::Cancel(content),
        5 => Command::ListDevices { token: 1 },
        6 => Command::Ping { node: identity(4).node_id(), token: 1 },
        7 => Command::Start(content),
        _ => Command::CancelSearch { search: 1 },
    };
    scene.node.handle_command(scene.now, command);
    scene.settle();
}

/// A message that the node may be waiting for, or an order of what it has, with one byte changed.
fn answer(scene: &Scene, input: &mut Input<'_>) -> Option<Vec<u8>> {
    let (kind, place, bits) = (input.u8(), usize::from(input.u16()), input.u8());
    let size = scene.wanted.bytes.len() as u64;
    let ordered = |kind| match scene.asked.get(&kind) {
        Some(Message::DownloadOrder(order)) => Some(order),
        _ => None,
    };
    let message: Message = match kind % 10 {
        0 => {
            let Some(Message::SearchRequest(asked)) = scene.asked.get(&1) else { return None };
            let files = BoundedVec::truncated(vec![scene.wanted.record()]);
            SearchReply { search: asked.search, page: 0, last: true, queue_position: None, files }.into()
        }
        1 => {
            let Some(Message::DownloadInquiry(asked)) = scene.asked.get(&3) else { return None };
            let offer = Offer::Available { size, queue_position: None };
            DownloadReply { inquiry: asked.inquiry, content: asked.content, offer }.into()
        }
        2 => UploadStart { transfer: ordered(5)?.transfer, size, queue_position: None }.into(),
        3 | 4 => {
            let order = ordered(5)?;
            let &(start, end) = if kind % 10 == 3 { order.ranges.first()? } else { order.ranges.last()? };
            let end = end.min(start.saturating_add(64 * 1024));
            let slice = BoundedBytes::new(scene.wanted.slice(start, end)?).ok()?;
            UploadData { transfer: order.transfer, start, end, slice }.into()
        }
        5 => DownloadCancel { transfer: ordered(5)?.transfer, by_downloader: false, reason: CancelReason::Full }.into(),
        6 => DownloadInquiry { inquiry: 1, content: scene.shared.id }.into(),
        7 => {
            let ranges = BoundedVec::truncated(vec![(16_384, 20_000), (0, 16_384)]);
            DownloadOrder { transfer: 1, content: scene.shared.id, ranges, granted: 1 << 20 }.into()
        }
        8 => UploadAck { transfer: 1, received: 4_000, granted: 1 << 21 }.into(),
        _ => DownloadCancel { transfer: 1, by_downloader: true, reason: CancelReason::Stopped }.into(),
    };
    let mut encoded = message.encode();
    let place = place % encoded.len();
    encoded[place] ^= bits;
    Some(encoded)
}

/// After all that, whoever keeps to the protocol is served.
fn still_answers(scene: &mut Scene) {
    scene.unstall(FRIEND);
    // What is rate-limited for all may be used up at the moment.
    scene.wait(Duration::from_secs(2));
    let friend = identity(FRIEND).node_id();
    let status = scene.node.status(scene.now);
    if scene.neighbour(FRIEND).is_some() && (status.children.contains(&friend) || status.parent == Some(friend)) {
        if let Some(neighbour) = scene.neighbour(FRIEND) {
            neighbour.heard.clear();
        }
        scene.tell(FRIEND, &Message::from(Ping { token: 77 }).encode());
        let heard = scene.neighbour(FRIEND).map(|friend| &friend.heard[..]).unwrap_or_default();
        assert!(heard.contains(&Pong { token: 77 }.into()), "node {NODE} is deaf: {heard:?}");
    }
    scene.connect(WITNESS);
    let heard = scene.neighbour(WITNESS).map(|witness| &witness.heard[..]);
    let told = heard.is_none_or(|heard| heard.iter().any(|message| matches!(message, Message::TreeInfo(_))));
    assert!(told, "node {NODE} does not greet: {heard:?}");
    scene.node.handle_command(scene.now, Command::Stop);
    scene.settle();
    assert!(scene.neighbour(WITNESS).is_none(), "node {NODE} does not end");
}
