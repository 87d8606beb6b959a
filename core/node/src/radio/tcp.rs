//! TCP as a radio: each connection is a link, nothing is discovered.
//!
//! Peers named by the user are dialled at the start and again whenever their link is lost. Who a peer is, the
//! protocol's handshake proves on the link; an address proves nothing.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bbh_types::radio::{LinkId, LinkLimits, PeerAddr, RadioCommand, RadioEvent};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{Radio, RadioPort};

/// What is read at once.
const READ_BUFFER: usize = 256 * 1024;
/// Events that may wait for the node before reading stops.
const EVENTS: usize = 64;
/// Most connections accepted at a time: beyond, strangers could use up all file descriptors.
const MAX_ACCEPTED: usize = 64;
/// How long a closed link may take to get rid of what was handed over.
const FLUSH_TIME: Duration = Duration::from_secs(5);
/// How long dialling may take.
const DIAL_TIME: Duration = Duration::from_secs(15);
/// First and longest pause between two attempts to dial.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// A link that lasted so long was a good one: its peer is dialled again without a longer pause.
const GOOD_LINK: Duration = Duration::from_secs(30);

/// The TCP radio. Dropping it closes everything.
pub struct TcpRadio {
    shared: Arc<Shared>,
    local: Option<SocketAddr>,
    /// Listening, dialling and accepted connections; aborted on drop.
    _tasks: JoinSet<()>,
}

struct Shared {
    events: mpsc::Sender<RadioEvent>,
    links: Mutex<BTreeMap<LinkId, Handed>>,
    next_link: AtomicU64,
    next_peer: AtomicU64,
    accepted: AtomicUsize,
    /// A connection accepted before has ended.
    slot_free: Notify,
}

/// What the node hands to a link's task.
struct Handed {
    frames: mpsc::UnboundedSender<Vec<u8>>,
    /// The node wants it closed.
    closing: Arc<Notify>,
}

impl TcpRadio {
    /// Listens at `listen`, if given, and begins to dial `peers`, each `HOST:PORT`. Runs on the current runtime.
    ///
    /// # Errors
    /// If the address can't be listened at.
    pub async fn start(listen: Option<&str>, peers: &[String]) -> io::Result<(Self, mpsc::Receiver<RadioEvent>)> {
        let listener = match listen {
            Some(address) => Some(TcpListener::bind(address).await?),
            None => None,
        };
        let local = listener.as_ref().map(TcpListener::local_addr).transpose()?;
        let (sender, receiver) = mpsc::channel(EVENTS);
        let shared = Arc::new(Shared {
            events: sender,
            links: Mutex::new(BTreeMap::new()),
            next_link: AtomicU64::new(0),
            next_peer: AtomicU64::new(0),
            accepted: AtomicUsize::new(0),
            slot_free: Notify::new(),
        });
        let mut tasks = JoinSet::new();
        if let Some(listener) = listener {
            tasks.spawn(accept(listener, Arc::clone(&shared)));
        }
        for peer in peers {
            tasks.spawn(dial(peer.clone(), Arc::clone(&shared)));
        }
        Ok((Self { shared, local, _tasks: tasks }, receiver))
    }

    /// Where it listens, with the port that the system chose if 0 was asked for.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.local
    }

    /// The radio as the node takes it.
    pub fn into_port(self, events: mpsc::Receiver<RadioEvent>) -> RadioPort {
        RadioPort { radio: Box::new(self), events }
    }
}

impl Radio for TcpRadio {
    fn command(&mut self, command: RadioCommand) {
        match command {
            // Without its sender the link's task sends what waits and ends.
            RadioCommand::Close(link) => {
                if let Some(handed) = self.shared.links().remove(&link) {
                    handed.closing.notify_one();
                }
            }
            // Nobody is discovered here, so nobody can be asked for; the refusal is owed all the same. It must not
            // wait for the node, which is the one that has to make room for it.
            RadioCommand::Connect(peer) => {
                let events = self.shared.events.clone();
                tokio::spawn(async move {
                    let _ = events.send(RadioEvent::OpenFailed { peer }).await;
                });
            }
            RadioCommand::Advertise(_) | RadioCommand::Scan(_) => {}
        }
    }

    fn send(&mut self, link: LinkId, bytes: Vec<u8>) {
        if let Some(handed) = self.shared.links().get(&link) {
            // If the task has ended, `Closed` is on its way.
            let _ = handed.frames.send(bytes);
        }
    }
}

impl Shared {
    fn links(&self) -> std::sync::MutexGuard<'_, BTreeMap<LinkId, Handed>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn peer(&self) -> PeerAddr {
        PeerAddr(self.next_peer.fetch_add(1, Ordering::Relaxed))
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        while shared.accepted.load(Ordering::Relaxed) >= MAX_ACCEPTED {
            shared.slot_free.notified().await;
        }
        match listener.accept().await {
            Ok((stream, _)) => {
                shared.accepted.fetch_add(1, Ordering::Relaxed);
                let slot = Slot(Arc::clone(&shared));
                connections.spawn(async move {
                    let peer = slot.0.peer();
                    link(&slot.0, stream, peer, false).await;
                });
            }
            Err(error) => {
                // Mostly too many open files: others may close theirs.
                tracing::warn!(%error, "a connection can't be accepted");
                tokio::time::sleep(PAUSE.0).await;
            }
        }
    }
}

/// One of the places for accepted connections.
struct Slot(Arc<Shared>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.accepted.fetch_sub(1, Ordering::Relaxed);
        self.0.slot_free.notify_one();
    }
}

/// Keeps a link to one peer for as long as the radio lives.
async fn dial(address: String, shared: Arc<Shared>) {
    let peer = shared.peer();
    let mut pause = PAUSE.0;
    loop {
        match tokio::time::timeout(DIAL_TIME, TcpStream::connect(&address)).await {
            Ok(Ok(stream)) => {
                let begun = Instant::now();
                link(&shared, stream, peer, true).await;
                if begun.elapsed() >= GOOD_LINK {
                    pause = PAUSE.0;
                }
            }
            Ok(Err(error)) => tracing::debug!(%error, "a peer can't be reached"),
            Err(_) => tracing::debug!("a peer does not answer"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE.1);
    }
}

/// Runs one link until either side closes it.
async fn link(shared: &Shared, mut stream: TcpStream, peer: PeerAddr, dialler: bool) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection was gone at once");
        return;
    }
    let link = LinkId(shared.next_link.fetch_add(1, Ordering::Relaxed));
    let (frames, receiver) = mpsc::unbounded_channel();
    let closing = Arc::new(Notify::new());
    shared.links().insert(link, Handed { frames, closing: Arc::clone(&closing) });
    let opened = RadioEvent::Opened { link, peer, dialler, limits: LinkLimits::TCP };
    if shared.events.send(opened).await.is_err() {
        return;
    }
    let (mut read, write) = stream.split();
    let end = tokio::select! {
        read = read_all(link, &mut read, &shared.events) => read.map(|()| End::ByOther),
        written = write_all(link, write, receiver, &shared.events) => written.map(|()| End::BySelf),
        // Whoever does not read must not be able to hold a link open that this side has closed.
        () = async { closing.notified().await; tokio::time::sleep(FLUSH_TIME).await } => Ok(End::ByOther),
    };
    shared.links().remove(&link);
    let _ = shared.events.send(RadioEvent::Closed { link }).await;
    match end {
        Ok(End::ByOther) => {}
        // To close with unread bytes would take from the other side what was written last.
        Ok(End::BySelf) => drop(tokio::time::timeout(FLUSH_TIME, discard_all(read)).await),
        Err(error) => tracing::debug!(link = link.0, %error, "a link broke"),
    }
}

enum End {
    ByOther,
    BySelf,
}

async fn discard_all(mut read: impl AsyncRead + Unpin) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    while read.read(&mut buffer).await? > 0 {}
    Ok(())
}

/// Hands on what arrives until the other side closes. Reading waits while the node is busy, so that TCP holds the
/// sender back.
async fn read_all(link: LinkId, mut read: impl AsyncRead + Unpin, events: &mpsc::Sender<RadioEvent>) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(READ_BUFFER);
    loop {
        if read.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
        // Most of a full buffer is given away whole; a little is copied, so that small frames don't cost large blocks.
        let bytes = if buffer.len() >= READ_BUFFER / 2 {
            std::mem::replace(&mut buffer, Vec::with_capacity(READ_BUFFER))
        } else {
            let bytes = buffer.as_slice().to_vec();
            buffer.clear();
            bytes
        };
        if events.send(RadioEvent::Data { link, bytes }).await.is_err() {
            return Ok(());
        }
    }
}

/// Sends what is handed over, as much as waits at once, until this side closes.
async fn write_all(
    link: LinkId,
    mut write: impl AsyncWrite + Unpin,
    mut frames: mpsc::UnboundedReceiver<Vec<u8>>,
    events: &mpsc::Sender<RadioEvent>,
) -> io::Result<()> {
    let mut batch = Vec::new();
    loop {
        let count = frames.recv_many(&mut batch, LinkLimits::TCP.max_in_flight).await;
        if count == 0 {
            // What was written is in the system's hands; this tells the other side that no more will come.
            return write.shutdown().await;
        }
        write_batch(&mut write, &batch).await?;
        batch.clear();
        if events.send(RadioEvent::Sent { link, count }).await.is_err() {
            return Ok(());
        }
    }
}

async fn write_batch(write: &mut (impl AsyncWrite + Unpin), batch: &[Vec<u8>]) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = batch.iter().map(|frame| IoSlice::new(frame)).collect();
    let mut rest = &mut slices[..];
    // Empty slices in front would look like a closed connection.
    IoSlice::advance_slices(&mut rest, 0);
    while !rest.is_empty() {
        let written = poll_fn(|cx| std::pin::Pin::new(&mut *write).poll_write_vectored(cx, rest)).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        IoSlice::advance_slices(&mut rest, written);
    }
    Ok(())
}
