//! `strait forward` between real programs. They are not on every machine, so these tests are run by `.ci/programs`, which installs them.
#![cfg(unix)]

mod common;

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use common::tcp::*;
use common::*;

/// Ended with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a program to its end, with this on stdin.
fn run(program: &str, args: &[&str], input: &[u8]) -> Output {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{program}: {error}"));
    let (mut stdin, input) = (child.stdin.take().unwrap(), input.to_vec());
    let feed = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    let _ = feed.join().unwrap(); // a program may leave its input unread
    output
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The body of `/number`.
fn page(number: u64) -> Vec<u8> {
    pattern((3 << 20) + number as usize, number)
}

/// HTTP/1.1 with connections that are kept (RFC 9112), as far as curl needs it.
fn http(tcp: TcpStream) {
    let mut write = tcp.try_clone().unwrap();
    let mut path = None;
    for line in BufReader::new(tcp).lines().map_while(Result::ok) {
        if let Some(rest) = line.strip_prefix("GET /") {
            path = rest.split(' ').next().and_then(|number| number.parse().ok());
        } else if line.is_empty() {
            let body = page(path.take().unwrap());
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            if write.write_all(head.as_bytes()).and_then(|()| write.write_all(&body)).is_err() {
                return;
            }
        }
    }
}

/// 24 pages of 3 MiB, eight at once.
#[test]
#[ignore = "needs curl: run .ci/programs"]
fn curl_fetches_pages_in_parallel() {
    let to = tempfile::tempdir().unwrap();
    let target = server(http).to_string();
    let (_expose, ticket) = expose(&[&target]);
    for transport in ["udp", "tcp"] {
        let (_open, at) = open(&over(&ticket, transport), &["0"]);
        let (url, file) = (format!("http://{}/[1-24]", at[0]), to.path().join("#1"));
        let args = ["-sS", "--fail", "--noproxy", "*", "--parallel", "--parallel-max", "8", "-o", file.to_str().unwrap(), &url];
        let output = run("curl", &args, b"");
        assert!(output.status.success(), "{}", said(&output));
        for number in 1..=24 {
            let name = to.path().join(number.to_string());
            assert!(std::fs::read(&name).unwrap() == page(number), "page {number} over {transport}");
            std::fs::remove_file(name).unwrap();
        }
    }
}

/// A Redis server of its own. Somebody may take the port between the two binds: then another one is tried.
fn redis(folder: &Path) -> (Process, String) {
    for _ in 0..10 {
        let at = closed_port();
        let args = ["--bind", "127.0.0.1", "--port", &at.port().to_string(), "--save", "", "--appendonly", "no", "--dir"];
        let mut command = Command::new("redis-server");
        let mut child = command.args(args).arg(folder).stdout(Stdio::null()).spawn().expect("redis-server");
        while child.try_wait().unwrap().is_none() {
            if TcpStream::connect(at).is_ok() {
                return (Process(child), at.to_string());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    panic!("redis-server does not start");
}

/// Fifty clients with a load, values of megabytes, and 50,000 commands in one go.
#[test]
#[ignore = "needs redis-server with redis-benchmark and redis-cli: run .ci/programs"]
fn redis_under_load() {
    let folder = tempfile::tempdir().unwrap();
    let (_redis, target) = redis(folder.path());
    let (_expose, ticket) = expose(&[&target]);
    for transport in ["udp", "tcp"] {
        let (_open, at) = open(&over(&ticket, transport), &["0"]);
        let port = at[0].rsplit_once(':').unwrap().1;
        let load = ["-p", port, "-q", "-n", "20000", "-c", "50", "-P", "4", "-t", "set,get,incr,lrange_100"];
        let output = run("redis-benchmark", &load, b"");
        let text = said(&output);
        assert!(output.status.success() && !text.contains("rror"), "{text}");
        for name in ["SET:", "GET:", "INCR:", "LRANGE_100"] {
            let line = |line: &&str| line.starts_with(name) && line.contains("requests per second");
            let line = text.split(['\r', '\n']).find(line).unwrap_or_else(|| panic!("no {name} in {text}"));
            eprintln!("over {transport}: {line}");
        }
        // Bytes of all values, more than any window: base64 would hide what is changed.
        let value = pattern(8 << 20, 4);
        let output = run("redis-cli", &["-p", port, "-x", "set", "large"], &value);
        assert!(said(&output).starts_with("OK"), "{}", said(&output));
        let output = run("redis-cli", &["-p", port, "--raw", "get", "large"], b"");
        assert!(output.stdout.strip_suffix(b"\n") == Some(&value[..]), "{} bytes came back", output.stdout.len());
        let commands: String = (0..50_000).map(|number| format!("SET key:{number} {transport}\r\n")).collect();
        let output = run("redis-cli", &["-p", port, "--pipe"], commands.as_bytes());
        assert!(said(&output).contains("errors: 0, replies: 50000"), "{}", said(&output));
        let output = run("redis-cli", &["-p", port, "get", "key:49999"], b"");
        assert_eq!(said(&output).trim(), transport);
    }
}
