//! The abuse feed as a file: a JSON object a line, for firewalls (`docs/abuse-feed.md`).

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use strait::{AbuseRecord, Node, Offender};

use crate::exit::Failure;

/// The node is asked so often.
const EVERY: Duration = Duration::from_secs(1);

/// Writes what a node notices of abuse to a file, until it is dropped.
pub struct AbuseLog {
    inner: Arc<Inner>,
    task: tokio::task::JoinHandle<()>,
}

struct Inner {
    node: Node,
    file: Mutex<File>,
    say: Box<dyn Fn(String) + Send + Sync>,
}

impl AbuseLog {
    /// Opens `path`, or makes it, and appends to it from now on. Trouble with the file is told by `say`, once each time that it begins.
    ///
    /// # Errors
    /// When it cannot be opened for writing.
    pub fn start(node: &Node, path: &Path, say: impl Fn(String) + Send + Sync + 'static) -> Result<AbuseLog, Failure> {
        let file = OpenOptions::new().create(true).append(true).open(path);
        let file = file.map_err(|error| Failure::disk(format!("open the abuse log {}", path.display()), &error))?;
        let inner = Arc::new(Inner { node: node.clone(), file: Mutex::new(file), say: Box::new(say) });
        let writer = inner.clone();
        let task = tokio::spawn(async move {
            let mut lost = false;
            loop {
                tokio::time::sleep(EVERY).await;
                let records = writer.node.abuse();
                if records.is_empty() {
                    continue;
                }
                let work = writer.clone();
                let written = tokio::task::spawn_blocking(move || work.write(&records)).await;
                let failed = !matches!(written, Ok(Ok(())));
                if failed && !lost {
                    let why = match written {
                        Ok(Err(error)) => error.to_string(),
                        _ => "writing broke off".to_owned(),
                    };
                    (writer.say)(format!(
                        "the abuse log cannot be written ({why}); what it misses is lost, and it is tried again"
                    ));
                }
                lost = failed;
            }
        });
        Ok(AbuseLog { inner, task })
    }
}

impl Drop for AbuseLog {
    fn drop(&mut self) {
        self.task.abort();
        let records = self.inner.node.abuse_rest();
        // Nobody is left to be told.
        let _ = self.inner.write(&records);
    }
}

impl Inner {
    /// All in one write, so that lines stay whole when a program reads them meanwhile.
    fn write(&self, records: &[AbuseRecord]) -> std::io::Result<()> {
        let lines: String = records.iter().map(|record| format!("{}\n", line(record))).collect();
        self.file.lock().unwrap_or_else(PoisonError::into_inner).write_all(lines.as_bytes())
    }
}

/// A record as `docs/abuse-feed.md` has it.
fn line(record: &AbuseRecord) -> Value {
    let (who, peer, address) = match record.who {
        Offender::Peer(peer) => {
            ("peer", Some(peer.to_string()), record.address.map(|address| address.ip().to_canonical().to_string()))
        }
        Offender::Address(address) | Offender::Forgeable(address) => {
            let text = if address.is_ipv6() { format!("{address}/64") } else { address.to_string() };
            ("address", None, Some(text))
        }
        Offender::Others => ("others", None, None),
    };
    json!({
        "event": "abuse",
        "who": who,
        "peer": peer,
        "address": address,
        "forgeable": matches!(record.who, Offender::Forgeable(_)),
        "offence": record.what.name(),
        "count": record.count,
        "bytes": record.bytes,
        "first": record.first.as_secs(),
        "last": record.last.as_secs(),
    })
}
