#!/usr/bin/env python3
"""Whether the files here fit each other, docs/metrics.md, Kubernetes' schemas and the command. Needs PyYAML and jsonschema; ends with 1 and a list if not.

check.py [--strait FILE] [--schemas FILE]: with a strait command it also has to accept the configuration and the arguments of the manifests.
"""
import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import jsonschema
import yaml

HERE = Path(__file__).resolve().parent
wrong = []


def expect(holds, what):
    if not holds:
        wrong.append(what)


def text(name):
    return (HERE / name).read_text(encoding="utf-8")


# Metrics.

# What Prometheus adds to each series.
TARGET = {"job", "instance"}


def series():
    """Each series that a node exports, by name: its kind and its labels."""
    out = {}
    rows = re.findall(r"^\| `(strait_\w+)((?:\{\w+\})*)` \| (\w+) \|", text("../docs/metrics.md"), re.M)
    for name, labels, kind in rows:
        labels = set(re.findall(r"\w+", labels))
        if kind == "histogram":
            out[name + "_bucket"] = ("counter", labels | {"le"})
            out[name + "_sum"] = out[name + "_count"] = ("counter", labels)
        else:
            out[name] = (kind, labels)
    expect(len(out) > 100, "docs/metrics.md has no table of metrics")
    return out


SERIES = series()
LIMITS = set(re.findall(r"^#: (\w+) = ", text("strait.toml").split("[limits]")[1], re.M))
# What is known of labels' values.
VALUES = {"name": LIMITS, "limit": LIMITS, "transport": {"quic", "tcp"}}


def selector(where, name, inside):
    """The labels of `name{inside}`."""
    if name not in SERIES:
        near = [known for known in SERIES if known.startswith(name) or name.startswith(known)]
        wrong.append(f"{where}: no metric is called {name}" + (f"; there is {near[0]}" if near else ""))
        return TARGET
    known = SERIES[name][1] | TARGET
    for label, how, value in re.findall(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"', inside or ""):
        expect(label in known, f"{where}: {name} has no label {label}")
        if how in ("=", "!=") and label in VALUES:
            expect(value in VALUES[label], f"{where}: nothing has {label}={value!r}")
    return known


def expression(where, expr):
    """Looks at the names in PromQL, and returns the labels that its result may have. Its syntax is promtool's."""
    labels = set(TARGET)
    for before, name, inside in re.findall(r"([\w.]+\(\s*)?\b(strait_\w+)(?:\{([^}]*)\})?", expr):
        labels |= selector(where, name, inside)
        kind = SERIES.get(name, ("", ()))[0]
        counts = before.rstrip("( ") in ("rate", "irate", "increase")
        expect(counts == (kind == "counter") or not kind, f"{where}: {name} is a {kind}; counters, and they only, are looked at by rate() or increase()")
    for listed in re.findall(r"\b(?:by|on|ignoring|without)\s*\(([^)]*)\)", expr):
        for label in re.findall(r"\w+", listed):
            expect(label in labels, f"{where}: nothing in it has the label {label}")
    kept = re.match(r"\s*(?:\w+\([\d.,\s]*)?(?:sum|min|max|count|avg)\b(?:\s*by\s*\(([^)]*)\))?", expr)
    return set(re.findall(r"\w+", kept[1] or "")) - {"le"} if kept else labels


def told(where, words, labels):
    for label in re.findall(r"\$labels\.(\w+)|\{\{\s*(\w+)\s*\}\}", words):
        label = label[0] or label[1]
        expect(label in labels, f"{where}: it tells the label {label}, and has none")


def alerts():
    rules = [rule for group in yaml.safe_load(text("prometheus/alerts.yaml"))["groups"] for rule in group["rules"]]
    tests = text("prometheus/alerts_test.yaml")
    for rule in rules:
        where = f"alert {rule['alert']}"
        labels = expression(where, rule["expr"])
        expect(rule.get("labels", {}).get("severity") in ("critical", "warning"), f"{where}: severity is neither critical nor warning")
        for part in ("summary", "description"):
            words = rule.get("annotations", {}).get(part, "")
            expect(len(words) > 20, f"{where}: no {part}")
            told(where, words, labels)
        expect(f'alertname="{rule["alert"]}"' in tests, f"{where}: no test raises it")
    for name, inside in re.findall(r"series: '(strait_\w+)\{([^}]*)\}", tests):
        selector("prometheus/alerts_test.yaml", name, inside)
    return len(rules)


# What Grafana has without plugins and is used here.
PANELS = {"timeseries", "stat"}
UNITS = {"short", "s", "bytes", "Bps", "pps", "cps", "reqps", "percentunit"}


def dashboard():
    board = json.loads(text("grafana/strait.json"))
    variables = {variable["name"] for variable in board["templating"]["list"]}
    expect({"datasource", "job", "instance"} <= variables, "dashboard: the variables datasource, job and instance are needed")
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            expression(f"variable {variable['name']}", variable["query"]["query"])
            expect(variable["datasource"]["uid"] == "${datasource}", f"variable {variable['name']}: the data source is not the variable")
    taken, ids, expressions = {}, set(), []
    for panel in board["panels"]:
        where = f"panel {panel.get('title') or panel['id']!r}"
        expect(panel.get("title"), f"{where}: no title")
        expect(panel["id"] not in ids, f"{where}: its id is another panel's")
        ids.add(panel["id"])
        at = panel["gridPos"]
        for cell in ((x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])):
            expect(cell not in taken and cell[0] < 24, f"{where}: it lies over {taken.get(cell, 'the edge')}")
            taken[cell] = where
        if panel["type"] == "row":
            continue
        expect(panel["type"] in PANELS, f"{where}: {panel['type']} may be a plugin")
        expect(len(panel.get("description", "")) > 10, f"{where}: no description")
        expect(panel["fieldConfig"]["defaults"].get("unit") in UNITS, f"{where}: no unit, or none that Grafana is known to have")
        expect(panel.get("targets"), f"{where}: it asks for nothing")
        for part in [panel, *panel.get("targets", [])]:
            expect(part.get("datasource", {}).get("uid") == "${datasource}", f"{where}: the data source is not the variable")
        for target in panel.get("targets", []):
            told(where, target["legendFormat"], expression(where, target["expr"]))
            expect('job=~"$job"' in target["expr"] and 'instance=~"$instance"' in target["expr"], f"{where}: it is not only of the nodes that are chosen")
            expressions.append(target["expr"])
    return expressions


def plain(expr):
    """PromQL of what the dashboard asks, for some values of its variables."""
    return expr.replace("$__rate_interval", "1m").replace("$job", ".*").replace("$instance", ".*")


def syntax(expressions):
    promtool = shutil.which("promtool")
    if not promtool:
        print("promtool is not there: the syntax of the dashboard's expressions was not looked at (Debian: apt-get install prometheus)")
        return
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        rules = [{"record": f"strait:{index}", "expr": plain(expr)} for index, expr in enumerate(expressions)]
        yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}, file)
        file.flush()
        run = subprocess.run([promtool, "check", "rules", file.name], capture_output=True, text=True, check=False)
        expect(run.returncode == 0, f"dashboard: {run.stdout}{run.stderr}")


# What runs the node.


def bytes_of(size):
    number, unit = re.fullmatch(r"(\d+)([KMGT]?)i?", size).groups()
    return int(number) << {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}[unit]


def seconds_of(time):
    return int(re.fullmatch(r"(\d+)s?", time)[1])


def setting(toml, name):
    found = re.search(rf'^(?:#: )?{name} = (.*)$', toml, re.M)
    expect(found, f"no {name} in the configuration")
    return found[1].strip('"') if found else "0"


def manifests(schemas):
    schemas = json.loads(schemas.read_text(encoding="utf-8"))
    objects = {}
    for path in sorted((HERE / "kubernetes").glob("*.yaml")):
        for manifest in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            kind = manifest.get("kind")
            expect(kind in schemas["kinds"], f"{path.name}: no schema of the kind {kind}")
            if kind in schemas["kinds"]:
                schema = {"$ref": "#/$defs/" + schemas["kinds"][kind], "$defs": schemas["$defs"]}
                for error in jsonschema.Draft202012Validator(schema).iter_errors(manifest):
                    wrong.append(f"{path.name}: {'.'.join(map(str, error.absolute_path))}: {error.message}")
                objects[kind] = manifest
    return objects


def kubernetes(objects):
    """What no schema knows: that numbers and names fit each other."""
    toml = objects["ConfigMap"]["data"]["strait.toml"]
    spec = objects["StatefulSet"]["spec"]
    pod, meta = spec["template"]["spec"], spec["template"]["metadata"]
    container = pod["containers"][0]
    memory = bytes_of(container["resources"]["limits"]["memory"])
    expect(memory == bytes_of(container["resources"]["requests"]["memory"]), "statefulset.yaml: memory is not asked for in full")
    expect(memory >= 2 * bytes_of(setting(toml, "memory_bytes")), "statefulset.yaml: the memory limit is not twice memory_bytes of config.yaml")
    expect(pod["terminationGracePeriodSeconds"] > seconds_of(setting(toml, "drain_deadline")) + 5, "statefulset.yaml: no time to drain")
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    admin = setting(toml, "admin")
    expect(admin == f"0.0.0.0:{ports['admin']}", f"the admin port of config.yaml is {admin}, that of statefulset.yaml {ports['admin']}")
    expect(meta["annotations"]["prometheus.io/port"] == str(ports["admin"]), "statefulset.yaml: prometheus.io/port is another port")
    expect(f":{ports['quic']}" in setting(toml, "listen") and ports["quic"] == ports["tcp"], "the ports of config.yaml and statefulset.yaml differ")
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        asked = container[probe]["httpGet"]
        expect(asked["port"] in ports, f"statefulset.yaml: {probe} asks at a port that has no name")
        expect(asked["path"] == ("/readyz" if probe == "readinessProbe" else "/healthz"), f"statefulset.yaml: {probe} asks for {asked['path']}")
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    volumes = [volume["name"] for volume in pod["volumes"]] + [claim["metadata"]["name"] for claim in spec["volumeClaimTemplates"]]
    expect(sorted(mounts) == sorted(volumes), f"statefulset.yaml: volumes {volumes}, mounts {sorted(mounts)}")
    expect(setting(toml, "key").startswith(mounts["state"] + "/"), "config.yaml: the key is not on the volume")
    expect(spec["serviceName"] == objects["Service"]["metadata"]["name"], "statefulset.yaml: no such Service")
    labels = meta["labels"]
    selectors = [spec["selector"]["matchLabels"], objects["Service"]["spec"]["selector"]]
    selectors += [objects["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"], objects["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"]]
    expect(all(chosen == labels for chosen in selectors), "kubernetes: selectors and the labels of pods differ")
    for port in objects["Service"]["spec"]["ports"]:
        expect(ports.get(port["name"]) == port["port"], f"service.yaml: the port {port['name']} is another one")
    return toml, container["args"], pod["securityContext"]["runAsUser"]


def containerfile(user):
    """hadolint knows the craft; this knows what the other files count on."""
    lines = [line.split(maxsplit=1) for line in text("container/Containerfile").splitlines() if re.match(r"[A-Z]+ ", line)]
    final = lines[max(index for index, line in enumerate(lines) if line[0] == "FROM") :]
    said = dict(final)
    expect(said.get("USER") == f"{user}:{user}", "Containerfile: the user is not that of statefulset.yaml")
    expect(said.get("STOPSIGNAL") == "SIGTERM", "Containerfile: SIGTERM is what drains")
    expect(set(said.get("EXPOSE", "").split()) == {"4001/udp", "4001/tcp"}, "Containerfile: EXPOSE is not 4001 for UDP and TCP")
    expect(json.loads(said.get("ENTRYPOINT", "[]"))[1:] == ["node"], "Containerfile: the entry point is not strait node, as a list")
    releases = {re.split(r"[:-]", line[1].split(" ")[0].removesuffix("-slim"))[-1] for line in lines if line[0] == "FROM"}
    expect(len(releases) == 1, f"Containerfile: built and run by different Debian releases: {sorted(releases)}")


def unit():
    said = dict(re.findall(r"^(\w+)=(.*)$", text("systemd/strait.service"), re.M))
    reference = text("strait.toml")
    expect(bytes_of(said["MemoryMax"]) >= 2 * bytes_of(setting(reference, "memory_bytes")), "strait.service: MemoryMax is not twice memory_bytes")
    longest = max(seconds_of(setting(reference, "drain_deadline")), int(re.search(r"shuf -i 0-(\d+)", said["ExecStopPost"])[1]))
    expect(seconds_of(said["TimeoutStopSec"]) >= longest + 5, "strait.service: TimeoutStopSec is not above the drain and the delay")


def command(strait, toml, args):
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(toml)
        file.flush()
        args = [arg.replace("/etc/strait/strait.toml", file.name).replace("$(HOST_IP)", "10.1.2.3") for arg in args]
        run = subprocess.run([strait, "node", "--check", *args], capture_output=True, text=True, check=False, timeout=30)
        expect(run.returncode == 0, f"strait does not accept what the manifests say: {run.stderr}")


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--strait", help="the strait command")
    options.add_argument("--schemas", type=Path, default=HERE / "kubernetes/schemas/v1.30.json", help="made by kubernetes/schemas/prune.py")
    options = options.parse_args()
    rules = alerts()
    expressions = dashboard()
    syntax(expressions)
    objects = manifests(options.schemas)
    # What does not even have the right shape is told first.
    if not wrong:
        toml, args, user = kubernetes(objects)
        containerfile(user)
        unit()
        if options.strait:
            command(options.strait, toml, args)
    for what in wrong:
        print(f"wrong: {what}", file=sys.stderr)
    if wrong:
        sys.exit(1)
    print(f"{rules} alerts, {len(expressions)} expressions of the dashboard and {len(objects)} manifests fit" + ("" if options.strait else "; no strait command was asked"))


if __name__ == "__main__":
    main()
