//! What the decoders of this crate promise, as one function for each: the fuzz targets in `fuzz/` and the replay of their corpus in
//! `tests/fuzz_corpus.rs` call these.
//!
//! # Panics
//! Each function does when its decoder breaks its word, and never otherwise. They are for tests; nothing in the command calls them.

use std::convert::Infallible;

use bytes::Bytes;

use crate::forward;
use crate::manifest::{
    DEPTH_MAX, ENTRY_BYTES_MAX, Entry, EntryError, Header, Kind, Listing, PATH_BYTES_MAX, Rules, Step, Walker, check_name,
    encode, shown,
};
use crate::ticket::{self, ADDR_BYTES_MAX, ADDRS_MAX, Contact, TEXT_MAX, Ticket};
use crate::tree::{PAGE_BYTES, Shape};
use crate::wire::{self, Ask, DETAIL_BYTES_MAX, Declined, Protocol};

/// Tickets and addresses: what is read comes back as it was written. The bytes are a text, or (first byte odd) what is in a ticket, whose
/// checksum chance would never find.
pub fn ticket(bytes: &[u8]) {
    let Some((kind, rest)) = bytes.split_first() else {
        return;
    };
    let text = match kind & 1 {
        0 => String::from_utf8_lossy(rest).into_owned(),
        _ => ticket::sealed(rest.to_vec()),
    };
    let bounded = |contact: &Contact| {
        assert!(contact.addrs.len() <= ADDRS_MAX && contact.addrs.iter().all(|addr| addr.len() <= TEXT_MAX));
    };
    if let Ok(found) = text.parse::<Ticket>() {
        assert!(text.trim().len() <= TEXT_MAX && found.addrs.iter().all(|addr| addr.len() <= ADDR_BYTES_MAX));
        assert_eq!(found.to_string(), text.trim().to_ascii_lowercase(), "another spelling");
        let contact = Contact { peer: found.peer, addrs: found.addrs };
        assert_eq!(Contact::read(&text).ok(), Some(contact));
    }
    if let Ok(found) = Contact::read(&text) {
        bounded(&found);
        let short = found.addrs.iter().all(|addr| addr.len() <= ADDR_BYTES_MAX);
        assert!(!short || Contact::read(&found.to_string()) == Ok(found), "it does not come back");
    }
}

/// Manifest headers and entries. The first byte says whose rules for names hold and how the rest is cut, two more how much content there is.
pub fn manifest(bytes: &[u8]) {
    if let Ok(header) = Header::decode(bytes) {
        assert_eq!(header.encode(), bytes);
        shape(header.content());
        shape(header.entry_pages());
        assert!(header.entries > 0 && header.entries.saturating_mul(4) <= header.entries_len);
    }
    let [kind, high, low, entries @ ..] = bytes else {
        return;
    };
    let rules = if kind & 1 == 0 { Rules::Unix } else { Rules::Windows };
    let content_max = u64::from(u16::from_be_bytes([*high, *low]));
    let walked = walk(entries, rules, content_max);
    let piece = usize::from(kind >> 1).max(1);
    let mut listing = Listing::new(rules, content_max);
    let (mut listed, mut refused) = (Vec::new(), false);
    for piece in entries.chunks(piece) {
        let pushed = listing.push(piece, |walker, entry| {
            listed.push((walker.path().to_vec(), *entry));
            Ok::<_, Infallible>(())
        });
        if pushed.is_err() {
            refused = true;
            break;
        }
    }
    assert_eq!(listed, walked, "it matters how entries are cut");
    let finished = listing.finish(walked.len() as u64);
    assert!(finished.is_err() || (!refused && listing.content() == content_max));
    // What was refused, or is cut, is never read again.
    if refused || finished == Err(EntryError::Malformed) {
        return;
    }
    let mut reader = listing.reader();
    let mut again = Vec::new();
    while let Ok(Some(entry)) = reader.next() {
        again.push((reader.walker().path().to_vec(), entry));
    }
    assert_eq!(again, walked, "what was checked is not what is read again");
    overlaps(&listing, &walked, content_max / 3, content_max);
}

/// Every page of a tree is there once, and none is larger than a page.
fn shape(shape: Shape) {
    let top = shape.top();
    assert!(top <= 6 && (shape.is_empty() || shape.pages(top) == 1) && shape.pages(top + 1) == 0);
    for level in 0..=top {
        let last = shape.pages(level).checked_sub(1);
        for index in last.into_iter().flat_map(|last| [0, last]) {
            let most = if level == 0 { shape.leaf_bytes() } else { PAGE_BYTES };
            let len = shape.page_len(level, index);
            assert!(len.is_some_and(|len| (1..=most).contains(&len)), "page {index} of level {level} has {len:?} bytes");
        }
        assert_eq!(shape.page_len(level, shape.pages(level)), None);
    }
}

/// The entries up to the first that is refused or cut, each with its path.
fn walk(bytes: &[u8], rules: Rules, content_max: u64) -> Vec<(Vec<String>, Entry)> {
    let (mut walker, mut rest, mut found) = (Walker::new(rules, content_max), bytes, Vec::new());
    let mut end = 0;
    while let Ok(Step::Entry(entry, used)) = walker.step(rest) {
        let path = walker.path();
        assert!(used <= ENTRY_BYTES_MAX && path.len() == entry.depth + 1 && entry.depth <= DEPTH_MAX);
        assert!(path.join("/").len() <= PATH_BYTES_MAX);
        for (depth, name) in path.iter().enumerate() {
            assert_eq!(check_name(name.as_bytes(), depth == 0, rules), Ok(&name[..]));
        }
        assert!(entry.start == end && entry.end() <= content_max && (entry.size == 0 || !entry.is_folder()));
        end = entry.end();
        let mut again = Vec::new();
        assert_eq!(encode(entry.kind, entry.depth, &path[entry.depth], entry.size, &mut again), Ok(()));
        assert_eq!(Some(&again[..]), rest.get(..used), "another spelling");
        found.push((path.to_vec(), entry));
        rest = &rest[used..];
    }
    let folders = found.iter().filter(|(_, entry)| entry.kind == Kind::Folder).count() as u64;
    assert_eq!(walker.entries().saturating_sub(walker.files()), folders);
    assert_eq!(walker.content(), end);
    let printed = walker.shown();
    assert!(!printed.contains(char::is_control), "{printed:?} moves the cursor");
    found
}

/// The parts of files in a range are those that the entries say.
fn overlaps(listing: &Listing, entries: &[(Vec<String>, Entry)], start: u64, end: u64) {
    let mut parts = Vec::new();
    let visited = listing.overlapping(start, end, |walker, entry, part| {
        assert_eq!(start + part.in_range as u64, entry.start + part.in_file);
        parts.push((walker.path().to_vec(), part.len as u64));
        Ok::<_, std::io::Error>(())
    });
    assert!(visited.is_ok(), "{visited:?}");
    let wanted = entries.iter().filter_map(|(path, entry)| {
        let len = entry.end().min(end).saturating_sub(entry.start.max(start));
        (len > 0).then(|| (path.clone(), len))
    });
    assert!(parts.iter().cloned().eq(wanted), "{parts:?}");
}

/// Requests and replies of a transfer: a request has one spelling, and foreign words are short and harmless.
pub fn transfer(bytes: &[u8]) {
    for protocol in [Protocol::Manifest, Protocol::Chunk, Protocol::Done] {
        if let Some((root, ask)) = Ask::decode(protocol, bytes) {
            assert_eq!(ask.protocol(), protocol);
            assert_eq!(ask.encode(&root), bytes);
        }
    }
    match wire::open_reply(Bytes::copy_from_slice(bytes)) {
        Ok(content) => assert_eq!([&[0], &content[..]].concat(), bytes),
        Err(Declined::Malformed) => assert!(bytes.first().is_none_or(|status| *status > 5)),
        Err(Declined::Status(status, words)) => {
            assert_eq!(bytes.first(), Some(&status.to_byte()));
            // Each byte may become a sign for one that cannot be read, and each sign its number.
            assert!(words.len() <= DETAIL_BYTES_MAX * "\u{fffd}".len().max("\\u{7f}".len()), "{} bytes", words.len());
            assert!(!words.contains(char::is_control), "{words:?} moves the cursor");
            let again = wire::decline(status, &words);
            assert!(again.len() <= 1 + DETAIL_BYTES_MAX);
            let _ = shown(&words);
        }
    }
}

/// Targets of forwarding: each has one form, which fits an opening frame.
pub fn forward_target(bytes: &[u8]) {
    let head = bytes.get(..forward::LEN_BYTES).unwrap_or(bytes);
    let len = forward::target_len(head);
    assert!(len.is_none_or(|len| len <= forward::TARGET_BYTES_MAX && head == (len as u16).to_be_bytes()));
    let status = bytes.first().and_then(|byte| forward::Status::from_byte(*byte));
    assert!(status.is_none_or(|status| Some(&status.to_byte()) == bytes.first() && !status.word().is_empty()));
    for text in [bytes, bytes.get(forward::LEN_BYTES..).unwrap_or_default()] {
        let Some(target) = std::str::from_utf8(text).ok().and_then(|text| text.parse::<forward::Target>().ok()) else {
            continue;
        };
        let form = target.to_string();
        assert!(form.len() <= forward::TARGET_BYTES_MAX && target.port() > 0 && !target.host().is_empty());
        assert_eq!(form.parse(), Ok(target.clone()), "{form} is another target");
        let opening = forward::opening(Some(&target));
        assert_eq!(opening.get(..2).and_then(forward::target_len), Some(form.len()));
        assert_eq!(opening.get(2..), Some(form.as_bytes()));
    }
}
