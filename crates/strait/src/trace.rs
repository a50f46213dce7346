//! Traces of connections: of one that is open, for whoever asks for it; and of all into a directory, from their beginning.

use std::fs::{File, OpenOptions};
use std::future::poll_fn;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use strait_core::{PeerId, Taken, TraceSink, Traces};
use tokio::sync::OwnedSemaphorePermit;

use crate::node::Node;

/// Traces at once of one node.
pub const TRACES_MAX: usize = 4;
/// Bytes of a trace that wait until somebody reads them. What comes while there are so many is lost, and the trace says so.
pub const TRACE_WAITING_BYTES_MAX: usize = 256 << 10;
/// Bytes of each file in the directory that `QLOGDIR` names.
pub const QLOG_FILE_BYTES_MAX: u64 = 16 << 20;
/// Files that one node makes there.
pub const QLOG_FILES_MAX: usize = 64;

/// A trace of a connection, as it grows: qlog in its streaming format, JSON text sequences (`docs/captures.md`). Dropping it ends it.
#[derive(Debug)]
pub struct Trace {
    waiting: Arc<Waiting>,
    _place: OwnedSemaphorePermit,
}

/// There is no trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TraceError {
    /// Only what is there can be traced.
    #[error("the peer is not connected; to trace connections from their beginning set QLOGDIR, as docs/captures.md says")]
    NotConnected,
    /// [`TRACES_MAX`] are made already.
    #[error("there are {TRACES_MAX} traces already: end one of them")]
    TooMany,
}

#[derive(Debug, Default)]
struct Waiting(Mutex<Buffer>);

#[derive(Debug, Default)]
struct Buffer {
    text: String,
    waker: Option<Waker>,
    /// One of both has gone.
    over: bool,
}

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, Buffer> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self) {
        let mut buffer = self.lock();
        buffer.over = true;
        let waker = buffer.waker.take();
        drop(buffer);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The node's side of a trace.
struct Sink(Arc<Waiting>);

impl TraceSink for Sink {
    fn record(&mut self, record: &str) -> Taken {
        let mut buffer = self.0.lock();
        if buffer.over {
            return Taken::Over;
        }
        if buffer.text.len() + record.len() > TRACE_WAITING_BYTES_MAX {
            return Taken::NoRoom;
        }
        buffer.text.push_str(record);
        let waker = buffer.waker.take();
        drop(buffer);
        if let Some(waker) = waker {
            waker.wake();
        }
        Taken::Yes
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Trace {
    /// Waits for the next records, whole ones. `None`: the trace is over. Safe to cancel.
    pub async fn next(&mut self) -> Option<Bytes> {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// As [`next`](Self::next).
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let mut buffer = self.waiting.lock();
        if !buffer.text.is_empty() {
            return Poll::Ready(Some(std::mem::take(&mut buffer.text).into()));
        }
        if buffer.over {
            return Poll::Ready(None);
        }
        buffer.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        self.waiting.end();
    }
}

impl Node {
    /// Traces the connection to `peer` that is in use, from now on until it ends or as much as `bytes_max` was told. Each packet of that connection
    /// costs some microseconds more meanwhile, and those of all others nothing.
    ///
    /// # Errors
    /// [`TraceError`]: nothing is traced.
    pub fn trace(&self, peer: PeerId, bytes_max: u64) -> Result<Trace, TraceError> {
        let place = self.shared().traces.clone().try_acquire_owned().map_err(|_| TraceError::TooMany)?;
        let waiting = Arc::new(Waiting::default());
        let sink = Box::new(Sink(waiting.clone()));
        let begun = self.shared().ask(|state, now| state.core.trace(now, &peer, bytes_max, sink));
        begun.then_some(Trace { waiting, _place: place }).ok_or(TraceError::NotConnected)
    }
}

/// The directory that `QLOGDIR` names, as with other programs: a file for each connection.
#[derive(Debug)]
pub(crate) struct QlogDir {
    directory: PathBuf,
    /// When the node began, since 1970: files of one that was started again have other names.
    began: Duration,
    made: AtomicUsize,
}

impl QlogDir {
    /// If the variable is set.
    pub(crate) fn named(began: Duration) -> Option<Arc<dyn Traces>> {
        let directory = std::env::var_os("QLOGDIR").filter(|path| !path.is_empty())?;
        tracing::warn!(
            "QLOGDIR is set: each connection is traced, at most {QLOG_FILES_MAX} of them, which costs time for each packet"
        );
        Some(Arc::new(QlogDir { directory: directory.into(), began, made: AtomicUsize::new(0) }))
    }

    fn create(&self, peer: &PeerId, dialled: bool) -> Option<File> {
        let number =
            self.made.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |made| (made < QLOG_FILES_MAX).then_some(made + 1));
        let number = number.inspect_err(|_| tracing::debug!("{QLOG_FILES_MAX} connections were traced: no more are")).ok()?;
        let name = name(self.began, number, peer, dialled);
        // Never over another one: who may write there could have laid a link.
        let file = OpenOptions::new().write(true).create_new(true).open(Path::new(&self.directory).join(&name));
        file.inspect_err(|error| tracing::warn!("a connection is not traced: {name} in the directory of QLOGDIR: {error}")).ok()
    }
}

fn name(began: Duration, number: usize, peer: &PeerId, dialled: bool) -> String {
    let role = if dialled { "client" } else { "server" };
    format!("{}-{number:02}-{peer}-{role}.sqlog", began.as_micros())
}

impl Traces for QlogDir {
    fn begin(&self, peer: &PeerId, dialled: bool) -> Option<(Box<dyn TraceSink>, u64)> {
        let file = self.create(peer, dialled)?;
        Some((Box::new(FileSink(file)), QLOG_FILE_BYTES_MAX))
    }
}

/// Written at once: what the last packets before the end were is what matters most.
struct FileSink(File);

impl TraceSink for FileSink {
    fn record(&mut self, record: &str) -> Taken {
        match self.0.write_all(record.as_bytes()) {
            Ok(()) => Taken::Yes,
            // A full disk stays full, and half a record would spoil what comes behind it.
            Err(_) => Taken::Over,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_reads_is_bounded_and_a_reader_that_has_gone_ends_it() {
        let waiting = Arc::new(Waiting::default());
        let mut sink = Sink(waiting.clone());
        let record = "r".repeat(TRACE_WAITING_BYTES_MAX / 2);
        assert_eq!([sink.record(&record), sink.record(&record), sink.record("r")], [Taken::Yes, Taken::Yes, Taken::NoRoom]);
        assert_eq!(waiting.lock().text.len(), TRACE_WAITING_BYTES_MAX);
        waiting.end();
        assert_eq!(sink.record("r"), Taken::Over);
    }

    #[test]
    fn a_directory_gets_so_many_files_and_none_is_written_over() {
        let directory = std::env::temp_dir().join(format!("strait-qlog-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory");
        let dir = |began| QlogDir { directory: directory.clone(), began, made: AtomicUsize::new(0) };
        let peer = PeerId::random();
        let first = dir(Duration::from_micros(1));
        let made = (0..QLOG_FILES_MAX + 3).filter(|_| first.begin(&peer, true).is_some()).count();
        let files = std::fs::read_dir(&directory).expect("it is there").count();
        let again = dir(Duration::from_micros(1)).begin(&peer, true).is_some();
        std::fs::remove_dir_all(&directory).expect("it is there");
        assert_eq!((made, files, again), (QLOG_FILES_MAX, QLOG_FILES_MAX, false));
    }
}
