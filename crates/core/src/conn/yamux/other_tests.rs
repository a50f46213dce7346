//! A session beside another implementation of Yamux, the crate `yamux`, over pipes in memory.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures::future::join;
use futures::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use yamux::{Config, Connection, Mode};

use super::testing::{now, read_all};
use super::*;
use crate::stream::{Read, StreamPort as _};

/// Several windows, so that both have to give credit.
const BYTES: usize = 700_000;
const STREAMS: usize = 3;
const PIPE: usize = 50_000;
const ROUNDS: usize = 20_000;

#[derive(Default)]
struct Pipes {
    to_other: VecDeque<u8>,
    to_us: VecDeque<u8>,
}

/// The other side's socket. Nothing wakes it: the test polls until all is through.
struct Socket(Arc<Mutex<Pipes>>);

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut pipes = self.0.lock().expect("one thread");
        let count = buffer.len().min(pipes.to_other.len());
        for (to, from) in buffer.iter_mut().zip(pipes.to_other.drain(..count)) {
            *to = from;
        }
        if count == 0 { Poll::Pending } else { Poll::Ready(Ok(count)) }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut pipes = self.0.lock().expect("one thread");
        let count = bytes.len().min(PIPE.saturating_sub(pipes.to_us.len()));
        pipes.to_us.extend(&bytes[..count]);
        if count == 0 { Poll::Pending } else { Poll::Ready(Ok(count)) }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// What one stream has to carry.
fn content(id: u64) -> Vec<u8> {
    (0..BYTES).map(|at| (at.wrapping_mul(31) >> 3) as u8 ^ id as u8).collect()
}

type Task = Pin<Box<dyn Future<Output = Vec<u8>>>>;

/// Sends it all, ends, and reads what comes back.
async fn talk(stream: yamux::Stream) -> Vec<u8> {
    let all = content(stream.id().val().into());
    let (mut read, mut write) = stream.split();
    let mut got = Vec::new();
    let said = async {
        write.write_all(&all).await.expect("open");
        write.close().await.expect("open");
    };
    join(said, read.read_to_end(&mut got)).await.1.expect("no reset");
    got
}

/// Says again what comes.
async fn echo(stream: yamux::Stream) -> Vec<u8> {
    let (mut read, mut write) = stream.split();
    futures::io::copy(&mut read, &mut write).await.expect("no reset");
    write.close().await.expect("open");
    Vec::new()
}

/// Both sides and their pipes.
struct World {
    session: Session,
    other: Connection<Socket>,
    pipes: Arc<Mutex<Pipes>>,
    tasks: Vec<Task>,
    /// What the other side's tasks have returned.
    done: Vec<Vec<u8>>,
}

impl World {
    fn new(side: Side) -> World {
        let pipes = Arc::new(Mutex::new(Pipes::default()));
        let mode = if side == Side::Client { Mode::Server } else { Mode::Client };
        let other = Connection::new(Socket(pipes.clone()), Config::default(), mode);
        let limits = Limits { receive_window_min: 2 << 20, ..Limits::default() };
        World { session: Session::new(side, &limits), other, pipes, tasks: Vec::new(), done: Vec::new() }
    }

    /// Carries what there is, and lets the other side run. Its new streams become echoes.
    fn turn(&mut self) {
        let mut context = Context::from_waker(Waker::noop());
        match self.other.poll_next_inbound(&mut context) {
            Poll::Ready(Some(stream)) => self.tasks.push(Box::pin(echo(stream.expect("a good session")))),
            Poll::Ready(None) => panic!("the other side has closed"),
            Poll::Pending => {}
        }
        let done = &mut self.done;
        self.tasks.retain_mut(|task| match task.as_mut().poll(&mut context) {
            Poll::Ready(got) => {
                done.push(got);
                false
            }
            Poll::Pending => true,
        });
        let mut pipes = self.pipes.lock().expect("one thread");
        if pipes.to_other.len() < PIPE {
            let mut out = Vec::new();
            self.session.poll_output(now(), 10_000, &mut out);
            pipes.to_other.extend(out.concat());
        }
        let count = pipes.to_us.len().min(7_000);
        if count > 0 && self.session.wants_input() {
            let chunk: Vec<u8> = pipes.to_us.drain(..count).collect();
            self.session.handle(now(), chunk.into()).expect("a good peer");
        }
    }

    fn open_there(&mut self) -> yamux::Stream {
        match self.other.poll_new_outbound(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(stream) => stream.expect("room"),
            Poll::Pending => panic!("no room for a stream"),
        }
    }
}

/// One of our streams: what is to be written, and what has come.
struct Ours {
    id: u64,
    left: Bytes,
    got: Vec<u8>,
    ended: bool,
}

#[test]
fn it_echoes_what_we_say() {
    let mut world = World::new(Side::Client);
    let mut ours: Vec<Ours> = (0..STREAMS)
        .map(|_| world.session.open().expect("room"))
        .map(|id| Ours { id, left: content(id).into(), got: Vec::new(), ended: false })
        .collect();
    for _ in 0..ROUNDS {
        world.turn();
        for one in ours.iter_mut().filter(|one| !one.ended) {
            let mut port = world.session.port(one.id);
            port.write(&mut one.left).ok();
            if one.left.is_empty() {
                port.finish();
            }
            match port.read(5_000).expect("no reset") {
                Read::Chunk(chunk) => one.got.extend_from_slice(&chunk),
                Read::Finished => one.ended = true,
                Read::Blocked => {}
            }
        }
        if ours.iter().all(|one| one.ended) {
            break;
        }
    }
    for one in &ours {
        assert!(one.got == content(one.id) && one.ended, "stream {}: {} bytes", one.id, one.got.len());
    }
    while world.session.poll().is_some() {}
    assert_eq!(world.session.streams.len(), 0);
}

#[test]
fn we_echo_what_it_says() {
    let mut world = World::new(Side::Server);
    for _ in 0..STREAMS {
        let stream = world.open_there();
        world.tasks.push(Box::pin(talk(stream)));
    }
    let mut ours: Vec<(u64, Bytes)> = Vec::new();
    for _ in 0..ROUNDS {
        world.turn();
        ours.extend(world.session.accept().map(|id| (id, Bytes::new())));
        for (id, left) in &mut ours {
            let mut port = world.session.port(*id);
            port.write(left).ok();
            if left.is_empty() {
                match port.read(5_000).expect("no reset") {
                    Read::Chunk(chunk) => *left = chunk,
                    Read::Finished => port.finish(),
                    Read::Blocked => {}
                }
            }
        }
        if world.done.len() == STREAMS {
            break;
        }
    }
    let ids = [1, 3, 5];
    assert_eq!(world.done.len(), STREAMS);
    assert!(ids.iter().all(|id| world.done.contains(&content(*id))), "it got something else");
}

#[test]
fn resets_are_understood_both_ways() {
    let mut world = World::new(Side::Client);
    // It drops a stream that is open.
    let mut dropped = world.open_there();
    let mut context = Context::from_waker(Waker::noop());
    assert!(Pin::new(&mut dropped).poll_write(&mut context, b"hello").is_ready());
    (0..10).for_each(|_| world.turn());
    let id = world.session.accept().expect("it has come");
    drop(dropped);
    (0..10).for_each(|_| world.turn());
    assert!(
        std::iter::from_fn(|| world.session.poll()).any(|event| matches!(event, ConnEvent::Stopped(stopped, 0) if stopped == id))
    );
    // What it said before is read first: so does a listener that refuses a protocol and leaves say why.
    assert_eq!(read_all(&mut world.session, id), (b"hello".to_vec(), Some(Err(0))));
    // We reset one, with a code, which is no credit to it.
    let mut reset = world.open_there();
    assert!(Pin::new(&mut reset).poll_write(&mut context, b"hello").is_ready());
    (0..10).for_each(|_| world.turn());
    let id = world.session.accept().expect("it has come");
    world.session.port(id).reset(u32::MAX);
    world.session.port(id).stop(u32::MAX);
    (0..10).for_each(|_| world.turn());
    assert!(reset.is_closed(), "it knows");
    assert_eq!(world.session.rtt(), Duration::ZERO, "and it answers pings");
}
