//! Identity is the key: whoever answers at an address must be who was asked for.

mod common;

use std::time::Duration;

use common::over_each;
use strait_sim::NodeConfig;

#[test]
fn the_wrong_identity_at_an_address_is_named() {
    over_each("the_wrong_identity_at_an_address_is_named", 2, |world, over| {
        let [a, b, c] = [(); 3].map(|()| world.node(NodeConfig::over(over)));
        let fresh = a.audit().granted;
        let (wanted, found) = (c.peer_id(), b.peer_id());
        let error = world.block_on(a.connect(wanted, &[b.address()])).expect_err("b is not c");
        let text = error.to_string();
        assert!(text.contains(&wanted.to_string()), "{text}");
        assert!(text.contains(&found.to_string()), "{text}");
        assert!(!a.is_connected(found) && !a.is_connected(wanted));
        world.run_for(Duration::from_secs(60));
        for node in [&a, &b] {
            // What is to be told of it is held until it is told.
            let _ = node.abuse_rest();
            let audit = node.audit();
            assert_eq!(audit.connections, 0, "{}", node.peer_id());
            assert_eq!(audit.granted, fresh, "{}", node.peer_id());
        }
        // And the right one still can be reached.
        common::connect(world, &a, &b);
    });
}

#[test]
fn nobody_at_an_address_is_no_answer_after_the_deadline() {
    over_each("nobody_at_an_address_is_no_answer_after_the_deadline", 2, |world, over| {
        let [a, b] = [(); 2].map(|()| world.node(NodeConfig::over(over)));
        world.crash(b.id());
        let begin = world.now();
        let result = world.block_on(a.connect(b.peer_id(), &[b.address()]));
        assert!(result.is_err());
        let took = world.now() - begin;
        assert!(took < Duration::from_secs(30), "known after {took:?}");
        world.run_for(Duration::from_secs(60));
        assert_eq!(a.audit().connections, 0);
    });
}
