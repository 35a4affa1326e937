#include "common/plan/planner.hpp"

#include <gtest/gtest.h>

#include <chrono>

#include "common/sql/parse.hpp"
#include "common/sql/shape.hpp"

namespace pgsled::plan {
namespace {

database_view messenger() {
  database_view d;
  d.name = "messenger";
  d.shards = 3;
  d.sharded = {{"", "a", "user_id", "bigint"},         {"", "b", "user_id", "bigint"},
               {"", "messages", "sender_id", "bigint"}, {"app", "events", "user_id", "bigint"},
               {"", "docs", "doc", "uuid"}};
  d.catalog.loaded = true;
  d.catalog.hides_sharded = {"public.v_messages", "public.messages_p1"};
  d.catalog.safe_functions = {"count", "sum", "max", "now", "lower", "generate_series", "version",
                              "pg_advisory_unlock_all", "pg_advisory_unlock", "nextval", "currval",
                              "row_number", "set_config", "unnest", "query_to_xml", "setval",
                              "pg_advisory_lock", "pg_notify", "lo_create", "jsonb_array_elements",
                              "format_type", "pg_table_is_visible", "pg_get_userbyid"};
  d.catalog.immutable_functions = {"count", "sum", "max", "lower"};
  d.catalog.tables = {{"public", "messages", {"id", "sender_id", "content"}},
                      {"public", "a", {"user_id", "x"}}};
  return d;
}

std::string show(const key& k) {
  switch (k.source) {
    case key_source::none: return "?";
    case key_source::parameter: return "$" + std::to_string(k.number + 1);
    case key_source::literal: return (k.negated ? "-#" : "#") + std::to_string(k.number);
    case key_source::constant:
      return "=" + (k.text.empty() ? std::to_string(k.constant) : k.text);
  }
  return "?";
}

std::string show(const plan& p) {
  std::string text;
  switch (p.destination) {
    case destination::one_shard: text = show(p.key); break;
    case destination::any_shard: text = "any"; break;
    case destination::all_shards: text = "all"; break;
    case destination::refused: return "no";
    case destination::copy_in: text = "in " + p.copy.table + ":" + p.copy.key; break;
    case destination::copy_out: text = "out " + p.copy.table + ":" + p.copy.key; break;
  }
  for (const auto& k : p.also_equal) text += " & " + show(k);
  if (p.access == access::write && p.destination != destination::all_shards) text += " w";
  if (p.own_transaction) text += " own";
  if (!p.rows.table.empty()) {
    text += " " + p.rows.table + " " + p.rows.reference + (p.rows.returning ? " returning" : "") +
            (p.rows.repeatable ? " again" : "") + (p.rows.locks ? " locks" : "");
  }
  for (const auto& name : p.spread_sequences_of) text += " " + name;
  return text;
}

plan planned(const std::string& sql, const database_view& database,
             std::vector<std::uint32_t> types = {}, const std::string& path = {},
             std::vector<std::string> unsettled = {}) {
  request r{"messenger", "bob", path, sql, std::move(types), {}, {}, std::move(unsettled)};
  auto tree = sql::parse_tree(sql);
  EXPECT_TRUE(tree.has_value()) << sql << (tree ? "" : ": " + tree.error().message);
  if (tree) r.tree = *tree;
  sql::shape shape;
  sql::find_shape(sql, true, shape);
  for (const auto& l : shape.literals) r.literal_offsets.push_back(l.offset);
  return make_plan(r, database, 7).plan;
}

struct plan_case {
  const char* sql;
  const char* plan;
};

const plan_case reads[] = {
    // The simple ones
    {"SELECT * FROM a WHERE user_id = $1", "$1"},
    {"SELECT * FROM a WHERE $2 = user_id AND x = $1", "$2"},
    {"SELECT * FROM a WHERE x = 'q' AND user_id = 5", "#1"},
    {"SELECT * FROM a WHERE user_id = -5", "-#0"},
    {"SELECT * FROM a WHERE user_id = - - 5", "#0"},
    {"SELECT * FROM a WHERE user_id = -(5)", "-#0"},
    {"SELECT * FROM a WHERE user_id = '5'", "#0"},
    {"SELECT * FROM a WHERE user_id = '-5'", "#0"},
    {"SELECT * FROM a WHERE user_id = 9223372036854775807", "#0"},
    {"SELECT * FROM a WHERE user_id = E'5'", "=5"},
    {"SELECT * FROM a WHERE user_id = bigint '7'", "=7"},
    {"SELECT * FROM a WHERE user_id = $$7$$", "=7"},
    {"SELECT * FROM a WHERE user_id = E'x'", "no"},
    {"SELECT * FROM a WHERE user_id = $1::bigint", "$1"},
    {"SELECT * FROM a WHERE user_id = CAST($1 AS int)", "$1"},
    {"SELECT * FROM a WHERE user_id = $1::int4::int8", "$1"},
    {"SELECT * FROM a WHERE user_id = '5'::int8", "#0"},
    {"SELECT * FROM a WHERE user_id = 5::smallint", "#0"},
    {"SELECT * FROM a t WHERE t.user_id = $1", "$1"},
    {"SELECT * FROM public.a WHERE public.a.user_id = $1", "$1"},
    {"SELECT * FROM public.a WHERE a.user_id = $1", "$1"},
    {"SELECT * FROM ONLY a WHERE user_id = $1", "$1"},
    {"SELECT * FROM \"a\" WHERE \"user_id\" = $1", "$1"},
    {"SELECT * FROM a WHERE user_id IN ($1)", "$1"},
    {"SELECT * FROM a WHERE user_id IN (5)", "#0"},
    {"SELECT * FROM a WHERE (user_id, x) = ($1, $2)", "$1"},
    {"SELECT * FROM a, z WHERE ((z.c).*, user_id, x) = (1, $1, (z.d).*)", "no"},
    {"SELECT * FROM a, z WHERE (z.*, user_id) = ($1, $2)", "no"},
    {"SELECT * FROM public.b, app.b WHERE app.b.user_id = $1", "no"},
    {"SELECT * FROM b, app.b WHERE b.user_id = $1 AND app.b.user_id = $1", "no"},
    {"SELECT * FROM b x, app.b WHERE app.b.user_id = $1 AND x.user_id = $1", "$1"},
    {"SELECT * FROM a WHERE user_id OPERATOR(pg_catalog.=) $1", "$1"},
    {"SELECT * FROM a WHERE user_id = $1 AND (x = 1 OR x = 2) AND NOT y", "$1"},
    {"SELECT count(*), max(x) FROM a WHERE user_id = $1 GROUP BY x HAVING count(*) > 1 "
     "ORDER BY 1 LIMIT 5 OFFSET 6", "$1"},
    {"SELECT DISTINCT ON (x) x, row_number() OVER (PARTITION BY x) FROM a WHERE user_id = $1", "$1"},
    {"SELECT * FROM a WHERE user_id = $1 FOR UPDATE", "$1 w"},
    {"SELECT * FROM a WHERE user_id = $1 AND user_id = $2", "$1"},
    {"SELECT content FROM messages WHERE sender_id = $1 AND id = $2", "$1"},
    {"SELECT * FROM events WHERE user_id = $1", "any"},  // app is not in the path
    {"SELECT * FROM app.events WHERE user_id = $1", "$1"},
    {"SELECT * FROM app.events", "no"},
    // Not equal to one value
    {"SELECT * FROM a", "no"},
    {"TABLE a", "no"},
    {"SELECT * FROM a WHERE x = $1", "no"},
    {"SELECT * FROM a WHERE user_id > $1", "no"},
    {"SELECT * FROM a WHERE user_id <> $1", "no"},
    {"SELECT * FROM a WHERE user_id IN ($1, $2)", "no"},
    {"SELECT * FROM a WHERE user_id IN (1, 2)", "no"},
    {"SELECT * FROM a WHERE user_id NOT IN ($1)", "no"},
    {"SELECT * FROM a WHERE user_id = ANY($1)", "no"},
    {"SELECT * FROM a WHERE user_id = ANY(ARRAY[1])", "no"},
    {"SELECT * FROM a WHERE user_id = ALL('{5}')", "no"},
    {"SELECT * FROM a WHERE user_id BETWEEN 5 AND 5", "no"},
    {"SELECT * FROM a WHERE user_id IS NULL", "no"},
    {"SELECT * FROM a WHERE user_id = NULL", "no"},
    {"SELECT * FROM a WHERE user_id IS NOT DISTINCT FROM $1", "no"},
    {"SELECT * FROM a WHERE user_id = $1 OR x = 5", "no"},
    {"SELECT * FROM a WHERE user_id = $1 OR user_id = $1", "no"},
    {"SELECT * FROM a WHERE NOT user_id = $1", "no"},
    {"SELECT * FROM a WHERE NOT (user_id = $1 AND x = 5)", "no"},
    {"SELECT * FROM a WHERE (user_id = $1) IS NOT TRUE", "no"},
    {"SELECT * FROM a WHERE CASE WHEN user_id = $1 THEN true END", "no"},
    {"SELECT * FROM a WHERE user_id = 5.0", "no"},
    {"SELECT * FROM a WHERE user_id = 5e0", "no"},
    {"SELECT * FROM a WHERE user_id = 9223372036854775808", "no"},
    {"SELECT * FROM a WHERE user_id = 5.7::bigint", "no"},
    {"SELECT * FROM a WHERE user_id = $1::numeric", "no"},
    {"SELECT * FROM a WHERE user_id = $1::text::bigint", "no"},
    {"SELECT * FROM a WHERE user_id::text = '5'", "no"},
    {"SELECT * FROM a WHERE user_id + 0 = $1", "no"},
    {"SELECT * FROM a WHERE user_id = $1 + 0", "no"},
    {"SELECT * FROM a WHERE user_id = -$1", "no"},
    {"SELECT * FROM a WHERE user_id = abs($1)", "no"},
    {"SELECT * FROM a WHERE user_id = (SELECT 5)", "no"},
    {"SELECT * FROM a WHERE user_id = true", "no"},
    {"SELECT * FROM a WHERE user_id = B'101'::int8", "no"},
    {"SELECT * FROM a WHERE user_id OPERATOR(app.=) $1", "no"},
    {"SELECT * FROM a HAVING count(*) = 1", "no"},
    {"SELECT * FROM a GROUP BY user_id HAVING user_id = $1", "no"},
    {"SELECT user_id = $1 FROM a", "no"},
    {"SELECT * FROM a AS t(k, y) WHERE user_id = $1", "no"},
    {"SELECT * FROM a AS t(x, user_id) WHERE t.user_id = $1", "no"},
    {"SELECT * FROM docs WHERE doc = $1", "no"},
    // Joins
    {"SELECT * FROM a JOIN b ON a.user_id = b.user_id WHERE a.user_id = $1", "$1"},
    {"SELECT * FROM a JOIN b ON b.user_id = a.user_id AND a.x = b.y WHERE b.user_id = 5", "#0"},
    {"SELECT * FROM a JOIN b USING (user_id) WHERE user_id = $1", "$1"},
    {"SELECT * FROM a JOIN b USING (user_id) WHERE b.user_id = $1", "$1"},
    {"SELECT * FROM a LEFT JOIN b USING (user_id) WHERE user_id = $1", "$1"},
    {"SELECT * FROM a RIGHT JOIN b USING (user_id) WHERE user_id = $1", "$1"},
    {"SELECT * FROM a FULL JOIN b USING (user_id) WHERE user_id = $1", "no"},
    {"SELECT * FROM a JOIN b USING (user_id, x) WHERE a.user_id = $1", "$1"},
    {"SELECT * FROM a JOIN b USING (x) WHERE a.user_id = $1", "no"},
    {"SELECT * FROM a NATURAL JOIN b WHERE user_id = $1", "no"},
    {"SELECT * FROM a, b WHERE a.user_id = b.user_id AND a.user_id = $1", "$1"},
    {"SELECT * FROM a, b WHERE a.user_id = $1 AND b.user_id = $1", "$1"},
    {"SELECT * FROM a, b WHERE a.user_id = $1 AND b.user_id = $2", "$1 & $2"},
    {"SELECT * FROM a, b WHERE a.user_id = 5 AND b.user_id = 5", "#0 & #1"},
    {"SELECT * FROM a, b WHERE a.user_id = E'5' AND b.user_id = E'6'", "no"},
    {"SELECT * FROM a, b WHERE a.user_id = $1 AND b.user_id = 7", "$1 & #0"},
    {"SELECT * FROM a, b WHERE a.user_id = $1", "no"},
    {"SELECT * FROM a, b WHERE user_id = $1", "no"},
    {"SELECT * FROM a CROSS JOIN b WHERE a.user_id = $1", "no"},
    {"SELECT * FROM a JOIN messages m ON m.sender_id = a.user_id WHERE user_id = $1", "$1"},
    {"SELECT * FROM a JOIN messages m ON m.id = a.user_id WHERE user_id = $1", "no"},
    {"SELECT * FROM a x JOIN a y ON x.user_id = y.user_id WHERE x.user_id = $1", "$1"},
    {"SELECT * FROM a x JOIN a y ON x.user_id = y.x WHERE x.user_id = $1", "no"},
    {"SELECT * FROM a LEFT JOIN b ON a.user_id = b.user_id WHERE a.user_id = $1", "$1"},
    {"SELECT * FROM a LEFT JOIN b ON a.user_id = b.user_id AND b.user_id = $1", "no"},
    {"SELECT * FROM a LEFT JOIN b ON a.user_id = $1 AND b.user_id = $1", "no"},
    {"SELECT * FROM a LEFT JOIN b ON b.user_id = $1 WHERE a.user_id = $1", "$1"},
    {"SELECT * FROM a LEFT JOIN b ON a.user_id = b.user_id WHERE b.user_id = $1", "no"},
    {"SELECT * FROM a LEFT JOIN b ON b.x = a.x WHERE a.user_id = $1 AND b.user_id = $1", "$1"},
    {"SELECT * FROM a RIGHT JOIN b ON a.user_id = b.user_id WHERE b.user_id = $1", "$1"},
    {"SELECT * FROM a RIGHT JOIN b ON a.user_id = b.user_id WHERE a.user_id = $1", "no"},
    {"SELECT * FROM a FULL JOIN b ON a.user_id = b.user_id WHERE a.user_id = $1", "no"},
    {"SELECT * FROM a FULL JOIN b ON a.user_id = b.user_id WHERE a.user_id = $1 AND b.user_id = $1", "$1"},
    {"SELECT * FROM a LEFT JOIN (b JOIN messages m ON m.sender_id = b.user_id) "
     "ON a.user_id = b.user_id WHERE a.user_id = $1", "$1"},
    {"SELECT * FROM (a JOIN b USING (user_id)) AS j WHERE j.user_id = $1", "no"},
    {"SELECT * FROM (a JOIN b ON a.user_id = $1 AND b.user_id = $1) AS j", "$1"},
    {"SELECT * FROM a JOIN b ON true WHERE a.user_id = $1 AND b.user_id = a.user_id", "$1"},
    {"SELECT * FROM a JOIN b ON a.user_id = b.user_id OR true WHERE a.user_id = $1", "no"},
    {"SELECT * FROM a JOIN types t ON t.id = a.x WHERE a.user_id = $1", "$1"},
    {"SELECT * FROM a JOIN users u ON u.id = a.user_id WHERE u.id = $1", "no"},
    {"SELECT * FROM users u JOIN a USING (user_id) WHERE user_id = $1", "no"},
    {"SELECT * FROM users u JOIN a USING (user_id) WHERE a.user_id = $1", "$1"},
    {"SELECT * FROM types LEFT JOIN a ON a.user_id = $1", "$1"},
    {"SELECT * FROM a TABLESAMPLE system (10) WHERE user_id = $1", "$1"},
    {"SELECT * FROM a WHERE user_id = $1 FOR UPDATE OF a", "$1 w"},
    {"SELECT * FROM a JOIN types ON true WHERE a.user_id = $1 FOR UPDATE", "no"},
    {"SELECT * FROM a JOIN types ON true WHERE a.user_id = $1 FOR UPDATE OF a", "$1 w"},
    {"SELECT * FROM a JOIN types ON true WHERE a.user_id = $1 FOR SHARE OF types", "no"},
    // Sub-selects
    {"SELECT * FROM a WHERE user_id = $1 AND EXISTS (SELECT 1 FROM b WHERE b.user_id = a.user_id)", "$1"},
    {"SELECT * FROM a WHERE user_id = $1 AND NOT EXISTS (SELECT 1 FROM b WHERE b.user_id = a.user_id AND b.x = 1)", "$1"},
    {"SELECT * FROM a WHERE user_id = $1 AND EXISTS (SELECT 1 FROM b WHERE b.x = a.x)", "no"},
    {"SELECT * FROM a WHERE EXISTS (SELECT 1 FROM b WHERE b.user_id = $1)", "no"},
    {"SELECT * FROM a WHERE EXISTS (SELECT 1 FROM b WHERE b.user_id = a.user_id AND a.user_id = $1)", "no"},
    {"SELECT * FROM a WHERE x IN (SELECT id FROM messages WHERE sender_id = $1) AND user_id = $1", "$1"},
    {"SELECT * FROM a WHERE user_id IN (SELECT user_id FROM b WHERE user_id = $1)", "$1"},
    {"SELECT * FROM a WHERE user_id IN (SELECT b.user_id FROM b) AND user_id = $1", "$1"},
    {"SELECT * FROM a WHERE user_id IN (SELECT user_id FROM b LIMIT 1) AND user_id = $1", "no"},
    {"SELECT * FROM a WHERE user_id IN (SELECT x FROM b WHERE user_id = $1)", "no"},
    {"SELECT * FROM a WHERE user_id NOT IN (SELECT user_id FROM b WHERE user_id = $1)", "no"},
    {"SELECT * FROM a WHERE user_id IN (SELECT user_id FROM b WHERE user_id = $1) OR x = 1", "no"},
    {"SELECT (SELECT count(*) FROM b WHERE b.user_id = a.user_id) FROM a WHERE a.user_id = $1", "$1"},
    {"SELECT (SELECT count(*) FROM b) FROM a WHERE a.user_id = $1", "no"},
    {"SELECT (SELECT count(*) FROM a)", "no"},
    {"SELECT * FROM a WHERE user_id = $1 ORDER BY (SELECT max(x) FROM b)", "no"},
    {"SELECT * FROM a WHERE user_id = $1 LIMIT (SELECT count(*) FROM b)", "no"},
    {"SELECT * FROM (SELECT * FROM a WHERE user_id = $1) s", "$1"},
    {"SELECT * FROM (SELECT * FROM a) s WHERE s.user_id = $1", "no"},
    {"SELECT * FROM (SELECT * FROM a LIMIT 10) s WHERE s.user_id = $1", "no"},
    {"SELECT * FROM a, LATERAL (SELECT * FROM b WHERE b.user_id = a.user_id LIMIT 3) l WHERE a.user_id = $1", "$1"},
    {"SELECT * FROM a LEFT JOIN LATERAL (SELECT * FROM b WHERE b.user_id = a.user_id) l ON true WHERE a.user_id = $1", "$1"},
    {"SELECT * FROM a, jsonb_array_elements(a.x) e WHERE a.user_id = $1", "$1"},
    {"SELECT * FROM a WHERE user_id = $1 UNION ALL SELECT * FROM b WHERE user_id = $1", "$1"},
    {"SELECT * FROM a WHERE user_id = $1 EXCEPT SELECT * FROM b", "no"},
    {"SELECT * FROM a WHERE user_id = $1 UNION SELECT * FROM types ORDER BY 1", "$1"},
    {"SELECT * FROM a t WHERE EXISTS (SELECT 1 FROM b t WHERE t.user_id = $1)", "no"},
    {"SELECT * FROM a WHERE user_id = $1 AND EXISTS (SELECT 1 FROM types t, b WHERE b.x = 1 AND user_id = $1)", "$1"},
    {"SELECT * FROM a WHERE a.user_id = $1 AND x = (SELECT max(x) FROM b WHERE user_id = a.user_id)", "$1"},
    // CTEs
    {"WITH q AS (SELECT * FROM a WHERE user_id = $1) SELECT * FROM q", "$1"},
    {"WITH q AS (SELECT * FROM a) SELECT * FROM q WHERE user_id = $1", "no"},
    {"WITH a AS (SELECT * FROM a WHERE user_id = $1) SELECT * FROM a", "$1"},
    {"WITH a AS (SELECT 1 AS user_id) SELECT * FROM a", "any"},
    {"WITH a AS (SELECT 1) SELECT * FROM public.a", "no"},
    {"WITH q AS (SELECT 1), a AS (SELECT * FROM a WHERE user_id = $1) SELECT * FROM a, q", "$1"},
    {"WITH RECURSIVE a AS (SELECT 1 UNION ALL SELECT * FROM a) SELECT * FROM a", "any"},
    {"WITH RECURSIVE r AS (SELECT x FROM a WHERE user_id = $1 UNION ALL SELECT a.x FROM a JOIN r ON a.y = r.x "
     "WHERE a.user_id = $1) SELECT * FROM r", "$1"},
    {"WITH RECURSIVE r AS (SELECT x FROM a WHERE user_id = $1 UNION ALL SELECT a.x FROM a JOIN r ON a.user_id = r.x) "
     "SELECT * FROM r", "no"},
    {"WITH q AS (SELECT user_id FROM a WHERE user_id = $1) SELECT * FROM b JOIN q ON b.user_id = q.user_id", "no"},
    {"SELECT * FROM (WITH a AS (SELECT 1) SELECT * FROM a) s, a", "no"},
    // No sharded tables
    {"SELECT 1", "any"},
    {"VALUES (1), (2)", "any"},
    {"SELECT now(), version(), current_user", "any"},
    {"SELECT * FROM types WHERE id = 5", "any"},
    {"SELECT * FROM types FOR UPDATE", "all \"types\" \"types\" returning locks"},
    {"SELECT id FROM types t WHERE id = $1 FOR NO KEY UPDATE NOWAIT", "all \"t\" \"t\" returning locks"},
    {"SELECT * FROM types a, types b FOR SHARE OF b", "all \"b\" \"b\" returning locks"},
    {"SELECT * FROM types a, types b FOR SHARE", "no"},
    {"SELECT * FROM types FOR UPDATE SKIP LOCKED", "no"},
    {"SELECT * FROM (SELECT * FROM types FOR UPDATE) s", "no"},
    {"SELECT * FROM types WHERE id IN (SELECT x FROM a WHERE user_id = 5) FOR UPDATE", "no"},
    {"EXPLAIN SELECT * FROM types FOR UPDATE", "any"},
    {"DECLARE c CURSOR FOR SELECT * FROM types FOR UPDATE", "no"},
    {"SELECT * FROM types FOR UPDATE; SELECT 1", "no"},
    {"SELECT * FROM pg_catalog.pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace", "any"},
    {"SELECT * FROM information_schema.tables WHERE table_name = 'a'", "any"},
    {"SELECT 'a'::regclass, format_type(23, -1)", "any"},
    {"SELECT pg_catalog.anything_built_in(1)", "any"},
    {"SELECT * FROM generate_series(1, 5)", "any"},
    {"SELECT my_function(5)", "no"},
    {"SELECT my_function(5) FROM a WHERE user_id = $1", "$1 w"},
    {"SELECT * FROM my_function()", "no"},
    {"SELECT * FROM v_messages WHERE sender_id = $1", "no"},
    {"SELECT * FROM public.messages_p1 WHERE sender_id = $1", "no"},
    {"SELECT * FROM other.v_messages", "any"},
    {"SELECT nextval('s')", "any w"},
    {"SELECT setval('s', 5)", "no"},
    {"SELECT pg_advisory_lock(1)", "no"},
    {"SELECT pg_advisory_xact_lock(1) FROM a WHERE user_id = $1", "no"},
    {"SELECT pg_advisory_unlock_all()", "any"},
    {"SELECT pg_notify('a', 'b')", "no"},
    {"SELECT query_to_xml('select * from a', true, true, '')", "no"},
    {"SELECT lo_create(0)", "no"},
    {"SELECT * INTO n FROM a WHERE user_id = $1", "no"},
    {"SELECT set_config('a', 'b', false)", "any"},
    // Type of a parameter that other places may have decided
    {"SELECT * FROM a WHERE x = $1 AND user_id = $1", "no"},
    {"SELECT $1 FROM a WHERE user_id = $1", "no"},
    {"SELECT $1::bigint FROM a WHERE user_id = $1", "$1"},
    {"SELECT $1::numeric FROM a WHERE user_id = $1", "no"},
};

const plan_case writes[] = {
    {"INSERT INTO messages (conversation_id, sender_id, content) VALUES ($1, $2, $3) RETURNING id", "$2 w"},
    {"INSERT INTO messages (conversation_id, sender_id) VALUES (1, 42)", "#1 w"},
    {"INSERT INTO messages (conversation_id, sender_id) VALUES (1, -42)", "-#1 w"},
    {"INSERT INTO messages (sender_id) VALUES ('42')", "#0 w"},
    {"INSERT INTO messages (sender_id) VALUES ($1::bigint)", "$1 w"},
    {"INSERT INTO messages VALUES ($1, $2, $3)", "$2 w"},
    {"INSERT INTO messages VALUES ($1)", "no"},
    {"INSERT INTO b VALUES ($1)", "no"},
    {"INSERT INTO messages (id) VALUES (1)", "no"},
    {"INSERT INTO messages (sender_id) VALUES (DEFAULT)", "no"},
    {"INSERT INTO messages (sender_id) VALUES (NULL)", "no"},
    {"INSERT INTO messages (sender_id) VALUES (4.2)", "no"},
    {"INSERT INTO messages (sender_id) VALUES (1 + 1)", "no"},
    {"INSERT INTO messages (sender_id) VALUES ((SELECT 1))", "no"},
    {"INSERT INTO messages DEFAULT VALUES", "no"},
    {"INSERT INTO messages (sender_id) VALUES (1), (2)", "no"},
    {"INSERT INTO messages (sender_id) SELECT 1", "no"},
    {"INSERT INTO messages (sender_id) SELECT user_id FROM a WHERE user_id = $1", "no"},
    {"INSERT INTO messages (sender_id, content) VALUES ($1, (SELECT max(x) FROM a WHERE user_id = $1))", "$1 w"},
    {"INSERT INTO messages (sender_id, content) VALUES ($1, (SELECT max(x) FROM a))", "no"},
    {"INSERT INTO messages (sender_id, id) VALUES ($1, 5) ON CONFLICT DO NOTHING", "$1 w"},
    {"INSERT INTO messages AS m (sender_id, id) VALUES ($1, 5) ON CONFLICT (sender_id, id) DO UPDATE SET content = excluded.content WHERE m.id > 3", "$1 w"},
    {"INSERT INTO messages (sender_id, id) VALUES ($1, 5) ON CONFLICT (id) DO UPDATE SET sender_id = 6", "no"},
    {"INSERT INTO messages (sender_id, id) VALUES ($1, 5) ON CONFLICT (id) DO UPDATE SET content = (SELECT max(x) FROM a)", "no"},
    {"INSERT INTO messages (sender_id) VALUES ($1) RETURNING (SELECT count(*) FROM a)", "no"},
    {"INSERT INTO messages (sender_id) VALUES ($1) RETURNING (SELECT count(*) FROM a WHERE user_id = messages.sender_id)", "$1 w"},
    {"INSERT INTO messages (sender_id, content) VALUES ($1, $1)", "no"},
    // On every shard
    {"INSERT INTO types VALUES (1)", "all \"types\" \"types\" again"},
    {"INSERT INTO app.types AS t (id) VALUES ($1), (2) RETURNING id",
     "all \"app\".\"types\" \"t\" returning again"},
    {"INSERT INTO types DEFAULT VALUES", "all \"types\" \"types\" again"},
    {"INSERT INTO types SELECT * FROM users", "all \"types\" \"types\" again"},
    {"INSERT INTO types VALUES (nextval('s'), now())", "all \"types\" \"types\" again"},
    {"INSERT INTO types VALUES (1) ON CONFLICT DO NOTHING", "all \"types\" \"types\""},
    {"INSERT INTO types VALUES (1) ON CONFLICT (id) DO UPDATE SET x = excluded.x RETURNING *",
     "all \"types\" \"types\" returning"},
    {"WITH q AS (SELECT 1) INSERT INTO types SELECT * FROM q", "all \"types\" \"types\" again"},
    {"INSERT INTO types SELECT user_id FROM a WHERE user_id = $1", "no"},
    {"INSERT INTO types VALUES ((SELECT max(x) FROM a))", "no"},
    {"INSERT INTO types VALUES (my_function())", "no"},
    {"INSERT INTO types VALUES (setval('s', 1))", "no"},
    {"WITH d AS (INSERT INTO types VALUES (1) RETURNING *) SELECT * FROM d", "no"},
    {"WITH d AS (DELETE FROM users RETURNING *) INSERT INTO types SELECT * FROM d", "no"},
    {"INSERT INTO types VALUES (1); INSERT INTO types VALUES (2)", "no"},
    {"BEGIN; DELETE FROM types", "no"},
    {"EXPLAIN DELETE FROM types", "any"}, {"EXPLAIN ANALYZE DELETE FROM types", "no"},
    {"PREPARE p AS DELETE FROM types", "no"},
    {"COPY (DELETE FROM types RETURNING id) TO STDOUT", "no"},
    {"MERGE INTO types USING users ON true WHEN MATCHED THEN DELETE", "no"},
    {"INSERT INTO v_messages (sender_id) VALUES (1)", "no"},
    {"UPDATE a SET x = 1 WHERE user_id = $1", "$1 w"},
    {"UPDATE a AS t SET x = $2 WHERE t.user_id = $1", "$1 w"},
    {"UPDATE a SET x = x + 1", "no"},
    {"UPDATE a SET user_id = 5 WHERE user_id = 5", "no"},
    {"UPDATE a SET (x, user_id) = (1, 2) WHERE user_id = $1", "no"},
    {"UPDATE a SET (x, user_id) = (SELECT 1, 2) WHERE user_id = $1", "no"},
    {"UPDATE a SET x = (SELECT max(x) FROM b) WHERE user_id = $1", "no"},
    {"UPDATE a SET x = b.x FROM b WHERE b.user_id = a.user_id AND a.user_id = $1", "$1 w"},
    {"UPDATE a SET x = b.x FROM b WHERE b.x = a.x AND a.user_id = $1", "no"},
    {"UPDATE a SET x = t.x FROM types t WHERE a.user_id = $1", "$1 w"},
    {"UPDATE types SET x = 1 WHERE id = 5", "all \"types\" \"types\""},
    {"UPDATE \"user\" u SET x = 1 FROM types WHERE u.id = types.id RETURNING u.x",
     "all \"user\" \"u\" returning"},
    {"UPDATE types SET x = (SELECT max(x) FROM b WHERE user_id = $1)", "no"},
    {"UPDATE types SET x = 1 FROM a WHERE a.user_id = $1", "no"},
    {"UPDATE a SET x = 1 WHERE CURRENT OF c", "no"},
    {"UPDATE pg_class SET relname = 'x'", "no"},
    {"DELETE FROM a WHERE user_id = $1 AND x > 5", "$1 w"},
    {"DELETE FROM a", "no"},
    {"DELETE FROM a WHERE user_id = $1 OR true", "no"},
    {"DELETE FROM a USING b WHERE a.user_id = b.user_id AND b.user_id = 5", "#0 w"},
    {"DELETE FROM a USING types t WHERE t.id = a.x", "no"},
    {"DELETE FROM a WHERE user_id = $1 AND x IN (SELECT x FROM b WHERE user_id = $1)", "$1 w"},
    {"DELETE FROM types", "all \"types\" \"types\""},
    {"DELETE FROM types USING users u WHERE u.id = types.id RETURNING types.*",
     "all \"types\" \"types\" returning"},
    {"DELETE FROM types USING a WHERE a.user_id = types.id", "no"},
    {"WITH d AS (DELETE FROM a WHERE user_id = $1 RETURNING *) SELECT * FROM d", "$1 w"},
    {"WITH d AS (DELETE FROM a WHERE user_id = $1 RETURNING *) INSERT INTO b (user_id, x) VALUES ($1, 5)", "$1 w"},
    {"WITH d AS (DELETE FROM a WHERE user_id = $1 RETURNING *) INSERT INTO b (user_id, x) VALUES ($2, 5)", "$1 & $2 w"},
    {"WITH d AS (DELETE FROM a RETURNING *) SELECT * FROM b WHERE user_id = $1", "no"},
    {"WITH d AS (DELETE FROM types RETURNING *) SELECT * FROM b WHERE user_id = $1", "no"},
    {"WITH messages AS (SELECT 1) INSERT INTO messages (sender_id) VALUES ($1)", "$1 w"},
    {"MERGE INTO a USING b ON a.user_id = b.user_id WHEN MATCHED THEN DELETE", "no"},
};

const plan_case others[] = {
    {"BEGIN", "any"}, {"COMMIT AND CHAIN", "any"}, {"ROLLBACK TO SAVEPOINT x", "any"},
    {"PREPARE TRANSACTION 'x'", "no"}, {"COMMIT PREPARED 'x'", "no"},
    {"SET a = b", "any"}, {"SHOW ALL", "any"}, {"RESET ALL", "any"}, {"DISCARD ALL", "any"},
    {"SET CONSTRAINTS ALL DEFERRED", "any"}, {"UNLISTEN *", "any"}, {"CLOSE ALL", "any"},
    {"FETCH 5 FROM c", "any"}, {"DEALLOCATE ALL", "any"}, {"EXECUTE p(1)", "any"},
    {"LISTEN x", "no"}, {"NOTIFY x", "no"}, {"DO $$ BEGIN END $$", "no"}, {"CALL p()", "no"},
    {"LOCK TABLE a", "no"},
    {"EXPLAIN SELECT * FROM a WHERE user_id = 5", "#0"},
    {"EXPLAIN (ANALYZE) UPDATE a SET x = 1 WHERE user_id = $1", "$1 w"},
    {"EXPLAIN SELECT * FROM a", "no"},
    {"EXPLAIN CREATE MATERIALIZED VIEW v AS SELECT 1", "no"},
    {"DECLARE c CURSOR FOR SELECT * FROM a WHERE user_id = 5", "#0"},
    {"DECLARE c CURSOR FOR SELECT * FROM a", "no"},
    {"PREPARE p AS SELECT * FROM types WHERE id = $1", "any"},
    {"PREPARE p AS SELECT * FROM a WHERE user_id = $1", "no"},
    {"COPY a FROM STDIN", "in a:user_id w"}, {"COPY a TO STDOUT", "out a:user_id"},
    {"COPY types TO STDOUT", "any"}, {"COPY types FROM STDIN", "in types: w"},
    {"COPY public.a (x, user_id) FROM STDIN WHERE x > 5", "in public.a:user_id w"},
    {"COPY a (x) FROM STDIN", "no"}, {"COPY a FROM '/tmp/x'", "no"},
    {"COPY a TO PROGRAM 'x'", "no"}, {"COPY types FROM PROGRAM 'x'", "no"},
    {"COPY v_messages FROM STDIN", "no"}, {"COPY a FROM STDIN; SELECT 1", "no"},
    {"COPY a FROM STDIN (ON_ERROR ignore)", "no"}, {"COPY a FROM STDIN (ENCODING 'SJIS')", "in a:user_id w"},
    {"COPY a FROM STDIN (FORMAT csv, DELIMITER 'é')", "in a:user_id w"},
    {"COPY a FROM STDIN (FORMAT csv, SURPRISE)", "no"}, {"COPY pg_class FROM STDIN", "no"},
    {"COPY (SELECT * FROM a WHERE user_id = 5) TO STDOUT", "=5"},
    {"COPY (SELECT * FROM a) TO STDOUT", "no"},
    {"CREATE TABLE t (id int)", "all"}, {"CREATE TABLE app.t (id serial, x int)", "all app.t"},
    {"CREATE TABLE \"T\" (id bigint GENERATED ALWAYS AS IDENTITY)", "all \"T\""},
    {"CREATE TABLE t (LIKE a INCLUDING ALL)", "all t"}, {"CREATE TEMP TABLE t (id int)", "no"},
    {"CREATE TABLE pg_temp.t (id int)", "no"}, {"CREATE UNLOGGED TABLE t (id bigserial)", "all t"},
    {"CREATE TABLE t PARTITION OF a FOR VALUES WITH (MODULUS 2, REMAINDER 0)", "all"},
    {"CREATE TABLE t AS SELECT * FROM a", "no"}, {"CREATE TEMP VIEW v AS SELECT 1", "no"},
    {"CREATE VIEW v AS SELECT * FROM a", "all"}, {"CREATE MATERIALIZED VIEW v AS SELECT * FROM a", "all"},
    {"REFRESH MATERIALIZED VIEW CONCURRENTLY v", "all"},
    {"CREATE SEQUENCE app.s START 5", "all app.s"}, {"CREATE TEMP SEQUENCE s", "no"},
    {"CREATE SCHEMA s CREATE TABLE t (id serial) CREATE VIEW v AS SELECT 1", "all s.t"},
    {"CREATE INDEX ON a (x)", "all"}, {"CREATE INDEX CONCURRENTLY ON a (x)", "all own"},
    {"DROP INDEX CONCURRENTLY i", "all own"}, {"DROP TABLE a, types CASCADE", "all"},
    {"ALTER TABLE a ADD COLUMN id bigserial", "no"}, {"ALTER TABLE a ADD COLUMN y int", "all"},
    {"ALTER TABLE a ALTER COLUMN x ADD GENERATED BY DEFAULT AS IDENTITY", "all a"},
    {"ALTER TABLE a DETACH PARTITION p CONCURRENTLY", "no"},
    {"ALTER TABLE a ALTER user_id TYPE bigint", "all"},
    {"ALTER TABLE a ALTER user_id TYPE int4, ALTER x TYPE text USING lower(x)", "all"},
    {"ALTER TABLE a ALTER user_id TYPE bigint USING user_id + 1", "no"},
    {"ALTER TABLE a ALTER user_id TYPE text", "no"},
    {"ALTER TABLE a ALTER user_id TYPE numeric(5, 0)", "no"},
    {"ALTER TABLE docs ALTER doc TYPE uuid", "all"},
    {"ALTER TABLE a RENAME TO z", "no"}, {"ALTER SEQUENCE s RESTART", "no"},
    // Sequences
    {"ALTER TABLE types ADD COLUMN IF NOT EXISTS n serial, ADD m int", "no"},
    {"ALTER TABLE types ADD n int GENERATED BY DEFAULT AS IDENTITY", "no"},
    {"ALTER TABLE types ALTER n ADD GENERATED ALWAYS AS IDENTITY (START 5)", "all types"},
    {"ALTER TABLE types ALTER n ADD GENERATED ALWAYS AS IDENTITY (CYCLE)", "no"},
    {"ALTER TABLE types ALTER n RESTART WITH 5", "no"},
    {"ALTER TABLE types ALTER n SET INCREMENT BY 5", "no"},
    {"ALTER TABLE types ALTER n SET GENERATED ALWAYS", "all"},
    {"ALTER SEQUENCE s RESTART WITH 5", "no"}, {"ALTER SEQUENCE s INCREMENT 5", "no"},
    {"ALTER SEQUENCE s OWNED BY types.n START 5", "no"}, {"ALTER SEQUENCE s MAXVALUE 5", "no"},
    {"ALTER SEQUENCE s OWNED BY types.n", "all"}, {"ALTER SEQUENCE s OWNER TO bob", "all"},
    {"CREATE SEQUENCE s INCREMENT BY 10 START WITH 9000000000", "all s"},
    {"CREATE SEQUENCE s INCREMENT BY -3", "all s"}, {"CREATE SEQUENCE s CYCLE", "no"},
    {"CREATE SEQUENCE s NO CYCLE NO MAXVALUE", "all s"}, {"CREATE SEQUENCE s MAXVALUE 100", "no"},
    {"CREATE SEQUENCE s INCREMENT 2048", "no"}, {"CREATE SEQUENCE s MAXVALUE 9000000000", "all s"},
    {"CREATE SEQUENCE s INCREMENT -1 MINVALUE -1000", "no"},
    {"CREATE SEQUENCE s INCREMENT 100 START 5 MAXVALUE 102404", "no"},
    {"CREATE SEQUENCE s INCREMENT 100 START 5 MAXVALUE 102405", "all s"},
    {"CREATE SEQUENCE s MINVALUE -9223372036854775808 MAXVALUE 9223372036854775807", "all s"},
    {"CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY (CYCLE))", "no"},
    {"CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY (START 7 INCREMENT 2))", "all t"},
    {"CREATE SCHEMA s CREATE SEQUENCE t CYCLE", "no"},
    // What each shard would compute by itself
    {"ALTER TABLE types ADD n timestamptz DEFAULT now()", "no"},
    {"ALTER TABLE types ADD n timestamptz DEFAULT CURRENT_TIMESTAMP", "no"},
    {"ALTER TABLE types ADD n text DEFAULT lower(current_user)", "no"},
    {"ALTER TABLE types ADD n float8 NOT NULL DEFAULT 1 + random()", "no"},
    {"ALTER TABLE types ADD n bigint DEFAULT nextval('s')", "no"},
    {"ALTER TABLE types ADD n timestamp DEFAULT 'Now'", "no"},
    {"ALTER TABLE types ADD n text DEFAULT 'now'", "all"},
    {"ALTER TABLE types ADD n text DEFAULT 'today'::date::text", "no"},
    {"ALTER TABLE types ADD n text DEFAULT lower('X')", "all"},
    {"ALTER TABLE types ADD n int, ALTER n SET DEFAULT random()", "all"},
    {"ALTER TABLE a ADD n timestamptz DEFAULT now()", "all"},
    {"ALTER TABLE messages_p1 ADD n timestamptz DEFAULT now()", "all"},
    {"ALTER TABLE types ALTER n TYPE float8 USING random()", "no"},
    {"ALTER TABLE types ALTER n TYPE text USING lower(n)", "all"},
    {"ALTER TABLE types ALTER n TYPE text", "all"},
    {"CREATE MATERIALIZED VIEW v AS SELECT now()", "no"},
    {"CREATE MATERIALIZED VIEW v AS SELECT * FROM types TABLESAMPLE system (5)", "no"},
    {"CREATE MATERIALIZED VIEW v AS SELECT count(*), lower(x) FROM types GROUP BY 2", "all"},
    {"CREATE VIEW v AS SELECT now()", "all"},
    {"COPY types FROM STDIN WHERE x > now()", "no"},
    {"COPY types FROM STDIN WHERE lower(x) = 'a'", "in types: w"},
    {"COPY a FROM STDIN WHERE x > now()", "in a:user_id w"},
    {"COPY a FROM STDIN WHERE mine(x)", "no"},
    // What would be sharded, or cease to be
    {"ALTER TABLE types RENAME TO kinds", "all"}, {"ALTER TABLE types RENAME TO a", "no"},
    {"ALTER TABLE a RENAME TO b", "all"}, {"ALTER TABLE a RENAME TO messages", "no"},
    {"ALTER VIEW v_messages RENAME TO w", "all"}, {"ALTER VIEW v_messages RENAME TO a", "no"},
    {"ALTER INDEX i RENAME TO j", "all"}, {"ALTER TABLE a RENAME CONSTRAINT c TO d", "all"},
    {"ALTER TABLE a SET SCHEMA other", "all"}, {"ALTER TABLE app.events SET SCHEMA other", "no"},
    {"ALTER TABLE events SET SCHEMA app", "no"}, {"ALTER TABLE types SET SCHEMA app", "all"},
    {"ALTER SCHEMA app RENAME TO x", "no"}, {"ALTER SCHEMA x RENAME TO app", "no"},
    {"ALTER SCHEMA x RENAME TO y", "all"},
    {"ALTER TABLE a DROP COLUMN user_id", "no"}, {"ALTER TABLE a DROP COLUMN x", "all"},
    {"ALTER TABLE a RENAME user_id TO y", "no"}, {"ALTER TABLE a RENAME x TO y", "all"},
    {"ALTER TABLE types RENAME user_id TO y", "all"},
    {"ALTER TABLE a ATTACH PARTITION types FOR VALUES IN (1)", "no"},
    {"ALTER TABLE types ATTACH PARTITION a DEFAULT", "no"},
    {"ALTER TABLE a ATTACH PARTITION b DEFAULT", "all"},
    {"ALTER TABLE types ATTACH PARTITION kinds DEFAULT", "all"},
    {"ALTER TABLE messages DETACH PARTITION messages_p1", "no"},
    {"ALTER TABLE messages DETACH PARTITION messages_p1 FINALIZE", "no"},
    {"ALTER TABLE a DETACH PARTITION b", "all"}, {"ALTER TABLE a INHERIT types", "no"},
    {"ALTER TABLE types INHERIT a", "no"}, {"ALTER TABLE messages_p1 NO INHERIT messages", "no"},
    {"ALTER TABLE types INHERIT kinds", "all"}, {"ALTER TABLE a INHERIT b", "all"},
    {"GRANT SELECT ON a TO bob", "all"}, {"REVOKE ALL ON a FROM bob", "all"},
    {"COMMENT ON TABLE a IS 'x'", "all"}, {"TRUNCATE a", "all"}, {"ANALYZE a", "all"},
    {"VACUUM a", "all own"}, {"VACUUM", "all own"}, {"REINDEX TABLE a", "all"},
    {"REINDEX TABLE CONCURRENTLY a", "all own"}, {"REINDEX DATABASE x", "no"},
    {"CLUSTER", "all own"}, {"CHECKPOINT", "all own"}, {"CREATE DATABASE x", "no"},
    {"ALTER SYSTEM SET a = b", "no"}, {"CREATE EXTENSION hstore", "all"},
    {"CREATE TYPE t AS ENUM ('a')", "all"}, {"ALTER TYPE t ADD VALUE 'b'", "all"},
    {"CREATE TYPE t AS (a int)", "all"}, {"CREATE DOMAIN d AS int", "all"},
    {"CREATE FUNCTION f() RETURNS int LANGUAGE sql AS $$ SELECT * FROM a $$", "all"},
    {"CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; END", "all"},
    {"CREATE TRIGGER t BEFORE INSERT ON a FOR EACH ROW EXECUTE FUNCTION f()", "all"},
    {"CREATE RULE r AS ON INSERT TO a DO NOTHING", "all"}, {"CREATE ROLE bob", "all"},
    {"CREATE PUBLICATION p FOR ALL TABLES", "all"}, {"DROP FUNCTION f()", "all"},
    // Several statements
    {"", "any"},
    {"SELECT pg_advisory_unlock_all();\nCLOSE ALL;\nUNLISTEN *;\nRESET ALL;", "any"},
    {"BEGIN; SELECT * FROM a WHERE user_id = 5; COMMIT", "#0"},
    {"SELECT * FROM a WHERE user_id = 5; UPDATE b SET x = 1 WHERE user_id = 5", "#0 & #2 w"},
    {"SELECT * FROM a WHERE user_id = 5; SELECT * FROM b", "no"},
    {";; UPDATE a SET x = x + 1 WHERE user_id = 5;;UPDATE a SET x = x + 1 WHERE user_id = 6; ; -- so",
     "#1 & #3 w"},
    {"CREATE TABLE t (id serial); CREATE SEQUENCE s", "all t s"},
    {"CREATE TABLE t (); SELECT 1", "no"}, {"BEGIN; CREATE TABLE t (); COMMIT", "no"},
    {"VACUUM; SELECT 1", "no"}, {"CREATE INDEX CONCURRENTLY ON a (x); CREATE TABLE t ()", "no"},
    {"INSERT INTO messages (sender_id) VALUES (1); INSERT INTO messages (sender_id) VALUES (1)", "#0 & #1 w"},
};

template <std::size_t N>
void check(const plan_case (&cases)[N]) {
  const auto database = messenger();
  for (const auto& c : cases) {
    const plan p = planned(c.sql, database);
    EXPECT_EQ(show(p), c.plan) << c.sql << "\n  " << p.error.message;
    if (p.destination == destination::refused) {
      EXPECT_EQ(p.error.sqlstate, "0A000") << c.sql;
      EXPECT_FALSE(p.error.message.empty()) << c.sql;
      EXPECT_FALSE(p.error.hint.empty()) << c.sql << " " << p.error.message;
    }
  }
}

TEST(planner, reads) { check(reads); }
TEST(planner, writes) { check(writes); }
TEST(planner, others) { check(others); }

// A plan is kept for the shape of a statement, so it must not depend on what was lifted out of it.
TEST(planner, statements_of_one_shape_have_one_plan) {
  const auto database = messenger();
  const auto changed = [](const std::string& sql, const sql::shape& shape, int round) {
    const char* const integers[] = {"0", "7", "9223372036854775807", "2147483648"};
    const char* const numbers[] = {"0.5", "1e300", "9223372036854775808", ".1"};
    const char* const strings[] = {"''", "'6'", "'it''s'", "'pg_catalog.x'"};
    std::string out;
    std::size_t at = 0;
    for (const auto& l : shape.literals) {
      out += sql.substr(at, l.offset - at);
      const std::string old = sql.substr(l.offset, l.length);
      const bool whole = old.find_first_not_of("0123456789") == old.npos && old.size() < 19;
      out += l.quoted ? strings[round] : whole || old == integers[2] ? integers[round] : numbers[round];
      at = l.offset + l.length;
    }
    return out + sql.substr(at);
  };
  int compared = 0;
  const auto compare = [&](const auto& cases) {
    for (const auto& c : cases) {
      sql::shape before, after;
      sql::find_shape(c.sql, true, before);
      for (int round = 0; round < 4 && !before.literals.empty(); ++round) {
        const std::string other = changed(c.sql, before, round);
        sql::find_shape(other, true, after);
        ASSERT_EQ(before.text, after.text) << c.sql << "\n" << other;
        EXPECT_EQ(show(planned(other, database)), c.plan) << c.sql << "\n" << other;
        ++compared;
      }
    }
  };
  compare(reads);
  compare(writes);
  compare(others);
  EXPECT_GT(compared, 300);
  for (const char* list : {"1, 2", "1, 2, 3", "5, 5, 5, -5"}) {
    const std::string sql = std::string{"SELECT * FROM a WHERE user_id = 4 AND x IN ("} + list + ")";
    EXPECT_EQ(show(planned(sql, database)), "#0") << sql;
    EXPECT_EQ(show(planned(std::string{"SELECT * FROM a WHERE user_id IN ("} + list + ")", database)), "no");
  }
}

TEST(planner, parameter_types) {
  const auto database = messenger();
  const std::string sql = "SELECT $1 FROM a WHERE user_id = $1";
  for (std::uint32_t oid : {20u, 21u, 23u}) EXPECT_EQ(show(planned(sql, database, {oid})), "$1");
  for (std::uint32_t oid : {25u, 701u, 1043u, 1700u}) {
    const plan p = planned("SELECT 1 FROM a WHERE user_id = $1", database, {oid});
    EXPECT_EQ(show(p), "no");
    EXPECT_NE(p.error.detail.find("$1"), std::string::npos);
  }
  EXPECT_EQ(show(planned("SELECT 1 FROM a WHERE user_id = $2", database, {25})), "$2");
}

database_view of_many_types() {
  database_view d;
  d.name = "messenger";
  d.shards = 3;
  const auto sha1 = placement::hasher::sha1;
  d.sharded = {{"", "n", "k", "bigint"}, {"", "u", "k", "uuid"}, {"", "t", "k", "varchar"},
               {"", "v", "k", "varchar"}, {"", "h", "k", "bigint", sha1},
               {"", "l", "k", "bigint", placement::hasher::postgres, 77},
               {"", "x", "k", "vector"}, {"", "unseen", "k", "uuid"},
               {"", "wrong", "k", "bigint"}, {"", "ci", "k", "varchar"},
               {"", "padded", "k", "varchar"}, {"", "loose", "k", "varchar"}};
  d.catalog.loaded = true;
  d.catalog.safe_functions = {"lower"};
  const auto table = [&](const char* name, const char* type, std::uint32_t limit = 0,
                         bool by_bytes = true) {
    d.catalog.tables.push_back(
        {"public", name, {"a", "k"}, {{"int4", 0, true}, {type, limit, by_bytes}}});
  };
  table("n", "int4"), table("u", "uuid"), table("t", "text"), table("v", "varchar", 5);
  table("h", "int8"), table("l", "int8"), table("wrong", "numeric"), table("ci", "public.citext");
  table("padded", "bpchar"), table("loose", "text", 0, false);
  return d;
}

TEST(planner, keys_of_other_types) {
  const auto database = of_many_types();
  const plan_case cases[] = {
      {"SELECT * FROM u WHERE k = $1", "$1"},
      {"SELECT * FROM u WHERE k = $1::uuid", "$1"},
      {"SELECT * FROM u WHERE k = '{A0EEBC999C0B4EF8BB6D6BB9BD380A11}'", "#0"},
      {"SELECT * FROM u WHERE k = '{A0EEBC999C0B4EF8BB6D6BB9BD380A11}'::uuid", "#0"},
      {"SELECT * FROM u WHERE k = uuid '{A0EEBC999C0B4EF8BB6D6BB9BD380A11}'",
       "=a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"},
      {"SELECT * FROM u, u u2 WHERE u.k = u2.k AND u.k = $1", "$1"},
      {"SELECT * FROM u WHERE k = E'no uuid'", "no"},
      {"SELECT * FROM u WHERE k = 5", "no"},
      {"SELECT * FROM u WHERE k = $1::text", "no"},
      {"SELECT * FROM u WHERE k = $1::text::uuid", "no"},
      {"SELECT * FROM u WHERE k::text = $1", "no"},
      {"INSERT INTO u VALUES (1, $1)", "$1 w"},
      {"SELECT * FROM t WHERE k = 'abc'", "#0"},
      {"SELECT * FROM t WHERE k = 'abc'::text", "#0"},
      {"SELECT * FROM t WHERE k = 'abc'::varchar", "#0"},
      {"SELECT * FROM t WHERE k = $1::text::varchar", "$1"},
      {"SELECT * FROM t WHERE k = E'a\\tb'", "=a\tb"},
      {"SELECT * FROM t WHERE k = $$it's$$", "=it's"},
      {"SELECT * FROM t WHERE (k, a) = ($1, $2)", "$1"},
      {"SELECT * FROM t WHERE k IN ('abc')", "#0"},
      {"UPDATE t SET a = 1 WHERE k = $1", "$1 w"},
      // What changes the value, or compares otherwise
      {"SELECT * FROM t WHERE k = 'abc'::varchar(2)", "no"},
      {"SELECT * FROM t WHERE k = 'abc'::char(3)", "no"},
      {"SELECT * FROM t WHERE k = 'abc'::bpchar", "no"},
      {"SELECT * FROM t WHERE k = 'abc'::name", "no"},
      {"SELECT * FROM t WHERE k = 'abc' COLLATE \"de-x\"", "no"},
      {"SELECT * FROM t WHERE k COLLATE \"de-x\" = 'abc'", "no"},
      {"SELECT * FROM t WHERE k = 5", "no"},
      {"SELECT * FROM t WHERE k = 5::text", "no"},
      {"SELECT * FROM t WHERE k = '5'::int::text", "no"},
      {"SELECT * FROM t WHERE k = lower($1)", "no"},
      {"SELECT * FROM t WHERE k = 'a' || $1", "no"},
      {"SELECT * FROM t WHERE k LIKE 'abc'", "no"},
      {"SELECT * FROM t WHERE lower(k) = 'abc'", "no"},
      {"SELECT * FROM t WHERE k = NULL", "no"},
      {"INSERT INTO t VALUES (1, 5)", "no"},
      {"INSERT INTO t VALUES (1, NULL)", "no"},
      // A parameter whose type another place may decide: char(n) would lose its trailing spaces
      {"SELECT * FROM t WHERE k = $1 AND a = $1", "no"},
      {"SELECT * FROM t WHERE k = $1 AND $1::text IS NOT NULL", "$1"},
      {"SELECT * FROM t WHERE k = $1 AND $1::varchar(3) IS NOT NULL", "no"},
      {"SELECT * FROM t WHERE k = $1 AND $1::int IS NOT NULL", "no"},
      {"SELECT * FROM u WHERE k = $1 AND $1::text IS NOT NULL", "no"},
      // One value, but by different rules
      {"SELECT * FROM n, h WHERE n.k = h.k AND n.k = $1", "no"},
      {"SELECT * FROM n, l WHERE n.k = $1 AND l.k = $1", "no"},
      {"SELECT * FROM h, h h2 WHERE h.k = $1 AND h2.k = $1", "$1"},
      {"SELECT * FROM t, v WHERE t.k = v.k AND v.k = $1", "$1"},
      {"SELECT 1 FROM n WHERE k = 1; SELECT 1 FROM l WHERE k = 1", "no"},
      {"SELECT a FROM l WHERE k = 1; SELECT a FROM l WHERE k = 1", "#0 & #1"},
      // What the catalog says of the column
      {"SELECT * FROM x WHERE k = $1", "no"},
      {"SELECT * FROM unseen WHERE k = $1", "no"},
      {"SELECT * FROM wrong WHERE k = $1", "no"},
      {"SELECT * FROM ci WHERE k = $1", "no"},
      {"SELECT * FROM padded WHERE k = $1", "no"},
      {"SELECT * FROM loose WHERE k = $1", "no"},
      {"INSERT INTO loose VALUES (1, 'a')", "no"},
  };
  for (const auto& c : cases) EXPECT_EQ(show(planned(c.sql, database)), c.plan) << c.sql;

  const std::string text = "SELECT 1 FROM t WHERE k = $1", uuid = "SELECT 1 FROM u WHERE k = $1",
                    cast = "SELECT 1 FROM u WHERE k = $1::uuid";
  for (std::uint32_t oid : {25u, 1043u}) {
    EXPECT_EQ(show(planned(text, database, {oid})), "$1") << oid;
    EXPECT_EQ(show(planned(cast, database, {oid})), "$1") << oid;
    EXPECT_EQ(show(planned(uuid, database, {oid})), "no") << oid;
  }
  EXPECT_EQ(show(planned(uuid, database, {2950})), "$1");
  for (std::uint32_t oid : {18u, 19u, 20u, 23u, 705u, 1042u, 2950u}) {
    EXPECT_EQ(show(planned(text, database, {oid})), "no") << oid;
  }
  EXPECT_EQ(show(planned(cast, database, {1042})), "no");
}

TEST(planner, plans_carry_the_rule_and_the_limit_of_what_is_stored) {
  const auto database = of_many_types();
  const plan hashed = planned("SELECT * FROM h WHERE k = $1", database);
  EXPECT_EQ(hashed.rule.hasher, placement::hasher::sha1);
  EXPECT_EQ(hashed.rule.type, placement::key_type::bigint);
  EXPECT_EQ(planned("DELETE FROM l WHERE k = 5", database).rule.mapping, 77u);
  const plan both = planned("SELECT 1; SELECT * FROM u WHERE k = $1", database);
  EXPECT_EQ(both.rule.type, placement::key_type::uuid);
  // A comparison does not cut trailing spaces off, a store into varchar(5) does.
  EXPECT_EQ(planned("SELECT * FROM v WHERE k = $1", database).key.limit, 0u);
  EXPECT_EQ(planned("INSERT INTO v VALUES (1, $1)", database).key.limit, 5u);
  EXPECT_EQ(planned("INSERT INTO t VALUES (1, $1)", database).key.limit, 0u);
  const plan mixed = planned("INSERT INTO v SELECT 1; SELECT 1 FROM v WHERE k = 'a'", database);
  EXPECT_EQ(show(mixed), "no");
  EXPECT_EQ(show(planned("INSERT INTO v VALUES (1, 'a'); SELECT 1 FROM v WHERE k = $1", database)),
            "#1 & $1 w");
  EXPECT_NE(planned("SELECT * FROM loose WHERE k = $1", database).error.message.find("collation"),
            std::string::npos);
  EXPECT_NE(planned("SELECT * FROM wrong WHERE k = $1", database).error.message.find("numeric"),
            std::string::npos);
}

TEST(planner, search_path) {
  const auto database = messenger();
  const std::string sql = "SELECT * FROM events WHERE user_id = $1";
  EXPECT_EQ(show(planned(sql, database, {}, "app, public")), "$1");
  EXPECT_EQ(show(planned(sql, database, {}, "'app'")), "$1");
  EXPECT_EQ(show(planned(sql, database, {}, "\"App\"")), "any");
  EXPECT_EQ(show(planned("SELECT * FROM v_messages", database, {}, "other")), "any");
  EXPECT_EQ(show(planned("SELECT * FROM v_messages", database, {}, "other, public")), "no");
  EXPECT_EQ(show(planned(sql, database, {}, "/* x, */ App , public")), "$1");
  EXPECT_EQ(show(planned(sql, database, {}, "")), "any");
  EXPECT_EQ(show(planned(sql, database, {}, "''")), "any");
  // The server may have been configured with a path that nobody has told of.
  auto elsewhere = database;
  elsewhere.catalog.tables.push_back({"app", "events", {"user_id"}});
  elsewhere.catalog.hides_sharded.insert("app.v_events");
  EXPECT_EQ(show(planned(sql, elsewhere)), "no");
  EXPECT_EQ(show(planned("SELECT * FROM v_events", elsewhere)), "no");
  EXPECT_EQ(show(planned(sql, elsewhere, {}, "public")), "any") << "as the client says";
  EXPECT_EQ(show(planned(sql, database, {}, "public,, app")), "$1");
  for (const char* coded : {"U&\"app\"", "E'app'", "public, 'a'\n'pp'"}) {
    EXPECT_EQ(show(planned(sql, database, {}, coded)), "no") << coded;
  }
}

TEST(planner, execute_finds_tables_by_another_path) {
  const auto database = messenger();
  const auto prepared = [&](const std::string& sql) {
    return show(planned("PREPARE p AS " + sql, database, {}, "public"));
  };
  EXPECT_EQ(prepared("SELECT * FROM public.events"), "any");
  EXPECT_EQ(prepared("SELECT * FROM events"), "no") << "app.events is sharded";
  EXPECT_EQ(prepared("SELECT 1 WHERE EXISTS (SELECT FROM events)"), "no");
  EXPECT_EQ(prepared("SELECT relname FROM pg_class"), "any");
}

TEST(planner, the_first_of_that_name_in_the_path) {
  database_view d = messenger();
  d.sharded = {{"public", "t", "id", "bigint"}, {"other", "t", "v", "bigint"}};
  d.catalog.tables = {{"other", "t", {"v", "id"}}, {"public", "t", {"id", "v"}}};
  d.catalog.namesakes = {"plain.t"};
  d.catalog.hides_sharded = {"views.t"};
  const auto plan_of = [&](const std::string& path) {
    return show(planned("SELECT * FROM t WHERE id = 1 AND v = $1", d, {}, path));
  };
  EXPECT_EQ(plan_of("public, other"), "#0");
  EXPECT_EQ(plan_of("other, public"), "$1");
  EXPECT_EQ(plan_of("none, other, public"), "$1");
  EXPECT_EQ(plan_of("plain, other"), "any");
  EXPECT_EQ(plan_of("other, plain"), "$1");
  EXPECT_EQ(plan_of("views, public"), "no");
  EXPECT_EQ(plan_of("public, views"), "#0");
  EXPECT_EQ(plan_of("none"), "any");
  d.catalog.tables.clear();   // not made yet, or not read
  d.catalog.namesakes.clear();
  EXPECT_EQ(plan_of("public"), "#0");
}

// Each was compared with all others: the router answered nobody for as long.
TEST(planner, many_conditions_are_no_more_work_than_they_are_long) {
  const auto d = messenger();
  std::string sql = "SELECT * FROM a JOIN b ON a.user_id = b.user_id WHERE a.user_id = 0";
  for (int i = 1; i < 60'000; ++i) sql += " AND a.user_id = " + std::to_string(i);
  EXPECT_EQ(show(planned(sql, d)), "#0");
}

TEST(planner, a_view_may_have_the_name_of_a_sharded_table) {
  database_view d = messenger();
  d.catalog.hides_sharded.insert("api.a");
  EXPECT_EQ(show(planned("SELECT * FROM api.a WHERE user_id = 1", d)), "no");
  EXPECT_EQ(show(planned("SELECT * FROM a WHERE user_id = 1", d, {}, "api, public")), "no");
  EXPECT_EQ(show(planned("SELECT * FROM a WHERE user_id = 1", d)), "#0");
}

TEST(planner, keys_that_follow_another_table) {
  auto database = messenger();
  database.catalog.followed = {{"public", "users", "id", "a_user", "public.a"},
                               {"public", "users", "", "a_user", "public.a"},
                               {"app", "users", "code", "a_code", "public.a"}};
  const auto plan_of = [&](const std::string& sql, const std::string& path = "") {
    return show(planned(sql, database, {}, path));
  };
  EXPECT_EQ(plan_of("UPDATE users SET id = 5"), "no");
  EXPECT_EQ(plan_of("UPDATE public.users u SET (name, id) = ('x', 5)"), "no");
  EXPECT_EQ(plan_of("INSERT INTO users VALUES (1) ON CONFLICT (id) DO UPDATE SET id = 2"), "no");
  EXPECT_EQ(plan_of("DELETE FROM users WHERE id = 5"), "no");
  EXPECT_EQ(plan_of("WITH gone AS (DELETE FROM users) SELECT 1"), "no");
  EXPECT_EQ(plan_of("UPDATE users SET name = 'x'"), "all \"users\" \"users\"");
  EXPECT_EQ(plan_of("UPDATE users SET code = 'x'"), "all \"users\" \"users\"");
  EXPECT_EQ(plan_of("UPDATE users SET code = 'x'", "app"), "no");
  EXPECT_EQ(plan_of("UPDATE app.users SET id = 5"), "all \"app\".\"users\" \"users\"");
  EXPECT_EQ(plan_of("UPDATE users SET code = 'x'", std::string(unknown_path)), "no");
  const auto refused = planned("UPDATE users SET id = 5", database);
  EXPECT_EQ(refused.error.sqlstate, "0A000");
  EXPECT_EQ(refused.error.message,
            "UPDATE of column \"id\" of table \"users\" changes sharding keys of table \"public.a\" "
            "by foreign key \"a_user\", which may move its rows to other shards");
}

TEST(planner, a_path_that_is_not_known) {
  auto database = messenger();
  const auto plan_of = [&](const std::string& sql) {
    return show(planned(sql, database, {}, std::string(unknown_path)));
  };
  EXPECT_EQ(plan_of("SELECT * FROM a WHERE user_id = $1"), "$1");
  EXPECT_EQ(plan_of("SELECT * FROM app.events WHERE user_id = $1"), "$1");
  EXPECT_EQ(plan_of("SELECT * FROM types"), "any");
  EXPECT_EQ(plan_of("SELECT * FROM pg_class"), "any");
  EXPECT_EQ(plan_of("SELECT * FROM v_messages"), "no");
  EXPECT_EQ(plan_of("SELECT * FROM events WHERE user_id = $1"), "no");
  database.catalog.tables.push_back({"app", "a", {"x", "user_id"}});
  EXPECT_EQ(plan_of("SELECT * FROM a WHERE user_id = $1"), "no");
  database.sharded.push_back({"", "", "tenant_id", "bigint"});
  database.catalog.tables.push_back({"public", "invoices", {"id", "tenant_id"}});
  EXPECT_EQ(plan_of("SELECT * FROM invoices WHERE tenant_id = $1"), "$1");
  database.catalog.namesakes = {"archive.invoices", "archive.types"};
  EXPECT_EQ(plan_of("SELECT * FROM invoices WHERE tenant_id = $1"), "no");
  EXPECT_EQ(plan_of("SELECT * FROM public.invoices WHERE tenant_id = $1"), "$1");
  EXPECT_EQ(plan_of("SELECT * FROM types"), "any");
  EXPECT_EQ(plan_of("COPY invoices TO STDOUT"), "no");
}

TEST(planner, nothing_is_made_in_the_temporary_schema) {
  auto database = messenger();
  const char* const statements[] = {
      "CREATE TABLE t (id int)", "CREATE SEQUENCE s", "CREATE VIEW v AS SELECT 1",
      "CREATE MATERIALIZED VIEW v AS SELECT 1", "CREATE TYPE t AS (a int)",
      "CREATE TYPE t AS ENUM ('a')", "CREATE DOMAIN d AS int",
      "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'"};
  for (const char* sql : statements) {
    EXPECT_EQ(show(planned(sql, database, {}, "x, pg_temp, public")), "no") << sql;
    EXPECT_EQ(show(planned(sql, database, {}, "\"pg_temp_3\"")), "no") << sql;
    EXPECT_EQ(show(planned(sql, database, {}, "public")).substr(0, 3), "all") << sql;
  }
  EXPECT_EQ(show(planned("CREATE TABLE public.t (id int)", database, {}, "pg_temp")), "all");
  EXPECT_EQ(show(planned("ALTER TABLE types ADD n int", database, {}, "pg_temp")), "all");
  for (const char* sql : {"SET search_path = pg_temp, public", "SET LOCAL search_path = x, pg_temp",
                          "SET SCHEMA 'pg_temp'"}) {
    EXPECT_EQ(show(planned(sql, database)), "no") << sql;
  }
  EXPECT_EQ(show(planned("SET search_path = public", database)), "any");
  database.catalog.paths = {{"", "pg_temp, public"}};
  EXPECT_EQ(show(planned("CREATE TABLE t (id int)", database)), "no");
  database.shards = 1;
  EXPECT_EQ(show(planned("CREATE TABLE t (id int)", database)), "all");
  EXPECT_EQ(show(planned("SET search_path = pg_temp", database)), "any");
}

TEST(planner, the_path_of_a_role) {
  auto database = messenger();
  const std::string sql = "SELECT * FROM events WHERE user_id = $1";
  EXPECT_EQ(show(planned(sql, database)), "any");
  database.catalog.paths = {{"", "app, public"}};
  EXPECT_EQ(show(planned(sql, database)), "$1");
  EXPECT_EQ(show(planned(sql, database, {}, "public")), "any");
  database.catalog.paths["on_the_server"] = "public";
  EXPECT_EQ(show(planned(sql, database)), "$1");
  database.roles["bob"] = "on_the_server";
  EXPECT_EQ(show(planned(sql, database)), "any");
  database.catalog.paths = {{"on_the_server", std::string(unknown_path)}};
  EXPECT_EQ(show(planned(sql, database)), "no");
  // Without a word from the servers it is a schema of the name of the role.
  database.catalog.paths.clear();
  database.roles["bob"] = "app";
  EXPECT_EQ(show(planned(sql, database)), "$1");
  // As it may come with the start-up message, without quotes.
  EXPECT_EQ(show(planned(sql, database, {}, "$user,public")), "$1");
  database.sharded[3].schema = "my-app";
  EXPECT_EQ(show(planned(sql, database, {}, "x, my-app,public")), "$1");
}

TEST(planner, tables_by_column_alone) {
  database_view d = messenger();
  d.sharded.push_back({"", "", "tenant_id", "bigint"});
  d.catalog.tables.push_back({"public", "invoices", {"id", "tenant_id"}});
  EXPECT_EQ(show(planned("SELECT * FROM invoices WHERE tenant_id = $1", d)), "$1");
  EXPECT_EQ(show(planned("SELECT * FROM invoices", d)), "no");
  EXPECT_EQ(show(planned("INSERT INTO invoices VALUES (1, 2)", d)), "#1 w");
  EXPECT_EQ(show(planned("SELECT * FROM types", d)), "any");
  d.catalog.loaded = false;
  EXPECT_EQ(show(planned("SELECT * FROM types", d)), "no");
  EXPECT_EQ(show(planned("SELECT * FROM pg_class", d)), "any");
  EXPECT_EQ(show(planned("SELECT * FROM a WHERE user_id = $1", d)), "$1");
}

TEST(planner, no_table_becomes_one_that_is_sharded_by_its_columns) {
  database_view d = messenger();
  d.sharded.push_back({"", "", "tenant_id", "bigint"});
  d.sharded.push_back({"parts", "", "part", "bigint"});
  d.catalog.tables.push_back({"public", "invoices", {"id", "tenant_id"}});
  EXPECT_EQ(show(planned("ALTER TABLE invoices RENAME TO bills", d)), "all");
  EXPECT_EQ(show(planned("ALTER TABLE invoices SET SCHEMA other", d)), "all");
  EXPECT_EQ(show(planned("ALTER TABLE invoices RENAME TO a", d)), "no");
  EXPECT_EQ(show(planned("ALTER TABLE types SET SCHEMA parts", d)), "no");
  for (const char* sql : {"ALTER TABLE types ADD tenant_id bigint",
                          "ALTER TABLE types RENAME x TO tenant_id",
                          "ALTER TABLE invoices DROP tenant_id",
                          "ALTER TABLE parts.types ADD part bigint"}) {
    EXPECT_EQ(show(planned(sql, d)), "no") << sql;
  }
  EXPECT_EQ(show(planned("ALTER TABLE types ADD part bigint", d)), "all");
  d.catalog.loaded = false;
  EXPECT_EQ(show(planned("ALTER TABLE types RENAME TO kinds", d)), "no");
}

TEST(planner, one_shard_needs_no_key) {
  database_view d = messenger();
  d.shards = 1;
  for (const char* sql : {"SELECT * FROM a", "INSERT INTO types VALUES (1)", "CALL p()", "LISTEN x",
                          "COPY a FROM STDIN", "CREATE TEMP TABLE t ()"}) {
    EXPECT_EQ(show(planned(sql, d)).substr(0, 3), "any") << sql;
  }
  EXPECT_EQ(show(planned("CREATE TABLE t ()", d)), "all");
  for (const char* sql : {"ALTER TABLE a RENAME TO z", "ALTER SEQUENCE s RESTART",
                          "CREATE SEQUENCE s CYCLE", "ALTER TABLE types ADD n float8 DEFAULT random()",
                          "CREATE MATERIALIZED VIEW v AS SELECT now()",
                          "ALTER TABLE a DROP COLUMN user_id"}) {
    EXPECT_EQ(show(planned(sql, d)), "all") << sql;
  }
  EXPECT_EQ(show(planned("ALTER TABLE a ADD COLUMN id bigserial", d)), "all a");
}

TEST(planner, refusals_name_tables_and_keys) {
  const auto database = messenger();
  const plan p = planned("SELECT * FROM a, messages WHERE a.user_id = $1", database);
  EXPECT_NE(p.error.message.find("\"messages\""), std::string::npos) << p.error.message;
  EXPECT_NE(p.error.message.find("\"sender_id\""), std::string::npos) << p.error.message;
  EXPECT_EQ(p.error.message.find("table \"a\""), std::string::npos) << p.error.message;
  for (const char* sql : {"SELECT 1 FROM a, b WHERE a.user_id = 1 AND b.user_id = 2",
                          "SELECT 1 FROM a, b WHERE a.user_id = E'1' AND b.user_id = E'2'"}) {
    const plan two = planned(sql, database);
    EXPECT_EQ(two.error.sqlstate, "0A000");
    EXPECT_NE(two.error.message.find("\"a\", \"b\""), std::string::npos) << two.error.message;
  }
  const plan i = planned("INSERT INTO messages (id) VALUES (1)", database);
  EXPECT_NE(i.error.message.find("\"sender_id\""), std::string::npos) << i.error.message;
}

TEST(planner, catalog_changes_and_epoch) {
  const auto database = messenger();
  EXPECT_TRUE(planned("CREATE TABLE t ()", database).changes_catalog);
  EXPECT_TRUE(planned("DROP TABLE t", database).changes_catalog);
  EXPECT_FALSE(planned("ANALYZE", database).changes_catalog);
  EXPECT_FALSE(planned("SELECT 1", database).changes_catalog);
  EXPECT_EQ(make_plan({}, database, 9).epoch, 9u);
}

TEST(planner, statements_that_could_not_be_parsed) {
  const auto database = messenger();
  request r;
  r.sql = "SELEC 1";
  plan p = make_plan(r, database, 1).plan;
  EXPECT_EQ(p.error.sqlstate, "0A000");
  EXPECT_NE(p.error.message.find("SELEC"), std::string::npos) << p.error.message;
  r.sql = " ; -- nothing";
  EXPECT_EQ(show(make_plan(r, database, 1).plan), "any");
  r.sql = "SELECT 1";
  for (int i = 0; i < 50'000; ++i) r.sql += "+1";
  EXPECT_EQ(make_plan(r, database, 1).plan.error.sqlstate, "54001");
}

TEST(planner, speed) {
  const auto database = messenger();
  request r;
  r.sql = "SELECT conversation_id, x FROM a WHERE user_id = $1 AND is_archived = false ORDER BY x LIMIT 20";
  r.tree = *sql::parse_tree(r.sql);
  constexpr int rounds = 5'000;
  const auto start = std::chrono::steady_clock::now();
  int found = 0;
  for (int i = 0; i < rounds; ++i) found += make_plan(r, database, 1).plan.destination == destination::one_shard;
  const std::chrono::duration<double, std::micro> took = std::chrono::steady_clock::now() - start;
  EXPECT_EQ(found, rounds);
  std::printf("make_plan: %.1f us\n", took.count() / rounds);
}

TEST(planner, hostile_trees) {
  const auto database = messenger();
  request r;
  r.sql = "SELECT * FROM a WHERE user_id = 5 AND x IN (SELECT 1 FROM b) ORDER BY 1";
  const std::string tree = *sql::parse_tree(r.sql);
  for (std::size_t i = 0; i < tree.size(); ++i) {
    for (const int value : {0, 1, 8, 10, 127, 128, 255}) {
      r.tree = tree;
      r.tree[i] = static_cast<char>(value);
      make_plan(r, database, 1);
    }
    r.tree = tree.substr(0, i);
    make_plan(r, database, 1);
  }
  // A chain of nodes deeper than any statement: NOT (NOT (NOT …
  std::string nested;
  for (int i = 0; i < 100'000; ++i) {
    std::string head{"\x82\x01"};
    std::size_t size = nested.size();
    do {
      head += static_cast<char>((size & 0x7f) | (size > 0x7f ? 0x80 : 0));
      size >>= 7;
    } while (size > 0);
    nested = nested.size() < 4000 ? head + nested : nested;
  }
  r.tree = nested;
  make_plan(r, database, 1);
}

TEST(planner, copy_says_how_to_read_its_input) {
  const auto options = [](const std::string& sql) {
    return planned(sql, messenger()).copy.options;
  };
  auto o = options("COPY a FROM STDIN");
  EXPECT_EQ(o.format, copy::format::text);
  EXPECT_EQ(o.delimiter, '\t');
  EXPECT_EQ(o.null_text, "\\N");
  o = options("COPY a FROM STDIN WITH CSV HEADER QUOTE '*' FORCE NOT NULL user_id, x");
  EXPECT_EQ(o.format, copy::format::csv);
  EXPECT_TRUE(o.header);
  EXPECT_EQ(o.quote, '*');
  EXPECT_EQ(o.escape, '*');
  EXPECT_EQ(o.null_text, "");
  EXPECT_EQ(o.not_null, (std::vector<std::string>{"user_id", "x"}));
  o = options("COPY a FROM STDIN (FORMAT csv, HEADER match, NULL 'n', DELIMITER ';', ESCAPE '\\', "
              "FORCE_NULL (x), FORCE_NOT_NULL *, ENCODING 'latin1', DEFAULT 'd')");
  EXPECT_TRUE(o.header && o.all_not_null && o.has_default);
  EXPECT_EQ(o.null_text, "n");
  EXPECT_EQ(o.delimiter, ';');
  EXPECT_EQ(o.escape, '\\');
  EXPECT_EQ(o.null, (std::vector<std::string>{"x"}));
  EXPECT_EQ(o.encoding, "latin1");
  EXPECT_EQ(o.default_text, "d");
  EXPECT_FALSE(options("COPY a FROM STDIN (HEADER off)").header);
  EXPECT_FALSE(options("COPY a FROM STDIN (HEADER 0)").header);
  EXPECT_TRUE(options("COPY a FROM STDIN (HEADER 1)").header);
  EXPECT_EQ(options("COPY a FROM STDIN BINARY").format, copy::format::binary);
  EXPECT_EQ(options("COPY BINARY a FROM STDIN").format, copy::format::binary);
  const auto p = planned("COPY public.a (\"X\", user_id) FROM STDIN", messenger());
  EXPECT_EQ(p.copy.columns, (std::vector<std::string>{"X", "user_id"}));
  EXPECT_EQ(p.copy.name, "a");
}

TEST(planner, another_equals_sign_may_come_first) {
  const auto d = messenger();
  const std::string sql = "SELECT * FROM a WHERE user_id = $1";
  const std::string in = "SELECT * FROM a WHERE user_id = $1 AND user_id IN (SELECT user_id FROM b)";
  for (const char* path : {"", "public", "pg_catalog, ops, public", "ops, public"}) {
    EXPECT_EQ(show(planned(sql, d, {}, path)), "$1") << path;
  }
  for (const char* path : {"ops, pg_catalog, public", "public, pg_catalog"}) {
    EXPECT_EQ(show(planned(sql, d, {}, path)), "no") << path;
    EXPECT_EQ(show(planned("SELECT * FROM a WHERE user_id OPERATOR(pg_catalog.=) $1", d, {}, path)),
              "$1");
    EXPECT_EQ(show(planned(in, d, {}, path)), "no") << path;
  }
}

TEST(planner, values_whose_place_or_origin_is_not_certain) {
  const auto d = messenger();
  for (const char* sql : {"INSERT INTO messages (id, sender_id) VALUES ((ROW(1, 2)::pair).*, $1)",
                          "INSERT INTO messages (id, sender_id) OVERRIDING USER VALUE VALUES (1, 2)",
                          "INSERT INTO messages VALUES ((SELECT q).*, 2, 'c')"}) {
    EXPECT_EQ(show(planned(sql, d)), "no") << sql;
  }
  EXPECT_EQ(show(planned("INSERT INTO messages (sender_id, id) VALUES ($1, (ROW(1)::one).*)", d)),
            "$1 w");
  EXPECT_EQ(show(planned("INSERT INTO messages (id, sender_id) OVERRIDING SYSTEM VALUE VALUES (1, 2)",
                         d)), "#1 w");
}

TEST(planner, definitions_of_the_open_transaction) {
  const auto d = messenger();
  const auto unsettles = [&](const char* sql) { return planned(sql, d).unsettles; };
  using list = std::vector<std::string>;
  EXPECT_EQ(unsettles("CREATE OR REPLACE VIEW app.v AS SELECT * FROM a"), list{"v"});
  EXPECT_EQ(unsettles("CREATE TABLE mine.a (x int)"), list{"a"}) << "there is one already";
  EXPECT_EQ(unsettles("CREATE TABLE child () INHERITS (a)"), list{"child"});
  EXPECT_EQ(unsettles("CREATE TABLE x PARTITION OF p FOR VALUES IN (1)"), list{"x"});
  EXPECT_EQ(unsettles("ALTER TABLE a DROP COLUMN x"), list{"a"});
  EXPECT_EQ(unsettles("ALTER TABLE p ATTACH PARTITION q FOR VALUES IN (1)"), list{"*"});
  EXPECT_EQ(unsettles("ALTER SCHEMA elsewhere RENAME TO old"), list{"*"});
  EXPECT_EQ(unsettles("CREATE OR REPLACE FUNCTION app.f() RETURNS int LANGUAGE sql AS ''"),
            list{"f"});
  EXPECT_EQ(unsettles("CREATE POLICY p ON plain USING (true)"), list{"plain"});
  EXPECT_EQ(unsettles("ALTER VIEW v_messages RENAME TO w"), (list{"v_messages", "w"}));
  auto by_column = d;
  by_column.sharded.push_back({"", "", "tenant_id", "bigint"});
  const auto then_unsettled = [&](const char* sql) { return planned(sql, by_column).unsettles; };
  EXPECT_EQ(then_unsettled("CREATE TABLE bills (id int, tenant_id bigint)"), list{"bills"});
  EXPECT_EQ(then_unsettled("CREATE TABLE bills (LIKE other)"), list{"bills"});
  EXPECT_EQ(then_unsettled("CREATE TABLE bills OF bill"), list{"bills"});
  EXPECT_EQ(then_unsettled("CREATE SCHEMA s CREATE TABLE bills (tenant_id int)"), list{"bills"});
  EXPECT_EQ(then_unsettled("CREATE TABLE bills (id int)"), list{});
  for (const char* sql : {"CREATE TABLE fresh (a int)", "ALTER TABLE plain ADD COLUMN b int",
                          "DROP TABLE IF EXISTS plain", "ALTER TABLE plain RENAME TO other",
                          "ALTER TABLE plain RENAME COLUMN a TO b", "CREATE INDEX ON a (x)",
                          "GRANT SELECT ON a TO bob"}) {
    EXPECT_EQ(unsettles(sql), list{}) << sql;
  }
  const auto then = [&](const char* sql, list names) {
    return show(planned(sql, d, {}, {}, std::move(names)));
  };
  EXPECT_EQ(then("SELECT * FROM plain JOIN v USING (x)", {"v"}), "no");
  EXPECT_EQ(then("SELECT f(1)", {"f"}), "no");
  EXPECT_EQ(then("INSERT INTO a (user_id) VALUES (1)", {"b", "a"}), "no");
  EXPECT_EQ(then("SELECT * FROM plain", {"*"}), "no");
  EXPECT_EQ(then("SELECT 1", {"*"}), "any");
  EXPECT_EQ(then("SELECT * FROM a WHERE user_id = 1", {"v"}), "#0");
  EXPECT_EQ(then("ALTER TABLE a ADD COLUMN z int", {"a"}), "all") << "definitions may follow";
}

}  // namespace
}  // namespace pgsled::plan
