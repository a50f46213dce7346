//! `strait send --qr`: what is drawn is the ticket, as a reader of QR codes sees it.

mod common;

use std::process::Stdio;

use common::command::*;
use common::*;

/// The text of a picture of half blocks, read as a camera would: from its light and dark points.
fn decode(picture: &str) -> String {
    let rows: Vec<Vec<char>> = picture.lines().map(|line| line.chars().filter(|c| " ▀▄█".contains(*c)).collect()).collect();
    let dark = |x: usize, y: usize| match rows.get(y / 2).and_then(|row| row.get(x)) {
        Some('█') => true,
        Some('▀') => y.is_multiple_of(2),
        Some('▄') => !y.is_multiple_of(2),
        _ => false,
    };
    const POINTS: usize = 4; // of each module, each way
    let side = rows[0].len() * POINTS;
    let light = |x: usize, y: usize| if dark(x / POINTS, y / POINTS) { 0 } else { 255 };
    let mut image = rqrr::PreparedImage::prepare_from_greyscale(side, side, light);
    let grids = image.detect_grids();
    assert_eq!(grids.len(), 1, "{picture}");
    grids[0].decode().unwrap().1
}

#[test]
fn the_picture_is_the_ticket() {
    let from = tempfile::tempdir().unwrap();
    write(&from.path().join("file"), b"text");
    let file = from.path().join("file");
    let args = ["send", "--ephemeral", "--listen", "127.0.0.1:0", "--qr", "--once", file.to_str().unwrap()];
    let mut child = strait(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (said, ticket) = (child.stderr.take().unwrap(), child.stdout.take().unwrap());
    let ticket = first_line(ticket);
    let to = tempfile::tempdir().unwrap();
    assert_code(&get(&ticket, to.path(), &[]), 0);
    assert!(child.wait().unwrap().success());
    let said = std::io::read_to_string(said).unwrap();
    let picture: Vec<&str> = said.lines().filter(|line| line.contains("\x1b[38;5;16;48;5;231m")).collect();
    let read = decode(&picture.join("\n"));
    assert_eq!(read, ticket.to_ascii_uppercase(), "in letters that make the picture small");
    let ticket: strait_cli::ticket::Ticket = ticket.parse().unwrap();
    assert_eq!(read.parse(), Ok(ticket));
}

#[test]
fn the_largest_ticket_can_be_read_too() {
    let peer = strait_cli::keyfile::fresh().unwrap().public().to_peer_id();
    let addr = |n: u16| format!("/ip6/2001:db8:1111:2222:3333:4444:5555:{n:x}/udp/4001/quic-v1").parse().unwrap();
    let ticket = strait_cli::ticket::Ticket { peer, addrs: (0..16).map(addr).collect(), root: blake3::hash(b"root") };
    let picture = strait_cli::qr::Picture::of(&ticket).unwrap().fitted(None);
    assert_eq!(decode(&picture).parse(), Ok(ticket));
}
