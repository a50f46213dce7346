//! Pipes between nodes in memory: in order, with the wire's delay, room for so many bytes on their way, and cut into pieces as the seed says.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::BytesMut;
use strait_core::limits::PIPE_CHUNK_BYTES_MAX;
use strait_core::{ConnId, PipeAction, PipeEnd, PipeEvent};

use super::{Net, address, number_of};

/// Bytes on their way in one direction; more wait with the sender.
const ROOM: usize = 48 << 10;

enum Message {
    Connect,
    Connected,
    Data(Vec<u8>),
    End(PipeEnd),
}

struct End {
    node: usize,
    conn: Option<ConnId>,
    incoming: VecDeque<(Instant, Message)>,
    reading: bool,
    /// Whoever writes to this end was told that it is full.
    full: bool,
}

impl End {
    fn new(node: usize, conn: Option<ConnId>) -> End {
        End { node, conn, incoming: VecDeque::new(), reading: true, full: false }
    }

    fn queued(&self) -> usize {
        self.incoming.iter().map(|(_, message)| if let Message::Data(data) = message { data.len() } else { 0 }).sum()
    }

    /// When the next message can be handed over.
    fn due(&self) -> Option<Instant> {
        let (at, message) = self.incoming.front()?;
        let waits = !self.reading && !matches!(message, Message::Connect | Message::Connected);
        (!waits).then_some(*at)
    }
}

/// All pipes; a pipe has two ends.
#[derive(Default)]
pub struct Pipes {
    pipes: Vec<[End; 2]>,
    /// Bytes that have gone over, both ways.
    pub bytes: usize,
    /// Changes one byte of each so many.
    pub corrupt_every: Option<usize>,
}

impl Net {
    pub(super) fn transmit_pipes(&mut self, node: usize) {
        let mut buffer = Vec::new();
        loop {
            (self.on_node)(Some(node));
            let action = self.nodes[node].poll_pipe(self.now, &mut buffer);
            (self.on_node)(None);
            match action {
                None => return,
                Some(PipeAction::Connect { conn, remote }) => {
                    let ends = [End::new(node, Some(conn)), End::new(number_of(remote), None)];
                    self.pipes.pipes.push(ends);
                    let pipe = self.pipes.pipes.len() - 1;
                    self.put(pipe, 1, Message::Connect);
                }
                Some(PipeAction::Write { conn }) => {
                    self.sent[node].push(buffer.len());
                    self.write(node, conn, &buffer);
                }
                Some(PipeAction::Read { conn }) => {
                    let (pipe, end) = self.find(node, conn);
                    self.pipes.pipes[pipe][end].reading = true;
                }
                Some(PipeAction::Close { conn, .. }) => {
                    let (pipe, end) = self.find(node, conn);
                    self.pipes.pipes[pipe][end].conn = None;
                    self.pipes.pipes[pipe][end].incoming.clear();
                    self.put(pipe, 1 - end, Message::End(PipeEnd::Eof));
                }
            }
        }
    }

    /// Somebody of no node opens a pipe to `to` and says nothing. `None`: it is closed at once.
    pub fn knock(&mut self, from: usize, to: usize) -> Option<ConnId> {
        assert!(from >= self.nodes.len(), "{from} is a node");
        let conn = self.nodes[to].accept_pipe(self.now, address(from))?;
        self.pipes.pipes.push([End::new(from, None), End::new(to, Some(conn))]);
        self.check(to);
        Some(conn)
    }

    /// A pipe loses nothing: where all datagrams would be lost, nothing gets through.
    fn frozen(&self) -> bool {
        self.faults.drop == 100
    }

    fn find(&self, node: usize, conn: ConnId) -> (usize, usize) {
        let is = |end: &End| end.node == node && end.conn == Some(conn);
        let at = self.pipes.pipes.iter().enumerate().find_map(|(at, ends)| Some((at, ends.iter().position(is)?)));
        at.expect("a pipe that is there")
    }

    /// A node has died: its system resets what it had.
    pub(super) fn reset_pipes(&mut self, node: usize) {
        for pipe in 0..self.pipes.pipes.len() {
            for end in 0..2 {
                let this = &mut self.pipes.pipes[pipe][end];
                if this.node == node && this.conn.take().is_some() {
                    this.incoming.clear();
                    self.put(pipe, 1 - end, Message::End(PipeEnd::Reset));
                }
            }
        }
    }

    fn put(&mut self, pipe: usize, end: usize, message: Message) {
        let at = self.now + self.latency;
        self.pipes.pipes[pipe][end].incoming.push_back((at, message));
    }

    fn write(&mut self, node: usize, conn: ConnId, bytes: &[u8]) {
        let (pipe, end) = self.find(node, conn);
        let mut rest = bytes;
        while !rest.is_empty() {
            let most = if self.random().is_multiple_of(4) { 1 + self.random() as usize % 100 } else { PIPE_CHUNK_BYTES_MAX };
            let (piece, later) = rest.split_at(most.min(rest.len()));
            let mut piece = piece.to_vec();
            for byte in &mut piece {
                self.pipes.bytes += 1;
                if self.pipes.corrupt_every.is_some_and(|every| self.pipes.bytes.is_multiple_of(every)) {
                    *byte ^= 1;
                }
            }
            self.put(pipe, 1 - end, Message::Data(piece));
            rest = later;
        }
        let other = &mut self.pipes.pipes[pipe][1 - end];
        if other.queued() > ROOM {
            other.full = true;
            self.tell(pipe, end, PipeEvent::Full);
        }
    }

    pub(super) fn pipes_due(&self) -> Option<Instant> {
        self.pipes.pipes.iter().flatten().filter(|_| !self.frozen()).filter_map(End::due).min()
    }

    /// Hands over what has arrived.
    pub(super) fn deliver_pipes(&mut self) {
        for pipe in 0..self.pipes.pipes.len() {
            for end in 0..2 {
                while !self.frozen() && self.pipes.pipes[pipe][end].due().is_some_and(|at| at <= self.now) {
                    let (_, message) = self.pipes.pipes[pipe][end].incoming.pop_front().expect("just seen");
                    self.hand_over(pipe, end, message);
                    let this = &mut self.pipes.pipes[pipe][end];
                    if this.full && this.queued() <= ROOM / 2 {
                        this.full = false;
                        self.tell(pipe, 1 - end, PipeEvent::Room);
                    }
                }
            }
        }
    }

    fn hand_over(&mut self, pipe: usize, end: usize, message: Message) {
        let other = self.pipes.pipes[pipe][1 - end].node;
        let node = self.pipes.pipes[pipe][end].node;
        match message {
            // Somebody who does not answer.
            Message::Connect if node >= self.nodes.len() => {}
            Message::Connect => {
                let accepted = self.nodes[node].accept_pipe(self.now, address(other));
                self.pipes.pipes[pipe][end].conn = accepted;
                let answer = if accepted.is_some() { Message::Connected } else { Message::End(PipeEnd::Refused) };
                self.put(pipe, 1 - end, answer);
            }
            Message::Connected => self.tell(pipe, end, PipeEvent::Connected),
            Message::Data(data) => {
                (self.on_node)(Some(node));
                let data = BytesMut::from(&data[..]);
                (self.on_node)(None);
                self.tell(pipe, end, PipeEvent::Data(data));
            }
            Message::End(how) => {
                self.tell(pipe, end, PipeEvent::End(how));
            }
        }
    }

    fn tell(&mut self, pipe: usize, end: usize, event: PipeEvent) {
        let this = &mut self.pipes.pipes[pipe][end];
        let (node, Some(conn)) = (this.node, this.conn) else {
            return;
        };
        let reads = matches!(event, PipeEvent::Data(_) | PipeEvent::Connected);
        (self.on_node)(Some(node));
        let goes_on = self.nodes[node].handle_pipe(self.now, conn, event);
        (self.on_node)(None);
        if reads {
            self.pipes.pipes[pipe][end].reading = goes_on;
        }
        self.check(node);
    }
}
