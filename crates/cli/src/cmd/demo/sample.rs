//! The folder that `strait demo` makes when none is named: one of each thing that is easily lost on the way.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Bytes of the large file.
const BIG: u64 = 64 << 20;
/// Number of small files.
const SMALL: u32 = 300;

/// Makes the sample inside `dir` and returns its path.
pub(in crate::cmd) fn make(dir: &Path) -> io::Result<PathBuf> {
    let top = dir.join("sample");
    for folder in ["empty folder", "many small files", "names/日本語"] {
        fs::create_dir_all(top.join(folder))?;
    }
    fs::write(top.join("empty file"), b"")?;
    fs::write(top.join("names/Grüße aus München.txt"), "Grüße!\n")?;
    fs::write(top.join("names/日本語/🦀"), "crab\n")?;
    fs::write(top.join("run me.sh"), b"#!/bin/sh\necho it runs\n")?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(top.join("run me.sh"), fs::Permissions::from_mode(0o755))?;
    }
    for number in 0..SMALL {
        fs::write(
            top.join(format!("many small files/{number:03}.txt")),
            format!("file number {number}\n").repeat(number as usize % 50),
        )?;
    }
    big(&top.join("big file"))?;
    Ok(top)
}

/// A large file whose bytes do not repeat, so that chunks put in the wrong place are seen.
fn big(path: &Path) -> io::Result<()> {
    let mut file = fs::File::create(path)?;
    let mut bytes = blake3::Hasher::new().finalize_xof();
    let mut piece = vec![0; 1 << 20];
    for _ in 0..BIG / piece.len() as u64 {
        bytes.fill(&mut piece);
        file.write_all(&piece)?;
    }
    file.sync_all()
}
