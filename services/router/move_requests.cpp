#include "services/router/move_requests.hpp"

#include "services/router/control/snapshots.hpp"
#include "services/router/shards/service.hpp"

namespace pgsled::router {

void move_requests::request(const std::string& from, std::uint64_t number, std::string_view json) {
  const move_desk::asker who{from, number};
  auto asked = snapshot::from_json<snapshot::move_request>(json);
  if (!asked) return calls_.error(who, asked.error());
  if (asked->do_ == "abort") return tell_move(who, "abort_move", asked->job, "");
  if (asked->do_ == "cutover" || asked->do_ == "roll_back" || asked->do_ == "finish") {
    return tell_move(who, "cutover_move", asked->job, asked->do_);
  }
  if (asked->do_ == "moves") return list_moves(who);
  if (!asked->to.empty()) return move_cluster(who, *asked);
  const database_definition* database = truth_.database(asked->database);
  if (database == nullptr || !database->sharded) {
    return calls_.error(who, {"3D000", "no sharded database \"" + asked->database + "\"", {}, {}});
  }
  const database_state* known = truth_.state(asked->database);
  if (known == nullptr || known->bucket_map.empty()) {
    return calls_.error(who, {"57P03", "the shard map of database \"" + asked->database +
                                  "\" is not known yet", {}, {}});
  }
  const std::int64_t now = steady_ms();
  const auto& what = asked->do_;
  if (what == "where") {
    return calls_.answer(who, snapshot::to_json(where_rows_are(
                                  truth_.configuration(), truth_.topology(), asked->database,
                                  *known)));
  }
  if (what == "begin") return desk_.begin(who, asked->database, asked->job, now);
  if (what == "fence") {
    return desk_.fence(who, asked->database, asked->job, std::move(asked->buckets),
                       asked->wait_ms, now);
  }
  if (what == "flipped" || what == "lift") {
    return desk_.lift(who, asked->database, asked->job, now);
  }
  if (what == "end") return desk_.end(who, asked->database, asked->job, now);
  calls_.error(who, {"0A000", "request \"" + what + "\" is not known", {}, {}});
}

// Of all of a database to the servers of another.
void move_requests::move_cluster(const move_desk::asker& who, const snapshot::move_request& asked) {
  const std::int64_t now = steady_ms();
  const auto& what = asked.do_;
  // What takes back must not depend on what is known.
  if (what == "flipped" || what == "lift") {
    return desk_.lift(who, asked.database, asked.job, now);
  }
  if (what == "end") return desk_.end(who, asked.database, asked.job, now, asked.lost);
  if (const auto why = cluster_objection(truth_, asked.database, asked.to)) {
    return calls_.error(who, *why);
  }
  for (const std::string& name : {asked.database, asked.to}) {
    const database_state* known = truth_.state(name);
    // Of one that is lost after its name was handed over nothing may be known: then its map is
    // empty, and who asks has to see to it.
    const bool map = !truth_.database(name)->sharded || (what == "where" && name == asked.to) ||
                     (known != nullptr && !known->bucket_map.empty());
    if (map && names_.unknown(name) == nullptr) continue;
    return calls_.error(who, {"57P03", "the servers or the shard map of database \"" + name +
                                           "\" are not known yet", {}, {}});
  }
  if (what == "where") {
    return calls_.answer(who, snapshot::to_json(where_clusters_are(
                                  truth_.configuration(), truth_.topology(), asked.database,
                                  asked.to, truth_.states())));
  }
  if (what == "begin") return begin_cluster(who, asked, now);
  if (what == "fence") {
    return desk_.fence(who, asked.database, asked.job, asked.buckets, asked.wait_ms, now,
                       asked.whole);
  }
  calls_.error(who, {"0A000", "request \"" + what + "\" is not known", {}, {}});
}

// Not from a state in which the file still has the names of an earlier move.
void move_requests::begin_cluster(const move_desk::asker& who, const snapshot::move_request& asked,
                                  std::int64_t now) {
  for (const cluster_pair& pair : names_.known().pairs) {
    const bool this_one = pair.database == asked.database && pair.other == asked.to;
    const bool ours = pair.database == asked.database || pair.database == asked.to ||
                      pair.other == asked.database || pair.other == asked.to;
    if (this_one || !ours || !pair.swapped) continue;
    return calls_.error(who, {"55000", "the file gives the servers of database \"" +
                                           pair.database + "\" to \"" + pair.other +
                                           "\" since an earlier move",
                              "Swap the hosts of the two in [[databases]], and RELOAD.", {}});
  }
  desk_.begin(who, asked.database, asked.job, now, asked.to);
}

// To whichever replicator runs the job.
void move_requests::tell_move(const move_desk::asker& who, const char* what, const std::string& job,
                              const std::string& act) {
  admin_.tell_move(what, job, act, [this, who](std::optional<pg_error> why) {
    if (why) return calls_.error(who, *why);
    calls_.answer(who, snapshot::to_json(snapshot::move_answer()));
  });
}

void move_requests::list_moves(const move_desk::asker& who) {
  const auto asked = questions_.ask(
      members_of(truth_, {"replicator"}), R"({"what":"moves"})",
      steady_ms() + admin_desk::gather_wait, [this, who](gathered got) {
        snapshot::move_answer answer;
        for (const auto& row : read_rows(got)) {
          if (row.instance != who.from) answer.moves.push_back(row.text("move"));
        }
        calls_.answer(who, snapshot::to_json(answer));
      });
  if (!asked) calls_.error(who, {"53400", "too many views are being made", {}, {}});
}

}  // namespace pgsled::router
