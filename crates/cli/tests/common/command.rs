//! Running the real command.
#![allow(dead_code, unreachable_pub)] // each test uses its own part

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

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

/// Fails unless every event and field of these is in `docs/json.md`.
pub fn assert_documented(events: &[serde_json::Value]) {
    let text = include_str!("../../../../docs/json.md");
    for event in events {
        let name = event["event"].as_str().unwrap();
        let row = text.lines().find(|line| line.starts_with(&format!("| `{name}` ")));
        let row = row.unwrap_or_else(|| panic!("the event {name} is not documented"));
        for field in event.as_object().unwrap().keys().filter(|field| *field != "event") {
            assert!(row.contains(&format!("`{field}`")), "the field {field} of {name} is not documented");
        }
    }
}

/// A running command; killed when dropped.
pub struct Running {
    pub child: Child,
    said: Arc<Mutex<String>>,
}

impl Running {
    /// Starts it; what it says on stderr is kept. stdin and stdout are what `set` makes of them.
    pub fn start(args: &[&str], set: impl FnOnce(&mut Command)) -> Running {
        let mut command = strait(args);
        set(&mut command);
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let (said, from) = (Arc::new(Mutex::new(String::new())), BufReader::new(child.stderr.take().unwrap()));
        let into = said.clone();
        std::thread::spawn(move || {
            for line in from.lines().map_while(Result::ok) {
                *into.lock().unwrap() += &format!("{line}\n");
            }
        });
        Running { child, said }
    }

    /// Starts it and waits for so many lines on stdout.
    pub fn lines(args: &[&str], count: usize) -> (Running, Vec<String>) {
        let mut running = Running::start(args, |command| _ = command.stdout(Stdio::piped()));
        let mut from = BufReader::new(running.child.stdout.take().unwrap());
        let mut lines = Vec::new();
        while lines.len() < count {
            let mut line = String::new();
            if from.read_line(&mut line).unwrap() == 0 {
                running.child.wait().unwrap();
                panic!("it has ended: {}", running.said());
            }
            lines.push(line.trim().to_owned());
        }
        // Kept open, so that it does not find stdout closed.
        running.child.stdout = Some(from.into_inner());
        (running, lines)
    }

    /// What it has said on stderr so far.
    pub fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// Waits until a line on stderr begins with, or has in it, this; gives that line.
    pub fn says(&self, text: &str) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            // A line counts when it is whole.
            if let Some(line) = self.said().lines().find(|line| line.contains(text)) {
                return line.to_owned();
            }
            assert!(Instant::now() < until, "{text:?} is not said in: {}", self.said());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Sends it a signal and waits for its end.
    pub fn signal(&mut self, name: &str) -> Option<i32> {
        signal(&self.child, name);
        self.child.wait().unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// For `strait node`: a new identity, and loopback only.
pub const ALONE: &[&str] = &["--ephemeral", "--listen", "127.0.0.1:0"];

/// `strait node` with an admin port, its ticket, and where that port is.
pub fn node(more: &[&str]) -> (Running, String, SocketAddr) {
    let (running, lines) = Running::lines(&[&["node", "--admin", "127.0.0.1:0"], more].concat(), 1);
    let said = running.says("What it does: http://");
    let admin = said.split("http://").nth(1).and_then(|rest| rest.trim_end_matches('/').parse().ok()).expect("an address");
    (running, lines[0].clone(), admin)
}

/// How long a test waits for what has to come.
const PATIENCE: Duration = Duration::from_secs(60);

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
