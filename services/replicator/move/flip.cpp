#include "services/replicator/move/flip.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <openssl/rand.h>

#include <array>
#include <deque>
#include <thread>

#include "common/commit/coordinator.hpp"
#include "common/commit/statements.hpp"

namespace pgsled::replicator {

namespace {

using commit::statements::literal;

// Clients wait for the last one, and if this process dies in it they wait for that time and a
// little longer. One that took longer than it may is tried again.
constexpr commit::limits short_flip{.decide_within = 1000};

std::int64_t now_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Performs what the coordinator wants, one message after the other.
class committing {
 public:
  committing(move_scene& scene, commit::coordinator& machine) : scene_(scene), machine_(machine) {}

  flip_result run() {
    take(machine_.begin(now_ms()));
    while (!todo_.empty() || !machine_.over()) {
      if (todo_.empty()) {
        // Only time is waited for.
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
        take(machine_.tick(now_ms()));
        continue;
      }
      const auto next = std::move(todo_.front());
      todo_.pop_front();
      perform(next);
    }
    return std::move(result_);
  }

 private:
  void take(std::vector<commit::action> more) {
    for (auto& one : more) todo_.push_back(std::move(one));
  }

  void perform(const commit::action& next) {
    using kind = commit::action::kind;
    switch (next.what) {
      case kind::answer:
        if (next.error.sqlstate.empty()) {
          result_.what = flip_outcome::done;
        } else {
          // 08007 is what the machine says when the outcome is not known.
          result_.what = sure(next.error.sqlstate) ? flip_outcome::refused : flip_outcome::unknown;
          result_.why = next.error;
        }
        return;
      case kind::release: return;
      case kind::drop: scene_.links.erase(next.shard); return;
      case kind::send: return send(next.shard, next.sql);
    }
  }

  static bool sure(const std::string& sqlstate) { return sqlstate != "08007"; }

  void send(shard_number shard, const std::string& sql) {
    const auto link = scene_.links.find(shard);
    if (link == scene_.links.end()) return take(machine_.lost(shard, "closed", now_ms()));
    auto got = link->second.answer(sql);
    if (got) return take(machine_.completed(shard, got->tag, got->value, now_ms()));
    if (got.error().sqlstate.starts_with("08") || got.error().sqlstate.starts_with("57P")) {
      scene_.links.erase(shard);
      return take(machine_.lost(shard, got.error().message, now_ms()));
    }
    take(machine_.failed(shard, got.error(), now_ms()));
  }

  move_scene& scene_;
  commit::coordinator& machine_;
  std::deque<commit::action> todo_;
  flip_result result_{flip_outcome::unknown, {"08007", "no answer", {}, {}}};
};

trouble write(move_scene& scene, shard_number shard, std::uint64_t epoch,
              const moving::bucket_map& to, const std::string& fence, bool last) {
  auto& link = scene.link(shard);
  if (auto error = execute(link, "BEGIN")) return error;
  if (auto error = execute(link, fmt::format(
          "SELECT pgsled.flip_shard_map({}, {}, '{{{}}}'::integer[], {})", literal(scene.database),
          epoch, fmt::join(to, ","), literal(fence)))) {
    return error;
  }
  const auto changed = link.run(fmt::format(
      "UPDATE pgsled.job SET {}changed_at = now() WHERE id = {} AND runner = {} "
      "AND phase = 'moving'", last ? "phase = 'flipped', " : "", literal(scene.job),
      literal(scene.runner)));
  if (!changed) return changed.error();
  if (changed->size() != 1 || changed->front() != 1) {
    return pg_error{"57P01", "the move is run by another process", {}, {}};
  }
  return std::nullopt;
}

}  // namespace

flip_result flip(move_scene& scene, std::uint64_t epoch, const moving::bucket_map& to,
                 const std::string& fence, bool last) {
  flip_result no;
  std::vector<commit::participant> all;
  for (shard_number shard = 0; shard < scene.where.shards.size(); ++shard) {
    if (auto error = write(scene, shard, epoch, to, fence, last)) {
      no.why = std::move(*error);
      for (auto& [number, link] : scene.links) {
        if (number <= shard) (void)link.query("ROLLBACK");
      }
      return no;
    }
    all.push_back({shard, true, {}});
  }
  const auto who = commit::choose(all);
  std::array<std::uint8_t, 16> random{};
  if (!who || RAND_bytes(random.data(), static_cast<int>(random.size())) != 1) {
    no.why = who ? pg_error{"XX000", "no random bytes", {}, {}} : who.error();
    for (auto& [number, link] : scene.links) (void)link.query("ROLLBACK");
    return no;
  }
  commit::coordinator machine(*who, scene.database, commit::make_id(random),
                              last ? short_flip : commit::limits());
  return committing(scene, machine).run();
}

}  // namespace pgsled::replicator
