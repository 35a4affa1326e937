#include "services/replicator/move/copy.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <optional>

#include "common/commit/statements.hpp"
#include "common/moving/copying.hpp"
#include "services/replicator/move/crew.hpp"

namespace pgsled::replicator {

namespace {

using clock = std::chrono::steady_clock;
using moving::copy_part;

constexpr std::chrono::milliseconds long_wait{600'000};
constexpr std::size_t bytes_at_once = 128u << 10;         // given to libpq
// Of a table: 4 to 32 MiB, so that each worker has some parts and all end at about the same time.
constexpr std::uint64_t least_in_part = 512, most_in_part = 4096, parts_of_worker = 4;

std::string begin_under(const management::connection& link, const std::string& snapshot) {
  return "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT " +
         link.literal(snapshot) + "; ";
}

class copying {
 public:
  copying(const move_scene& scene, const std::vector<source_snapshot>& sources)
      : scene_(scene), sources_(sources), rate_(scene.where.manner.copy_rate) {}

  trouble run(const copy_watcher& watch) {
    std::vector<moving::table_size> sizes;
    for (const auto& from : sources_) {
      if (auto error = measure(from.source, sizes)) return error;
    }
    if (sizes.empty()) return std::nullopt;
    const auto part = part_of(sizes);
    queue_.emplace(sizes, part);
    std::erase_if(cut_, [&](const cut_table& one) { return one.blocks <= part; });
    const auto workers = std::min<std::size_t>(scene_.where.manner.copies, queue_->left());
    if (auto error = crew_.work(static_cast<std::uint32_t>(workers),
                                [this](std::uint32_t number) { return work(number); },
                                [&] { return watch(rows_.exchange(0), bytes_.exchange(0)); })) {
      return error;
    }
    return not_rewritten();
  }

 private:
  struct worker {
    std::optional<management::connection> from, to;
    shard_number source = 0;
  };

  struct cut_table {
    shard_number source = 0;
    std::string label, name, file;     // name as SQL; file: changes when it is rewritten
    std::uint64_t blocks = 0;
  };

  std::uint64_t part_of(const std::vector<moving::table_size>& sizes) const {
    std::uint64_t all = 0;
    for (const auto& one : sizes) all += one.blocks;
    const std::uint64_t parts = parts_of_worker * std::max(scene_.where.manner.copies, 1u);
    return std::clamp(all / parts, least_in_part, most_in_part);
  }

  static std::string file_of(const std::string& name) {
    return fmt::format("pg_relation_filenode({})", commit::statements::literal(name));
  }

  // How large the tables of one source are. The last part of each is open, so that nothing depends
  // on it; but rows of a table that is rewritten have other places, so that parts would not fit.
  trouble measure(shard_number source, std::vector<moving::table_size>& sizes) {
    const auto tables = scene_.tables.find(source);
    if (tables == scene_.tables.end() || tables->second.empty()) return std::nullopt;
    auto link = scene_.open(source, long_wait);
    if (!link) return link.error();
    std::string ask;
    for (const moving::table& one : tables->second) {
      const auto name = moving::in_sql(one);
      ask += fmt::format("{}SELECT {}, {}, pg_relation_size({}) / "
                         "current_setting('block_size')::bigint", ask.empty() ? "" : " UNION ALL ",
                         &one - tables->second.data(), file_of(name), link->literal(name));
    }
    const auto rows = link->query(ask);
    if (!rows) return rows.error();
    for (const auto& row : *rows) {
      const std::size_t place = std::stoull(row[0]);
      const std::uint64_t blocks = std::stoull(row[2]);
      sizes.push_back({source, place, blocks});
      const moving::table& one = tables->second.at(place);
      cut_.push_back({source, one.label(), moving::in_sql(one), row[1], blocks});
    }
    return std::nullopt;
  }

  // Whether the parts of a table were parts of the same.
  trouble not_rewritten() {
    for (const auto& from : sources_) {
      auto link = scene_.open(from.source, long_wait);
      if (!link) return link.error();
      for (const cut_table& one : cut_) {
        if (one.source != from.source) continue;
        const auto file = one_value(*link, "SELECT " + file_of(one.name));
        if (!file) return file.error();
        if (*file == one.file) continue;
        return pg_error{rewritten, fmt::format("table {} of shard {} was truncated or rewritten "
                                               "while parts of it were copied", one.label,
                                               one.source), "Begin again.", {}};
      }
    }
    return std::nullopt;
  }

  // From the end of one part to the end of the last.
  trouble work(std::uint32_t number) {
    worker mine;
    shard_number preferred = sources_[number % sources_.size()].source;
    while (!crew_.failed()) {
      std::optional<copy_part> next;
      {
        const std::lock_guard lock(mutex_);
        next = queue_->take(preferred);
      }
      if (!next) break;
      preferred = next->source;
      if (auto error = copy(mine, *next)) return error;
    }
    return std::nullopt;
  }

  trouble connect(worker& mine, shard_number source) {
    if (!mine.from || mine.source != source) {
      mine.from.reset();
      auto from = scene_.open(source, long_wait);
      if (!from) return from.error();
      mine.from.emplace(std::move(*from));
      mine.source = source;
      // A range of blocks has to be read by its place, whatever the planner thinks of it.
      if (auto error = execute(*mine.from, "SET enable_seqscan = off; SET jit = off; "
                                           "SET max_parallel_workers_per_gather = 0")) {
        return error;
      }
    }
    if (mine.to) return std::nullopt;
    auto to = scene_.open(scene_.destination, long_wait);
    if (!to) return to.error();
    mine.to.emplace(std::move(*to));
    // Nothing of this has to be on a disk before the flip, which is.
    return execute(*mine.to, "SET session_replication_role = replica; "
                             "SET synchronous_commit = off");
  }

  trouble copy(worker& mine, const copy_part& part) {
    const moving::table& one = scene_.tables.at(part.source).at(part.table);
    const bool binary = scene_.where.manner.binary && !one.other_types &&
                        moving::has_binary_form(one);
    if (auto error = connect(mine, part.source)) return error;
    management::connection& to = *mine.to;
    // A transaction for each part: who wants the table for himself, and all who queue behind him,
    // wait for one only.
    if (const auto begun = to.begin_copy_in("BEGIN; " + hold_job(scene_) + "; " +
                                            moving::copy_in(one, binary)); !begun) {
      return begun.error();
    }
    std::int64_t told = 0;
    const auto read = mine.from->copy_out(
        begin_under(*mine.from, snapshot_of(part.source)) +
            moving::copy_out(one, scene_.of_source(part.source), binary, {part.from, part.to}),
        bytes_at_once, [&](std::string_view piece, std::int64_t messages) -> result<bool> {
          if (crew_.failed()) return failure("57014", "another part of the copy has failed");
          auto put = to.put(piece);
          const auto size = static_cast<std::int64_t>(piece.size());
          bytes_ += size;
          rows_ += messages;
          told += messages;
          if (scene_.where.manner.copy_rate > 0) throttle(size);
          return put;
        });
    if (!read) {
      to.give_up_copy_in("the source failed");
      return read.error();
    }
    const auto stored = to.end_copy_in();
    if (!stored) return stored.error();
    if (*stored != *read) {
      return pg_error{"XX001", fmt::format("{} rows of table {} were read, {} stored", *read,
                                           one.label(), *stored), {}, {}};
    }
    rows_ += *read - told;
    if (auto error = execute(to, "COMMIT")) return error;
    return execute(*mine.from, "COMMIT");
  }

  const std::string& snapshot_of(shard_number source) const {
    return std::find_if(sources_.begin(), sources_.end(), [&](const source_snapshot& one) {
             return one.source == source;
           })->snapshot;
  }

  void throttle(std::int64_t bytes) {
    std::int64_t pause = 0;
    {
      const std::lock_guard lock(mutex_);
      pause = rate_.take(bytes, std::chrono::duration_cast<std::chrono::microseconds>(
                                    clock::now().time_since_epoch()).count());
    }
    crew_.pause(pause);
  }

  const move_scene& scene_;
  const std::vector<source_snapshot>& sources_;
  std::vector<cut_table> cut_;
  move_crew crew_;
  std::mutex mutex_;                   // of the two behind it
  std::optional<moving::copy_queue> queue_;
  moving::copy_rate rate_;
  std::atomic<std::int64_t> rows_{0}, bytes_{0};
};

}  // namespace

trouble copy_rows(const move_scene& scene, const std::vector<source_snapshot>& sources,
                  const copy_watcher& watch) {
  return copying(scene, sources).run(watch);
}

}  // namespace pgsled::replicator
