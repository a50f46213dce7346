//! A panic of the QUIC crate ends the connection that it happened at, and nothing else.

#![allow(clippy::disallowed_methods, reason = "a test needs some instant to begin at")]

use std::net::SocketAddr;
use std::time::Instant;

use libp2p_identity::Keypair;

use super::{Config, Event, Node};
use crate::env::testing::env;
use crate::error::DialError;
use crate::{Limits, SocketId};

fn key(first: u8) -> Keypair {
    Keypair::ed25519_from_bytes([first; 32]).expect("32 bytes")
}

#[test]
fn a_fault_of_the_quic_crate_ends_one_connection() {
    let config = Config { keypair: key(1), agent: "test".to_owned(), limits: Limits::default(), listen: true };
    let now = Instant::now();
    let mut node = Node::new(config, env(1), now).expect("the limits fit");
    let dial = |node: &mut Node, to: u8| {
        let remote = SocketAddr::from(([10, 0, 0, to], 4001));
        node.dial(now, SocketId(0), remote, key(to).public().to_peer_id()).expect("room")
    };
    let (broken, whole) = (dial(&mut node, 2), dial(&mut node, 3));
    let slot = usize::try_from(broken.slot).expect("a slot");
    node.conn_mut(slot).and_then(|conn| conn.quic.as_quic()).expect("over QUIC").fail();
    node.activate(slot);
    while node.drive(now) {}
    let mut told = Vec::new();
    while let Some(event) = node.poll_event() {
        if let Event::DialFailed { conn, error, .. } = event {
            told.push((conn, error));
        }
    }
    assert!(matches!(&told[..], [(conn, DialError::Incompatible(_))] if *conn == broken), "{told:?}");
    assert_eq!(node.counters().totals.quic_faults, 1);
    assert_eq!(node.audit().connections, 1, "its place is free");
    let mut datagram = Vec::new();
    let sent = node.poll_transmit(now, std::num::NonZeroUsize::MIN, &mut datagram).expect("the other goes on");
    assert_eq!(sent.destination, SocketAddr::from(([10, 0, 0, 3], 4001)));
    assert_ne!(dial(&mut node, 4), whole, "and others may follow");
}
