//! Running the real command.
#![allow(dead_code, unreachable_pub)] // each test uses its own part

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use strait_cli::ticket::Ticket;

/// The command, with an environment of its own.
pub fn strait(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_strait"));
    command.args(args).stdin(Stdio::null()).env("RUST_BACKTRACE", "0");
    command
}

/// Runs it to its end.
pub fn run(args: &[&str]) -> Output {
    strait(args).output().unwrap()
}

/// The exit code, and what it said on stderr.
pub fn code_of(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Fails, with what it said, unless the exit code is this.
pub fn assert_code(output: &Output, code: i32) {
    let (got, said) = code_of(output);
    assert_eq!(got, Some(code), "{said}");
}

/// The events on stdout, one JSON object a line.
pub fn events(output: &Output) -> Vec<serde_json::Value> {
    let lines = output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).unwrap()).collect()
}

/// Asserts that a failure's text has its three parts.
pub fn assert_explained(output: &Output) {
    let (_, said) = code_of(output);
    for part in ["error: ", "\n  why:  ", "\n  next: "] {
        assert!(said.contains(part), "{said}");
    }
}

/// A running `strait send`; killed when dropped.
pub struct Sender {
    child: Child,
    pub ticket: String,
}

impl Sender {
    /// Starts it for one path, with more arguments, on the loopback interface.
    pub fn start(path: &Path, more: &[&str]) -> Sender {
        Sender::run(path, &[&["--ephemeral", "--listen", "127.0.0.1:0"], more].concat())
    }

    /// Starts it for one path, with these arguments.
    pub fn run(path: &Path, args: &[&str]) -> Sender {
        let path = path.to_str().unwrap();
        let args = [&["send"], args, &["--", path]].concat();
        let mut child = strait(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut ticket = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut ticket).unwrap();
        if ticket.is_empty() {
            let mut said = String::new();
            child.stderr.as_mut().unwrap().read_to_string(&mut said).unwrap();
            panic!("no ticket: {said}");
        }
        Sender { child, ticket: ticket.trim().to_owned() }
    }

    pub fn parsed(&self) -> Ticket {
        self.ticket.parse().unwrap()
    }

    /// Fetches into `dir`.
    pub fn get(&self, dir: &Path, more: &[&str]) -> Output {
        get(&self.ticket, dir, more)
    }

    /// Waits for its end.
    pub fn wait(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    /// Sends it a signal and waits for its end.
    pub fn signal(mut self, name: &str) -> Option<i32> {
        signal(&self.child, name);
        self.child.wait().unwrap().code()
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The first line of a child's output, without its end.
pub fn first_line(from: impl Read) -> String {
    let mut line = String::new();
    BufReader::new(from).read_line(&mut line).unwrap();
    line.trim().to_owned()
}

/// Sends a signal such as `TERM` to a child.
pub fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").args(["-s", name, &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

/// `strait get TICKET -o DIR`
pub fn get(ticket: &str, dir: &Path, more: &[&str]) -> Output {
    run(&[&["get", ticket, "-o", dir.to_str().unwrap()], more].concat())
}
