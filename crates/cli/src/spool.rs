//! What comes on stdin, kept on the disk: its hash has to be known before there can be a ticket, and chunks are asked for in any order.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::exit::{Code, Failure};

/// Bytes read at once.
const PIECE: usize = 1 << 20;

/// A temporary file without a name, where the system can open it again; elsewhere with one, until it is dropped.
#[derive(Debug)]
pub struct Spool {
    path: PathBuf,
    #[cfg(target_os = "linux")]
    _file: File,
    #[cfg(not(target_os = "linux"))]
    _file: tempfile::TempPath,
}

impl Spool {
    /// Reads all of `input`, and tells `read` of each piece. It blocks. Memory: one piece.
    ///
    /// # Errors
    /// [`Code::BadSource`] if there are more than `bytes_max` bytes, or those of a disk; nothing is left behind.
    pub fn fill(mut input: impl Read, bytes_max: u64, mut read: impl FnMut(u64)) -> Result<Spool, Failure> {
        let fail = |error| Failure::disk("keep what comes on stdin in the folder for temporary files", &error);
        let (mut file, spool) = Spool::open().map_err(fail)?;
        let mut piece = vec![0; PIECE];
        let mut total: u64 = 0;
        loop {
            let got = match input.read(&mut piece) {
                Ok(0) => break,
                Ok(got) => got,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Failure::disk("read stdin", &error)),
            };
            total = total.saturating_add(got as u64);
            if total > bytes_max {
                return Err(Failure::new(
                    Code::BadSource,
                    format!("more than {} came on stdin", indicatif::HumanBytes(bytes_max)),
                    "all of it is kept on the disk before it can be sent, so there is a limit",
                    "allow more with --stdin-max, set TMPDIR to a disk with room, or send a file instead",
                ));
            }
            file.write_all(&piece[..got]).map_err(fail)?;
            read(got as u64);
        }
        Ok(spool)
    }

    #[cfg(target_os = "linux")]
    fn open() -> io::Result<(File, Spool)> {
        use std::os::fd::AsRawFd;
        let file = tempfile::tempfile()?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        Ok((file.try_clone()?, Spool { path, _file: file }))
    }

    #[cfg(not(target_os = "linux"))]
    fn open() -> io::Result<(File, Spool)> {
        let (file, path) = tempfile::NamedTempFile::new()?.into_parts();
        Ok((file, Spool { path: path.to_path_buf(), _file: path }))
    }

    /// Where it can be opened, by this process and while this value lives.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_all_up_to_its_limit() {
        let bytes: Vec<u8> = (0..PIECE + 7).map(|i| (i % 251) as u8).collect();
        let mut told = 0;
        let spool = Spool::fill(&bytes[..], bytes.len() as u64, |read| told += read).unwrap();
        assert!(std::fs::read(spool.path()).unwrap() == bytes);
        assert_eq!(told, bytes.len() as u64);
        let path = spool.path().to_owned();
        drop(spool);
        assert!(std::fs::read(path).map_or(true, |other| other != bytes), "it is gone");
        assert_eq!(Spool::fill(&bytes[..], bytes.len() as u64 - 1, |_| ()).unwrap_err().code, Code::BadSource);
    }
}
