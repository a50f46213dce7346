//! The committed corpus, for the ordinary tests that run it through what the fuzz targets call, so that a seed or a crash that fuzzing once found is
//! checked by every test run. Tests of several crates have this file as a module; it stands beside their `crates/` in all of them.

use std::path::Path;

/// The files of `fuzz/corpus/<target>`, by name.
pub(crate) fn seeds(target: &str) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let listing = std::fs::read_dir(&dir).unwrap_or_else(|error| panic!("{} cannot be read: {error}", dir.display()));
    let mut files: Vec<_> = listing.map(|file| file.expect("a directory entry").path()).collect();
    files.sort();
    assert!(files.len() >= 5, "{} has lost its seeds", dir.display());
    files.iter().map(|file| std::fs::read(file).expect("a corpus file")).collect()
}

/// Runs `entry` on every file of `fuzz/corpus/<target>` and on every prefix of it.
pub(crate) fn replay(target: &str, entry: impl Fn(&[u8])) {
    for bytes in seeds(target) {
        for end in 0..=bytes.len() {
            entry(&bytes[..end]);
        }
    }
}
