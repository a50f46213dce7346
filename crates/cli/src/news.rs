//! What happens to a transfer, once for people and once for programs.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

/// Something that happened: a line for people, and an event as `docs/json.md` has it.
#[derive(Debug, Clone, PartialEq)]
pub struct News {
    line: String,
    event: Value,
}

impl fmt::Display for News {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line)
    }
}

impl News {
    /// The event.
    pub fn event(&self) -> &Value {
        &self.event
    }

    /// The transfer begins: content `root`, from so many providers.
    pub fn started(root: &str, providers: &[String]) -> News {
        News { line: String::new(), event: json!({"event": "started", "root": root, "providers": providers}) }
    }

    /// So many bytes are there from an earlier run.
    pub fn resumed(line: impl Into<String>, bytes: u64) -> News {
        News { line: line.into(), event: json!({"event": "resumed", "bytes": bytes}) }
    }

    /// The disk is full, or there is space again.
    pub fn space(line: impl Into<String>, waiting: Option<(SystemTime, &str)>) -> News {
        let event = match waiting {
            Some((since, why)) => json!({"event": "waiting", "for": "space", "since": seconds(since), "why": why}),
            None => json!({"event": "going_on", "for": "space"}),
        };
        News { line: line.into(), event }
    }

    /// A provider does not answer, and is tried again.
    pub fn silent(line: impl Into<String>, provider: &str, since: SystemTime, why: &str) -> News {
        let event = json!({"event": "waiting", "for": "provider", "provider": provider, "since": seconds(since), "why": why});
        News { line: line.into(), event }
    }

    /// Something else about a provider: `state` is `connected`, `answers` (again), `lacks` (a part), or `out` (not asked any more).
    pub fn provider(line: impl Into<String>, provider: &str, state: &str, why: &str) -> News {
        News { line: line.into(), event: json!({"event": "provider", "provider": provider, "state": state, "why": why}) }
    }
}

/// Whole seconds since 1970 in UTC; 0 for what is before.
fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
