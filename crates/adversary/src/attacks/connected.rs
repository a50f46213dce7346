//! A behaviour around one connection: it is opened, abused, and opened again under another name when the node has ended it.

use std::time::Duration;

use super::{Behaviour, Env, Out};
use crate::client::Client;
use crate::identity::Papers;
use crate::read::Frame;
use crate::wire::Params;

/// So long after an end it comes back.
const PAUSE: Duration = Duration::from_millis(50);
/// A connection that does not come to be is given up after this.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is done with a connection.
pub(super) trait Abuse: Send {
    /// The connection; unless it says otherwise, a peer in good order.
    fn client(&mut self, env: &mut Env) -> Client {
        env.client(Papers::Good, &Params::default())
    }

    /// Acts once the handshake is confirmed. `frames` came since the last call.
    fn go(&mut self, env: &mut Env, client: &mut Client, now: Duration, frames: Vec<Frame>, budget: usize, out: &mut Vec<Out>);

    /// Forgets what belonged to the last connection.
    fn fresh(&mut self) {}

    /// When to come back after the node ended it.
    fn pause(&self) -> Duration {
        PAUSE
    }

    /// When to give up a connection that is not confirmed.
    fn patience(&self) -> Duration {
        PATIENCE
    }
}

/// See the module.
pub(super) struct Connected<A> {
    pub(super) abuse: A,
    client: Option<(Client, Duration)>,
    frames: Vec<Frame>,
    counted: bool,
    again_at: Duration,
}

impl<A> Connected<A> {
    pub(super) fn new(abuse: A) -> Connected<A> {
        Connected { abuse, client: None, frames: Vec::new(), counted: false, again_at: Duration::ZERO }
    }
}

/// A datagram from its own address.
pub(super) fn own(bytes: Vec<u8>) -> Out {
    Out { source: 0, bytes }
}

impl<A: Abuse> Behaviour for Connected<A> {
    fn receive(&mut self, _: &mut Env, _: Duration, _: u16, datagram: &[u8]) {
        if let Some((client, _)) = &mut self.client {
            self.frames.extend(client.receive(datagram));
        }
    }

    fn tick(&mut self, env: &mut Env, now: Duration, budget: usize) -> Vec<Out> {
        if self.client.is_none() && now >= self.again_at {
            self.abuse.fresh();
            self.frames.clear();
            self.counted = false;
            self.client = Some((self.abuse.client(env), now));
        }
        let Some((client, since)) = &mut self.client else {
            return Vec::new();
        };
        let given_up = !client.confirmed && now >= *since + self.abuse.patience();
        let mut out: Vec<_> = client.poll(now).into_iter().map(own).collect();
        if client.confirmed {
            if !std::mem::replace(&mut self.counted, true) {
                env.told.opened += 1;
            }
            if client.closed.is_none() {
                self.abuse.go(env, client, now, std::mem::take(&mut self.frames), budget, &mut out);
            }
        }
        if client.closed.is_some() || given_up {
            env.told.ended += 1;
            env.told.malformed += u64::from(client.malformed);
            env.told.last = client.closed.take();
            self.client = None;
            self.again_at = now + self.abuse.pause();
        }
        out.retain(|out| !out.bytes.is_empty());
        out
    }
}
