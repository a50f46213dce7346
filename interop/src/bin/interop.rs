//! strait as a program of libp2p's unified testing; `src/unified.rs` says what that is.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Instant;

use libp2p::multiaddr::Protocol;
use strait::{Builder, Multiaddr, Node, PeerId, TcpSecurity};
use strait_interop::strait_node::listen_addrs;
use strait_interop::transport::Transport;
use strait_interop::unified::{Latency, Settings};

#[tokio::main]
async fn main() -> ExitCode {
    let result = match Settings::of_this_process() {
        Ok(settings) if settings.dialer => dial(settings).await.map(|latency| println!("{latency}")),
        Ok(settings) => listen(settings).await,
        Err(error) => Err(error),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn builder(transport: Transport) -> Builder {
    Node::builder().tcp_security(match transport {
        Transport::TcpNoise => TcpSecurity::Noise,
        Transport::TcpTls => TcpSecurity::Tls,
        Transport::Quic => TcpSecurity::Either,
    })
}

async fn dial(settings: Settings) -> Result<Latency, String> {
    let node = builder(settings.transport).start().await.map_err(|error| error.to_string())?;
    let find = settings.clone();
    let found = tokio::task::spawn_blocking(move || find.find()).await.map_err(|error| error.to_string())??;
    if settings.debug {
        eprintln!("{} dials {found}", node.peer_id());
    }
    let peer = peer(&found)?;
    let begun = Instant::now();
    node.connect(peer, &[found]).await.map_err(|error| error.to_string())?;
    node.ping(peer).await.map_err(|error| error.to_string())?;
    let handshake_plus_one_rtt = begun.elapsed();
    let ping_rtt = node.ping(peer).await.map_err(|error| error.to_string())?;
    node.close().await;
    Ok(Latency { handshake_plus_one_rtt, ping_rtt })
}

fn peer(address: &Multiaddr) -> Result<PeerId, String> {
    match address.iter().last() {
        Some(Protocol::P2p(peer)) => Ok(peer),
        _ => Err(format!("{address} does not say who listens there")),
    }
}

/// Until it is killed, as the tests do.
async fn listen(settings: Settings) -> Result<(), String> {
    let at = SocketAddr::new(settings.ip, 0);
    let builder = builder(settings.transport).listen(at);
    let builder = if settings.transport.is_tcp() { builder.listen_tcp(at) } else { builder };
    let node = builder.start().await.map_err(|error| error.to_string())?;
    // Bound to all interfaces, others are told of one that leads out, if there is one.
    let mut addresses = listen_addrs(&node, settings.transport);
    addresses.sort_by_key(is_loopback);
    let address = addresses.into_iter().next().ok_or("no address to listen at")?;
    let address = address.with(Protocol::P2p(node.peer_id()));
    if settings.debug {
        eprintln!("{address} listens");
    }
    tokio::task::spawn_blocking(move || settings.publish(&address)).await.map_err(|error| error.to_string())??;
    std::future::pending().await
}

fn is_loopback(address: &Multiaddr) -> bool {
    match address.iter().next() {
        Some(Protocol::Ip4(ip)) => ip.is_loopback(),
        Some(Protocol::Ip6(ip)) => ip.is_loopback(),
        _ => false,
    }
}
