//! `strait publish`

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use strait::{Latest, Lines, Priority, PublishError, Publisher, ServeError};

use super::{count, print_json, print_line};
use crate::args::Publish;
use crate::exit::{Code, Failure};
use crate::net::Nodes;
use crate::progress::Progress;
use crate::ticket::Contact;
use crate::topics::{KEY_BYTES_MAX, lines, published, published_log};
use crate::{keyfile, net};

/// How often a file is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// After stdin has ended, subscribers have so long to take what they were not told yet, and it is looked so often whether they have.
const LAST_WORDS: Duration = Duration::from_secs(10);
const LAST_WORDS_LOOK: Duration = Duration::from_millis(20);
/// Then the connections stay for so long: the end of one hides from the other side's application what has arrived and was not read yet.
const KEPT: Duration = Duration::from_secs(3);

/// Publishes lines until it is stopped.
pub(super) async fn run(args: Publish, nodes: &Nodes) -> Result<(), Failure> {
    let keypair = keyfile::choose(&args.key)?;
    if let Some(warning) = keyfile::warning(&args.key) {
        eprintln!("{warning}");
    }
    let progress = Arc::new(Progress::with_events(args.quiet, args.json));
    let node = nodes.start_as(keypair, args.listen, &args.announce).await?;
    net::note_without_tcp(&node, |line| progress.say(&line));
    let cannot = |error: ServeError| {
        let next = "choose another name, or smaller limits";
        Failure::new(Code::Usage, format!("cannot publish: {error}"), "the topic's name or limits cannot be kept", next)
    };
    let out = if args.log {
        Out::Log(node.publisher(&published_log(&args.topic, args.keys_max, args.value_max), Priority::Normal).map_err(cannot)?)
    } else {
        Out::State(node.publisher(&published(&args.topic, args.keys_max, args.value_max), Priority::Normal).map_err(cannot)?)
    };
    let contact = Contact { peer: node.peer_id(), addrs: net::for_ticket(&node.told_addrs()) };
    if args.json {
        let addrs: Vec<String> = contact.addrs.iter().map(ToString::to_string).collect();
        let ticket = contact.to_string();
        print_json(
            &json!({"event": "ticket", "ticket": ticket, "peer": contact.peer.to_string(), "addrs": addrs, "topic": args.topic}),
        )?;
    } else {
        let log = if args.log { " --log" } else { "" };
        progress.say(&format!("Whoever has this ticket runs:  strait watch TICKET {}{log}", args.topic));
        print_line(&contact.to_string())?;
    }
    match (&args.file, &out) {
        (Some(path), Out::State(publisher)) => follow(&args, path, publisher, &progress).await,
        _ => {
            let read = read_stdin(&args, out.clone(), &progress).await?;
            progress.say(&format!("stdin has ended after {}", count(read, "line")));
            progress.event(&json!({"event": "eof", "lines": read}));
            if args.until_eof {
                let told = async {
                    while out.behind() > 0 {
                        tokio::time::sleep(LAST_WORDS_LOOK).await;
                    }
                };
                let all = tokio::time::timeout(LAST_WORDS, told).await.is_ok();
                if !all {
                    progress.say(&format!("{} did not take all of it in time", count(out.behind() as u64, "subscriber")));
                }
                // Its subscribers are told that it is over, and closing waits until they have all of it.
                drop(out);
                tokio::time::sleep(KEPT).await;
                node.close().await;
                return Ok(());
            }
            progress.say("What was published stays. Ctrl-C stops.");
            std::future::pending().await
        }
    }
}

/// Where lines go.
#[derive(Clone)]
enum Out {
    State(Publisher<Bytes, Bytes, Latest>),
    Log(Publisher<Bytes, Bytes, Lines>),
}

impl Out {
    fn behind(&self) -> usize {
        match self {
            Out::Log(publisher) => publisher.behind(),
            Out::State(publisher) => publisher.behind(),
        }
    }

    fn publish(&self, line: Vec<u8>) -> Result<(), PublishError> {
        match self {
            Out::Log(publisher) => publisher.publish(Bytes::new(), line.into()),
            Out::State(publisher) => match lines::parse(&line) {
                lines::Said::Set(key, value) => publisher.publish(key, value),
                lines::Said::Gone(key) => {
                    publisher.delete(&key);
                    Ok(())
                }
                lines::Said::Nothing => Ok(()),
            },
        }
    }
}

fn refused(progress: &Progress, line: u64, why: &str) {
    progress.say(&format!("line {line} was not published: {why}"));
    progress.event(&json!({"event": "refused", "line": line, "why": why}));
}

/// Publishes the lines of stdin as they come. Returns how many there were.
async fn read_stdin(args: &Publish, out: Out, progress: &Arc<Progress>) -> Result<u64, Failure> {
    let max = line_max(args);
    let shown = progress.clone();
    let work = move || -> std::io::Result<u64> {
        let mut stdin = BufReader::with_capacity(64 << 10, std::io::stdin().lock());
        let mut number = 0;
        loop {
            let next = lines::next(&mut stdin, max)?;
            number += 1;
            match next {
                lines::Next::End => return Ok(number - 1),
                lines::Next::TooLong => refused(&shown, number, &format!("it has more than {max} bytes; raise --value-max")),
                lines::Next::Line(line) => {
                    if let Err(error) = out.publish(line) {
                        refused(&shown, number, &error.to_string());
                    }
                }
            }
        }
    };
    let read = tokio::task::spawn_blocking(work).await;
    read.map_err(|error| Failure::bug(format!("reading stdin broke off: {error}")))?
        .map_err(|error| Failure::disk("read stdin", &error))
}

fn line_max(args: &Publish) -> usize {
    KEY_BYTES_MAX.saturating_add(1).saturating_add(usize::try_from(args.value_max).unwrap_or(usize::MAX))
}

/// Publishes a file's lines, now and whenever it has changed.
async fn follow(
    args: &Publish,
    path: &Path,
    publisher: &Publisher<Bytes, Bytes, Latest>,
    progress: &Progress,
) -> Result<(), Failure> {
    let (mut known, mut seen): (BTreeMap<Bytes, Bytes>, Option<Stamp>) = (BTreeMap::new(), None);
    let mut missing = false;
    loop {
        let found = on_a_thread(args, path, seen).await?;
        match found {
            Ok(None) => {}
            Ok(Some((stamp, all, long))) => {
                (seen, missing) = (Some(stamp), false);
                for key in known.keys().filter(|key| !all.contains_key(*key)) {
                    publisher.delete(key);
                }
                for (key, value) in &all {
                    if known.get(key) != Some(value)
                        && let Err(error) = publisher.publish(key.clone(), value.clone())
                    {
                        progress.say(&format!("{} was not published: {error}", String::from_utf8_lossy(key)));
                    }
                }
                if long > 0 {
                    progress.say(&format!("{} of {} left out: too long; raise --value-max", count(long, "line"), path.display()));
                }
                known = all;
            }
            Err(error) if seen.is_none() && !missing => {
                // At the start it is most likely a mistyped name.
                return Err(Failure::new(
                    Code::BadSource,
                    format!("could not read {}: {error}", path.display()),
                    "it is not there, or not readable",
                    "check the name",
                ));
            }
            // Editors and scripts replace files; what was published stays until it is there again.
            Err(error) if !missing => {
                missing = true;
                progress.say(&format!("{} cannot be read now ({error}); what was published stays", path.display()));
            }
            Err(_) => {}
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// What tells a file's contents from those before, without reading them.
type Stamp = (Option<std::time::SystemTime>, u64);
type Found = std::io::Result<Option<(Stamp, BTreeMap<Bytes, Bytes>, u64)>>;

async fn on_a_thread(args: &Publish, path: &Path, seen: Option<Stamp>) -> Result<Found, Failure> {
    let (path, max, keys): (PathBuf, _, _) = (path.to_owned(), line_max(args), args.keys_max as usize);
    let look = move || read_if_changed(&path, seen, max, keys);
    tokio::task::spawn_blocking(look).await.map_err(|error| Failure::bug(format!("reading the file broke off: {error}")))
}

fn read_if_changed(path: &Path, seen: Option<Stamp>, max: usize, keys_max: usize) -> Found {
    let file = File::open(path)?;
    let meta = file.metadata()?;
    let stamp = (meta.modified().ok(), meta.len());
    // A file system's clock may be coarse: what was written in the last moments may change again under the same time.
    let settled = stamp.0.and_then(|at| at.elapsed().ok()).is_some_and(|age| age > Duration::from_secs(2));
    if seen == Some(stamp) && settled {
        return Ok(None);
    }
    let most = (max as u64 + 1).saturating_mul(keys_max as u64).saturating_mul(2);
    let (all, long) = lines::whole(BufReader::new(file.take(most)), max, keys_max)?;
    Ok(Some((stamp, all, long)))
}
