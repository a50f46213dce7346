//! Handlers: async closures that answer requests or take streams.

use std::fmt::Display;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use strait_core::{Message, PeerId};

use crate::packets::Waiting;
use crate::stream::Stream;

/// A request that a peer has sent.
#[derive(Debug)]
pub struct Incoming {
    /// Who asks: the identity that the connection was authenticated with.
    pub peer: PeerId,
    /// The request, complete and within the definition's limit.
    pub body: Message,
}

/// What a handler may give back. `Err` declines: the client sees that it was declined, and no more.
pub trait IntoReply {
    /// The reply, or `None` to decline.
    fn into_reply(self) -> Option<Message>;
}

impl IntoReply for Message {
    fn into_reply(self) -> Option<Message> {
        Some(self)
    }
}

impl IntoReply for Bytes {
    fn into_reply(self) -> Option<Message> {
        Some(self.into())
    }
}

impl IntoReply for Vec<u8> {
    fn into_reply(self) -> Option<Message> {
        Some(self.into())
    }
}

impl IntoReply for String {
    fn into_reply(self) -> Option<Message> {
        Some(self.into())
    }
}

impl IntoReply for () {
    fn into_reply(self) -> Option<Message> {
        Some(Message::new())
    }
}

impl<T: IntoReply, E: Display> IntoReply for Result<T, E> {
    fn into_reply(self) -> Option<Message> {
        match self {
            Ok(reply) => reply.into_reply(),
            Err(error) => {
                tracing::debug!(%error, "a request was declined by its handler");
                None
            }
        }
    }
}

pub(crate) type ReplyFuture = Pin<Box<dyn Future<Output = Option<Message>> + Send>>;
pub(crate) type StreamFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

pub(crate) type RequestHandler = Arc<dyn Fn(Incoming) -> ReplyFuture + Send + Sync>;
pub(crate) type StreamHandler = Arc<dyn Fn(Stream) -> StreamFuture + Send + Sync>;

/// What the node calls for a protocol.
#[derive(Clone)]
pub(crate) enum Handler {
    Request(RequestHandler),
    Stream(StreamHandler),
    /// Packets wait for the application instead.
    Packets(Arc<Waiting>),
}

impl Handler {
    /// Async closures that capture are not `Fn` with a future of their own, but they can be cloned and called once: each request
    /// gets a clone of what was captured.
    pub(crate) fn request<H, F>(handler: H) -> Handler
    where
        H: FnOnce(Incoming) -> F + Clone + Send + Sync + 'static,
        F: Future<Output: IntoReply> + Send + 'static,
    {
        Handler::Request(Arc::new(move |incoming| {
            let answer = handler.clone()(incoming);
            Box::pin(async move { answer.await.into_reply() })
        }))
    }

    pub(crate) fn stream<H, F>(handler: H) -> Handler
    where
        H: FnOnce(Stream) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        Handler::Stream(Arc::new(move |stream| Box::pin(handler.clone()(stream))))
    }
}
