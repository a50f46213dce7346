//! Raw streams of rust-libp2p: a behaviour that opens them when told so, and hands those that come to [`Responder`].
//!
//! The crate libp2p-stream is not of use here: it opens one stream after the other, and drops what comes at once.

use std::{
    collections::VecDeque,
    convert::Infallible,
    future::{Ready, ready},
    task::{Context, Poll, Waker},
};

use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol,
    core::{Endpoint, InboundUpgrade, UpgradeInfo, transport::PortUse, upgrade::ReadyUpgrade},
    swarm::{
        ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler,
        SubstreamProtocol, ToSwarm,
        handler::{ConnectionEvent, FullyNegotiatedInbound, FullyNegotiatedOutbound},
    },
};
use tokio::sync::oneshot;
use tokio_util::compat::FuturesAsyncReadCompatExt;

use crate::roles::{self, Duplex, Responder};

/// Where a stream that was asked for is told.
pub type Opened = oneshot::Sender<Result<Duplex, String>>;

/// A stream that is wanted.
#[derive(Debug)]
pub struct Open {
    protocol: &'static str,
    opened: Opened,
}

/// Opens and takes raw streams.
#[derive(Debug, Default)]
pub struct Behaviour {
    responder: Responder,
    wanted: VecDeque<(PeerId, Open)>,
    waker: Option<Waker>,
}

impl Behaviour {
    /// Opens a stream to a peer that is connected; otherwise the sender is dropped.
    pub fn open(&mut self, peer: PeerId, protocol: &'static str, opened: Opened) {
        self.wanted.push_back((peer, Open { protocol, opened }));
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn handler(&self) -> Handler {
        Handler { responder: self.responder.clone(), wanted: VecDeque::new(), waker: None }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<Handler, ConnectionDenied> {
        Ok(self.handler())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<Handler, ConnectionDenied> {
        Ok(self.handler())
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: Infallible) {
        match event {}
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<ToSwarm<Infallible, Open>> {
        match self.wanted.pop_front() {
            Some((peer_id, event)) => Poll::Ready(ToSwarm::NotifyHandler { peer_id, handler: NotifyHandler::Any, event }),
            None => {
                self.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// The streams of one connection.
#[derive(Debug)]
pub struct Handler {
    responder: Responder,
    wanted: VecDeque<Open>,
    waker: Option<Waker>,
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Open;
    type ToBehaviour = Infallible;
    type InboundProtocol = Any;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Opened;

    fn listen_protocol(&self) -> SubstreamProtocol<Any> {
        SubstreamProtocol::new(Any, ())
    }

    fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<ReadyUpgrade<StreamProtocol>, Opened, Infallible>> {
        match self.wanted.pop_front() {
            Some(Open { protocol, opened }) => {
                let upgrade = ReadyUpgrade::new(StreamProtocol::new(protocol));
                Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest {
                    protocol: SubstreamProtocol::new(upgrade, opened),
                })
            }
            None => {
                self.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    fn on_behaviour_event(&mut self, open: Open) {
        self.wanted.push_back(open);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Any, ReadyUpgrade<StreamProtocol>, (), Opened>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol: (stream, protocol), .. }) => {
                let responder = self.responder.clone();
                tokio::spawn(responder.serve(protocol.as_ref().to_owned(), Box::new(stream.compat())));
            }
            // Whoever waited may have given up.
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol: stream, info: opened }) => {
                drop(opened.send(Ok(Box::new(stream.compat()))));
            }
            ConnectionEvent::DialUpgradeError(failed) => drop(failed.info.send(Err(failed.error.to_string()))),
            _ => {}
        }
    }
}

/// Any protocol that the responder speaks.
#[derive(Debug)]
pub struct Any;

impl UpgradeInfo for Any {
    type Info = StreamProtocol;
    type InfoIter = Vec<StreamProtocol>;

    fn protocol_info(&self) -> Vec<StreamProtocol> {
        roles::PROTOCOLS.map(StreamProtocol::new).to_vec()
    }
}

impl InboundUpgrade<Stream> for Any {
    type Output = (Stream, StreamProtocol);
    type Error = Infallible;
    type Future = Ready<Result<(Stream, StreamProtocol), Infallible>>;

    fn upgrade_inbound(self, stream: Stream, protocol: StreamProtocol) -> Self::Future {
        ready(Ok((stream, protocol)))
    }
}
