#pragma once
// One shard's part of a shard_copy: the server lent by the transaction. Internal to shard_copy.

#include "common/wire/messages.hpp"
#include "services/frontend/copy/shard_copy.hpp"

namespace pgsled::frontend {

struct shard_copy::leg final : server_user {
  leg(shard_copy& c, std::uint32_t n) : owner(c), shard(n) {}

  void ask(std::string_view sql);
  void send_done();
  void send_failure(std::string_view why);

  // server_user
  void from_server(byte_span bytes) override;
  void statement_done(const sql::statement*, std::string_view, bool) override {}
  void server_error(byte_span body, bool) override {
    if (!error) error = std::make_unique<told_error>(owner.server_error(*this, body));
  }
  void entry_dropped(const session::entry&) override {}
  void server_parameter(std::string_view, std::string_view, bool) override {}
  void server_ready(char, bool) override {}
  void server_read_done() override;
  void server_lost(const pg_error& why) override {
    lease = nullptr;
    owner.leg_lost(*this, why);
  }
  bool wants_more() const override;
  void server_drained() override;

  void read(char type, byte_span body, std::string_view whole);

  shard_copy& owner;
  const std::uint32_t shard;
  server* lease = nullptr;
  std::string carry;                            // the beginning of a message
  std::vector<std::vector<std::string>> rows;   // of columns_sql()
  std::string tag, response;                    // response: CopyInResponse, whole
  std::unique_ptr<told_error> error;
  bool running = false, copying = false, gave_up = false;
  bool made_fail = false;                       // by us, so that its transaction has failed
  // TO STDOUT
  std::uint64_t passing = 0;                    // bytes of a message that still go to the client
  std::uint64_t skipping = 0;
  bool first_message = true;
};

}  // namespace pgsled::frontend
