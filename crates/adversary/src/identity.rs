//! Real and false identities: libp2p's certificate (libp2p/specs `tls/tls.md`) with what an attacker would put in it, and a TLS
//! configuration that shows it and believes anything.

use std::sync::Arc;

use ring::signature::{Ed25519KeyPair, KeyPair as _};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};

/// An Ed25519 private key as PKCS#8 (RFC 8410 section 7), up to where its 32 bytes begin.
const PKCS8_ED25519: [u8; 16] = [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
/// The libp2p Public Key Extension.
const EXTENSION: [u64; 9] = [1, 3, 6, 1, 4, 1, 53594, 1, 1];

/// What the certificate is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Papers {
    /// All in order: the peer is who it says it is.
    Good,
    /// In order but for the last bit of the last signature that is checked.
    WrongAtTheEnd,
    /// The identity is an RSA key of so many bits, with a signature that only its check shows to be nonsense.
    Rsa(usize),
    /// Good, with so many bytes of an extension that nobody knows.
    Padded(usize),
    /// The extension's content is cut in the middle.
    Cut,
    /// The certificate is so many bytes of nonsense.
    Garbage(usize),
}

/// Who the attacker says it is.
#[derive(Debug, Clone)]
pub struct Identity {
    seed: [u8; 32],
    papers: Papers,
}

impl Identity {
    /// The identity whose Ed25519 key `seed` is.
    #[must_use]
    pub fn new(seed: [u8; 32], papers: Papers) -> Identity {
        Identity { seed, papers }
    }

    /// The identity's public key as libp2p writes it; the peer id is its identity multihash.
    #[must_use]
    pub fn public(&self) -> Vec<u8> {
        [&[0x08, 0x01, 0x12, 0x20][..], host(&self.seed).public_key().as_ref()].concat()
    }

    fn certificate(&self, key: &rcgen::KeyPair) -> CertificateDer<'static> {
        if let Papers::Garbage(len) = self.papers {
            return CertificateDer::from(vec![0x30; len]);
        }
        let spki = rcgen::PublicKeyData::subject_public_key_info(key);
        let message = [b"libp2p-tls-handshake:".as_slice(), &spki].concat();
        let mut signature = host(&self.seed).sign(&message).as_ref().to_vec();
        let mut public = self.public();
        match self.papers {
            Papers::WrongAtTheEnd => signature[0] ^= 1,
            Papers::Rsa(bits) => (public, signature) = rsa(bits),
            _ => {}
        }
        let mut content = der(0x30, &[der(0x04, &public), der(0x04, &signature)].concat());
        if self.papers == Papers::Cut {
            content.truncate(content.len() / 2);
        }
        let mut params = rcgen::CertificateParams::default();
        params.not_before = rcgen::date_time_ymd(1975, 1, 1);
        params.not_after = rcgen::date_time_ymd(4096, 1, 1);
        params.serial_number = Some(rcgen::SerialNumber::from(1));
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.custom_extensions = vec![rcgen::CustomExtension::from_oid_content(&EXTENSION, content)];
        if let Papers::Padded(len) = self.papers {
            params.custom_extensions.push(rcgen::CustomExtension::from_oid_content(&[1, 2, 3, 4], der(0x04, &vec![0; len])));
        }
        params.self_signed(key).expect("an Ed25519 key signs").der().clone()
    }

    /// A TLS client for QUIC that shows this identity. Its randomness is the provider's.
    #[must_use]
    pub fn tls(&self, provider: Arc<CryptoProvider>) -> Arc<ClientConfig> {
        self.tls_with(provider, &[b"libp2p"])
    }

    /// A TLS client that shows this identity and proposes these protocols (ALPN).
    #[must_use]
    pub fn tls_with(&self, provider: Arc<CryptoProvider>, protocols: &[&[u8]]) -> Arc<ClientConfig> {
        let mut seed = self.seed;
        seed[0] ^= 0xa5;
        let pkcs8 = PrivatePkcs8KeyDer::from([&PKCS8_ED25519[..], &seed].concat());
        let key = rcgen::KeyPair::from_pkcs8_der_and_sign_algo(&pkcs8, &rcgen::PKCS_ED25519).expect("a whole key");
        let der = self.certificate(&key);
        let key = provider.key_provider.load_private_key(pkcs8.into()).expect("a whole key");
        let own = SingleCertAndKey::from(CertifiedKey::new(vec![der], key));
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Credulous))
            .with_client_cert_resolver(Arc::new(own));
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        config.enable_sni = false;
        config.resumption = rustls::client::Resumption::disabled();
        Arc::new(config)
    }
}

fn host(seed: &[u8; 32]) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(seed).expect("32 bytes are a seed")
}

/// A DER value with a length of one, two or three bytes.
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let len = content.len();
    let head = match len {
        0..0x80 => vec![tag, len as u8],
        0x80..0x100 => vec![tag, 0x81, len as u8],
        _ => vec![tag, 0x82, (len >> 8) as u8, len as u8],
    };
    [&head, content].concat()
}

/// An RSA public key as libp2p writes it, whose modulus nobody knows the factors of, and a signature of the right length.
fn rsa(bits: usize) -> (Vec<u8>, Vec<u8>) {
    let modulus = [&[0x00], &vec![0xb5; bits / 8][..]].concat();
    let key = der(0x30, &[der(0x02, &modulus), der(0x02, &[1, 0, 1])].concat());
    let algorithm = [0x30, 13, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 13, 1, 1, 1, 5, 0];
    let spki = der(0x30, &[algorithm.to_vec(), der(0x03, &[&[0], &key[..]].concat())].concat());
    let public = [&[0x08, 0x00, 0x12][..], &crate::wire::uvarint(spki.len() as u64), &spki].concat();
    (public, vec![0x5b; bits / 8])
}

/// Takes any server for what it says it is.
#[derive(Debug)]
struct Credulous;

impl ServerCertVerifier for Credulous {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519, SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::RSA_PSS_SHA256]
    }
}
