//! Each setting, with its words, its default and how it is read.

use std::fmt::Display;
use std::str::FromStr;

use strait_core::limits::LimitValue;
use strait_core::{Multiaddr, PeerId};
use toml::Value;
use tracing::level_filters::LevelFilter;

use super::{ADMIN, Config, kind};
use crate::args::{duration, size};

/// Lists are at most so long.
const LIST_MAX: usize = 64;

/// One setting that is no limit.
pub(super) struct Setting {
    /// Its name, with its section in front.
    pub(super) name: &'static str,
    /// What it does.
    pub(super) words: &'static str,
    /// An example, as TOML.
    pub(super) example: &'static str,
    pub(super) read: fn(&mut Config, &Value) -> Result<(), String>,
}

/// All of them, in the order of the reference.
pub(super) const SETTINGS: &[Setting] = &[
    Setting {
        name: "key",
        words: "The file of the node's identity; it is made if it is not there. Without it the usual one (strait id).",
        example: "\"/var/lib/strait/key\"",
        read: |config, value| text(value).map(|path| config.key = Some(path.into())),
    },
    Setting {
        name: "listen",
        words: "Where it listens for other nodes, for UDP and TCP. Without it at free ports of all interfaces.",
        example: "[\"0.0.0.0:4001\", \"[::]:4001\"]",
        read: |config, value| list(value, "an address with a port").map(|all| config.listen = all),
    },
    Setting {
        name: "announce",
        words: "Where others reach it, if not where it listens, such as the address of a port forward. Then others learn this only.",
        example: "[\"/ip4/192.0.2.1/udp/4001/quic-v1\"]",
        read: |config, value| list::<Multiaddr>(value, "a multiaddr").map(|all| config.announce = all),
    },
    Setting {
        name: "admin",
        words: "Where metrics, health and the page are: an address that only those reach who may see them; or \"off\".",
        example: "\"127.0.0.1:9464\"",
        read: |config, value| admin(text(value)?).map(|admin| config.admin = admin),
    },
    Setting {
        name: "peers",
        words: "Peers that it keeps connected: addresses that end with /p2p/ and an identity. Nobody takes their slots.",
        example: "[\"/ip4/192.0.2.2/udp/4001/quic-v1/p2p/12D3KooW...\"]",
        read: |config, value| {
            let all = list::<Multiaddr>(value, "a multiaddr")?;
            all.iter().try_for_each(|address| identity(address).map(drop))?;
            config.peers = all;
            Ok(())
        },
    },
    Setting {
        name: "log",
        words: "How much it says on stderr while it runs: off, error, warn, info, debug or trace. Each place in the program says at most 60 lines an hour.",
        example: "\"info\"",
        read: |config, value| log(text(value)?).map(|level| config.log = level),
    },
    Setting {
        name: "abuse_log",
        words: "Evidence of abuse is appended to this file, one JSON object a line, for firewalls (docs/abuse-feed.md).",
        example: "\"/var/log/strait/abuse.jsonl\"",
        read: |config, value| text(value).map(|path| config.abuse_log = Some(path.into())),
    },
    Setting {
        name: "forward.targets",
        words: "TCP ports that others reach through this node with `strait forward open`, and no others.",
        example: "[\"127.0.0.1:5432\"]",
        read: |config, value| list(value, "HOST:PORT").map(|all| config.targets = all),
    },
    Setting {
        name: "forward.allow",
        words: "Who may use them, by identity. Without it whoever reaches this node.",
        example: "[\"12D3KooW...\"]",
        read: |config, value| list::<PeerId>(value, "an identity as strait id prints it").map(|all| config.allow = all),
    },
];

fn text(value: &Value) -> Result<&str, String> {
    value.as_str().ok_or_else(|| format!("it is {}, not text in quotes", kind(value)))
}

fn list<T: FromStr<Err: Display>>(value: &Value, each: &str) -> Result<Vec<T>, String> {
    let all = value.as_array().ok_or_else(|| format!("it is {}, not a list in brackets", kind(value)))?;
    if all.len() > LIST_MAX {
        return Err(format!("it has {} entries, at most {LIST_MAX} are allowed", all.len()));
    }
    let one = |value: &Value| {
        let text = text(value)?;
        text.parse::<T>().map_err(|error| format!("{text:?} is not {each}: {error}"))
    };
    all.iter().map(one).collect()
}

/// An admin address, or that there is to be none.
pub(crate) fn admin(text: &str) -> Result<Option<std::net::SocketAddr>, String> {
    match text {
        "off" => Ok(None),
        _ => {
            text.parse().map(Some).map_err(|_| format!("{text:?} is neither \"off\" nor an address with a port, such as {ADMIN}"))
        }
    }
}

/// How much is said.
pub(crate) fn log(text: &str) -> Result<LevelFilter, String> {
    let known = ["off", "error", "warn", "info", "debug", "trace"].contains(&text);
    text.parse().ok().filter(|_| known).ok_or_else(|| format!("{text:?} is none of off, error, warn, info, debug and trace"))
}

/// The identity that an address ends with.
pub(crate) fn identity(address: &Multiaddr) -> Result<PeerId, String> {
    let text = address.to_string();
    let peer = text.rsplit_once("/p2p/").and_then(|(_, peer)| peer.parse().ok());
    peer.ok_or_else(|| format!("{address} does not end with /p2p/ and the identity of a peer"))
}

/// A limit's value of what its text says, of the kind that `current` is.
pub(super) fn limit(text: &str, current: LimitValue) -> Result<LimitValue, String> {
    match current {
        LimitValue::Time(_) => duration(text).map(LimitValue::Time),
        LimitValue::Number(_) => size(text).map(LimitValue::Number),
    }
}
