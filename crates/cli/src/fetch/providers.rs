//! Who can be asked, and how each of them fares: which do not answer, which lie, which have only a part.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::ask::{Fetch, Miss, Part, ask};
use crate::exit::{Code, Failure};
use crate::news::News;
use crate::wire::Ask;

/// First and longest wait before a provider that did not answer is tried again; doubled in between, and jittered (TR-44).
const AGAIN: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// A provider that never answered, and was connected, is asked so many times.
const FIRST_TRIES: u32 = 4;
/// First and longest rest of a provider that was too slow, or has not got what was asked for yet.
const REST: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// A page that has not come after so long is asked of another provider too.
const STAGGER: Duration = Duration::from_millis(500);

/// The providers of one transfer. Clones are the same set.
#[derive(Debug)]
pub struct Providers<F>(Arc<Set<F>>);

impl<F> Clone for Providers<F> {
    fn clone(&self) -> Self {
        Providers(self.0.clone())
    }
}

struct Set<F> {
    members: Vec<Member<F>>,
    /// The longest time without anything new, or none.
    timeout: Option<Duration>,
    tell: Box<dyn Fn(&News) + Send + Sync>,
    moved: Mutex<Instant>,
    /// Seed of the jitter, and how often it was drawn from.
    jitter: Mutex<([u8; 32], u64)>,
}

impl<F> std::fmt::Debug for Set<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Set").field("members", &self.members.len()).field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

struct Member<F> {
    fetch: F,
    health: Mutex<Health>,
}

#[derive(Debug, Default)]
struct Health {
    /// It is there and serves: it has given something that was right, or will have it later.
    answered: bool,
    /// It is not asked any more, and why.
    out: Option<Failure>,
    silence: Option<Silence>,
    /// It is not asked before.
    not_before: Option<Instant>,
    /// Times in a row that it was beaten or had not got what was asked for.
    strikes: u32,
    /// One request is finding out whether it answers.
    probing: bool,
    /// It has given a chunk.
    gave: bool,
}

/// It does not answer.
#[derive(Debug)]
struct Silence {
    since: SystemTime,
    /// When the last of its failures was seen: requests that were sent before it say nothing new.
    seen: Instant,
    times: u32,
    failure: Failure,
}

impl Silence {
    /// What it comes to when nobody waits for it any more. One that has answered before was lost, whatever dialling it anew says.
    fn end(&self, answered: bool) -> Failure {
        let lost = answered && self.failure.code == Code::Unreachable;
        Failure { code: if lost { Code::Lost } else { self.failure.code }, ..self.failure.clone() }
    }

    /// At the first contact: a request that was lost is tried again a few times. That nobody is there is believed at once.
    fn may_be_a_mishap(&self) -> bool {
        self.failure.code != Code::Unreachable && self.times < FIRST_TRIES
    }
}

/// Whether a provider can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// For as much as its path holds.
    Ready,
    /// For one thing, to see whether it answers.
    Probe,
    /// Not before.
    Later(Instant),
    /// Not while a first answer is awaited.
    Busy,
    /// No more.
    Out,
}

impl<F: Fetch> From<Arc<F>> for Providers<Arc<F>> {
    fn from(fetch: Arc<F>) -> Self {
        Providers::new(vec![fetch])
    }
}

impl<F: Fetch> Fetch for Arc<F> {
    fn fetch(&self, ask: Ask) -> impl Future<Output = Result<Bytes, super::FetchError>> + Send {
        F::fetch(self, ask)
    }

    fn name(&self) -> String {
        F::name(self)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// The wait number `times`, doubled each time.
fn doubled((first, longest): (Duration, Duration), times: u32) -> Duration {
    first.saturating_mul(1 << times.min(16)).min(longest)
}

impl<F: Fetch> Providers<F> {
    /// These, which all serve the same root. Nothing is asked yet.
    pub fn new(fetches: Vec<F>) -> Providers<F> {
        let members = fetches.into_iter().map(|fetch| Member { fetch, health: Mutex::default() }).collect();
        let (moved, jitter) = (Mutex::new(Instant::now()), Mutex::default());
        Providers(Arc::new(Set { members, timeout: None, tell: Box::new(|_| ()), moved, jitter }))
    }

    /// With a limit for the time in which nothing new comes, a sink for what happens, and a seed for the jitter of waits. To be
    /// called before anything is asked. Without a limit, waits have no end once a provider has answered.
    #[must_use]
    pub fn with(self, timeout: Option<Duration>, seed: [u8; 32], tell: impl Fn(&News) + Send + Sync + 'static) -> Providers<F> {
        let Some(set) = Arc::into_inner(self.0) else { unreachable!("no clone exists before anything is asked") };
        Providers(Arc::new(Set { timeout, tell: Box::new(tell), jitter: Mutex::new((seed, 0)), ..set }))
    }

    pub(super) fn count(&self) -> usize {
        self.0.members.len()
    }

    pub(super) fn name(&self, member: usize) -> String {
        self.0.members[member].fetch.name()
    }

    pub(super) fn standing(&self, member: usize, now: Instant) -> Standing {
        let health = lock(&self.0.members[member].health);
        match &*health {
            Health { out: Some(_), .. } => Standing::Out,
            Health { not_before: Some(at), .. } if *at > now => Standing::Later(*at),
            Health { probing: true, .. } => Standing::Busy,
            Health { answered: true, silence: None, .. } => Standing::Ready,
            _ => Standing::Probe,
        }
    }

    /// Something new is here, so the limit counts from now.
    pub(super) fn moved(&self) {
        *lock(&self.0.moved) = Instant::now();
    }

    /// When the transfer is to be given up if nothing new comes.
    pub(super) fn deadline(&self) -> Option<Instant> {
        lock(&self.0.moved).checked_add(self.0.timeout?)
    }

    /// Why it makes no sense to go on, if it makes none: nobody is left, or the time is over, or nobody has ever answered.
    pub(super) fn hopeless(&self) -> Option<Failure> {
        let in_time = self.deadline().is_none_or(|deadline| Instant::now() < deadline);
        let mut worst: Option<Failure> = None;
        let mut hope = false;
        for member in &self.0.members {
            let health = lock(&member.health);
            let silent = health.silence.as_ref().map(|silence| silence.end(health.answered));
            let met = health.answered || self.0.timeout.is_some() || health.silence.as_ref().is_none_or(Silence::may_be_a_mishap);
            hope |= health.out.is_none() && in_time && met;
            if let Some(failure) = health.out.clone().or(silent)
                && worst.as_ref().is_none_or(|worst| rank(&failure) < rank(worst))
            {
                worst = Some(failure);
            }
        }
        if hope {
            return None;
        }
        Some(worst.unwrap_or_else(|| {
            Failure::new(
                Code::Lost,
                "nothing came for as long as --timeout allows",
                "a provider is gone without a word, is very slow, or has not got the rest yet",
                "check that `strait send` still runs at the other side, then run get again, perhaps with a longer --timeout",
            )
        }))
    }

    /// Asks one provider once, and notes how it went.
    pub(super) async fn ask(&self, member: usize, part: Part) -> Result<Bytes, Miss> {
        let began = Instant::now();
        let _probe = Probe::begin(&self.0.members[member]);
        let result = ask(&self.0.members[member].fetch, part).await;
        match &result {
            Ok(_) => self.gave(member, matches!(part.ask, Ask::Chunk { .. })),
            Err(Miss::Silent(failure)) => self.silent(member, began, failure),
            Err(Miss::NotHere) => {
                lock(&self.0.members[member].health).answered = true;
                self.rest(member);
            }
            Err(Miss::Lacks(failure)) => self.say(member, "lacks", &format!("cannot give a part: {}", failure.what)),
            Err(Miss::Out(failure)) => self.out(member, failure),
        }
        result
    }

    fn say(&self, member: usize, state: &str, words: &str) {
        let name = self.name(member);
        (self.0.tell)(&News::provider(format!("provider {name} {words}"), &name, state, words));
    }

    fn wait(&self, member: usize, since: SystemTime, words: &str, why: &str) {
        let name = self.name(member);
        (self.0.tell)(&News::silent(format!("provider {name} {words}"), &name, since, why));
    }

    fn gave(&self, member: usize, chunk: bool) {
        let mut health = lock(&self.0.members[member].health);
        health.gave |= chunk;
        let was = health.silence.take();
        (health.answered, health.strikes, health.not_before) = (true, 0, None);
        drop(health);
        if was.is_some() {
            self.say(member, "answers", "answers again");
        }
        self.moved();
    }

    fn silent(&self, member: usize, began: Instant, failure: &Failure) {
        let now = Instant::now();
        let mut health = lock(&self.0.members[member].health);
        let health = &mut *health;
        let silence = match &mut health.silence {
            // Of many requests that find out the same, one counts.
            Some(silence) if began <= silence.seen => return,
            Some(silence) => silence,
            none => {
                let since = SystemTime::now();
                if health.answered {
                    let words = format!("does not answer since {}; trying again ({})", clock(since), failure.what);
                    self.wait(member, since, &words, &failure.what);
                }
                none.insert(Silence { since, seen: now, times: 0, failure: failure.clone() })
            }
        };
        let wait = self.jittered(doubled(AGAIN, silence.times));
        silence.times = silence.times.saturating_add(1);
        (silence.seen, silence.failure) = (now, failure.clone());
        if silence.times.is_power_of_two() && silence.times >= 4 {
            let words = format!("still does not answer, since {}; trying again", clock(silence.since));
            self.wait(member, silence.since, &words, &failure.what);
        }
        health.not_before = Some(now + wait);
    }

    fn out(&self, member: usize, failure: &Failure) {
        let first = lock(&self.0.members[member].health).out.replace(failure.clone()).is_none();
        if first && self.count() > 1 {
            self.say(member, "out", &format!("is not asked any more: {}", failure.what));
        }
    }

    /// It has not got it yet, or was too slow: it is left alone for a while, longer each time until it gives something.
    pub(super) fn rest(&self, member: usize) {
        let mut health = lock(&self.0.members[member].health);
        let wait = self.jittered(doubled(REST, health.strikes));
        health.strikes = health.strikes.saturating_add(1);
        health.not_before = Some(Instant::now() + wait);
    }

    /// Give or take a quarter, so that many receivers of one provider do not come back all at once.
    fn jittered(&self, wait: Duration) -> Duration {
        let mut jitter = lock(&self.0.jitter);
        jitter.1 += 1;
        let draw = blake3::keyed_hash(&jitter.0, &jitter.1.to_be_bytes()).as_bytes()[0];
        wait.mul_f64(0.75 + f64::from(draw) / 512.0)
    }

    /// Gets a part from whoever gives it first: one is asked, another too when it takes long, and the next one when it fails.
    pub(super) async fn part(&self, part: Part) -> Result<Bytes, Failure> {
        let mut open = JoinSet::new();
        let (mut asked, mut lacking) = (BTreeSet::new(), BTreeSet::new());
        let mut more_at = Instant::now();
        self.moved(); // before it, perhaps, the disk was waited for
        loop {
            let now = Instant::now();
            if let Some(failure) = self.hopeless() {
                return Err(failure);
            }
            let standings: Vec<_> = (0..self.count()).map(|member| (self.standing(member, now), member)).collect();
            let free = |member: &usize| !asked.contains(member) && !lacking.contains(member);
            let best = standings.iter().filter(|(_, member)| free(member)).min_by_key(|(standing, _)| order(*standing));
            let mut next = None;
            match best {
                Some((Standing::Ready | Standing::Probe, member)) if open.is_empty() || now >= more_at => {
                    let (providers, member) = (self.clone(), *member);
                    asked.insert(member);
                    open.spawn(async move { (member, providers.ask(member, part).await) });
                    more_at = now + STAGGER;
                    continue;
                }
                Some((Standing::Ready | Standing::Probe, _)) => next = Some(more_at),
                Some((Standing::Later(at), _)) => next = Some(*at),
                // Another task awaits the first answer of the only one that can be asked.
                Some((Standing::Busy, _)) => next = Some(now + Duration::from_millis(50)),
                Some((Standing::Out, _)) | None => {}
            }
            let wake = next.into_iter().chain(self.deadline()).min();
            tokio::select! {
                Some(done) = open.join_next() => {
                    let Ok((member, result)) = done else { return Err(Failure::bug("a request broke off")) };
                    asked.remove(&member);
                    match result {
                        Ok(bytes) => return Ok(bytes),
                        Err(Miss::Lacks(failure)) => {
                            lacking.insert(member);
                            let left = |(standing, member): &(Standing, usize)| *standing != Standing::Out && !lacking.contains(member);
                            if !standings.iter().any(left) {
                                return Err(failure);
                            }
                        }
                        Err(_) => more_at = now,
                    }
                }
                () = tokio::time::sleep_until(wake.unwrap_or(now)), if wake.is_some() => {}
                else => return Err(self.hopeless().unwrap_or_else(|| Failure::bug("nobody to ask"))),
            }
        }
    }

    /// Tells all who gave a chunk, once, that a copy is in place (TR-45): also who was slow and is left alone for a while, but not who does
    /// not answer. If no chunk was needed, all who gave the manifest. Says whether all have heard it.
    pub(super) async fn done(&self) -> bool {
        let there = |health: &Health| health.out.is_none() && health.silence.is_none();
        let gave: Vec<_> = self.0.members.iter().map(|member| lock(&member.health).gave).collect();
        let nobody = !gave.contains(&true);
        let mut open = JoinSet::new();
        for (member, gave) in gave.into_iter().enumerate() {
            let told = self.clone();
            let health = lock(&self.0.members[member].health);
            if there(&health) && (gave || nobody && health.answered) {
                open.spawn(async move { told.0.members[member].fetch.fetch(Ask::Done).await.is_ok() });
            }
        }
        open.join_all().await.into_iter().all(|heard| heard)
    }
}

/// Whom to ask first.
fn order(standing: Standing) -> (u8, Option<Instant>) {
    match standing {
        Standing::Ready => (0, None),
        Standing::Probe => (1, None),
        Standing::Later(at) => (2, Some(at)),
        Standing::Busy => (3, None),
        Standing::Out => (4, None),
    }
}

/// Of several failures the one that people should hear of: what is a danger before what is bad luck.
fn rank(failure: &Failure) -> u8 {
    match failure.code {
        Code::Mismatch => 0,
        Code::WrongIdentity => 1,
        Code::SourceChanged => 2,
        Code::NotServed | Code::Incompatible => 3,
        Code::Lost => 4,
        _ => 5,
    }
}

/// Notes that somebody finds out whether a provider answers, until dropped.
struct Probe<'a>(Option<&'a Mutex<Health>>);

impl<'a> Probe<'a> {
    fn begin<F>(member: &'a Member<F>) -> Probe<'a> {
        let mut health = lock(&member.health);
        let first = (!health.answered || health.silence.is_some()) && !health.probing;
        health.probing |= first;
        Probe(first.then_some(&member.health))
    }
}

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        if let Some(health) = self.0 {
            lock(health).probing = false;
        }
    }
}

/// A time of day, as people compare it with a clock.
fn clock(at: SystemTime) -> String {
    let seconds = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs() % 86_400;
    format!("{:02}:{:02}:{:02} UTC", seconds / 3600, seconds / 60 % 60, seconds % 60)
}
