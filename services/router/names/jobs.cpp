#include "services/router/names/jobs.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <future>
#include <thread>

#include "common/management/served_as.hpp"
#include "services/router/shards/map.hpp"

namespace pgsled::router {

namespace {

constexpr std::chrono::milliseconds connect_timeout{3000};
constexpr const char* durably = "SET synchronous_commit = on; SELECT pgsled.";

template <class Integer>
Integer number(const std::string& text) {   // 0 counts as damaged
  Integer value{};
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), value);
  return ec == std::errc() && end == text.data() + text.size() ? value : Integer{};
}

result<bool> has_records(management::connection& link) {
  const auto there = link.query("SELECT to_regprocedure('pgsled.read_served_as()') IS NOT NULL");
  if (!there) return tl::unexpected(there.error());
  return !there->empty() && (*there)[0][0] == "t";
}

struct stored_name {
  served_record record;
  std::string fence;
};

result<std::optional<stored_name>> read_row(management::connection& link) {
  const auto rows = link.query(
      "SELECT name, other, token, epoch, shard, job, fence FROM pgsled.read_served_as()");
  if (!rows) return tl::unexpected(rows.error());
  if (rows->empty()) return std::optional<stored_name>();
  const auto& row = rows->front();
  return std::optional(stored_name{{row[0], row[1], row[2], number<std::uint64_t>(row[3]),
                                    number<std::uint32_t>(row[4]), row[5]}, row[6]});
}

result<std::optional<served_record>> read_settled(management::connection& link,
                                                 const std::vector<std::string>& keep) {
  const auto there = has_records(link);
  if (!there) return tl::unexpected(there.error());
  if (!*there) return std::optional<served_record>();
  auto row = read_row(link);
  if (row && *row && !(*row)->fence.empty() &&
      std::find(keep.begin(), keep.end(), (*row)->fence) == keep.end()) {
    if (const auto lifted = link.query(std::string(durably) + "lift_served_fence()"); !lifted) {
      return tl::unexpected(lifted.error());
    }
    row = read_row(link);
  }
  if (!row) return tl::unexpected(row.error());
  return *row ? std::optional((*row)->record) : std::optional<served_record>();
}

names_reading read_first(const names_job::cluster& one, const names_job& job,
                         const std::atomic<bool>& stop) {
  names_reading read;
  read.tried = true;
  if (one.shards.empty()) {
    read.problem = "no host or no user is known for its first shard";
    return read;
  }
  auto link = management::connection::open(one.shards.front(), job.tls, connect_timeout, stop);
  if (!link) {
    read.problem = link.error().message;
    return read;
  }
  auto record = read_settled(*link, job.keep_fences);
  if (!record) {
    read.problem = record.error().message;
    return read;
  }
  read.reached = true;
  read.record = std::move(*record);
  return read;
}

struct member_of_pair {      // a server of the two clusters
  const management::address* at;
  const std::string *name, *other;
  std::uint32_t shard;
  bool sharded;
};

// The first server of `database` comes last: as long as anything is left, it says so.
std::vector<member_of_pair> servers_of(const pair_job& job) {
  std::vector<member_of_pair> all;
  const auto add = [&](const auto& shards, const auto& name, const auto& other, bool sharded) {
    for (std::size_t i = shards.size(); i-- > 0;) {
      all.push_back({&shards[i], &name, &other, static_cast<std::uint32_t>(i), sharded});
    }
  };
  add(job.other, job.pair.other, job.pair.database, job.other_sharded);
  add(job.database, job.pair.database, job.pair.other, job.database_sharded);
  return all;
}

result<bool> end_on(management::connection& link, const member_of_pair& one,
                    const std::string& job) {
  // Rows of the map by the job, whatever name they have.
  const auto has_map =
      link.query("SELECT to_regprocedure('pgsled.end_move(text,text)') IS NOT NULL");
  if (!has_map) return tl::unexpected(has_map.error());
  if (!has_map->empty() && (*has_map)[0][0] == "t") {
    const auto ended = link.query(fmt::format("{}end_move({}, {})", durably,
                                              link.literal(*one.name), link.literal(job)));
    if (!ended) return tl::unexpected(ended.error());
  }
  const auto there = has_records(link);
  if (!there || !*there) return there;
  const auto ended = link.query(fmt::format("{}end_cluster_move({})", durably, link.literal(job)));
  if (!ended) return tl::unexpected(ended.error());
  return true;
}

result<bool> begin_on(management::connection& link, const member_of_pair& one,
                      const cluster_pair& pair, const std::string& job) {
  if (const auto made = link.query(management::served_as_schema()); !made) {
    return tl::unexpected(made.error());
  }
  const auto said = link.query(fmt::format(
      "{}begin_cluster_move({}, {}, {}, {}, {}, {})", durably, link.literal(*one.name),
      link.literal(*one.other), link.literal(pair.database), std::max<std::uint64_t>(pair.epoch, 1),
      one.shard, link.literal(job)));
  if (!said) return tl::unexpected(said.error());
  const std::string got = said->empty() ? std::string() : said->front()[0];
  if (got != job) {
    return failure("55006", got.empty() ? fmt::format("shard {} of \"{}\" is recorded as another "
                                                      "database or shard", one.shard, *one.name)
                                        : fmt::format("another move of \"{}\" is registered: {}",
                                                      *one.name, got));
  }
  if (!one.sharded) return true;
  // Nothing else may move rows of it meanwhile.
  if (const auto made = link.query(shard_map_schema()); !made) return tl::unexpected(made.error());
  const auto beside = link.query(fmt::format("{}begin_move({}, {})", durably,
                                             link.literal(*one.name), link.literal(job)));
  if (!beside) return tl::unexpected(beside.error());
  const std::string other = beside->empty() ? std::string() : beside->front()[0];
  if (other == job) return true;
  return failure("55006", other.empty() ? fmt::format("shard {} of \"{}\" has no stored map yet",
                                                      one.shard, *one.name)
                                        : fmt::format("another move of \"{}\" is registered: {}",
                                                      *one.name, other));
}

result<bool> set_fence(const pair_job& job, const move_work& work, const std::atomic<bool>& stop) {
  auto link = management::connection::open(job.database.front(), job.tls, connect_timeout, stop);
  if (!link) return tl::unexpected(link.error());
  const auto set = link->query(fmt::format(
      "{}set_served_fence({}, {}, {}, {})", durably, link->literal(work.job),
      link->literal(job.pair.database), job.pair.epoch, link->literal(work.fence)));
  if (!set) return tl::unexpected(set.error());
  if (!set->empty() && set->front()[0] == "t") return true;
  return failure("55006", "the first shard of \"" + job.pair.database +
                              "\" has another name, another job or another fence");
}

}  // namespace

// All at once: one that does not answer must not hold up the others.
void read_names(const names_job& job, const std::atomic<bool>& stop,
                const std::function<void(const std::string&, const names_reading&)>& each) {
  std::vector<std::future<void>> asked;
  for (const auto& one : job.clusters) {
    asked.push_back(std::async(std::launch::async, [&one, &job, &stop, &each] {
      each(one.server, read_first(one, job, stop));
    }));
  }
  for (auto& one : asked) one.get();
}

result<settled_name> settle_name(management::connection& link, const std::string& database,
                                 std::uint32_t shard, const cluster_pair& pair) {
  const auto there = has_records(link);
  if (!there) return tl::unexpected(there.error());
  if (!*there) return settled_name{};
  const auto row = read_row(link);
  if (!row) return tl::unexpected(row.error());
  if (!*row) return settled_name{};
  const served_record& record = (*row)->record;
  const bool of_pair = pair.epoch != 0 && (database == pair.database || database == pair.other);
  if (of_pair && record.epoch <= pair.epoch && record.shard == shard) {
    const auto& other = database == pair.database ? pair.other : pair.database;
    const auto taken = link.query(fmt::format("{}take_name({}, {}, {}, {})", durably,
                                              link.literal(database), link.literal(other),
                                              pair.epoch, shard));
    if (!taken) return tl::unexpected(taken.error());
    if (!taken->empty() && taken->front()[0] == "t") return settled_name{{}, record.job};
  }
  if (record.name == database && record.shard == shard) return settled_name{{}, record.job};
  if (of_pair && record.epoch > pair.epoch && record.shard == shard) {
    return failure("57P03", "it has another name since its names were read");
  }
  return settled_name{
      pg_error{"55000",
               fmt::format("the server given as shard {} of database \"{}\" says it is shard {} of "
                           "\"{}\" since a move to another cluster", shard, database, record.shard,
                           record.name),
               "Give the hosts in [[databases]] to the name that they have.", {}},
      {}};
}

result<bool> complete_names(const pair_job& job, const std::atomic<bool>& stop) {
  result<bool> how = true;
  for (const member_of_pair& one : servers_of(job)) {
    auto link = management::connection::open(*one.at, job.tls, connect_timeout, stop);
    if (!link) {
      how = tl::unexpected(link.error());
      continue;   // the others all the same
    }
    const auto settled = settle_name(*link, *one.name, one.shard, job.pair);
    if (!settled) {
      how = tl::unexpected(settled.error());
    } else if (settled->other) {
      how = tl::unexpected(*settled->other);
    }
  }
  return how;
}

result<bool> do_cluster_work(const pair_job& job, const move_work& work,
                             const std::atomic<bool>& stop) {
  if (work.what == move_work::kind::set_fence) return set_fence(job, work, stop);
  auto servers = servers_of(job);
  if (work.what == move_work::kind::begin) std::reverse(servers.begin(), servers.end());
  const auto of_other = [&](const member_of_pair& one) { return one.name == &job.pair.other; };
  std::vector<management::connection> links;
  for (std::size_t i = 0; i < servers.size(); ++i) {
    auto link = management::connection::open(*servers[i].at, job.tls, connect_timeout, stop);
    if (link) {
      links.push_back(std::move(*link));
      continue;
    }
    if (!work.lost || !of_other(servers[i])) return tl::unexpected(link.error());
    // All of them are left as they are, so that the job is found there when they are reached again.
    std::erase_if(servers, of_other);
    links.clear();
    i = static_cast<std::size_t>(-1);
  }
  for (std::size_t i = 0; i < servers.size(); ++i) {
    const auto done = work.what == move_work::kind::begin
                          ? begin_on(links[i], servers[i], job.pair, work.job)
                          : end_on(links[i], servers[i], work.job);
    if (done) continue;
    if (work.what == move_work::kind::begin) {
      for (std::size_t undone = i + 1; undone-- > 0;) {
        if (end_on(links[undone], servers[undone], work.job)) continue;
        // A server that was restarted may have it all the same.
        for (int tries = 0; tries < 3 && !stop; ++tries) {
          auto again = management::connection::open(*servers[undone].at, job.tls, connect_timeout,
                                                    stop);
          if (again && end_on(*again, servers[undone], work.job)) break;
          std::this_thread::sleep_for(std::chrono::milliseconds(500));
        }
      }
    }
    return done;
  }
  return true;
}

}  // namespace pgsled::router
