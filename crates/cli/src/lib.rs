//! The `strait` command: sends and gets files and folders between machines, and carries TCP ports and pipes.
//!
//! The protocol is content addressed and written down in `docs/specs/transfer.md`; comments name its clauses (`TR-…`). From the
//! wire inwards: [`ticket`] says whom to ask for what, [`net`] asks, [`wire`] reads, [`tree`] verifies, [`manifest`] says which
//! bytes are which file, [`place`] writes. On the other side [`source`] hashes and reads, and [`provider`] answers.
//! [`forward`] and [`pipe`] have protocols of their own, in `docs/specs/forward.md` and `docs/specs/pipe.md`.
#![forbid(unsafe_code)]

pub mod abuse;
pub mod args;
pub mod cmd;
pub mod config;
pub mod exit;
pub mod fetch;
pub mod forward;
#[doc(hidden)]
pub mod fuzz_entry;
pub mod keyfile;
pub mod manifest;
pub mod net;
pub mod news;
pub mod pipe;
pub mod place;
pub mod progress;
pub mod provider;
pub mod qr;
pub mod source;
pub mod spill;
pub mod spool;
pub mod ticket;
pub mod top;
pub mod topics;
pub mod tree;
pub mod wire;

use std::process::ExitCode;

use clap::Parser;

/// The whole command, from the arguments of this process to its exit code.
pub fn main() -> ExitCode {
    let cli = match args::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(exit::Code::Usage as u8));
        }
    };
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!(
                "error: could not start: {error}\n  why:  the system has no threads or descriptors left\n  next: end other programs"
            );
            return ExitCode::from(exit::Code::Other as u8);
        }
    };
    let result = runtime.block_on(cmd::run(cli));
    runtime.shutdown_background(); // after a signal, a thread may still be reading a large file
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::from(failure.code as u8)
        }
    }
}
