//! Changes as JSON lines.

use bytes::Bytes;
use serde_json::{Value, json};
use strait::{Change, Line};

/// Text as a string, anything else as hexadecimal under another name.
fn field(object: &mut Value, name: &str, bytes: &Bytes) {
    match std::str::from_utf8(bytes) {
        Ok(text) => object[name] = json!(text),
        Err(_) => object[format!("{name}_hex")] = json!(data_encoding::HEXLOWER.encode(bytes)),
    }
}

fn keyed(event: &str, key: &Bytes, value: Option<&Bytes>) -> Value {
    let mut object = json!({"event": event});
    field(&mut object, "key", key);
    if let Some(value) = value {
        field(&mut object, "value", value);
    }
    object
}

/// A change of a keyed topic.
pub fn change(change: &Change<Bytes, Bytes>) -> Value {
    match change {
        Change::Begin => json!({"event": "begin"}),
        Change::Put(key, value) => keyed("put", key, Some(value)),
        Change::Delete(key) => keyed("delete", key, None),
        Change::Whole => json!({"event": "whole"}),
        Change::Resumed => json!({"event": "resumed"}),
        Change::Interrupted(why) => json!({"event": "interrupted", "why": why.to_string()}),
    }
}

/// A line of a log.
pub fn line(line: &Line<Bytes, Bytes>) -> Value {
    match line {
        Line::Said(key, value) => keyed("said", key, Some(value)),
        Line::Gap { lost } => json!({"event": "gap", "lost": lost}),
        Line::Anew => json!({"event": "anew"}),
        Line::Resumed => json!({"event": "resumed"}),
        Line::Interrupted(why) => json!({"event": "interrupted", "why": why.to_string()}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_text_and_the_rest_is_hexadecimal() {
        let put = change(&Change::Put(Bytes::from_static(b"k"), Bytes::from_static(&[0xff, 0])));
        assert_eq!(put, json!({"event": "put", "key": "k", "value_hex": "ff00"}));
        assert_eq!(line(&Line::Gap { lost: 3 }), json!({"event": "gap", "lost": 3}));
    }
}
