//! Which names may travel. One entry carries one component of a path, never a path.

use std::fmt;

/// Whose rules for names hold at the target. The wire's own rules hold everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rules {
    /// Only the wire's rules.
    Unix,
    /// Also what Windows cannot hold or reads as something else.
    Windows,
}

impl Rules {
    /// The rules of the machine this runs on.
    pub const fn here() -> Rules {
        if cfg!(windows) { Rules::Windows } else { Rules::Unix }
    }
}

/// Why a name is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// No bytes.
    #[error("it is empty")]
    Empty,
    /// Above 255 bytes.
    #[error("it is longer than 255 bytes")]
    TooLong,
    /// Not UTF-8.
    #[error("it is not valid UTF-8")]
    NotUtf8,
    /// `.` or `..`.
    #[error("it stands for this folder or the one above")]
    Dots,
    /// `/` or `\`.
    #[error("it contains a path separator")]
    Separator,
    /// A NUL byte.
    #[error("it contains a NUL byte")]
    Nul,
    /// A drive letter such as `C:`.
    #[error("it is a drive letter")]
    Drive,
    /// The start of strait's own temporary folders, at the top.
    #[error("it is the name of a temporary folder of strait")]
    Reserved,
    /// Windows cannot hold it.
    #[error("Windows cannot hold it")]
    Windows,
}

/// Checks one component (TR-31, TR-32). `top` says that it stands directly in the target folder.
pub fn check_name(name: &[u8], top: bool, rules: Rules) -> Result<&str, BadName> {
    if name.is_empty() {
        return Err(BadName::Empty);
    }
    if name.len() > 255 {
        return Err(BadName::TooLong);
    }
    let name = std::str::from_utf8(name).map_err(|_| BadName::NotUtf8)?;
    if name == "." || name == ".." {
        return Err(BadName::Dots);
    }
    if name.contains(['/', '\\']) {
        return Err(BadName::Separator);
    }
    if name.contains('\0') {
        return Err(BadName::Nul);
    }
    if matches!(name.as_bytes(), [letter, b':'] if letter.is_ascii_alphabetic()) {
        return Err(BadName::Drive);
    }
    if top && name.starts_with(crate::place::TEMP_PREFIX) {
        return Err(BadName::Reserved);
    }
    if rules == Rules::Windows && !windows_holds(name) {
        return Err(BadName::Windows);
    }
    Ok(name)
}

/// Whether Windows can hold this name and reads it as a plain one (Win32 file naming rules).
fn windows_holds(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or(name).trim_end_matches(' ').to_ascii_uppercase();
    let port = ["COM", "LPT"].iter().any(|kind| {
        let number = stem.strip_prefix(kind).unwrap_or("none");
        matches!(number, "\u{b9}" | "\u{b2}" | "\u{b3}") || matches!(number.as_bytes(), [b'0'..=b'9'])
    });
    let device = matches!(stem.as_str(), "CON" | "PRN" | "AUX" | "NUL" | "CONIN$" | "CONOUT$");
    let odd = name.chars().any(|c| c < ' ' || matches!(c, '<' | '>' | ':' | '"' | '|' | '?' | '*'));
    !(port || device || odd || name.ends_with([' ', '.']))
}

/// A name or path as it may be printed: control characters are escaped, so that it cannot move the cursor or hide text.
pub fn shown(name: &str) -> impl fmt::Display + '_ {
    struct Shown<'a>(&'a str);
    impl fmt::Display for Shown<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            for c in self.0.chars() {
                let turns_text = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
                if c.is_control() || turns_text { write!(f, "{}", c.escape_unicode())? } else { write!(f, "{c}")? }
            }
            Ok(())
        }
    }
    Shown(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// TR-31: what could lead out of the target folder, or nowhere, is refused on every system.
    #[test]
    fn hostile_names_are_refused_everywhere() {
        let long = "x".repeat(256);
        let cases: [(&[u8], BadName); 14] = [
            (b"", BadName::Empty),
            (b".", BadName::Dots),
            (b"..", BadName::Dots),
            (b"/etc", BadName::Separator),
            (b"a/b", BadName::Separator),
            (b"../a", BadName::Separator),
            (b"a\\b", BadName::Separator),
            (b"\\\\server\\share", BadName::Separator),
            (b"C:\\x", BadName::Separator),
            (b"C:", BadName::Drive),
            (b"a\0b", BadName::Nul),
            (b"\xff", BadName::NotUtf8),
            (long.as_bytes(), BadName::TooLong),
            (b".strait-0011", BadName::Reserved),
        ];
        for (name, why) in cases {
            assert_eq!(check_name(name, true, Rules::Unix), Err(why), "{:?}", name.escape_ascii().to_string());
            assert_eq!(check_name(name, true, Rules::Windows), Err(why));
        }
    }

    #[test]
    fn ordinary_and_odd_but_harmless_names_pass() {
        let long = "x".repeat(255);
        for name in ["a", "a b", "...", ".hidden", "Grüße", "日本語", "🦀", "-rf", "a:b", "con", &long] {
            assert_eq!(check_name(name.as_bytes(), true, Rules::Unix), Ok(name));
        }
        assert!(check_name(b".strait-0011", false, Rules::Unix).is_ok(), "only at the top is it reserved");
    }

    /// TR-32: the rules of the target's system come on top.
    #[test]
    fn names_that_windows_cannot_hold_are_refused_there_only() {
        for name in ["con", "NUL.txt", "com1", "Lpt9.log", "aux ", "a:b", "a:stream", "x.", "x ", "a?", "a\nb", "COM\u{b9}"] {
            assert_eq!(check_name(name.as_bytes(), false, Rules::Windows), Err(BadName::Windows), "{name:?}");
            assert!(check_name(name.as_bytes(), false, Rules::Unix).is_ok());
        }
        for name in ["console", "com", "com10", "nul_", "a.b", "Grüße"] {
            assert!(check_name(name.as_bytes(), false, Rules::Windows).is_ok(), "{name:?}");
        }
    }

    #[test]
    fn control_characters_are_never_printed() {
        assert_eq!(shown("a\x1b[2Jb\n\u{202e}ü").to_string(), "a\\u{1b}[2Jb\\u{a}\\u{202e}ü");
    }
}
