//! Attacks with frames of a peer that is properly connected (docs/attacks.md), against a node that serves honest peers.

mod common;
#[path = "common/siege.rs"]
mod siege;

use siege::{Plan, by_one_and_by_many, withstands};
use strait_adversary::Attack;
use strait_sim::scenario;

#[test]
fn empty_frames() {
    scenario("empty_frames", 1, |world| {
        for siege in by_one_and_by_many(world, Attack::EmptyFrames) {
            assert_eq!(siege.sum(|told| told.ended), 0, "who keeps to the rules is not ended");
        }
    });
}

#[test]
fn tiny_frames() {
    scenario("tiny_frames", 1, |world| {
        for siege in by_one_and_by_many(world, Attack::TinyFrames) {
            assert_eq!(siege.sum(|told| told.ended), 0, "who keeps to the rules is not ended");
        }
    });
}

#[test]
fn pings() {
    scenario("pings", 1, |world| {
        for siege in by_one_and_by_many(world, Attack::Pings) {
            assert_eq!(siege.sum(|told| told.ended), 0, "who keeps to the rules is not ended");
        }
    });
}

#[test]
fn path_challenges() {
    scenario("path_challenges", 1, |world| {
        for siege in by_one_and_by_many(world, Attack::PathChallenges) {
            assert_eq!(siege.sum(|told| told.ended), 0, "who keeps to the rules is not ended");
        }
    });
}

#[test]
fn retire_ids() {
    scenario("retire_ids", 1, |world| {
        for siege in by_one_and_by_many(world, Attack::RetireIds) {
            assert!(siege.sum(|told| told.ended) > 0, "it is not ended");
        }
    });
}

#[test]
fn endless_crypto() {
    scenario("endless_crypto", 1, |world| {
        for siege in by_one_and_by_many(world, Attack::EndlessCrypto) {
            assert!(siege.sum(|told| told.ended) > 0, "it is not ended");
        }
    });
}

#[test]
fn optimistic_ack() {
    scenario("optimistic_ack", 1, |world| {
        for siege in by_one_and_by_many(world, Attack::OptimisticAck) {
            assert!(siege.sum(|told| told.ended) > 0, "it is not ended");
        }
    });
}

#[test]
fn ack_ranges() {
    scenario("ack_ranges", 1, |world| {
        for siege in by_one_and_by_many(world, Attack::AckRanges) {
            assert_eq!(siege.sum(|told| told.ended), 0, "who keeps to the rules is not ended");
        }
    });
}

#[test]
fn gaps() {
    scenario("gaps", 1, |world| {
        for siege in by_one_and_by_many(world, Attack::Gaps) {
            assert!(siege.sum(|told| told.ended) > 0, "it is not ended");
        }
    });
}

#[test]
fn migration() {
    scenario("migration", 1, |world| {
        for siege in by_one_and_by_many(world, Attack::Migration) {
            assert_eq!(siege.sum(|told| told.ended), 0, "who keeps to the rules is not ended");
        }
    });
}

#[test]
fn bad_frames() {
    scenario("bad_frames", 1, |world| {
        for siege in by_one_and_by_many(world, Attack::BadFrames) {
            assert!(siege.sum(|told| told.ended) > 0, "it is not ended");
        }
    });
}

#[test]
fn blocked() {
    scenario("blocked", 1, |world| {
        for siege in by_one_and_by_many(world, Attack::Blocked) {
            assert_eq!(siege.sum(|told| told.ended), 0, "who keeps to the rules is not ended");
        }
    });
}

/// A packet full of frames is paid for by the frame. At a low rate, so that each is opened.
#[test]
fn frames_are_charged() {
    scenario("frames_are_charged", 1, |world| {
        let plan = Plan { rate: 2, ..Plan::new(Attack::Pings, 1) };
        let siege = withstands(world, &plan);
        let each = siege.grown(|totals| totals.work) / siege.grown(|totals| totals.datagrams_in);
        assert!(each > 10_000, "frames cost nothing beside their packet: {each} a datagram");
    });
}
