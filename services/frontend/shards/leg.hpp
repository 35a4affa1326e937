#pragma once
// A leg of shard_transaction: what one shard's server says, read as far as the transaction needs
// it. For its two source files only.

#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "common/wire/messages.hpp"
#include "services/frontend/shards/transaction.hpp"

namespace pgsled::frontend {

struct shard_transaction::leg final : lease_waiter, server_user {
  leg(shard_transaction& t, std::uint32_t n) : owner(t), shard(n) {}

  // The beginning of an answer that is not whole yet; nothing that is asked here has a long one.
  static constexpr std::size_t max_carry = 256 * 1024;
  static constexpr std::size_t max_asides = 64 * 1024;

  void granted(server& lent) override {
    waiting = false;
    lease = &lent;
    lent.attach(this);
    owner.granted(*this);
  }
  void not_granted(const pg_error& why) override {
    waiting = false;
    owner.not_granted(*this, why);
  }
  void from_server(byte_span bytes) override {
    carry.append(as_text(bytes));
    wire::take_messages(carry, [this](char type, byte_span body, std::string_view whole) {
      read(type, body, whole);
    });
    const auto most = owner.talk_ ? conversation::max_message : max_carry;
    if (carry.size() > most) lease->mark_broken();
  }
  void read(char type, byte_span body, std::string_view whole) {
    namespace be = wire::backend;
    if (owner.talk_) owner.talk_->heard(type, body);
    if (type == be::command_complete) {
      tag = as_text(body.first(body.empty() ? 0 : body.size() - 1));
      if (!tags.empty()) tags.push_back('\0');
      tags += tag;
    } else if (type == be::data_row && body.size() >= 6) {
      const auto length = load_be<std::uint32_t>(body.data() + 2);
      if (length <= body.size() - 6) value = as_text(body.subspan(6, length));
    } else if (type == be::notice_response || type == be::notification_response) {
      if (owner.asides_.size() + whole.size() <= max_asides) owner.asides_ += whole;
    }
  }
  void statement_done(const sql::statement*, std::string_view, bool) override {}
  void server_error(byte_span body, bool) override {
    if (error) return;
    error = std::make_unique<pg_error>();
    if (const auto fields = wire::read_error(body)) {
      *error = {std::string(fields->sqlstate), std::string(fields->message),
                std::string(fields->hint), std::string(fields->detail)};
    }
    if (error->sqlstate == "57014" && owner.take_victim()) *error = deadlock();
  }
  void entry_dropped(const session::entry&) override {}
  void server_parameter(std::string_view, std::string_view, bool) override {}
  void server_ready(char, bool) override {}
  void server_read_done() override {
    if (!lease->usable()) {
      const pg_error why = error ? *error : pg_error{"57P01", "the server ended the connection",
                                                     {}, {}};
      auto* dead = std::exchange(lease, nullptr);
      dead->pool().release(*dead);
      return owner.leg_lost(*this, why);
    }
    if (!running || !lease->ledger.empty()) return;
    running = false;
    owner.leg_done(*this);
  }
  void server_lost(const pg_error& why) override {
    lease = nullptr;
    owner.leg_lost(*this, why);
  }
  bool wants_more() const override { return true; }
  void server_drained() override {}

  // As one message: an error ends all of it.
  void ask(std::string_view sql) {
    conversation::speech said;
    wire::write_query(said.bytes, sql);
    said.owed.push_back(session::owed::query);
    ask(said);
  }
  void ask(const conversation::speech& said) {
    PGSLED_ASSERT(lease != nullptr && !away);
    running = true;
    error.reset();
    tag.clear();
    tags.clear();
    value.clear();
    for (const auto what : said.owed) lease->ledger.add({what});
    lease->unnamed.reset();
    lease->forget_unnamed_portal();
    lease->send(said.bytes);
  }
  std::string where() const {
    return "shard " + std::to_string(shard) +
           (lease != nullptr ? " (" + lease->pool().where() + ")" : "");
  }

  shard_transaction& owner;
  std::uint32_t shard;
  server* lease = nullptr;
  std::unique_ptr<pg_error> error;
  std::string tag, tags, value, carry, unpreparable;
  bool waiting = false, running = false;
  bool wrote = false, away = false, checked = false, begun = false;
  bool joins = false;   // by the join that is going on
};

}  // namespace pgsled::frontend
