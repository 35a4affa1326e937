#include "services/replicator/move/definitions.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace pgsled::replicator {

namespace {

// Names are qualified, because the connection's search_path is pg_catalog alone.
constexpr const char* query = R"sql(
WITH spaces AS (SELECT oid, nspname, nspacl, nspowner FROM pg_namespace
  WHERE nspname NOT LIKE 'pg\_%' AND nspname NOT IN ('information_schema', 'pgsled')),
tables AS (SELECT c.oid, c.relkind, c.relowner, c.relrowsecurity, c.relforcerowsecurity,
    c.reloptions, format('%I.%I', s.nspname, c.relname) AS name,
    CASE WHEN c.relkind IN ('r', 'p') THEN s.nspname || '.' || c.relname END AS label,
    coalesce(c.relacl, acldefault(CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::"char",
                                  c.relowner)) AS acl
  FROM pg_class c JOIN spaces s ON s.oid = c.relnamespace),
rights (class, oid, what, label, owner, acl) AS (
  SELECT 'pg_namespace'::regclass::oid, s.oid, format('schema %I', s.nspname), NULL, s.nspowner,
    coalesce(s.nspacl, acldefault('n', s.nspowner)) FROM spaces s WHERE s.nspname <> 'public'
  UNION ALL
  SELECT 'pg_class'::regclass, t.oid, CASE t.relkind WHEN 'S' THEN 'sequence ' ELSE 'table ' END ||
    t.name, t.label, t.relowner, t.acl FROM tables t WHERE t.relkind IN ('r', 'p', 'v', 'm', 'S')
  UNION ALL
  SELECT 'pg_class'::regclass, t.oid, format('column %I of table %s', a.attname, t.name), t.label,
    t.relowner, a.attacl
  FROM pg_attribute a JOIN tables t ON t.oid = a.attrelid
  WHERE a.attacl IS NOT NULL AND a.attnum > 0 AND NOT a.attisdropped
  UNION ALL
  SELECT 'pg_proc'::regclass, p.oid, format('function %s', p.oid::regprocedure), NULL, p.proowner,
    coalesce(p.proacl, acldefault('f', p.proowner)) FROM pg_proc p JOIN spaces s
    ON s.oid = p.pronamespace),
all_of_it (class, oid, what, label, role, definition) AS (
  SELECT r.class, r.oid, format('right %s on %s of %s', g.privilege_type, r.what,
      coalesce(quote_ident(who.rolname), 'PUBLIC')), r.label,
    coalesce(quote_ident(who.rolname), 'PUBLIC'),
    CASE WHEN g.grantee = r.owner THEN 'owner' ELSE '' END
  FROM rights r, aclexplode(r.acl) g LEFT JOIN pg_roles who ON who.oid = g.grantee
  WHERE who.rolsuper IS NOT TRUE AND g.privilege_type <> 'MAINTAIN'
  UNION ALL
  SELECT 'pg_extension'::regclass, e.oid, format('extension %I', e.extname), NULL, NULL, ''
  FROM pg_extension e
  UNION ALL
  SELECT 'pg_proc'::regclass, p.oid, format('function %s', p.oid::regprocedure), NULL, NULL,
    CASE WHEN p.prokind = 'a' THEN (SELECT concat_ws(' ', a.aggkind, a.aggtransfn, a.aggfinalfn,
             a.aggcombinefn, a.aggserialfn, a.aggdeserialfn, format_type(a.aggtranstype, NULL),
             a.aggfinalextra, a.agginitval) FROM pg_aggregate a WHERE a.aggfnoid = p.oid)
         ELSE pg_get_functiondef(p.oid) END
  FROM pg_proc p JOIN spaces s ON s.oid = p.pronamespace
  UNION ALL
  SELECT 'pg_class'::regclass, t.oid, format('index %s', t.name), NULL, NULL,
    pg_get_indexdef(t.oid)
  FROM tables t WHERE t.relkind IN ('i', 'I')
  UNION ALL
  SELECT 'pg_class'::regclass, t.oid, format('view %s', t.name), NULL, NULL,
    concat_ws(' ', t.reloptions, pg_get_viewdef(t.oid))
  FROM tables t WHERE t.relkind IN ('v', 'm')
  UNION ALL
  SELECT 'pg_class'::regclass, t.oid, format('sequence %s', t.name), NULL, NULL,
    (SELECT concat_ws(' ', q.seqtypid, q.seqincrement, q.seqmin, q.seqmax, q.seqcycle)
     FROM pg_sequence q WHERE q.seqrelid = t.oid)
  FROM tables t WHERE t.relkind = 'S'
  UNION ALL
  SELECT 'pg_class'::regclass, t.oid, format('trigger %I of table %s', g.tgname, t.name), t.label,
    NULL, g.tgenabled::text || pg_get_triggerdef(g.oid)
  FROM pg_trigger g JOIN tables t ON t.oid = g.tgrelid WHERE NOT g.tgisinternal
  UNION ALL
  SELECT 'pg_class'::regclass, t.oid, format('rule %I of table %s', r.rulename, t.name), t.label,
    NULL, r.ev_enabled::text || pg_get_ruledef(r.oid)
  FROM pg_rewrite r JOIN tables t ON t.oid = r.ev_class WHERE r.rulename <> '_RETURN'
  UNION ALL
  SELECT 'pg_class'::regclass, t.oid, format('constraint %I of table %s', k.conname, t.name),
    t.label, NULL, pg_get_constraintdef(k.oid)
  FROM pg_constraint k JOIN tables t ON t.oid = k.conrelid WHERE k.contype <> 'n'
  UNION ALL
  SELECT 'pg_class'::regclass, t.oid, format('policy %I of table %s', p.polname, t.name), t.label,
    NULL, concat_ws(' ', p.polcmd, p.polpermissive,
      coalesce(pg_get_expr(p.polqual, p.polrelid), '-'),
      coalesce(pg_get_expr(p.polwithcheck, p.polrelid), '-'),
      (SELECT string_agg(coalesce(r.rolname, 'public'), ',' ORDER BY r.rolname)
       FROM unnest(p.polroles) u LEFT JOIN pg_roles r ON r.oid = u))
  FROM pg_policy p JOIN tables t ON t.oid = p.polrelid
  UNION ALL
  SELECT 'pg_class'::regclass, t.oid, format('row security of table %s', t.name), t.label, NULL,
    concat_ws(' ', t.relrowsecurity, t.relforcerowsecurity) FROM tables t
  WHERE t.relkind IN ('r', 'p')
  UNION ALL
  SELECT 'pg_class'::regclass, t.oid, format('default of column %I of table %s', a.attname, t.name),
    t.label, NULL, pg_get_expr(d.adbin, d.adrelid)
  FROM pg_attrdef d JOIN tables t ON t.oid = d.adrelid
  JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
  UNION ALL
  SELECT 'pg_type'::regclass, y.oid, format('type %I.%I', s.nspname, y.typname), NULL, NULL,
    concat_ws(' ', y.typtype, format_type(y.typbasetype, y.typtypmod), y.typnotnull,
      coalesce(y.typdefault, '-'),
      (SELECT string_agg(e.enumlabel, ',' ORDER BY e.enumsortorder) FROM pg_enum e
       WHERE e.enumtypid = y.oid),
      (SELECT string_agg(pg_get_constraintdef(k.oid), ',' ORDER BY k.conname)
       FROM pg_constraint k WHERE k.contypid = y.oid AND k.contype <> 'n'))
  FROM pg_type y JOIN spaces s ON s.oid = y.typnamespace WHERE y.typtype IN ('e', 'd', 'r'))
SELECT what, md5(definition), md5({}),
  coalesce(label, ''), coalesce(role, ''), definition = 'owner' FROM all_of_it a
WHERE NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = a.class AND d.objid = a.oid
                  AND d.deptype = 'e')
ORDER BY 1)sql";

constexpr const char* roles_query = "SELECT quote_ident(rolname), rolsuper FROM pg_roles";

// A sequence's own state is in its table, not here.
constexpr const char* stamp_query = R"sql(
SELECT md5(string_agg(row, ',' ORDER BY row)) FROM (
  SELECT concat_ws(' ', 'p', oid, xmin) FROM pg_proc WHERE oid >= 16384
  UNION ALL SELECT concat_ws(' ', 'i', indexrelid, xmin) FROM pg_index WHERE indexrelid >= 16384
  UNION ALL SELECT concat_ws(' ', 'n', oid, relnamespace, relname) FROM pg_class
    WHERE oid >= 16384 AND relkind IN ('i', 'I', 'v', 'm', 'S')
  UNION ALL SELECT concat_ws(' ', 'g', oid, relowner, relacl, relrowsecurity, relforcerowsecurity)
    FROM pg_class WHERE oid >= 16384 AND relkind IN ('r', 'p', 'v', 'm', 'S')
  UNION ALL SELECT concat_ws(' ', 'a', attrelid, attnum, attacl) FROM pg_attribute
    WHERE attacl IS NOT NULL AND attrelid >= 16384
  UNION ALL SELECT concat_ws(' ', 'h', oid, nspowner, nspacl) FROM pg_namespace
    WHERE nspname NOT LIKE 'pg\_%' AND nspname NOT IN ('information_schema', 'pgsled')
  UNION ALL SELECT concat_ws(' ', 'r', oid, xmin) FROM pg_rewrite WHERE oid >= 16384
  UNION ALL SELECT concat_ws(' ', 's', seqrelid, xmin) FROM pg_sequence
  UNION ALL SELECT concat_ws(' ', 't', oid, xmin) FROM pg_trigger WHERE NOT tgisinternal
  UNION ALL SELECT concat_ws(' ', 'c', oid, xmin) FROM pg_constraint WHERE oid >= 16384
  UNION ALL SELECT concat_ws(' ', 'l', oid, xmin) FROM pg_policy
  UNION ALL SELECT concat_ws(' ', 'd', oid, xmin) FROM pg_attrdef WHERE oid >= 16384
  UNION ALL SELECT concat_ws(' ', 'y', oid, xmin) FROM pg_type WHERE typtype IN ('e', 'd', 'r')
  UNION ALL SELECT concat_ws(' ', 'e', oid, xmin) FROM pg_enum) all_of_it (row))sql";

}  // namespace

std::string loosely(std::string_view text) {
  return fmt::format(
      R"(regexp_replace({}, '::(character varying|text)(\(\d+\))?(\[\])*|[()\s]', '', 'g'))", text);
}

result<std::string> definitions_stamp(management::connection& link) {
  const auto rows = link.query(stamp_query);
  if (!rows) return tl::unexpected(rows.error());
  return rows->empty() ? std::string() : rows->front().front();
}

result<definitions> read_definitions(management::connection& link) {
  const auto rows = link.query(fmt::format(fmt::runtime(query), loosely("definition")));
  if (!rows) return tl::unexpected(rows.error());
  definitions to;
  for (const auto& row : *rows) to[row[0]] = {row[1], row[2], row[3], row[4], row[5] == "t"};
  return to;
}

result<std::map<std::string, bool>> read_roles(management::connection& link) {
  const auto rows = link.query(roles_query);
  if (!rows) return tl::unexpected(rows.error());
  std::map<std::string, bool> to{{"PUBLIC", false}};
  for (const auto& row : *rows) to[row[0]] = row[1] == "t";
  return to;
}

std::vector<std::string> differences(const definitions& before, const definitions& now) {
  std::vector<std::string> all;
  for (const auto& [what, one] : before) {
    const auto found = now.find(what);
    if (found == now.end()) {
      all.push_back(what + " was dropped");
    } else if (found->second.digest != one.digest) {
      all.push_back(what + " was changed");
    }
  }
  for (const auto& [what, one] : now) {
    if (!before.contains(what)) all.push_back(what + " was made");
  }
  return all;
}

namespace {

bool is(const std::string& what, std::string_view kind) { return what.starts_with(kind); }

// A constraint is known by what it says, whatever its name.
bool has_constraint(const definitions& in, const defined& like) {
  return std::any_of(in.begin(), in.end(), [&](const auto& one) {
    return is(one.first, "constraint ") && one.second.table == like.table &&
           one.second.loose == like.loose;
  });
}

}  // namespace

unlike unlike_there(const definitions& here, const other_shard& there, bool printed_alike) {
  unlike to;
  const auto add = [&](bool sure, std::string what) {
    (sure ? to.wrong : to.perhaps).push_back(std::move(what));
  };
  const auto takes_part = [&](const defined& one) {
    return one.table.empty() || there.tables.contains(one.table);
  };
  for (const auto& [what, one] : here) {
    if (is(what, "index ") || !takes_part(one)) continue;
    const auto found = there.all.find(what);
    const bool bound = !one.table.empty();
    if (is(what, "constraint ") && has_constraint(there.all, one)) continue;
    if (is(what, "right ")) {
      const auto role = there.roles.find(one.role);
      const bool known = role != there.roles.end();
      if (found != there.all.end() || (known && role->second)) continue;
      add(printed_alike && known && !one.of_owner, what + " is not there");
    } else if (found == there.all.end()) {
      add(bound && (printed_alike || !is(what, "constraint ")), what + " is not there");
    } else if (found->second.loose != one.loose && !is(what, "sequence ")) {
      add(printed_alike && !is(what, "view "), what + " is another one there");
    }
  }
  for (const auto& [what, one] : there.all) {
    if (here.contains(what) || one.table.empty() || !takes_part(one)) continue;
    if (is(what, "constraint ") && has_constraint(here, one)) continue;
    add(!is(what, "right ") && (printed_alike || !is(what, "constraint ")), what + " is only there");
  }
  return to;
}

}  // namespace pgsled::replicator
