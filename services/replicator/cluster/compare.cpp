#include "services/replicator/cluster/compare.hpp"

#include <fmt/format.h>

#include "common/management/together.hpp"

namespace pgsled::replicator {

namespace {

constexpr std::chrono::milliseconds long_wait{3'600'000};

// Number of rows and checksum of one table on all sources together and on the destination.
class comparing_together {
 public:
  comparing_together(const move_scene& scene,
                     const std::vector<management::connection*>& sources,
                     management::connection& there, const std::vector<rows_of_tables>& waiting)
      : scene_(scene), sources_(sources), there_(there), waiting_(waiting) {}

  trouble same(const moving::table& one, std::span<const std::string> some) {
    const auto sql = moving::checksum(one, *scene_.gets, some);
    std::vector<std::size_t> having;
    for (std::size_t i = 0; i < sources_.size(); ++i) {
      if (has(i, one)) having.push_back(i);
    }
    std::vector<management::connection::rows> said(having.size() + 1);   // at last the destination
    if (auto error = management::together(said.size(), [&](std::size_t i) -> trouble {
          auto got = (i < having.size() ? *sources_[having[i]] : there_).query(sql);
          if (!got) return got.error();
          said[i] = std::move(*got);
          return std::nullopt;
        })) {
      return error;
    }
    std::string rows = "0", sum = "0";
    for (std::size_t i = 0; i < having.size(); ++i) {
      rows += " + " + said[i].at(0).at(0);
      sum += fmt::format(" + ({})::numeric", said[i].at(0).at(1));   // more than a bigint
      if (auto error = without_waiting(having[i], one, some, rows, sum)) return error;
    }
    const auto added = there_.query(fmt::format("SELECT ({})::bigint, ({})::numeric", rows, sum));
    if (!added) return added.error();
    const auto& now = said.back();
    if (*added == now) return std::nullopt;
    return pg_error{"XX001", fmt::format("table {}: {} rows of {} servers were compared with {} on "
                                         "{}:{}/{}, and they differ; nothing was switched over",
                                         one.label(), (*added)[0][0], sources_.size(),
                                         now[0][0], at().host, at().port, at().database),
                    {}, {}};
  }

  // What would be on no shard is not in any comparison either.
  trouble placed(const moving::table& one) {
    const auto nowhere = moving::where_unplaced(one);
    if (!nowhere) return std::nullopt;
    for (std::size_t i = 0; i < sources_.size(); ++i) {
      if (!has(i, one)) continue;
      const auto some = one_value(
          *sources_[i], fmt::format("SELECT EXISTS (SELECT FROM ONLY {} WHERE {})",
                                    moving::in_sql(one), *nowhere));
      if (!some) return some.error();
      if (*some != "t") continue;
      return pg_error{"23502", fmt::format("table {} has rows whose sharding key {} is NULL{}: they "
                                           "have no shard to go to", one.label(),
                                           one.columns[one.key].name,
                                           one.by.mapping ? ", or in no list and no range" : ""),
                      {}, {}};
    }
    return std::nullopt;
  }

 private:
  const snapshot::move_shard& at() const { return scene_.where.shards.at(scene_.destination); }
  // What waits is on its source and not on the destination; changes of it show as those do.
  trouble without_waiting(std::size_t source, const moving::table& of,
                          std::span<const std::string> some, std::string& rows, std::string& sum) {
    if (source >= waiting_.size()) return std::nullopt;
    const auto waits = waiting_[source].find(of.label());
    if (waits == waiting_[source].end()) return std::nullopt;
    std::set<std::string> mine;
    for (const auto& one : some) {
      if (waits->second.contains(one)) mine.insert(one);
    }
    return in_pieces(of, some.empty() ? waits->second : mine, [&](auto piece) -> trouble {
      const auto less = sources_[source]->query(moving::checksum(of, *scene_.gets, piece));
      if (!less) return less.error();
      rows += " - " + less->at(0).at(0);
      sum += fmt::format(" - ({})::numeric", less->at(0).at(1));
      return std::nullopt;
    });
  }
  bool has(std::size_t source, const moving::table& of) const {
    const auto tables = scene_.tables.find(static_cast<shard_number>(source));
    if (tables == scene_.tables.end()) return false;
    for (const auto& one : tables->second) {
      if (one.label() == of.label()) return true;
    }
    return false;
  }

  const move_scene& scene_;
  const std::vector<management::connection*>& sources_;
  management::connection& there_;
  const std::vector<rows_of_tables>& waiting_;
};

}  // namespace

bool gather_touched(const move_scene& scene, shard_number source, const touched_rows& from,
                    rows_of_tables& to) {
  if (from.unknown) return false;
  for (const auto& [place, rows] : from.rows) {
    to[scene.tables.at(source).at(place).label()].insert(rows.begin(), rows.end());
  }
  return true;
}

rows_of_tables waiting_of(const move_scene& scene, const move_stream& stream) {
  rows_of_tables to;
  for (const auto& [key, entry] : stream.waiting().all()) {
    to[scene.tables.at(stream.source()).at(key.first).label()].insert(key.second);
  }
  return to;
}

trouble same_together(const move_scene& scene, const std::vector<management::connection*>& sources,
                      management::connection& there, const rows_of_tables* among,
                      const std::vector<rows_of_tables>& waiting) {
  comparing_together both(scene, sources, there, waiting);
  const auto tables = scene.tables.find(0);   // the first source has all of them
  if (tables == scene.tables.end()) return std::nullopt;
  for (const moving::table& one : tables->second) {
    if (among == nullptr) {
      if (auto error = both.placed(one)) return error;
      if (auto error = both.same(one, {})) return error;
      continue;
    }
    const auto rows = among->find(one.label());
    if (rows == among->end()) continue;
    if (auto error = in_pieces(one, rows->second,
                               [&](auto some) { return both.same(one, some); })) {
      return error;
    }
  }
  return std::nullopt;
}

cluster_comparison::cluster_comparison(const move_scene& scene, std::vector<move_stream*> streams,
                                       bool all)
    : scene_(scene), streams_(std::move(streams)), all_(all) {
  for (move_stream* one : streams_) {
    one->pause();   // else it could be past the point before that is known
    making_.push_back(std::async(std::launch::async, [this, source = one->source()] {
      return make_point(scene_, source);
    }));
  }
}

cluster_comparison::~cluster_comparison() {
  for (const auto& one : making_) {
    if (one.valid()) one.wait();
  }
  if (comparing_.valid()) comparing_.wait();
}

// Each stream waits for the points of all, so that they stand still as shortly as possible.
result<bool> cluster_comparison::points_made() {
  for (const auto& one : making_) {
    if (!has_come(one)) return false;
  }
  for (std::size_t i = 0; i < making_.size(); ++i) {
    auto made = making_[i].get();
    if (!made) return tl::unexpected(made.error());
    streams_[i]->hold_at(made->at);
    if (streams_[i]->reached() > made->at) return failure("XX000", "a stream was not held in time");
    points_.push_back(std::move(*made));
  }
  making_.clear();
  return true;
}

result<bool> cluster_comparison::advance() {
  if (!making_.empty()) {
    const auto made = points_made();
    if (!made) return tl::unexpected(made.error());
    return false;
  }
  if (!comparing_.valid()) {
    for (const move_stream* one : streams_) {
      if (!one->held()) return false;
    }
    // Everything up to the points is committed on the destination, and nothing behind them.
    auto there = destination_now(scene_);
    if (!there) return tl::unexpected(there.error());
    rows_of_tables some;
    for (move_stream* one : streams_) {
      waiting_.push_back(waiting_of(scene_, *one));
      const auto touched = one->release();
      if (!touched) return tl::unexpected(touched.error());
      if (!gather_touched(scene_, one->source(), *touched, some)) all_ = true;
    }
    comparing_ = std::async(std::launch::async,
                            [this, link = std::move(*there), rows = std::move(some)]() mutable {
                              return compare(std::move(link), rows);
                            });
    return false;
  }
  if (!has_come(comparing_)) return false;
  return comparing_.get();
}

result<bool> cluster_comparison::compare(management::connection there,
                                         const rows_of_tables& some) const {
  std::vector<management::connection> here;
  for (std::size_t i = 0; i < streams_.size(); ++i) {
    auto link = scene_.open(streams_[i]->source(), long_wait);
    if (!link) return tl::unexpected(link.error());
    if (auto error = begin_at(*link, points_[i])) return tl::unexpected(std::move(*error));
    here.push_back(std::move(*link));
  }
  std::vector<management::connection*> sources;
  for (auto& one : here) sources.push_back(&one);
  if (auto error = same_together(scene_, sources, there, all_ ? nullptr : &some, waiting_)) {
    return tl::unexpected(std::move(*error));
  }
  return true;
}

}  // namespace pgsled::replicator
