//! TCP servers of the tests' own, and `strait forward` in front of them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use strait_cli::ticket::Contact;

use super::command::Running;

/// A server on a free port of loopback that does `each` with every connection, in a thread of its own. It lasts as long as the test's process.
pub fn server(each: impl Fn(TcpStream) + Clone + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for tcp in listener.incoming().map_while(Result::ok) {
            let each = each.clone();
            std::thread::spawn(move || each(tcp));
        }
    });
    at
}

/// Gives back what comes, as it comes.
pub fn echo(mut tcp: TcpStream) {
    let mut from = tcp.try_clone().unwrap();
    let _ = std::io::copy(&mut from, &mut tcp);
}

/// Gives everything back once it has all of it: it answers only whoever ends one direction and keeps the other.
pub fn echo_at_the_end(mut tcp: TcpStream) {
    let mut all = Vec::new();
    if tcp.read_to_end(&mut all).is_ok() {
        let _ = tcp.write_all(&all);
    }
}

/// A port of loopback at which nothing listens now.
pub fn closed_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A connection on which a broken test does not hang.
pub fn connect(to: &str) -> TcpStream {
    let tcp = TcpStream::connect(to).unwrap();
    tcp.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    tcp.set_write_timeout(Some(Duration::from_secs(60))).unwrap();
    tcp
}

/// Whether it is open: a byte comes back. To be asked of [`echo`].
pub fn echoes(tcp: &mut TcpStream, byte: u8) -> std::io::Result<bool> {
    tcp.write_all(&[byte])?;
    let mut back = [0];
    Ok(tcp.read(&mut back)? == 1 && back[0] == byte)
}

/// Waits until something is so. A broken test ends all the same.
pub fn until(what: &str, is_so: impl Fn() -> bool) {
    let end = std::time::Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(std::time::Instant::now() < end, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// `strait forward expose`, and its ticket.
pub fn expose(more: &[&str]) -> (Running, String) {
    let (running, lines) = Running::lines(&[&["forward", "expose", "--ephemeral", "--listen", "127.0.0.1:0"], more].concat(), 1);
    (running, lines[0].clone())
}

/// The same ticket with the addresses of one transport, `udp` or `tcp`.
pub fn over(ticket: &str, transport: &str) -> String {
    let mut contact = Contact::read(ticket).unwrap();
    contact.addrs.retain(|addr| addr.protocol_stack().any(|name| name == transport));
    assert!(!contact.addrs.is_empty());
    contact.to_string()
}

/// `strait forward open`, and where it listens.
pub fn open(ticket: &str, ports: &[&str]) -> (Running, Vec<String>) {
    Running::lines(&[&["forward", "open", ticket], ports].concat(), ports.len())
}

/// What an admin port answers, with its head.
pub fn asked(admin: SocketAddr, path: &str) -> String {
    let mut tcp = connect(&admin.to_string());
    let _ = tcp.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes());
    let mut answer = String::new();
    let _ = tcp.read_to_string(&mut answer);
    answer
}

/// Whether a line is in the metrics.
pub fn has(admin: SocketAddr, line: &str) -> bool {
    asked(admin, "/metrics").lines().any(|other| other == line)
}
