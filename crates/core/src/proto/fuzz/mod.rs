//! What the machines of this folder promise whatever a peer sends and whenever, as one function for each: the fuzz targets in `fuzz/` and the
//! replay of their corpus call these. How a script is written is said in `run.rs`; the first byte of each input says which machine it is for.
//!
//! # Panics
//! Each function does when a machine breaks its word, and never otherwise. They are for tests; nothing in the stack calls them.

mod packet;
mod run;
#[cfg(test)]
mod tests;
mod topic;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use strait_wire::{framing, multistream};

use super::identify::{self, Hear, Tell};
use super::ping::{self, Echo, Pinger};
use super::raw::Raw;
use super::request::{Client, Server};
use super::reuse;
use super::select::{Listener, PROPOSALS_MAX};
use super::{Entry, Found, Framing, Idle, Priority, Registry, Request, Served, StreamProtocol};
use crate::message::Message;
use crate::stream::{Input, Next, Output};
use run::{Run, Subject, play, whole};

pub use packet::packet;
pub use topic::topic;

static DEF: Request = Request::new("/app/get/1", 3000, 2000, Duration::from_secs(2), 4);
static UNTIL_END: Request = DEF.framing(Framing::EndOfStream);
static CHAT: StreamProtocol = StreamProtocol::new("/app/get/1", 4, Idle::After(Duration::from_secs(60)));

fn lines(protocol: &str) -> Vec<u8> {
    let mut out = Vec::new();
    multistream::header(&mut out);
    let _ = multistream::protocol(protocol, &mut out);
    out
}

fn framed(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    framing::put_header(body.len(), &mut out);
    out.extend_from_slice(body);
    out
}

/// What may be said in a negotiation: the right answer first.
fn phrases(protocol: &str) -> Vec<Vec<u8>> {
    let line = |name: &str| {
        let mut out = Vec::new();
        let _ = multistream::protocol(name, &mut out);
        out
    };
    let (mut header, mut na) = (Vec::new(), Vec::new());
    multistream::header(&mut header);
    multistream::na(&mut na);
    vec![lines(protocol), header, na, b"\x03ls\n".to_vec(), line(protocol), line("/app/other/1")]
}

/// What is behind the answer of a listener, if that is what the bytes begin with.
fn behind<'a>(came: &'a [u8], protocol: &str) -> Option<&'a [u8]> {
    came.strip_prefix(&lines(protocol)[..])
}

fn assert_begins(whole: &[u8], part: &[u8]) {
    assert!(whole.starts_with(part), "{part:?} is no beginning of {whole:?}");
}

impl Subject for Listener {}

/// The listener answers each proposal once, in order, and agrees on what it has.
pub fn select(script: &[u8], now: Instant) {
    let make = || {
        let mut registry = Registry::new();
        let entry = Entry { name: DEF.name, served: Served::Request(&DEF), priority: Priority::Normal, per_peer_max: 1 };
        registry.add(entry).ok()?;
        let mut words = phrases(DEF.name);
        words.push(lines(&reuse::proposal(DEF.name)));
        Run::new(Listener::new(Arc::new(registry)), now, words)
    };
    play(script, make, |run| {
        let mut rest = &run.pipe.outgoing[..];
        let (mut greeted, mut refused, mut agreed) = (false, 0usize, None);
        while let Ok(Some((message, used))) = multistream::decode(rest, multistream::MESSAGE_BYTES_MAX) {
            assert!(agreed.is_none(), "something follows what was agreed on");
            match message {
                multistream::Message::Header => assert!(!std::mem::replace(&mut greeted, true), "a second header"),
                multistream::Message::NotAvailable => refused = refused.saturating_add(1),
                multistream::Message::Protocol(name) => agreed = Some(name),
                multistream::Message::List => assert!(rest.is_empty(), "a listener that lists"),
            }
            rest = rest.get(used..).unwrap_or_default();
        }
        let whole = run.pipe.room > 0 && run.pipe.refused.is_none();
        assert!(!whole || rest.is_empty(), "half a line: {rest:?}");
        assert!(refused <= PROPOSALS_MAX && (greeted || refused == 0));
        let mut known = Registry::new();
        let entry = Entry { name: DEF.name, served: Served::Request(&DEF), priority: Priority::Normal, per_peer_max: 1 };
        let _ = known.add(entry);
        for output in &run.said {
            if let Output::Agreed { protocol: number, reused } = output {
                assert!(!known.name(*number).is_empty());
                let name = [known.name(*number), Found { number: *number, reused: *reused }.suffix()].concat();
                assert!(!whole || agreed == Some(&name), "agreed on {name}, and said {agreed:?}");
                let mut asked = Vec::new();
                let _ = multistream::protocol(&name, &mut asked);
                assert!(run.came.windows(asked.len()).any(|part| part == asked), "nobody asked for {number}");
            }
        }
    });
}

impl Subject for Tell {}

impl Subject for Hear {
    fn kept(&self) -> u64 {
        Hear::kept(self)
    }
}

/// Who tells says one message and nothing else; who hears takes what has come, whole.
pub fn identify(script: &[u8], now: Instant) {
    let (kind, script) = script.split_first().map_or((0, script), |(kind, rest)| (*kind, rest));
    let message = Bytes::from(vec![kind; usize::from(kind).saturating_mul(16)]);
    let heard = |run: &Run<Hear>, body: Option<&[u8]>| {
        for output in &run.said {
            if let Output::Identity(Ok(bytes)) = output {
                let whole = body.and_then(|body| framing::frame(body, identify::MESSAGE_BYTES_MAX).ok().flatten());
                assert_eq!(Some(&bytes[..]), whole.map(|(body, _)| body));
            }
        }
    };
    match kind & 3 {
        0 => play(
            script,
            || Run::new(Tell::answer(message.clone()), now, phrases(identify::NAME)),
            |run| {
                assert_begins(&framed(&message), &run.pipe.outgoing);
            },
        ),
        1 => play(
            script,
            || Run::new(Tell::push(message.clone()), now, phrases(identify::PUSH_NAME)),
            |run| {
                let all = [lines(identify::PUSH_NAME), framed(&message)].concat();
                assert_begins(&all, &run.pipe.outgoing);
            },
        ),
        2 => play(
            script,
            || Run::new(Hear::ask(), now, phrases(identify::NAME)),
            |run| {
                assert_begins(&lines(identify::NAME), &run.pipe.outgoing);
                heard(run, behind(&run.came, identify::NAME));
            },
        ),
        _ => play(
            script,
            || Run::new(Hear::pushed(), now, phrases(identify::PUSH_NAME)),
            |run| {
                assert_eq!(run.pipe.outgoing, b"");
                heard(run, Some(&run.came));
            },
        ),
    }
}

impl Subject for Echo {}
impl Subject for Pinger {}

/// What comes back is what was sent.
pub fn ping(script: &[u8], now: Instant) {
    let (kind, script) = script.split_first().map_or((0, script), |(kind, rest)| (*kind, rest));
    if kind & 1 == 0 {
        return play(
            script,
            || Run::new(Echo::new(), now, phrases(ping::NAME)),
            |run| {
                assert_begins(&run.came, &run.pipe.outgoing);
            },
        );
    }
    let payload = [kind; 32];
    let mut words = phrases(ping::NAME);
    words.push(payload.to_vec());
    play(
        script,
        || Run::new(Pinger::new(payload), now, words.clone()),
        |run| {
            assert_begins(&[lines(ping::NAME), payload.to_vec()].concat(), &run.pipe.outgoing);
            if run.said.iter().any(|output| matches!(output, Output::Pong(Ok(_)))) {
                let echo = behind(&run.came, ping::NAME).and_then(|rest| rest.first_chunk::<32>());
                assert_eq!(echo, Some(&payload), "a pong without an echo");
            }
        },
    );
}

impl Subject for Client {
    fn kept(&self) -> u64 {
        Client::kept(self)
    }

    fn act(run: &mut Run<Client>, which: u8) {
        // Nothing more is asked before the last request is over.
        if matches!(run.next, Next::Wait(waits) if waits.open_ended) {
            let asked = vec![which; usize::from(which).saturating_mul(10)];
            run.wrote.extend(framed(&asked));
            run.state.input = Some(Input::Request(Message::from(asked)));
        }
    }
}

impl Subject for Server {
    fn kept(&self) -> u64 {
        Server::kept(self)
    }

    fn act(run: &mut Run<Server>, which: u8) {
        // Nobody is asked before the request is there.
        let asked = run.said.iter().any(|output| matches!(output, Output::Arrived(_)));
        run.state.input = asked.then(|| match which {
            0 => Input::Reject(5),
            which => Input::Reply(Message::from(vec![which; usize::from(which).saturating_mul(10)])),
        });
    }
}

/// The message that `bytes` are, or begin with, and what is behind it.
fn message<'a>(def: &Request, bytes: &'a [u8], max: usize) -> Option<(Vec<u8>, &'a [u8])> {
    match def.framing {
        Framing::LengthPrefixed => {
            let (body, used) = framing::frame(bytes, max).ok().flatten()?;
            Some((body.to_vec(), bytes.get(used..).unwrap_or_default()))
        }
        Framing::EndOfStream => (bytes.len() <= max).then(|| (bytes.to_vec(), &[][..])),
    }
}

/// Both sides take the other's messages whole, as they were sent, and say theirs and nothing else.
pub fn request(script: &[u8], now: Instant) {
    let (kind, script) = script.split_first().map_or((0, script), |(kind, rest)| (*kind, rest));
    if kind & 4 != 0 {
        return requests(kind, script, now);
    }
    let def = if kind & 2 == 0 { &DEF } else { &UNTIL_END };
    let said = |body: &[u8]| if def.framing == Framing::LengthPrefixed { framed(body) } else { body.to_vec() };
    if kind & 1 == 0 {
        return play(
            script,
            || Run::new(Server::new(def), now, phrases(DEF.name)),
            |run| {
                for output in &run.said {
                    match output {
                        Output::Arrived(arrived) => {
                            let came = message(def, &run.came, def.request_bytes_max);
                            assert_eq!(Some(whole(arrived)), came.map(|(body, _)| body));
                        }
                        Output::Served(Ok(len)) => {
                            let byte = run.pipe.outgoing.last().copied().unwrap_or(0);
                            assert_eq!(run.pipe.outgoing, said(&vec![byte; *len]), "served, and not said");
                        }
                        _ => {}
                    }
                }
            },
        );
    }
    let asked = vec![kind; usize::from(kind).saturating_mul(10)];
    play(
        script,
        || Run::new(Client::new(def, Message::from(asked.clone())), now, phrases(DEF.name)),
        |run| {
            assert_begins(&[lines(DEF.name), said(&asked)].concat(), &run.pipe.outgoing);
            for output in &run.said {
                if let Output::Reply(Ok(reply)) = output {
                    let told = behind(&run.came, DEF.name).and_then(|rest| message(def, rest, def.reply_bytes_max));
                    assert_eq!(Some(whole(reply)), told.map(|(body, _)| body));
                }
            }
        },
    );
}

/// The same for several exchanges on one stream: each side says its messages in the order of the other's, and one at a time.
fn requests(kind: u8, script: &[u8], now: Instant) {
    let name = reuse::proposal(DEF.name);
    let next = |rest: &mut &[u8], max: usize| -> Option<Vec<u8>> {
        let (body, behind) = message(&DEF, rest, max)?;
        let len = rest.len().saturating_sub(behind.len());
        *rest = rest.get(len..).unwrap_or_default();
        Some(body)
    };
    if kind & 1 == 0 {
        return play(
            script,
            || Run::new(Server::reusing(&DEF), now, phrases(&name)),
            |run| {
                let (mut came, mut said, mut open) = (&run.came[..], &run.pipe.outgoing[..], false);
                for output in &run.said {
                    match output {
                        Output::Arrived(arrived) => {
                            assert!(!std::mem::replace(&mut open, true), "two requests at once on one stream");
                            assert_eq!(Some(whole(arrived)), next(&mut came, DEF.request_bytes_max));
                        }
                        Output::Served(Ok(len)) => {
                            open = false;
                            assert_eq!(next(&mut said, DEF.reply_bytes_max).map(|body| body.len()), Some(*len));
                        }
                        _ => {}
                    }
                }
            },
        );
    }
    let asked = vec![kind; usize::from(kind).saturating_mul(10)];
    play(
        script,
        || Run::new(Client::reusing(&DEF, Message::from(asked.clone())), now, phrases(&name)),
        |run| {
            assert_begins(&[lines(&name), framed(&asked), run.wrote.clone()].concat(), &run.pipe.outgoing);
            let mut told = behind(&run.came, &name).unwrap_or_default();
            for output in &run.said {
                if let Output::Reply(Ok(reply)) = output {
                    assert_eq!(Some(whole(reply)), next(&mut told, DEF.reply_bytes_max));
                }
            }
        },
    );
}

impl Subject for Raw {
    fn act(run: &mut Run<Raw>, which: u8) {
        let size = usize::from(which).saturating_mul(16);
        match which & 7 {
            0..=2 => {
                let chunk = run.io(|io| if which & 1 == 0 { io.take(size) } else { io.take_gathered(size) });
                run.read.extend_from_slice(&chunk.unwrap_or_default());
            }
            3 | 4 => {
                let mut chunk = Bytes::from(vec![which; size]);
                let taken = run.io(|io| io.give(&mut chunk));
                run.wrote.resize(run.wrote.len().saturating_add(taken), which);
            }
            5 => run.io(|io| io.finish()),
            6 => run.io(|io| io.stop(which.into())),
            _ => run.io(|io| io.abandon(which.into())),
        }
    }

    fn leave(run: &mut Run<Raw>) {
        run.io(|io| io.abandon(0));
    }
}

/// The application reads what the peer has sent behind the negotiation, and the peer what it has written.
pub fn raw(script: &[u8], now: Instant) {
    let (kind, script) = script.split_first().map_or((0, script), |(kind, rest)| (*kind, rest));
    if kind & 1 == 0 {
        return play(
            script,
            || Run::new(Raw::accept(&CHAT), now, phrases(CHAT.name)),
            |run| {
                assert_begins(&run.came, &run.read);
                assert_begins(&run.wrote, &run.pipe.outgoing);
            },
        );
    }
    let make = || {
        let mut run = Run::new(Raw::dial(&CHAT), now, phrases(CHAT.name))?;
        run.state.late.finish = kind & 2 != 0;
        Some(run)
    };
    play(script, make, |run| {
        assert!(run.read.is_empty() || behind(&run.came, CHAT.name).is_some_and(|rest| rest.starts_with(&run.read)));
        let proposal = lines(CHAT.name);
        let wrote = run.pipe.outgoing.strip_prefix(&proposal[..]);
        match wrote {
            Some(wrote) => assert_begins(&run.wrote, wrote),
            None => assert_begins(&proposal, &run.pipe.outgoing),
        }
    });
}
