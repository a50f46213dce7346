//! How a node is started on tokio.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use strait_core::peers::own::check_declared;
use strait_core::{Config, Keypair, Limits, Multiaddr, PeerId};

use crate::driver::{self, Sockets, TokioRuntime};
use crate::error::StartError;
use crate::node::Node;
use crate::shared::Shared;

/// How connections over TCP may be secured. QUIC has TLS built in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TcpSecurity {
    /// TLS 1.3 where the peer can, otherwise Noise.
    #[default]
    Either,
    /// Nothing but TLS 1.3.
    Tls,
    /// Nothing but Noise.
    Noise,
}

impl TcpSecurity {
    fn names(self) -> &'static [&'static str] {
        match self {
            TcpSecurity::Either => &["/tls/1.0.0", "/noise"],
            TcpSecurity::Tls => &["/tls/1.0.0"],
            TcpSecurity::Noise => &["/noise"],
        }
    }
}

/// Collects what a node is to be. Every part has a default: a fresh identity, any free port on all interfaces, the default limits.
#[derive(Debug, Clone)]
pub struct Builder {
    identity: Option<Keypair>,
    listen: Vec<SocketAddr>,
    listen_tcp: Vec<SocketAddr>,
    announce: Vec<Multiaddr>,
    tcp_security: TcpSecurity,
    limits: Limits,
    agent: String,
}

impl Builder {
    pub(crate) fn new() -> Builder {
        Builder {
            identity: None,
            listen: Vec::new(),
            listen_tcp: Vec::new(),
            announce: Vec::new(),
            tcp_security: TcpSecurity::default(),
            limits: Limits::default(),
            agent: concat!("strait/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }

    /// Who the node is. Without it a fresh Ed25519 identity is made.
    #[must_use]
    pub fn identity(mut self, keypair: Keypair) -> Builder {
        self.identity = Some(keypair);
        self
    }

    /// Where to listen: may be called more than once, at most once for each IP version and address. Port 0 takes a free one. Without
    /// it the node listens on a free port of all interfaces.
    #[must_use]
    pub fn listen(mut self, address: SocketAddr) -> Builder {
        self.listen.push(address);
        self
    }

    /// Where to listen for TCP beside QUIC: may be called more than once. Without it the node dials TCP addresses and listens at none. Port 0
    /// takes a free one.
    #[must_use]
    pub fn listen_tcp(mut self, address: SocketAddr) -> Builder {
        self.listen_tcp.push(address);
        self
    }

    /// Where others reach the node, if that is not where it listens: behind a port forward, in Kubernetes, by a name of the DNS. May be called more than
    /// once. Then peers learn these addresses *only*, in identify, in the signed peer record and in tickets, each as far as it holds over the path
    /// to them; without it they learn where the node listens. It changes nothing about where the node listens.
    #[must_use]
    pub fn announce(mut self, address: Multiaddr) -> Builder {
        self.announce.push(address);
        self
    }

    /// How connections over TCP may be secured, dialled ones and accepted ones. A peer that shares none of it is told apart from one that is
    /// not there: [`DialError::Incompatible`](strait_core::DialError::Incompatible).
    #[must_use]
    pub fn tcp_security(mut self, security: TcpSecurity) -> Builder {
        self.tcp_security = security;
        self
    }

    /// The numbers that bound the node.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Builder {
        self.limits = limits;
        self
    }

    /// What the node says of its software in identify. Everybody can read it.
    #[must_use]
    pub fn agent(mut self, agent: impl Into<String>) -> Builder {
        self.agent = agent.into();
        self
    }

    /// Opens the sockets and starts the driver as a task of the current tokio runtime, which needs I/O and time enabled.
    ///
    /// # Errors
    /// [`StartError`]: nothing runs.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub async fn start(self) -> Result<Node, StartError> {
        let keypair = self.identity.unwrap_or_else(Keypair::generate_ed25519);
        let declared = check_announced(&keypair.public().to_peer_id(), self.announce)?;
        let sockets = if self.listen.is_empty() {
            let v4 = Sockets::bind(&[(Ipv4Addr::UNSPECIFIED, 0).into()])?;
            // IPv6 is not a given: a machine without it is served over IPv4.
            match Sockets::bind(&[(Ipv6Addr::UNSPECIFIED, 0).into()]) {
                Ok(v6) => v4.and(v6),
                Err(_) => v4,
            }
        } else {
            Sockets::bind(&self.listen)?
        };
        let sockets = sockets.and_tcp(&self.listen_tcp)?;
        let config = Config { keypair, agent: self.agent, limits: self.limits, listen: true };
        let shared = Shared::new(config, driver::system_env()?, std::sync::Arc::new(TokioRuntime::default()))?;
        shared.set_declared(declared);
        shared.set_pipe_security(self.tcp_security.names());
        shared.set_listening(sockets.local_addrs(), sockets.reachable_addrs());
        shared.set_link_mtu(crate::watch::link_mtu());
        tokio::spawn(driver::run(shared.clone(), sockets));
        Ok(Node::from_shared(shared))
    }
}

fn check_announced(own: &PeerId, addresses: Vec<Multiaddr>) -> Result<Vec<Multiaddr>, StartError> {
    let check = |address: Multiaddr| check_declared(own, &address).map_err(|why| StartError::Announce { address, why });
    addresses.into_iter().map(check).collect()
}
