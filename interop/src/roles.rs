//! What happens on the streams of these tests, as a script with two roles: who opens a stream, and who responds. The Rust stacks share this code,
//! each over its own streams; `js/node.js` says the same in JavaScript.
//!
//! | protocol | opener | responder |
//! |---|---|---|
//! | [`HALF_CLOSED`] | a question, end | after the end: the question's receipt, 1 MiB, end |
//! | [`LAST_WORD`] | 8 bytes of its choice, later 1 MiB, end | after the 8 bytes: [`FAREWELL`], end; reads on |
//! | [`HEARD`] | the 8 bytes again, end | the receipt of the 1 MiB that came with them, end |
//! | [`TRANSFER`] | bytes, end | their receipt, end |
//! | [`ECHO`] | bytes, end | the same bytes as they come, end |
//!
//! Who opens checks everything. Bytes are those of [`filler`]; a receipt is how many bytes came (8 bytes, big endian) and their SHA-256.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;

use futures::future::{BoxFuture, try_join_all};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Barrier, watch};

/// One direction ends, and then the other begins.
pub const HALF_CLOSED: &str = "/strait-interop/half-closed/1";
/// The responder's direction ends first.
pub const LAST_WORD: &str = "/strait-interop/last-word/1";
/// What came after the responder's direction had ended.
pub const HEARD: &str = "/strait-interop/heard/1";
/// Many bytes one way.
pub const TRANSFER: &str = "/strait-interop/transfer/1";
/// Both ways at once.
pub const ECHO: &str = "/strait-interop/echo/1";
/// All protocols of streams.
pub const PROTOCOLS: [&str; 5] = [HALF_CLOSED, LAST_WORD, HEARD, TRANSFER, ECHO];

/// What the responder says before it ends its direction of [`LAST_WORD`].
pub const FAREWELL: &[u8] = b"nothing more from here";

/// What follows the end of the other direction: four times a fresh window of Yamux, so that windows must still open then.
pub const AFTER_END_BYTES: u64 = 1 << 20;

/// How many streams are open at once in [`Role::Parallel`]. All of them are there before one goes on.
pub const STREAMS: usize = 100;
/// What goes over each of them before all are there.
const ECHO_FIRST_BYTES: u64 = 1 << 10;
/// And in all.
const ECHO_BYTES: u64 = 16 << 10;

/// A stream of any stack.
pub trait Io: AsyncRead + AsyncWrite + Debug + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Debug + Send + Unpin> Io for T {}

/// A stream of any stack.
pub type Duplex = Box<dyn Io>;

/// Opens streams to one peer.
pub trait Opener: Sync {
    /// A new stream.
    ///
    /// # Errors
    /// In the stack's words.
    fn open(&self, protocol: &'static str) -> BoxFuture<'_, Result<Duplex, String>>;
}

/// What to do on streams that one opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// [`HALF_CLOSED`].
    HalfClosed,
    /// [`LAST_WORD`], and [`HEARD`].
    LastWord,
    /// [`TRANSFER`].
    Transfer {
        /// How many bytes.
        bytes: u64,
    },
    /// [`STREAMS`] of [`ECHO`].
    Parallel,
}

/// Plays a role.
///
/// # Errors
/// What went wrong, in words.
pub async fn play(role: Role, opener: &dyn Opener) -> Result<(), String> {
    match role {
        Role::HalfClosed => half_closed(opener.open(HALF_CLOSED).await?).await,
        Role::LastWord => last_word(opener).await,
        Role::Transfer { bytes } => transfer(opener.open(TRANSFER).await?, bytes).await,
        Role::Parallel => parallel(opener).await,
    }
}

async fn half_closed(mut stream: Duplex) -> Result<(), String> {
    let question = filler(1_000);
    all("the question", stream.write_all(&question).await)?;
    all("the end of this direction", stream.shutdown().await)?;
    let answer = read_all("the answer after the end", &mut stream).await?;
    let mut expected = Receipt::of(&question).to_vec();
    expected.extend(filler(AFTER_END_BYTES));
    same("the answer", &answer, &expected)
}

async fn last_word(opener: &dyn Opener) -> Result<(), String> {
    let ticket = *b"a ticket";
    let mut stream = opener.open(LAST_WORD).await?;
    all("the ticket", stream.write_all(&ticket).await)?;
    all("the ticket", stream.flush().await)?;
    let farewell = read_all("the farewell", &mut stream).await?;
    same("the farewell", &farewell, FAREWELL)?;
    let rest = filler(AFTER_END_BYTES);
    all("what follows the other direction's end", stream.write_all(&rest).await)?;
    all("the end of this direction", stream.shutdown().await)?;
    let mut asking = opener.open(HEARD).await?;
    all("the ticket again", asking.write_all(&ticket).await)?;
    all("the end of this direction", asking.shutdown().await)?;
    let heard = read_all("the receipt", &mut asking).await?;
    same("the receipt of what followed the other direction's end", &heard, &Receipt::of(&rest))
}

async fn transfer(mut stream: Duplex, bytes: u64) -> Result<(), String> {
    let mut receipt = Receipt::default();
    let mut block = filler(BLOCK_BYTES);
    let mut index = 0u64;
    while receipt.bytes < bytes {
        block[..8].copy_from_slice(&index.to_be_bytes());
        let part = &block[..(bytes - receipt.bytes).min(BLOCK_BYTES) as usize];
        all("the bytes", stream.write_all(part).await)?;
        receipt.add(part);
        index += 1;
    }
    all("the end of this direction", stream.shutdown().await)?;
    let answer = read_all("the receipt", &mut stream).await?;
    same("the receipt", &answer, &receipt.finish())
}

async fn parallel(opener: &dyn Opener) -> Result<(), String> {
    let there = Barrier::new(STREAMS);
    let bytes = filler(ECHO_BYTES);
    let one = async |index: usize| {
        let first = ECHO_FIRST_BYTES as usize;
        let mut stream = opener.open(ECHO).await.map_err(|error| format!("stream {index}: {error}"))?;
        all("the first bytes", stream.write_all(&bytes[..first]).await)?;
        all("the first bytes", stream.flush().await)?;
        let mut echo = vec![0; first];
        all("the first echo", stream.read_exact(&mut echo).await)?;
        there.wait().await;
        all("the other bytes", stream.write_all(&bytes[first..]).await)?;
        all("the end of this direction", stream.shutdown().await)?;
        echo.extend(read_all("the echo", &mut stream).await?);
        same("the echo", &echo, &bytes)
    };
    try_join_all((0..STREAMS).map(one)).await.map(drop)
}

/// Responds to streams.
#[derive(Debug, Clone)]
pub struct Responder {
    heard: watch::Sender<BTreeMap<[u8; 8], [u8; Receipt::BYTES]>>,
}

impl Default for Responder {
    fn default() -> Self {
        Self { heard: watch::Sender::new(BTreeMap::new()) }
    }
}

impl Responder {
    /// Takes a stream of one of [`PROTOCOLS`] to its end. What goes wrong the opener sees.
    pub async fn serve(self, protocol: String, stream: Duplex) {
        let served = self.respond(&protocol, stream).await;
        if let Err(error) = served {
            eprintln!("the responder of {protocol}: {error}");
        }
    }

    async fn respond(&self, protocol: &str, mut stream: Duplex) -> io::Result<()> {
        match protocol {
            HALF_CLOSED => {
                let receipt = Receipt::of_stream(&mut stream).await?;
                stream.write_all(&receipt).await?;
                stream.write_all(&filler(AFTER_END_BYTES)).await?;
            }
            LAST_WORD => {
                let mut ticket = [0; 8];
                stream.read_exact(&mut ticket).await?;
                stream.write_all(FAREWELL).await?;
                stream.shutdown().await?;
                let receipt = Receipt::of_stream(&mut stream).await?;
                self.heard.send_modify(|heard| _ = heard.insert(ticket, receipt));
                return Ok(());
            }
            HEARD => {
                let mut ticket = [0; 8];
                stream.read_exact(&mut ticket).await?;
                // Whoever drops a direction without its end refuses what may still come.
                if stream.read(&mut [0]).await? != 0 {
                    return Err(io::Error::other("more than a ticket"));
                }
                let mut heard = self.heard.subscribe();
                let receipt = heard.wait_for(|heard| heard.contains_key(&ticket)).await.map_err(io::Error::other)?[&ticket];
                stream.write_all(&receipt).await?;
            }
            TRANSFER => {
                let receipt = Receipt::of_stream(&mut stream).await?;
                stream.write_all(&receipt).await?;
            }
            ECHO => {
                let mut buffer = vec![0; 16 << 10];
                loop {
                    match stream.read(&mut buffer).await? {
                        0 => break,
                        bytes => stream.write_all(&buffer[..bytes]).await?,
                    }
                    stream.flush().await?;
                }
            }
            other => return Err(io::Error::other(format!("{other} has no script"))),
        }
        stream.shutdown().await
    }
}

/// What came, in short.
#[derive(Debug, Clone, Default)]
struct Receipt {
    bytes: u64,
    hash: Sha256,
}

impl Receipt {
    const BYTES: usize = 40;

    fn add(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.hash.update(bytes);
    }

    fn finish(self) -> [u8; Self::BYTES] {
        let mut out = [0; Self::BYTES];
        out[..8].copy_from_slice(&self.bytes.to_be_bytes());
        out[8..].copy_from_slice(&self.hash.finalize());
        out
    }

    fn of(bytes: &[u8]) -> [u8; Self::BYTES] {
        let mut receipt = Receipt::default();
        receipt.add(bytes);
        receipt.finish()
    }

    async fn of_stream(stream: &mut Duplex) -> io::Result<[u8; Self::BYTES]> {
        let mut receipt = Receipt::default();
        let mut buffer = vec![0; BLOCK_BYTES as usize];
        loop {
            match stream.read(&mut buffer).await? {
                0 => return Ok(receipt.finish()),
                bytes => receipt.add(&buffer[..bytes]),
            }
        }
    }
}

const BLOCK_BYTES: u64 = 64 << 10;

/// Bytes that tell where in a message they are: blocks of 64 KiB, each its index (8 bytes, big endian) and then each place's remainder by 251.
pub fn filler(bytes: u64) -> Vec<u8> {
    let mut out: Vec<u8> = (0..bytes).map(|at| (at % BLOCK_BYTES % 251) as u8).collect();
    for (index, block) in out.chunks_mut(BLOCK_BYTES as usize).enumerate() {
        let number = (index as u64).to_be_bytes();
        let len = block.len().min(number.len());
        block[..len].copy_from_slice(&number[..len]);
    }
    out
}

async fn read_all(what: &str, stream: &mut Duplex) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    // Above all that is expected: more must not fill the memory.
    let cap = 2 * AFTER_END_BYTES;
    all(what, stream.take(cap).read_to_end(&mut bytes).await)?;
    Ok(bytes)
}

fn all<T>(what: &str, result: io::Result<T>) -> Result<T, String> {
    result.map_err(|error| format!("{what}: {error}"))
}

fn same(what: &str, found: &[u8], expected: &[u8]) -> Result<(), String> {
    match found == expected {
        true => Ok(()),
        false => Err(format!("{what}: {} bytes came that are not the {} expected ones", found.len(), expected.len())),
    }
}
