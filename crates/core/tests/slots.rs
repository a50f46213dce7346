//! Who keeps and who gets a slot in hours of attack: the rule of `docs/admission.md`, run in virtual time. The promises asserted here are those
//! of that page, and so is the table:
//!
//! ```sh
//! cargo test --package strait-core --test slots -- --nocapture the_table_in_the_docs
//! ```

#[path = "slots/model.rs"]
mod model;

use std::fs;
use std::path::Path;

use model::{Attack, Outcome, Plan, run};

const SEEDS: [u64; 2] = [1, 2];

/// Small nodes are the easier prey.
const SLOTS: u32 = 64;

fn attacks() -> Vec<(&'static str, Option<Attack>)> {
    vec![
        ("none", None),
        ("idle, 1 : 1", Some(Attack { ratio: 1, ..Attack::IDLE })),
        ("idle, 16 : 1", Some(Attack { ratio: 16, ..Attack::IDLE })),
        ("asking, 1 : 1", Some(Attack { ratio: 1, ..Attack::ASKING })),
        ("asking, 4 : 1", Some(Attack::ASKING)),
        ("asking, 16 : 1", Some(Attack { ratio: 16, ..Attack::ASKING })),
        ("asking from next door, 4 : 1", Some(Attack::NEAR)),
        ("asking from a network each, 4 : 1", Some(Attack::GROUPS)),
        ("best at all, 1 : 1", Some(Attack { ratio: 1, ..Attack::ALL })),
        ("best at all, 4 : 1", Some(Attack::ALL)),
        ("best at all, 16 : 1", Some(Attack { ratio: 16, ..Attack::ALL })),
        ("best at all and there first, 4 : 1", Some(Attack { first: true, ..Attack::ALL })),
        ("fresh and idle, 1 a second", Some(Attack { fresh: Some(1), ..Attack::STORM })),
        ("fresh and idle, 10 a second", Some(Attack::STORM)),
        ("fresh and idle, 100 a second", Some(Attack { fresh: Some(100), ..Attack::STORM })),
        ("fresh and best at all, 10 a second", Some(Attack::STORM_ALL)),
        ("fresh and best at all, 100 a second", Some(Attack { fresh: Some(100), ..Attack::STORM_ALL })),
    ]
}

fn row(slots: u32, name: &str, outcome: &Outcome) -> String {
    let Outcome { residents_kept, in_time, newcomer, newcomer_p95, attackers, attackers_most, changes, .. } = outcome;
    let percent = |share: f64| share * 100.0;
    format!(
        "| {slots} | {name} | {:.0} % | {:.1} % | {newcomer:.1} s, {newcomer_p95:.0} s | {:.0} %, {:.0} % | {changes:.0} |\n",
        percent(*residents_kept),
        percent(*in_time),
        percent(*attackers),
        percent(*attackers_most),
    )
}

fn table() -> String {
    let mut text = String::from(
        "| slots | attack | residents never displaced | asked and answered within 10 s | newcomer's first answer: median, 95 % | attackers' slots: mean, most | changes an hour and slot |\n|---|---|---|---|---|---|---|\n",
    );
    for (name, attack) in attacks() {
        text += &row(SLOTS, name, &run(Plan { slots: SLOTS, attack }, SEEDS[0]));
    }
    for (name, attack) in attacks().into_iter().filter(|(name, _)| ["idle, 1 : 1", "best at all, 1 : 1"].contains(name)) {
        text += &row(512, name, &run(Plan { slots: 512, attack }, SEEDS[0]));
    }
    text
}

#[test]
fn the_table_in_the_docs_is_what_comes_out() {
    let table = table();
    println!("{table}");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/admission.md");
    let page = fs::read_to_string(path).expect("the page is there");
    assert!(page.contains(&table), "docs/admission.md has another table; this is the one:\n{table}");
}

/// Runs an attack for each seed.
fn outcomes(attack: Option<Attack>) -> Vec<Outcome> {
    let all = SEEDS.map(|seed| run(Plan { slots: SLOTS, attack }, seed));
    println!("{attack:?}: {all:#?}");
    all.to_vec()
}

#[test]
fn without_an_attack_nobody_goes() {
    for outcome in outcomes(None) {
        assert_eq!((outcome.changes, outcome.in_time, outcome.residents_kept, outcome.occasional_kept), (0.0, 1.0, 1.0, 1.0));
    }
}

#[test]
fn squatters_that_do_nothing_cost_those_in_use_nothing() {
    for attack in [Attack { ratio: 16, ..Attack::IDLE }, Attack::STORM, Attack { fresh: Some(100), ..Attack::STORM }] {
        for outcome in outcomes(Some(attack)) {
            assert_eq!(outcome.residents_kept, 1.0, "one who asks three times a minute was displaced");
            assert!(outcome.in_time > 0.98, "{outcome:?}");
            assert!(outcome.attackers_most < 0.5, "{outcome:?}");
        }
    }
}

#[test]
fn a_newcomer_gets_in_whatever_squatters_do() {
    for (name, attack) in attacks() {
        let Some(attack) = attack else {
            continue;
        };
        // Attempts a second that compete with the honest ones for the slots that go around: 14 of 56, each for two seconds at least.
        let heavy = attack.ratio > 4 || attack.fresh.is_some_and(|rate| rate > 10);
        let (median, most) = if heavy { (90.0, 420.0) } else { (5.0, 60.0) };
        for outcome in outcomes(Some(attack)) {
            assert!(outcome.newcomer <= median && outcome.newcomer_p95 <= most, "{name}: {outcome:?}");
        }
    }
}

#[test]
fn squatters_that_ask_never_hold_all_and_the_longest_connected_stay() {
    for attack in [Attack::ASKING, Attack::NEAR, Attack::GROUPS, Attack::ALL, Attack { ratio: 16, ..Attack::ALL }] {
        for outcome in outcomes(Some(attack)) {
            // Three eighths of the slots are sure to those connected longest: of the residents, who have four tenths, more than a half.
            assert!(outcome.residents_kept >= 0.5, "{outcome:?}");
            assert!(outcome.attackers <= 0.78, "{outcome:?}");
            assert!(outcome.in_time >= 0.75, "{outcome:?}");
        }
    }
    for outcome in outcomes(Some(Attack { first: true, ..Attack::ALL })) {
        assert!(outcome.in_time >= 0.95 && outcome.attackers < 0.95, "though they were there first: {outcome:?}");
    }
}
