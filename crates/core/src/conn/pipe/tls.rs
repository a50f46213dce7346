//! TLS 1.3 over a pipe (libp2p/specs `tls`), by rustls' buffered interface with buffers of our own in place of sockets. Certificates and
//! their verifiers are those of QUIC, in `conn/tls.rs`.
//!
//! What a peer can make this hold: one record that is not complete (18 KiB) or one handshake message (64 KiB) in rustls, and the plaintext
//! of the chunk that was handed in last.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io::{BufRead as _, IoSlice, Write as _};
use std::sync::{Arc, OnceLock};

use bytes::{Bytes, BytesMut};
use libp2p_identity::PeerId;
use rustls::{AlertDescription, ClientConnection, Connection, ServerConfig, ServerConnection};

use super::{PipeError, Secured, YAMUX};
use crate::conn::tls::{ALPN, Certificate, TlsError, client_config, peer_id_of, server_config};
use crate::env::Env;

/// The name to negotiate.
pub(crate) const NAME: &str = "/tls/1.0.0";

/// Who this node is, to all its handshakes of TLS over pipes.
pub(crate) struct Identity {
    certificate: Certificate,
    server: Arc<ServerConfig>,
    alpn: Vec<Vec<u8>>,
    env: Env,
}

impl Identity {
    /// # Errors
    /// [`TlsError::Provider`], when the surroundings' cryptography cannot be used for TLS 1.3.
    pub(crate) fn new(certificate: Certificate, env: &Env) -> Result<Identity, TlsError> {
        let mut server = server_config(&certificate, env.crypto.clone(), env.wall.clone())?;
        env.log_keys(&mut server.key_log);
        // The multiplexer, and last that it has to be negotiated later.
        let alpn = vec![YAMUX.as_bytes().to_vec(), ALPN.to_vec()];
        server.alpn_protocols = alpn.clone();
        Ok(Identity { certificate, server: Arc::new(server), alpn, env: env.clone() })
    }

    pub(super) fn held(&self) -> u64 {
        self.certificate.held()
    }

    /// As peers are that negotiate what multiplexes only later.
    #[cfg(test)]
    pub(crate) fn without_early_muxer(mut self) -> Identity {
        self.alpn.remove(0);
        Arc::make_mut(&mut self.server).alpn_protocols.remove(0);
        self
    }
}

/// One end of a pipe that TLS secures.
pub(crate) struct Tls {
    connection: Connection,
    secured: Option<Secured>,
    opened: VecDeque<Bytes>,
    /// The peer has said that it sends no more (close_notify, RFC 8446 section 6.1).
    ended: bool,
    broken: bool,
}

impl Tls {
    /// The side that dials, and has the first message to send.
    ///
    /// # Errors
    /// [`PipeError::Broken`], when the surroundings' cryptography cannot be used.
    pub(crate) fn dial(identity: &Identity, wanted: Option<PeerId>) -> Result<Tls, PipeError> {
        let Identity { certificate, env, alpn, .. } = identity;
        // Which of two identities answered is told by the error itself.
        let found = Arc::new(OnceLock::new());
        let mut config = client_config(certificate, wanted, env.crypto.clone(), env.wall.clone(), found)
            .map_err(|error| PipeError::broken(error.to_string()))?;
        env.log_keys(&mut config.key_log);
        config.alpn_protocols = alpn.clone();
        // The name is never sent (no SNI) and never looked at.
        let name = rustls::pki_types::ServerName::try_from("libp2p").map_err(|error| PipeError::broken(error.to_string()))?;
        let client = ClientConnection::new(Arc::new(config), name).map_err(refused)?;
        Ok(Tls::new(client.into()))
    }

    /// The side that listens.
    ///
    /// # Errors
    /// As [`dial`](Self::dial).
    pub(crate) fn listen(identity: &Identity) -> Result<Tls, PipeError> {
        let server = ServerConnection::new(identity.server.clone()).map_err(refused)?;
        Ok(Tls::new(server.into()))
    }

    fn new(mut connection: Connection) -> Tls {
        // What is sealed is taken at once, so nothing piles up in there.
        connection.set_buffer_limit(None);
        Tls { connection, secured: None, opened: VecDeque::new(), ended: false, broken: false }
    }

    /// Takes bytes of the pipe, as many as there are. Afterwards take what [`read`](Self::read) and
    /// [`poll_handshake`](Self::poll_handshake) have; after an error too, since TLS tells the other side the reason.
    ///
    /// # Errors
    /// [`PipeError`]; from then on always.
    pub(crate) fn handle(&mut self, chunk: &BytesMut) -> Result<(), PipeError> {
        if self.broken {
            return Err(PipeError::broken("the TLS channel is not open"));
        }
        let result = self.records(chunk);
        self.broken = result.is_err();
        result
    }

    /// The next plaintext, in order; never empty.
    pub(crate) fn read(&mut self) -> Option<Bytes> {
        self.opened.pop_front()
    }

    /// Whether the peer has said that nothing follows what was read.
    pub(crate) fn ended(&self) -> bool {
        self.ended
    }

    /// Appends what TLS itself has to send: handshake, key updates, alerts.
    pub(crate) fn poll_handshake(&mut self, out: &mut Vec<u8>) {
        while self.connection.wants_write() {
            // A Vec takes all that it is given.
            let Ok(1..) = self.connection.write_tls(out) else {
                return;
            };
        }
    }

    /// What is agreed, once the handshake is complete on this side.
    pub(crate) fn secured(&self) -> Option<Secured> {
        self.secured
    }

    /// Seals `chunks`, one behind the other, in records as full as they can be, and appends them to `out`. Not before the handshake is complete.
    ///
    /// # Errors
    /// [`PipeError`]: not secured (any more).
    pub(crate) fn seal(&mut self, chunks: &[Bytes], out: &mut Vec<u8>) -> Result<(), PipeError> {
        if self.secured.is_none() || self.broken {
            // rustls would keep it for later, without bound.
            return Err(PipeError::broken("the TLS channel is not open"));
        }
        let slices: Vec<IoSlice<'_>> = chunks.iter().map(|chunk| IoSlice::new(chunk)).collect();
        let len = chunks.iter().fold(0usize, |sum, chunk| sum.saturating_add(chunk.len()));
        match self.connection.writer().write_vectored(&slices) {
            // Without a limit it takes all at once.
            Ok(sealed) if sealed == len => {}
            _ => return Err(PipeError::broken("sealing failed")),
        }
        self.poll_handshake(out);
        Ok(())
    }

    /// Says that nothing more is sent.
    pub(crate) fn close(&mut self) {
        self.connection.send_close_notify();
    }

    /// Gives back room that nothing needs now.
    pub(crate) fn rest(&mut self) {
        self.opened.shrink_to_fit();
    }

    /// Bytes of plaintext that wait to be read.
    pub(crate) fn held(&self) -> usize {
        self.opened.iter().fold(0usize, |sum, chunk| sum.saturating_add(chunk.len()))
    }

    fn records(&mut self, chunk: &[u8]) -> Result<(), PipeError> {
        let mut rest = chunk;
        while !rest.is_empty() && !self.ended {
            let before = rest.len();
            self.connection.read_tls(&mut rest).map_err(|error| PipeError::broken(error.to_string()))?;
            if rest.len() == before {
                return Err(PipeError::broken("a TLS message is too long"));
            }
            let state = self.connection.process_new_packets().map_err(refused)?;
            self.ended = state.peer_has_closed();
            self.take_plaintext();
            if self.secured.is_none() && !self.connection.is_handshaking() {
                self.secured = Some(self.agreed()?);
            }
        }
        Ok(())
    }

    /// Moves what was opened out of rustls, which takes no more bytes before.
    fn take_plaintext(&mut self) {
        let mut reader = self.connection.reader();
        while let Ok(chunk @ [_, ..]) = reader.fill_buf() {
            self.opened.push_back(Bytes::copy_from_slice(chunk));
            let len = chunk.len();
            reader.consume(len);
        }
    }

    fn agreed(&self) -> Result<Secured, PipeError> {
        let certificate = self.connection.peer_certificates().and_then(<[_]>::first);
        let certificate = certificate.ok_or_else(|| PipeError::broken("the peer showed no certificate"))?;
        let peer = peer_id_of(certificate).map_err(|error| PipeError::broken(error.to_string()))?;
        Ok(Secured { peer, muxer: self.connection.alpn_protocol() == Some(YAMUX.as_bytes()) })
    }
}

fn refused(error: rustls::Error) -> PipeError {
    match (TlsError::within(&error), &error) {
        (Some(TlsError::WrongPeer { wanted, found }), _) => PipeError::WrongPeer { wanted: **wanted, found: **found },
        (Some(reason), _) => PipeError::Broken(reason.to_string()),
        (None, rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol) | rustls::Error::NoApplicationProtocol) => {
            PipeError::Incompatible(format!(
                "the peer has no multiplexer in common with us, which is {YAMUX}, or does not speak libp2p"
            ))
        }
        _ => PipeError::Broken(format!("TLS: {error}")),
    }
}
