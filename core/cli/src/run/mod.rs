//! `bbh run`: a node in the foreground.

mod service;

use std::net::Ipv4Addr;
use std::sync::Arc;

use bbh_node::view::NodeEvent;
use bbh_node::{AirOptions, NodeError, NodeHandle, NodeOptions, StartError};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::sync::broadcast::error::RecvError;

use self::service::NodeService;
use crate::args::RunArgs;
use crate::control::file::{ControlFile, Token};
use crate::control::server;
use crate::failure::Failure;
use crate::output;
use crate::process::{Ending, start_log};

impl From<NodeError> for Failure {
    fn from(error: NodeError) -> Self {
        match error {
            NodeError::Usage(reason) => Self::Usage(reason),
            NodeError::Failed(_) | NodeError::Stopped => Self::failed(error),
        }
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Option(error) => error.into(),
            error => Self::failed(error),
        }
    }
}

/// Runs it until it is told to end.
///
/// # Errors
/// If it can't start, or ends by itself.
pub async fn run(args: &RunArgs) -> Result<(), Failure> {
    start_log(args.verbose)?;
    let mut ending = Ending::new(args.until_stdin_closes)?;
    let data = std::path::absolute(args.data_dir())
        .map_err(|error| Failure::failed(format!("{}: {error}", args.data_dir().display())))?;
    let mut options = NodeOptions::new(&data);
    options.air = args.radio.as_ref().map(|radio| {
        let (x, y) = args.at.map_or((0.0, 0.0), |at| (at.x, at.y));
        AirOptions { hub: radio.0.clone(), x, y }
    });
    options.listen = args.listen.map(|address| address.to_string());
    options.peers.clone_from(&args.peer);
    options.settings.extend(args.name.clone().map(|name| ("name".to_owned(), name)));
    options.settings.extend(args.max_links.map(|links| ("max_links".to_owned(), links.to_string())));
    let node = tokio::select! {
        started = NodeHandle::start(options) => started?,
        () = ending.told() => return Ok(()),
    };

    let refused = |error: std::io::Error| Failure::failed(format!("the control channel can't be opened: {error}"));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(refused)?;
    let port = listener.local_addr().map_err(refused)?.port();
    let token = Token::new().map_err(refused)?;
    let file = ControlFile::create(&data, port, &token).map_err(refused)?;
    let stop = Arc::new(Notify::new());
    let service = Arc::new(NodeService { node: node.clone(), stop: Arc::clone(&stop) });
    tokio::spawn(server::serve(listener, token, service));
    tokio::spawn(show_notices(node.clone()));

    if let Some(address) = node.listening() {
        tracing::info!(%address, "listening for TCP links");
    }
    output::print(&format!("ready {}", node.node_id()))?;
    let by_itself = tokio::select! {
        () = ending.told() => false,
        () = stop.notified() => false,
        () = node.ended() => true,
    };
    drop(file);
    if by_itself {
        return Err(Failure::failed("the node has ended by itself; the log says why"));
    }
    tokio::select! {
        () = node.stop() => Ok(()),
        () = ending.told() => Err(Failure::failed("told twice to end: not everything may be on disk")),
    }
}

/// Tells whoever looks at the terminal what he should know.
async fn show_notices(node: NodeHandle) {
    for notice in node.notices() {
        tracing::warn!("{notice}");
    }
    let mut events = node.events();
    loop {
        match events.recv().await {
            Ok(NodeEvent::Notice(notice)) => tracing::warn!("{notice}"),
            Ok(NodeEvent::Stopped) | Err(RecvError::Closed) => return,
            Ok(_) | Err(RecvError::Lagged(_)) => {}
        }
    }
}
