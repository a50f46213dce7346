//! Abuse of the protocols on streams (docs/attacks.md), against a node that serves honest peers.

mod common;
#[path = "common/siege.rs"]
mod siege;

use siege::by_one_and_by_many;
use strait_adversary::Attack;
use strait_sim::scenario;

#[test]
fn slow_select() {
    scenario("slow_select", 1, |world| {
        by_one_and_by_many(world, Attack::SlowSelect);
    });
}

#[test]
fn slow_request() {
    scenario("slow_request", 1, |world| {
        by_one_and_by_many(world, Attack::SlowRequest);
    });
}

#[test]
fn giant() {
    scenario("giant", 1, |world| {
        by_one_and_by_many(world, Attack::Giant);
    });
}

#[test]
fn rapid_reset() {
    scenario("rapid_reset", 1, |world| {
        by_one_and_by_many(world, Attack::RapidReset);
    });
}

#[test]
fn zero_window() {
    scenario("zero_window", 1, |world| {
        by_one_and_by_many(world, Attack::ZeroWindow);
    });
}

#[test]
fn echoes() {
    scenario("echoes", 1, |world| {
        by_one_and_by_many(world, Attack::Echoes);
    });
}

#[test]
fn proposals() {
    scenario("proposals", 1, |world| {
        by_one_and_by_many(world, Attack::Proposals);
    });
}

#[test]
fn identify() {
    scenario("identify", 1, |world| {
        by_one_and_by_many(world, Attack::Identify);
    });
}

#[test]
fn requests() {
    scenario("requests", 1, |world| {
        by_one_and_by_many(world, Attack::Requests);
    });
}
