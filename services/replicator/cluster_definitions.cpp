#include "services/replicator/cluster_definitions.hpp"

namespace pgsled::replicator {

namespace {

// Names are qualified, because the connection's search_path is pg_catalog alone.
constexpr const char* query = R"sql(
WITH spaces AS (SELECT oid, nspname FROM pg_namespace WHERE nspname NOT LIKE 'pg\_%'
  AND nspname NOT IN ('information_schema', 'pgsled')),
tables AS (SELECT c.oid, c.relkind, format('%I.%I', s.nspname, c.relname) AS name
  FROM pg_class c JOIN spaces s ON s.oid = c.relnamespace),
all_of_it (class, oid, what, definition) AS (
  SELECT 'pg_proc'::regclass::oid, p.oid, format('function %s', p.oid::regprocedure),
    CASE WHEN p.prokind = 'a' THEN (SELECT a::text FROM pg_aggregate a WHERE a.aggfnoid = p.oid)
         ELSE pg_get_functiondef(p.oid) END
  FROM pg_proc p JOIN spaces s ON s.oid = p.pronamespace
  UNION ALL
  SELECT 'pg_class'::regclass, t.oid, format('index %s', t.name), pg_get_indexdef(t.oid)
  FROM tables t WHERE t.relkind IN ('i', 'I')
  UNION ALL
  SELECT 'pg_class'::regclass, t.oid, format('view %s', t.name), pg_get_viewdef(t.oid)
  FROM tables t WHERE t.relkind IN ('v', 'm')
  UNION ALL
  SELECT 'pg_class'::regclass, t.oid, format('sequence %s', t.name),
    (SELECT concat_ws(' ', q.seqtypid, q.seqincrement, q.seqmin, q.seqmax, q.seqcycle)
     FROM pg_sequence q WHERE q.seqrelid = t.oid)
  FROM tables t WHERE t.relkind = 'S'
  UNION ALL
  SELECT 'pg_class'::regclass, t.oid, format('trigger %I of table %s', g.tgname, t.name),
    g.tgenabled::text || pg_get_triggerdef(g.oid)
  FROM pg_trigger g JOIN tables t ON t.oid = g.tgrelid WHERE NOT g.tgisinternal
  UNION ALL
  SELECT 'pg_class'::regclass, t.oid, format('rule %I of table %s', r.rulename, t.name),
    r.ev_enabled::text || pg_get_ruledef(r.oid)
  FROM pg_rewrite r JOIN tables t ON t.oid = r.ev_class WHERE r.rulename <> '_RETURN'
  UNION ALL
  SELECT 'pg_class'::regclass, t.oid, format('constraint %I of table %s', k.conname, t.name),
    pg_get_constraintdef(k.oid)
  FROM pg_constraint k JOIN tables t ON t.oid = k.conrelid
  UNION ALL
  SELECT 'pg_class'::regclass, t.oid, format('policy %I of table %s', p.polname, t.name),
    concat_ws(' ', p.polcmd, p.polpermissive, pg_get_expr(p.polqual, p.polrelid),
              pg_get_expr(p.polwithcheck, p.polrelid))
  FROM pg_policy p JOIN tables t ON t.oid = p.polrelid
  UNION ALL
  SELECT 'pg_class'::regclass, t.oid, format('default of column %I of table %s', a.attname, t.name),
    pg_get_expr(d.adbin, d.adrelid)
  FROM pg_attrdef d JOIN tables t ON t.oid = d.adrelid
  JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
  UNION ALL
  SELECT 'pg_type'::regclass, y.oid, format('type %I.%I', s.nspname, y.typname),
    concat_ws(' ', y.typtype, format_type(y.typbasetype, y.typtypmod), y.typnotnull, y.typdefault,
      (SELECT string_agg(e.enumlabel, ',' ORDER BY e.enumsortorder) FROM pg_enum e
       WHERE e.enumtypid = y.oid),
      (SELECT string_agg(pg_get_constraintdef(k.oid), ',' ORDER BY k.conname)
       FROM pg_constraint k WHERE k.contypid = y.oid))
  FROM pg_type y JOIN spaces s ON s.oid = y.typnamespace WHERE y.typtype IN ('e', 'd', 'r'))
SELECT what, md5(definition) FROM all_of_it a
WHERE NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = a.class AND d.objid = a.oid
                  AND d.deptype = 'e')
ORDER BY 1)sql";

// A sequence's own state is in its table, not here.
constexpr const char* stamp_query = R"sql(
SELECT md5(string_agg(row, ',' ORDER BY row)) FROM (
  SELECT concat_ws(' ', 'p', oid, xmin) FROM pg_proc WHERE oid >= 16384
  UNION ALL SELECT concat_ws(' ', 'i', indexrelid, xmin) FROM pg_index WHERE indexrelid >= 16384
  UNION ALL SELECT concat_ws(' ', 'n', oid, relnamespace, relname) FROM pg_class
    WHERE oid >= 16384 AND relkind IN ('i', 'I', 'v', 'm', 'S')
  UNION ALL SELECT concat_ws(' ', 'r', oid, xmin) FROM pg_rewrite WHERE oid >= 16384
  UNION ALL SELECT concat_ws(' ', 's', seqrelid, xmin) FROM pg_sequence
  UNION ALL SELECT concat_ws(' ', 't', oid, xmin) FROM pg_trigger WHERE NOT tgisinternal
  UNION ALL SELECT concat_ws(' ', 'c', oid, xmin) FROM pg_constraint WHERE oid >= 16384
  UNION ALL SELECT concat_ws(' ', 'l', oid, xmin) FROM pg_policy
  UNION ALL SELECT concat_ws(' ', 'd', oid, xmin) FROM pg_attrdef WHERE oid >= 16384
  UNION ALL SELECT concat_ws(' ', 'y', oid, xmin) FROM pg_type WHERE typtype IN ('e', 'd', 'r')
  UNION ALL SELECT concat_ws(' ', 'e', oid, xmin) FROM pg_enum) all_of_it (row))sql";

}  // namespace

result<std::string> definitions_stamp(management::connection& link) {
  const auto rows = link.query(stamp_query);
  if (!rows) return tl::unexpected(rows.error());
  return rows->empty() ? std::string() : rows->front().front();
}

result<definitions> read_definitions(management::connection& link) {
  const auto rows = link.query(query);
  if (!rows) return tl::unexpected(rows.error());
  definitions to;
  for (const auto& row : *rows) to[row[0]] = row[1];
  return to;
}

std::vector<std::string> differences(const definitions& before, const definitions& now) {
  std::vector<std::string> all;
  for (const auto& [what, digest] : before) {
    const auto found = now.find(what);
    if (found == now.end()) {
      all.push_back(what + " was dropped");
    } else if (found->second != digest) {
      all.push_back(what + " was changed");
    }
  }
  for (const auto& [what, digest] : now) {
    if (!before.contains(what)) all.push_back(what + " was made");
  }
  return all;
}

}  // namespace pgsled::replicator
