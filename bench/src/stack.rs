//! The stacks: what each is, over what it runs, and with what it is compared.

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// A stack under one kind of tokio runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Stack {
    /// strait, multi-thread runtime with two workers.
    Strait,
    /// strait, current-thread runtime.
    StraitCurrent,
    /// As `strait`, with an admin port that is asked for its metrics every second: runs only where it is asked for.
    StraitScraped,
    /// quinn, multi-thread runtime with two workers.
    Quinn,
    /// quinn, current-thread runtime.
    QuinnCurrent,
    /// noq, multi-thread runtime with two workers.
    #[cfg(feature = "noq")]
    Noq,
    /// noq, current-thread runtime.
    #[cfg(feature = "noq")]
    NoqCurrent,
    /// s2n-quic, multi-thread runtime with two workers.
    #[cfg(feature = "s2n-quic")]
    #[value(name = "s2n-quic")]
    #[serde(rename = "s2n-quic")]
    S2n,
    /// s2n-quic, current-thread runtime.
    #[cfg(feature = "s2n-quic")]
    #[value(name = "s2n-quic-current")]
    #[serde(rename = "s2n-quic-current")]
    S2nCurrent,
    /// rust-libp2p over QUIC, multi-thread runtime with two workers.
    Libp2p,
    /// strait over TCP, TLS and Yamux.
    StraitTls,
    /// strait over TCP, Noise and Yamux.
    StraitNoise,
    /// rust-libp2p over TCP, TLS and Yamux.
    Libp2pTls,
    /// rust-libp2p over TCP, Noise and Yamux.
    Libp2pNoise,
    /// litep2p over TCP, Noise and Yamux.
    #[cfg(feature = "litep2p")]
    Litep2pNoise,
    /// Bare TCP and TLS with the least of a multiplexer: a limit, not a stack.
    #[cfg(feature = "tcp-tls")]
    TcpTls,
    /// The same, current-thread runtime.
    #[cfg(feature = "tcp-tls")]
    TcpTlsCurrent,
}

/// Stacks that are compared with each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Family {
    /// Over QUIC, against quinn.
    Quic,
    /// Over TCP, against rust-libp2p with TLS.
    Tcp,
}

impl Family {
    /// The stacks of it.
    pub(crate) fn stacks(self) -> Vec<Stack> {
        Stack::by_default().filter(|stack| stack.family() == self).collect()
    }

    /// The one that ratios are taken against.
    pub(crate) fn baseline(self) -> Stack {
        match self {
            Family::Quic => Stack::Quinn,
            Family::Tcp => Stack::Libp2pTls,
        }
    }
}

impl Stack {
    /// Whether the runtime has one thread only.
    pub(crate) fn current_thread(self) -> bool {
        match self {
            Stack::StraitCurrent | Stack::QuinnCurrent => true,
            #[cfg(feature = "noq")]
            Stack::NoqCurrent => true,
            #[cfg(feature = "s2n-quic")]
            Stack::S2nCurrent => true,
            #[cfg(feature = "tcp-tls")]
            Stack::TcpTlsCurrent => true,
            _ => false,
        }
    }

    /// Those that run unless others are asked for.
    pub(crate) fn by_default() -> impl Iterator<Item = Stack> {
        Stack::value_variants().iter().copied().filter(|stack| *stack != Stack::StraitScraped)
    }

    /// Whether this is strait itself, under either runtime and over whatever.
    pub(crate) fn is_strait(self) -> bool {
        matches!(self, Stack::Strait | Stack::StraitCurrent | Stack::StraitScraped | Stack::StraitTls | Stack::StraitNoise)
    }

    /// What strait is called that runs as this does: over the same transport, secured the same way, under the same runtime where strait has that.
    pub(crate) fn strait_beside(self) -> Stack {
        match self.tcp_security() {
            Some("/noise") => Stack::StraitNoise,
            Some(_) => Stack::StraitTls,
            None if self.current_thread() => Stack::StraitCurrent,
            None => Stack::Strait,
        }
    }

    /// Whether it is a limit, and no stack that could be used instead.
    pub(crate) fn is_limit(self) -> bool {
        self.krate() == "tokio-rustls"
    }

    /// With which others it is compared.
    pub(crate) fn family(self) -> Family {
        if self.is_tcp() { Family::Tcp } else { Family::Quic }
    }

    /// Whether it runs over TCP.
    pub(crate) fn is_tcp(self) -> bool {
        self.tcp_security().is_some()
    }

    /// How it secures a TCP connection, by the protocol's name.
    pub(crate) fn tcp_security(self) -> Option<&'static str> {
        match self {
            Stack::StraitTls | Stack::Libp2pTls => Some("/tls/1.0.0"),
            Stack::StraitNoise | Stack::Libp2pNoise => Some("/noise"),
            #[cfg(feature = "litep2p")]
            Stack::Litep2pNoise => Some("/noise"),
            #[cfg(feature = "tcp-tls")]
            Stack::TcpTls | Stack::TcpTlsCurrent => Some("plain TLS"),
            _ => None,
        }
    }

    /// The crate whose version says what it is.
    pub(crate) fn krate(self) -> &'static str {
        match self {
            Stack::Strait | Stack::StraitCurrent | Stack::StraitScraped | Stack::StraitTls | Stack::StraitNoise => "strait",
            Stack::Quinn | Stack::QuinnCurrent => "quinn",
            #[cfg(feature = "noq")]
            Stack::Noq | Stack::NoqCurrent => "noq",
            #[cfg(feature = "s2n-quic")]
            Stack::S2n | Stack::S2nCurrent => "s2n-quic",
            Stack::Libp2p | Stack::Libp2pTls | Stack::Libp2pNoise => "libp2p",
            #[cfg(feature = "litep2p")]
            Stack::Litep2pNoise => "litep2p",
            #[cfg(feature = "tcp-tls")]
            Stack::TcpTls | Stack::TcpTlsCurrent => "tokio-rustls",
        }
    }
}

impl fmt::Display for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.to_possible_value();
        f.pad(name.as_ref().map_or("", clap::builder::PossibleValue::get_name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stack_has_one_name() {
        for stack in Stack::value_variants() {
            let json = serde_json::to_string(stack).expect("a name");
            assert_eq!(json, format!("\"{stack}\""));
        }
    }
}
