//! What is said on a stream before it carries bytes: where to, and whether that works.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use strait::RecvHalf;

/// Bytes of a target at most (FW-02): a name of 253 letters, a colon and five digits, and a few to spare.
pub const TARGET_BYTES_MAX: usize = 262;
/// Bytes of a target's length.
pub const LEN_BYTES: usize = 2;
/// Letters of a name in the DNS, at most (RFC 1035, section 2.3.4).
const NAME_MAX: usize = 253;

/// A TCP port of a host, in the one form that it is compared in (FW-03).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    host: String,
    port: u16,
}

impl Target {
    /// The host, without brackets: an IP address or a name.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl FromStr for Target {
    type Err = String;

    /// Reads `HOST:PORT`, `[IPV6]:PORT`, or a port alone, which is one of the machine itself.
    fn from_str(text: &str) -> Result<Target, String> {
        let (host, port) = text.rsplit_once(':').unwrap_or(("127.0.0.1", text));
        let digits = port.bytes().all(|b| b.is_ascii_digit()); // a number in Rust may have a sign
        let port = port.parse().ok().filter(|port| digits && *port > 0);
        let port = port.ok_or_else(|| format!("{text:?} does not end with a port from 1 to 65535"))?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let wrong =
            || format!("{host:?} is neither a name nor an IP address; IPv6 addresses stand in brackets, such as [::1]:80");
        let host = match (bare, host.parse::<IpAddr>()) {
            (Some(bare), _) => bare.parse::<std::net::Ipv6Addr>().map_err(|_| wrong())?.to_string(),
            (None, Ok(IpAddr::V4(ip))) => ip.to_string(),
            (None, _) if is_name(host) => host.to_ascii_lowercase(),
            (None, _) => return Err(wrong()),
        };
        Ok(Target { host, port })
    }
}

fn is_name(host: &str) -> bool {
    let letter = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    (1..=NAME_MAX).contains(&host.len()) && host.bytes().all(letter) && !host.starts_with(['.', '-'])
}

/// The opening frame (FW-02): a target, or nothing for the only one that there is.
pub(crate) fn opening(target: Option<&Target>) -> Vec<u8> {
    let text = target.map(ToString::to_string).unwrap_or_default();
    let mut out = (text.len() as u16).to_be_bytes().to_vec(); // a target has at most 262 bytes by its own definition
    out.extend_from_slice(text.as_bytes());
    out
}

/// The length of the target that follows, if it may be so long (FW-02).
pub(crate) fn target_len(head: &[u8]) -> Option<usize> {
    let head: [u8; LEN_BYTES] = head.try_into().ok()?;
    Some(usize::from(u16::from_be_bytes(head))).filter(|len| *len <= TARGET_BYTES_MAX)
}

/// How opening went: the one byte before those of the connection (FW-04).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// The connection stands; its bytes follow.
    Ok,
    /// This peer is not let in.
    NotAllowed,
    /// This target is not exposed, or none was named and there are several.
    NotExposed,
    /// The target refuses.
    Refused,
    /// The target cannot be reached, or its name is not known.
    Unreachable,
    /// The target does not answer.
    TimedOut,
    /// The node carries as many as it may.
    TooMany,
}

impl Status {
    /// The byte.
    pub fn to_byte(self) -> u8 {
        match self {
            Status::Ok => 0,
            Status::NotAllowed => 1,
            Status::NotExposed => 2,
            Status::Refused => 3,
            Status::Unreachable => 4,
            Status::TimedOut => 5,
            Status::TooMany => 6,
        }
    }

    /// What a byte says, if anything.
    pub fn from_byte(byte: u8) -> Option<Status> {
        use Status::*;
        [Ok, NotAllowed, NotExposed, Refused, Unreachable, TimedOut, TooMany].into_iter().find(|status| status.to_byte() == byte)
    }

    /// One word for programs.
    pub fn word(self) -> &'static str {
        match self {
            Status::Ok => "ok",
            Status::NotAllowed => "not_allowed",
            Status::NotExposed => "not_exposed",
            Status::Refused => "refused",
            Status::Unreachable => "unreachable",
            Status::TimedOut => "timed_out",
            Status::TooMany => "too_many",
        }
    }
}

/// Reads exactly `len` bytes: not one more, since what follows is the connection's. `len` is bounded by the caller.
///
/// # Errors
/// Why there are fewer, in words.
pub async fn read_exact(recv: &mut RecvHalf, len: usize) -> Result<Vec<u8>, strait::StreamError> {
    let mut all = Vec::new();
    while all.len() < len {
        match recv.read(len - all.len()).await? {
            Some(chunk) => all.extend_from_slice(&chunk),
            None => return Err(strait::StreamError::ClosedHere),
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FW-03: every way to write a target comes to one form, and what is none is not taken for one.
    #[test]
    fn targets_have_one_form() {
        for (text, form) in [
            ("localhost:80", "localhost:80"),
            ("LocalHost:80", "localhost:80"),
            ("5432", "127.0.0.1:5432"),
            ("127.0.0.1:1", "127.0.0.1:1"),
            ("[::1]:65535", "[::1]:65535"),
            ("[0:0::1]:80", "[::1]:80"),
            ("db-1.example.org:080", "db-1.example.org:80"),
        ] {
            let target: Target = text.parse().unwrap();
            assert_eq!(target.to_string(), form);
            assert_eq!(form.parse(), Ok(target), "{text}");
        }
        let long = format!("{}:80", "a".repeat(254));
        for text in
            ["", ":", "a:", ":80", "a:0", "a:65536", "a:+80", "a:8 0", "::1:80", "[::1]", "[a]:1", "a b:1", "-a:1", "é:1", &long]
        {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }

    /// FW-02: the frame is a length and so many bytes, and no length above the limit is taken.
    #[test]
    fn opening_frames_are_bounded() {
        let longest: Target = format!("{}:65535", "a".repeat(NAME_MAX)).parse().unwrap();
        let frame = opening(Some(&longest));
        assert!(frame.len() <= LEN_BYTES + TARGET_BYTES_MAX);
        assert_eq!(target_len(&frame[..2]), Some(frame.len() - 2));
        assert_eq!(opening(None), [0, 0]);
        assert_eq!(target_len(&[1, 6]), Some(TARGET_BYTES_MAX));
        for head in [&[1, 7][..], &[255, 255], &[0], &[], &[0, 0, 0]] {
            assert_eq!(target_len(head), None, "{head:?}");
        }
    }

    /// FW-04: the bytes are those of the table, and others say nothing.
    #[test]
    fn statuses_come_back() {
        let all: Vec<Status> = (0..=255).filter_map(Status::from_byte).collect();
        assert_eq!(all.iter().map(|status| status.to_byte()).collect::<Vec<_>>(), (0..7).collect::<Vec<_>>());
        assert!(all.iter().all(|status| !status.word().is_empty()));
    }
}
