//! The commands' side.

use std::io;
use std::net::Ipv4Addr;
use std::path::Path;

use serde::Serialize;
use serde_json::value::RawValue;
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::file::ControlFile;
use super::server::read_line;
use super::{Command, MAX_LINE, Response};
use crate::failure::Failure;

/// A part of an answer.
#[derive(Debug)]
pub enum Part {
    /// An item, in the form that `--json` prints.
    Item(Box<RawValue>),
    /// For standard error.
    Note(String),
    /// For a terminal.
    Progress {
        /// Bytes.
        done: u64,
        /// Bytes.
        total: u64,
    },
}

/// An asked question. Dropping it cancels the command.
pub struct Call {
    stream: BufReader<TcpStream>,
}

#[derive(Serialize)]
struct Request<'a> {
    token: &'a str,
    #[serde(flatten)]
    command: &'a Command,
}

impl Call {
    /// Asks the node that runs in `data`.
    ///
    /// # Errors
    /// [`Failure::NotRunning`] if there is none.
    pub async fn new(data: &Path, command: &Command) -> Result<Self, Failure> {
        let not_running = |reason: String| Failure::NotRunning { data: data.to_owned(), reason };
        let (port, token) = ControlFile::read(data).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => not_running("there is no control.json".to_owned()),
            io::ErrorKind::PermissionDenied => Failure::failed(format!(
                "the node in {} belongs to another user: its control.json can't be read",
                data.display()
            )),
            _ => not_running(format!("its control.json can't be read ({error})")),
        })?;
        let mut line = serde_json::to_vec(&Request { token: token.as_str(), command })
            .map_err(|error| Failure::failed(format!("this can't be asked: {error}")))?;
        if line.len() >= MAX_LINE {
            return Err(Failure::failed("that is too much for one command: give fewer paths at a time"));
        }
        line.push(b'\n');
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.map_err(|error| {
            not_running(format!("its control.json is left over from a node that was killed ({error})"))
        })?;
        stream.write_all(&line).await.map_err(|error| not_running(format!("it does not answer ({error})")))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// The next part; `None` at the end.
    ///
    /// # Errors
    /// What the node says, or that it ended in the middle.
    pub async fn next(&mut self) -> Result<Option<Part>, Failure> {
        let line = read_line(&mut self.stream).await.ok().flatten().ok_or_else(|| {
            Failure::failed("the node closed the connection: it has ended, or is busy with too many commands")
        })?;
        let response = serde_json::from_slice(&line)
            .map_err(|error| Failure::failed(format!("the node's answer makes no sense ({error})")))?;
        match response {
            Response::Item(item) => Ok(Some(Part::Item(item))),
            Response::Note(note) => Ok(Some(Part::Note(note))),
            Response::Progress { done, total } => Ok(Some(Part::Progress { done, total })),
            Response::Done => Ok(None),
            Response::Error { usage: true, message } => Err(Failure::Usage(message)),
            Response::Error { usage: false, message } => Err(Failure::Failed(message)),
        }
    }

    /// Waits until the node's process has ended; for [`Command::Stop`], after its last part.
    pub async fn ended(mut self) {
        while let Ok(Some(_)) = read_line(&mut self.stream).await {}
    }
}
