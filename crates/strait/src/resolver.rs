//! Names, by the system's configuration (`/etc/resolv.conf`, `/etc/hosts` and their like).

use std::net::IpAddr;
use std::sync::OnceLock;

use hickory_resolver::TokioResolver;
use hickory_resolver::net::NetError;
use hickory_resolver::proto::rr::{RData, RecordType};
use strait_core::limits::LOOKUP_DEADLINE;
use strait_core::peers::{Answer, LookupError, Question, Record};

use crate::runtime::Lookup;

/// Made at the first look-up: most nodes never need one.
#[derive(Default)]
pub(crate) struct Resolver(OnceLock<Result<TokioResolver, String>>);

impl Resolver {
    pub(crate) fn resolve(&self, question: Question) -> Lookup {
        let made = self.0.get_or_init(|| {
            let resolver = TokioResolver::builder_tokio().and_then(|builder| builder.build());
            resolver.map_err(|error| error.to_string())
        });
        let resolver = made.clone();
        Box::pin(async move {
            let resolver =
                resolver.map_err(|error| LookupError::Failed(format!("the system's name servers are not known: {error}")))?;
            let kind = match question.record {
                Record::V4 => RecordType::A,
                Record::V6 => RecordType::AAAA,
                Record::Text => RecordType::TXT,
            };
            // A name with dots is complete: it is not tried below the domains of the system's search list first.
            let mut name = question.name;
            if name.contains('.') || name == "localhost" {
                name.push('.');
            }
            let looked_up = tokio::time::timeout(LOOKUP_DEADLINE, resolver.lookup(name, kind)).await;
            let answer = looked_up.map_err(|_| LookupError::NoAnswer(LOOKUP_DEADLINE))?.map_err(|error| failed(&error))?;
            let mut found = Answer::default();
            for record in answer.answers() {
                match &record.data {
                    RData::A(ip) => found.ips.push(IpAddr::V4(ip.0)),
                    RData::AAAA(ip) => found.ips.push(IpAddr::V6(ip.0)),
                    RData::TXT(text) => found.texts.push(String::from_utf8_lossy(&text.txt_data.concat()).into_owned()),
                    _ => {}
                }
            }
            Ok(found)
        })
    }
}

fn failed(error: &NetError) -> LookupError {
    match error {
        error if error.is_nx_domain() || error.is_no_records_found() => LookupError::NotFound,
        NetError::Timeout => LookupError::NoAnswer(LOOKUP_DEADLINE),
        error => LookupError::Failed(error.to_string()),
    }
}
