//! Commands about the node and its tree.

use std::time::Duration;

use serde_json::{Map, Value};

use super::{item, items, quiet};
use crate::args::{MoveArgs, PingArgs, SetArgs, Target};
use crate::control::Command;
use crate::control::client::Call;
use crate::failure::Failure;
use crate::output::{self, plain};
use crate::records::{self, Device, Ping, Status};

pub async fn status(target: &Target) -> Result<(), Failure> {
    let status = item(target, &Command::Status).await?;
    if target.json {
        return output::print(status.get());
    }
    let status: Status = records::read(&status)?;
    let none = || "none".to_owned();
    let children = if status.children.is_empty() { none() } else { status.children.join(" ") };
    let lamps = match (status.sending, status.receiving) {
        (true, true) => "sending and receiving",
        (true, false) => "sending",
        (false, true) => "receiving",
        (false, false) => "quiet",
    };
    let lines = [
        ("name", plain(&status.name.unwrap_or_default())),
        ("node", status.node_id),
        ("fingerprint", status.fingerprint.unwrap_or_else(none)),
        ("role", status.role),
        ("tree", status.tree_id.unwrap_or_else(none)),
        ("parent", status.parent.unwrap_or_else(none)),
        ("children", children),
        ("links", status.links.to_string()),
        ("known nodes", status.known_nodes.to_string()),
        ("traffic", lamps.to_owned()),
        ("version", status.version),
    ];
    output::print(&lines.map(|(key, value)| format!("{key:<12} {value}")).join("\n"))
}

pub async fn devices(target: &Target) -> Result<(), Failure> {
    let devices = items(target, &Command::Devices).await?;
    if target.json {
        return output::print_json_list(devices.iter().map(|item| &**item));
    }
    let devices = devices.iter().map(|item| records::read(item)).collect::<Result<Vec<Device>, _>>()?;
    if devices.is_empty() {
        return output::print("no other node in the tree");
    }
    let rows: Vec<_> = devices
        .into_iter()
        .map(|device| {
            let hops = device.hops.map_or_else(|| "?".to_owned(), |hops| hops.to_string());
            let via = if device.direct { "direct".to_owned() } else { device.via.unwrap_or_default() };
            [plain(&device.name.unwrap_or_default()), device.node_id, hops, via]
        })
        .collect();
    output::print(&output::table(["NAME", "NODE", "HOPS ", "VIA"], &rows))
}

pub async fn ping(args: &PingArgs) -> Result<(), Failure> {
    let answer = item(&args.target, &Command::Ping { node: args.node }).await?;
    if args.target.json {
        return output::print(answer.get());
    }
    let Ping { time } = records::read(&answer)?;
    let time = Duration::try_from_secs_f64(time).unwrap_or_default();
    output::print(&format!("{}: {}", args.node, output::duration(time)))
}

pub async fn move_to(args: &MoveArgs) -> Result<(), Failure> {
    quiet(&args.target, &Command::Move { x: args.to.x, y: args.to.y }).await
}

pub async fn settings(target: &Target) -> Result<(), Failure> {
    let settings = item(target, &Command::Settings).await?;
    if target.json {
        return output::print(settings.get());
    }
    let settings: Map<String, Value> = records::read(&settings)?;
    let rows: Vec<_> = settings
        .into_iter()
        .map(|(key, value)| {
            let value = match value {
                Value::String(text) => plain(&text),
                Value::Null => "not set".to_owned(),
                other => other.to_string(),
            };
            [key, value]
        })
        .collect();
    output::print(&output::table(["SETTING", "VALUE"], &rows))
}

pub async fn set(args: &SetArgs) -> Result<(), Failure> {
    let mut value = args.value.clone();
    // The node's working folder is another one.
    if args.key == "download_dir" {
        let path = super::absolute(std::path::Path::new(&value))?;
        value = path.into_os_string().into_string().map_err(|_| Failure::usage("the path is not UTF-8"))?;
    }
    quiet(&args.target, &Command::Set { key: args.key.clone(), value }).await
}

pub async fn stop(target: &Target) -> Result<(), Failure> {
    let data = target.data_dir();
    let mut call = Call::new(&data, &Command::Stop).await?;
    // The process may be faster at ending than at saying so.
    let _ = call.next().await;
    let ended = tokio::time::timeout(Duration::from_secs(30), call.ended()).await;
    ended.map_err(|_| Failure::failed("the node was told to end but is still running after 30 s"))?;
    if target.json { output::print("{}") } else { Ok(()) }
}
