//! Certificates: vectors of the specification, every kind of key, and what must be refused.

mod handshake;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use libp2p_identity::Keypair;
use proptest::prelude::*;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{AlgorithmIdentifier, InvalidSignature, PrivatePkcs8KeyDer, SignatureVerificationAlgorithm};

use super::certificate::signed_key;
use super::*;

/// The certificates of the specification's test vectors; they are the fuzz target's seeds too.
const SPEC_ED25519: &[u8] = include_bytes!("../../../../../fuzz/corpus/tls_certificate/ed25519_host_key");
const SPEC_ECDSA: &[u8] = include_bytes!("../../../../../fuzz/corpus/tls_certificate/ecdsa_host_key");
const SPEC_SECP256K1: &[u8] = include_bytes!("../../../../../fuzz/corpus/tls_certificate/secp256k1_host_key");
const SPEC_INVALID: &[u8] = include_bytes!("../../../../../fuzz/corpus/tls_certificate/signed_by_another_key");

/// Private host keys of libp2p/specs `peer-ids`, in libp2p's protobuf form.
const HOST_KEYS: [(&str, &[u8]); 4] = [
    ("ed25519", include_bytes!("data/ed25519_host_key.bin")),
    ("ecdsa", include_bytes!("data/ecdsa_host_key.bin")),
    ("secp256k1", include_bytes!("data/secp256k1_host_key.bin")),
    ("rsa 4096", include_bytes!("data/rsa_host_key.bin")),
];

/// 2026-01-01.
const NOW: UnixTime = UnixTime::since_unix_epoch(Duration::from_secs(1_767_225_600));

fn check(cert: &[u8]) -> Result<PeerId, TlsError> {
    verify(cert, NOW, &default_provider().signature_verification_algorithms)
}

fn host(byte: u8) -> Keypair {
    Keypair::ed25519_from_bytes([byte; 32]).unwrap()
}

fn certificate(byte: u8) -> (Keypair, Certificate) {
    let host = host(byte);
    let certificate = Certificate::new(&host, [byte ^ 0xa5; 32]).unwrap();
    (host, certificate)
}

/// What a foreign implementation could send: any key for the certificate, any extensions.
struct Foreign {
    key: rcgen::KeyPair,
    params: rcgen::CertificateParams,
}

impl Foreign {
    fn new(alg: &'static rcgen::SignatureAlgorithm) -> Self {
        let key = rcgen::KeyPair::generate_for(alg).unwrap();
        Foreign { key, params: rcgen::CertificateParams::default() }
    }

    /// Adds the libp2p extension, made by `host` over this certificate's key.
    fn libp2p(mut self, host: &Keypair, critical: bool) -> Self {
        let info = rcgen::PublicKeyData::subject_public_key_info(&self.key);
        let signature = host.sign(&[b"libp2p-tls-handshake:".as_slice(), &info].concat()).unwrap();
        let content = signed_key(&host.public().encode_protobuf(), &signature).unwrap();
        self.extension(&[1, 3, 6, 1, 4, 1, 53594, 1, 1], content, critical);
        self
    }

    fn extension(&mut self, oid: &[u64], content: Vec<u8>, critical: bool) {
        let mut extension = rcgen::CustomExtension::from_oid_content(oid, content);
        extension.set_criticality(critical);
        self.params.custom_extensions.push(extension);
    }

    fn der(&self) -> CertificateDer<'static> {
        self.params.self_signed(&self.key).unwrap().der().clone()
    }

    /// A server that shows `chain`, and is rustls without our verifiers otherwise.
    fn server(&self, chain: Vec<CertificateDer<'static>>) -> ServerConfig {
        let provider = Arc::new(default_provider());
        let key = PrivatePkcs8KeyDer::from(self.key.serialize_der()).into();
        let key = provider.key_provider.load_private_key(key).unwrap();
        let own = SingleCertAndKey::from(CertifiedKey::new(chain, key));
        let mut config = server_config(&certificate(9).1, provider, Arc::new(Date(NOW))).unwrap();
        config.cert_resolver = Arc::new(own);
        config
    }
}

#[test]
fn vectors_of_the_specification() {
    for (cert, id) in [
        (SPEC_ED25519, "12D3KooWM6CgA9iBFZmcYAHA6A2qvbAxqfkmrYiRQuz3XEsk4Ksv"),
        (SPEC_ECDSA, "QmfXbAwNjJLXfesgztEHe8HwgVDCMMpZ9Eax1HYq6hn9uE"),
        (SPEC_SECP256K1, "16Uiu2HAkutTMoTzDw1tCvSRtu6YoixJwS46S1ZFxW8hSx9fWHiPs"),
    ] {
        assert_eq!(check(cert).unwrap().to_base58(), id);
        assert_eq!(peer_id_of(cert).unwrap().to_base58(), id);
    }
    assert_eq!(check(SPEC_INVALID), Err(TlsError::HostSignature));
}

#[test]
fn every_kind_of_host_key() {
    for (kind, bytes) in HOST_KEYS {
        let host = Keypair::from_protobuf_encoding(bytes).unwrap();
        let cert = Certificate::new(&host, [7; 32]).unwrap();
        assert_eq!(check(cert.der()), Ok(host.public().to_peer_id()), "{kind}");
        assert!(cert.der().len() < CERTIFICATE_BYTES_MAX, "{kind}");
    }
}

#[test]
fn every_kind_of_certificate_key() {
    let host = host(1);
    let id = Ok(host.public().to_peer_id());
    for alg in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519] {
        for critical in [false, true] {
            assert_eq!(check(&Foreign::new(alg).libp2p(&host, critical).der()), id, "{alg:?}");
        }
    }
    // RSA: the private key of the vector is PKCS#1, which PKCS#8 wraps.
    let pkcs8 = rsa_pkcs8();
    for alg in [&rcgen::PKCS_RSA_SHA256, &rcgen::PKCS_RSA_SHA384, &rcgen::PKCS_RSA_SHA512] {
        let key = rcgen::KeyPair::from_pkcs8_der_and_sign_algo(&pkcs8, alg).unwrap();
        let foreign = Foreign { key, params: rcgen::CertificateParams::default() };
        assert_eq!(check(&foreign.libp2p(&host, true).der()), id, "{alg:?}");
    }
}

fn rsa_pkcs8() -> PrivatePkcs8KeyDer<'static> {
    // Behind the protobuf head (type, then bytes with a length of two bytes) there is PKCS#1.
    let pkcs1 = &HOST_KEYS[3].1[5..];
    let octets = [&[0x04, 0x82], &u16::try_from(pkcs1.len()).unwrap().to_be_bytes()[..], pkcs1];
    let head = [2, 1, 0, 0x30, 13, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 13, 1, 1, 1, 5, 0];
    let body = [&head[..], &octets.concat()].concat();
    let len = u16::try_from(body.len()).unwrap().to_be_bytes();
    [&[0x30, 0x82], &len[..], &body].concat().into()
}

#[test]
fn same_seed_and_key_give_the_same_bytes() {
    let first = Certificate::new(&host(1), [2; 32]).unwrap();
    assert_eq!(first.der(), Certificate::new(&host(1), [2; 32]).unwrap().der());
    assert_ne!(first.der(), Certificate::new(&host(1), [3; 32]).unwrap().der());
    assert_ne!(first.der(), Certificate::new(&host(2), [2; 32]).unwrap().der());
    assert!(!format!("{first:?}").contains("2, 2"), "the seed is not printed");
}

#[test]
fn dates() {
    let algs = default_provider().signature_verification_algorithms;
    let at = |secs| {
        let now = UnixTime::since_unix_epoch(Duration::from_secs(secs));
        verify(certificate(1).1.der(), now, &algs).map(drop)
    };
    // 1975-01-01 and 4096-01-01.
    assert_eq!(at(157_766_399), Err(TlsError::NotYetValid));
    assert_eq!(at(157_766_400), Ok(()));
    assert_eq!(at(67_090_118_400), Ok(()));
    assert_eq!(at(67_090_118_401), Err(TlsError::Expired));
    assert_eq!(at(u64::MAX), Err(TlsError::Expired));
}

#[test]
fn extensions() {
    let host = host(1);
    let plain = || Foreign::new(&rcgen::PKCS_ED25519);
    assert_eq!(check(&plain().der()), Err(TlsError::NotLibp2p));

    let mut unknown = plain().libp2p(&host, false);
    unknown.extension(&[1, 3, 6, 1, 4, 1, 53594, 9], vec![5, 0], false);
    assert!(check(&unknown.der()).is_ok());
    unknown.extension(&[1, 3, 6, 1, 4, 1, 53594, 8], vec![5, 0], true);
    assert_eq!(check(&unknown.der()), Err(TlsError::CriticalExtension));

    let twice = plain().libp2p(&host, false).libp2p(&host, false);
    assert!(matches!(check(&twice.der()), Err(TlsError::Malformed(_))));

    let with = |content: Vec<u8>| {
        let mut foreign = plain();
        foreign.extension(&[1, 3, 6, 1, 4, 1, 53594, 1, 1], content, false);
        check(&foreign.der()).unwrap_err()
    };
    let key = host.public().encode_protobuf();
    assert!(matches!(with(vec![]), TlsError::Malformed(_)));
    assert!(matches!(with(vec![0x30, 0x80]), TlsError::Malformed(_)));
    assert!(matches!(with([signed_key(&key, b"s").unwrap(), vec![0]].concat()), TlsError::Malformed(_)));
    assert_eq!(with(signed_key(&key, b"s").unwrap()), TlsError::HostSignature);
    assert_eq!(with(signed_key(b"?", b"s").unwrap()), TlsError::HostKey);
    assert_eq!(with(signed_key(&key, &[0; 1025]).unwrap()), TlsError::HostKey);
    assert_eq!(with(signed_key(&[0; 1101], b"s").unwrap()), TlsError::HostKey);
}

#[test]
fn oversized_and_followed_by_bytes() {
    let (_, own) = certificate(1);
    let followed = [own.der().as_ref(), &[0]].concat();
    assert!(matches!(check(&followed), Err(TlsError::Malformed(_))));
    let mut large = Foreign::new(&rcgen::PKCS_ED25519).libp2p(&host(1), false);
    large.extension(&[1, 3, 6, 1, 4, 1, 53594, 9], vec![0; 8 << 10], false);
    assert!(matches!(check(&large.der()), Err(TlsError::TooLarge(_))));
    assert!(matches!(peer_id_of(&large.der()), Err(TlsError::TooLarge(_))));
}

#[test]
fn tampered_self_signature() {
    let (_, own) = certificate(1);
    let mut cert = own.der().to_vec();
    *cert.last_mut().unwrap() ^= 1;
    assert_eq!(check(&cert), Err(TlsError::SelfSignature));
}

#[test]
fn no_flipped_bit_is_accepted() {
    let (_, own) = certificate(1);
    for at in 0..own.der().len() * 8 {
        let mut cert = own.der().to_vec();
        cert[at / 8] ^= 1 << (at % 8);
        assert!(check(&cert).is_err(), "bit {at}");
    }
    for end in 0..own.der().len() {
        assert!(check(&own.der()[..end]).is_err(), "cut at {end}");
    }
}

/// Ed25519, counted.
#[derive(Debug)]
struct Counting;

static CHECKS: AtomicUsize = AtomicUsize::new(0);

impl SignatureVerificationAlgorithm for Counting {
    fn verify_signature(&self, key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        CHECKS.fetch_add(1, Ordering::Relaxed);
        let algs = default_provider().signature_verification_algorithms;
        let alg = algs.all.iter().find(|alg| alg.public_key_alg_id() == self.public_key_alg_id());
        alg.unwrap().verify_signature(key, message, signature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        rustls::pki_types::alg_id::ED25519
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        rustls::pki_types::alg_id::ED25519
    }
}

#[test]
fn signatures_are_checked_once_and_last() {
    let algs = WebPkiSupportedAlgorithms { all: &[&Counting], mapping: &[] };
    let count = |cert: &[u8], now| {
        let before = CHECKS.load(Ordering::Relaxed);
        let _ = verify(cert, now, &algs);
        CHECKS.load(Ordering::Relaxed) - before
    };
    let (_, own) = certificate(1);
    assert_eq!(count(own.der(), NOW), 1);
    assert_eq!(count(own.der(), UnixTime::since_unix_epoch(Duration::ZERO)), 0);
    assert_eq!(count(&Foreign::new(&rcgen::PKCS_ED25519).der(), NOW), 0);
    assert_eq!(count(&[own.der().as_ref(), &[0; 9000]].concat(), NOW), 0);
    // Another algorithm than those offered costs nothing either.
    assert_eq!(count(SPEC_ED25519, NOW), 0);
}

/// Its date and the rest of its form are looked at each time; with no algorithms to check with, its signatures cannot have been.
#[test]
fn what_was_found_right_is_not_checked_again() {
    let algs = default_provider().signature_verification_algorithms;
    let none = WebPkiSupportedAlgorithms { all: &[], mapping: &[] };
    let (host, own) = certificate(1);
    let known = Known::default();
    let once = |cert: &[u8], now, algs| certificate::verify_once(cert, now, algs, &known);
    assert_eq!(once(own.der(), NOW, &none), Err(TlsError::Algorithm));
    assert_eq!(once(SPEC_INVALID, NOW, &algs).map(drop), Err(TlsError::HostSignature));
    assert_eq!(once(own.der(), NOW, &algs), Ok(host.public().to_peer_id()));
    assert_eq!(once(own.der(), NOW, &none), Ok(host.public().to_peer_id()));
    assert_eq!(once(own.der(), UnixTime::since_unix_epoch(Duration::ZERO), &algs), Err(TlsError::NotYetValid));
    assert_eq!(once(SPEC_INVALID, NOW, &algs).map(drop), Err(TlsError::HostSignature), "what was refused is not known");
    let mut other = own.der().to_vec();
    if let Some(last) = other.last_mut() {
        *last ^= 1;
    }
    assert_eq!(once(&other, NOW, &algs), Err(TlsError::SelfSignature));
}

#[derive(Debug)]
struct Date(UnixTime);

impl WallClock for Date {
    fn unix_time(&self) -> Duration {
        Duration::from_secs(self.0.as_secs())
    }
}

/// The seeds of the fuzz target, and whatever it will have found, through the same functions.
#[test]
fn fuzz_corpus() {
    let mut accepted = 0;
    for cert in crate::seeds::seeds("tls_certificate") {
        for end in 0..=cert.len() {
            if let Ok(peer) = check(&cert[..end]) {
                assert_eq!(peer_id_of(&cert[..end]), Ok(peer));
                accepted += 1;
            }
        }
    }
    assert!(accepted >= 5, "the corpus has lost its good certificates: {accepted}");
}

proptest! {
    #[test]
    fn total(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
        prop_assert!(check(&bytes).is_err());
        prop_assert!(peer_id_of(&bytes).is_err());
    }

    /// Splices keep more of the structure than random bytes do, so they get further.
    #[test]
    fn total_near_the_format(
        which in 0usize..4,
        at in 0usize..500,
        len in 0usize..8,
        with in proptest::collection::vec(any::<u8>(), 0..8),
    ) {
        let mut cert = [SPEC_ED25519, SPEC_ECDSA, SPEC_SECP256K1, SPEC_INVALID][which].to_vec();
        let start = at.min(cert.len());
        let end = (start + len).min(cert.len());
        let same = cert[start..end] == with[..];
        cert.splice(start..end, with);
        prop_assert!(same || check(&cert).is_err());
        let _ = peer_id_of(&cert);
    }
}
