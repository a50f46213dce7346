//! The programs of libp2p's unified testing with a real Redis: strait with itself and with rust-libp2p, over each transport, whoever dials.
//!
//! Without `redis-server` on this machine nothing is tried, and that is said; `INTEROP_COMPLETE=1` makes it an error.

use std::io::Read;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio, exit};
use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};
use strait_interop::transport::Transport;

const STRAIT: &str = env!("CARGO_BIN_EXE_interop");
const RUST_LIBP2P: &str = env!("CARGO_BIN_EXE_interop-rust-libp2p");
/// Generous: it only keeps a broken test from hanging.
const BOUND: Duration = Duration::from_secs(60);

fn main() {
    let arguments = Arguments::from_args();
    let redis = Command::new("redis-server").arg("--version").stdout(Stdio::null()).status();
    let there = redis.is_ok_and(|status| status.success());
    let pairs = [("strait_dials_strait", STRAIT, STRAIT)];
    let pairs = pairs
        .into_iter()
        .chain([("strait_dials_rust_libp2p", STRAIT, RUST_LIBP2P), ("rust_libp2p_dials_strait", RUST_LIBP2P, STRAIT)]);
    let mut trials = Vec::new();
    for (name, dialer, listener) in pairs {
        for transport in Transport::ALL {
            let trial = Trial::test(format!("{name}_over_{}", transport.name()), move || pair(dialer, listener, transport));
            let kind = if there { "" } else { "SKIPPED" };
            trials.push(trial.with_kind(kind).with_ignored_flag(!there));
        }
    }
    trials.push(Trial::test("a_transport_that_is_not_spoken", not_spoken));
    trials.push(Trial::test("no_shared_security", move || no_shared_security()).with_ignored_flag(!there));
    let mut conclusion = libtest_mimic::run(&arguments, trials);
    if !there && !arguments.list {
        eprintln!("\nSKIPPED, NOT TRIED: redis-server is not installed (Debian: apt-get install redis-server)");
        if std::env::var_os("INTEROP_COMPLETE").is_some_and(|value| value != "0") {
            conclusion.num_failed += 1;
        }
    }
    exit(if conclusion.has_failed() { 101 } else { 0 });
}

/// A process of this test, ended with it.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A Redis server of its own, on a port of loopback and in a folder of its own.
struct Redis {
    _process: Process,
    address: String,
    folder: PathBuf,
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Redis {
    fn start() -> Result<Redis, Failed> {
        // Somebody else may take the port between the two binds: then the server ends, and another port is tried.
        for _ in 0..10 {
            let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
            let folder = std::env::temp_dir().join(format!("strait-interop-redis-{}-{port}", std::process::id()));
            std::fs::create_dir_all(&folder)?;
            let child = Command::new("redis-server")
                .args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--appendonly", "no"])
                .args(["--daemonize", "no", "--dir"])
                .arg(&folder)
                .stdout(Stdio::null())
                .spawn()?;
            let mut redis = Redis { _process: Process(child), address: format!("127.0.0.1:{port}"), folder };
            if redis.answers()? {
                return Ok(redis);
            }
        }
        Err("redis-server does not start".into())
    }

    fn answers(&mut self) -> Result<bool, Failed> {
        let begun = Instant::now();
        while self._process.0.try_wait()?.is_none() {
            if TcpStream::connect(&self.address).is_ok() {
                return Ok(true);
            }
            if begun.elapsed() > BOUND {
                return Err("redis-server does not listen".into());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(false)
    }
}

fn command(program: &str, redis: &str, dials: bool, transport: Transport) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("IS_DIALER", dials.to_string())
        .env("REDIS_ADDR", redis)
        .env("TEST_KEY", "a5b50d5e")
        .env("LISTENER_IP", "127.0.0.1")
        .env("DEBUG", "false");
    let channel = match transport {
        Transport::TcpNoise => "noise",
        Transport::TcpTls => "tls",
        Transport::Quic => return command_with(command, &[("TRANSPORT", "quic-v1")]),
    };
    command_with(command, &[("TRANSPORT", "tcp"), ("SECURE_CHANNEL", channel), ("MUXER", "yamux")])
}

fn command_with(mut command: Command, variables: &[(&str, &str)]) -> Command {
    command.envs(variables.iter().copied()).stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

/// What it prints until it ends, and whether it ended well.
fn finish(mut command: Command) -> Result<(String, bool), Failed> {
    let mut process = Process(command.spawn()?);
    let begun = Instant::now();
    let status = loop {
        match process.0.try_wait()? {
            Some(status) => break status,
            None if begun.elapsed() > BOUND => return Err("the dialer does not end".into()),
            None => thread::sleep(Duration::from_millis(20)),
        }
    };
    let mut text = String::new();
    process.0.stdout.take().ok_or("no stdout")?.read_to_string(&mut text)?;
    Ok((text, status.success()))
}

fn pair(dialer: &str, listener: &str, transport: Transport) -> Result<(), Failed> {
    let redis = Redis::start()?;
    // The dialer may come first.
    let dialing = command(dialer, &redis.address, true, transport);
    let address = redis.address.clone();
    let waiting = thread::spawn(move || finish(dialing));
    let mut listening = Process(command(listener, &address, false, transport).spawn()?);
    let (text, well) = waiting.join().map_err(|_| "the dialer's thread panicked")??;
    if !well {
        return Err("the dialer failed; what it said stands above".into());
    }
    if listening.0.try_wait()?.is_some() {
        return Err("the listener did not go on".into());
    }
    let lines: Vec<&str> = text.lines().collect();
    let [head, handshake, ping, unit] = lines[..] else {
        return Err(format!("not the four lines that are expected: {text}").into());
    };
    let handshake = number(handshake, "  handshake_plus_one_rtt: ")?;
    let ping = number(ping, "  ping_rtt: ")?;
    match head == "latency:" && unit == "  unit: ms" && handshake > 0.0 && ping > 0.0 {
        true => Ok(()),
        false => Err(format!("not what is expected: {text}").into()),
    }
}

fn number(line: &str, name: &str) -> Result<f64, Failed> {
    let value = line.strip_prefix(name).and_then(|text| text.parse().ok());
    value.ok_or_else(|| format!("`{line}` does not tell `{}`", name.trim()).into())
}

fn not_spoken() -> Result<(), Failed> {
    let webrtc = command_with(command(STRAIT, "127.0.0.1:1", true, Transport::Quic), &[("TRANSPORT", "webrtc-direct")]);
    match finish(webrtc)? {
        (text, false) if text.is_empty() => Ok(()),
        (text, well) => Err(format!("ended well: {well}; said {text}").into()),
    }
}

/// The transport is the one that was asked for: strait that has only Noise, and strait that has only TLS, do not meet.
fn no_shared_security() -> Result<(), Failed> {
    let redis = Redis::start()?;
    let _listening = Process(command(STRAIT, &redis.address, false, Transport::TcpTls).spawn()?);
    match finish(command(STRAIT, &redis.address, true, Transport::TcpNoise))? {
        (text, false) if text.is_empty() => Ok(()),
        (text, well) => Err(format!("ended well: {well}; said {text}").into()),
    }
}
