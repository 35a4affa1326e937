// Rows that several sources had when they were copied, each under a snapshot of its own.

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <set>

#include "services/replicator/cluster/flow.hpp"

namespace pgsled::replicator {

namespace {

constexpr std::chrono::milliseconds very_long_wait{24 * 3'600'000};

std::string primary_list(const moving::table& of) {
  std::string list;
  for (const auto place : of.primary) {
    list += (list.empty() ? "" : ", ") + moving::quoted(of.columns[place].name);
  }
  return list;
}

std::string primary_of(const moving::table& of, const moving::kept_row& row) {
  std::string key;
  for (const auto place : of.primary) {
    key += fmt::format("{}:{};", row[place].value.size(), row[place].value);
  }
  return key;
}

// Of one table of one destination.
class doubles {
 public:
  doubles(const move_scene& scene, const moving::table& table) : scene_(scene), table_(table) {}

  // What is there twice.
  trouble find() {
    auto link = scene_.open(scene_.destination, very_long_wait);
    if (!link) return link.error();
    const auto list = primary_list(table_);
    const auto rows = link->query(fmt::format(
        "SELECT {0}, ctid FROM ONLY {1} WHERE ({2}) IN (SELECT {2} FROM ONLY {1} GROUP BY {2} "
        "HAVING count(*) > 1) LIMIT {3}", row_as_text(table_), moving::in_sql(table_), list,
        2 * waiting_rows::most));
    if (!rows) return rows.error();
    if (rows->size() == 2 * waiting_rows::most) {
      return pg_error{"53400", fmt::format("table {}: too many rows were taken from one shard to "
                                           "another while the snapshots were taken",
                                           table_.label()), "Move at a quieter time.", {}};
    }
    for (const auto& one : *rows) {
      const auto row = row_of(table_, one[0]);
      if (!row) return row.error();
      auto known_by = moving::known_by(table_, moving::borrowed(*row));
      if (!known_by) return known_by.error();
      conditions_.insert(std::move(*known_by));
      places_.emplace(one[0], one[1]);
    }
    return std::nullopt;
  }
  bool any() const { return !conditions_.empty(); }

  // Those of one source: the first of each stays, the others wait.
  trouble set_aside(move_stream& stream, std::size_t place) {
    auto link = scene_.open(stream.source(), very_long_wait);
    if (!link) return link.error();
    if (auto error = execute(*link, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")) {
      return error;
    }
    if (auto error = execute(*link, "SET TRANSACTION SNAPSHOT " +
                                        link->literal(stream.snapshot()))) {
      return error;
    }
    return in_pieces(table_, conditions_, [&](auto some) -> trouble {
      const auto rows = link->query(fmt::format(
          "SELECT {} FROM ONLY {} WHERE {} AND (({}))", row_as_text(table_),
          moving::in_sql(table_), moving::where_moving(table_, *scene_.gets),
          fmt::join(some, ") OR (")));
      if (!rows) return rows.error();
      for (const auto& one : *rows) {
        if (auto error = keep_or_wait(stream, place, one[0])) return error;
      }
      return std::nullopt;
    });
  }

 private:
  trouble keep_or_wait(move_stream& stream, std::size_t place, const std::string& text) {
    auto row = row_of(table_, text);
    if (!row) return row.error();
    if (seen_.insert(primary_of(table_, *row)).second) return std::nullopt;
    const auto known_by = moving::known_by(table_, moving::borrowed(*row));
    if (!known_by) return known_by.error();
    const auto there = places_.find(text);
    if (there == places_.end()) {
      return pg_error{"XX001", fmt::format("table {}: the row with {} was not copied as it was",
                                           table_.label(), *known_by), {}, {}};
    }
    const auto ctid = there->second;
    places_.erase(there);
    if (const auto done = stream.let_wait(place, *known_by, std::move(*row), ctid); !done) {
      return done.error();
    }
    return std::nullopt;
  }

  const move_scene& scene_;
  const moving::table& table_;
  std::set<std::string> conditions_, seen_;
  std::multimap<std::string, std::string> places_;   // on the destination: ctids, by row
};

}  // namespace

result<bool> cluster_flow::set_doubles_aside(std::size_t of) {
  move_scene& to = scene(of);
  const auto first = to.tables.find(0);
  if (first == to.tables.end()) return false;
  bool found = false;
  for (const moving::table& table : first->second) {
    if (table.primary.empty()) continue;
    doubles some(to, table);
    if (auto error = some.find()) return tl::unexpected(std::move(*error));
    if (!some.any()) continue;
    found = true;
    for (const auto& [destination, stream] : streams_) {
      const auto tables = to.tables.find(stream->source());
      if (destination != of || tables == to.tables.end()) continue;
      const auto& all = tables->second;
      const auto mine = std::find_if(all.begin(), all.end(), [&](const auto& one) {
        return one.label() == table.label();
      });
      if (mine == all.end()) continue;
      if (auto error = some.set_aside(*stream, static_cast<std::size_t>(mine - all.begin()))) {
        return tl::unexpected(std::move(*error));
      }
    }
  }
  return found;
}

}  // namespace pgsled::replicator
