//! One pipe of a bot: what it has said and heard, through TLS where the attack goes on behind it.

use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

/// What comes before TLS from a node that agrees: multistream-select's two lines.
const AGREED_BYTES: usize = 20 + 12;

/// One pipe.
pub(super) struct Line {
    pub(super) born: Duration,
    /// The pipe is there.
    pub(super) up: bool,
    /// Its owner still keeps what was said before.
    pub(super) blocked: bool,
    /// What was heard and is not TLS, at most [`AGREED_BYTES`].
    skipped: usize,
    tls: Option<Box<ClientConnection>>,
    out: Vec<u8>,
    /// What was read inside of TLS and nobody has looked at.
    pub(super) heard: Vec<u8>,
    pub(super) opened: bool,
    /// How far a slow attack is, and when it goes on.
    pub(super) said: usize,
    pub(super) next_at: Duration,
    /// The number of the next stream.
    pub(super) stream: u32,
    /// Streams that are open: the number, and what is left to be said.
    pub(super) streams: Vec<(u32, u64)>,
    pub(super) turn: usize,
}

impl Line {
    pub(super) fn new(now: Duration) -> Line {
        Line {
            born: now,
            up: false,
            blocked: false,
            skipped: 0,
            tls: None,
            out: Vec::new(),
            heard: Vec::new(),
            opened: false,
            said: 0,
            next_at: now,
            stream: 1,
            streams: Vec::new(),
            turn: 0,
        }
    }

    /// Begins TLS, behind the words that agree on it.
    pub(super) fn secure(&mut self, config: Arc<ClientConfig>) {
        let name = ServerName::try_from("libp2p").expect("a name");
        self.tls = Some(Box::new(ClientConnection::new(config, name).expect("a client")));
    }

    pub(super) fn is_secure(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| !tls.is_handshaking())
    }

    /// Takes what came. False when it is not what was to come: the node has refused us, most likely.
    pub(super) fn receive(&mut self, bytes: &[u8]) -> bool {
        let Some(tls) = &mut self.tls else {
            return true;
        };
        let skip = (AGREED_BYTES - self.skipped).min(bytes.len());
        self.skipped += skip;
        let mut rest = &bytes[skip..];
        while !rest.is_empty() {
            if tls.read_tls(&mut rest).is_err() || tls.process_new_packets().is_err() {
                return false;
            }
            let mut part = [0; 4096];
            while let Ok(len @ 1..) = tls.reader().read(&mut part) {
                // Nothing is done with more than the last of it.
                self.heard.clear();
                self.heard.extend(&part[..len]);
            }
        }
        true
    }

    /// Says this: inside of TLS once it is complete.
    pub(super) fn say(&mut self, bytes: &[u8]) {
        match &mut self.tls {
            Some(tls) if !tls.is_handshaking() => {
                let _ = tls.writer().write_all(bytes);
                while tls.wants_write() && tls.write_tls(&mut self.out).is_ok() {}
            }
            _ => self.out.extend(bytes),
        }
    }

    /// How much waits to leave.
    pub(super) fn out_len(&self) -> usize {
        self.out.len()
    }

    /// All that is to leave now.
    pub(super) fn take(&mut self) -> Vec<u8> {
        if let Some(tls) = &mut self.tls {
            while tls.wants_write() && tls.write_tls(&mut self.out).is_ok() {}
        }
        std::mem::take(&mut self.out)
    }
}

/// A Yamux frame's header (hashicorp/yamux `spec.md`): version 0, type, flags, stream, length.
pub(super) fn yamux(kind: u8, flags: u16, stream: u32, length: u32) -> Vec<u8> {
    [&[0, kind][..], &flags.to_be_bytes(), &stream.to_be_bytes(), &length.to_be_bytes()].concat()
}
