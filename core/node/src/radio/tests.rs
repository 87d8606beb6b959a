//! Radios together, and TCP over real sockets.

use std::time::Duration;

use bbh_types::radio::{LinkLimits, ScanDuty};
use tokio::time::timeout;

use super::tcp::TcpRadio;
use super::*;

/// A radio of whose commands the test sees all.
struct Fake(mpsc::UnboundedSender<String>);

impl Radio for Fake {
    fn command(&mut self, command: RadioCommand) {
        let _ = self.0.send(format!("{command:?}"));
    }

    fn send(&mut self, link: LinkId, bytes: Vec<u8>) {
        let _ = self.0.send(format!("Send({link:?}, {bytes:?})"));
    }
}

fn fake() -> (RadioPort, mpsc::Sender<RadioEvent>, mpsc::UnboundedReceiver<String>) {
    let (told, tells) = mpsc::unbounded_channel();
    let (sender, events) = mpsc::channel(16);
    (RadioPort { radio: Box::new(Fake(told)), events }, sender, tells)
}

async fn next(set: &mut RadioSet) -> Vec<RadioEvent> {
    let mut events = Vec::new();
    timeout(Duration::from_secs(10), std::future::poll_fn(|cx| set.poll_events(cx, &mut events, 32))).await.unwrap();
    events
}

fn opened(link: u64, peer: u64) -> RadioEvent {
    RadioEvent::Opened { link: LinkId(link), peer: PeerAddr(peer), dialler: false, limits: LinkLimits::BLUETOOTH }
}

#[tokio::test]
async fn two_radios_with_the_same_numbers_are_kept_apart() {
    let (one, one_events, mut one_told) = fake();
    let (two, two_events, mut two_told) = fake();
    let mut set = RadioSet::new(vec![one, two]);
    one_events.send(opened(7, 9)).await.unwrap();
    let first = next(&mut set).await;
    two_events.send(opened(7, 9)).await.unwrap();
    let second = next(&mut set).await;
    let (RadioEvent::Opened { link: a, peer: p, .. }, RadioEvent::Opened { link: b, peer: q, .. }) =
        (&first[0], &second[0])
    else {
        panic!("{first:?} {second:?}");
    };
    assert_ne!(a, b);
    assert_ne!(p, q);

    set.send(*b, vec![1]);
    assert_eq!(two_told.recv().await.unwrap(), "Send(LinkId(7), [1])");
    set.command(RadioCommand::Close(*a));
    assert_eq!(one_told.recv().await.unwrap(), "Close(LinkId(7))");
    set.command(RadioCommand::Connect(*q));
    assert_eq!(two_told.recv().await.unwrap(), "Connect(PeerAddr(9))");
    set.command(RadioCommand::Scan(ScanDuty::Full));
    assert_eq!(one_told.recv().await.unwrap(), "Scan(Full)");
    assert_eq!(two_told.recv().await.unwrap(), "Scan(Full)");

    two_events.send(RadioEvent::Data { link: LinkId(7), bytes: vec![5] }).await.unwrap();
    assert_eq!(next(&mut set).await, [RadioEvent::Data { link: *b, bytes: vec![5] }]);
    two_events.send(RadioEvent::Closed { link: LinkId(7) }).await.unwrap();
    assert_eq!(next(&mut set).await, [RadioEvent::Closed { link: *b }]);
    // What a radio says of a link that is closed is nobody's business any more.
    two_events.send(RadioEvent::Sent { link: LinkId(7), count: 1 }).await.unwrap();
    two_events.send(RadioEvent::OpenFailed { peer: PeerAddr(9) }).await.unwrap();
    assert_eq!(next(&mut set).await, [RadioEvent::OpenFailed { peer: *q }]);
    assert!(one_told.try_recv().is_err() && two_told.try_recv().is_err());
}

#[tokio::test]
async fn one_radio_going_off_closes_its_own_links_only() {
    let (one, one_events, _one_told) = fake();
    let (two, two_events, _two_told) = fake();
    let mut set = RadioSet::new(vec![one, two]);
    one_events.send(opened(1, 1)).await.unwrap();
    let RadioEvent::Opened { link, .. } = next(&mut set).await[0] else { panic!() };
    two_events.send(opened(1, 1)).await.unwrap();
    let RadioEvent::Opened { link: other, .. } = next(&mut set).await[0] else { panic!() };
    one_events.send(RadioEvent::State { on: false }).await.unwrap();
    assert_eq!(next(&mut set).await, [RadioEvent::Closed { link }]);
    // A radio that is gone for good counts as off.
    drop(two_events);
    assert_eq!(next(&mut set).await, [RadioEvent::Closed { link: other }, RadioEvent::State { on: false }]);
    one_events.send(RadioEvent::State { on: true }).await.unwrap();
    assert_eq!(next(&mut set).await, [RadioEvent::State { on: true }]);
    assert!(set.is_silent());
}

#[tokio::test]
async fn a_device_that_was_forgotten_can_be_asked_for_and_the_refusal_comes() {
    let (one, one_events, _told) = fake();
    let mut set = RadioSet::new(vec![one]);
    for peer in 0..=MAX_PEERS as u64 {
        one_events.send(RadioEvent::Discovered { peer: PeerAddr(peer), beacon: vec![] }).await.unwrap();
        next(&mut set).await;
    }
    assert_eq!(set.numbers.peers.len(), MAX_PEERS);
    assert_eq!(set.numbers.peer_of.len(), MAX_PEERS);
    set.command(RadioCommand::Connect(PeerAddr(0)));
    assert_eq!(next(&mut set).await, [RadioEvent::OpenFailed { peer: PeerAddr(0) }]);
}

async fn event(events: &mut mpsc::Receiver<RadioEvent>) -> RadioEvent {
    timeout(Duration::from_secs(10), events.recv()).await.unwrap().unwrap()
}

async fn link_of(events: &mut mpsc::Receiver<RadioEvent>, expect_dialler: bool) -> LinkId {
    match event(events).await {
        RadioEvent::Opened { link, dialler, limits: LinkLimits::TCP, .. } if dialler == expect_dialler => link,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn tcp_carries_all_bytes_in_order_and_what_was_handed_over_before_a_close() {
    let (mut server, mut server_events) = TcpRadio::start(Some("127.0.0.1:0"), &[]).await.unwrap();
    let address = server.local_addr().unwrap().to_string();
    let (mut client, mut client_events) = TcpRadio::start(None, std::slice::from_ref(&address)).await.unwrap();
    let here = link_of(&mut client_events, true).await;
    let there = link_of(&mut server_events, false).await;

    // From the client, frames of all sizes; a fast reader gets them whole and in order.
    let frames: Vec<Vec<u8>> =
        (0..300_usize).map(|n| (0..n * 211 % 65_539).map(|byte| (byte * 31 + n) as u8).collect()).collect();
    let expected = frames.concat();
    let total = frames.len();
    let sender = async {
        let (mut sent, mut handed) = (0, 0);
        for frame in frames {
            client.send(here, frame);
            handed += 1;
            while handed - sent >= LinkLimits::TCP.max_in_flight {
                match event(&mut client_events).await {
                    RadioEvent::Sent { link, count } if link == here => sent += count,
                    other => panic!("{other:?}"),
                }
            }
        }
        client.command(RadioCommand::Close(here));
        loop {
            match event(&mut client_events).await {
                RadioEvent::Sent { link, count } if link == here => sent += count,
                RadioEvent::Closed { link } if link == here => return sent,
                other => panic!("{other:?}"),
            }
        }
    };
    let receiver = async {
        let mut received = Vec::new();
        loop {
            match event(&mut server_events).await {
                RadioEvent::Data { link, bytes } if link == there => received.extend(bytes),
                RadioEvent::Closed { link } if link == there => return received,
                other => panic!("{other:?}"),
            }
        }
    };
    let (sent, received) = tokio::join!(sender, receiver);
    assert_eq!(sent, total);
    assert!(received == expected, "{} bytes instead of {}", received.len(), expected.len());

    // The peer is dialled again, and is a link of a new number.
    let again = link_of(&mut client_events, true).await;
    assert_ne!(again, here);
    let again_there = link_of(&mut server_events, false).await;
    server.send(again_there, b"welcome back".to_vec());
    assert_eq!(event(&mut client_events).await, RadioEvent::Data { link: again, bytes: b"welcome back".to_vec() });
    drop(server);
    assert_eq!(event(&mut client_events).await, RadioEvent::Closed { link: again });
}

#[tokio::test]
async fn nobody_is_found_by_tcp_but_every_connect_is_answered() {
    let (mut radio, mut events) = TcpRadio::start(Some("127.0.0.1:0"), &[]).await.unwrap();
    radio.command(RadioCommand::Advertise(Some(vec![1])));
    radio.command(RadioCommand::Scan(ScanDuty::Full));
    radio.command(RadioCommand::Connect(PeerAddr(3)));
    assert_eq!(event(&mut events).await, RadioEvent::OpenFailed { peer: PeerAddr(3) });
}

#[tokio::test]
async fn a_peer_that_is_not_there_yet_is_reached_once_it_is() {
    let probe = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = probe.local_addr().unwrap().to_string();
    drop(probe);
    let (_client, mut events) = TcpRadio::start(None, std::slice::from_ref(&address)).await.unwrap();
    assert!(timeout(Duration::from_millis(300), events.recv()).await.is_err());
    let (_server, mut server_events) = TcpRadio::start(Some(&address), &[]).await.unwrap();
    link_of(&mut events, true).await;
    link_of(&mut server_events, false).await;
}

#[tokio::test]
async fn a_reader_that_does_not_read_holds_the_sender_back_but_not_the_close() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (mut client, mut events) = TcpRadio::start(None, std::slice::from_ref(&address)).await.unwrap();
    let (_silent, _) = listener.accept().await.unwrap();
    let link = link_of(&mut events, true).await;
    // Until the system's buffers are full and nothing is reported as sent any more.
    loop {
        client.send(link, vec![0; 4 << 20]);
        if timeout(Duration::from_millis(500), events.recv()).await.is_err() {
            break;
        }
    }
    client.command(RadioCommand::Close(link));
    assert_eq!(event(&mut events).await, RadioEvent::Closed { link });
}
