//! The certificate of libp2p's TLS: made once for a node, and read and checked for each peer.

use std::sync::{Arc, OnceLock};

use libp2p_identity::{Keypair, PeerId, PublicKey};
use rcgen::PublicKeyData as _;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer, UnixTime};
use rustls::sign::SingleCertAndKey;
use x509_parser::asn1_rs::{Any, Class, FromDer as _, OctetString, Sequence, Tag, ToDer as _};
use x509_parser::certificate::{X509Certificate, X509CertificateParser};
use x509_parser::nom::Parser as _;
use x509_parser::x509::X509Version;

use super::TlsError;
use super::known::Known;

/// The largest certificate that is read, in bytes. With a host key and a certificate key of RSA and 8192 bits each, the
/// largest that can be checked, it has about 4.5 KiB; the usual one has 400 bytes.
pub const CERTIFICATE_BYTES_MAX: usize = 8 << 10;

/// How many signatures [`verify`] checks at most: the certificate's own and the host key's. Each only when all that
/// comes before it was right. The handshake itself checks one more, made with the certificate's key.
pub const SIGNATURE_CHECKS_MAX: usize = 2;

/// The largest host key in bytes: RSA with 8192 bits takes 1069. Keys over that size are refused where they are used.
const HOST_KEY_BYTES_MAX: usize = 1100;

/// The largest signature of a host key in bytes: RSA with 8192 bits.
const HOST_SIGNATURE_BYTES_MAX: usize = 1024;

/// The libp2p Public Key Extension: 1.3.6.1.4.1.53594.1.1.
const EXTENSION: [u64; 9] = [1, 3, 6, 1, 4, 1, 53594, 1, 1];

/// The same in DER, without tag and length.
const EXTENSION_DER: [u8; 10] = [0x2b, 0x06, 0x01, 0x04, 0x01, 0x83, 0xa2, 0x5a, 0x01, 0x01];

/// What the host key signs: this, then the certificate's public key as SubjectPublicKeyInfo.
const SIGNED_PREFIX: &[u8] = b"libp2p-tls-handshake:";

/// An Ed25519 private key as PKCS#8 (RFC 8410 section 7), up to where its 32 bytes begin.
const PKCS8_ED25519: [u8; 16] = [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// A node's certificate and the private key that belongs to it.
///
/// The dates are those of most libp2p peers, 1975 to 4096: validity is no matter of the date here, since the key lives
/// only as long as the process, and a node whose own clock is wrong must not be shut out.
#[derive(Clone)]
pub struct Certificate {
    der: CertificateDer<'static>,
    seed: [u8; 32],
    /// As the crypto provider has loaded it, which costs about as much as a signature: once for a node, not once for each dial.
    pub(super) loaded: OnceLock<Arc<SingleCertAndKey>>,
    /// Others' certificates that were found right by whoever shows this one.
    pub(super) known: Arc<Known>,
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificate").field("bytes", &self.der.len()).finish_non_exhaustive()
    }
}

impl Certificate {
    /// Makes the certificate of the identity `keypair`; its own key is Ed25519 and is `seed`.
    ///
    /// The seed is secret. Take it fresh from a random source at each start and use it for nothing else: who knows
    /// it can pass for this node until the certificate's date is over, which is never. It must not be kept over
    /// a restart and must not be derived from the host key. The same seed and key give the same bytes, when the
    /// host key signs deterministically as Ed25519 does.
    ///
    /// # Errors
    /// [`TlsError::Make`] when the host key cannot sign.
    pub fn new(keypair: &Keypair, seed: [u8; 32]) -> Result<Certificate, TlsError> {
        let make = |error: rcgen::Error| TlsError::Make(error.to_string());
        let pkcs8 = PrivatePkcs8KeyDer::from(pkcs8(&seed));
        let key = rcgen::KeyPair::from_pkcs8_der_and_sign_algo(&pkcs8, &rcgen::PKCS_ED25519).map_err(make)?;

        let message = [SIGNED_PREFIX, &key.subject_public_key_info()].concat();
        let signature = keypair.sign(&message).map_err(|error| TlsError::Make(error.to_string()))?;
        let content = signed_key(&keypair.public().encode_protobuf(), &signature)?;

        let mut params = rcgen::CertificateParams::default();
        params.not_before = rcgen::date_time_ymd(1975, 1, 1);
        params.not_after = rcgen::date_time_ymd(4096, 1, 1);
        params.serial_number = Some(rcgen::SerialNumber::from(1));
        params.distinguished_name = rcgen::DistinguishedName::new();
        // Not critical: the specification leaves it open, and every peer reads it so.
        params.custom_extensions = vec![rcgen::CustomExtension::from_oid_content(&EXTENSION, content)];
        let der = params.self_signed(&key).map_err(make)?.der().clone();
        Ok(Certificate { der, seed, loaded: OnceLock::new(), known: Arc::default() })
    }

    /// The certificate as it is sent, in DER.
    #[must_use]
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// Allocated bytes of what is known of others.
    pub(crate) fn held(&self) -> u64 {
        self.known.held()
    }

    pub(super) fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(pkcs8(&self.seed)).into()
    }
}

fn pkcs8(seed: &[u8; 32]) -> Vec<u8> {
    [PKCS8_ED25519.as_slice(), seed].concat()
}

/// The content of the extension: `SEQUENCE { publicKey OCTET STRING, signature OCTET STRING }`.
pub(super) fn signed_key(public_key: &[u8], signature: &[u8]) -> Result<Vec<u8>, TlsError> {
    let parts = [OctetString::new(public_key), OctetString::new(signature)];
    Sequence::from_iter_to_der(parts.iter())
        .and_then(|sequence| sequence.to_der_vec())
        .map_err(|error| TlsError::Make(error.to_string()))
}

/// Checks a peer's certificate by the rules of libp2p/specs `tls/tls.md`, and gives the peer id in it.
///
/// That the peer holds the certificate's key is proved by the handshake, not by this. Cost: linear in the size, and
/// at most [`SIGNATURE_CHECKS_MAX`] signatures.
///
/// # Errors
/// [`TlsError`] says which rule was broken; it is the peer's fault.
pub fn verify(cert: &[u8], now: UnixTime, algs: &WebPkiSupportedAlgorithms) -> Result<PeerId, TlsError> {
    verify_once(cert, now, algs, &Known::default())
}

/// As [`verify`], but the signatures only of one that is not known.
pub(super) fn verify_once(
    cert: &[u8],
    now: UnixTime,
    algs: &WebPkiSupportedAlgorithms,
    known: &Known,
) -> Result<PeerId, TlsError> {
    if let Some(peer) = known.find(cert) {
        check_date(&read_x509(cert)?, now)?;
        return Ok(peer);
    }
    let parsed = Parsed::new(cert)?;
    check_date(&parsed.x509, now)?;
    parsed.check_self_signature(algs)?;
    parsed.check_host_signature()?;
    let peer = parsed.host_key.to_peer_id();
    known.note(cert, peer);
    Ok(peer)
}

fn check_date(x509: &X509Certificate<'_>, now: UnixTime) -> Result<(), TlsError> {
    let validity = &x509.tbs_certificate.validity;
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    if now < validity.not_before.timestamp() {
        return Err(TlsError::NotYetValid);
    }
    if now > validity.not_after.timestamp() {
        return Err(TlsError::Expired);
    }
    Ok(())
}

/// The peer id in a certificate that a handshake has already accepted. Nothing is checked again but the form.
///
/// # Errors
/// [`TlsError`] when `cert` is no libp2p certificate, so was never accepted.
pub fn peer_id_of(cert: &[u8]) -> Result<PeerId, TlsError> {
    Ok(Parsed::new(cert)?.host_key.to_peer_id())
}

/// The certificate's own public key, in the form in which rustls takes it.
pub(super) fn public_key_info(cert: &[u8]) -> Result<SubjectPublicKeyInfoDer<'_>, TlsError> {
    let raw = read_x509(cert)?.tbs_certificate.subject_pki.raw;
    Ok(SubjectPublicKeyInfoDer::from(raw))
}

/// A certificate of the right form, with nothing proved.
struct Parsed<'a> {
    x509: X509Certificate<'a>,
    /// How it was signed, and what its key is: the content of each AlgorithmIdentifier.
    signature_alg: &'a [u8],
    key_alg: &'a [u8],
    host_key: PublicKey,
    host_signature: &'a [u8],
}

impl<'a> Parsed<'a> {
    fn new(cert: &'a [u8]) -> Result<Self, TlsError> {
        let x509 = read_x509(cert)?;
        let tbs = &x509.tbs_certificate;
        if tbs.version != X509Version::V3 {
            return Err(TlsError::Malformed("it is not X.509 version 3"));
        }
        if tbs.issuer_uid.is_some() || tbs.subject_uid.is_some() {
            return Err(TlsError::Malformed("it has a unique id of issuer or subject"));
        }
        if tbs.signature != x509.signature_algorithm {
            return Err(TlsError::Malformed("it names two signature algorithms"));
        }
        if x509.signature_value.unused_bits != 0 || tbs.subject_pki.subject_public_key.unused_bits != 0 {
            return Err(TlsError::Malformed("a key or signature is no whole number of bytes"));
        }

        // The parser keeps no raw form of the algorithms, and that is what they are compared by. What the
        // signature does not cover must have the one form that DER allows.
        let (body, _) = any(cert, Tag::Sequence)?;
        let (_, after_signed) = any(body, Tag::Sequence)?;
        let (signature_alg, after_alg) = any(after_signed, Tag::Sequence)?;
        let (_, []) = any(after_alg, Tag::BitString)? else {
            return Err(TlsError::Malformed("bytes follow its signature"));
        };
        let (key_info, _) = any(tbs.subject_pki.raw, Tag::Sequence)?;
        let (key_alg, _) = any(key_info, Tag::Sequence)?;

        let (host_key, host_signature) = host_key(&x509)?;
        Ok(Parsed { x509, signature_alg, key_alg, host_key, host_signature })
    }

    fn check_self_signature(&self, algs: &WebPkiSupportedAlgorithms) -> Result<(), TlsError> {
        let fits = |alg: &&&dyn rustls::pki_types::SignatureVerificationAlgorithm| {
            alg.signature_alg_id().as_ref() == self.signature_alg && alg.public_key_alg_id().as_ref() == self.key_alg
        };
        let alg = algs.all.iter().find(fits).ok_or(TlsError::Algorithm)?;
        let key = &self.x509.tbs_certificate.subject_pki.subject_public_key.data;
        alg.verify_signature(key, self.x509.tbs_certificate.as_ref(), &self.x509.signature_value.data)
            .map_err(|_| TlsError::SelfSignature)
    }

    fn check_host_signature(&self) -> Result<(), TlsError> {
        let message = [SIGNED_PREFIX, self.x509.tbs_certificate.subject_pki.raw].concat();
        if self.host_key.verify(&message, self.host_signature) { Ok(()) } else { Err(TlsError::HostSignature) }
    }
}

/// Reads a whole certificate of allowed size, without looking into its extensions.
fn read_x509(cert: &[u8]) -> Result<X509Certificate<'_>, TlsError> {
    if cert.len() > CERTIFICATE_BYTES_MAX {
        return Err(TlsError::TooLarge(cert.len()));
    }
    let mut parser = X509CertificateParser::new().with_deep_parse_extensions(false);
    match parser.parse(cert) {
        Ok(([], x509)) => Ok(x509),
        Ok(_) => Err(TlsError::Malformed("bytes follow it")),
        Err(_) => Err(TlsError::Malformed("it is not X.509")),
    }
}

/// Reads one DER value of the kind `tag` from the front of `der`: its content, and what follows it.
///
/// The parser behind it looks at the number of the tag only. DER allows one form, and so do we: otherwise one
/// certificate could be sent in many spellings.
fn any(der: &[u8], tag: Tag) -> Result<(&[u8], &[u8]), TlsError> {
    match Any::from_der(der) {
        Ok((rest, any))
            if any.tag() == tag && any.class() == Class::Universal && any.header.is_constructed() == (tag == Tag::Sequence) =>
        {
            Ok((any.data, rest))
        }
        _ => Err(TlsError::Malformed("a DER value is not of the expected kind")),
    }
}

/// Finds the libp2p extension and reads the host key and its signature. The time is linear in the extensions.
fn host_key<'a>(x509: &X509Certificate<'a>) -> Result<(PublicKey, &'a [u8]), TlsError> {
    let mut content = None;
    for extension in x509.tbs_certificate.extensions() {
        if extension.oid.as_bytes() == EXTENSION_DER {
            if content.replace(extension.value).is_some() {
                return Err(TlsError::Malformed("it has the libp2p extension twice"));
            }
        } else if extension.critical {
            return Err(TlsError::CriticalExtension);
        }
    }
    let (parts, []) = any(content.ok_or(TlsError::NotLibp2p)?, Tag::Sequence)? else {
        return Err(TlsError::Malformed("bytes follow the content of the libp2p extension"));
    };
    let (key, rest) = any(parts, Tag::OctetString)?;
    let (signature, []) = any(rest, Tag::OctetString)? else {
        return Err(TlsError::Malformed("the libp2p extension has more than key and signature"));
    };
    if key.len() > HOST_KEY_BYTES_MAX || signature.len() > HOST_SIGNATURE_BYTES_MAX {
        return Err(TlsError::HostKey);
    }
    let key = PublicKey::try_decode_protobuf(key).map_err(|_| TlsError::HostKey)?;
    Ok((key, signature))
}
