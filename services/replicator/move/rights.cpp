#include "services/replicator/move/rights.hpp"

#include <fmt/format.h>

#include "common/commit/statements.hpp"

namespace pgsled::replicator {

namespace {

// Whether the role may create in the database, sees what others do, owns schema pgsled; sequences
// and schemas it has no right to; functions it may not call. Names of system schemas are left out.
constexpr const char* rights_query = R"sql(
WITH of_extensions AS (SELECT objid FROM pg_depend WHERE classid = 'pg_class'::regclass
                       AND deptype = 'e')
SELECT has_database_privilege(current_database(), 'CREATE'),
  pg_has_role('pg_read_all_stats', 'USAGE'),
  (SELECT pg_has_role(nspowner, 'USAGE') FROM pg_namespace WHERE nspname = 'pgsled'),
  (SELECT string_agg(DISTINCT quote_ident(pg_get_userbyid(c.relowner)), ', ')
   FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
   WHERE c.relkind = 'S' AND n.nspname NOT IN ('information_schema', 'pgsled')
     AND n.nspname NOT LIKE 'pg\_%' AND NOT pg_has_role(c.relowner, 'USAGE')
     AND c.oid NOT IN (SELECT objid FROM of_extensions)),
  (SELECT string_agg(DISTINCT quote_ident(n.nspname), ', ')
   FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
   WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('information_schema', 'pgsled')
     AND n.nspname NOT LIKE 'pg\_%' AND NOT (has_schema_privilege(n.oid, 'USAGE')
       AND has_schema_privilege(n.oid, 'CREATE'))
     AND c.oid NOT IN (SELECT objid FROM of_extensions)),
  (SELECT string_agg(oid::regprocedure::text, ', ' ORDER BY proname) FROM pg_proc
   WHERE pronamespace = 'pg_catalog'::regnamespace AND proname = ANY ({})
     AND NOT has_function_privilege(oid, 'EXECUTE')))sql";

}  // namespace

result<std::vector<std::string>> missing_rights(management::connection& link,
                                                const move_scene& scene, shard_number shard,
                                                const shard_roles& roles) {
  const auto& at = scene.where.shards.at(shard);
  const auto role = moving::quoted(at.user);
  const auto [source, destination, resumes] = roles;
  std::vector<std::string> missing;
  const auto lacks = [&](std::string_view what, std::string_view way_out) {
    missing.push_back(fmt::format("shard {}: role {} {}: {}", shard, role, what, way_out));
  };
  // Tried, because services and versions have their own rules for both.
  if (const auto refused = execute(link, "SET LOCAL session_replication_role = replica")) {
    if (refused->sqlstate != "42501") return tl::unexpected(*refused);
    lacks("may not set session_replication_role",
          fmt::format("GRANT SET ON PARAMETER session_replication_role TO {} (PostgreSQL 15 and "
                      "later; before, a superuser or the administrator of a managed service)",
                      role));
  }
  if (source) {
    if (const auto walsender = scene.open(shard, std::chrono::milliseconds(5000), true);
        !walsender) {
      lacks(fmt::format("cannot open a replication connection ({})", walsender.error().message),
            fmt::format("ALTER ROLE {} REPLICATION, on RDS GRANT rds_replication TO {}, and let it "
                        "in by pg_hba.conf", role, role));
    }
  }
  std::vector<std::string> functions;
  if (source || destination) {
    functions = {"pg_replication_origin_create", "pg_replication_origin_drop",
                 "pg_replication_origin_session_setup"};
  }
  if (source) functions.push_back("pg_replication_origin_session_reset");
  if (destination) functions.push_back("pg_replication_origin_xact_setup");
  if (resumes) functions.push_back("pg_replication_origin_session_progress");
  const auto rows = link.query(fmt::format(fmt::runtime(rights_query), text_array(functions)));
  if (!rows) return tl::unexpected(rows.error());
  const auto& row = rows->at(0);
  if (row[0] != "t") {
    lacks("may not create a publication or a schema",
          fmt::format("GRANT CREATE ON DATABASE {} TO {}", moving::quoted(at.database), role));
  }
  if (source && row[1] != "t") {
    lacks("does not see how old transactions of others are",
          fmt::format("GRANT pg_read_all_stats TO {}", role));
  }
  if (row[2] == "f") lacks("does not own schema pgsled", "GRANT its owner TO " + role);
  if ((source || destination) && !row[3].empty()) {
    lacks("does not own all sequences", "GRANT " + row[3] + " TO " + role);
  }
  if (destination && !row[4].empty()) {
    lacks("may not create indexes in every schema",
          "GRANT USAGE, CREATE ON SCHEMA " + row[4] + " TO " + role);
  }
  if (!row[5].empty()) {
    lacks("may not use replication origins",
          "GRANT EXECUTE ON FUNCTION " + row[5] + " TO " + role);
  }
  return missing;
}

}  // namespace pgsled::replicator
