# SPDX-License-Identifier: MIT
"""Runs the queries of a generated Grafana dashboard as Grafana does: variables
and macros filled in, a panel's lines as {name: [(time in s, value)]}."""

import json
import re
import urllib.error
import urllib.parse
import urllib.request


def load(path):
    """A dashboard."""
    with open(path, encoding="ascii") as file:
        return json.load(file)


def store_of(dashboard):
    """The kind of store that it asks."""
    return next(variable["query"] for variable in dashboard["templating"]["list"]
                if variable["type"] == "datasource")


def fetch(url, path, **query):
    """What a GET answers, from JSON."""
    address = f"{url.rstrip('/')}{path}?{urllib.parse.urlencode(query, doseq=True)}"
    try:
        with urllib.request.urlopen(address, timeout=60) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise RuntimeError(f"{path}: {error}: {error.read().decode()}") from error


class Asker:
    """Asks the store at `url` about the time from `start` to `end` (s since the
    epoch). `points` is how many a line has at most, `values` are those of variables:
    a string, or a list of several; None is all."""

    STEPS = (1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600, 86400)

    def __init__(self, dashboard, url, start, end, points=250, **values):
        self.store, self.url = store_of(dashboard), url
        self.start, self.end, self.points = start, end, points
        self.variables = {one["name"]: one for one in dashboard["templating"]["list"]}
        self.values = {name: values.get(name, variable["current"].get("value", ""))
                       for name, variable in self.variables.items()}

    def step(self, panel):
        """The width of a point in s, as Grafana chooses it: a query's interval is
        stronger than the panel's."""
        least = min(seconds(target.get("interval") or panel["interval"])
                    for target in panel["targets"])
        wanted = (self.end - self.start) / self.points
        return max(least, next((step for step in self.STEPS if step >= wanted), self.STEPS[-1]))

    def macros(self, step, scrape):
        """What Grafana itself defines; `scrape` is the data source's interval, of
        Prometheus."""
        start, end = int(self.start * 1000), int(self.end * 1000)
        return {
            "timeFilter": f"time >= {start}ms and time <= {end}ms",
            "__interval": f"{step}s", "__interval_ms": str(step * 1000),
            "__rate_interval": f"{max(step + scrape, 4 * scrape):g}s",
            "__range": f"{round(self.end - self.start)}s"}

    def value(self, name, form, macros):
        """The text that a variable or macro stands for."""
        if name in macros:
            return macros[name]
        value, variable = self.values[name], self.variables[name]
        if value in (None, ["$__all"]):
            return variable["allValue"]
        texts = value if isinstance(value, list) else [value]
        if form == "regex":
            texts = [re.sub(r"[\\^$*+?.()|[\]{}/]", r"\\\g<0>", text) for text in texts]
        elif self.store == "prometheus" and variable["multi"]:
            texts = [re.sub(r"[\\^$*+?.()|[\]{}]", r"\\\\\g<0>", text) for text in texts]
        if len(texts) == 1:
            return texts[0]
        if self.store == "graphite" and not form:
            return "{" + ",".join(texts) + "}"
        return "(" + "|".join(texts) + ")"

    def expand(self, text, step=1, scrape=1):
        """A query with all variables and macros filled in; KeyError: one unknown."""
        macros = self.macros(step, scrape)
        return re.sub(r"\$(?:\{(\w+)(?::(\w+))?\}|(\w+))",
                      lambda match: self.value(match[1] or match[3], match[2], macros), text)

    def lines(self, panel):
        """A panel's lines, {name: [(time, value)]}; those without a value are none."""
        step, found = self.step(panel), {}
        # it fetches twice in collectd's interval, of which a panel's is two
        scrape = seconds(panel["interval"]) / 4
        for target in panel["targets"]:
            for name, points in getattr(self, self.store)(target, step, scrape):
                points = [(when, value) for when, value in points if value is not None]
                if points:
                    found[name] = points
        if panel["type"] == "heatmap" and self.store == "prometheus":
            found = uncumulated(found)
        return rows(panel, found) if panel["type"] == "table" else found

    def prometheus(self, target, step, scrape):
        """Lines of one target."""
        answer = fetch(self.url, "/api/v1/query_range",
                       query=self.expand(target["expr"], step, scrape),
                       start=self.start, end=self.end, step=step)
        for series in answer["data"]["result"]:
            name = re.sub(r"\{\{(\w+)\}\}", lambda match, series=series:
                          series["metric"].get(match[1], ""), target["legendFormat"])
            yield name, [(when, float(value)) for when, value in series["values"]]

    def influxdb(self, target, step, _scrape):
        """Lines of one target."""
        answer = fetch(self.url, "/query", db="collectd", epoch="ms",
                       q=self.expand(target["query"], step))["results"][0]
        if "error" in answer:
            raise RuntimeError(f"{target['query']}: {answer['error']}")
        for series in answer.get("series", []):
            for number, column in enumerate(series["columns"][1:], 1):
                alias = target["alias"].replace("$col", column)
                name = re.sub(r"\$tag_(\w+)", lambda match, series=series:
                              series["tags"][match[1]], alias)
                yield name, [(row[0] / 1000, row[number]) for row in series["values"]]

    def graphite(self, target, step, _scrape):
        """Lines of one target."""
        answer = fetch(self.url, "/render", target=self.expand(target["target"], step),
                       format="json", maxDataPoints=self.points, noCache=1,
                       **{"from": int(self.start), "until": int(self.end)})
        for series in answer:
            yield series["target"], [(when, value) for value, when in series["datapoints"]]

    def choices(self, name):
        """The values that a variable offers."""
        variable = self.variables[name]
        query = variable["query"]
        text = self.expand(query if isinstance(query, str) else query["query"])
        answers = getattr(self, f"{self.store}_choices")(text)
        pattern = variable["regex"].strip("/")
        matches = [re.search(pattern, answer) for answer in answers]
        return sorted({match[match.re.groups and 1] if pattern else answer
                       for match, answer in zip(matches, answers) if match})

    def prometheus_choices(self, text):
        """What label_values(SERIES, LABEL) answers."""
        series, label = re.fullmatch(r"label_values\((.*), (\w+)\)", text).groups()
        found = fetch(self.url, "/api/v1/series",
                      **{"match[]": series, "start": self.start, "end": self.end})
        return [one[label] for one in found["data"]]

    def influxdb_choices(self, text):
        """What SHOW TAG VALUES answers."""
        found = fetch(self.url, "/query", db="collectd", q=text)["results"][0]
        return [row[1] for series in found.get("series", []) for row in series["values"]]

    def graphite_choices(self, text):
        """What expand(PATH) answers."""
        path = re.fullmatch(r"expand\((.*)\)", text)[1]
        return fetch(self.url, "/metrics/expand", query=path)["results"]


def uncumulated(buckets):
    """Buckets of a histogram, each less the one below it, in order."""
    made, below = {}, {}
    for bound in sorted(buckets, key=float):
        here = dict(buckets[bound])
        made[bound] = [(when, value - below.get(when, 0)) for when, value in here.items()]
        below = here
    return made


def total(points):
    """The sum of a line's values."""
    return sum(value for _, value in points)


def mean(points):
    """The mean of a line's values."""
    return total(points) / len(points)


def seconds(text):
    """Seconds of an interval such as 20s, 500ms."""
    return int(text[:-2]) / 1000 if text.endswith("ms") else int(text.removesuffix("s"))


def rows(panel, lines):
    """A table's rows, {names (host and program, or one of them): line}: what the
    panel's transformations make of lines, that with the largest mean first."""
    most = next((one["options"]["limitField"] for one in panel["transformations"]
                 if one["id"] == "limit"), None)
    ranked = sorted(lines.items(), key=lambda item: -mean(item[1]))
    return {tuple(name.split(" ")): points for name, points in ranked[:most]}
