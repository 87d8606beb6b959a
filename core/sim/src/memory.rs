//! A library and a disk in memory, answering at once.

use std::collections::BTreeMap;
use std::sync::Arc;

use bbh_bao::{Hasher, Outboard, encode_slice};
use bbh_proto::api::DownloadRecord;
use bbh_proto::{LibraryAnswer, LibraryRequest, StorageAnswer, StorageRequest};
use bbh_types::{BoundedString, BoundedVec, ContentId, FileKind, FileRecord, Md5Hash, Query, SearchMode};

/// One shared file.
#[derive(Debug, Clone)]
pub struct SharedContent {
    /// How its owner describes it.
    pub record: FileRecord,
    bytes: Arc<Vec<u8>>,
    outboard: Arc<Outboard>,
}

impl SharedContent {
    /// A file of these bytes under this name.
    pub fn new(name: &str, bytes: Vec<u8>) -> Self {
        let mut hasher = Hasher::new();
        hasher.update(&bytes);
        let (content_id, outboard) = hasher.finalize();
        let record = FileRecord {
            content_id,
            md5: Md5Hash([0; 16]),
            name: BoundedString::truncated(name),
            folder: BoundedString::default(),
            size: bytes.len() as u64,
            kind: FileKind::of_name(name),
            tags: BoundedVec::default(),
        };
        Self { record, bytes: Arc::new(bytes), outboard: Arc::new(outboard) }
    }

    /// Its id.
    pub fn id(&self) -> ContentId {
        self.record.content_id
    }

    fn matches(&self, query: &Query) -> bool {
        let name = self.record.name.to_lowercase();
        let mut found = query.words().map(|word| name.contains(&word.to_lowercase()));
        let words = match query.mode {
            SearchMode::All => query.words().next().is_some() && found.all(|hit| hit),
            SearchMode::Any => found.any(|hit| hit),
        };
        words && query.admits(self.record.kind, self.record.size)
    }

    fn slice(&self, start: u64, end: u64) -> Result<Vec<u8>, String> {
        let data = self.bytes.get(start as usize..end as usize).ok_or("outside the file")?;
        encode_slice(self.record.size, start..end, &*self.outboard, data).map_err(|error| format!("{error:?}"))
    }
}

/// What survives a node's death: its shared files, partial downloads and records.
#[derive(Debug, Clone, Default)]
pub struct Disk {
    shared: BTreeMap<ContentId, SharedContent>,
    partial: BTreeMap<ContentId, Vec<u8>>,
    records: BTreeMap<ContentId, DownloadRecord>,
    /// Bytes written to partial files in all, to see what was fetched twice.
    pub written: u64,
}

impl Disk {
    /// Shares a file.
    pub fn share(&mut self, content: SharedContent) {
        self.shared.insert(content.id(), content);
    }

    /// The bytes of a file that is here, shared or downloaded.
    pub fn bytes(&self, content: ContentId) -> Option<&[u8]> {
        self.shared.get(&content).map(|shared| shared.bytes.as_slice())
    }

    /// The downloads as they were saved.
    pub fn records(&self) -> impl Iterator<Item = &DownloadRecord> {
        self.records.values()
    }

    pub(crate) fn library(&self, request: LibraryRequest) -> LibraryAnswer {
        match request {
            LibraryRequest::Search { token, query, limit } => {
                let files = self.shared.values().filter(|content| content.matches(&query));
                LibraryAnswer::Found { token, files: files.take(limit).map(|content| content.record.clone()).collect() }
            }
            LibraryRequest::Lookup { token, content } => {
                LibraryAnswer::Held { token, file: self.shared.get(&content).map(|content| content.record.clone()) }
            }
            LibraryRequest::ReadSlice { token, content, start, end } => {
                let result = self.shared.get(&content).ok_or("not here".to_owned());
                LibraryAnswer::Slice { token, result: result.and_then(|content| content.slice(start, end)) }
            }
        }
    }

    pub(crate) fn storage(&mut self, request: StorageRequest) -> Option<StorageAnswer> {
        Some(match request {
            StorageRequest::Reserve { content, size } => {
                self.partial.entry(content).or_default().resize(size as usize, 0);
                StorageAnswer::Reserved { content, result: Ok(()) }
            }
            StorageRequest::Write { content, start, bytes } => {
                let end = start + bytes.len() as u64;
                self.written += bytes.len() as u64;
                let result = match self.partial.get_mut(&content).and_then(|p| p.get_mut(start as usize..end as usize))
                {
                    Some(place) => {
                        place.copy_from_slice(&bytes);
                        Ok(())
                    }
                    None => Err("nothing was reserved there".to_owned()),
                };
                StorageAnswer::Written { content, start, end, result }
            }
            StorageRequest::Save(record) => {
                let content = record.content;
                self.records.insert(content, record);
                StorageAnswer::Saved { content, result: Ok(()) }
            }
            StorageRequest::Finish { content } => {
                let bytes = self.partial.remove(&content).unwrap_or_default();
                let name = self.records.get(&content).map(|record| record.name.clone()).unwrap_or_default();
                let finished = SharedContent::new(&name, bytes);
                let result = if finished.id() == content {
                    self.shared.insert(content, finished);
                    Ok(name)
                } else {
                    Err("the finished file has another hash".to_owned())
                };
                StorageAnswer::Finished { content, result }
            }
            StorageRequest::Discard { content } => {
                self.partial.remove(&content);
                self.records.remove(&content);
                return None;
            }
        })
    }
}
