//! What `bbh air` and `bbh run` have in common as processes: their log, and how they are told to end.

use std::io::Read;

use tokio::sync::oneshot;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::failure::Failure;

/// Sends the log to standard error, and panics into the log. `BBH_LOG` beats `--verbose`.
///
/// # Errors
/// If `BBH_LOG` makes no sense.
pub fn start_log(verbose: u8) -> Result<(), Failure> {
    let filter = match std::env::var("BBH_LOG") {
        Ok(filter) if !filter.is_empty() => {
            filter.parse::<Targets>().map_err(|error| Failure::usage(format!("BBH_LOG={filter}: {error}")))?
        }
        _ => Targets::new().with_default(match verbose {
            0 => LevelFilter::WARN,
            1 => LevelFilter::INFO,
            _ => LevelFilter::DEBUG,
        }),
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    tracing_subscriber::registry().with(filter).with(lines).init();
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let reason = panic.payload_as_str().unwrap_or("no reason given");
        tracing::error!(place, "panicked: {reason}. This is a bug in bbh");
    }));
    Ok(())
}

/// What tells a process to end.
pub struct Ending {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    stdin: Option<oneshot::Receiver<()>>,
}

impl Ending {
    /// From now on SIGTERM and SIGINT no longer end the process by themselves. With `until_stdin_closes`, the end of
    /// standard input counts as one, too.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn new(until_stdin_closes: bool) -> Result<Self, Failure> {
        let refused = |error: std::io::Error| Failure::failed(format!("the system gives no signals: {error}"));
        #[cfg(unix)]
        let (terminate, interrupt) = {
            use tokio::signal::unix::{SignalKind, signal};
            (signal(SignalKind::terminate()).map_err(refused)?, signal(SignalKind::interrupt()).map_err(refused)?)
        };
        let stdin = if until_stdin_closes {
            let (closed, receiver) = oneshot::channel();
            // A thread of its own, which the runtime does not wait for at its end.
            std::thread::Builder::new()
                .name("bbh-stdin".to_owned())
                .spawn(move || {
                    let mut byte = [0];
                    while matches!(std::io::stdin().read(&mut byte), Ok(1)) {}
                    let _ = closed.send(());
                })
                .map_err(refused)?;
            Some(receiver)
        } else {
            None
        };
        Ok(Self {
            #[cfg(unix)]
            terminate,
            #[cfg(unix)]
            interrupt,
            stdin,
        })
    }

    /// Waits for the next one.
    pub async fn told(&mut self) {
        let stdin = async {
            match &mut self.stdin {
                Some(closed) => {
                    let _ = closed.await;
                }
                None => std::future::pending().await,
            }
        };
        #[cfg(unix)]
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            () = stdin => self.stdin = None,
        }
        #[cfg(not(unix))]
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            () = stdin => self.stdin = None,
        }
    }
}
