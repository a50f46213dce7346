//! `strait node`: what it is configured by, what can be seen of it, what it keeps, and how it ends.
#![cfg(unix)]

mod common;

use std::net::Shutdown;

use common::command::*;
use common::tcp::*;

fn ends_within_a_minute(running: &mut Running) -> Option<i32> {
    let mut ended = None;
    let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while ended.is_none() {
        assert!(std::time::Instant::now() < end, "it goes on: {}", running.said());
        ended = running.child.try_wait().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    ended.and_then(|status| status.code())
}

#[test]
fn what_is_under_way_finishes_after_the_first_sigterm() {
    let (dir, target) = (tempfile::tempdir().unwrap(), server(echo));
    let config = dir.path().join("strait.toml");
    let text = format!(
        "listen = ['127.0.0.1:0']\nadmin = '127.0.0.1:0'\n[forward]\ntargets = ['{target}']\n[limits]\ndrain_deadline = '50s'\n"
    );
    std::fs::write(&config, text).unwrap();
    let (mut running, ticket, admin) = node(&["--ephemeral", "--config", config.to_str().unwrap()]);
    let (_open, ports) = open(&ticket, &["0"]);
    let mut tcp = connect(&ports[0]);
    assert!(echoes(&mut tcp, 1).unwrap());
    for line in ["strait_peers 1", "strait_ready 1", "strait_limit{name=\"drain_deadline\"} 50.0"] {
        assert!(has(admin, line), "{line} is not in {}", asked(admin, "/metrics"));
    }
    assert!(asked(admin, "/readyz").starts_with("HTTP/1.1 200"));
    signal(&running.child, "TERM");
    running.says("Stopping");
    until("the node is not ready any more", || asked(admin, "/readyz").starts_with("HTTP/1.1 503"));
    assert!(asked(admin, "/healthz").starts_with("HTTP/1.1 200"), "it is well, and closes");
    assert!(echoes(&mut tcp, 2).unwrap(), "what was under way goes on");
    tcp.shutdown(Shutdown::Both).unwrap();
    assert_eq!(ends_within_a_minute(&mut running), Some(0), "{}", running.said());
}

#[test]
fn the_second_sigterm_ends_it_at_once() {
    let target = server(echo);
    let (dir, drain) = (tempfile::tempdir().unwrap(), "drain_deadline=1h");
    let config = dir.path().join("strait.toml");
    std::fs::write(&config, format!("[forward]\ntargets = ['{target}']\n")).unwrap();
    let (mut running, ticket, _admin) = node(&[ALONE, &["--config", config.to_str().unwrap(), "--limit", drain]].concat());
    let (_open, ports) = open(&ticket, &["0"]);
    let mut tcp = connect(&ports[0]);
    assert!(echoes(&mut tcp, 1).unwrap());
    signal(&running.child, "TERM");
    running.says("Stopping");
    signal(&running.child, "TERM");
    assert_eq!(ends_within_a_minute(&mut running), Some(143), "{}", running.said());
}

#[test]
fn a_peer_that_is_kept_is_connected_again_after_it_was_started_again() {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    let port = closed_port();
    let listen = port.to_string();
    let kept = ["--key", key.to_str().unwrap(), "--listen", &listen];
    let (mut first, _, _) = node(&kept);
    let id = String::from_utf8(run(&["id", "--key", key.to_str().unwrap()]).stdout).unwrap().trim().to_owned();
    let address = format!("/ip4/127.0.0.1/udp/{}/quic-v1/p2p/{id}", port.port());
    let (_keeper, _, admin) = node(&[ALONE, &["--peer", &address]].concat());
    until("they are connected", || has(admin, "strait_peers 1"));
    assert_eq!(first.signal("TERM"), Some(0));
    until("it is seen that the peer is gone", || has(admin, "strait_peers 0"));
    let (_second, _, _) = node(&kept);
    until("they are connected again", || has(admin, "strait_peers 1"));
}

#[test]
fn what_is_wrong_with_the_configuration_is_told_before_anything_starts() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("strait.toml");
    let path = config.to_str().unwrap();
    std::fs::write(&config, "[limits]\nmemory_byte = '1G'\n").unwrap();
    for args in [
        &["node", "--config", path][..],
        &["node", "--check", "--config", path],
        &["node", "--limit", "idle_timeout=soon"],
        &["node", "--limit", "connections_max=1000000"],
        &["node", "--peer", "/ip4/192.0.2.1/udp/1/quic-v1"],
    ] {
        let output = run(args);
        assert_code(&output, 2);
        assert_explained(&output);
    }
    let output = run(&["node", "--config", path]);
    assert!(code_of(&output).1.contains("\"memory_bytes\""), "the nearest name is told: {}", code_of(&output).1);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let output = run(&["node", "--ephemeral", "--admin", &taken.local_addr().unwrap().to_string()]);
    assert_code(&output, 4);
    assert_explained(&output);
}

#[test]
fn the_reference_can_be_used_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("strait.toml");
    std::fs::write(&config, run(&["node", "--reference"]).stdout).unwrap();
    assert_code(&run(&["node", "--check", "--config", config.to_str().unwrap()]), 0);
}

#[test]
fn keys_are_told_where_they_are_asked_for_and_nowhere_else() {
    let dir = tempfile::tempdir().unwrap();
    let keys = dir.path().join("keys");
    let (_node, ticket, _) = node(ALONE);
    assert_code(&run(&["ping", &ticket, "-c", "1"]), 0);
    assert!(!keys.exists());
    for transport in ["udp", "tcp"] {
        let _ = std::fs::remove_file(&keys);
        let output = strait(&["ping", &over(&ticket, transport), "-c", "1"]).env("SSLKEYLOGFILE", &keys).output().unwrap();
        assert_code(&output, 0);
        let text = std::fs::read_to_string(&keys).unwrap();
        assert!(text.lines().any(|line| line.starts_with("CLIENT_TRAFFIC_SECRET_0 ")), "over {transport}: {text}");
    }
}

#[test]
fn of_the_key_that_the_file_names_it_is_told_that_others_can_read_it() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let (key, config) = (dir.path().join("key"), dir.path().join("strait.toml"));
    assert_code(&run(&["id", "--key", key.to_str().unwrap()]), 0);
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    std::fs::write(&config, format!("key = '{}'\nlisten = ['127.0.0.1:0']\n", key.display())).unwrap();
    let (running, _, _) = node(&["--config", config.to_str().unwrap()]);
    running.says(&format!("others can read the key file {}", key.display()));
}

#[test]
fn without_an_admin_port_there_is_none() {
    let (running, _) = Running::lines(&[&["node", "--admin", "off"], ALONE].concat(), 1);
    running.says("Ctrl-C stops");
    assert!(!running.said().contains("http://"), "{}", running.said());
}

#[test]
fn it_is_explained_and_drawn() {
    let target = server(echo);
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("strait.toml");
    std::fs::write(&config, format!("[forward]\ntargets = ['{target}']\n")).unwrap();
    let (_running, ticket, admin) = node(&[ALONE, &["--config", config.to_str().unwrap()]].concat());
    let (_open, ports) = open(&ticket, &["0"]);
    assert!(echoes(&mut connect(&ports[0]), 1).unwrap());
    let at = admin.to_string();
    let said = |args: &[&str]| {
        let output = run(&[args, &["--admin", &at]].concat());
        assert_code(&output, 0);
        String::from_utf8(output.stdout).unwrap()
    };
    let whole = said(&["explain"]);
    assert!(whole.contains("The node works; 1 peer connected (1 over QUIC, 0 over TCP)"), "{whole}");
    let drawn = said(&["top", "--once"]);
    assert!(drawn.contains("1 peer (1 over QUIC, 0 over TCP)"), "{drawn}");
    let peer = drawn.lines().skip_while(|line| !line.starts_with("PEER")).nth(1).and_then(|line| line.split_whitespace().next());
    let peer = said(&["explain", peer.expect("a peer")]);
    assert!(
        peer.contains("It is connected over QUIC at /ip4/127.0.0.1/udp/") && peer.contains("Why: it dialled this node."),
        "{peer}"
    );
    let protocol: serde_json::Value = serde_json::from_str(&said(&["explain", "/strait/forward/1", "--json"])).unwrap();
    assert_eq!((&protocol["of"], &protocol["name"]), (&"protocol".into(), &"/strait/forward/1".into()));
    assert!(protocol["sentences"][0]["is"].as_str().unwrap().starts_with("Peers used it"), "{protocol}");
}

#[test]
fn where_no_node_answers_that_is_told() {
    let nobody = closed_port().to_string();
    for args in [&["explain", "--admin", &nobody][..], &["top", "--admin", &nobody]] {
        let output = run(args);
        assert_code(&output, 4);
        assert_explained(&output);
    }
}
