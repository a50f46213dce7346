//! A bot on TCP as a host of the world.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use strait_adversary::{PipeAct, PipeBot};
use strait_sim::tcp::{News, Read};
use strait_sim::{Host, Tcp, TcpId, Turn, Turned};

/// One socket: the bot's number for it, and what it has not taken.
struct Socket {
    pipe: u32,
    kept: Vec<u8>,
}

/// See the module.
pub(crate) struct PipeBotHost {
    bot: Arc<Mutex<PipeBot>>,
    to: SocketAddr,
    budget: usize,
    next: Duration,
    silent: Arc<Mutex<bool>>,
    sockets: BTreeMap<TcpId, Socket>,
    pipes: BTreeMap<u32, TcpId>,
}

impl PipeBotHost {
    pub(crate) fn new(
        bot: Arc<Mutex<PipeBot>>,
        to: SocketAddr,
        budget: usize,
        next: Duration,
        silent: Arc<Mutex<bool>>,
    ) -> PipeBotHost {
        PipeBotHost { bot, to, budget, next, silent, sockets: BTreeMap::new(), pipes: BTreeMap::new() }
    }

    fn act(&mut self, tcp: &mut Tcp<'_>, bot: &mut PipeBot, pipe: u32, act: PipeAct) {
        match act {
            PipeAct::Connect => {
                let socket = tcp.connect(self.to).expect("there are descriptors");
                self.sockets.insert(socket, Socket { pipe, kept: Vec::new() });
                self.pipes.insert(pipe, socket);
            }
            PipeAct::Write(bytes) => {
                let Some(id) = self.pipes.get(&pipe) else {
                    return;
                };
                if let Some(socket) = self.sockets.get_mut(id) {
                    socket.kept.extend(bytes);
                    flush(tcp, bot, *id, socket);
                }
            }
            PipeAct::Close => {
                if let Some(id) = self.pipes.remove(&pipe) {
                    self.sockets.remove(&id);
                    tcp.close(id);
                }
            }
        }
    }

    /// Reads what has come on a socket; closes it when the node has ended it.
    fn read(&mut self, tcp: &mut Tcp<'_>, bot: &mut PipeBot, id: TcpId) {
        let Some(socket) = self.sockets.get(&id) else {
            return;
        };
        let pipe = socket.pipe;
        while bot.reads() {
            match tcp.read(id, 16 << 10) {
                Read::Bytes(bytes) => bot.receive(pipe, &bytes),
                Read::Nothing => return,
                Read::End | Read::Failed(_) => {
                    bot.ended(pipe);
                    self.act(tcp, bot, pipe, PipeAct::Close);
                    return;
                }
            }
        }
    }
}

fn flush(tcp: &mut Tcp<'_>, bot: &mut PipeBot, id: TcpId, socket: &mut Socket) {
    let taken = tcp.write(id, &socket.kept);
    socket.kept.drain(..taken);
    bot.blocked(socket.pipe, !socket.kept.is_empty());
}

impl Host for PipeBotHost {
    fn turn(&mut self, turn: &mut Turn<'_>) -> Turned {
        let now = turn.elapsed();
        let bot = self.bot.clone();
        let mut bot = bot.lock().unwrap();
        let mut tcp = turn.tcp();
        if *self.silent.lock().unwrap() {
            // It falls silent, as the others of its kind: nothing is said, not even that.
            while tcp.news().is_some() {}
            return Turned::default();
        }
        while let Some(news) = tcp.news() {
            match news {
                News::Incoming => {}
                News::Connected(id) => {
                    if let Some(socket) = self.sockets.get(&id) {
                        bot.connected(socket.pipe);
                    }
                }
                News::Readable(id) => self.read(&mut tcp, &mut bot, id),
                News::Writable(id) => {
                    if let Some(socket) = self.sockets.get_mut(&id) {
                        flush(&mut tcp, &mut bot, id, socket);
                    }
                }
            }
        }
        if now >= self.next {
            self.next = now + bot.pause();
            for (pipe, act) in bot.tick(now, self.budget) {
                self.act(&mut tcp, &mut bot, pipe, act);
            }
        }
        Turned::default()
    }

    fn wake(&self) -> Option<Duration> {
        (!*self.silent.lock().unwrap()).then_some(self.next)
    }
}
