//! Searches that run, and how their hits reach whoever asked.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bbh_types::{ContentId, FileRecord};
use tokio::sync::{mpsc, oneshot};

use super::Request;
use crate::view::{HitSource, MAX_HITS, SearchHit};

/// Hits that may wait for a slow asker; what does not fit comes at the end.
const WAITING_HITS: usize = 1024;
/// Contents whose names are remembered for a later download.
const MAX_KNOWN: usize = 4096;

/// A search in progress. Dropping it ends the search.
#[derive(Debug)]
pub struct SearchStream {
    pub(crate) number: u32,
    hits: mpsc::Receiver<SearchHit>,
    late: Option<oneshot::Receiver<Vec<SearchHit>>>,
    rest: VecDeque<SearchHit>,
    requests: mpsc::UnboundedSender<Request>,
}

impl SearchStream {
    /// The next hit, or one that came before and has more sources now; `None` when the search's time is over.
    pub async fn next(&mut self) -> Option<SearchHit> {
        if let Some(hit) = self.hits.recv().await {
            return Some(hit);
        }
        if let Some(late) = self.late.take() {
            self.rest = late.await.unwrap_or_default().into();
        }
        self.rest.pop_front()
    }

    /// All hits, once the search's time is over.
    pub async fn collect(mut self) -> Vec<SearchHit> {
        let mut hits = BTreeMap::new();
        let mut order = Vec::new();
        while let Some(hit) = self.next().await {
            let id = hit.content_id;
            if hits.insert(id, hit).is_none() {
                order.push(id);
            }
        }
        order.into_iter().filter_map(|id| hits.remove(&id)).collect()
    }
}

impl Drop for SearchStream {
    fn drop(&mut self) {
        let _ = self.requests.send(Request::CancelSearch(self.number));
    }
}

/// The shell's side of a search.
pub(super) struct Search {
    found: BTreeMap<ContentId, SearchHit>,
    sink: mpsc::Sender<SearchHit>,
    late: oneshot::Sender<Vec<SearchHit>>,
    missed: BTreeSet<ContentId>,
}

impl Search {
    pub(super) fn new(number: u32, requests: mpsc::UnboundedSender<Request>) -> (Self, SearchStream) {
        let (sink, hits) = mpsc::channel(WAITING_HITS);
        let (late, late_receiver) = oneshot::channel();
        let search = Self { found: BTreeMap::new(), sink, late, missed: BTreeSet::new() };
        let stream = SearchStream { number, hits, late: Some(late_receiver), rest: VecDeque::new(), requests };
        (search, stream)
    }

    /// Takes what a source has.
    pub(super) fn add(&mut self, files: &[FileRecord], source: &HitSource) {
        for file in files {
            if !self.found.contains_key(&file.content_id) && self.found.len() >= MAX_HITS {
                continue;
            }
            let hit = self.found.entry(file.content_id).or_insert_with(|| SearchHit::new(file));
            hit.add(file, source.clone());
            if self.missed.contains(&file.content_id) || self.sink.try_send(hit.clone()).is_err() {
                self.missed.insert(file.content_id);
            }
        }
    }

    /// The search's time is over.
    pub(super) fn finish(mut self) {
        let missed = self.missed.iter().filter_map(|id| self.found.remove(id)).collect();
        let _ = self.late.send(missed);
    }
}

/// Names and sizes lately seen in searches, so that a download begun by its id alone has a name.
#[derive(Default)]
pub(super) struct KnownFiles {
    files: BTreeMap<ContentId, (String, u64)>,
    by_age: VecDeque<ContentId>,
}

impl KnownFiles {
    pub(super) fn add(&mut self, file: &FileRecord) {
        if self.files.insert(file.content_id, (file.name.to_string(), file.size)).is_none() {
            self.by_age.push_back(file.content_id);
            if self.by_age.len() > MAX_KNOWN
                && let Some(oldest) = self.by_age.pop_front()
            {
                self.files.remove(&oldest);
            }
        }
    }

    pub(super) fn get(&self, content: &ContentId) -> Option<&(String, u64)> {
        self.files.get(content)
    }
}
