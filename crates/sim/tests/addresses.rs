//! Addresses that peers tell: what leads elsewhere is never dialled, and what nodes learn of each other depends on the path between them.

mod common;

use std::net::SocketAddr;
use std::time::Duration;

use common::connect;
use strait::{Idle, Multiaddr, StreamProtocol};
use strait_sim::{NodeConfig, SimNode, World, scenario};

/// identify/push, of which the attacker writes each byte.
const PUSH: StreamProtocol = StreamProtocol::new("/ipfs/id/push/1.0.0", 8, Idle::Never);

/// Where an attacker would like others to knock.
const BOGUS: [&str; 8] = [
    "10.0.9.9:22",
    "127.0.0.1:6379",
    "192.168.0.1:80",
    "169.254.169.254:80",
    "100.64.0.1:4001",
    "255.255.255.255:67",
    "[::1]:4001",
    "[fd00::1]:4001",
];

fn at(text: &str) -> SocketAddr {
    text.parse().expect("a socket address")
}

fn node_at(world: &mut World, address: &str, interfaces: &[&str], announce: &[&str]) -> SimNode {
    let parse = |texts: &[&str]| -> Vec<Multiaddr> { texts.iter().map(|text| text.parse().expect("a multiaddr")).collect() };
    let (interfaces, announce) = (parse(interfaces), parse(announce));
    world.node(NodeConfig { address: Some(at(address)), interfaces, announce, ..NodeConfig::default() })
}

/// An identify message (libp2p/specs `identify`) that names these addresses, in its frame.
fn message(addresses: &[Multiaddr]) -> Vec<u8> {
    let mut body = Vec::new();
    for address in addresses {
        let bytes = address.to_vec();
        body.extend_from_slice(&[0x12, u8::try_from(bytes.len()).expect("a short address")]);
        body.extend_from_slice(&bytes);
    }
    let len = body.len();
    let mut frame = if len < 0x80 { vec![len as u8] } else { vec![(len & 0x7f) as u8 | 0x80, (len >> 7) as u8] };
    frame.extend_from_slice(&body);
    frame
}

fn addresses_of(node: &SimNode, peer: &SimNode) -> Vec<Multiaddr> {
    node.identified(peer.peer_id()).map(|identity| identity.addresses.clone()).unwrap_or_default()
}

/// Principle I2, attack 38: somebody on the Internet names addresses in all kinds of ranges. The victim connects to them whenever it wants to reach that peer
/// again; not one packet of it goes to any of these addresses, while the one that is in scope is tried.
#[test]
fn no_packet_goes_to_an_address_out_of_scope() {
    scenario("no_packet_goes_to_an_address_out_of_scope", 7, |world| {
        let victim = node_at(world, "8.8.8.8:4001", &[], &[]);
        let attacker = node_at(world, "66.6.6.6:4001", &[], &[]);
        // Whoever is at those addresses, and at one that may be dialled.
        let bystander = world.node(NodeConfig::default());
        let fair = at("66.6.6.7:4001");
        for address in BOGUS.iter().map(|text| at(text)).chain([fair]) {
            world.net().add_address(bystander.id(), address);
        }
        connect(world, &attacker, &victim);
        let told: Vec<Multiaddr> = BOGUS.iter().map(|text| strait::quic_address(at(text))).collect();
        let frame = message(&told);
        let peer = attacker.peer_id();
        let push = |world: &mut World, frame: Vec<u8>| {
            let (api, to) = (attacker.api().clone(), victim.peer_id());
            world.block_on(async move {
                let (mut send, _receive) = api.open(to, &PUSH).await.expect("it opens").split();
                send.write_all(frame).await.expect("it is written");
                send.finish().expect("it ends");
            });
        };
        push(world, frame);
        world.run_until(|_| victim.identified(peer).is_some_and(|identity| identity.out_of_scope == BOGUS.len()));
        let dial_in_vain = |world: &mut World| {
            victim.disconnect(peer);
            world.run_for(Duration::from_secs(1));
            world.net().set_up(victim.id(), attacker.id(), false);
            let error = world.block_on(victim.connect(peer, &[])).expect_err("nobody answers");
            world.net().set_up(victim.id(), attacker.id(), true);
            error
        };
        let lost = world.net().unroutable();
        let error = dial_in_vain(world);
        for attempt in &error.attempts {
            assert!(!told.contains(&attempt.address), "{} was dialled", attempt.address);
        }
        assert_eq!(world.net().counters(victim.id(), bystander.id()).sent, 0, "packets to addresses out of scope");
        assert_eq!(world.net().unroutable(), lost, "packets to addresses that nobody has");

        // The oracle can tell: what is in scope is dialled.
        connect(world, &attacker, &victim);
        push(world, message(&[strait::quic_address(fair)]));
        world.run_until(|_| addresses_of(&victim, &attacker).contains(&strait::quic_address(fair)));
        dial_in_vain(world);
        assert!(world.net().counters(victim.id(), bystander.id()).sent > 0, "what holds over the path is tried");
    });
}

/// One node with loopback, a private and a global address: what others learn of it.
#[test]
fn what_a_peer_learns_depends_on_the_path() {
    scenario("what_a_peer_learns_depends_on_the_path", 8, |world| {
        let all = ["/ip4/127.0.0.1/udp/9/quic-v1", "/ip4/10.0.0.77/udp/9/quic-v1", "/ip4/8.8.8.8/udp/9/quic-v1"];
        let parsed: Vec<Multiaddr> = all.iter().map(|text| text.parse().expect("a multiaddr")).collect();
        // The same machine, as those see it who reach it over one of its interfaces.
        for (seen_at, other, learns) in
            [("127.0.0.1:9", "127.0.0.1:10", 3), ("10.0.0.77:9", "10.0.0.78:10", 2), ("8.8.8.8:9", "9.9.9.9:10", 1)]
        {
            let node = node_at(world, seen_at, &all, &[]);
            let peer = node_at(world, other, &[], &[]);
            connect(world, &peer, &node);
            world.run_until(|_| peer.identified(node.peer_id()).is_some());
            let told = addresses_of(&peer, &node);
            assert!(told.iter().all(|address| parsed[3 - learns..].contains(address)), "over {seen_at}: {told:?}");
            for address in &parsed[3 - learns..] {
                assert!(told.contains(address), "over {seen_at}: {told:?} without {address}");
            }
            let identity = peer.identified(node.peer_id()).expect("identified");
            assert!(identity.signed.is_some() && identity.out_of_scope == 0, "{identity:?}");
        }
    });
}

/// Principle I4: behind a port forward, or in Kubernetes, peers learn what the operator has declared, and only that.
#[test]
fn peers_learn_what_was_declared() {
    scenario("peers_learn_what_was_declared", 9, |world| {
        let public = "/ip4/8.8.8.8/udp/30001/quic-v1";
        let inside = "/ip4/10.9.9.9/udp/4001/quic-v1";
        let pod = node_at(world, "10.0.0.77:4001", &["/ip4/127.0.0.1/udp/4001/quic-v1"], &[public, inside]);
        let near = node_at(world, "10.0.0.78:4001", &[], &[]);
        let far = node_at(world, "9.9.9.9:4001", &[], &[]);
        // The forward: whoever is outside sees the pod's packets come from there, and reaches it there.
        let (peer, id) = (pod.peer_id(), pod.id());
        connect(world, &near, &pod);
        world.run_until(|_| near.identified(peer).is_some());
        let want: Vec<Multiaddr> = [public, inside].map(|text| text.parse().expect("a multiaddr")).to_vec();
        assert_eq!(addresses_of(&near, &pod), want);
        assert_eq!(pod.told_addrs(), want);
        world.net().bind(id, at("8.8.8.8:30001"));
        world.block_on(far.connect(peer, &want[..1])).expect("they connect");
        world.run_until(|_| far.identified(peer).is_some());
        assert_eq!(addresses_of(&far, &pod), want[..1], "the inner one means nothing out there");
        // And what was learnt is enough to come back.
        far.disconnect(peer);
        world.run_for(Duration::from_secs(1));
        world.block_on(far.connect(peer, &[])).expect("they connect again");
    });
}
