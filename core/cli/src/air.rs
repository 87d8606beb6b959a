//! `bbh air`: the TCP "radio".

use bbh_node::air::{HubConfig, serve};
use tokio::net::TcpListener;

use crate::args::AirArgs;
use crate::failure::Failure;
use crate::output;
use crate::process::{Ending, start_log};

/// Runs it until it is told to end.
///
/// # Errors
/// If a figure makes no sense or the address can't be used.
pub async fn run(args: &AirArgs) -> Result<(), Failure> {
    start_log(args.verbose)?;
    let mut config = HubConfig::default();
    config.air.range = args.range;
    config.air.loss = args.loss;
    if let Some(rate) = args.rate {
        config.air.rate = rate;
    }
    config.air.validate().map_err(Failure::usage)?;
    let mut ending = Ending::new(args.until_stdin_closes)?;
    let refused = |error| Failure::failed(format!("{} can't be listened to: {error}", args.listen));
    let listener = TcpListener::bind(args.listen).await.map_err(refused)?;
    let address = listener.local_addr().map_err(refused)?;
    output::print(&format!("listening {address}"))?;
    tokio::select! {
        ended = serve(listener, config) => match ended {
            Ok(never) => match never {},
            Err(error) => Err(Failure::failed(error)),
        },
        () = ending.told() => Ok(()),
    }
}
