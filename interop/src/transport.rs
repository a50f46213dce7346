//! The ways in which two nodes of these tests can be connected.

use std::fmt;

/// What carries a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// TCP, secured by Noise, multiplexed by Yamux.
    TcpNoise,
    /// TCP, secured by TLS 1.3, multiplexed by Yamux.
    TcpTls,
    /// QUIC version 1.
    Quic,
}

impl Transport {
    /// All of them.
    pub const ALL: [Transport; 3] = [Transport::TcpNoise, Transport::TcpTls, Transport::Quic];

    /// Whether it runs over TCP.
    pub fn is_tcp(self) -> bool {
        self != Transport::Quic
    }

    /// A name for programs.
    pub fn name(self) -> &'static str {
        match self {
            Transport::TcpNoise => "tcp-noise",
            Transport::TcpTls => "tcp-tls",
            Transport::Quic => "quic",
        }
    }

    /// Any free port of 127.0.0.1, as a multiaddr.
    pub fn any_port(self) -> &'static str {
        match self {
            Transport::TcpNoise | Transport::TcpTls => "/ip4/127.0.0.1/tcp/0",
            Transport::Quic => "/ip4/127.0.0.1/udp/0/quic-v1",
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Transport::TcpNoise => "TCP+Noise+Yamux",
            Transport::TcpTls => "TCP+TLS+Yamux",
            Transport::Quic => "QUIC",
        })
    }
}

/// Makes of each `async fn name(transport: Transport)` a test over each transport.
#[macro_export]
macro_rules! over_each_transport {
    (@ $module:ident $transport:ident $($name:ident)+) => {
        mod $module {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    super::$name($crate::transport::Transport::$transport).await;
                }
            )+
        }
    };
    ($($name:ident),+ $(,)?) => {
        $crate::over_each_transport!(@ over_tcp_noise TcpNoise $($name)+);
        $crate::over_each_transport!(@ over_tcp_tls TcpTls $($name)+);
        $crate::over_each_transport!(@ over_quic Quic $($name)+);
    };
}
