#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The dashboards as files: generated, whole, and alike for every store."""

import glob
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile

ROOT = os.path.abspath(f"{os.path.dirname(__file__)}/../..")
DASHBOARDS = f"{ROOT}/conf/dashboards"
sys.path[:0] = [f"{ROOT}/tests/collectd", DASHBOARDS]

# pylint: disable=wrong-import-position
import panels  # noqa: E402
from harness import Tap  # noqa: E402

STORES = ("graphite", "influxdb", "prometheus")
UNITS = ("s", "none", "percentunit", "suffix:ms/s", "suffix:stalls/s", "suffix:pages/s",
         "suffix:1/s")
# what Grafana defines in queries, in aliases of InfluxDB's lines, and in links
MACROS = {"timeFilter", "__interval", "__interval_ms", "__rate_interval", "__range",
          "tag_host", "tag_instance", "tag_type_instance", "col"}
# transformations and options that Grafana 10.0 has, of those that tables could use
TRANSFORMATIONS = {"reduce": {"mode", "reducers", "includeTimeField", "labelsToFields"},
                   "organize": {"excludeByName", "indexByName", "renameByName"},
                   "sortBy": {"fields", "sort"}, "limit": {"limitField"}}
LINK_MACROS = {"__url_time_range", "__series.name", "__value.raw"}


def variables_in(text):
    """The variables that a text names."""
    return {match[1] or match[2] for match in re.finditer(r"\$(?:\{([\w.]+)(?::\w+)?\}|(\w+))",
                                                          text)}


def strings_in(tree):
    """All strings of a JSON tree."""
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, (list, dict)):
        for part in tree.values() if isinstance(tree, dict) else tree:
            yield from strings_in(part)


def overlap(one, other):
    """Whether two places on the grid have a cell in common."""
    return (one["x"] < other["x"] + other["w"] and other["x"] < one["x"] + one["w"] and
            one["y"] < other["y"] + other["h"] and other["y"] < one["y"] + one["h"])


def misplaced(dashboard):
    """Panels outside of the grid, or on top of others."""
    places = [panel["gridPos"] for panel in dashboard["panels"]]
    return [place for place in places if place["x"] < 0 or place["x"] + place["w"] > 24] + [
        pair for pair in itertools.combinations(places, 2) if overlap(*pair)]


def repeated(values):
    """The values that occur more than once."""
    return sorted({value for value in values if values.count(value) > 1})


def foreign(dashboard):
    """Data sources other than the one that the variable chooses."""
    wanted = {"type": panels.store_of(dashboard), "uid": "${datasource}"}
    return [one["datasource"] for panel in dashboard["panels"]
            for one in [panel, *panel["targets"]] if one["datasource"] != wanted]


def undefined(dashboard):
    """Variables that are used but not defined: (panel, variable)."""
    own = {variable["name"] for variable in dashboard["templating"]["list"]}
    used = [(panel["title"], name) for panel in dashboard["panels"]
            for target in panel["targets"] for text in strings_in(target)
            for name in variables_in(text) - own - MACROS]
    return used + [(link, name) for link in links(dashboard)
                   for name in variables_in(link) - own - LINK_MACROS]


def links(dashboard):
    """All addresses that a dashboard leads to."""
    return [text for text in strings_in(dashboard) if text.startswith("/d/")]


def dead(dashboard, dashboards):
    """Links to what does not exist: a dashboard, or a variable of it."""
    known = {one["uid"]: {variable["name"] for variable in one["templating"]["list"]}
             for one in dashboards}
    found = []
    for link in links(dashboard):
        uid, *query = link.removeprefix("/d/").split("?")
        names = set(re.findall(r"var-(\w+)", query[0] if query else ""))
        if uid not in known or names - known[uid]:
            found.append(link)
    return found


def without_unit(dashboard):
    """Panels whose unit Grafana would not know."""
    return [panel["title"] for panel in dashboard["panels"]
            if panel["type"] != "heatmap" and
            panel["fieldConfig"]["defaults"]["unit"] not in UNITS]


def too_new(dashboard):
    """Transformations that Grafana 10.0 lacks, or an option of which it lacks."""
    return [one for panel in dashboard["panels"] for one in panel.get("transformations", [])
            if set(one["options"]) - TRANSFORMATIONS.get(one["id"], set())]


def too_fine(dashboard):
    """Panels with points shorter than two of collectd's intervals."""
    asker = panels.Asker(dashboard, "", 0, 60)
    return [panel["title"] for panel in dashboard["panels"] if asker.step(panel) < 20]


def idle(dashboard):
    """Variables that no query or link uses, nor another variable."""
    text = json.dumps([dashboard["panels"], dashboard["templating"]["list"]])
    return [variable["name"] for variable in dashboard["templating"]["list"]
            if variable["name"] not in variables_in(text)]


def look(dashboard):
    """What the dashboards of all stores have in common."""
    return [(panel["title"], panel["type"], panel["gridPos"], panel["description"],
             panel["fieldConfig"]["defaults"].get("unit")) for panel in dashboard["panels"]]


def read(folder):
    """The bytes of all JSON files of a folder."""
    files = {}
    for path in glob.glob(f"{folder}/*.json"):
        with open(path, "rb") as file:
            files[os.path.basename(path)] = file.read()
    return files


def main():
    """Checks all files."""
    tap = Tap()
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-B", f"{DASHBOARDS}/generate", folder], check=True)
        tap.equal(sorted(read(folder)), sorted(read(DASHBOARDS)), "there are all generated files")
        tap.ok(read(folder) == read(DASHBOARDS), "files are what conf/dashboards/generate writes")
    dashboards = {(store, which): panels.load(f"{DASHBOARDS}/{store}-{which}.json")
                  for store in STORES for which in ("fleet", "host")}
    every = list(dashboards.values())
    tap.equal(repeated([one["uid"] for one in every]), [], "no two have one uid")
    tap.equal(repeated([one["title"] for one in every]), [], "no two have one title")
    for (store, which), dashboard in dashboards.items():
        name = f"{store}, {which}"
        tap.ok("id" not in dashboard, f"{name}: Grafana gives the id")
        tap.equal(repeated([panel["id"] for panel in dashboard["panels"]]), [],
                  f"{name}: each panel has an id of its own")
        tap.equal([panel["title"] for panel in dashboard["panels"] if repeated(
            [target["refId"] for target in panel["targets"]]) or not panel["targets"]], [],
            f"{name}: each panel asks, each query has a name of its own")
        tap.equal(misplaced(dashboard), [], f"{name}: panels are beside each other")
        tap.equal(foreign(dashboard), [], f"{name}: the data source is a variable")
        tap.equal(too_new(dashboard), [], f"{name}: transformations are those of Grafana 10.0")
        tap.equal(too_fine(dashboard), [], f"{name}: no point lacks a host")
        tap.equal(idle(dashboard), [], f"{name}: variables are used")
        tap.equal(undefined(dashboard), [], f"{name}: variables are defined")
        tap.equal(dead(dashboard, every), [], f"{name}: links lead to dashboards that exist")
        tap.equal(without_unit(dashboard), [], f"{name}: units are Grafana's")
        tap.equal(look(dashboard), look(dashboards["graphite", which]),
                  f"{name}: looks like that of other stores")
    for which in "fleet", "host":
        state = panels.load(f"{DASHBOARDS}/graphite-web-{which}.json")
        targets = [target for graph in state["graphs"] for target in graph[1]["target"]]
        tap.ok(targets and "$" not in "".join(targets), f"graphite-web, {which}: nothing is open")
    tap.done()


if __name__ == "__main__":
    main()
