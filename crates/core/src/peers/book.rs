//! The address book: where peers may be reached, and why that is believed.
//!
//! Each address carries where it came from ([`Source`]), how far it reaches ([`Scope`]), what speaks for it ([`Evidence`]) and
//! when it expires. Three rules hold:
//!
//! * **Scope.** What a remote tells is kept only if it holds over the path that it was told by ([`Scope::holds_over`]). Everything else is refused
//!   at the door, so it can neither be dialled nor told on. For names, [`Candidate::may_reach`] asks again about what they resolve to.
//! * **Evidence.** Only an address that worked for this node, or that a dial-back proved, is passed on ([`Book::proven`]). There is no source for
//!   what others observe of this node: that is a hint, and never in here.
//! * **Room.** At most [`BOOK_ADDRESSES_MAX`] addresses of a peer and [`Limits::book_bytes`](crate::Limits::book_bytes) in all. What is better
//!   vouched for is never pushed out by what is worse: claims of remotes go first, then what the application told, then what has worked.
//!   Among equals the network from which most was told gives its oldest, so that one source fills only what nobody else wants.
//!
//! Memory grows with what remotes tell, up to those caps. Every call costs O(log n) and the addresses of one peer, but
//! [`forget_expired`](Book::forget_expired).

use std::cmp::Reverse;
use std::net::IpAddr;
use std::time::Instant;

use libp2p_identity::PeerId;
use multiaddr::{Multiaddr, Protocol};

use super::provenance::{Candidate, Evidence, Source, Unusable};
use super::scope::{self, Scope};
use super::shelves::{Shelves, Standing};
use crate::evict::network_group;
use crate::limits::{
    BOOK_ADDRESS_BYTES_MAX, BOOK_ADDRESSES_MAX, BOOK_FAILURES_MAX, BOOK_PEER_COST, BOOK_SWEEP_INTERVAL, BOOK_WORKED_FOR,
};

/// That a source of one kind tells an address.
#[derive(Debug, Clone, Copy)]
struct Claim {
    source: Source,
    until: Option<Instant>,
}

#[derive(Debug)]
struct Entry {
    address: Multiaddr,
    scope: Scope,
    /// At most one of each kind.
    claims: Vec<Claim>,
    worked: Option<Instant>,
    dialled_back: Option<Instant>,
    failures: u32,
    failed_at: Option<Instant>,
    /// Grows with each time that it was told: the same number for all that was told together.
    told: u64,
}

impl Entry {
    fn new(address: Multiaddr, scope: Scope, told: u64) -> Entry {
        let (worked, dialled_back, failures, failed_at) = (None, None, 0, None);
        Entry { address, scope, claims: Vec::new(), worked, dialled_back, failures, failed_at, told }
    }

    fn note_worked(&mut self, now: Instant) {
        self.worked = Some(now);
        self.failures = 0;
        self.failed_at = None;
    }

    /// Bytes that are allocated for it, beside itself: the address's counted vector, and the claims.
    fn cost(&self) -> u64 {
        let claims = self.claims.capacity().saturating_mul(size_of::<Claim>());
        COUNTED_BYTES.saturating_add(self.address.len()).saturating_add(claims) as u64
    }

    fn evidence(&self) -> Evidence {
        let signed = self.claims.iter().find_map(|claim| match claim.source {
            Source::Record { seq, .. } => Some(Evidence::Signed { seq }),
            _ => None,
        });
        let worked = self.worked.map(|at| Evidence::Worked { at });
        let dialled_back = self.dialled_back.map(|at| Evidence::DialBack { at });
        worked.or(dialled_back).or(signed).unwrap_or(Evidence::None)
    }

    /// How well it is vouched for.
    fn rank(&self) -> u8 {
        let told = self.claims.iter().map(|claim| claim.source.kind()).max().unwrap_or(0);
        if self.evidence().is_proof() { PROVEN } else { told }
    }

    /// When it expires. `None`: never.
    fn until(&self) -> Option<Instant> {
        let proof = self.worked.max(self.dialled_back).and_then(|at| at.checked_add(BOOK_WORKED_FOR));
        let claims = self.claims.iter().map(|claim| claim.until);
        // An end that is too far away to be told is none.
        claims.chain(proof.map(Some)).try_fold(None, |latest: Option<Instant>, until| Some(latest.max(Some(until?)))).flatten()
    }

    fn is_live(&self, now: Instant) -> bool {
        let never = self.claims.iter().any(|claim| claim.until.is_none());
        never || self.until().is_some_and(|until| now < until)
    }

    fn claim(&mut self, source: Source, now: Instant, told: u64) {
        let until = source.lasts().and_then(|lasts| now.checked_add(lasts));
        self.claims.retain(|claim| claim.source.kind() != source.kind());
        // Each allocation is counted, and most have one.
        self.claims.reserve_exact(1);
        self.claims.push(Claim { source, until });
        self.told = told;
    }

    /// Whoever tells over `path` what is to be said now has left this out: what it told earlier, over a path that reaches as far, is taken back. What it
    /// told nearer by it could not repeat.
    fn take_back(&mut self, source: &Source) {
        let reaches = |claim: &Claim| claim.source.path().map(|path| path.scope) >= source.path().map(|path| path.scope);
        self.claims.retain(|claim| claim.source.kind() != source.kind() || !reaches(claim));
    }

    /// Drops what has expired. True when that was something.
    fn expire(&mut self, now: Instant) -> bool {
        let before = (self.claims.len(), self.worked, self.dialled_back);
        let ended = |at: &Instant| at.checked_add(BOOK_WORKED_FOR).is_some_and(|until| until <= now);
        self.claims.retain(|claim| claim.until.is_none_or(|until| now < until));
        self.worked = self.worked.filter(|at| !ended(at));
        self.dialled_back = self.dialled_back.filter(|at| !ended(at));
        before != (self.claims.len(), self.worked, self.dialled_back)
    }

    fn candidate(&self) -> Candidate {
        let application = self.claims.iter().any(|claim| claim.source == Source::Application);
        let nearest = self.claims.iter().filter_map(|claim| claim.source.path()).map(|path| path.scope).min();
        Candidate {
            address: self.address.clone(),
            scope: self.scope,
            evidence: self.evidence(),
            failures: self.failures,
            failed_at: self.failed_at,
            // Of what nobody vouches for any more but that has worked, its own scope is all that is known.
            told_over: if application { None } else { nearest.or(Some(self.scope)) },
        }
    }
}

/// What a counted vector takes beside its bytes.
const COUNTED_BYTES: usize = 48;

/// The rank of what has worked.
const PROVEN: u8 = 5;
/// The rank of what the application told.
const APPLICATION: u8 = 4;

/// What is known of one peer.
#[derive(Debug, Default)]
pub(super) struct Known {
    entries: Vec<Entry>,
    /// The newest record that was accepted.
    seq: Option<u64>,
}

impl Known {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn cost(&self) -> u64 {
        let table = self.entries.capacity().saturating_mul(size_of::<Entry>()) as u64;
        self.entries.iter().fold(BOOK_PEER_COST.saturating_add(table), |sum, entry| sum.saturating_add(entry.cost()))
    }

    fn push(&mut self, entry: Entry) {
        self.entries.reserve_exact(1);
        self.entries.push(entry);
    }

    /// How well its best address is vouched for, and from which network.
    pub(super) fn standing(&self) -> Standing {
        let best = self.entries.iter().max_by_key(|entry| (entry.rank(), entry.told));
        let Some(best) = best else {
            return Standing::default();
        };
        let told = best.claims.iter().filter_map(|claim| claim.source.path()).map(|path| path.group).next_back();
        match best.rank() {
            PROVEN => Standing { rank: 2, group: scope::ip_of(&best.address).map(network_group).unwrap_or_default() },
            APPLICATION => Standing { rank: 1, group: [0; 5] },
            _ => Standing { rank: 0, group: told.unwrap_or_default() },
        }
    }

    /// Makes room for an address of `rank`. False when all that is there is better.
    fn make_room(&mut self, rank: u8) -> bool {
        if self.entries.len() < BOOK_ADDRESSES_MAX {
            return true;
        }
        let worst = self.entries.iter().enumerate().min_by_key(|(_, entry)| (entry.rank(), Reverse(entry.failures), entry.told));
        match worst {
            Some((at, worst)) if worst.rank() <= rank => {
                self.entries.remove(at);
                true
            }
            _ => false,
        }
    }
}

/// Where peers may be reached; see the module's own words for its rules.
#[derive(Debug)]
pub struct Book {
    own: PeerId,
    shelves: Shelves,
    /// The addresses of this node's interfaces.
    local: Vec<IpAddr>,
    told: u64,
    sweep_at: Option<Instant>,
}

impl Book {
    /// An empty book of the peer `own`, which holds at most `bytes_max` bytes.
    pub fn new(own: PeerId, bytes_max: u64) -> Book {
        Book { own, shelves: Shelves::new(bytes_max), local: Vec::new(), told: 0, sweep_at: None }
    }

    /// Tells the addresses of this node's own interfaces: what is near them is tried first.
    pub fn set_local(&mut self, local: Vec<IpAddr>) {
        self.local = local;
    }

    /// Takes an address down.
    ///
    /// # Errors
    /// [`Unusable`] says why it is not kept. Nothing has changed.
    pub fn add(&mut self, now: Instant, peer: PeerId, address: &Multiaddr, source: Source) -> Result<(), Unusable> {
        self.tell(now, peer, std::slice::from_ref(address), source, false).into_iter().next().map_or(Ok(()), |(_, why)| Err(why))
    }

    /// Takes down several addresses, best first, beside what was known. Returns what is not kept, and why.
    pub fn add_all(&mut self, now: Instant, peer: PeerId, addresses: &[Multiaddr], source: Source) -> Vec<(Multiaddr, Unusable)> {
        self.tell(now, peer, addresses, source, false)
    }

    /// Takes down what a source tells all at once, best first: of the same kind of source, only that is vouched for from now on, beside what
    /// it told over a path that reaches less far. (What has worked stays, and what others told.) Returns what is not kept, and why.
    pub fn replace(&mut self, now: Instant, peer: PeerId, all: &[Multiaddr], source: Source) -> Vec<(Multiaddr, Unusable)> {
        self.tell(now, peer, all, source, true)
    }

    fn tell(
        &mut self,
        now: Instant,
        peer: PeerId,
        addresses: &[Multiaddr],
        source: Source,
        all: bool,
    ) -> Vec<(Multiaddr, Unusable)> {
        let mut known = self.shelves.take(&peer).unwrap_or_default();
        let (seq, newest) = match source {
            Source::Record { seq, .. } => (Some(seq), known.seq),
            _ => (None, None),
        };
        let mut refused = Vec::new();
        if let Some((seq, newest)) = seq.zip(newest).filter(|(seq, newest)| seq < newest) {
            refused.extend(addresses.iter().map(|address| (address.clone(), Unusable::Stale { seq, known: newest })));
            self.shelves.put(peer, known);
            return refused;
        }
        known.seq = seq.or(known.seq);
        self.told = self.told.saturating_add(1);
        for address in addresses {
            let kept = self.usable(&peer, address, &source).and_then(|(address, scope)| {
                let told = self.told;
                if let Some(entry) = known.entries.iter_mut().find(|entry| entry.address == address) {
                    entry.claim(source, now, told);
                    return Ok(());
                }
                if !known.make_room(source.kind()) {
                    return Err(Unusable::Full);
                }
                let mut entry = Entry::new(address, scope, told);
                entry.claim(source, now, told);
                known.push(entry);
                Ok(())
            });
            if let Err(why) = kept {
                refused.push((address.clone(), why));
            }
        }
        if all {
            let told = self.told;
            known.entries.iter_mut().filter(|entry| entry.told != told).for_each(|entry| entry.take_back(&source));
            known.entries.retain(|entry| entry.is_live(now));
        }
        let kept = self.shelves.put(peer, known);
        if !kept {
            refused = addresses.iter().map(|address| (address.clone(), Unusable::Full)).collect();
        }
        refused
    }

    /// The address as it is kept, and its scope.
    fn usable(&self, peer: &PeerId, address: &Multiaddr, source: &Source) -> Result<(Multiaddr, Scope), Unusable> {
        if *peer == self.own {
            return Err(Unusable::Itself);
        }
        let mut address = address.clone();
        if let Some(Protocol::P2p(named)) = address.iter().last() {
            if named != *peer {
                return Err(Unusable::OtherPeer(named));
            }
            address.pop();
        }
        if address.len() > BOOK_ADDRESS_BYTES_MAX {
            return Err(Unusable::TooLong { bytes: address.len(), max: BOOK_ADDRESS_BYTES_MAX });
        }
        let scope = scope::of_address(&address).ok_or(Unusable::NoHost)?;
        if !scope.is_host() {
            return Err(Unusable::NotAHost(scope));
        }
        match source.path() {
            Some(path) if !scope.holds_over(path.scope) => Err(Unusable::OutOfScope { scope, path: path.scope }),
            // An allocation of its own, of exactly its size: it is counted.
            _ => Multiaddr::try_from(address.to_vec()).map_or(Err(Unusable::NoHost), |address| Ok((address, scope))),
        }
    }

    /// The addresses at which a peer may be dialled, the most promising first: what has worked, then what is best vouched for; among equals what
    /// fits this node's own addresses, then what was told last. What has failed since it last worked comes behind all others. The order depends on
    /// nothing but what is in the book. At most [`BOOK_ADDRESSES_MAX`].
    pub fn candidates(&self, now: Instant, peer: &PeerId) -> Vec<Candidate> {
        let entries = self.shelves.get(peer).map_or(&[][..], |known| &known.entries);
        let mut live: Vec<&Entry> = entries.iter().filter(|entry| entry.is_live(now)).collect();
        live.sort_by_key(|entry| {
            let last = (Reverse(entry.worked), Reverse(entry.told));
            (entry.failures.min(1), Reverse(entry.rank()), self.fit(entry), last)
        });
        live.into_iter().map(Entry::candidate).collect()
    }

    /// Those of a peer's addresses that may be told to somebody over a path of scope `path`: proven ones that hold over it. The best first.
    pub fn proven(&self, now: Instant, peer: &PeerId, path: Scope) -> Vec<Multiaddr> {
        let mut candidates = self.candidates(now, peer);
        candidates.retain(|candidate| candidate.evidence.is_proof() && candidate.scope.holds_over(path));
        candidates.into_iter().map(|candidate| candidate.address).collect()
    }

    /// How likely it leads from here to there: the same network, then what reaches far, then what is near somewhere else.
    fn fit(&self, entry: &Entry) -> u8 {
        let ip = scope::ip_of(&entry.address);
        let same = |a: &[u8], b: &[u8], bytes: usize| a.iter().zip(b).take(bytes).all(|(a, b)| a == b);
        let near = |own: &IpAddr| match (own, ip) {
            (IpAddr::V4(own), Some(IpAddr::V4(ip))) => !ip.is_loopback() && same(&own.octets(), &ip.octets(), 3),
            (IpAddr::V6(own), Some(IpAddr::V6(ip))) => !ip.is_loopback() && same(&own.octets(), &ip.octets(), 8),
            _ => false,
        };
        match entry.scope {
            _ if self.local.iter().any(near) => 0,
            Scope::Global => 1,
            Scope::Shared => 2,
            Scope::Private => 3,
            Scope::Link => 4,
            Scope::Loopback => 5,
            _ => 6,
        }
    }

    /// A dial to this address has ended at the right peer. It is taken down if it is not there.
    pub fn worked(&mut self, now: Instant, peer: &PeerId, address: &Multiaddr) {
        if self.change(peer, address, |entry| entry.note_worked(now)) {
            return;
        }
        // It was pushed out meanwhile, or is from elsewhere: that it worked is worth more than who told it.
        if let Ok((address, scope)) = self.usable(peer, address, &Source::Application) {
            let mut known = self.shelves.take(peer).unwrap_or_default();
            if known.make_room(PROVEN) {
                let mut entry = Entry::new(address, scope, self.told);
                entry.note_worked(now);
                known.push(entry);
            }
            self.shelves.put(*peer, known);
        }
    }

    /// A dial-back has proved this address.
    pub fn dialled_back(&mut self, now: Instant, peer: &PeerId, address: &Multiaddr) {
        self.change(peer, address, |entry| entry.dialled_back = Some(now));
    }

    /// A dial to this address has failed, or another peer answered there. An address that only remotes vouch for, and that never worked, is forgotten when
    /// this was the fourth time in a row.
    pub fn failed(&mut self, now: Instant, peer: &PeerId, address: &Multiaddr) {
        self.change(peer, address, |entry| {
            entry.failures = entry.failures.saturating_add(1);
            entry.failed_at = Some(now);
        });
    }

    /// The connection to a peer has ended: what it has told of itself expires from now on.
    pub fn disconnected(&mut self, now: Instant, peer: &PeerId) {
        let Some(mut known) = self.shelves.take(peer) else {
            return;
        };
        for claim in known.entries.iter_mut().flat_map(|entry| &mut entry.claims) {
            if let (Source::Identify { .. } | Source::Record { .. }, Some(lasts)) = (claim.source, claim.source.lasts()) {
                claim.until = now.checked_add(lasts);
            }
        }
        self.shelves.put(*peer, known);
    }

    /// Changes an entry. False when there is none.
    fn change(&mut self, peer: &PeerId, address: &Multiaddr, change: impl FnOnce(&mut Entry)) -> bool {
        let mut bare = address.clone();
        if let Some(Protocol::P2p(named)) = bare.iter().last()
            && named == *peer
        {
            bare.pop();
        }
        let Some(mut known) = self.shelves.take(peer) else {
            return false;
        };
        let found = known.entries.iter_mut().find(|entry| entry.address == bare).map(change).is_some();
        known.entries.retain(|entry| entry.failures < BOOK_FAILURES_MAX || entry.rank() >= APPLICATION);
        self.shelves.put(*peer, known);
        found
    }

    /// The number of the newest signed record of a peer.
    pub fn record_seq(&self, peer: &PeerId) -> Option<u64> {
        self.shelves.get(peer)?.seq
    }

    /// Forgets what has expired. To be called whenever time passes: it costs nothing but about once a minute, when it looks through all.
    pub fn forget_expired(&mut self, now: Instant) {
        if self.sweep_at.is_some_and(|at| now < at) {
            return;
        }
        self.sweep_at = now.checked_add(BOOK_SWEEP_INTERVAL);
        self.shelves.sweep(|known| {
            let changed = known.entries.iter_mut().map(|entry| entry.expire(now)).filter(|changed| *changed).count() > 0;
            known.entries.retain(|entry| entry.is_live(now));
            changed
        });
    }

    /// Forgets a peer.
    pub fn forget(&mut self, peer: &PeerId) {
        self.shelves.take(peer);
    }

    /// Bytes that it holds, at their allocated size.
    pub fn bytes(&self) -> u64 {
        self.shelves.bytes()
    }

    /// Bytes that it may hold.
    pub fn bytes_max(&self) -> u64 {
        self.shelves.bytes_max()
    }

    /// Of how many peers something is known.
    pub fn peers(&self) -> usize {
        self.shelves.len()
    }
}

#[cfg(test)]
#[path = "book_tests.rs"]
mod tests;
