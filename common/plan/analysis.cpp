#include "common/plan/analysis.hpp"

#include <algorithm>

namespace pgsled::plan {

plan refused(std::string why, std::string hint, std::string detail) {
  plan p;
  p.destination = destination::refused;
  p.error = {"0A000", std::move(why), std::move(hint), std::move(detail)};
  return p;
}

pg_error two_keys(const std::string& of_what) {
  return {"0A000",
          of_what + " are asked for by different sharding keys, which may be on different shards",
          "Use one statement for each key.",
          {}};
}

analysis::analysis(const database_view& database, const request& from, const names& tables)
    : database_(database), tables_(tables), keys_(from) {}

void analysis::refuse(std::string why, std::string hint, std::string detail) {
  if (!refusal_) refusal_ = pg_error{"0A000", std::move(why), std::move(hint), std::move(detail)};
}

void analysis::statement(const node* root) {
  const scope outermost;
  whole_ = root;
  switch (root->node_case) {
    case PG_QUERY__NODE__NODE_SELECT_STMT: selected_ = root->select_stmt; break;
    case PG_QUERY__NODE__NODE_INSERT_STMT: written_ = root->insert_stmt->relation; break;
    case PG_QUERY__NODE__NODE_UPDATE_STMT: written_ = root->update_stmt->relation; break;
    case PG_QUERY__NODE__NODE_DELETE_STMT: written_ = root->delete_stmt->relation; break;
    default: break;
  }
  walk(reinterpret_cast<const tree_message*>(root), outermost);
}

// Carries sources along the equalities until nothing changes.
void analysis::bind() {
  for (const auto& m : memberships_) {
    const auto found = outputs_.find(m.inner);
    if (found == outputs_.end() || found->second.occurrence == nothing) continue;
    fact f;
    f.left = m.outer;
    f.right = found->second.occurrence;
    f.binds_left = m.binds_outer;
    f.binds_right = found->second.row_by_row;
    facts_.push_back(f);
  }
  // A long list of conditions must not take the router's time. What is left out could only have
  // spared a comparison: those that stay bind it as well.
  constexpr std::size_t most_sources = 32;
  const auto add = [](std::vector<key>& to, const key& source) {
    if (to.size() >= most_sources) return false;
    if (std::find(to.begin(), to.end(), source) != to.end()) return false;
    to.push_back(source);
    return true;
  };
  for (bool changed = true; changed;) {
    changed = false;
    for (const auto& f : facts_) {
      auto& left = occurrences_[static_cast<std::size_t>(f.left)].sources;
      if (f.source) {
        if (f.binds_left) changed |= add(left, *f.source);
        continue;
      }
      auto& right = occurrences_[static_cast<std::size_t>(f.right)].sources;
      if (f.binds_left) {
        for (std::size_t i = 0; i < right.size(); ++i) changed |= add(left, right[i]);
      }
      if (f.binds_right) {
        for (std::size_t i = 0; i < left.size(); ++i) changed |= add(right, left[i]);
      }
    }
  }
}

plan analysis::finish() {
  if (refusal_) {
    plan p;
    p.destination = destination::refused;
    p.error = *refusal_;
    return p;
  }
  if (rows_.locks && !occurrences_.empty()) return lock_on_one_only();
  if (!rows_.table.empty() && !occurrences_.empty()) {
    return refused("table " + rows_.table + " is on every shard, and what is written to it " +
                       "depends on " + all_tables() + ", of which each shard has other rows",
                   "Read the sharded tables first, and give the values with the statement.");
  }
  if (!unordered_.empty() && has_star(whole_)) {
    return refused("* of table " + unordered_ +
                       ", whose columns are not the same, or in another order, on every shard",
                   "Name the columns in the statement, or make the table the same everywhere.");
  }
  if (!occurrences_.empty()) {
    bind();
    const bool all = std::none_of(occurrences_.begin(), occurrences_.end(),
                                  [](const occurrence& o) { return o.sources.empty(); });
    return all ? one_shard() : unbound();
  }
  if (!unsafe_function_.empty()) {
    const auto function = "function " + in_quotes(unsafe_function_);
    return refused(function + " may read or write sharded tables",
                   "Call it in a statement that is bound to one shard by the sharding key of a "
                   "table, or make it a function in C that reads no tables.");
  }
  if (!rows_.table.empty()) return everywhere();
  plan p;
  p.destination = destination::any_shard;
  p.access = writes_ ? access::write : access::read;
  return p;
}

plan analysis::lock_on_one_only() {
  return refused("FOR UPDATE or FOR SHARE would lock rows of a table that is present on every "
                 "shard, on one of them only",
                 "Name the sharded tables to lock with FOR UPDATE OF, or lock the rows in a "
                 "statement of its own.");
}

plan analysis::everywhere() {
  plan p;
  p.destination = destination::all_shards;
  p.access = access::write;
  p.rows = rows_;
  return p;
}

plan analysis::one_shard() {
  plan p;
  p.destination = destination::one_shard;
  p.access = writes_ ? access::write : access::read;
  p.rule = occurrences_.front().rule;
  for (const auto& o : occurrences_) {
    if (o.rule == p.rule) continue;
    return refused(all_tables() + " are placed by different rules (data_type, hasher or mapping), "
                       "so that one key is not on one shard",
                   "Ask the tables in statements of their own.");
  }
  // One source that binds all of them, if there is one.
  const auto& first = occurrences_.front().sources;
  const auto common = std::find_if(first.begin(), first.end(), [&](const key& candidate) {
    return std::all_of(occurrences_.begin(), occurrences_.end(), [&](const occurrence& o) {
      return std::find(o.sources.begin(), o.sources.end(), candidate) != o.sources.end();
    });
  });
  p.key = common != first.end() ? *common : first.front();
  for (const auto& o : occurrences_) {
    if (common != first.end()) break;
    const key& source = o.sources.front();
    if (source == p.key || std::find(p.also_equal.begin(), p.also_equal.end(), source) !=
                               p.also_equal.end()) {
      continue;
    }
    p.error = two_keys(all_tables());
    if (source.source == key_source::constant && p.key.source == key_source::constant) {
      p.destination = destination::refused;
      return p;
    }
    p.also_equal.push_back(source);
  }
  std::vector<key> all = p.also_equal;
  all.push_back(p.key);
  for (const auto& source : all) {
    if (keys_.certain(source, p.rule.type)) continue;
    const std::string name = "$" + std::to_string(source.number + 1);
    const std::string type{placement::name_of(p.rule.type)};
    return refused("the type of the sharding key, parameter " + name +
                       ", is not certain, as it is used in another place, too",
                   "Declare its type as " + type + ", write " + name + "::" + type +
                       " everywhere, or use a parameter of its own for the key.");
  }
  return p;
}

std::string analysis::all_tables() const {
  std::string names;
  for (const auto& o : occurrences_) {
    if (names.find(o.shown) == names.npos) names += (names.empty() ? "tables " : ", ") + o.shown;
  }
  return names;
}

plan analysis::unbound() {
  std::string tables;
  const occurrence* missing = nullptr;
  const auto literal = [](const occurrence& o) {
    return o.rule.type == placement::key_type::bigint ? "an integer" : "a literal";
  };
  for (const auto& o : occurrences_) {
    if (!o.sources.empty()) continue;
    if (!missing) missing = &o;
    const std::string part = "table " + o.shown + " by its sharding key " + in_quotes(o.column);
    if (tables.find(part) == tables.npos) tables += (tables.empty() ? "" : ", ") + part;
  }
  if (missing->inserted) {
    return refused("INSERT into table " + missing->shown + " needs a value for its sharding key " +
                       in_quotes(missing->column),
                   std::string{"Give the column a parameter or "} + literal(*missing) +
                       " in VALUES.",
                   why_not_);
  }
  const bool joined = occurrences_.size() > 1;
  return refused("the statement is not bound to one shard: it does not restrict " + tables,
                 "Add " + in_quotes(missing->column) +
                     " = value, as a parameter or " + literal(*missing) +
                     ", to the conditions joined by AND in WHERE" +
                     (joined ? " of each SELECT, or join the tables on their sharding keys."
                             : "; statements over several shards come in a later version."),
                 why_not_);
}

}  // namespace pgsled::plan
