//! Names: what is asked, what answers lead to, and that nobody's records make us ask without end.

use std::collections::BTreeMap;

use super::*;

const PEER: &str = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";
const OTHER: &str = "12D3KooWJWoaqZhDaoEFshF7Rh1bpY9ohihFhzcW6d69Lr2NASuq";

fn peer(text: &str) -> PeerId {
    text.parse().expect("a peer id")
}

/// Name servers: what each question is answered with.
type Zone<'a> = BTreeMap<(&'a str, Record), Vec<String>>;

fn zone<'a>(rows: &[(&'a str, Record, &[&str])]) -> Zone<'a> {
    rows.iter().map(|(name, record, values)| ((*name, *record), values.iter().map(ToString::to_string).collect())).collect()
}

fn answer(values: &[String], record: Record) -> Answer {
    match record {
        Record::Text => Answer { texts: values.to_vec(), ips: Vec::new() },
        _ => Answer { ips: values.iter().filter_map(|value| value.parse().ok()).collect(), texts: Vec::new() },
    }
}

#[allow(clippy::disallowed_methods, reason = "any instant will do to start from")]
fn now() -> Instant {
    Instant::now()
}

/// Asks until nothing is left. What was found, and how many questions there were.
fn all(addresses: &[&str], zone: &Zone<'_>) -> (Vec<Found>, usize) {
    let (mut names, now, mut asked) = (Names::new(peer(PEER)), now(), 0);
    let mut found: Vec<Found> =
        addresses.iter().filter_map(|text| names.add(&text.parse().expect("a multiaddr"), None)).collect();
    loop {
        let mut bad = Vec::new();
        let question = names.ask(now, &mut bad);
        found.append(&mut bad);
        let Some((number, Question { name, record })) = question else {
            break;
        };
        asked += 1;
        assert!(asked < 1_000, "it asks without end");
        let values = zone.get(&(name.as_str(), record));
        found.extend(names.answered(number, values.map(|values| answer(values, record)).ok_or(LookupError::NotFound)));
    }
    assert!(!names.is_open());
    (found, asked)
}

fn hosts(found: &[Found]) -> Vec<String> {
    let hosts = found.iter().filter_map(|found| match found {
        Found::Host(way, at, _) => Some(format!("{way:?} {at}")),
        Found::Bad(..) => None,
    });
    hosts.collect()
}

fn errors(found: &[Found]) -> Vec<String> {
    let bad = found.iter().filter_map(|found| match found {
        Found::Host(..) => None,
        Found::Bad(_, error) => Some(error.to_string()),
    });
    bad.collect()
}

#[test]
fn host_names_lead_to_addresses_of_the_wanted_ip_version() {
    let zone = zone(&[
        ("example.org", Record::V4, &["9.0.0.1", "9.0.0.2"]),
        ("example.org", Record::V6, &["2000::1"]),
        ("four.example.org", Record::V4, &["9.0.0.4"]),
    ]);
    let (found, asked) = all(&["/dns/example.org/udp/7/quic-v1"], &zone);
    assert_eq!(hosts(&found), ["Quic [2000::1]:7", "Quic 9.0.0.1:7", "Quic 9.0.0.2:7"]);
    assert_eq!(asked, 2);
    let (found, _) = all(&["/dns4/example.org/tcp/7"], &zone);
    assert_eq!(hosts(&found), ["Tcp 9.0.0.1:7", "Tcp 9.0.0.2:7"]);
    let (found, _) = all(&["/dns/four.example.org/tcp/7", "/dns6/nowhere.example.org/tcp/7"], &zone);
    assert_eq!(hosts(&found), ["Tcp 9.0.0.4:7"]);
    assert!(errors(&found).iter().any(|text| text.contains("nowhere.example.org does not exist")), "{:?}", errors(&found));
}

#[test]
fn one_name_for_two_transports_is_asked_for_once() {
    let zone = zone(&[("example.org", Record::V4, &["9.0.0.1"])]);
    let mut names = Names::new(peer(PEER));
    for text in ["/dns4/example.org/udp/7/quic-v1", "/dns4/example.org/tcp/8"] {
        assert_eq!(names.add(&text.parse().expect("a multiaddr"), None), None);
    }
    let mut bad = Vec::new();
    let (number, question) = names.ask(now(), &mut bad).expect("a question");
    assert_eq!(names.ask(now(), &mut bad), None);
    let values = &zone[&(question.name.as_str(), question.record)];
    assert_eq!(hosts(&names.answered(number, Ok(answer(values, question.record)))), ["Quic 9.0.0.1:7", "Tcp 9.0.0.1:8"]);
    assert!(names.answered(number, Ok(Answer::default())).is_empty(), "an answer counts once");
}

#[test]
fn lists_lead_on_and_those_of_others_in_them_are_left_out() {
    let zone = zone(&[
        (
            "_dnsaddr.boot.example.org",
            Record::Text,
            &[
                &format!("dnsaddr=/dnsaddr/one.example.org/p2p/{PEER}"),
                &format!("dnsaddr=/dnsaddr/two.example.org/p2p/{OTHER}"),
                "v=spf1 -all",
                "dnsaddr=no address",
            ],
        ),
        (
            "_dnsaddr.one.example.org",
            Record::Text,
            &[
                &format!("dnsaddr=/ip4/9.0.0.1/udp/7/quic-v1/p2p/{PEER}"),
                &format!("dnsaddr=/ip4/9.0.0.9/udp/7/quic-v1/p2p/{OTHER}"),
                &format!("dnsaddr=/dns4/host.example.org/tcp/8/p2p/{PEER}"),
                &format!("dnsaddr=/ip4/9.0.0.1/tcp/7/ws/p2p/{PEER}"),
            ],
        ),
        ("host.example.org", Record::V4, &["9.0.0.2"]),
    ]);
    let (found, asked) = all(&[&format!("/dnsaddr/boot.example.org/p2p/{PEER}")], &zone);
    assert_eq!(hosts(&found), ["Quic 9.0.0.1:7", "Tcp 9.0.0.2:8"]);
    assert_eq!(asked, 3);
    let (found, _) = all(&["/dnsaddr/boot.example.org"], &zone);
    assert_eq!(hosts(&found), ["Quic 9.0.0.1:7", "Tcp 9.0.0.2:8"], "without an identity those of the wanted one are taken");
}

/// Attack 49: records that point at each other, or at ever more.
#[test]
fn loops_and_floods_of_records_end() {
    let to = |name: &str| format!("dnsaddr=/dnsaddr/{name}/p2p/{PEER}");
    let (a, b, own) = (to("a.example.org"), to("b.example.org"), to("own.example.org"));
    let pointing = zone(&[
        ("_dnsaddr.a.example.org", Record::Text, &[&b]),
        ("_dnsaddr.b.example.org", Record::Text, &[&a]),
        ("_dnsaddr.own.example.org", Record::Text, &[&own, &own]),
    ]);
    let (found, asked) = all(&["/dnsaddr/a.example.org"], &pointing);
    assert!(asked <= 3 && hosts(&found).is_empty(), "{asked}");
    let (_, asked) = all(&["/dnsaddr/own.example.org"], &pointing);
    assert!(asked <= 2, "{asked}");
    // A chain without a loop ends at its depth.
    let names: Vec<String> = (0..40).map(|n| format!("_dnsaddr.{n}.example.org")).collect();
    let mut chain = Zone::new();
    for (n, name) in names.iter().enumerate() {
        chain.insert((name, Record::Text), vec![to(&format!("{}.example.org", n + 1))]);
    }
    let (found, asked) = all(&["/dnsaddr/0.example.org"], &chain);
    assert_eq!(asked, LOOKUP_DEPTH_MAX as usize);
    assert!(errors(&found)[0].contains("point at each other"), "{:?}", errors(&found));
    // A tree of a hundred times a hundred ends at its count of questions.
    let mut tree = Zone::new();
    let leaves: Vec<String> = (0..100).map(|n| format!("_dnsaddr.{n}.wide.example.org")).collect();
    tree.insert(("_dnsaddr.wide.example.org", Record::Text), (0..100).map(|n| to(&format!("{n}.wide.example.org"))).collect());
    for (at, leaf) in leaves.iter().enumerate() {
        tree.insert((leaf, Record::Text), (0..100).map(|n| to(&format!("{}.deep.example.org", at * 100 + n))).collect());
    }
    let (found, asked) = all(&["/dnsaddr/wide.example.org"], &tree);
    assert_eq!(asked, LOOKUPS_PER_CONNECT_MAX as usize);
    assert!(found.len() <= 2 * LOOKUP_ANSWERS_MAX, "{}", found.len());
}

#[test]
fn answers_are_counted_over_all_questions() {
    let many: Vec<String> = (0..200).map(|n| format!("9.0.{}.{}", n / 100, n % 100)).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let zone = zone(&[("a.example.org", Record::V4, &many), ("b.example.org", Record::V4, &many)]);
    let (found, asked) = all(&["/dns4/a.example.org/tcp/1", "/dns4/b.example.org/tcp/1"], &zone);
    assert_eq!((hosts(&found).len(), asked), (LOOKUP_ANSWERS_MAX, 2));
}

#[test]
fn public_names_do_not_lead_into_private_networks() {
    let local = ["127.0.0.1", "10.0.0.1", "192.168.1.1", "169.254.1.1", "100.64.0.1", "0.0.0.0", "224.0.0.1"];
    let zone = zone(&[
        ("example.org", Record::V4, &local),
        ("example.org", Record::V6, &["::1", "fd00::1", "fe80::1", "::ffff:10.0.0.1", "64:ff9b::10.0.0.1"]),
        ("nas.local", Record::V4, &["192.168.1.1", "127.0.0.1"]),
        ("nas", Record::V4, &["192.168.1.1", "169.254.1.1"]),
        ("localhost", Record::V4, &["127.0.0.1"]),
        ("_dnsaddr.example.org", Record::Text, &["dnsaddr=/ip4/10.0.0.1/tcp/22", "dnsaddr=/ip4/9.0.0.1/tcp/22"]),
        ("notlocal", Record::V4, &["127.0.0.1"]),
        ("_dnsaddr.sly.example.org", Record::Text, &["dnsaddr=/dns4/nas.local/tcp/22", "dnsaddr=/dns4/localhost/tcp/22"]),
    ]);
    let dialled = |address: &str| hosts(&all(&[address], &zone).0);
    assert_eq!(dialled("/dns/example.org/tcp/1"), [""; 0]);
    assert_eq!(dialled("/dnsaddr/example.org"), ["Tcp 9.0.0.1:22"]);
    assert_eq!(dialled("/dns4/nas.local/tcp/1"), ["Tcp 192.168.1.1:1"]);
    assert_eq!(dialled("/dns4/nas/tcp/1"), ["Tcp 192.168.1.1:1"]);
    assert_eq!(dialled("/dns4/localhost/tcp/1"), ["Tcp 127.0.0.1:1"]);
    assert_eq!(dialled("/dns4/notlocal/tcp/1"), [""; 0]);
    assert_eq!(dialled("/dnsaddr/sly.example.org"), [""; 0], "a public list does not open private names");
    let (found, _) = all(&["/dns4/example.org/tcp/1"], &zone);
    assert!(errors(&found)[0].contains("example.org") && errors(&found)[0].contains("127.0.0.1"), "{:?}", errors(&found));
    // What a remote told over the Internet leads nowhere else, whatever its name.
    let mut names = Names::new(peer(PEER));
    names.add(&"/dns4/nas.local/tcp/1".parse().expect("a multiaddr"), Some(Scope::Global));
    let (number, question) = names.ask(now(), &mut Vec::new()).expect("a question");
    let values = &zone[&(question.name.as_str(), question.record)];
    assert_eq!(hosts(&names.answered(number, Ok(answer(values, question.record)))), [""; 0]);
}

#[test]
fn a_silent_resolver_is_given_up_at_the_deadline() {
    let (mut names, begin) = (Names::new(peer(PEER)), now());
    names.add(&"/dns4/example.org/tcp/1".parse().expect("a multiaddr"), None);
    let (number, _) = names.ask(begin, &mut Vec::new()).expect("a question");
    let until = names.deadline().expect("it has one");
    assert_eq!(until, begin + LOOKUP_DEADLINE);
    assert!(names.expire(until - Duration::from_millis(1)).is_empty());
    let found = names.expire(until);
    assert!(errors(&found)[0].contains("name server"), "{:?}", errors(&found));
    assert!(names.answered(number, Ok(Answer::default())).is_empty() && !names.is_open());
}

#[test]
fn an_identity_that_is_not_wanted_is_an_error_where_it_was_given() {
    let (found, asked) = all(&[&format!("/dns4/example.org/tcp/1/p2p/{OTHER}")], &Zone::new());
    assert!(matches!(found[..], [Found::Bad(_, DialError::WrongPeer { .. })]));
    assert_eq!(asked, 0);
}
