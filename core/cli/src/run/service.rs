//! The node's answers to the commands.

use std::sync::Arc;
use std::time::Duration;

use bbh_node::view::ShareReport;
use bbh_node::{NodeError, NodeHandle, Progress, SharedThing};
use bbh_types::{ContentId, Query, SearchMode};
use serde::Serialize;
use tokio::sync::{Notify, watch};

use crate::control::server::{Answers, Service};
use crate::control::{Command, Shared};
use crate::failure::Failure;

/// How often whoever waits is told how far it is, at most.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// The running node.
pub struct NodeService {
    /// Itself.
    pub node: NodeHandle,
    /// Notified when it shall end.
    pub stop: Arc<Notify>,
}

#[derive(Serialize)]
struct Ping {
    node_id: String,
    /// Seconds there and back.
    time: f64,
}

impl Service for NodeService {
    async fn call(&self, command: Command, answers: Answers) -> Result<(), Failure> {
        let node = &self.node;
        match command {
            Command::Status => answers.item(&node.status().await?).await,
            Command::Devices => items(&answers, &node.devices().await?).await,
            Command::Ping { node: to } => match node.ping(to).await? {
                Some(time) => answers.item(&Ping { node_id: to.to_string(), time: time.as_secs_f64() }).await,
                None => Err(Failure::failed(format!("{to} does not answer"))),
            },
            // The command itself was right: a node without an air radio just can't.
            Command::Move { x, y } => node.move_to(x, y).await.map_err(Failure::failed),
            Command::Settings => answers.item(&node.settings().await?).await,
            Command::Set { key, value } => Ok(node.set(&key, &value).await?),
            Command::Stop => {
                self.stop.notify_one();
                Ok(())
            }
            Command::Share { paths } => {
                let (progress, updates) = watch::channel(Progress::default());
                let scan = node.share(paths, move |now| {
                    let _ = progress.send_replace(now);
                });
                report(scan, updates, &answers).await
            }
            Command::Rescan => {
                let (progress, updates) = watch::channel(Progress::default());
                let scan = node.rescan(move |now| {
                    let _ = progress.send_replace(now);
                });
                report(scan, updates, &answers).await
            }
            Command::Unshare { what } => {
                let what = match what {
                    Shared::Path(path) => SharedThing::Path(path),
                    Shared::Content(content) => SharedThing::Content(content),
                };
                node.unshare(what).await?;
                Ok(())
            }
            Command::Shared => items(&answers, &node.shared().await?).await,
            Command::Search { words, mode, timeout, kind, min_size, max_size } => {
                let words = words.iter().map(String::as_str);
                let mut query = Query::new(words, mode.unwrap_or(SearchMode::All)).map_err(Failure::usage)?;
                (query.kind, query.min_size, query.max_size) = (kind, min_size, max_size);
                let timeout =
                    timeout.map(|seconds| Duration::try_from_secs_f64(seconds).map_err(Failure::usage)).transpose()?;
                let mut hits = match mode {
                    Some(_) => node.search(query, timeout).await?,
                    None => node.search_as_set(query, timeout).await?,
                };
                while let Some(hit) = hits.next().await {
                    answers.item(&hit).await?;
                }
                Ok(())
            }
            Command::Download { content, to, queue, wait } => {
                answers.item(&node.download(content, to, queue).await?).await?;
                if wait { self.wait_for(content, &answers).await } else { Ok(()) }
            }
            Command::Downloads => items(&answers, &node.downloads().await?).await,
            Command::Start(args) => items(&answers, node.start_download(args.content).await?.as_slice()).await,
            Command::Pause(args) => items(&answers, node.pause(args.content).await?.as_slice()).await,
            Command::Resume(args) => items(&answers, node.resume(args.content).await?.as_slice()).await,
            Command::Cancel(args) => {
                node.cancel(args.content).await?;
                Ok(())
            }
        }
    }
}

impl NodeService {
    /// Tells each state of a download, the last one surely.
    async fn wait_for(&self, content: ContentId, answers: &Answers) -> Result<(), Failure> {
        let (latest, mut updates) = watch::channel(None);
        let waiting = self.node.wait_for(content, |view| drop(latest.send_replace(Some(view.clone()))));
        let telling = async {
            // The sender lives as long as the waiting does.
            while updates.changed().await.is_ok() {
                let view = updates.borrow_and_update().clone();
                if let Some(view) = view {
                    answers.item(&view).await?;
                }
                tokio::time::sleep(PROGRESS_INTERVAL).await;
            }
            std::future::pending().await
        };
        tokio::select! {
            last = waiting => answers.item(&last?).await,
            gone = telling => gone,
        }
    }
}

async fn items(answers: &Answers, all: &[impl Serialize + Sync]) -> Result<(), Failure> {
    for item in all {
        answers.item(item).await?;
    }
    Ok(())
}

/// Follows a scan and tells what came of it.
async fn report(
    scan: impl Future<Output = Result<ShareReport, NodeError>>,
    mut updates: watch::Receiver<Progress>,
    answers: &Answers,
) -> Result<(), Failure> {
    let telling = async {
        while updates.changed().await.is_ok() {
            let now = *updates.borrow_and_update();
            answers.progress(now.bytes_done, now.bytes_total).await?;
            tokio::time::sleep(PROGRESS_INTERVAL).await;
        }
        std::future::pending::<Result<(), Failure>>().await
    };
    let report = tokio::select! {
        report = scan => report?,
        gone = telling => return gone,
    };
    for problem in &report.problems {
        answers.note(problem).await?;
    }
    items(answers, &report.files).await
}
