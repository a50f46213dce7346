//! Packets: unreliable, bounded, and only between nodes that both have them.

mod common;

use std::time::Duration;

use common::{over_each, pair};
use strait::{Idle, PacketError, PacketProtocol, ServeError, StreamError, StreamProtocol};
use strait_sim::{Link, NodeConfig, Over, SimNode, World, scenario};

const MS: Duration = Duration::from_millis(1);
const POSITIONS: PacketProtocol = PacketProtocol::new("/test/positions/1", 1000, 64);
/// The same with a limit that the other side does not have.
const LARGER: PacketProtocol = PacketProtocol::new("/test/positions/1", 1100, 64);
const OTHER: PacketProtocol = PacketProtocol::new("/test/other/1", 1000, 64);

/// Sends `count` numbered packets, one each `rest`.
fn send(world: &mut World, from: &SimNode, to: &SimNode, count: u32, rest: Duration) {
    for number in 0..count {
        let sent = from.send_packet(to.peer_id(), &POSITIONS, &number.to_be_bytes());
        assert_eq!(sent, Ok(()), "packet {number}");
        world.run_for(rest);
    }
}

/// PK-01, PK-04
#[test]
fn packets_go_to_those_who_have_said_that_they_take_them() {
    over_each("packets_go_to_those_who_have_said_that_they_take_them", 2, |world, over| {
        world.net().set_default(Link::new(10 * MS));
        let (a, b) = (world.node(NodeConfig::over(over)), world.node(NodeConfig::over(over)));
        let peer = b.peer_id();
        assert_eq!(a.send_packet(peer, &POSITIONS, b"early"), Err(PacketError::NotConnected));
        let mut packets = b.serve_packets(&POSITIONS).expect("a fresh protocol");
        common::connect(world, &a, &b);
        world.run_until(|_| a.identified(peer).is_some());
        if over != Over::Quic {
            assert_eq!(a.send_packet(peer, &POSITIONS, b"x"), Err(PacketError::NotCarried));
            return;
        }
        assert_eq!(a.send_packet(peer, &OTHER, b"x"), Err(PacketError::Unsupported("/test/other/1")));
        assert_eq!(a.packet_bytes_max(peer, &POSITIONS), Ok(1000));
        let large = vec![7; 1000];
        assert_eq!(a.send_packet(peer, &POSITIONS, &large), Ok(()));
        assert_eq!(a.send_packet(peer, &POSITIONS, &[7; 1001]), Err(PacketError::TooLarge { len: 1001, max: 1000 }));
        let first = world.block_on(packets.next()).expect("it comes");
        assert_eq!((first.peer, &first.body[..]), (a.peer_id(), &large[..]));
        // Who begins to take them later tells that too.
        let mut others = b.serve_packets(&OTHER).expect("a fresh protocol");
        world.run_until(|_| a.send_packet(peer, &OTHER, b"now").is_ok());
        assert_eq!(&world.block_on(others.next()).expect("it comes").body[..], b"now");
    });
}

/// PK-03: nothing else comes of it, for the connection or for others.
#[test]
fn what_the_receiver_does_not_allow_is_dropped_and_counted() {
    scenario("what_the_receiver_does_not_allow_is_dropped_and_counted", 2, |world| {
        let (a, b) = pair(world, Over::Quic);
        let mut packets = b.serve_packets(&POSITIONS).expect("a fresh protocol");
        world.run_until(|_| a.send_packet(b.peer_id(), &LARGER, &[1; 1100]).is_ok());
        world.run_for(100 * MS);
        let totals = b.counters().totals;
        assert_eq!((totals.packets_in, totals.packets_in_dropped), (1, 1));
        a.send_packet(b.peer_id(), &POSITIONS, b"fits").expect("connected");
        assert_eq!(&world.block_on(packets.next()).expect("it comes").body[..], b"fits");
    });
}

/// Lost packets stay lost, and those that come are whole.
#[test]
fn nothing_is_repaired() {
    scenario("nothing_is_repaired", 3, |world| {
        let (a, b) = pair(world, Over::Quic);
        let mut packets = b.serve_packets(&POSITIONS).expect("a fresh protocol");
        world.run_until(|_| a.packet_bytes_max(b.peer_id(), &POSITIONS).is_ok());
        world.net().set_both(a.id(), b.id(), Link::new(10 * MS).loss(0.2));
        let mut came = 0;
        for number in 0..500u32 {
            a.send_packet(b.peer_id(), &POSITIONS, &number.to_be_bytes()).expect("connected");
            world.run_for(5 * MS);
            while b.counters().totals.packets_in > came {
                let packet = world.block_on(packets.next()).expect("it is there");
                assert_eq!(packet.body.len(), 4);
                came += 1;
            }
        }
        assert!((300..490).contains(&came), "{came} of 500 with a fifth lost");
        assert_eq!(packets.dropped(), 0);
    });
}

/// Faster than the link: the oldest that wait are dropped and counted, memory is bounded, and what is new arrives.
#[test]
fn more_than_the_link_carries_is_dropped_at_its_sender_the_oldest_first() {
    scenario("more_than_the_link_carries_is_dropped_at_its_sender_the_oldest_first", 2, |world| {
        world.net().set_default(Link::new(10 * MS).rate(20_000));
        let (a, b) = pair(world, Over::Quic);
        let mut packets = b.serve_packets(&POSITIONS).expect("a fresh protocol");
        world.run_until(|_| a.packet_bytes_max(b.peer_id(), &POSITIONS).is_ok());
        let begin = a.audit().granted;
        for number in 0..2_000u32 {
            let mut body = vec![0; 500];
            body[..4].copy_from_slice(&number.to_be_bytes());
            a.send_packet(b.peer_id(), &POSITIONS, &body).expect("connected");
            world.run_for(MS);
        }
        world.run_for(Duration::from_secs(5));
        let totals = a.counters().totals;
        assert!(totals.packets_out_dropped > 1_000, "{} dropped", totals.packets_out_dropped);
        assert!(a.audit().granted <= begin + (1 << 20));
        let mut last = 0;
        let mut left = b.counters().totals.packets_in - packets.dropped();
        while left > 0 {
            let packet = world.block_on(packets.next()).expect("it is there");
            last = u32::from_be_bytes(packet.body[..4].try_into().expect("four bytes"));
            left -= 1;
        }
        assert_eq!(last, 1_999, "the newest came");
    });
}

/// An application that takes none costs what its definition says; and one peer's flood does not push out another's packets.
#[test]
fn a_flood_of_one_peer_pushes_out_its_own_packets_only() {
    scenario("a_flood_of_one_peer_pushes_out_its_own_packets_only", 2, |world| {
        world.net().set_default(Link::new(10 * MS));
        let (a, b) = pair(world, Over::Quic);
        let c = world.node(NodeConfig::default());
        common::connect(world, &c, &b);
        let mut packets = b.serve_packets(&POSITIONS).expect("a fresh protocol");
        world.run_until(|_| [&a, &c].iter().all(|node| node.packet_bytes_max(b.peer_id(), &POSITIONS).is_ok()));
        send(world, &c, &b, 10, MS);
        send(world, &a, &b, 5_000, MS / 10);
        world.run_for(Duration::from_secs(1));
        assert!(packets.dropped() > 4_000, "{}", packets.dropped());
        let mut honest = 0;
        for _ in 0..64 {
            let packet = world.block_on(packets.next()).expect("it is there");
            honest += u32::from(packet.peer == c.peer_id());
        }
        assert_eq!(honest, 10, "all of the other's are there");
    });
}

/// PK-02, PK-05
#[test]
fn names_are_told_apart_and_streams_are_something_else() {
    const STREAM: StreamProtocol = StreamProtocol::new("/test/positions/1", 4, Idle::Never);
    scenario("names_are_told_apart_and_streams_are_something_else", 1, |world| {
        let (a, b) = pair(world, Over::Quic);
        let _packets = b.serve_packets(&POSITIONS).expect("a fresh protocol");
        assert!(matches!(b.serve_packets(&POSITIONS), Err(ServeError::Definition(_))), "the name is taken");
        const HUGE: PacketProtocol = PacketProtocol::new("/test/huge/1", 1101, 64);
        assert!(matches!(b.serve_packets(&HUGE), Err(ServeError::Definition(_))), "it would not fit every path");
        let error = world.block_on(async {
            let mut stream = a.open(b.peer_id(), &STREAM).await.expect("it opens");
            stream.recv.read(10).await.expect_err("nobody takes it")
        });
        assert_eq!(error, StreamError::Unsupported("/test/positions/1"));
    });
}
