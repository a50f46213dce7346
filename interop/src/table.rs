//! The table in `docs/interop.md`: a row for each [`Cell`], written by the tests from what they saw, and checked by them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::cases::Case;
use crate::matrix::{Cell, Dials, Outcomes};

/// The table stands between these two lines.
const BEGIN: &str = "<!-- The table is written by the tests: interop/README.md says how. -->";
const END: &str = "<!-- End of the table. -->";

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/interop.md")
}

/// The beginning of a cell's row: which cell it is.
fn key(cell: &Cell) -> String {
    let (stack, version) = (cell.stack.name(), cell.stack.version());
    let dials = match cell.dials {
        Dials::Strait => "strait",
        Dials::Peer => stack,
    };
    format!("| {stack} {version} | {} | {dials} |", cell.transport)
}

/// A cell's row. What failed is in the last column, and so is why nothing could be tried.
fn row(cell: &Cell, outcomes: &Outcomes) -> String {
    let mut row = key(cell);
    let mut remarks = Vec::new();
    for case in Case::ALL {
        row.push_str(match outcomes.get(&case) {
            Some(Ok(())) => " yes |",
            Some(Err(_)) => " **no** |",
            None => " – |",
        });
        if let Some(Err(error)) = outcomes.get(&case) {
            remarks.push(format!("{}: {}", case.name(), error.replace(['|', '\n'], " ")));
        }
    }
    remarks.extend(cell.gap().map(str::to_owned));
    row.push_str(&format!(" {} |", remarks.join("; ")));
    row
}

fn head() -> String {
    let names: Vec<&str> = Case::ALL.iter().map(|case| case.name()).collect();
    let columns = names.len() + 4;
    format!("| peer | transport | who dials | {} | remarks |\n|{}", names.join(" | "), "---|".repeat(columns))
}

/// The rows of all cells: of those that ran as they ran, of those that cannot be with the reason, of all others as they stand in `text`.
fn table(text: &str, ran: &BTreeMap<Cell, Outcomes>) -> String {
    let mut table = head();
    for cell in Cell::all() {
        let key = key(&cell);
        let line = match (ran.get(&cell), cell.gap()) {
            (Some(outcomes), _) => row(&cell, outcomes),
            (None, Some(_)) => row(&cell, &Outcomes::new()),
            (None, None) => {
                let stands = text.lines().find(|line| line.starts_with(&key)).map(str::to_owned);
                stands.unwrap_or_else(|| format!("{key}{} not tried yet |", " – |".repeat(Case::ALL.len())))
            }
        };
        table.push('\n');
        table.push_str(&line);
    }
    table
}

/// `text` with another table.
fn replaced(text: &str, ran: &BTreeMap<Cell, Outcomes>) -> Result<String, String> {
    let parts = text.split_once(BEGIN).and_then(|(before, rest)| Some((before, rest.split_once(END)?)));
    let Some((before, (_, after))) = parts else {
        return Err("docs/interop.md has no table between the two comments".to_owned());
    };
    Ok(format!("{before}{BEGIN}\n\n{}\n\n{END}{after}", table(text, ran)))
}

/// Writes what was seen into the document.
///
/// # Errors
/// In words.
pub fn write(ran: &BTreeMap<Cell, Outcomes>) -> Result<(), String> {
    let text = fs::read_to_string(path()).map_err(|error| error.to_string())?;
    fs::write(path(), replaced(&text, ran)?).map_err(|error| error.to_string())
}

/// Compares what was seen with the document.
///
/// # Errors
/// The rows that differ.
pub fn check(ran: &BTreeMap<Cell, Outcomes>) -> Result<(), String> {
    let text = fs::read_to_string(path()).map_err(|error| error.to_string())?;
    let replaced = replaced(&text, ran)?;
    let differing: Vec<&str> = replaced.lines().filter(|line| !text.lines().any(|stands| stands == *line)).collect();
    match differing.is_empty() && replaced == text {
        true => Ok(()),
        false => Err(format!(
            "docs/interop.md does not say what the tests saw; INTEROP_WRITE=1 writes it. Seen:\n{}",
            differing.join("\n")
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text() -> String {
        format!("before\n{BEGIN}\nold\n{END}\nafter\n")
    }

    #[test]
    fn what_ran_is_written_and_the_rest_is_kept() {
        let cells = Cell::all();
        let good: Outcomes = Case::ALL.into_iter().map(|case| (case, Ok(()))).collect();
        let first = replaced(&text(), &BTreeMap::from([(cells[0], good)])).expect("a table");
        assert!(first.starts_with("before\n") && first.ends_with("after\n"), "{first}");
        assert!(first.contains(&format!("{} yes | yes |", key(&cells[0]))), "{first}");
        assert!(first.contains(&format!("{} – | –", key(&cells[1]))), "{first}");
        let bad = Outcomes::from([(Case::Ping, Err("a|b\nc".to_owned()))]);
        let second = replaced(&first, &BTreeMap::from([(cells[1], bad)])).expect("a table");
        assert!(second.contains(&format!("{} yes | yes |", key(&cells[0]))), "{second}");
        assert!(second.contains("ping: a b c"), "{second}");
        assert_eq!(replaced(&second, &BTreeMap::new()).expect("a table"), second);
    }

    #[test]
    fn every_gap_has_its_reason_and_every_stack_its_version() {
        for cell in Cell::all() {
            assert!(!key(&cell).contains("unknown"), "{}", key(&cell));
            if let Some(reason) = cell.gap() {
                assert!(table("", &BTreeMap::new()).contains(reason));
            }
        }
    }
}
