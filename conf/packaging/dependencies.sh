# SPDX-License-Identifier: MIT
# Sourced by demo.sh and test.sh: installs what they need, and builds.

die() {
  echo "$0: $*" >&2
  exit 1
}

need_root() {
  [ "$(id -u)" = 0 ] || die "must be run as root: it installs packages, loads BPF programs and makes a memory cgroup"
}

# Debian, Ubuntu
apt_build="autoconf automake libtool make gcc libc6-dev pkg-config clang bpftool
  libbpf-dev libelf-dev zlib1g-dev collectd-core collectd-dev util-linux"
# What makes the Debian package, checks it, and makes a system to install it in
apt_deb="build-essential debhelper dpkg-dev lintian mmdebstrap"
apt_test="python3 clang-format clang-tidy clang-tools libclang-rt-dev cppcheck gcovr
  jq curl libcollectdclient-dev libgcrypt20-dev man-db groff-base mandoc
  bison flex patch xz-utils $apt_deb"
# Metric stores, and what collectd's plugins for them are linked to, which collectd
# only suggests: as far as this release has them (tests of others skip).
apt_stores="graphite-carbon graphite-web influxdb prometheus rrdtool"
apt_plugins="librrd8 libmicrohttpd12 libprotobuf-c1 libgcrypt20"
# What tests/bench puts beside the plugin, likewise; BCC compiles with some kernel's headers.
apt_beside="bpftrace libbpf-tools python3-bpfcc linux-headers-amd64 linux-headers-generic"
# What makes and checks the RPM package, likewise
apt_rpm="rpm rpmlint bzip2"
# demo.sh --with a store: that, and what draws a picture of it
apt_draw="python3 python3-matplotlib"
apt_graphite="graphite-carbon graphite-web"
apt_influxdb="influxdb libgcrypt20"
apt_prometheus="prometheus libmicrohttpd12 libprotobuf-c1"
# Fedora and its kin; collectd's headers are in no package of theirs
dnf_build="autoconf automake libtool make gcc pkgconf-pkg-config clang bpftool
  libbpf-devel elfutils-libelf-devel zlib-devel collectd util-linux
  dnf-plugins-core cpio tar bzip2 xz flex bison findutils"
dnf_test="python3 clang-tools-extra jq compiler-rt"

# Since Debian 13 and Ubuntu 24.04 some libraries have t64 behind their names; apt
# knows which are meant.
apt_missing() {
  for package; do
    dpkg-query -W -f '${Status}\n' "$package" "${package}t64" 2>/dev/null |
      grep -q 'ok installed' || echo "$package"
  done
}

apt_has() {
  apt-cache show --no-all-versions "$1" 2>/dev/null | grep -q '^Filename'
}

is_one_of() { [[ " $2 " = *" $1 "* ]]; }

# Ubuntu before 26.04 has bpftool in the packages of its kernels.
apt_names() {
  for package; do
    if [ "$package" = bpftool ] && ! apt_has bpftool; then
      echo linux-tools-common linux-tools-generic
    elif is_one_of "$package" "$apt_stores $apt_plugins $apt_beside $apt_rpm" &&
      ! apt_has "$package" && ! apt_has "${package}t64"; then
      echo "no package here: $package" >&2
    else
      echo "$package"
    fi
  done
}

# Starts no service; and those of stores not at the next boot: tests want the programs
# alone.
apt_quietly() (
  policy=/usr/sbin/policy-rc.d
  if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod +x "$policy" || exit
  fi
  apt-get -q -y --no-install-recommends install "$@" || exit
  for package; do
    if is_one_of "$package" "$apt_stores" && command -v systemctl >/dev/null; then
      dpkg -L "$package" | sed -n 's|.*/systemd/system/\([^@/]*\.service\)$|\1|p' |
        xargs -r systemctl -q disable
    fi
  done
)

apt_install() {
  [ -n "$(apt_missing "$@")" ] || return 0
  export DEBIAN_FRONTEND=noninteractive
  apt-get -q update || return
  set -- $(apt_missing $(apt_names "$@"))
  [ $# -gt 0 ] || return 0
  echo "installing: $*"
  apt_quietly "$@"
}

dnf_missing() {
  for package; do rpm -q --quiet "$package" || echo "$package"; done
}

dnf_install() {
  set -- $(dnf_missing "$@")
  [ $# -gt 0 ] || return 0
  echo "installing: $*"
  dnf -q -y install "$@"
}

# install_packages build|test|graphite|influxdb|prometheus: what builds, and that
install_packages() {
  local packages store=apt_$1
  if command -v apt-get >/dev/null; then
    packages=$apt_build
    case $1 in
    build) ;;
    test) packages="$packages $apt_test $apt_stores $apt_plugins $apt_beside $apt_rpm" ;;
    *) packages="$packages $apt_draw ${!store}" ;;
    esac
    apt_install $packages
  elif command -v dnf >/dev/null; then
    packages=$dnf_build
    case $1 in
    build) ;;
    test) packages="$packages $dnf_test" ;;
    *) die "$1 is run from Debian's and Ubuntu's packages only" ;;
    esac
    dnf_install $packages
  else
    die "neither apt-get nor dnf here: install the packages that README, Requirements names"
  fi
}

# Where no package has collectd's headers: its source, configured. Prints where.
collectd_source() {
  local where=/var/tmp/collectd-reclaim-source
  if [ ! -e "$where/tree/src/config.h" ]; then
    rm -rf "$where" && mkdir -p "$where/tree" || return
    (cd "$where" && dnf -q download --source collectd &&
      rpm2cpio collectd-*.src.rpm | cpio -id --quiet &&
      tar xf collectd-*.tar.* --strip-components=1 -C tree &&
      cd tree && { [ -x configure ] || ./build.sh; } &&
      ./configure --disable-all-plugins) >"$where.log" 2>&1 || return
  fi
  echo "$where/tree"
}

# build DIR CONFIGURE_OPTION...: out of tree, only what is not up to date
build() {
  local dir=$1 bpftool
  shift
  [ -e configure ] || autoreconf -fi || return
  if [ ! -e "$dir/Makefile" ]; then
    if [ ! -e /usr/include/collectd/core/daemon/plugin.h ]; then
      set -- "$@" "--with-collectd-src=$(collectd_source)"
    fi
    bpftool=$(ls /usr/lib/linux-tools/*/bpftool 2>/dev/null | tail -n 1)
    if [ -n "$bpftool" ] && ! PATH=$PATH:/usr/sbin bpftool version >/dev/null 2>&1; then
      set -- "$@" "BPFTOOL=$bpftool"
    fi
    mkdir -p "$dir" && (cd "$dir" && "$OLDPWD/configure" -q "$@") || return
  fi
  make -s -C "$dir" -j"$(nproc)"
}
