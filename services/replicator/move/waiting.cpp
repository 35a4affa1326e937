#include "services/replicator/move/waiting.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json.hpp>

#include "common/commit/statements.hpp"

namespace pgsled::replicator {

namespace {

namespace json = boost::json;
using commit::statements::literal;
using kind = moving::wal::field::kind;

std::size_t size_of(const std::string& known_by, const moving::kept_row& row) {
  std::size_t size = known_by.size();
  for (const auto& one : row) size += sizeof one + one.value.size();
  return size;
}

std::string as_text(const moving::kept_row& row) {
  json::array fields;
  for (const auto& one : row) {
    if (one.what == kind::null) {
      fields.push_back(nullptr);
    } else {
      fields.push_back(json::string(json::string_view(one.value.data(), one.value.size())));
    }
  }
  return json::serialize(fields);
}

}  // namespace

bool in_the_way(const pg_error& why) {
  // 55P03: another stream has not committed yet what it did to it.
  return why.sqlstate == "23505" || why.sqlstate == "23P01" || why.sqlstate == "55P03";
}

std::string row_as_text(const moving::table& of) {
  std::string fields;
  for (const auto& one : of.columns) {
    const auto name = moving::quoted(one.name);
    if (!fields.empty()) fields += ", ";
    fields += fmt::format("CASE WHEN num_nulls({0}) = 0 THEN format('%s', {0}) END", name);
  }
  return "json_build_array(" + fields + ")";
}

result<moving::kept_row> row_of(const moving::table& of, const std::string& text) {
  json::error_code ec;
  const auto parsed = json::parse(text, ec);
  if (ec || !parsed.is_array() || parsed.get_array().size() != of.columns.size()) {
    return failure("XX001", fmt::format("a row of table {} cannot be read", of.label()));
  }
  moving::kept_row row;
  for (const auto& one : parsed.get_array()) {
    if (one.is_null()) {
      row.push_back({});
    } else if (one.is_string()) {
      row.push_back({kind::text, std::string(std::string_view(one.get_string()))});
    } else {
      return failure("XX001", fmt::format("a row of table {} cannot be read", of.label()));
    }
  }
  return row;
}

trouble waiting_rows::load(management::connection& link,
                           const std::vector<moving::table>& tables) {
  const auto found = link.query(fmt::format(
      "SELECT id, \"table\", known_by, row FROM pgsled.job_waiting WHERE job = {} AND slot = {} "
      "ORDER BY id", literal(job_), literal(slot_)));
  if (!found) return found.error();
  rows_.clear();
  bytes_ = 0;
  for (const auto& one : *found) {
    const auto of = std::find_if(tables.begin(), tables.end(),
                                 [&](const auto& table) { return table.label() == one[1]; });
    if (of == tables.end()) {
      return pg_error{"XX001", fmt::format("a row of table {} waits, which takes no part", one[1]),
                      {}, {}};
    }
    auto row = row_of(*of, one[3]);
    if (!row) return row.error();
    ids_ = std::stoull(one[0]);
    bytes_ += size_of(one[2], *row);
    rows_[{static_cast<std::size_t>(of - tables.begin()), one[2]}] = {ids_, std::move(*row)};
  }
  return std::nullopt;
}

std::string waiting_rows::put(const moving::table& of, std::size_t place,
                              const std::string& known_by, moving::kept_row row) {
  auto sql = fmt::format(
      "INSERT INTO pgsled.job_waiting (job, slot, id, \"table\", known_by, row) VALUES ({}, {}, "
      "{}, {}, {}, {})", literal(job_), literal(slot_), ++ids_, literal(of.label()), literal(known_by),
      literal(as_text(row)));
  bytes_ += size_of(known_by, row);
  const bool is_new = rows_.insert_or_assign({place, known_by}, entry{ids_, std::move(row)}).second;
  PGSLED_ASSERT(is_new);   // a source has a row once
  return sql;
}

waiting_rows::entries::iterator waiting_rows::erase(entries::iterator which) {
  bytes_ -= std::min(bytes_, size_of(which->first.second, which->second.row));
  return rows_.erase(which);
}

std::string waiting_rows::take(std::size_t place, const std::string& known_by) {
  const auto found = rows_.find({place, known_by});
  PGSLED_ASSERT(found != rows_.end());
  auto sql = fmt::format("DELETE FROM pgsled.job_waiting WHERE job = {} AND slot = {} AND id = {}",
                         literal(job_), literal(slot_), found->second.id);
  erase(found);
  return sql;
}

std::string waiting_rows::take_table(std::size_t place) {
  std::string ids;
  auto one = rows_.lower_bound({place, {}});
  while (one != rows_.end() && one->first.first == place) {
    ids += (ids.empty() ? "" : ",") + std::to_string(one->second.id);
    one = erase(one);
  }
  return fmt::format("DELETE FROM pgsled.job_waiting WHERE job = {} AND slot = {} AND id = "
                     "ANY ('{{{}}}'::bigint[])", literal(job_), literal(slot_), ids);
}

const waiting_rows::entry* waiting_rows::find(std::size_t place,
                                              const std::string& known_by) const {
  const auto found = rows_.find({place, known_by});
  return found == rows_.end() ? nullptr : &found->second;
}

bool waiting_rows::any_of(std::size_t place) const {
  const auto found = rows_.lower_bound({place, {}});
  return found != rows_.end() && found->first.first == place;
}

}  // namespace pgsled::replicator
