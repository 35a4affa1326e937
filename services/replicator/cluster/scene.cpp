#include "services/replicator/cluster/scene.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "common/commit/statements.hpp"

namespace pgsled::replicator {

namespace {

using commit::statements::literal;
using moving::cluster_stored;

constexpr std::chrono::milliseconds usual_timeout{120'000};
constexpr std::array both{cluster_side::old, cluster_side::fresh};

const char* name_of(cluster_side of) { return of == cluster_side::old ? "old" : "new"; }

// By whom the shards are opened: any scene knows how, this one has all shards of one side.
move_scene bare(const cluster_scene& scene, cluster_side of) {
  move_scene to;
  to.job = scene.job;
  to.database = scene.database;
  to.runner = scene.runner;
  to.stop = scene.stop;
  to.where = scene.side(of).where;
  return to;
}

// 0 when nothing is recorded there.
result<std::uint64_t> names_on(management::connection& link) {
  const auto there = one_value(link, "SELECT to_regclass('pgsled.served_as') IS NOT NULL");
  if (!there) return tl::unexpected(there.error());
  if (*there != "t") return std::uint64_t{0};
  // FOR UPDATE: behind a hand-over in flight, whoever sent it.
  const auto epoch = one_value(link, "SELECT epoch FROM pgsled.served_as FOR UPDATE");
  if (!epoch) return tl::unexpected(epoch.error());
  return epoch->empty() ? std::uint64_t{0} : std::uint64_t{std::stoull(*epoch)};
}

struct stored_row {
  std::string phase, side;
};

trouble adopt_on(cluster_scene& scene, management::connection& link, cluster_found& found,
                 std::vector<stored_row>& rows) {
  const auto there = claim_job(link, scene.job, scene.application());
  if (!there) return there.error();
  if (!*there) return std::nullopt;
  const auto got = link.query(fmt::format(
      "UPDATE pgsled.job SET runner = {0}, runs = runs + CASE WHEN split_part(runner, '.', 1) = "
      "split_part({0}, '.', 1) THEN 0 ELSE 1 END, changed_at = now() WHERE id = {1} "
      "RETURNING phase, coalesce(side, ''), coalesce(names, 0), coalesce(cutover, ''), runs",
      literal(scene.runner), literal(scene.job)));
  if (!got) return got.error();
  for (const auto& row : *got) {
    rows.push_back({row[0], row[1]});
    scene.names = std::stoull(row[2]);
    scene.automatic_cutover = row[3] == "automatic";
    found.runs = std::max(found.runs, static_cast<std::uint32_t>(std::stoul(row[4])));
  }
  return std::nullopt;
}

}  // namespace

std::string cluster_scene::one_side::label(std::size_t shard) const {
  const auto& at = where.shards.at(shard);
  return fmt::format("shard {} ({}:{}/{})", shard, at.host, at.port, at.database);
}

moving::selection cluster_scene::one_side::rows_of(shard_number shard) const {
  moving::selection rows{where.buckets.size(), {}, true, shard};
  for (std::uint32_t bucket = 0; bucket < where.buckets.size(); ++bucket) {
    if (where.buckets[bucket] == shard) rows.moving.push_back(bucket);
  }
  return rows;
}

void cluster_scene::set(snapshot::cluster_where from, bool swapped) {
  registered = from.moving;
  side(swapped ? cluster_side::fresh : cluster_side::old).where = std::move(from.from);
  side(swapped ? cluster_side::old : cluster_side::fresh).where = std::move(from.to);
}

trouble cluster_scene::open_side(cluster_side of) {
  auto& here = side(of);
  here.links.clear();
  here.gets.clear();
  const auto opener = bare(*this, of);
  for (shard_number shard = 0; shard < here.where.shards.size(); ++shard) {
    auto made = opener.open(shard, usual_timeout);
    if (!made) return made.error();
    here.links.push_back(std::move(*made));
  }
  return std::nullopt;
}

trouble cluster_scene::open_all() {
  for (const auto of : both) {
    if (of == lost) {
      side(of).links.clear();
      side(of).gets.clear();
    } else if (auto error = open_side(of)) {
      return error;
    }
  }
  return std::nullopt;
}

void cluster_scene::make_scenes() {
  for (const auto of : both) {
    auto& here = side(of);
    const auto& from = side(other_side(of));
    here.gets.clear();
    for (shard_number shard = 0; shard < here.where.shards.size(); ++shard) {
      auto one = std::make_unique<move_scene>(bare(*this, other_side(of)));
      one->where.manner = side(cluster_side::old).where.manner;
      one->destination = static_cast<shard_number>(from.where.shards.size());
      one->where.shards.push_back(here.where.shards[shard]);
      for (shard_number source = 0; source < one->destination; ++source) {
        one->sources.push_back(source);
      }
      one->gets = here.rows_of(shard);
      one->tag = fmt::format("{}{}_", of == cluster_side::fresh ? "to" : "back", shard);
      here.gets.push_back(std::move(one));
    }
  }
}

trouble cluster_scene::open_destinations(cluster_side of) {
  for (auto& one : side(of).gets) {
    if (one->links.contains(one->destination)) continue;
    auto made = one->open(one->destination, usual_timeout);
    if (!made) return made.error();
    one->links.emplace(one->destination, std::move(*made));
  }
  return std::nullopt;
}

trouble cluster_scene::on_all(const std::string& sql) {
  for (const auto of : both) {
    for (auto& link : side(of).links) {
      if (auto error = execute(link, sql)) return error;
    }
  }
  return std::nullopt;
}

result<cluster_found> adopt(cluster_scene& scene) {
  cluster_found found;
  if (scene.registered.empty()) return found;
  std::array<std::vector<stored_row>, 2> rows;   // of what the router calls old and new
  for (const auto of : both) {
    for (auto& link : scene.side(of).links) {
      if (auto error = adopt_on(scene, link, found, rows[static_cast<std::size_t>(of)])) {
        return tl::unexpected(std::move(*error));
      }
    }
  }
  // Not stored on all, or given up: then the name is where it was.
  found.what = cluster_stored::given_up;
  const auto& [here, there] = rows;
  const auto is = [](const std::vector<stored_row>& some, const char* side) {
    return std::any_of(some.begin(), some.end(), [&](const auto& one) { return one.side == side; });
  };
  if (is(here, "new") || is(there, "old")) {
    if (is(here, "old") || is(there, "new")) {
      return failure("XX001", "the servers do not agree on which of them had the rows at first");
    }
    std::swap(scene.sides[0], scene.sides[1]);
    if (scene.lost) scene.lost = other_side(*scene.lost);
  }
  std::uint64_t epoch = 0;
  for (const auto of : both) {
    if (of == scene.lost) continue;   // only who has the name can have given it away
    const auto read = names_on(scene.side(of).links.front());
    if (!read) return tl::unexpected(read.error());
    epoch = std::max(epoch, *read);
  }
  bool moving = false, done = false;
  for (const auto& some : rows) {
    for (const auto& row : some) {
      moving = moving || row.phase == "moving";
      done = done || row.phase == "done";
    }
  }
  if (scene.names == 0 || epoch == scene.names) {
    if (moving) found.what = cluster_stored::moving;
  } else if (epoch == scene.names + 1) {
    found.what = done ? cluster_stored::kept : cluster_stored::flipped;
  } else if (epoch == scene.names + 2) {
    found.what = cluster_stored::returned;
  } else {
    return failure("XX001", fmt::format("the names have been exchanged {} times since job {} began",
                                        epoch - scene.names, scene.job));
  }
  return found;
}

trouble record_cluster_job(cluster_scene& scene, std::uint32_t runs) {
  for (const auto of : both) {
    auto& here = scene.side(of);
    for (std::size_t shard = 0; shard < here.links.size(); ++shard) {
      if (auto error = execute(here.links[shard], job_schema())) return error;
      if (auto error = execute(here.links[shard], fmt::format(
              "INSERT INTO pgsled.job (id, database, other, kind, side, shard, destination, names, "
              "cutover, phase, runner, runs) VALUES ({0}, {1}, {2}, 'new-cluster', '{3}', {4}, "
              "{4}, {5}, '{6}', 'moving', {7}, {8}) ON CONFLICT (id) DO UPDATE SET phase = "
              "'moving', runs = {8}, changed_at = now() WHERE job.runner = {7}; "
              "SELECT pgsled.hold_job({0}, {7})",
              literal(scene.job), literal(scene.database), literal(scene.to), name_of(of), shard,
              scene.names, scene.automatic_cutover ? "automatic" : "wait", literal(scene.runner),
              runs))) {
        return error;
      }
    }
  }
  return std::nullopt;
}

}  // namespace pgsled::replicator
