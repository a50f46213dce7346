//! The little JSON (RFC 8259) that traces and explanations need.

use std::fmt::Write as _;
use std::time::Duration;

/// An object that is being written.
#[derive(Debug)]
pub struct Object<'a> {
    text: &'a mut String,
    first: bool,
}

/// Writes one object to the end of `text`.
pub fn object(text: &mut String, fill: impl FnOnce(&mut Object<'_>)) {
    text.push('{');
    fill(&mut Object { text, first: true });
    text.push('}');
}

impl Object<'_> {
    /// The name of the next field: a word of ours, with nothing in it to be escaped.
    fn name(&mut self, name: &str) -> &mut String {
        if !std::mem::take(&mut self.first) {
            self.text.push(',');
        }
        let _ = write!(self.text, "\"{name}\":");
        self.text
    }

    /// A number.
    pub fn number(&mut self, name: &str, value: u64) -> &mut Self {
        let _ = write!(self.name(name), "{value}");
        self
    }

    /// A time in milliseconds, down to the microsecond.
    pub fn millis(&mut self, name: &str, time: Duration) -> &mut Self {
        let micros = time.as_micros();
        let _ = write!(self.name(name), "{}.{:03}", micros / 1_000, micros % 1_000);
        self
    }

    /// A text of anybody's.
    pub fn text(&mut self, name: &str, value: &str) -> &mut Self {
        let text = self.name(name);
        text.push('"');
        for letter in value.chars() {
            match letter {
                '"' | '\\' => text.extend(['\\', letter]),
                _ if u32::from(letter) < 0x20 => {
                    let _ = write!(text, "\\u{:04x}", u32::from(letter));
                }
                _ => text.push(letter),
            }
        }
        text.push('"');
        self
    }

    /// A text, or null.
    pub fn maybe(&mut self, name: &str, value: Option<&str>) -> &mut Self {
        match value {
            Some(value) => self.text(name, value),
            None => {
                self.name(name).push_str("null");
                self
            }
        }
    }

    /// An object within.
    pub fn object(&mut self, name: &str, fill: impl FnOnce(&mut Object<'_>)) -> &mut Self {
        object(self.name(name), fill);
        self
    }

    /// Objects in a row.
    pub fn objects<T>(&mut self, name: &str, all: impl IntoIterator<Item = T>, fill: impl Fn(&mut Object<'_>, T)) -> &mut Self {
        let text = self.name(name);
        text.push('[');
        for (index, item) in all.into_iter().enumerate() {
            if index > 0 {
                text.push(',');
            }
            object(text, |object| fill(object, item));
        }
        text.push(']');
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_others_cannot_break_out_of_theirs() {
        let mut text = String::new();
        object(&mut text, |data| {
            data.text("reason", "a\"b\\c\nd\u{1e}é").millis("time", Duration::from_micros(1_002_003)).maybe("none", None);
            data.objects("all", [1, 2], |each, number| _ = each.number("is", number)).object("in", |_| {});
        });
        let right = r#"{"reason":"a\"b\\c\u000ad\u001eé","time":1002.003,"none":null,"all":[{"is":1},{"is":2}],"in":{}}"#;
        assert_eq!(text, right);
    }
}
