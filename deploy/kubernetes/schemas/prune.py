#!/usr/bin/env python3
"""Makes the schemas here from those of a whole Kubernetes version: prune.py _definitions.json > v1.30.json (README.md says where from).

What remains are the kinds that the manifests use and what these refer to, without prose; and names that are not known become errors.
"""
import json
import sys

PREFIX = "#/$defs/"
KINDS = {
    "ConfigMap": "io.k8s.api.core.v1.ConfigMap",
    "NetworkPolicy": "io.k8s.api.networking.v1.NetworkPolicy",
    "PodDisruptionBudget": "io.k8s.api.policy.v1.PodDisruptionBudget",
    "Service": "io.k8s.api.core.v1.Service",
    "StatefulSet": "io.k8s.api.apps.v1.StatefulSet",
}


def pruned(schema):
    out = {}
    for key, value in schema.items():
        if key == "description" or key.startswith("x-"):
            continue
        if key == "type" and isinstance(value, list):
            # Null stands for "not there" on the wire; in a file it is a mistake.
            value = next(kind for kind in value if kind != "null")
        elif key == "properties":
            # What a cluster says of an object is nothing that a file says.
            value = {name: pruned(inner) for name, inner in value.items() if name not in ("status", "managedFields")}
        elif isinstance(value, dict):
            value = pruned(value)
        elif key in ("oneOf", "anyOf", "allOf"):
            value = [pruned(inner) for inner in value]
        out[key] = value
    if "properties" in out:
        out.setdefault("additionalProperties", False)
    return out


def references(schema):
    if isinstance(schema, dict):
        if "$ref" in schema:
            yield schema["$ref"].removeprefix(PREFIX)
        for value in schema.values():
            yield from references(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from references(value)


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        every = json.load(file)["$defs"]
    kept, open_ = {}, list(KINDS.values())
    while open_:
        name = open_.pop()
        if name not in kept:
            kept[name] = pruned(every[name])
            open_.extend(references(kept[name]))
    for name in KINDS.values():
        kept[name]["required"] = sorted({*kept[name].get("required", []), "apiVersion", "kind", "metadata"})
    lines = [f" {json.dumps(name)}: {json.dumps(kept[name], sort_keys=True)}" for name in sorted(kept)]
    print('{"kinds": ' + json.dumps(KINDS) + ',\n"$defs": {\n' + ",\n".join(lines) + "\n}}")


main()
