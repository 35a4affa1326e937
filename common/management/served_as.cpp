#include "common/management/served_as.hpp"

namespace pgsled::management {

// One row: a server database is of one cluster. Like the shard map it is the owner's alone.
const char* served_as_schema() {
  return R"sql(
SELECT pg_catalog.pg_advisory_xact_lock(20737, 1);  -- IF NOT EXISTS is none for two at once
CREATE SCHEMA IF NOT EXISTS pgsled;
REVOKE CREATE ON SCHEMA pgsled FROM PUBLIC;
CREATE TABLE IF NOT EXISTS pgsled.served_as (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  name text NOT NULL,
  other text NOT NULL CHECK (other <> name),
  token text NOT NULL CHECK (token IN (name, other)),
  epoch bigint NOT NULL CHECK (epoch > 0),
  shard integer NOT NULL CHECK (shard >= 0),
  job text,
  fence text,
  stored_at timestamptz NOT NULL DEFAULT now());
REVOKE ALL ON pgsled.served_as FROM PUBLIC;
CREATE OR REPLACE FUNCTION pgsled.read_served_as()
  RETURNS TABLE (name text, other text, token text, epoch bigint, shard integer, job text,
                 fence text)
  LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
  AS $$SELECT s.name, s.other, s.token, s.epoch, s.shard, coalesce(s.job, ''),
              coalesce(s.fence, '') FROM pgsled.served_as s$$;
CREATE OR REPLACE FUNCTION pgsled.begin_cluster_move(own_name text, the_other text,
    the_token text, at_epoch bigint, own_shard integer, new_job text) RETURNS text
  LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
  AS 'INSERT INTO pgsled.served_as AS s (name, other, token, epoch, shard, job)
        VALUES (own_name, the_other, the_token, at_epoch, own_shard, new_job)
      ON CONFLICT (one) DO UPDATE
        SET job = coalesce(s.job, new_job), epoch = greatest(s.epoch, at_epoch),
            other = CASE WHEN s.job IS NULL THEN the_other ELSE s.other END,
            token = CASE WHEN s.job IS NULL THEN the_token ELSE s.token END,
            stored_at = now()
        WHERE s.name = own_name AND s.shard = own_shard
      RETURNING s.job';
CREATE OR REPLACE FUNCTION pgsled.end_cluster_move(old_job text) RETURNS void
  LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
  AS 'UPDATE pgsled.served_as s SET job = NULL, fence = NULL WHERE s.job = old_job';
CREATE OR REPLACE FUNCTION pgsled.set_served_fence(of_job text, own_name text, at_epoch bigint,
                                                   new_fence text) RETURNS boolean
  LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
  AS 'UPDATE pgsled.served_as s SET fence = new_fence
      WHERE s.job = of_job AND s.name = own_name AND s.epoch = at_epoch AND s.fence IS NULL
      RETURNING true';
CREATE OR REPLACE FUNCTION pgsled.lift_served_fence() RETURNS bigint
  LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
  AS 'UPDATE pgsled.served_as s SET fence = NULL WHERE s.fence IS NOT NULL RETURNING s.epoch';
CREATE OR REPLACE FUNCTION pgsled.hand_over(of_job text, of_fence text) RETURNS bigint
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
DECLARE made bigint;
BEGIN
  UPDATE pgsled.served_as s SET name = s.other, other = s.name, epoch = s.epoch + 1,
         fence = NULL, stored_at = now()
    WHERE s.job = of_job AND s.fence = of_fence AND s.name = s.token
    RETURNING s.epoch INTO made;
  IF made IS NULL THEN
    RAISE EXCEPTION 'the fence % of job % was lifted, or these servers have another name by now',
      of_fence, of_job USING ERRCODE = '55006';
  END IF;
  RETURN made;
END $body$;
-- Afterwards these servers are `new_name`, and what is kept under the name they had is, too.
CREATE OR REPLACE FUNCTION pgsled.take_name(new_name text, the_other text, at_epoch bigint,
                                            own_shard integer) RETURNS boolean
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
  UPDATE pgsled.served_as s SET name = new_name, other = the_other, epoch = at_epoch,
         fence = NULL, stored_at = now()
    WHERE s.shard = own_shard AND s.epoch < at_epoch AND s.name IN (new_name, the_other);
  PERFORM FROM pgsled.served_as s
    WHERE s.shard = own_shard AND s.epoch = at_epoch AND s.name = new_name;
  IF NOT FOUND THEN RETURN false; END IF;
  IF to_regclass('pgsled.shard_map') IS NOT NULL THEN
    UPDATE pgsled.shard_map m SET database = new_name WHERE m.database = the_other;
  END IF;
  IF to_regclass('pgsled.placement') IS NOT NULL THEN
    UPDATE pgsled.placement p SET database = new_name WHERE p.database = the_other;
  END IF;
  RETURN true;
END $body$;
REVOKE ALL ON FUNCTION pgsled.read_served_as(),
  pgsled.begin_cluster_move(text, text, text, bigint, integer, text),
  pgsled.end_cluster_move(text), pgsled.set_served_fence(text, text, bigint, text),
  pgsled.lift_served_fence(), pgsled.hand_over(text, text),
  pgsled.take_name(text, text, bigint, integer) FROM PUBLIC;
)sql";
}

}  // namespace pgsled::management
