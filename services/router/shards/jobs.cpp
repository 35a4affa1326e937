#include "services/router/shards/jobs.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <map>

#include "common/management/together.hpp"
#include "services/router/commit/jobs.hpp"
#include "services/router/control/placement_change.hpp"
#include "services/router/names/jobs.hpp"

namespace pgsled::router {

namespace {

constexpr std::chrono::milliseconds connect_timeout{3000};

template <class Integer>
std::optional<Integer> number(const std::string& text) {
  Integer value{};
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (ec != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

result<std::optional<stored_map>> read_map(management::connection& link,
                                           const std::string& database) {
  const auto there =
      link.query("SELECT to_regprocedure('pgsled.read_shard_map(text)') IS NOT NULL, "
                 "to_regprocedure('pgsled.read_move(text)') IS NOT NULL");
  if (!there) return tl::unexpected(there.error());
  if (there->empty() || (*there)[0][0] != "t") return std::optional<stored_map>();
  // Map and fence of one snapshot: an older map must not be read as one without a fence, which
  // nothing can change any more.
  const std::string of = link.literal(database);
  const bool moves = (*there)[0][1] == "t";
  const auto rows = link.query(fmt::format(
      "SELECT m.epoch, m.shard, m.buckets, {} FROM pgsled.read_shard_map({}) m{}",
      moves ? "v.job, v.fence" : "'', ''", of, moves ? ", pgsled.read_move(" + of + ") v" : ""));
  if (!rows) return tl::unexpected(rows.error());
  if (rows->empty()) return std::optional<stored_map>();
  const auto& row = rows->front();
  stored_map map;
  map.epoch = number<std::uint64_t>(row[0]).value_or(0);   // 0 and empty count as damaged
  map.shard = number<std::uint32_t>(row[1]).value_or(0);
  map.buckets = buckets_from_text(row[2]).value_or(std::vector<std::uint32_t>());
  map.job = row[3];
  map.fence = row[4];
  return std::optional(std::move(map));
}

// A fence that nobody stands for any more. Afterwards nothing changes the map under it.
result<std::optional<stored_map>> read_settled_map(management::connection& link,
                                                   const map_job& job) {
  auto map = read_map(link, job.database);
  if (!map || !*map || (*map)->fence.empty() || (*map)->fence == job.keep_fence) return map;
  const auto lifted = link.query(fmt::format("SET synchronous_commit = on; "
                                             "SELECT pgsled.lift_fence({})",
                                             link.literal(job.database)));
  if (!lifted) return tl::unexpected(lifted.error());
  return read_map(link, job.database);
}

std::optional<pg_error> write_map(management::connection& link, const std::string& database,
                                  std::uint32_t shard, const map_decision& map) {
  const auto made = link.query(shard_map_schema());
  if (!made) return made.error();
  const auto stored = link.query(fmt::format(
      "SET synchronous_commit = on; SELECT pgsled.store_shard_map({}, {}, {}, '{}')",
      link.literal(database), map.epoch, shard, buckets_to_text(map.buckets)));
  if (!stored) return stored.error();
  return std::nullopt;
}

// What the file says, where it is not stored yet. Why it cannot hold, if it contradicts what is.
result<std::optional<pg_error>> settle_placements(management::connection& link,
                                                  const map_job& job) {
  const auto there = link.query("SELECT to_regclass('pgsled.placement') IS NOT NULL");
  if (!there) return tl::unexpected(there.error());
  if ((*there)[0][0] != "t") {
    const auto made = link.query(shard_map_schema());
    if (!made) return tl::unexpected(made.error());
  }
  const auto rows = link.query(fmt::format(
      "SELECT entry, definition FROM pgsled.placement WHERE database = {}",
      link.literal(job.database)));
  if (!rows) return tl::unexpected(rows.error());
  std::map<std::string, std::string> stored;
  std::vector<snapshot::placed_table> before;
  for (const auto& row : *rows) {
    auto read = snapshot::from_json<snapshot::placed_table>(row[1]);
    if (!read) continue;   // of a later version: it knows more than can be compared here
    stored[row[0]] = row[1];
    before.push_back(std::move(*read));
  }
  if (auto why = placement_change(job.database, before, job.tables, job.placed_by_hand)) {
    return std::optional(std::move(*why));
  }
  for (const auto& one : job.tables) {
    const auto entry = entry_of(one), definition = snapshot::to_json(one);
    if (stored[entry] == definition) continue;
    const auto done = link.query(fmt::format(
        "INSERT INTO pgsled.placement AS p (database, entry, definition) VALUES ({0}, {1}, {2}) "
        "ON CONFLICT (database, entry) DO UPDATE SET definition = {2}, stored_at = now()",
        link.literal(job.database), link.literal(entry), link.literal(definition)));
    if (!done) return tl::unexpected(done.error());
  }
  return std::optional<pg_error>();
}

// What one shard has. The error: what is there belongs to another database or shard.
std::optional<pg_error> read_shard(const map_job& job, std::size_t shard,
                                   management::connection& link, shard_reading& reading) {
  reading = {};
  const auto named = settle_name(link, job.database, static_cast<std::uint32_t>(shard), job.names);
  if (named && named->other) return named->other;
  if (!named) {
    reading.problem = named.error().message;
    return std::nullopt;
  }
  auto map = read_settled_map(link, job);
  if (!map) {
    reading.problem = map.error().message;
    return std::nullopt;
  }
  // A move of all of it to other servers keeps others off the map, and leaves it as it is.
  if (*map && (*map)->job == named->job) (*map)->job.clear();
  reading.reached = true;
  reading.map = std::move(*map);
  return std::nullopt;
}

}  // namespace

map_decision settle_map(const map_job& job, kept_links kept, const std::atomic<bool>& stop) {
  if (kept.shards != job.shards) kept.links.clear();
  std::vector<shard_reading> readings(job.shards.size());
  std::vector<std::optional<management::connection>> links(job.shards.size());
  // Clients may be waiting for a fence to fall: all at once.
  using problem = std::optional<pg_error>;
  const auto other = management::together(links.size(), [&](std::size_t i) -> problem {
    if (i < kept.links.size()) {
      links[i].emplace(std::move(kept.links[i]));
      links[i]->wait_at_most(connect_timeout);
      auto error = read_shard(job, i, *links[i], readings[i]);
      if (error || readings[i].reached) return error;
    }
    // A kept one may be to a server that is not there any more.
    links[i].reset();
    auto link = management::connection::open(job.shards[i], job.tls, connect_timeout, stop);
    if (!link) {
      readings[i].problem = link.error().message;
      return std::nullopt;
    }
    auto error = read_shard(job, i, *link, readings[i]);
    if (readings[i].reached) links[i].emplace(std::move(*link));
    return error;
  });
  if (other) {
    map_decision no;
    no.what = map_decision::outcome::refused;
    no.reason = other->message + ". " + other->hint;
    return no;
  }
  map_decision decided = decide(job.database, readings);
  if (decided.what != map_decision::outcome::known) return decided;
  // Before anybody is served, so that the first commit finds it. Why it fails the commit service
  // says, and goes on trying; one shard alone can be worked with without.
  if (job.decisions && !job.placed) {
    management::together(links.size(), [&](std::size_t i) -> problem {
      if (links[i]) static_cast<void>(make_decision_schema(*links[i]));
      return std::nullopt;
    });
  }
  for (const std::uint32_t shard : decided.write_to) {
    if (const auto error = write_map(*links[shard], job.database, shard, decided)) {
      // A map that some shard holds is true wherever else it is missing; one that none holds yet
      // must not serve anybody.
      const bool stored = std::any_of(readings.begin(), readings.end(), [&](const auto& one) {
        return one.map && one.map->epoch == decided.epoch;
      });
      if (!stored) decided.what = map_decision::outcome::unknown;
      decided.complete = false;
      decided.reason = fmt::format(
          "the shard map could not be stored on shard {}: {} (give a user of this database "
          "schema_admin = true whose server role may create a schema)", shard, error->message);
      return decided;
    }
  }
  for (std::size_t i = 0; i < links.size() && !job.placed; ++i) {
    if (!links[i]) continue;
    const auto held = settle_placements(*links[i], job);
    if (!held) {
      decided.complete = false;
      decided.reason = fmt::format("how rows are placed could not be stored on shard {}: {}", i,
                                   held.error().message);
    } else if (*held) {
      decided.what = map_decision::outcome::refused;
      decided.reason = (*held)->message + ". " + (*held)->hint;
      return decided;
    }
  }
  return decided;
}

result<bool> do_move_work(const map_job& job, const move_work& work, kept_links& keep,
                          const std::atomic<bool>& stop) {
  std::vector<management::connection> links;
  for (std::size_t i = 0; i < job.shards.size(); ++i) {
    auto link = management::connection::open(job.shards[i], job.tls, connect_timeout, stop);
    if (!link) return tl::unexpected(link.error());
    links.push_back(std::move(*link));
  }
  const auto call = [&](management::connection& link, const std::string& function) {
    return link.query("SET synchronous_commit = on; SELECT pgsled." + function);
  };
  const auto database = [&](management::connection& link) { return link.literal(work.database); };
  // Of the fence: only a map that is the same everywhere can be changed under it.
  std::uint64_t epoch = 0;
  for (std::size_t i = 0; i < links.size(); ++i) {
    management::connection& link = links[i];
    result<management::connection::rows> said;
    const std::string name = link.literal(work.job);
    switch (work.what) {
      case move_work::kind::begin:
        said = link.query(shard_map_schema());
        if (said) said = call(link, fmt::format("begin_move({}, {})", database(link), name));
        break;
      case move_work::kind::end:
        said = call(link, fmt::format("end_move({}, {})", database(link), name));
        break;
      case move_work::kind::set_fence: {
        const auto map = read_map(link, work.database);
        if (!map) return tl::unexpected(map.error());
        if (*map && epoch == 0) epoch = (*map)->epoch;
        said = call(link, fmt::format("set_fence({}, {}, {}, {})", database(link), name, epoch,
                                      link.literal(work.fence)));
        break;
      }
    }
    if (!said) {
      // Nobody would come to end it there; what cannot be told now is found when maps are read.
      for (std::size_t done = 0; done <= i && work.what == move_work::kind::begin; ++done) {
        static_cast<void>(call(links[done], fmt::format("end_move({}, {})", database(links[done]),
                                                        name)));
      }
      return tl::unexpected(said.error());
    }
    if (work.what == move_work::kind::end) continue;
    const std::string got = said->empty() ? std::string() : said->front()[0];
    if (got == (work.what == move_work::kind::begin ? work.job : "t")) continue;
    if (work.what == move_work::kind::set_fence) {
      return failure("55006", fmt::format("shard {} has another map or another fence", i));
    }
    for (std::size_t done = 0; done < i; ++done) {
      if (const auto undone = call(links[done], fmt::format("end_move({}, {})",
                                                            database(links[done]), name));
          !undone) {
        return tl::unexpected(undone.error());
      }
    }
    return failure("55006", got.empty() ? fmt::format("shard {} has no stored map yet", i)
                                        : fmt::format("another move is registered on shard {}: {}",
                                                      i, got));
  }
  if (work.what == move_work::kind::set_fence) {
    keep.shards = job.shards;
    keep.links = std::move(links);
  }
  return true;
}

}  // namespace pgsled::router
