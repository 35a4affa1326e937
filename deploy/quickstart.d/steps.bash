# The steps of deploy/quickstart; sourced by it. Uses its root, parts, pg, host, port, shards,
# own_user, home and run_dir.

shard_ports=() metrics_port='' admin_password=''

say() { printf '\n== %s\n' "$*"; }
die() { printf 'quickstart: %s\n' "$*" >&2; exit 1; }
url() { echo "postgresql://postgres:postgres@$host:$port/postgres"; }

# PostgreSQL refuses to run as root, and the suite has no need to.
as_owner() {
  if [ "$(id -u)" = 0 ]; then
    (cd / && exec setpriv --reuid="$own_user" --regid="$own_user" --init-groups \
      env HOME="$home" "$@")
  else
    (cd / && exec "$@")
  fi
}

through_frontend() {
  PGPASSWORD=postgres PGCONNECT_TIMEOUT=10 psql -X -h "$host" -p "$port" -U postgres -d postgres \
    -v ON_ERROR_STOP=1 "$@"
}

build() {
  bin=${PGSLED_BIN:-}
  [ -z "$bin" ] || return 0
  bin=$root/build/release/bin
  say "Building"
  local said
  said=$(cd "$root" && cmake --preset release 2>&1) || {
    echo "$said" >&2
    die "cmake fails"
  }
  ninja -C "$root/build/release" pgsled pgsled-router pgsled-frontend pgsled-pooler \
    pgsled-replicator
}

prepare_home() {
  if [ -e "$home" ] && [ ! -e "$home/.pgsled-quickstart" ] && [ -n "$(ls -A "$home")" ]; then
    die "$home is there and not empty, and is not ours; PGSLED_HOME chooses another folder"
  fi
  # The longest socket is a lease socket; the system allows 107 bytes.
  [ ${#run_dir} -le 80 ] || die "$run_dir is too long for Unix sockets; choose a shorter PGSLED_HOME"
  mkdir -p "$home"
  if [ "$(id -u)" = 0 ] && ! id "$own_user" >/dev/null 2>&1; then
    useradd --system --user-group --no-create-home --home-dir "$home" \
      --shell /usr/sbin/nologin "$own_user"
    touch "$home/.made-user"
  fi
  mkdir -p "$run_dir" "$home/log" "$home/bin"
  touch "$home/.pgsled-quickstart"
  chmod 700 "$run_dir" "$home/log"
  chmod 755 "$home" "$home/bin"
  # What root reads, runs or writes by its name lies where the suite's user cannot put anything.
  [ "$(id -u)" != 0 ] || { chown root:root "$home" && chown "$own_user:$own_user" "$run_dir" "$home/log"; }
  as_owner test -r "$home/.pgsled-quickstart" ||
    die "user $own_user cannot enter $home; PGSLED_HOME chooses another folder"
}

# One quickstart at a time; children must not inherit the descriptor (9>&-).
take_lock() {
  exec 9>"$home/lock"
  flock -w 600 9 || die "another quickstart is at work in $home"
}
take_lock_if_made() { [ ! -e "$home/.pgsled-quickstart" ] || take_lock; }

listening() { [ -n "$(ss -Hltn "sport = :$1")" ]; }
choose_port() {
  local candidate
  for ((candidate = $1; candidate < $1 + 1000; candidate++)); do
    if [ "$candidate" != "$port" ] && ! listening "$candidate" &&
      [[ " ${shard_ports[*]} $metrics_port " != *" $candidate "* ]]; then
      echo "$candidate"
      return
    fi
  done
  die "no free port from $1 on"
}

# What has to be the same at the next run: ports and the admin's password.
read_settings() {
  local asked_port=${PGSLED_PORT:-}
  running_port=''
  if [ -e "$home/settings" ]; then
    [ -O "$home/settings" ] || die "$home/settings belongs to another user"
    # shellcheck disable=SC1091
    source "$home/settings"
    port=${asked_port:-$port}
  fi
  [ -n "$admin_password" ] || admin_password=$(od -An -N12 -tx1 /dev/urandom | tr -d ' \n')
}
write_settings() {
  (umask 077 && cat >"$home/settings.new" <<END
port=$port
shards=$shards
shard_ports=(${shard_ports[*]})
metrics_port=$metrics_port
admin_password=$admin_password
running_port=$port
END
  )
  mv "$home/settings.new" "$home/settings"
}

suite_pid() {
  local pid
  pid=$(cat "$run_dir/quickstart.pid" 2>/dev/null) || return 1
  # A zombie has no executable; one that was replaced by a newer build has "(deleted)" after it.
  [[ -n $pid && $(readlink "/proc/$pid/exe" 2>/dev/null) == "$home/bin/pgsled"* ]] && echo "$pid"
}
shard_runs() { as_owner "$pg/pg_ctl" -D "$home/shard$1" status >/dev/null 2>&1; }

check_port() {
  if listening "$port" && ! { suite_pid >/dev/null && [ "$running_port" = "$port" ]; }; then
    local holder
    holder=$(ss -Hltnp "sport = :$port" | grep -o '"[^"]*",pid=[0-9]*' | head -n 1 |
      sed 's/"\(.*\)",pid=\(.*\)/\1, process \2/') || true
    die "port $port is taken by ${holder:-a process of another user}; choose another, for example" \
      "PGSLED_PORT=$((port + 1)) deploy/quickstart"
  fi
}

start_shard() {
  local data=$home/shard$1
  if [ ! -e "$data/PG_VERSION" ]; then create_shard "$1"; fi
  if shard_runs "$1"; then return; fi
  if [ -z "${shard_ports[$1]:-}" ] || listening "${shard_ports[$1]}"; then
    shard_ports[$1]=''
    shard_ports[$1]=$(choose_port $((7100 + $1)))
    write_settings
  fi
  say "Starting shard $1 on port ${shard_ports[$1]}"
  as_owner "$pg/pg_ctl" -D "$data" -s -w -t 60 -l "$home/log/shard$1.log" \
    -o "-p ${shard_ports[$1]} -k $data" start 9>&- || {
    as_owner tail -n 20 "$home/log/shard$1.log" >&2
    die "shard $1 does not start"
  }
}

at_shard() {
  local shard=$1
  shift
  PGPASSWORD=postgres psql -X -h "$host" -p "${shard_ports[$shard]}" -U postgres -d postgres \
    -v ON_ERROR_STOP=1 "$@"
}
as_admin() {
  PGPASSWORD=$admin_password psql -X -h "$host" -p "$port" -U admin -d admin -v ON_ERROR_STOP=1 "$@"
}

# True when the shard is in the file, but the map gives it nothing.
joining() {
  [ "$(at_shard 0 -Atc "SELECT $1 <> ALL (buckets) FROM pgsled.shard_map
    WHERE database = 'postgres'")" = t ]
}

copy_schema() {
  PGPASSWORD=postgres "$pg/pg_dump" -h "$host" -p "${shard_ports[0]}" -U postgres --schema-only \
    -N pgsled postgres | at_shard "$1" -1 -q -o /dev/null
}

# Created aside and renamed, so that one that was interrupted is not taken for a finished one.
create_shard() {
  local data=$home/shard$1 said
  say "Creating shard $1"
  rm -rf "$data.new"
  mkdir -m 700 "$data.new"
  (umask 077 && echo postgres >"$home/password")
  [ "$(id -u)" != 0 ] || chown "$own_user" "$home/password" "$data.new"
  said=$(as_owner "$pg/initdb" -D "$data.new" -U postgres --pwfile "$home/password" -E UTF8 \
    --locale C.UTF-8 -A scram-sha-256 --no-instructions 2>&1) || {
    echo "$said" >&2
    die "initdb fails"
  }
  rm -f "$home/password"
  as_owner tee -a "$data.new/postgresql.conf" >/dev/null <<END
listen_addresses = '$host'
max_connections = 200
wal_level = logical
max_prepared_transactions = 100
max_replication_slots = 20
max_wal_senders = 20
password_encryption = 'scram-sha-256'
END
  mv "$data.new" "$data"
}

write_configuration() {
  local shard table
  {
    cat <<END
[general]
host = "$host"
port = $port
openmetrics_host = "$host"
openmetrics_port = $metrics_port

[admin]
user = "admin"
password = "$admin_password"
END
    for ((shard = 0; shard < shards; shard++)); do
      cat <<END

[[databases]]
name = "postgres"
host = "$host"
port = ${shard_ports[$shard]}
shard = $shard
END
    done
    for table in user_conversation_list:user_id user_messages:recipient_user_id \
      messages:sender_id; do
      cat <<END

[[sharded_tables]]
database = "postgres"
name = "${table%:*}"
column = "${table#*:}"
data_type = "bigint"
END
    done
  } >"$home/pgdog.toml.new"
  cat >"$home/users.toml.new" <<END
[[users]]
name = "postgres"
database = "postgres"
password = "postgres"
END
}

# Puts the new configuration and binaries in place; true if anything differs from what runs.
something_changed() {
  local file changed=1
  for file in pgdog.toml users.toml; do
    cmp -s "$home/$file.new" "$home/$file" || changed=0
    chmod 600 "$home/$file.new"
    [ "$(id -u)" != 0 ] || chown "$own_user" "$home/$file.new"
    mv "$home/$file.new" "$home/$file"
  done
  # The checkout may be where the suite's user cannot go, and may be rebuilt while the suite runs.
  for file in pgsled pgsled-router pgsled-frontend pgsled-pooler pgsled-replicator; do
    cmp -s "$bin/$file" "$home/bin/$file" && continue
    changed=0
    cp "$bin/$file" "$home/bin/$file.new" || die "cannot copy $bin/$file"
    chmod 755 "$home/bin/$file.new"
    mv "$home/bin/$file.new" "$home/bin/$file"
  done
  return "$changed"
}

start_suite() {
  if [ -z "$metrics_port" ] || { ! suite_pid >/dev/null && listening "$metrics_port"; }; then
    metrics_port=$(choose_port 9090)
  fi
  write_configuration
  if something_changed && suite_pid >/dev/null; then
    say "Something has changed: restarting the suite"
    stop_suite
  fi
  write_settings
  if ! suite_pid >/dev/null; then
    say "Starting the suite on port $port"
    # shellcheck disable=SC2016  # expanded by the inner shell
    as_owner setsid --fork bash -c '
      exec >>"$2/suite.log" 2>&1 && echo $$ >"$1/quickstart.pid" && shift 2 && exec "$@"' - \
      "$run_dir" "$home/log" "$home/bin/pgsled" up --config "$home/pgdog.toml" \
      --users "$home/users.toml" --run-dir "$run_dir" >/dev/null 2>&1 </dev/null 9>&-
  fi
  wait_ready
}

wait_ready() {
  local turn said=''
  for ((turn = 0; turn < 150; turn++)); do
    if said=$(through_frontend -Atc 'SELECT 1' 2>&1); then return; fi
    # Its pid is written a moment after it was asked to start.
    if [ "$turn" -gt 10 ] && ! suite_pid >/dev/null; then break; fi
    sleep 0.2
  done
  as_owner tail -n 20 "$home/log/suite.log" >&2
  die "the suite does not answer: $said"
}

stop_suite() {
  local pid turn
  pid=$(suite_pid) || return 0
  kill -TERM "$pid" 2>/dev/null || return 0
  for ((turn = 0; turn < 150; turn++)); do
    suite_pid >/dev/null || break
    sleep 0.1
  done
  if suite_pid >/dev/null; then kill -KILL "$pid"; fi
  rm -f "$run_dir/quickstart.pid"
}

stop_all() {
  local shard
  stop_suite
  for ((shard = 0; shard < shards; shard++)); do
    if [ -d "$home/shard$shard" ] && shard_runs "$shard"; then
      as_owner "$pg/pg_ctl" -D "$home/shard$shard" -s -w -t 60 -m fast stop
    fi
  done
  echo "Stopped."
}

clean() {
  if [ ! -e "$home/.pgsled-quickstart" ]; then
    echo "Nothing to clean in $home."
    return
  fi
  stop_all
  local made_user=
  [ ! -e "$home/.made-user" ] || made_user=yes
  rm -rf "$home"
  if [ -n "$made_user" ] && [ "$(id -u)" = 0 ]; then
    userdel "$own_user" 2>/dev/null || true
  fi
  echo "Removed $home."
}

status() {
  local shard pid missing=0
  if pid=$(suite_pid); then
    echo "suite: runs on $host:$port, process $pid"
    as_owner "$home/bin/pgsled" status --run-dir "$run_dir" || missing=1
  else
    echo "suite: does not run"
    missing=1
  fi
  for ((shard = 0; shard < shards; shard++)); do
    if [ -d "$home/shard$shard" ] && shard_runs "$shard"; then
      echo "shard $shard: runs on $host:${shard_ports[$shard]}"
    else
      echo "shard $shard: does not run"
      missing=1
    fi
  done
  return "$missing"
}

print_env() {
  suite_pid >/dev/null || exit 1
  local control
  control=$(find "$run_dir" -maxdepth 1 -name 'replicator*.control' 2>/dev/null | sort | head -n 1)
  printf '%s=%q\n' PGSLED_HOST "$host" PGSLED_PORT "$running_port" \
    PGSLED_SHARD_PORTS "${shard_ports[*]}" PGSLED_RUN_DIR "$run_dir" \
    PGSLED_CONTROL "${control:-$run_dir/replicator-1.control}" \
    PGSLED_ADMIN_URL "postgresql://admin:$admin_password@$host:$running_port/admin" \
    PGSLED_METRICS_URL "http://$host:$metrics_port/metrics"
}
