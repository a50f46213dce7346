//! The configuration of `strait node`: a TOML file, with flags that say the same.

mod reference;
mod settings;

use std::net::SocketAddr;
use std::path::PathBuf;

use strait_core::peers::own::check_declared;
use strait_core::{Limits, Multiaddr, PeerId};
use toml::{Table, Value};
use tracing::level_filters::LevelFilter;

pub use reference::reference;

use crate::exit::{Code, Failure};
use crate::forward::Target;
use settings::SETTINGS;
pub(crate) use settings::{admin, identity, log};

/// Where the admin port is without another word.
pub const ADMIN: &str = "127.0.0.1:9464";
/// A file is at most so long.
pub const FILE_BYTES_MAX: u64 = 1 << 20;

/// What a node is to do.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The file of its identity; without it the usual one.
    pub key: Option<PathBuf>,
    /// Where it listens, for UDP and TCP; without any at free ports of all interfaces.
    pub listen: Vec<SocketAddr>,
    /// Where others reach it.
    pub announce: Vec<Multiaddr>,
    /// Where its admin port is.
    pub admin: Option<SocketAddr>,
    /// Peers that it keeps connected.
    pub peers: Vec<Multiaddr>,
    /// How much it says while it runs.
    pub log: LevelFilter,
    /// Where evidence of abuse goes.
    pub abuse_log: Option<PathBuf>,
    /// TCP ports that others may reach.
    pub targets: Vec<Target>,
    /// By whom; by everybody without any.
    pub allow: Vec<PeerId>,
    /// Every number that bounds it.
    pub limits: Limits,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            key: None,
            listen: Vec::new(),
            announce: Vec::new(),
            admin: ADMIN.parse().ok(),
            peers: Vec::new(),
            log: LevelFilter::INFO,
            abuse_log: None,
            targets: Vec::new(),
            allow: Vec::new(),
            limits: Limits::default(),
        }
    }
}

impl Config {
    /// Reads a file's text. What it does not say is as by default.
    ///
    /// # Errors
    /// What is wrong, and where; a name that is not known with the nearest one that is.
    pub fn read(text: &str) -> Result<Config, Failure> {
        let table: Table = text.parse().map_err(|error: toml::de::Error| {
            let place = error.span().map_or(0, |span| text.get(..span.start).map_or(0, |before| before.lines().count().max(1)));
            wrong(format!("line {place}: {}", error.message()), "this is not TOML (https://toml.io)")
        })?;
        let mut config = Config::default();
        for (name, value) in &table {
            match (name.as_str(), value) {
                ("forward", Value::Table(inner)) => config.section("forward.", inner)?,
                ("limits", Value::Table(inner)) => config.limits_of(inner)?,
                ("forward" | "limits", _) => {
                    return Err(wrong(
                        format!("{name} is not a section"),
                        "it begins with its name in brackets, on a line of its own",
                    ));
                }
                _ => config.setting(name, value)?,
            }
        }
        Ok(config)
    }

    fn section(&mut self, prefix: &str, table: &Table) -> Result<(), Failure> {
        table.iter().try_for_each(|(name, value)| self.setting(&format!("{prefix}{name}"), value))
    }

    fn limits_of(&mut self, table: &Table) -> Result<(), Failure> {
        for (name, value) in table {
            let text = match value {
                Value::Integer(number) => number.to_string(),
                Value::String(text) => text.clone(),
                _ => {
                    return Err(wrong(
                        format!("limits.{name} is {}", kind(value)),
                        "a limit is a whole number, a size or a time",
                    ));
                }
            };
            self.set_limit(name, &text)?;
        }
        Ok(())
    }

    fn setting(&mut self, name: &str, value: &Value) -> Result<(), Failure> {
        let Some(setting) = SETTINGS.iter().find(|setting| setting.name == name) else {
            return Err(unknown(name, SETTINGS.iter().map(|setting| setting.name).chain(["limits", "forward"])));
        };
        (setting.read)(self, value).map_err(|why| wrong(format!("{name} is wrong"), why))
    }

    /// Sets a limit by its name, as text: a number, a size such as `512M` or a time such as `10s`.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn set_limit(&mut self, name: &str, text: &str) -> Result<(), Failure> {
        let Some((_, _, current)) = self.limits.list().into_iter().find(|(of, ..)| *of == name) else {
            return Err(unknown(&format!("limits.{name}"), Limits::NAMES.iter().copied()));
        };
        let value = settings::limit(text, current).map_err(|why| wrong(format!("limits.{name} is wrong"), why))?;
        self.limits.set(name, value).map_err(|error| wrong(format!("limits.{name} is wrong"), error.to_string()))
    }

    /// Whether all fits together.
    ///
    /// # Errors
    /// Which numbers clash, and what would fit.
    pub fn check(&self) -> Result<(), Failure> {
        for address in &self.announce {
            // Whose identity is at its end, if any is, is only known with the key.
            let own = identity(address).unwrap_or_else(|_| PeerId::random());
            check_declared(&own, address).map_err(|why| wrong(format!("{address} cannot be announced"), why.to_string()))?;
        }
        self.limits.check().map_err(|error| wrong("the limits do not fit together".to_owned(), error.to_string()))
    }
}

fn wrong(what: String, why: impl Into<String>) -> Failure {
    let next = "strait node --reference prints every setting with its words and its default; --check looks at a file and does nothing else";
    Failure::new(Code::Usage, format!("the configuration cannot be used: {what}"), why.into(), next)
}

fn unknown<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Failure {
    let last = name.rsplit('.').next().unwrap_or(name);
    let near =
        known.map(|known| (strsim::normalized_damerau_levenshtein(last, known.rsplit('.').next().unwrap_or(known)), known));
    let nearest = near.max_by(|(one, _), (other, _)| one.total_cmp(other)).filter(|(likeness, _)| *likeness > 0.4);
    let why = match nearest {
        Some((_, known)) => format!("there is {known:?}; perhaps that is meant"),
        None => "nothing has a name like this".to_owned(),
    };
    wrong(format!("nothing is called {name:?}"), why)
}

fn kind(value: &Value) -> String {
    format!("a {}", value.type_str())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn failure(text: &str) -> String {
        let failure = Config::read(text).expect_err("it is wrong");
        format!("{} / {}", failure.what, failure.why)
    }

    #[test]
    fn an_empty_file_is_the_defaults() {
        assert_eq!(Config::read("").expect("empty"), Config::default());
    }

    #[test]
    fn each_setting_is_read() {
        let peer = PeerId::random();
        let text = format!(
            "key = '/k'\nlisten = ['127.0.0.1:4001', '[::1]:4001']\nadmin = 'off'\nabuse_log = '/a'\n\
            announce = ['/ip4/192.0.2.1/udp/4001/quic-v1']\npeers = ['/ip4/192.0.2.2/udp/4001/quic-v1/p2p/{peer}']\n\
            [forward]\ntargets = ['127.0.0.1:22']\nallow = ['{peer}']\n\
            [limits]\nmemory_bytes = '1G'\nconnections_max = 100\nidle_timeout = '45s'\n"
        );
        let config = Config::read(&text).expect("right");
        assert_eq!((config.listen.len(), config.admin, config.announce.len(), config.peers.len()), (2, None, 1, 1));
        assert_eq!((config.targets.len(), &config.allow[..]), (1, &[peer][..]));
        assert_eq!((config.limits.memory_bytes, config.limits.connections_max), (1 << 30, 100));
        assert_eq!(config.limits.idle_timeout, Duration::from_secs(45));
    }

    #[test]
    fn what_is_wrong_is_named_with_what_was_perhaps_meant() {
        for (text, parts) in [
            ("lisen = ['0.0.0.0:1']", ["\"lisen\"", "\"listen\""]),
            ("[limits]\nmemory_byte = 1", ["\"limits.memory_byte\"", "\"memory_bytes\""]),
            ("[forward]\ntarget = []", ["\"forward.target\"", "\"forward.targets\""]),
            ("[limit]\n", ["\"limit\"", "\"limits\""]),
            ("xyzzy = 1", ["\"xyzzy\"", "nothing has a name like this"]),
            ("log = 'loud'", ["log is wrong", "loud"]),
            ("listen = '0.0.0.0:1'", ["listen is wrong", "a list"]),
            ("listen = ['nowhere']", ["listen is wrong", "nowhere"]),
            ("peers = ['/ip4/192.0.2.2/udp/1/quic-v1']", ["peers is wrong", "/p2p/"]),
            ("[limits]\nidle_timeout = 10", ["limits.idle_timeout", "unit"]),
            ("[limits]\nstreams_max = '5s'", ["limits.streams_max", "whole number"]),
            ("[limits]\nstreams_max = 5000000000", ["limits.streams_max", "4294967295"]),
            ("[limits]\nstreams_max = -1", ["limits.streams_max", "whole number"]),
            ("limits = 1", ["limits is not a section", "brackets"]),
            ("a = [\nb = 1", ["line", "TOML"]),
        ] {
            let said = failure(text);
            assert!(parts.iter().all(|part| said.contains(part)), "{text:?} gives {said}");
        }
    }

    #[test]
    fn what_nobody_could_reach_is_not_announced() {
        let config = Config::read("announce = ['/ip4/192.0.2.1/udp/4001/quic-v1']").expect("it is an address");
        assert!(config.check().expect_err("it is one for documentation").what.contains("192.0.2.1"));
    }

    #[test]
    fn the_settings_for_ten_thousand_connections_fit_together() {
        let config = Config::read(include_str!("../../../../deploy/ten-thousand.toml")).expect("right");
        assert_eq!(config.limits.check(), Ok(()));
        let inbound = config.limits.connections_max - config.limits.outbound_min();
        assert!(inbound >= 10_000, "{inbound}");
        let floors = config.limits.connection_floor() * u64::from(config.limits.places());
        assert_eq!((floors >> 20, config.limits.connection_floor() >> 10), (1_587, 140), "as it says");
    }

    #[test]
    fn limits_that_clash_are_told() {
        let config = Config::read("[limits]\nconnections_max = 1000000").expect("each by itself is right");
        assert!(config.check().expect_err("not together").why.contains("memory"));
    }
}
