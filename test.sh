#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Installs what is needed, builds, and runs every test. The last line counts.
#
#   ./test.sh [--long]    (--long: also what repeats or takes long)
set -u
cd "$(dirname "$0")" || exit
. conf/packaging/dependencies.sh

long=no
case ${1-} in
'') ;;
--long) long=yes ;;
*) echo "usage: $0 [--long]" >&2 && exit 2 ;;
esac

passed=0 failed=0 skipped=0

section() { printf '\n== %s (after %s s)\n' "$1" "$SECONDS"; }

# one NAME COMMAND...: a test that passes when the command does
one() {
  local name=$1
  shift
  if "$@" >"$logs/one.log" 2>&1; then
    passed=$((passed + 1)) && echo "PASS: $name"
  else
    failed=$((failed + 1)) && echo "FAIL: $name" && tail -n 40 "$logs/one.log"
  fi
}

# automake DIR MAKE_ARGUMENT...: make check, its tests counted one by one
automake() {
  local log=$logs/check.log counted
  echo "make -C $*"
  make -C "$@" check >"$log" 2>&1
  counted=$(grep -cE '^# (PASS|FAIL|ERROR|SKIP): +[0-9]' "$log")
  if [ "$counted" != 4 ]; then
    failed=$((failed + 1)) && echo "FAIL: make check did not come to its end"
    tail -n 40 "$log"
    return
  fi
  sum() { awk -v what="# $1:" 'index($0, what) == 1 { print $NF }' "$log"; }
  passed=$((passed + $(sum PASS)))
  failed=$((failed + $(sum FAIL) + $(sum ERROR)))
  skipped=$((skipped + $(sum SKIP)))
  echo "$(sum PASS) passed, $(sum SKIP) skipped"
  find "$1/tests" -name '*.log' -exec grep -h '^# |' {} +
  if [ "$(sum FAIL)" != 0 ] || [ "$(sum ERROR)" != 0 ]; then
    cat "$1/test-suite.log"
  fi
}

# count_tap NAME STATUS LOG: what a program that prints TAP came to, its tests counted
# one by one; of a failed one all that it says
count_tap() {
  local name=$1 status=$2 log=$3
  local ok not_ok skip
  ok=$(grep -cE '^ok ' "$log")
  not_ok=$(grep -cE '^not ok ' "$log")
  skip=$(grep -ciE '^ok .*# skip|^1\.\.0 # skip' "$log")
  if ! grep -qE '^1\.\.[0-9]+' "$log" || { [ $status != 0 ] && [ "$not_ok" = 0 ]; }; then
    not_ok=$((not_ok + 1)) && echo "FAIL: $name did not come to its end"
    tail -n 40 "$log"
  fi
  passed=$((passed + ok - $(grep -ciE '^ok .*# skip' "$log")))
  failed=$((failed + not_ok))
  skipped=$((skipped + skip))
  awk '/^(ok |1\.\.)/ { failed = 0 } /^not ok / { failed = 1 }
    failed || /^1\.\.0 |^# \||^# .*booted again/' "$log"
}

# tap COMMAND...: a program that prints TAP
tap() {
  "$@" >"$logs/tap.log" 2>&1
  count_tap "$1" $? "$logs/tap.log"
}

# taps COMMAND_LINE...: such programs, all at the same time
taps() {
  local pids=() i=0 line
  for line; do
    $line >"$logs/tap.$i.log" 2>&1 &
    pids[i++]=$!
  done
  i=0
  for line; do
    wait "${pids[i]}"
    count_tap "${line%% *}" $? "$logs/tap.$i.log"
    i=$((i + 1))
  done
}

is_formatted() {
  find bpf plugin tests -name '*.[ch]' -exec clang-format --dry-run -Werror {} +
}

# What there is to install: the plugin, the tool, their pages, and README with what it
# refers to beside it.
installs_where_told() {
  local to docs=share/doc/collectd-reclaim
  to=$(mktemp -d) && make -s -C build-werror install DESTDIR="$to" &&
    diff <(LC_ALL=C sort <<<"$(
      printf '%s\n' lib/collectd/reclaim.{la,so} sbin/reclaimsnoop \
        share/man/man5/collectd-reclaim.5 share/man/man8/reclaimsnoop.8
      printf "$docs/%s\n" CHANGELOG.md LICENSE README.md tests/bench/costs.svg \
        tests/faults/FAULTS.md tests/vm/COMPARISON.md \
        $(find conf/reclaim.conf conf/{alerts,backends,dashboards,systemd} -type f ! -name '*.pyc')
    )") <(cd "$to/usr/local" && find . -type f -printf '%P\n' | LC_ALL=C sort) &&
    grep -oP '\]\(\K[^)#:]+(?=\))' README.md >"$to/links" &&
    (cd "$to/usr/local/$docs" && xargs ls -d <"$to/links") && rm -r "$to"
}

# A source archive holds all that a clone does, and nothing that was built but what
# a clone has not and README promises: configure and its kin, the BPF object, and RPM's
# spec.
archive_is_whole() {
  make -s -C build-werror dist &&
    diff <(git ls-files | grep -vE '^\.(ci/|clang-format$|gitignore$)' | LC_ALL=C sort) \
      <(tar tf build-werror/collectd-reclaim-*.tar.gz | sed 's|^[^/]*/||' |
        grep -vE '/$|^$|^(aclocal.m4|configure|Makefile.in|reclaim_config.h.in)$' |
        grep -vE '^(build-aux/|(bpf/prebuilt/reclaim.skel.h|conf/packaging/collectd-reclaim.spec)$)' |
        LC_ALL=C sort)
}

# configure must name the package that is missing, not merely fail.
configure_names() {
  local folder wanted=$1
  shift
  folder=$(mktemp -d)
  (cd "$folder" && "$OLDPWD/configure" "$@" >out 2>&1)
  if [ $? = 0 ] || ! grep -q "$wanted" "$folder/out"; then
    cat "$folder/out"
    return 1
  fi
  rm -r "$folder"
}

configure_without_headers() {
  unshare -m sh -c 'mount -t tmpfs none /usr/include/collectd && "$@"' sh \
    bash -c "$(declare -f configure_names); configure_names collectd-dev"
}

demo_shows_stalls() {
  local out
  out=$(./demo.sh --seconds 6) || { echo "$out" && return 1; }
  echo "$out"
  grep -qE '^  (dd|cat|md5sum) +memcg +[1-9]' <<<"$out" &&
    ! ls -d /sys/fs/cgroup/reclaim-demo-* /sys/fs/cgroup/memory/reclaim-demo-* 2>/dev/null &&
    [ -e "${out##* }/csv/demo/reclaim-dd" ] && rm -r "${out##* }"
}

# demo_draws STORE: and no process of it is there afterwards
demo_draws() {
  local out
  out=$(DEMO_TEST=$$ ./demo.sh --seconds 12 --with "$1" </dev/null) ||
    { echo "$out" && return 1; }
  echo "$out"
  ! grep -q 'http://' <<<"$out" &&
    [ -z "$(grep -lsz "^DEMO_TEST=$$\$" /proc/[0-9]*/environ)" ] &&
    [ "$(cd "${out##* }" && echo *)" = "collectd.log csv host.png" ] &&
    rm -r "${out##* }"
}

demo_refuses() {
  ./demo.sh "$@"
  [ $? = 2 ]
}

# demo_ended_early STORE: as process 1, what it leaves is seen
demo_ended_early() {
  local demo
  mount -t tmpfs none /var/tmp || return
  ./demo.sh --with "$1" &
  demo=$!
  until compgen -G "/var/tmp/reclaim-$1-*/data"; do
    kill -0 "$demo" && sleep 0.01 || return
  done
  kill "$demo"
  wait "$demo"
  [ $? = 130 ] && set -- /proc/[0-9]* $(ls -A /var/tmp) && echo "left: $*" &&
    [ "$*" = /proc/1 ]
}

demo_leaves_nothing() {
  unshare -m -p -f --mount-proc \
    bash -c "$(declare -f demo_ended_early); demo_ended_early $1"
}

need_root
section packages
install_packages test || die "cannot install the packages; see above"

section "build, with warnings as errors"
build build-werror --enable-werror || die "the build failed; see above"
logs=$(mktemp -d /tmp/reclaim-test.XXXXXX)

section "all layers"
automake build-werror

section "unit layer, under AddressSanitizer and UndefinedBehaviorSanitizer"
build build-sanitized --enable-werror --enable-sanitizers ||
  die "the build failed; see above"
automake build-sanitized TESTS='$(UNIT_TESTS)'

section "fuzzing"
tap tests/fuzz/run --build build-werror

threads='tests/collectd/test_events.py tests/collectd/test_truth.py'
section "collectd, under AddressSanitizer and UndefinedBehaviorSanitizer"
automake build-sanitized TESTS="$threads tests/collectd/test_cgroups.py"

section "collectd, under ThreadSanitizer"
build build-thread --enable-werror --enable-sanitizers=thread ||
  die "the build failed; see above"
automake build-thread TESTS="$threads"

section "tree and packaging"
# Each version of clang-format has its own idea of some lines.
if clang-format --version | grep -q 'version 14\.'; then
  one "sources are formatted" is_formatted
else
  skipped=$((skipped + 1)) && echo "SKIP: sources are formatted: needs clang-format 14"
fi
tap env RECLAIM_BUILD=build-werror tests/analysis/run
one "make install puts the plugin where it is told" installs_where_told
one "configure names libbpf-dev when it is missing" \
  configure_names libbpf-dev PKG_CONFIG_LIBDIR=/nonexistent
one "configure names clang when it is missing" \
  configure_names "package clang" ac_cv_path_CLANG=
one "configure names bpftool when it is missing" \
  configure_names "package bpftool" ac_cv_path_BPFTOOL=
one "configure names collectd-dev when it is missing" \
  configure_without_headers
one "configure says when collectd's source is none" \
  configure_names "must be the source of collectd" --with-collectd-src=/nonexistent
one "configure says where compiled BPF objects are" \
  configure_names "only a source archive made by .make dist" --with-prebuilt-bpf
one "demo.sh shows stalls, cleans up, and leaves its CSV files" \
  demo_shows_stalls
one "demo.sh --with graphite draws a dashboard, and ends the store" \
  demo_draws graphite
one "demo.sh refuses to draw what lasts less than 12 s" \
  demo_refuses --seconds 11 --with graphite
one "demo.sh ended while a store starts leaves no process and no file" \
  demo_leaves_nothing graphite
if [ -e .git ]; then
  one "the source archive is whole" archive_is_whole
else
  skipped=$((skipped + 1)) && echo "SKIP: the source archive is whole: no clone here"
fi
one "make distcheck: without clang and bpftool" make -C build-werror distcheck

section "packages, and collectd's own source"
# Archives are made in the build folder: in two of them, not to be in each other's way.
taps "tests/packaging/test_deb.py --build build-werror" \
  "tests/packaging/test_rpm.py --build build-sanitized" \
  "tests/packaging/test_upstream.py --build build-werror"

section "kernels in QEMU"
# All kernels have the same package, where one can be made.
in_guests="tests/vm/run --build build-werror"
package=$(ls build-werror/deb/collectd-reclaim_*.deb)
if [ -n "$package" ]; then
  in_guests="$in_guests --package $package"
elif [ "${CI-}" = true ]; then
  failed=$((failed + 1)) && echo "FAIL: there is no package for guests"
fi
tap $in_guests
tap $in_guests --work waits
tap $in_guests --work systemd
tap $in_guests --work lockdown
tap $in_guests --work faults
tap env RECLAIM_BUILD="$PWD/build-werror" \
  tests/backends/fleet/test_fleet.py --guests 5.10 6.1 6.12

if [ $long = yes ]; then
  section "more guests"
  tap $in_guests --work systemd --kernel 6.1 --kernel 6.12
  tap $in_guests --work lockdown --kernel 6.1 --kernel 6.12 --kernel sid
  tap $in_guests --work rates

  section "repeated"
  for _ in 1 2 3 4 5; do
    automake build-werror TESTS='$(BPF_TESTS) $(COLLECTD_TESTS) $(SNOOP_TESTS)'
  done
  for work in "test_age.py --reads 10000" "test_hostile.py --long" "test_accidents.py --long"; do
    tap env RECLAIM_BUILD="$PWD/build-werror" tests/collectd/$work
  done

  section "all of collectd's tests, sanitized"
  automake build-sanitized TESTS='$(COLLECTD_TESTS)'
  automake build-thread TESTS='$(COLLECTD_TESTS)'

  section "line coverage"
  one "the tests pass in a build that counts lines" tests/analysis/coverage
  sed -n '/^File/,$p' "$logs/one.log"
fi

rm -r "$logs"
section end
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
