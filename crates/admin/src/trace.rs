//! `/trace.sqlog`: an answer that goes on for as long as something is traced.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Frame;
use strait::{PeerId, Trace};
use tokio::time::Sleep;

/// A trace over the admin port lasts so long, unless another time is asked for.
pub const LASTS_DEFAULT: Duration = Duration::from_secs(10);
/// And at most so long.
pub const LASTS_MAX: Duration = Duration::from_secs(600);
/// It has at most so many bytes, unless another number is asked for.
pub const BYTES_MAX_DEFAULT: u64 = 16 << 20;

pub(crate) const USAGE: &str =
    "ask for /trace.sqlog?peer=PEERID, with &seconds=N (10 by default, at most 600) and &bytes=N (16777216 by default)\n";

/// What is to be traced.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) peer: PeerId,
    pub(crate) lasts: Duration,
    pub(crate) bytes_max: u64,
}

pub(crate) fn wanted(query: &str) -> Option<Wanted> {
    let (mut peer, mut lasts, mut bytes_max) = (None, LASTS_DEFAULT, BYTES_MAX_DEFAULT);
    for part in query.split('&') {
        match part.split_once('=')? {
            ("peer", id) => peer = Some(id.parse().ok()?),
            ("seconds", seconds) => lasts = Duration::from_secs(seconds.parse().ok()?),
            ("bytes", bytes) => bytes_max = bytes.parse().ok()?,
            _ => return None,
        }
    }
    (lasts <= LASTS_MAX).then_some(Wanted { peer: peer?, lasts, bytes_max })
}

/// The body of an answer.
pub(crate) enum Body {
    /// All of it, until it was handed over.
    Whole(Option<Bytes>),
    Trace(Trace, Pin<Box<Sleep>>),
}

impl Body {
    /// Follows a trace for so long.
    pub(crate) fn following(trace: Trace, lasts: Duration) -> Body {
        Body::Trace(trace, Box::pin(tokio::time::sleep(lasts)))
    }
}

impl<T: Into<Bytes>> From<T> for Body {
    fn from(bytes: T) -> Body {
        Body::Whole(Some(bytes.into()))
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let bytes = match &mut *self {
            Body::Whole(bytes) => bytes.take(),
            Body::Trace(trace, end) => match (trace.poll_next(context), end.as_mut().poll(context)) {
                (_, Poll::Ready(())) => None,
                (Poll::Ready(bytes), Poll::Pending) => bytes,
                (Poll::Pending, Poll::Pending) => return Poll::Pending,
            },
        };
        Poll::Ready(bytes.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        match self {
            Body::Whole(bytes) => hyper::body::SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Body::Trace(..) => hyper::body::SizeHint::default(),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Body::Whole(None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_be_traced_is_a_peer_for_some_time() {
        let peer = PeerId::random();
        let by_default = Wanted { peer, lasts: LASTS_DEFAULT, bytes_max: BYTES_MAX_DEFAULT };
        assert_eq!(wanted(&format!("peer={peer}")), Some(by_default));
        let other = Wanted { peer, lasts: Duration::from_secs(600), bytes_max: 7 };
        assert_eq!(wanted(&format!("seconds=600&peer={peer}&bytes=7")), Some(other));
        for wrong in ["", "peer=nobody", "seconds=1", &format!("peer={peer}&seconds=601"), &format!("peer={peer}&x=1")] {
            assert_eq!(wanted(wrong), None, "{wrong}");
        }
    }
}
