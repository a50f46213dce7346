//! A link that carries only so much, without a second machine: this program starts again in a network namespace of its own (util-linux), whose
//! loopback has a token bucket (tc-tbf(8), of iproute2) and the packets of an Ethernet. Both directions share it.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Says that this is the program in the namespace.
const THERE: &str = "STRAIT_BENCH_LINK";
/// What may leave at once, and how long a packet may wait before it is dropped: a good switch, not a bloated one.
const BURST: &str = "16kb";
const QUEUE: &str = "20ms";

/// Goes on where the loopback carries `mbit` Mbit/s; returns only there.
///
/// # Errors
/// When the namespace cannot be made; nothing has changed then.
pub(crate) fn limit(mbit: u64) -> Result<()> {
    if std::env::var_os(THERE).is_some() {
        return Ok(());
    }
    if mbit == 0 {
        bail!("a link has to carry something: --link-mbit 1 at least");
    }
    let script = format!(
        "ip link set lo mtu 1500 up && tc qdisc add dev lo root tbf rate {mbit}mbit burst {BURST} latency {QUEUE} && exec \"$0\" \"$@\""
    );
    let program = std::env::current_exe()?;
    let mut command = Command::new("unshare");
    command.args(["-n", "sh", "-c", &script]).arg(program).args(std::env::args_os().skip(1)).env(THERE, "1");
    Err(command.exec()).context("a network namespace is needed: run as root, with unshare (util-linux), ip and tc (iproute2)")
}
