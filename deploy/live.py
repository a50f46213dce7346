#!/usr/bin/env python3
"""Two nodes, scraped by Prometheus for some seconds: whether probes, alerts and dashboard get answers from what really runs. live.py STRAIT

The first node has the configuration of the Kubernetes manifests, but for its addresses. Everything is on the loopback interface, at free ports, and
ends with this program. Needs prometheus in the path.
"""
import json
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import yaml

sys.dont_write_bytecode = True  # nothing is left in the folder
import check  # noqa: E402

# How long until Prometheus has seen each node twice.
WITHIN = 30


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def get(url):
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


class Node:
    def __init__(self, strait, folder, name, *args):
        self.port = free_port()
        command = [strait, "node", "--key", f"{folder}/{name}.key", "--listen", f"127.0.0.1:{self.port}", "--admin", "127.0.0.1:0", *args]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        said = ""
        while not (found := re.search(r"http://([\d.:]+)/[\s\S]*This is (\w+)\.", said)):
            line = self.process.stderr.readline()
            if not line:
                sys.exit(f"the node {name} has ended: {said}")
            said += line
        self.admin, self.peer = found.groups()

    def address(self):
        return f"/ip4/127.0.0.1/udp/{self.port}/quic-v1/p2p/{self.peer}"


class Prometheus:
    def __init__(self, folder, nodes):
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(check.HERE / "prometheus/alerts.yaml")],
            "scrape_configs": [{"job_name": "strait", "static_configs": [{"targets": [node.admin for node in nodes]}]}],
        }
        Path(f"{folder}/prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
        port = free_port()
        self.url = f"http://127.0.0.1:{port}/api/v1/"
        command = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data", f"--web.listen-address=127.0.0.1:{port}"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def ask(self, what, **args):
        status, body = get(f"{self.url}{what}?{urllib.parse.urlencode(args)}")
        answer = json.loads(body)
        check.expect(status == 200 and answer["status"] == "success", f"Prometheus does not answer {what} {args}: {body}")
        return answer.get("data", {})

    def wait(self, expr, value):
        until = time.monotonic() + WITHIN
        while time.monotonic() < until:
            try:
                result = self.ask("query", query=expr)["result"]
                if result and float(result[0]["value"][1]) >= value:
                    return
            except (urllib.error.URLError, ConnectionError):
                pass  # it is not up yet
            time.sleep(0.5)
        check.wrong.append(f"after {WITHIN} s this is not {value}: {expr}")


def look(prometheus, nodes):
    for node in nodes:
        for path in ("healthz", "readyz"):
            check.expect(get(f"http://{node.admin}/{path}")[0] == 200, f"/{path} of a node that runs is not 200")
    # Twice, so that there are rates.
    prometheus.wait('min(count_over_time(strait_uptime_seconds{job="strait"}[1m]))', 3)
    prometheus.wait("sum(strait_peers)", len(nodes))
    there = {sample["metric"]["__name__"] for sample in prometheus.ask("query", query='{__name__=~"strait_.*"}')["result"]}
    silent = []
    for expr in check.dashboard():
        names = set(re.findall(r"strait_\w+", expr))
        # What is counted by protocol is there from the first use on.
        unused = {name for name in names if "protocol" in check.SERIES[name][1]} - there
        check.expect(names - unused <= there, f"no node exports {sorted(names - unused - there)}")
        if not prometheus.ask("query", query=check.plain(expr))["result"]:
            silent.append(expr)
            check.expect(unused, f"the dashboard gets no answer to {expr}")
    rules = [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]
    for rule in rules:
        check.expect(rule["health"] in ("ok", "unknown"), f"alert {rule['name']}: {rule.get('lastError')}")
        check.expect(rule["state"] == "inactive", f"alert {rule['name']} is {rule['state']}, and all is well")
    return len(there), len(rules), len(silent)


def main(strait):
    toml = next(yaml.safe_load_all(check.text("kubernetes/config.yaml")))["data"]["strait.toml"]
    started = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            Path(f"{folder}/strait.toml").write_text(toml, encoding="utf-8")
            first = Node(strait, folder, "first", "--config", f"{folder}/strait.toml")
            started.append(first.process)
            second = Node(strait, folder, "second", "--peer", first.address())
            started.append(second.process)
            prometheus = Prometheus(folder, [first, second])
            started.append(prometheus.process)
            metrics, rules, silent = look(prometheus, [first, second])
            for node in (first, second):
                node.process.send_signal(signal.SIGTERM)
                code = node.process.wait(timeout=15)
                check.expect(code == 0, f"a node that was told to stop ended with {code}")
        finally:
            for process in started:
                process.kill()
                process.wait()
    for what in check.wrong:
        print(f"wrong: {what}", file=sys.stderr)
    if check.wrong:
        sys.exit(1)
    print(f"{metrics} series names were scraped; {rules} alerts are well and silent; the dashboard has answers, but to {silent} questions about protocols that nobody used")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
