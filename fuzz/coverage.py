#!/usr/bin/env python3
"""Reads what `llvm-cov export` prints and prints how many regions of each of our files that decodes were run.

A region is a stretch of code without a branch in it, as the compiler marks it. One that is in several copies of a generic function counts once, and
as run if any copy was. Functions of tests count nothing, and files that only check decoders are left out.

Usage: coverage.py EXPORT.json ROOT GOAL FILE...
"""

import json
import sys
from pathlib import Path

CODE = 0  # The kind of a region that is code, as opposed to a gap or an expansion of a macro.


def regions(export, root):
    """For each file, each region and how often it was run."""
    found = {}
    for part in export["data"]:
        for function in part["functions"]:
            # Names are mangled: a module `tests` is written with its length before it.
            if "5tests" in function["name"]:
                continue
            names = [Path(name) for name in function["filenames"]]
            for *place, count, file, _, kind in function["regions"]:
                if kind == CODE and names[file].is_relative_to(root):
                    of_file = found.setdefault(str(names[file].relative_to(root)), {})
                    of_file[tuple(place)] = max(of_file.get(tuple(place), 0), count)
    return found


def main():
    export, root, goal, files = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]), sys.argv[4:]
    found = regions(json.loads(Path(export).read_text()), root)
    all_run = all_there = 0
    for file in files:
        counts = found.get(file)
        if not counts:
            sys.exit(f"{file}: nothing is known of it; was it moved?")
        run = sum(count > 0 for count in counts.values())
        all_run, all_there = all_run + run, all_there + len(counts)
        missed = sorted({place[0] for place, count in counts.items() if count == 0})
        lines = f"  not run: line {', '.join(map(str, missed))}" if missed else ""
        print(f"{file:36} {run:4} of {len(counts):4} regions {100 * run / len(counts):6.1f} %{lines}")
    percent = 100 * all_run / all_there
    print(f"{'all decoders':36} {all_run:4} of {all_there:4} regions {percent:6.1f} %")
    if percent < goal:
        sys.exit(f"below the goal of {goal:g} %")


main()
