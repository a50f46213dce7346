//! The address book's shelves: which peer's addresses have to go when there is no room.

use std::collections::{BTreeMap, BTreeSet};

use libp2p_identity::PeerId;

use super::book::Known;

/// Where a peer stands: how well its best address is vouched for, and in which network whoever told it was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Standing {
    pub(super) rank: u8,
    pub(super) group: [u8; 5],
}

#[derive(Debug)]
struct Placed {
    known: Known,
    standing: Standing,
    cost: u64,
    /// Grows with each change.
    serial: u64,
}

/// All peers, within a number of bytes.
#[derive(Debug)]
pub(super) struct Shelves {
    bytes_max: u64,
    bytes: u64,
    serial: u64,
    peers: BTreeMap<PeerId, Placed>,
    /// By standing, and then by the time of their last change.
    order: BTreeMap<(Standing, u64), PeerId>,
    /// Bytes of all peers of one standing.
    weights: BTreeMap<Standing, u64>,
    /// The same by rank, then by bytes.
    heaviest: BTreeSet<(u8, u64, [u8; 5])>,
}

impl Shelves {
    pub(super) fn new(bytes_max: u64) -> Shelves {
        Shelves {
            bytes_max,
            bytes: 0,
            serial: 0,
            peers: BTreeMap::new(),
            order: BTreeMap::new(),
            weights: BTreeMap::new(),
            heaviest: BTreeSet::new(),
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    pub(super) fn len(&self) -> usize {
        self.peers.len()
    }

    pub(super) fn get(&self, peer: &PeerId) -> Option<&Known> {
        self.peers.get(peer).map(|placed| &placed.known)
    }

    /// Takes a peer out, to be changed and put back, or to be forgotten.
    pub(super) fn take(&mut self, peer: &PeerId) -> Option<Known> {
        let placed = self.peers.remove(peer)?;
        self.bytes = self.bytes.saturating_sub(placed.cost);
        self.order.remove(&(placed.standing, placed.serial));
        self.weigh(placed.standing, |bytes| bytes.saturating_sub(placed.cost));
        Some(placed.known)
    }

    /// Puts a peer in, as the one that changed last, and takes out whoever has to go for it. False when that is this peer itself. One of
    /// whom nothing is known is not kept.
    pub(super) fn put(&mut self, peer: PeerId, known: Known) -> bool {
        if known.is_empty() {
            return true;
        }
        self.serial = self.serial.saturating_add(1);
        let (standing, cost, serial) = (known.standing(), known.cost(), self.serial);
        self.bytes = self.bytes.saturating_add(cost);
        self.order.insert((standing, serial), peer);
        self.weigh(standing, |bytes| bytes.saturating_add(cost));
        self.peers.insert(peer, Placed { known, standing, cost, serial });
        while self.bytes > self.bytes_max {
            let Some(victim) = self.worst() else {
                break;
            };
            self.take(&victim);
        }
        self.peers.contains_key(&peer)
    }

    /// Of the least vouched for, the network with the most gives its oldest.
    fn worst(&self) -> Option<PeerId> {
        let rank = self.heaviest.first()?.0;
        let (_, _, group) = self.heaviest.range(..=(rank, u64::MAX, [u8::MAX; 5])).next_back()?;
        let standing = Standing { rank, group: *group };
        self.order.range((standing, 0)..).next().map(|(_, peer)| *peer)
    }

    fn weigh(&mut self, standing: Standing, change: impl FnOnce(u64) -> u64) {
        let Standing { rank, group } = standing;
        let before = self.weights.remove(&standing).unwrap_or(0);
        self.heaviest.remove(&(rank, before, group));
        let bytes = change(before);
        // Nobody costs nothing, so one without bytes is empty.
        if bytes > 0 {
            self.weights.insert(standing, bytes);
            self.heaviest.insert((rank, bytes, group));
        }
    }

    /// Shows each peer to `change`, which says whether it has changed something.
    pub(super) fn sweep(&mut self, mut change: impl FnMut(&mut Known) -> bool) {
        let mut changed = Vec::new();
        for (peer, placed) in &mut self.peers {
            if change(&mut placed.known) {
                changed.push(*peer);
            }
        }
        for peer in changed {
            if let Some(known) = self.take(&peer) {
                self.put(peer, known);
            }
        }
    }
}
