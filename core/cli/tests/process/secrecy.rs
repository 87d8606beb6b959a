//! A relay carries files and learns nothing of them: neither its memory nor its log ever holds what it carries.
//!
//! The whole memory of the relay's process is read, over and over, while a file passes through it. Searches are
//! readable by all nodes by design (docs/protocol.md, section 8), so none here uses the words that are looked for.
#![cfg(target_os = "linux")]

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::support::{Air, Node, bbh, folder_with, noise, until};

const SIZE: usize = 6 << 20;
const NAME: &str = "kiln zwickelfest.bin";
const TEXT_NAME: &str = "cellar zwickelfest.txt";
/// What of the names no search says.
const SECRET_OF_NAMES: &str = "zwickelfest";
const SENTENCE: &str = "The brewer's daughter keeps the key under the third barrel.";
/// The relay's own name, which its memory does hold.
const RELAY: &str = "relay with nothing to tell";

/// Bytes of a window of the file that are compared.
const WINDOW: usize = 16;
/// From one window to the next: much less than the part of a file that fits into a packet, so that none is missed.
const STEP: usize = 512;
/// Most that is read of one mapping, which may be reserved without being used.
const MAX_MAPPING: u64 = 256 << 20;

/// What was found, and where.
type Found = Vec<String>;

/// What is looked for.
struct Needles {
    windows: HashSet<[u8; WINDOW]>,
    /// One bit for each possible beginning of a window, three bytes long: rules most places out at once.
    begins: Vec<u64>,
    texts: Vec<&'static str>,
}

impl Needles {
    fn new(file: &[u8], texts: &[&'static str]) -> Self {
        let mut begins = vec![0; 1 << 18];
        let windows = (0..=file.len() - WINDOW).step_by(STEP);
        let windows: HashSet<_> = windows.map(|at| *file[at..].first_chunk().unwrap()).collect();
        for begin in windows.iter().map(|window| &window[..]).chain(texts.iter().map(|text| text.as_bytes())) {
            let (word, bit) = Self::place(begin);
            begins[word] |= bit;
        }
        Self { windows, begins, texts: texts.to_vec() }
    }

    fn place(begin: &[u8]) -> (usize, u64) {
        let number = usize::from(begin[0]) | usize::from(begin[1]) << 8 | usize::from(begin[2]) << 16;
        (number / 64, 1 << (number % 64))
    }

    /// What of it there is.
    fn find(&self, place: &str, bytes: &[u8]) -> Found {
        let mut found = Found::new();
        for (at, begin) in bytes.windows(3).enumerate() {
            let (word, bit) = Self::place(begin);
            if self.begins[word] & bit == 0 {
                continue;
            }
            let rest = &bytes[at..];
            if rest.first_chunk().is_some_and(|window| self.windows.contains(window)) {
                found.push(format!("bytes of the file at {at:#x} of {place}"));
            }
            if let Some(text) = self.texts.iter().find(|text| rest.starts_with(text.as_bytes())) {
                found.push(format!("'{text}' at {at:#x} of {place}"));
            }
        }
        found
    }

    fn find_in_all(&self, memory: &[(String, Vec<u8>)]) -> Found {
        memory.iter().flat_map(|(place, bytes)| self.find(place, bytes)).collect()
    }
}

/// All that a process can read of its own memory, as it is at one moment; `None` if the system does not let us.
fn memory(pid: u32) -> Option<Vec<(String, Vec<u8>)>> {
    // What stands still can't hide a plaintext between two reads. A link stands this for 3 s.
    signal(pid, "-STOP");
    let memory = read_memory(pid);
    signal(pid, "-CONT");
    match memory {
        Ok(memory) => Some(memory),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => None,
        Err(error) => panic!("the memory of process {pid}: {error}"),
    }
}

fn signal(pid: u32, signal: &str) {
    assert!(Command::new("kill").args([signal, &pid.to_string()]).status().unwrap().success());
}

fn read_memory(pid: u32) -> std::io::Result<Vec<(String, Vec<u8>)>> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let memory = File::open(format!("/proc/{pid}/mem"))?;
    let mut all = Vec::new();
    for line in maps.lines() {
        let (range, rest) = line.split_once(' ').unwrap();
        let (start, end) = range.split_once('-').unwrap();
        let number = |text| u64::from_str_radix(text, 16).unwrap();
        let (start, end) = (number(start), number(end));
        // The kernel's own pages can't be read this way, and hold nothing of the process's.
        if !rest.starts_with('r') || rest.contains("[vvar") || rest.contains("[vsyscall]") {
            continue;
        }
        assert!(end - start <= MAX_MAPPING, "a mapping that is too large to be searched: {line}");
        let mut bytes = vec![0; usize::try_from(end - start).unwrap()];
        match memory.read_exact_at(&mut bytes, start) {
            Ok(()) => all.push((line.to_owned(), bytes)),
            // A mapping behind the end of its file.
            Err(error) if error.raw_os_error() == Some(5) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

/// A node that writes down all it can into a log.
struct Relay {
    process: Child,
    log: PathBuf,
}

impl Relay {
    fn start(air: &Air, at: &str) -> Self {
        let log = air.folder.path().join("relay.log");
        let radio = format!("air://{}", air.address);
        let mut process = bbh()
            .args(["run", "--until-stdin-closes", "--name", RELAY, "--radio", &radio, "--at", at, "--data"])
            .arg(air.folder.path().join("relay"))
            .env("BBH_LOG", "trace")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with("ready "), "{line}");
        Self { process, log }
    }

    fn memory(&self) -> Option<Vec<(String, Vec<u8>)>> {
        memory(self.process.id())
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// All files below a folder.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

fn found_by_word(asker: &Node, word: &str, name: &str) -> String {
    let found = asker.find(word);
    assert_eq!(found["names"][0], name);
    assert_eq!(found["sources"][0]["hops"], 2, "there has to be a relay between them");
    found["content_id"].as_str().unwrap().to_owned()
}

#[test]
fn a_relay_holds_nothing_of_what_it_carries_in_memory_log_or_folder() {
    let air = Air::with_rate(2_000_000);
    let (source, relay, asker) = (air.node("source", "0,0"), Relay::start(&air, "8,0"), air.node("asker", "16,0"));
    if relay.memory().is_none() || memory(asker.process.pid()).is_none() {
        eprintln!("SKIPPED: this system does not let a process read its children's memory (ptrace is forbidden)");
        return;
    }
    let file = noise(SIZE);
    let text: String = (0..50_000).map(|line| format!("{line}: {SENTENCE}\n")).collect();
    let folder = folder_with(air.folder.path(), &[(NAME, &file), (TEXT_NAME, text.as_bytes())]);
    assert_eq!(source.json(&["share", folder.to_str().unwrap()]).as_array().unwrap().len(), 2);
    let needles = Needles::new(&file, &[SENTENCE, SECRET_OF_NAMES]);
    let holds = |memory: &[(String, Vec<u8>)], what: &str| {
        needles.find_in_all(memory).iter().any(|found| found.starts_with(what))
    };
    let sentence = format!("'{SENTENCE}'");

    // The control: where the bytes are meant to arrive, the same search finds them.
    for (word, name, control) in [("kiln", NAME, "bytes of the file"), ("cellar", TEXT_NAME, &*sentence)] {
        let content = found_by_word(&asker, word, name);
        assert_eq!(asker.bbh(&["download", &content]).code, 0);
        let (mut during, mut seen_at_asker) = (0, false);
        let done = until("the file is here", || {
            let download = asker.download(&content)?;
            assert_ne!(download["state"], "failed", "{download}");
            if download["state"] == "active" && download["verified"].as_u64() > Some(0) {
                during += 1;
                let (relays, askers) = (relay.memory().unwrap(), memory(asker.process.pid()).unwrap());
                assert_eq!(needles.find_in_all(&relays), Found::new(), "{download}");
                seen_at_asker = seen_at_asker || holds(&askers, control);
            }
            (download["state"] == "complete").then_some(download)
        });
        assert!(during > 0, "{name} has passed before the relay was looked at");
        assert!(seen_at_asker, "{control} should be where they are meant to arrive");
        let arrived = fs::read(done["path"].as_str().unwrap()).unwrap();
        assert!(arrived == fs::read(folder.join(name)).unwrap(), "{name} arrives whole");
    }
    assert!(holds(&memory(asker.process.pid()).unwrap(), &format!("'{SECRET_OF_NAMES}'")), "the asker knows the names");

    let after = relay.memory().unwrap();
    assert_eq!(needles.find_in_all(&after), Found::new());
    let own = Needles::new(&file, &[RELAY]).find_in_all(&after);
    assert!(!own.is_empty(), "what the relay does hold is found in its memory");
    // What a link's end makes it write shows that it writes down all it can.
    asker.process.signal("-TERM");
    let log = until("the relay logs that a link has ended", || {
        let log = fs::read_to_string(&relay.log).unwrap();
        log.contains("DEBUG").then_some(log)
    });
    assert_eq!(needles.find("the log", log.as_bytes()), Found::new());
    for path in files_below(&air.folder.path().join("relay")) {
        assert_eq!(needles.find(&path.display().to_string(), &fs::read(&path).unwrap()), Found::new());
    }
}
