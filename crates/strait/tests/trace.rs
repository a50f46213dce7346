//! Looking at a node from a program: traces of its connections, and explanations.

mod common;

use strait::{Node, Of, TRACES_MAX, TraceError};

async fn pair() -> (Node, Node) {
    common::pair(false).await
}

#[tokio::test]
async fn there_are_so_many_traces_and_each_ends_with_its_connection() {
    let (client, server) = pair().await;
    let peer = server.peer_id();
    let nobody = strait::Keypair::generate_ed25519().public().to_peer_id();
    assert_eq!(client.trace(nobody, 1 << 20).err(), Some(TraceError::NotConnected));
    let mut traces: Vec<_> = (0..TRACES_MAX).map(|_| client.trace(peer, 1 << 20).expect("one more")).collect();
    assert_eq!(client.trace(peer, 1 << 20).err(), Some(TraceError::TooMany));
    drop(traces.pop());
    let mut trace = client.trace(peer, 1 << 20).expect("there is room for another one");
    client.ping(peer).await.expect("an echo");
    client.close().await;
    let mut all = Vec::new();
    while let Some(records) = trace.next().await {
        all.extend_from_slice(&records);
    }
    let text = String::from_utf8(all).expect("JSON");
    for name in ["\"transport:datagrams_sent\"", "\"transport:datagrams_received\"", "\"connectivity:connection_closed\""] {
        assert!(text.contains(name), "{name} is not in {text}");
    }
    assert!(text.ends_with("{\"why\":\"the connection has ended\"}}\n"), "{text}");
    let totals = client.counters().totals;
    assert_eq!((totals.traces, totals.traces_cut), (TRACES_MAX as u64 + 1, 0));
}

#[tokio::test]
async fn it_explains_itself_its_peers_and_its_protocols() {
    let (client, server) = pair().await;
    let peer = server.peer_id();
    let nobody = strait::Keypair::generate_ed25519().public().to_peer_id();
    let unconnected = client.explain_peer(nobody);
    assert_eq!((&unconnected.of, unconnected.sentences[0].is.as_str()), (&Of::Peer(nobody), "This peer is not connected"));
    let said = client.explain_peer(peer).to_string();
    assert!(
        said.contains("It is connected over QUIC at /ip4/127.0.0.1/udp/") && said.contains("Why: this node dialled it."),
        "{said}"
    );
    assert!(client.explain().to_string().starts_with("The node works; 1 peer connected"), "{}", client.explain());
    let unknown = client.explain_protocol("/no/such/1");
    assert!(unknown.sentences[0].is.contains("Nothing was ever asked"), "{unknown}");
    client.close().await;
    assert!(client.explain().to_string().starts_with("The node has stopped"), "{}", client.explain());
}
