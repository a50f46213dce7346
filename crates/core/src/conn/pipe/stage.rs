//! From a fresh pipe to one that is secure, in stages: agree how to secure it, then do so. What multiplexes is agreed in the second one where the
//! peer can, and negotiated behind it by `conn/piped.rs` where not.
//!
//! Each stage has a deadline of its own, a half of that of the whole handshake: what is exchanged in one is less than 8 KiB, so a peer that
//! sends a byte a second is found out by it whatever it sends, and a slow but sound link is not.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use libp2p_identity::{Keypair, PeerId};

use super::noise::{self, Noise};
use super::select::Select;
use super::tls::{self, Tls};
use super::{PipeError, Secured};
use crate::conn::tls::Certificate;
use crate::env::{Env, Random};
use crate::limits::{HANDSHAKE_MESSAGE_WORK, Limits};

/// The ways to secure a pipe, the preferred one first. Measured on the machine of development, both sides together: a handshake with TLS takes
/// 1.1 to 1.4 ms and one with Noise 1.5 to 1.6 ms (tests' build), and TLS' AES-GCM moves 1.8 to 2.8 GB/s against 0.6 with Noise's ChaCha20.
pub(crate) const SECURITY: &[&str] = &[tls::NAME, noise::NAME];

/// Who this node is, to all pipes.
pub(crate) struct Identity {
    noise: noise::Identity,
    tls: tls::Identity,
    /// What is offered, a part of [`SECURITY`] in any order.
    pub(crate) security: &'static [&'static str],
}

impl Identity {
    /// # Errors
    /// In words, when the identity key cannot sign or the surroundings' cryptography cannot be used.
    pub(crate) fn new(keypair: &Keypair, env: &Env, random: &mut Random) -> Result<Identity, String> {
        let certificate = Certificate::new(keypair, random.seed()).map_err(|error| error.to_string())?;
        let tls = tls::Identity::new(certificate, env).map_err(|error| error.to_string())?;
        let noise = noise::Identity::new(keypair, random.seed())?;
        Ok(Identity { noise, tls, security: SECURITY })
    }

    /// Allocated bytes of what is known of others' certificates.
    pub(crate) fn held(&self) -> u64 {
        self.tls.held()
    }

    /// As peers are that negotiate what multiplexes only later.
    #[cfg(test)]
    pub(crate) fn without_early_muxer(self) -> Identity {
        let (noise, tls) = (self.noise.without_early_muxer(), self.tls.without_early_muxer());
        Identity { noise, tls, ..self }
    }
}

/// A secure pipe.
pub(crate) enum Channel {
    Noise(Box<Noise>),
    Tls(Box<Tls>),
}

impl Channel {
    /// Takes bytes of the pipe.
    ///
    /// # Errors
    /// [`PipeError`]; from then on always.
    pub(crate) fn handle(&mut self, chunk: BytesMut) -> Result<(), PipeError> {
        match self {
            Channel::Noise(noise) => noise.handle(chunk),
            Channel::Tls(tls) => tls.handle(&chunk),
        }
    }

    /// The next plaintext, in order; never empty.
    pub(crate) fn read(&mut self) -> Option<Bytes> {
        match self {
            Channel::Noise(noise) => noise.read(),
            Channel::Tls(tls) => tls.read(),
        }
    }

    /// Whether the peer has said that nothing follows what was read. Noise cannot say so.
    pub(crate) fn ended(&self) -> bool {
        matches!(self, Channel::Tls(tls) if tls.ended())
    }

    /// Appends what the channel itself has to send.
    pub(crate) fn poll_handshake(&mut self, out: &mut Vec<u8>) {
        match self {
            Channel::Noise(noise) => noise.poll_handshake(out),
            Channel::Tls(tls) => tls.poll_handshake(out),
        }
    }

    pub(crate) fn secured(&self) -> Option<Secured> {
        match self {
            Channel::Noise(noise) => noise.secured(),
            Channel::Tls(tls) => tls.secured(),
        }
    }

    /// Seals `chunks`, one behind the other, and appends them to `out`.
    ///
    /// # Errors
    /// [`PipeError`]: the channel is broken, or was never whole.
    pub(crate) fn seal(&mut self, chunks: &[Bytes], out: &mut Vec<u8>) -> Result<(), PipeError> {
        match self {
            Channel::Noise(noise) => noise.seal(chunks, out),
            Channel::Tls(tls) => tls.seal(chunks, out),
        }
    }

    /// Says that nothing more is sent, where that can be said.
    pub(crate) fn close(&mut self) {
        if let Channel::Tls(tls) = self {
            tls.close();
        }
    }

    /// Gives back room that nothing needs now.
    pub(crate) fn rest(&mut self) {
        match self {
            Channel::Noise(noise) => noise.rest(),
            Channel::Tls(tls) => tls.rest(),
        }
    }

    pub(crate) fn held(&self) -> usize {
        match self {
            Channel::Noise(noise) => noise.held(),
            Channel::Tls(tls) => tls.held(),
        }
    }
}

/// How long one stage may take.
pub(crate) fn stage_deadline(limits: &Limits) -> Duration {
    limits.handshake_deadline.checked_div(2).unwrap_or_default()
}

/// A pipe that is being secured.
pub(crate) struct Securing {
    stage: Stage,
    wanted: Option<PeerId>,
    dials: bool,
    seed: [u8; 32],
    out: Vec<u8>,
    work: u64,
    within: Duration,
    /// `None` while the pipe itself is not there.
    deadline: Option<Instant>,
}

enum Stage {
    Select(Select),
    Handshake(Channel),
    Done,
}

impl Securing {
    /// The side that dials.
    ///
    /// # Errors
    /// Never in fact; see [`Noise::dial`].
    pub(crate) fn dial(
        identity: &Identity,
        wanted: Option<PeerId>,
        limits: &Limits,
        random: &mut Random,
    ) -> Result<Securing, PipeError> {
        let mut out = Vec::new();
        let select = Select::dial(identity.security, &mut out)?;
        Ok(Securing { wanted, dials: true, out, ..Securing::new(Stage::Select(select), limits, random) })
    }

    /// The side that was dialled.
    pub(crate) fn listen(now: Instant, identity: &Identity, limits: &Limits, random: &mut Random) -> Securing {
        let mut securing = Securing::new(Stage::Select(Select::listen(identity.security)), limits, random);
        securing.start(now);
        securing
    }

    /// The pipe is there: the first stage begins.
    pub(crate) fn start(&mut self, now: Instant) {
        self.deadline = now.checked_add(self.within);
    }

    fn new(stage: Stage, limits: &Limits, random: &mut Random) -> Securing {
        let within = stage_deadline(limits);
        Securing { stage, wanted: None, dials: false, seed: random.seed(), out: Vec::new(), work: 0, within, deadline: None }
    }

    /// Takes bytes of the pipe. The secure pipe, once it is one; take [`poll_output`](Self::poll_output) after this, after an error too.
    ///
    /// # Errors
    /// [`PipeError`]; the pipe is to be closed.
    pub(crate) fn handle(
        &mut self,
        now: Instant,
        identity: &Identity,
        mut chunk: BytesMut,
    ) -> Result<Option<Channel>, PipeError> {
        self.work = self.work.saturating_add(chunk.len() as u64);
        if let Stage::Select(select) = &mut self.stage {
            let Some(agreed) = select.handle(chunk, &mut self.out)? else {
                return Ok(None);
            };
            self.stage = Stage::Handshake(self.begin(identity, agreed.name)?);
            self.start(now);
            chunk = agreed.rest;
        }
        let Stage::Handshake(channel) = &mut self.stage else {
            return Err(PipeError::broken("the handshake is over"));
        };
        let result = channel.handle(chunk);
        let before = self.out.len();
        channel.poll_handshake(&mut self.out);
        // What answers, and what ends it, was checked: key exchanges and signatures.
        if self.out.len() > before || channel.secured().is_some() || result.is_err() {
            self.work = self.work.saturating_add(HANDSHAKE_MESSAGE_WORK);
        }
        result?;
        if channel.secured().is_none() {
            return Ok(None);
        }
        match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::Handshake(channel) => Ok(Some(channel)),
            _ => Ok(None),
        }
    }

    fn begin(&mut self, identity: &Identity, name: &str) -> Result<Channel, PipeError> {
        let mut channel = match (name == tls::NAME, self.dials) {
            (true, true) => Channel::Tls(Box::new(Tls::dial(&identity.tls, self.wanted)?)),
            (true, false) => Channel::Tls(Box::new(Tls::listen(&identity.tls)?)),
            (false, true) => Channel::Noise(Box::new(Noise::dial(&identity.noise, self.wanted, self.seed)?)),
            (false, false) => Channel::Noise(Box::new(Noise::listen(&identity.noise, self.seed)?)),
        };
        channel.poll_handshake(&mut self.out);
        Ok(channel)
    }

    /// Appends what is to be sent.
    pub(crate) fn poll_output(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&std::mem::take(&mut self.out));
    }

    /// When this stage has to be over.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// What is wrong when it is not.
    pub(crate) fn too_slow(&self) -> PipeError {
        let at = match self.stage {
            Stage::Select(_) => "agreeing how to encrypt (multistream-select)",
            Stage::Handshake(Channel::Noise(_)) => "the Noise handshake",
            Stage::Handshake(Channel::Tls(_)) => "the TLS handshake",
            Stage::Done => "the handshake",
        };
        PipeError::Slow { at, within: self.within }
    }

    /// Work units since the last call.
    pub(crate) fn take_work(&mut self) -> u64 {
        std::mem::take(&mut self.work)
    }

    pub(crate) fn held(&self) -> usize {
        let stage = match &self.stage {
            Stage::Select(select) => select.held(),
            Stage::Handshake(channel) => channel.held(),
            Stage::Done => 0,
        };
        stage.saturating_add(self.out.capacity())
    }
}
