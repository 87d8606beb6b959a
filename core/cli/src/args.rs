//! What can be typed after `bbh`.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use bbh_types::{ContentId, FileKind, NodeId};
use clap::{Args, Parser, Subcommand, ValueEnum};

/// Share files from device to device, over several hops, without the Internet.
#[derive(Debug, Parser)]
#[command(
    name = "bbh",
    version,
    about,
    arg_required_else_help = true,
    subcommand_required = true,
    after_help = "\
Start here:
  bbh demo                              everything in one minute, on this machine

By hand, with two nodes over a simulated radio:
  bbh air                               the radio (leave it running)
  bbh run --data a --radio air://127.0.0.1:4660 --at 0,0 --name anna
  bbh run --data b --radio air://127.0.0.1:4660 --at 5,0 --name ben
  bbh share --data a ~/Music
  bbh search --data b porter
  bbh download --data b CONTENT_ID --wait

Exit codes: 0 done; 1 the operation failed; 2 wrong usage; 3 no node is running in this data folder."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show the main job on this machine: share, search, download over hops, lose a relay, resume, verify
    Demo(DemoArgs),
    /// Run the TCP "radio" that nodes on this machine, on emulators and simulators join
    Air(AirArgs),
    /// Run the protocol in a simulated world, in virtual time, and measure it
    Sim(crate::sim::SimArgs),
    /// Run a node in the foreground; prints `ready NODE_ID` once it can be used
    Run(RunArgs),

    /// Show this node's id, role, tree and links
    Status(Target),
    /// List the other nodes of the tree
    Devices(Target),
    /// Measure the time to a node and back
    Ping(PingArgs),
    /// Go to another place (nodes on an air radio only)
    Move(MoveArgs),
    /// Show all settings
    Settings(Target),
    /// Change a setting; `bbh settings` lists them
    Set(SetArgs),
    /// End the node that runs in this data folder
    Stop(Target),

    /// Share files and folders
    Share(ShareArgs),
    /// Stop sharing a file or folder; the files stay where they are
    Unshare(UnshareArgs),
    /// List what is shared
    Shared(Target),
    /// Look again at all shared folders for new, changed and removed files
    Rescan(Target),

    /// Look for files in the tree, by words of their names, folders and tags
    Search(SearchArgs),
    /// Fetch a file, by the content id that a search has shown
    Download(DownloadArgs),
    /// List the downloads
    Downloads(Target),
    /// Start a download that is on the list
    Start(ContentArgs),
    /// Stop a download for now; what has arrived is kept
    Pause(ContentArgs),
    /// Go on with a download that was paused or has failed
    Resume(ContentArgs),
    /// Take a download off the list; a finished file stays, an unfinished one is removed
    Cancel(ContentArgs),
}

/// Which node to ask, and how to print what it says.
#[derive(Debug, Clone, Args)]
pub struct Target {
    /// The node's data folder [default: bbh in the user's data folder]
    #[arg(long, env = "BBH_DATA", value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Print one JSON document on standard output and nothing else there
    #[arg(long)]
    pub json: bool,
}

impl Target {
    /// The data folder that is meant.
    pub fn data_dir(&self) -> PathBuf {
        self.data.clone().unwrap_or_else(default_data_dir)
    }
}

/// `bbh demo`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  bbh demo
  bbh demo --nodes 8 --size 40MiB
  bbh demo --keep               keep the nodes' folders and logs to look at them")]
pub struct DemoArgs {
    /// Nodes; the last one is the spare that bridges the gap
    #[arg(long, default_value_t = 6, value_name = "N", value_parser = clap::value_parser!(u8).range(5..=12))]
    pub nodes: u8,
    /// Size of the large file
    #[arg(long, default_value = "24MiB", value_name = "BYTES", value_parser = parse_size)]
    pub size: u64,
    /// What one radio carries, bytes per second, both directions and all its links together
    #[arg(long, default_value_t = 4_000_000, value_name = "BYTES_PER_S", value_parser = clap::value_parser!(u64).range(10_000..))]
    pub rate: u64,
    /// Keep the nodes' folders and logs, and say where they are
    #[arg(long)]
    pub keep: bool,
}

/// `bbh air`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  bbh air
  bbh air --range 30 --rate 176000          the speed of Bluetooth LE
  bbh air --listen 0.0.0.0:4660             for emulators; whoever can connect can join

Prints `listening HOST:PORT` once nodes can join; port 0 takes a free one.")]
pub struct AirArgs {
    /// Where nodes join
    #[arg(long, default_value = "127.0.0.1:4660", value_name = "HOST:PORT")]
    pub listen: SocketAddr,
    /// How far a radio is heard
    #[arg(long, default_value_t = 10.0, value_name = "METRES")]
    pub range: f64,
    /// What one radio carries, both directions and all its links together [default: Bluetooth LE's]
    #[arg(long, value_name = "BYTES_PER_S")]
    pub rate: Option<u64>,
    /// Share of transmissions that must be repeated and of beacons that are lost, 0 to 1; bytes of an open
    /// link are never lost
    #[arg(long, default_value_t = 0.0, value_name = "P")]
    pub loss: f64,
    /// Say more on standard error; -vv for everything
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// End when standard input is closed, so that it does not outlive what started it
    #[arg(long, hide = true)]
    pub until_stdin_closes: bool,
}

/// `bbh run`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  bbh run --data a --radio air://127.0.0.1:4660 --at 0,0 --name anna
  bbh run --data a --radio air://127.0.0.1:4660 --at -5,2.5
  bbh run --listen 0.0.0.0:4661                     others may link to this node by TCP
  bbh run --peer host.example:4661 --peer 10.0.0.7:4661

Prints `ready NODE_ID` once the node can be used. SIGTERM or Ctrl-C ends it cleanly, a second one at once.
Other commands reach it through the same --data DIR (or BBH_DATA). The log goes to standard error: --verbose,
or BBH_LOG=debug, or BBH_LOG=bbh_proto=trace,warn.")]
pub struct RunArgs {
    /// Where the node keeps its identity, settings and list of files [default: bbh in the user's data folder]
    #[arg(long, env = "BBH_DATA", value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// The radio: a running `bbh air`
    #[arg(long, value_name = "air://HOST:PORT")]
    pub radio: Option<AirAddress>,
    /// Where the node stands, in metres, on an air radio
    #[arg(long, value_name = "X,Y", allow_hyphen_values = true, requires = "radio")]
    pub at: Option<Position>,
    /// The device's name as others see it; kept for the next time
    #[arg(long)]
    pub name: Option<String>,
    /// Links that the radio may hold, 1 to 8; kept for the next time
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=8))]
    pub max_links: Option<u8>,
    /// Accept links by TCP here
    #[arg(long, value_name = "HOST:PORT")]
    pub listen: Option<SocketAddr>,
    /// Keep a link by TCP to this node; may be given several times
    #[arg(long, value_name = "HOST:PORT", value_parser = parse_host_port)]
    pub peer: Vec<String>,
    /// Say more on standard error; -vv for everything
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// End when standard input is closed, so that it does not outlive what started it
    #[arg(long, hide = true)]
    pub until_stdin_closes: bool,
}

impl RunArgs {
    /// The data folder that is meant.
    pub fn data_dir(&self) -> PathBuf {
        self.data.clone().unwrap_or_else(default_data_dir)
    }
}

/// `bbh ping`.
#[derive(Debug, Clone, Args)]
pub struct PingArgs {
    /// The node, as `bbh devices` shows it
    pub node: NodeId,
    #[command(flatten)]
    pub target: Target,
}

/// `bbh move`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  bbh move 16,0
  bbh move -5,2.5")]
pub struct MoveArgs {
    /// The new place, in metres
    #[arg(value_name = "X,Y", allow_hyphen_values = true)]
    pub to: Position,
    #[command(flatten)]
    pub target: Target,
}

/// `bbh set`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  bbh set name \"Anna's laptop\"
  bbh set search_timeout 5
  bbh set download_dir ~/Downloads")]
pub struct SetArgs {
    /// Which setting
    pub key: String,
    /// Its new value
    #[arg(allow_hyphen_values = true)]
    pub value: String,
    #[command(flatten)]
    pub target: Target,
}

/// `bbh share`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  bbh share song.mp3 ~/Pictures
  bbh share ~/Music --json

A folder shares all files below it. What can't be read is named on standard error, the rest is shared.")]
pub struct ShareArgs {
    /// Files and folders
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    #[command(flatten)]
    pub target: Target,
}

/// `bbh unshare`.
#[derive(Debug, Clone, Args)]
pub struct UnshareArgs {
    /// A shared file or folder, or a content id as `bbh shared` shows it
    #[arg(value_name = "PATH|CONTENT_ID")]
    pub what: OsString,
    #[command(flatten)]
    pub target: Target,
}

/// `bbh search`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  bbh search porter
  bbh search black horse --any --kind audio
  bbh search holiday --min-size 1MiB --json

Words are looked for inside names, folders and tags, in any case. Without --json, results appear as they
arrive. No hit is no failure.")]
pub struct SearchArgs {
    /// Words to look for
    #[arg(required = true, value_name = "WORD")]
    pub words: Vec<String>,
    /// Every word must be found [default, unless the setting search_mode says otherwise]
    #[arg(long, conflicts_with = "any")]
    pub all: bool,
    /// One word is enough
    #[arg(long)]
    pub any: bool,
    /// How long to wait for answers [default: the setting search_timeout]
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    pub timeout: Option<Duration>,
    /// Only this kind of files
    #[arg(long)]
    pub kind: Option<KindArg>,
    /// Only files of at least that size
    #[arg(long, value_name = "N", value_parser = parse_size)]
    pub min_size: Option<u64>,
    /// Only files of at most that size
    #[arg(long, value_name = "N", value_parser = parse_size)]
    pub max_size: Option<u64>,
    #[command(flatten)]
    pub target: Target,
}

/// `bbh download`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  bbh download CONTENT_ID
  bbh download CONTENT_ID --to ~/Downloads --wait
  bbh download CONTENT_ID --queue         only put it on the list; start it with: bbh start CONTENT_ID

--wait returns when the file is complete (exit 0) or has failed (exit 1). Ctrl-C ends the waiting, not the
download.")]
pub struct DownloadArgs {
    /// The file, as a search has shown it
    pub content_id: ContentId,
    /// The folder for the finished file [default: the setting download_dir]
    #[arg(long, value_name = "DIR")]
    pub to: Option<PathBuf>,
    /// Only put it on the list
    #[arg(long, conflicts_with = "wait")]
    pub queue: bool,
    /// Wait until it is complete or has failed
    #[arg(long)]
    pub wait: bool,
    /// Wait no longer than that; the download goes on
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds, requires = "wait")]
    pub timeout: Option<Duration>,
    #[command(flatten)]
    pub target: Target,
}

/// `bbh start`, `pause`, `resume` and `cancel`.
#[derive(Debug, Clone, Args)]
pub struct ContentArgs {
    /// The download, as `bbh downloads` shows it
    pub content_id: ContentId,
    #[command(flatten)]
    pub target: Target,
}

/// A place in the plane of an air radio, in metres.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Position {
    /// To the right.
    pub x: f64,
    /// Up.
    pub y: f64,
}

impl FromStr for Position {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text.split_once(',').and_then(|(x, y)| Some((x.trim().parse().ok()?, y.trim().parse().ok()?)));
        match parts {
            Some((x, y)) if f64::is_finite(x) && f64::is_finite(y) => Ok(Self { x, y }),
            _ => Err("two numbers of metres are expected, for instance 8,0 or -5,2.5".to_owned()),
        }
    }
}

/// The address of an air radio: `air://HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AirAddress(pub String);

impl FromStr for AirAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix("air://") {
            Some(address) => parse_host_port(address.trim_end_matches('/')).map(Self),
            None => Err("the only radio on desktops is air://HOST:PORT".to_owned()),
        }
    }
}

/// A kind of files, as typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum KindArg {
    /// Sound
    Audio,
    /// Moving pictures
    Video,
    /// Still pictures
    Image,
    /// Text, office documents, books
    Document,
    /// Archives and packages
    Archive,
    /// Anything else
    Other,
}

impl From<KindArg> for FileKind {
    fn from(kind: KindArg) -> Self {
        match kind {
            KindArg::Audio => Self::Audio,
            KindArg::Video => Self::Video,
            KindArg::Image => Self::Image,
            KindArg::Document => Self::Document,
            KindArg::Archive => Self::Archive,
            KindArg::Other => Self::Other,
        }
    }
}

fn parse_host_port(text: &str) -> Result<String, String> {
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0) => {
            Ok(text.to_owned())
        }
        _ => Err("HOST:PORT is expected, for instance 127.0.0.1:4660".to_owned()),
    }
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    text.parse::<f64>()
        .ok()
        .filter(|seconds| *seconds > 0.0)
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| "a positive number of seconds is expected, for instance 5 or 0.5".to_owned())
}

/// Bytes, with a unit or without: `20000000`, `24MiB`, `1.5 GB`.
fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || "a number of bytes is expected, for instance 20000000, 500kB or 24MiB".to_owned();
    let text = text.trim();
    if let Ok(bytes) = text.parse() {
        return Ok(bytes);
    }
    let split = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).ok_or_else(wrong)?;
    let number: f64 = text[..split].parse().map_err(|_| wrong())?;
    let unit: u64 = match text[split..].trim() {
        "B" => 1,
        "k" | "kB" | "KB" => 1_000,
        "M" | "MB" => 1_000_000,
        "G" | "GB" => 1_000_000_000,
        "Ki" | "KiB" => 1 << 10,
        "Mi" | "MiB" => 1 << 20,
        "Gi" | "GiB" => 1 << 30,
        _ => return Err(wrong()),
    };
    let bytes = number * unit as f64;
    if bytes < u64::MAX as f64 { Ok(bytes.round() as u64) } else { Err("that is too much".to_owned()) }
}

/// The data folder when none is given: `bbh` in the XDG data home, or in Windows' local application data.
pub fn default_data_dir() -> PathBuf {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_DATA_HOME")
        .or_else(|| if cfg!(windows) { absolute("LOCALAPPDATA") } else { None })
        .or_else(|| absolute("HOME").map(|home| home.join(".local").join("share")))
        .map_or_else(|| PathBuf::from("bbh-data"), |base| base.join("bbh"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Command, clap::Error> {
        Cli::try_parse_from(line.split(' ')).map(|cli| cli.command)
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn negative_positions_are_taken_as_they_are() {
        for line in ["bbh move -5,0", "bbh move -5,0 --data d", "bbh move --data d -5,0", "bbh move --json -5,0"] {
            let Ok(Command::Move(args)) = parse(line) else { panic!("{line}: {:?}", parse(line)) };
            assert_eq!(args.to, Position { x: -5.0, y: 0.0 }, "{line}");
            assert_eq!(args.target.data.is_some(), line.contains("--data"), "{line}");
        }
        let Ok(Command::Run(args)) = parse("bbh run --data d --at -1.5,-2 --radio air://127.0.0.1:4660") else {
            panic!("run was refused")
        };
        assert_eq!(args.at, Some(Position { x: -1.5, y: -2.0 }));
        for line in ["bbh move 5", "bbh move a,b", "bbh move nan,0", "bbh move inf,0", "bbh move --dota -5,0"] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn sizes_may_carry_units() {
        assert_eq!(parse_size("20000000"), Ok(20_000_000));
        assert_eq!(parse_size("24MiB"), Ok(24 << 20));
        assert_eq!(parse_size("1.5 kB"), Ok(1500));
        assert_eq!(parse_size("18446744073709551615"), Ok(u64::MAX));
        for wrong in ["", "-1", "MiB", "1 parsec", "1.2.3k", "99999999999999G"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn peers_may_be_many_and_wrong_addresses_are_refused() {
        let Ok(Command::Run(args)) = parse("bbh run --data d --peer a.example:1 --peer [::1]:2") else {
            panic!("run was refused")
        };
        assert_eq!(args.peer, ["a.example:1", "[::1]:2"]);
        for line in ["bbh run --peer x", "bbh run --radio 127.0.0.1:1", "bbh run --radio air://x", "bbh run --at 1,2"] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn wrong_usage_is_exit_code_two_and_help_is_zero() {
        for line in ["bbh nonsense", "bbh search", "bbh download xyz", "bbh search a --all --any", "bbh set name"] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
        assert_eq!(parse("bbh search --help").unwrap_err().exit_code(), 0);
        assert_eq!(parse("bbh --version").unwrap_err().exit_code(), 0);
    }
}
