//! Attacks of those who have no connection and want none (docs/attacks.md), against a node that serves honest peers.

mod common;
#[path = "common/siege.rs"]
mod siege;

use siege::by_one_and_by_many;
use strait_adversary::Attack;
use strait_sim::scenario;

#[test]
fn spoofed_initials() {
    scenario("spoofed_initials", 1, |world| {
        by_one_and_by_many(world, Attack::SpoofedInitials);
    });
}

#[test]
fn garbage_initials() {
    scenario("garbage_initials", 1, |world| {
        by_one_and_by_many(world, Attack::GarbageInitials);
    });
}

#[test]
fn huge_tokens() {
    scenario("huge_tokens", 1, |world| {
        by_one_and_by_many(world, Attack::HugeTokens);
    });
}

#[test]
fn bad_coalesced() {
    scenario("bad_coalesced", 1, |world| {
        by_one_and_by_many(world, Attack::BadCoalesced);
    });
}

#[test]
fn reflection() {
    scenario("reflection", 1, |world| {
        by_one_and_by_many(world, Attack::Reflection);
    });
}

#[test]
fn empty_datagrams() {
    scenario("empty_datagrams", 1, |world| {
        by_one_and_by_many(world, Attack::EmptyDatagrams);
    });
}
