//! The running node's side.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::to_raw_value;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};

use super::file::Token;
use super::{Command, MAX_LINE, Response};
use crate::failure::Failure;

/// Connections at the same time; one more is closed at once.
const MAX_CONNECTIONS: usize = 32;

/// How long a client may take to say what it wants.
const REQUEST_TIME: Duration = Duration::from_secs(10);

/// What answers the commands.
pub trait Service: Send + Sync + 'static {
    /// Carries out one command. Dropping the future cancels it.
    fn call(&self, command: Command, answers: Answers) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// Where a command's answer goes, part by part.
#[derive(Clone)]
pub struct Answers(mpsc::Sender<Response>);

impl Answers {
    /// Sends one item; waits while the client is slow.
    ///
    /// # Errors
    /// If the client has gone or the item can't be written as JSON.
    pub async fn item(&self, item: &impl Serialize) -> Result<(), Failure> {
        let item = to_raw_value(item).map_err(|error| Failure::failed(format!("the answer is no JSON: {error}")))?;
        self.send(Response::Item(item)).await
    }

    /// Sends a line for the person who asked.
    ///
    /// # Errors
    /// If the client has gone.
    pub async fn note(&self, text: impl Into<String>) -> Result<(), Failure> {
        self.send(Response::Note(text.into())).await
    }

    /// Says how far it is, in bytes.
    ///
    /// # Errors
    /// If the client has gone.
    pub async fn progress(&self, done: u64, total: u64) -> Result<(), Failure> {
        self.send(Response::Progress { done, total }).await
    }

    async fn send(&self, response: Response) -> Result<(), Failure> {
        self.0.send(response).await.map_err(|_| Failure::failed("the client has gone"))
    }
}

/// Serves until dropped.
pub async fn serve(listener: TcpListener, token: Token, service: Arc<impl Service>) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
                    tracing::warn!("too many control connections: one was closed");
                    continue;
                };
                let (token, service) = (token.clone(), Arc::clone(&service));
                tokio::spawn(async move {
                    if let Err(error) = connection(stream, &token, &*service).await {
                        tracing::debug!(%error, "a control connection has ended");
                    }
                    drop(slot);
                });
            }
            Err(error) => {
                // Out of file descriptors, most likely: they come back.
                tracing::warn!(%error, "no control connection can be accepted");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

#[derive(Deserialize)]
struct Credentials {
    token: String,
}

async fn connection(mut stream: TcpStream, token: &Token, service: &impl Service) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (read, mut write) = stream.split();
    let mut read = BufReader::new(read);
    let line = tokio::time::timeout(REQUEST_TIME, read_line(&mut read))
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no request came"))??
        .ok_or(io::ErrorKind::UnexpectedEof)?;
    // Who has no token learns nothing, not even what is wrong.
    match serde_json::from_slice::<Credentials>(&line) {
        Ok(offered) if token.matches(&offered.token) => {}
        _ => return Err(io::Error::new(io::ErrorKind::PermissionDenied, "no valid token")),
    }
    let command = match serde_json::from_slice::<Command>(&line) {
        Ok(command) => command,
        Err(error) => {
            let message = format!("the node does not understand this command; is it of another version? ({error})");
            return write_line(&mut write, &Response::Error { usage: true, message }).await;
        }
    };
    let stop = command == Command::Stop;

    let (sender, mut responses) = mpsc::channel(16);
    let answers = Answers(sender);
    let call = async {
        match service.call(command, answers.clone()).await {
            Ok(()) => Response::Done,
            Err(failure) => failure.into(),
        }
    };
    let answer = async {
        let mut call = std::pin::pin!(call);
        let last = loop {
            tokio::select! {
                biased;
                Some(response) = responses.recv() => write_line(&mut write, &response).await?,
                last = &mut call => break last,
            }
        };
        while let Ok(response) = responses.try_recv() {
            write_line(&mut write, &response).await?;
        }
        write_line(&mut write, &last).await
    };
    tokio::select! {
        answered = answer => answered?,
        // Nothing more may come: the client has closed, and with it the command.
        _ = read.fill_buf() => return Err(io::ErrorKind::ConnectionAborted.into()),
    }
    if stop {
        // The system closes the connection when the process has ended: that tells the client.
        std::future::pending::<()>().await;
    }
    write.shutdown().await
}

/// One line without its end; `None` at the end of the stream.
///
/// # Errors
/// If the stream fails, ends inside a line, or the line is longer than [`MAX_LINE`].
pub async fn read_line(read: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    loop {
        let available = read.fill_buf().await?;
        if available.is_empty() {
            return if line.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
        let end = available.iter().position(|byte| *byte == b'\n');
        let taken = end.unwrap_or(available.len());
        if line.len() + taken >= MAX_LINE {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the line is too long"));
        }
        line.extend_from_slice(&available[..taken]);
        read.consume(end.map_or(taken, |end| end + 1));
        if end.is_some() {
            return Ok(Some(line));
        }
    }
}

async fn write_line(write: &mut (impl tokio::io::AsyncWrite + Unpin), response: &Response) -> io::Result<()> {
    let mut line = serde_json::to_vec(response)?;
    if line.len() >= MAX_LINE {
        let message = "the answer is too long for the control channel".to_owned();
        line = serde_json::to_vec(&Response::Error { usage: false, message })?;
    }
    line.push(b'\n');
    write.write_all(&line).await
}
