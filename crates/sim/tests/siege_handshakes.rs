//! Handshakes that are slow, wrong, too many, or over too soon (docs/attacks.md), against a node that serves honest peers.

mod common;
#[path = "common/siege.rs"]
mod siege;

use siege::by_one_and_by_many;
use strait_adversary::Attack;
use strait_sim::scenario;

#[test]
fn squat() {
    scenario("squat", 1, |world| {
        by_one_and_by_many(world, Attack::Squat);
    });
}

#[test]
fn slow_handshake() {
    scenario("slow_handshake", 1, |world| {
        by_one_and_by_many(world, Attack::SlowHandshake);
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
        by_one_and_by_many(world, Attack::RsaBurn);
    });
}

#[test]
fn wrong_at_the_end() {
    scenario("wrong_at_the_end", 1, |world| {
        by_one_and_by_many(world, Attack::WrongAtTheEnd);
    });
}

#[test]
fn cut_certificate() {
    scenario("cut_certificate", 1, |world| {
        by_one_and_by_many(world, Attack::CutCertificate);
    });
}

#[test]
fn large_certificate() {
    scenario("large_certificate", 1, |world| {
        by_one_and_by_many(world, Attack::LargeCertificate);
    });
}

#[test]
fn churn() {
    scenario("churn", 1, |world| {
        by_one_and_by_many(world, Attack::Churn);
    });
}
