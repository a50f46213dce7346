//! `strait ping`

use std::time::Duration;

use serde_json::json;
use strait_core::PeerId;

use super::{print_json, print_line};
use crate::args::Ping;
use crate::exit::{Code, Failure};
use crate::net::Nodes;
use crate::ticket::Contact;
use crate::{keyfile, net};

/// Connects and measures.
pub(super) async fn run(args: Ping, nodes: &Nodes) -> Result<(), Failure> {
    let Contact { peer, addrs } = Contact::read(&args.target)?;
    let node = nodes.start(keyfile::fresh()?, None).await?;
    net::connect(&node, peer, &addrs).await?;
    if !args.json {
        print_line(&format!("ping {peer}"))?;
    }
    let mut times = Times::default();
    for number in 1..=args.count {
        if number > 1 {
            tokio::time::sleep(Duration::from_millis(args.interval)).await;
        }
        match node.ping(peer).await {
            Ok(time) => {
                times.add(time);
                if !args.json {
                    print_line(&format!("{number}: {}", millis(time)))?;
                }
            }
            Err(error) if !args.json => print_line(&format!("{number}: no answer: {error}"))?,
            Err(_) => {}
        }
    }
    node.close().await;
    if args.json {
        print_json(&times.json(peer, args.count))?;
    } else {
        print_line(&times.line(args.count))?;
    }
    if times.count == 0 {
        let why = "the node was stopped, or the network between is down";
        return Err(Failure::new(Code::Lost, "no ping was answered", why, "check that the other side still runs"));
    }
    Ok(())
}

fn millis(time: Duration) -> String {
    format!("{:.3} ms", time.as_secs_f64() * 1e3)
}

/// Round trips so far, without keeping each.
#[derive(Debug, Default, PartialEq)]
struct Times {
    count: u32,
    sum: Duration,
    min: Duration,
    max: Duration,
}

impl Times {
    fn add(&mut self, time: Duration) {
        self.min = if self.count == 0 { time } else { self.min.min(time) };
        self.max = self.max.max(time);
        self.sum = self.sum.saturating_add(time);
        self.count += 1;
    }

    fn average(&self) -> Duration {
        self.sum.checked_div(self.count).unwrap_or_default()
    }

    fn line(&self, sent: u32) -> String {
        let (min, average, max) = (millis(self.min), millis(self.average()), millis(self.max));
        format!("{} of {sent} answered, min {min}, avg {average}, max {max}", self.count)
    }

    fn json(&self, peer: PeerId, sent: u32) -> serde_json::Value {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        json!({
            "event": "ping",
            "peer": peer.to_string(),
            "sent": sent,
            "answered": self.count,
            "min_ms": ms(self.min),
            "avg_ms": ms(self.average()),
            "max_ms": ms(self.max),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_summed_up() {
        let mut times = Times::default();
        assert_eq!(times.average(), Duration::ZERO);
        [3, 1, 2].into_iter().for_each(|ms| times.add(Duration::from_millis(ms)));
        assert_eq!(times.line(4), "3 of 4 answered, min 1.000 ms, avg 2.000 ms, max 3.000 ms");
    }
}
