// Statements for all shards: definitions, one shard after the other, and writes to rows that are on
// every shard.

#include <algorithm>
#include <numeric>

#include "common/wire/messages.hpp"
#include "services/frontend/client/client.hpp"
#include "services/frontend/shards/same_rows.hpp"
#include "services/frontend/shards/transaction.hpp"
#include "services/frontend/statements/unit.hpp"
#include "services/frontend/worker/worker.hpp"

namespace pgsled::frontend {

namespace {

// Sequences made with a sharded table give every shard values of its own: shard s counts from the
// s-th value on in steps of 1024 (START 1: s+1, s+1+1024, …), so that rows can move between shards
// without a collision. The statement may have found them there (IF NOT EXISTS): one that has given a
// value, or been set to one, or is somebody else's, stays as it is, and one that counts so already.
std::string spreading_sql(const std::vector<std::string>& tables, std::size_t shard) {
  std::string names;
  for (const auto& name : tables) {
    names += (names.empty() ? "" : ",") + session::quote_literal(name);
  }
  return "DO $pgsled$ DECLARE r record; fresh boolean; BEGIN FOR r IN SELECT "
         "s.seqrelid::pg_catalog.regclass::text AS name, s.seqstart AS start, "
         "s.seqincrement AS step "
         "FROM pg_catalog.pg_sequence s JOIN pg_catalog.pg_class c ON c.oid = s.seqrelid "
         "WHERE s.seqincrement % 1024 <> 0 AND pg_catalog.pg_has_role(c.relowner, 'USAGE') "
         "AND (s.seqrelid IN (SELECT "
         "pg_catalog.to_regclass(n) FROM pg_catalog.unnest(ARRAY[" +
         names +
         "]::text[]) n) OR EXISTS (SELECT FROM "
         "pg_catalog.pg_depend d WHERE d.objid = s.seqrelid AND d.classid = "
         "'pg_catalog.pg_class'::pg_catalog.regclass "
         "AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.deptype IN ('a', "
         "'i') AND d.refobjid IN "
         "(SELECT pg_catalog.to_regclass(n) FROM pg_catalog.unnest(ARRAY[" +
         names +
         "]::text[]) n))) LOOP EXECUTE "
         "pg_catalog.format('SELECT NOT is_called AND last_value = %s FROM %s', r.start, r.name) "
         "INTO fresh; CONTINUE WHEN NOT fresh; EXECUTE "
         "pg_catalog.format('ALTER SEQUENCE %s INCREMENT BY %s START WITH %s RESTART', r.name, "
         "r.step * 1024, r.start + r.step * " +
         std::to_string(shard) + "); END LOOP; END $pgsled$";
}
}  // namespace

// A statement (DDL and the like) for all shards: on one after the other in shard order, and
// committed only after it has succeeded on all.
client::routed client::route_everywhere(const unit& now, byte_span bytes, const plan::plan& planned,
                                        std::string_view text) {
  const auto refused = [&](const pg_error& why) {
    refuse_unit(now, why);
    return routed::done;
  };
  const bool bound = pinned_ || endpoint_->mode == pool_mode::session;
  if (server_ != nullptr && !spread_) {
    if (!server_->ledger.empty()) {
      unit_left_ = 0;
      settle();
      return routed::suspended;
    }
    if (server_->quiet() && movable() && !bound) {
      let_go();
    } else if (movable() && !bound) {
      return settle_elsewhere();
    } else if (server_->ledger.unsynced()) {
      if (!in_block() && !light_) {
        return refused({"0A000",
                        "a statement for all shards cannot share a batch with other statements",
                        "Send Sync between them.",
                        {}});
      }
      return sync_first();
    }
  }
  if (status() == 'E') return refused(aborted_transaction());
  if (planned.own_transaction) {
    if (status() != 'I' || spread_) {
      return refused({"25001", "this statement cannot run inside a transaction block", {}, {}});
    }
    if (!now.simple && !now.ends_with_sync) {
      return refused({"0A000", "a statement that cannot run inside a transaction block is not "
                               "followed by Sync", "Send Sync behind it instead of Flush.", {}});
    }
  }
  std::shared_ptr<same_rows> writes;
  if (!now.writes.empty() && !read_writes(now, writes)) {
    return refused({"0A000",
                    "statements that write to every shard cannot share a batch with others, or be "
                    "executed in pieces",
                    "Send Sync between them, and execute each once, in the order of Bind.",
                    {}});
  }
  const bool implicit = status() == 'I' && !spread_;
  if (implicit && !now.simple && !now.ends_with_sync) {
    // What comes up to the Sync would belong to the same transaction.
    return refused({"0A000",
                    "a statement for all shards is not followed by Sync",
                    "Send Sync behind it instead of Flush, or begin a transaction with BEGIN.",
                    {}});
  }
  if (pg_error why; !spread_ && !spread_out(implicit, why)) return refused(why);
  if (writes) {
    write_everywhere(std::string(as_text(bytes.first(now.bytes))), std::move(writes), implicit);
    return routed::done;
  }
  run_everywhere(std::string(as_text(bytes.first(now.bytes))), planned, std::string(text),
                 implicit);
  return routed::done;
}

void client::run_everywhere(std::string unit_bytes, const plan::plan& planned, std::string sql,
                            bool implicit) {
  park();
  set_state(state::spreading);
  ++counts_.queries;
  worker_.counters().queries.add();
  defined_ = defined_ || planned.changes_catalog;
  note_unsettled(planned.unsettles);
  std::vector<std::uint32_t> all(endpoint_->database.shards);
  std::iota(all.begin(), all.end(), 0u);
  const auto spread_out = planned.spread_sequences_of;
  const auto unit_copy = std::make_shared<const std::string>(std::move(unit_bytes));
  spread_->join(std::move(all), implicit ? "BEGIN" : script_.sql(), [=, this](const pg_error* why) {
    if (state_ != state::spreading) return;
    if (why != nullptr) return ran_everywhere(*unit_copy, {}, why, implicit);
    if (planned.own_transaction) return run_in_turn(unit_copy, sql);
    spread_->defined();
    spread_->tell_in_order([sql](std::uint32_t) { return sql; }, [=, this](const pg_error* error) {
      if (state_ != state::spreading) return;
      const auto tags = spread_->tags();
      if (error != nullptr || spread_out.empty()) {
        return ran_everywhere(*unit_copy, tags, error, implicit);
      }
      spread_->tell_in_order(
          [spread_out](std::uint32_t shard) { return spreading_sql(spread_out, shard); },
          [=, this](const pg_error* last) {
            if (state_ != state::spreading) return;
            ran_everywhere(*unit_copy, tags, last, implicit);
          });
    });
  });
}

// What cannot run inside a transaction. It is not undone where it has run.
void client::run_in_turn(std::shared_ptr<const std::string> unit_bytes, std::string sql) {
  const auto begun = std::make_shared<std::size_t>(0);
  const auto failed = std::make_shared<std::optional<pg_error>>();
  const auto over = [=, this](std::string tags) {
    spread_->tell("BEGIN", [=, this](const pg_error* why) {
      if (state_ != state::spreading) return;
      ran_everywhere(*unit_bytes, tags, *failed ? &**failed : why, true);
    });
  };
  spread_->tell("COMMIT", [=, this](const pg_error* why) {
    if (state_ != state::spreading) return;
    if (why != nullptr) return ran_everywhere(*unit_bytes, {}, why, true);
    const auto said = [=](std::uint32_t) {
      ++*begun;
      return sql;
    };
    spread_->tell_in_order(said, [=, this](const pg_error* error) {
      if (state_ != state::spreading) return;
      if (error != nullptr) {
        auto& told = failed->emplace(*error);
        if (*begun > 1) {
          told.detail += (told.detail.empty() ? "It has run on " : "\nIt has run on ") +
                         std::to_string(*begun - 1) + " of " + std::to_string(spread_->size()) +
                         " shards already, and is not undone there.";
        }
        if (told.hint.empty()) {
          told.hint = "Say it again when the reason is gone: IF EXISTS and IF NOT EXISTS leave out "
                      "where it is done. An index that is left invalid has to be dropped first.";
        }
      }
      over(spread_->tags());
    });
  });
}

// Shards that have rows: of buckets, or of lists and ranges. A table that is on every shard is
// written there; to one that is only joining its rows are copied when buckets are moved to it.
std::vector<std::uint32_t> client::holding_shards() const {
  const auto& map = endpoint_->owners->bucket_map;
  std::vector<bool> holds(endpoint_->database.shards, map.empty());
  const auto add = [&](std::uint32_t shard) {
    if (shard < holds.size()) holds[shard] = true;
  };
  for (const auto shard : map) add(shard);
  for (const auto& mapping : endpoint_->database.mappings) {
    for (const auto& entry : mapping.list) add(entry.second);
    for (const auto& range : mapping.ranges) add(range.shard);
    if (mapping.fallback >= 0) add(static_cast<std::uint32_t>(mapping.fallback));
  }
  std::vector<std::uint32_t> all;
  for (std::uint32_t shard = 0; shard < holds.size(); ++shard) {
    if (holds[shard]) all.push_back(shard);
  }
  return all;
}

// False: more than statements that are each bound and executed once, in that order.
bool client::read_writes(const unit& now, std::shared_ptr<same_rows>& into) const {
  std::vector<same_rows::statement> run, described;
  std::vector<std::string_view> portals;
  std::size_t executes = 0;
  for (const auto& [from, planned] : now.writes) {
    const auto& rows = planned->plan.rows;
    if (now.simple) {
      const auto sql = wire::read_query(from->body);
      if (!sql) return false;
      run.push_back({std::string(*sql), {}, {}, rows, 0});
      continue;
    }
    const auto sent = wire::read_bind(from->body);
    if (!sent) return false;
    const auto names = sent->portal.size() + sent->statement.size() + 2;
    portals.push_back(sent->portal);
    run.push_back({from->target->sql, from->target->types,
                   std::string(as_text(from->body.subspan(names))), rows, 0});
  }
  std::size_t binds = 0;
  for (const auto& part : now.parts) {
    if (part.type == wire::frontend::bind) ++binds;
    if (part.type == wire::frontend::execute) {
      const auto sent = wire::read_execute(part.body);
      if (!sent || executes >= std::min(portals.size(), binds) ||
          sent->portal != portals[executes]) {
        return false;
      }
      run[executes++].limit = static_cast<std::size_t>(std::max(sent->max_rows, 0));
    }
    if (part.type != wire::frontend::describe) continue;
    const auto sent = wire::read_described(part.body);
    if (!sent) return false;
    if (sent->what == 'P') {
      const auto end = portals.begin() + static_cast<std::ptrdiff_t>(
                                             std::min(binds, portals.size()));
      if (std::find(portals.begin(), end, sent->name) == end) return false;
      continue;
    }
    const auto known = std::find_if(now.writes.begin(), now.writes.end(), [&](const auto& each) {
      return part.target && each.from->target == part.target;
    });
    if (known == now.writes.end()) return false;
    described.push_back({part.target->sql, part.target->types, {}, known->plan->plan.rows, 0});
  }
  if (!now.simple && (executes != run.size() || binds != run.size())) return false;
  into = std::make_shared<same_rows>(now.simple, standard_strings(), std::move(run),
                                     std::move(described));
  return true;
}

// Rows of tables that are on every shard.
void client::write_everywhere(std::string unit_bytes, std::shared_ptr<same_rows> writes,
                              bool implicit) {
  park();
  set_state(state::spreading);
  ++counts_.queries;
  worker_.counters().queries.add();
  auto shards = holding_shards();
  const auto unit_copy = std::make_shared<const std::string>(std::move(unit_bytes));
  spread_->join(shards, implicit ? "BEGIN" : script_.sql(), [=, this](const pg_error* why) {
    if (state_ != state::spreading) return;
    if (why != nullptr) return ran_everywhere(*unit_copy, {}, why, implicit, writes);
    for (const auto shard : shards) spread_->wrote(shard);
    spread_->converse(shards, writes, [=, this](const pg_error* error) {
      if (state_ != state::spreading) return;
      ran_everywhere(*unit_copy, {}, error, implicit, writes);
    });
  });
}

void client::ran_everywhere(const std::string& unit_bytes, std::string tags, const pg_error* error,
                            bool implicit, const std::shared_ptr<same_rows>& rows) {
  write(spread_->take_asides());
  if (!implicit) {
    if (spread_->over()) spread_.reset();   // not even one shard has joined
    return answer_shards(unit_bytes, tags, error, {}, rows.get());
  }
  if (error != nullptr) {
    spread_->rollback([this, unit_bytes, why = *error, rows](const pg_error*) {
      if (state_ != state::spreading) return;
      if (shards_ended({}, "ROLLBACK")) answer_shards(unit_bytes, {}, &why, {}, rows.get());
    });
    return;
  }
  spread_->commit(shadow_->current(), endpoint_->commits_statement,
                  [this, unit_bytes, tags, rows](const pg_error* why, const std::string& warning) {
                    if (state_ != state::spreading) return;
                    if (shards_ended({}, why == nullptr ? "COMMIT" : "ROLLBACK")) {
                      answer_shards(unit_bytes, tags, why, warning, rows.get());
                    }
                  });
}

}  // namespace pgsled::frontend
