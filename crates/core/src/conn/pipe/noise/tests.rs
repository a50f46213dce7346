//! Handshakes and channels in memory: whole, cut anywhere, changed, and by peers that do not keep to the rules.

use proptest::prelude::*;

use super::*;

fn key(byte: u8) -> Keypair {
    Keypair::ed25519_from_bytes([byte; 32]).unwrap()
}

fn identity(byte: u8) -> Identity {
    Identity::new(&key(byte), [byte ^ 0x5a; 32]).unwrap()
}

fn peer(byte: u8) -> PeerId {
    key(byte).public().to_peer_id()
}

/// Node 1 dials node 2.
fn pair(wanted: Option<PeerId>) -> (Noise, Noise) {
    (Noise::dial(&identity(1), wanted, [11; 32]).unwrap(), Noise::listen(&identity(2), [12; 32]).unwrap())
}

fn flight(from: &mut Noise) -> Vec<u8> {
    let mut out = Vec::new();
    from.poll_handshake(&mut out);
    out
}

/// Carries the three messages over, `cut` bytes at a time. The error with its side: true for the dialler.
fn shake(dialler: &mut Noise, listener: &mut Noise, cut: usize) -> Result<(), (bool, PipeError)> {
    for _ in 0..3 {
        for chunk in flight(dialler).chunks(cut) {
            listener.handle(BytesMut::from(chunk)).map_err(|error| (false, error))?;
        }
        for chunk in flight(listener).chunks(cut) {
            dialler.handle(BytesMut::from(chunk)).map_err(|error| (true, error))?;
        }
    }
    Ok(())
}

fn open() -> (Noise, Noise) {
    let (mut dialler, mut listener) = pair(Some(peer(2)));
    shake(&mut dialler, &mut listener, usize::MAX).unwrap();
    (dialler, listener)
}

fn seal(noise: &mut Noise, chunks: &[&[u8]]) -> Vec<u8> {
    let chunks: Vec<Bytes> = chunks.iter().map(|chunk| Bytes::copy_from_slice(chunk)).collect();
    let mut out = Vec::new();
    noise.seal(&chunks, &mut out).unwrap();
    out
}

fn read_all(noise: &mut Noise) -> Vec<u8> {
    std::iter::from_fn(|| noise.read()).flatten().collect()
}

#[test]
fn a_published_vector() {
    // From the collection of the Haskell implementation "cacophony": handshake by snow on our primitives, the rest by `Cipher`.
    let hex = |text: &str| bytes_of(text);
    let resolver = || Box::new(Resolver::new([0; 32]));
    let params = || "Noise_XX_25519_ChaChaPoly_SHA256".parse().unwrap();
    let prologue = hex("4a6f686e2047616c74");
    let secrets = [
        hex("e61ef9919cde45dd5f82166404bd08e38bceb5dfdfded0a34c8df7ed542214d1"),
        hex("893e28b9dc6ca8d611ab664754b8ceb7bac5117349a4439a6b0569da977c464a"),
        hex("4a3acbfdb163dec651dfa3194dece676d437029c62a408b4c5ea9114246e4893"),
        hex("bbdb4cdbd309f1a1f2e1456967fe288cadd6f712d65dc7b7793d5e63da6b375b"),
    ];
    let builder = |own: &'static [u8], ephemeral: &'static [u8]| {
        let builder = Builder::with_resolver(params(), resolver()).local_private_key(own).unwrap();
        builder.prologue(b"John Galt").unwrap().fixed_ephemeral_key_for_testing_only(ephemeral)
    };
    assert_eq!(prologue, b"John Galt");
    let [a, b, c, d] = secrets.map(|secret| &*secret.leak());
    let mut dialler = builder(a, b).build_initiator().unwrap();
    let mut listener = builder(c, d).build_responder().unwrap();
    let handshake: [(&[u8], &str); 3] = [
        (b"Ludwig von Mises", "ca35def5ae56cec33dc2036731ab14896bc4c75dbb07a61f879f8e3afa4c79444c756477696720766f6e204d69736573"),
        (
            b"Murray Rothbard",
            "95ebc60d2b1fa672c1f46a8aa265ef51bfe38e7ccb39ec5be34069f14480884381cbad1f276e038c48378ffce2b65285e08d6b68aaa3629a5a8639392490e5b9bd5269c2f1e4f488ed8831161f19b7815528f8982ffe09be9b5c412f8a0db50f8814c7194e83f23dbd8d162c9326ad",
        ),
        (
            b"F. A. Hayek",
            "c7195ffacac1307ff99046f219750fc47693e23c3cb08b89c2af808b444850a80ae475b9df0f169ae80a89be0865b57f58c9fea0d4ec82a286427402f113e4b6ae769a1d95941d49b25030",
        ),
    ];
    for (number, (payload, message)) in handshake.into_iter().enumerate() {
        let (from, to) = if number % 2 == 0 { (&mut dialler, &mut listener) } else { (&mut listener, &mut dialler) };
        let (mut out, mut read) = ([0; 512], [0; 512]);
        let len = from.write_message(payload, &mut out).unwrap();
        assert_eq!(out[..len], hex(message), "message {number}");
        let len = to.read_message(&out[..len], &mut read).unwrap();
        assert_eq!(&read[..len], payload);
    }
    let (from_dialler, from_listener) = dialler.dangerously_get_raw_split();
    assert_eq!(listener.dangerously_get_raw_split(), (from_dialler, from_listener));
    let (mut down, mut up) = (Cipher::new(&from_listener).unwrap(), Cipher::new(&from_dialler).unwrap());
    let later = [
        (&mut down, "Carl Menger", "96763ed773f8e47bb3712f0e29b3060ffc956ffc146cee53d5e1df"),
        (&mut up, "Jean-Baptiste Say", "3e40f15f6f3a46ae446b253bf8b1d9ffb6ed9b174d272328ff91a7e2e5c79c07f5"),
    ];
    for (cipher, text, sealed) in later {
        let mut buffer = text.as_bytes().to_vec();
        cipher.seal(&mut buffer, 0).unwrap();
        assert_eq!(buffer, hex(sealed));
    }
}

fn bytes_of(text: &str) -> Vec<u8> {
    text.as_bytes().chunks(2).map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap()).collect()
}

#[test]
fn both_sides_learn_each_other_and_agree_on_the_multiplexer() {
    for (wanted, cut) in [(None, usize::MAX), (Some(peer(2)), usize::MAX), (None, 1), (None, 7)] {
        let (mut dialler, mut listener) = pair(wanted);
        shake(&mut dialler, &mut listener, cut).unwrap();
        assert_eq!(dialler.secured(), Some(Secured { peer: peer(2), muxer: true }));
        assert_eq!(listener.secured(), Some(Secured { peer: peer(1), muxer: true }));
    }
}

/// The prefix is written out here: with one of their own, our two sides would agree, and with nobody else.
#[test]
fn the_identity_key_signs_what_the_specification_says() {
    let own = identity(1);
    let payload = Payload::decode(&own.payload, &PayloadLimits::default()).unwrap();
    let signed = [&b"noise-libp2p-static-key:"[..], &resolver::public_key(own.secret)].concat();
    assert!(key(1).public().verify(&signed, payload.identity_sig));
}

#[test]
fn every_kind_of_identity_key() {
    for bytes in [
        &include_bytes!("../../tls/data/ed25519_host_key.bin")[..],
        include_bytes!("../../tls/data/ecdsa_host_key.bin"),
        include_bytes!("../../tls/data/secp256k1_host_key.bin"),
        include_bytes!("../../tls/data/rsa_host_key.bin"),
    ] {
        let host = Keypair::from_protobuf_encoding(bytes).unwrap();
        let mut listener = Noise::listen(&Identity::new(&host, [3; 32]).unwrap(), [4; 32]).unwrap();
        let mut dialler = Noise::dial(&identity(1), Some(host.public().to_peer_id()), [5; 32]).unwrap();
        shake(&mut dialler, &mut listener, usize::MAX).unwrap();
        assert_eq!(listener.secured().unwrap().peer, peer(1));
    }
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_one_others() {
    let run = |seed: u8| {
        let mut dialler = Noise::dial(&identity(1), None, [seed; 32]).unwrap();
        let mut listener = Noise::listen(&identity(2), [seed + 1; 32]).unwrap();
        let first = flight(&mut dialler);
        listener.handle(BytesMut::from(&first[..])).unwrap();
        [first, flight(&mut listener)].concat()
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[test]
fn wrong_peer_names_both() {
    let (mut dialler, mut listener) = pair(Some(peer(3)));
    let wrong = PipeError::WrongPeer { wanted: peer(3), found: peer(2) };
    assert_eq!(shake(&mut dialler, &mut listener, usize::MAX), Err((true, wrong.clone())));
    assert_eq!(wrong.lost().dial, crate::DialError::WrongPeer { wanted: peer(3), found: peer(2) });
    assert!(dialler.handle(BytesMut::new()).is_ok(), "nothing came");
    assert!(dialler.handle(BytesMut::from(&[0, 1, 2][..])).is_err());
    assert_eq!(flight(&mut dialler), b"", "the other side does not learn who dialled");
}

/// A dialler that lies: sends `payload` in its last message.
fn lying(payload: Vec<u8>) -> Result<Option<Secured>, PipeError> {
    let (mut dialler, mut listener) = pair(None);
    let State::Handshake(handshake) = &mut dialler.state else { panic!("it has only begun") };
    handshake.payload = payload;
    match shake(&mut dialler, &mut listener, usize::MAX) {
        Ok(()) => Ok(listener.secured()),
        Err((side, error)) => {
            assert!(!side);
            Err(error)
        }
    }
}

fn payload(change: impl FnOnce(&mut Payload<'_>)) -> Vec<u8> {
    let own = identity(1).payload;
    let mut payload = Payload::decode(&own, &PayloadLimits::default()).unwrap();
    change(&mut payload);
    let mut out = Vec::new();
    payload.encode(&mut out);
    out
}

#[test]
fn identities_that_are_not_proved() {
    assert!(lying(payload(|_| {})).is_ok());
    let another: &'static [u8] = key(3).public().encode_protobuf().leak();
    for bad in [
        payload(|payload| payload.identity_key = another),
        payload(|payload| payload.identity_sig = &[7; 64]),
        payload(|payload| payload.identity_sig = &[]),
        payload(|payload| payload.identity_key = &[]),
        // The word of another node's key, for its own static key.
        identity(3).payload,
        vec![0xff; 20],
        Vec::new(),
    ] {
        assert!(matches!(lying(bad), Err(PipeError::Broken(_))));
    }
}

#[test]
fn lists_of_multiplexers() {
    let with = |muxers: Vec<&'static str>| {
        lying(payload(|payload| {
            payload.extensions = Some(Extensions { stream_muxers: muxers, ..Extensions::default() });
        }))
    };
    let agreed = |muxer| Ok(Some(Secured { peer: peer(1), muxer }));
    assert_eq!(with(vec!["/mplex/6.7.0", YAMUX]), agreed(true));
    assert_eq!(with(Vec::new()), agreed(false));
    assert_eq!(lying(payload(|payload| payload.extensions = None)), agreed(false));
    assert!(matches!(with(vec!["/mplex/6.7.0"]), Err(PipeError::Incompatible(_))));
}

#[test]
fn the_first_message_carries_nothing() {
    let mut listener = Noise::listen(&identity(2), [4; 32]).unwrap();
    let mut first = vec![0, 33];
    first.extend_from_slice(&x25519_dalek::x25519([9; 32], x25519_dalek::X25519_BASEPOINT_BYTES));
    first.push(1);
    assert!(matches!(listener.handle(BytesMut::from(&first[..])), Err(PipeError::Broken(why)) if why.contains("first message")));
}

#[test]
fn keys_of_low_order_are_refused() {
    let mut listener = Noise::listen(&identity(2), [4; 32]).unwrap();
    let first = [&[0, 32][..], &[0; 32]].concat();
    assert!(listener.handle(BytesMut::from(&first[..])).is_err());
}

#[test]
fn a_long_handshake_message_is_refused_by_its_length_alone() {
    for length in [HANDSHAKE_FRAME_BYTES_MAX + 1, FRAME_BYTES_MAX] {
        let mut listener = Noise::listen(&identity(2), [4; 32]).unwrap();
        let announced = u16::try_from(length).unwrap().to_be_bytes();
        assert!(listener.handle(BytesMut::from(&announced[..])).is_err());
        assert!(listener.held() < 100);
    }
}

#[test]
fn no_flipped_bit_of_a_handshake_is_accepted() {
    let (mut dialler, mut listener) = pair(None);
    let first = flight(&mut dialler);
    listener.handle(BytesMut::from(&first[..])).unwrap();
    let second = flight(&mut listener);
    for bit in 16..second.len() * 8 {
        let (mut dialler, _) = pair(None);
        let mut changed = second.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(dialler.handle(BytesMut::from(&changed[..])).is_err(), "bit {bit}");
    }
    dialler.handle(BytesMut::from(&second[..])).unwrap();
    let third = flight(&mut dialler);
    // Each of these needs a listener that has come so far: some bits are enough.
    for bit in (16..third.len() * 8).step_by(37) {
        let (mut dialler, mut listener) = pair(None);
        listener.handle(BytesMut::from(&flight(&mut dialler)[..])).unwrap();
        let mut changed = third.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(listener.handle(BytesMut::from(&changed[..])).is_err(), "bit {bit}");
    }
}

#[test]
fn what_is_sealed_is_opened_however_it_is_cut() {
    let (mut a, mut b) = open();
    let long = vec![7; 200_000];
    let sealed = seal(&mut a, &[b"one", b"", b"two", &long, b"three"]);
    let frames = (200_000 + 11usize).div_ceil(PLAINTEXT_BYTES_MAX);
    assert_eq!(sealed.len(), 200_011 + frames * (TAG_BYTES + LENGTH_BYTES), "in as few frames as possible");
    for cut in [1000, 65_537, 9_999_999] {
        let (mut a, mut b) = open();
        assert_eq!(seal(&mut a, &[b"one", b"", b"two", &long, b"three"]), sealed);
        for chunk in sealed.chunks(cut) {
            b.handle(BytesMut::from(chunk)).unwrap();
        }
        assert_eq!(read_all(&mut b), [b"onetwo", &long[..], b"three"].concat());
    }
    b.handle(BytesMut::from(&sealed[..])).unwrap();
    let back = seal(&mut b, &[b"answer"]);
    a.handle(BytesMut::from(&back[..])).unwrap();
    assert_eq!(read_all(&mut a), b"answer");
}

#[test]
fn a_chunk_is_opened_where_it_lies() {
    let (mut a, mut b) = open();
    let chunk = BytesMut::from(&seal(&mut a, &[&[1; 500]])[..]);
    let place = chunk.as_ptr() as usize;
    b.handle(chunk).unwrap();
    assert_eq!(b.read().unwrap().as_ptr() as usize, place + LENGTH_BYTES);
}

#[test]
fn a_small_frame_does_not_keep_what_was_read_with_it() {
    let (mut a, mut b) = open();
    let frames = [seal(&mut a, &[&[1; 100]]), seal(&mut a, &[&[2; 1000]]), seal(&mut a, &[&[3; 100]])].concat();
    let chunk = BytesMut::from(&frames[..]);
    let place = chunk.as_ptr_range();
    b.handle(chunk).unwrap();
    let inside = |chunk: Bytes| place.contains(&chunk.as_ptr());
    assert_eq!([b.read(), b.read(), b.read()].map(|chunk| inside(chunk.unwrap())), [false, true, false]);
}

#[test]
fn memory_follows_what_came_and_not_what_was_announced() {
    let (_, mut b) = open();
    b.handle(BytesMut::from(&[0xff, 0xff][..])).unwrap();
    for count in 1..3000usize {
        b.handle(BytesMut::from(&[0][..])).unwrap();
        assert!(b.held() <= 2 * (count + LENGTH_BYTES) + 64, "{} bytes for {count}", b.held());
    }
    let mut rest = BytesMut::zeroed(FRAME_BYTES_MAX);
    rest.truncate(FRAME_BYTES_MAX - 3000);
    b.handle(rest).unwrap();
    assert!(b.held() <= FRAME_BYTES_MAX + LENGTH_BYTES);
    assert!(b.handle(BytesMut::zeroed(1)).is_err(), "it is not authentic");
    assert_eq!(b.held(), 0);
}

#[test]
fn frames_that_are_too_short_changed_repeated_or_left_out() {
    let (mut a, _) = open();
    let (one, two) = (seal(&mut a, &[b"one"]), seal(&mut a, &[b"two"]));
    let refused = |stream: Vec<u8>| {
        let (_, mut b) = open();
        let error = b.handle(BytesMut::from(&stream[..])).unwrap_err();
        assert!(matches!(&error, PipeError::Broken(_)));
        assert!(b.handle(BytesMut::from(&one[..])).is_err(), "there is no way back");
        assert!(b.seal(&[Bytes::from_static(b"x")], &mut Vec::new()).is_err());
    };
    refused(vec![0, 0]);
    refused(vec![0, 15, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    refused(two.clone());
    refused([&one[..], &one].concat());
    for bit in 16..one.len() * 8 {
        let mut changed = one.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        refused(changed);
    }
    let (mut a, _) = open();
    assert!(a.handle(BytesMut::from(&seal(&mut open().0, &[b"x"])[..])).is_err(), "one's own frames sent back");
}

#[test]
fn nothing_is_sealed_before_the_handshake_is_complete() {
    let (mut dialler, _) = pair(None);
    let mut out = Vec::new();
    assert!(dialler.seal(&[Bytes::from_static(b"secret")], &mut out).is_err());
    assert!(out.is_empty());
}

proptest! {
    /// Whatever comes, nothing panics, and nothing that is not the peer's is believed.
    #[test]
    fn garbage(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..8), dials: bool) {
        let (dialler, listener) = pair(None);
        let mut noise = if dials { dialler } else { listener };
        for chunk in &chunks {
            let _ = noise.handle(BytesMut::from(&chunk[..]));
        }
        prop_assert_eq!(noise.secured(), None);
        prop_assert!(noise.read().is_none());
    }

    #[test]
    fn any_chunks_in_any_cuts(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..3000), 0..6), cuts in proptest::collection::vec(1..4000usize, 1..9)) {
        let (mut a, mut b) = open();
        let parts: Vec<&[u8]> = chunks.iter().map(|chunk| &chunk[..]).collect();
        let sealed = seal(&mut a, &parts);
        let mut rest = &sealed[..];
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (now, later) = rest.split_at(rest.len().min(*cut));
            b.handle(BytesMut::from(now)).unwrap();
            rest = later;
        }
        prop_assert_eq!(read_all(&mut b), chunks.concat());
    }
}
