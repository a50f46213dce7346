//! rust-libp2p as a program of libp2p's unified testing, for the tests of `interop`. It listens on 127.0.0.1 only.

use std::process::ExitCode;
use std::time::Instant;

use libp2p::multiaddr::Protocol;
use strait_interop::libp2p_node::{Libp2pNode, Options, with_peer};
use strait_interop::peer::{Peer, bare};
use strait_interop::unified::{Latency, Settings};

#[tokio::main]
async fn main() -> ExitCode {
    let result = match Settings::of_this_process() {
        Ok(settings) => run(settings).await,
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

async fn run(settings: Settings) -> Result<(), String> {
    let node = Libp2pNode::start(Options::over(settings.transport)).await;
    if !settings.dialer {
        let address = with_peer(&node.listen_addr(), node.peer_id());
        tokio::task::spawn_blocking(move || settings.publish(&address)).await.map_err(|error| error.to_string())??;
        return std::future::pending().await;
    }
    let found = tokio::task::spawn_blocking(move || settings.find()).await.map_err(|error| error.to_string())??;
    let Some(Protocol::P2p(peer)) = found.iter().last() else {
        return Err(format!("{found} does not say who listens there"));
    };
    let begun = Instant::now();
    node.dial(Some(peer), bare(&found)).await?;
    // Its pings come at an interval of their own, the first one at once.
    node.ping(peer).await?;
    let handshake_plus_one_rtt = begun.elapsed();
    let begun = Instant::now();
    node.ping(peer).await?;
    println!("{}", Latency { handshake_plus_one_rtt, ping_rtt: begun.elapsed() });
    Ok(())
}
