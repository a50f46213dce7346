//! `strait forward`: what TCP does between a client and a server is the same through two nodes.

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::time::Duration;

use common::command::*;
use common::tcp::*;
use common::*;

/// FW-05, FW-06: over both transports the client ends its direction and still gets everything; the bytes are the same.
#[test]
fn one_direction_ends_and_the_other_goes_on() {
    ["udp", "tcp"].into_iter().for_each(one_direction_ends);
}

fn one_direction_ends(transport: &str) {
    let target = server(echo_at_the_end).to_string();
    let (_expose, ticket) = expose(&[&target]);
    let (_open, at) = open(&over(&ticket, transport), &["0"]);
    for len in [0, 1, 1000, 3 << 20] {
        let sent = pattern(len, len as u64);
        let mut tcp = connect(&at[0]);
        tcp.write_all(&sent).unwrap();
        tcp.shutdown(Shutdown::Write).unwrap();
        let mut got = Vec::new();
        tcp.read_to_end(&mut got).unwrap();
        assert!(got == sent, "{} of {len} bytes", got.len());
    }
    // And the other way round: the server ends its direction first, and the client's goes on.
    let (tell, told) = mpsc::sync_channel(1);
    let target = server(move |mut tcp| {
        tcp.shutdown(Shutdown::Write).unwrap();
        let mut all = Vec::new();
        tcp.read_to_end(&mut all).unwrap();
        tell.send(all).unwrap();
    });
    let (_expose, ticket) = expose(&[&target.to_string()]);
    let (_open, at) = open(&over(&ticket, transport), &["0"]);
    let mut tcp = connect(&at[0]);
    assert_eq!(tcp.read(&mut [0]).unwrap(), 0);
    tcp.write_all(b"after your end").unwrap();
    tcp.shutdown(Shutdown::Write).unwrap();
    assert_eq!(told.recv_timeout(Duration::from_secs(60)).unwrap(), b"after your end");
}

/// Until there is something unread: then closing resets.
fn close_with_unread(tcp: TcpStream) {
    while tcp.peek(&mut [0]).unwrap() == 0 {}
    drop(tcp);
}

/// FW-08: a reset at one side is a reset at the other, whichever it is, over both transports.
#[test]
fn a_reset_is_not_an_end() {
    ["udp", "tcp"].into_iter().for_each(a_reset);
}

fn a_reset(transport: &str) {
    let (tell, told) = mpsc::sync_channel(1);
    let hangs_up = server(close_with_unread).to_string();
    let waits = server(move |mut tcp| {
        tcp.write_all(b"hello").unwrap();
        tell.send(tcp.read(&mut [0]).map_err(|error| error.kind())).unwrap();
    })
    .to_string();
    let (_expose, ticket) = expose(&[&hangs_up, &waits]);
    let (_open, at) = open(&over(&ticket, transport), &[&format!("0:{hangs_up}"), &format!("0:{waits}")]);
    let mut tcp = connect(&at[0]);
    tcp.write_all(b"nobody reads this").unwrap();
    assert_eq!(tcp.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    close_with_unread(connect(&at[1]));
    assert_eq!(told.recv_timeout(Duration::from_secs(60)).unwrap(), Err(ErrorKind::ConnectionReset));
}

/// A hundred at once, all of them open before any goes on, each with bytes of its own.
#[test]
fn a_hundred_connections_at_once() {
    let target = server(echo).to_string();
    let (_expose, ticket) = expose(&[&target]);
    let (_open, at) = open(&ticket, &["0"]);
    let (at, all) = (&at[0], &Barrier::new(100));
    std::thread::scope(|scope| {
        for number in 0..100u8 {
            scope.spawn(move || {
                let mut tcp = connect(at);
                assert!(echoes(&mut tcp, number).unwrap());
                all.wait();
                let sent = pattern(30_000 + usize::from(number), number.into());
                let mut back = tcp.try_clone().unwrap();
                let copy = sent.clone();
                scope.spawn(move || {
                    tcp.write_all(&copy).unwrap();
                    tcp.shutdown(Shutdown::Write).unwrap();
                });
                let mut got = Vec::new();
                back.read_to_end(&mut got).unwrap();
                assert!(got == sent, "connection {number}");
            });
        }
    });
}

/// FW-01, FW-22: those beyond the number that is carried at once wait, and come to their turn.
#[test]
fn more_than_are_carried_wait_for_their_turn() {
    let most = usize::from(strait_cli::forward::PROTOCOL.per_peer_max);
    let target = server(echo).to_string();
    let (_expose, ticket) = expose(&[&target]);
    let (_open, at) = open(&ticket, &["0"]);
    let (at, open) = (&at[0], &AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..most + 20 {
            scope.spawn(move || {
                let mut tcp = connect(at);
                assert!(echoes(&mut tcp, 7).unwrap());
                open.fetch_add(1, Ordering::Relaxed);
                until("as many as may be open are", || open.load(Ordering::Relaxed) >= most);
            });
        }
    });
    assert_eq!(open.load(Ordering::Relaxed), most + 20);
}

/// FW-07: a client that never reads stops the server's writing, and nobody else. Its reset ends the server's connection.
#[test]
fn a_client_that_never_reads_holds_up_only_its_server() {
    let (wrote, ended) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (count, end) = (wrote.clone(), ended.clone());
    let endless = server(move |mut tcp| {
        while let Ok(len) = tcp.write(&[9; 1 << 16]) {
            count.fetch_add(len as u64, Ordering::Relaxed);
            if count.load(Ordering::Relaxed) > 512 << 20 {
                return;
            }
        }
        end.store(1, Ordering::Relaxed);
    })
    .to_string();
    let echo = server(echo).to_string();
    let (_expose, ticket) = expose(&[&endless, &echo]);
    let (_open, at) = open(&ticket, &[&format!("0:{endless}"), &format!("0:{echo}")]);
    let never = connect(&at[0]);
    // It has stopped when nothing more was written for a while.
    let mut before = u64::MAX;
    while wrote.load(Ordering::Relaxed) != before || before == 0 {
        before = wrote.load(Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(700));
    }
    assert!(before < 100 << 20, "{before} bytes were taken of a server whose client reads nothing");
    assert!(echoes(&mut connect(&at[1]), 3).unwrap());
    close_with_unread(never);
    until("the server's connection is reset too", || ended.load(Ordering::Relaxed) == 1);
}

/// FW-07, FW-08: a server that never reads stops its client, whose reset is carried all the same: past all that waits.
#[test]
fn a_server_that_never_reads_holds_up_its_client_and_learns_of_its_reset() {
    ["udp", "tcp"].into_iter().for_each(a_server_that_never_reads);
}

fn a_server_that_never_reads(transport: &str) {
    let (tell, told) = mpsc::sync_channel(1);
    let target = server(move |mut tcp| {
        tcp.write_all(b"unread").unwrap();
        let error = loop {
            match tcp.take_error().unwrap() {
                Some(error) => break error.kind(),
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        tell.send(error).unwrap();
    });
    let (_expose, ticket) = expose(&[&target.to_string()]);
    let (_open, at) = open(&over(&ticket, transport), &["0"]);
    let mut tcp = connect(&at[0]);
    tcp.set_write_timeout(Some(Duration::from_millis(700))).unwrap();
    let mut wrote = 0u64;
    while let Ok(len) = tcp.write(&[9; 1 << 16]) {
        wrote += len as u64;
        assert!(wrote < 100 << 20, "taken of a client whose server reads nothing");
    }
    close_with_unread(tcp);
    assert_eq!(told.recv_timeout(Duration::from_secs(60)).unwrap(), ErrorKind::ConnectionReset);
}

/// Ctrl-C and SIGTERM end both sides with their codes. What was open is reset, not ended (FW-08).
#[cfg(unix)]
#[test]
fn signals_end_both_sides() {
    let target = server(echo).to_string();
    for (name, code) in [("TERM", 143), ("INT", 130)] {
        let (mut expose, ticket) = expose(&[&target]);
        let (mut open, at) = open(&ticket, &["0"]);
        let mut tcp = connect(&at[0]);
        assert!(echoes(&mut tcp, 1).unwrap());
        assert_eq!(if name == "TERM" { &mut open } else { &mut expose }.signal(name), Some(code));
        assert_eq!(tcp.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert!(!open.said().contains("nothing was heard"), "it was told, and did not find out by silence: {}", open.said());
        assert_eq!(if name == "TERM" { &mut expose } else { &mut open }.signal(name), Some(code));
    }
}

/// Programs read where it listens, and each event is in `docs/json.md`.
#[test]
fn events_for_programs() {
    let target = closed_port().to_string();
    let (_expose, lines) = Running::lines(&["forward", "expose", "--ephemeral", "--listen", "127.0.0.1:0", "--json", &target], 1);
    let first: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
    assert_eq!((first["event"].as_str(), first["targets"][0].as_str()), (Some("ticket"), Some(&target[..])));
    let ticket = first["ticket"].as_str().unwrap().to_owned();
    let mut open = Running::start(&["forward", "open", "--json", &ticket, "0"], |command| {
        command.stdout(std::process::Stdio::piped());
    });
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(open.child.stdout.take().unwrap()));
    let mut next = || -> serde_json::Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    let listening = next();
    assert_eq!((listening["event"].as_str(), &listening["peer"]), (Some("listening"), &first["peer"]));
    assert!(connect(listening["local"].as_str().unwrap()).read(&mut [0]).is_err());
    let refused = next();
    assert_eq!(refused["event"], "refused");
    assert_documented(&[first, listening, refused]);
}
