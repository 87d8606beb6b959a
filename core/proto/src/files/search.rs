//! Searching (report 9.4: SuchManager): own searches, and answering those of others.

use std::collections::BTreeMap;
use std::time::Duration;

use bbh_types::{BoundedVec, FileRecord, Instant, NodeId, Query};
use bbh_wire::codec;
use bbh_wire::message::{MAX_RESULTS_PER_PAGE, SearchReply, SearchRequest};
use rand_core::Rng;

use super::throttle::Throttle;
use crate::api::{Effect, Event, LibraryRequest};
use crate::messaging::{Context, Received};

/// Own searches at the same time; one more ends the oldest.
pub const MAX_SEARCHES: usize = 64;
/// Nodes whose replies to one search are taken.
pub const MAX_SOURCES: usize = 1024;
/// Pages that one node may send in reply to one search; a page more is dropped, and none is sent.
pub const MAX_PAGES: u16 = 64;
/// Files that are handed on per search, from all sources.
pub const MAX_FILES: usize = 10_000;
/// Files that one node tells of in reply to one search.
pub const MAX_MATCHES: usize = 500;
/// Searches of others in the library at the same time.
const MAX_LOOKING: usize = 64;
/// Those among them that may be of one node.
const MAX_LOOKING_PER_NODE: usize = 16;
/// Bytes of one page's records.
const PAGE_BYTES: usize = 48 * 1024 - 64;
/// Least time between two broadcasts of the same search.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// A search that waits for replies.
#[derive(Debug)]
struct Own {
    /// The asker's number.
    number: u32,
    query: Query,
    until: Instant,
    asked: Instant,
    /// To be asked again then, because the network has changed.
    again: Option<Instant>,
    /// Files handed on.
    files: usize,
    /// Which pages of which node have come, as bits.
    pages: BTreeMap<NodeId, u64>,
}

/// The searches of this node and of others.
#[derive(Debug)]
pub struct SearchManager {
    /// By the number that is on the wire.
    own: BTreeMap<u32, Own>,
    next: Option<u32>,
    /// Others' searches that the library is busy with, by token.
    looking: BTreeMap<u64, (NodeId, u32)>,
    throttle: Throttle,
}

impl Default for SearchManager {
    fn default() -> Self {
        Self { own: BTreeMap::new(), next: None, looking: BTreeMap::new(), throttle: Throttle::new(5, 20) }
    }
}

impl SearchManager {
    /// Starts a search. A search with the same `number` gives way to it without a word.
    pub(super) fn start(&mut self, cx: &mut Context<'_>, number: u32, query: Query, timeout: Option<Duration>) {
        self.own.retain(|_, own| own.number != number);
        if self.own.len() >= MAX_SEARCHES
            && let Some((&oldest, _)) = self.own.iter().min_by_key(|(_, own)| own.asked)
        {
            self.end(cx, oldest);
        }
        let mut search = self.next.unwrap_or_else(|| cx.rng.next_u32());
        while self.own.contains_key(&search) {
            search = search.wrapping_add(1);
        }
        self.next = Some(search.wrapping_add(1));
        let until = cx.now + timeout.unwrap_or(cx.settings.search_timeout);
        cx.broadcast(SearchRequest { search, query: query.clone() });
        let own = Own { number, query, until, asked: cx.now, again: None, files: 0, pages: BTreeMap::new() };
        self.own.insert(search, own);
    }

    /// Ends a search before its time.
    pub(super) fn cancel(&mut self, cx: &mut Context<'_>, number: u32) {
        let found = self.own.iter().find(|(_, own)| own.number == number).map(|(&search, _)| search);
        if let Some(search) = found {
            self.end(cx, search);
        }
    }

    fn end(&mut self, cx: &mut Context<'_>, search: u32) {
        if let Some(own) = self.own.remove(&search) {
            cx.events.push_back(Event::SearchDone { search: own.number });
        }
    }

    /// Somebody searches: asks the library.
    pub(super) fn on_request(&mut self, cx: &mut Context<'_>, source: NodeId, request: SearchRequest) {
        if source == cx.node || request.query.words().next().is_none() {
            return;
        }
        let asked = (source, request.search);
        let of_source = self.looking.values().filter(|(node, _)| *node == source).count();
        if self.looking.len() >= MAX_LOOKING
            || of_source >= MAX_LOOKING_PER_NODE
            || self.looking.values().any(|other| *other == asked)
            || !self.throttle.admit(cx.now, source)
        {
            return;
        }
        let token = cx.token();
        self.looking.insert(token, asked);
        cx.effects.push_back(Effect::Library(LibraryRequest::Search {
            token,
            query: request.query,
            limit: MAX_MATCHES,
        }));
    }

    /// The node for which the library has searched under that token, if it is one of these.
    pub(super) fn asker(&self, token: u64) -> Option<NodeId> {
        self.looking.get(&token).map(|(node, _)| *node)
    }

    /// The library has found something for somebody: tells him. `queue_position` is what an order of his would get.
    pub(super) fn on_found(
        &mut self,
        cx: &mut Context<'_>,
        token: u64,
        files: &[FileRecord],
        queue_position: Option<u16>,
    ) {
        let Some((asker, search)) = self.looking.remove(&token) else { return };
        let pages = pages(files);
        let last = pages.len().saturating_sub(1);
        for (page, files) in pages.into_iter().enumerate() {
            let last = page == last;
            let page = u16::try_from(page).expect("at most MAX_PAGES");
            cx.send(asker, SearchReply { search, page, last, queue_position, files: BoundedVec::truncated(files) });
        }
    }

    /// Somebody has files for an own search.
    pub(super) fn on_reply(&mut self, cx: &mut Context<'_>, received: &Received, reply: SearchReply) {
        let Some(own) = self.own.get_mut(&reply.search) else { return };
        // The timer may be late, but what comes after the time is over does not count.
        if received.source == cx.node || own.until <= cx.now || reply.page >= MAX_PAGES {
            return;
        }
        if own.pages.len() >= MAX_SOURCES && !own.pages.contains_key(&received.source) {
            return;
        }
        let seen = own.pages.entry(received.source).or_default();
        let bit = 1 << reply.page;
        if *seen & bit != 0 {
            return;
        }
        *seen |= bit;
        let mut files = reply.files.into_inner();
        files.retain(|file| own.query.admits(file.kind, file.size));
        files.truncate(MAX_FILES - own.files);
        if files.is_empty() {
            return;
        }
        own.files += files.len();
        cx.events.push_back(Event::SearchHits {
            search: own.number,
            source: received.source,
            hops: received.hops,
            queue_position: reply.queue_position,
            files,
        });
    }

    /// There may be nodes now that have not heard of a search.
    pub(super) fn on_network_changed(&mut self, cx: &mut Context<'_>) {
        for own in self.own.values_mut() {
            own.again = Some((own.asked + ASK_AGAIN).max(cx.now));
        }
        self.on_timeout(cx);
    }

    pub(super) fn on_timeout(&mut self, cx: &mut Context<'_>) {
        let over: Vec<u32> =
            self.own.iter().filter(|(_, own)| own.until <= cx.now).map(|(&search, _)| search).collect();
        for search in over {
            self.end(cx, search);
        }
        for (&search, own) in &mut self.own {
            if own.again.is_some_and(|again| again <= cx.now) {
                own.again = None;
                own.asked = cx.now;
                cx.broadcast(SearchRequest { search, query: own.query.clone() });
            }
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.own.values().map(|own| own.again.map_or(own.until, |again| again.min(own.until))).min()
    }
}

/// Cuts what was found into pages of a size that a message may have.
fn pages(files: &[FileRecord]) -> Vec<Vec<FileRecord>> {
    let mut pages: Vec<Vec<FileRecord>> = Vec::new();
    let mut bytes = 0;
    for file in files.iter().take(MAX_MATCHES) {
        let length = codec::encode(file).len();
        let full = pages.len() >= usize::from(MAX_PAGES);
        match pages.last_mut() {
            Some(page) if page.len() < MAX_RESULTS_PER_PAGE && bytes + length <= PAGE_BYTES => {
                page.push(file.clone());
                bytes += length;
            }
            _ if full => break,
            _ => {
                pages.push(vec![file.clone()]);
                bytes = length;
            }
        }
    }
    pages
}

#[cfg(test)]
mod tests {
    use bbh_types::{BoundedString, ContentId, FileKind, Md5Hash, Tags};
    use bbh_wire::Message;

    use super::*;

    fn record(number: usize, name: &str) -> FileRecord {
        FileRecord {
            content_id: ContentId::from_bytes(*blake3::hash(&number.to_be_bytes()).as_bytes()),
            md5: Md5Hash([0; 16]),
            name: BoundedString::truncated(name),
            folder: BoundedString::truncated(name),
            size: 1,
            kind: FileKind::Other,
            tags: Tags::truncated(vec![(BoundedString::truncated("title"), BoundedString::truncated(name)); 16]),
        }
    }

    #[test]
    fn pages_hold_everything_and_stay_below_48_kib() {
        for name in ["a".repeat(2000), "b".into()] {
            let files: Vec<_> = (0..300).map(|number| record(number, &name)).collect();
            let pages = pages(&files);
            assert_eq!(pages.concat(), files);
            for (number, page) in pages.into_iter().enumerate() {
                let reply = SearchReply {
                    search: u32::MAX,
                    page: number as u16,
                    last: false,
                    queue_position: Some(u16::MAX),
                    files: BoundedVec::new(page).unwrap(),
                };
                assert!(Message::from(reply).encode().len() <= 48 * 1024);
            }
        }
    }

    #[test]
    fn the_largest_matches_fit_the_pages_of_one_reply() {
        let files: Vec<_> = (0..2000).map(|number| record(number, &"c".repeat(2000))).collect();
        let pages = pages(&files);
        assert!(pages.len() <= usize::from(MAX_PAGES));
        assert!(pages.concat().len() >= 400);
    }
}
