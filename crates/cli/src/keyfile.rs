//! Identities: kept in a file that only its owner can read, or made for one run.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use data_encoding::BASE64;
use strait_core::Keypair;

use crate::args::Key;
use crate::exit::{Code, Failure};

/// A key file is at most so long; more is not read.
const FILE_BYTES_MAX: u64 = 16 << 10;

fn bad(what: String, why: &str, next: &str) -> Failure {
    Failure::new(Code::BadKey, what, why, next)
}

/// A new Ed25519 identity from the system's random source.
pub fn fresh() -> Result<Keypair, Failure> {
    Keypair::ed25519_from_bytes(random()?) // wipes its argument
        .map_err(|error| Failure::bug(format!("could not make an identity: {error}")))
}

/// Bytes from the system's random source.
pub fn random() -> Result<[u8; 32], Failure> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)
        .map_err(|error| bad(format!("could not make random numbers: {error}"), "the system gives none", "restart the system"))?;
    Ok(bytes)
}

/// The identity that the command line asks for.
pub fn choose(key: &Key) -> Result<Keypair, Failure> {
    if key.ephemeral {
        return fresh();
    }
    match &key.key {
        Some(path) => load_or_make(path),
        None => load_or_make(&usual_path()?),
    }
}

/// The identity in this file, made if it is not there; a new one that is forgotten if none is named.
pub fn kept_or_fresh(path: Option<&Path>) -> Result<Keypair, Failure> {
    path.map_or_else(fresh, load_or_make)
}

/// `$XDG_DATA_HOME/strait/key`, or its usual place (XDG Base Directory Specification).
fn usual_path() -> Result<PathBuf, Failure> {
    let set = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let data = set("XDG_DATA_HOME").or_else(|| Some(set("HOME").or_else(|| set("USERPROFILE"))?.join(".local/share")));
    data.map(|data| data.join("strait").join("key")).ok_or_else(|| {
        let why = "neither XDG_DATA_HOME nor HOME is set";
        bad("there is no place for the key file".to_owned(), why, "name a file with --key, or use --ephemeral")
    })
}

/// Reads the identity from a file, or makes one and keeps it there.
pub fn load_or_make(path: &Path) -> Result<Keypair, Failure> {
    match read(path) {
        Ok(text) => decode(&text).ok_or_else(|| {
            let why = "it was damaged, or is not a key file of strait";
            bad(format!("{} is not a key file", path.display()), why, "name another file with --key, or move this one away")
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(path),
        Err(error) => Err(unusable(path, &error)),
    }
}

fn unusable(path: &Path, error: &io::Error) -> Failure {
    let why = "the file or its folder may not be used by you";
    bad(
        format!("could not use the key file {}: {error}", path.display()),
        why,
        "name another file with --key, or use --ephemeral",
    )
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    fs::File::open(path)?.take(FILE_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

fn decode(text: &str) -> Option<Keypair> {
    Keypair::from_protobuf_encoding(&BASE64.decode(text.trim().as_bytes()).ok()?).ok()
}

fn make(path: &Path) -> Result<Keypair, Failure> {
    let keypair = fresh()?;
    let encoded = keypair.to_protobuf_encoding().map_err(|error| Failure::bug(format!("could not encode a key: {error}")))?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Written aside and linked into place, so that two first runs at once end with one key, and a crash with none or a whole one.
    let kept = fs::create_dir_all(folder).and_then(|()| {
        let mut aside = tempfile::NamedTempFile::new_in(folder)?; // mode 0600
        aside.write_all(format!("{}\n", BASE64.encode(&encoded)).as_bytes())?;
        aside.as_file().sync_all()?;
        match aside.persist_noclobber(path) {
            Ok(_) => Ok(()),
            Err(error) => Err(error.error),
        }
    });
    match kept {
        Ok(()) => Ok(keypair),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            read(path).ok().and_then(|text| decode(&text)).ok_or_else(|| unusable(path, &error))
        }
        Err(error) => Err(unusable(path, &error)),
    }
}

/// A warning if others than the owner can read the key file.
pub fn warning(key: &Key) -> Option<String> {
    let path = key.key.clone().or_else(|| usual_path().ok())?;
    let open = !key.ephemeral && readable_by_others(&path);
    open.then(|| format!("warning: others can read the key file {0}; run: chmod 600 {0}", path.display()))
}

#[cfg(unix)]
fn readable_by_others(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o077 != 0)
}

#[cfg(not(unix))]
fn readable_by_others(_: &Path) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_made_once_and_kept_for_its_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/key");
        let first = load_or_make(&path).unwrap().public().to_peer_id();
        assert_eq!(load_or_make(&path).unwrap().public().to_peer_id(), first);
        assert_ne!(fresh().unwrap().public().to_peer_id(), first);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing else is left there");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            let key = Key { key: Some(path.clone()), ephemeral: false };
            assert_eq!(warning(&key), None);
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
            assert!(warning(&key).unwrap().contains("chmod 600"));
        }
    }

    #[test]
    fn damaged_files_are_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        for text in ["", "hello", "AAAA", &"A".repeat(100_000)] {
            fs::write(&path, text).unwrap();
            assert_eq!(load_or_make(&path).unwrap_err().code, Code::BadKey);
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }
}
