//! File names that came from others: made harmless before they reach the file system.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

/// Longest name that [`safe_file_name`] makes, in bytes of UTF-8. Leaves room below the usual limit of 255
/// for what [`free_path`] adds.
pub const MAX_SAFE_NAME_BYTES: usize = 200;

/// Longest extension that is kept when a name is cut, in bytes without the dot.
const MAX_EXTENSION_BYTES: usize = 32;

/// A name for a file on this device made of what somebody else calls it: always exactly one path component
/// that every common file system takes. Separators and characters that Windows forbids become `_`; control
/// characters and those that reverse or hide text are dropped, as are leading dots; device names of Windows get a `_` in front.
/// Names that are longer than [`MAX_SAFE_NAME_BYTES`] keep their extension.
pub fn safe_file_name(name: &str) -> String {
    let harmless: String = name
        .chars()
        .filter(|c| !is_invisible(*c))
        .map(|c| if matches!(c, '/' | '\\' | ':' | '*' | '?' | '"' | '<' | '>' | '|') { '_' } else { c })
        .collect();
    let mut name = trim(&harmless).to_owned();
    if is_device(&name) {
        name.insert(0, '_');
    }
    if name.len() > MAX_SAFE_NAME_BYTES {
        let (stem, extension) = split_extension(&name);
        let room = MAX_SAFE_NAME_BYTES - extension.len();
        let stem = trim(&stem[..stem.floor_char_boundary(room)]);
        name = format!("{stem}{extension}");
    }
    if name.is_empty() { "file".to_owned() } else { name }
}

/// A path in `dir` for a file called `name` by others, made safe, at which nothing exists yet: `name.ext`,
/// else `name (2).ext`, `name (3).ext` and so on. Whoever creates the file does so with `create_new`, since
/// another process may be faster; [`create_free`] does both.
pub fn free_path(dir: &Path, name: &str) -> PathBuf {
    candidates(dir, name)
        // A dangling link exists too: writing would go through it.
        .find(|path| path.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound))
        .expect("the numbers go on")
}

/// Creates an empty file as [`free_path`] names it, and never opens one that exists.
///
/// # Errors
/// If `dir` takes no new file.
pub fn create_free(dir: &Path, name: &str) -> io::Result<(File, PathBuf)> {
    for path in candidates(dir, name) {
        match OpenOptions::new().read(true).write(true).create_new(true).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            result => return result.map(|file| (file, path)),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

fn candidates(dir: &Path, name: &str) -> impl Iterator<Item = PathBuf> {
    let name = safe_file_name(name);
    let dir = dir.to_owned();
    (1_u64..).map(move |number| {
        let (stem, extension) = split_extension(&name);
        dir.join(if number == 1 { name.clone() } else { format!("{stem} ({number}){extension}") })
    })
}

/// Splits `a.b.c` into `a.b` and `.c`; what is too long for an extension is none.
fn split_extension(name: &str) -> (&str, &str) {
    match name.rfind('.') {
        Some(dot) if dot > 0 && name.len() - dot - 1 <= MAX_EXTENSION_BYTES => name.split_at(dot),
        _ => (name, ""),
    }
}

/// Leading dots hide a file or climb up a folder; Windows drops dots and spaces at the end.
fn trim(name: &str) -> &str {
    name.trim_start_matches(|c: char| c == '.' || c.is_whitespace())
        .trim_end_matches(|c: char| c == '.' || c.is_whitespace())
}

fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Windows opens a device for these names, whatever follows the first dot.
fn is_device(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or(name).trim_end().to_uppercase();
    if matches!(stem.as_str(), "CON" | "PRN" | "AUX" | "NUL" | "CONIN$" | "CONOUT$") {
        return true;
    }
    let Some(number) = stem.strip_prefix("COM").or_else(|| stem.strip_prefix("LPT")) else {
        return false;
    };
    let mut digits = number.chars();
    matches!((digits.next(), digits.next()), (Some('0'..='9' | '¹' | '²' | '³'), None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_names_stay_as_they_are() {
        for name in ["Bier.mp3", "Müller – Lied (live).flac", "archive.tar.gz", "日本酒.txt", "no extension", "a..b.c"]
        {
            assert_eq!(safe_file_name(name), name);
        }
    }

    #[test]
    fn hostile_names_become_one_harmless_component() {
        let long_name = format!("{}.mp3", "ü".repeat(400));
        let long_extension = format!("a.{}", "x".repeat(400));
        let hostile = [
            "",
            ".",
            "..",
            "...",
            "/",
            "\\",
            "../../etc/passwd",
            "..\\..\\boot.ini",
            "/etc/shadow",
            "C:\\x",
            "a/b",
            "a\0b",
            "a\nb\r\u{1b}[2J",
            "CON",
            "con.txt",
            "Com1.mp3",
            "LPT9",
            "nul .x",
            "COM¹.a",
            "aux",
            "a.",
            "a ",
            " . . ",
            "\u{202e}3pm.exe",
            "x\u{2066}y\u{2069}",
            "\u{feff}",
            "\u{200b}",
            "file.txt:stream",
            "?*<>|\"",
            ".bashrc",
            "....hidden",
            "\u{202e}.\u{202e}.",
            &long_name,
            &long_extension,
            &".".repeat(1000),
            "~",
            "\u{85}\u{2028}",
        ];
        for name in hostile {
            let safe = safe_file_name(name);
            assert!(!safe.is_empty() && safe.len() <= MAX_SAFE_NAME_BYTES, "{name:?} -> {safe:?}");
            assert!(!safe.contains(['/', '\\', ':', '\0', '\n', '\u{202e}']), "{name:?} -> {safe:?}");
            assert!(!safe.starts_with('.') && !safe.ends_with(['.', ' ']), "{name:?} -> {safe:?}");
            assert!(!safe.chars().any(is_invisible) && !is_device(&safe), "{name:?} -> {safe:?}");
            assert_eq!(Path::new(&safe).components().count(), 1, "{name:?} -> {safe:?}");
            assert_eq!(safe_file_name(&safe), safe, "not stable: {name:?}");
        }
        assert_eq!(safe_file_name("../../etc/passwd"), "_.._etc_passwd");
        assert_eq!(safe_file_name("con.txt"), "_con.txt");
        assert_eq!(safe_file_name("\u{202e}3pm.exe"), "3pm.exe");
    }

    #[test]
    fn a_long_name_keeps_its_extension() {
        let safe = safe_file_name(&format!("{}.flac", "ü".repeat(400)));
        assert!(safe.ends_with("ü.flac"), "{safe}");
        assert!(safe.len() >= MAX_SAFE_NAME_BYTES - 1);
    }

    #[test]
    fn nothing_that_exists_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let mut seen = Vec::new();
        for expected in ["beer.mp3", "beer (2).mp3", "beer (3).mp3"] {
            let free = free_path(dir.path(), "beer.mp3");
            assert_eq!(free, dir.path().join(expected));
            let (_, created) = create_free(dir.path(), "beer.mp3").unwrap();
            assert_eq!(created, free);
            seen.push(created);
        }
        assert_eq!(free_path(dir.path(), "../other"), dir.path().join("_other"));
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink("/nowhere/at/all", dir.path().join("link")).unwrap();
            assert_eq!(free_path(dir.path(), "link"), dir.path().join("link (2)"));
        }
        assert!(create_free(&dir.path().join("absent"), "x").is_err());
    }
}
