//! The side that has targets and lets others reach them: exactly those that its user named, and nothing else ever.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use strait::{Node, Priority, RecvHalf, SendHalf, Stream};
use strait_core::PeerId;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use super::frame::{LEN_BYTES, Status, Target, read_exact, target_len};
use super::relay::{Carried, Held, relay};
use super::{PROTOCOL, code};
use crate::exit::Failure;

/// TCP connections that are carried at once, of all peers together (FW-13): each takes a descriptor, of which a process often has 1024.
const CONNECTIONS_MAX: usize = 512;
/// Names that are looked up at once: the system's resolver keeps a thread for each until it has given up.
const LOOKUPS_MAX: usize = 16;
/// Addresses of a name that are tried, in the resolver's order.
const ADDRS_MAX: usize = 8;

/// How long things may take at this side.
#[derive(Debug, Clone, Copy)]
pub struct Deadlines {
    /// The whole opening frame, and the answer to it (FW-11).
    pub opening: Duration,
    /// The way to the target, looking up its name included (FW-12).
    pub connect: Duration,
}

impl Default for Deadlines {
    fn default() -> Deadlines {
        Deadlines { opening: Duration::from_secs(10), connect: Duration::from_secs(10) }
    }
}

/// What happened, to be told to people and programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// A connection was opened.
    Opened(PeerId, Target),
    /// One was refused; for a target that is not exposed nobody repeats what a stranger wrote.
    Refused(PeerId, Option<Target>, Status),
    /// The opening frame was wrong or late.
    Malformed(PeerId),
    /// A connection ended.
    Ended(PeerId, Target, Carried),
}

/// Resets all that is carried when it is dropped. The streams belong to the node's own tasks, and a node that closes waits for streams: without this the
/// process would have ended before it tells its peers so.
pub struct Serving {
    _all: watch::Sender<()>,
}

/// See the module's text.
pub struct Exposed {
    targets: Vec<Target>,
    /// Who may come in; everybody if nobody is named.
    allow: Vec<PeerId>,
    deadlines: Deadlines,
    connections: Semaphore,
    lookups: Arc<Semaphore>,
    tell: Box<dyn Fn(Told) + Send + Sync>,
}

impl Exposed {
    /// Exposes these targets, to these peers or to all.
    pub fn new(
        targets: Vec<Target>,
        allow: Vec<PeerId>,
        deadlines: Deadlines,
        tell: impl Fn(Told) + Send + Sync + 'static,
    ) -> Arc<Exposed> {
        Arc::new(Exposed {
            targets,
            allow,
            deadlines,
            connections: Semaphore::new(CONNECTIONS_MAX),
            lookups: Arc::new(Semaphore::new(LOOKUPS_MAX)),
            tell: Box::new(tell),
        })
    }

    /// Takes streams until what this gives is dropped. The node itself has no more of a peer's at work than the definition says; others of it
    /// wait (FW-01).
    pub fn serve(self: &Arc<Self>, node: &Node) -> Result<Serving, Failure> {
        let (serving, stopped) = watch::channel(());
        let exposed = self.clone();
        let handler = async move |stream: Stream| {
            let mut stopped = stopped;
            tokio::select! {
                () = exposed.take(stream) => {}
                _ = stopped.changed() => {}
            }
        };
        node.serve_streams(&PROTOCOL, Priority::Normal, handler)
            .map_err(|error| Failure::bug(format!("could not serve {}: {error}", PROTOCOL.name)))?;
        Ok(Serving { _all: serving })
    }

    async fn take(&self, stream: Stream) {
        let peer = stream.peer();
        let (mut send, mut recv) = stream.split();
        // Of who is not let in, nothing is read (FW-14).
        if !self.allow.is_empty() && !self.allow.contains(&peer) {
            (self.tell)(Told::Refused(peer, None, Status::NotAllowed));
            return self.answer(&mut send, Status::NotAllowed).await;
        }
        let Ok(Some(wanted)) = timeout(self.deadlines.opening, opening(&mut recv)).await else {
            (self.tell)(Told::Malformed(peer));
            return send.reset(code::OPENING);
        };
        let Some(target) = self.find(&wanted) else {
            (self.tell)(Told::Refused(peer, None, Status::NotExposed));
            return self.answer(&mut send, Status::NotExposed).await;
        };
        // The opener may have left meanwhile: then nobody needs the target.
        let reached = tokio::select! {
            reached = self.reach(target) => reached,
            _ = send.ended() => return,
        };
        match reached {
            Err(status) => {
                (self.tell)(Told::Refused(peer, Some(target.clone()), status));
                self.answer(&mut send, status).await;
            }
            Ok((held, _place)) => {
                let ok = send.write_all([Status::Ok.to_byte()].to_vec());
                if !matches!(timeout(self.deadlines.opening, ok).await, Ok(Ok(()))) {
                    return send.reset(code::OPENING);
                }
                (self.tell)(Told::Opened(peer, target.clone()));
                let carried = relay(held, send, recv).await;
                (self.tell)(Told::Ended(peer, target.clone(), carried));
            }
        }
    }

    /// Says why not, and ends the stream in order (FW-04).
    async fn answer(&self, send: &mut SendHalf, status: Status) {
        match timeout(self.deadlines.opening, send.write_all([status.to_byte()].to_vec())).await {
            Ok(Ok(())) => _ = send.finish(),
            _ => send.reset(code::OPENING),
        }
    }

    /// Which target that is, by its bytes alone: what a peer writes is compared and never read as an address or a name (FW-03, FW-10).
    fn find(&self, wanted: &[u8]) -> Option<&Target> {
        match (wanted, &self.targets[..]) {
            ([], [only]) => Some(only),
            ([], _) => None,
            _ => self.targets.iter().find(|target| target.to_string().as_bytes() == wanted),
        }
    }

    /// Connects to a target (FW-12). The place is to be held as long as the connection (FW-13).
    async fn reach(&self, target: &Target) -> Result<(Held, tokio::sync::SemaphorePermit<'_>), Status> {
        let place = self.connections.try_acquire().map_err(|_| Status::TooMany)?;
        let tcp = timeout(self.deadlines.connect, self.connect(target)).await.map_err(|_| Status::TimedOut)?;
        tcp.map(|tcp| (Held::new(tcp), place)).map_err(|error| match error.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => Status::Refused,
            io::ErrorKind::TimedOut => Status::TimedOut,
            _ => Status::Unreachable,
        })
    }

    async fn connect(&self, target: &Target) -> io::Result<TcpStream> {
        let addrs = match target.host().parse::<IpAddr>() {
            Ok(ip) => vec![SocketAddr::new(ip, target.port())],
            Err(_) => self.look_up(target).await?,
        };
        TcpStream::connect(&addrs[..]).await
    }

    async fn look_up(&self, target: &Target) -> io::Result<Vec<SocketAddr>> {
        let Ok(place) = self.lookups.clone().acquire_owned().await else {
            return Err(io::ErrorKind::Interrupted.into());
        };
        let (host, port) = (target.host().to_owned(), target.port());
        // A task of its own: whoever waits may give up, and the system's resolver still does not.
        let found = tokio::spawn(async move {
            let found = tokio::net::lookup_host((host, port)).await.map(|found| found.take(ADDRS_MAX).collect());
            drop(place);
            found
        });
        found.await.unwrap_or_else(|_| Err(io::ErrorKind::Interrupted.into()))
    }
}

/// The target's bytes, or nothing if there are too many of them or they do not come (FW-02).
async fn opening(recv: &mut RecvHalf) -> Option<Vec<u8>> {
    let len = target_len(&read_exact(recv, LEN_BYTES).await.ok()?)?;
    read_exact(recv, len).await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exposed(targets: &[&str]) -> Arc<Exposed> {
        let targets = targets.iter().map(|text| text.parse().unwrap()).collect();
        Exposed::new(targets, vec![], Deadlines::default(), |_| ())
    }

    /// FW-03, FW-10: only the exact bytes of a target lead to it, and nothing named leads to the only one.
    #[test]
    fn nothing_but_the_list_is_found() {
        let two = exposed(&["db:5432", "[::1]:80"]);
        assert_eq!(two.find(b"db:5432").map(ToString::to_string).as_deref(), Some("db:5432"));
        assert_eq!(two.find(b"[::1]:80").map(ToString::to_string).as_deref(), Some("[::1]:80"));
        let wrong: [&[u8]; 9] =
            [b"", b"db", b"db:5433", b"DB:5432", b"db:05432", b"[0::1]:80", b"::1:80", b"db:5432\0", b"\xff\xfe"];
        for wanted in wrong {
            assert_eq!(two.find(wanted), None, "{wanted:?}");
        }
        assert!(exposed(&["db:5432"]).find(b"").is_some());
        assert_eq!(exposed(&[]).find(b""), None);
    }

    /// FW-12: a target that never answers is given up. Here its queue of connections that nobody takes is full.
    #[tokio::test]
    async fn a_target_that_does_not_answer_is_given_up() {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let at = listener.local_addr().unwrap();
        let mut taken = Vec::new();
        while let Ok(tcp) = timeout(Duration::from_millis(500), TcpStream::connect(at)).await {
            taken.push(tcp.unwrap());
            assert!(taken.len() < 10, "the queue has no end");
        }
        let deadlines = Deadlines { connect: Duration::from_millis(300), ..Deadlines::default() };
        let exposed = Exposed::new(vec![], vec![], deadlines, |_| ());
        assert_eq!(exposed.reach(&at.to_string().parse().unwrap()).await.err(), Some(Status::TimedOut));
    }

    /// FW-04, FW-13.
    #[tokio::test]
    async fn what_a_target_does_has_its_status() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let there = listener.local_addr().unwrap().to_string();
        let exposed = exposed(&[]);
        assert!(exposed.reach(&there.parse().unwrap()).await.is_ok());
        drop(listener);
        assert_eq!(exposed.reach(&there.parse().unwrap()).await.err(), Some(Status::Refused));
        let _all = exposed.connections.acquire_many(CONNECTIONS_MAX as u32).await.unwrap();
        assert_eq!(exposed.reach(&there.parse().unwrap()).await.err(), Some(Status::TooMany));
    }
}
