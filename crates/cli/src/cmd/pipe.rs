//! `strait pipe`

use std::io;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::args::Pipe;
use crate::exit::{Code, Failure};
use crate::net::Nodes;
use crate::pipe::{self, Broken, Waiting, Word};
use crate::ticket::Contact;
use crate::{keyfile, net};

/// Joins both ends, and waits until both directions have ended.
pub(super) async fn run(args: Pipe, nodes: &Nodes) -> Result<(), Failure> {
    let keypair = keyfile::kept_or_fresh(args.key.as_deref())?;
    let quiet = args.quiet;
    let say = move |line: String| {
        if !quiet {
            eprintln!("{line}");
        }
    };
    let (node, peer, halves, word) = match &args.ticket {
        Some(ticket) => {
            let contact = Contact::read(ticket)?;
            let node = nodes.start(keypair, None).await?;
            let halves = pipe::open(&node, &contact).await?;
            say(format!("joined with {}", contact.peer));
            (node, contact.peer, halves, Word::Last)
        }
        None => {
            let node = nodes.start_as(keypair, args.door.listen, &args.door.announce).await?;
            net::note_without_tcp(&node, say);
            let waiting = Waiting::start(&node, args.door.allow.clone(), move |peer, status| {
                say(format!("{peer} was not let in: {}", status.word().replace('_', " ")));
            })?;
            say("Give this ticket to the other side, which runs:  strait pipe TICKET".to_owned());
            // What goes over stdout is the other side's alone.
            eprintln!("{}", Contact { peer: node.peer_id(), addrs: net::for_ticket(&node.told_addrs()) });
            let (peer, send, recv) = waiting.first().await?;
            say(format!("joined with {peer}"));
            (node, peer, (send, recv), Word::First)
        }
    };
    let joined = pipe::join(halves, word, input()?, output()?, close_output).await;
    if joined.is_ok() && word == Word::Last {
        pipe::gone(&node, peer).await;
    }
    node.close().await; // also after a failure: the other side must learn of it now, and not by silence
    let joined = joined.map_err(failure)?;
    say(format!("both directions have ended: {} bytes sent, {} received", joined.sent, joined.received));
    Ok(())
}

fn failure(broken: Broken) -> Failure {
    match broken {
        Broken::Stream(error) => pipe::failed(&error),
        Broken::Malformed => {
            let why = "its version does not fit, or it is faulty";
            let next = "use the same version of strait on both sides";
            Failure::new(Code::Incompatible, "the other side does not keep to the protocol", why, next)
        }
        Broken::Input(error) => Failure::disk("read stdin", &error),
        Broken::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Failure::new(
            Code::OutputClosed,
            "nobody reads stdout any more",
            "the program that this command's output went to has ended",
            "look at what that program says; not all bytes have arrived",
        ),
        Broken::Output(error) => Failure::disk("write to stdout", &error),
    }
}

/// stdin without the buffer that Rust keeps for lines.
#[cfg(unix)]
fn input() -> Result<impl AsyncRead + Unpin, Failure> {
    use std::os::fd::AsFd;
    let own = std::io::stdin().as_fd().try_clone_to_owned();
    own.map(|own| tokio::fs::File::from_std(own.into())).map_err(|error| Failure::disk("open stdin", &error))
}

/// stdout without the buffer that Rust keeps for lines.
#[cfg(unix)]
fn output() -> Result<impl AsyncWrite + Unpin, Failure> {
    use std::os::fd::AsFd;
    let own = std::io::stdout().as_fd().try_clone_to_owned();
    own.map(|own| tokio::fs::File::from_std(own.into())).map_err(|error| Failure::disk("open stdout", &error))
}

/// Lets whoever reads stdout see its end, while stdin may go on.
#[cfg(unix)]
fn close_output<W>(output: W) -> io::Result<()> {
    drop(output);
    let nothing = std::fs::OpenOptions::new().write(true).open("/dev/null")?;
    Ok(rustix::stdio::dup2_stdout(nothing)?)
}

#[cfg(not(unix))]
fn input() -> Result<impl AsyncRead + Unpin, Failure> {
    Ok(tokio::io::stdin())
}

#[cfg(not(unix))]
fn output() -> Result<impl AsyncWrite + Unpin, Failure> {
    Ok(tokio::io::stdout())
}

/// Here its reader sees the end when the command ends.
#[cfg(not(unix))]
fn close_output<W>(_: W) -> io::Result<()> {
    Ok(())
}
