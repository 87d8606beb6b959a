//! Real processes of `bbh`: an air hub, nodes, and the commands.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Long enough for a busy machine; what is slower than that is broken.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The program under test.
pub fn bbh() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bbh"));
    command.env_remove("BBH_DATA").env_remove("BBH_LOG").stdin(Stdio::null());
    command
}

/// How a command ended.
#[derive(Debug)]
pub struct Outcome {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    /// Standard output as the one JSON document that it must be.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Runs a command to its end.
pub fn run(command: &mut Command) -> Outcome {
    let output = command.output().unwrap();
    Outcome {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Asks again and again until there is an answer.
pub fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A process that ends with its owner, whatever becomes of him: its standard input is closed then.
pub struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Running {
    fn spawn(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { stdin: child.stdin.take(), child, stdout }
    }

    fn first_line(&mut self, word: &str) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line.trim().strip_prefix(word).unwrap_or_else(|| panic!("'{line}' is not '{word} …'")).trim().to_owned()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGTERM or another.
    pub fn signal(&self, signal: &str) {
        let pid = self.pid().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    /// The exit code, once it has ended by itself; `None` if a signal ended it.
    pub fn ended(&mut self) -> Option<i32> {
        until("the process ends", || self.child.try_wait().unwrap()).code()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An air hub, and a folder for everything that happens in it.
pub struct Air {
    _process: Running,
    pub address: String,
    pub folder: TempDir,
}

impl Air {
    /// A hub in which radios reach 10 m and carry 4 MB/s.
    pub fn start() -> Self {
        Self::with_rate(4_000_000)
    }

    pub fn with_rate(rate: u64) -> Self {
        let rate = rate.to_string();
        let mut process = Running::spawn(bbh().args([
            "air",
            "--listen",
            "127.0.0.1:0",
            "--range",
            "10",
            "--rate",
            &rate,
            "--until-stdin-closes",
        ]));
        let address = process.first_line("listening");
        Self { _process: process, address, folder: tempfile::tempdir().unwrap() }
    }

    /// A node in it, ready.
    pub fn node(&self, name: &str, at: &str) -> Node {
        let mut node = self.node_starting(name, at);
        node.wait_until_ready();
        node
    }

    /// A node in it, just started.
    pub fn node_starting(&self, name: &str, at: &str) -> Node {
        let radio = format!("air://{}", self.address);
        Node::spawn(self.folder.path().join(name), &["--name", name, "--radio", &radio, "--at", at])
    }
}

/// A running node.
pub struct Node {
    pub process: Running,
    pub data: PathBuf,
    pub id: String,
}

impl Node {
    fn spawn(data: PathBuf, options: &[&str]) -> Self {
        let mut command = bbh();
        command.args(["run", "--until-stdin-closes", "--data"]).arg(&data).args(options);
        Self { process: Running::spawn(&mut command), data, id: String::new() }
    }

    /// A node with these options of `bbh run`, ready.
    pub fn with_options(data: &Path, options: &[&str]) -> Self {
        let mut node = Self::spawn(data.to_owned(), options);
        node.wait_until_ready();
        node
    }

    /// A node without any radio.
    pub fn alone(data: &Path) -> Self {
        Self::with_options(data, &[])
    }

    pub fn wait_until_ready(&mut self) {
        self.id = self.process.first_line("ready");
    }

    /// A command to this node; the data folder is added.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = bbh();
        command.args(args).arg("--data").arg(&self.data);
        command
    }

    /// Runs a command to its end.
    pub fn bbh(&self, args: &[&str]) -> Outcome {
        run(&mut self.command(args))
    }

    /// Runs a command that must succeed, and reads its JSON.
    pub fn json(&self, args: &[&str]) -> Value {
        let outcome = run(self.command(args).arg("--json"));
        assert_eq!(outcome.code, 0, "{args:?}: {outcome:?}");
        outcome.json()
    }

    pub fn status(&self) -> Value {
        self.json(&["status"])
    }

    /// The download of that content.
    pub fn download(&self, content: &str) -> Option<Value> {
        let downloads = self.json(&["downloads"]);
        downloads.as_array().unwrap().iter().find(|download| download["content_id"] == content).cloned()
    }

    /// Searches until something is found.
    pub fn find(&self, word: &str) -> Value {
        until(word, || {
            let found = self.json(&["search", word, "--timeout", "2"]);
            found.as_array().unwrap().first().cloned()
        })
    }
}

/// Waits until all these nodes are in one tree, and know it.
pub fn one_tree(nodes: &[&Node]) {
    until("one tree", || {
        let states: Vec<_> = nodes.iter().map(|node| node.status()).collect();
        let tree = &states[0]["tree_id"];
        let roots = states.iter().filter(|state| state["parent"].is_null()).count();
        let same = tree.is_string() && states.iter().all(|state| state["tree_id"] == *tree);
        (same && roots == 1).then_some(())
    });
}

/// Files to share.
pub fn folder_with(parent: &Path, files: &[(&str, &[u8])]) -> PathBuf {
    let folder = parent.join("to share");
    std::fs::create_dir_all(&folder).unwrap();
    for (name, bytes) in files {
        std::fs::write(folder.join(name), bytes).unwrap();
    }
    folder
}

/// Bytes that look random and are the same each time.
pub fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2005_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// An audio file whose tags alone hold the word.
pub fn tagged_audio(path: &Path, album: &str) {
    use id3::TagLike;
    std::fs::write(path, [&[0xff, 0xfb, 0x90, 0x00][..], &[0; 413]].concat().repeat(10)).unwrap();
    let mut tag = id3::Tag::new();
    tag.set_album(album);
    tag.set_artist("The Blue Brewery Horses");
    tag.write_to_path(path, id3::Version::Id3v24).unwrap();
}
