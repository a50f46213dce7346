//! Connecting: all addresses at once, the first right identity wins, the others are given up.

use std::sync::Arc;

use strait_core::{ConnId, DialError, Fault, Multiaddr, PeerId, SocketId};
use tokio::sync::mpsc;

use crate::address::{Way, socket_address};
use crate::error::ConnectError;
use crate::shared::{DialSender, Shared};

/// So many addresses of one peer are tried.
const DIALS_MAX: usize = 8;

/// Gives up dials that nobody waits for any more.
struct Dials<'a> {
    shared: &'a Shared,
    open: Vec<(ConnId, Multiaddr)>,
}

impl Drop for Dials<'_> {
    fn drop(&mut self) {
        if self.open.is_empty() {
            return;
        }
        self.shared.ask(|state, now| {
            for (conn, _) in &self.open {
                // Only what is still dialling: what is open already may be in use by others.
                if state.dials.remove(conn).is_some() {
                    state.core.close_conn(now, *conn);
                }
            }
        });
    }
}

pub(crate) async fn connect(shared: &Arc<Shared>, peer: PeerId) -> Result<(), ConnectError> {
    let connecting = {
        let mut state = shared.lock();
        if state.core.is_connected(&peer) {
            return Ok(());
        }
        state.prune();
        state.connecting.entry(peer).or_default().clone()
    };
    // Several that want the same connection wait for one attempt.
    let _one = connecting.lock().await;
    if shared.lock().core.is_connected(&peer) {
        return Ok(());
    }
    let (results, mut answers) = mpsc::channel(DIALS_MAX);
    let (mut dials, mut attempts) = begin(shared, peer, &results);
    drop(results);
    while !dials.open.is_empty() {
        let Some((conn, result)) = answers.recv().await else {
            break;
        };
        let at = dials.open.iter().position(|(open, _)| *open == conn);
        let Some((_, address)) = at.map(|at| dials.open.swap_remove(at)) else {
            continue;
        };
        let now = shared.runtime.now();
        match result {
            Ok(()) => {
                shared.lock().core.book_mut().worked(now, &peer, &address);
                return Ok(());
            }
            Err(error) => {
                // What this node had no room for says nothing about the address.
                if !matches!(error.fault(), Fault::Limit | Fault::Misuse) {
                    shared.lock().core.book_mut().failed(now, &peer, &address);
                }
                attempts.push((address, error));
            }
        }
    }
    Err(ConnectError { peer, attempts })
}

fn begin<'a>(shared: &'a Shared, peer: PeerId, results: &DialSender) -> (Dials<'a>, Vec<(Multiaddr, DialError)>) {
    let (mut open, mut attempts) = (Vec::new(), Vec::new());
    shared.ask(|state, now| {
        let candidates = state.core.book().candidates(now, &peer);
        for address in candidates.into_iter().map(|candidate| candidate.address).take(DIALS_MAX) {
            let dialled = socket_address(&address).and_then(|(way, remote, named)| {
                if let Some(found) = named.filter(|named| *named != peer) {
                    return Err(DialError::WrongPeer { wanted: peer, found });
                }
                if way == Way::Tcp {
                    return state.core.dial_pipe(now, remote, peer);
                }
                let socket = state.sockets.iter().position(|local| local.is_ipv4() == remote.is_ipv4());
                let Some(socket) = socket.and_then(|at| u8::try_from(at).ok()) else {
                    return Err(DialError::BadAddress(format!("{address}: this node has no socket of that IP version")));
                };
                state.core.dial(now, SocketId(socket), remote, peer)
            });
            match dialled {
                Ok(conn) => {
                    state.dials.insert(conn, results.clone());
                    open.push((conn, address));
                }
                Err(error) => attempts.push((address, error)),
            }
        }
    });
    (Dials { shared, open }, attempts)
}
