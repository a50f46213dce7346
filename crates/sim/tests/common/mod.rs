//! What the scenarios share: protocols, and apps that check every byte.
#![allow(dead_code)] // each test file uses a part

use std::time::Duration;

use bytes::Bytes;
use strait::{Idle, Incoming, Message, Priority, RecvHalf, Request, SendHalf, Stream, StreamProtocol};
use strait_sim::check::Flow;
use strait_sim::{NodeConfig, Over, SimNode, World, scenario};

/// Replies with what it was sent.
pub(crate) const ECHO: Request = Request::new("/test/echo/1", 256 << 10, 256 << 10, Duration::from_secs(10), 8);

/// Raw streams without an idle limit.
pub(crate) const PIPE: StreamProtocol = StreamProtocol::new("/test/pipe/1", 16, Idle::Never);

/// Bytes of a chunk that the apps write at once.
const CHUNK_BYTES: usize = 16 << 10;

/// Runs a scenario over each transport, as [`scenario`].
#[track_caller]
pub(crate) fn over_each(name: &str, seeds: u64, body: impl Fn(&mut World, Over)) {
    for over in Over::ALL {
        println!("over {over}");
        scenario(name, seeds, |world| body(world, over));
    }
}

/// Two nodes with default limits; the first is connected to the second.
pub(crate) fn pair(world: &mut World, over: Over) -> (SimNode, SimNode) {
    let a = world.node(NodeConfig::over(over));
    let b = world.node(NodeConfig::over(over));
    connect(world, &a, &b);
    (a, b)
}

/// Connects `a` to `b`, and waits until both know.
pub(crate) fn connect(world: &mut World, a: &SimNode, b: &SimNode) {
    let (peer, address) = (b.peer_id(), b.address());
    world.block_on(a.connect(peer, &[address])).expect("they connect");
    let peer = a.peer_id();
    world.run_until(|_| b.is_connected(peer));
}

/// Lets `node` answer [`ECHO`].
pub(crate) fn serve_echo(node: &SimNode) {
    node.serve(&ECHO, Priority::Normal, async move |request: Incoming| request.body).expect("a fresh protocol");
}

/// Lets `node` take one [`PIPE`] stream after the other and check what comes against `flow`; nothing is
/// written back.
pub(crate) fn serve_sink(node: &SimNode, flow: &Flow) {
    let flow = flow.clone();
    node.serve_streams(&PIPE, Priority::Normal, async move |stream: Stream| {
        let (mut send, receive) = stream.split();
        // Nothing to say in this direction. An error shows in the other one too.
        let _ = send.finish();
        drain(receive, &flow).await;
    })
    .expect("a fresh protocol");
}

/// Writes `total` bytes of the flow and ends it. An error is noted in the flow.
pub(crate) async fn pump(mut send: SendHalf, flow: &Flow, total: u64) {
    while flow.sent_bytes() < total {
        let left = (total - flow.sent_bytes()).min(CHUNK_BYTES as u64) as usize;
        let mut chunk = flow.next(left);
        // Counted before they are handed over: the other end may have them before this task goes on.
        flow.sent(left);
        while !chunk.is_empty() {
            if send.write(&mut chunk).await.is_err() {
                flow.send_failed();
                return;
            }
        }
    }
    flow.finished();
    if send.finish().is_err() {
        flow.send_failed();
    }
}

/// Reads a flow to its end. An error is noted in the flow.
pub(crate) async fn drain(mut receive: RecvHalf, flow: &Flow) {
    loop {
        match receive.read(64 << 10).await {
            Ok(Some(bytes)) => flow.delivered(&bytes),
            Ok(None) => return flow.ended(),
            Err(_) => return flow.receive_failed(),
        }
    }
}

/// Opens a [`PIPE`] from `a` to `b` and pumps `total` bytes of `flow` through it, as a task of `a`.
pub(crate) fn upload(world: &World, a: &SimNode, b: &SimNode, flow: &Flow, total: u64) {
    let (api, peer, flow) = (a.api().clone(), b.peer_id(), flow.clone());
    world.spawn(a.id(), async move {
        let stream = api.open(peer, &PIPE).await.expect("the stream opens");
        let (send, _receive) = stream.split();
        pump(send, &flow, total).await;
    });
}

/// `count` bytes that tell apart requests: `index` repeated.
pub(crate) fn body(index: u64, count: usize) -> Message {
    let bytes: Vec<u8> = index.to_le_bytes().into_iter().cycle().take(count).collect();
    Message::from(Bytes::from(bytes))
}

/// The value below which `percent` of the samples are.
pub(crate) fn percentile(samples: &mut [Duration], percent: usize) -> Duration {
    samples.sort();
    let index = (samples.len() * percent / 100).min(samples.len().saturating_sub(1));
    samples[index]
}
