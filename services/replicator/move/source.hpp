#pragma once
// source: what is done to one server that rows are taken from, so that its changes can be
// followed, and undone afterwards. Blocking. Thread rule: the connection's.

#include <chrono>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "common/moving/follower.hpp"
#include "services/replicator/move/scene.hpp"

namespace pgsled::replicator {

// Identities by which a row's sharding key and primary key stand in the log, and the publication,
// in one transaction with the record of what was changed. The locks on the tables are asked for only
// briefly, because clients queue behind them, and again until `give_up` says so.
trouble publish(management::connection&, const move_scene&, const std::vector<moving::table>&,
                const std::function<bool()>& give_up);

// Into the log: what was committed before comes before it.
trouble write_marker(management::connection&, std::string_view marker);

// What has written and began before now has to be over on the server itself, whoever it belongs to:
// a commit that is prepared, a client that came past pgsled, a backend whose frontend has died.
// What it did is in front of the next marker then. 55P03 when it takes longer than `patience`.
trouble drain_source(management::connection&, const std::string& label,
                     std::chrono::milliseconds patience);

// 53400 when the server has given the slot up, or it holds back more than `limit` bytes of log.
trouble watch_slot(management::connection&, const std::string& label, const std::string& slot,
                   std::int64_t limit);

// A session that has ended a moment ago may still hold a slot or an origin.
trouble patiently(management::connection&, const std::string& sql);
// No error when there is none. Whoever uses it loses it.
trouble drop_slot(management::connection&, const std::string& slot);
// The identities that publish() has changed are what they were. One table after the other: several
// locks at once could be waited for in a circle with clients, who must not be the ones to fail.
trouble restore_identities(management::connection&, const move_scene&);

}  // namespace pgsled::replicator
