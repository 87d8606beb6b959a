//! A radio over TCP: the client of the hub.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bbh_types::radio::{LinkId, PeerAddr, RadioCommand, RadioEvent, ScanDuty};
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, mpsc};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::protocol::{self, FromHub, Message, ProtocolError, ToHub};

/// Commands and transmissions that may wait for the hub.
const QUEUE: usize = 1_024;

/// How long the hub may take to answer a Join.
const JOIN_TIMEOUT: Duration = Duration::from_secs(10);

/// The first wait before connecting again, doubled up to the last.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LAST: Duration = Duration::from_secs(10);

/// Why a radio can't be had from a hub.
#[derive(Debug, thiserror::Error)]
pub enum AirRadioError {
    /// Nobody listens there, or the connection broke.
    #[error("no air hub at {addr}: {source} (start one with `bbh air`)")]
    Unreachable {
        /// Where.
        addr: String,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// The hub refused.
    #[error("the air hub at {addr} refuses: {reason}")]
    Refused {
        /// Where.
        addr: String,
        /// The hub's reason.
        reason: String,
    },
    /// Whoever listens there does not answer as a hub does.
    #[error("what listens at {addr} is no air hub of this version: {reason}")]
    NoHub {
        /// Where.
        addr: String,
        /// What is wrong.
        reason: String,
    },
}

/// A radio that lives in a hub. It is on when [`AirRadio::connect`] returns. When the hub is lost it goes off
/// ([`RadioEvent::State`], after [`RadioEvent::OpenFailed`] for connections under way), which closes all links;
/// it connects again, waiting 1 s to 10 s between attempts, advertises and scans as it was last told, and reports
/// that it is on. Dropping it, or the receiver of its events, switches it off for good.
///
/// No method waits. The contract is that of [`bbh_types::radio`].
#[derive(Debug)]
pub struct AirRadio {
    out: mpsc::Sender<ToHub>,
    overflow: Arc<Notify>,
}

impl AirRadio {
    /// Connects to the hub at `addr` (`HOST:PORT`) and appears at this position, in metres. Events must be received:
    /// while they are not, the hub's wait too, and in the end it drops the radio.
    ///
    /// # Errors
    /// [`AirRadioError`]; later failures are dealt with as described at [`AirRadio`].
    pub async fn connect(addr: &str, x: f64, y: f64) -> Result<(Self, mpsc::Receiver<RadioEvent>), AirRadioError> {
        let connection = Connection::open(addr, x, y).await?;
        let (out, commands) = mpsc::channel(QUEUE);
        let (events, received) = mpsc::channel(256);
        let overflow = Arc::new(Notify::new());
        let task = Task {
            addr: addr.to_owned(),
            commands,
            events,
            overflow: overflow.clone(),
            wanted: Mutex::new(Wanted { x, y, beacon: None, duty: ScanDuty::Off, connecting: Vec::new() }),
        };
        tokio::spawn(task.run(connection));
        Ok((Self { out, overflow }, received))
    }

    /// Tells the radio to do something.
    pub fn command(&self, command: RadioCommand) {
        self.hand_over(ToHub::Command(command));
    }

    /// Hands over one transmission. More than the link's limit in flight makes the hub drop the radio.
    pub fn send(&self, link: LinkId, bytes: Vec<u8>) {
        self.hand_over(ToHub::Send { link, bytes });
    }

    /// Carries the radio elsewhere, in metres.
    pub fn move_to(&self, x: f64, y: f64) {
        self.hand_over(ToHub::Move { x, y });
    }

    fn hand_over(&self, message: ToHub) {
        if self.out.try_send(message).is_err() {
            // The hub has not read for so long that it counts as lost.
            self.overflow.notify_waiters();
        }
    }
}

/// What the radio's owner wants, kept for the next connection.
struct Wanted {
    x: f64,
    y: f64,
    beacon: Option<Vec<u8>>,
    duty: ScanDuty,
    /// Connections that have not been answered.
    connecting: Vec<PeerAddr>,
}

/// How a connection ended.
enum End {
    /// The hub is lost, for this reason.
    Lost(String),
    /// Nobody wants the radio any more.
    Unwanted,
}

struct Task {
    addr: String,
    commands: mpsc::Receiver<ToHub>,
    events: mpsc::Sender<RadioEvent>,
    overflow: Arc<Notify>,
    wanted: Mutex<Wanted>,
}

impl Task {
    async fn run(mut self, mut connection: Connection) {
        loop {
            match self.serve(connection).await {
                End::Unwanted => return,
                End::Lost(reason) => warn!(hub = self.addr, reason, "the air hub is lost; trying again"),
            }
            let Some(again) = self.reconnect().await else { return };
            connection = again;
            info!(hub = self.addr, "the air hub is back");
            if self.events.send(RadioEvent::State { on: true }).await.is_err() {
                return;
            }
        }
    }

    /// Passes commands and events on until the hub is lost.
    async fn serve(&mut self, connection: Connection) -> End {
        let Connection { from, to } = connection;
        let overflow = self.overflow.notified();
        tokio::select! {
            end = read_all(from, &self.events, &self.wanted) => end,
            end = write_all(to, &mut self.commands, &self.wanted) => end,
            () = overflow => End::Lost("it does not read what it is told".into()),
        }
    }

    /// Reports that the radio is off and returns the next connection, or `None` if nobody wants it.
    async fn reconnect(&mut self) -> Option<Connection> {
        let connecting = std::mem::take(&mut lock(&self.wanted).connecting);
        for peer in connecting {
            self.events.send(RadioEvent::OpenFailed { peer }).await.ok()?;
        }
        self.events.send(RadioEvent::State { on: false }).await.ok()?;
        let mut wait = RETRY_FIRST;
        loop {
            let addr = self.addr.clone();
            let (x, y) = lock(&self.wanted).position();
            let attempt = async move {
                sleep(wait).await;
                Connection::open(&addr, x, y).await
            };
            tokio::pin!(attempt);
            let connection = loop {
                tokio::select! {
                    done = &mut attempt => break done,
                    message = self.commands.recv() => {
                        let message = message?;
                        // Links are gone, and no connection can be made while the radio is off.
                        if let ToHub::Command(RadioCommand::Connect(peer)) = message {
                            self.events.send(RadioEvent::OpenFailed { peer }).await.ok()?;
                        } else {
                            lock(&self.wanted).note(&message);
                        }
                    }
                }
            };
            let resumed = match connection {
                Ok(mut connection) => {
                    let settings = lock(&self.wanted).settings();
                    connection.to.write_all(&settings).await.map(|()| connection).map_err(|e| e.to_string())
                }
                Err(error) => Err(error.to_string()),
            };
            match resumed {
                Ok(connection) => return Some(connection),
                Err(reason) => {
                    wait = (wait * 2).min(RETRY_LAST);
                    warn!(reason, wait_s = wait.as_secs(), "the air hub is still lost");
                }
            }
        }
    }
}

impl Wanted {
    fn note(&mut self, message: &ToHub) {
        match message {
            ToHub::Join { x, y } | ToHub::Move { x, y } => (self.x, self.y) = (*x, *y),
            ToHub::Command(RadioCommand::Advertise(beacon)) => self.beacon.clone_from(beacon),
            ToHub::Command(RadioCommand::Scan(duty)) => self.duty = *duty,
            ToHub::Command(RadioCommand::Connect(peer)) => self.connecting.push(*peer),
            ToHub::Command(RadioCommand::Close(_)) | ToHub::Send { .. } => {}
        }
    }

    fn position(&self) -> (f64, f64) {
        (self.x, self.y)
    }

    fn answered(&mut self, event: &RadioEvent) {
        if let RadioEvent::Opened { peer, dialler: true, .. } | RadioEvent::OpenFailed { peer } = event
            && let Some(at) = self.connecting.iter().position(|p| p == peer)
        {
            self.connecting.remove(at);
        }
    }

    /// What a new connection has to be told after the Join.
    fn settings(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        ToHub::Move { x: self.x, y: self.y }.encode(&mut bytes);
        ToHub::Command(RadioCommand::Advertise(self.beacon.clone())).encode(&mut bytes);
        ToHub::Command(RadioCommand::Scan(self.duty)).encode(&mut bytes);
        bytes
    }
}

fn lock(wanted: &Mutex<Wanted>) -> std::sync::MutexGuard<'_, Wanted> {
    // Nothing that holds the lock can panic half way through a change.
    wanted.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn read_all(
    mut from: BufReader<OwnedReadHalf>,
    events: &mpsc::Sender<RadioEvent>,
    wanted: &Mutex<Wanted>,
) -> End {
    let mut buffer = Vec::new();
    loop {
        let event = match protocol::read(&mut from, &mut buffer).await {
            Ok(Some(FromHub::Event(event))) => event,
            Ok(Some(FromHub::Joined)) => return End::Lost("it said Joined twice".into()),
            Ok(Some(FromHub::Error(reason))) => return End::Lost(format!("it dropped this radio: {reason}")),
            Ok(None) => return End::Lost("it closed the connection".into()),
            Err(error) => return End::Lost(error.to_string()),
        };
        lock(wanted).answered(&event);
        if events.send(event).await.is_err() {
            return End::Unwanted;
        }
    }
}

async fn write_all(mut to: OwnedWriteHalf, commands: &mut mpsc::Receiver<ToHub>, wanted: &Mutex<Wanted>) -> End {
    let (mut messages, mut bytes) = (Vec::new(), Vec::new());
    while commands.recv_many(&mut messages, 64).await > 0 {
        bytes.clear();
        for message in messages.drain(..) {
            lock(wanted).note(&message);
            message.encode(&mut bytes);
        }
        if let Err(error) = to.write_all(&bytes).await {
            return End::Lost(error.to_string());
        }
    }
    End::Unwanted
}

/// A connection to a hub that has answered the Join.
struct Connection {
    from: BufReader<OwnedReadHalf>,
    to: OwnedWriteHalf,
}

impl Connection {
    async fn open(addr: &str, x: f64, y: f64) -> Result<Self, AirRadioError> {
        match timeout(JOIN_TIMEOUT, Self::join(addr, x, y)).await {
            Ok(joined) => joined,
            Err(_) => {
                let reason = format!("no answer within {} s", JOIN_TIMEOUT.as_secs());
                Err(AirRadioError::NoHub { addr: addr.into(), reason })
            }
        }
    }

    async fn join(addr: &str, x: f64, y: f64) -> Result<Self, AirRadioError> {
        let unreachable = |source| AirRadioError::Unreachable { addr: addr.into(), source };
        let no_hub = |reason: &str| AirRadioError::NoHub { addr: addr.into(), reason: reason.into() };
        let stream = TcpStream::connect(addr).await.map_err(unreachable)?;
        stream.set_nodelay(true).map_err(unreachable)?;
        let (from, mut to) = stream.into_split();
        let mut from = BufReader::with_capacity(16 * 1024, from);
        let mut bytes = Vec::new();
        ToHub::Join { x, y }.encode(&mut bytes);
        to.write_all(&bytes).await.map_err(unreachable)?;
        match protocol::read(&mut from, &mut bytes).await {
            Ok(Some(FromHub::Joined)) => Ok(Self { from, to }),
            Ok(Some(FromHub::Error(reason))) => Err(AirRadioError::Refused { addr: addr.into(), reason }),
            Ok(Some(FromHub::Event(_))) => Err(no_hub("it did not answer the Join")),
            Ok(None) => Err(no_hub("it closed the connection")),
            Err(ProtocolError::Io(source)) => Err(unreachable(source)),
            Err(error) => Err(no_hub(&error.to_string())),
        }
    }
}
