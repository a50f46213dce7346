//! stdin and stdout here, joined with those of another node, over one raw stream.
//!
//! The protocol is written down in `docs/specs/pipe.md`; comments name its clauses (`PI-…`).

mod join;

pub use join::{Broken, Joined, Word, join};

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use strait::{Idle, Node, OpenError, Priority, RecvHalf, SendHalf, Stream, StreamError, StreamProtocol};
use strait_core::PeerId;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::exit::{Code, Failure};
use crate::forward::{Status, read_exact};
use crate::net;
use crate::ticket::Contact;

/// The protocol (PI-01). A pipe may be silent for as long as its users like.
pub const PROTOCOL: StreamProtocol = StreamProtocol::new("/strait/pipe/1", 1, Idle::Never);

/// The code that a stream is reset with when this side goes on no longer (PI-07).
pub const CODE_CUT: u32 = 1;
/// Who has the last word keeps the connection for so long, if the other does not end it (PI-06).
const KEPT: Duration = Duration::from_secs(5);
/// How often it looks.
const LOOK: Duration = Duration::from_millis(10);
/// The answer takes no longer (PI-02).
const ANSWER: Duration = Duration::from_secs(30);

/// A node that waits for one peer, and then for no other.
pub struct Waiting {
    taken: mpsc::Receiver<(PeerId, SendHalf, RecvHalf)>,
}

impl Waiting {
    /// Serves the protocol. `refused` is told of those that are not let in, or too late (PI-03).
    pub fn start(
        node: &Node,
        allow: Vec<PeerId>,
        refused: impl Fn(PeerId, Status) + Send + Sync + 'static,
    ) -> Result<Waiting, Failure> {
        let (give, taken) = mpsc::channel(1);
        let (used, shared) = (Arc::new(AtomicBool::new(false)), Arc::new((allow, refused)));
        let handler = async move |stream: Stream| {
            let (allow, refused) = &*shared;
            let peer = stream.peer();
            let (mut send, recv) = stream.split();
            let status = match () {
                () if !allow.is_empty() && !allow.contains(&peer) => Status::NotAllowed,
                () if used.swap(true, Ordering::AcqRel) => Status::TooMany,
                () => Status::Ok,
            };
            let told = timeout(ANSWER, send.write_all([status.to_byte()].to_vec())).await;
            if status == Status::Ok {
                // Also if it is gone already: the one who was let in has had its turn.
                let _ = give.try_send((peer, send, recv));
            } else {
                refused(peer, status);
                if matches!(told, Ok(Ok(()))) {
                    let _ = send.finish();
                }
            }
        };
        node.serve_streams(&PROTOCOL, Priority::Normal, handler)
            .map_err(|error| Failure::bug(format!("could not serve {}: {error}", PROTOCOL.name)))?;
        Ok(Waiting { taken })
    }

    /// The first peer that comes and may.
    pub async fn first(mut self) -> Result<(PeerId, SendHalf, RecvHalf), Failure> {
        self.taken.recv().await.ok_or_else(|| Failure::bug("nobody is waited for any more"))
    }
}

/// Connects to a node that waits, and is let in or not (PI-02).
pub async fn open(node: &Node, contact: &Contact) -> Result<(SendHalf, RecvHalf), Failure> {
    net::connect(node, contact.peer, &contact.addrs).await?;
    let stream = node.open(contact.peer, &PROTOCOL).await.map_err(|error| match error {
        OpenError::Connect(error) => net::connect_failure(&error, &contact.addrs),
        error => Failure::bug(error.to_string()),
    })?;
    let (send, mut recv) = stream.split();
    let answer = match timeout(ANSWER, read_exact(&mut recv, 1)).await {
        Ok(Ok(answer)) => answer.first().and_then(|byte| Status::from_byte(*byte)),
        Ok(Err(error)) => return Err(failed(&error)),
        Err(_) => return Err(failed(&StreamError::Idle(ANSWER))),
    };
    let (what, why, next) = match answer {
        Some(Status::Ok) => return Ok((send, recv)),
        Some(Status::NotAllowed) => (
            "this node is not let in there",
            "the other side names with --allow who is, and this identity is not among them",
            format!("have it add --allow {}, and give --key here, so that the identity stays the same", node.peer_id()),
        ),
        Some(Status::TooMany) => (
            "somebody else has that pipe already",
            "each takes one peer, and then no other",
            "ask for the ticket of a new one".to_owned(),
        ),
        _ => {
            let why = "its version does not fit, or it is faulty";
            let next = "use the same version of strait on both sides";
            return Err(Failure::new(Code::Incompatible, "the other side does not keep to the protocol", why, next));
        }
    };
    Err(Failure::new(Code::NotServed, what, why, next))
}

/// Waits until the other side has ended the connection, once all is done: it may still have to read the last word (PI-06).
pub async fn gone(node: &Node, peer: PeerId) {
    let gone = async {
        while node.is_connected(peer) {
            tokio::time::sleep(LOOK).await;
        }
    };
    let _ = timeout(KEPT, gone).await; // past it there is nothing more that could be done
}

/// What an error of the stream means for people.
pub fn failed(error: &StreamError) -> Failure {
    match error {
        StreamError::Unsupported(name) => Failure::new(
            Code::NotServed,
            format!("the node answers, but does not serve {name}"),
            "`strait pipe` does not run there: the ticket is of another command",
            "ask the other side to run strait pipe, and use its ticket",
        ),
        StreamError::Reset(_) | StreamError::Stopped(_) => Failure::new(
            Code::Lost,
            format!("the other side has cut the pipe: {error}"),
            "it was stopped, or what it was joined with has ended early",
            "look at what it says there; not all bytes have arrived",
        ),
        _ => Failure::new(
            Code::Lost,
            format!("the pipe was cut: {error}"),
            "the other side was stopped, or the network between is down",
            "run it again at both sides; not all bytes have arrived",
        ),
    }
}
