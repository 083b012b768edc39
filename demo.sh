#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Shows the plugin at work: installs what is needed, builds, runs collectd while
# programs stall in a small memory cgroup, and prints who stalled.
#
#   ./demo.sh [--seconds N] [--with graphite|influxdb|prometheus]
#
# --with: installs and runs that store too, on loopback, and draws a dashboard.
set -u
cd "$(dirname "$0")" || exit
. conf/packaging/dependencies.sh

usage() {
  echo "usage: $0 [--seconds N] [--with graphite|influxdb|prometheus]"
  echo "       (N: seconds of data, 4 to 3600, with a store 12 to 3600; default 30)"
}

seconds=30 with=''
while [ $# -gt 0 ]; do
  case $1 in
  --seconds) seconds=${2:-} && shift ;;
  --with) with=${2:-none} && shift ;;
  --help) usage && exit ;;
  *) usage >&2 && exit 2 ;;
  esac
  shift
done
# a picture needs more points: those of some stores are of two reads
least=${with:+12}
[[ $seconds =~ ^[0-9]{1,4}$ ]] && ((seconds >= ${least:-4} && seconds <= 3600)) ||
  { usage >&2 && exit 2; }
[[ $with =~ ^(|graphite|influxdb|prometheus)$ ]] || { usage >&2 && exit 2; }

dir='' collectd='' store='' cgroup='' loads=() read=''

cleanup() {
  trap - EXIT
  trap '' INT TERM # no second one ends this half-way
  for pid in "${loads[@]}" $collectd; do kill "$pid" 2>/dev/null; done
  if [ -n "$cgroup" ]; then
    # what the loads had started is in the cgroup still
    for _ in {1..50}; do
      xargs -r kill -KILL <"$cgroup/cgroup.procs" 2>/dev/null
      rmdir "$cgroup" 2>/dev/null && break
      sleep 0.1
    done
  fi
  [ -z "$collectd" ] || wait "$collectd" 2>/dev/null
  # not before collectd, which would complain
  [ -z "$store" ] || { kill "$store" && wait "$store"; } 2>/dev/null
  [ -n "$dir" ] || return
  rm -r "$dir/run"
  rmdir "$dir" 2>/dev/null && return
  if [ -e "$dir/host.png" ]; then
    echo "The picture, the CSV files and collectd's log are in $dir"
  else
    echo "The CSV files and collectd's log are in $dir"
  fi
}

make_cgroup() {
  local limit
  if [ -e /sys/fs/cgroup/memory/memory.limit_in_bytes ]; then
    cgroup=/sys/fs/cgroup/memory/reclaim-demo-$$ limit=memory.limit_in_bytes
  elif [ -e /sys/fs/cgroup/cgroup.controllers ]; then
    echo +memory >/sys/fs/cgroup/cgroup.subtree_control ||
      die "cannot enable the memory controller in /sys/fs/cgroup"
    cgroup=/sys/fs/cgroup/reclaim-demo-$$ limit=memory.max
  else
    die "no memory cgroup hierarchy below /sys/fs/cgroup"
  fi
  mkdir "$cgroup" || { cgroup='' && die "cannot make a memory cgroup"; }
  echo $((64 << 20)) >"$cgroup/$limit" || die "cannot limit $cgroup"
}

# start_load PROGRAM...: again and again in the cgroup
start_load() {
  (
    echo "$BASHPID" >"$cgroup/cgroup.procs"
    while :; do "$@" <"$dir/run/load-file" >/dev/null 2>&1; done
  ) &
  loads+=($!)
  disown # or bash would tell how it ended
}

# wait_for PID LOG MESSAGE CONDITION...: a minute at most, and while the process lives
wait_for() {
  local pid=$1 log=$2 message=$3
  shift 3
  for _ in {1..600}; do
    "$@" && return
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.1
  done
  cat "$log" >&2
  die "$message; see above"
}

start_store() {
  : >"$dir/run/store.conf"
  [ -n "$with" ] || return
  python3 -B tests/backends/serve.py "$with" 2 demo "$dir/run" \
    >"$dir/run/store.log" 2>&1 &
  store=$!
  wait_for "$store" "$dir/run/store.log" "$with did not start" test -e "$dir/run/store"
}

# What the store has, as a picture; and where to look on, for whoever is there.
show_store() {
  local address page
  { read -r address && read -r page; } <"$dir/run/store"
  mkdir "$dir/run/dashboards"
  python3 -B conf/dashboards/generate --interval 2 "$dir/run/dashboards" &&
    /usr/bin/python3 -B conf/dashboards/preview --url "$address" --host demo \
      --last "$((seconds + 6))s" "$dir/run/dashboards/$with-host.json" "$dir/host.png" ||
    die "cannot draw what $with has; see above"
  printf '\nThe dashboard of this host is %s\n' "$dir/host.png"
  [ -t 0 ] || return
  echo "Until the demo ends, look at $page"
  [ "$with" != influxdb ] || echo "(InfluxDB has no pages: this is JSON, the latest rates)"
  read -rp "Enter ends it. "
}

start_collectd() {
  local more=
  [ -z "$with" ] || more='ReportFruitless true\n  Histogram total'
  sed -e "s|@DIR@|$dir|; s|@PLUGINDIR@|$PWD/build/.libs|; s|@MORE@|$more|" \
    conf/demo.conf >"$dir/run/collectd.conf"
  PATH=$PATH:/usr/sbin collectd -f -C "$dir/run/collectd.conf" \
    >>"$dir/collectd.log" 2>&1 &
  collectd=$!
  wait_for "$collectd" "$dir/collectd.log" "collectd did not start" has_read_since ''
}

# newest SERIES: its file of the latest day
newest() { ls "$dir/csv/demo/$1"-????-??-?? 2>/dev/null | tail -n 1; }

# The time of the last read that was written whole: duration-read comes last.
last_read() {
  local file line
  file=$(newest reclaim/duration-read)
  [ -n "$file" ] && line=$(tail -n 1 "$file") && [[ $line == [0-9]*,* ]] &&
    echo "${line%%,*}"
}

# has_read_since TIME: and sets read
has_read_since() {
  read=$(last_read)
  [ "$read" != "$1" ]
}

# value SERIES: what it was at the read, 0 where it had no rate yet
value() {
  local value
  value=$(grep -s "^$read," "$(newest "$1")")
  value=${value##*,}
  case $value in '' | nan | *[!0-9.e+-]*) echo 0 ;; *) echo "$value" ;; esac
}

# print_row NAME INSTANCE TYPE_INSTANCE
print_row() {
  awk -v name="$1" -v stalls="$(value "$2/total_events-$3")" \
    -v ms="$(value "$2/total_time_in_ms-$3")" \
    -v pages="$(value "$2/vmpage_action-$3")" \
    -v longest="$(value "$2/latency-${3}_max")" -v kind="${3%_total}" \
    'BEGIN { printf "  %-16s %-6s %10.1f %14.1f %11.0f %9.2f ms\n",
                    name, kind, stalls, ms, pages, longest * 1000 }'
}

print_table() {
  printf '\n  %-16s %-6s %10s %14s %11s %12s\n' \
    "after $1 s" KIND STALLS/S "MS STALLED/S" PAGES/S LONGEST
  local kind instance name
  for kind in direct memcg; do
    for instance in "$dir"/csv/demo/reclaim-*/total_events-"$kind"-*; do
      [ -e "$instance" ] || continue
      instance=$(basename "$(dirname "$instance")")
      print_row "${instance#reclaim-}" "$instance" "$kind"
    done | sort -u -k4,4nr -k1,1
    print_row "(total)" reclaim "${kind}_total"
  done
}

need_root
trap cleanup EXIT
trap 'exit 130' INT TERM
echo "[1/4] packages"
install_packages "${with:-build}" || die "cannot install the packages; see above"
echo "[2/4] build"
build build || die "the build failed; see above"
echo "[3/4] collectd with the plugin"
dir=$(mktemp -d /var/tmp/reclaim-demo.XXXXXX) || die "cannot write to /var/tmp"
mkdir "$dir/run" # what is of no use afterwards
make_cgroup
start_store
start_collectd
echo "[4/4] dd, cat and md5sum read a file of 512 MiB in a memory cgroup of 64 MiB"
echo "      (a new name begins with 0; what it did till then is in its next rate)"
truncate -s 512M "$dir/run/load-file"
start_load dd bs=1M
start_load cat
start_load md5sum

for ((elapsed = 2; elapsed <= seconds; elapsed += 2)); do
  wait_for "$collectd" "$dir/collectd.log" "collectd reads no more" has_read_since "$read"
  print_table "$elapsed"
done

if ! cut -d, -f2 "$(newest reclaim/total_events-memcg_total)" | grep -q '[1-9]'; then
  cat "$dir/collectd.log" >&2
  die "no stall was seen in $seconds s: either the cgroup's limit did not hold, or the plugin is not attached; see above"
fi
[ -z "$with" ] || show_store
echo
