// Units that are answered without a server, and batches of the extended protocol that become a
// transaction over shards.

#include "services/frontend/client/client.hpp"
#include "services/frontend/client/output.hpp"
#include "services/frontend/shards/same_rows.hpp"
#include "services/frontend/shards/transaction.hpp"
#include "services/frontend/statements/effects.hpp"
#include "services/frontend/statements/unit.hpp"
#include "services/frontend/worker/worker.hpp"

namespace pgsled::frontend {

namespace fe = wire::frontend;

void client::refuse_unit(const unit& refused, const pg_error& why, std::string_view fields) {
  // Whatever it would have been: not the one before.
  if (std::any_of(refused.parts.begin(), refused.parts.end(),
                  [](const auto& part) { return replaces_unnamed(part.type, part.body); })) {
    unnamed_ = nullptr;
  }
  if (refused.simple) {
    refuse(why, true, fields);
    return;
  }
  refuse(why, false, fields);
  // The rest of the unit is skipped by us; its Sync is answered as any other. A transaction that
  // is being failed on the server answers after that.
  if (state_ == state::refusing) {
    owes_ready_ = refused.ends_with_sync;
    skip_to_sync_ = !refused.ends_with_sync;
  } else if (refused.ends_with_sync) {
    skip_to_sync_ = false;
    std::string ready;
    wire::write_ready(ready, status());
    write(ready);
  }
}

// A batch of the extended protocol becomes a transaction over shards, which its Sync ends: nothing
// has run yet, or only what has joined spread_ already.
void client::begin_batch() {
  sql::statement begin;
  begin.effect = sql::effect::begin;
  begin.value = "BEGIN";
  batch_ = true;
  virtual_status_ = 'T';
  if (server_ != nullptr) let_go();
  virtual_status_ = 'T';
  script_.succeeded(begin, shadow_->current());
  shadow_->succeeded(begin, "BEGIN", worker_.pairs());
}

client::routed client::end_batch(const unit& now, byte_span bytes, bool has_failed) {
  if (server_ != nullptr && !server_->ledger.empty()) {
    unit_left_ = 0;
    settle();
    return routed::suspended;
  }
  if (server_ != nullptr && server_->ledger.unsynced()) return sync_first();
  skip_to_sync_ = batch_ = false;
  unit_left_ = now.bytes;
  const bool failed = status() == 'E' || has_failed;
  sql::statement end;
  end.effect = sql::effect::commit;
  if (server_ == nullptr && !spread_) {
    virtual_status_ = 'I';
    return virtual_unit(now, end, failed ? "ROLLBACK" : "COMMIT");
  }
  // One server alone is a transaction over shards with one leg, and gets no other.
  if (!spread_) spread_over_server(!script_.complete());
  end_shards(std::string(as_text(bytes.first(now.bytes))), end, !failed);
  return routed::done;
}

// A Query that is refused in a batch ends it, as an error in it would; no Sync does. The server
// owes nothing.
client::routed client::undo_batch(const pg_error& why) {
  if (server_ != nullptr && server_->ledger.unsynced()) return sync_first();
  batch_ = false;
  sql::statement end;
  end.effect = sql::effect::rollback;
  if (server_ == nullptr && !spread_) {
    virtual_status_ = 'I';
    virtually_done(end, "ROLLBACK");
    unnamed_ = nullptr;   // as with any Query
    refuse(why, true);
    return routed::done;
  }
  if (!spread_) spread_over_server(!script_.complete());
  park();
  set_state(state::spreading);
  std::string some_query;
  wire::write_query(some_query, "");
  spread_->rollback([this, why, end, some_query](const pg_error*) {
    if (state_ != state::spreading) return;
    if (shards_ended(end, "ROLLBACK")) answer_shards(some_query, {}, &why);
  });
  return routed::done;
}

// A BEGIN at the head of a batch (drivers send it so) that cannot go to one shard as a whole is
// answered by itself; what is behind it is the next unit.
bool client::begin_alone(const unit& now, byte_span bytes) {
  if (server_ != nullptr || spread_ || virtual_status_ != 'I') return false;
  unit head;
  const sql::statement* begin = nullptr;
  for (const auto& part : now.parts) {
    head.parts.push_back(part);
    if (part.type == fe::bind) {
      begin = begin == nullptr && part.target ? only_effect(part.target->effects) : nullptr;
      if (begin == nullptr || begin->effect != sql::effect::begin) return false;
    }
    if (part.type != fe::execute) continue;
    if (begin == nullptr || now.executes < 2) return false;
    head.executes = 1;
    head.bytes = static_cast<std::size_t>(part.body.data() + part.body.size() - bytes.data());
    break;
  }
  if (head.bytes == 0 || !binds_what_it_asks_of(head)) return false;
  unit_left_ = head.bytes;
  virtual_status_ = 'T';
  virtual_unit(head, *begin,
               starts_with_word(begin->value, "start") ? "START TRANSACTION" : "BEGIN");
  return true;
}

void client::virtually_done(const sql::statement& done, std::string_view tag) {
  script_.succeeded(done, shadow_->current());
  unrun_ = virtual_status_ != 'I';
  shadow_->succeeded(done, tag, worker_.pairs());
  if (virtual_status_ == 'I') shadow_->ready('I');
}

client::routed client::virtual_unit(const unit& answered, const sql::statement& done,
                                    std::string_view tag) {
  ++counts_.queries;
  worker_.counters().queries.add();
  virtually_done(done, tag);
  answer_unit(answered, tag);
  return routed::done;
}

// The replies to a unit whose statements have been dealt with: with `rows`, as that says; else they
// return no rows, and a Query of several statements has as many tags, separated by zero bytes; one
// of none has none.
void client::answer_unit(const unit& answered, std::string_view tag, const same_rows* rows) {
  namespace be = wire::backend;
  std::string bytes;
  std::size_t described = 0, executed = 0;
  std::vector<std::string_view> portals;   // of the Binds
  for (const auto& part : answered.parts) {
    switch (part.type) {
      case fe::query:
        unnamed_ = nullptr;   // as with any Query
        if (rows != nullptr) {
          const auto& told = rows->told(0);
          bytes.append(told.columns).append(told.rows);
          tag = told.tag;
        }
        if (rows == nullptr && tag.empty()) {
          wire::write_empty(bytes, be::empty_query_response);
          wire::write_ready(bytes, status());
          break;
        }
        for (std::size_t at = 0; at <= tag.size();) {
          const auto end = std::min(tag.find('\0', at), tag.size());
          wire::write_command_complete(bytes, tag.substr(at, end - at));
          at = end + 1;
        }
        wire::write_ready(bytes, status());
        break;
      case fe::parse:
        if (const auto sent = wire::read_parse(part.body)) {
          if (sent->name.empty()) {
            unnamed_ = part.target;
          } else {
            if (!has_room_for_name()) return;
            prepared_->insert_or_assign(std::string(sent->name), part.target);
          }
        }
        wire::write_empty(bytes, be::parse_complete);
        break;
      case fe::bind:
        if (const auto sent = wire::read_bind(part.body)) portals.push_back(sent->portal);
        wire::write_empty(bytes, be::bind_complete);
        break;
      case fe::describe:
        if (rows != nullptr) {
          const auto sent = wire::read_described(part.body);
          const bool statement = sent && sent->what == 'S';
          std::size_t at = portals.size();
          while (sent && at > 1 && portals[at - 1] != sent->name) --at;
          const auto& told = statement ? rows->described(described++)
                                       : rows->told(std::max<std::size_t>(at, 1) - 1);
          bytes.append(told.parameters).append(told.columns);
          if (told.columns.empty()) wire::write_empty(bytes, be::no_data);
          break;
        }
        if (const auto sent = wire::read_described(part.body); sent && sent->what == 'S') {
          wire::writer(bytes, be::parameter_description).i16(0);
        }
        wire::write_empty(bytes, be::no_data);
        break;
      case fe::execute:
        if (rows != nullptr) {
          const auto& told = rows->told(executed++);
          bytes.append(told.rows);
          tag = told.tag;
          if (told.suspended) {
            wire::write_empty(bytes, be::portal_suspended);
            break;
          }
        }
        wire::write_command_complete(bytes, tag);
        break;
      case fe::close:
        if (const auto sent = wire::read_described(part.body); sent && sent->what == 'S') {
          if (sent->name.empty()) unnamed_ = nullptr;
          if (prepared_) prepared_->erase(std::string(sent->name));
        }
        wire::write_empty(bytes, be::close_complete);
        break;
      case fe::sync:
        wire::write_ready(bytes, status());
        break;
      default:
        break;
    }
  }
  write(bytes);
}

}  // namespace pgsled::frontend
