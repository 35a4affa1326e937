#include "common/plan/planner.hpp"

#include <algorithm>

#include "common/plan/analysis.hpp"
#include "common/plan/names.hpp"
#include "common/plan/tree.hpp"
#include "common/plan/unsettled.hpp"
#include "common/plan/utility.hpp"
#include "common/sql/lexer.hpp"
#include "common/sql/parse.hpp"

namespace pgsled::plan {
namespace {

// The parts of a simple query with several statements go to one place, or nowhere.
plan combine(plan all, const plan& next) {
  if (all.destination == destination::refused) return all;
  if (next.destination == destination::refused) return next;
  const char* const way_out = "Send the statements one at a time.";
  const auto copies = [](const plan& one) {
    return one.destination == destination::copy_in || one.destination == destination::copy_out;
  };
  if (copies(all) || copies(next)) {
    return refused("COPY on several shards stands among other statements", way_out);
  }
  if (all.own_transaction || next.own_transaction) {
    return refused("a statement that cannot run inside a transaction block stands among others",
                   way_out);
  }
  if (!all.rows.table.empty() || !next.rows.table.empty()) {
    return refused("a statement that writes to a table on every shard stands among others",
                   way_out);
  }
  const bool everywhere = all.destination == destination::all_shards;
  if (everywhere != (next.destination == destination::all_shards)) {
    return refused("statements for all shards and others stand in one query", way_out);
  }
  if (next.access == access::write) all.access = access::write;
  all.changes_catalog |= next.changes_catalog;
  all.spread_sequences_of.insert(all.spread_sequences_of.end(), next.spread_sequences_of.begin(),
                                 next.spread_sequences_of.end());
  if (next.destination != destination::one_shard) return all;
  if (all.destination != destination::one_shard) {
    all.destination = destination::one_shard;
    all.key = next.key;
    all.rule = next.rule;
    all.also_equal = next.also_equal;
    all.error = next.error;
    return all;
  }
  if (all.rule != next.rule) {
    return refused("the statements of the query are about tables placed by different rules",
                   way_out);
  }
  std::vector<key> places = next.also_equal;
  places.push_back(next.key);
  for (const auto& place : places) {
    if (place == all.key || std::find(all.also_equal.begin(), all.also_equal.end(), place) !=
                                all.also_equal.end()) {
      continue;
    }
    all.error = two_keys("the statements of the query");
    if (place.source == key_source::constant && all.key.source == key_source::constant) {
      all.destination = destination::refused;
      return all;
    }
    all.also_equal.push_back(place);
  }
  return all;
}

plan not_settled(const std::string& name) {
  return refused("what " + in_quotes(name) + " is has been defined in this transaction, and cannot "
                     "be told before its end",
                 "COMMIT the definitions first.");
}

bool is_empty(const std::string& text) {
  sql::lexer lex{text, true};
  sql::token t = lex.next();
  while (t.is_symbol(';')) t = lex.next();
  return t.kind == sql::token_kind::end && !lex.unterminated();
}

// The parser knew nothing of the statement: a mistake, or syntax newer than the parser.
plan unknown_syntax(const std::string& text) {
  const auto again = sql::parse_tree(text);
  const std::string version = std::to_string(sql::parser_version() / 10000);
  plan p = refused("the statement cannot be placed on a shard, as the parser does not " +
                       std::string{"understand it"} +
                       (again ? std::string{} : ": " + again.error().message),
                   "In sharded databases the syntax of PostgreSQL " + version + " can be used.");
  if (!again && again.error().sqlstate != "42601") p.error = again.error();
  return p;
}

}  // namespace

std::optional<placement::rule> rule_of(const sharded_table& table) {
  const auto type = placement::key_type_of(table.data_type.empty() ? "bigint" : table.data_type);
  if (!type) return std::nullopt;
  return placement::rule{*type, table.hasher, table.mapping};
}

answer make_plan(const request& from, const database_view& database, std::uint64_t epoch) {
  answer a;
  a.epoch = epoch;
  const tree_pointer tree = unpack_tree(as_bytes(from.tree));
  if (!tree) {
    a.plan = refused("the statement nests too deeply to be planned",
                     "Split long chains of operators or UNIONs.");
    a.plan.error.sqlstate = "54001";
    return a;
  }
  if (tree->n_stmts == 0 && !is_empty(from.sql)) {
    a.plan.access = access::write;
    if (database.shards > 1) a.plan = unknown_syntax(from.sql);
    return a;
  }
  const names tables{database, from};
  bool first = true, changes_catalog = false;
  std::vector<std::string> unsettles;
  for (std::size_t i = 0; i < tree->n_stmts; ++i) {
    const auto* raw = tree->stmts[i];
    if (!raw || !raw->stmt) {
      a.plan = refused("a statement without content", "Send the statements one at a time.");
      return a;
    }
    plan one = plan_statement(*raw->stmt, database, from, tables);
    changes_catalog = changes_catalog || one.changes_catalog;
    if (one.changes_catalog) {
      for (auto& name : unsettled_by(*raw->stmt, database)) unsettles.push_back(std::move(name));
    } else if (database.shards > 1) {
      const auto name = unsettled_in(*raw->stmt, from.unsettled);
      if (!name.empty()) one = not_settled(name);
    }
    a.plan = first ? std::move(one) : combine(std::move(a.plan), one);
    first = false;
  }
  a.plan.unsettles = std::move(unsettles);
  // On a single shard they go there together, whatever they are.
  if (database.shards <= 1) a.plan.changes_catalog = changes_catalog;
  return a;
}

}  // namespace pgsled::plan
