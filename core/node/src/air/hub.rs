//! The hub: a model of the air in real time, and a TCP connection for each radio.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use bbh_air::{Air, Config, ConfigError, Place, RadioId, SendError};
use bbh_types::Instant;
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep_until, timeout};
use tracing::{debug, info, warn};

use super::protocol::{self, FromHub, Message, ToHub};

/// How long a new connection may take to say Join.
const JOIN_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a write may stand still before the client counts as dead.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long nobody is accepted after that failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Messages other than Send that a client may say in a second.
const MAX_COMMANDS: u32 = 1_000;

/// Messages handled in one go before time is looked at again.
const BATCH: usize = 64;

/// How the hub works.
#[derive(Debug, Clone)]
pub struct HubConfig {
    /// The figures of the air. [`HubConfig::default`] sets [`Config::catch_up`] to 20 ms, since timers are coarse.
    pub air: Config,
    /// The seed of the air's chances; `None` draws one.
    pub seed: Option<u64>,
    /// Most clients at a time, default 1,024.
    pub max_clients: usize,
    /// How many messages may wait for a client before it counts as dead, default 4,096.
    pub queue: usize,
}

impl Default for HubConfig {
    fn default() -> Self {
        let air = Config { catch_up: Duration::from_millis(20), ..Config::default() };
        Self { air, seed: None, max_clients: 1_024, queue: 4_096 }
    }
}

/// Why a hub can't work.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// A figure of the air is out of its bounds.
    #[error("the air can't be as asked for: {0}")]
    Config(#[from] ConfigError),
}

/// Serves radios on this listener until the future is dropped, which ends all connections.
///
/// # Errors
/// [`HubError`] before the first connection is accepted; nothing that a client does ends the hub.
pub async fn serve(listener: TcpListener, config: HubConfig) -> Result<Infallible, HubError> {
    // The standard library seeds its hash maps from the operating system.
    let seed = config.seed.unwrap_or_else(|| RandomState::new().build_hasher().finish());
    let air = Air::new(config.air, seed)?;
    let (inbox_in, mut inbox) = mpsc::channel(1_024);
    let mut hub = Hub {
        air,
        start: tokio::time::Instant::now(),
        max_clients: config.max_clients,
        queue: config.queue.max(1),
        clients: BTreeMap::new(),
        by_radio: BTreeMap::new(),
        last_client: 0,
        tasks: JoinSet::new(),
        inbox: inbox_in,
    };
    let mut accept_from = hub.start;
    loop {
        let due = hub.air.poll_timeout().and_then(|at| hub.start.checked_add(Duration::from_micros(at.as_micros())));
        let timer = async {
            match due {
                Some(due) => sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = timer => {}
            Some((client, said)) = inbox.recv() => {
                hub.said(client, said);
                for _ in 1..BATCH {
                    match inbox.try_recv() {
                        Ok((client, said)) => hub.said(client, said),
                        Err(_) => break,
                    }
                }
            }
            accepted = async {
                sleep_until(accept_from).await;
                listener.accept().await
            } => match accepted {
                Ok((stream, _)) => hub.accept(stream),
                Err(error) => {
                    // Out of file descriptors, most likely: those who are here go on, the others wait.
                    warn!(%error, "a connection can't be accepted");
                    accept_from = tokio::time::Instant::now() + ACCEPT_PAUSE;
                }
            },
            Some(_) = hub.tasks.join_next(), if !hub.tasks.is_empty() => {}
        }
        let now = hub.now();
        hub.air.handle_timeout(now);
        hub.deliver();
    }
}

/// What comes from a client's connection.
enum Said {
    Message(ToHub),
    /// The connection is over; the text is for the client, if it did something wrong.
    Over(Option<String>),
}

struct Client {
    radio: Option<RadioId>,
    out: mpsc::Sender<FromHub>,
    reader: AbortHandle,
    writer: AbortHandle,
    /// The second in which commands are counted, and their number.
    commands: (u64, u32),
}

struct Hub {
    air: Air,
    start: tokio::time::Instant,
    max_clients: usize,
    queue: usize,
    clients: BTreeMap<u64, Client>,
    by_radio: BTreeMap<RadioId, u64>,
    last_client: u64,
    tasks: JoinSet<()>,
    inbox: mpsc::Sender<(u64, Said)>,
}

impl Hub {
    fn now(&self) -> Instant {
        Instant::from_micros(u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    fn accept(&mut self, stream: TcpStream) {
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%error, "a connection broke before it began");
            return;
        }
        let (from, to) = stream.into_split();
        let (out, queue) = mpsc::channel(self.queue);
        let writer = self.tasks.spawn(write_all(to, queue));
        if self.clients.len() >= self.max_clients {
            warn!("a client is turned away: there are {} already", self.max_clients);
            let full = format!("the hub is full: it takes {} radios", self.max_clients);
            // The queue is empty; should this fail, the client only misses the reason.
            let _ = out.try_send(FromHub::Error(full));
            return;
        }
        self.last_client += 1;
        let id = self.last_client;
        let reader = self.tasks.spawn(read_all(id, from, self.inbox.clone()));
        self.clients.insert(id, Client { radio: None, out, reader, writer, commands: (0, 0) });
    }

    fn said(&mut self, id: u64, said: Said) {
        let outcome = match said {
            Said::Message(message) => self.handle(id, message),
            Said::Over(Some(error)) => Err(error),
            Said::Over(None) => return self.drop_client(id),
        };
        if let Err(error) = outcome {
            self.reject(id, error);
        }
    }

    /// Does what a client wants; the error is for the client.
    fn handle(&mut self, id: u64, message: ToHub) -> Result<(), String> {
        let now = self.now();
        // What a dropped client said last may still be in the inbox.
        let Some(client) = self.clients.get_mut(&id) else { return Ok(()) };
        if !matches!(message, ToHub::Send { .. }) {
            let second = now.as_micros() / 1_000_000;
            let count = if client.commands.0 == second { client.commands.1 + 1 } else { 1 };
            client.commands = (second, count);
            if count > MAX_COMMANDS {
                return Err(format!("over {MAX_COMMANDS} messages in a second"));
            }
        }
        let text = |error: bbh_air::AirError| error.to_string();
        match (message, client.radio) {
            (ToHub::Join { x, y }, None) => {
                let radio = self.air.join(now, Place::at(x, y)).map_err(text)?;
                client.radio = Some(radio);
                self.by_radio.insert(radio, id);
                info!(radio = radio.0, x, y, "a radio joined");
                self.send(id, FromHub::Joined);
                Ok(())
            }
            (ToHub::Join { .. }, Some(_)) => Err("this radio has joined already".into()),
            (_, None) => Err("the first message must be Join".into()),
            (ToHub::Move { x, y }, Some(radio)) => self.air.move_to(now, radio, x, y).map_err(text),
            (ToHub::Command(command), Some(radio)) => self.air.command(now, radio, command).map_err(text),
            (ToHub::Send { link, bytes }, Some(radio)) => match self.air.send(now, radio, link, bytes) {
                Ok(()) | Err(SendError::NotOpen) => Ok(()),
                Err(error) => Err(error.to_string()),
            },
        }
    }

    /// Hands the air's events to the clients.
    fn deliver(&mut self) {
        while let Some((radio, event)) = self.air.poll_event() {
            if let Some(id) = self.by_radio.get(&radio).copied() {
                self.send(id, FromHub::Event(event));
            }
        }
    }

    fn send(&mut self, id: u64, message: FromHub) {
        let Some(client) = self.clients.get(&id) else { return };
        if client.out.try_send(message).is_err() {
            warn!(client = id, "a client does not read its events: dropped");
            client.writer.abort();
            self.drop_client(id);
        }
    }

    fn reject(&mut self, id: u64, error: String) {
        if let Some(client) = self.clients.get(&id) {
            warn!(client = id, error, "a client did something wrong: dropped");
            // A full queue means that the client is not going to read the reason.
            let _ = client.out.try_send(FromHub::Error(error));
        }
        self.drop_client(id);
    }

    /// A client is no more; its writer still writes what is in its queue.
    fn drop_client(&mut self, id: u64) {
        let Some(client) = self.clients.remove(&id) else { return };
        client.reader.abort();
        if let Some(radio) = client.radio {
            info!(radio = radio.0, "a radio left");
            self.by_radio.remove(&radio);
            let now = self.now();
            self.air.leave(now, radio);
        }
    }
}

/// Reads what a client says until it ends.
async fn read_all(id: u64, from: OwnedReadHalf, inbox: mpsc::Sender<(u64, Said)>) {
    let mut from = BufReader::with_capacity(16 * 1024, from);
    let mut buffer = Vec::new();
    let mut joined = false;
    loop {
        let next = protocol::read::<ToHub>(&mut from, &mut buffer);
        let next = if joined {
            next.await
        } else {
            match timeout(JOIN_TIMEOUT, next).await {
                Ok(next) => next,
                Err(_) => {
                    let late = format!("no Join within {} s", JOIN_TIMEOUT.as_secs());
                    let _ = inbox.send((id, Said::Over(Some(late)))).await;
                    return;
                }
            }
        };
        joined = true;
        let said = match next {
            Ok(Some(message)) => Said::Message(message),
            Ok(None) | Err(protocol::ProtocolError::Io(_)) => Said::Over(None),
            Err(error) => Said::Over(Some(error.to_string())),
        };
        let over = matches!(said, Said::Over(_));
        // The inbox closes with the hub.
        if inbox.send((id, said)).await.is_err() || over {
            return;
        }
    }
}

/// Writes what is queued for a client until the queue is closed and empty.
async fn write_all(mut to: OwnedWriteHalf, mut queue: mpsc::Receiver<FromHub>) {
    let (mut messages, mut bytes) = (Vec::new(), Vec::new());
    while queue.recv_many(&mut messages, BATCH).await > 0 {
        bytes.clear();
        messages.drain(..).for_each(|message| message.encode(&mut bytes));
        // The reader notices a broken connection too, and it is the one to report it.
        if !matches!(timeout(WRITE_TIMEOUT, to.write_all(&bytes)).await, Ok(Ok(()))) {
            return;
        }
    }
    let _ = to.shutdown().await;
}
