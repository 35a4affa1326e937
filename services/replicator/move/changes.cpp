#include "services/replicator/move/changes.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "services/replicator/move/check.hpp"

namespace pgsled::replicator {

namespace {

// One table of a source that was `before`: rows that were copied or followed as they were then, or
// that were written since, may not be what they would be.
std::optional<std::string> changed_too_much(const moving::table& before, const found_table& now,
                                            shard_number shard, const std::string& file) {
  for (const auto& one : before.columns) {
    for (const auto& other : now.it.columns) {
      if (one.name != other.name || one.type_number == other.type_number) continue;
      return fmt::format("column {} of table {} was changed from {} to {} on shard {}", one.name,
                         before.label(), one.type, other.type, shard);
    }
  }
  if (before.columns != now.it.columns && file != now.file) {
    return fmt::format("table {} was written anew with other columns on shard {}", before.label(),
                       shard);
  }
  const auto names = [](const moving::table& of) {
    std::vector<std::string> all;
    for (const std::size_t place : of.primary) all.push_back(of.columns.at(place).name);
    if (!of.whole()) all.push_back(of.columns.at(of.key).name);
    return all;
  };
  if (names(before) == names(now.it)) return std::nullopt;
  return fmt::format("the primary key of table {} was changed on shard {}", before.label(), shard);
}

// Tables that were made, dropped or changed on a source or the destination, so that what has been
// copied and followed of them is not all there is of them.
std::optional<std::string> cannot_go_on(
    const move_scene& scene, const std::map<shard_number, std::vector<moving::table>>& tables,
    const std::map<shard_number, found_tables>& all) {
  const auto of = [](const auto& in, shard_number shard) {
    const auto found = in.find(shard);
    return found == in.end() ? std::vector<moving::table>() : found->second;
  };
  for (const shard_number source : scene.sources) {
    const auto before = of(scene.tables, source);
    for (const auto& one : of(tables, source)) {
      const bool known = std::any_of(before.begin(), before.end(), [&](const auto& other) {
        return other.label() == one.label();
      });
      if (!known) {
        return fmt::format("tables were made: {} on shard {}, which would stay behind",
                           one.label(), source);
      }
    }
    for (const auto& one : before) {
      for (const shard_number shard : {source, scene.destination}) {
        const auto then = scene.began_with.at(shard).find(one.label());
        const auto now = all.at(shard).find(one.label());
        if (then == scene.began_with.at(shard).end()) continue;
        if (now == all.at(shard).end()) {
          return fmt::format("table {} was dropped on shard {}", one.label(), shard);
        }
        if (now->second.oid != then->second.first) {
          return fmt::format("table {} was dropped and made again on shard {}", one.label(),
                             shard);
        }
        if (shard != source) continue;
        if (auto why = changed_too_much(one, now->second, source, then->second.second)) return why;
      }
    }
  }
  return std::nullopt;
}

}  // namespace

std::string other_columns(const moving::table& here, const moving::table& there) {
  std::string more, less, other;
  const auto find = [](const moving::table& in, const std::string& name) {
    return std::find_if(in.columns.begin(), in.columns.end(),
                        [&](const auto& one) { return one.name == name; });
  };
  const auto add = [](std::string& to, std::string text) {
    to += (to.empty() ? "" : ", ") + std::move(text);
  };
  for (const auto& one : here.columns) {
    const auto same = find(there, one.name);
    if (same == there.columns.end()) {
      add(more, one.name + " " + one.type);
    } else if (same->type != one.type) {
      add(other, fmt::format("{} is {} instead of {}", one.name, one.type, same->type));
    }
  }
  for (const auto& one : there.columns) {
    if (find(here, one.name) == here.columns.end()) add(less, one.name + " " + one.type);
  }
  std::string all = std::move(other);
  if (!more.empty()) add(all, "it has " + more + " more");
  if (!less.empty()) add(all, "it lacks " + less);
  return all.empty() ? "in another order, or another NOT NULL, GENERATED or partition" : all;
}

result<tables_now> look_at_tables(move_scene& scene) {
  auto before = std::move(scene.tables);
  tables_now now;
  const auto found = tables_again(scene, now.differ);
  now.tables = std::exchange(scene.tables, std::move(before));
  if (!found) return tl::unexpected(found.error());
  now.end = cannot_go_on(scene, now.tables, *found);
  return now;
}

trouble same_tables(move_scene& scene) {
  const auto now = look_at_tables(scene);
  if (!now) return now.error();
  if (!now->end && now->differ.empty() && now->tables == scene.tables) return std::nullopt;
  return pg_error{"55000", "tables were changed during the move" +
                               (now->end               ? ": " + *now->end
                                : now->differ.empty() ? std::string()
                                                      : ": " + now->differ.front()), {}, {}};
}

}  // namespace pgsled::replicator
