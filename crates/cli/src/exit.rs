//! Exit codes, and the error type that people read.
//!
//! Every failure of the command says three things: what failed, why most likely, and what to do next. The exit code tells
//! programs the same in one number; the table is printed by `strait --help` and kept in `docs/specs/transfer.md`.

use std::fmt;

/// Why the command ended. The numbers are part of the command's interface and never change their meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    /// A fault of strait itself, or one that no other code describes.
    Other = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The ticket or address cannot be read.
    BadTicket = 3,
    /// Nobody answers at any address.
    Unreachable = 4,
    /// Another identity answers at this address.
    WrongIdentity = 5,
    /// The provider sent bytes that do not belong to the ticket.
    Mismatch = 6,
    /// A name or a symbolic link would lead out of the target folder, or cannot exist there.
    UnsafeName = 7,
    /// The target already holds something else under this name.
    TargetTaken = 8,
    /// The disk is full.
    DiskFull = 9,
    /// The operating system forbids reading or writing here.
    Permission = 10,
    /// Another error of the disk or file system.
    Disk = 11,
    /// A file changed at the sender after its ticket was made.
    SourceChanged = 12,
    /// The other side does not serve this ticket, or declined.
    NotServed = 13,
    /// Both sides speak no common version.
    Incompatible = 14,
    /// The connection was lost, or the other side stopped answering.
    Lost = 15,
    /// What should be sent cannot be sent: not found, not readable, a name that cannot travel.
    BadSource = 16,
    /// The key file cannot be used.
    BadKey = 17,
    /// What arrived is not what was sent, or another check failed (only `demo`).
    DemoDiffers = 18,
    /// Nobody reads stdout any more.
    OutputClosed = 19,
    /// Ended by Ctrl-C.
    Interrupted = 130,
    /// Ended by SIGTERM.
    Terminated = 143,
}

/// The table of exit codes, as `--help` prints it.
pub const TABLE: &str = "\
Exit codes:
    0  all went well
    1  a fault of strait itself, or one that no other code describes
    2  the command line is wrong
    3  the ticket or address cannot be read
    4  nobody answers at any address
    5  another identity answers at this address
    6  the provider sent bytes that do not belong to the ticket
    7  a name or symbolic link would lead out of the target folder, or cannot exist there
    8  the target already holds something else under this name, or another get is at work there
    9  the disk is full
   10  the operating system forbids reading or writing here
   11  another error of the disk or file system
   12  a file changed at the sender after its ticket was made
   13  the other side does not serve this ticket, or declined
   14  both sides speak no common version
   15  the connection was lost, or the other side stopped answering
   16  what should be sent cannot be sent
   17  the key file cannot be used
   18  demo: what arrived is not what was sent, or another check of it failed
   19  nobody reads stdout any more (get -o -, pipe)
  130  ended by Ctrl-C
  143  ended by SIGTERM
After any code but 0, nothing half-written stands under the names of the transfer.
What was fetched may be kept in one folder .strait-... in the target folder; the same command goes on from it.";

/// A failure in words for people, with its exit code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The exit code.
    pub code: Code,
    /// What failed, in one sentence without the final stop.
    pub what: String,
    /// The most likely cause.
    pub why: String,
    /// What to do next.
    pub next: String,
}

impl Failure {
    /// A failure in its three parts.
    pub fn new(code: Code, what: impl Into<String>, why: impl Into<String>, next: impl Into<String>) -> Failure {
        Failure { code, what: what.into(), why: why.into(), next: next.into() }
    }

    /// A fault of strait itself.
    pub fn bug(what: impl Into<String>) -> Failure {
        Failure::new(
            Code::Other,
            what,
            "this is a fault of strait itself",
            "run it again; if it stays, report it with this message",
        )
    }

    /// An error of a local file operation. `doing` is a phrase such as "write the file a/b".
    pub fn disk(doing: impl fmt::Display, error: &std::io::Error) -> Failure {
        use std::io::ErrorKind as Kind;
        let what = format!("could not {doing}: {error}");
        match error.kind() {
            Kind::StorageFull | Kind::QuotaExceeded => Failure::new(
                Code::DiskFull,
                what,
                "the disk or your quota is full",
                "make space, or choose another folder with -o, then run it again",
            ),
            Kind::PermissionDenied | Kind::ReadOnlyFilesystem => Failure::new(
                Code::Permission,
                what,
                "the operating system forbids it for your user",
                "choose a folder that you may use (-o for get), or change its permissions",
            ),
            Kind::InvalidFilename | Kind::IsADirectory | Kind::NotADirectory => Failure::new(
                Code::UnsafeName,
                what,
                "this file system cannot hold that name or path",
                "use a target folder with a shorter path or another file system",
            ),
            _ => Failure::new(Code::Disk, what, "the disk or file system reported an error", "check the disk, then run it again"),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n  why:  {}\n  next: {}", self.what, self.why, self.next)
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Code; 21] = [
        Code::Other,
        Code::Usage,
        Code::BadTicket,
        Code::Unreachable,
        Code::WrongIdentity,
        Code::Mismatch,
        Code::UnsafeName,
        Code::TargetTaken,
        Code::DiskFull,
        Code::Permission,
        Code::Disk,
        Code::SourceChanged,
        Code::NotServed,
        Code::Incompatible,
        Code::Lost,
        Code::BadSource,
        Code::BadKey,
        Code::DemoDiffers,
        Code::OutputClosed,
        Code::Interrupted,
        Code::Terminated,
    ];

    #[test]
    fn every_code_is_in_the_table_once() {
        for code in ALL {
            let start = format!("{:>5}  ", code as u8);
            assert_eq!(TABLE.lines().filter(|line| line.starts_with(&start)).count(), 1, "{code:?}");
        }
        assert_eq!(TABLE.lines().count(), ALL.len() + 4);
    }

    #[test]
    fn a_full_disk_and_a_forbidden_folder_have_their_own_codes() {
        let full = Failure::disk("write x", &std::io::ErrorKind::StorageFull.into());
        let forbidden = Failure::disk("write x", &std::io::ErrorKind::PermissionDenied.into());
        assert_eq!((full.code, forbidden.code), (Code::DiskFull, Code::Permission));
        assert_eq!(full.to_string().lines().count(), 3);
    }
}
