#include "services/replicator/move/compare.hpp"

#include <fmt/format.h>

#include <array>
#include <thread>

#include "common/management/together.hpp"

namespace pgsled::replicator {

namespace {

constexpr std::chrono::milliseconds long_wait{3'600'000};
constexpr std::chrono::milliseconds slot_wait{10'000};
constexpr std::size_t rows_at_once = 200;   // conditions in one statement
constexpr std::size_t keys_at_once = 10'000;

std::string compare_slot(const move_scene& scene, shard_number source) {
  return fmt::format("CREATE_REPLICATION_SLOT {}_compare TEMPORARY LOGICAL pgoutput "
                     "EXPORT_SNAPSHOT", scene.slot(source));
}

}  // namespace

trouble in_pieces(const moving::table& one, const std::set<std::string>& rows,
                  const std::function<trouble(std::span<const std::string>)>& check) {
  std::vector<std::string> some;
  const auto at_once = one.primary.empty() ? keys_at_once : rows_at_once;
  for (auto row = rows.begin(); row != rows.end();) {
    some.push_back(*row);
    if (++row != rows.end() && some.size() < at_once) continue;
    if (auto error = check(some)) return error;
    some.clear();
  }
  return std::nullopt;
}

result<management::connection> destination_now(const move_scene& scene) {
  auto there = scene.open(scene.destination, long_wait);
  if (!there) return there;
  if (auto error = execute(*there, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")) {
    return tl::unexpected(std::move(*error));
  }
  if (auto error = execute(*there, "SELECT count(*) FROM pgsled.job")) {
    return tl::unexpected(std::move(*error));
  }
  return there;
}

trouble same_rows(management::connection& here, management::connection& there,
                  const moving::table& one, const moving::selection& rows, shard_number source,
                  const std::set<std::string>* among) {
  const auto check = [&](std::span<const std::string> some) -> trouble {
    const auto sql = moving::checksum(one, rows, some);
    std::array<management::connection::rows, 2> sides;
    if (auto error = management::together(sides.size(), [&](std::size_t side) -> trouble {
          auto got = (side == 0 ? here : there).query(sql);
          if (!got) return got.error();
          sides[side] = std::move(*got);
          return std::nullopt;
        })) {
      return error;
    }
    if (sides[0] == sides[1]) return std::nullopt;
    return pg_error{"XX001", fmt::format("table {}: {} moving rows of shard {} were compared with "
                                         "{} on the destination, and they differ; nothing was "
                                         "switched over", one.label(), sides[0][0][0], source,
                                         sides[1][0][0]), {}, {}};
  };
  if (among == nullptr) return check({});
  return in_pieces(one, *among, check);
}

result<source_point> make_point(const move_scene& scene, shard_number source) {
  auto link = scene.open(source, long_wait, true);
  if (!link) return tl::unexpected(link.error());
  // The one before it goes with its connection, which the server may not have noticed yet.
  const auto limit = std::chrono::steady_clock::now() + slot_wait;
  auto made = link->query(compare_slot(scene, source));
  while (!made && made.error().sqlstate == "42710" && std::chrono::steady_clock::now() < limit) {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    made = link->query(compare_slot(scene, source));
  }
  if (!made) return tl::unexpected(made.error());
  if (made->empty() || made->front().size() < 3) return failure("08P01", "a slot without snapshot");
  const auto at = moving::lsn_from_text(made->front()[1]);
  if (!at) return failure("08P01", "a slot without position");
  return source_point{std::move(*link), made->front()[2], *at};
}

trouble begin_at(management::connection& link, const source_point& point) {
  if (auto error = execute(link, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")) return error;
  return execute(link, "SET TRANSACTION SNAPSHOT " + link.literal(point.snapshot));
}

move_comparison::move_comparison(const move_scene& scene, move_stream& stream, bool all)
    : scene_(scene), stream_(stream), all_(all) {
  stream_.pause();   // else it could be past the point before that is known
  making_ = std::async(std::launch::async,
                       [this] { return make_point(scene_, stream_.source()); });
}

move_comparison::~move_comparison() {
  if (making_.valid()) making_.wait();
  if (comparing_.valid()) comparing_.wait();
}

result<bool> move_comparison::advance() {
  if (making_.valid()) {
    if (!has_come(making_)) return false;
    auto made = making_.get();
    if (!made) return tl::unexpected(made.error());
    point_.emplace(std::move(*made));
    stream_.hold_at(point_->at);
    if (stream_.reached() > point_->at) return failure("XX000", "the stream was not held in time");
    return false;
  }
  if (!comparing_.valid()) {
    if (!stream_.held()) return false;
    // Everything up to the point is committed on the destination, and nothing behind it.
    auto there = destination_now(scene_);
    if (!there) return tl::unexpected(there.error());
    auto some = stream_.release();
    if (!some) return tl::unexpected(some.error());
    if (some->unknown) all_ = true;
    comparing_ = std::async(std::launch::async,
                            [this, link = std::move(*there), rows = std::move(*some)]() mutable {
                              return compare(std::move(link), rows);
                            });
    return false;
  }
  if (!has_come(comparing_)) return false;
  return comparing_.get();
}

result<bool> move_comparison::compare(management::connection there,
                                      const touched_rows& some) const {
  const auto source = stream_.source();
  auto here = scene_.open(source, long_wait);
  if (!here) return tl::unexpected(here.error());
  if (auto error = begin_at(*here, *point_)) return tl::unexpected(std::move(*error));
  const auto tables = scene_.tables.find(source);
  if (tables == scene_.tables.end()) return true;
  const auto rows = scene_.of_source(source);
  for (std::size_t i = 0; i < tables->second.size(); ++i) {
    const auto touched = some.rows.find(i);
    if (!all_ && touched == some.rows.end()) continue;
    if (auto error = same_rows(*here, there, tables->second[i], rows, source,
                               all_ ? nullptr : &touched->second)) {
      return tl::unexpected(std::move(*error));
    }
  }
  return true;
}

}  // namespace pgsled::replicator
