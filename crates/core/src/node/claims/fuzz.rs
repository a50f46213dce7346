//! What may come of a peer's words, whatever they are, as one function: the fuzz target `claims` and the replay of its corpus call it.

use libp2p_identity::{Keypair, PeerId};

use super::{Identity, LIMITS, merged, read};
use crate::peers::record::{self, BadRecord};
use crate::peers::scope::{self, Scope};

/// The paths over which a peer may be heard.
const PATHS: [Scope; 5] = [Scope::Loopback, Scope::Link, Scope::Private, Scope::Shared, Scope::Global];

/// Two messages of the peer whose Ed25519 key is made of 32 bytes of 1, over a path whose scope the first byte says; the two bytes behind it are the length of the
/// first message, little-endian, and the rest is the second.
///
/// # Panics
/// When a message breaks a limit, changes what it does not tell, counts twice, leads where the path does not, or a record is believed that
/// is not the peer's. For tests.
pub fn claims(script: &[u8]) {
    let (Some((&[path, low, high], rest)), Some(peer), Some(other)) = (script.split_first_chunk(), peer(1), peer(2)) else {
        return;
    };
    let path = PATHS.into_iter().cycle().nth(path.into()).unwrap_or(Scope::Global);
    let first = usize::from(u16::from_le_bytes([low, high])).min(rest.len());
    let (first, second) = rest.split_at_checked(first).unwrap_or((rest, &[]));
    let known = hear(Identity::default(), first, [&peer, &other], path);
    hear(known, second, [&peer, &other], path);
}

fn peer(seed: u8) -> Option<PeerId> {
    Some(Keypair::ed25519_from_bytes([seed; 32]).ok()?.public().to_peer_id())
}

fn hear(before: Identity, message: &[u8], [peer, other]: [&PeerId; 2], path: Scope) -> Identity {
    let Some(told) = read(message, peer) else {
        return before;
    };
    assert!(message.len() <= LIMITS.message_bytes_max);
    let after = merged(before.clone(), &told, path);
    assert_eq!(merged(after.clone(), &told, path), after, "said twice");
    assert!(
        after.agent.len() <= LIMITS.agent_bytes_max
            && after.protocol_version.len() <= message.len().max(before.protocol_version.len())
    );
    assert!(after.protocols.len() <= LIMITS.protocols_max);
    assert!(after.protocols.iter().all(|name| name.len() <= LIMITS.protocol_bytes_max));
    assert!(after.addresses.len().saturating_add(after.out_of_scope) <= LIMITS.addrs_max);
    let holds = |scope: Option<Scope>| scope.is_some_and(|scope| scope.holds_over(path));
    assert!(after.addresses.iter().all(|address| address.len() <= LIMITS.addr_bytes_max && holds(scope::of_address(address))));
    if told.protocols.is_empty() {
        assert_eq!(after.protocols, before.protocols, "a part that was not told");
    }
    if told.listen_addrs.is_empty() {
        assert_eq!((&after.addresses, after.out_of_scope), (&before.addresses, before.out_of_scope), "a part that was not told");
    }
    if let Some(record) = told.signed_peer_record {
        believe(record, peer, other);
    }
    after
}

fn believe(bytes: &[u8], peer: &PeerId, other: &PeerId) {
    let Ok(believed) = record::verify(bytes, peer, None) else {
        return;
    };
    assert_eq!(record::verify(bytes, peer, Some(believed.seq)).as_ref(), Ok(&believed), "the newest may come again");
    if let Some(known) = believed.seq.checked_add(1) {
        assert_eq!(record::verify(bytes, peer, Some(known)), Err(BadRecord::Stale { seq: believed.seq, known }));
    }
    assert_eq!(record::verify(bytes, other, None), Err(BadRecord::OtherPeer));
}

#[cfg(test)]
mod tests {
    #[test]
    fn claims_corpus() {
        crate::seeds::replay("claims", super::claims);
    }
}
