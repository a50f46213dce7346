//! The name servers of a world: a table that all nodes ask.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use strait::{Answer, Lookup, LookupError, Question, Record};

use crate::exec::{Clock, lock};
use crate::world::World;

/// How long an answer takes.
const ANSWER_AFTER: Duration = Duration::from_millis(20);

#[derive(Debug, Default)]
struct Zone {
    records: BTreeMap<Question, Answer>,
    asked: u64,
}

/// The table. Clones are the same one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Names(Arc<Mutex<Zone>>);

impl Names {
    pub(crate) fn resolve(&self, clock: Clock, question: Question) -> Lookup {
        let names = self.clone();
        Box::pin(async move {
            clock.sleep(ANSWER_AFTER).await;
            let mut zone = lock(&names.0);
            zone.asked += 1;
            zone.records.get(&question).cloned().ok_or(LookupError::NotFound)
        })
    }

    fn set(&self, name: &str, record: Record, answer: Answer) {
        lock(&self.0).records.insert(Question { name: name.to_owned(), record }, answer);
    }
}

impl World {
    /// Gives a name its addresses, in place of those that it had. A name without any does not exist.
    pub fn set_name(&mut self, name: &str, ips: &[IpAddr]) {
        for record in [Record::V4, Record::V6] {
            let ips = ips.iter().copied().filter(|ip| ip.is_ipv6() == (record == Record::V6));
            self.names.set(name, record, Answer { ips: ips.collect(), texts: Vec::new() });
        }
    }

    /// Gives a name its texts (TXT records), in place of those that it had.
    pub fn set_texts(&mut self, name: &str, texts: &[&str]) {
        let texts = texts.iter().map(ToString::to_string).collect();
        self.names.set(name, Record::Text, Answer { ips: Vec::new(), texts });
    }

    /// How many questions all nodes have asked.
    #[must_use]
    pub fn lookups(&self) -> u64 {
        lock(&self.names.0).asked
    }
}
