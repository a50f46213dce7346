//! All cases of `src/cases.rs` over all combinations of `src/matrix.rs`, one test for each combination; afterwards `docs/interop.md` must say what
//! was seen. What cannot be tried here is named, with the reason, and ignored.
//!
//! `INTEROP_WRITE=1` writes the table instead; `INTEROP_COMPLETE=1` fails when something could not be tried for want of something on this machine.

use std::collections::BTreeMap;
use std::process::exit;
use std::sync::{Arc, Mutex, PoisonError};

use libtest_mimic::{Arguments, Trial};
use strait_interop::matrix::{Cell, Outcomes};
use strait_interop::table;

type Seen = Arc<Mutex<BTreeMap<Cell, Outcomes>>>;

fn main() {
    let arguments = Arguments::from_args();
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| value != "0");
    let seen = Seen::default();
    let mut skipped = Vec::new();
    let mut trials = Vec::new();
    for cell in Cell::all() {
        if let Some(reason) = cell.gap() {
            trials.push(Trial::test(cell.to_string(), || Ok(())).with_kind(reason).with_ignored_flag(true));
        } else if let Some(reason) = cell.unavailable() {
            skipped.push(format!("{cell}: {reason}"));
            trials.push(Trial::test(cell.to_string(), || Ok(())).with_kind("SKIPPED").with_ignored_flag(true));
        } else {
            let seen = seen.clone();
            trials.push(Trial::test(cell.to_string(), move || run(cell, &seen)));
        }
    }
    let listing = arguments.list;
    let mut conclusion = libtest_mimic::run(&arguments, trials);
    if !listing {
        let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        let written = if set("INTEROP_WRITE") { table::write(&seen) } else { table::check(&seen) };
        if let Err(error) = written {
            eprintln!("\n{error}");
            conclusion.num_failed += 1;
        }
        if !skipped.is_empty() {
            eprintln!("\nSKIPPED, NOT TRIED:\n  {}", skipped.join("\n  "));
            if set("INTEROP_COMPLETE") {
                conclusion.num_failed += 1;
            }
        }
    }
    exit(if conclusion.has_failed() { 101 } else { 0 });
}

fn run(cell: Cell, seen: &Seen) -> Result<(), libtest_mimic::Failed> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let outcomes = runtime.block_on(cell.run());
    let failures: Vec<String> = outcomes
        .iter()
        .filter_map(|(case, outcome)| outcome.as_ref().err().map(|error| format!("{}: {error}", case.name())))
        .collect();
    seen.lock().unwrap_or_else(PoisonError::into_inner).insert(cell, outcomes);
    match failures.is_empty() {
        true => Ok(()),
        false => Err(failures.join("\n").into()),
    }
}
