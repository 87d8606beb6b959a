//! The simulated air's protocol over TCP, and what the air does with commands of a stranger's.

use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bbh_air::{Air, Config, Place, RadioId, SendError};
use bbh_node::air::protocol::{FromHub, MAX_MESSAGE, Message, ProtocolError, ToHub, read};
use bbh_types::Instant;
use bbh_types::radio::{LinkId, PeerAddr, RadioCommand, RadioEvent};

/// Bytes of a connection. What is accepted has these bytes for its only encoding, but for an error's text; what a
/// client may say is done by a hub's air with two radios, of which both do the same. Peer 0 stands for the other radio,
/// link 0 for the last one opened.
pub fn air(data: &[u8]) {
    let texts = |message: &FromHub| matches!(message, FromHub::Error(_));
    connection::<FromHub>(data, texts);
    let mut world = World::new();
    for message in connection::<ToHub>(data, |_| false) {
        world.act(message);
    }
}

/// The messages of a stream, up to the first that is none.
fn connection<M: Message + std::fmt::Debug>(stream: &[u8], lossy: fn(&M) -> bool) -> Vec<M> {
    let (mut rest, mut buffer, mut messages) = (stream, Vec::new(), Vec::new());
    loop {
        let before = rest;
        let outcome = {
            let next = pin!(read::<M>(&mut rest, &mut buffer));
            next.poll(&mut Context::from_waker(Waker::noop()))
        };
        assert!(buffer.len() <= MAX_MESSAGE);
        match outcome {
            Poll::Ready(Ok(Some(message))) => {
                let taken = &before[..before.len() - rest.len()];
                let mut again = Vec::new();
                message.encode(&mut again);
                assert!(again == taken || lossy(&message), "{message:?} has two encodings");
                messages.push(message);
            }
            Poll::Ready(Ok(None)) => {
                assert!(before.is_empty());
                return messages;
            }
            Poll::Ready(Err(ProtocolError::Io(_))) => {
                assert!(rest.is_empty(), "only the end of a stream breaks it");
                return messages;
            }
            Poll::Ready(Err(_)) => return messages,
            Poll::Pending => panic!("all that comes is here"),
        }
    }
}

struct World {
    now: Instant,
    air: Air,
    radio: Option<RadioId>,
    other: RadioId,
    link: LinkId,
}

impl World {
    fn new() -> Self {
        let now = Instant::ZERO;
        let mut air = Air::new(Config::default(), 1).expect("the default makes sense");
        let other = air.join(now, Place::at(0.0, 0.0)).expect("a place like any other");
        Self { now, air, radio: None, other, link: LinkId(0) }
    }

    /// As the hub does it, a tenth of a second after the message before; a client that breaks a rule is dropped.
    fn act(&mut self, message: ToHub) {
        self.now += Duration::from_millis(100);
        let outcome = match (message, self.radio) {
            (ToHub::Join { x, y }, None) => match self.air.join(self.now, Place::at(x, y)) {
                Ok(radio) => {
                    self.radio = Some(radio);
                    true
                }
                Err(_) => false,
            },
            (ToHub::Move { x, y }, Some(radio)) => self.air.move_to(self.now, radio, x, y).is_ok(),
            (ToHub::Command(command), Some(radio)) => {
                let command = match command {
                    RadioCommand::Connect(PeerAddr(0)) => {
                        RadioCommand::Connect(self.air.address(self.other).unwrap_or(PeerAddr(0)))
                    }
                    RadioCommand::Close(LinkId(0)) => RadioCommand::Close(self.link),
                    command => command,
                };
                // The other radio does the same, so that links come about.
                let _ = self.air.command(self.now, self.other, command.clone());
                self.air.command(self.now, radio, command).is_ok()
            }
            (ToHub::Send { link, bytes }, Some(radio)) => {
                let link = if link == LinkId(0) { self.link } else { link };
                matches!(self.air.send(self.now, radio, link, bytes), Ok(()) | Err(SendError::NotOpen))
            }
            _ => false,
        };
        if !outcome && let Some(radio) = self.radio.take() {
            self.air.leave(self.now, radio);
        }
        self.air.handle_timeout(self.now);
        assert!(self.air.poll_timeout().is_none_or(|at| at > self.now), "a timer that stands still");
        let mut events = 0;
        while let Some((_, event)) = self.air.poll_event() {
            events += 1;
            if let RadioEvent::Opened { link, .. } = event {
                self.link = link;
            }
            let mut bytes = Vec::new();
            FromHub::Event(event).encode(&mut bytes);
            assert!(bytes.len() <= MAX_MESSAGE + 4, "too long for the other side to read");
        }
        assert!(events < 100, "a storm of events");
        assert!(self.air.radios() <= 2);
    }
}
