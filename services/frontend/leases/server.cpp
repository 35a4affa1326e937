#include "services/frontend/leases/server.hpp"

#include "common/wire/messages.hpp"
#include "services/frontend/leases/local_pool.hpp"
#include "services/frontend/worker/worker.hpp"

namespace pgsled::frontend {

server::server(worker& w, local_pool& pool, std::string pooler, lease::grant&& granted,
               std::unique_ptr<server_stream> stream)
    : worker_(w),
      pool_(pool),
      pooler_(std::move(pooler)),
      stream_(std::move(stream)),
      id_(granted.lease),
      generation_(granted.generation),
      backend_pid_(granted.backend_pid) {
  settings = w.pairs().intern(std::move(granted.state.settings));
  parameters = w.pairs().intern(std::move(granted.parameters));
  for (const auto& statement : granted.state.statements) {
    present.add(server_statement_name(statement), nullptr);
  }
  carry_ = std::move(granted.state.unread);
  stream_->start(*this);
}

server::~server() = default;

void server::watch() {
  stream_->interest(user_ == nullptr || user_->wants_more(), !pending_.empty());
}

void server::attach(server_user* user) {
  PGSLED_ASSERT(user_ == nullptr);
  user_ = user;
}

void server::detach() {
  user_ = nullptr;
  forget_unnamed_portal();
  forget_portals();
  watch();
}

void server::portal_is(std::string_view name, session::effects what) {
  if (name.empty()) {
    unnamed_portal_ = std::move(what);
  } else if (what != nullptr) {
    portals_[std::string(name)] = std::move(what);
  } else if (!portals_.empty()) {
    portals_.erase(std::string(name));
  }
}

session::effects server::portal(std::string_view name) const {
  if (name.empty()) return unnamed_portal_;
  const auto found = portals_.empty() ? portals_.end() : portals_.find(std::string(name));
  return found == portals_.end() ? nullptr : found->second;
}

void server::forget_portals() {
  if (!portals_.empty()) portals_.clear();
}

void server::pass_to(server_user* user) {
  user_ = user;
  watch();
}

void server::resume_reading() { watch(); }

bool server::quiet() const {
  return ledger.empty() && !ledger.mid_message() && ledger.status() == 'I' && !ledger.skipping() &&
         carry_.empty() && pending_.empty() && !ledger.unsynced();
}

void server::send(std::string_view bytes) {
  if (broken_ || bytes.empty()) return;
  if (pending_.empty()) {
    const auto sent = stream_->send(bytes);
    if (sent < 0) {
      broken_ = true;
      return;
    }
    bytes.remove_prefix(static_cast<std::size_t>(sent));
    if (bytes.empty()) return;
  }
  if (pending_sent_ > 0) pending_.erase(0, std::exchange(pending_sent_, 0));
  pending_.append(bytes);
  watch();
}

void server::stream_writable() {
  if (pending_.empty()) return;
  const auto sent = stream_->send(std::string_view(pending_).substr(pending_sent_));
  if (sent < 0) broken_ = true;
  if (sent > 0) pending_sent_ += static_cast<std::size_t>(sent);
  if (pending_sent_ == pending_.size()) {
    pending_.clear();
    pending_.shrink_to_fit();
    pending_sent_ = 0;
  }
  watch();
  if (pending_.empty() && user_ != nullptr) user_->server_drained();
}

void server::stream_ended() {
  lost(pg_error{
      "08006",
      "the server closed the connection unexpectedly (" + pool_.where() + ")",
      "The transaction in progress is lost; if COMMIT had been sent its outcome is unknown.",
      {}});
}

void server::stream_bytes(byte_span fresh) {
  if (carry_.empty()) {
    receive(fresh);
  } else {
    std::string whole = std::exchange(carry_, {});
    whole.append(as_text(fresh));
    receive(as_bytes(whole));
  }
}

void server::receive(byte_span bytes) {
  while (!bytes.empty()) {
    const auto used = ledger.receive(bytes, *this);
    bytes = bytes.subspan(used);
    if (ledger.violated()) {
      worker_.counters().server_violations.add();
      lost(pg_error{"08P01", "the server broke the protocol (" + pool_.where() + ")", {}, {}});
      return;
    }
    if (used == 0) break;
  }
  if (!bytes.empty()) carry_.assign(as_text(bytes));
  if (user_ != nullptr) {
    user_->server_read_done();
  } else if (broken_) {
    lost(pg_error{"57P01", "the server ended the connection", {}, {}});
  }
  // Nothing of *this may be touched here: the user may have let it go.
}

void server::lost(pg_error why) {
  broken_ = true;
  if (auto* user = std::exchange(user_, nullptr)) user->server_lost(why);
  pool_.remove(*this);
}

void server::forward(byte_span bytes) {
  if (user_ != nullptr) user_->from_server(bytes);
}
void server::inject(std::string_view bytes) {
  if (user_ != nullptr) user_->from_server(as_bytes(bytes));
}
void server::command_complete(const sql::statement* done, std::string_view tag, bool proxy) {
  if (user_ != nullptr) user_->statement_done(done, tag, proxy);
}
void server::error(const session::entry* head, byte_span body, bool proxy) {
  const auto fields = wire::read_error(body);
  if (fields && (fields->severity == "FATAL" || fields->severity == "PANIC")) broken_ = true;
  if (head != nullptr && fields && fields->sqlstate == "0A000" &&
      fields->message == "cached plan must not change result type") {
    // The table has changed under our prepared statements: none of them can be trusted to be fresh.
    settings_unknown = true;
    dirty = true;
  }
  if (fields && fields->sqlstate == "26000" &&
      fields->message.find(server_statement_prefix) != std::string_view::npos) {
    // Somebody has taken a statement away by the name it has here, in a function or by what
    // pg_prepared_statements says.
    dirty = true;
  }
  if (user_ != nullptr) user_->server_error(body, proxy);
}
void server::dropped(const session::entry& gone) {
  // A statement that was to be closed is still there.
  if (gone.proxy && gone.kind == session::owed::close) dirty = true;
  if (gone.prepares) {
    // It was taken for prepared when the Parse was sent.
    const auto* lost_statement = reinterpret_cast<const statement*>(gone.tag & ~std::uint64_t{1});
    if (!of_unnamed(gone.tag)) {
      present.remove(lost_statement);
    } else if (unnamed.get() == lost_statement) {
      unnamed.reset();
    }
  }
  if (user_ != nullptr) user_->entry_dropped(gone);
}
void server::parameter(std::string_view name, std::string_view value) {
  parameters = worker_.pairs().with(parameters, name, value);
  if (user_ != nullptr) user_->server_parameter(name, value, ledger.head_is_proxy());
}
void server::ready(char status, bool proxy) {
  if (user_ != nullptr) user_->server_ready(status, proxy);
}

lease::give_back server::hand_over(lease::condition condition) const {
  lease::give_back back;
  back.lease = id_;
  back.generation = generation_;
  back.condition = condition;
  back.state.settings = settings->entries;
  back.parameters = parameters->entries;
  for (const auto& name : present.names()) {
    if (back.state.statements.size() == lease::max_statements) {
      back.condition = std::max(back.condition, lease::condition::dirty);
      break;
    }
    back.state.statements.push_back(statement_id_of(name));
  }
  if (settings_unknown || dirty) back.condition = std::max(back.condition, lease::condition::dirty);
  if (!usable()) back.condition = lease::condition::broken;
  std::size_t size = 16 * back.state.statements.size();
  for (const auto* pairs : {&back.state.settings, &back.parameters}) {
    for (const auto& [name, value] : *pairs) size += name.size() + value.size() + 16;
  }
  if (size > lease::max_message_bytes / 2) {
    // More state than a message carries: the connection is not worth it.
    back.state = {};
    back.parameters = {};
    back.condition = lease::condition::broken;
  }
  return back;
}

}  // namespace pgsled::frontend
