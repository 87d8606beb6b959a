//! What is known of a shared file.

use serde::{Deserialize, Serialize};

use crate::{BoundedString, BoundedVec, ContentId, Md5Hash};

/// Longest file or folder name that is shared or accepted, in bytes of UTF-8.
pub const MAX_NAME_BYTES: usize = 1024;

/// Most tags kept of one file.
pub const MAX_TAGS: usize = 16;

/// Tags read out of a file (ID3 and the like): pairs of a lower-case key (`artist`, `title`, `album`, …)
/// and a value, sorted by key.
pub type Tags = BoundedVec<(BoundedString<32>, BoundedString<256>), MAX_TAGS>;

/// A coarse kind of file, by its name's extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileKind {
    /// Sound.
    Audio,
    /// Moving pictures.
    Video,
    /// Still pictures.
    Image,
    /// Text, office documents, books.
    Document,
    /// Archives and packages.
    Archive,
    /// Anything else.
    Other,
}

impl FileKind {
    /// The kind that a file's name suggests.
    pub fn of_name(name: &str) -> Self {
        let extension = match name.rsplit_once('.') {
            Some((stem, extension)) if !stem.is_empty() => extension.to_ascii_lowercase(),
            _ => return Self::Other,
        };
        match extension.as_str() {
            "mp3" | "ogg" | "oga" | "opus" | "flac" | "wav" | "m4a" | "aac" | "wma" | "aif" | "aiff" | "mid"
            | "midi" | "amr" => Self::Audio,
            "mp4" | "m4v" | "mkv" | "webm" | "avi" | "mov" | "wmv" | "mpg" | "mpeg" | "3gp" | "ogv" | "ts" => {
                Self::Video
            }
            "jpg" | "jpeg" | "png" | "gif" | "webp" | "bmp" | "svg" | "heic" | "heif" | "tif" | "tiff" | "avif" => {
                Self::Image
            }
            "txt" | "md" | "pdf" | "doc" | "docx" | "odt" | "rtf" | "html" | "htm" | "xls" | "xlsx" | "ods" | "csv"
            | "ppt" | "pptx" | "odp" | "epub" | "tex" | "json" | "xml" => Self::Document,
            "zip" | "7z" | "rar" | "tar" | "gz" | "tgz" | "bz2" | "xz" | "zst" | "jar" | "apk" | "iso" => Self::Archive,
            _ => Self::Other,
        }
    }
}

/// How much a shared file is preferred in the upload queue (report 7.5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// After the others.
    Low,
    /// The default.
    #[default]
    Normal,
    /// Before the others.
    High,
}

/// One shared file as its owner describes it to others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// BLAKE3 of the bytes.
    pub content_id: ContentId,
    /// MD5 of the bytes, for looking up only.
    pub md5: Md5Hash,
    /// The file's name, one path component.
    pub name: BoundedString<MAX_NAME_BYTES>,
    /// Folders above it, from the shared folder's own name down, joined by `/`; empty for a file shared alone.
    pub folder: BoundedString<MAX_NAME_BYTES>,
    /// Size in bytes.
    pub size: u64,
    /// Kind, by name.
    pub kind: FileKind,
    /// Tags found in it.
    pub tags: Tags,
}
