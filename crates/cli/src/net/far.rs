//! Asking one provider over the network.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use strait::{Breach, DialError, Node, PingError, RequestError};

use super::pulse::{Pulse, pong_within};
use super::{connect, definition, dial_failure};
use crate::exit::{Code, Failure};
use crate::fetch::{Fetch, FetchError};
use crate::news::News;
use crate::progress::Progress;
use crate::ticket::Ticket;
use crate::wire::Ask;

/// A provider at the other end of a ticket. Connects when it is asked for something, and again when the connection was lost.
pub struct Far {
    node: Node,
    ticket: Ticket,
    /// It was connected once, and that was told.
    met: AtomicBool,
    /// It has answered a request: it is there, and serves.
    answered: AtomicBool,
    pulse: Pulse,
    progress: Arc<Progress>,
}

impl Far {
    /// The provider of this ticket. Nothing is sent yet.
    pub fn new(node: Node, ticket: Ticket, progress: Arc<Progress>) -> Far {
        Far { node, ticket, met: AtomicBool::new(false), answered: AtomicBool::new(false), pulse: Pulse::new(), progress }
    }

    /// The same, connected.
    ///
    /// # Errors
    /// Why it cannot be reached, in words.
    pub async fn connect(node: Node, ticket: Ticket, progress: Arc<Progress>) -> Result<Far, Failure> {
        let far = Far::new(node, ticket, progress);
        connect(&far.node, far.ticket.peer, &far.ticket.addrs).await?;
        Ok(far)
    }

    async fn connected(&self) -> Result<(), FetchError> {
        if self.node.is_connected(self.ticket.peer) {
            return Ok(());
        }
        let Ticket { peer, addrs, .. } = &self.ticket;
        connect(&self.node, *peer, addrs).await.map_err(|failure| match failure.code {
            Code::Unreachable if !addrs.is_empty() => FetchError::Unreachable(Box::new(failure)),
            _ => FetchError::Final(Box::new(failure)),
        })?;
        if !self.met.swap(true, Ordering::Relaxed) {
            let line = format!("connected to {peer}");
            self.progress.news(&News::provider(line, &peer.to_string(), "connected", ""));
        }
        Ok(())
    }

    fn failed(&self, error: RequestError) -> FetchError {
        let last = |failure| FetchError::Final(Box::new(failure));
        // Who served before and does not now is most likely about to stop, or has just begun again.
        let served = self.answered.load(Ordering::Relaxed);
        match error {
            RequestError::Dial(error @ (DialError::WrongPeer { .. } | DialError::Incompatible(_))) => {
                last(dial_failure(&error, &self.ticket.addrs))
            }
            // For seconds nothing has moved on the whole connection: the other side may have another address by now, so it is dialled
            // anew at all that are known.
            RequestError::Stalled { .. } => {
                self.node.disconnect(self.ticket.peer);
                FetchError::Again(error.to_string())
            }
            RequestError::Unsupported(name) if !served => last(Failure::new(
                Code::NotServed,
                format!("the node answers, but does not serve {name}"),
                "`strait send` no longer runs there, or another version does",
                "ask the sender to run send again, and use the new ticket",
            )),
            // Not declined, but given up for want of memory or time: there may be some later.
            RequestError::Rejected(code) if code == u64::from(strait::CODE_SLOW) => FetchError::Again(error.to_string()),
            RequestError::Rejected(_) if !served => last(Failure::new(
                Code::NotServed,
                "the provider declined the request without a reason",
                "it is no sender of strait, or it is about to stop",
                "ask the sender to run send again, and use the new ticket",
            )),
            RequestError::Broken(Breach::TooLarge { .. } | Breach::Malformed(_)) => last(Failure::new(
                Code::Incompatible,
                format!("the provider does not keep to the protocol: {error}"),
                "its version is not compatible, or it is faulty or hostile",
                "use the same version of strait on both sides",
            )),
            RequestError::Closing => last(Failure::new(Code::Interrupted, "stopped", "this node is closing", "run get again")),
            RequestError::TooLarge { .. } => last(Failure::bug(error.to_string())),
            _ => FetchError::Again(error.to_string()),
        }
    }
}

impl Fetch for Far {
    async fn fetch(&self, ask: Ask) -> Result<Bytes, FetchError> {
        self.connected().await?;
        let request = ask.encode(&self.ticket.root);
        let peer = self.ticket.peer;
        let ping = || {
            let round_trip = self.node.path(peer).map(|(_, round_trip)| round_trip).unwrap_or_default();
            let pong = async {
                match self.node.ping(peer).await {
                    // The connection is lost, and there is no other: that the request still waits for one is not kept from people.
                    Err(PingError::Connect(error)) => Err(error.to_string()),
                    _ => Ok(()),
                }
            };
            (pong_within(round_trip), pong)
        };
        let reply = self.pulse.during(self.node.request(peer, definition(ask.protocol()), request), ping).await;
        let message = reply.map_err(|words| {
            // Nobody is there at the other end of this connection: it is dialled anew, at all addresses that are known.
            self.node.disconnect(peer);
            FetchError::Again(words)
        })?;
        let message = message.map_err(|error| self.failed(error))?;
        self.answered.store(true, Ordering::Relaxed);
        Ok(message.into_bytes())
    }

    fn name(&self) -> String {
        self.ticket.peer.to_string()
    }
}
