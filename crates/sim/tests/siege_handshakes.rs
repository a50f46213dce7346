//! Handshakes that are slow, wrong, too many, or over too soon (docs/attacks.md), against a node that serves honest peers.

mod common;
#[path = "common/siege.rs"]
mod siege;

use std::time::Duration;

use siege::{Plan, by_one_and_by_many, withstands};
use strait::Limits;
use strait_adversary::Attack;
use strait_core::Totals;
use strait_sim::{World, scenario};

#[test]
fn squat() {
    scenario("squat", 1, |world| {
        let [one, many] = by_one_and_by_many(world, Attack::Squat);
        assert!(one.connections > 50 && many.connections > 80, "{} and {}", one.connections, many.connections);
        // Until nobody else fits: who is there and at work keeps its place.
        let mut plan = Plan::new(Attack::Squat, 16);
        plan.limits = Limits { connections_max: 64, ..plan.limits };
        let full = withstands(&mut World::new(world.seed()), &plan);
        // Places of handshakes are beside the slots.
        let most = plan.limits.places() as usize;
        assert!((38..=most).contains(&full.connections), "{} connections", full.connections);
        let turned_away = |totals: &Totals| totals.refused + totals.refused_full + totals.displaced_never_used;
        assert!(full.grown(turned_away) > 0, "it was never full");
    });
}

#[test]
fn slow_handshake() {
    scenario("slow_handshake", 1, |world| {
        let siege = withstands(world, &Plan::long(Attack::SlowHandshake, 16, Duration::from_secs(14)));
        assert_eq!(siege.sum(|told| told.opened), 0);
        assert!(siege.grown(|totals| totals.handshakes_in_failed) >= 16, "no handshake is given up");
    });
}

#[test]
fn bad_params() {
    scenario("bad_params", 1, |world| {
        by_one_and_by_many(world, Attack::BadParams);
    });
}

#[test]
fn rsa_burn() {
    scenario("rsa_burn", 1, |world| {
        for siege in by_one_and_by_many(world, Attack::RsaBurn) {
            assert_eq!(siege.sum(|told| told.opened), 0, "nobody gets in with that");
            assert!(siege.sum(|told| told.ended) > 0, "nobody is told so");
        }
    });
}

#[test]
fn wrong_at_the_end() {
    scenario("wrong_at_the_end", 1, |world| {
        for siege in by_one_and_by_many(world, Attack::WrongAtTheEnd) {
            assert_eq!(siege.sum(|told| told.opened), 0, "nobody gets in with that");
            assert!(siege.sum(|told| told.ended) > 0, "nobody is told so");
        }
    });
}

#[test]
fn cut_certificate() {
    scenario("cut_certificate", 1, |world| {
        for siege in by_one_and_by_many(world, Attack::CutCertificate) {
            assert_eq!(siege.sum(|told| told.opened), 0, "nobody gets in with that");
            assert!(siege.sum(|told| told.ended) > 0, "nobody is told so");
        }
    });
}

#[test]
fn large_certificate() {
    scenario("large_certificate", 1, |world| {
        for siege in by_one_and_by_many(world, Attack::LargeCertificate) {
            assert!(siege.sum(|told| told.opened) > 5, "they do not get in, so nothing was shown");
        }
    });
}

#[test]
fn churn() {
    scenario("churn", 1, |world| {
        for siege in by_one_and_by_many(world, Attack::Churn) {
            assert!(siege.sum(|told| told.opened) > 5, "they do not get in, so nothing was shown");
        }
    });
}
