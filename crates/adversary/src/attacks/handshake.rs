//! Handshakes that are slow, wrong, too many, or over too soon.

use std::time::Duration;

use super::connected::{Abuse, Connected};
use super::{Behaviour, Env, Out};
use crate::client::Client;
use crate::identity::Papers;
use crate::read::Frame;
use crate::wire::{self, Params};

/// How many connections a squatter has at most.
const SQUAT_MAX: usize = 1024;
/// A squatter shows life so often.
const SQUAT_PING: Duration = Duration::from_secs(4);

/// Which handshake is begun, again and again.
pub(super) enum Again {
    /// A byte per interval.
    Slow(Duration),
    /// These papers.
    Papers(Papers),
    /// Random transport parameters.
    Params,
    /// A good one, closed at once.
    Churn,
}

pub(super) fn abuse(again: Again) -> Connected<Again> {
    Connected::new(again)
}

impl Abuse for Again {
    fn client(&mut self, env: &mut Env) -> Client {
        match self {
            Again::Slow(interval) => {
                let mut client = env.client(Papers::Good, &Params::default());
                client.trickle = Some(*interval);
                client
            }
            Again::Papers(papers) => env.client(*papers, &Params::default()),
            Again::Params => {
                let extra = bad_params(env);
                env.client(Papers::Good, &Params { extra, ..Params::default() })
            }
            Again::Churn => env.client(Papers::Good, &Params::default()),
        }
    }

    fn go(&mut self, _: &mut Env, client: &mut Client, _: Duration, _: Vec<Frame>, _: usize, out: &mut Vec<Out>) {
        if !matches!(self, Again::Slow(_)) {
            out.push(super::connected::own(client.app(&wire::connection_close())));
            client.closed = Some((0, false, "by ourselves".to_owned()));
        }
    }

    fn pause(&self) -> Duration {
        Duration::from_millis(if matches!(self, Again::Slow(_)) { 50 } else { 2 })
    }

    fn patience(&self) -> Duration {
        match self {
            // What is refused is told only once, and a bot that waits does not attack.
            Again::Papers(_) | Again::Params => Duration::from_secs(1),
            _ => Duration::from_secs(20),
        }
    }
}

/// Values that RFC 9000 section 18.2 forbids, parameters given twice, lengths that lie, and noise.
fn bad_params(env: &mut Env) -> Vec<u8> {
    let random = &mut env.random;
    let number = |id: u64, value: u64| [wire::varints(&[id, wire::varint(value).len() as u64]), wire::varint(value)].concat();
    match random.below(10) {
        0 => number(0x03, 1_199),
        1 => number(0x0a, 21),
        2 => number(0x0b, 1 << 14),
        3 => number(0x0e, 1),
        4 => number(0x08, 1 << 61),
        5 => wire::varints(&[0x00, 8, 0, 0, 0, 0, 0, 0, 0, 0]),
        6 => wire::varints(&[0x02, 16, 0]),
        7 => wire::varints(&[0x1234, wire::VARINT_MAX]),
        8 => {
            let len = random.below(600) as usize;
            random.bytes(len)
        }
        _ => (0..200).flat_map(|at| wire::varints(&[0x4000 + at, 0])).collect(),
    }
}

/// Connections of ever new identities, which stay and do nothing.
#[derive(Default)]
pub(super) struct Squat {
    clients: Vec<(Client, Duration)>,
}

impl Behaviour for Squat {
    fn receive(&mut self, _: &mut Env, _: Duration, source: u16, datagram: &[u8]) {
        if let Some((client, _)) = self.clients.get_mut(usize::from(source)) {
            client.receive(datagram);
        }
    }

    fn tick(&mut self, env: &mut Env, now: Duration, budget: usize) -> Vec<Out> {
        let coming = self.clients.iter().filter(|(client, _)| !client.confirmed && client.closed.is_none()).count();
        if coming < budget.min(8) && self.clients.len() < SQUAT_MAX {
            self.clients.push((env.client(Papers::Good, &Params::default()), now));
        }
        let mut out = Vec::new();
        let mut opened = 0;
        for (at, (client, ping)) in self.clients.iter_mut().enumerate() {
            let mut datagrams = client.poll(now);
            if client.confirmed && client.closed.is_none() {
                opened += 1;
                if now >= *ping {
                    *ping = now + SQUAT_PING;
                    datagrams.push(client.app(wire::PING));
                }
            }
            out.extend(datagrams.into_iter().map(|bytes| Out { source: at as u16, bytes }));
        }
        env.told.opened = opened;
        env.told.ended = self.clients.iter().filter(|(client, _)| client.closed.is_some()).count() as u64;
        out
    }
}
