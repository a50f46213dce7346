//! What a node does, for people and for programs: OpenMetrics, health, explanations in words, and a page that draws it.
//!
//! Nothing here changes a node. Peers are looked at by `/explain.json` and the page, and never by a metric's label: what remotes do makes no further series.

#![forbid(unsafe_code)]

mod catalog;
pub mod client;
mod http;
pub mod logs;
pub mod metrics;
mod show;
mod trace;

pub use catalog::{Metric, Shape, catalog, reference};
pub use http::{Admin, CONNECTIONS_MAX};
pub use trace::{BYTES_MAX_DEFAULT, LASTS_DEFAULT, LASTS_MAX};
