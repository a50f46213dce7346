//! multistream-select (<https://github.com/multiformats/multistream-select>) on a whole pipe: which protocol secures it, and which one
//! multiplexes what is secure.
//!
//! The dialler sends the header and its first proposal together. It goes on without waiting for the answer (lazily) only
//! where it has one proposal: a refusal is the end then anyway. With several it waits, since whatever followed a refused one would be read as another.

use bytes::BytesMut;
use strait_wire::multistream::{self, MESSAGE_BYTES_MAX, Message};

use super::PipeError;

/// A dialler may propose so many protocols. Others have two or three.
const PROPOSALS_MAX: usize = 8;

/// One negotiation. It holds at most one line that is not complete.
pub(crate) struct Select {
    names: &'static [&'static str],
    /// Which of our names was proposed last; `None` for the side that answers.
    proposed: Option<usize>,
    greeted: bool,
    asked: usize,
    partial: BytesMut,
}

/// What came of taking bytes.
pub(crate) struct Agreed {
    /// Which of the names.
    pub(crate) name: &'static str,
    /// What came behind the negotiation.
    pub(crate) rest: BytesMut,
}

impl Select {
    /// The side that dials and prefers the first of `names`. What it has to say is appended to `out`.
    pub(crate) fn dial(names: &'static [&'static str], out: &mut Vec<u8>) -> Result<Select, PipeError> {
        multistream::header(out);
        let mut select = Select { proposed: Some(0), ..Select::listen(names) };
        select.propose(0, out)?;
        Ok(select)
    }

    /// The side that answers.
    pub(crate) fn listen(names: &'static [&'static str]) -> Select {
        Select { names, proposed: None, greeted: false, asked: 0, partial: BytesMut::new() }
    }

    /// Takes bytes and appends answers to `out`. `None`: more are needed.
    ///
    /// # Errors
    /// [`PipeError`]: nothing in common, or this is something else than multistream-select.
    pub(crate) fn handle(&mut self, chunk: BytesMut, out: &mut Vec<u8>) -> Result<Option<Agreed>, PipeError> {
        let mut input = std::mem::take(&mut self.partial);
        match input.is_empty() {
            true => input = chunk,
            false => input.extend_from_slice(&chunk),
        }
        loop {
            if !self.greeted && !is_header(&input) {
                return Err(PipeError::broken("something else than multistream-select is spoken"));
            }
            let decoded = multistream::decode(&input, MESSAGE_BYTES_MAX);
            let Some((message, used)) = decoded.map_err(|error| PipeError::broken(format!("no multistream-select: {error}")))?
            else {
                // Copied: at most a line, of whatever size the chunk was.
                self.partial = BytesMut::from(&input[..]);
                return Ok(None);
            };
            let agreed = self.line(message, out)?;
            let rest = input.split_off(used);
            if let Some(name) = agreed {
                return Ok(Some(Agreed { name, rest }));
            }
            input = rest;
        }
    }

    fn line(&mut self, message: Message<'_>, out: &mut Vec<u8>) -> Result<Option<&'static str>, PipeError> {
        match (message, self.proposed) {
            (Message::Header, None) if !self.greeted => {
                self.greeted = true;
                multistream::header(out);
            }
            (Message::Header, Some(_)) if !self.greeted => self.greeted = true,
            (Message::Protocol(name), Some(number)) if self.greeted => {
                return match self.names.get(number).copied().filter(|ours| *ours == name) {
                    Some(ours) => Ok(Some(ours)),
                    None => Err(PipeError::broken("it agreed to what nobody proposed")),
                };
            }
            (Message::NotAvailable, Some(number)) if self.greeted => {
                let next = number.saturating_add(1);
                if next >= self.names.len() {
                    return Err(PipeError::Incompatible(format!("the other side speaks none of {}", self.names.join(", "))));
                }
                self.proposed = Some(next);
                self.propose(next, out)?;
            }
            (Message::Protocol(name), None) if self.greeted => {
                if let Some(ours) = self.names.iter().copied().find(|ours| *ours == name) {
                    multistream::protocol(ours, out).map_err(|error| PipeError::broken(error.to_string()))?;
                    return Ok(Some(ours));
                }
                self.decline(out)?;
            }
            // Nobody asks this any more; it is answered like a name that we do not have.
            (Message::List, None) if self.greeted => self.decline(out)?,
            _ => return Err(PipeError::broken("a line of multistream-select is out of order")),
        }
        Ok(None)
    }

    fn decline(&mut self, out: &mut Vec<u8>) -> Result<(), PipeError> {
        self.asked = self.asked.saturating_add(1);
        if self.asked >= PROPOSALS_MAX {
            return Err(PipeError::Incompatible(format!("the other side speaks none of {}", self.names.join(", "))));
        }
        multistream::na(out);
        Ok(())
    }

    fn propose(&mut self, number: usize, out: &mut Vec<u8>) -> Result<(), PipeError> {
        let name = self.names.get(number).copied().unwrap_or_default();
        multistream::protocol(name, out).map_err(|error| PipeError::broken(error.to_string()))
    }

    pub(crate) fn held(&self) -> usize {
        self.partial.capacity()
    }
}

/// Whether `bytes` are the header, or the front of it. Whatever else speaks here is found out with its first byte.
fn is_header(bytes: &[u8]) -> bool {
    let mut header = Vec::new();
    multistream::header(&mut header);
    bytes.iter().zip(&header).all(|(found, wanted)| found == wanted)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOTH: &[&str] = &["/tls/1.0.0", "/noise"];

    /// Runs both sides, `cut` bytes at a time. What each agreed on, with what came behind.
    fn run(
        dialler: &'static [&'static str],
        listener: &'static [&'static str],
        cut: usize,
    ) -> Result<(&'static str, &'static str), PipeError> {
        let mut up = Vec::new();
        let mut a = Select::dial(dialler, &mut up)?;
        let mut b = Select::listen(listener);
        let (mut left, mut right) = (None, None);
        for _ in 0..9 {
            let mut down = Vec::new();
            for chunk in std::mem::take(&mut up).chunks(cut) {
                right = right.or(b.handle(BytesMut::from(chunk), &mut down)?);
            }
            for chunk in down.chunks(cut) {
                left = left.or(a.handle(BytesMut::from(chunk), &mut up)?);
            }
        }
        Ok((left.expect("the dialler").name, right.expect("the listener").name))
    }

    #[test]
    fn the_dialler_prefers_and_the_listener_has_the_last_word() {
        for cut in [1, 5, 100] {
            assert_eq!(run(BOTH, BOTH, cut), Ok(("/tls/1.0.0", "/tls/1.0.0")));
            assert_eq!(run(BOTH, &["/noise"], cut), Ok(("/noise", "/noise")));
            assert_eq!(run(&["/noise"], BOTH, cut), Ok(("/noise", "/noise")));
            assert!(matches!(run(&["/noise"], &["/tls/1.0.0"], cut), Err(PipeError::Incompatible(_))));
        }
    }

    #[test]
    fn what_comes_behind_is_kept() {
        let (mut out, mut select) = (Vec::new(), Select::listen(BOTH));
        let chunk = BytesMut::from(&b"\x13/multistream/1.0.0\n\x07/noise\nrest"[..]);
        let agreed = select.handle(chunk, &mut out).unwrap().unwrap();
        assert_eq!((agreed.name, &agreed.rest[..]), ("/noise", &b"rest"[..]));
        assert_eq!(out, b"\x13/multistream/1.0.0\n\x07/noise\n");
    }

    #[test]
    fn out_of_order_and_something_else() {
        let listener = |bytes: &[u8]| Select::listen(BOTH).handle(BytesMut::from(bytes), &mut Vec::new()).is_err();
        assert!(listener(b"\x07/noise\n"), "no header");
        assert!(listener(b"\x13/multistream/1.0.0\n\x13/multistream/1.0.0\n"), "two headers");
        assert!(listener(b"GET / HTTP/1.1\r\n\r\n"));
        assert!(listener(&[0xff, 0xff, 3]), "a line of 64 KiB");
        let dialler = |bytes: &[u8]| {
            let mut out = Vec::new();
            Select::dial(BOTH, &mut out).unwrap().handle(BytesMut::from(bytes), &mut out).is_err()
        };
        assert!(dialler(b"\x13/multistream/1.0.0\n\x07/noise\n"), "that was not proposed");
        assert!(dialler(b"\x13/multistream/1.0.0\n\x03na\n\x03na\n"), "none is left");
    }

    #[test]
    fn proposals_end() {
        let mut select = Select::listen(BOTH);
        let mut out = Vec::new();
        select.handle(BytesMut::from(&b"\x13/multistream/1.0.0\n"[..]), &mut out).unwrap();
        let refused = (0..PROPOSALS_MAX).position(|_| select.handle(BytesMut::from(&b"\x03/x\n"[..]), &mut out).is_err());
        assert_eq!(refused, Some(PROPOSALS_MAX - 1));
    }

    proptest! {
        #[test]
        fn garbage(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..6)) {
            let (mut out, mut select) = (Vec::new(), Select::listen(BOTH));
            for chunk in &chunks {
                if select.handle(BytesMut::from(&chunk[..]), &mut out).is_err() {
                    break;
                }
                prop_assert!(select.held() <= MESSAGE_BYTES_MAX + 2);
            }
        }
    }
}
