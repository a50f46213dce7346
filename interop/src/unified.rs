//! What programs have in common that take part in libp2p's unified testing: <https://github.com/libp2p/unified-testing>, `docs/write-a-transport-test-app.md`.
//!
//! Settings come in the environment. The listener tells its address in Redis; the dialer dials it, pings, and prints what it measured on stdout, as
//! YAML. All else goes to stderr.

use std::fmt;
use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use libp2p::Multiaddr;

use crate::transport::Transport;

/// How long the dialer waits for a listener, and anybody for Redis.
pub const WAIT_MAX: Duration = Duration::from_secs(60);
const REDIS_PAUSE: Duration = Duration::from_millis(50);

/// What the environment says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Whether to dial or to listen: `IS_DIALER`.
    pub dialer: bool,
    /// Host and port of the Redis server: `REDIS_ADDR`.
    pub redis: String,
    /// What this test's keys begin with: `TEST_KEY`.
    pub key: String,
    /// `TRANSPORT` with `SECURE_CHANNEL` and `MUXER`.
    pub transport: Transport,
    /// Where to listen: `LISTENER_IP`.
    pub ip: IpAddr,
    /// Whether to tell more on stderr: `DEBUG`.
    pub debug: bool,
}

impl Settings {
    /// Reads them. `variable` gives the value of an environment variable.
    ///
    /// # Errors
    /// In words, which is missing or not understood.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Settings, String> {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty() && value != "null");
        let needed = |name: &str| variable(name).ok_or_else(|| format!("{name} is not set"));
        let truth = |name: &str, text: &str| match text {
            "true" => Ok(true),
            "false" => Ok(false),
            other => Err(format!("{name} is `{other}`, neither `true` nor `false`")),
        };
        let ip = variable("LISTENER_IP").unwrap_or_else(|| "0.0.0.0".to_owned());
        Ok(Settings {
            dialer: truth("IS_DIALER", &needed("IS_DIALER")?)?,
            redis: needed("REDIS_ADDR")?,
            key: needed("TEST_KEY")?,
            transport: transport(&needed("TRANSPORT")?, variable("SECURE_CHANNEL").as_deref(), variable("MUXER").as_deref())?,
            ip: ip.parse().map_err(|_| format!("LISTENER_IP is `{ip}`, which is no IP address"))?,
            debug: truth("DEBUG", &variable("DEBUG").unwrap_or_else(|| "false".to_owned()))?,
        })
    }

    /// Reads those of this process.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn of_this_process() -> Result<Settings, String> {
        Settings::read(|name| std::env::var(name).ok())
    }

    fn address_key(&self) -> String {
        format!("{}_listener_multiaddr", self.key)
    }

    /// Tells where this listener is. Blocks.
    ///
    /// # Errors
    /// What Redis or the connection to it says.
    pub fn publish(&self, address: &Multiaddr) -> Result<(), String> {
        let mut redis = self.redis()?;
        // The guide speaks of a value; what the programs of the other stacks do is to push to a list and wait for its first element.
        let told = redis::pipe()
            .cmd("DEL")
            .arg(self.address_key())
            .ignore()
            .cmd("RPUSH")
            .arg(self.address_key())
            .arg(address.to_string())
            .ignore()
            .query::<()>(&mut redis);
        told.map_err(|error| format!("Redis at {}: {error}", self.redis))
    }

    /// Where the listener is, once it says so, in a list or as a value. Blocks.
    ///
    /// # Errors
    /// What Redis or the connection to it says; that nobody told an address within [`WAIT_MAX`].
    pub fn find(&self) -> Result<Multiaddr, String> {
        let mut redis = self.redis()?;
        let deadline = Instant::now() + WAIT_MAX;
        while Instant::now() < deadline {
            let key = self.address_key();
            let kind: Result<String, _> = redis::cmd("TYPE").arg(&key).query(&mut redis);
            let found: Result<Option<String>, _> = match kind.as_deref() {
                Ok("list") => redis::cmd("LINDEX").arg(&key).arg(0).query(&mut redis),
                Ok("string") => redis::cmd("GET").arg(&key).query(&mut redis),
                Ok(_) => Ok(None),
                Err(error) => return Err(format!("Redis at {}: {error}", self.redis)),
            };
            match found {
                Ok(Some(address)) => return address.parse().map_err(|error| format!("{address}: {error}")),
                Ok(None) => thread::sleep(REDIS_PAUSE),
                Err(error) => return Err(format!("Redis at {}: {error}", self.redis)),
            }
        }
        Err(format!("no listener told its address within {WAIT_MAX:?} in {} of Redis at {}", self.address_key(), self.redis))
    }

    fn redis(&self) -> Result<redis::Connection, String> {
        let client = redis::Client::open(format!("redis://{}/", self.redis)).map_err(|error| format!("REDIS_ADDR: {error}"))?;
        let connect = || {
            let connection = client.get_connection_with_timeout(Duration::from_secs(5))?;
            connection.set_read_timeout(Some(WAIT_MAX))?;
            connection.set_write_timeout(Some(WAIT_MAX))?;
            Ok(connection)
        };
        let deadline = Instant::now() + WAIT_MAX;
        loop {
            match connect() {
                Ok(connection) => return Ok(connection),
                // All programs of a test are started at once.
                Err(_) if Instant::now() < deadline => thread::sleep(REDIS_PAUSE),
                Err::<_, redis::RedisError>(error) => return Err(format!("no Redis at {}: {error}", self.redis)),
            }
        }
    }
}

fn transport(transport: &str, secure: Option<&str>, muxer: Option<&str>) -> Result<Transport, String> {
    match (transport, secure, muxer) {
        ("tcp", Some("noise"), Some("yamux")) => Ok(Transport::TcpNoise),
        ("tcp", Some("tls"), Some("yamux")) => Ok(Transport::TcpTls),
        ("quic-v1", None, None) => Ok(Transport::Quic),
        _ => Err(format!(
            "TRANSPORT {transport}, SECURE_CHANNEL {}, MUXER {} is not spoken here; tcp with noise or tls and with yamux is, and \
             quic-v1 with neither",
            secure.unwrap_or("(none)"),
            muxer.unwrap_or("(none)"),
        )),
    }
}

/// What the dialer has to tell.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Latency {
    /// From the dial to the reply to the first ping.
    pub handshake_plus_one_rtt: Duration,
    /// Another ping.
    pub ping_rtt: Duration,
}

impl fmt::Display for Latency {
    /// As YAML.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = |time: Duration| time.as_secs_f64() * 1e3;
        let (handshake, ping) = (millis(self.handshake_plus_one_rtt), millis(self.ping_rtt));
        write!(f, "latency:\n  handshake_plus_one_rtt: {handshake:.3}\n  ping_rtt: {ping:.3}\n  unit: ms")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Settings, String> {
        Settings::read(|name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
    }

    const QUIC: [(&str, &str); 4] =
        [("IS_DIALER", "true"), ("REDIS_ADDR", "here:1"), ("TEST_KEY", "a5b50d5e"), ("TRANSPORT", "quic-v1")];

    #[test]
    fn quic_needs_neither_and_tcp_needs_both() {
        let settings = read(&QUIC).expect("all that is needed");
        assert!(settings.dialer && !settings.debug && settings.transport == Transport::Quic);
        assert_eq!(settings.address_key(), "a5b50d5e_listener_multiaddr");
        for (channel, expected) in [("noise", Transport::TcpNoise), ("tls", Transport::TcpTls)] {
            let tcp = [("TRANSPORT", "tcp"), ("SECURE_CHANNEL", channel), ("MUXER", "yamux")];
            assert_eq!(read(&[&tcp[..], &QUIC[..3]].concat()).expect("all that is needed").transport, expected);
            assert!(read(&[&tcp[..2], &QUIC[..3]].concat()).expect_err("no muxer").contains("MUXER (none)"));
        }
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        for missing in 0..QUIC.len() {
            let others: Vec<_> = QUIC.iter().copied().filter(|(name, _)| *name != QUIC[missing].0).collect();
            assert!(read(&others).expect_err("one is missing").contains(QUIC[missing].0));
        }
        for (name, value) in [("IS_DIALER", "yes"), ("TRANSPORT", "ws"), ("LISTENER_IP", "localhost"), ("DEBUG", "1")] {
            let error = read(&[&[(name, value)], &QUIC[..]].concat()).expect_err(name);
            assert!(error.contains(name) && error.contains(value), "{error}");
        }
    }

    #[test]
    fn latency_is_yaml_in_milliseconds() {
        let latency = Latency { handshake_plus_one_rtt: Duration::from_micros(5_011), ping_rtt: Duration::from_nanos(599_400) };
        assert_eq!(latency.to_string(), "latency:\n  handshake_plus_one_rtt: 5.011\n  ping_rtt: 0.599\n  unit: ms");
    }
}
