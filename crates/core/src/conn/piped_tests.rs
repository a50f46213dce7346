//! Connections over pipes in memory: cut anywhere, changed, trickled, and by peers that do not keep to the rules. In virtual time.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use libp2p_identity::{Keypair, PeerId};
use proptest::prelude::*;

use super::event::{ConnEvent, Lost};
use super::pipe::{noise, stage::Identity, tls};
use super::piped::{PipeEnd, Piped};
use crate::env::{Random, testing::env};
use crate::error::{Closed, DialError};
use crate::limits::Limits;
use crate::stream::{Read, StreamPort as _};

const NOISE: &[&str] = &[noise::NAME];
const TLS: &[&str] = &[tls::NAME];
const BOTH: &[&str] = super::pipe::stage::SECURITY;

#[allow(clippy::disallowed_methods, reason = "any instant will do to start from")]
fn start() -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(Instant::now)
}

fn peer(byte: u8) -> PeerId {
    Keypair::ed25519_from_bytes([byte; 32]).unwrap().public().to_peer_id()
}

fn identity(byte: u8, security: &'static [&'static str], early: bool) -> Arc<Identity> {
    let keypair = Keypair::ed25519_from_bytes([byte; 32]).unwrap();
    let mut identity = Identity::new(&keypair, &env(byte), &mut Random::new([byte; 32])).unwrap();
    if !early {
        identity = identity.without_early_muxer();
    }
    identity.security = security;
    Arc::new(identity)
}

/// One end, and what it has told.
struct End {
    piped: Piped,
    events: Vec<ConnEvent>,
}

impl End {
    fn take_events(&mut self) {
        self.events.extend(std::iter::from_fn(|| self.piped.poll()));
    }

    fn output(&mut self, now: Instant) -> Vec<u8> {
        let mut out = Vec::new();
        while self.piped.poll_output(now, 64 << 10, &mut out) > 0 {}
        out
    }

    fn hand(&mut self, now: Instant, bytes: &[u8]) {
        if self.piped.wants_input() {
            self.piped.handle_bytes(now, BytesMut::from(bytes));
        }
        self.take_events();
    }

    fn is_connected(&self) -> bool {
        self.events.iter().any(|event| matches!(event, ConnEvent::Connected))
    }

    fn lost(&self) -> Option<&Lost> {
        self.events.iter().find_map(|event| if let ConnEvent::Lost(lost) = event { Some(lost) } else { None })
    }

    fn read_all(&mut self, stream: u64) -> (Vec<u8>, bool) {
        let mut all = Vec::new();
        loop {
            match self.piped.port(stream).read(usize::MAX) {
                Ok(Read::Chunk(chunk)) => all.extend_from_slice(&chunk),
                Ok(Read::Blocked) => return (all, false),
                Ok(Read::Finished) => return (all, true),
                Err(code) => panic!("reset with {code}"),
            }
        }
    }
}

/// Node 1 dials node 2.
struct Pair {
    a: End,
    b: End,
    now: Instant,
}

impl Pair {
    fn new(a: &Arc<Identity>, b: &Arc<Identity>, wanted: PeerId) -> Pair {
        let limits = Limits::default();
        let end = |piped| End { piped, events: Vec::new() };
        let mut dialler = Piped::dial(a, wanted, &limits, &mut Random::new([3; 32])).unwrap();
        dialler.handle_connected(start());
        let listener = Piped::listen(start(), b, &limits, &mut Random::new([4; 32]));
        Pair { a: end(dialler), b: end(listener), now: start() }
    }

    fn with(security: &'static [&'static str], early: bool) -> Pair {
        Pair::new(&identity(1, security, early), &identity(2, BOTH, early), peer(2))
    }

    /// Carries bytes over both ways until neither has any, in pieces as `cut` says.
    fn run(&mut self, mut cut: impl FnMut() -> usize) {
        for _ in 0..10_000 {
            let (up, down) = (self.a.output(self.now), self.b.output(self.now));
            if up.is_empty() && down.is_empty() {
                return;
            }
            for (bytes, to) in [(up, &mut self.b), (down, &mut self.a)] {
                let mut rest = &bytes[..];
                while !rest.is_empty() {
                    let (piece, later) = rest.split_at(cut().clamp(1, rest.len().min(64 << 10)));
                    to.hand(self.now, piece);
                    rest = later;
                }
            }
        }
        panic!("it never ends");
    }

    /// Lets time pass until `a`, or `b`, has nothing to wait for or is lost.
    fn wait(&mut self, until: Duration) {
        for end in [&mut self.a, &mut self.b] {
            while let Some(at) = end.piped.poll_timeout().filter(|at| *at <= self.now + until && end.events.len() < 100) {
                end.piped.handle_timeout(at);
                end.take_events();
                if end.lost().is_some() {
                    break;
                }
            }
        }
        self.now += until;
    }

    fn open(security: &'static [&'static str], early: bool) -> Pair {
        let mut pair = Pair::with(security, early);
        pair.run(|| usize::MAX);
        assert!(pair.a.is_connected() && pair.b.is_connected());
        pair
    }
}

#[test]
fn streams_over_every_way_to_secure_a_pipe() {
    for (security, early) in [(TLS, true), (TLS, false), (NOISE, true), (NOISE, false), (BOTH, true)] {
        let mut pair = Pair::open(security, early);
        assert_eq!((pair.a.piped.peer(), pair.b.piped.peer()), (Some(peer(2)), Some(peer(1))));
        let stream = pair.a.piped.session().open().unwrap();
        let mut body = Bytes::from(vec![7; 50_000]);
        assert_eq!(pair.a.piped.port(stream).write(&mut body), Ok(50_000));
        pair.a.piped.port(stream).finish();
        pair.run(|| usize::MAX);
        assert!(pair.b.events.iter().any(|event| matches!(event, ConnEvent::Opened)));
        let theirs = pair.b.piped.session().accept().unwrap();
        assert_eq!(pair.b.read_all(theirs), (vec![7; 50_000], true));
        // The other direction is open still.
        pair.b.piped.port(theirs).write(&mut Bytes::from_static(b"answer")).unwrap();
        pair.b.piped.port(theirs).finish();
        pair.run(|| usize::MAX);
        assert_eq!(pair.a.read_all(stream), (b"answer".to_vec(), true));
        assert!(pair.a.lost().is_none() && pair.b.lost().is_none());
    }
}

#[test]
fn a_listener_that_speaks_only_the_second_choice() {
    let mut pair = Pair::new(&identity(1, BOTH, true), &identity(2, NOISE, true), peer(2));
    pair.run(|| 5);
    assert!(pair.a.is_connected() && pair.b.is_connected());
    let mut pair = Pair::new(&identity(1, TLS, true), &identity(2, NOISE, true), peer(2));
    pair.run(|| 5);
    assert!(matches!(&pair.a.lost().unwrap().dial, DialError::Incompatible(why) if why.contains(tls::NAME)));
}

#[test]
fn the_first_bytes_leave_with_the_end_of_the_handshake() {
    // Both with the multiplexer agreed early and proposed lazily: what the dialler has to say does not wait for another answer.
    for (security, early) in [(TLS, true), (TLS, false), (NOISE, true), (NOISE, false)] {
        let mut pair = Pair::with(security, early);
        let mut trips = 0;
        while !pair.b.is_connected() {
            let up = pair.a.output(pair.now);
            pair.b.hand(pair.now, &up);
            if pair.b.is_connected() {
                break;
            }
            let down = pair.b.output(pair.now);
            pair.a.hand(pair.now, &down);
            trips += 1;
            if pair.a.is_connected() {
                let stream = pair.a.piped.session().open().unwrap();
                pair.a.piped.port(stream).write(&mut Bytes::from_static(b"hello")).unwrap();
            }
        }
        assert_eq!((trips, security, early), (2, security, early), "one to agree how to encrypt and one for the handshake");
        let stream = pair
            .b
            .piped
            .session()
            .accept()
            .unwrap_or_else(|| panic!("not with the handshake's last message: {security:?}, {early}"));
        assert_eq!(pair.b.read_all(stream).0, b"hello");
    }
}

#[test]
fn wrong_peer_names_both() {
    for security in [TLS, NOISE] {
        let mut pair = Pair::new(&identity(1, security, true), &identity(2, BOTH, true), peer(3));
        pair.run(|| usize::MAX);
        assert_eq!(pair.a.lost().unwrap().dial, DialError::WrongPeer { wanted: peer(3), found: peer(2) });
        assert!(!pair.a.is_connected() && !pair.b.is_connected());
        assert!(pair.a.piped.is_over());
    }
}

#[test]
fn closing_is_told() {
    for security in [TLS, NOISE] {
        let mut pair = Pair::open(security, true);
        pair.a.piped.close(pair.now, 0);
        assert!(!pair.a.piped.is_over(), "there is something left to say");
        pair.run(|| usize::MAX);
        assert!(pair.a.piped.is_over());
        assert!(pair.a.lost().is_none(), "it knows");
        pair.b.piped.handle_end(pair.now, PipeEnd::Eof);
        pair.b.take_events();
        assert_eq!(pair.b.lost().unwrap().closed, Closed::There { code: 0, reason: String::new() });
        assert_eq!(pair.b.events.iter().filter(|event| matches!(event, ConnEvent::Lost(_))).count(), 1);
    }
}

/// The peer is silent, or breaks the rules, and its pipe takes nothing any more.
#[test]
fn a_pipe_that_takes_nothing_does_not_keep_a_connection_that_is_over() {
    let limits = Limits::default();
    for silent in [true, false] {
        let mut pair = Pair::open(TLS, true);
        let mut now = pair.now + limits.idle_timeout;
        if silent {
            pair.b.piped.handle_timeout(now);
        } else {
            now = pair.now;
            pair.b.piped.session().handle(now, Bytes::from_static(&[9; 12])).expect_err("no frame");
            pair.b.piped.handle_bytes(now, BytesMut::new());
        }
        pair.b.take_events();
        assert!(pair.b.lost().is_some(), "silent: {silent}");
        // Nothing is taken of what it still has to say.
        assert!(!pair.b.piped.is_abandoned());
        let until = pair.b.piped.poll_timeout().expect("it does not wait for ever");
        assert!(until <= now + limits.drain_deadline, "silent: {silent}");
        pair.b.piped.handle_timeout(until);
        assert!(pair.b.piped.is_abandoned(), "silent: {silent}");
    }
}

#[test]
fn the_end_of_the_pipe_is_told_with_its_kind() {
    let end = |end: PipeEnd| {
        let mut pair = Pair::open(NOISE, true);
        pair.a.piped.handle_end(pair.now, end);
        pair.a.take_events();
        assert!(pair.a.piped.is_over() && pair.a.piped.is_abandoned());
        pair.a.lost().unwrap().closed.clone()
    };
    assert!(matches!(end(PipeEnd::Eof), Closed::There { .. }));
    assert_eq!(end(PipeEnd::Reset), Closed::Forgotten);
    let mut pair = Pair::with(NOISE, true);
    pair.a.piped.handle_end(pair.now, PipeEnd::Refused);
    pair.a.take_events();
    assert_eq!(pair.a.lost().unwrap().dial, DialError::NothingListens);
}

/// What the dialler would have sent in all, when nothing goes wrong.
fn conversation(security: &'static [&'static str], early: bool) -> usize {
    let mut pair = Pair::with(security, early);
    let mut sent = 0;
    for _ in 0..8 {
        let up = pair.a.output(pair.now);
        sent += up.len();
        pair.b.hand(pair.now, &up);
        let down = pair.b.output(pair.now);
        pair.a.hand(pair.now, &down);
    }
    assert!(pair.b.is_connected());
    sent
}

#[test]
fn a_peer_that_stops_in_any_stage_is_found_out_in_time() {
    let limits = Limits::default();
    for (security, early) in [(TLS, true), (NOISE, true), (NOISE, false)] {
        for stop in (0..conversation(security, early)).step_by(23) {
            let mut pair = Pair::with(security, early);
            let mut left = stop;
            for _ in 0..8 {
                let up = pair.a.output(pair.now);
                let now = up.len().min(left);
                left -= now;
                pair.b.hand(pair.now, &up[..now]);
                let down = pair.b.output(pair.now);
                pair.a.hand(pair.now, &down);
            }
            pair.wait(limits.handshake_deadline);
            if pair.b.is_connected() && pair.b.lost().is_none() {
                continue;
            }
            let lost = pair.b.lost().unwrap_or_else(|| panic!("stopped after {stop} bytes and nobody noticed"));
            assert!(
                matches!(&lost.dial, DialError::Stuck { waited, .. } if *waited == limits.handshake_deadline / 2),
                "{lost:?}"
            );
        }
    }
}

#[test]
fn a_byte_a_second_is_found_out_within_two_stages() {
    let mut pair = Pair::with(NOISE, true);
    let mut seconds = 0;
    let mut wire = Vec::new();
    while pair.b.lost().is_none() {
        wire.extend(pair.a.output(pair.now));
        let byte = wire.remove(0);
        pair.b.hand(pair.now, &[byte]);
        let down = pair.b.output(pair.now);
        pair.a.hand(pair.now, &down);
        pair.now += Duration::from_secs(1);
        pair.b.piped.handle_timeout(pair.now);
        pair.b.take_events();
        seconds += 1;
        assert!(seconds <= 10);
    }
}

#[test]
fn garbage_costs_the_connection_and_little_memory() {
    for bytes in
        [&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], &[0xff; 3000], &[0x13; 3000], b"\x13/multistream/1.0.0\n\x07/noise\n\xff\xff"]
    {
        let mut pair = Pair::with(BOTH, true);
        let idle = pair.b.piped.held();
        pair.b.hand(pair.now, bytes);
        assert!(pair.b.lost().is_some());
        assert!(pair.b.piped.held() < idle + 4096);
        assert!(!pair.b.piped.wants_input());
        pair.b.output(pair.now);
        assert!(pair.b.piped.is_over());
    }
}

#[test]
fn what_is_not_read_stops_the_pipe_and_reading_opens_it_again() {
    let mut pair = Pair::open(NOISE, true);
    let stream = pair.a.piped.session().open().unwrap();
    let mut body = Bytes::from(vec![1; 200_000]);
    let mut taken = 0;
    while pair.b.piped.wants_input() && taken < 200_000 {
        taken += pair.a.piped.port(stream).write(&mut body).unwrap();
        let piece = pair.a.output(pair.now);
        pair.b.hand(pair.now, &piece);
    }
    assert!(!pair.b.piped.wants_input(), "the smallest window is full");
    assert!(pair.b.piped.held() < 3 * Limits::default().receive_window_min);
    let theirs = pair.b.piped.session().accept().unwrap();
    let (read, _) = pair.b.read_all(theirs);
    assert_eq!(read.len(), taken);
    assert!(pair.b.piped.wants_input());
}

/// The seeds of the fuzz target, and whatever it will have found, through the same function.
#[test]
fn fuzz_corpus() {
    let env = env(7);
    for script in crate::seeds::seeds("pipe") {
        super::fuzz_pipe(&script, &env, start());
    }
}

fn script() -> impl Strategy<Value = Vec<(usize, bool)>> {
    proptest::collection::vec((0..9000usize, any::<bool>()), 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// However the pipe cuts, what was written is what is read.
    #[test]
    fn any_cuts(seed: u64, noise: bool, early: bool, script in script()) {
        let mut pair = Pair::with(if noise { NOISE } else { TLS }, early);
        let mut state = seed | 1;
        let mut cut = move || {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            1 + (state >> 33) as usize % 700
        };
        pair.run(&mut cut);
        for (size, up) in script {
            let (from, to) = if up { (&mut pair.a, &mut pair.b) } else { (&mut pair.b, &mut pair.a) };
            let stream = from.piped.session().open().unwrap();
            let mut body = Bytes::from((0..size).map(|at| at as u8).collect::<Vec<_>>());
            let whole = body.clone();
            prop_assert_eq!(from.piped.port(stream).write(&mut body), Ok(size));
            from.piped.port(stream).finish();
            let _ = to;
            pair.run(&mut cut);
            let to = if up { &mut pair.b } else { &mut pair.a };
            let theirs = to.piped.session().accept().unwrap();
            prop_assert_eq!(to.read_all(theirs), (whole.to_vec(), true));
        }
    }

    /// A byte that was changed ends the connection or is never believed.
    #[test]
    fn any_changed_byte(at in 0..6000usize, change in 1..255u8, noise: bool, early: bool) {
        let mut pair = Pair::with(if noise { NOISE } else { TLS }, early);
        let mut passed = 0;
        let mut opened = None;
        for _ in 0..8 {
            let mut up = pair.a.output(pair.now);
            if let Some(byte) = at.checked_sub(passed).and_then(|at| up.get_mut(at)) {
                *byte ^= change;
            }
            passed += up.len();
            pair.b.hand(pair.now, &up);
            let down = pair.b.output(pair.now);
            pair.a.hand(pair.now, &down);
            if pair.a.is_connected() && opened.is_none() && pair.a.lost().is_none() {
                let stream = pair.a.piped.session().open().unwrap();
                pair.a.piped.port(stream).write(&mut Bytes::from(vec![9; 3000])).unwrap();
                opened = Some(stream);
            }
        }
        if let Some(theirs) = pair.b.piped.session().accept() {
            let (read, _) = pair.b.read_all(theirs);
            prop_assert!(read.iter().all(|byte| *byte == 9), "a changed byte came through");
        }
    }
}
