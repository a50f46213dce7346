//! A listener whose process has no file descriptors left rests, and goes on when there are some.

use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use strait::Node;

#[test]
#[cfg(unix)]
fn without_descriptors_a_listener_rests_and_goes_on() {
    let this = std::env::current_exe().expect("a test is a program");
    let shell = "ulimit -n 48 && exec \"$0\" child --exact --ignored --nocapture";
    let status = Command::new("sh").args(["-c", shell]).arg(this).status().expect("a shell");
    assert!(status.success(), "{status}");
}

#[tokio::test]
#[ignore = "run by the other test, in a process of its own that has few descriptors"]
async fn child() {
    let any = "127.0.0.1:0".parse().expect("an address");
    let server = Node::builder().listen(any).listen_tcp(any).start().await.expect("starts");
    let client = Node::builder().listen(any).start().await.expect("starts");
    let addresses: Vec<_> = server.listen_addrs().into_iter().filter(|address| address.to_string().contains("/tcp/")).collect();
    let (_, remote, _) = strait::socket_address(&addresses[0]).expect("what it listens at");

    // Each takes a descriptor here, and one more when it is accepted: the last are never accepted.
    let silent: Vec<TcpStream> = std::iter::from_fn(|| TcpStream::connect(remote).ok()).take(48).collect();
    assert!(silent.len() < 48, "the limit holds");
    let mut rests = 0;
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        rests = server.driver_counters().accept_rests;
    }
    // Five a second, where a loop that spins has thousands.
    assert!((1..100).contains(&rests), "{rests}");

    drop(silent);
    client.connect(server.peer_id(), &addresses).await.expect("there are descriptors again");
    client.ping(server.peer_id()).await.expect("and it is served");
}
