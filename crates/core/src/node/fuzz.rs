//! For the fuzz target `datagrams`: a node to whose front door anything comes, beside a peer whose datagrams may be changed on the way.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use libp2p_identity::Keypair;

use super::{Config, Node};
use crate::conn::quic::{Meta, SocketId};
use crate::env::Env;
use crate::limits::Limits;
use crate::proto::pace::deadline;

/// A datagram of the peer is not changed when its number is this.
const UNCHANGED: u8 = 255;
/// So many datagrams of the peer wait to be let through; more are lost.
const WAITING_MAX: usize = 64;
/// A node that is driven is through after so many turns: each input is far less than what one turn may do.
const TURNS_MAX: usize = 64;
/// Who has not shown that it hears us is sent so many times what it has sent (RFC 9000, section 8) ...
const AMPLIFIED_MAX: u64 = 3;
/// ... and the QUIC crate makes a whole datagram of what is left of that. Where a peer seems to have moved to, it asks whether that is so, in
/// datagrams that it does not count here: such an address is no stranger's any more.
const DATAGRAM_MAX: u64 = 1500;

const US: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1)), 4001);
const PEER: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2)), 4001);

/// Runs a script. The low half of a byte says what happens, the byte behind it is a number:
///
/// | low half | what happens |
/// |---|---|
/// | 0 to 3 | so many bytes of the script come from a stranger, whose address the high half says |
/// | 4 | the same, and so many zeroes times 8 behind them: the first packet of a connection fills 1,200 bytes |
/// | 5, 6 | the peer's next datagram comes; unless the number is 255 the byte at that place, times 4 in the upper half, is changed |
/// | 7 | it comes as the first so many bytes |
/// | 8 | it comes twice |
/// | 9 | it is lost |
/// | 10 | it comes from a stranger's address |
/// | 11 | our next datagrams reach the peer |
/// | 12 | time passes: the number's square in milliseconds |
/// | 13 | the peer dials us |
/// | 14, 15 | what came last comes again, and the byte at that place is changed |
///
/// # Panics
/// When the node breaks its word: a cap, the ledger, a turn that does not end, or more sent to strangers than came from them. For tests.
#[doc(hidden)]
pub fn datagrams(script: &[u8], env: &Env, now: Instant) {
    let Some(mut run) = Run::new(env, now) else {
        return;
    };
    run.play(script);
    // Left alone, what was begun ends or is kept up; neither takes work without end.
    for _ in 0..TURNS_MAX {
        let Some((at, _)) = run.node.poll_wake() else {
            break;
        };
        run.now = run.now.max(at);
        run.settle();
    }
}

struct Run {
    node: Node,
    peer: Node,
    now: Instant,
    /// Datagrams of the peer that have not come, and ours that have not reached it.
    coming: Vec<Vec<u8>>,
    going: Vec<Vec<u8>>,
    last: Vec<u8>,
    /// Bytes from and to each stranger's address.
    strangers: [(u64, u64); 16],
}

fn stranger(which: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 1, which & 15], 4001))
}

impl Run {
    fn new(env: &Env, now: Instant) -> Option<Run> {
        let node = |seed: u8| {
            let keypair = Keypair::ed25519_from_bytes([seed; 32]).ok()?;
            let config = Config { keypair, agent: "fuzz".to_owned(), limits: Limits::default(), listen: true };
            Node::new(config, Env { seed: [seed; 32], ..env.clone() }, now).ok()
        };
        let (node, peer) = (node(1)?, node(2)?);
        Some(Run { node, peer, now, coming: Vec::new(), going: Vec::new(), last: Vec::new(), strangers: [(0, 0); 16] })
    }

    fn play(&mut self, script: &[u8]) {
        let mut bytes = script.iter().copied();
        while let Some(what) = bytes.next() {
            let number = bytes.next().unwrap_or(0);
            self.happens(what, number, &mut bytes);
            self.settle();
        }
    }

    fn happens(&mut self, what: u8, number: u8, bytes: &mut impl Iterator<Item = u8>) {
        let at = usize::from(number).saturating_add(usize::from(what >> 4).saturating_mul(256));
        match what & 15 {
            kind @ 0..=4 => {
                let mut datagram: Vec<u8> = bytes.take(number.into()).collect();
                let more = if kind == 4 { usize::from(number).saturating_mul(8) } else { 0 };
                datagram.resize(datagram.len().saturating_add(more), 0);
                self.receive(stranger(what >> 4), datagram);
            }
            11 => {
                for datagram in std::mem::take(&mut self.going) {
                    hand(&mut self.peer, self.now, US, &datagram);
                }
            }
            12 => {
                let passed = Duration::from_millis(u64::from(number).saturating_mul(number.into()));
                self.now = deadline(self.now, passed);
            }
            13 => drop(self.peer.dial(self.now, SocketId(0), US, self.node.peer_id())),
            14 | 15 => {
                let again = changed(self.last.clone(), at, number);
                self.receive(PEER, again);
            }
            kind => {
                if self.coming.is_empty() {
                    return;
                }
                let datagram = self.coming.remove(0);
                match kind {
                    7 => self.receive(PEER, datagram.get(..at).unwrap_or(&datagram).to_vec()),
                    8 => {
                        self.receive(PEER, datagram.clone());
                        self.receive(PEER, datagram);
                    }
                    9 => {}
                    10 => {
                        // What it is sent from here on does not count.
                        if let Some((came, _)) = self.stranger(stranger(number)) {
                            *came = u64::MAX;
                        }
                        self.receive(stranger(number), datagram);
                    }
                    _ if number == UNCHANGED => self.receive(PEER, datagram),
                    _ => self.receive(PEER, changed(datagram, at, number)),
                }
            }
        }
    }

    fn receive(&mut self, from: SocketAddr, datagram: Vec<u8>) {
        if let Some((came, _)) = self.stranger(from) {
            *came = came.saturating_add(datagram.len() as u64);
        }
        hand(&mut self.node, self.now, from, &datagram);
        self.last = datagram;
    }

    fn stranger(&mut self, address: SocketAddr) -> Option<&mut (u64, u64)> {
        let which = self.strangers.iter().zip(0u8..).position(|(_, which)| stranger(which) == address)?;
        self.strangers.get_mut(which)
    }

    /// Both sides do what they have to do now.
    fn settle(&mut self) {
        let sent = work(&mut self.node, self.now);
        for (to, datagram) in sent {
            if to == PEER {
                self.going.push(datagram);
            } else if let Some((came, went)) = self.stranger(to) {
                *went = went.saturating_add(datagram.len() as u64);
                let most = came.saturating_mul(AMPLIFIED_MAX).saturating_add(if *came > 0 { DATAGRAM_MAX } else { 0 });
                assert!(*went <= most, "{went} bytes were sent to {to}, which has sent {came}");
            }
        }
        self.going.truncate(WAITING_MAX);
        let theirs = work(&mut self.peer, self.now).into_iter().map(|(_, datagram)| datagram);
        self.coming.extend(theirs);
        self.coming.truncate(WAITING_MAX);
        let audit = self.node.audit();
        assert!(audit.over_cap.is_empty(), "{:?}", audit.over_cap);
        assert!(audit.waits_without_deadline.is_empty(), "{:?}", audit.waits_without_deadline);
        assert!(audit.held <= audit.granted.max(audit.committed), "{} bytes are held", audit.held);
        assert!(audit.committed <= audit.budget);
    }
}

fn changed(mut datagram: Vec<u8>, at: usize, by: u8) -> Vec<u8> {
    if let Some(byte) = datagram.get_mut(at) {
        *byte ^= by | 1;
    }
    datagram
}

fn hand(node: &mut Node, now: Instant, remote: SocketAddr, datagram: &[u8]) {
    let meta = Meta { socket: SocketId(0), remote, local_ip: None, ecn: None };
    node.handle_datagram(now, meta, BytesMut::from(datagram));
}

/// Drives a node until nothing is left to do at this time, and returns what it sends.
fn work(node: &mut Node, now: Instant) -> Vec<(SocketAddr, Vec<u8>)> {
    let mut sent = Vec::new();
    let mut buffer = Vec::new();
    node.handle_timeout(now);
    for _ in 0..TURNS_MAX {
        let more = node.drive(now);
        while node.poll_event().is_some() {}
        let before = sent.len();
        while let Some(transmit) = node.poll_transmit(now, NonZeroUsize::MIN, &mut buffer) {
            sent.push((transmit.destination, buffer.clone()));
        }
        if !more && sent.len() == before {
            return sent;
        }
    }
    assert!(!node.drive(now), "it is never through");
    sent
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::env::testing::env;
    use crate::seeds::seeds;

    #[allow(clippy::disallowed_methods, reason = "a script needs some instant to begin at")]
    fn now() -> Instant {
        Instant::now()
    }

    /// Replays the fuzz corpus, and every prefix of each file.
    #[test]
    fn datagrams_corpus() {
        for bytes in seeds("datagrams") {
            // What differs by half a step is covered by the next one.
            for end in (0..=bytes.len()).step_by(2) {
                datagrams(&bytes[..end], &env(1), now());
            }
            datagrams(&bytes, &env(1), now());
        }
    }

    /// Else the target would see nothing but first packets.
    #[test]
    fn a_script_gets_as_far_as_a_connection() {
        let mut run = Run::new(&env(1), now()).expect("the limits fit");
        let script = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/datagrams/handshake"));
        run.play(&script.expect("a seed"));
        assert_eq!(run.node.peers().count(), 1);
    }
}
