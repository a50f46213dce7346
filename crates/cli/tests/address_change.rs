//! Either side really changes its address in the middle of a transfer, in network namespaces of this test's own.
#![cfg(target_os = "linux")]

mod common;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use common::*;
use strait_cli::ticket::Ticket;

const PORT: u16 = 4001;
/// Bytes of the transfer; the link carries about 4 MB/s.
const BYTES: usize = 12 << 20;
/// So much has arrived when the address changes.
const BEFORE: u64 = 3 << 20;
/// Past it the transfer goes nowhere: the test then fails with what the receiver said, instead of waiting for as long as `get` does.
const STUCK: Duration = Duration::from_secs(90);
/// Only between two looks.
const PAUSE: Duration = Duration::from_millis(20);

fn ip(args: &[&str]) -> Output {
    Command::new("ip").args(args).output().unwrap()
}

/// Two namespaces with a slow link between them. They go away when dropped.
struct Net {
    sender: String,
    receiver: String,
}

impl Net {
    /// `None`, with a word on stderr, where this is not permitted.
    fn new(name: &str) -> Option<Net> {
        let name = format!("strait-{name}-{}", std::process::id());
        let net = Net { sender: format!("{name}-s"), receiver: format!("{name}-r") };
        let made = [&net.sender, &net.receiver].map(|ns| Command::new("ip").args(["netns", "add", ns]).output());
        if !made.iter().all(|made| made.as_ref().is_ok_and(|made| made.status.success())) {
            eprintln!("SKIPPED: network namespaces cannot be made here (it takes `ip` and the superuser)");
            return None;
        }
        let link = ip(&["-n", &net.sender, "link", "add", "v", "type", "veth", "peer", "name", "v", "netns", &net.receiver]);
        if !link.status.success() {
            eprintln!("SKIPPED: no veth links here: {}", String::from_utf8_lossy(&link.stderr));
            return None;
        }
        for ns in [&net.sender, &net.receiver] {
            Net::must(ns, &["link", "set", "lo", "up"]);
            Net::must(ns, &["link", "set", "v", "up"]);
            let slow = ["netns", "exec", ns, "tc", "qdisc", "add", "dev", "v", "root", "tbf"];
            let slow = ip(&[&slow[..], &["rate", "32mbit", "burst", "64kb", "latency", "50ms"]].concat());
            if !slow.status.success() {
                eprintln!("SKIPPED: links cannot be made slow here: {}", String::from_utf8_lossy(&slow.stderr));
                return None;
            }
        }
        Net::must(&net.sender, &["addr", "add", "10.99.1.1/24", "dev", "v"]);
        Net::must(&net.receiver, &["addr", "add", "10.99.1.2/24", "dev", "v"]);
        Some(net)
    }

    fn must(ns: &str, args: &[&str]) {
        let done = ip(&[&["-n", ns], args].concat());
        assert!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
    }

    /// Has both sides' systems refuse to send UDP to each other. False, with a word on stderr, where that is not possible.
    fn without_udp(&self) -> bool {
        [&self.sender, &self.receiver].iter().all(|ns| {
            let done = ip(&["-n", ns, "rule", "add", "ipproto", "udp", "prohibit"]);
            if !done.status.success() {
                eprintln!("SKIPPED: UDP cannot be blocked here: {}", String::from_utf8_lossy(&done.stderr));
            }
            done.status.success()
        })
    }

    fn start(ns: &str, args: &[&str]) -> Child {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", ns, env!("CARGO_BIN_EXE_strait")]).args(args);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Bytes that the receiver's link has brought.
    fn received(&self) -> u64 {
        let path = "/sys/class/net/v/statistics/rx_bytes";
        let read = ip(&["netns", "exec", &self.receiver, "cat", path]);
        String::from_utf8_lossy(&read.stdout).trim().parse().unwrap()
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for ns in [&self.sender, &self.receiver] {
            let _ = Command::new("ip").args(["netns", "del", ns]).output();
        }
    }
}

/// Ends with its handle.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A transfer in the middle of which `change` is called. The ticket has these addresses. Gives what the receiver said.
fn transfer(net: &Net, addrs: &[String], change: impl FnOnce(&Net)) -> String {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(&from.path().join("file"), &pattern(BYTES, 1));
    let file = from.path().join("file");
    let listen = format!("0.0.0.0:{PORT}");
    let mut sender = Ended(Net::start(&net.sender, &["send", "-q", "--ephemeral", "--listen", &listen, file.to_str().unwrap()]));
    let mut ticket = String::new();
    BufReader::new(sender.0.stdout.take().unwrap()).read_line(&mut ticket).unwrap();
    let ticket: Ticket = ticket.trim().parse().unwrap();
    let addrs = addrs.iter().map(|addr| addr.parse().unwrap()).collect();
    let ticket = Ticket { addrs, ..ticket }.to_string();
    let receiver = Net::start(&net.receiver, &["get", &ticket, "-o", to.path().to_str().unwrap()]);
    let mut receiver = Ended(receiver);
    let begun = Instant::now();
    while net.received() < BEFORE && begun.elapsed() < STUCK {
        assert!(receiver.0.try_wait().unwrap().is_none(), "it ended before anything came");
        std::thread::sleep(PAUSE);
    }
    assert!(!to.path().join("file").exists(), "it was over before the change");
    change(net);
    while receiver.0.try_wait().unwrap().is_none() && begun.elapsed() < STUCK {
        std::thread::sleep(PAUSE);
    }
    let (status, said) = end(&mut receiver.0);
    assert!(status == Some(0), "{status:?} after {:?}, {} bytes received: {said}", begun.elapsed(), net.received());
    same(&file, &to.path().join("file"));
    said
}

fn quic(ip: &str) -> String {
    format!("/ip4/{ip}/udp/{PORT}/quic-v1")
}

fn tcp(ip: &str) -> String {
    format!("/ip4/{ip}/tcp/{PORT}")
}

/// Its exit code, and what it said. It is ended if it runs.
fn end(child: &mut Child) -> (Option<i32>, String) {
    let _ = child.kill();
    let mut said = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut said).unwrap();
    (child.wait().unwrap().code(), said)
}

fn same(left: &Path, right: &Path) {
    assert!(std::fs::read(left).unwrap() == std::fs::read(right).unwrap());
}

/// The receiver's address is removed, and it gets another.
fn move_receiver(net: &Net) {
    Net::must(&net.receiver, &["addr", "del", "10.99.1.2/24", "dev", "v"]);
    Net::must(&net.receiver, &["addr", "add", "10.99.1.77/24", "dev", "v"]);
}

/// The sender's address is removed, and it gets another, which the ticket has too.
fn move_sender(net: &Net) {
    Net::must(&net.sender, &["addr", "del", "10.99.1.1/24", "dev", "v"]);
    Net::must(&net.sender, &["addr", "add", "10.99.1.88/24", "dev", "v"]);
}

/// Its connection moves with it, and nobody has to connect again.
#[test]
fn the_receiver_changes_its_address() {
    let Some(net) = Net::new("ra") else { return };
    let said = transfer(&net, &[quic("10.99.1.1")], move_receiver);
    assert_eq!(said.matches("connected to").count(), 1, "{said}");
    assert!(!said.contains("does not answer"), "{said}");
}

/// QUIC has no way for a server to move, so the receiver finds out that nothing moves any more, and connects again.
#[test]
fn the_sender_changes_its_address() {
    let Some(net) = Net::new("sa") else { return };
    let said = transfer(&net, &[quic("10.99.1.1"), quic("10.99.1.88")], move_sender);
    assert!(said.contains("does not answer since") && said.contains("answers again"), "{said}");
}

/// Its connection is given up at once, another made, and what was under way is asked again: nothing of it is seen.
#[test]
fn the_receiver_changes_its_address_over_tcp() {
    let Some(net) = Net::new("rt").filter(Net::without_udp) else { return };
    let said = transfer(&net, &[quic("10.99.1.1"), tcp("10.99.1.1")], move_receiver);
    assert_eq!(said.matches("connected to").count(), 1, "{said}");
    assert!(!said.contains("does not answer"), "{said}");
}

/// No system tells the receiver that nobody is there any more: it finds out as over QUIC.
#[test]
fn the_sender_changes_its_address_over_tcp() {
    let Some(net) = Net::new("st").filter(Net::without_udp) else { return };
    let said = transfer(&net, &[tcp("10.99.1.1"), tcp("10.99.1.88")], move_sender);
    assert!(said.contains("does not answer since") && said.contains("answers again"), "{said}");
}
