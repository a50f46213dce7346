//! Handshakes and channels in memory: whole, cut anywhere, changed, and by peers that do not keep to the rules.

use libp2p_identity::Keypair;
use proptest::prelude::*;

use super::*;
use crate::env::testing::{Date, env};

fn key(byte: u8) -> Keypair {
    Keypair::ed25519_from_bytes([byte; 32]).unwrap()
}

fn peer(byte: u8) -> PeerId {
    key(byte).public().to_peer_id()
}

fn identity(byte: u8) -> Identity {
    Identity::new(Certificate::new(&key(byte), [byte ^ 0xa5; 32]).unwrap(), &env(byte)).unwrap()
}

/// Node 1 dials node 2.
fn pair(wanted: Option<PeerId>) -> (Tls, Tls) {
    (Tls::dial(&identity(1), wanted).unwrap(), Tls::listen(&identity(2)).unwrap())
}

fn flight(from: &mut Tls) -> Vec<u8> {
    let mut out = Vec::new();
    from.poll_handshake(&mut out);
    out
}

/// Carries the handshake over, `cut` bytes at a time. The error with its side: true for the dialler.
fn shake(dialler: &mut Tls, listener: &mut Tls, cut: usize) -> Result<(), (bool, PipeError)> {
    for _ in 0..3 {
        for chunk in flight(dialler).chunks(cut) {
            listener.handle(&BytesMut::from(chunk)).map_err(|error| (false, error))?;
        }
        for chunk in flight(listener).chunks(cut) {
            dialler.handle(&BytesMut::from(chunk)).map_err(|error| (true, error))?;
        }
    }
    Ok(())
}

fn open() -> (Tls, Tls) {
    let (mut dialler, mut listener) = pair(Some(peer(2)));
    shake(&mut dialler, &mut listener, usize::MAX).unwrap();
    (dialler, listener)
}

fn seal(tls: &mut Tls, chunks: &[&[u8]]) -> Vec<u8> {
    let chunks: Vec<Bytes> = chunks.iter().map(|chunk| Bytes::copy_from_slice(chunk)).collect();
    let mut out = Vec::new();
    tls.seal(&chunks, &mut out).unwrap();
    out
}

fn read_all(tls: &mut Tls) -> Vec<u8> {
    std::iter::from_fn(|| tls.read()).flatten().collect()
}

#[test]
fn both_sides_learn_each_other_and_agree_on_the_multiplexer() {
    for (wanted, cut) in [(None, usize::MAX), (Some(peer(2)), usize::MAX), (None, 1), (None, 100)] {
        let (mut dialler, mut listener) = pair(wanted);
        shake(&mut dialler, &mut listener, cut).unwrap();
        assert_eq!(dialler.secured(), Some(Secured { peer: peer(2), muxer: true }));
        assert_eq!(listener.secured(), Some(Secured { peer: peer(1), muxer: true }));
    }
}

#[test]
fn wrong_peer_names_both_and_the_other_side_is_told() {
    let (mut dialler, mut listener) = pair(Some(peer(3)));
    let wrong = PipeError::WrongPeer { wanted: peer(3), found: peer(2) };
    assert_eq!(shake(&mut dialler, &mut listener, usize::MAX), Err((true, wrong)));
    assert!(dialler.handle(&BytesMut::from(&[0][..])).is_err());
    let alert = flight(&mut dialler);
    assert!(listener.handle(&BytesMut::from(&alert[..])).is_err());
    assert_eq!(listener.secured(), None);
}

/// What a listener and a dialler that offers `offered` agree on.
fn offering(offered: &[&[u8]]) -> Result<(bool, bool), PipeError> {
    let (_, mut listener) = pair(None);
    let found = Arc::new(OnceLock::new());
    let own = identity(1);
    let mut config = client_config(&own.certificate, None, own.env.crypto.clone(), Arc::new(Date), found).unwrap();
    config.alpn_protocols = offered.iter().map(|name| name.to_vec()).collect();
    let mut dialler = Tls::new(ClientConnection::new(Arc::new(config), "x".try_into().unwrap()).unwrap().into());
    if let Err((side, error)) = shake(&mut dialler, &mut listener, usize::MAX) {
        assert!(!side);
        // The dialler is told too.
        assert!(matches!(dialler.handle(&BytesMut::from(&flight(&mut listener)[..])), Err(PipeError::Incompatible(_))));
        return Err(error);
    }
    Ok((dialler.secured().unwrap().muxer, listener.secured().unwrap().muxer))
}

#[test]
fn lists_of_multiplexers() {
    assert_eq!(offering(&[b"/mplex/6.7.0", b"/yamux/1.0.0", b"libp2p"]), Ok((true, true)));
    assert_eq!(offering(&[b"libp2p"]), Ok((false, false)));
    assert_eq!(offering(&[b"/mplex/6.7.0", b"libp2p"]), Ok((false, false)));
    assert!(matches!(offering(&[b"h2"]), Err(PipeError::Incompatible(_))));
}

#[test]
fn what_is_sealed_is_opened_however_it_is_cut() {
    let long = vec![7; 200_000];
    for cut in [1000, 16_000, 9_999_999] {
        let (mut a, mut b) = open();
        let sealed = seal(&mut a, &[b"one", b"", b"two", &long, b"three"]);
        // A full record has 16 KiB, a header of 5 bytes, a type and a tag.
        let records = 200_011usize.div_ceil(16 << 10);
        assert_eq!(sealed.len(), 200_011 + records * 22, "in as few records as possible");
        for chunk in sealed.chunks(cut) {
            b.handle(&BytesMut::from(chunk)).unwrap();
        }
        assert_eq!(read_all(&mut b), [b"onetwo", &long[..], b"three"].concat());
        let back = seal(&mut b, &[b"answer"]);
        a.handle(&BytesMut::from(&back[..])).unwrap();
        assert_eq!(read_all(&mut a), b"answer");
    }
}

#[test]
fn no_flipped_bit_is_accepted() {
    let (mut a, _) = open();
    let sealed = seal(&mut a, &[b"one"]);
    // Type and version of a record say nothing (RFC 8446 section 5.2); its length and content do. Some bits are enough.
    for bit in (24..sealed.len() * 8).step_by(7) {
        let (mut a, mut b) = open();
        let mut changed = seal(&mut a, &[b"one"]);
        changed[bit / 8] ^= 1 << (bit % 8);
        let _ = b.handle(&BytesMut::from(&changed[..]));
        assert_eq!(read_all(&mut b), b"", "bit {bit}");
    }
}

#[test]
fn an_end_is_told_and_nothing_behind_it_is_read() {
    let (mut a, mut b) = open();
    let mut sealed = seal(&mut a, &[b"last"]);
    a.close();
    a.poll_handshake(&mut sealed);
    sealed.extend_from_slice(&[0x17, 3, 3, 0, 17]);
    assert!(!b.ended());
    b.handle(&BytesMut::from(&sealed[..])).unwrap();
    assert_eq!(read_all(&mut b), b"last");
    assert!(b.ended());
}

#[test]
fn nothing_is_sealed_before_the_handshake_is_complete() {
    let (mut dialler, _) = pair(None);
    let mut out = Vec::new();
    assert!(dialler.seal(&[Bytes::from_static(b"secret")], &mut out).is_err());
    assert!(out.is_empty());
}

#[test]
fn announced_lengths_are_not_believed() {
    // A record over the largest, and a handshake message of 16 MiB of which only the first KiB are sent.
    let (_, mut listener) = pair(None);
    assert!(listener.handle(&BytesMut::from(&[0x16, 3, 1, 0xff, 0xff, 1][..])).is_err());
    let (_, mut listener) = pair(None);
    let mut vast = vec![0x16, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff];
    vast.resize(5 + (16 << 10), 0);
    assert!(listener.handle(&BytesMut::from(&vast[..])).is_err());
}

proptest! {
    /// Whatever comes, nothing panics, and nothing that is not the peer's is believed.
    #[test]
    fn garbage(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..8), dials: bool) {
        let (dialler, listener) = pair(None);
        let mut tls = if dials { dialler } else { listener };
        for chunk in &chunks {
            let _ = tls.handle(&BytesMut::from(&chunk[..]));
        }
        prop_assert_eq!(tls.secured(), None);
        prop_assert!(tls.read().is_none());
    }
}
