//! `strait watch`

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use bytes::Bytes;
use console::Term;
use serde_json::Value;
use strait::{Change, FollowError, Interest, Kind, Latest, Refusal, SubscribeError, Subscription};

use crate::args::Watch;
use crate::exit::{Code, Failure};
use crate::net::Nodes;
use crate::ticket::Contact;
use crate::topics::table::Table;
use crate::topics::{KEYS_MAX, show, watched, watched_log};
use crate::{keyfile, net};

/// A table is drawn at most so often: faster is not read.
const DRAW_EVERY: Duration = Duration::from_millis(200);

/// Shows what a topic has, and its changes.
pub(super) async fn run(args: Watch, nodes: &Nodes) -> Result<(), Failure> {
    let Contact { peer, addrs } = Contact::read(&args.target)?;
    let node = nodes.start(keyfile::fresh()?, None).await?;
    net::connect(&node, peer, &addrs).await?;
    let mut interest = Interest::all().prefix(args.prefix.clone());
    if let Some(every) = args.every {
        interest = interest.at_most_every(every);
    }
    let result = if args.log {
        let subscription = node.subscribe_with(peer, &watched_log(&args.topic), interest);
        print(subscription, |line| (show::line(line), false)).await
    } else {
        let subscription = node.subscribe_with(peer, &watched(&args.topic), interest);
        if !args.json && !args.once && io::stdout().is_terminal() {
            draw(subscription, &args.topic).await
        } else {
            let once = args.once;
            print(subscription, |change| (show::change(change), once && *change == Change::Whole)).await
        }
    };
    node.close().await;
    result.map_err(|end| match end {
        End::Subscription(error) => subscribe_failure(error, &args.topic),
        End::Output(error) => output_failure(&error),
    })
}

/// Why it ended.
enum End {
    Subscription(SubscribeError),
    Output(io::Error),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> End {
        End::Output(error)
    }
}

impl From<SubscribeError> for End {
    fn from(error: SubscribeError) -> End {
        End::Subscription(error)
    }
}

fn output_failure(error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::BrokenPipe {
        let why = "the program that read it has ended";
        return Failure::new(Code::OutputClosed, "nobody reads stdout any more", why, "nothing, if that was the intention");
    }
    Failure::disk("write to stdout", error)
}

fn subscribe_failure(error: SubscribeError, topic: &str) -> Failure {
    let text = error.to_string();
    let (code, why, next) = match error {
        SubscribeError::Publisher(FollowError::Refused(Refusal::OtherMode)) => {
            (Code::NotServed, "one of the two sides has --log and the other has not", "give --log, or leave it away")
        }
        SubscribeError::Publisher(FollowError::Refused(Refusal::Unknown)) => {
            (Code::NotServed, "the name is mistyped, or it is not published yet", "check the topic's name at the other side")
        }
        SubscribeError::Publisher(FollowError::Refused(_)) => {
            (Code::NotServed, "the other side has a limit for it", "try again later")
        }
        SubscribeError::Connect(_) => (Code::Unreachable, "the other side was stopped", "start it again"),
        SubscribeError::Closing => (Code::Lost, "this process is ending", "run it again"),
        SubscribeError::Misuse(_) => (Code::Usage, "an argument is outside its limits", "see strait watch --help"),
        _ => (Code::Incompatible, "the other side is another program, or another version", "use the same version at both sides"),
    };
    Failure::new(code, format!("cannot watch {topic}: {text}"), why, next)
}

/// Prints one JSON line for each change. They are flushed when there is none to follow at once.
async fn print<M: Kind<Bytes, Bytes>>(
    mut subscription: Subscription<Bytes, Bytes, M>,
    shown: impl Fn(&M::Update) -> (Value, bool),
) -> Result<(), End> {
    let mut out = io::BufWriter::new(io::stdout());
    loop {
        let update = tokio::select! {
            biased;
            update = subscription.next() => update?,
            () = std::future::ready(()) => {
                out.flush()?;
                subscription.next().await?
            }
        };
        let (line, last) = shown(&update);
        writeln!(out, "{line}")?;
        if last {
            return Ok(out.flush()?);
        }
    }
}

/// Draws a table again and again.
async fn draw(mut subscription: Subscription<Bytes, Bytes, Latest>, topic: &str) -> Result<(), End> {
    let (term, begin) = (Term::buffered_stdout(), Instant::now());
    let mut table = Table::new(KEYS_MAX);
    let mut ticks = tokio::time::interval(DRAW_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let (mut drawn, mut before, mut rate, mut since) = (0, 0, 0.0, Duration::ZERO);
    loop {
        tokio::select! {
            update = subscription.next() => table.apply(update?, begin.elapsed())?,
            _ = ticks.tick() => {
                let now = begin.elapsed();
                if now - since >= Duration::from_secs(1) {
                    rate = (table.changes() - before) as f64 / (now - since).as_secs_f64();
                    (before, since) = (table.changes(), now);
                }
                term.clear_last_lines(drawn)?;
                let lines = table.draw(topic, rate, now, term.size());
                drawn = lines.len();
                for line in lines {
                    term.write_line(&line)?;
                }
                term.flush()?;
            }
        }
    }
}
