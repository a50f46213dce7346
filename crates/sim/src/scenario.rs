//! Runs a scenario for several seeds, each twice, and tells how to replay the one that fails.

use std::any::Any;
use std::env;
use std::panic::{AssertUnwindSafe, Location, catch_unwind, panic_any};
use std::path::Path;

use crate::world::World;

/// Runs `body` for `seeds` seeds, each twice: both runs have to send the same datagrams at the same times.
///
/// `name` has to be the name of the test function, so that the command that replays a failure is right.
/// Two variables of the environment change what runs: `STRAIT_SEED=n` only this seed, `STRAIT_SEEDS=n` so
/// many seeds instead of `seeds`.
///
/// # Panics
/// If a run panics or its second run differs; the message has the seed and the command that replays it.
#[track_caller]
pub fn scenario(name: &str, seeds: u64, body: impl Fn(&mut World)) {
    let file = Path::new(Location::caller().file());
    let target = match file.file_stem().and_then(|stem| stem.to_str()) {
        // A unit test or an example in the library.
        None | Some("lib") => String::new(),
        Some(stem) if file.components().any(|part| part.as_os_str() == "tests") => {
            format!(" --test {stem}")
        }
        Some(_) => String::new(),
    };
    let package = env::var("CARGO_PKG_NAME").unwrap_or_else(|_| "strait-sim".to_owned());
    for seed in chosen_seeds(seeds) {
        let run = catch_unwind(AssertUnwindSafe(|| twice(seed, &body)));
        if let Err(payload) = run {
            // As a message of its own, so that it is the last one and complete.
            panic_any(format!(
                "scenario {name} failed with seed {seed}: {}\n\
                 replay: STRAIT_SEED={seed} cargo test -p {package}{target} -- {name} --nocapture",
                message(&*payload),
            ));
        }
    }
}

fn twice(seed: u64, body: &impl Fn(&mut World)) {
    let mut world = World::new(seed);
    body(&mut world);
    let first = world.into_trace();
    let (digest, count) = (first.digest(), first.count());
    let mut world = World::expecting(seed, first.into_entries());
    body(&mut world);
    let second = world.into_trace();
    assert!(
        digest == second.digest(),
        "the second run of this seed is not the first: {count} entries against {}; so something in it does \
         not come from the seed",
        second.count(),
    );
}

fn chosen_seeds(seeds: u64) -> Vec<u64> {
    if let Some(seed) = number("STRAIT_SEED") {
        return vec![seed];
    }
    (1..=number("STRAIT_SEEDS").unwrap_or(seeds)).collect()
}

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    match text.parse() {
        Ok(number) => Some(number),
        Err(_) => panic!("{variable} is {text:?}: it has to be a whole number"),
    }
}

fn message(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("a panic without a text")
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn failure(body: impl Fn(&mut World)) -> String {
        let payload = catch_unwind(AssertUnwindSafe(|| scenario("the_test", 3, body))).expect_err("the scenario fails");
        message(&*payload).to_owned()
    }

    #[test]
    fn each_seed_runs_twice() {
        let runs = Cell::new(0);
        scenario("each_seed_runs_twice", 3, |_| runs.set(runs.get() + 1));
        let seeds = chosen_seeds(3).len();
        assert_eq!(runs.get(), 2 * seeds);
    }

    #[test]
    fn a_failure_tells_how_to_replay_it() {
        let text = failure(|_| panic!("byte 7 is wrong"));
        assert!(text.contains("byte 7 is wrong"), "{text}");
        assert!(text.contains("cargo test -p strait-sim -- the_test --nocapture"), "{text}");
        assert!(text.contains("replay: STRAIT_SEED="), "{text}");
    }

    #[test]
    fn a_run_that_does_not_come_from_its_seed_is_found() {
        let runs = Cell::new(0);
        let text = failure(|world| {
            runs.set(runs.get() + 1);
            world.note(format!("run {}", runs.get()));
        });
        assert!(text.contains("entry 0 differs"), "{text}");
    }

    #[test]
    fn a_shorter_second_run_is_found() {
        let runs = Cell::new(0);
        let text = failure(|world| {
            runs.set(runs.get() + 1);
            for _ in runs.get()..3 {
                world.note("again");
            }
        });
        assert!(text.contains("2 entries against 1"), "{text}");
    }
}
