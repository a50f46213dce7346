//! Names in addresses: what to look up, and what its answers lead to. Pure: the driver asks the resolver.
//!
//! `/dns`, `/dns4` and `/dns6` are host names (A and AAAA records); under `/dnsaddr` TXT records `dnsaddr=<multiaddr>` at `_dnsaddr.<name>`
//! hold whole addresses, which may have names themselves
//! (<https://github.com/multiformats/multiaddr/blob/master/protocols/DNSADDR.md>). Whoever writes such records decides what is
//! asked next, so all is counted: how deep, how many questions and how many answers, in all for one connect. Nothing is asked twice.
//!
//! **Scope.** An answer is dialled if it means the same host all over the network that the name is of ([`scope::of_name`]): of a name of the
//! Internet only global addresses; of `.local`, `.internal`, `.home.arpa` and of names without a dot private ones too; of `localhost` those of this
//! machine too. What a list leads to counts as of the farthest network on the way, and what a remote told as of the path that it was told by. Otherwise
//! whoever has a public name could have everybody's nodes knock inside of their own networks.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use libp2p_identity::PeerId;
use multiaddr::Multiaddr;

use super::scope::{self, Scope};
use super::target::{Family, Target, Way};
use crate::error::DialError;
use crate::limits::{LOOKUP_ANSWERS_MAX, LOOKUP_DEADLINE, LOOKUP_DEPTH_MAX, LOOKUP_TEXT_BYTES_MAX, LOOKUPS_PER_CONNECT_MAX};

/// What a resolver is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Record {
    /// IPv4 addresses (A).
    V4,
    /// IPv6 addresses (AAAA).
    V6,
    /// Texts (TXT).
    Text,
}

/// A question for the resolver.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Question {
    /// The name, in lower case and without a final dot.
    pub name: String,
    /// What is wanted of it.
    pub record: Record,
}

/// What the resolver found. Only those of the kind that was asked for count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// Addresses.
    pub ips: Vec<IpAddr>,
    /// Texts, the parts of each record put together (RFC 7208 section 3.3).
    pub texts: Vec<String>,
}

/// Why a look-up gave nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// The name, or a record of that kind, does not exist.
    #[error("does not exist; check its spelling")]
    NotFound,
    /// The resolver did not answer in time.
    #[error("was not answered for within {0:?}; check that this machine is online and what name server it uses")]
    NoAnswer(Duration),
    /// The resolver's words for anything else.
    #[error("could not be looked up: {0}")]
    Failed(String),
    /// This node's driver has no resolver.
    #[error("cannot be looked up, since this node has no resolver; use an address with a number (/ip4, /ip6)")]
    NoResolver,
    /// The records lead to more questions than one connect may ask.
    #[error("leads to more look-ups, or deeper ones, than one connect may make; most likely its records point at each other")]
    TooMany,
    /// Nothing in the records can be dialled.
    #[error("has no record that can be dialled")]
    Nothing,
}

/// What an answer has led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// An address by number, and the name that led to it.
    Host(Way, SocketAddr, Multiaddr),
    /// An address that will not be dialled.
    Bad(Multiaddr, DialError),
}

/// What a question is for.
#[derive(Debug, Clone)]
struct Purpose {
    /// The address as it was given, for people.
    given: Multiaddr,
    wanted: Wanted,
    depth: u32,
    /// How far the networks reach that the names up to here are of: the farthest of them.
    reach: Scope,
}

#[derive(Debug, Clone)]
enum Wanted {
    Host(Way, u16),
    /// Of a list those that end with this identity, or all.
    List(Option<PeerId>),
}

/// The look-ups of one connect.
#[derive(Debug)]
pub(crate) struct Names {
    peer: PeerId,
    /// Not yet asked.
    queue: Vec<(Question, Purpose)>,
    open: BTreeMap<u32, (Question, Vec<Purpose>, Instant)>,
    seen: BTreeSet<(Question, String)>,
    asked: u32,
    answers: usize,
}

impl Names {
    /// For addresses of `peer`.
    pub(crate) fn new(peer: PeerId) -> Names {
        Names { peer, queue: Vec::new(), open: BTreeMap::new(), seen: BTreeSet::new(), asked: 0, answers: 0 }
    }

    /// Takes an address. `told_over`: how far the path reaches that a remote told it by; `None` for what the application told.
    pub(crate) fn add(&mut self, address: &Multiaddr, told_over: Option<Scope>) -> Option<Found> {
        self.take(address, address, 0, told_over.unwrap_or(Scope::Loopback))
    }

    /// Looks at an address: its host, if it has a number; otherwise it is asked for.
    fn take(&mut self, address: &Multiaddr, given: &Multiaddr, depth: u32, reach: Scope) -> Option<Found> {
        let bad = |error| Some(Found::Bad(given.clone(), error));
        let target = match Target::of(address) {
            Ok(target) => target,
            Err(error) => return bad(error),
        };
        if let Some(found) = target.peer().filter(|named| *named != self.peer) {
            // A list is everybody's: the others in it are no matter.
            return if depth == 0 { bad(DialError::WrongPeer { wanted: self.peer, found }) } else { None };
        }
        let (questions, wanted): (Vec<_>, Wanted) = match target {
            Target::Number(way, at, _) => return Some(Found::Host(way, at, given.clone())),
            Target::Name(way, family, name, port, _) => {
                let records: &[Record] = match family {
                    Family::Any => &[Record::V6, Record::V4],
                    Family::V4 => &[Record::V4],
                    Family::V6 => &[Record::V6],
                };
                let questions = records.iter().map(|record| Question { name: name.clone(), record: *record });
                (questions.collect(), Wanted::Host(way, port))
            }
            Target::List(name, peer) => {
                let question = Question { name: format!("_dnsaddr.{name}"), record: Record::Text };
                (vec![question], Wanted::List(peer))
            }
        };
        if depth >= LOOKUP_DEPTH_MAX {
            return bad(DialError::Name { name: shown(&questions), error: LookupError::TooMany });
        }
        for question in questions {
            // The same question for another port has another purpose, and costs no look-up while the first is under way or waits.
            if self.seen.insert((question.clone(), format!("{wanted:?}"))) {
                let reach = reach.max(reach_of(&question.name));
                self.queue.push((question, Purpose { given: given.clone(), wanted: wanted.clone(), depth, reach }));
            }
        }
        None
    }

    /// The next question, with its number. At most [`LOOKUPS_PER_CONNECT_MAX`] are asked; what is left over goes to `bad`.
    pub(crate) fn ask(&mut self, now: Instant, bad: &mut Vec<Found>) -> Option<(u32, Question)> {
        while !self.queue.is_empty() {
            let (question, purpose) = self.queue.remove(0);
            if let Some((_, purposes, _)) = self.open.values_mut().find(|(open, ..)| *open == question) {
                purposes.push(purpose);
                continue;
            }
            if self.asked >= LOOKUPS_PER_CONNECT_MAX {
                let error = DialError::Name { name: question.name, error: LookupError::TooMany };
                bad.push(Found::Bad(purpose.given, error));
                continue;
            }
            self.asked = self.asked.saturating_add(1);
            let until = now.checked_add(LOOKUP_DEADLINE).unwrap_or(now);
            self.open.insert(self.asked, (question.clone(), vec![purpose], until));
            return Some((self.asked, question));
        }
        None
    }

    /// Whether a question waits to be asked.
    pub(crate) fn has_questions(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Whether anything may still come.
    pub(crate) fn is_open(&self) -> bool {
        !self.open.is_empty() || self.has_questions()
    }

    /// Until when the next answer has to be there.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.open.values().map(|(.., until)| *until).min()
    }

    /// Takes an answer: what it leads to. One that was not asked for, or is too late, leads to nothing.
    pub(crate) fn answered(&mut self, number: u32, answer: Result<Answer, LookupError>) -> Vec<Found> {
        let Some((question, purposes, _)) = self.open.remove(&number) else {
            return Vec::new();
        };
        let mut found = Vec::new();
        for purpose in purposes {
            match &answer {
                Ok(answer) => self.use_answer(&question, &purpose, answer, &mut found),
                Err(error) => found.push(nothing(&question, &purpose, error.clone())),
            }
        }
        found
    }

    /// What was not answered for in time.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<Found> {
        let late = self.open.iter().filter(|(_, (.., until))| *until <= now).map(|(number, _)| *number);
        let late: Vec<u32> = late.collect();
        late.into_iter().flat_map(|number| self.answered(number, Err(LookupError::NoAnswer(LOOKUP_DEADLINE)))).collect()
    }

    fn use_answer(&mut self, question: &Question, purpose: &Purpose, answer: &Answer, found: &mut Vec<Found>) {
        let before = found.len();
        match purpose.wanted {
            Wanted::Host(way, port) => {
                let fits = |ip: &IpAddr| ip.is_ipv6() == (question.record == Record::V6);
                for ip in answer.ips.iter().filter(|ip| fits(ip)) {
                    if !self.count() {
                        break;
                    }
                    found.push(match in_scope(question, purpose, *ip) {
                        Ok(()) => Found::Host(way, SocketAddr::new(*ip, port), purpose.given.clone()),
                        Err(error) => Found::Bad(purpose.given.clone(), error),
                    });
                }
            }
            Wanted::List(peer) => {
                let (asked, depth) = (self.queue.len(), purpose.depth.saturating_add(1));
                for text in &answer.texts {
                    if !self.count() {
                        break;
                    }
                    let Some(address) = listed(text, peer) else {
                        continue;
                    };
                    // Numbers in a list are answers of its name, as those of a host's are.
                    found.extend(match self.take(&address, &purpose.given, depth, purpose.reach) {
                        Some(Found::Host(way, at, given)) => Some(match in_scope(question, purpose, at.ip()) {
                            Ok(()) => Found::Host(way, at, given),
                            Err(error) => Found::Bad(given, error),
                        }),
                        other => other,
                    });
                }
                if self.queue.len() > asked {
                    return;
                }
            }
        }
        if found.len() == before {
            found.push(nothing(question, purpose, LookupError::Nothing));
        }
    }

    /// Counts an answer. False when there were enough.
    fn count(&mut self) -> bool {
        let more = self.answers < LOOKUP_ANSWERS_MAX;
        self.answers = self.answers.saturating_add(usize::from(more));
        more
    }
}

fn nothing(question: &Question, purpose: &Purpose, error: LookupError) -> Found {
    Found::Bad(purpose.given.clone(), DialError::Name { name: question.name.clone(), error })
}

fn shown(questions: &[Question]) -> String {
    questions.first().map(|question| question.name.clone()).unwrap_or_default()
}

/// The address in a TXT record, if it is one and ends as wanted.
fn listed(text: &str, peer: Option<PeerId>) -> Option<Multiaddr> {
    let address = text.get(..LOOKUP_TEXT_BYTES_MAX.min(text.len()))?.strip_prefix("dnsaddr=")?;
    let address: Multiaddr = address.parse().ok()?;
    let ends = match address.iter().last() {
        Some(multiaddr::Protocol::P2p(end)) => Some(end),
        _ => None,
    };
    (peer.is_none() || peer == ends).then_some(address)
}

/// How far the network reaches that a name is of.
fn reach_of(name: &str) -> Scope {
    scope::of_name(name.strip_prefix("_dnsaddr.").unwrap_or(name))
}

fn in_scope(question: &Question, purpose: &Purpose, ip: IpAddr) -> Result<(), DialError> {
    let scope = scope::of(ip);
    match scope.holds_over(purpose.reach) {
        true => Ok(()),
        false => Err(DialError::NameOutOfScope { name: question.name.clone(), ip, scope }),
    }
}

#[cfg(test)]
#[path = "names_tests.rs"]
mod tests;
