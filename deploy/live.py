#!/usr/bin/env python3
"""Two nodes, scraped by Prometheus for some seconds: whether probes, alerts and dashboard get answers from what really runs. live.py STRAIT

The first node has the configuration of the Kubernetes manifests, but for its addresses. Everything is on the loopback interface, at free ports, and
ends with this program. Needs prometheus in the path.
"""
import json
import re
import signal
import subprocess
import sys
import tempfile
import threading
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


def heard(process, what, pattern):
    """Reads what a program says at its start, until it matches: so each takes any port that is free and tells which."""
    said = ""
    while not (found := re.search(pattern, said)):
        line = process.stderr.readline()
        if not line:
            sys.exit(f"{what} has ended: {said}")
        said += line
    return found.groups()


def get(url):
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


class Node:
    def __init__(self, strait, folder, name, *args):
        command = [strait, "node", "--key", f"{folder}/{name}.key", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", *args]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        self.admin, self.peer = heard(self.process, f"the node {name}", r"http://([\d.:]+)/[\s\S]*This is (\w+)\.")

    def address(self):
        return json.loads(get(f"http://{self.admin}/now.json")[1])["listen"][0] + f"/p2p/{self.peer}"


class Prometheus:
    def __init__(self, folder, nodes):
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(check.HERE / "prometheus/alerts.yaml")],
            "scrape_configs": [{"job_name": "strait", "static_configs": [{"targets": [node.admin for node in nodes]}]}],
        }
        Path(f"{folder}/prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
        command = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data", "--web.listen-address=127.0.0.1:0"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        (address,) = heard(self.process, "Prometheus", r'msg="Listening on".*?address=(\S+)[\s\S]*Server is ready')
        self.url = f"http://{address}/api/v1/"
        # What it says later is nobody's, and must not fill the pipe.
        threading.Thread(target=self.process.stderr.read, daemon=True).start()

    def ask(self, what, **args):
        status, body = get(f"{self.url}{what}?{urllib.parse.urlencode(args)}")
        answer = json.loads(body)
        check.expect(status == 200 and answer["status"] == "success", f"Prometheus does not answer {what} {args}: {body}")
        return answer.get("data", {})

    def wait(self, expr, value):
        until = time.monotonic() + WITHIN
        while time.monotonic() < until:
            result = self.ask("query", query=expr)["result"]
            if result and float(result[0]["value"][1]) >= value:
                return
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
    # What was started is ended, too, when whoever runs this has no patience.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))
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
