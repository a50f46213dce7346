//! Each clause of the written specs is named by code and by a test, and each MUST has an id.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Clause ids such as `TR-12` in a text.
fn ids(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
    let is_id = |word: &&str| {
        let parts = word.split_once('-');
        parts.is_some_and(|(kind, number)| {
            (2..=3).contains(&kind.len())
                && kind.bytes().all(|b| b.is_ascii_uppercase())
                && number.len() == 2
                && number.bytes().all(|b| b.is_ascii_digit())
        })
    };
    words.filter(is_id).map(str::to_owned).collect()
}

/// Clauses that a spec defines: those in bold at the start of an item, and those that begin a row of a table.
fn defined(spec: &str) -> BTreeSet<String> {
    let starts = spec.lines().filter(|line| line.starts_with("- **") || line.starts_with("| "));
    starts.flat_map(|line| ids(line.get(..14).unwrap_or(line))).collect()
}

/// Paragraphs and items that demand something without an id.
fn demands_without_id(spec: &str) -> Vec<String> {
    let mut parts: Vec<String> = Vec::new();
    for line in spec.lines() {
        let begins = line.starts_with("- ") || line.starts_with('#') || line.starts_with('|') || line.trim().is_empty();
        match parts.last_mut() {
            Some(last) if !begins => last.push_str(line),
            _ => parts.push(line.to_owned()),
        }
    }
    parts.retain(|part| (part.contains("MUST") || part.contains("SHOULD")) && ids(part.get(..12).unwrap_or(part)).is_empty());
    parts
}

/// Rust files below a folder: their code, and their tests (whole files below `tests` and those named so, and what follows `mod tests`
/// elsewhere).
fn read_rust(folder: &Path, in_tests: bool, code: &mut String, tests: &mut String) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_rust(&path, in_tests || path.ends_with("tests"), code, tests);
        } else if path.extension().is_some_and(|ext| ext == "rs") && !path.ends_with("spec_clauses.rs") {
            let text = fs::read_to_string(&path).unwrap();
            let in_tests =
                in_tests || path.file_stem().and_then(|stem| stem.to_str()).is_some_and(|stem| stem.ends_with("tests"));
            let (before, after) =
                if in_tests { ("", &text[..]) } else { text.split_once("#[cfg(test)]\nmod tests").unwrap_or((&text, "")) };
            code.push_str(before);
            tests.push_str(after);
        }
    }
}

#[test]
fn every_clause_is_named_by_code_and_by_a_test() {
    let (mut code, mut tests) = (String::new(), String::new());
    for krate in fs::read_dir(workspace().join("crates")).unwrap() {
        let krate = krate.unwrap().path();
        read_rust(&krate.join("src"), false, &mut code, &mut tests);
        read_rust(&krate.join("tests"), true, &mut code, &mut tests);
    }
    let (code, tests) = (ids(&code), ids(&tests));
    let mut wrong: BTreeMap<String, &str> = BTreeMap::new();
    let mut seen = 0;
    for spec in fs::read_dir(workspace().join("docs/specs")).unwrap() {
        let path = spec.unwrap().path();
        if path.extension().is_none_or(|ext| ext != "md") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        for demand in demands_without_id(&text) {
            wrong.insert(demand, "demands something and has no id");
        }
        for id in defined(&text) {
            seen += 1;
            if !code.contains(&id) {
                wrong.insert(format!("{id} (code)"), "is named by no code");
            }
            if !tests.contains(&id) {
                wrong.insert(format!("{id} (test)"), "is named by no test");
            }
        }
    }
    assert!(seen > 30, "only {seen} clauses were found: the reader of specs is broken");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_reader_of_specs_sees_what_it_should() {
    assert_eq!(ids("(AB-12, x) CD-34. E-56 TR-1 TR-123 RFC-99"), ["AB-12", "CD-34", "RFC-99"].map(str::to_owned).into());
    let spec = "- **AB-12** A side MUST.\n  More MUST.\n| AB-13 | x |\n\nIt MUST\nnot.\n- **see** AB-14 SHOULD\n";
    assert_eq!(defined(spec), ["AB-12", "AB-13"].map(str::to_owned).into());
    assert_eq!(demands_without_id(spec), ["It MUSTnot.", "- **see** AB-14 SHOULD"]);
}

/// The table in the spec and the one that `--help` prints say the same.
#[test]
fn the_exit_codes_in_the_spec_are_those_of_the_command() {
    let spec = fs::read_to_string(workspace().join("docs/specs/transfer.md")).unwrap();
    let row = |line: &str| {
        let mut cells = line.split('|').map(str::trim).skip(1);
        Some((cells.next()?.parse::<u8>().ok()?, cells.next()?.replace('`', "")))
    };
    let in_spec: Vec<_> = spec.lines().filter_map(row).collect();
    let line = |line: &str| {
        let (code, words) = line.trim().split_once("  ")?;
        Some((code.parse::<u8>().ok()?, words.to_owned()))
    };
    let in_help: Vec<_> = strait_cli::exit::TABLE.lines().filter_map(line).collect();
    assert_eq!(in_spec, in_help);
    assert!(in_help.len() > 15);
}
