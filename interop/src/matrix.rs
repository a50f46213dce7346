//! All combinations of stack, transport and who dials; each runs all of [`Case::ALL`] over one connection.

use std::collections::BTreeMap;
use std::fmt;

use crate::cases::{Case, Pair};
use crate::js_node::{JsNode, Runtime};
use crate::libp2p_node::{Libp2pNode, Options};
use crate::peer::Peer;
use crate::strait_node::{listen_addr, start};
use crate::transport::Transport;
use crate::wait;

/// A stack that strait talks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stack {
    /// rust-libp2p, from crates.io.
    RustLibp2p,
    /// litep2p, from crates.io.
    Litep2p,
    /// js-libp2p, from npm.
    JsLibp2p,
}

impl Stack {
    /// All of them.
    pub const ALL: [Stack; 3] = [Stack::RustLibp2p, Stack::Litep2p, Stack::JsLibp2p];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Stack::RustLibp2p => "rust-libp2p",
            Stack::Litep2p => "litep2p",
            Stack::JsLibp2p => "js-libp2p",
        }
    }

    /// The version that these tests are compiled or installed with, from the lock file.
    pub fn version(self) -> &'static str {
        let cargo = include_str!("../Cargo.lock");
        let npm = include_str!("../js/package-lock.json");
        let (lock, before) = match self {
            Stack::RustLibp2p => (cargo, "name = \"libp2p\"\nversion = \""),
            Stack::Litep2p => (cargo, "name = \"litep2p\"\nversion = \""),
            Stack::JsLibp2p => (npm, "\"node_modules/libp2p\": {\n      \"version\": \""),
        };
        let found = lock.split_once(before).and_then(|(_, rest)| rest.split_once('"'));
        found.map_or("of unknown version", |(version, _)| version)
    }
}

/// Who dials whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dials {
    /// strait dials.
    Strait,
    /// The other stack dials.
    Peer,
}

/// One combination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cell {
    /// Whom strait talks to.
    pub stack: Stack,
    /// Over what.
    pub transport: Transport,
    /// Who began.
    pub dials: Dials,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (stack, transport) = (self.stack.name(), self.transport.name());
        match self.dials {
            Dials::Strait => write!(f, "strait_dials_{stack}_over_{transport}"),
            Dials::Peer => write!(f, "{stack}_dials_strait_over_{transport}"),
        }
    }
}

/// What came of each case.
pub type Outcomes = BTreeMap<Case, Result<(), String>>;

impl Cell {
    /// All of them, those too that cannot be.
    pub fn all() -> Vec<Cell> {
        let mut cells = Vec::new();
        for stack in Stack::ALL {
            for transport in Transport::ALL {
                cells.extend([Dials::Strait, Dials::Peer].map(|dials| Cell { stack, transport, dials }));
            }
        }
        cells
    }

    /// Why there cannot be such a combination: what the other stack lacks.
    pub fn gap(&self) -> Option<&'static str> {
        match (self.stack, self.transport) {
            (Stack::Litep2p, Transport::TcpTls) => Some("litep2p secures TCP with Noise only"),
            _ => None,
        }
    }

    /// Why it cannot be tried here and now, and what would help.
    pub fn unavailable(&self) -> Option<String> {
        match self.stack {
            Stack::RustLibp2p => None,
            Stack::Litep2p if cfg!(feature = "litep2p") => None,
            Stack::Litep2p => Some("litep2p is not compiled in: install protoc and add `--features litep2p`".to_owned()),
            Stack::JsLibp2p => Runtime::find().err(),
        }
    }

    /// Tries all cases, in order and over one connection; after one that fails with fresh nodes.
    pub async fn run(&self) -> Outcomes {
        let mut outcomes = Outcomes::new();
        while let Some(next) = Case::ALL.into_iter().find(|case| !outcomes.contains_key(case)) {
            if let Err(error) = self.run_from(next, &mut outcomes).await {
                outcomes.insert(next, Err(error));
            }
        }
        outcomes
    }

    /// Until the first that fails.
    async fn run_from(&self, first: Case, outcomes: &mut Outcomes) -> Result<(), String> {
        let strait = start().await;
        let peer = self.peer().await?;
        let connected = match self.dials {
            Dials::Strait => {
                let dialled = wait::within("strait's dial", strait.connect(peer.id(), &[peer.address()])).await;
                dialled.map_err(|error| error.to_string())
            }
            Dials::Peer => peer.dial(strait.peer_id(), listen_addr(&strait, self.transport)).await,
        };
        connected.map_err(|error| format!("connecting: {error}"))?;
        // Over QUIC a client is through with the handshake half a round trip before the server.
        wait::poll("strait to know of the connection", || strait.is_connected(peer.id()).then_some(())).await;
        let pair = Pair { strait: &strait, peer: &*peer, transport: self.transport };
        for case in Case::ALL.into_iter().filter(|case| *case >= first) {
            let result = pair.run(case).await;
            let failed = result.is_err();
            outcomes.insert(case, result);
            if failed {
                break;
            }
        }
        Ok(())
    }

    async fn peer(&self) -> Result<Box<dyn Peer>, String> {
        match self.stack {
            Stack::RustLibp2p => Ok(Box::new(Libp2pNode::start(Options::over(self.transport)).await)),
            #[cfg(feature = "litep2p")]
            Stack::Litep2p => Ok(Box::new(crate::litep2p_node::Litep2pNode::start(self.transport))),
            #[cfg(not(feature = "litep2p"))]
            Stack::Litep2p => Err(self.unavailable().unwrap_or_default()),
            Stack::JsLibp2p => Ok(Box::new(JsNode::start(&Runtime::find()?, self.transport).await?)),
        }
    }
}
