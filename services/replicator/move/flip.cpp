#include "services/replicator/move/flip.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <openssl/rand.h>

#include <array>
#include <algorithm>
#include <deque>
#include <thread>
#include <vector>

#include "common/commit/coordinator.hpp"
#include "common/commit/statements.hpp"
#include "common/management/together.hpp"

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

// Performs what the coordinator wants: what it says to several shards, to all of them at once.
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
      if (todo_.front().what == commit::action::kind::send) {
        send(take_sends());
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
      case kind::send: return;   // taken before
    }
  }

  static bool sure(const std::string& sqlstate) { return sqlstate != "08007"; }

  // Up to the first that is not for another shard than those before it.
  std::vector<commit::action> take_sends() {
    std::vector<commit::action> sends;
    const auto is_new = [&](const commit::action& next) {
      return next.what == commit::action::kind::send &&
             std::none_of(sends.begin(), sends.end(),
                          [&](const auto& one) { return one.shard == next.shard; });
    };
    while (!todo_.empty() && is_new(todo_.front())) {
      sends.push_back(std::move(todo_.front()));
      todo_.pop_front();
    }
    return sends;
  }

  void send(const std::vector<commit::action>& all) {
    std::vector<result<management::connection::told>> said(all.size());
    management::together(all.size(), [&](std::size_t i) -> trouble {
      const auto link = scene_.links.find(all[i].shard);
      if (link != scene_.links.end()) said[i] = link->second.answer(all[i].sql);
      return std::nullopt;
    });
    for (std::size_t i = 0; i < all.size(); ++i) heard(all[i].shard, said[i]);
  }

  void heard(shard_number shard, const result<management::connection::told>& got) {
    if (!scene_.links.contains(shard)) return take(machine_.lost(shard, "closed", now_ms()));
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
  const auto changed = scene.link(shard).run(fmt::format(
      "BEGIN; SELECT pgsled.flip_shard_map({}, {}, '{{{}}}'::integer[], {}); "
      "UPDATE pgsled.job SET {}changed_at = now() WHERE id = {} AND runner = {} "
      "AND phase = 'moving'", literal(scene.database), epoch, fmt::join(to, ","), literal(fence),
      last ? "phase = 'flipped', " : "", literal(scene.job), literal(scene.runner)));
  if (!changed) return changed.error();
  if (changed->size() != 3 || changed->back() != 1) {
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
    all.push_back({shard, true, {}});
  }
  if (auto error = management::together(all.size(), [&](std::size_t shard) {
        return write(scene, static_cast<shard_number>(shard), epoch, to, fence, last);
      })) {
    no.why = std::move(*error);
    for (auto& [number, link] : scene.links) (void)link.query("ROLLBACK");
    return no;
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
