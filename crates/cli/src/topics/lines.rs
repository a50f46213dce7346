//! Lines of `key=value`, from a stream or a file, with a bound on their length.

use std::collections::BTreeMap;
use std::io::{self, BufRead, Read};

use bytes::Bytes;

/// What a line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// `key=value`: the key has this value.
    Set(Bytes, Bytes),
    /// `key`, without a `=`: the key is gone.
    Gone(Bytes),
    /// Nothing: an empty line.
    Nothing,
}

/// Reads a line, without its end.
pub fn parse(line: &[u8]) -> Said {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    match line.iter().position(|byte| *byte == b'=') {
        Some(at) => Said::Set(Bytes::copy_from_slice(&line[..at]), Bytes::copy_from_slice(&line[at + 1..])),
        None if line.is_empty() => Said::Nothing,
        None => Said::Gone(Bytes::copy_from_slice(line)),
    }
}

/// The next line.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// A line, without its end.
    Line(Vec<u8>),
    /// A longer one than may be; it was left out.
    TooLong,
    /// There is no more.
    End,
}

/// Reads the next line of at most `max` bytes. What is longer is read past and not kept.
///
/// # Errors
/// Those of the reader.
pub fn next(reader: &mut impl BufRead, max: usize) -> io::Result<Next> {
    let mut line = Vec::new();
    let read = reader.by_ref().take(max as u64 + 1).read_until(b'\n', &mut line)?;
    if read == 0 {
        return Ok(Next::End);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
        return Ok(Next::Line(line));
    }
    if line.len() <= max {
        return Ok(Next::Line(line)); // the last one, without an end
    }
    loop {
        let chunk = reader.fill_buf()?;
        let end = chunk.iter().position(|byte| *byte == b'\n');
        let used = end.map_or(chunk.len(), |at| at + 1);
        let over = end.is_some() || chunk.is_empty();
        reader.consume(used);
        if over {
            return Ok(Next::TooLong);
        }
    }
}

/// All keys and values of a file; how many lines were left out because they were too long. Of a key that comes twice the last counts.
///
/// # Errors
/// Those of the reader; or that it has more than `keys_max` keys.
pub fn whole(mut reader: impl BufRead, max: usize, keys_max: usize) -> io::Result<(BTreeMap<Bytes, Bytes>, u64)> {
    let (mut all, mut long) = (BTreeMap::new(), 0);
    loop {
        match next(&mut reader, max)? {
            Next::End => return Ok((all, long)),
            Next::TooLong => long += 1,
            Next::Line(line) => {
                if let Said::Set(key, value) = parse(&line) {
                    all.insert(key, value);
                }
            }
        }
        if all.len() > keys_max {
            return Err(io::Error::other(format!("it has more than {keys_max} keys; raise --keys-max")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    #[test]
    fn lines_set_and_delete() {
        assert_eq!(parse(b"a=1=2"), Said::Set(bytes("a"), bytes("1=2")));
        assert_eq!(parse(b"=x\r"), Said::Set(bytes(""), bytes("x")));
        assert_eq!(parse(b"a"), Said::Gone(bytes("a")));
        assert_eq!(parse(b"\r"), Said::Nothing);
    }

    #[test]
    fn long_lines_are_read_past_and_not_kept() {
        let text = [&b"ab\n"[..], &[b'x'; 100_000], b"\n12345\nlast"].concat();
        let mut reader = io::BufReader::with_capacity(64, &text[..]);
        let wanted =
            [Next::Line(b"ab".into()), Next::TooLong, Next::Line(b"12345".into()), Next::Line(b"last".into()), Next::End];
        for next_wanted in wanted {
            assert_eq!(next(&mut reader, 5).unwrap(), next_wanted);
        }
        assert_eq!(next(&mut &b"123456"[..], 5).unwrap(), Next::TooLong);
    }

    #[test]
    fn a_file_is_all_there_is() {
        let (all, long) = whole(&b"a=1\nb=2\na=3\ngone\n123456789=too long\n"[..], 8, 2).unwrap();
        assert_eq!(all.into_iter().collect::<Vec<_>>(), [(bytes("a"), bytes("3")), (bytes("b"), bytes("2"))]);
        assert_eq!(long, 1);
        assert!(whole(&b"a=\nb=\nc=\n"[..], 8, 2).is_err());
    }
}
