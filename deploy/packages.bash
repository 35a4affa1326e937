# The one list of Debian packages, by what needs them, and their installation. Sourced by
# deploy/quickstart, deploy/Dockerfile, tests/run, tests/bench/run and tests/deploy/run; it defines
# names only. Debian 12; the build works on 13 as well, with what it calls otherwise.
#   require_packages LIST…   installs what is missing of the named lists, or exits 3 with the
#                            apt-get line when that would need root

packages_boost=libboost1.81-dev
! grep -qs '^VERSION_CODENAME=trixie' /etc/os-release || packages_boost=libboost1.83-dev

packages_build=(
  cmake ninja-build g++ ccache lld pkg-config "$packages_boost" libzmq3-dev libpq-dev
  libpg-query-dev libprotobuf-c-dev libssl-dev libtoml11-dev prometheus-cpp-dev libfmt-dev
  libidn-dev libspdlog-dev libexpected-dev libcli11-dev libgtest-dev libgmock-dev)
packages_run=(postgresql-15 postgresql-client-15 python3 python3-asyncpg openssl iproute2)
packages_test=(
  clang-14 docker-compose libclang-rt-14-dev prometheus python3-prometheus-client python3-psycopg
  python3-psycopg2 python3-pytest python3-pytest-asyncio python3-pytest-xdist systemd)
packages_bench=(pgbouncer)
packages_helm=(python3-yaml openssl)  # tests/deploy/helm
packages_package=(debootstrap systemd-container dpkg-dev)  # tests/deploy/package
packages_deploy=(docker.io docker-compose debootstrap iptables)

# Prints those of the given packages that are not installed, one a line.
missing_packages() {
  local name status
  for name in "$@"; do
    status=$(dpkg-query -W -f='${db:Status-Status}' "$name" 2>/dev/null) || status=
    [ "$status" = installed ] || printf '%s\n' "$name"
  done
}

# Installs in a subshell, so that what was changed for the time of it goes back on every way out:
# no daemon is started, no PostgreSQL cluster is created, an existing one is left alone.
install_packages() (
  set -eu
  policy=/usr/sbin/policy-rc.d saved=/usr/sbin/policy-rc.d.before-pgsled
  no_cluster=/etc/postgresql-common/createcluster.d/00-pgsled-no-cluster.conf
  made_folders=()
  # shellcheck disable=SC2317  # called by the trap
  put_back() {
    rm -f "$no_cluster"
    local at
    for ((at = ${#made_folders[@]} - 1; at >= 0; at--)); do
      rmdir --ignore-fail-on-non-empty "${made_folders[at]}" 2>/dev/null || true
    done
    rm -f "$policy"
    if [ -e "$saved" ]; then mv "$saved" "$policy"; fi
  }
  trap put_back EXIT
  trap 'exit 130' INT TERM HUP
  # A file saved by a run that was killed is the original; what stands there now is ours.
  if [ -e "$policy" ] && [ ! -e "$saved" ]; then mv "$policy" "$saved"; fi
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod 755 "$policy"
  for folder in /etc/postgresql-common /etc/postgresql-common/createcluster.d; do
    [ -d "$folder" ] || { mkdir "$folder" && made_folders+=("$folder"); }
  done
  echo 'create_main_cluster = false' >"$no_cluster"

  export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 LC_ALL=C.UTF-8
  apt=(apt-get -q -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3)
  "${apt[@]}" update
  "${apt[@]}" install -y --no-install-recommends "$@"
  # Debian enables the daemons it brings; their ports are others' after the next start of the
  # machine. Of prometheus only promtool is wanted.
  for daemon in pgbouncer prometheus docker.io; do
    if [[ " $* " == *" $daemon "* ]] && command -v systemctl >/dev/null; then
      [ "$daemon" != docker.io ] || daemon=docker
      systemctl disable "$daemon.service" "$daemon.socket" >/dev/null 2>&1 || true
    fi
  done
)

require_packages() {
  local list missing
  local -a wanted=()
  for list in "$@"; do
    local -n of_list="packages_$list"
    wanted+=("${of_list[@]}")
  done
  mapfile -t missing < <(missing_packages "${wanted[@]}")
  [ ${#missing[@]} -gt 0 ] || return 0
  if [ "$(id -u)" != 0 ]; then
    echo "Packages are missing, and installing them needs root. Run this, then come back:" >&2
    echo "  sudo apt-get update && sudo apt-get install -y --no-install-recommends ${missing[*]}" >&2
    exit 3
  fi
  echo "Installing ${#missing[@]} Debian packages: ${missing[*]}"
  install_packages "${missing[@]}"
}
