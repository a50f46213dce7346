//! The subscribing side: changes come at the pace at which they are taken, over one connection after the other.

use std::future::poll_fn;
use std::marker::PhantomData;
use std::time::Duration;

use bytes::Bytes;
use strait_core::proto::topic::{INTERVAL_MAX, NAME, PER_PEER_MAX};
use strait_core::topic::{FollowError, Follower, NAME_BYTES_MAX, PREFIX_BYTES_MAX, Refusal, Wish};
use strait_core::{Idle, PeerId, StreamError, StreamProtocol};

use super::codec::Codec;
use super::definition::{Kind, Shown, Topic};
use super::live::{Ended, Live};
use crate::error::{ConnectError, OpenError};
use crate::node::Node;

/// One more than a publisher takes: who has too many is told so by it, and does not wait here for one of them to end.
const STREAM: StreamProtocol = StreamProtocol::new(NAME, PER_PEER_MAX + 1, Idle::Never);
/// Bytes that a publisher may send before they are taken, unless something else is asked for: a hundred milliseconds of 2.6 Mbit/s.
const WINDOW: u32 = 32 << 10;
/// The first wait before a peer that could not be reached, or has refused, is tried again; doubled each time, and stretched at random.
const RETRY_FIRST: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// A change of a keyed topic.
#[derive(Debug, Clone, PartialEq)]
pub enum Change<K, V> {
    /// A snapshot begins. Keys that are not put before it is [whole](Change::Whole) are not there any more.
    Begin,
    /// A key has this value.
    Put(K, V),
    /// A key is gone.
    Delete(K),
    /// The snapshot is whole.
    Whole,
    /// Nothing comes now, and why. Said once; the next call tries to go on, for as long as it takes.
    Interrupted(Interruption),
    /// It goes on where it was: what changed meanwhile follows.
    Resumed,
}

/// What a log's subscriber sees.
#[derive(Debug, Clone, PartialEq)]
pub enum Line<K, V> {
    /// A line.
    Said(K, V),
    /// So many lines, of any key, were said that will never be told: this subscriber was too slow for them.
    Gap {
        /// How many.
        lost: u64,
    },
    /// The publisher was started again, and its log with it: lines may be lost, nobody knows how many.
    Anew,
    /// Nothing comes now, and why. Said once; the next call tries to go on, for as long as it takes.
    Interrupted(Interruption),
    /// It goes on where it was.
    Resumed,
}

/// Why a subscription stands still for now.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Interruption {
    /// The stream to the publisher has failed, most likely with its connection.
    #[error("the publisher is lost: {0}; it is dialled again")]
    Lost(StreamError),
    /// It could not be reached again.
    #[error("the publisher cannot be reached: {0}; it is tried again and again")]
    Unreachable(ConnectError),
    /// The publisher has ended the topic.
    #[error("the publisher has ended this topic; it is asked again and again")]
    Over,
    /// It was there, and a publisher that was started again does not have it yet.
    #[error("the publisher does not have this topic now; it is asked again and again")]
    NotThere,
}

/// Why a subscription has ended. It says the same from then on.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SubscribeError {
    /// The first attempt to connect has failed.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The publisher has refused it, broke the protocol, or has another definition.
    #[error(transparent)]
    Publisher(#[from] FollowError),
    /// It does not speak the protocol.
    #[error("{0} publishes no topics: it does not speak {NAME}")]
    Unsupported(PeerId),
    /// A key or value that the types of this definition cannot be read from.
    #[error("the publisher sent a key or value that is no {0}; use the same definition at both sides")]
    OtherType(&'static str),
    /// More keys than the definition allows.
    #[error("the publisher has told more than the {max} keys that the definition allows")]
    TooManyKeys {
        /// The limit.
        max: usize,
    },
    /// What was asked for cannot be.
    #[error("{0}")]
    Misuse(&'static str),
    /// This node is closing.
    #[error("this node is closing")]
    Closing,
}

/// What a subscriber wants.
#[derive(Debug, Clone)]
pub struct Interest {
    prefix: Bytes,
    interval: Duration,
    window: u32,
}

impl Default for Interest {
    fn default() -> Interest {
        Interest::all()
    }
}

impl Interest {
    /// Everything, as fast as it is taken.
    pub fn all() -> Interest {
        Interest { prefix: Bytes::new(), interval: Duration::ZERO, window: WINDOW }
    }

    /// Only keys that begin so, as they are [written](Codec); at most 255 bytes.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<Bytes>) -> Interest {
        self.prefix = prefix.into();
        self
    }

    /// Told at most once in this time; what has changed meanwhile comes together. Whole milliseconds, a day at most. The publisher stretches it by
    /// up to an eighth, so that not all subscribers are told in the same instant.
    #[must_use]
    pub fn at_most_every(mut self, interval: Duration) -> Interest {
        self.interval = interval;
        self
    }

    /// How many bytes the publisher may send before they are taken: 32 KiB if nothing is said. A larger one is faster over a long path; with a
    /// smaller one, who is slow sees newer values.
    #[must_use]
    pub fn window(mut self, bytes: u32) -> Interest {
        self.window = bytes.max(1);
        self
    }

    fn check(&self) -> Result<(), SubscribeError> {
        if self.prefix.len() > PREFIX_BYTES_MAX {
            return Err(SubscribeError::Misuse("the prefix is longer than 255 bytes"));
        }
        if self.interval > INTERVAL_MAX {
            return Err(SubscribeError::Misuse("the interval is longer than a day"));
        }
        Ok(())
    }
}

/// It holds none of them.
type Types<K, V, M> = fn() -> (K, V, M);

/// A subscription to a topic of one peer. Nothing is sent before the first [`next`](Self::next); dropping it ends it.
#[derive(Debug)]
pub struct Subscription<K, V, M> {
    node: Node,
    peer: PeerId,
    name: String,
    interest: Interest,
    keys_max: usize,
    follower: Follower,
    live: Option<Live>,
    /// It was taken once: from then on it goes on by itself.
    taken: bool,
    /// How long to wait before the next attempt, after one that has failed.
    rest: Option<Duration>,
    ended: Option<SubscribeError>,
    types: PhantomData<Types<K, V, M>>,
}

impl Node {
    /// Subscribes to a topic of `peer`, which is dialled if need be.
    pub fn subscribe<K: Codec, V: Codec, M: Kind<K, V>>(&self, peer: PeerId, topic: &Topic<K, V, M>) -> Subscription<K, V, M> {
        self.subscribe_with(peer, topic, Interest::all())
    }

    /// The same to a part of it, or less often.
    pub fn subscribe_with<K: Codec, V: Codec, M: Kind<K, V>>(
        &self,
        peer: PeerId,
        topic: &Topic<K, V, M>,
        interest: Interest,
    ) -> Subscription<K, V, M> {
        let name_fits = (1..=NAME_BYTES_MAX).contains(&topic.name.len());
        let name = name_fits.then_some(()).ok_or(SubscribeError::Misuse("a topic's name has 1 to 140 bytes"));
        Subscription {
            node: self.clone(),
            peer,
            name: topic.name.to_string(),
            keys_max: topic.bounds.keys_max,
            follower: Follower::new(M::Update::MODE, topic.bounds, !interest.prefix.is_empty()),
            live: None,
            taken: false,
            rest: None,
            ended: name.and_then(|()| interest.check()).err(),
            interest,
            types: PhantomData,
        }
    }
}

impl<K: Codec, V: Codec, M: Kind<K, V>> Subscription<K, V, M> {
    /// Waits for the next change. Safe to cancel. When the connection is lost, that is said once, the peer is dialled again, and it goes on where
    /// it was: nothing is told twice, and no last value is lost.
    ///
    /// # Errors
    /// [`SubscribeError`]: it has ended. Before it was taken for the first time, a peer that cannot be reached is an error too.
    pub async fn next(&mut self) -> Result<M::Update, SubscribeError> {
        if let Some(ended) = &self.ended {
            return Err(ended.clone());
        }
        let result = self.advance().await;
        if let Err(error) = &result {
            self.ended = Some(error.clone());
            self.live = None;
        }
        result
    }

    /// Whether all is known that the publisher had when its last snapshot began, and a stream to it is open.
    pub fn is_live(&self) -> bool {
        self.live.is_some() && self.follower.is_live()
    }

    /// Whose topic it is.
    pub fn peer(&self) -> PeerId {
        self.peer
    }

    pub(super) fn keys_max(&self) -> usize {
        self.keys_max
    }

    async fn advance(&mut self) -> Result<M::Update, SubscribeError> {
        loop {
            if self.live.is_none()
                && let Some(why) = self.open().await?
            {
                return Ok(M::Update::interrupted(why));
            }
            let max = self.follower.frame_bytes_max();
            let Some(live) = &mut self.live else { continue };
            let body = match poll_fn(|context| live.poll_frame(context, max)).await {
                Ok(body) => body,
                Err(ended) => return self.lost(ended).map(M::Update::interrupted),
            };
            match self.follower.hear(&body) {
                Ok(update) => {
                    (self.taken, self.rest) = (true, None);
                    if let Some(update) = update {
                        let other = SubscribeError::OtherType(std::any::type_name::<(K, V)>());
                        return M::Update::read(update).ok_or(other);
                    }
                }
                Err(FollowError::Refused(Refusal::Unknown)) if self.taken => {
                    self.live = None;
                    self.later();
                    return Ok(M::Update::interrupted(Interruption::NotThere));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The stream is over. What to say of it, if it may be tried again.
    fn lost(&mut self, ended: Ended) -> Result<Interruption, SubscribeError> {
        self.live = None;
        match ended {
            Ended::Broken(error) => Err(error.into()),
            Ended::Over if self.taken => {
                self.later();
                Ok(Interruption::Over)
            }
            Ended::Over => Err(FollowError::Broken("it ended before it began").into()),
            Ended::Failed(StreamError::Unsupported(_)) if !self.taken => Err(SubscribeError::Unsupported(self.peer)),
            Ended::Failed(error) => {
                if self.rest.is_some() {
                    self.later();
                } else {
                    // The first time it is tried again at once: the node sees to it that not everybody does so in the same instant.
                    self.rest = Some(Duration::ZERO);
                }
                Ok(Interruption::Lost(error))
            }
        }
    }

    /// It has failed once more.
    fn later(&mut self) {
        let rest = self.rest.unwrap_or_default().saturating_mul(2);
        self.rest = Some(rest.clamp(RETRY_FIRST, RETRY_MAX));
    }

    /// Opens a stream and asks for the topic. Why it did not come to that, if it may be tried again.
    async fn open(&mut self) -> Result<Option<Interruption>, SubscribeError> {
        let stream = loop {
            let rests = self.rest.filter(|rest| !rest.is_zero());
            if let Some(rest) = rests {
                let shared = self.node.shared();
                let stretched = shared.lock().core.jitter(rest);
                shared.runtime.sleep(stretched).await;
            }
            let error = match self.node.open(self.peer, &STREAM).await {
                Ok(stream) => break stream,
                Err(OpenError::Closing) => return Err(SubscribeError::Closing),
                Err(OpenError::Definition(_)) => return Err(SubscribeError::Misuse("this node's limits leave no room for it")),
                Err(OpenError::Connect(error)) => error,
            };
            match error.first_cause() {
                strait_core::DialError::Closing => return Err(SubscribeError::Closing),
                _ if !self.taken => return Err(error.into()),
                _ => self.later(),
            }
            // Said once, until something else happens.
            if rests.is_none() {
                return Ok(Some(Interruption::Unreachable(error)));
            }
        };
        let wish = Wish {
            mode: M::Update::MODE,
            name: &self.name,
            prefix: &self.interest.prefix,
            interval_ms: u64::try_from(self.interest.interval.as_millis()).unwrap_or(u64::MAX),
            window: self.interest.window,
            resume: self.follower.connect(),
        };
        self.live = Some(Live::new(stream, &wish));
        Ok(None)
    }
}

impl<K, V, M> Drop for Subscription<K, V, M> {
    fn drop(&mut self) {
        if let Some(live) = &mut self.live {
            live.finish();
        }
    }
}
