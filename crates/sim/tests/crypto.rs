//! The seeded crypto provider: one seed gives one sequence of bytes on the wire, and it is real TLS.

use std::sync::Arc;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};
use strait_sim::crypto::provider;

/// rustls asks for the date of a certificate's check and of a session ticket.
#[derive(Debug)]
struct FixedDate;

impl TimeProvider for FixedDate {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(std::time::Duration::from_secs(1_800_000_000)))
    }
}

/// An Ed25519 certificate from a fixed key: RFC 8410, section 7 gives the PKCS #8 prefix.
fn certificate() -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    let mut pkcs8 = vec![0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
    pkcs8.extend([7; 32]);
    let key = PrivatePkcs8KeyDer::from(pkcs8);
    let pair = rcgen::KeyPair::from_pkcs8_der_and_sign_algo(&key, &rcgen::PKCS_ED25519).expect("a valid key");
    let params = rcgen::CertificateParams::new(vec!["node.test".into()]).expect("valid names");
    let certificate = params.self_signed(&pair).expect("a certificate");
    (certificate.into(), PrivateKeyDer::Pkcs8(key))
}

/// All bytes of a mutually authenticated handshake and 1 KiB of data, in the order they were sent.
fn handshake(seed: u64) -> Vec<u8> {
    let (certificate, key) = certificate();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).expect("a root");
    let roots = Arc::new(roots);
    let (client_crypto, server_crypto) = (provider(seed, 0), provider(seed, 1));
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), server_crypto.clone()).build().expect("a verifier");
    let server_config = ServerConfig::builder_with_details(server_crypto, Arc::new(FixedDate))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![certificate.clone()], key.clone_key())
        .expect("a server");
    let client_config = ClientConfig::builder_with_details(client_crypto, Arc::new(FixedDate))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![certificate], key)
        .expect("a client");
    let name = ServerName::try_from("node.test").expect("a name");
    let mut client = ClientConnection::new(Arc::new(client_config), name).expect("a client");
    let mut server = ServerConnection::new(Arc::new(server_config)).expect("a server");

    let mut wire = Vec::new();
    for _ in 0..4 {
        wire.extend(pass(&mut client, &mut server));
        wire.extend(pass(&mut server, &mut client));
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    std::io::Write::write_all(&mut client.writer(), &[0x55; 1024]).expect("room for 1 KiB");
    wire.extend(pass(&mut client, &mut server));
    let mut got = [0; 1024];
    std::io::Read::read_exact(&mut server.reader(), &mut got).expect("the data arrived");
    assert_eq!(got, [0x55; 1024]);
    wire
}

/// Moves everything that `from` wants to send to `to`, and returns it.
fn pass<A, B>(from: &mut rustls::ConnectionCommon<A>, to: &mut rustls::ConnectionCommon<B>) -> Vec<u8> {
    let mut bytes = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut bytes).expect("a Vec takes all");
    }
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        to.read_tls(&mut rest).expect("a slice gives all");
        to.process_new_packets().expect("valid TLS");
    }
    bytes
}

#[test]
fn one_seed_gives_identical_bytes() {
    let first = handshake(11);
    assert!(first.len() > 2_000, "a whole handshake: {}", first.len());
    assert_eq!(first, handshake(11));
}

#[test]
fn two_seeds_differ() {
    assert_ne!(handshake(11), handshake(12));
}

#[test]
fn nodes_of_one_run_do_not_share_their_randomness() {
    let mut bytes = [[0; 32]; 2];
    for (index, out) in bytes.iter_mut().enumerate() {
        provider(1, index as u64).secure_random.fill(out).expect("seeded");
    }
    assert_ne!(bytes[0], bytes[1]);
}

#[test]
fn agrees_with_the_key_exchange_of_ring() {
    let ours = provider(3, 0).kx_groups[0].start().expect("a key");
    let theirs = rustls::crypto::ring::kx_group::X25519.start().expect("a key");
    let (our_public, their_public) = (ours.pub_key().to_vec(), theirs.pub_key().to_vec());
    let a = ours.complete(&their_public).expect("a secret");
    let b = theirs.complete(&our_public).expect("a secret");
    assert_eq!(a.secret_bytes(), b.secret_bytes());
}

#[test]
fn refuses_bad_public_keys() {
    let provider = provider(3, 0);
    for bad in [&[0_u8; 32][..], &[1; 31], &[1; 33], &[]] {
        let exchange = provider.kx_groups[0].start().expect("a key");
        assert!(exchange.complete(bad).is_err(), "{} bytes", bad.len());
    }
}
