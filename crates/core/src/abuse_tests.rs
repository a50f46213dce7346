//! The tables alone: caps, rates, and who is named.

#![allow(clippy::disallowed_methods, reason = "a test needs some instant to begin at")]

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const INTERVAL: Duration = Duration::from_secs(10);
const MAX: u32 = 8;
const UNIX: Duration = Duration::from_secs(1_767_225_600);

fn feed() -> (Abuse, Instant) {
    let floor = Abuse::entries_max(MAX) * ABUSE_ENTRY_BYTES;
    let account = crate::budget::Ledger::new(floor).open(floor, floor).expect("it is the budget");
    (Abuse::new(MAX, INTERVAL, account.grant(0).expect("nothing")), Instant::now())
}

fn address(n: u32) -> IpAddr {
    IpAddr::from(n.to_be_bytes())
}

fn proved(n: u32) -> Offender {
    Offender::at(address(n), true)
}

fn peer(n: u8) -> Offender {
    let key = libp2p_identity::Keypair::ed25519_from_bytes([n; 32]).expect("a key");
    Offender::Peer(key.public().to_peer_id())
}

#[test]
fn what_is_alike_is_merged_and_told_when_its_interval_is_over() {
    let (mut feed, start) = feed();
    let seen = Some(SocketAddr::new(address(9), 4001));
    feed.note(start, peer(1), Offence::Malformed, 100, None);
    feed.note(start + 3 * SECOND, peer(1), Offence::Malformed, 50, seen);
    feed.note(start + 4 * SECOND, peer(1), Offence::Oversized, 7, None);
    assert_eq!(feed.take(start + 9 * SECOND, UNIX, false), []);
    let told = feed.take(start + INTERVAL, UNIX, false);
    assert_eq!(told.len(), 2);
    let first = AbuseRecord {
        who: peer(1),
        what: Offence::Malformed,
        count: 2,
        bytes: 150,
        address: seen,
        first: UNIX - INTERVAL,
        last: UNIX - 7 * SECOND,
    };
    assert_eq!(told[0], first);
    assert_eq!(feed.take(start + 100 * SECOND, UNIX, false), [], "each is told once");
    assert_eq!(feed.len(), 0);
}

#[test]
fn below_the_least_number_nobody_is_named() {
    let (mut feed, start) = feed();
    let least = Offence::Churn.least();
    for n in 0..least {
        feed.note(start, proved(1), Offence::Churn, 0, None);
        if n > 0 {
            feed.note(start, proved(2), Offence::Churn, 0, None);
        }
    }
    let told = feed.take(start + INTERVAL, UNIX, false);
    assert_eq!(told.len(), 1, "the other one did too little, and so did all others together: {told:?}");
    assert_eq!((told[0].who, told[0].count), (proved(1), least));
    // The number is one within an interval.
    for n in 0..least {
        feed.note(start + INTERVAL * (10 + n as u32), proved(1), Offence::Churn, 0, None);
    }
    assert_eq!(feed.take(start + INTERVAL * 100, UNIX, false), []);
}

#[test]
fn a_flood_of_names_stays_within_the_cap_and_does_not_hide_who_does_much() {
    let (mut feed, start) = feed();
    let cap = Abuse::entries_max(MAX) as usize;
    let mut noted = 0;
    for n in 0..100_000u32 {
        let now = start + Duration::from_micros(50) * n;
        feed.note(now, Offender::at(address(n), false), Offence::BadPacket, 10, None);
        // More than one part in as many as the table has places.
        if n % 5 == 0 {
            feed.note(now, Offender::at(address(7), false), Offence::BadPacket, 10, None);
            noted += 1;
        }
        assert!(feed.len() <= cap, "{} entries", feed.len());
        assert_eq!(feed.held(), feed.granted());
    }
    feed.note(start, peer(1), Offence::Malformed, 0, None);
    let told = feed.take(start + INTERVAL, UNIX, false);
    let named = |who: Offender| told.iter().filter(|record| record.who == who).map(|record| record.count).sum::<u64>();
    assert_eq!(named(peer(1)), 1, "forged addresses do not push out an identity");
    let heavy = named(Offender::at(address(7), false));
    assert!(heavy > noted * 9 / 10, "{heavy} of {noted}");
    assert_eq!(told.iter().map(|record| record.count).sum::<u64>(), 100_000 + noted + 1, "nothing is lost but names");
    assert!(told.len() <= 3, "those who did it once are not named: {told:?}");
}

#[test]
fn what_is_told_has_a_rate_whatever_happens_and_however_often_it_is_asked() {
    let (mut feed, start) = feed();
    let mut told = 0;
    let minutes = 10;
    for ms in 0..minutes * 60_000u32 {
        let now = start + Duration::from_millis(ms.into());
        // Each name does enough to be told.
        for _ in 0..2 {
            feed.note(now, peer((ms % 200) as u8), Offence::Oversized, 1, None);
            feed.note(now, proved(ms / 50), Offence::BadSeal, 1, None);
        }
        told += feed.take(now, UNIX, false).len();
    }
    let intervals = (minutes * 6 + 1) as usize;
    assert!(told <= intervals * (3 * MAX as usize + Offence::ALL.len()), "{told} records");
    assert!(told >= intervals * MAX as usize, "and no less than there was to tell: {told}");
}

#[test]
fn nobody_asks_and_it_stays_bounded() {
    let (mut feed, start) = feed();
    for n in 0..50_000u32 {
        feed.note(start + SECOND * n, proved(n), Offence::BadSeal, 1, None);
    }
    assert!(feed.len() as u64 <= Abuse::entries_max(MAX));
    let told = feed.take(start + SECOND * 60_000, UNIX, false);
    assert_eq!(told.iter().map(|record| record.count).sum::<u64>(), 50_000);
}

#[test]
fn the_rest_is_told_at_the_end() {
    let (mut feed, start) = feed();
    feed.note(start, peer(1), Offence::Squatting, 0, None);
    assert_eq!(feed.take(start, UNIX, false), []);
    assert_eq!(feed.take(start, UNIX, true).len(), 1);
}

#[test]
fn completed_handshakes_make_up_for_a_crowd() {
    let (mut feed, start) = feed();
    let crowd = address(1);
    for _ in 0..3 * FORGIVEN {
        feed.note(start, Offender::at(crowd, false), Offence::StrangerFlood, 1200, None);
    }
    feed.forgive(crowd);
    feed.forgive(crowd);
    feed.forgive(crowd);
    feed.forgive(crowd);
    assert_eq!(feed.take(start + INTERVAL, UNIX, false), []);
}

#[test]
fn an_ipv6_network_is_one_name() {
    let at = |text: &str| Offender::at(text.parse().expect("an address"), true);
    assert_eq!(at("2001:db8:1:2:3::9"), at("2001:db8:1:2:ffff::1"));
    assert_ne!(at("2001:db8:1:2::"), at("2001:db8:1:3::"));
    assert_eq!(at("::ffff:192.0.2.1"), at("192.0.2.1"));
    assert_ne!(Offender::at(address(1), true), Offender::at(address(1), false));
}
