//! Abuse of the protocols on streams (docs/attacks.md), against a node that serves honest peers.

mod common;
#[path = "common/siege.rs"]
mod siege;

use std::time::Duration;

use siege::{Plan, STUCK, by_one_and_by_many, withstands};
use strait_adversary::Attack;
use strait_sim::{World, scenario};

#[test]
fn slow_select() {
    scenario("slow_select", 1, |world| {
        let siege = withstands(world, &Plan::long(Attack::SlowSelect, 4, Duration::from_secs(14)));
        assert_eq!(siege.sum(|told| told.ended), 0, "it costs the stream, not the connection");
        assert!(siege.after.streams_in > 4 * 256, "no stream was given up, so that another could come: {:?}", siege.after);
    });
}

#[test]
fn slow_request() {
    scenario("slow_request", 1, |world| {
        // Each alone would be found out; 256 together look like a slow link, and have the exchange's whole time.
        let siege = withstands(world, &Plan::long(Attack::SlowRequest, 4, Duration::from_secs(14)));
        assert_eq!(siege.sum(|told| told.ended), 0, "it costs no connection");
    });
}

#[test]
fn giant() {
    scenario("giant", 1, |world| {
        for siege in by_one_and_by_many(world, Attack::Giant) {
            assert!(siege.grown(|totals| totals.breaches) > 0, "no stream is ended for it");
        }
    });
}

#[test]
fn rapid_reset() {
    scenario("rapid_reset", 1, |world| {
        for siege in by_one_and_by_many(world, Attack::RapidReset) {
            assert_eq!(siege.sum(|told| told.ended), 0, "who keeps to the rules is not ended");
        }
    });
}

#[test]
fn zero_window() {
    scenario("zero_window", 1, |world| {
        for siege in by_one_and_by_many(world, Attack::ZeroWindow) {
            assert_eq!(siege.sum(|told| told.ended), 0, "who keeps to the rules is not ended");
        }
    });
}

#[test]
fn echoes() {
    scenario("echoes", 1, |world| {
        for siege in by_one_and_by_many(world, Attack::Echoes) {
            assert_eq!(siege.sum(|told| told.ended), 0, "who keeps to the rules is not ended");
        }
    });
}

#[test]
fn proposals() {
    scenario("proposals", 1, |world| {
        for siege in by_one_and_by_many(world, Attack::Proposals) {
            assert!(siege.grown(|totals| totals.breaches) > 0, "no stream is ended for it");
        }
    });
}

#[test]
fn identify() {
    scenario("identify", 1, |world| {
        for siege in by_one_and_by_many(world, Attack::Identify) {
            assert_eq!(siege.sum(|told| told.ended), 0, "who keeps to the rules is not ended");
        }
    });
}

#[test]
fn requests() {
    scenario("requests", 1, |world| {
        for siege in by_one_and_by_many(world, Attack::Requests) {
            assert_eq!(siege.sum(|told| told.ended), 0, "who keeps to the rules is not ended");
        }
    });
}

/// Row 50: handlers that never answer hold their peers' requests, and nothing of anybody else's.
#[test]
fn stuck_handlers() {
    scenario("stuck_handlers", 1, |world| {
        let mut plan = Plan::new(Attack::Requests, 16);
        plan.target.request = STUCK.name;
        let siege = withstands(world, &plan);
        assert!(siege.streams >= 16 * usize::from(STUCK.per_peer_max), "only {} streams wait", siege.streams);
    });
}

/// Sixty-four attackers at once.
#[test]
fn sixty_four() {
    scenario("sixty_four", 1, |world| {
        for attack in [Attack::Proposals, Attack::Pings] {
            let mut plan = Plan::new(attack, 64);
            // A fair share is smaller among so many.
            plan.rarely = 4;
            withstands(&mut World::new(world.seed()), &plan);
        }
    });
}
