//! Dialling: what a network without UDP, or without one of the IP versions, costs; how names are followed; what is said when nothing helps.

mod common;

use std::time::Duration;

use strait::{ConnectError, DialError, Multiaddr};
use strait_sim::{Link, NodeConfig, SimNode, World, scenario};

const MS: Duration = Duration::from_millis(1);
/// What a network that swallows something may cost.
const BLINK: Duration = Duration::from_secs(1);

fn address(text: &str) -> Multiaddr {
    text.parse().expect("a multiaddr")
}

/// Addresses of IPv6, at which nobody is: their packets vanish.
fn nowhere(count: usize) -> Vec<Multiaddr> {
    let quic = (1..).map(|n| address(&format!("/ip6/fd00::{n}/udp/4001/quic-v1")));
    let tcp = (1..).map(|n| address(&format!("/ip6/fd00::{n}/tcp/4001")));
    quic.zip(tcp).flat_map(|(quic, tcp)| [quic, tcp]).take(count).collect()
}

/// A node that can be reached both ways.
fn both_ways(world: &mut World) -> SimNode {
    world.node(NodeConfig { quic: true, tcp: true, ..NodeConfig::default() })
}

/// How long it takes a new node, behind `link`, to connect to `server` with these addresses.
fn time_to_connect(world: &mut World, server: &SimNode, link: &Link, addresses: &[Multiaddr]) -> Duration {
    let client = world.node(NodeConfig::default());
    world.net().set_both(client.id(), server.id(), link.clone());
    let begin = world.now();
    world.block_on(client.connect(server.peer_id(), addresses)).expect("one address is good");
    let took = world.now() - begin;
    let totals = client.counters().totals;
    assert!(totals.dials <= addresses.len() as u64, "{} dials", totals.dials);
    world.run_for(Duration::from_secs(30));
    assert_eq!(client.audit().connections, 1, "what lost is gone");
    took
}

#[test]
fn black_holes_cost_a_blink() {
    scenario("black_holes_cost_a_blink", 2, |world| {
        let server = both_ways(world);
        let good = server.addresses().to_vec();
        let (quic, tcp) = (good[..1].to_vec(), good[1..].to_vec());
        let open = Link::new(30 * MS);
        let own_quic = time_to_connect(world, &server, &open, &quic);
        let own_tcp = time_to_connect(world, &server, &open, &tcp);
        let with = |mut bad: Vec<Multiaddr>, good: &[Multiaddr]| {
            bad.extend_from_slice(good);
            bad
        };
        let no_udp = open.clone().without_udp();
        let cases = [
            // What else is known costs a little work.
            ("both fine", &open, good.clone(), own_quic, MS),
            ("UDP black-holed", &no_udp, good.clone(), own_tcp, BLINK),
            ("IPv6 black-holed", &open, with(nowhere(4), &good), own_quic, BLINK),
            ("IPv6 and UDP black-holed", &no_udp, with(nowhere(4), &good), own_tcp, BLINK),
            ("one of eight, over QUIC", &open, with(nowhere(7), &quic), own_quic, BLINK),
            ("one of eight, over TCP", &open, with(nowhere(7), &tcp), own_tcp, BLINK),
        ];
        for (name, link, addresses, own, most) in cases {
            let took = time_to_connect(world, &server, link, &addresses);
            let penalty = took.saturating_sub(own);
            println!("{name}: {penalty:?} more than {own:?}");
            assert!(penalty <= most, "{name}: {penalty:?} more than {own:?}");
        }
    });
}

#[test]
fn what_worked_last_is_tried_first() {
    scenario("what_worked_last_is_tried_first", 2, |world| {
        let server = both_ways(world);
        let client = world.node(NodeConfig::default());
        let (peer, addresses) = (server.peer_id(), server.addresses().to_vec());
        world.net().set_both(client.id(), server.id(), Link::new(30 * MS).without_udp());
        let mut times = Vec::new();
        for _ in 0..2 {
            let begin = world.now();
            world.block_on(client.connect(peer, &addresses)).expect("TCP passes");
            times.push(world.now() - begin);
            client.disconnect(peer);
            world.run_for(Duration::from_secs(10));
        }
        assert!(times[1] + 200 * MS < times[0], "it has learnt: {times:?}");
    });
}

#[test]
fn names_lead_to_nodes_by_all_their_kinds() {
    scenario("names_lead_to_nodes_by_all_their_kinds", 2, |world| {
        let server = both_ways(world);
        let peer = server.peer_id();
        let ip = world.address(server.id()).ip();
        world.set_name("node.internal", &[ip]);
        world.set_texts("_dnsaddr.list.internal", &[&format!("dnsaddr=/dnsaddr/one.internal/p2p/{peer}")]);
        world.set_texts("_dnsaddr.one.internal", &[&format!("dnsaddr=/dns4/node.internal/udp/4001/quic-v1/p2p/{peer}")]);
        for text in ["/dns4/node.internal/udp/4001/quic-v1", "/dns/node.internal/tcp/4001", "/dnsaddr/list.internal"] {
            let client = world.node(NodeConfig::default());
            let connected = world.block_on(client.connect(peer, &[address(text)]));
            assert!(connected.is_ok(), "{text}: {connected:?}");
        }
        assert_eq!(world.lookups(), 1 + 2 + 3);
    });
}

/// Whoever has a public name cannot have us knock at doors inside of our own network.
#[test]
fn a_public_name_into_a_private_network_costs_no_packet() {
    scenario("a_public_name_into_a_private_network_costs_no_packet", 2, |world| {
        let victim = both_ways(world);
        let client = world.node(NodeConfig::default());
        let ip = world.address(victim.id()).ip();
        world.set_name("evil.example.org", &[ip, "127.0.0.1".parse().expect("an address")]);
        let listed = [format!("dnsaddr=/ip4/{ip}/udp/4001/quic-v1"), "dnsaddr=/dns4/evil.example.org/tcp/4001".to_owned()];
        world.set_texts("_dnsaddr.evil.example.org", &listed.each_ref().map(String::as_str));
        for text in ["/dns4/evil.example.org/udp/4001/quic-v1", "/dns/evil.example.org/tcp/4001", "/dnsaddr/evil.example.org"] {
            let error = world.block_on(client.connect(victim.peer_id(), &[address(text)])).expect_err(text);
            assert!(error.to_string().contains("private"), "{error}");
        }
        assert_eq!(world.net().counters(client.id(), victim.id()).sent, 0);
        assert_eq!((world.net().unroutable(), client.counters().totals.dials), (0, 0));
        // The address itself may be asked for.
        assert!(world.block_on(client.connect(victim.peer_id(), victim.addresses())).is_ok());
    });
}

#[test]
fn records_that_point_at_each_other_end() {
    scenario("records_that_point_at_each_other_end", 2, |world| {
        let [a, b] = [(); 2].map(|()| world.node(NodeConfig::default()));
        let many: Vec<String> = (0..100).map(|n| format!("dnsaddr=/dnsaddr/{n}.example.org")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        for n in 0..100 {
            world.set_texts(&format!("_dnsaddr.{n}.example.org"), &many);
        }
        let error = world.block_on(a.connect(b.peer_id(), &[address("/dnsaddr/0.example.org")])).expect_err("a maze");
        assert!(error.to_string().contains("point at each other"), "{error}");
        assert!(world.lookups() <= 16, "{} look-ups", world.lookups());
    });
}

fn cause(error: &ConnectError, at: &str) -> DialError {
    let attempt = error.attempts.iter().find(|attempt| attempt.address.to_string().contains(at));
    attempt.unwrap_or_else(|| panic!("{at} is not in {error}")).error.clone()
}

#[test]
fn a_failure_says_for_each_address_what_is_wrong() {
    scenario("a_failure_says_for_each_address_what_is_wrong", 2, |world| {
        let [a, b, wrong] = [(); 3].map(|()| world.node(NodeConfig { tcp: false, ..NodeConfig::default() }));
        let ip = world.address(b.id()).ip();
        world.crash(b.id());
        let addresses = [
            b.address(),
            address(&format!("/ip4/{}/tcp/4001", world.address(wrong.id()).ip())),
            wrong.address(),
            address("/dns4/nowhere.example.org/tcp/4001"),
            address("/ip4/10.9.9.9/tcp/80/ws"),
        ];
        let begin = world.now();
        let error = world.block_on(a.connect(b.peer_id(), &addresses)).expect_err("nobody is there");
        println!("{error}");
        assert!(matches!(cause(&error, &format!("{ip}/udp")), DialError::NoAnswer { .. }), "{error}");
        assert_eq!(cause(&error, &format!("{}/tcp", world.address(wrong.id()).ip())), DialError::NothingListens, "{error}");
        assert!(matches!(cause(&error, &wrong.address().to_string()), DialError::WrongPeer { .. }), "{error}");
        assert!(matches!(cause(&error, "nowhere.example.org"), DialError::Name { .. }), "{error}");
        assert!(matches!(cause(&error, "/ws"), DialError::BadAddress(_)), "{error}");
        assert!(matches!(error.first_cause(), DialError::WrongPeer { .. }));
        assert!(world.now() - begin < Duration::from_secs(12), "all of that at once");
        let silent = error.attempts.iter().find(|attempt| matches!(attempt.error, DialError::NoAnswer { .. }));
        let text = silent.expect("one was silent").to_string();
        assert!(text.contains("after 10.") && text.contains("private address"), "{text}");
    });
}

#[test]
fn all_who_wait_share_one_attempt_and_the_last_to_leave_ends_it() {
    scenario("all_who_wait_share_one_attempt_and_the_last_to_leave_ends_it", 2, |world| {
        let [a, b] = [(); 2].map(|()| world.node(NodeConfig::default()));
        let waits = |world: &World| {
            let (api, peer, addresses) = (a.api().clone(), b.peer_id(), vec![b.address()]);
            world.spawn(a.id(), async move { api.connect(peer, &addresses).await })
        };
        world.net().set_both(a.id(), b.id(), Link::new(400 * MS));
        let (first, second, third) = (waits(world), waits(world), waits(world));
        world.run_for(300 * MS);
        first.abort();
        world.run_until(|_| second.is_finished() && third.is_finished());
        assert!(second.take().expect("done").is_ok() && third.take().expect("done").is_ok());
        assert_eq!(a.counters().totals.dials, 1);
        a.disconnect(b.peer_id());
        world.run_for(Duration::from_secs(30));
        let last = waits(world);
        world.run_for(300 * MS);
        last.abort();
        world.run_for(Duration::from_secs(30));
        assert!(!a.is_connected(b.peer_id()));
        assert_eq!((a.audit().connections, a.counters().totals.dials_lost), (0, 1));
    });
}

/// However often the application asks, who is not there is dialled less and less.
#[test]
fn who_is_not_there_is_left_alone_for_longer_and_longer() {
    scenario("who_is_not_there_is_left_alone_for_longer_and_longer", 2, |world| {
        let [a, b] = [(); 2].map(|()| world.node(NodeConfig { tcp: false, ..NodeConfig::default() }));
        let (peer, addresses) = (b.peer_id(), [address(&format!("/ip4/{}/tcp/4001", world.address(b.id()).ip()))]);
        let begin = world.now();
        while world.now() - begin < Duration::from_secs(120) {
            let error = world.block_on(a.connect(peer, &addresses)).expect_err("nothing listens there");
            assert_eq!(error.first_cause(), DialError::NothingListens);
        }
        // 0.25, 0.5, 1 ... 30 s, give or take a quarter.
        let dials = a.counters().totals.dials;
        assert!((8..=14).contains(&dials), "{dials} dials");
    });
}
