//! The race for one peer: which of its addresses is tried next, and when (RFC 8305, Happy Eyeballs version 2).
//!
//! Pure: the node says what it began and how that ended, and is told what to begin and when to ask again. The order is
//!
//! 1. what worked last, what worked before, what is not known, what failed lately;
//! 2. within each of these, rounds: the first QUIC address of IPv6, the first of IPv4, the first TCP address of IPv6, of IPv4, then the second
//!    of each, and so on. So a network without UDP, or without one of the IP versions, costs a few steps and not all addresses of that kind;
//! 3. within each kind, as given.
//!
//! A step follows the one before after [`STEP_FIRST`], then half of that, down to [`STEP_MIN`]; at once when an attempt has failed.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use multiaddr::Multiaddr;

use super::scope::{self, Scope};
use super::target::Way;
use crate::error::DialError;
use crate::limits::{RACE_ADDRESSES_MAX, STEP_FIRST, STEP_MIN};

/// What is known of an address from before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// It was the last to lead to the peer.
    Last,
    /// It led to the peer, the last time that it was tried.
    Worked,
    /// Never tried, or long ago.
    Unknown,
    /// It failed, the last time that it was tried.
    Failed,
}

/// An address that may be tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entrant {
    /// The transport.
    pub way: Way,
    /// Where.
    pub at: SocketAddr,
    /// The address that was given, when that had a name.
    pub via: Option<Multiaddr>,
    /// What is known of it.
    pub standing: Standing,
    /// It failed lately and rests until then.
    pub not_before: Option<Instant>,
}

impl Entrant {
    /// What is dialled, as a multiaddr.
    pub fn address(&self) -> Multiaddr {
        self.way.address(self.at)
    }

    fn class(&self) -> usize {
        match (self.way, self.at.is_ipv6()) {
            (Way::Quic, true) => 0,
            (Way::Quic, false) => 1,
            (Way::Tcp, true) => 2,
            (Way::Tcp, false) => 3,
        }
    }

    fn rests(&self, now: Instant) -> bool {
        self.not_before.is_some_and(|until| now < until)
    }
}

/// One address of a connect that failed: what was tried, how long, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// What was dialled; when that was never found out, the address that was given.
    pub address: Multiaddr,
    /// The address that was given, when that had a name.
    pub via: Option<Multiaddr>,
    /// For how long it was tried. `None`: it was not tried at all.
    pub took: Option<Duration>,
    /// Why it failed.
    pub error: DialError,
}

impl Attempt {
    /// What its address says about why there may have been no answer.
    fn hint(&self) -> Option<&'static str> {
        let silent = matches!(self.error, DialError::NoAnswer { .. } | DialError::NothingListens | DialError::NoWay(_));
        match scope::of_address(&self.address).filter(|_| silent)? {
            Scope::Loopback => Some("it is an address of one machine: it is right only if the peer runs on this one"),
            Scope::Link | Scope::Private => Some("it is a private address: it is right only if the peer is in this very network"),
            Scope::Shared => Some("it is an address behind a provider's NAT: from outside of that nobody reaches it"),
            _ => None,
        }
    }
}

impl std::fmt::Display for Attempt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.address)?;
        if let Some(via) = self.via.as_ref().filter(|via| **via != self.address) {
            write!(f, " (by {via})")?;
        }
        match self.took {
            Some(took) => write!(f, " after {:.2} s: {}", took.as_secs_f64(), self.error)?,
            None => write!(f, ": {}", self.error)?,
        }
        self.hint().map_or(Ok(()), |hint| write!(f, "; {hint}"))
    }
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Begin this one, by [`Race::begin`].
    Begin,
    /// Nothing before then, or before something ends or is added.
    Wait(Option<Instant>),
    /// Nothing is left to try.
    Over,
}

/// An attempt under way.
#[derive(Debug)]
struct Running {
    number: u32,
    entrant: Entrant,
    since: Instant,
}

/// The race for one peer.
#[derive(Debug)]
pub struct Race {
    /// In the order in which they are begun.
    waiting: Vec<Entrant>,
    running: Vec<Running>,
    failed: Vec<Attempt>,
    /// How many of each class were begun.
    begun: [u32; 4],
    /// How many were added.
    added: usize,
    /// When the next may begin.
    next_at: Instant,
    at_once_max: usize,
}

impl Race {
    /// A race without addresses. At most `at_once_max` attempts are under way at once.
    pub fn new(now: Instant, at_once_max: usize) -> Race {
        Race {
            waiting: Vec::new(),
            running: Vec::new(),
            failed: Vec::new(),
            begun: [0; 4],
            added: 0,
            next_at: now,
            at_once_max: at_once_max.max(1),
        }
    }

    /// Adds an address, unless it was added before. Past [`RACE_ADDRESSES_MAX`] addresses it is not tried, and that is told.
    pub fn add(&mut self, entrant: Entrant) {
        let same = |other: &Entrant| (other.way, other.at) == (entrant.way, entrant.at);
        let known = self.waiting.iter().any(same) || self.running.iter().any(|running| same(&running.entrant));
        let address = entrant.address();
        if known || self.failed.iter().any(|attempt| attempt.address == address) {
            return;
        }
        if self.added >= RACE_ADDRESSES_MAX {
            return self.note(Attempt { address, via: entrant.via, took: None, error: DialError::TooMany });
        }
        self.added = self.added.saturating_add(1);
        self.waiting.push(entrant);
        self.arrange();
    }

    /// Notes an address that cannot be tried. Of those there are no more than twice as many told as can be tried.
    pub fn note(&mut self, attempt: Attempt) {
        let known = self.failed.iter().any(|other| (&other.address, &other.error) == (&attempt.address, &attempt.error));
        if !known && self.failed.len() < RACE_ADDRESSES_MAX.saturating_mul(2) {
            self.failed.push(attempt);
        }
    }

    fn arrange(&mut self) {
        // Those that were begun count: a second answer of a look-up is not in the first round again.
        let mut rounds = [self.begun; 4];
        let mut keyed: Vec<((Standing, u32, usize), Entrant)> = Vec::with_capacity(self.waiting.len());
        for entrant in self.waiting.drain(..) {
            let class = entrant.class();
            let round = rounds.get_mut(entrant.standing as usize).and_then(|rounds| rounds.get_mut(class));
            let round = round.map_or(0, |round| std::mem::replace(round, round.saturating_add(1)));
            keyed.push(((entrant.standing, round, class), entrant));
        }
        keyed.sort_by_key(|(key, _)| *key);
        self.waiting.extend(keyed.into_iter().map(|(_, entrant)| entrant));
    }

    /// Puts off what has not begun until then: more of the preferred kind may come, or nothing is to begin before that.
    pub fn hold(&mut self, until: Instant) {
        if self.begun == [0; 4] {
            self.next_at = self.next_at.max(until);
        }
    }

    /// What to do next. `more`: addresses may still be added, by look-ups that are under way.
    pub fn next(&mut self, now: Instant, more: bool) -> Next {
        let idle = self.running.is_empty() && !more;
        if self.waiting.is_empty() {
            return if idle { Next::Over } else { Next::Wait(None) };
        }
        if self.running.len() >= self.at_once_max {
            return Next::Wait(None);
        }
        if self.waiting.iter().any(|entrant| !entrant.rests(now)) {
            return if self.next_at <= now { Next::Begin } else { Next::Wait(Some(self.next_at)) };
        }
        // All that is left failed lately. If others were tried meanwhile, that is all that can be said now.
        if idle && self.begun != [0; 4] {
            for rests in std::mem::take(&mut self.waiting) {
                let left = rests.not_before.map_or(Duration::ZERO, |until| until.saturating_duration_since(now));
                let error = DialError::Rests { left };
                self.note(Attempt { address: rests.address(), via: rests.via, took: None, error });
            }
            return Next::Over;
        }
        let first = self.waiting.iter().filter_map(|entrant| entrant.not_before).min();
        Next::Wait(first.map(|first| first.max(self.next_at)))
    }

    /// Begins the first that may be tried. Its number, and where it leads.
    pub fn begin(&mut self, now: Instant) -> Option<(u32, Entrant)> {
        let at = self.waiting.iter().position(|entrant| !entrant.rests(now))?;
        let entrant = self.waiting.remove(at);
        let number = self.begun.iter().fold(0u32, |sum, count| sum.saturating_add(*count));
        if let Some(count) = self.begun.get_mut(entrant.class()) {
            *count = count.saturating_add(1);
        }
        self.next_at = now.checked_add(step(number)).unwrap_or(now);
        self.running.push(Running { number, entrant: entrant.clone(), since: now });
        Some((number, entrant))
    }

    /// Puts back what could not be begun for want of room here; it is the next again.
    pub fn put_back(&mut self, number: u32, now: Instant) {
        if let Some(running) = self.take(number) {
            if let Some(count) = self.begun.get_mut(running.entrant.class()) {
                *count = count.saturating_sub(1);
            }
            self.waiting.insert(0, running.entrant);
            self.next_at = now;
        }
    }

    /// Has an attempt begun again at once: what came of it says nothing, since this machine has other addresses now.
    pub fn restart(&mut self, number: u32, now: Instant) {
        if let Some(running) = self.take(number) {
            self.waiting.insert(0, Entrant { not_before: None, ..running.entrant });
            self.next_at = now;
        }
    }

    /// What failed lately may be tried at once, and what was [put off](Self::hold).
    pub fn forgive(&mut self, now: Instant) {
        self.next_at = self.next_at.min(now);
        self.waiting.iter_mut().for_each(|entrant| entrant.not_before = None);
    }

    /// An attempt has failed: the next begins at once.
    pub fn failed(&mut self, now: Instant, number: u32, error: DialError) -> Option<Entrant> {
        let Running { entrant, since, .. } = self.take(number)?;
        let took = Some(now.saturating_duration_since(since));
        self.note(Attempt { address: entrant.address(), via: entrant.via.clone(), took, error });
        self.next_at = now;
        Some(entrant)
    }

    /// Whether somebody was there and had no room.
    pub fn was_refused(&self) -> bool {
        self.failed.iter().any(|attempt| matches!(attempt.error, DialError::Refused(_)))
    }

    /// The attempt that led to the peer.
    pub fn won(&mut self, number: u32) -> Option<Entrant> {
        self.take(number).map(|running| running.entrant)
    }

    fn take(&mut self, number: u32) -> Option<Running> {
        let at = self.running.iter().position(|running| running.number == number)?;
        Some(self.running.remove(at))
    }

    /// How many attempts are under way.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// How many addresses wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// What failed, in the order in which it did.
    pub fn into_failed(self) -> Vec<Attempt> {
        self.failed
    }
}

/// How long after attempt `number` the next one begins, if it is still under way.
fn step(number: u32) -> Duration {
    STEP_FIRST.checked_div(1u32.checked_shl(number).unwrap_or(u32::MAX)).unwrap_or(STEP_MIN).max(STEP_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    /// How long a handshake may take.
    const DEADLINE: Duration = Duration::from_secs(10);

    #[allow(clippy::disallowed_methods, reason = "any instant will do to start from")]
    fn start() -> Instant {
        Instant::now()
    }

    fn entrant(text: &str, standing: Standing) -> Entrant {
        let (way, at) = text.split_once(' ').expect("a transport and an address");
        let way = if way == "quic" { Way::Quic } else { Way::Tcp };
        Entrant { way, at: at.parse().expect("an address"), via: None, standing, not_before: None }
    }

    fn race(now: Instant, addresses: &[&str]) -> Race {
        let mut race = Race::new(now, 8);
        addresses.iter().for_each(|text| race.add(entrant(text, Standing::Unknown)));
        race
    }

    /// Runs a race in a network where `reply` says when and how an address answers (`None`: never). When the first good one is reached, and
    /// the order in which they were begun.
    fn run(
        mut race: Race,
        start: Instant,
        reply: impl Fn(&Entrant) -> Option<(Duration, bool)>,
    ) -> (Option<Duration>, Vec<String>) {
        let (mut now, mut begun, mut ends) = (start, Vec::new(), Vec::<(Instant, u32, bool)>::new());
        for _ in 0..1_000 {
            match race.next(now, false) {
                Next::Over => return (None, begun),
                Next::Begin => {
                    let (number, entrant) = race.begin(now).expect("one is ready");
                    begun.push(format!("{:?} {} at {}", entrant.way, entrant.at, (now - start).as_millis()));
                    let (after, good) = reply(&entrant).unwrap_or((DEADLINE, false));
                    ends.push((now + after, number, good));
                }
                Next::Wait(until) => {
                    let first = ends.iter().min().copied();
                    now = [until, first.map(|(at, ..)| at)].into_iter().flatten().min().expect("something follows");
                    if let Some((at, number, good)) = first.filter(|(at, ..)| *at <= now) {
                        ends.retain(|(_, other, _)| *other != number);
                        if good {
                            return (Some(at - start), begun);
                        }
                        race.failed(now, number, DialError::NothingListens);
                    }
                }
            }
        }
        panic!("the race does not end: {begun:?}");
    }

    const ALL: [&str; 8] = [
        "tcp 9.0.0.1:1",
        "tcp [2000::1]:1",
        "quic 9.0.0.1:1",
        "quic 9.0.0.2:1",
        "quic [2000::1]:1",
        "quic [2000::2]:1",
        "tcp 9.0.0.2:1",
        "tcp [2000::2]:1",
    ];

    #[test]
    fn kinds_take_turns_quic_first_and_the_new_ip_first() {
        let begin = start();
        let (reached, begun) = run(race(begin, &ALL), begin, |_| None);
        assert_eq!(reached, None);
        let want = [
            "Quic [2000::1]:1 at 0",
            "Quic 9.0.0.1:1 at 250",
            "Tcp [2000::1]:1 at 375",
            "Tcp 9.0.0.1:1 at 475",
            "Quic [2000::2]:1 at 575",
            "Quic 9.0.0.2:1 at 675",
            "Tcp [2000::2]:1 at 775",
            "Tcp 9.0.0.2:1 at 875",
        ];
        assert_eq!(begun, want);
    }

    /// Whatever is black-holed, what is left is reached in less than a second more than its own time.
    #[test]
    fn black_holes_cost_less_than_a_second() {
        let own = 60 * MS;
        type Good = fn(&Entrant) -> bool;
        let networks: [(&str, Good); 4] = [
            ("no UDP", |entrant| entrant.way == Way::Tcp),
            ("no IPv6", |entrant| entrant.at.is_ipv4()),
            ("only IPv4 over TCP", |entrant| entrant.at.is_ipv4() && entrant.way == Way::Tcp),
            ("all", |_| true),
        ];
        for (name, good) in networks {
            let begin = start();
            let (reached, _) = run(race(begin, &ALL), begin, |entrant| good(entrant).then_some((own, true)));
            let penalty = reached.expect("one is good") - own;
            assert!(penalty < 1_000 * MS, "{name}: {penalty:?}");
            assert!(name != "all" || penalty == Duration::ZERO, "{penalty:?}");
        }
        for text in ALL {
            let (begin, only) = (start(), entrant(text, Standing::Unknown).address());
            let (reached, _) = run(race(begin, &ALL), begin, |entrant| (entrant.address() == only).then_some((own, true)));
            let penalty = reached.expect("one is good") - own;
            assert!(penalty < 1_000 * MS, "{text}: {penalty:?}");
        }
    }

    #[test]
    fn what_worked_goes_first_and_what_failed_last() {
        let begin = start();
        let mut race = Race::new(begin, 8);
        race.add(entrant("quic [2000::1]:1", Standing::Failed));
        race.add(entrant("quic 9.0.0.1:1", Standing::Unknown));
        race.add(entrant("quic 9.0.0.2:1", Standing::Worked));
        race.add(entrant("tcp 9.0.0.1:1", Standing::Last));
        let (_, begun) = run(race, begin, |_| None);
        let want = ["Tcp 9.0.0.1:1 at 0", "Quic 9.0.0.2:1 at 250", "Quic 9.0.0.1:1 at 375", "Quic [2000::1]:1 at 475"];
        assert_eq!(begun, want);
    }

    #[test]
    fn a_refusal_brings_the_next_at_once_and_the_steps_go_on() {
        let begin = start();
        let addresses = ["quic 9.0.0.1:1", "quic 9.0.0.2:1", "quic 9.0.0.3:1"];
        let (_, begun) =
            run(race(begin, &addresses), begin, |entrant| (entrant.at.ip().to_string() == "9.0.0.1").then_some((3 * MS, false)));
        assert_eq!(begun, ["Quic 9.0.0.1:1 at 0", "Quic 9.0.0.2:1 at 3", "Quic 9.0.0.3:1 at 128"]);
    }

    #[test]
    fn no_more_at_once_than_allowed_and_all_are_told_of() {
        let begin = start();
        let many: Vec<String> = (1..=RACE_ADDRESSES_MAX + 5).map(|n| format!("quic 9.0.0.{n}:1")).collect();
        let mut race = Race::new(begin, 3);
        for text in many.iter().chain(&many) {
            race.add(entrant(text, Standing::Unknown));
        }
        let (mut now, mut most) = (begin, 0);
        let mut open = std::collections::VecDeque::new();
        loop {
            match race.next(now, false) {
                Next::Over => break,
                Next::Begin => open.push_back(race.begin(now).expect("one is ready").0),
                Next::Wait(Some(at)) => now = at,
                Next::Wait(None) => {
                    let number = open.pop_front().expect("it waits for one of these");
                    now += 100 * MS;
                    race.failed(now, number, DialError::NoAnswer { waited: DEADLINE });
                }
            }
            assert_eq!(race.running(), open.len());
            most = most.max(open.len());
        }
        assert_eq!(most, 3);
        let failed = race.into_failed();
        assert_eq!(failed.len(), many.len(), "each address is told of once");
        assert_eq!(failed.iter().filter(|attempt| attempt.error == DialError::TooMany).count(), 5);
        assert!(failed.iter().all(|attempt| attempt.took.is_some() != (attempt.error == DialError::TooMany)));
    }

    #[test]
    fn what_rests_is_waited_for_only_if_there_is_nothing_else() {
        let begin = start();
        let rests = |text| Entrant { not_before: Some(begin + 3_000 * MS), ..entrant(text, Standing::Failed) };
        let mut alone = Race::new(begin, 8);
        alone.add(rests("quic 9.0.0.1:1"));
        let (reached, begun) = run(alone, begin, |_| Some((5 * MS, true)));
        assert_eq!((reached, begun.len()), (Some(3_005 * MS), 1), "{begun:?}");
        let mut race = Race::new(begin, 8);
        race.add(rests("quic 9.0.0.1:1"));
        race.add(entrant("quic 9.0.0.2:1", Standing::Unknown));
        assert_eq!(race.next(begin, false), Next::Begin);
        let (number, _) = race.begin(begin).expect("the one that does not rest");
        race.failed(begin + MS, number, DialError::NothingListens);
        assert_eq!(race.next(begin + MS, false), Next::Over);
        let failed = race.into_failed();
        assert_eq!(failed[1].error, DialError::Rests { left: 2_999 * MS });
    }

    #[test]
    fn look_ups_keep_it_open_and_the_preferred_kind_is_waited_for_a_little() {
        let begin = start();
        let mut race = Race::new(begin, 8);
        assert_eq!(race.next(begin, true), Next::Wait(None));
        race.add(entrant("quic 9.0.0.1:1", Standing::Unknown));
        race.hold(begin + 50 * MS);
        assert_eq!(race.next(begin, true), Next::Wait(Some(begin + 50 * MS)));
        race.add(entrant("quic [2000::1]:1", Standing::Unknown));
        let (_, first) = race.begin(begin + 50 * MS).expect("ready");
        assert!(first.at.is_ipv6());
        race.put_back(0, begin + 50 * MS);
        let (_, again) = race.begin(begin + 50 * MS).expect("ready");
        assert_eq!(again, first, "what found no room is the next again");
    }

    #[test]
    fn what_began_before_the_addresses_changed_begins_again_and_nothing_rests() {
        let now = start();
        let mut race = race(now, &["quic 9.0.0.1:1", "quic 9.0.0.2:1"]);
        race.add(Entrant { not_before: Some(now + DEADLINE), ..entrant("tcp 9.0.0.3:1", Standing::Failed) });
        let (first, _) = race.begin(now).expect("a first");
        let later = now + STEP_FIRST;
        let (second, other) = race.begin(later).expect("a second");
        race.restart(first, later);
        race.forgive(later);
        assert_eq!((race.running(), race.waiting()), (1, 2));
        assert_eq!(race.next(later, false), Next::Begin);
        let (again, entrant) = race.begin(later).expect("the first again");
        assert!(again > second, "its number is new: {again}");
        assert_eq!((entrant.at.to_string().as_str(), other.at.to_string().as_str()), ("9.0.0.1:1", "9.0.0.2:1"));
        let (_, last) = race.begin(later + DEADLINE / 2).expect("it does not rest any more");
        assert_eq!(last.way, Way::Tcp);
        race.restart(first, later);
        assert_eq!((race.running(), race.waiting()), (3, 0), "the old number names nothing");
    }
}
