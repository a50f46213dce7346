//! Why a connection was lost, in our words.

use super::Conn;
use super::quic::ConnectionError;
use crate::conn::event::{Blame, Lost};
use crate::error::{Closed, DialError};

impl Conn {
    pub(super) fn lost(&self, reason: &ConnectionError) -> Lost {
        let words = |bytes: &[u8]| match bytes.is_empty() {
            true => String::new(),
            // The peer's words go to people and logs: cut, and without control characters.
            false => format!(": {:?}", String::from_utf8_lossy(bytes.get(..64).unwrap_or(bytes))),
        };
        let answered = self.wanted.as_ref().and_then(|(wanted, found)| Some((*wanted, *found.get()?)));
        let wrong = answered.filter(|(wanted, found)| wanted != found);
        let wrong = wrong.map(|(wanted, found)| DialError::WrongPeer { wanted, found });
        let (closed, dial) = match reason {
            ConnectionError::VersionMismatch => {
                let text = "no common version of QUIC".to_owned();
                (Closed::Broken(text.clone()), DialError::Incompatible(text))
            }
            ConnectionError::TransportError(error) => {
                let text = error.to_string();
                (Closed::Broken(text.clone()), DialError::Incompatible(text))
            }
            ConnectionError::ConnectionClosed(close) => {
                let text = format!("{}{}", close.error_code, words(&close.reason));
                let dial = match u64::from(close.error_code) {
                    // CRYPTO_ERROR range, RFC 9001 section 4.8: 0x178 is "no application protocol".
                    0x178 => DialError::Incompatible("it does not speak libp2p".to_owned()),
                    _ => DialError::Refused(text.clone()),
                };
                (Closed::Broken(text), dial)
            }
            ConnectionError::ApplicationClosed(close) => {
                let (code, reason) = (close.error_code.into_inner(), words(&close.reason));
                let dial = DialError::Refused(format!("code {code}{reason}"));
                (Closed::There { code, reason }, dial)
            }
            ConnectionError::Reset => (Closed::Forgotten, DialError::Refused("it reset the connection".to_owned())),
            ConnectionError::TimedOut => {
                (Closed::Silent(self.idle_timeout), DialError::NoAnswer { waited: self.handshake_deadline })
            }
            ConnectionError::LocallyClosed => (Closed::Here("closed"), DialError::Closing),
            ConnectionError::CidsExhausted => (Closed::Here("out of connection ids"), DialError::Full("connection ids")),
        };
        // No frame is looked at before its packet was authenticated.
        let breach = if matches!(reason, ConnectionError::TransportError(_)) { Blame::Peer } else { Blame::Nobody };
        Lost { closed, dial: wrong.unwrap_or(dial), breach }
    }
}
