//! `strait id`

use super::print_line;
use crate::args::Id;
use crate::exit::Failure;
use crate::keyfile;

/// Prints the identity.
pub(super) fn run(args: &Id) -> Result<(), Failure> {
    let keypair = keyfile::choose(&args.key)?;
    if let Some(warning) = keyfile::warning(&args.key) {
        eprintln!("{warning}");
    }
    print_line(&keypair.public().to_peer_id().to_string())
}
