#include "services/router/commit/decision_schema.hpp"

namespace pgsled::router {

// Clients may call open_decision and decide, inside the transaction that they are about. Both
// write only in the name of the backend and the transaction that calls them, so that nobody can
// decide for another, although names of prepared transactions are for everybody to see.
// What resolvers need is for the owner of the schema.
const char* decision_schema() {
  return R"sql(
SELECT pg_catalog.pg_advisory_xact_lock(20737, 1);
CREATE SCHEMA IF NOT EXISTS pgsled;
REVOKE CREATE ON SCHEMA pgsled FROM PUBLIC;
GRANT USAGE ON SCHEMA pgsled TO PUBLIC;
CREATE TABLE IF NOT EXISTS pgsled.decision (
  key text PRIMARY KEY,
  database text NOT NULL,
  outcome text NOT NULL CHECK (outcome IN ('commit', 'abort')),
  participants integer[] NOT NULL,
  role text NOT NULL,
  decided_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  settled_at timestamptz);
CREATE INDEX IF NOT EXISTS decision_decided_at ON pgsled.decision (decided_at);
REVOKE ALL ON pgsled.decision FROM PUBLIC;

CREATE OR REPLACE FUNCTION pgsled.key_part(key text, part integer) RETURNS bigint
  LANGUAGE sql IMMUTABLE STRICT SET search_path = pg_catalog, pg_temp
  AS $$ SELECT ('x' || lpad(split_part(key, '_', part), 16, '0'))::bit(64)::bigint $$;

CREATE OR REPLACE FUNCTION pgsled.milliseconds() RETURNS bigint
  LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
  AS $$ SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint $$;

CREATE OR REPLACE FUNCTION pgsled.open_decision(within_ms integer) RETURNS text
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF within_ms IS NULL OR within_ms NOT BETWEEN 1 AND 60000 THEN
    RAISE EXCEPTION 'a decision within % ms', within_ms USING ERRCODE = '22023';
  END IF;
  RETURN to_hex(pg_backend_pid()) || '_' || to_hex(pg_current_xact_id()::text::bigint) || '_'
         || to_hex((extract(epoch FROM clock_timestamp()) * 1000)::bigint + within_ms);
END $$;

CREATE OR REPLACE FUNCTION pgsled.decide(of_key text, of_database text, prepared integer[])
  RETURNS void
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  at bigint := (extract(epoch FROM clock_timestamp()) * 1000)::bigint;
  until bigint;
BEGIN
  IF of_key ~ '^[0-9a-f]{1,8}_[0-9a-f]{1,16}_[0-9a-f]{1,16}_[0-9a-f]{32}$'
     AND starts_with(of_key, to_hex(pg_backend_pid()) || '_'
                             || to_hex(pg_current_xact_id()::text::bigint) || '_') THEN
    until := ('x' || lpad(split_part(of_key, '_', 3), 16, '0'))::bit(64)::bigint;
  END IF;
  IF until IS NULL OR until > at + 60000 THEN
    RAISE EXCEPTION 'only a transaction itself can decide on its commit' USING ERRCODE = '42501';
  END IF;
  IF at > until THEN
    RAISE EXCEPTION 'the transaction was rolled back: its commit took too long'
      USING ERRCODE = '40000';
  END IF;
  INSERT INTO pgsled.decision (key, database, outcome, participants, role)
    VALUES (of_key, of_database, 'commit', prepared,
            CASE current_setting('role') WHEN 'none' THEN session_user
                                         ELSE current_setting('role') END);
END $$;

CREATE OR REPLACE FUNCTION pgsled.end_coordinator(of_key text) RETURNS boolean
  LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce(bool_and(pg_terminate_backend(pid, 2000)), true) FROM pg_locks
    WHERE locktype = 'transactionid' AND granted AND mode = 'ExclusiveLock'
      AND pid = pgsled.key_part(of_key, 1)
      AND transactionid::text = (pgsled.key_part(of_key, 2) & 4294967295)::text $$;

-- The update makes the caller's commit wait until the row is on the standbys, also when it was
-- another's that did not.
CREATE OR REPLACE FUNCTION pgsled.settle(of_key text, of_database text) RETURNS text
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  inserted boolean;
  found_outcome text;
BEGIN
  INSERT INTO pgsled.decision (key, database, outcome, participants, role)
    VALUES (of_key, of_database, 'abort', '{}', session_user)
    ON CONFLICT (key) DO NOTHING;
  inserted := FOUND;
  IF inserted AND pg_xact_status(pgsled.key_part(of_key, 2)::text::xid8) = 'committed' THEN
    RAISE EXCEPTION 'the transaction of % is committed, but its decision is missing', of_key
      USING ERRCODE = 'XX001';
  END IF;
  UPDATE pgsled.decision SET settled_at = clock_timestamp() WHERE key = of_key
    RETURNING outcome INTO found_outcome;
  RETURN found_outcome;
END $$;

CREATE OR REPLACE FUNCTION pgsled.read_decisions(of_database text, of_keys text[],
                                                 or_older_ms bigint)
  RETURNS TABLE (key text, outcome text, participants integer[], age_ms bigint)
  LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT d.key, d.outcome, d.participants,
         (extract(epoch FROM clock_timestamp() - d.decided_at) * 1000)::bigint
    FROM pgsled.decision d WHERE d.key = ANY (of_keys)
  UNION ALL
  (SELECT d.key, d.outcome, d.participants,
         (extract(epoch FROM clock_timestamp() - d.decided_at) * 1000)::bigint
    FROM pgsled.decision d
    WHERE d.decided_at < now() - or_older_ms * interval '1 ms' AND d.database = of_database
      AND d.key <> ALL (of_keys)
    ORDER BY d.decided_at LIMIT 1000) $$;

CREATE OR REPLACE FUNCTION pgsled.forget_decisions(of_keys text[], older_ms bigint)
  RETURNS bigint
  LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  WITH gone AS (DELETE FROM pgsled.decision d WHERE d.key = ANY (of_keys)
    AND d.decided_at < clock_timestamp() - older_ms * interval '1 ms'
    AND pgsled.key_part(d.key, 3) + older_ms < pgsled.milliseconds() RETURNING 1)
  SELECT count(*) FROM gone $$;

REVOKE ALL ON FUNCTION pgsled.key_part(text, integer), pgsled.milliseconds(),
  pgsled.end_coordinator(text), pgsled.settle(text, text),
  pgsled.read_decisions(text, text[], bigint), pgsled.forget_decisions(text[], bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgsled.open_decision(integer),
                          pgsled.decide(text, text, integer[]) TO PUBLIC;
)sql";
}

const char* decision_schema_ready() {
  return "SELECT pg_catalog.to_regprocedure('pgsled.forget_decisions(text[],bigint)') IS NOT NULL "
         "AND EXISTS (SELECT FROM pg_catalog.pg_namespace n, "
         "pg_catalog.aclexplode(n.nspacl) a WHERE n.nspname = 'pgsled' AND a.grantee = 0 "
         "AND a.privilege_type = 'USAGE')";
}

}  // namespace pgsled::router
