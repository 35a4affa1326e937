#include "services/frontend/copy/shard_copy_leg.hpp"

#include "services/frontend/client/client.hpp"
#include "services/frontend/shards/transaction.hpp"
#include "services/frontend/worker/worker.hpp"

namespace pgsled::frontend {

namespace be = wire::backend;

namespace {
constexpr std::size_t max_carry = 256 * 1024;
constexpr std::size_t max_columns = 1664;
constexpr std::size_t fields_of_column = 6;   // in a row of columns_sql()
}  // namespace

void shard_copy::leg::ask(std::string_view sql) {
  running = true;
  copying = gave_up = false;
  first_message = true;
  tag.clear();
  std::string bytes;
  wire::write_query(bytes, sql);
  lease->ledger.add({session::owed::query});
  lease->unnamed.reset();
  lease->send(bytes);
}

void shard_copy::leg::send_done() {
  std::string bytes;
  wire::write_empty(bytes, wire::frontend::copy_done);
  lease->ledger.copy_ended();
  lease->send(bytes);
}

void shard_copy::leg::send_failure(std::string_view why) {
  gave_up = true;
  std::string bytes;
  wire::writer(bytes, wire::frontend::copy_fail).text(why);
  lease->ledger.copy_ended();
  lease->send(bytes);
}

void shard_copy::leg::from_server(byte_span bytes) {
  if (!owner.incoming() && owner.phase_ == phase::streaming) return owner.output(*this, bytes);
  carry.append(as_text(bytes));
  wire::take_messages(carry, [this](char type, byte_span body, std::string_view whole) {
    read(type, body, whole);
  });
  if (carry.size() > max_carry) lease->mark_broken();
}

void shard_copy::leg::read(char type, byte_span body, std::string_view whole) {
  switch (type) {
    case be::command_complete:
      tag = as_text(body.first(body.empty() ? 0 : body.size() - 1));
      return;
    case be::copy_in_response:
      copying = true;
      response = whole;
      return;
    case be::notice_response:
    case be::notification_response:
      owner.client_.write(whole);
      return;
    case be::data_row: break;
    default: return;
  }
  // A row of the columns; those of EXPLAIN have another number of fields.
  if (body.size() < 2 || load_be<std::uint16_t>(body.data()) != fields_of_column) return;
  if (rows.size() >= max_columns) return lease->mark_broken();
  std::vector<std::string> row;
  for (auto rest = body.subspan(2); rest.size() >= 4;) {
    const auto size = load_be<std::int32_t>(rest.data());
    rest = rest.subspan(4);
    const auto length = size < 0 ? 0u : static_cast<std::size_t>(size);
    if (length > rest.size()) return;
    row.emplace_back(as_text(rest.first(length)));
    rest = rest.subspan(length);
  }
  if (row.size() == fields_of_column) rows.push_back(std::move(row));
}

void shard_copy::leg::server_read_done() {
  if (!lease->usable()) {
    auto* dead = std::exchange(lease, nullptr);
    dead->pool().release(*dead);
    return owner.leg_lost(*this, {"57P01", "the server ended the connection", {}, {}});
  }
  if (!running) return;
  if (lease->ledger.empty()) {
    running = copying = false;
    return owner.leg_done(*this);
  }
  owner.leg_read(*this);
}

bool shard_copy::leg::wants_more() const {
  return owner.incoming() || !owner.client_.transport_.blocked();
}

void shard_copy::leg::server_drained() {
  if (owner.phase_ != phase::streaming) return;
  owner.client_.watch();
  owner.client_.resume();
}

}  // namespace pgsled::frontend
