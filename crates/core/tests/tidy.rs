//! Tidy: what the compiler does not check about the whole repository, and reviewers would otherwise have to.
//!
//! Each rule is a function over source text in which comments and the contents of strings were blanked. Each has a bad sample below
//! that it must complain about: a rule that cannot fail proves nothing.

use std::fs;
use std::path::{Path, PathBuf};

/// A file longer than this does more than one thing.
const FILE_LINES_MAX: usize = 600;
/// A function longer than this does not fit a screen.
const FUNCTION_LINES_MAX: usize = 70;

/// Crates whose roots may do without `forbid(unsafe_code)`. Each entry needs a reason beside it.
const UNSAFE_ALLOWED: &[&str] = &[];

/// What each crate of the workspace may build upon: in its code, and beside that in its tests.
const LAYERS: &[(&str, &[&str], &[&str])] = &[
    ("wire", &[], &[]),
    ("core", &["strait-wire"], &[]),
    ("strait", &["strait-wire", "strait-core"], &[]),
    ("admin", &["strait-core", "strait"], &[]),
    ("cli", &["strait-wire", "strait-core", "strait", "strait-admin"], &["strait-sim"]),
    ("sim", &["strait-wire", "strait-core", "strait"], &["strait-adversary", "strait-admin"]),
    // What attacks strait shares nothing with it.
    ("adversary", &[], &[]),
];

/// Files of the core that know nothing of what is above them.
const FOUNDATION: &[&str] = &["stream.rs", "budget.rs", "evict.rs", "turn.rs", "wake.rs", "limits/mod.rs", "limits/table.rs"];

/// Documents that name files and tests as proofs.
const PROOFS: &[&str] = &["docs/principles.md", "docs/attacks.md"];

type Rule = fn(&Source) -> Vec<String>;
const RULES: &[Rule] =
    &[file_length, function_length, core_layers, quic_crate_in_one_file, purity, no_unbounded_queue, unsafe_is_forbidden];

#[test]
fn the_repository_is_tidy() {
    let root = root();
    let mut found = Vec::new();
    let sources = sources(&root);
    assert!(sources.len() > 50, "only {} source files found: is this the repository?", sources.len());
    for source in &sources {
        found.extend(RULES.iter().flat_map(|rule| rule(source)));
    }
    for (name, ..) in LAYERS {
        let path = format!("crates/{name}/Cargo.toml");
        found.extend(crate_layers(name, &fs::read_to_string(root.join(&path)).expect(&path)));
    }
    for path in PROOFS {
        let text = fs::read_to_string(root.join(path)).expect(path);
        let read =
            |file: &str| fs::read_to_string(root.join("crates").join(file)).or_else(|_| fs::read_to_string(root.join(file))).ok();
        found.extend(proofs_exist(path, &text, &read));
    }
    assert!(found.is_empty(), "{} untidy places:\n{}", found.len(), found.join("\n"));
}

// ---- The rules ----

/// Why: a long file is a sign that its parts should have names of their own.
fn file_length(source: &Source) -> Vec<String> {
    let lines = source.code.lines().count();
    let long = lines > FILE_LINES_MAX;
    long.then(|| format!("{}: {lines} lines, at most {FILE_LINES_MAX} are allowed: split it", source.path)).into_iter().collect()
}

/// Why: what fits a screen can be reviewed in one look. Nested functions count in the outer one too.
fn function_length(source: &Source) -> Vec<String> {
    let code = &source.code;
    let mut found = Vec::new();
    for at in places(code, "fn") {
        let name = word_at(code, code[at + 2..].find(|c: char| !c.is_whitespace()).map_or(code.len(), |gap| at + 2 + gap));
        // A type such as `fn(u8) -> u8` has no name.
        let Some(end) = (!name.is_empty()).then(|| body_end(code, at)).flatten() else {
            continue;
        };
        let lines = code[at..=end].lines().count();
        if lines > FUNCTION_LINES_MAX {
            found.push(
                source.says(at, &format!("fn {name} has {lines} lines, at most {FUNCTION_LINES_MAX} are allowed: split it")),
            );
        }
    }
    found
}

/// Why: a protocol must run over any transport, and a transport under any protocol; what both build upon must know neither.
fn core_layers(source: &Source) -> Vec<String> {
    let Some(file) = source.path.strip_prefix("crates/core/src/") else {
        return Vec::new();
    };
    let forbidden: &[&str] = match file {
        _ if file.starts_with("proto/") => &["conn", "peers", "node"],
        _ if file.starts_with("conn/") => &["proto", "peers", "node"],
        _ if file.starts_with("peers/") => &["conn", "proto", "node", "stream", "turn"],
        _ if FOUNDATION.contains(&file) => &["node", "conn", "proto", "peers"],
        _ => return Vec::new(),
    };
    let code = source.without_tests();
    let mut found = Vec::new();
    for module in forbidden {
        for at in places(&code, module) {
            // What a byte's urgency is, the transport has to know.
            let excepted = *module == "proto" && file.starts_with("conn/") && word_at(&code, at + "proto::".len()) == "Priority";
            if is_path(&code, at, module) && !excepted {
                found.push(
                    source.says(at, &format!("`{module}` is named here, which is not below this file (see ARCHITECTURE.md)")),
                );
            }
        }
    }
    found
}

/// Why: a new version of the QUIC crate, or another one, is then a change of one file.
fn quic_crate_in_one_file(source: &Source) -> Vec<String> {
    if !source.path.starts_with("crates/") || source.path == "crates/core/src/conn/quic.rs" {
        return Vec::new();
    }
    source.complain("quinn_proto", &source.code, "only crates/core/src/conn/quic.rs names the QUIC crate")
}

/// Why: the same inputs must give the same outputs, or a failing seed replays nothing. Time, randomness and bytes are handed in.
fn purity(source: &Source) -> Vec<String> {
    if !["crates/core/src/", "crates/wire/src/"].iter().any(|pure| source.path.starts_with(pure)) {
        return Vec::new();
    }
    let code = source.without_tests();
    let forbidden = [
        ("Instant::now", "time comes in as an argument"),
        ("SystemTime::now", "the date comes from Env"),
        (".elapsed(", "it reads the clock"),
        ("thread", "the core is driven, it runs nothing by itself"),
        ("UdpSocket", "sockets belong to the driver"),
        ("TcpStream", "sockets belong to the driver"),
        ("TcpListener", "sockets belong to the driver"),
        ("tokio", "async belongs to the crate `strait`"),
        ("async", "async belongs to the crate `strait`"),
        (".await", "async belongs to the crate `strait`"),
        ("rand::", "randomness grows from Env::seed"),
        ("getrandom", "randomness grows from Env::seed"),
        ("SystemRandom", "randomness grows from Env::seed"),
        ("OsRng", "randomness grows from Env::seed"),
        ("RandomState", "randomness grows from Env::seed"),
        ("HashMap", "its order differs from run to run: use BTreeMap"),
        ("HashSet", "its order differs from run to run: use BTreeSet"),
        ("static mut", "state belongs to a node"),
        ("thread_local", "state belongs to a node"),
    ];
    forbidden.iter().flat_map(|(what, why)| source.complain(what, &code, why)).collect()
}

/// Why: a queue without a bound turns a slow reader into lost memory. Every queue has a cap, and a full one slows its sender.
fn no_unbounded_queue(source: &Source) -> Vec<String> {
    let why = "a queue without a bound: use one with a capacity";
    let forbidden =
        ["unbounded_channel", "UnboundedSender", "UnboundedReceiver", "mpsc::channel()", "unbounded()", "mpsc::channel::<"];
    let mut found: Vec<String> = forbidden.iter().flat_map(|what| source.complain(what, &source.code, why)).collect();
    // `mpsc::channel::<T>(cap)` is the bounded one of tokio; without arguments it is the standard library's unbounded one.
    found.retain(|text| {
        let line = text.split(':').nth(1).and_then(|number| number.parse::<usize>().ok()).unwrap_or(0);
        let code = source.code.lines().nth(line.saturating_sub(1)).unwrap_or("");
        !code.contains("mpsc::channel::<") || code.contains(">()")
    });
    found
}

/// Why: memory safety is then the compiler's word, not a reviewer's. Dependencies keep theirs.
fn unsafe_is_forbidden(source: &Source) -> Vec<String> {
    let parts: Vec<&str> = source.path.split('/').collect();
    let is_root = matches!(parts[..], ["crates", _, "src", "lib.rs" | "main.rs"]);
    if !is_root || UNSAFE_ALLOWED.contains(&source.path.as_str()) || source.code.contains("#![forbid(unsafe_code)]") {
        return Vec::new();
    }
    vec![format!("{}: it lacks #![forbid(unsafe_code)]", source.path)]
}

/// Why: what is below must be usable, testable and understood without what is above.
fn crate_layers(name: &str, manifest: &str) -> Vec<String> {
    let (_, normal, tests) = LAYERS.iter().find(|(known, ..)| *known == name).expect("a crate without a line in LAYERS");
    let mut found = Vec::new();
    let mut section = "";
    for (number, line) in manifest.lines().enumerate() {
        let line = line.trim();
        if let Some(header) = line.strip_prefix('[') {
            section = header.trim_matches(|c| c == '[' || c == ']');
        }
        let (kind, named) = match section.rsplit_once("dependencies.") {
            Some((kind, table)) => (kind, table),
            None => match section.strip_suffix("dependencies") {
                Some(kind) => (kind, line),
                None => continue,
            },
        };
        let dependency = named.split(|c: char| "=. ".contains(c)).next().unwrap_or("");
        let ours = dependency == "strait" || dependency.starts_with("strait-");
        let allowed = normal.contains(&dependency) || (kind == "dev-" && tests.contains(&dependency));
        if ours && !allowed {
            found.push(format!("crates/{name}/Cargo.toml:{}: `{dependency}` is not below `{name}`", number + 1));
        }
    }
    found
}

/// Why: a table of proofs that names a test which is not there proves nothing. `read` gives a file's text.
fn proofs_exist(path: &str, text: &str, read: &dyn Fn(&str) -> Option<String>) -> Vec<String> {
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for quoted in line.split('`').skip(1).step_by(2) {
            let (file, test) = quoted.split_once("::").unwrap_or((quoted, ""));
            if !file.ends_with(".rs") || !file.contains('/') {
                continue;
            }
            let missing = match read(file) {
                None => "there is no such file, from crates/ or from the root",
                Some(code) if !test.is_empty() && !code.contains(&format!("fn {test}(")) => "the file has no such test",
                Some(_) => continue,
            };
            found.push(format!("{path}:{}: `{quoted}`: {missing}", number + 1));
        }
    }
    found
}

// ---- Reading ----

/// A source file: its path from the root, and its text without comments and the contents of strings, line by line in the same places.
struct Source {
    path: String,
    code: String,
}

impl Source {
    fn new(path: &str, text: &str) -> Source {
        Source { path: path.to_owned(), code: code_only(text) }
    }

    fn says(&self, at: usize, what: &str) -> String {
        format!("{}:{}: {what}", self.path, self.code[..at].matches('\n').count() + 1)
    }

    fn complain(&self, needle: &str, code: &str, why: &str) -> Vec<String> {
        places(code, needle).into_iter().map(|at| self.says(at, &format!("`{needle}`: {why}"))).collect()
    }

    /// The code with all tests blanked.
    fn without_tests(&self) -> String {
        let file = self.path.rsplit('/').next().unwrap_or("");
        if self.path.contains("/tests/") || file.ends_with("_tests.rs") || ["tests.rs", "testing.rs"].contains(&file) {
            return String::new();
        }
        let mut code = self.code.clone();
        for (start, mark) in self.code.match_indices("#[cfg(test)]") {
            let end = body_end(&self.code, start + mark.len()).map_or(start + mark.len(), |end| end + 1);
            blank(&mut code, start, end);
        }
        code
    }
}

fn blank(code: &mut String, start: usize, end: usize) {
    let blanks: String =
        code[start..end].chars().flat_map(|c| if c == '\n' { vec!['\n'] } else { vec![' '; c.len_utf8()] }).collect();
    code.replace_range(start..end, &blanks);
}

/// Where the item that begins at `from` ends: at its closing brace, or `None` when it has no body.
fn body_end(code: &str, from: usize) -> Option<usize> {
    let (mut outer, mut braces) = (0usize, 0usize);
    for (at, c) in code[from..].char_indices() {
        match c {
            '(' | '[' if braces == 0 => outer += 1,
            ')' | ']' if braces == 0 => outer = outer.saturating_sub(1),
            ';' if outer == 0 && braces == 0 => return None,
            '{' => braces += 1,
            '}' => {
                braces = braces.saturating_sub(1);
                if braces == 0 {
                    return Some(from + at);
                }
            }
            _ => {}
        }
    }
    None
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Where `needle` stands in `code`, not as a part of a longer word.
fn places(code: &str, needle: &str) -> Vec<usize> {
    let edge = |outer: Option<char>, inner: Option<char>| !(outer.is_some_and(is_word) && inner.is_some_and(is_word));
    let whole = |at: &usize| {
        edge(code[..*at].chars().next_back(), needle.chars().next())
            && edge(code[at + needle.len()..].chars().next(), needle.chars().next_back())
    };
    code.match_indices(needle).map(|(at, _)| at).filter(whole).collect()
}

fn word_at(code: &str, at: usize) -> &str {
    let rest = code.get(at..).unwrap_or("");
    &rest[..rest.find(|c| !is_word(c)).unwrap_or(rest.len())]
}

/// Whether the word at `at` is a module in a path or a `use`, not a variable or a field.
fn is_path(code: &str, at: usize, word: &str) -> bool {
    let (before, after) = (code[..at].trim_end(), code[at + word.len()..].trim_start());
    let statement = before.rsplit([';', '}']).next().unwrap_or("");
    before.ends_with("::") || after.starts_with("::") || statement.trim_start().starts_with("use ")
}

/// Blanks comments and what is inside of strings and character literals; line breaks stay where they are.
fn code_only(text: &str) -> String {
    let mut out = text.to_owned();
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        let step = rest.chars().next().map_or(1, char::len_utf8);
        let before = text[..at].chars().next_back();
        let (skip, keep) = match rest.as_bytes() {
            [b'/', b'/', ..] => (rest.find('\n').unwrap_or(rest.len()), 0),
            [b'/', b'*', ..] => (block_comment(rest), 0),
            [b'r', b'"' | b'#', ..] if !before.is_some_and(|c| is_word(c) && c != 'b' && c != 'c') => match raw_string(rest) {
                Some(len) => (len, 0),
                None => (step, step),
            },
            [b'"', ..] => (quoted(rest, '"'), 0),
            [b'\'', b'\\', ..] => (quoted(rest, '\''), 0),
            // A character, not a lifetime.
            [b'\'', ..] if rest[1..].chars().nth(1) == Some('\'') => (quoted(rest, '\''), 0),
            _ => (step, step),
        };
        if keep == 0 {
            blank(&mut out, at, at + skip);
        }
        at += skip;
    }
    out
}

fn quoted(rest: &str, mark: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == mark => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

fn raw_string(rest: &str) -> Option<usize> {
    let hashes = rest[1..].chars().take_while(|c| *c == '#').count();
    let content = rest[1 + hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    Some(content.find(&end).map_or(rest.len(), |at| 2 + hashes + at + end.len()))
}

fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0usize, 0);
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest[at..].starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("crates/core is two below the root").to_owned()
}

fn sources(root: &Path) -> Vec<Source> {
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = ["crates", "interop", "bench", "fuzz"].iter().map(|name| root.join(name)).collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = entry.file_name();
            if path.is_dir() && name != "target" && name != "corpus" && name != "artifacts" {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("a source file is UTF-8");
                let path = path.strip_prefix(root).expect("below the root").to_string_lossy().replace('\\', "/");
                found.push(Source::new(&path, &text));
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

// ---- The rules are seen to fail ----

/// How many complaints `rule` has about `text` at `path`.
fn count(rule: Rule, path: &str, text: &str) -> usize {
    rule(&Source::new(path, text)).len()
}

#[test]
fn long_files_are_found() {
    assert_eq!(count(file_length, "bench/src/a.rs", &"\n".repeat(FILE_LINES_MAX)), 0);
    assert_eq!(count(file_length, "bench/src/a.rs", &"\n".repeat(FILE_LINES_MAX + 1)), 1);
}

#[test]
fn long_functions_are_found() {
    let function = |lines: usize| {
        format!(
            "impl A {{\n    async fn long<'a>(x: [u8; 3], y: &'a str) -> fn(u8) -> [u8; 2]\n{}}}\n}}",
            "{\n}\n".repeat(lines / 2)
        )
    };
    let body =
        |lines: usize| function(2).replace("{\n}\n}\n}", &format!("{{\n{}}}\n}}", "    f(\"}\", '{'); // }\n".repeat(lines - 3)));
    assert_eq!(count(function_length, "crates/sim/src/a.rs", &body(FUNCTION_LINES_MAX)), 0);
    let found = function_length(&Source::new("crates/sim/src/a.rs", &body(FUNCTION_LINES_MAX + 1)));
    assert_eq!(found.len(), 1);
    assert!(found[0].starts_with("crates/sim/src/a.rs:2: fn long has 71 lines"), "{found:?}");
    assert_eq!(count(function_length, "a.rs", "trait T { fn a(); }\ntype F = fn(u8);\n"), 0);
}

#[test]
fn layer_violations_in_the_core_are_found() {
    let at = |path: &str, text: &str| count(core_layers, &format!("crates/core/src/{path}"), text);
    assert_eq!(at("proto/ping.rs", "use crate::conn::quic::Meta;"), 1);
    assert_eq!(at("proto/ping.rs", "use crate::{conn, limits};"), 1);
    assert_eq!(at("proto/ping.rs", "let x = super::super::node::Node;"), 1);
    assert_eq!(at("conn/quic.rs", "use crate::proto::Priority;"), 0);
    assert_eq!(at("conn/quic.rs", "use crate::proto::{Priority, Request};"), 1);
    assert_eq!(at("conn/quic.rs", "use crate::proto::PriorityOfOthers;"), 1);
    assert_eq!(at("peers/book.rs", "use crate::conn::quic; use crate::proto::Priority; use crate::limits::Limits;"), 2);
    assert_eq!(at("conn/quic.rs", "use crate::peers::scope;"), 1);
    for file in FOUNDATION {
        assert_eq!(at(file, "use crate::proto::Priority;\nuse crate::node;\nfn f() { crate::conn::f() }"), 3, "{file}");
        assert!(root().join("crates/core/src").join(file).exists(), "{file} was moved: move its rule too");
    }
    assert_eq!(
        at("turn.rs", "// not crate::node\nfn f(node: u8) -> u8 { node }\n#[cfg(test)]\nmod tests { use crate::node; }"),
        0
    );
    assert_eq!(at("node/mod.rs", "use crate::conn::quic; use crate::proto;"), 0);
}

#[test]
fn layer_violations_of_crates_are_found() {
    assert_eq!(crate_layers("wire", "[dependencies]\nbytes = \"1\"\nstrait-core.workspace = true\n").len(), 1);
    assert_eq!(
        crate_layers("core", "[dependencies]\nstrait-wire.workspace = true\n[dev-dependencies]\nstrait-sim = \"1\"\n").len(),
        1
    );
    assert_eq!(crate_layers("strait", "[target.'cfg(unix)'.dependencies.strait-cli]\nworkspace = true\n").len(), 2);
    assert_eq!(
        crate_layers("cli", "[dependencies]\nstrait.workspace = true\n[dev-dependencies]\nstrait-sim.workspace = true\n").len(),
        0
    );
    assert_eq!(crate_layers("cli", "[build-dependencies]\nstrait-sim.workspace = true\n").len(), 1);
    let crates =
        fs::read_dir(root().join("crates")).expect("crates").flatten().filter(|entry| entry.path().join("Cargo.toml").exists());
    assert_eq!(crates.count(), LAYERS.len(), "each crate needs a line in LAYERS");
}

#[test]
fn the_quic_crate_elsewhere_is_found() {
    assert_eq!(count(quic_crate_in_one_file, "crates/strait/src/lib.rs", "use quinn_proto as quic;"), 1);
    assert_eq!(count(quic_crate_in_one_file, "crates/core/src/conn/quic.rs", "use quinn_proto as quic;"), 0);
}

#[test]
fn impure_code_is_found() {
    let bad = "use std::{thread, net::UdpSocket};\nasync fn f() { g().await; Instant::now(); }\nlet r: HashMap<u8, u8> = rand::random();";
    assert_eq!(count(purity, "crates/core/src/a.rs", bad), 7);
    assert_eq!(count(purity, "crates/wire/src/a.rs", bad), 7);
    assert_eq!(count(purity, "crates/strait/src/a.rs", bad), 0);
    assert_eq!(count(purity, "crates/core/src/a_tests.rs", bad), 0);
    let good = "//! No HashMap.\nuse rand_chacha::X; /* tokio /* async */ */ let s = \"tokio\"; let r = r#\"\"thread\"\"#; let c = 'a'; struct Threads<'a>(&'a u8);";
    assert_eq!(count(purity, "crates/core/src/a.rs", good), 0);
    let after = "#[cfg(test)]\nmod tests {\n    use std::thread;\n}\nfn f() { Instant::now(); }\n";
    assert_eq!(purity(&Source::new("crates/core/src/a.rs", after)).len(), 1, "code behind tests is looked at");
}

#[test]
fn unbounded_queues_are_found() {
    let at = |text: &str| count(no_unbounded_queue, "interop/src/a.rs", text);
    assert_eq!(at("let (a, b) = mpsc::channel();"), 1);
    assert_eq!(at("let (a, b) = mpsc::channel::<u8>();"), 1);
    assert_eq!(at("let (a, b) = tokio::sync::mpsc::unbounded_channel();"), 1);
    assert_eq!(at("let (a, b) = mpsc::channel(8);\nlet (c, d) = mpsc::channel::<u8>(8);\nlet e = oneshot::channel();"), 0);
}

#[test]
fn missing_forbids_are_found() {
    assert_eq!(count(unsafe_is_forbidden, "crates/wire/src/lib.rs", "//! #![forbid(unsafe_code)]\n"), 1);
    assert_eq!(count(unsafe_is_forbidden, "crates/cli/src/main.rs", "fn main() {}"), 1);
    assert_eq!(count(unsafe_is_forbidden, "crates/wire/src/lib.rs", "#![forbid(unsafe_code)]"), 0);
    assert_eq!(count(unsafe_is_forbidden, "crates/wire/src/varint.rs", ""), 0);
}

#[test]
fn proofs_that_do_not_exist_are_found() {
    let read = |file: &str| (file == "core/src/turn.rs").then(|| "fn shares_are_fair() {".to_owned());
    let good = "| `core/src/turn.rs` | `core/src/turn.rs::shares_are_fair`, `just words`, `x.rs` |";
    assert_eq!(proofs_exist("docs/a.md", good, &read), Vec::<String>::new());
    let bad = "`core/src/gone.rs`\n`core/src/turn.rs::shares_are`";
    assert_eq!(proofs_exist("docs/a.md", bad, &read).len(), 2);
}
