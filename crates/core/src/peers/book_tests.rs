//! Tests of the address book.

use std::time::Duration;

use proptest::prelude::*;

use super::super::provenance::Path;
use super::*;
use crate::limits::{BOOK_CLAIM_FOR, BOOK_INBOUND_FOR};

const ROOM: u64 = 1 << 20;

/// A peer id of its own for each number: the hash of a key that nobody has.
fn peer(number: u16) -> PeerId {
    let mut hash = [9; 32];
    hash[..2].copy_from_slice(&number.to_le_bytes());
    PeerId::from_bytes(&[&[0x12, 0x20], &hash[..]].concat()).expect("a multihash of SHA-256")
}

fn book(bytes: u64) -> Book {
    Book::new(peer(u16::MAX), bytes)
}

#[allow(clippy::disallowed_methods, reason = "any instant will do to start from")]
fn start() -> Instant {
    Instant::now()
}

fn address(text: &str) -> Multiaddr {
    text.parse().expect("a multiaddr")
}

fn quic(ip: &str) -> Multiaddr {
    address(&format!("/{}/{ip}/udp/4001/quic-v1", if ip.contains(':') { "ip6" } else { "ip4" }))
}

fn path(ip: &str) -> Path {
    Path::to(ip.parse().expect("an address"))
}

fn identify(from: &str) -> Source {
    Source::Identify { path: path(from) }
}

fn dialable(book: &Book, now: Instant, number: u16) -> Vec<Multiaddr> {
    book.candidates(now, &peer(number)).into_iter().map(|candidate| candidate.address).collect()
}

/// Principle I2 and attack 38, at the door: what leads elsewhere from here is not kept, whatever remote tells it and however.
#[test]
fn what_does_not_hold_over_its_path_is_not_kept() {
    let now = start();
    let from = "9.9.9.9";
    let near = ["127.0.0.1", "10.0.0.1", "192.168.1.1", "169.254.1.1", "100.64.0.1", "::1", "fe80::1", "fd00::1"];
    let never = ["0.0.0.0", "224.0.0.1", "255.255.255.255", "203.0.113.1", "198.18.0.1", "2002::1", "::ffff:10.0.0.1", "ff02::1"];
    let sources = [
        identify(from),
        Source::Record { seq: 1, path: path(from) },
        Source::Inbound { path: path(from) },
        Source::Hearsay { path: path(from) },
    ];
    for source in sources {
        let mut book = book(ROOM);
        for ip in near.iter().chain(&never) {
            let why = book.add(now, peer(1), &quic(ip), source).expect_err(ip);
            assert!(matches!(why, Unusable::OutOfScope { .. } | Unusable::NotAHost(_)), "{ip}: {why}");
        }
        assert!(book.add(now, peer(1), &address("/dns4/localhost/tcp/22"), source).is_err());
        assert_eq!((book.peers(), book.bytes()), (0, 0));
        book.add(now, peer(1), &quic("8.8.8.8"), source).expect("it holds");
        assert_eq!(dialable(&book, now, 1), [quic("8.8.8.8")]);
    }
    // A neighbour may speak of the neighbourhood, and who is on this machine of this machine.
    let mut book = book(ROOM);
    book.add(now, peer(1), &quic("10.0.0.1"), identify("192.168.1.1")).expect("it holds");
    book.add(now, peer(1), &quic("127.0.0.1"), identify("192.168.1.1")).expect_err("not of this machine");
    book.add(now, peer(1), &quic("127.0.0.1"), identify("127.0.0.1")).expect("it holds");
    // Somebody who was ever farther away has no say about what is near.
    let moved = Source::Identify { path: path("10.0.0.9").at_least(Scope::Global) };
    book.add(now, peer(2), &quic("10.0.0.1"), moved).expect_err("it was seen at a global address");
}

#[test]
fn the_application_may_name_any_host() {
    let (now, mut book) = (start(), book(ROOM));
    for ip in ["127.0.0.1", "10.0.0.1", "203.0.113.1", "8.8.8.8"] {
        book.add(now, peer(1), &quic(ip), Source::Application).expect(ip);
    }
    for ip in ["0.0.0.0", "224.0.0.1"] {
        assert!(matches!(book.add(now, peer(1), &quic(ip), Source::Application), Err(Unusable::NotAHost(_))));
    }
    let add = |book: &mut Book, text: String| book.add(now, peer(1), &address(&text), Source::Application);
    assert_eq!(add(&mut book, "/tcp/1".to_owned()), Err(Unusable::NoHost));
    let (own, other) = (peer(1), peer(2));
    assert_eq!(add(&mut book, format!("/ip4/8.8.8.8/udp/4001/quic-v1/p2p/{other}")), Err(Unusable::OtherPeer(other)));
    add(&mut book, format!("/ip4/8.8.8.8/udp/4001/quic-v1/p2p/{own}")).expect("its own name");
    assert_eq!(dialable(&book, now, 1).len(), 4, "with and without the name it is one address");
    assert_eq!(book.add(now, peer(u16::MAX), &quic("8.8.8.8"), Source::Application), Err(Unusable::Itself));
    let name = "n".repeat(BOOK_ADDRESS_BYTES_MAX);
    assert!(matches!(add(&mut book, format!("/dns4/{name}/tcp/1")), Err(Unusable::TooLong { .. })));
}

/// What a remote's name resolves to is held to the same rule as a remote's address.
#[test]
fn names_are_asked_about_again_when_they_are_resolved() {
    let (now, mut book) = (start(), book(ROOM));
    let name = address("/dns4/a.example.org/udp/1/quic-v1");
    book.add(now, peer(1), &name, identify("9.9.9.9")).expect("a global name");
    let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
    let candidate = book.candidates(now, &peer(1)).remove(0);
    assert_eq!(candidate.told_over, Some(Scope::Global));
    assert!(candidate.may_reach(ip("8.8.8.8")));
    assert!(!candidate.may_reach(ip("10.0.0.1")) && !candidate.may_reach(ip("127.0.0.1")));
    // It has worked; that does not let it lead elsewhere later.
    book.worked(now, &peer(1), &name);
    book.replace(now, peer(1), &[], identify("9.9.9.9"));
    let candidate = book.candidates(now, &peer(1)).remove(0);
    assert!(candidate.evidence.is_proof() && !candidate.may_reach(ip("10.0.0.1")));
    book.add(now, peer(1), &name, Source::Application).expect("a name");
    assert!(book.candidates(now, &peer(1)).remove(0).may_reach(ip("10.0.0.1")), "for the application it may");
}

/// Principle I5: unproven addresses are not passed on, however many say them.
#[test]
fn only_what_is_proven_is_passed_on() {
    let (now, mut book) = (start(), book(ROOM));
    let told = quic("8.8.8.8");
    let from = path("9.9.9.9");
    for source in [
        Source::Application,
        Source::Identify { path: from },
        Source::Record { seq: 3, path: from },
        Source::Inbound { path: from },
        Source::Hearsay { path: from },
    ] {
        book.add(now, peer(1), &told, source).expect("it holds");
        assert_eq!(book.proven(now, &peer(1), Scope::Global), [], "{source:?}");
    }
    assert_eq!(book.candidates(now, &peer(1))[0].evidence, Evidence::Signed { seq: 3 });
    book.worked(now, &peer(1), &told);
    assert_eq!(book.proven(now, &peer(1), Scope::Global), [told]);
    // What works here need not hold there.
    let near = quic("10.0.0.1");
    book.worked(now, &peer(2), &near);
    assert_eq!(book.proven(now, &peer(2), Scope::Global), []);
    assert_eq!(book.proven(now, &peer(2), Scope::Private), [near]);
    let back = quic("8.8.4.4");
    book.add(now, peer(3), &back, Source::Application).expect("it holds");
    book.dialled_back(now, &peer(3), &back);
    assert_eq!(book.proven(now, &peer(3), Scope::Global), [back]);
}

#[test]
fn the_order_is_by_evidence_then_by_scope_then_by_age() {
    let (now, mut book) = (start(), book(ROOM));
    book.set_local(vec!["10.0.0.7".parse().expect("an address")]);
    let from = identify("10.0.0.9");
    book.replace(now, peer(1), &[quic("172.16.0.1"), quic("9.9.9.9"), quic("10.0.0.1")], from);
    assert_eq!(dialable(&book, now, 1), [quic("10.0.0.1"), quic("9.9.9.9"), quic("172.16.0.1")], "near, far, elsewhere");
    book.add(now, peer(1), &quic("10.7.7.7"), Source::Application).expect("a host");
    assert_eq!(dialable(&book, now, 1)[0], quic("10.7.7.7"), "what was asked for is before what was heard");
    book.worked(now, &peer(1), &quic("172.16.0.1"));
    assert_eq!(dialable(&book, now, 1)[0], quic("172.16.0.1"), "what has worked is first");
    book.worked(now + Duration::from_secs(1), &peer(1), &quic("9.9.9.9"));
    assert_eq!(dialable(&book, now, 1)[..2], [quic("9.9.9.9"), quic("172.16.0.1")], "of two that have worked the one that fits");
    book.failed(now, &peer(1), &quic("9.9.9.9"));
    assert_eq!(dialable(&book, now, 1)[3], quic("9.9.9.9"), "what fails now comes last");
    let failing = &book.candidates(now, &peer(1))[3];
    assert_eq!((failing.failures, failing.failed_at), (1, Some(now)));
    // Of one telling, the teller's order; of several, the last.
    book.replace(now, peer(2), &[quic("8.8.8.1"), quic("8.8.8.2")], Source::Application);
    book.add_all(now, peer(2), &[quic("8.8.8.3"), quic("8.8.8.4")], Source::Application);
    assert_eq!(dialable(&book, now, 2), [3, 4, 1, 2].map(|last| quic(&format!("8.8.8.{last}"))));
}

#[test]
fn claims_expire_and_the_applications_word_does_not() {
    let (now, mut book) = (start(), book(ROOM));
    let from = path("9.9.9.9");
    book.add(now, peer(1), &quic("8.8.8.1"), Source::Application).expect("it holds");
    book.add(now, peer(2), &quic("8.8.8.2"), Source::Identify { path: from }).expect("it holds");
    book.add(now, peer(3), &quic("8.8.8.3"), Source::Inbound { path: from }).expect("it holds");
    book.worked(now, &peer(4), &quic("8.8.8.4"));
    let count = |book: &Book, now: Instant| (1..=4).filter(|number| !dialable(book, now, *number).is_empty()).count();
    let second = Duration::from_secs(1);
    assert_eq!(count(&book, now + BOOK_INBOUND_FOR - second), 4);
    assert_eq!(count(&book, now + BOOK_INBOUND_FOR), 3);
    assert_eq!(count(&book, now + BOOK_CLAIM_FOR - second), 3);
    assert_eq!(count(&book, now + BOOK_CLAIM_FOR), 2);
    assert_eq!(count(&book, now + BOOK_WORKED_FOR), 1);
    // Connected for hours: the claim is as good as at the end.
    book.disconnected(now + BOOK_CLAIM_FOR - second, &peer(2));
    assert_eq!(count(&book, now + BOOK_CLAIM_FOR), 3);
    assert_eq!(book.peers(), 4);
    book.forget_expired(now + BOOK_WORKED_FOR);
    assert_eq!(book.peers(), 1, "what has expired takes no room");
}

#[test]
fn a_peers_word_replaces_its_earlier_one() {
    let (now, mut book) = (start(), book(ROOM));
    let from = identify("9.9.9.9");
    book.add(now, peer(1), &quic("8.8.8.9"), Source::Application).expect("it holds");
    book.replace(now, peer(1), &[quic("8.8.8.1"), quic("8.8.8.2")], from);
    book.worked(now, &peer(1), &quic("8.8.8.1"));
    book.replace(now, peer(1), &[quic("8.8.8.3")], from);
    assert_eq!(dialable(&book, now, 1), [1, 9, 3].map(|last| quic(&format!("8.8.8.{last}"))), "what has worked stays");
}

#[test]
fn an_older_record_changes_nothing() {
    let (now, mut book) = (start(), book(ROOM));
    let record = |seq| Source::Record { seq, path: path("9.9.9.9") };
    book.replace(now, peer(1), &[quic("8.8.8.1")], record(5));
    let refused = book.replace(now, peer(1), &[quic("8.8.8.2")], record(4));
    assert_eq!(refused, [(quic("8.8.8.2"), Unusable::Stale { seq: 4, known: 5 })]);
    assert_eq!((dialable(&book, now, 1), book.record_seq(&peer(1))), (vec![quic("8.8.8.1")], Some(5)));
    book.replace(now, peer(1), &[quic("8.8.8.4")], record(6));
    assert_eq!(dialable(&book, now, 1), [quic("8.8.8.4")]);
}

/// A peer that is connected over two paths says less over the farther one; that takes nothing back of what it said over the nearer.
#[test]
fn what_was_told_near_is_not_taken_back_from_afar() {
    let (now, mut book) = (start(), book(ROOM));
    let (near, far) = (identify("10.0.0.9"), identify("9.9.9.9"));
    book.replace(now, peer(1), &[quic("10.0.0.9"), quic("9.9.9.9")], near);
    book.replace(now, peer(1), &[quic("9.9.9.9")], far);
    assert_eq!(dialable(&book, now, 1).len(), 2);
    book.replace(now, peer(1), &[quic("9.9.9.9")], near);
    assert_eq!(dialable(&book, now, 1), [quic("9.9.9.9")]);
}

#[test]
fn what_fails_again_and_again_is_forgotten_unless_somebody_stands_for_it() {
    let (now, mut book) = (start(), book(ROOM));
    book.add(now, peer(1), &quic("8.8.8.1"), identify("9.9.9.9")).expect("it holds");
    book.add(now, peer(1), &quic("8.8.8.2"), Source::Application).expect("it holds");
    book.add(now, peer(1), &quic("8.8.8.3"), identify("9.9.9.9")).expect("it holds");
    book.worked(now, &peer(1), &quic("8.8.8.3"));
    for _ in 0..BOOK_FAILURES_MAX {
        assert_eq!(dialable(&book, now, 1).len(), 3);
        for last in 1..=3 {
            book.failed(now, &peer(1), &quic(&format!("8.8.8.{last}")));
        }
    }
    assert_eq!(dialable(&book, now, 1), [quic("8.8.8.3"), quic("8.8.8.2")]);
    book.worked(now, &peer(1), &quic("8.8.8.2"));
    assert_eq!(book.candidates(now, &peer(1))[0].failures, 0);
}

/// Attack 37: neither the peer itself nor others push out what is better vouched for.
#[test]
fn of_one_peer_what_is_worse_vouched_for_goes_first() {
    let (now, mut book) = (start(), book(ROOM));
    book.worked(now, &peer(1), &quic("8.8.8.1"));
    book.add(now, peer(1), &quic("8.8.8.2"), Source::Application).expect("it holds");
    let kept = [quic("8.8.8.1"), quic("8.8.8.2")];
    let many = |third: u8| (0..40).map(|last| quic(&format!("8.8.{third}.{last}"))).collect::<Vec<_>>();
    book.replace(now, peer(1), &many(1), Source::Hearsay { path: path("7.7.7.7") });
    assert_eq!(dialable(&book, now, 1).len(), BOOK_ADDRESSES_MAX);
    book.add_all(now, peer(1), &many(2), identify("9.9.9.9"));
    let all = dialable(&book, now, 1);
    assert_eq!((all.len(), &all[..2]), (BOOK_ADDRESSES_MAX, &kept[..]));
    assert!(all[2..].iter().all(|address| address.to_string().contains("8.8.2.")), "hearsay gave way: {all:?}");
    assert_eq!(book.add(now, peer(1), &quic("6.6.6.6"), Source::Hearsay { path: path("7.7.7.7") }), Err(Unusable::Full));
}

/// Attack 37: a flood of identities from one network fills only what nobody else wants, and never costs what has worked or was told here.
#[test]
fn a_flood_from_one_network_leaves_the_others_theirs() {
    let (now, mut book) = (start(), book(100 << 10));
    book.worked(now, &peer(1), &quic("8.8.8.1"));
    book.add(now, peer(2), &quic("8.8.8.2"), Source::Application).expect("it holds");
    for number in 10..20 {
        let from = format!("20.{number}.1.1");
        book.add(now, peer(number), &quic(&from), identify(&from)).expect("there is room");
    }
    for number in 100..1_100 {
        book.replace(now, peer(number), &[quic("66.6.1.1"), quic("66.6.1.2")], identify("66.6.1.1"));
        assert!(book.bytes() <= book.bytes_max());
    }
    let left = |range: std::ops::Range<u16>| range.filter(|number| !dialable(&book, now, *number).is_empty()).count();
    assert_eq!((left(1..3), left(10..20)), (2, 10), "the flood pushed out nothing but itself");
    assert!(left(100..1_100) > 10, "and has what is left");
    assert!(!dialable(&book, now, 1_099).is_empty(), "its newest stay");
}

#[test]
fn a_full_book_refuses_what_is_worse_than_all_in_it() {
    let (now, mut book) = (start(), book(8 << 10));
    for number in 0..100 {
        book.add(now, peer(number), &quic("8.8.8.1"), Source::Application).expect("the oldest goes");
    }
    let before = book.peers();
    assert!((2..100).contains(&before));
    let claim = book.add(now, peer(200), &quic("8.8.8.1"), identify("9.9.9.9"));
    assert_eq!((claim, book.peers()), (Err(Unusable::Full), before));
    book.worked(now, &peer(201), &quic("8.8.8.1"));
    assert!(!dialable(&book, now, 201).is_empty(), "what has worked comes before what was only told");
}

#[derive(Debug, Clone)]
enum Act {
    Tell { peer: u16, hosts: Vec<u8>, source: u8, from: u8, all: bool },
    Worked { peer: u16, host: u8 },
    Failed { peer: u16, host: u8 },
    Gone { peer: u16 },
    Sweep,
}

fn act() -> impl Strategy<Value = Act> {
    let hosts = proptest::collection::vec(any::<u8>(), 0..24);
    prop_oneof![
        4 => (0u16..12, hosts, 0u8..5, any::<u8>(), any::<bool>())
            .prop_map(|(peer, hosts, source, from, all)| Act::Tell { peer, hosts, source, from, all }),
        1 => (0u16..12, any::<u8>()).prop_map(|(peer, host)| Act::Worked { peer, host }),
        2 => (0u16..12, any::<u8>()).prop_map(|(peer, host)| Act::Failed { peer, host }),
        1 => (0u16..12).prop_map(|peer| Act::Gone { peer }),
        1 => Just(Act::Sweep),
    ]
}

/// Addresses of every kind.
fn host(number: u8) -> Multiaddr {
    match number % 6 {
        0 => quic(&format!("8.8.8.{number}")),
        1 => quic(&format!("10.0.0.{number}")),
        2 => quic("127.0.0.1"),
        3 => quic(&format!("2606:4700::{number:x}")),
        4 => address(&format!("/dns4/host{number}.example.org/tcp/1")),
        _ => quic(&format!("203.0.113.{number}")),
    }
}

proptest! {
    /// Whatever is done: bytes are what a fresh count gives and within the cap, addresses within theirs, nothing that only remotes vouch for is dialable against the
    /// scope it was told by, and nothing unproven is passed on.
    #[test]
    fn the_caps_and_rules_hold_whatever_the_order(acts in proptest::collection::vec(act(), 0..60), room in 2_000u64..40_000) {
        let mut now = start();
        let mut book = book(room);
        let mut proven = std::collections::BTreeSet::new();
        for act in acts {
            now += Duration::from_secs(100);
            match act {
                Act::Tell { peer: number, hosts, source, from, all } => {
                    let path = path(["9.9.9.9", "10.0.0.3", "127.0.0.1", "66.6.6.6"][usize::from(from) % 4]);
                    let seq = u64::from(from);
                    let source = match source {
                        0 => Source::Application,
                        1 => Source::Identify { path },
                        2 => Source::Record { seq, path },
                        3 => Source::Inbound { path },
                        _ => Source::Hearsay { path },
                    };
                    let hosts: Vec<Multiaddr> = hosts.into_iter().map(host).collect();
                    if all { book.replace(now, peer(number), &hosts, source) } else { book.add_all(now, peer(number), &hosts, source) };
                }
                Act::Worked { peer: number, host: at } => {
                    book.worked(now, &peer(number), &host(at));
                    proven.insert((number, host(at)));
                }
                Act::Failed { peer: number, host: at } => book.failed(now, &peer(number), &host(at)),
                Act::Gone { peer: number } => book.disconnected(now, &peer(number)),
                Act::Sweep => book.forget_expired(now),
            }
            prop_assert!(book.bytes() <= room);
            let mut sum = 0;
            for number in 0..12 {
                let known = book.shelves.get(&peer(number));
                sum += known.map_or(0, Known::cost);
                prop_assert!(known.is_none_or(|known| known.entries.len() <= BOOK_ADDRESSES_MAX && !known.is_empty()));
                for candidate in book.candidates(now, &peer(number)) {
                    prop_assert!(candidate.scope.is_host());
                    let allowed = candidate.told_over.is_none_or(|path| candidate.scope.holds_over(path));
                    prop_assert!(allowed || candidate.evidence.is_proof(), "{candidate:?}");
                    prop_assert_eq!(candidate.evidence.is_proof(), candidate.evidence.is_proof() && proven.contains(&(number, candidate.address.clone())));
                }
                for address in book.proven(now, &peer(number), Scope::Private) {
                    prop_assert!(proven.contains(&(number, address)));
                }
            }
            prop_assert_eq!(sum, book.bytes());
        }
    }
}
