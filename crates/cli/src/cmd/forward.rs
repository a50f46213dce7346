//! `strait forward expose` and `strait forward open`

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{print_json, print_line};
use crate::args::{Expose, Open};
use crate::exit::Failure;
use crate::forward::{Carried, Deadlines, Doorway, Exposed, Happened, LOCAL_MAX, Status, Told, listen};
use crate::net::Nodes;
use crate::progress::Progress;
use crate::ticket::Contact;
use crate::{keyfile, net};

/// Serves the targets, prints the ticket, and waits.
pub(super) async fn expose(args: Expose, nodes: &Nodes) -> Result<(), Failure> {
    let keypair = keyfile::choose(&args.key)?;
    if let Some(warning) = keyfile::warning(&args.key) {
        eprintln!("{warning}");
    }
    let progress = Arc::new(Progress::with_events(args.quiet, args.json));
    let node = nodes.start_as(keypair, args.door.listen, &args.door.announce).await?;
    net::note_without_tcp(&node, |line| progress.say(&line));
    let _abuse = super::abuse_log(&node, args.abuse_log.as_deref(), &progress)?;
    let told = Teller::new(progress.clone());
    let exposed =
        Exposed::new(args.targets.clone(), args.door.allow.clone(), Deadlines::default(), move |what| told.exposed(&what));
    let _serving = exposed.serve(&node)?;
    let contact = Contact { peer: node.peer_id(), addrs: net::for_ticket(&node.told_addrs()) };
    let targets: Vec<String> = args.targets.iter().map(ToString::to_string).collect();
    if args.json {
        let addrs: Vec<String> = contact.addrs.iter().map(ToString::to_string).collect();
        print_json(&json!({
            "event": "ticket",
            "ticket": contact.to_string(),
            "peer": contact.peer.to_string(),
            "addrs": addrs,
            "targets": targets,
        }))?;
    } else {
        progress.say("Give this ticket to the other side, which runs:  strait forward open TICKET PORT:HOST:PORT");
        print_line(&contact.to_string())?;
    }
    progress.say(&format!("Exposing {}, and nothing else. Ctrl-C stops.", targets.join(", ")));
    if args.door.allow.is_empty() {
        progress.say("note: whoever reaches this node may use that; --allow PEERID lets in only those that it names");
    }
    std::future::pending().await
}

/// Connects, listens, and carries what comes.
pub(super) async fn open(args: Open, nodes: &Nodes) -> Result<(), Failure> {
    let contact = Contact::read(&args.ticket)?;
    let keypair = keyfile::kept_or_fresh(args.key.as_deref())?;
    let progress = Arc::new(Progress::with_events(args.quiet, args.json));
    let mut listeners = Vec::new();
    for port in args.ports {
        listeners.push((listen(port.listen).await?, port.target));
    }
    let node = nodes.start(keypair, None).await?;
    // Now and not with the first connection, so that what is wrong is told to who started it.
    net::connect(&node, contact.peer, &contact.addrs).await?;
    let (peer, told) = (contact.peer, Teller::new(progress.clone()));
    let way = Doorway::new(node, contact, move |what| told.opened(&what));
    let mut serving = JoinSet::new();
    for (listener, target) in listeners {
        let local = listener.local_addr().map_err(|error| Failure::bug(format!("the listener has no address: {error}")))?;
        let named = target.as_ref().map(ToString::to_string);
        if args.json {
            let (local, peer) = (local.to_string(), peer.to_string());
            print_json(&json!({"event": "listening", "local": local, "target": named, "peer": peer}))?;
        } else {
            print_line(&local.to_string())?;
        }
        progress.say(&format!("{local} leads to {} of {peer}", named.as_deref().unwrap_or("the only target")));
        serving.spawn(way.clone().serve(listener, target));
    }
    progress.say("Ctrl-C stops.");
    serving.join_next().await;
    Err(Failure::bug("a listener has ended"))
}

/// The same is told again only after so long: what fails once for a program that tries on fails a thousand times.
const AGAIN: Duration = Duration::from_secs(10);
/// Different things that are told in this time, at most: who has many identities must not fill a terminal or a log.
const TOLD_MAX: usize = 64;

/// Tells what happens: to people on stderr, and what went wrong to programs too. Repetitions are left out.
pub(super) struct Teller {
    progress: Arc<Progress>,
    told: Mutex<BTreeMap<String, Instant>>,
}

impl Teller {
    pub(super) fn new(progress: Arc<Progress>) -> Teller {
        Teller { progress, told: Mutex::default() }
    }

    /// Whether this was not told lately, and will be now.
    fn is_new(&self, line: &str, now: Instant) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.retain(|_, at| now.saturating_duration_since(*at) < AGAIN);
        told.len() < TOLD_MAX && !told.contains_key(line) && told.insert(line.to_owned(), now).is_none()
    }

    fn wrong(&self, line: &str, event: &Value) {
        if self.is_new(line, Instant::now()) {
            self.progress.say(line);
            self.progress.event(event);
        }
    }

    pub(super) fn exposed(&self, told: &Told) {
        match told {
            Told::Opened(peer, target) => {
                let line = format!("{peer} uses {target}");
                if self.is_new(&line, Instant::now()) {
                    self.progress.say(&line);
                }
            }
            Told::Refused(peer, target, status) => {
                let (word, target) = (status.word(), target.as_ref().map(ToString::to_string));
                let line = match status {
                    Status::NotAllowed => format!("{peer} was not let in: no --allow names it"),
                    Status::NotExposed => format!("{peer} wanted what is not exposed"),
                    Status::TooMany => format!("{peer} was refused: too many connections at once"),
                    _ => {
                        let named = target.as_deref().unwrap_or_default();
                        format!("{named} could not be reached for {peer}: {}", word.replace('_', " "))
                    }
                };
                self.wrong(&line, &json!({"event": "refused", "peer": peer.to_string(), "target": target, "why": word}));
            }
            Told::Malformed(peer) => {
                let event = json!({"event": "refused", "peer": peer.to_string(), "target": null, "why": "malformed"});
                self.wrong(&format!("{peer} does not keep to the protocol, or was too slow to say what it wants"), &event);
            }
            // As TCP has it, ends of all kinds are everyday business.
            Told::Ended(..) => {}
        }
    }

    fn opened(&self, happened: &Happened) {
        let event = |target: Option<String>, why: &str| json!({"event": "refused", "target": target, "why": why});
        match happened {
            Happened::Failed(target, failure) => {
                self.wrong(&failure.to_string(), &event(target.as_ref().map(ToString::to_string), &failure.what));
            }
            Happened::Crowded => {
                let line = format!("a connection was reset: {LOCAL_MAX} are open or wait already");
                self.wrong(&line, &event(None, "too_many"));
            }
            Happened::Listener(error) => {
                self.wrong(&format!("cannot accept connections: {error}; it is tried again"), &event(None, error));
            }
            Happened::Ended(Carried::Stream(error @ strait::StreamError::Lost(_))) => {
                self.wrong(&format!("open connections were reset: {error}; the next one dials again"), &event(None, "lost"));
            }
            Happened::Ended(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_bounded() {
        let (teller, start) = (Teller::new(Arc::new(Progress::new(true))), Instant::now());
        assert!(teller.is_new("a", start) && !teller.is_new("a", start) && teller.is_new("b", start));
        let new = (0..1000).filter(|number| teller.is_new(&number.to_string(), start)).count();
        assert_eq!(new, TOLD_MAX - 2);
        assert!(teller.is_new("a", start + AGAIN));
    }
}
