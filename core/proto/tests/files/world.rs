//! Nodes with file managers only, a library and a disk in memory each, and a seeded network between them that delays,
//! loses and parts.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bbh_bao::{Hasher, Outboard};
use bbh_proto::api::{
    Command, DownloadRecord, DownloadState, DownloadStatus, Effect, Event, LibraryAnswer, LibraryRequest, Settings,
    StorageAnswer, StorageRequest,
};
use bbh_proto::files::FileManagers;
use bbh_proto::messaging::{Context, Manager, Mesh, Outbound, Received};
use bbh_types::{BoundedString, ContentId, FileKind, FileRecord, Instant, Md5Hash, NodeId, Query, SearchMode, Tags};
use bbh_wire::{Lane, Message};
use rand_chacha::ChaCha12Rng;
use rand_core::{Rng, SeedableRng};

/// Bytes of one flow that wait in a node at most (design §7); more are dropped.
const BULK_QUEUE: u64 = 64 * 1024;

pub struct Shared {
    pub record: FileRecord,
    pub bytes: Vec<u8>,
    outboard: Outboard,
}

/// What a source does to the slices it sends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    FlipByte,
    /// Claims one byte more than there is.
    Size,
}

pub struct Peer {
    pub id: NodeId,
    pub files: FileManagers,
    pub settings: Settings,
    rng: ChaCha12Rng,
    token: u64,
    pub library: BTreeMap<ContentId, Shared>,
    pub lie: Option<Lie>,
    /// Only listens: what it sends is what the test injects.
    pub scripted: bool,
    /// Reads of the library fail.
    pub broken_library: bool,
    /// Library requests not answered because the library is busy.
    pub library_busy: bool,
    pub unanswered: Vec<LibraryRequest>,
    pub temporary: BTreeMap<ContentId, Vec<u8>>,
    pub finished: BTreeMap<ContentId, Vec<u8>>,
    pub saved: BTreeMap<ContentId, DownloadRecord>,
    pub reserved: Vec<u64>,
    pub disk_room: u64,
    /// Bytes after which writing fails.
    pub writable: u64,
    pub disk_delay: Duration,
    /// Counts restarts: answers for an earlier life are not delivered.
    life: u32,
    pub events: Vec<(Instant, Event)>,
    /// Pieces that arrived: source, content, start, end.
    pub arrived: Vec<(usize, ContentId, u64, u64)>,
    /// All messages that arrived.
    pub heard: Vec<(usize, Message)>,
}

enum Happening {
    Message { from: usize, to: usize, broadcast: bool, message: Message },
    Library { peer: usize, life: u32, answer: LibraryAnswer },
    Storage { peer: usize, life: u32, answer: StorageAnswer },
    Room { peer: usize, to: usize },
}

struct View {
    connected: bool,
    room: BTreeMap<NodeId, usize>,
}

impl Mesh for View {
    fn is_connected(&self) -> bool {
        self.connected
    }

    fn bulk_room(&self, to: NodeId) -> usize {
        self.room.get(&to).copied().unwrap_or(0)
    }
}

pub struct World {
    pub now: Instant,
    pub peers: Vec<Peer>,
    pub latency: Duration,
    /// Messages lost, of 1000.
    pub loss: u32,
    /// Bytes per second between any two.
    pub rate: u64,
    /// Relays mark everything.
    pub congested: bool,
    hops: BTreeMap<(usize, usize), u8>,
    cut: BTreeSet<(usize, usize)>,
    queue: BTreeMap<(Instant, u64), Happening>,
    sequence: u64,
    /// When the line from one to the other is free again.
    busy: BTreeMap<(usize, usize), Instant>,
    rng: ChaCha12Rng,
}

pub fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// A query for one word.
pub fn word(word: &str) -> Query {
    Query::new([word], SearchMode::All).unwrap()
}

impl World {
    pub fn new(peers: usize, seed: u64) -> Self {
        let peer = |number: usize| Peer {
            id: NodeId::of_key(&[number as u8 + 1; 32]),
            files: FileManagers::new(),
            settings: Settings::default(),
            rng: ChaCha12Rng::seed_from_u64(seed * 1000 + number as u64),
            token: 0,
            library: BTreeMap::new(),
            lie: None,
            scripted: false,
            broken_library: false,
            library_busy: false,
            unanswered: Vec::new(),
            temporary: BTreeMap::new(),
            finished: BTreeMap::new(),
            saved: BTreeMap::new(),
            reserved: Vec::new(),
            disk_room: u64::MAX,
            writable: u64::MAX,
            disk_delay: ms(2),
            life: 0,
            events: Vec::new(),
            arrived: Vec::new(),
            heard: Vec::new(),
        };
        Self {
            now: Instant::from_micros(1_000_000),
            peers: (0..peers).map(peer).collect(),
            latency: ms(20),
            loss: 0,
            rate: 4_000_000,
            congested: false,
            hops: BTreeMap::new(),
            cut: BTreeSet::new(),
            queue: BTreeMap::new(),
            sequence: 0,
            busy: BTreeMap::new(),
            rng: ChaCha12Rng::seed_from_u64(seed),
        }
    }

    /// Random bytes of that length.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.rng.fill_bytes(&mut bytes);
        bytes
    }

    /// Shares a file.
    pub fn share(&mut self, peer: usize, name: &str, bytes: &[u8]) -> ContentId {
        let mut hasher = Hasher::new();
        hasher.update(bytes);
        let (content_id, outboard) = hasher.finalize();
        let record = FileRecord {
            content_id,
            md5: Md5Hash([0; 16]),
            name: BoundedString::truncated(name),
            folder: BoundedString::default(),
            size: bytes.len() as u64,
            kind: FileKind::of_name(name),
            tags: Tags::default(),
        };
        self.peers[peer].library.insert(content_id, Shared { record, bytes: bytes.to_vec(), outboard });
        content_id
    }

    pub fn set_hops(&mut self, one: usize, other: usize, hops: u8) {
        self.hops.insert((one.min(other), one.max(other)), hops);
    }

    fn reaches(&self, one: usize, other: usize) -> bool {
        one != other && !self.cut.contains(&(one.min(other), one.max(other)))
    }

    /// Parts a node from all others, or from one; `told` nodes learn that they can't reach each other.
    pub fn part(&mut self, peer: usize, from: &[usize], told: bool) {
        for &other in from {
            self.cut.insert((peer.min(other), peer.max(other)));
        }
        if told {
            for &other in from {
                for (one, lost) in [(peer, other), (other, peer)] {
                    let lost = self.peers[lost].id;
                    self.call(one, |files, cx| files.handle_unreachable(cx, lost));
                }
            }
        }
    }

    pub fn join(&mut self, peer: usize, to: &[usize]) {
        for &other in to {
            self.cut.remove(&(peer.min(other), peer.max(other)));
            self.call(peer, |files, cx| files.handle_network_changed(cx));
            self.call(other, |files, cx| files.handle_network_changed(cx));
        }
    }

    pub fn command(&mut self, peer: usize, command: Command) {
        self.call(peer, |files, cx| files.handle_command(cx, &command));
    }

    /// Starts a download of which nothing but the content id is known.
    pub fn download(&mut self, peer: usize, content: ContentId) {
        self.command(peer, Command::Download { content, name: None, size: None, queue_only: false });
    }

    /// A message straight into a node's hands.
    pub fn inject(&mut self, from: usize, to: usize, broadcast: bool, message: impl Into<Message>) {
        self.deliver(from, to, broadcast, message.into());
    }

    /// Kills a node's process and starts it again with what was saved.
    pub fn restart(&mut self, peer: usize) {
        let node = &mut self.peers[peer];
        node.life += 1;
        node.files = FileManagers::new();
        let records: Vec<_> = node.saved.values().cloned().collect();
        for record in records {
            self.command(peer, Command::Restore(record));
        }
    }

    pub fn status(&self, peer: usize, content: ContentId) -> DownloadStatus {
        self.peers[peer].files.download(&content).expect("is on the list")
    }

    pub fn state(&self, peer: usize, content: ContentId) -> DownloadState {
        self.status(peer, content).state
    }

    /// Asserts that a download is complete and byte for byte what is shared at `source`.
    pub fn assert_complete(&self, peer: usize, source: usize, content: ContentId) {
        let status = self.status(peer, content);
        assert_eq!(status.state, DownloadState::Complete, "{status:?}");
        let bytes = &self.peers[source].library[&content].bytes;
        assert!(self.peers[peer].finished[&content] == *bytes, "the bytes differ");
        assert_eq!((status.size, status.verified), (Some(bytes.len() as u64), bytes.len() as u64));
        assert!(status.path.is_some());
    }

    pub fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.step(end) {}
        self.now = end;
    }

    /// Runs until `done`, at most for `limit`.
    pub fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&Self) -> bool) {
        let end = self.now + limit;
        while !done(self) {
            assert!(self.step(end), "not within {limit:?}; downloads: {:#?}", self.all_downloads());
        }
    }

    pub fn run_until_state(&mut self, peer: usize, content: ContentId, state: DownloadState, limit: Duration) {
        self.run_until(limit, |world| world.state(peer, content) == state);
    }

    fn all_downloads(&self) -> Vec<DownloadStatus> {
        self.peers.iter().flat_map(|peer| peer.files.downloads()).collect()
    }

    /// When something happens next in a node.
    pub fn next_timeout(&self, peer: usize) -> Option<Instant> {
        self.peers[peer].files.poll_timeout()
    }

    fn step(&mut self, end: Instant) -> bool {
        let timer = (0..self.peers.len()).filter_map(|peer| Some((self.next_timeout(peer)?, peer))).min();
        let queued = self.queue.first_key_value().map(|(&(at, _), _)| at);
        match (timer, queued) {
            (Some((at, peer)), queued) if queued.is_none_or(|queued| at < queued) => {
                if at > end {
                    return false;
                }
                self.now = self.now.max(at);
                self.call(peer, |files, cx| files.handle_timeout(cx));
                let next = self.next_timeout(peer);
                assert!(next.is_none_or(|next| next > self.now), "a timer that does not go away");
            }
            (_, Some(at)) => {
                if at > end {
                    return false;
                }
                self.now = self.now.max(at);
                let Some((_, happening)) = self.queue.pop_first() else { return false };
                self.happen(happening);
            }
            _ => return false,
        }
        true
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Message { from, to, broadcast, message } => {
                if self.reaches(from, to) {
                    self.deliver(from, to, broadcast, message);
                }
            }
            Happening::Library { peer, life, answer } if life == self.peers[peer].life => {
                self.call(peer, |files, cx| files.handle_library(cx, &answer));
            }
            Happening::Storage { peer, life, answer } if life == self.peers[peer].life => {
                self.call(peer, |files, cx| files.handle_storage(cx, &answer));
            }
            Happening::Room { peer, to } => {
                let to = self.peers[to].id;
                self.call(peer, |files, cx| files.handle_room(cx, to));
            }
            Happening::Library { .. } | Happening::Storage { .. } => {}
        }
    }

    fn deliver(&mut self, from: usize, to: usize, broadcast: bool, message: Message) {
        let bytes = message.encode();
        assert!(bytes.len() <= bbh_wire::MAX_MESSAGE);
        assert_eq!(Message::decode(&bytes).unwrap().as_ref(), Some(&message), "what is sent can be read");
        if let Message::UploadData(data) = &message {
            let content = self.peers[to].files.downloads().first().map(|status| status.content);
            let arrived = (from, content.unwrap_or(ContentId::from_bytes([0; 32])), data.start, data.end);
            self.peers[to].arrived.push(arrived);
        } else {
            self.peers[to].heard.push((from, message.clone()));
        }
        if self.peers[to].scripted {
            return;
        }
        let hops = self.hops.get(&(from.min(to), from.max(to))).copied().unwrap_or(1);
        let source = self.peers[from].id;
        let received = Received { source, hops, broadcast, congested: self.congested, message };
        self.call(to, |files, cx| files.handle_message(cx, received));
    }

    fn view(&self, peer: usize) -> View {
        let others = || (0..self.peers.len()).filter(|&other| self.reaches(peer, other));
        let room = others().map(|other| {
            let busy = self.busy.get(&(peer, other)).copied().unwrap_or_default();
            let backlog = busy.since(self.now).as_micros() as u64 * self.rate / 1_000_000;
            (self.peers[other].id, BULK_QUEUE.saturating_sub(backlog) as usize)
        });
        View { connected: others().next().is_some(), room: room.collect() }
    }

    pub fn call(&mut self, peer: usize, act: impl FnOnce(&mut FileManagers, &mut Context<'_>)) {
        let view = self.view(peer);
        let (mut outbound, mut effects, mut events) = (VecDeque::new(), VecDeque::new(), VecDeque::new());
        let node = &mut self.peers[peer];
        let mut cx = Context {
            now: self.now,
            node: node.id,
            settings: &node.settings,
            mesh: &view,
            rng: &mut node.rng,
            next_token: &mut node.token,
            outbound: &mut outbound,
            effects: &mut effects,
            events: &mut events,
        };
        act(&mut node.files, &mut cx);
        node.events.extend(events.into_iter().map(|event| (self.now, event)));
        for effect in effects {
            match effect {
                Effect::Library(request) => self.ask_library(peer, request),
                Effect::Storage(request) => self.ask_disk(peer, request),
                Effect::Radio(_) => panic!("files have no business with the radio"),
            }
        }
        for outbound in outbound {
            match outbound {
                Outbound::To(to, message) => {
                    let to = self.peers.iter().position(|other| other.id == to).expect("sent to a known node");
                    self.send(peer, to, false, message);
                }
                Outbound::ToMany(..) => panic!("files send to one node or to all"),
                Outbound::Broadcast(message) => {
                    for to in 0..self.peers.len() {
                        self.send(peer, to, true, message.clone());
                    }
                }
            }
        }
    }

    fn schedule(&mut self, at: Instant, happening: Happening) {
        self.sequence += 1;
        self.queue.insert((at, self.sequence), happening);
    }

    fn send(&mut self, from: usize, to: usize, broadcast: bool, mut message: Message) {
        if !self.reaches(from, to) {
            return;
        }
        match (self.peers[from].lie, &mut message) {
            (Some(Lie::FlipByte), Message::UploadData(data)) => {
                let mut bytes = std::mem::take(&mut data.slice).into_inner();
                if let Some(last) = bytes.last_mut() {
                    *last ^= 1;
                }
                data.slice = bbh_types::BoundedBytes::new(bytes).unwrap();
            }
            (Some(Lie::Size), Message::UploadStart(start)) => start.size += 1,
            (Some(Lie::Size), Message::DownloadReply(reply)) => {
                if let bbh_wire::message::Offer::Available { size, .. } = &mut reply.offer {
                    *size += 1;
                }
            }
            _ => {}
        }
        let bulk = message.lane() == Lane::Bulk;
        let mut at = self.now;
        if bulk {
            // Packets and their seals add to it.
            let length = message.encode().len() as u64 * 103 / 100;
            let room = self.view(from).bulk_room(self.peers[to].id) as u64;
            assert!(length <= room, "{length} bytes for a room of {room}");
            let busy = self.busy.entry((from, to)).or_default();
            *busy = (*busy).max(self.now) + Duration::from_micros(length * 1_000_000 / self.rate);
            at = *busy;
            self.schedule(at, Happening::Room { peer: from, to });
        }
        if self.rng.next_u32() % 1000 >= self.loss {
            self.schedule(at + self.latency, Happening::Message { from, to, broadcast, message });
        }
    }

    fn ask_library(&mut self, peer: usize, request: LibraryRequest) {
        let node = &mut self.peers[peer];
        if node.library_busy {
            return node.unanswered.push(request);
        }
        let answer = match request {
            LibraryRequest::Search { token, query, limit } => {
                let fits = |record: &FileRecord| query.words().all(|word| record.name.contains(word));
                let files = node.library.values().map(|file| file.record.clone()).filter(fits).take(limit).collect();
                LibraryAnswer::Found { token, files }
            }
            LibraryRequest::Lookup { token, content } => {
                LibraryAnswer::Held { token, file: node.library.get(&content).map(|file| file.record.clone()) }
            }
            LibraryRequest::ReadSlice { token, content, start, end } => {
                assert!(end - start <= 64 * 1024);
                let result = match node.library.get(&content) {
                    Some(file) if !node.broken_library => {
                        let data = &file.bytes[start as usize..end as usize];
                        let size = file.record.size;
                        Ok(bbh_bao::encode_slice(size, start..end, &file.outboard, data).expect("a range that exists"))
                    }
                    _ => Err("the file is gone".into()),
                };
                LibraryAnswer::Slice { token, result }
            }
        };
        let life = node.life;
        self.schedule(self.now + ms(1), Happening::Library { peer, life, answer });
    }

    /// Has the library answer all that it was asked while it was busy.
    pub fn library_wakes(&mut self, peer: usize) {
        self.peers[peer].library_busy = false;
        for request in std::mem::take(&mut self.peers[peer].unanswered) {
            self.ask_library(peer, request);
        }
    }

    fn ask_disk(&mut self, peer: usize, request: StorageRequest) {
        let node = &mut self.peers[peer];
        let answer = match request {
            StorageRequest::Reserve { content, size } => {
                node.reserved.push(size);
                let result = if size <= node.disk_room {
                    // A temporary file that is there already stays as it is.
                    node.temporary.entry(content).or_insert_with(|| vec![0; size as usize]);
                    Ok(())
                } else {
                    Err("the disk is full".to_owned())
                };
                StorageAnswer::Reserved { content, result }
            }
            StorageRequest::Write { content, start, bytes } => {
                let end = start + bytes.len() as u64;
                let result = if bytes.len() as u64 <= node.writable {
                    node.writable -= bytes.len() as u64;
                    let file = node.temporary.get_mut(&content).expect("was reserved");
                    file[start as usize..end as usize].copy_from_slice(&bytes);
                    Ok(())
                } else {
                    Err("the disk is full".to_owned())
                };
                StorageAnswer::Written { content, start, end, result }
            }
            StorageRequest::Save(record) => {
                let content = record.content;
                for range in record.verified.iter() {
                    assert!(node.temporary.get(&content).is_some_and(|file| file.len() as u64 >= range.end));
                }
                node.saved.insert(content, record);
                StorageAnswer::Saved { content, result: Ok(()) }
            }
            StorageRequest::Finish { content } => {
                let bytes = node.temporary.get(&content).expect("was reserved").clone();
                assert_eq!(blake3::hash(&bytes).as_bytes(), content.as_bytes(), "finished without all of its bytes");
                node.finished.insert(content, bytes);
                StorageAnswer::Finished { content, result: Ok(format!("downloads/{content}")) }
            }
            StorageRequest::Discard { content } => {
                node.temporary.remove(&content);
                node.saved.remove(&content);
                return;
            }
        };
        let (life, at) = (node.life, self.now + node.disk_delay);
        self.schedule(at, Happening::Storage { peer, life, answer });
    }
}
