//! The side that has local ports: each connection to one of them gets a stream to the other node.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use strait::{Node, OpenError, PingError, RecvHalf, SendHalf, StreamError};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::PROTOCOL;
use super::frame::{Status, Target, opening, read_exact};
use super::relay::{Carried, Held, relay};
use crate::exit::{Code, Failure};
use crate::net::{self, Pulse, pong_within};
use crate::ticket::Contact;

/// Local connections at once: as many as the protocol carries, and as many that wait for one of those to end (FW-22). Each takes a descriptor.
pub const LOCAL_MAX: usize = PROTOCOL.per_peer_max as usize + WAITING_MAX;
const WAITING_MAX: usize = 256;
/// A connection waits no longer for one of the others to end: a program is helped more by an error than by a connection on which nothing ever
/// happens, and those that keep theirs open for ever wait for just that (FW-22).
const TURN: Duration = Duration::from_secs(30);
/// The answer to an opening frame: what the other side may take for its part ([`super::Deadlines`]), and the way there and back (FW-23).
const ANSWER: Duration = Duration::from_secs(30);
/// After an error of the listener itself, such as that no descriptor is left.
const REST: Duration = Duration::from_millis(100);

/// What local connections came to, to be told to people and programs.
#[derive(Debug, Clone, PartialEq)]
pub enum Happened {
    /// A connection got no stream, and was reset.
    Failed(Option<Target>, Failure),
    /// More wait than may.
    Crowded,
    /// The listener had an error.
    Listener(String),
    /// A connection ended.
    Ended(Carried),
}

/// The way to the other node, for all local ports.
pub struct Doorway {
    node: Node,
    contact: Contact,
    pulse: Pulse,
    places: Arc<Semaphore>,
    tell: Box<dyn Fn(Happened) + Send + Sync>,
}

/// A stream that was not opened.
enum Shut {
    /// The connection was lost under way, and nothing of the client's was sent yet.
    Lost(Failure),
    Final(Failure),
}

impl Doorway {
    /// A way over this node to that one. Nothing is sent yet.
    pub fn new(node: Node, contact: Contact, tell: impl Fn(Happened) + Send + Sync + 'static) -> Arc<Doorway> {
        let places = Arc::new(Semaphore::new(LOCAL_MAX));
        Arc::new(Doorway { node, contact, pulse: Pulse::new(), places, tell: Box::new(tell) })
    }

    /// Takes local connections until it is dropped, which resets all of them. Whatever becomes of the other node, the port stays (FW-24).
    pub async fn serve(self: Arc<Self>, listener: TcpListener, target: Option<Target>) {
        let mut carried = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                Some(_) = carried.join_next() => continue,
            };
            match accepted {
                Ok((tcp, _)) => {
                    let held = Held::new(tcp);
                    match self.places.clone().try_acquire_owned() {
                        Ok(place) => {
                            let (way, target) = (self.clone(), target.clone());
                            carried.spawn(async move {
                                way.carry(held, target).await;
                                drop(place);
                            });
                        }
                        Err(_) => (self.tell)(Happened::Crowded),
                    }
                }
                Err(error) => {
                    (self.tell)(Happened::Listener(error.to_string()));
                    sleep(REST).await;
                }
            }
        }
    }

    async fn carry(&self, held: Held, target: Option<Target>) {
        let opened = tokio::select! {
            opened = self.open(target.as_ref()) => opened,
            // The client has left, perhaps while it waited for its turn.
            _ = held.reset() => return,
        };
        match opened {
            Ok((send, recv)) => (self.tell)(Happened::Ended(relay(held, send, recv).await)),
            Err(failure) => (self.tell)(Happened::Failed(target, failure)),
        }
    }

    /// A stream that leads to the target. When the connection turns out to be lost it is dialled anew, once: no byte of the client was sent yet.
    async fn open(&self, target: Option<&Target>) -> Result<(SendHalf, RecvHalf), Failure> {
        match self.attempt(target).await {
            Err(Shut::Lost(_)) => match self.attempt(target).await {
                Err(Shut::Lost(failure) | Shut::Final(failure)) => Err(failure),
                Ok(halves) => Ok(halves),
            },
            Err(Shut::Final(failure)) => Err(failure),
            Ok(halves) => Ok(halves),
        }
    }

    async fn attempt(&self, target: Option<&Target>) -> Result<(SendHalf, RecvHalf), Shut> {
        let Contact { peer, addrs } = &self.contact;
        if !self.node.is_connected(*peer) {
            net::connect(&self.node, *peer, addrs).await.map_err(Shut::Final)?;
        }
        match self.pulse.during(self.ask(target), || self.ping()).await {
            Ok(asked) => asked,
            Err(words) => {
                self.node.disconnect(*peer); // nobody is there at the other end of this connection
                Err(Shut::Lost(lost(words)))
            }
        }
    }

    fn ping(&self) -> (Duration, impl Future<Output = Result<(), String>>) {
        let peer = self.contact.peer;
        let round_trip = self.node.path(peer).map(|(_, round_trip)| round_trip).unwrap_or_default();
        let pong = async move {
            match self.node.ping(peer).await {
                Err(PingError::Connect(error)) => Err(error.to_string()),
                _ => Ok(()),
            }
        };
        (pong_within(round_trip), pong)
    }

    /// Opens a stream, in turn (FW-01), and waits for the answer (FW-04, FW-23). Nothing of the client's is read before (FW-20).
    async fn ask(&self, target: Option<&Target>) -> Result<(SendHalf, RecvHalf), Shut> {
        let Contact { peer, addrs } = &self.contact;
        let opened = timeout(TURN, self.node.open(*peer, &PROTOCOL)).await.map_err(|_| Shut::Final(crowded()))?;
        let stream = opened.map_err(|error| match error {
            OpenError::Connect(error) => Shut::Final(net::connect_failure(&error, addrs)),
            error => Shut::Final(Failure::bug(error.to_string())),
        })?;
        let (mut send, mut recv) = stream.split();
        let answer = async {
            match send.write_all(opening(target)).await {
                // Who lets nobody in need not read what is wanted, and says so all the same.
                Ok(()) | Err(StreamError::Stopped(_)) => read_exact(&mut recv, 1).await,
                Err(error) => Err(error),
            }
        };
        let answer = timeout(ANSWER, answer).await.map_err(|_| {
            let why = "the other side is overloaded, or does not keep to the protocol";
            Shut::Final(Failure::new(Code::Lost, format!("no answer within {ANSWER:?}"), why, "try again later"))
        })?;
        let answer = answer.map_err(|error| failed(&error))?;
        match answer.first().and_then(|byte| Status::from_byte(*byte)) {
            Some(Status::Ok) => Ok((send, recv)),
            Some(status) => Err(Shut::Final(refusal(status, target, &self.node))),
            None => Err(Shut::Final(incompatible("its answer is none that this strait knows".to_owned()))),
        }
    }
}

fn lost(words: String) -> Failure {
    let why = "the node there was stopped, or the network between is down";
    Failure::new(Code::Lost, format!("the connection was lost: {words}"), why, "it is dialled again for the next connection")
}

fn crowded() -> Failure {
    let most = PROTOCOL.per_peer_max;
    let what = format!("a connection was reset: {most} were open before it, and none of them has ended within {TURN:?}");
    let why = "the program keeps more connections open than one forward carries";
    Failure::new(Code::NotServed, what, why, "have it use fewer, or run a second forward for the rest")
}

fn incompatible(words: String) -> Failure {
    let why = "its version does not fit, or it is faulty";
    let next = "use the same version of strait on both sides";
    Failure::new(Code::Incompatible, format!("the other side does not keep to the protocol: {words}"), why, next)
}

fn failed(error: &StreamError) -> Shut {
    match error {
        StreamError::Lost(_) | StreamError::Idle(_) => Shut::Lost(lost(error.to_string())),
        StreamError::Unsupported(name) => Shut::Final(Failure::new(
            Code::NotServed,
            format!("the node answers, but does not serve {name}"),
            "`strait forward expose` does not run there: the ticket is of another command",
            "ask the other side to run forward expose, and use its ticket",
        )),
        error => Shut::Final(incompatible(error.to_string())),
    }
}

/// What a status other than [`Status::Ok`] means for the user of this side.
fn refusal(status: Status, target: Option<&Target>, node: &Node) -> Failure {
    let named = target.map_or("the target".to_owned(), ToString::to_string);
    let (what, why, next) = match status {
        Status::NotAllowed => (
            "this node is not let in there".to_owned(),
            "the other side names with --allow who is, and this identity is not among them",
            format!(
                "have it add --allow {}, and give --key here, so that the identity stays the same (`strait id --key FILE` prints it)",
                node.peer_id()
            ),
        ),
        Status::NotExposed if target.is_none() => (
            "the other side does not expose exactly one target".to_owned(),
            "without a target the only one is meant",
            "name it behind the local port, as in 8080:HOST:PORT".to_owned(),
        ),
        Status::NotExposed => (
            format!("{named} is not exposed there"),
            "the other side lets through only what it was given, written in the same way",
            "write it exactly as `strait forward expose` has it there, or have it added".to_owned(),
        ),
        Status::Refused => (
            format!("{named} refuses connections"),
            "the other side reaches the machine, and nothing listens at that port",
            "start the program there, or correct the port".to_owned(),
        ),
        Status::TooMany => (
            "the other side carries as many connections as it can".to_owned(),
            "many connections are open through it",
            "close some, or try again later".to_owned(),
        ),
        Status::TimedOut | Status::Unreachable | Status::Ok => (
            format!("{named} cannot be reached from the other side: {}", status.word().replace('_', " ")),
            "the machine is off, its name is unknown there, or a firewall is in between",
            "check it at the other side".to_owned(),
        ),
    };
    Failure::new(Code::NotServed, what, why, next)
}

/// Listens at a local port (FW-21).
///
/// # Errors
/// In words: the port is taken, or may not be used.
pub async fn listen(at: std::net::SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(at).await.map_err(|error| {
        let what = format!("cannot listen at {at}: {error}");
        match error.kind() {
            std::io::ErrorKind::PermissionDenied => {
                let why = "ports below 1024 are kept for the system";
                Failure::new(Code::Permission, what, why, "choose a port above 1023")
            }
            _ => {
                let why = "another program has this port, or the address is not one of this machine's";
                Failure::new(Code::Unreachable, what, why, "choose another port; 0 takes a free one")
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FW-01, FW-09, FW-22: the numbers are those of the spec.
    #[test]
    fn the_definition_is_that_of_the_spec() {
        assert_eq!((PROTOCOL.name, PROTOCOL.per_peer_max, LOCAL_MAX), ("/strait/forward/1", 128, 384));
        assert!(matches!(PROTOCOL.idle, strait::Idle::Never), "a silent connection is not given up");
        assert_eq!((TURN.as_secs(), ANSWER.as_secs()), (30, 30));
    }
}
