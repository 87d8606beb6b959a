//! The channel from end to end, with a service of our own in place of a node.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::client::{Call, Part};
use super::file::{ControlFile, Token};
use super::server::{Answers, Service, serve};
use super::{Command, Content, MAX_LINE};
use crate::failure::Failure;

/// Answers `devices` with two items and a note, refuses `settings` and `rescan`, and works on anything else until it
/// is cancelled, which it reports.
struct Stub {
    cancelled: mpsc::UnboundedSender<()>,
}

struct OnDrop(mpsc::UnboundedSender<()>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

impl Service for Stub {
    async fn call(&self, command: Command, answers: Answers) -> Result<(), Failure> {
        match command {
            Command::Devices => {
                answers.item(&json!({"hops": 1})).await?;
                answers.note("one does not answer").await?;
                answers.progress(1, 2).await?;
                answers.item(&json!({"hops": 2})).await
            }
            Command::Settings => Err(Failure::usage("not like that")),
            Command::Rescan => Err(Failure::failed("the disk is gone")),
            Command::Shared => answers.item(&"x".repeat(MAX_LINE)).await,
            _ => {
                let _guard = OnDrop(self.cancelled.clone());
                answers.item(&json!("working")).await?;
                std::future::pending().await
            }
        }
    }
}

struct World {
    data: tempfile::TempDir,
    address: SocketAddr,
    token: Token,
    cancelled: mpsc::UnboundedReceiver<()>,
    _file: ControlFile,
}

async fn world() -> World {
    let data = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let token = Token::new().unwrap();
    let file = ControlFile::create(data.path(), address.port(), &token).unwrap();
    let (sender, cancelled) = mpsc::unbounded_channel();
    tokio::spawn(serve(listener, token.clone(), Arc::new(Stub { cancelled: sender })));
    World { data, address, token, cancelled, _file: file }
}

async fn ask(world: &World, command: Command) -> Result<Vec<String>, Failure> {
    let mut call = Call::new(world.data.path(), &command).await?;
    let mut parts = Vec::new();
    while let Some(part) = call.next().await? {
        parts.push(match part {
            Part::Item(item) => item.get().to_owned(),
            Part::Note(note) => format!("note: {note}"),
            Part::Progress { done, total } => format!("{done} of {total}"),
        });
    }
    Ok(parts)
}

/// What the server sends to someone who sends exactly these bytes.
async fn raw(address: SocketAddr, bytes: Vec<u8>) -> Vec<u8> {
    tokio::task::spawn_blocking(move || {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(8))).unwrap();
        // The server may close before it has read everything.
        let _ = stream.write_all(&bytes);
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}"),
        }
        answer
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn all_parts_arrive_in_order() {
    let world = world().await;
    let parts = ask(&world, Command::Devices).await.unwrap();
    assert_eq!(parts, [r#"{"hops":1}"#, "note: one does not answer", "1 of 2", r#"{"hops":2}"#]);
}

#[tokio::test]
async fn failures_keep_their_exit_codes() {
    let world = world().await;
    let usage = ask(&world, Command::Settings).await.unwrap_err();
    assert_eq!((usage.exit_code(), usage.to_string().as_str()), (2, "not like that"));
    let failed = ask(&world, Command::Rescan).await.unwrap_err();
    assert_eq!((failed.exit_code(), failed.to_string().as_str()), (1, "the disk is gone"));
}

#[tokio::test]
async fn without_the_token_nothing_is_said() {
    let world = world().await;
    let right = world.token.as_str();
    for line in [
        "{\"token\":\"0000\",\"command\":\"devices\"}\n".to_owned(),
        "{\"command\":\"devices\"}\n".to_owned(),
        format!("{{\"token\":\"{}\",\"command\":\"devices\"}}\n", &right[1..]),
        "GET / HTTP/1.1\r\n\r\n".to_owned(),
        "\n".to_owned(),
    ] {
        assert_eq!(raw(world.address, line.clone().into_bytes()).await, b"", "{line}");
    }
    let right = format!("{{\"token\":\"{right}\",\"command\":\"devices\"}}\n");
    assert!(raw(world.address, right.into_bytes()).await.ends_with(b"\"done\"\n"));
}

#[tokio::test]
async fn a_command_of_another_version_is_refused_with_a_reason() {
    let world = world().await;
    let line = format!("{{\"token\":\"{}\",\"command\":\"brew\"}}\n", world.token.as_str());
    let answer = String::from_utf8(raw(world.address, line.into_bytes()).await).unwrap();
    assert!(answer.contains("error") && answer.contains("another version"), "{answer}");
}

#[tokio::test]
async fn a_line_without_end_is_not_collected() {
    let world = world().await;
    assert_eq!(raw(world.address, vec![b'x'; 2 * MAX_LINE]).await, b"");
    assert!(ask(&world, Command::Devices).await.is_ok());
}

#[tokio::test]
async fn an_item_beyond_the_limit_is_an_error_not_a_broken_stream() {
    let world = world().await;
    let error = ask(&world, Command::Shared).await.unwrap_err();
    assert!(error.to_string().contains("too long"), "{error}");
}

#[tokio::test]
async fn closing_the_connection_cancels_the_command() {
    let mut world = world().await;
    let mut call = Call::new(world.data.path(), &Command::Status).await.unwrap();
    assert!(call.next().await.unwrap().is_some());
    drop(call);
    tokio::time::timeout(Duration::from_secs(5), world.cancelled.recv()).await.unwrap().unwrap();
}

#[tokio::test]
async fn more_connections_than_allowed_are_closed_and_the_others_go_on() {
    let world = world().await;
    let mut calls = Vec::new();
    for _ in 0..32 {
        let mut call = Call::new(world.data.path(), &Command::Status).await.unwrap();
        assert!(call.next().await.unwrap().is_some());
        calls.push(call);
    }
    assert_eq!(ask(&world, Command::Devices).await.unwrap_err().exit_code(), 1);
    calls.pop();
    // The slot comes back as soon as the server has noticed.
    let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
    while ask(&world, Command::Devices).await.is_err() {
        assert!(tokio::time::Instant::now() < deadline, "the slot did not come back");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn no_node_and_a_killed_node_are_told_apart_from_failures() {
    let data = tempfile::tempdir().unwrap();
    let none = Call::new(data.path(), &Command::Status).await.err().unwrap();
    assert_eq!(none.exit_code(), 3, "{none}");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let _file = ControlFile::create(data.path(), port, &Token::new().unwrap()).unwrap();
    let stale = Call::new(data.path(), &Command::Status).await.err().unwrap();
    assert_eq!(stale.exit_code(), 3);
    assert!(stale.to_string().contains("left over"), "{stale}");
}

#[test]
fn commands_are_written_as_the_decision_record_says() {
    let content = "00".repeat(32).parse().unwrap();
    let command = Command::Pause(Content { content });
    let line = serde_json::to_string(&command).unwrap();
    assert_eq!(line, format!(r#"{{"command":"pause","args":{{"content":"{content}"}}}}"#));
    assert_eq!(serde_json::from_str::<Command>(&line).unwrap(), command);
    assert_eq!(serde_json::to_string(&Command::Status).unwrap(), r#"{"command":"status"}"#);
}
