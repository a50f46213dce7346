//! A connection over an ordered pipe of bytes, such as TCP: secured (`pipe/`), then multiplexed (`yamux/`). To its node it is what a QUIC
//! connection is; what differs stands with each call and in `yamux/port.rs`.
//!
//! Pure: bytes of the pipe go in by [`Piped::handle_bytes`], bytes for it come out by [`Piped::poll_output`]. Nothing here waits
//! for the pipe to take bytes: what leaves has left, so take it only when there is room for it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use libp2p_identity::PeerId;

use super::event::{Blame, ConnEvent, Lost};
use super::pipe::select::Select;
use super::pipe::stage::{Channel, Identity, Securing, stage_deadline};
use super::pipe::{PipeError, YAMUX};
use super::yamux::{Port, Session, Side};
use crate::env::Random;
use crate::error::{Closed, DialError};
use crate::limits::Limits;

/// Why what was bound to an address that is gone leads nowhere.
pub(crate) const ADDRESS_GONE: &str = "this machine has another address now";

/// What is agreed upon inside of a secure pipe.
const MUXERS: &[&str] = &[YAMUX];

/// How a pipe came to its end, as its driver saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PipeEnd {
    /// The peer sends nothing more (FIN).
    Eof,
    /// The peer, or the system for it, reset the pipe (RST).
    Reset,
    /// It could not be made: nobody listens at that address, or something in between refuses.
    Refused,
    /// It could not be made: this machine has no way to that network. The system's words.
    NoWay(String),
    /// It could not be made: the system gave up waiting for an answer.
    NoAnswer(Duration),
    /// This machine has no longer the address that it was bound to: nothing can be sent or received any more.
    AddressGone,
    /// The system's words for anything else.
    Failed(String),
}

/// One connection.
pub(crate) struct Piped {
    identity: Arc<Identity>,
    state: State,
    /// From the start, so that windows can be set at any time.
    session: Session,
    peer: Option<PeerId>,
    events: VecDeque<ConnEvent>,
    /// What is to be sent before all else, sealed already where it has to be.
    out: Vec<u8>,
    work: u64,
    /// The handshake's time that is left for what multiplexes.
    stage: Duration,
    drain: Duration,
    /// When a pipe that does not take our last words is closed regardless.
    linger: Option<Instant>,
    abandoned: bool,
}

enum State {
    Securing(Box<Securing>),
    Open {
        channel: Channel,
        /// What multiplexes is still being negotiated: what comes is for this first.
        muxer: Option<(Select, Instant)>,
    },
    /// Over: what is in `out` may still leave.
    Over,
}

impl Piped {
    /// The side that dials. The pipe need not be there yet; [`handle_connected`](Self::handle_connected) says when it is.
    ///
    /// # Errors
    /// Never in fact: the words of the cryptography.
    pub(crate) fn dial(
        identity: &Arc<Identity>,
        wanted: PeerId,
        limits: &Limits,
        random: &mut Random,
    ) -> Result<Piped, DialError> {
        let securing = Securing::dial(identity, Some(wanted), limits, random).map_err(|error| error.lost().dial)?;
        Ok(Piped::new(identity, securing, Side::Client, limits, random))
    }

    /// The side that was dialled.
    pub(crate) fn listen(now: Instant, identity: &Arc<Identity>, limits: &Limits, random: &mut Random) -> Piped {
        let securing = Securing::listen(now, identity, limits, random);
        Piped::new(identity, securing, Side::Server, limits, random)
    }

    fn new(identity: &Arc<Identity>, securing: Securing, side: Side, limits: &Limits, random: &mut Random) -> Piped {
        let jittered = Limits { keep_alive: random.jitter(limits.keep_alive), ..limits.clone() };
        Piped {
            identity: identity.clone(),
            state: State::Securing(Box::new(securing)),
            session: Session::new(side, &jittered),
            peer: None,
            events: VecDeque::new(),
            out: Vec::new(),
            work: 0,
            stage: stage_deadline(limits),
            drain: limits.drain_deadline,
            linger: None,
            abandoned: false,
        }
    }

    /// The pipe that we dialled is there.
    pub(crate) fn handle_connected(&mut self, now: Instant) {
        if let State::Securing(securing) = &mut self.state {
            securing.start(now);
        }
    }

    /// Takes bytes of the pipe: opens and processes them, the part that costs ([`take_work`](Self::take_work)). At most 64 KiB at once.
    pub(crate) fn handle_bytes(&mut self, now: Instant, chunk: BytesMut) {
        if let Err(error) = self.take(now, chunk) {
            self.fail(now, error);
        }
        self.linger_if_closing(now);
    }

    /// A session that is over has a last word, and a pipe that takes nothing would keep it for ever.
    fn linger_if_closing(&mut self, now: Instant) {
        if self.session.is_closing() {
            self.linger_from(now);
        }
    }

    fn take(&mut self, now: Instant, mut chunk: BytesMut) -> Result<(), PipeError> {
        if let State::Securing(securing) = &mut self.state {
            let result = securing.handle(now, &self.identity, chunk);
            securing.poll_output(&mut self.out);
            self.work = self.work.saturating_add(securing.take_work());
            let Some(channel) = result? else {
                return Ok(());
            };
            self.secured(now, channel)?;
            chunk = BytesMut::new();
        }
        let State::Open { channel, muxer } = &mut self.state else {
            return Ok(());
        };
        let result = channel.handle(chunk);
        channel.poll_handshake(&mut self.out);
        // What was opened before something was wrong is the peer's, and counts.
        while let Some(mut plaintext) = channel.read() {
            if let Some((select, _)) = muxer {
                let mut answer = Vec::new();
                let agreed = select.handle(BytesMut::from(&plaintext[..]), &mut answer)?;
                if !answer.is_empty() {
                    channel.seal(&[answer.into()], &mut self.out)?;
                }
                let Some(agreed) = agreed else {
                    continue;
                };
                *muxer = None;
                plaintext = agreed.rest.freeze();
            }
            // Its own loss it tells itself, and it has a last word to the peer.
            if self.session.handle(now, plaintext).is_err() {
                return Ok(());
            }
        }
        self.work = self.work.saturating_add(self.session.take_work());
        result?;
        if matches!(&self.state, State::Open { channel, .. } if channel.ended()) {
            self.handle_end(now, PipeEnd::Eof);
        }
        Ok(())
    }

    /// The pipe is secure.
    fn secured(&mut self, now: Instant, mut channel: Channel) -> Result<(), PipeError> {
        let Some(secured) = channel.secured() else {
            return Err(PipeError::broken("the handshake is not over"));
        };
        let dials = self.session.side() == Side::Client;
        let mut muxer = None;
        if !secured.muxer {
            let mut proposal = Vec::new();
            // The one proposal there is: what follows is sent without waiting for the answer.
            let select = if dials { Select::dial(MUXERS, &mut proposal)? } else { Select::listen(MUXERS) };
            if !proposal.is_empty() {
                channel.seal(&[proposal.into()], &mut self.out)?;
            }
            muxer = Some((select, now.checked_add(self.stage).unwrap_or(now)));
        }
        self.peer = Some(secured.peer);
        self.events.push_back(ConnEvent::Connected);
        self.state = State::Open { channel, muxer };
        Ok(())
    }

    /// The pipe's end: nothing more comes, and nothing that is sent arrives for sure.
    pub(crate) fn handle_end(&mut self, now: Instant, end: PipeEnd) {
        let at = match self.state {
            State::Over => {
                self.abandoned = true;
                return;
            }
            State::Securing(_) => " during the handshake",
            State::Open { .. } => "",
        };
        let (closed, dial) = match end {
            PipeEnd::Eof => (
                Closed::There { code: 0, reason: ": it ended the connection without a word".to_owned() },
                DialError::Refused(format!("it closed the connection{at}; most likely it is no libp2p node, or is full")),
            ),
            PipeEnd::Reset => (Closed::Forgotten, DialError::Refused(format!("it reset the connection{at}"))),
            PipeEnd::Refused => (Closed::Forgotten, DialError::NothingListens),
            PipeEnd::NoWay(words) => (Closed::Broken(words.clone()), DialError::NoWay(words)),
            PipeEnd::NoAnswer(waited) => (Closed::Silent(waited), DialError::NoAnswer { waited }),
            PipeEnd::AddressGone => (Closed::Moved, DialError::NoWay(ADDRESS_GONE.to_owned())),
            PipeEnd::Failed(words) => (Closed::Broken(words.clone()), DialError::Refused(words)),
        };
        self.over(now, Lost { closed, dial, breach: Blame::Nobody });
        // Nobody reads it.
        self.out = Vec::new();
        self.abandoned = true;
    }

    fn fail(&mut self, now: Instant, error: PipeError) {
        self.over(now, error.lost());
    }

    fn over(&mut self, now: Instant, lost: Lost) {
        if !matches!(self.state, State::Over) {
            self.state = State::Over;
            // What the peer itself has said of its leaving counts for more.
            let told = std::iter::from_fn(|| self.session.poll()).find_map(|event| match event {
                ConnEvent::Lost(told) => Some(told),
                _ => None,
            });
            self.session.close(0);
            self.events.push_back(ConnEvent::Lost(told.unwrap_or(lost)));
            self.linger_from(now);
        }
    }

    fn linger_from(&mut self, now: Instant) {
        self.linger.get_or_insert(now.checked_add(self.drain).unwrap_or(now));
    }

    /// Appends bytes for the pipe to `out`, about `max` of plaintext. Returns how many bytes; 0 when there is nothing to send now.
    pub(crate) fn poll_output(&mut self, now: Instant, max: usize, out: &mut Vec<u8>) -> usize {
        let before = out.len();
        if let State::Securing(securing) = &mut self.state {
            securing.poll_output(&mut self.out);
        }
        out.extend_from_slice(&std::mem::take(&mut self.out));
        if let State::Open { channel, muxer } = &mut self.state {
            channel.poll_handshake(out);
            let mut chunks = Vec::new();
            // The side that answers says nothing else before that is done.
            if muxer.is_none() || self.session.side() == Side::Client {
                self.session.poll_output(now, max, &mut chunks);
            }
            let sealed = channel.seal(&chunks, out);
            if self.session.is_closed() {
                channel.close();
                channel.poll_handshake(out);
                self.state = State::Over;
                self.linger_from(now);
            } else if let Err(error) = sealed {
                self.fail(now, error);
            }
        }
        out.len().saturating_sub(before)
    }

    /// Whether the pipe may be read. False: what is unread has reached the receive window, or nothing of it is wanted any more.
    pub(crate) fn wants_input(&self) -> bool {
        match &self.state {
            State::Securing(_) => true,
            State::Open { .. } => self.session.wants_input(),
            State::Over => false,
        }
    }

    /// Whether all was said: once everything that [`poll_output`](Self::poll_output) gave has left, close the pipe.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.state, State::Over) && self.out.is_empty()
    }

    /// Has the pipe closed now, whatever still waits to leave.
    pub(crate) fn abandon(&mut self) {
        self.abandoned = true;
    }

    /// Whether the pipe is to be closed now, whatever still waits to leave: it has ended, or did not take our last words in time.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.abandoned
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        let late = match &self.state {
            State::Securing(securing) if securing.deadline().is_some_and(|deadline| deadline <= now) => Some(securing.too_slow()),
            State::Open { muxer: Some((_, deadline)), .. } if *deadline <= now => {
                Some(PipeError::Slow { at: "agreeing on a multiplexer (multistream-select)", within: self.stage })
            }
            _ => None,
        };
        self.abandoned |= self.linger.is_some_and(|linger| linger <= now);
        match late {
            Some(error) => self.fail(now, error),
            None if matches!(self.state, State::Open { .. }) => self.session.handle_timeout(now),
            None => {}
        }
        self.linger_if_closing(now);
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let own = match &self.state {
            State::Securing(securing) => securing.deadline(),
            State::Open { muxer, .. } => {
                let muxer = muxer.as_ref().map(|(_, deadline)| *deadline);
                [muxer, self.session.poll_timeout()].into_iter().flatten().min()
            }
            State::Over => None,
        };
        let linger = self.linger.filter(|_| !self.abandoned);
        [own, linger].into_iter().flatten().min()
    }

    /// What has happened, one at a time; `None` when all was told.
    pub(crate) fn poll(&mut self) -> Option<ConnEvent> {
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        match self.state {
            State::Securing(_) => None,
            _ => self.session.poll(),
        }
    }

    /// Goes away with this code (0: in order), in order where the other side can be told.
    pub(crate) fn close(&mut self, now: Instant, code: u32) {
        self.session.close(code);
        if matches!(self.state, State::Securing(_)) {
            self.state = State::Over;
        }
        self.linger_from(now);
    }

    /// The peer's verified identity, once the handshake is complete.
    pub(crate) fn peer(&self) -> Option<PeerId> {
        self.peer
    }

    /// Work units since the last call: bytes, frames, and what the handshake cost.
    pub(crate) fn take_work(&mut self) -> u64 {
        std::mem::take(&mut self.work)
    }

    pub(crate) fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    pub(crate) fn session_ref(&self) -> &Session {
        &self.session
    }

    pub(crate) fn port(&mut self, stream: u64) -> Port<'_> {
        self.session.port(stream)
    }

    /// Whether TLS secures it.
    pub(crate) fn has_tls(&self) -> bool {
        matches!(&self.state, State::Open { channel: Channel::Tls(_), .. })
    }

    /// Gives back room that nothing needs now.
    pub(crate) fn rest(&mut self) {
        if let State::Open { channel, .. } = &mut self.state {
            channel.rest();
        }
        self.events.shrink_to_fit();
        self.session.rest();
    }

    /// Memory that is held, in bytes.
    pub(crate) fn held(&self) -> u64 {
        let pipe = match &self.state {
            State::Securing(securing) => securing.held(),
            State::Open { channel, muxer, .. } => {
                channel.held().saturating_add(muxer.as_ref().map_or(0, |(select, _)| select.held()))
            }
            State::Over => 0,
        };
        self.session.held().saturating_add(pipe as u64).saturating_add(self.out.capacity() as u64)
    }
}
