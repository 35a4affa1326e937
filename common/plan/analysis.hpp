#pragma once
// analysis: is a SELECT, INSERT, UPDATE, DELETE (with all it contains) right on one shard?
// Internal to the planner. Pure.
//
// Every mention of a sharded table is an *occurrence*. An occurrence is *bound* to a value k when
// the statement gives the same result although all its rows with another key are taken away. If
// all occurrences are bound to the same k, the shard of k alone gives the result of the whole.
//   - A conjunct key = k of WHERE binds any occurrence of its block: each row of the block that
//     contains a row of the table with another key is filtered out, whatever the joins between.
//   - In an ON the same holds for both sides of an inner join and for the nullable side of an
//     outer one; never for a preserved side.
//   - A conjunct key = other key binds the one if the other is bound, under the same restriction.
//     In a sub-select it may bind the occurrences of the sub-select, never those around it.
//   - key IN (SELECT other key …) likewise; it binds inwards only if nothing in the sub-select
//     (LIMIT, grouping, DISTINCT ON, set operation) looks at several rows.
// All occurrences have the same rule, or the statement is refused: the same value of a key is
// elsewhere by another one.
// Conditions are not carried through the output columns of sub-selects in FROM or of CTEs.
//
// A statement that itself (not in a WITH) writes to a table that is on every shard goes to all of
// them, as long as it reads nothing that differs from shard to shard: no sharded table.

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "common/plan/keys.hpp"
#include "common/plan/names.hpp"
#include "common/plan/plan.hpp"

namespace pgsled::plan {

class analysis {
 public:
  analysis(const database_view& database, const request& from, const names& tables);

  void statement(const node*);   // SELECT, INSERT, UPDATE, DELETE, MERGE
  plan finish();                 // one_shard, any_shard, all_shards or refused

 private:
  static constexpr int nothing = -1;

  struct occurrence {
    std::string shown, column;
    placement::rule rule;
    bool inserted = false;
    std::vector<key> sources;
  };
  struct item {                    // of a FROM clause
    std::string alias, schema;
    bool aliased = false;
    int occurrence = nothing;
    bool renamed = false;          // its columns have names we do not know
  };
  struct scope {
    const scope* outer = nullptr;
    std::vector<item> items;
    std::map<std::string, int> merged;   // columns of USING: occurrence they stand for
    std::vector<std::string> ctes;
  };
  struct fact {
    int left = nothing, right = nothing;   // occurrences; right nothing: source
    std::optional<key> source;
    bool binds_left = false, binds_right = false;
  };
  struct membership {                      // key IN (SELECT …)
    int outer = nothing;
    bool binds_outer = false;
    const PgQuery__SelectStmt* inner = nullptr;
  };
  struct output {                          // single output column of a sub-select
    int occurrence = nothing;
    bool row_by_row = false;
  };

  // analysis.cpp
  void refuse(std::string why, std::string hint = {}, std::string detail = {});
  void bind();
  plan one_shard();
  plan unbound();
  plan everywhere();
  static plan lock_on_one_only();
  std::string all_tables() const;

  // analysis_walk.cpp
  void walk(const tree_message* m, const scope& in);
  void walk_list(node_list nodes, const scope& in);
  void select(const PgQuery__SelectStmt&, const scope& outer);
  void insert(const PgQuery__InsertStmt&, const scope& outer);
  void insert_row(const PgQuery__InsertStmt&, const relation& target, int of);
  void update(const PgQuery__UpdateStmt&, const scope& outer);
  void remove(const PgQuery__DeleteStmt&, const scope& outer);
  void merge(const PgQuery__MergeStmt&);
  bool keeps_keys(const PgQuery__RangeVar& changed, const relation&, node_list targets,
                  const char* verb);
  void with(const PgQuery__WithClause*, scope& names);
  void from(node_list items, scope& block);
  void from_item(const node*, scope& block, scope& joined);
  void join(const PgQuery__JoinExpr&, scope& block, scope& joined);
  void join_using(const PgQuery__JoinExpr&, const scope& left, const scope& right, scope& joined);
  void add_alias(const PgQuery__Alias*, scope& block, scope& joined);
  void table(const PgQuery__RangeVar&, scope& block, scope& joined);
  item target(const PgQuery__RangeVar&, relation& found, const char* verb);
  int add_occurrence(const PgQuery__RangeVar&, const relation&);
  void locking(const PgQuery__SelectStmt&, const scope& block, std::size_t omni_before);
  void call(const PgQuery__FuncCall&);

  // analysis_facts.cpp
  void conditions(const node*, const scope& in, const std::set<int>& bindable);
  void comparison(const PgQuery__AExpr&, const scope& in, const std::set<int>& bindable);
  void equality(const node* left, const node* right, const scope& in,
                const std::set<int>& bindable);
  void in_select(const PgQuery__SubLink&, const scope& in, const std::set<int>& bindable);
  bool is_equality(node_list operator_name) const;
  int resolve(const node* column, const scope& in) const;
  int resolve_name(const std::string& column, const scope& in) const;
  static bool is_cte(const PgQuery__RangeVar&, const scope& in);
  static std::set<int> occurrences_of(const scope& in);

  const database_view& database_;
  const names& tables_;
  key_reader keys_;
  std::vector<occurrence> occurrences_;
  std::vector<fact> facts_;
  std::vector<membership> memberships_;
  std::map<const PgQuery__SelectStmt*, output> outputs_;
  std::size_t omni_seen_ = 0;         // tables in FROM that are not sharded
  std::string why_not_;               // of the last value that could not be a key
  std::string unsafe_function_;
  bool writes_ = false;
  const PgQuery__RangeVar* written_ = nullptr;   // the table that the statement itself writes to
  const PgQuery__SelectStmt* selected_ = nullptr;   // the statement itself, if it is a SELECT
  row_write rows_;                               // of that, if it is on every shard
  const node* whole_ = nullptr;   // the statement
  std::string unordered_;         // a table of which "*" is not the same on every shard
  std::optional<pg_error> refusal_;
};

plan refused(std::string why, std::string hint = {}, std::string detail = {});
// The statement, or several in one query, ask for two values of the key.
pg_error two_keys(const std::string& of_what);

}  // namespace pgsled::plan
