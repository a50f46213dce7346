//! What every decoder promises, as one function for each: the fuzz targets in `fuzz/`, the replay of their
//! corpus in `tests/corpus.rs` and the property tests beside the code all call these.
//!
//! # Panics
//! Each function does when its decoder breaks its word, and never otherwise. They are for tests; nothing in the stack
//! calls them.

use crate::identify::{ENCODED_BYTES_MAX, Identify, IdentifyLimits};
use crate::multistream::{MESSAGE_BYTES_MAX, Message};
use crate::noise::{Payload, PayloadLimits};
use crate::protobuf::{Reader, Value, Writer};
use crate::record::{Envelope, PeerRecord, RecordLimits};
use crate::topic::Tell;
use crate::{framing, multistream, topic, varint, yamux};

/// The front of `bytes`. Panics when `len` is more than there is, which is the promise to check.
fn front(bytes: &[u8], len: usize) -> &[u8] {
    let front = bytes.get(..len);
    assert!(front.is_some(), "consumed {len} of {} bytes", bytes.len());
    front.unwrap_or_default()
}

/// A decoded number has one spelling, and a prefix of it asks for more.
pub fn varint(bytes: &[u8]) {
    match varint::decode(bytes) {
        Ok(Some((value, used))) => {
            let mut again = Vec::new();
            varint::encode(value, &mut again);
            assert_eq!(again, front(bytes, used), "another spelling of {value}");
            assert_eq!(varint::encoded_len(value), used);
            assert_eq!(varint::decode(front(bytes, used.saturating_sub(1))), Ok(None));
        }
        Ok(None) => assert!(bytes.len() < varint::BYTES_MAX),
        Err(_) => assert!(!bytes.is_empty()),
    }
}

/// A body is never over the limit, and a limit one below it refuses it.
pub fn framing(bytes: &[u8]) {
    const MAX: usize = 100;
    let Ok(Some((header, body))) = framing::frame_len(bytes, MAX) else {
        return;
    };
    assert!(body <= MAX);
    let mut again = Vec::new();
    framing::put_header(body, &mut again);
    assert_eq!(again, front(bytes, header));
    if let Some(less) = body.checked_sub(1) {
        assert!(framing::frame_len(bytes, less).is_err());
    }
    match framing::frame(bytes, MAX) {
        Ok(Some((found, used))) => {
            assert_eq!(front(bytes, used).get(header..), Some(found));
            assert_eq!(found.len(), body);
        }
        other => {
            assert_eq!(other, Ok(None));
            assert!(bytes.len() < header.saturating_add(body));
        }
    }
}

/// Whatever decodes is written back to the same bytes, and the next message starts behind it.
pub fn multistream(bytes: &[u8]) {
    let mut rest = bytes;
    while let Ok(Some((message, used))) = multistream::decode(rest, MESSAGE_BYTES_MAX) {
        let mut again = Vec::new();
        match message {
            Message::Header => multistream::header(&mut again),
            Message::NotAvailable => multistream::na(&mut again),
            Message::List => again.extend_from_slice(b"\x03ls\n"),
            Message::Protocol(name) => {
                assert_eq!(multistream::protocol(name, &mut again), Ok(()));
            }
        }
        assert_eq!(again, front(rest, used));
        rest = rest.get(used..).unwrap_or_default();
    }
}

/// Fields never hold more bytes than the message, and survive being written and read again.
pub fn protobuf(bytes: &[u8]) {
    let mut fields = 0usize;
    let mut content = 0usize;
    let mut again = Vec::new();
    let mut writer = Writer::new(&mut again);
    let mut kept = Vec::new();
    for (number, value) in Reader::new(bytes).map_while(Result::ok) {
        fields = fields.saturating_add(1);
        match value {
            Value::Varint(value) => writer.varint(number, value),
            Value::Fixed64(value) => writer.fixed64(number, value),
            Value::Fixed32(value) => writer.fixed32(number, value),
            Value::Bytes(value) => {
                content = content.saturating_add(value.len());
                writer.bytes(number, value);
            }
        }
        kept.push((number, value));
    }
    assert!(fields.saturating_mul(2).saturating_add(content) <= bytes.len());
    assert!(again.len() <= bytes.len(), "the shortest form is longer");
    let read: Result<Vec<_>, _> = Reader::new(&again).collect();
    assert_eq!(read, Ok(kept));
}

/// Limits hold, and what was kept can be sent on and reads the same.
pub fn identify(bytes: &[u8]) {
    let limits = IdentifyLimits {
        message_bytes_max: 4 << 10,
        addrs_max: 4,
        addr_bytes_max: 64,
        protocols_max: 4,
        protocol_bytes_max: 32,
        agent_bytes_max: 32,
    };
    let Ok(mut found) = Identify::decode(bytes, &limits) else {
        return;
    };
    assert!(bytes.len() <= limits.message_bytes_max);
    assert!(found.listen_addrs.len() <= limits.addrs_max);
    assert!(found.listen_addrs.iter().all(|addr| addr.len() <= limits.addr_bytes_max));
    assert!(found.protocols.len() <= limits.protocols_max);
    assert!(found.protocols.iter().all(|name| name.len() <= limits.protocol_bytes_max));
    assert!(found.agent_version.is_none_or(|agent| agent.len() <= limits.agent_bytes_max));
    assert!(found.dropped <= bytes.len());

    found.dropped = 0;
    let mut again = Vec::new();
    assert_eq!(found.encode(&mut again), Ok(0));
    assert!(again.len() <= bytes.len() && again.len() <= ENCODED_BYTES_MAX);
    assert_eq!(Identify::decode(&again, &limits), Ok(found));
}

/// Limits hold, and what was kept can be sent on and reads the same.
pub fn noise_payload(bytes: &[u8]) {
    let limits = PayloadLimits { key_bytes_max: 40, items_max: 3, item_bytes_max: 16 };
    let Ok(mut found) = Payload::decode(bytes, &limits) else {
        return;
    };
    assert!(found.identity_key.len() <= limits.key_bytes_max && found.identity_sig.len() <= limits.key_bytes_max);
    if let Some(extensions) = &found.extensions {
        assert!(extensions.webtransport_certhashes.len() <= limits.items_max);
        assert!(extensions.webtransport_certhashes.iter().all(|hash| hash.len() <= limits.item_bytes_max));
        assert!(extensions.stream_muxers.len() <= limits.items_max);
        assert!(extensions.stream_muxers.iter().all(|name| name.len() <= limits.item_bytes_max));
    }
    found.dropped = 0;
    let mut again = Vec::new();
    found.encode(&mut again);
    assert!(again.len() <= bytes.len());
    assert_eq!(Payload::decode(&again, &limits), Ok(found));
}

/// Limits hold, and what was kept can be sent on and reads the same. The bytes are taken for an envelope, and for a record.
pub fn peer_record(bytes: &[u8]) {
    let limits = RecordLimits { envelope_bytes_max: 4 << 10, key_bytes_max: 40, addrs_max: 4, addr_bytes_max: 32 };
    if let Ok(envelope) = Envelope::decode(bytes, &limits) {
        assert!(bytes.len() <= limits.envelope_bytes_max);
        assert!(envelope.public_key.len() <= limits.key_bytes_max && envelope.signature.len() <= limits.key_bytes_max);
        assert!(envelope.signed_bytes("domain").len() <= bytes.len().saturating_add(20));
        let mut again = Vec::new();
        envelope.encode(&mut again);
        assert!(again.len() <= bytes.len());
        assert_eq!(Envelope::decode(&again, &limits), Ok(envelope));
        record(envelope.payload, &limits);
    }
    record(bytes, &limits);
}

fn record(payload: &[u8], limits: &RecordLimits) {
    let Ok(mut found) = PeerRecord::decode(payload, limits) else {
        return;
    };
    assert!(found.addresses.len() <= limits.addrs_max);
    assert!(found.addresses.iter().all(|address| address.len() <= limits.addr_bytes_max));
    found.dropped = 0;
    let mut again = Vec::new();
    found.encode(&mut again);
    assert!(again.len() <= payload.len());
    assert_eq!(PeerRecord::decode(&again, limits), Ok(found));
}

/// Whatever decodes is written back to the same bytes; frames are walked as a reader would, bodies skipped.
pub fn yamux(bytes: &[u8]) {
    let mut rest = bytes;
    while let Some((head, behind)) = rest.split_first_chunk::<{ yamux::HEADER_BYTES }>() {
        let Ok(header) = yamux::Header::decode(head) else {
            assert!(head[0] != 0 || head[1] > 3, "a header of known version and type was refused");
            return;
        };
        assert_eq!(header.encode(), *head);
        assert!(header.kind == yamux::Kind::Data || header.body() == 0);
        rest = behind.get(header.body() as usize..).unwrap_or_default();
    }
}

/// Whatever decodes, in either direction, has one spelling; its parts lie within the body. The bytes are taken for frames, and for a body.
pub fn topic(bytes: &[u8]) {
    let mut rest = bytes;
    while let Ok(Some((body, used))) = framing::frame(rest, bytes.len()) {
        topic_body(body, front(rest, used));
        rest = rest.get(used..).unwrap_or_default();
    }
    let mut whole = Vec::new();
    framing::put_header(bytes.len(), &mut whole);
    whole.extend_from_slice(bytes);
    topic_body(bytes, &whole);
}

fn topic_body(body: &[u8], whole: &[u8]) {
    if let Ok(ask) = topic::Ask::decode(body) {
        assert_eq!(ask.frame(), whole);
    }
    let Ok(told) = topic::Tell::decode(body) else {
        return;
    };
    assert_eq!(told.frame(), whole);
    match told {
        Tell::Put { version, key, value } => {
            assert_eq!(topic::put_frame(version, key, value.len(), |out| out.extend_from_slice(value)), whole);
        }
        Tell::Said { number, key, value } => {
            assert_eq!(topic::said_frame(number, key, value.len(), |out| out.extend_from_slice(value)), whole);
        }
        _ => {}
    }
}
