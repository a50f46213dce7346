//! Connection ids that this node knows again.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ring::hmac;

use super::quic::{self, ConnectionId};
use crate::env::Random;

/// Makes connection ids of 8 bytes that we know again: five random ones and three of a keyed hash over them. So a long header can
/// be told from a stranger's before anything is looked up.
#[derive(Debug, Clone)]
pub(crate) struct CidMaker {
    key: hmac::Key,
    // The QUIC crate wants a factory of generators; they share this source. Nothing ever waits on it.
    random: Arc<Mutex<Random>>,
}

impl CidMaker {
    /// `key` is that of the mark.
    pub(super) fn new(key: [u8; 32], random: &mut Random) -> CidMaker {
        CidMaker { key: hmac::Key::new(hmac::HMAC_SHA256, &key), random: Arc::new(Mutex::new(Random::new(random.seed()))) }
    }

    fn mark(&self, body: &[u8]) -> [u8; 3] {
        let tag = hmac::sign(&self.key, body);
        let mut mark = [0; 3];
        mark.iter_mut().zip(tag.as_ref()).for_each(|(to, from)| *to = *from);
        mark
    }

    pub(crate) fn made(&self, id: &[u8]) -> bool {
        let (body, mark) = id.split_at_checked(5).unwrap_or_default();
        self.mark(body) == mark
    }
}

impl quic::ConnectionIdGenerator for CidMaker {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut body = [0; 5];
        self.random.lock().unwrap_or_else(PoisonError::into_inner).fill(&mut body);
        let mark = self.mark(&body);
        let mut id = [0; 8];
        id.iter_mut().zip(body.iter().chain(&mark)).for_each(|(to, from)| *to = *from);
        ConnectionId::new(&id)
    }

    fn validate(&self, id: &ConnectionId) -> Result<(), quic::InvalidCid> {
        if self.made(id) { Ok(()) } else { Err(quic::InvalidCid) }
    }

    fn cid_len(&self) -> usize {
        8
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}
