//! `strait forward`: the exposing node is killed and comes back; the local port has stayed.

mod common;

use std::io::{ErrorKind, Read};

use common::command::*;
use common::tcp::*;
use strait_cli::ticket::Contact;

/// FW-24, FW-23: what was open is reset, and the next connections are carried again.
#[test]
fn the_local_port_outlives_the_other_node() {
    let target = server(echo).to_string();
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key").to_str().unwrap().to_owned();
    let start = |listen: &str| Running::lines(&["forward", "expose", "--key", &key, "--listen", listen, &target], 1);
    let (mut exposing, ticket) = start("127.0.0.1:0");
    let contact = Contact::read(&ticket[0]).unwrap();
    let at = contact.addrs[0].to_string();
    let port = at.split('/').nth(4).unwrap();
    let (mut opening, local) = open(&ticket[0], &["0"]);
    let mut before = connect(&local[0]);
    assert!(echoes(&mut before, 1).unwrap());

    exposing.child.kill().unwrap();
    exposing.child.wait().unwrap();
    // While nobody is there, connections are taken and reset.
    assert_eq!(connect(&local[0]).read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(before.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset, "a cut is not an end");

    let (_again, _) = start(&format!("127.0.0.1:{port}"));
    // Whoever was not there is left alone for a while, so it may take several.
    until("it is carried again", || echoes(&mut connect(&local[0]), 2).unwrap_or(false));
    assert!(opening.child.try_wait().unwrap().is_none(), "it runs as before");
}
