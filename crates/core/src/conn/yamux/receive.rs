//! What comes in: frames are taken apart, checked, and only then believed.

use std::collections::BTreeMap;
use std::time::Instant;

use bytes::Bytes;
use strait_wire::yamux::{ACK, FIN, HEADER_BYTES, Header, INITIAL_WINDOW, Kind, RST, SYN};

use super::stream::{READABLE, Receive, STOPPED, Send, Stream};
use super::{BACKLOG_MAX, Broken, CHUNK_BYTES, FRAME_WORK, SLICE_BYTES_MIN, Session, Side};

/// The memory of what was received and not read.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    /// What it costs: chunks that slices were kept of, copies, bookkeeping.
    pub(super) cost: u64,
    /// The bytes themselves.
    pub(super) stored: u64,
    /// Chunks that are held in memory: how many slices of each, and what goes with the last.
    pinned: BTreeMap<u64, (u32, u64)>,
    current: u64,
    current_bytes: u64,
}

impl Chunks {
    fn begin(&mut self, bytes: usize) {
        self.current = self.current.saturating_add(1);
        self.current_bytes = bytes as u64;
    }

    /// One more slice of the current chunk is kept. Returns the chunk's number.
    pub(super) fn pin(&mut self, entry: u32) -> u64 {
        let bytes = self.current_bytes.saturating_add(CHUNK_BYTES);
        let (slices, _) = self.pinned.entry(self.current).or_insert_with(|| {
            self.cost = self.cost.saturating_add(bytes);
            (0, bytes)
        });
        *slices = slices.saturating_add(1);
        self.add(entry);
        self.current
    }

    pub(super) fn add(&mut self, cost: u32) {
        self.cost = self.cost.saturating_add(cost.into());
    }

    pub(super) fn release(&mut self, cost: u32, chunk: u64) {
        self.cost = self.cost.saturating_sub(cost.into());
        if let Some((slices, bytes)) = self.pinned.get_mut(&chunk) {
            *slices = slices.saturating_sub(1);
            if *slices == 0 {
                self.cost = self.cost.saturating_sub(*bytes);
                self.pinned.remove(&chunk);
            }
        }
    }

    /// Gives back room that nothing needs now.
    pub(super) fn rest(&mut self) {
        if self.pinned.is_empty() {
            self.pinned = BTreeMap::new();
        }
    }

    pub(super) fn put(&mut self, bytes: usize) {
        self.stored = self.stored.saturating_add(bytes as u64);
    }

    pub(super) fn took(&mut self, bytes: usize) {
        self.stored = self.stored.saturating_sub(bytes as u64);
    }
}

/// The body that is coming.
#[derive(Debug, Clone, Copy, Default)]
struct Body {
    /// Whose it is, or 0: it is dropped.
    stream: u32,
    left: u32,
    /// The direction ends behind it.
    fin: bool,
}

/// How far the input was taken apart.
#[derive(Debug, Default)]
pub(super) struct Parser {
    head: [u8; HEADER_BYTES],
    have: usize,
    body: Body,
}

impl Session {
    /// Takes a chunk of the peer's bytes, all of it. The chunk should be an allocation of its own size: it is charged by its length while slices of
    /// it are unread. What was asked for by [`wants_input`](Self::wants_input) is at most one chunk over the receive window, so chunks should be at most
    /// 64 KiB. What it cost is added to [`take_work`](Self::take_work).
    ///
    /// # Errors
    /// The peer broke the rules. Nothing of the frame that did was believed; a GoAway with the code of a protocol error is ready to
    /// be sent, [`poll`](Self::poll) tells of the loss, and every later chunk gets the same error.
    pub(crate) fn handle(&mut self, now: Instant, chunk: Bytes) -> Result<(), Broken> {
        self.begin(now);
        if let Some(broken) = self.broken {
            return Err(broken);
        }
        if self.is_closing() || chunk.is_empty() {
            return Ok(());
        }
        self.heard = Some(now);
        self.work = self.work.saturating_add(chunk.len() as u64);
        self.chunks.begin(chunk.len());
        if let Err(broken) = self.take_apart(now, chunk) {
            self.fail(broken);
            return Err(broken);
        }
        if !self.wants_input() {
            self.relieve();
        }
        if !self.wants_input() {
            self.stalls = self.stalls.saturating_add(1);
            self.deaf = true;
        }
        Ok(())
    }

    /// The window is full. Chunks that are held for few bytes make it so sooner than need be: those bytes are copied. Each byte is copied so
    /// at most once, and only when chunks hold as much again beside what is unread.
    fn relieve(&mut self) {
        let needed = self.chunks.stored.saturating_mul(2).saturating_add(super::CHUNK_BYTES_MAX);
        if self.chunks.cost > needed {
            for stream in self.streams.values_mut() {
                stream.inbox.unpin(&mut self.chunks);
            }
        }
    }

    fn take_apart(&mut self, now: Instant, mut rest: Bytes) -> Result<(), Broken> {
        let whole = rest.len();
        // What is behind the end of the session is for nobody.
        while !rest.is_empty() && !self.is_closing() {
            if self.parser.body.left > 0 {
                let left = usize::try_from(self.parser.body.left).unwrap_or(usize::MAX);
                let piece = rest.split_to(left.min(rest.len()));
                self.piece(piece, whole);
                continue;
            }
            let missing = HEADER_BYTES.saturating_sub(self.parser.have).min(rest.len());
            let piece = rest.split_to(missing);
            let room = self.parser.head.iter_mut().skip(self.parser.have);
            room.zip(piece.iter()).for_each(|(to, from)| *to = *from);
            self.parser.have = self.parser.have.saturating_add(missing);
            if self.parser.have == HEADER_BYTES {
                self.parser.have = 0;
                let header = Header::decode(&self.parser.head)?;
                self.work = self.work.saturating_add(FRAME_WORK);
                self.frame(now, header)?;
            }
        }
        Ok(())
    }

    /// A part of a body.
    fn piece(&mut self, piece: Bytes, whole: usize) {
        let body = &mut self.parser.body;
        body.left = body.left.saturating_sub(u32::try_from(piece.len()).unwrap_or(u32::MAX));
        let (id, ends) = (body.stream, body.fin && body.left == 0);
        if let Some(stream) = self.streams.get_mut(&id).filter(|stream| stream.receive == Receive::Open) {
            self.chunks.put(piece.len());
            // A slice keeps all of its chunk in memory: only a good part of one may.
            if piece.len() >= SLICE_BYTES_MIN && piece.len().saturating_mul(4) >= whole {
                stream.inbox.keep(piece, &mut self.chunks);
            } else {
                stream.inbox.copy(&piece, &mut self.chunks);
            }
            self.event(id, READABLE);
        }
        if ends {
            self.finished_by_peer(id);
        }
    }

    fn frame(&mut self, now: Instant, header: Header) -> Result<(), Broken> {
        match header.kind {
            Kind::Ping => self.ping_frame(now, header),
            Kind::GoAway => {
                self.away_frame(now, header.length);
                Ok(())
            }
            Kind::Data | Kind::WindowUpdate => self.stream_frame(header),
        }
    }

    fn stream_frame(&mut self, header: Header) -> Result<(), Broken> {
        let id = header.stream;
        if id == 0 {
            return Err(Broken::NoStream);
        }
        if header.has(RST) {
            self.skip(header)?;
            // The length is an error code where there is one; credit it is never.
            let code = if header.kind == Kind::WindowUpdate { header.length } else { 0 };
            self.reset_by_peer(id, code.into());
            return Ok(());
        }
        if header.has(SYN) {
            if !self.opened_by_peer(header)? {
                return self.skip(header);
            }
        } else if !self.streams.contains_key(&id) {
            // A frame for a stream that is over may well have been on its way. Numbers of ours tell those from lies.
            if self.is_ours(id) && self.next_id.is_some_and(|next| id >= next) {
                return Err(Broken::NeverOpened);
            }
            return self.skip(header);
        }
        self.known_stream(header)
    }

    /// A frame whose content nobody wants. Only so much can have been on its way as was once allowed.
    fn skip(&mut self, header: Header) -> Result<(), Broken> {
        if header.body() > self.window_ever {
            return Err(Broken::BeyondWindow);
        }
        self.parser.body = Body { stream: 0, left: header.body(), fin: false };
        Ok(())
    }

    /// Whether a new stream was made; if not, it is refused.
    fn opened_by_peer(&mut self, header: Header) -> Result<bool, Broken> {
        let id = header.stream;
        if self.is_ours(id) {
            return Err(Broken::WrongSide);
        }
        if self.streams.contains_key(&id) {
            return Err(Broken::OpenedTwice);
        }
        match header.kind {
            Kind::Data if header.length > INITIAL_WINDOW => return Err(Broken::BeyondWindow),
            Kind::WindowUpdate if INITIAL_WINDOW.checked_add(header.length).is_none() => return Err(Broken::CreditOverflow),
            _ => {}
        }
        if self.backlog.len() >= BACKLOG_MAX {
            self.refuse(id)?;
            return Ok(false);
        }
        self.streams.insert(id, Stream::theirs(INITIAL_WINDOW));
        self.backlog.push_back(id);
        self.opened = true;
        Ok(true)
    }

    fn known_stream(&mut self, header: Header) -> Result<(), Broken> {
        let (id, body) = (header.stream, header.body());
        let Some(stream) = self.streams.get_mut(&id) else {
            return Ok(());
        };
        if header.kind == Kind::WindowUpdate {
            // What is queued here is covered by earlier credit that the peer still counts.
            let all = u64::from(stream.credit_out).saturating_add(stream.queued).saturating_add(header.length.into());
            if all > u64::from(u32::MAX) {
                return Err(Broken::CreditOverflow);
            }
            stream.credit_out = stream.credit_out.saturating_add(header.length);
        } else {
            if body > 0 && stream.receive == Receive::Finished {
                return Err(Broken::AfterEnd);
            }
            stream.credit_in = stream.credit_in.checked_sub(body).ok_or(Broken::BeyondWindow)?;
            let wanted = stream.receive == Receive::Open;
            if wanted {
                stream.unread = stream.unread.saturating_add(body.into());
            }
            self.parser.body = Body { stream: id, left: body, fin: header.has(FIN) };
        }
        if header.has(ACK) {
            self.acknowledged(id);
        }
        if header.kind == Kind::WindowUpdate && header.length > 0 {
            self.want_again(id);
        }
        if header.has(FIN) && body == 0 {
            self.finished_by_peer(id);
        }
        self.end_if_stopped(id);
        Ok(())
    }

    fn finished_by_peer(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        match stream.receive {
            Receive::Open => {
                self.grown = self.grown.saturating_sub(stream.grown());
                stream.receive = Receive::Finished;
                self.event(id, READABLE);
            }
            Receive::Stopped(_) => {
                stream.receive = Receive::Finished;
                stream.receive_told = true;
            }
            Receive::Finished | Receive::Reset(_) => {}
        }
        self.forget_if_over(id);
    }

    fn reset_by_peer(&mut self, id: u32, code: u64) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if stream.waiting {
            // Nobody here has seen it.
            return self.forget(id);
        }
        // The other side has forgotten the stream: whatever was to be said of it need not be.
        stream.reset = None;
        match stream.receive {
            Receive::Open => {
                // What came before it is read first, as with our own reset: a listener that refuses and leaves has said why.
                self.grown = self.grown.saturating_sub(stream.grown());
                stream.receive = Receive::Reset(code);
                self.event(id, READABLE);
            }
            Receive::Stopped(_) => {
                stream.receive = Receive::Reset(code);
                stream.receive_told = true;
            }
            Receive::Finished | Receive::Reset(_) => {}
        }
        if let Some(stream) = self.streams.get_mut(&id)
            && matches!(stream.send, Send::Open | Send::Ending)
        {
            stream.send = Send::Refused(code);
            self.drop_outbox(id);
            self.event(id, STOPPED);
        }
        self.acknowledged(id);
        self.forget_if_over(id);
    }

    /// Whether streams with this number are opened by this side: clients have odd ones, servers even ones.
    pub(super) fn is_ours(&self, id: u32) -> bool {
        (id % 2 == 1) == (self.side == Side::Client)
    }

    fn acknowledged(&mut self, id: u32) {
        if let Some(stream) = self.streams.get_mut(&id)
            && std::mem::take(&mut stream.unacknowledged)
        {
            self.unacknowledged_opens = self.unacknowledged_opens.saturating_sub(1);
            self.tell_available();
        }
    }
}
