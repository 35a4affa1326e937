#include <fmt/format.h>

#include <algorithm>

#include "common/config/checked.hpp"

// Placement by list and range: [[sharded_tables.mapping]], and [[sharded_mappings]] for the same.

namespace pgsled::config {
namespace {

// A mapping while it is read, with the lines its entries stand in.
class reader {
 public:
  reader(const checked_file& file, std::string section, placement::key_type type, findings& found)
      : file_(file), section_(std::move(section)), found_(found) {
    made_.type = placement::name_of(type);
  }

  void list(const entry& from) {
    const auto shard = from.as<std::uint32_t>("shard");
    for (const auto& item : from.given.at("values")->items) {
      made_.list.emplace_back(text(item, "values"), shard);
      list_lines_.push_back(item.line > 0 ? item.line : from.line_of("values"));
    }
  }
  void range(const entry& from) {
    placement::mapping_range one;
    one.has_start = from.has("start");
    one.has_end = from.has("end");
    if (one.has_start) one.start = text(*from.given.at("start"), "start");
    if (one.has_end) one.end = text(*from.given.at("end"), "end");
    one.shard = from.as<std::uint32_t>("shard");
    made_.ranges.push_back(std::move(one));
    range_lines_.push_back(from.line);
  }
  void rest(const entry& from) {
    if (made_.fallback >= 0) {
      return wrong(from.line, "", "a second default, without values and bounds; only one is "
                                  "allowed");
    }
    made_.fallback = from.number("shard");
  }
  void wrong(int line, const std::string& key, std::string text) {
    found_.wrong(file_.name, line, section_ + (key.empty() ? "" : "." + key), std::move(text));
  }

  placement::mapping finish() {
    if (!mistyped_) {
      for (auto& flaw : placement::flaws_of(made_)) {
        const auto& lines = flaw.in_list ? list_lines_ : range_lines_;
        if (flaw.other) flaw.text += fmt::format(" (line {})", lines[*flaw.other]);
        wrong(lines[flaw.index], flaw.in_list ? "values" : "", std::move(flaw.text));
      }
    }
    made_.id = placement::id_of(made_);
    return std::move(made_);
  }

 private:
  // A number for a text column would be a text that happens to have digits: said, not guessed.
  std::string text(const node& from, const char* key) {
    if (from.kind == node::type::string) return from.string;
    if (made_.type == "varchar") {
      mistyped_ = true;
      wrong(from.line, key, "must be a string, as data_type is \"varchar\"");
    }
    return std::to_string(from.integer);
  }

  const checked_file& file_;
  std::string section_;
  findings& found_;
  placement::mapping made_;
  std::vector<int> list_lines_, range_lines_;
  bool mistyped_ = false;
};

bool same_table(const entry& mapping, const entry& table) {
  const auto same = [&](const char* of_mapping, const char* of_table) {
    return !mapping.has(of_mapping) || mapping.text(of_mapping) == table.text(of_table);
  };
  return mapping.text("database") == table.text("database") &&
         mapping.text("column") == table.text("column") && same("table", "name") &&
         same("schema", "schema");
}

void read_older(const entry& from, reader& to) {
  const auto kind = from.text("kind");
  const bool values = from.has("values"), bounds = from.has("start") || from.has("end");
  if (kind == "list" && values && !bounds) {
    to.list(from);
  } else if (kind == "range" && bounds && !values) {
    to.range(from);
  } else if (kind == "default" && !values && !bounds) {
    to.rest(from);
  } else {
    to.wrong(from.line, "kind",
             fmt::format("\"{}\" {}", kind,
                         kind == "list"    ? "needs values, and neither start nor end"
                         : kind == "range" ? "needs start, end or both, and no values"
                                           : "takes neither values nor start nor end"));
  }
}

}  // namespace

std::optional<placement::mapping> read_mapping(const checked_file& file, const entry& table,
                                               placement::key_type type, findings& found) {
  std::vector<const entry*> older;
  for (const auto& one : file.all("sharded_mappings")) {
    if (same_table(one, table)) older.push_back(&one);
  }
  if (!table.nested.empty()) {
    reader made{file, "sharded_tables.mapping", type, found};
    for (const auto& one : table.nested) {
      if (!one.has("shard")) continue;   // a mistake already
      if (one.has("values")) {
        if (!one.has("start") && !one.has("end")) made.list(one);   // both: cross_check says so
      } else if (one.has("start") || one.has("end")) {
        made.range(one);
      } else {
        made.rest(one);
      }
    }
    if (!older.empty()) {
      made.wrong(older.front()->line, "",
                 fmt::format("line {} places the same table by [[sharded_mappings]]; only one of "
                             "the two is allowed", older.front()->line));
    }
    return made.finish();
  }
  if (older.empty()) return std::nullopt;
  reader made{file, "sharded_mappings", type, found};
  const bool named = older.front()->has("table"), schema = older.front()->has("schema");
  for (const entry* one : older) {
    if (!one->has("shard") || !one->has("kind")) continue;
    if (one->has("table") != named || one->has("schema") != schema) {
      made.wrong(one->line, "",
                 fmt::format("line {} is for the same table, but names table and schema "
                             "otherwise; it is not clear which of them counts",
                             older.front()->line));
    }
    read_older(*one, made);
  }
  return made.finish();
}

void check_older_mappings(const checked_file& file, findings& found) {
  const auto& tables = file.all("sharded_tables");
  for (const auto& one : file.all("sharded_mappings")) {
    if (!one.has("database") || !one.has("column")) continue;
    if (std::any_of(tables.begin(), tables.end(),
                    [&](const entry& table) { return same_table(one, table); })) {
      continue;
    }
    found.wrong(file.name, one.line, "sharded_mappings",
                "fits no entry of [[sharded_tables]]: database, column and, where they are given, "
                "table and schema must be the same");
  }
}

}  // namespace pgsled::config
