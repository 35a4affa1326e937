#include "services/replicator/move/scene.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "common/commit/statements.hpp"

namespace pgsled::replicator {

namespace {

using commit::statements::literal;

constexpr std::chrono::milliseconds connect_timeout{5000};
constexpr std::chrono::milliseconds usual_timeout{120'000};

// Values as text mean the same on both sides; row security would leave rows out without a word.
// Connections may be idle for as long as a copy takes; a host that is gone must not keep its locks
// for hours.
constexpr const char* server_options =
    "-c statement_timeout=0 -c lock_timeout=15s -c datestyle=ISO,YMD -c intervalstyle=postgres "
    "-c extra_float_digits=3 -c bytea_output=hex -c timezone=UTC -c lc_monetary=C "
    "-c row_security=off -c xmloption=content -c idle_in_transaction_session_timeout=0 "
    "-c tcp_keepalives_idle=30 -c tcp_keepalives_interval=10 "
    "-c tcp_keepalives_count=3 -c default_transaction_isolation=read\\ committed";
// Nothing is told to a server while one statement runs on another.
constexpr const char* stream_options = " -c wal_sender_timeout=0";

}  // namespace

std::string move_scene::slot(shard_number source) const {
  return fmt::format("pgsled_{}_{}{}", job, tag, source);
}

std::string move_scene::cleaner(shard_number source) const {
  return fmt::format("pgsled_{}_clean_{}", job, source);
}

moving::selection move_scene::of_source(shard_number source) const {
  if (gets) return *gets;
  moving::selection to;
  to.buckets = map.size();
  for (const std::uint32_t bucket : moving) {
    if (map[bucket] == source) to.moving.push_back(bucket);
  }
  return to;
}

bool move_scene::destination_owns() const {
  for (std::uint32_t bucket = 0; bucket < map.size(); ++bucket) {
    if (map[bucket] == destination && !std::binary_search(moving.begin(), moving.end(), bucket)) {
      return true;
    }
  }
  return false;
}

result<management::connection> move_scene::open(shard_number shard,
                                                std::chrono::milliseconds query_timeout,
                                                bool replication) const {
  const auto& at = where.shards.at(shard);
  management::manner how;
  how.application = application();
  how.options = server_options + std::string(replication ? stream_options : "");
  how.query_timeout = query_timeout;
  how.replication = replication;
  auto made = management::connection::open(
      {at.host, at.port, at.database, at.user, at.password},
      {where.tls.mode, where.tls.ca_certificate, where.tls.certificate, where.tls.private_key},
      connect_timeout, *stop, how);
  if (!made || made->server_version() < 140000) return made;
  // Among the options, servers before that version would refuse the connection for a name.
  const bool since_17 = made->server_version() >= 170000;
  if (auto error = execute(*made, since_17 ? "SET idle_session_timeout = 0; "
                                             "SET transaction_timeout = 0"
                                           : "SET idle_session_timeout = 0")) {
    return tl::unexpected(std::move(*error));
  }
  return made;
}

trouble move_scene::open_all() {
  links.clear();
  for (shard_number shard = 0; shard < where.shards.size(); ++shard) {
    auto made = open(shard, usual_timeout);
    if (!made) return made.error();
    links.emplace(shard, std::move(*made));
  }
  return std::nullopt;
}

trouble execute(management::connection& on, const std::string& sql) {
  const auto done = on.query(sql);
  return done ? trouble() : trouble(done.error());
}

result<std::string> one_value(management::connection& on, const std::string& sql) {
  const auto rows = on.query(sql);
  if (!rows) return tl::unexpected(rows.error());
  return rows->empty() || rows->front().empty() ? std::string() : rows->front().front();
}

const char* job_schema() {
  return R"sql(
SELECT pg_catalog.pg_advisory_xact_lock(20737, 1);
CREATE SCHEMA IF NOT EXISTS pgsled;
REVOKE CREATE ON SCHEMA pgsled FROM PUBLIC;
CREATE TABLE IF NOT EXISTS pgsled.job (
  id text PRIMARY KEY,
  database text NOT NULL,
  kind text NOT NULL,
  destination integer NOT NULL,
  phase text NOT NULL CHECK (phase IN ('moving', 'flipped', 'done', 'undone')),
  runner text NOT NULL,
  runs integer NOT NULL DEFAULT 0,
  buckets integer NOT NULL DEFAULT 0,
  moving integer[] NOT NULL DEFAULT '{}',
  altered text[] NOT NULL DEFAULT '{}',
  filled text[] NOT NULL DEFAULT '{}',
  began_at timestamptz NOT NULL DEFAULT now(),
  changed_at timestamptz NOT NULL DEFAULT now());
CREATE UNIQUE INDEX IF NOT EXISTS job_one_at_a_time ON pgsled.job (database)
  WHERE phase IN ('moving', 'flipped');
ALTER TABLE pgsled.job ADD COLUMN IF NOT EXISTS shard integer,
  ADD COLUMN IF NOT EXISTS round integer NOT NULL DEFAULT 1,
  ADD COLUMN IF NOT EXISTS sources integer[] NOT NULL DEFAULT '{}',
  ADD COLUMN IF NOT EXISTS other text, ADD COLUMN IF NOT EXISTS side text,
  ADD COLUMN IF NOT EXISTS names bigint, ADD COLUMN IF NOT EXISTS cutover text,
  ADD COLUMN IF NOT EXISTS given_up boolean NOT NULL DEFAULT false;
REVOKE ALL ON pgsled.job FROM PUBLIC;
CREATE TABLE IF NOT EXISTS pgsled.job_later (
  job text,
  place integer,
  stage text NOT NULL CHECK (stage IN ('index', 'reference', 'validation')),
  "table" text NOT NULL,
  statement text NOT NULL,
  PRIMARY KEY (job, place));
REVOKE ALL ON pgsled.job_later FROM PUBLIC;
CREATE TABLE IF NOT EXISTS pgsled.job_waiting (
  job text,
  slot text,
  id bigint,
  "table" text NOT NULL,
  known_by text NOT NULL,
  row text NOT NULL,
  PRIMARY KEY (job, slot, id));
REVOKE ALL ON pgsled.job_waiting FROM PUBLIC;
CREATE OR REPLACE FUNCTION pgsled.hold_job(of_id text, of_runner text) RETURNS void
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM FROM pgsled.job WHERE id = of_id AND runner = of_runner FOR SHARE;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'the move % is run by another process', of_id USING ERRCODE = '57P01';
  END IF;
END $$;
REVOKE ALL ON FUNCTION pgsled.hold_job(text, text) FROM PUBLIC;
)sql";
}

const char* job_columns() {
  return "SELECT EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass('pgsled.job') "
         "AND attname = 'given_up' AND NOT attisdropped) "
         "AND to_regclass('pgsled.job_later') IS NOT NULL "
         "AND to_regclass('pgsled.job_waiting') IS NOT NULL";
}

result<bool> has_jobs(management::connection& link) {
  const auto there = one_value(link, "SELECT to_regclass('pgsled.job') IS NOT NULL");
  if (!there) return tl::unexpected(there.error());
  return *there == "t";
}

result<bool> claim_job(management::connection& link, const std::string& job,
                       const std::string& application) {
  const auto there = has_jobs(link);
  if (!there || !*there) return there;
  const auto columns = one_value(link, job_columns());
  if (!columns) return tl::unexpected(columns.error());
  if (*columns != "t") {   // of an earlier version
    if (auto error = execute(link, job_schema())) return tl::unexpected(std::move(*error));
  }
  if (auto error = execute(link, fmt::format(
          "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE starts_with("
          "application_name, 'pgsled move {} ') AND application_name <> {}", job,
          literal(application)))) {
    return tl::unexpected(std::move(*error));
  }
  return true;
}

std::string hold_job(const move_scene& scene) {
  return fmt::format("SELECT pgsled.hold_job({}, {})", literal(scene.job), literal(scene.runner));
}

std::string text_array(const std::vector<std::string>& of) {
  std::string list;
  for (const std::string& one : of) list += (list.empty() ? "" : ",") + literal(one);
  return "ARRAY[" + list + "]::text[]";
}

}  // namespace pgsled::replicator
