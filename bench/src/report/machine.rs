//! On what it was measured.

use std::{fs, process::Command, time::SystemTime};

use serde::{Deserialize, Serialize};

/// The versions that this program was built with.
const LOCK: &str = include_str!("../../Cargo.lock");

/// The machine, and when.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Machine {
    pub(super) cpu: String,
    pub(super) cores: usize,
    pub(super) memory_mib: u64,
    pub(super) kernel: String,
    /// Day, UTC.
    pub(super) date: String,
    /// What strait's sources were, if git says so.
    pub(super) commit: String,
}

impl Machine {
    /// This one, now. What cannot be found is said to be unknown.
    pub(super) fn this() -> Machine {
        let seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let memory_kib = field("/proc/meminfo", "MemTotal").and_then(|size| size.split(' ').next()?.parse::<u64>().ok());
        Machine {
            cpu: field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".to_owned()),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_mib: memory_kib.unwrap_or(0) / 1024,
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
                .map_or_else(|_| "unknown".to_owned(), |name| name.trim().to_owned()),
            date: date(seconds),
            commit: commit().unwrap_or_else(|| "unknown".to_owned()),
        }
    }
}

fn field(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn commit() -> Option<String> {
    let out =
        Command::new("git").args(["rev-parse", "--short=10", "HEAD"]).current_dir(env!("CARGO_MANIFEST_DIR")).output().ok()?;
    let name = String::from_utf8(out.stdout).ok()?;
    out.status.success().then(|| name.trim().to_owned())
}

/// The day of a time since 1970, as year-month-day (the civil calendar, counted from 1 March so that a leap day is a year's last).
fn date(seconds: u64) -> String {
    let days = seconds / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    format!("{:04}-{month:02}-{day:02}", year_of_era + era * 400 + next)
}

/// The version of a crate in Cargo.lock; the largest, if there are several.
pub(super) fn version(krate: &str) -> String {
    let name = format!("name = \"{krate}\"");
    let versions = LOCK.split("[[package]]").filter(|package| package.lines().any(|line| line == name));
    let numbers = |version: &str| version.split('.').map(|part| part.parse().unwrap_or(0)).collect::<Vec<u32>>();
    versions
        .filter_map(|package| package.lines().find_map(|line| line.strip_prefix("version = \"")))
        .map(|version| version.trim_end_matches('"').to_owned())
        .max_by_key(|version| numbers(version))
        .unwrap_or_else(|| "unknown".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_have_dates() {
        assert_eq!(date(0), "1970-01-01");
        assert_eq!(date(951_782_400), "2000-02-29");
        assert_eq!(date(1_735_689_599), "2024-12-31");
    }

    #[test]
    fn versions_are_in_the_lock() {
        assert!(version("quinn").starts_with("0.11"));
        assert_eq!(version("no such crate"), "unknown");
    }
}
