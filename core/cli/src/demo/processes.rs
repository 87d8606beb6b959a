//! The demo's processes: an air and nodes, each this very program again.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command as Process};

use crate::control::Command;
use crate::control::client::{Call, Part};
use crate::failure::Failure;
use crate::records::{self, Download, Status};

/// How long a process may take until it says that it is ready.
const START_TIME: Duration = Duration::from_secs(20);

/// One child process. Killed when dropped; and if this process is killed, it ends by itself, since its standard input
/// is closed then.
struct Running {
    child: Child,
    _stdout: BufReader<ChildStdout>,
    log: PathBuf,
}

impl Running {
    /// Starts this program with `arguments`, its log in the file `log`, and waits for a line that begins with `word`;
    /// returns what follows it.
    async fn start(arguments: &[&str], log: PathBuf, word: &str) -> Result<(Self, String), Failure> {
        let what = format!("bbh {}", arguments.join(" "));
        let failed = |reason: String| Failure::failed(format!("{what}: {reason}"));
        let program = std::env::current_exe().map_err(|error| failed(error.to_string()))?;
        let log_file = File::create(&log).map_err(|error| failed(format!("{}: {error}", log.display())))?;
        let mut child = Process::new(program)
            .args(arguments)
            .arg("--until-stdin-closes")
            .env_remove("BBH_DATA")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log_file)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed(format!("can't be started: {error}")))?;
        let stdout = child.stdout.take().ok_or_else(|| failed("has no standard output".to_owned()))?;
        let mut stdout = BufReader::new(stdout);
        let mut line = String::new();
        let read = tokio::time::timeout(START_TIME, stdout.read_line(&mut line)).await;
        let found = matches!(read, Ok(Ok(_))).then(|| line.trim().strip_prefix(word)).flatten();
        let Some(rest) = found else {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            return Err(failed(format!("did not get ready. It said: {}{}", line, said.trim())));
        };
        let rest = rest.trim().to_owned();
        Ok((Self { child, _stdout: stdout, log }, rest))
    }

    /// Ends it without giving it a chance (SIGKILL).
    async fn kill(&mut self) -> Result<(), Failure> {
        self.child.kill().await.map_err(|error| Failure::failed(format!("a process can't be killed: {error}")))
    }

    /// Fails if it has ended by itself.
    fn check(&mut self) -> Result<(), Failure> {
        match self.child.try_wait() {
            Ok(Some(status)) => Err(Failure::failed(format!(
                "a process has ended ({status}); its last words are in {}",
                self.log.display()
            ))),
            _ => Ok(()),
        }
    }
}

/// The air hub.
pub struct Air {
    running: Running,
    /// HOST:PORT.
    pub address: String,
}

impl Air {
    /// Starts it on a free port; its log goes into `folder`.
    ///
    /// # Errors
    /// If it does not get ready.
    pub async fn start(folder: &Path, range: f64, rate: u64) -> Result<Self, Failure> {
        let (range, rate) = (range.to_string(), rate.to_string());
        let arguments = ["air", "--listen", "127.0.0.1:0", "--range", &range, "--rate", &rate];
        let (running, address) = Running::start(&arguments, folder.join("air.log"), "listening").await?;
        Ok(Self { running, address })
    }

    /// Fails if it has ended.
    pub fn check(&mut self) -> Result<(), Failure> {
        self.running.check()
    }
}

/// A node.
pub struct Node {
    running: Running,
    data: PathBuf,
    /// Its name, for people.
    pub name: String,
    /// Its id.
    pub id: String,
}

impl Node {
    /// Starts it at `x` metres along the chain, with its data and log in `folder`.
    ///
    /// # Errors
    /// If it does not get ready.
    pub async fn start(folder: &Path, air: &str, name: &str, x: f64) -> Result<Self, Failure> {
        let data = folder.join(name);
        let text = data.to_str().ok_or_else(|| Failure::failed("the folder for temporary files is not UTF-8"))?;
        let (radio, at) = (format!("air://{air}"), format!("{x},0"));
        let arguments = ["run", "--data", text, "--radio", &radio, "--at", &at, "--name", name];
        let (running, id) = Running::start(&arguments, folder.join(format!("{name}.log")), "ready").await?;
        Ok(Self { running, data: data.clone(), name: name.to_owned(), id })
    }

    /// Kills it (SIGKILL).
    ///
    /// # Errors
    /// If the system refuses.
    pub async fn kill(&mut self) -> Result<(), Failure> {
        self.running.kill().await
    }

    /// Fails if it has ended by itself.
    pub fn check(&mut self) -> Result<(), Failure> {
        self.running.check()
    }

    /// Asks it.
    ///
    /// # Errors
    /// If it is not running.
    pub async fn call(&self, command: &Command) -> Result<Call, Failure> {
        Call::new(&self.data, command).await
    }

    /// Asks it and collects the items.
    ///
    /// # Errors
    /// What it says, with its name.
    pub async fn ask<T: DeserializeOwned>(&self, command: &Command) -> Result<Vec<T>, Failure> {
        let named = |failure: Failure| Failure::failed(format!("{}: {failure}", self.name));
        let mut call = self.call(command).await.map_err(named)?;
        let mut items = Vec::new();
        while let Some(part) = call.next().await.map_err(named)? {
            match part {
                Part::Item(item) => items.push(records::read(&item)?),
                Part::Progress { .. } => {}
                Part::Note(note) => return Err(Failure::failed(format!("{}: {note}", self.name))),
            }
        }
        Ok(items)
    }

    /// Its place in the network.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub async fn status(&self) -> Result<Status, Failure> {
        let mut items = self.ask(&Command::Status).await?;
        items.pop().ok_or_else(|| Failure::failed(format!("{}: no status", self.name)))
    }

    /// One of its downloads.
    ///
    /// # Errors
    /// As [`Self::ask`], or if it has no such download.
    pub async fn download(&self, content: &str) -> Result<Download, Failure> {
        let downloads: Vec<Download> = self.ask(&Command::Downloads).await?;
        downloads
            .into_iter()
            .find(|download| download.content_id == content)
            .ok_or_else(|| Failure::failed(format!("{}: the download has gone from the list", self.name)))
    }
}
