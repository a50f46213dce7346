//! TLS 1.3 as libp2p uses it (libp2p/specs `tls/tls.md`): configurations for rustls in which both sides show one
//! self-signed certificate, and the peer id in it is what counts.
//!
//! Names, authorities and the web's rules play no part, so rustls' own verifiers do not fit, and this module brings its
//! own ([`verify`]). What it promises against a hostile peer:
//!
//! * A certificate costs at most two signature checks, its own and the host key's ([`SIGNATURE_CHECKS_MAX`]), the
//!   handshake one more, and nothing in it is checked before its size and form are. RSA keys end at 8192 bits. One that was
//!   found right before costs only the handshake's.
//! * No session outlives its connection: no tickets, no resumption, no early data. So a handshake always proves the
//!   identity anew, and a server keeps nothing for strangers.
//! * No clock and no randomness but what the caller hands in.

mod certificate;
mod known;
#[cfg(test)]
mod tests;

use std::sync::{Arc, OnceLock};

use libp2p_identity::PeerId;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::time_provider::TimeProvider;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, OtherError, ServerConfig, SignatureScheme,
};
use thiserror::Error;

pub use certificate::{CERTIFICATE_BYTES_MAX, Certificate, SIGNATURE_CHECKS_MAX, peer_id_of, verify};

use known::Known;

use crate::env::WallClock;

/// The application protocol of libp2p over QUIC.
pub const ALPN: &[u8] = b"libp2p";

/// Why a handshake cannot be made or was refused.
///
/// Up to [`TlsError::Make`] it is the peer's fault (or that of whoever gave us its address), and the connection ends
/// before a byte of it reaches anything else. The last two are ours.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TlsError {
    /// The peer sent a chain.
    #[error("the peer sent {0} certificates and must send exactly one")]
    Count(usize),
    /// The certificate is over [`CERTIFICATE_BYTES_MAX`].
    #[error("the peer's certificate has {0} bytes, more than {CERTIFICATE_BYTES_MAX}")]
    TooLarge(usize),
    /// The certificate is not what X.509 or libp2p define.
    #[error("the peer's certificate is malformed: {0}")]
    Malformed(&'static str),
    /// The certificate has no libp2p extension, so it names no peer: this is no libp2p peer.
    #[error("the peer's certificate names no peer id; this address is probably not a libp2p peer")]
    NotLibp2p,
    /// The certificate has an extension that must be understood and is not.
    #[error("the peer's certificate demands an extension that is not understood here")]
    CriticalExtension,
    /// The certificate begins in the future.
    #[error("the peer's certificate is not valid yet; one of the two clocks is probably wrong")]
    NotYetValid,
    /// The certificate is over.
    #[error("the peer's certificate has expired; one of the two clocks is probably wrong")]
    Expired,
    /// The certificate's key or signature is of a kind that is not supported.
    #[error("the peer's certificate uses a kind of key or signature that is not supported")]
    Algorithm,
    /// The certificate is not signed by its own key.
    #[error("the peer's certificate is not signed by its own key")]
    SelfSignature,
    /// The host key is of a kind that is not supported, or is no key.
    #[error("the peer's identity key is malformed or of a kind that is not supported")]
    HostKey,
    /// The host key did not sign the certificate's key: the peer does not own the identity it claims.
    #[error("the peer did not prove that it owns the identity it claims")]
    HostSignature,
    /// Somebody else answered than was dialled.
    #[error(
        "{wanted} was dialled and {found} answered; the address is probably out of date, so ask for \
         a newer address of {wanted}"
    )]
    WrongPeer {
        /// The peer that was dialled.
        wanted: Box<PeerId>,
        /// The peer that the answering certificate names.
        found: Box<PeerId>,
    },
    /// Our own certificate could not be made.
    #[error("the node's certificate cannot be made from its identity key: {0}")]
    Make(String),
    /// The crypto provider lacks what TLS 1.3 needs.
    #[error("the crypto provider cannot be used for TLS 1.3: {0}")]
    Provider(String),
}

impl TlsError {
    /// Finds the reason in an error of rustls, when it was this module that refused.
    #[must_use]
    pub fn within(error: &rustls::Error) -> Option<&TlsError> {
        match error {
            rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(cause))) => cause.downcast_ref(),
            _ => None,
        }
    }
}

impl From<TlsError> for rustls::Error {
    fn from(error: TlsError) -> rustls::Error {
        rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
    }
}

/// What a dialler of `expected` uses, for one dial. `None` takes whoever answers.
///
/// When another peer answers, the handshake fails with [`TlsError::WrongPeer`], and `found` holds its id so that the
/// caller can name both. That id is a claim: its owner signed the certificate once, but whether this was the owner is
/// only proved by the part of the handshake that is not reached then. Tell it to people; hold nothing against it.
/// On success ask [`peer_id_of`] for the id.
///
/// The name that rustls demands is neither sent nor looked at; any will do.
///
/// # Errors
/// [`TlsError::Provider`] when `provider` has no TLS 1.3 or no Ed25519.
pub fn client_config(
    cert: &Certificate,
    expected: Option<PeerId>,
    provider: Arc<CryptoProvider>,
    wall: Arc<dyn WallClock>,
    found: Arc<OnceLock<PeerId>>,
) -> Result<ClientConfig, TlsError> {
    let own = own_key(cert, &provider)?;
    let verifier = Verifier { expected, found, algs: provider.signature_verification_algorithms, known: cert.known.clone() };
    let mut config = ClientConfig::builder_with_details(provider, Arc::new(Clock(wall)))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(unusable)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(own);
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.enable_sni = false;
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    // A compressed certificate is a way to send more than was paid for.
    config.cert_compressors = Vec::new();
    config.cert_decompressors = Vec::new();
    Ok(config)
}

/// What a listener uses, for all its connections. Clients must show a certificate; ask [`peer_id_of`] whose it is.
///
/// # Errors
/// [`TlsError::Provider`] when `provider` has no TLS 1.3 or no Ed25519.
pub fn server_config(
    cert: &Certificate,
    provider: Arc<CryptoProvider>,
    wall: Arc<dyn WallClock>,
) -> Result<ServerConfig, TlsError> {
    let own = own_key(cert, &provider)?;
    let algs = provider.signature_verification_algorithms;
    let verifier = Verifier { expected: None, found: Arc::default(), algs, known: cert.known.clone() };
    let mut config = ServerConfig::builder_with_details(provider, Arc::new(Clock(wall)))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(unusable)?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(own);
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config.send_half_rtt_data = false;
    config.cert_compressors = Vec::new();
    config.cert_decompressors = Vec::new();
    Ok(config)
}

fn unusable(error: rustls::Error) -> TlsError {
    TlsError::Provider(error.to_string())
}

/// Our one certificate with its key, for rustls to show to everybody; loaded by the first provider that asks, and a node has one. rustls' usual ways to set it would parse the
/// certificate by the rules of the web first.
fn own_key(cert: &Certificate, provider: &CryptoProvider) -> Result<Arc<SingleCertAndKey>, TlsError> {
    if let Some(own) = cert.loaded.get() {
        return Ok(own.clone());
    }
    let key = provider.key_provider.load_private_key(cert.private_key()).map_err(unusable)?;
    let own = CertifiedKey::new(vec![cert.der().clone()], key);
    Ok(cert.loaded.get_or_init(|| Arc::new(SingleCertAndKey::from(own))).clone())
}

/// Lets rustls ask the node's wall clock for the date, instead of the system's.
#[derive(Debug)]
struct Clock(Arc<dyn WallClock>);

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(self.0.unix_time()))
    }
}

/// Both sides' verifier. It holds no state but `found`, which is written at most once, and what is known.
#[derive(Debug)]
struct Verifier {
    expected: Option<PeerId>,
    found: Arc<OnceLock<PeerId>>,
    algs: WebPkiSupportedAlgorithms,
    known: Arc<Known>,
}

impl Verifier {
    fn check(&self, cert: &CertificateDer<'_>, others: &[CertificateDer<'_>], now: UnixTime) -> Result<(), TlsError> {
        if !others.is_empty() {
            return Err(TlsError::Count(others.len().saturating_add(1)));
        }
        let found = certificate::verify_once(cert, now, &self.algs, &self.known)?;
        match self.expected {
            Some(wanted) if wanted != found => {
                // Already set means that this configuration was used twice; the first answer stands.
                let _ = self.found.set(found);
                Err(TlsError::WrongPeer { wanted: Box::new(wanted), found: Box::new(found) })
            }
            _ => Ok(()),
        }
    }

    /// The proof that the peer holds the certificate's key. The raw key is used because rustls' parser of
    /// certificates refuses the libp2p extension where it is marked critical, as rust-libp2p does.
    fn signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let key = certificate::public_key_info(cert)?;
        rustls::crypto::verify_tls13_signature_with_raw_key(message, &key, signed, &self.algs)
    }

    /// Cannot be reached: TLS 1.2 is never negotiated.
    fn refuse_tls12() -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::PeerIncompatible::ServerDoesNotSupportTls12Or13.into())
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.check(end_entity, intermediates, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Verifier::refuse_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algs.supported_schemes()
    }
}

impl ClientCertVerifier for Verifier {
    fn client_auth_mandatory(&self) -> bool {
        true
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.check(end_entity, intermediates, now)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Verifier::refuse_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algs.supported_schemes()
    }
}
