//! A ticket as a QR code (ISO/IEC 18004) for terminals: two modules to a letter, one above the other, by the half blocks of Unicode.

use qrcode::{Color, EcLevel, QrCode};

use crate::exit::Failure;
use crate::ticket::Ticket;

/// Light modules around the code (ISO/IEC 18004, 9.1): readers need them to find it.
const QUIET: usize = 4;
/// Black on white whatever the terminal's own colours are: these two of the 256 have fixed values, unlike the first 16.
const BLACK_ON_WHITE: &str = "\x1b[38;5;16;48;5;231m";
const RESET: &str = "\x1b[0m";

/// The picture of a ticket.
pub struct Picture {
    lines: Vec<String>,
    columns: usize,
}

impl Picture {
    /// Draws a ticket. It is written in upper case, which may be read as well (TR-10): a letter then takes 5.5 bits instead of 8. The lowest
    /// level of error correction keeps it small; a screen has no dirt on it.
    pub fn of(ticket: &Ticket) -> Result<Picture, Failure> {
        let text = ticket.to_string().to_ascii_uppercase();
        let code = QrCode::with_error_correction_level(&text, EcLevel::L)
            .map_err(|error| Failure::bug(format!("could not draw the ticket: {error}")))?;
        Ok(Picture::draw(code.width(), |x, y| code[(x, y)] == Color::Dark))
    }

    fn draw(modules: usize, dark: impl Fn(usize, usize) -> bool) -> Picture {
        let columns = modules + 2 * QUIET;
        // Both are counted with the quiet zone; outside of the code everything is light.
        let dark = |x: usize, y: usize| match (x.checked_sub(QUIET), y.checked_sub(QUIET)) {
            (Some(x), Some(y)) => x < modules && y < modules && dark(x, y),
            _ => false,
        };
        let letter = |x, y| match (dark(x, y), dark(x, y + 1)) {
            (false, false) => ' ',
            (true, false) => '▀',
            (false, true) => '▄',
            (true, true) => '█',
        };
        let line = |y| (0..columns).map(|x| letter(x, y)).collect();
        Picture { lines: (0..columns).step_by(2).map(line).collect(), columns }
    }

    /// Columns and lines that it needs.
    pub fn size(&self) -> (usize, usize) {
        (self.columns, self.lines.len())
    }

    /// What to print on a terminal of this many lines and columns, or anywhere if that is not known: the picture, or why there is none and
    /// what to do.
    pub fn fitted(&self, terminal: Option<(u16, u16)>) -> String {
        let (columns, lines) = self.size();
        match terminal {
            Some((high, wide)) if usize::from(wide) < columns || usize::from(high) < lines => format!(
                "The QR code needs {columns} columns and {lines} lines, and this terminal has {wide} and {high}: make the window larger or \
                 its letters smaller, then run it again with --qr. The ticket above works as well."
            ),
            _ => self.lines.iter().map(|line| format!("{BLACK_ON_WHITE}{line}{RESET}")).collect::<Vec<_>>().join("\n"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket(addrs: usize) -> Ticket {
        let peer = crate::keyfile::fresh().unwrap().public().to_peer_id();
        let addr = |port: usize| format!("/ip4/192.0.2.7/udp/{}/quic-v1", 4000 + port).parse().unwrap();
        Ticket { peer, addrs: (0..addrs).map(addr).collect(), root: blake3::hash(b"root") }
    }

    #[test]
    fn a_ticket_with_few_addresses_fits_an_ordinary_terminal() {
        let (columns, lines) = Picture::of(&ticket(3)).unwrap().size();
        assert!(columns <= 80 && lines <= 40, "{columns} x {lines}");
    }

    #[test]
    fn a_terminal_that_is_too_small_gets_words_instead() {
        let picture = Picture::of(&ticket(16)).unwrap();
        let (columns, lines) = picture.size();
        let (wide, high) = (columns as u16, lines as u16);
        for terminal in [(high, wide - 1), (high - 1, wide)] {
            let said = picture.fitted(Some(terminal));
            assert!(said.contains(&format!("{columns} columns")) && !said.contains('█'), "{said}");
        }
        for terminal in [Some((high, wide)), None] {
            let drawn = picture.fitted(terminal);
            assert_eq!(drawn.lines().count(), lines);
            assert!(drawn.lines().all(|line| line.starts_with(BLACK_ON_WHITE) && line.ends_with(RESET)));
        }
    }
}
