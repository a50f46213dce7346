//! Errors of the async API. What only the core can know is in `strait_core`.

use strait_core::peers::{Attempt, Undeclarable};
use strait_core::{ConfigError, DialError, Multiaddr, PeerId, RequestError};

/// A node could not be started. Nothing runs.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration cannot hold.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A socket could not be opened.
    #[error("cannot listen on UDP {address}: {error}; choose another port, or port 0 for any that is free")]
    Bind {
        /// The address that was asked for.
        address: std::net::SocketAddr,
        /// The system's error.
        error: std::io::Error,
    },
    /// An address that was to be announced cannot be.
    #[error("cannot announce {address}: {why}; announce the address and port that others reach this node at")]
    Announce {
        /// The address.
        address: Multiaddr,
        /// What is wrong with it.
        why: Undeclarable,
    },
    /// The system gives no randomness.
    #[error("the system's random source failed; without it no secret is safe, so the node does not start")]
    Random,
}

/// A protocol cannot be served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServeError {
    /// Its definition does not fit, or its name is taken.
    #[error(transparent)]
    Definition(#[from] ConfigError),
    /// The node is closing.
    #[error("this node is closing")]
    Closing,
}

/// No address led to the peer. Nothing is left of the attempts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConnectError {
    /// Who was wanted.
    pub peer: PeerId,
    /// What was tried, for how long, and why it failed, for each address.
    pub attempts: Vec<Attempt>,
    /// Why nothing was tried at all, if it was not.
    pub error: Option<Box<DialError>>,
}

impl std::fmt::Display for ConnectError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(error) = &self.error {
            return write!(f, "{} was not dialled: {error}", self.peer);
        }
        if self.attempts.is_empty() {
            return write!(f, "no address of {} is known; ask it for one, or for a ticket", self.peer);
        }
        write!(f, "{} could not be reached", self.peer)?;
        for attempt in &self.attempts {
            write!(f, "\n  {attempt}")?;
        }
        Ok(())
    }
}

impl ConnectError {
    pub(crate) fn whole(peer: PeerId, error: DialError) -> ConnectError {
        ConnectError { peer, attempts: Vec::new(), error: Some(Box::new(error)) }
    }

    /// The error that says most: a wrong identity before a refusal before silence.
    pub fn first_cause(&self) -> DialError {
        let weight = |error: &DialError| match error {
            DialError::WrongPeer { .. } => 0,
            DialError::Refused(_) | DialError::Incompatible(_) => 1,
            DialError::Full(_) | DialError::Closing | DialError::Itself | DialError::Stuck { .. } => 2,
            DialError::NothingListens => 3,
            DialError::NoAnswer { .. } => 4,
            DialError::Name { .. } | DialError::NameOutOfScope { .. } => 5,
            DialError::NoWay(_) | DialError::Rests { .. } => 6,
            DialError::BadAddress(_) | DialError::TooMany => 7,
        };
        let attempts = self.attempts.iter().map(|attempt| &attempt.error);
        let first = attempts.chain(self.error.as_deref()).min_by_key(|error| weight(error));
        first.cloned().unwrap_or_else(|| DialError::BadAddress("no address".to_owned()))
    }
}

/// A raw stream could not be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Not connected, and connecting failed.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The definition cannot be used.
    #[error(transparent)]
    Definition(#[from] ConfigError),
    /// The node is closing.
    #[error("this node is closing")]
    Closing,
}

/// A ping failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PingError {
    /// Not connected, and connecting failed.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Connected, and no right echo came.
    #[error(transparent)]
    Echo(#[from] RequestError),
}
