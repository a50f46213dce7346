//! The page in a real browser, with a real node behind it. A browser is not on every machine: `.ci/page` installs Chromium and requires it; without, the
//! test says that it was skipped.
#![cfg(unix)]

use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use strait::{Incoming, Keypair, Node, Priority, Request};
use strait_admin::Admin;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

static ECHO: Request = Request::new("/test/echo/1", 1 << 16, 1 << 16, Duration::from_secs(10), 8);
/// What a peer says that it is. As markup it would be an image that is not there, and a script.
const HOSTILE: &str = "<img src=/none onerror=window.hit=1>\u{202e}<b>bold";
/// The test as a whole ends within this, whatever hangs.
const LIMIT: Duration = Duration::from_secs(240);
/// And each thing that the page is to show comes within this.
const STEP: Duration = Duration::from_secs(60);

/// A browser that is told what to do over two pipes, in JSON that ends with a zero byte (Chrome DevTools Protocol).
struct Browser {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    last: u64,
    page: Option<String>,
    events: Vec<Value>,
    profile: PathBuf,
}

impl Browser {
    async fn start(program: &Path) -> Browser {
        let profile = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("chromium-{}", std::process::id()));
        // The browser speaks through the descriptors 3 and 4. As root it refuses its own sandbox; it is shown nothing but the page under test.
        let mut child = Command::new("sh")
            .args(["-c", "exec \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1", "sh"])
            .arg(program)
            .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"])
            .args(["--disable-background-networking", "--no-proxy-server", "--remote-debugging-pipe"])
            .arg(format!("--user-data-dir={}", profile.display()))
            .arg("about:blank")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("sh starts");
        let (input, output) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        let mut browser =
            Browser { child, input, output: BufReader::new(output), last: 0, page: None, events: Vec::new(), profile };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"})).await;
        let attached = browser.call("Target.attachToTarget", json!({"targetId": target["targetId"], "flatten": true})).await;
        browser.page = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({})).await;
        }
        browser
    }

    async fn call(&mut self, method: &str, params: Value) -> Value {
        self.last += 1;
        let mut message = json!({"id": self.last, "method": method, "params": params});
        if let Some(page) = &self.page {
            message["sessionId"] = json!(page);
        }
        self.input.write_all(format!("{message}\0").as_bytes()).await.expect("the browser listens");
        loop {
            let mut answer = Vec::new();
            self.output.read_until(0, &mut answer).await.expect("the browser speaks");
            assert_eq!(answer.pop(), Some(0), "the browser has ended before it answered {method}");
            let mut answer: Value = serde_json::from_slice(&answer).expect("JSON");
            if answer["id"] == self.last {
                assert!(answer["error"].is_null(), "{method}: {}", answer["error"]);
                return answer["result"].take();
            }
            if answer["method"].is_string() {
                self.events.push(answer);
            }
        }
    }

    /// The value of an expression in the page.
    async fn value(&mut self, expression: &str) -> Value {
        let mut result = self.call("Runtime.evaluate", json!({"expression": expression, "returnByValue": true})).await;
        assert!(result["exceptionDetails"].is_null(), "{expression}: {}", result["exceptionDetails"]);
        result["result"]["value"].take()
    }

    async fn text(&mut self, selector: &str) -> String {
        let expression = format!("[...document.querySelectorAll({})].map((n) => n.textContent).join('\\n')", json!(selector));
        self.value(&expression).await.as_str().expect("text").to_owned()
    }

    /// Waits until the text of what the selector finds has this in it.
    async fn shows(&mut self, selector: &str, wanted: &str) {
        self.until(&format!(
            "[...document.querySelectorAll({})].some((n) => n.textContent.includes({}))",
            json!(selector),
            json!(wanted)
        ))
        .await;
    }

    /// Waits until the expression is true.
    async fn until(&mut self, expression: &str) {
        let wait = async {
            while self.value(expression).await != true {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        if tokio::time::timeout(STEP, wait).await.is_err() {
            panic!("this did not become true: {expression}");
        }
    }

    async fn open(&mut self, url: &str, width: u32, height: u32) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600});
        self.call("Emulation.setDeviceMetricsOverride", size).await;
        self.call("Page.navigate", json!({"url": url})).await;
    }

    /// What went wrong in the page so far: exceptions, what was written to the console, and refusals by the content security policy.
    fn complaints(&self) -> Vec<&Value> {
        let bad = |event: &&Value| match event["method"].as_str() {
            Some("Runtime.exceptionThrown" | "Runtime.consoleAPICalled") => true,
            Some("Log.entryAdded") => event["params"]["entry"]["level"] == "error",
            _ => false,
        };
        self.events.iter().filter(bad).collect()
    }

    /// What the page has asked for.
    fn requests(&self) -> Vec<&str> {
        let sent = self.events.iter().filter(|event| event["method"] == "Network.requestWillBeSent");
        sent.filter_map(|event| event["params"]["request"]["url"].as_str()).collect()
    }

    async fn end(mut self) {
        self.page = None;
        self.call("Browser.close", json!({})).await;
        if tokio::time::timeout(Duration::from_secs(10), self.child.wait()).await.is_err() {
            self.child.kill().await.expect("it is ours");
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.start_kill();
        let _ = std::fs::remove_dir_all(&self.profile);
    }
}

/// A browser, if there is one on this machine.
fn chromium() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let all = std::env::split_paths(&path)
        .flat_map(|folder| ["chromium", "chromium-browser", "google-chrome"].map(|name| folder.join(name)));
    all.into_iter().find(|program| program.is_file())
}

async fn node(agent: &str) -> Node {
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let node =
        Node::builder().identity(Keypair::generate_ed25519()).agent(agent).listen(listen).start().await.expect("it starts");
    node.serve(&ECHO, Priority::Normal, async |request: Incoming| request.body).expect("a good definition");
    node
}

/// Serves at a port that stays bound when serving has ended, so that another one can go on there.
fn listener(port: &StdListener) -> TcpListener {
    let port = port.try_clone().expect("a descriptor is free");
    port.set_nonblocking(true).expect("it can be");
    TcpListener::from_std(port).expect("a listener")
}

#[tokio::test]
async fn a_browser_shows_what_the_node_does() {
    let Some(program) = chromium() else {
        assert!(std::env::var_os("STRAIT_CHROMIUM_REQUIRED").is_none(), "no Chromium found, and it is required");
        println!("skipped: there is no Chromium on this machine");
        return;
    };
    tokio::time::timeout(LIMIT, look(&program)).await.expect("something hangs");
}

async fn look(program: &Path) {
    let (shown, peer) = (node("shown").await, node(HOSTILE).await);
    peer.connect(shown.peer_id(), &shown.listen_addrs()).await.expect("it is there");
    let (asks, of) = (peer.clone(), shown.peer_id());
    let traffic = tokio::spawn(async move {
        while asks.request(of, &ECHO, vec![7; 10_000]).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let port = StdListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let url = format!("http://{}/", port.local_addr().expect("bound"));
    let serving = tokio::spawn(Admin::new(shown.clone()).serve(listener(&port)));

    let mut browser = Browser::start(program).await;
    browser.open(&url, 1280, 900).await;
    wide(&mut browser, &shown, &peer).await;
    browser.open(&url, 360, 800).await;
    narrow(&mut browser).await;
    assert!(browser.complaints().is_empty(), "{:#?}", browser.complaints());
    let elsewhere: Vec<_> =
        browser.requests().into_iter().filter(|to| !to.starts_with(&url) && !to.starts_with("data:")).collect();
    assert!(elsewhere.is_empty(), "the page asked elsewhere: {elsewhere:?}");
    assert!(browser.requests().len() > 5, "the requests are seen at all: {:?}", browser.requests());

    // Nobody answers any more; then another node does, at the same place.
    serving.abort();
    browser.until("document.querySelector('#status').className.includes('bad')").await;
    browser.shows("#status", "The node").await;
    browser.shows("#status", "What is shown is from").await;
    let next = node("next").await;
    let _serving = tokio::spawn(Admin::new(next.clone()).serve(listener(&port)));
    browser.shows("#id", &next.peer_id().to_string()).await;
    browser.shows("#status", "The node was started again").await;
    browser.shows("#peers-note", "No peer is connected").await;

    traffic.abort();
    browser.end().await;
}

/// All that is to be seen is there, and what a peer says is text.
async fn wide(browser: &mut Browser, shown: &Node, peer: &Node) {
    browser.shows("#id", &shown.peer_id().to_string()).await;
    browser.shows("#explain", "The node works; 1 peer connected").await;
    browser.shows("#protocols", "/test/echo/1").await;
    // The first reading has no rates, the second one has.
    let rate = "[...document.querySelectorAll('#protocols tr')].some((row) => row.cells[0].textContent === '/test/echo/1' && \
        /^[1-9][0-9.,]* .?B\\/s$/.test(row.cells[1].textContent) && /^[1-9][0-9.,]* \\/s$/.test(row.cells[4].textContent))";
    browser.until(rate).await;
    browser.until("[...document.querySelectorAll('.area')].some((path) => /^M[0-9.]+ /.test(path.getAttribute('d')))").await;
    browser.shows("#latency", "of peers").await;
    browser.shows("#peers", "QUIC, they dialled").await;

    browser.shows("#peers small", "<img src=/none onerror=window.hit=1>\u{fffd}<b>bold").await;
    assert_eq!(
        browser.value("[document.images.length, document.querySelectorAll('b b, small b').length, window.hit ?? 0]").await,
        json!([0, 0, 0])
    );

    browser.value("document.querySelector('#peers button').click()").await;
    browser.shows("dialog[open] #dialog-name", &peer.peer_id().to_string()).await;
    browser.shows("dialog[open] li", "It is connected over QUIC").await;
    // At once, before the browser tells that the first is closed.
    let open = "[...document.querySelectorAll('#protocols button')].find((name) => name.textContent === '/test/echo/1').click()";
    browser.value(&format!("document.querySelector('#dialog-close').click(); {open}")).await;
    browser.shows("dialog[open] li", "answered whole").await;
}

/// A phone has all of it too, and does not scroll sideways.
async fn narrow(browser: &mut Browser) {
    browser.shows("#peers small", "<img").await;
    browser.shows("#latency", "of peers").await;
    let wide = browser.value("document.documentElement.scrollWidth").await;
    assert!(wide.as_u64().is_some_and(|wide| wide <= 360), "the document is {wide} wide: {}", browser.text("h1, h2").await);
}
