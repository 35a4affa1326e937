#!/usr/bin/env bash
# Makes a cluster in PGDATA at the first start, runs what lies in /docker-entrypoint-initdb.d, and
# becomes PostgreSQL. Arguments that begin with "-" are flags of postgres; another program is run
# instead. Reads, as postgres:17 does:
#   POSTGRES_PASSWORD            required, unless POSTGRES_HOST_AUTH_METHOD is trust
#   POSTGRES_USER                the superuser (postgres)
#   POSTGRES_DB                  a database to make (the user's name)
#   POSTGRES_INITDB_ARGS, POSTGRES_INITDB_WALDIR, POSTGRES_HOST_AUTH_METHOD
# Of the first four, NAME_FILE names a file that holds the value.
set -Eeuo pipefail
unfinished=pgsled.first_steps

complain() {
  printf 'postgres image: %s\n' "$@" >&2
  exit 1
}

# NAME, or the content of the file that NAME_FILE names, or a default.
setting() {
  local name=$1 file=$1_FILE
  if [ -n "${!name:-}" ] && [ -n "${!file:-}" ]; then
    complain "$name and $file exclude each other"
  fi
  if [ -n "${!file:-}" ]; then
    [ -r "${!file}" ] || complain "$file: ${!file} cannot be read"
    export "$name=$(<"${!file}")"
  else
    export "$name=${!name:-${2:-}}"
  fi
  unset "$file"
}

prepare_folders() {
  mkdir -p "$PGDATA"
  chmod 700 "$PGDATA" 2>/dev/null || true
  mkdir -p /var/run/postgresql
  chmod 3777 /var/run/postgresql 2>/dev/null || true
  if [ -n "${POSTGRES_INITDB_WALDIR:-}" ]; then
    mkdir -p "$POSTGRES_INITDB_WALDIR"
    chmod 700 "$POSTGRES_INITDB_WALDIR"
  fi
}

# Until all of the first steps are done a mark lies beside the cluster: one that was cut off in the
# middle is not taken for a finished one at the next start.
make_cluster() {
  local -a wal=()
  local secret
  [ -z "${POSTGRES_INITDB_WALDIR:-}" ] || wal=(--waldir "$POSTGRES_INITDB_WALDIR")
  secret=$(mktemp)
  printf '%s\n' "$POSTGRES_PASSWORD" >"$secret"
  # shellcheck disable=SC2086  # arguments, as the name says
  initdb -U "$POSTGRES_USER" --pwfile "$secret" "${wal[@]}" ${POSTGRES_INITDB_ARGS:-}
  rm "$secret"
  : >"$PGDATA/$unfinished"
  printf '\nhost all all all %s\n' "$POSTGRES_HOST_AUTH_METHOD" >>"$PGDATA/pg_hba.conf"
}

process_sql() {
  env -u PGHOST -u PGHOSTADDR psql -Xw -v ON_ERROR_STOP=1 -U "$POSTGRES_USER" -d "$POSTGRES_DB" "$@"
}

run_file() {
  printf 'postgres image: running %s\n' "$1"
  case $1 in
    *.sh)
      if [ -x "$1" ]; then
        "$1"
      else
        # shellcheck disable=SC1090
        . "$1"
      fi
      ;;
    *.sql) process_sql -f "$1" ;;
    *.sql.gz) gunzip -c "$1" | process_sql ;;
    *.sql.xz) xz -dc "$1" | process_sql ;;
    *.sql.zst) zstd -dc "$1" | process_sql ;;
    *) printf 'postgres image: %s is left alone\n' "$1" ;;
  esac
}

# With a server that only this container reaches.
first_steps() {
  local flags="" flag
  for flag in "$@"; do flags+=" $(printf '%q' "$flag")"; done
  flags+=" -c listen_addresses= -p ${PGPORT:-5432}"
  PGUSER="$POSTGRES_USER" pg_ctl -D "$PGDATA" -s -w -o "$flags" start
  if [ "$POSTGRES_DB" != postgres ]; then
    local there
    there=$(POSTGRES_DB=postgres process_sql -At -v name="$POSTGRES_DB" \
      <<<"SELECT 1 FROM pg_database WHERE datname = :'name'")
    [ -n "$there" ] ||
      POSTGRES_DB=postgres process_sql -v name="$POSTGRES_DB" <<<'CREATE DATABASE :"name"'
  fi
  local file
  for file in /docker-entrypoint-initdb.d/*; do
    [ ! -f "$file" ] || run_file "$file"
  done
  PGUSER="$POSTGRES_USER" pg_ctl -D "$PGDATA" -s -w -m fast stop
  rm "$PGDATA/$unfinished"
}

if [ "${1:--}" = - ] || [[ $1 == -* ]]; then set -- postgres "$@"; fi

if [ "$1" = postgres ] && [[ " $* " != *" --help "* && " $* " != *" --version "* ]]; then
  if [ "$(id -u)" = 0 ]; then
    prepare_folders
    find "$PGDATA" ! -user postgres -exec chown postgres {} +
    find /var/run/postgresql ! -user postgres -exec chown postgres {} +
    [ -z "${POSTGRES_INITDB_WALDIR:-}" ] || chown -R postgres "$POSTGRES_INITDB_WALDIR"
    exec setpriv --reuid=postgres --regid=postgres --init-groups --inh-caps=-all \
      env HOME=/var/lib/postgresql "${BASH_SOURCE[0]}" "$@"
  fi
  prepare_folders
  [ ! -e "$PGDATA/$unfinished" ] ||
    complain "the first start did not come to its end: see its log, and empty $PGDATA"
  if [ ! -s "$PGDATA/PG_VERSION" ]; then
    setting POSTGRES_PASSWORD
    setting POSTGRES_USER postgres
    setting POSTGRES_DB "$POSTGRES_USER"
    setting POSTGRES_INITDB_ARGS
    : "${POSTGRES_HOST_AUTH_METHOD:=scram-sha-256}"
    if [ -z "$POSTGRES_PASSWORD" ] && [ "$POSTGRES_HOST_AUTH_METHOD" != trust ]; then
      complain 'POSTGRES_PASSWORD is not set: no cluster is made without a password.' \
        'POSTGRES_HOST_AUTH_METHOD=trust lets everybody in, for a network where nobody else is.'
    fi
    make_cluster
    first_steps "${@:2}"
    unset POSTGRES_PASSWORD PGPASSWORD
  fi
fi
exec "$@"
