//! Attacks over TCP (docs/attacks.md), against a node that serves honest peers over TCP: before the pipe is secure, in the handshake, and
//! with Yamux inside of it.

mod common;
#[path = "common/siege.rs"]
mod siege;

use std::time::Duration;

use common::percentile;
use siege::{Plan, by_one_and_by_many, newcomers, withstands};
use strait_adversary::PipeAttack;
use strait_sim::{World, scenario};

const SECOND: Duration = Duration::from_secs(1);
const FOURTEEN: Duration = Duration::from_secs(14);

/// Row 4, and row 7 before a pipe is secure: such pipes have few places, and none of them for long. Hundreds of them take all, so that a
/// newcomer has to try again; who is connected feels nothing.
#[test]
fn silent_and_slow_strangers() {
    scenario("silent_and_slow_strangers", 1, |world| {
        for attack in [PipeAttack::Silent, PipeAttack::SlowSelect, PipeAttack::SlowNoise, PipeAttack::SlowTls] {
            let plan = Plan::long(attack, 4, FOURTEEN);
            let siege = withstands(&mut World::new(world.seed()), &plan);
            assert_eq!(siege.sum(|told| told.opened), 0);
            assert!(siege.connections <= 3 + plan.limits.handshakes_max as usize, "{attack}: {} places", siege.connections);
            assert!(siege.grown(|totals| totals.handshakes_in_failed) >= 64, "{attack}: no handshake is given up");
        }
    });
}

/// Row 4: whoever takes all places, and each again as soon as it is lost, does not keep newcomers out.
#[test]
fn newcomers_get_in_beside_silent_strangers() {
    scenario("newcomers_get_in_beside_silent_strangers", 1, |world| {
        for attack in [PipeAttack::Silent, PipeAttack::SlowSelect] {
            // 64 of them: as many as there are places, then a third more, so that 16 try to get in every 20 ms. Then it is luck who is there first when
            // somebody can be displaced, and who means it tries far less often. Over QUIC it is spared that.
            for (places, most) in [(64, SECOND), (48, SECOND * 10)] {
                let mut plan = Plan::long(attack, 1, SECOND * 4);
                plan.limits.handshakes_max = places;
                let (mut took, totals) = newcomers(&mut World::new(world.seed()), &plan, 10);
                let (middle, longest) = (percentile(&mut took, 50), took[9]);
                println!("{attack}, {places} places: {middle:?}, at most {longest:?}; {} displaced", totals.displaced_handshakes);
                assert!(totals.displaced_handshakes >= 10, "{attack}, {places} places: not all were taken");
                assert!(middle <= most / 6 && longest <= most, "{attack}, {places} places: {took:?}");
            }
        }
    });
}

/// Rows 28 to 31: what is no handshake costs the pipe that it came on.
#[test]
fn handshakes_of_garbage() {
    scenario("handshakes_of_garbage", 1, |world| {
        let attacks = [
            PipeAttack::NoiseGarbage,
            PipeAttack::TlsGarbage,
            PipeAttack::Proposals,
            PipeAttack::RsaBurn,
            PipeAttack::WrongAtTheEnd,
            PipeAttack::CutCertificate,
        ];
        for attack in attacks {
            for siege in by_one_and_by_many(&mut World::new(world.seed()), attack) {
                assert_eq!(siege.sum(|told| told.opened), 0, "{attack}: nobody gets in with that");
                assert!(siege.sum(|told| told.ended) > 0, "{attack}: nobody is told so");
            }
        }
    });
}

/// Row 54.
#[test]
fn connecting_and_leaving() {
    scenario("connecting_and_leaving", 1, |world| {
        for siege in by_one_and_by_many(&mut World::new(world.seed()), PipeAttack::Churn) {
            assert!(siege.sum(|told| told.opened) > 5, "they do not get in, so nothing was shown");
        }
        for siege in by_one_and_by_many(&mut World::new(world.seed()), PipeAttack::Knock) {
            assert!(siege.newcomer.is_some(), "nobody else gets in");
        }
    });
}

/// Row 10: opens without end, and takes none of the resets that it gets for them.
#[test]
fn forced_resets() {
    scenario("forced_resets", 1, |world| {
        for siege in by_one_and_by_many(world, PipeAttack::ForcedResets) {
            assert!(siege.sum(|told| told.opened) > 0, "they do not get in, so nothing was shown");
            // It does not even see that it is over.
            assert!(siege.connections <= 4, "{} connections: who takes no resets is still there", siege.connections);
        }
    });
}

/// Rows 12, 16 and 32, and frames of noise: who breaks Yamux's rules loses the connection, and only its own.
#[test]
fn broken_rules() {
    scenario("broken_rules", 1, |world| {
        let attacks = [PipeAttack::WindowOverflow, PipeAttack::SynOversized, PipeAttack::BadFrames, PipeAttack::Pings];
        for attack in attacks {
            for siege in by_one_and_by_many(&mut World::new(world.seed()), attack) {
                assert!(siege.sum(|told| told.opened) > 1, "{attack}: they do not get in, so nothing was shown");
                assert!(siege.sum(|told| told.ended) > 0, "{attack}: no connection is ended for it");
            }
        }
    });
}

/// Rows 9, 11, 13 and 14: who keeps to Yamux's rules keeps the connection, pays for what it costs, and takes nothing from others.
#[test]
fn within_the_rules() {
    scenario("within_the_rules", 1, |world| {
        let attacks =
            [PipeAttack::RapidReset, PipeAttack::ZeroWindow, PipeAttack::EmptyFrames, PipeAttack::TinyFrames, PipeAttack::Unread];
        for attack in attacks {
            for siege in by_one_and_by_many(&mut World::new(world.seed()), attack) {
                assert!(siege.sum(|told| told.opened) > 0, "{attack}: they do not get in, so nothing was shown");
                assert_eq!(siege.sum(|told| told.ended), 0, "{attack}: who keeps to the rules is not ended");
            }
        }
    });
}

/// Rows 8, 15 and 51: requests that are too large, that are asked for on the way out, and whose replies nobody reads.
#[test]
fn requests() {
    scenario("requests", 1, |world| {
        for attack in [PipeAttack::Giant, PipeAttack::CreditAtClose, PipeAttack::Requests] {
            for siege in by_one_and_by_many(&mut World::new(world.seed()), attack) {
                assert!(siege.sum(|told| told.opened) > 0, "{attack}: they do not get in, so nothing was shown");
                // Some of it was before the measured time.
                let breaches = siege.after.breaches;
                assert_eq!(breaches > 0, attack == PipeAttack::Giant, "{attack}: {breaches} streams are ended for it");
            }
        }
    });
}

/// Row 7 inside of a connection.
#[test]
fn a_byte_a_second() {
    scenario("a_byte_a_second", 1, |world| {
        for attack in [PipeAttack::SlowYamux, PipeAttack::SlowRequest] {
            let siege = withstands(&mut World::new(world.seed()), &Plan::long(attack, 4, FOURTEEN));
            assert!(siege.sum(|told| told.opened) >= 4, "{attack}: they do not get in, so nothing was shown");
        }
    });
}
