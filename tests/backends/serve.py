#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Runs one store on free ports of loopback until it is told to end (SIGTERM, ^C):

  serve.py STORE INTERVAL HOST FOLDER

Writes collectd's part of the configuration to FOLDER/store.conf and then, when
the store answers, its address and that of a page about HOST to FOLDER/store."""

import json
import os
import shutil
import signal
import sys
import urllib.parse
import urllib.request

from stores import ENCODING, ROOT, Graphite, InfluxDB, Prometheus, wait_for

ENDING = signal.SIGTERM, signal.SIGINT
STORES = {store.NAME: store for store in (Graphite, InfluxDB, Prometheus)}
TIME = "total_time_in_ms"
TOP = f'topk(10, sum by (comm) (rate(collectd_reclaim_{TIME}_total{{comm!=""}}[10s])))'
LATEST = ("SELECT non_negative_derivative(value, 1s) FROM reclaim_value WHERE "
          f"type = '{TIME}' AND instance != '' AND time > now() - 10s GROUP BY instance")


def load_graphite_web(store, host, minutes):
    """Saves the dashboards of conf/dashboards, which show the last `minutes`."""
    for which, name in ("fleet", "reclaim-fleet"), ("host", f"reclaim-{host}"):
        with open(f"{ROOT}/conf/dashboards/graphite-web-{which}.json", **ENCODING) as file:
            state = json.loads(file.read().replace("HOST", host))
        state["defaultGraphParams"]["from"] = f"-{minutes}minutes"
        state["timeConfig"].update(relativeStartQuantity=str(minutes),
                                   relativeStartUnits="minutes")
        form = urllib.parse.urlencode({"state": json.dumps(state)}).encode()
        with urllib.request.urlopen(store.url(f"/dashboard/save/{name}"), form) as answer:
            answer.read()


def page(store, host):
    """The address of a page that shows the host."""
    if store.NAME == "graphite":
        return store.url(f"/dashboard/reclaim-{host}")
    if store.NAME == "prometheus":
        return store.url("/graph", **{"g0.expr": TOP, "g0.tab": "0", "g0.range_input": "5m"})
    return store.url("/query", db="collectd", pretty="true", q=LATEST)


def handle_signals(handler):
    """What those that end this do from now on."""
    for number in ENDING:
        signal.signal(number, handler)


def end(*_):
    """Ends it; no second signal interrupts that."""
    handle_signals(signal.SIG_IGN)
    sys.exit()


def serve(store, host, folder):
    """Says where the store is that was started, and waits."""
    if store.NAME == "graphite":
        load_graphite_web(store, host, 5)
    if store.NAME == "prometheus":
        # some seconds later it has a target, and fetches
        wait_for(lambda: json.loads(store.ask("/api/v1/targets"))["data"][
            "activeTargets"], "Prometheus to begin")
    with open(f"{folder}/store.new", "w", **ENCODING) as file:
        file.write(f"{store.url('')}\n{page(store, host)}\n")
    os.rename(f"{folder}/store.new", f"{folder}/store")
    signal.pause()


def main():
    """Serves."""
    name, interval, host, folder = sys.argv[1:]
    missing = STORES[name].missing()
    if missing:
        sys.exit(f"{name} needs packages that are not there: {' '.join(missing)}")
    os.setpgrp()    # all that the store starts is in this group
    handle_signals(end)
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    store = STORES[name](int(interval))     # has a folder from now on
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
        with open(f"{folder}/store.conf", "w", **ENCODING) as file:
            file.write(store.collectd_conf())
        with store:
            serve(store, host, folder)
    finally:
        # where the start was interrupted, there may be more than `store` knows of
        handle_signals(signal.SIG_IGN)
        os.killpg(0, signal.SIGTERM)
        shutil.rmtree(store.folder, ignore_errors=True)


if __name__ == "__main__":
    main()
