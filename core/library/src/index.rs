//! Shared files in memory: by path, by content, by MD5, and by words.

use std::collections::{BTreeMap, BTreeSet, btree_map};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bbh_types::{ContentId, FileKind, FileRecord, Md5Hash, Query, SearchMode};
use memchr::memmem::Finder;

use crate::persist::StoredEntry;
use crate::text::{fold, fold_into};

/// Below that many removed entries their texts are not worth tidying up.
const FEW_REMOVED: usize = 1024;

/// All shared files.
///
/// For searching, the folded texts of all entries stand in one buffer, one line per field, entry after entry in
/// the order of their slots. A search looks for its words in the whole buffer at memory speed. Removed entries leave their text
/// behind until half of the buffer is theirs.
#[derive(Debug, Default)]
pub(crate) struct Index {
    slots: Vec<Option<Arc<StoredEntry>>>,
    /// Where the text of each slot starts; it ends where the next one starts.
    starts: Vec<usize>,
    text: String,
    /// What the filters of a query ask of each slot, close together.
    facts: Vec<Facts>,
    by_path: BTreeMap<PathBuf, usize>,
    by_content: BTreeMap<ContentId, BTreeSet<usize>>,
    by_md5: BTreeMap<Md5Hash, BTreeSet<usize>>,
}

#[derive(Debug, Clone, Copy)]
struct Facts {
    /// There is a file, and it is what was hashed.
    offered: bool,
    kind: FileKind,
    size: u64,
}

impl Index {
    /// Adds an entry, in the place of the one with the same path.
    pub(crate) fn put(&mut self, entry: StoredEntry) {
        self.remove(&entry.path);
        let slot = self.slots.len();
        self.starts.push(self.text.len());
        let record = &entry.record;
        let tags = record.tags.iter().map(|(_, value)| &**value);
        for field in [&*record.name, &*record.folder].into_iter().chain(tags) {
            fold_into(field, &mut self.text);
            self.text.push('\n');
        }
        self.by_path.insert(entry.path.clone(), slot);
        self.by_content.entry(record.content_id).or_default().insert(slot);
        self.by_md5.entry(record.md5).or_default().insert(slot);
        self.facts.push(Facts { offered: !entry.stale, kind: record.kind, size: record.size });
        self.slots.push(Some(Arc::new(entry)));
    }

    /// Forgets an entry.
    pub(crate) fn remove(&mut self, path: &Path) -> Option<Arc<StoredEntry>> {
        let slot = self.by_path.remove(path)?;
        self.facts[slot].offered = false;
        let entry = self.slots[slot].take()?;
        forget(&mut self.by_content, entry.record.content_id, slot);
        forget(&mut self.by_md5, entry.record.md5, slot);
        let removed = self.slots.len() - self.by_path.len();
        if removed > FEW_REMOVED && removed > self.by_path.len() {
            self.compact();
        }
        Some(entry)
    }

    fn compact(&mut self) {
        let entries = std::mem::take(&mut self.slots);
        *self = Self::default();
        for entry in entries.into_iter().flatten() {
            self.put(Arc::unwrap_or_clone(entry));
        }
    }

    pub(crate) fn get(&self, path: &Path) -> Option<&Arc<StoredEntry>> {
        self.slots[*self.by_path.get(path)?].as_ref()
    }

    /// All entries, sorted by path.
    pub(crate) fn entries(&self) -> impl Iterator<Item = &Arc<StoredEntry>> {
        self.by_path.values().filter_map(|slot| self.slots[*slot].as_ref())
    }

    /// The entries with that content.
    pub(crate) fn with_content(&self, id: &ContentId) -> impl Iterator<Item = &Arc<StoredEntry>> {
        self.in_slots(self.by_content.get(id))
    }

    /// The entries with that MD5.
    pub(crate) fn with_md5(&self, md5: &Md5Hash) -> impl Iterator<Item = &Arc<StoredEntry>> {
        self.in_slots(self.by_md5.get(md5))
    }

    fn in_slots<'a>(&'a self, slots: Option<&'a BTreeSet<usize>>) -> impl Iterator<Item = &'a Arc<StoredEntry>> {
        slots.into_iter().flatten().filter_map(|slot| self.slots[*slot].as_ref())
    }

    /// What `query` finds, each content once, at most `limit`.
    pub(crate) fn search(&self, query: &Query, limit: usize) -> Vec<FileRecord> {
        let words: Vec<String> =
            query.words().map(|word| fold(word).trim().to_owned()).filter(|word| !word.is_empty()).collect();
        let finders: Vec<Finder<'_>> = words.iter().map(Finder::new).collect();
        let mut seen = BTreeSet::new();
        let mut found = Vec::new();
        let mut from = 0;
        // For OR: where each word is found next.
        let mut ahead = vec![Ahead::Unknown; finders.len()];
        while found.len() < limit {
            // Slots that the filters refuse are passed over here, where it costs next to nothing.
            let admitted = |facts: &Facts| facts.offered && query.admits(facts.kind, facts.size);
            let Some(skipped) = self.facts.get(from..).and_then(|facts| facts.iter().position(admitted)) else {
                break;
            };
            from += skipped;
            let hit = match query.mode {
                SearchMode::All => self.next_with_all(&finders, from),
                SearchMode::Any => self.next_with_any(&finders, &mut ahead, from),
            };
            let Some(slot) = hit else { break };
            from = slot + 1;
            if let Some(entry) = &self.slots[slot]
                && admitted(&self.facts[slot])
                && seen.insert(entry.record.content_id)
            {
                found.push(entry.record.clone());
            }
        }
        found
    }

    /// The first slot from `from` on that has every word. Each word jumps to where the others have got, so
    /// the rarest sets the pace wherever it stands in the query.
    fn next_with_all(&self, finders: &[Finder<'_>], from: usize) -> Option<usize> {
        let mut slot = from;
        let mut agreeing = 0;
        for finder in finders.iter().cycle() {
            let next = self.next_with(finder, slot)?;
            agreeing = if next == slot { agreeing + 1 } else { 1 };
            slot = next;
            if agreeing >= finders.len() {
                return Some(slot);
            }
        }
        None
    }

    fn next_with_any(&self, finders: &[Finder<'_>], ahead: &mut [Ahead], from: usize) -> Option<usize> {
        for (finder, ahead) in finders.iter().zip(ahead.iter_mut()) {
            let known = match *ahead {
                Ahead::Unknown => false,
                Ahead::At(slot) => slot >= from,
                Ahead::Nowhere => true,
            };
            if !known {
                *ahead = self.next_with(finder, from).map_or(Ahead::Nowhere, Ahead::At);
            }
        }
        ahead.iter().filter_map(|ahead| if let Ahead::At(slot) = ahead { Some(*slot) } else { None }).min()
    }

    /// The first slot from `from` on that has one word.
    fn next_with(&self, finder: &Finder<'_>, from: usize) -> Option<usize> {
        let start = *self.starts.get(from)?;
        let at = start + finder.find(&self.text.as_bytes()[start..])?;
        // Looked for in growing steps: with frequent words the hit is near.
        let mut step = 1;
        while self.starts.get(from + step).is_some_and(|start| *start <= at) {
            step *= 2;
        }
        let end = (from + step).min(self.starts.len());
        let low = from + step / 2;
        Some(low + self.starts[low..end].partition_point(|start| *start <= at) - 1)
    }
}

/// Where a word is found next.
#[derive(Debug, Clone, Copy)]
enum Ahead {
    Unknown,
    At(usize),
    Nowhere,
}

fn forget<K: Ord>(map: &mut BTreeMap<K, BTreeSet<usize>>, key: K, slot: usize) {
    if let btree_map::Entry::Occupied(mut slots) = map.entry(key) {
        slots.get_mut().remove(&slot);
        if slots.get().is_empty() {
            slots.remove();
        }
    }
}
