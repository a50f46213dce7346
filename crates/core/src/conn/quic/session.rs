//! TLS of a QUIC connection, which ends when the handshake has: what is left is a few hundred bytes.
//!
//! The QUIC crate's own session keeps rustls' connection for as long as its own lives, some 4 KiB with its buffers, its certificates and the keys of a
//! record layer that QUIC does not have. After a handshake nothing of it is needed but the secrets for key updates (RFC 9001 section 6) and who the peer is:
//! sessions are never resumed here, and TLS 1.3 over QUIC has no other message that comes later.

use std::any::Any;
use std::sync::Arc;

use libp2p_identity::PeerId;
use ring::aead;
use rustls::pki_types::ServerName;
use rustls::quic::{ClientConnection, Connection, KeyChange, Secrets, ServerConnection, Suite, Version};

use super::quic::crypto::{self, ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey, UnsupportedVersion};
use super::quic::transport_parameters::TransportParameters;
use super::quic::{ConnectError, ConnectionId, Side, TransportError, TransportErrorCode};
use crate::conn::tls;
use crate::limits::CRYPTO_BYTES_MAX;

/// The one version of QUIC that is spoken: `quic-v1` in an address.
pub(super) const VERSION: u32 = 1;

/// RFC 9001 section 5.8: what a Retry packet is sealed with.
const RETRY_KEY: [u8; 16] = [0xbe, 0x0c, 0x69, 0x0b, 0x9f, 0x66, 0x57, 0x5a, 0x1d, 0x76, 0x6b, 0x54, 0xe3, 0x68, 0xc8, 0x4e];
const RETRY_NONCE: [u8; 12] = [0x46, 0x15, 0x99, 0xd3, 0x5d, 0x63, 0x2b, 0xf2, 0x23, 0x98, 0x25, 0xbb];
const RETRY_TAG_BYTES: usize = 16;

/// `unexpected_message` (RFC 8446 section 6).
const UNEXPECTED_MESSAGE: u8 = 10;
/// `new_session_ticket` (RFC 8446 section 4): the only message that may follow a handshake, and only from a server.
const NEW_SESSION_TICKET: u8 = 4;
/// What is read of one handshake at most, in all. The largest that can succeed brings a certificate of [`tls::CERTIFICATE_BYTES_MAX`] and some 3 KiB beside it.
/// The limit on what comes out of order does not cover what comes in order, which rustls keeps up to 64 KiB of.
const HANDSHAKE_BYTES_MAX: usize = CRYPTO_BYTES_MAX;

/// How listeners begin sessions.
pub(super) struct ServerTls {
    /// What of it needs no session.
    stateless: Arc<crypto::rustls::QuicServerConfig>,
    config: Arc<rustls::ServerConfig>,
    suite: Suite,
}

/// How dials begin sessions.
pub(super) struct ClientTls {
    config: Arc<rustls::ClientConfig>,
    suite: Suite,
}

/// AES-128-GCM, with which first packets are sealed.
fn initial_suite(provider: &rustls::crypto::CryptoProvider) -> Option<Suite> {
    let wanted = rustls::CipherSuite::TLS13_AES_128_GCM_SHA256;
    let found = provider.cipher_suites.iter().find(|suite| suite.suite() == wanted)?;
    found.tls13()?.quic_suite()
}

const NO_INITIAL_SUITE: &str = "the crypto provider lacks AES-128-GCM with SHA-256, which QUIC begins with";

impl ServerTls {
    pub(super) fn new(config: rustls::ServerConfig) -> Result<ServerTls, &'static str> {
        let config = Arc::new(config);
        let suite = initial_suite(config.crypto_provider()).ok_or(NO_INITIAL_SUITE)?;
        let stateless = crypto::rustls::QuicServerConfig::try_from(config.clone()).map_err(|_| NO_INITIAL_SUITE)?;
        Ok(ServerTls { stateless: Arc::new(stateless), config, suite })
    }
}

impl ClientTls {
    pub(super) fn new(config: rustls::ClientConfig) -> Result<ClientTls, &'static str> {
        let suite = initial_suite(config.crypto_provider()).ok_or(NO_INITIAL_SUITE)?;
        Ok(ClientTls { config: Arc::new(config), suite })
    }
}

impl crypto::ServerConfig for ServerTls {
    fn initial_keys(&self, version: u32, id: &ConnectionId) -> Result<Keys, UnsupportedVersion> {
        self.stateless.initial_keys(version, id)
    }

    fn retry_tag(&self, version: u32, id: &ConnectionId, packet: &[u8]) -> [u8; 16] {
        self.stateless.retry_tag(version, id, packet)
    }

    fn start_session(self: Arc<Self>, version: u32, params: &TransportParameters) -> Box<dyn crypto::Session> {
        let mut told = Vec::new();
        params.write(&mut told);
        match ServerConnection::new(self.config.clone(), Version::V1, told) {
            Ok(server) if version == VERSION => Box::new(Session::new(Connection::Server(server), self.suite)),
            // Other versions are not taken, and a configuration that makes no session makes none there either.
            _ => self.stateless.clone().start_session(version, params),
        }
    }
}

impl crypto::ClientConfig for ClientTls {
    fn start_session(
        self: Arc<Self>,
        version: u32,
        name: &str,
        params: &TransportParameters,
    ) -> Result<Box<dyn crypto::Session>, ConnectError> {
        if version != VERSION {
            return Err(ConnectError::UnsupportedVersion);
        }
        let mut told = Vec::new();
        params.write(&mut told);
        let bad_name = || ConnectError::InvalidServerName(name.into());
        let server = ServerName::try_from(name).map_err(|_| bad_name())?.to_owned();
        // What else could be wrong was looked at when the configuration was made.
        let client = ClientConnection::new(self.config.clone(), Version::V1, server, told).map_err(|_| bad_name())?;
        Ok(Box::new(Session::new(Connection::Client(client), self.suite)))
    }
}

/// One connection's TLS.
struct Session {
    suite: Suite,
    /// For the next key update.
    secrets: Option<Secrets>,
    side: Side,
    stage: Stage,
    /// Bytes of the handshake that have come.
    read: usize,
}

enum Stage {
    Handshake(Box<Connection>),
    Done(Box<Done>),
}

/// What is left of a handshake.
struct Done {
    peer: Option<PeerId>,
    /// A client's transport asks for the server's parameters after its last message has been made.
    params: Option<Box<[u8]>>,
    tickets: Tickets,
}

impl Session {
    fn new(connection: Connection, suite: Suite) -> Session {
        let side = if matches!(connection, Connection::Client(_)) { Side::Client } else { Side::Server };
        Session { suite, secrets: None, side, stage: Stage::Handshake(Box::new(connection)), read: 0 }
    }

    /// Ends rustls' part when everything that it had to say is said.
    fn end(&mut self) {
        if let Stage::Handshake(connection) = &self.stage
            && self.secrets.is_some()
            && !connection.is_handshaking()
        {
            let certificate = connection.peer_certificates().and_then(<[_]>::first);
            let params = if self.side.is_client() { connection.quic_transport_parameters().map(Box::from) } else { None };
            let peer = certificate.and_then(|certificate| tls::peer_id_of(certificate).ok());
            self.stage = Stage::Done(Box::new(Done { peer, params, tickets: Tickets::default() }));
        }
    }

    fn rustls_side(&self) -> rustls::Side {
        if self.side.is_client() { rustls::Side::Client } else { rustls::Side::Server }
    }
}

fn keys(keys: rustls::quic::Keys) -> Keys {
    Keys {
        header: KeyPair { local: Box::new(keys.local.header), remote: Box::new(keys.remote.header) },
        packet: KeyPair { local: Box::new(keys.local.packet), remote: Box::new(keys.remote.packet) },
    }
}

impl crypto::Session for Session {
    fn initial_keys(&self, id: &ConnectionId, _side: Side) -> Keys {
        keys(self.suite.keys(id, self.rustls_side(), Version::V1))
    }

    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        None
    }

    /// A [`PeerId`], once the handshake is complete.
    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        match &self.stage {
            Stage::Handshake(_) => None,
            Stage::Done(done) => done.peer.map(|peer| -> Box<dyn Any> { Box::new(peer) }),
        }
    }

    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        None
    }

    fn early_data_accepted(&self) -> Option<bool> {
        self.side.is_client().then_some(false)
    }

    fn is_handshaking(&self) -> bool {
        matches!(&self.stage, Stage::Handshake(connection) if connection.is_handshaking())
    }

    fn read_handshake(&mut self, bytes: &[u8]) -> Result<bool, TransportError> {
        let refused = |code: TransportErrorCode, reason: String| TransportError { code, frame: None, reason };
        match &mut self.stage {
            Stage::Handshake(_) if self.read.saturating_add(bytes.len()) > HANDSHAKE_BYTES_MAX => {
                Err(refused(TransportErrorCode::CRYPTO_BUFFER_EXCEEDED, "the handshake is too long".to_owned()))
            }
            Stage::Handshake(connection) => match connection.read_hs(bytes) {
                Ok(()) => {
                    self.read = self.read.saturating_add(bytes.len());
                    Ok(false)
                }
                Err(error) => {
                    let alert = connection.alert().map(|alert| TransportErrorCode::crypto(alert.into()));
                    Err(refused(alert.unwrap_or(TransportErrorCode::PROTOCOL_VIOLATION), error.to_string()))
                }
            },
            Stage::Done(done) => {
                if self.side.is_client() && done.tickets.pass(bytes) {
                    return Ok(false);
                }
                let code = TransportErrorCode::crypto(UNEXPECTED_MESSAGE);
                Err(refused(code, "a TLS message after the handshake".to_owned()))
            }
        }
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        let told = match &self.stage {
            Stage::Handshake(connection) => connection.quic_transport_parameters(),
            Stage::Done(done) => done.params.as_deref(),
        };
        let read = |mut told: &[u8]| TransportParameters::read(self.side, &mut told).map_err(TransportError::from);
        told.map(read).transpose()
    }

    fn write_handshake(&mut self, out: &mut Vec<u8>) -> Option<Keys> {
        let Stage::Handshake(connection) = &mut self.stage else {
            return None;
        };
        match connection.write_hs(out) {
            Some(KeyChange::Handshake { keys: next }) => Some(keys(next)),
            Some(KeyChange::OneRtt { keys: next, next: secrets }) => {
                self.secrets = Some(secrets);
                Some(keys(next))
            }
            None => {
                if out.is_empty() {
                    self.end();
                }
                None
            }
        }
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        let keys = self.secrets.as_mut()?.next_packet_keys();
        Some(KeyPair { local: Box::new(keys.local), remote: Box::new(keys.remote) })
    }

    fn is_valid_retry(&self, id: &ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        let Some((payload, tag)) = payload.len().checked_sub(RETRY_TAG_BYTES).and_then(|at| payload.split_at_checked(at)) else {
            return false;
        };
        let Ok(key) = aead::UnboundKey::new(&aead::AES_128_GCM, &RETRY_KEY) else {
            return false;
        };
        let length = u8::try_from(id.len()).unwrap_or(u8::MAX);
        let sealed = [&[length], &id[..], header, payload].concat();
        let nonce = aead::Nonce::assume_unique_for_key(RETRY_NONCE);
        aead::LessSafeKey::new(key).open_in_place(nonce, aead::Aad::from(sealed), &mut tag.to_vec()).is_ok()
    }

    fn export_keying_material(&self, _: &mut [u8], _: &[u8], _: &[u8]) -> Result<(), ExportKeyingMaterialError> {
        Err(ExportKeyingMaterialError)
    }
}

/// Skips the session tickets of a server, of which no use is made, however they are cut.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tickets {
    /// What is known of a message's header: its kind and the three bytes of its length (RFC 8446 section 4).
    header: u32,
    known: u8,
    /// Bytes of its body to come.
    body: u32,
}

impl Tickets {
    /// False when it is something else.
    fn pass(&mut self, mut bytes: &[u8]) -> bool {
        loop {
            let skipped = bytes.len().min(usize::try_from(self.body).unwrap_or(usize::MAX));
            self.body = self.body.saturating_sub(u32::try_from(skipped).unwrap_or(u32::MAX));
            let Some((byte, rest)) = bytes.get(skipped..).and_then(<[u8]>::split_first) else {
                return true;
            };
            bytes = rest;
            if self.known == 0 && *byte != NEW_SESSION_TICKET {
                return false;
            }
            self.header = self.header << 8 | u32::from(*byte);
            self.known = self.known.saturating_add(1);
            if self.known == 4 {
                *self = Tickets { body: self.header & 0x00ff_ffff, ..Tickets::default() };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A handshake of each side, which has not begun.
    fn beginnings() -> [Session; 2] {
        let env = crate::env::testing::env(1);
        let keypair = libp2p_identity::Keypair::ed25519_from_bytes([1; 32]).expect("32 bytes");
        let own = tls::Certificate::new(&keypair, [2; 32]).expect("a key that signs");
        let server = tls::server_config(&own, env.crypto.clone(), env.wall.clone()).expect("it has TLS 1.3");
        let client = tls::client_config(&own, None, env.crypto.clone(), env.wall.clone(), Arc::default()).expect("the same");
        let suite = initial_suite(&env.crypto).expect("it has AES-128-GCM");
        let name = ServerName::try_from("any").expect("a name");
        let server = ServerConnection::new(Arc::new(server), Version::V1, Vec::new()).expect("a session");
        let client = ClientConnection::new(Arc::new(client), Version::V1, name, Vec::new()).expect("a session");
        [Session::new(Connection::Server(server), suite), Session::new(Connection::Client(client), suite)]
    }

    /// Whoever comes could otherwise have 64 KiB kept that nobody has granted: rustls keeps a message until it is whole.
    #[test]
    fn a_handshake_is_kept_up_to_what_is_granted_for_it() {
        for (mut session, first) in beginnings().into_iter().zip([1, 2]) {
            let message = [&[first, 0, 0xf0, 0][..], &[0; 0xf000 - 1]].concat();
            let mut pieces = message.chunks(1000);
            let error = pieces.find_map(|piece| crypto::Session::read_handshake(&mut session, piece).err());
            let taken = message.len() - pieces.map(<[u8]>::len).sum::<usize>();
            assert!(error.is_some() && taken <= HANDSHAKE_BYTES_MAX + 1000, "{taken} bytes were taken, and then {error:?}");
            assert_eq!(error.map(|error| error.code), Some(TransportErrorCode::CRYPTO_BUFFER_EXCEEDED));
        }
    }

    #[test]
    fn tickets_are_skipped_however_they_are_cut_and_nothing_else_is() {
        let two = [&[4, 0, 0, 3, 9, 9, 9][..], &[4, 0, 0, 0], &[4, 0, 1, 0], &[7; 256]].concat();
        for size in 1..two.len() {
            let mut tickets = Tickets::default();
            assert!(two.chunks(size).all(|piece| tickets.pass(piece)), "in pieces of {size}");
            assert_eq!(tickets, Tickets::default(), "all of them were whole");
            assert!(!tickets.pass(&[24, 0, 0, 1, 0]), "a key update of TLS");
        }
        assert!(!Tickets::default().pass(&[4, 0, 0, 1, 0, 8]));
    }

    /// RFC 9001 appendix A.4.
    #[test]
    fn the_retry_of_the_rfc_is_valid() {
        let provider = rustls::crypto::ring::default_provider();
        let suite = initial_suite(&provider).expect("it has AES-128-GCM");
        let done = Stage::Done(Box::new(Done { peer: None, params: None, tickets: Tickets::default() }));
        let session = Session { suite, secrets: None, side: Side::Client, stage: done, read: 0 };
        let id = ConnectionId::new(&[0x83, 0x94, 0xc8, 0xf0, 0x3e, 0x51, 0x57, 0x08]);
        let header = [0xff, 0, 0, 0, 1, 0, 8, 0xf0, 0x67, 0xa5, 0x50, 0x2a, 0x42, 0x62, 0xb5];
        let tag = [0x04, 0xa2, 0x65, 0xba, 0x2e, 0xff, 0x4d, 0x82, 0x90, 0x58, 0xfb, 0x3f, 0x0f, 0x24, 0x96, 0xba];
        let payload = [&b"token"[..], &tag].concat();
        assert!(crypto::Session::is_valid_retry(&session, &id, &header, &payload));
        assert!(!crypto::Session::is_valid_retry(&session, &id, &header[1..], &payload));
        assert!(!crypto::Session::is_valid_retry(&session, &id, &header, &payload[..15]));
    }
}
