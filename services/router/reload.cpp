#include "services/router/reload.hpp"

#include <algorithm>
#include <optional>

#include "services/router/commit/service.hpp"
#include "services/router/control/control.hpp"
#include "services/router/control/placement_change.hpp"
#include "services/router/names/service.hpp"

namespace pgsled::router {

namespace {

// What is prepared on a shard could not be finished without it.
std::string left_on_removed_shard(const commit_service& commits,
                                  const config::configuration& next) {
  for (const open_transaction& one : commits.open()) {
    const std::uint32_t count = shards_of(next, one.database);
    const std::string of = "the transaction " + one.key + " of database \"" + one.database + "\" ";
    if (count == 0) {
      return of + "is prepared on its servers, which are not in the file any more; see SHOW "
                  "TRANSACTIONS (where they are lost for good, a restart of the router takes the "
                  "file as it is)";
    }
    const auto gone = [count](std::uint32_t shard) { return shard >= count; };
    if (gone(one.coordinator) ||
        std::any_of(one.participants.begin(), one.participants.end(), gone)) {
      return of + "is prepared on a shard that is not in the file any more; see SHOW TRANSACTIONS";
    }
  }
  return {};
}

}  // namespace

std::string reload_objection(const control& truth, const names_service& names,
                             const commit_service& commits, const config::configuration& next) {
  // All of it is compared under the names that servers have, not those of the file.
  const auto named = names.named(next);
  auto why = named ? truth.objection(*named) : std::optional(named.error());
  for (const auto& [name, known] : truth.states()) {
    // Where nothing is served, the file is to be corrected.
    if (why || known.bucket_map.empty()) continue;
    why = placement_change(name, placed_tables(truth.configuration(), name),
                           placed_tables(*named, name), named->resharding.placed_by_hand);
  }
  if (why) return why->message + "; " + why->hint;
  return left_on_removed_shard(commits, *named);
}

}  // namespace pgsled::router
