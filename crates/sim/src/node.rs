//! A strait node as a host: the production driver's turn, in virtual time.

use std::fmt;
use std::future::Future;
use std::net::{Ipv6Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use strait::parts::{Config, Env, Meta, PipeAction, Shared, SocketId, Transmit, WallClock};
use strait::turn::{Ports, Turn as DriverTurn};
use strait::{Keypair, Limits, Lookup, Multiaddr, Node, Question, Runtime};

use crate::check::promises;
use crate::crypto;
use crate::exec::{Clock, JoinHandle, Spawner};
use crate::host::{Host, Turn, Turned};
use crate::names::Names;
use crate::net::HostId;
use crate::pipes::Pipes;
use crate::rng::derive;
use crate::world::World;

/// The date on which every world begins: 2026-01-01T00:00:00Z, as time since 1970.
const EPOCH: Duration = Duration::from_secs(1_767_225_600);
/// Datagrams that one turn takes from the socket, as the production driver.
const BATCH_MAX: usize = 64;
/// Datagrams of equal size that one send carries, as with GSO.
const SEGMENTS_MAX: NonZeroUsize = NonZeroUsize::MIN.saturating_add(9);
/// The only socket of a simulated node.
const SOCKET: SocketId = SocketId(0);

/// What two nodes talk over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// QUIC, over UDP.
    Quic,
    /// TCP that TLS 1.3 secures, with Yamux inside.
    Tls,
    /// TCP that Noise secures, with Yamux inside.
    Noise,
}

impl Over {
    /// All of them, for tests of what must be the same over each.
    pub const ALL: [Over; 3] = [Over::Quic, Over::Tls, Over::Noise];
}

impl fmt::Display for Over {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Over::Quic => "QUIC",
            Over::Tls => "TCP and TLS",
            Over::Noise => "TCP and Noise",
        })
    }
}

/// What a node of a world is made of.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// All numbers.
    pub limits: Limits,
    /// Who it is. `None`: an Ed25519 key of its own, from the world's seed and the node's number.
    pub keypair: Option<Keypair>,
    /// Whether others may connect to it.
    pub listen: bool,
    /// Whether it listens for QUIC. It can dial QUIC in any case.
    pub quic: bool,
    /// Whether it listens for TCP, at the port of the same number. It can dial TCP in any case.
    pub tcp: bool,
    /// How TCP is secured, as in [`strait::parts::Shared::set_pipe_security`]. `None`: all that there is.
    pub pipe_security: Option<&'static [&'static str]>,
    /// Where it listens. `None`: an address of its own in 10.0.0.0/8.
    pub address: Option<SocketAddr>,
    /// What it says of where it listens beside that, as a machine with several interfaces.
    pub interfaces: Vec<Multiaddr>,
    /// What its operator declares, as with [`strait::Builder::announce`].
    pub announce: Vec<Multiaddr>,
}

impl Default for NodeConfig {
    /// Listens for QUIC only.
    fn default() -> NodeConfig {
        NodeConfig {
            limits: Limits::default(),
            keypair: None,
            listen: true,
            quic: true,
            tcp: false,
            pipe_security: None,
            address: None,
            interfaces: Vec::new(),
            announce: Vec::new(),
        }
    }
}

impl NodeConfig {
    /// A node that is reached over this, and nothing else.
    #[must_use]
    pub fn over(over: Over) -> NodeConfig {
        let pipe_security: Option<&[&str]> = match over {
            Over::Quic => None,
            Over::Tls => Some(&["/tls/1.0.0"]),
            Over::Noise => Some(&["/noise"]),
        };
        NodeConfig { quic: over == Over::Quic, tcp: over != Over::Quic, pipe_security, ..NodeConfig::default() }
    }

    fn addresses(&self, at: SocketAddr) -> Vec<Multiaddr> {
        let quic = self.quic.then(|| strait::quic_address(at));
        quic.into_iter().chain(self.tcp.then(|| strait::tcp_address(at))).collect()
    }
}

/// A node in a world. It is used as a [`strait::Node`], which it dereferences to.
///
/// When it is dropped the node closes, unless an app keeps a clone of [`SimNode::api`].
pub struct SimNode {
    api: Node,
    shared: Arc<Shared>,
    id: HostId,
    addresses: Vec<Multiaddr>,
    spawner: Spawner,
    config: NodeConfig,
    starts: u64,
}

impl Deref for SimNode {
    type Target = Node;

    fn deref(&self) -> &Node {
        &self.api
    }
}

impl SimNode {
    /// The handle that apps use.
    #[must_use]
    pub fn api(&self) -> &Node {
        &self.api
    }

    /// Its number in the world, for faults and links.
    #[must_use]
    pub fn id(&self) -> HostId {
        self.id
    }

    /// The address that it listens on: the one for QUIC, if there are two.
    ///
    /// # Panics
    /// If it listens on none.
    #[must_use]
    pub fn address(&self) -> Multiaddr {
        self.addresses.first().expect("it listens on nothing: neither `quic` nor `tcp` is set").clone()
    }

    /// All addresses that it listens on, QUIC before TCP.
    #[must_use]
    pub fn addresses(&self) -> &[Multiaddr] {
        &self.addresses
    }

    /// Spawns tasks that are frozen, and die, with this node.
    #[must_use]
    pub fn spawner(&self) -> Spawner {
        self.spawner.clone()
    }

    /// Spawns a task that is frozen, and dies, with this node.
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.spawner.spawn(future)
    }
}

impl World {
    /// Adds a node that listens on an address of its own.
    ///
    /// # Panics
    /// If its limits do not fit together.
    pub fn node(&mut self, config: NodeConfig) -> SimNode {
        let (id, address) = (self.next_id(), config.address.unwrap_or(self.next_address()));
        let (api, host) = self.program(id, address, &config, 0);
        let shared = host.shared.clone();
        assert_eq!(self.add_at(host, address), id);
        SimNode { api, shared, id, addresses: config.addresses(address), spawner: self.spawner_of(id), config, starts: 1 }
    }

    /// Starts a node again after [`World::crash`] or [`World::kill`]: the same key, address and limits, and nothing else.
    ///
    /// # Panics
    /// If it is running.
    pub fn restart_node(&mut self, node: SimNode) -> SimNode {
        let address = World::address(self, node.id);
        let (api, host) = self.program(node.id, address, &node.config, node.starts);
        let shared = host.shared.clone();
        self.restart(node.id, host);
        SimNode {
            api,
            shared,
            id: node.id,
            addresses: node.addresses.clone(),
            spawner: node.spawner.clone(),
            config: node.config.clone(),
            starts: node.starts + 1,
        }
    }

    /// Takes a node's address away and tells it, as the production driver does, see [`World::remove_address`].
    pub fn strand_node(&mut self, node: &SimNode) {
        let gone = self.remove_address(node.id);
        node.shared.local_addresses_changed(&[gone.ip()], Some(Vec::new()));
    }

    /// Gives a node another address in place of the one that it had, and tells it, as the production driver does. Returns where it listens now.
    pub fn move_node(&mut self, node: &mut SimNode) -> Vec<Multiaddr> {
        let gone = World::address(self, node.id);
        let address = self.give_address(node.id);
        node.addresses = node.config.addresses(address);
        node.shared.local_addresses_changed(&[gone.ip()], Some(node.addresses.clone()));
        node.addresses.clone()
    }

    fn program(&self, id: HostId, address: SocketAddr, config: &NodeConfig, starts: u64) -> (Node, NodeHost) {
        let number = id.0 as u64;
        // A fresh start draws fresh secrets; the identity stays.
        let start = number + (starts << 32);
        let keypair = config.keypair.clone().unwrap_or_else(|| {
            let secret = derive(self.seed(), "identity", number);
            Keypair::ed25519_from_bytes(secret).expect("32 bytes are an Ed25519 key")
        });
        let env = Env {
            seed: derive(self.seed(), "node", start),
            crypto: crypto::provider(self.seed(), start),
            wall: Arc::new(Wall(self.clock())),
            key_log: None,
            traces: None,
        };
        let (names, spawner) = (self.names.clone(), self.spawner_of(id));
        let runtime = SimRuntime { start: self.start(), clock: self.clock(), names, spawner };
        let (addresses, listen_tcp) = (config.addresses(address), (config.listen && config.tcp).then(|| address.port()));
        let pipe_security = config.pipe_security;
        let (interfaces, announce) = (config.interfaces.clone(), config.announce.clone());
        let config = Config { keypair, agent: "strait-sim".to_owned(), limits: config.limits.clone(), listen: config.listen };
        let shared = Shared::new(config, env, Arc::new(runtime));
        let shared = shared.unwrap_or_else(|error| panic!("this node cannot be made: {error}"));
        shared.set_declared(announce);
        // The second one stands for IPv6: what is sent goes to whoever has that address, if anybody.
        let v6 = SocketAddr::from((Ipv6Addr::UNSPECIFIED, address.port()));
        shared.set_listening(vec![address, v6], addresses.into_iter().chain(interfaces).collect());
        if let Some(names) = pipe_security {
            shared.set_pipe_security(names);
        }
        let host = NodeHost {
            start: self.start(),
            turn: DriverTurn::new(shared.clone()),
            shared: shared.clone(),
            pipes: Pipes::new(listen_tcp),
            wake: None,
            work: 0,
        };
        (Node::from_shared(shared), host)
    }
}

/// The date in virtual time.
struct Wall(Clock);

impl fmt::Debug for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the date of the simulated world")
    }
}

impl WallClock for Wall {
    fn unix_time(&self) -> Duration {
        EPOCH + self.0.now()
    }
}

/// The world's executor and clock, as the async API wants them.
struct SimRuntime {
    start: Instant,
    clock: Clock,
    names: Names,
    spawner: Spawner,
}

impl Runtime for SimRuntime {
    fn now(&self) -> Instant {
        self.start + self.clock.now()
    }

    fn spawn(&self, task: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>) {
        self.spawner.spawn_boxed(task);
    }

    fn sleep(&self, time: Duration) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(self.clock.sleep(time))
    }

    fn resolve(&self, question: Question) -> Lookup {
        self.names.resolve(self.clock.clone(), question)
    }
}

/// The driver.
struct NodeHost {
    start: Instant,
    turn: DriverTurn,
    shared: Arc<Shared>,
    pipes: Pipes,
    wake: Option<Duration>,
    /// Work units until the end of the last turn.
    work: u64,
}

impl Host for NodeHost {
    fn turn(&mut self, turn: &mut Turn<'_>) -> Turned {
        self.pipes.receive(&self.shared, turn.address().ip(), turn.tcp());
        self.turn.first(&mut Socket(turn, &mut self.pipes));
        turn.run_apps();
        let rest = self.turn.second(&mut Socket(turn, &mut self.pipes));
        let since_start = |at: Instant| at.saturating_duration_since(self.start);
        self.wake = [rest.wake.map(since_start), self.pipes.wake()].into_iter().flatten().min();
        let totals = self.shared.counters().totals;
        // Sealing a byte costs about what one unit is; the core counts only what comes before.
        let work = totals.work + totals.datagram_bytes_out + totals.pipe_bytes_out;
        let done = work - self.work;
        self.work = work;
        Turned { work: done, more: rest.work_left || self.pipes.has_work() }
    }

    fn wake(&self) -> Option<Duration> {
        self.wake
    }

    fn is_asked(&self) -> bool {
        self.shared.is_asked()
    }

    fn check(&self) -> Result<(), String> {
        promises(&self.shared.audit())
    }
}

/// The world's network as the driver's sockets. UDP never blocks: what is too much is dropped on the way.
struct Socket<'a, 'b>(&'a mut Turn<'b>, &'a mut Pipes);

impl Ports for Socket<'_, '_> {
    fn receive(&mut self, take: &mut dyn FnMut(Meta, BytesMut)) -> bool {
        for _ in 0..BATCH_MAX {
            let Some(datagram) = self.0.receive() else {
                return false;
            };
            let meta = Meta {
                socket: SOCKET,
                remote: datagram.source,
                // What the host itself knows: the address behind its NAT.
                local_ip: Some(self.0.address().ip()),
                ecn: datagram.ecn,
            };
            take(meta, BytesMut::from(&datagram.payload[..]));
        }
        true
    }

    fn send(&mut self, transmit: &Transmit, bytes: &[u8]) -> bool {
        let segment = transmit.segment_size.unwrap_or(transmit.size).max(1);
        for payload in bytes.chunks(segment) {
            let payload = Bytes::copy_from_slice(payload);
            self.0.send(transmit.destination, transmit.ecn, payload);
        }
        true
    }

    fn pipe(&mut self, action: &PipeAction, bytes: &[u8]) -> bool {
        self.1.act(action, bytes, self.0.tcp())
    }

    fn segments_max(&self) -> NonZeroUsize {
        SEGMENTS_MAX
    }
}
