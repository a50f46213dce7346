//! Several providers at once, in memory and in virtual time: who is slow, lies, leaves or has only a part costs little, and nothing
//! that one of them does hurts what the others gave.

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use common::*;
use strait_cli::exit::{Code, Failure};
use strait_cli::fetch::{Fetch, FetchError, Outcome, Providers};
use strait_cli::news::News;
use strait_cli::progress::Progress;
use strait_cli::provider::Provider;
use strait_cli::wire::{Ask, Status, decline};
use tokio::time::Instant;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

type Says = Box<dyn Fn(Ask, usize, Vec<u8>) -> Result<Vec<u8>, FetchError> + Send + Sync>;

/// A provider behind a path of its own, which may say something else than it should.
struct Actor {
    name: &'static str,
    provider: Arc<Provider>,
    delay: Duration,
    /// Time that each chunk takes on the path, one after the other.
    each: Duration,
    free: Mutex<Instant>,
    /// Chunks that it was asked for.
    asked: Arc<AtomicUsize>,
    /// What becomes of an answer; the number is how many chunks were asked for before.
    says: Says,
}

impl Fetch for Actor {
    async fn fetch(&self, ask: Ask) -> Result<Bytes, FetchError> {
        let mut number = self.asked.load(Ordering::Relaxed);
        let mut at = Instant::now() + self.delay;
        if let Ask::Chunk { .. } = ask {
            number = self.asked.fetch_add(1, Ordering::Relaxed);
            let mut free = self.free.lock().unwrap();
            *free = (*free).max(Instant::now()) + self.each;
            at = *free + self.delay;
        }
        let request = ask.encode(&self.provider.root());
        let reply = self.provider.clone().answer(ask.protocol(), &request).await.to_vec();
        let reply = (self.says)(ask, number, reply);
        tokio::time::sleep_until(at).await;
        reply.map(Bytes::from)
    }

    fn name(&self) -> String {
        self.name.to_owned()
    }
}

/// Providers of one source, and what was said to people.
struct Stage {
    provider: Arc<Provider>,
    actors: Vec<Actor>,
    asked: BTreeMap<&'static str, Arc<AtomicUsize>>,
    said: Arc<Mutex<Vec<String>>>,
    timeout: Option<Duration>,
}

impl Stage {
    fn new(provider: &Arc<Provider>) -> Stage {
        let (provider, said) = (provider.clone(), Arc::new(Mutex::new(Vec::new())));
        Stage { provider, actors: Vec::new(), asked: BTreeMap::new(), said, timeout: None }
    }

    fn with(
        mut self,
        name: &'static str,
        delay: Duration,
        each: Duration,
        says: impl Fn(Ask, usize, Vec<u8>) -> Result<Vec<u8>, FetchError> + Send + Sync + 'static,
    ) -> Stage {
        let asked = self.asked.entry(name).or_default().clone();
        let (provider, free) = (self.provider.clone(), Mutex::new(Instant::now()));
        self.actors.push(Actor { name, provider, delay, each, free, asked, says: Box::new(says) });
        self
    }

    fn honest(self, name: &'static str) -> Stage {
        self.with(name, 50 * MS, 20 * MS, |_, _, reply| Ok(reply))
    }

    fn asked(&self) -> impl Fn(&str) -> usize + use<> {
        let asked = self.asked.clone();
        move |name| asked[name].load(Ordering::Relaxed)
    }

    /// Fetches, and says how long it took.
    async fn get(self, dir: &Path) -> (Result<Outcome, Failure>, Duration, String) {
        let (began, said) = (Instant::now(), self.said.clone());
        let say = move |news: &News| said.lock().unwrap().push(news.to_string());
        let providers = Providers::new(self.actors).with(self.timeout, [3; 32], say);
        let result = strait_cli::fetch::get(providers, self.provider.root(), dir, &Progress::new(true)).await;
        (result, began.elapsed(), self.said.lock().unwrap().join("\n"))
    }
}

fn lie(ask: Ask, mut reply: Vec<u8>) -> Result<Vec<u8>, FetchError> {
    if let Ask::Chunk { .. } = ask {
        *reply.last_mut().unwrap() ^= 1;
    }
    Ok(reply)
}

fn gone() -> FetchError {
    let failure = Failure::new(Code::Unreachable, "nobody answers at its address", "it left", "wait");
    FetchError::Unreachable(Box::new(failure))
}

/// One file of so many chunks.
fn chunks(dir: &Path, count: usize) -> Arc<Provider> {
    write(&dir.join("file"), &pattern((count << 18) - 99, 1));
    let provider = provider(&[dir.join("file")]);
    assert_eq!(provider.source().unwrap().header().content().leaves(), count as u64);
    provider
}

/// TR-70, TR-71: beside an honest provider one that lies, one of a byte a second and one that leaves cost next to nothing.
#[tokio::test(start_paused = true)]
async fn one_honest_provider_among_hostile_ones() {
    let from = tempfile::tempdir().unwrap();
    let provider = chunks(from.path(), 64);
    let to = tempfile::tempdir().unwrap();
    let (result, alone, _) = Stage::new(&provider).honest("honest").get(to.path()).await;
    result.unwrap();
    assert_same(from.path(), to.path());

    let to = tempfile::tempdir().unwrap();
    let stage = Stage::new(&provider)
        .with("liar", 10 * MS, MS, |ask, _, reply| lie(ask, reply))
        .with("late liar", 30 * MS, 30 * MS, |ask, number, reply| if number < 5 { Ok(reply) } else { lie(ask, reply) })
        .with("slow", 3600 * SECOND, 3600 * SECOND, |_, _, reply| Ok(reply))
        .with("slow with chunks", 10 * MS, 3600 * SECOND, |_, _, reply| Ok(reply))
        .with("leaver", 30 * MS, 30 * MS, |_, number, reply| if number < 8 { Ok(reply) } else { Err(gone()) })
        .with("absent", 5 * SECOND, MS, |_, _, _| Err(gone()))
        .honest("honest");
    let asked = stage.asked();
    let (result, together, said) = stage.get(to.path()).await;
    let outcome = result.unwrap();
    assert_same(from.path(), to.path());
    assert!(together < alone + SECOND, "{together:?} instead of {alone:?}");
    assert!(asked("liar") <= 4, "what it was asked for at once: {}", asked("liar"));
    assert!(asked("late liar") <= 5 + 16, "what was under way when it lied: {}", asked("late liar"));
    for line in
        ["provider liar is not asked any more", "provider late liar is not asked any more", "provider leaver does not answer"]
    {
        assert_eq!(said.matches(line).count(), 1, "{line}: {said}");
    }
    assert!(outcome.duplicates <= 16, "{}", outcome.duplicates);
    let all: usize = ["liar", "late liar", "slow", "slow with chunks", "leaver", "absent", "honest"].map(asked).iter().sum();
    assert!(all <= 64 + 60, "{all} requests for 64 chunks");
    assert_eq!(outcome.given.iter().map(|given| given.chunks).sum::<u64>(), 64);
}

/// TR-70: when all lie, that is what people are told, and nothing is in place.
#[tokio::test(start_paused = true)]
async fn when_all_lie_the_transfer_fails_as_with_one() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let provider = chunks(from.path(), 8);
    let stage =
        Stage::new(&provider)
            .with("one", MS, MS, |ask, _, reply| lie(ask, reply))
            .with("two", MS, MS, |ask, _, reply| lie(ask, reply));
    let (result, _, _) = stage.get(to.path()).await;
    assert_eq!(result.unwrap_err().code, Code::Mismatch);
    assert_nothing_in_place(to.path());
}

/// TR-42: a file that changed at one provider comes from another. When it changed at all of them, that is the failure.
#[tokio::test(start_paused = true)]
async fn what_one_cannot_give_another_does() {
    let from = tempfile::tempdir().unwrap();
    let provider = chunks(from.path(), 32);
    let changed = |first: u64| {
        move |ask, _, reply| match ask {
            Ask::Chunk { index } if (first..first + 5).contains(&index) => Ok(decline(Status::SourceChanged, "file")),
            _ => Ok(reply),
        }
    };
    let to = tempfile::tempdir().unwrap();
    let stage = Stage::new(&provider).with("one", MS, MS, changed(0)).with("two", MS, MS, changed(20));
    let (result, _, said) = stage.get(to.path()).await;
    result.unwrap();
    assert_same(from.path(), to.path());
    assert!(said.contains("changed at the sender"), "{said}");

    let to = tempfile::tempdir().unwrap();
    let stage = Stage::new(&provider).with("one", MS, MS, changed(10)).with("two", MS, MS, changed(13));
    assert_eq!(stage.get(to.path()).await.0.unwrap_err().code, Code::SourceChanged);
    assert_nothing_in_place(to.path());
}

/// TR-47: "not here yet" is no fault. Who has a part gives that part, and is asked for the rest now and then until it has it.
#[tokio::test(start_paused = true)]
async fn a_provider_with_a_part_is_asked_again_when_it_may_have_more() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let provider = chunks(from.path(), 16);
    let start = Instant::now();
    let stage = Stage::new(&provider).with("part", MS, MS, move |ask, _, reply| match ask {
        Ask::Chunk { index } if index % 2 == 1 && start.elapsed() < 600 * SECOND => Ok(decline(Status::NotYet, "")),
        Ask::Header if start.elapsed() < 60 * SECOND => Ok(decline(Status::NotYet, "")),
        _ => Ok(reply),
    });
    let asked = stage.asked();
    let (result, took, _) = stage.get(to.path()).await;
    result.unwrap();
    assert_same(from.path(), to.path());
    assert!((600 * SECOND..620 * SECOND).contains(&took), "{took:?}");
    assert!(asked("part") < 1500, "{} requests in ten minutes", asked("part"));
}

/// TR-44: a provider that is away is waited for without end, tried at growing intervals, and told of.
#[tokio::test(start_paused = true)]
async fn a_provider_that_comes_back_goes_on() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let provider = chunks(from.path(), 32);
    let start = Instant::now();
    let away = move || (SECOND..7200 * SECOND).contains(&start.elapsed());
    let stage = Stage::new(&provider).with("one", MS, 100 * MS, move |_, _, reply| if away() { Err(gone()) } else { Ok(reply) });
    let asked = stage.asked();
    let (result, took, said) = stage.get(to.path()).await;
    result.unwrap();
    assert_same(from.path(), to.path());
    assert!((7200 * SECOND..7220 * SECOND).contains(&took), "{took:?}");
    assert!(asked("one") < 32 + 16 + 7200 / 7, "{} requests", asked("one"));
    assert!(said.contains("provider one does not answer since ") && said.ends_with("provider one answers again"), "{said}");
    assert!(said.lines().count() < 20, "{said}");
}

/// Nobody there at the first contact ends it at once, unless the user said how long to wait.
#[tokio::test(start_paused = true)]
async fn the_first_contact_fails_soon_without_a_timeout_and_waits_with_one() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let provider = chunks(from.path(), 4);
    let start = Instant::now();
    let late = move |_, _, reply| if start.elapsed() < 300 * SECOND { Err(gone()) } else { Ok(reply) };
    let (result, took, _) = Stage::new(&provider).with("late", 10 * SECOND, MS, late).get(to.path()).await;
    assert_eq!(result.unwrap_err().code, Code::Unreachable);
    assert!(took < 11 * SECOND, "{took:?}");

    let mut stage = Stage::new(&provider).with("late", 10 * SECOND, MS, late);
    stage.timeout = Some(100 * SECOND);
    let (result, took, _) = stage.get(to.path()).await;
    assert_eq!(result.unwrap_err().code, Code::Unreachable);
    assert!((100 * SECOND..112 * SECOND).contains(&took), "{took:?}");

    let mut stage = Stage::new(&provider).with("late", 10 * SECOND, MS, late);
    stage.timeout = Some(1000 * SECOND);
    stage.get(to.path()).await.0.unwrap();
    assert_same(from.path(), to.path());
}

/// The more there are, the sooner it is done: two equal providers take little more than half as long as one.
#[tokio::test(start_paused = true)]
async fn two_providers_share_the_work() {
    let from = tempfile::tempdir().unwrap();
    let provider = chunks(from.path(), 96);
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (result, alone, _) = Stage::new(&provider).honest("one").get(one.path()).await;
    result.unwrap();
    let (result, together, _) = Stage::new(&provider).honest("one").honest("two").get(two.path()).await;
    let outcome = result.unwrap();
    assert_same(from.path(), two.path());
    assert!(together * 10 < alone * 7, "{together:?} instead of {alone:?}");
    assert!(outcome.given.iter().all(|given| given.chunks > 96 / 3), "{:?}", outcome.given);
    assert!(outcome.duplicates <= 4, "{}", outcome.duplicates);
}

/// TR-45: done goes to who gave a chunk, and not to who gave only the manifest. When no chunk was needed it goes to
/// who gave the manifest, so that a sender which waits for one copy ends.
#[tokio::test(start_paused = true)]
async fn done_goes_to_those_that_gave_something() {
    for (count, expected) in [(8, "giver"), (0, "manifest only")] {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let provider = if count == 0 {
            write(&from.path().join("file"), EMPTY);
            provider(&[from.path().join("file")])
        } else {
            chunks(from.path(), count)
        };
        let told = Arc::new(Mutex::new(Vec::new()));
        let (one, two) = (told.clone(), told.clone());
        let done = |told: &Mutex<Vec<_>>, ask, name| {
            if ask == Ask::Done {
                told.lock().unwrap().push(name)
            }
        };
        let stage = Stage::new(&provider)
            .with("giver", 2 * SECOND, MS, move |ask, _, reply| {
                done(&one, ask, "giver");
                Ok(reply)
            })
            .with("manifest only", MS, MS, move |ask, _, reply| {
                done(&two, ask, "manifest only");
                Ok(if let Ask::Chunk { .. } = ask { decline(Status::NotYet, "") } else { reply })
            });
        stage.get(to.path()).await.0.unwrap();
        assert_same(from.path(), to.path());
        assert_eq!(*told.lock().unwrap(), [expected]);
    }
}
