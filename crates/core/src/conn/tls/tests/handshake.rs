//! Whole handshakes in memory, over the QUIC interface of rustls, with good and bad ends.

use rustls::Side;
use rustls::quic::{ClientConnection, ServerConnection, Version};

use super::*;

/// Both ends' peers after a handshake, as each end saw the other.
type Seen = (PeerId, PeerId);

/// Runs a QUIC handshake in memory, and gives who met whom, or the first error and the side that raised it.
fn shake(client: ClientConfig, server: ServerConfig) -> Result<Seen, (Side, rustls::Error)> {
    let name = ServerName::try_from("ignored").unwrap();
    let (client, server) = (Arc::new(client), Arc::new(server));
    let mut client = ClientConnection::new(client, Version::V1, name, b"client".to_vec()).unwrap();
    let mut server = ServerConnection::new(server, Version::V1, b"server".to_vec()).unwrap();
    for _ in 0..10 {
        // What belongs to one set of keys is handed over by itself, as QUIC's packets do.
        loop {
            let mut flight = Vec::new();
            let keys = client.write_hs(&mut flight);
            server.read_hs(&flight).map_err(|error| (Side::Server, error))?;
            if keys.is_none() {
                break;
            }
        }
        loop {
            let mut flight = Vec::new();
            let keys = server.write_hs(&mut flight);
            client.read_hs(&flight).map_err(|error| (Side::Client, error))?;
            if keys.is_none() {
                break;
            }
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    assert_eq!(client.alpn_protocol(), Some(ALPN));
    assert_eq!(server.alpn_protocol(), Some(ALPN));
    assert_eq!(server.server_name(), None, "no name is sent");
    let peer = |certs: Option<&[CertificateDer<'_>]>| peer_id_of(&certs.unwrap()[0]).unwrap();
    Ok((peer(client.peer_certificates()), peer(server.peer_certificates())))
}

fn client(cert: &Certificate, expected: Option<PeerId>) -> (ClientConfig, Arc<OnceLock<PeerId>>) {
    let (found, provider) = (Arc::default(), Arc::new(default_provider()));
    let date = Arc::new(Date(NOW));
    let config = client_config(cert, expected, provider, date, Arc::clone(&found)).unwrap();
    (config, found)
}

fn server(cert: &Certificate) -> ServerConfig {
    server_config(cert, Arc::new(default_provider()), Arc::new(Date(NOW))).unwrap()
}

#[test]
fn both_sides_learn_each_other() {
    let ((alice, alice_cert), (bob, bob_cert)) = (certificate(1), certificate(2));
    let (alice, bob) = (alice.public().to_peer_id(), bob.public().to_peer_id());
    for expected in [None, Some(bob)] {
        let (config, found) = client(&alice_cert, expected);
        assert_eq!(shake(config, server(&bob_cert)).unwrap(), (bob, alice));
        assert_eq!(found.get(), None);
    }
}

#[test]
fn other_kinds_of_certificate_keys_shake_hands() {
    let (host, own) = certificate(1);
    for alg in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384] {
        let foreign = Foreign::new(alg).libp2p(&host, true);
        let seen = shake(client(&own, None).0, foreign.server(vec![foreign.der()])).unwrap();
        assert_eq!(seen.0, host.public().to_peer_id());
    }
    let key = rcgen::KeyPair::from_pkcs8_der_and_sign_algo(&rsa_pkcs8(), &rcgen::PKCS_RSA_SHA256).unwrap();
    let foreign = Foreign { key, params: rcgen::CertificateParams::default() }.libp2p(&host, true);
    assert!(shake(client(&own, None).0, foreign.server(vec![foreign.der()])).is_ok());
}

#[test]
fn wrong_peer_names_both() {
    let ((_, alice), (bob, bob_cert)) = (certificate(1), certificate(2));
    let (wanted, bob) = (host(3).public().to_peer_id(), bob.public().to_peer_id());
    let (config, found) = client(&alice, Some(wanted));
    let (side, error) = shake(config, server(&bob_cert)).unwrap_err();
    assert_eq!(side, Side::Client);
    assert_eq!(TlsError::within(&error), Some(&TlsError::WrongPeer { wanted: Box::new(wanted), found: Box::new(bob) }));
    assert_eq!(found.get(), Some(&bob));
    let text = error.to_string();
    assert!(text.contains(&wanted.to_base58()) && text.contains(&bob.to_base58()), "{text}");
}

#[test]
fn two_certificates_are_refused() {
    let (host, own) = certificate(1);
    let foreign = Foreign::new(&rcgen::PKCS_ED25519).libp2p(&host, false);
    let config = foreign.server(vec![foreign.der(), foreign.der()]);
    let (side, error) = shake(client(&own, None).0, config).unwrap_err();
    assert_eq!((side, TlsError::within(&error)), (Side::Client, Some(&TlsError::Count(2))));
}

#[test]
fn a_stolen_certificate_is_no_use() {
    // Mallory shows Bob's certificate, but signs the handshake with another key.
    let ((_, alice), (bob, bob_cert)) = (certificate(1), certificate(2));
    let mallory = Foreign::new(&rcgen::PKCS_ED25519);
    let (config, _) = client(&alice, Some(bob.public().to_peer_id()));
    let (side, _) = shake(config, mallory.server(vec![bob_cert.der().clone()])).unwrap_err();
    assert_eq!(side, Side::Client);
}

#[test]
fn servers_refuse_clients_without_a_certificate_or_with_a_bad_one() {
    let (_, own) = certificate(1);
    let (mut config, _) = client(&own, None);
    config.client_auth_cert_resolver = Arc::new(NoCertificate);
    assert!(matches!(shake(config, server(&own)), Err((Side::Server, _))));

    let foreign = Foreign::new(&rcgen::PKCS_ED25519);
    let (mut config, _) = client(&own, None);
    let key = PrivatePkcs8KeyDer::from(foreign.key.serialize_der()).into();
    let key = default_provider().key_provider.load_private_key(key).unwrap();
    let certified = CertifiedKey::new(vec![foreign.der()], key);
    config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(certified));
    let (side, error) = shake(config, server(&own)).unwrap_err();
    assert_eq!((side, TlsError::within(&error)), (Side::Server, Some(&TlsError::NotLibp2p)));
}

#[derive(Debug)]
struct NoCertificate;

impl rustls::client::ResolvesClientCert for NoCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

#[test]
fn another_application_protocol_is_refused() {
    let (_, own) = certificate(1);
    let (mut config, _) = client(&own, None);
    config.alpn_protocols = vec![b"h3".to_vec()];
    assert!(matches!(shake(config, server(&own)), Err((Side::Server, _))));
}
