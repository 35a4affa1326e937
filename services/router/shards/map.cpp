#include "services/router/shards/map.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

namespace pgsled::router {

namespace {

map_decision refuse(std::string reason) {
  map_decision no;
  no.what = map_decision::outcome::refused;
  no.reason = std::move(reason);
  return no;
}

std::string join(const std::vector<shard_reading>& shards) {
  std::string text;
  for (std::size_t i = 0; i < shards.size(); ++i) {
    if (shards[i].reached) continue;
    if (!text.empty()) text += "; ";
    text += fmt::format("shard {}: {}", i, shards[i].problem);
  }
  return text;
}

// Why a map read from shard `number` cannot be right; empty when it can.
std::string contradiction(const std::string& database, std::uint32_t number,
                          const stored_map& map, std::size_t shards) {
  if (map.shard != number) {
    return fmt::format("the server given as shard {} of database \"{}\" says it is shard {}; the "
                       "order of hosts in the file must not change", number, database, map.shard);
  }
  if (map.buckets.empty() || map.epoch == 0) {
    return fmt::format("the shard map stored on shard {} of database \"{}\" is damaged", number,
                       database);
  }
  const std::uint32_t last = *std::max_element(map.buckets.begin(), map.buckets.end());
  if (last >= shards) {
    return fmt::format("the stored shard map of database \"{}\" names shard {}, but the file has "
                       "only {} shard{}", database, last, shards, shards == 1 ? "" : "s");
  }
  return {};
}

}  // namespace

map_decision decide(const std::string& database, const std::vector<shard_reading>& shards) {
  const stored_map* newest = nullptr;
  std::string job;
  bool all_reached = true;
  for (std::uint32_t i = 0; i < shards.size(); ++i) {
    all_reached = all_reached && shards[i].reached;
    if (!shards[i].map) continue;
    const stored_map& map = *shards[i].map;
    if (std::string why = contradiction(database, i, map, shards.size()); !why.empty()) {
      return refuse(std::move(why));
    }
    if (newest == nullptr || map.epoch > newest->epoch) newest = &map;
    if (!map.job.empty()) job = map.job;
  }
  map_decision decided;
  decided.complete = all_reached;
  decided.job = job;
  if (!job.empty() && !all_reached) {
    decided.reason = fmt::format("the move {} may have changed the map on a shard that is not "
                                 "reached: {}", job, join(shards));
    return decided;
  }
  if (newest == nullptr) {
    if (!all_reached || shards.empty()) {
      decided.reason = join(shards);
      return decided;
    }
    decided.epoch = 1;
    for (std::uint32_t i = 0; i < shards.size(); ++i) decided.buckets.push_back(i);
  } else {
    decided.epoch = newest->epoch;
    decided.buckets = newest->buckets;
  }
  for (std::uint32_t i = 0; i < shards.size(); ++i) {
    const auto& map = shards[i].map;
    if (map && map->epoch == decided.epoch && map->buckets != decided.buckets) {
      return refuse(fmt::format("the shards of database \"{}\" hold different maps of the same "
                                "epoch {}", database, decided.epoch));
    }
    if (shards[i].reached && (!map || map->epoch < decided.epoch)) decided.write_to.push_back(i);
  }
  decided.what = map_decision::outcome::known;
  return decided;
}

std::string buckets_to_text(const std::vector<std::uint32_t>& buckets) {
  return fmt::format("{{{}}}", fmt::join(buckets, ","));
}

std::optional<std::vector<std::uint32_t>> buckets_from_text(std::string_view text) {
  if (text.size() < 2 || text.front() != '{' || text.back() != '}') return std::nullopt;
  text = text.substr(1, text.size() - 2);
  std::vector<std::uint32_t> buckets;
  while (!text.empty()) {
    std::uint32_t value = 0;
    const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (ec != std::errc() || buckets.size() >= 65536) return std::nullopt;
    buckets.push_back(value);
    text.remove_prefix(static_cast<std::size_t>(end - text.data()));
    if (text.empty()) break;
    if (text.front() != ',' || text.size() == 1) return std::nullopt;
    text.remove_prefix(1);
  }
  return buckets;
}

// Clients have no right on any of it: the table and the functions are the owner's. The schema
// they may look into, for what decision_schema() lets them call.
// The functions are SECURITY DEFINER so that a later version can grant single ones to a role.
const char* shard_map_schema() {
  return R"sql(
SELECT pg_catalog.pg_advisory_xact_lock(20737, 1);  -- IF NOT EXISTS is none for two at once
CREATE SCHEMA IF NOT EXISTS pgsled;
REVOKE CREATE ON SCHEMA pgsled FROM PUBLIC;
CREATE TABLE IF NOT EXISTS pgsled.shard_map (
  database text PRIMARY KEY,
  epoch bigint NOT NULL CHECK (epoch > 0),
  shard integer NOT NULL CHECK (shard >= 0),
  buckets integer[] NOT NULL CHECK (cardinality(buckets) > 0),
  stored_at timestamptz NOT NULL DEFAULT now());
ALTER TABLE pgsled.shard_map ADD COLUMN IF NOT EXISTS job text, ADD COLUMN IF NOT EXISTS fence text;
REVOKE ALL ON pgsled.shard_map FROM PUBLIC;
CREATE TABLE IF NOT EXISTS pgsled.placement (
  database text,
  entry text,
  definition text NOT NULL,
  stored_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (database, entry));
REVOKE ALL ON pgsled.placement FROM PUBLIC;
CREATE OR REPLACE FUNCTION pgsled.read_shard_map(of_database text)
  RETURNS TABLE (epoch bigint, shard integer, buckets integer[])
  LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
  AS 'SELECT m.epoch, m.shard, m.buckets FROM pgsled.shard_map m WHERE m.database = of_database';
CREATE OR REPLACE FUNCTION pgsled.read_move(of_database text)
  RETURNS TABLE (job text, fence text)
  LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
  AS $$SELECT coalesce(m.job, ''), coalesce(m.fence, '') FROM pgsled.shard_map m
       WHERE m.database = of_database$$;
CREATE OR REPLACE FUNCTION pgsled.begin_move(of_database text, new_job text) RETURNS text
  LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
  AS 'UPDATE pgsled.shard_map m SET job = coalesce(m.job, new_job)
      WHERE m.database = of_database RETURNING m.job';
CREATE OR REPLACE FUNCTION pgsled.end_move(of_database text, old_job text) RETURNS void
  LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
  AS 'UPDATE pgsled.shard_map m SET job = NULL, fence = NULL
      WHERE m.database = of_database AND m.job = old_job';
CREATE OR REPLACE FUNCTION pgsled.set_fence(of_database text, of_job text, at_epoch bigint,
                                            new_fence text) RETURNS boolean
  LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
  AS 'UPDATE pgsled.shard_map m SET fence = new_fence
      WHERE m.database = of_database AND m.job = of_job AND m.epoch = at_epoch
        AND m.fence IS NULL RETURNING true';
CREATE OR REPLACE FUNCTION pgsled.lift_fence(of_database text) RETURNS bigint
  LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
  AS 'UPDATE pgsled.shard_map m SET fence = NULL
      WHERE m.database = of_database RETURNING m.epoch';
CREATE OR REPLACE FUNCTION pgsled.flip_shard_map(of_database text, old_epoch bigint,
                                                 new_buckets integer[], of_fence text)
  RETURNS bigint
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
DECLARE made bigint;
BEGIN
  UPDATE pgsled.shard_map m SET epoch = m.epoch + 1, buckets = new_buckets, fence = NULL,
         stored_at = now()
    WHERE m.database = of_database AND m.epoch = old_epoch AND m.fence = of_fence
    RETURNING m.epoch INTO made;
  IF made IS NULL THEN
    RAISE EXCEPTION 'the fence % of database % was lifted, or its map is another one by now',
      of_fence, of_database USING ERRCODE = '55006';
  END IF;
  RETURN made;
END $body$;
CREATE OR REPLACE FUNCTION pgsled.store_shard_map(of_database text, new_epoch bigint,
                                                  own_shard integer, new_buckets integer[])
  RETURNS bigint
  LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
  AS 'INSERT INTO pgsled.shard_map AS m (database, epoch, shard, buckets)
        VALUES (of_database, new_epoch, own_shard, new_buckets)
      ON CONFLICT (database) DO UPDATE
        SET epoch = excluded.epoch, buckets = excluded.buckets, stored_at = now()
        WHERE m.epoch < excluded.epoch AND m.shard = excluded.shard
      RETURNING m.epoch';
REVOKE ALL ON FUNCTION pgsled.read_shard_map(text), pgsled.read_move(text),
  pgsled.begin_move(text, text), pgsled.end_move(text, text),
  pgsled.set_fence(text, text, bigint, text), pgsled.lift_fence(text),
  pgsled.flip_shard_map(text, bigint, integer[], text) FROM PUBLIC;
REVOKE ALL ON FUNCTION pgsled.store_shard_map(text, bigint, integer, integer[]) FROM PUBLIC;
)sql";
}

}  // namespace pgsled::router
