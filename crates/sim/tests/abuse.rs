//! The abuse feed (docs/abuse-feed.md) says what raw-byte attackers do, holds against identities only what was authenticated, and says nothing
//! of honest peers (that part is checked in every siege, `common/siege.rs`).

mod common;
#[path = "common/siege.rs"]
mod siege;

use std::net::IpAddr;
use std::time::Duration;

use siege::{Plan, Report, run};
use strait::{AbuseRecord, Limits, Offence, Offender};
use strait_adversary::Attack;
use strait_core::ABUSE_ENTRY_BYTES;
use strait_sim::{World, scenario};

/// What kind of name a record has.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Named {
    Peer,
    Address,
    Forgeable,
    Others,
}

fn kind(record: &AbuseRecord) -> Named {
    match record.who {
        Offender::Peer(_) => Named::Peer,
        Offender::Address(_) => Named::Address,
        Offender::Forgeable(_) => Named::Forgeable,
        Offender::Others => Named::Others,
    }
}

/// Runs a siege, and fails unless it has left a record of this kind; or if honest peers are accused.
fn leaves(world: &mut World, plan: &Plan, what: Offence, named: Named) -> Report {
    let report = run(world, plan, true);
    println!("{:?}: {:#?}", plan.attack, report.abuse);
    assert_eq!(report.slander, [], "{:?}", plan.attack);
    let found = report.abuse.iter().any(|record| record.what == what && kind(record) == named);
    assert!(found, "{:?}: no {what:?} of {named:?} among {:?}", plan.attack, report.abuse);
    report
}

/// The bots' own addresses are the hosts' of the world; the false ones are elsewhere.
fn is_false(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V4(v4) if v4.octets()[1] >= 100)
}

#[test]
fn protocols_that_are_broken_are_held_against_the_identity() {
    scenario("protocols_that_are_broken_are_held_against_the_identity", 1, |world| {
        let seed = world.seed();
        for (attack, what) in [
            (Attack::Giant, Offence::Oversized),
            (Attack::BadFrames, Offence::ProtocolViolation),
            (Attack::Proposals, Offence::Malformed),
            (Attack::Migration, Offence::AddressFlood),
        ] {
            let report = leaves(&mut World::new(seed), &Plan::new(attack, 4), what, Named::Peer);
            // Not even those that move about are said to be where they have not been.
            let astray = |record: &AbuseRecord| record.address.is_some_and(|address| is_false(address.ip()));
            assert!(!report.abuse.iter().any(astray), "{:?}", report.abuse);
            assert!(report.abuse.iter().all(|record| record.address.is_some() == (kind(record) == Named::Peer)));
        }
    });
}

#[test]
fn what_strangers_do_is_held_against_no_identity() {
    scenario("what_strangers_do_is_held_against_no_identity", 1, |world| {
        let seed = world.seed();
        for (plan, what, named) in [
            (Plan::new(Attack::EmptyDatagrams, 1), Offence::BadPacket, Named::Forgeable),
            (Plan::new(Attack::WrongAtTheEnd, 4), Offence::HandshakeBroken, Named::Forgeable),
            (Plan::long(Attack::Churn, 2, Duration::from_secs(2)), Offence::Churn, Named::Address),
        ] {
            let report = leaves(&mut World::new(seed), &plan, what, named);
            assert!(report.abuse.iter().all(|record| kind(record) != Named::Peer), "{:?}", report.abuse);
        }
        // One each in ten seconds is too little to name somebody, and together it is not.
        let plan = Plan::long(Attack::SlowHandshake, 16, Duration::from_secs(12));
        leaves(&mut World::new(seed), &plan, Offence::HandshakeStalled, Named::Others);
    });
}

#[test]
fn spoofed_addresses_are_never_said_to_be_proved() {
    scenario("spoofed_addresses_are_never_said_to_be_proved", 1, |world| {
        let plan = Plan::new(Attack::SpoofedInitials, 16);
        let report = leaves(world, &plan, Offence::StrangerFlood, Named::Others);
        for record in &report.abuse {
            let proved = match record.who {
                Offender::Address(ip) => is_false(ip),
                Offender::Peer(_) => true,
                _ => false,
            };
            assert!(!proved, "{record:?}");
        }
    });
}

#[test]
fn displaced_squatters_are_told_and_the_tables_keep_their_caps() {
    scenario("displaced_squatters_are_told_and_the_tables_keep_their_caps", 1, |world| {
        let mut plan = Plan { rate: 4, ..Plan::long(Attack::Squat, 4, Duration::from_secs(6)) };
        plan.limits = Limits { connections_max: 100, abuse_names_max: 16, ..plan.limits };
        // That no table is above its cap is checked after each turn of the node.
        let report = leaves(world, &plan, Offence::Squatting, Named::Peer);
        assert!(report.abuse.len() as u64 * ABUSE_ENTRY_BYTES <= plan.limits.abuse_floor(), "{} records", report.abuse.len());
        let squatters = report.abuse.iter().filter(|record| record.what == Offence::Squatting);
        let told: u64 = squatters.map(|record| record.count).sum();
        assert!(told > 16, "those who find no place in the table are counted: {told}");
    });
}
