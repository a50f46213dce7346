//! Attacks with frames of a peer that is properly connected (docs/attacks.md), against a node that serves honest peers.

mod common;
#[path = "common/siege.rs"]
mod siege;

use siege::by_one_and_by_many;
use strait_adversary::Attack;
use strait_sim::scenario;

#[test]
fn empty_frames() {
    scenario("empty_frames", 1, |world| {
        by_one_and_by_many(world, Attack::EmptyFrames);
    });
}

#[test]
fn tiny_frames() {
    scenario("tiny_frames", 1, |world| {
        by_one_and_by_many(world, Attack::TinyFrames);
    });
}

#[test]
fn pings() {
    scenario("pings", 1, |world| {
        by_one_and_by_many(world, Attack::Pings);
    });
}

#[test]
fn path_challenges() {
    scenario("path_challenges", 1, |world| {
        by_one_and_by_many(world, Attack::PathChallenges);
    });
}

#[test]
fn retire_ids() {
    scenario("retire_ids", 1, |world| {
        by_one_and_by_many(world, Attack::RetireIds);
    });
}

#[test]
fn endless_crypto() {
    scenario("endless_crypto", 1, |world| {
        by_one_and_by_many(world, Attack::EndlessCrypto);
    });
}

#[test]
fn optimistic_ack() {
    scenario("optimistic_ack", 1, |world| {
        by_one_and_by_many(world, Attack::OptimisticAck);
    });
}

#[test]
fn ack_ranges() {
    scenario("ack_ranges", 1, |world| {
        by_one_and_by_many(world, Attack::AckRanges);
    });
}

#[test]
fn gaps() {
    scenario("gaps", 1, |world| {
        by_one_and_by_many(world, Attack::Gaps);
    });
}

#[test]
fn migration() {
    scenario("migration", 1, |world| {
        by_one_and_by_many(world, Attack::Migration);
    });
}

#[test]
fn bad_frames() {
    scenario("bad_frames", 1, |world| {
        by_one_and_by_many(world, Attack::BadFrames);
    });
}

#[test]
fn blocked() {
    scenario("blocked", 1, |world| {
        by_one_and_by_many(world, Attack::Blocked);
    });
}
