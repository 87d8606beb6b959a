//! Commands about shares, searches and downloads.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use bbh_types::{ContentId, Query, SearchMode};
use indicatif::ProgressBar;
use serde_json::value::RawValue;

use super::{absolute, byte_bar, items, items_with_bar, quiet, spinner};
use crate::args::{ContentArgs, DownloadArgs, SearchArgs, ShareArgs, Target, UnshareArgs};
use crate::control::client::{Call, Part};
use crate::control::{Command, Content, Shared};
use crate::failure::Failure;
use crate::output::{self, count, plain, size};
use crate::records::{self, Download, Found, SharedFile};

pub async fn share(args: &ShareArgs) -> Result<(), Failure> {
    let mut paths = Vec::new();
    for path in &args.paths {
        if path.to_str().is_none() {
            eprintln!("bbh: {}: not shared, its name is not UTF-8", path.display());
        } else {
            paths.push(absolute(path)?);
        }
    }
    if paths.is_empty() {
        return Err(Failure::failed("nothing was shared"));
    }
    let files = items_with_bar(&args.target, &Command::Share { paths }).await?;
    print_shared(&files, args.target.json, "nothing was shared")
}

pub async fn rescan(target: &Target) -> Result<(), Failure> {
    let files = items_with_bar(target, &Command::Rescan).await?;
    print_shared(&files, target.json, "nothing is new or changed")
}

pub async fn shared(target: &Target) -> Result<(), Failure> {
    print_shared(
        &items(target, &Command::Shared).await?,
        target.json,
        "nothing is shared; share something with: bbh share PATH",
    )
}

fn print_shared(files: &[Box<RawValue>], json: bool, nothing: &str) -> Result<(), Failure> {
    if json {
        return output::print_json_list(files.iter().map(|file| &**file));
    }
    if files.is_empty() {
        return output::print(nothing);
    }
    let mut rows = Vec::new();
    let mut bytes = 0u64;
    for file in files {
        let file: SharedFile = records::read(file)?;
        bytes = bytes.saturating_add(file.size);
        rows.push([plain(&file.name), size(file.size), file.kind, tags(&file.tags), file.content_id]);
    }
    output::print(&output::table(["NAME", "SIZE ", "KIND", "TAGS", "CONTENT"], &rows))?;
    output::print(&format!("{}, {}", count(files.len(), "file"), size(bytes)))
}

/// The tags that tell a listener what it is.
fn tags(tags: &BTreeMap<String, String>) -> String {
    let known: Vec<_> =
        ["artist", "title", "album"].iter().filter_map(|key| tags.get(*key)).map(|t| plain(t)).collect();
    known.join(" / ")
}

pub async fn unshare(args: &UnshareArgs) -> Result<(), Failure> {
    let path = Path::new(&args.what);
    let content = args.what.to_str().and_then(|text| text.parse::<ContentId>().ok());
    let what = match content {
        // A file may be called like that, too: then it was meant.
        Some(content) if !path.exists() => Shared::Content(content),
        _ => Shared::Path(absolute(path)?),
    };
    quiet(&args.target, &Command::Unshare { what }).await
}

pub async fn search(args: &SearchArgs) -> Result<(), Failure> {
    Query::new(args.words.iter().map(String::as_str), SearchMode::All).map_err(Failure::usage)?;
    let mode = match (args.all, args.any) {
        (true, _) => Some(SearchMode::All),
        (_, true) => Some(SearchMode::Any),
        _ => None,
    };
    let command = Command::Search {
        words: args.words.clone(),
        mode,
        timeout: args.timeout.map(|time| time.as_secs_f64()),
        kind: args.kind.map(Into::into),
        min_size: args.min_size,
        max_size: args.max_size,
    };
    let mut call = Call::new(&args.target.data_dir(), &command).await?;
    // In the order of their first appearance; what comes again replaces what came before.
    let mut found: Vec<Box<RawValue>> = Vec::new();
    let mut places = BTreeMap::new();
    let mut sources = BTreeSet::new();
    let bar = if args.target.json { ProgressBar::hidden() } else { spinner("searching …") };
    while let Some(part) = call.next().await? {
        let item = match part {
            Part::Item(item) => item,
            Part::Note(note) => {
                bar.suspend(|| eprintln!("bbh: {}", plain(&note)));
                continue;
            }
            Part::Progress { .. } => continue,
        };
        let file: Found = records::read(&item)?;
        sources.extend(file.sources.iter().map(|source| source.node_id.clone()));
        match places.get(&file.content_id) {
            Some(&place) => found[place] = item,
            None => {
                if !args.target.json {
                    bar.suspend(|| print_found(&file))?;
                }
                places.insert(file.content_id, found.len());
                found.push(item);
            }
        }
    }
    bar.finish_and_clear();
    if args.target.json {
        return output::print_json_list(found.iter().map(|item| &**item));
    }
    match found.len() {
        0 => eprintln!("nothing was found"),
        files => eprintln!("{} from {}", count(files, "file"), count(sources.len(), "node")),
    }
    Ok(())
}

fn print_found(file: &Found) -> Result<(), Failure> {
    let name = file.names.first().map(|name| plain(name)).unwrap_or_default();
    let source = match file.sources.first() {
        Some(source) => {
            let hops = source.hops.map_or_else(String::new, |hops| count(usize::try_from(hops).unwrap_or(0), "hop"));
            match source.queue_position {
                Some(position) => format!("{hops}, place {position} in the queue"),
                None => hops,
            }
        }
        None => String::new(),
    };
    let about = [size(file.size), file.kind.clone(), tags(&file.tags), source];
    let about: Vec<_> = about.into_iter().filter(|text| !text.is_empty()).collect();
    output::print(&format!("{name}  ({})\n    {}", about.join(", "), file.content_id))
}

pub async fn download(args: &DownloadArgs) -> Result<(), Failure> {
    let command = Command::Download {
        content: args.content_id,
        to: args.to.as_deref().map(absolute).transpose()?,
        queue: args.queue,
        wait: args.wait,
    };
    let mut call = Call::new(&args.target.data_dir(), &command).await?;
    let bar = if args.wait && !args.target.json { byte_bar() } else { ProgressBar::hidden() };
    let mut last: Option<Box<RawValue>> = None;
    let follow = async {
        while let Some(part) = call.next().await? {
            match part {
                Part::Item(item) => {
                    show_progress(&bar, &records::read(&item)?);
                    last = Some(item);
                }
                Part::Note(note) => bar.suspend(|| eprintln!("bbh: {}", plain(&note))),
                Part::Progress { .. } => {}
            }
        }
        Ok::<_, Failure>(())
    };
    let goes_on = "the download goes on; look at it with: bbh downloads, end it with: bbh cancel CONTENT_ID";
    let result = tokio::select! {
        result = follow => result,
        _ = tokio::signal::ctrl_c() => Err(Failure::failed(format!("no longer waiting: {goes_on}"))),
        () = elapsed(args.timeout) => Err(Failure::failed(format!("not complete in time: {goes_on}"))),
    };
    bar.finish_and_clear();
    if let (true, Some(item)) = (args.target.json, &last) {
        output::print(item.get())?;
    }
    result?;
    let item = last.ok_or_else(|| Failure::failed("the download is no longer on the list: it was cancelled"))?;
    let download: Download = records::read(&item)?;
    if args.wait && download.state != "complete" {
        let reason = download.error.unwrap_or_else(|| format!("it is {}", download.state));
        return Err(Failure::failed(format!("the download has ended without the file: {}", plain(&reason))));
    }
    if !args.target.json {
        output::print(&summary(&download))?;
    }
    Ok(())
}

async fn elapsed(timeout: Option<Duration>) {
    match timeout {
        Some(timeout) => tokio::time::sleep(timeout).await,
        None => std::future::pending().await,
    }
}

fn show_progress(bar: &ProgressBar, download: &Download) {
    bar.set_length(download.size.unwrap_or(0));
    bar.set_position(download.verified);
    let message = match download.state.as_str() {
        "active" => output::rate(download.rate),
        state => state.to_owned(),
    };
    bar.set_message(message);
}

/// One line on a download.
fn summary(download: &Download) -> String {
    let name =
        download.name.as_deref().filter(|name| !name.is_empty()).map_or_else(|| download.content_id.clone(), plain);
    match (download.state.as_str(), &download.path, &download.error) {
        ("complete", Some(path), _) => format!("{name}: complete, {}", plain(path)),
        (state, _, Some(error)) => format!("{name}: {state}, {}", plain(error)),
        (state, _, None) => format!("{name}: {state}"),
    }
}

pub async fn downloads(target: &Target) -> Result<(), Failure> {
    let downloads = items(target, &Command::Downloads).await?;
    if target.json {
        return output::print_json_list(downloads.iter().map(|item| &**item));
    }
    if downloads.is_empty() {
        return output::print("no downloads");
    }
    let mut rows = Vec::new();
    let mut reasons = Vec::new();
    for item in &downloads {
        let download: Download = records::read(item)?;
        let name = plain(download.name.as_deref().unwrap_or_default());
        let share = match download.size {
            Some(0) => "100 %".to_owned(),
            Some(size) => format!("{} %", u128::from(download.verified) * 100 / u128::from(size)),
            None => String::new(),
        };
        if let Some(error) = &download.error {
            reasons.push(format!("{name}: {}", plain(error)));
        }
        rows.push([
            name,
            download.state,
            download.size.map_or_else(|| "?".to_owned(), size),
            share,
            output::rate(download.rate),
            download.sources.len().to_string(),
            download.content_id,
        ]);
    }
    output::print(&output::table(["NAME", "STATE", "SIZE ", "DONE ", "RATE ", "SOURCES ", "CONTENT"], &rows))?;
    reasons.iter().try_for_each(|reason| output::print(reason))
}

/// `start`, `pause` and `resume`.
pub async fn control(args: &ContentArgs, command: fn(Content) -> Command) -> Result<(), Failure> {
    let answer = items(&args.target, &command(Content { content: args.content_id })).await?;
    match (args.target.json, answer.last()) {
        (true, item) => output::print(item.map_or("{}", |item| item.get())),
        (false, Some(item)) => output::print(&summary(&records::read(item)?)),
        (false, None) => Ok(()),
    }
}
