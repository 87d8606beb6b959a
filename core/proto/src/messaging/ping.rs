//! Ping: is a node there, and how long is the way to it and back?

use std::collections::BTreeMap;
use std::time::Duration;

use bbh_types::{Instant, NodeId};
use bbh_wire::Message;
use bbh_wire::message::{Ping, Pong};

use super::manager::{Context, Manager, Received};
use crate::api::{Command, Event};
use crate::routing::broadcast::TokenBucket;

/// How long a pong is waited for.
pub const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// Pings under way.
const MAX_OPEN: usize = 64;

/// Pings answered a second, after a burst: pongs go in lane control, which has to stay free.
const ANSWER_RATE: f64 = 20.0;
const ANSWER_BURST: f64 = 60.0;

/// Asks and answers pings.
#[derive(Debug, Default)]
pub struct PingManager {
    open: BTreeMap<u64, (NodeId, Instant)>,
    answers: Option<TokenBucket>,
}

impl Manager for PingManager {
    fn kinds(&self) -> &'static [u8] {
        &[53, 54]
    }

    fn handle_message(&mut self, cx: &mut Context<'_>, received: Received) {
        match received.message {
            Message::Ping(Ping { token }) if !received.broadcast => {
                let answers = self.answers.get_or_insert_with(|| TokenBucket::new(ANSWER_RATE, ANSWER_BURST, cx.now));
                if answers.take(cx.now) {
                    cx.send(received.source, Pong { token });
                }
            }
            Message::Pong(Pong { token }) => {
                // Nobody else can answer for the node that was asked.
                if let Some(&(node, sent)) = self.open.get(&token)
                    && node == received.source
                {
                    self.open.remove(&token);
                    let time = Some(cx.now.since(sent));
                    cx.events.push_back(Event::Pong { token, time });
                }
            }
            _ => {}
        }
    }

    fn handle_command(&mut self, cx: &mut Context<'_>, command: &Command) {
        let &Command::Ping { node, token } = command else { return };
        if self.open.len() >= MAX_OPEN {
            cx.events.push_back(Event::Pong { token, time: None });
            return;
        }
        self.open.insert(token, (node, cx.now));
        cx.send(node, Ping { token });
    }

    fn handle_timeout(&mut self, cx: &mut Context<'_>) {
        let now = cx.now;
        let (events, open) = (&mut *cx.events, &mut self.open);
        open.retain(|&token, (_, sent)| {
            let waiting = now.since(*sent) < PING_TIMEOUT;
            if !waiting {
                events.push_back(Event::Pong { token, time: None });
            }
            waiting
        });
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.open.values().map(|&(_, sent)| sent + PING_TIMEOUT).min()
    }
}
