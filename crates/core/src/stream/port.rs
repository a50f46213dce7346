//! What a stream machine needs of the transport below.

use bytes::Bytes;

/// What came of reading from a port.
#[derive(Debug)]
pub enum Read {
    /// Bytes, in order, never empty.
    Chunk(Bytes),
    /// Nothing now; the port will say when there is.
    Blocked,
    /// The peer finished its side and everything was read.
    Finished,
}

/// A bidirectional stream of a transport. Nothing here blocks or fails for lack of memory.
pub trait StreamPort {
    /// Takes the next chunk of at most `max` bytes. `Err` is the peer's reset code; from then on always `Finished`.
    fn read(&mut self, max: usize) -> Result<Read, u64>;
    /// Takes as much off the front of `chunk` as the transport has room for and returns how much, 0 when it is
    /// blocked. `Err` is the code with which the peer refused further bytes.
    fn write(&mut self, chunk: &mut Bytes) -> Result<usize, u64>;
    /// Closes our direction after what was written.
    fn finish(&mut self);
    /// Gives our direction up; what was not delivered is lost.
    fn reset(&mut self, code: u32);
    /// Wants no more bytes of the peer's direction.
    fn stop(&mut self, code: u32);
}
