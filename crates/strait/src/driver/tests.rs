//! A socket whose send buffer is full, for real: sending stops, and goes on when there is room.
#![cfg(target_os = "linux")]

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use strait_core::{Config, Keypair, Limits, Priority, Request};

use super::*;
use crate::{Incoming, Node};

const SINK: Request = Request::new("/test/sink/1", 1 << 20, 8, Duration::from_secs(60), 4);
/// Sending over loopback never waits, unless something holds up what still counts as the sender's: a queue as slow as a network card, and so long that nothing
/// is dropped in it.
const SLOW_LOOPBACK: &str = "ip link set lo up && tc qdisc add dev lo root tbf rate 100mbit burst 256kb limit 64mb";
/// The system takes it for its least, a few KiB.
const LEAST: usize = 1;
/// Nothing here waits for long: past it something was lost for good.
const STUCK: Duration = Duration::from_secs(60);

/// Runs a script in a network namespace of its own.
fn apart(script: &str) -> std::io::Result<std::process::Output> {
    Command::new("unshare").args(["-rn", "sh", "-c", script]).arg(std::env::current_exe()?).output()
}

#[test]
fn what_a_full_socket_does_not_take_leaves_later() {
    let possible = apart(SLOW_LOOPBACK);
    if !possible.as_ref().is_ok_and(|tried| tried.status.success()) {
        eprintln!("SKIPPED: no network namespace with a slow loopback can be made here: {possible:?}");
        return;
    }
    let child = format!("{SLOW_LOOPBACK} && exec \"$0\" driver::tests::child --exact --ignored --nocapture");
    let output = apart(&child).expect("it was possible just now");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

/// A node whose sockets have as small send buffers as the system permits.
fn narrow(any: SocketAddr) -> Node {
    let sockets = Sockets::bind(&[any]).expect("a port is free");
    for socket in &sockets.sockets {
        socket2::SockRef::from(socket.io.socket()).set_send_buffer_size(LEAST).expect("it is a socket");
    }
    let config =
        Config { keypair: Keypair::generate_ed25519(), agent: "test".to_owned(), limits: Limits::default(), listen: true };
    let runtime = Arc::new(TokioRuntime::default());
    let shared = Shared::new(config, system_env().expect("randomness"), runtime).expect("the limits fit");
    shared.set_listening(sockets.local_addrs(), sockets.reachable_addrs());
    tokio::spawn(run(shared.clone(), sockets));
    Node::from_shared(shared)
}

#[tokio::test]
#[ignore = "run by the other test, in a network namespace of its own with a slow loopback"]
async fn child() {
    let any = "127.0.0.1:0".parse().expect("an address");
    let client = narrow(any);
    let server = Node::builder().listen(any).start().await.expect("starts");
    let answer = async |request: Incoming| request.body.len().to_le_bytes().to_vec();
    server.serve(&SINK, Priority::Normal, answer).expect("a fresh protocol");
    client.connect(server.peer_id(), &server.listen_addrs()).await.expect("connects");
    while client.driver_counters().send_blocked == 0 {
        client.request(server.peer_id(), &SINK, vec![7; 1 << 20]).await.expect("it is taken whole");
    }
    // Each datagram that the core has handed out comes: none was dropped for want of room, to be repaired by the connection.
    let all = async {
        while client.counters().totals.datagrams_out != server.counters().totals.datagrams_in {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let stuck = tokio::time::timeout(STUCK, all).await;
    let (sent, came) = (client.counters().totals.datagrams_out, server.counters().totals.datagrams_in);
    stuck.unwrap_or_else(|_| panic!("{sent} datagrams were handed to the driver, and {came} have come"));
    println!("{sent} datagrams, {:?}", client.driver_counters());
}
