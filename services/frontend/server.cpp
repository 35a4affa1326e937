#include "services/frontend/server.hpp"

#include <sys/epoll.h>

#include <cerrno>

#include "common/wire/messages.hpp"
#include "services/frontend/local_pool.hpp"
#include "services/frontend/worker.hpp"

namespace pgsled::frontend {

server::server(worker& w, local_pool& pool, std::string pooler, lease::grant&& granted,
               net::unique_fd fd)
    : worker_(w),
      pool_(pool),
      pooler_(std::move(pooler)),
      fd_(std::move(fd)),
      id_(granted.lease),
      generation_(granted.generation),
      backend_pid_(granted.backend_pid) {
  settings = w.pairs().intern(std::move(granted.state.settings));
  parameters = w.pairs().intern(std::move(granted.parameters));
  for (const auto& statement : granted.state.statements) {
    present.emplace(server_statement_name(statement), nullptr);
  }
  carry_ = std::move(granted.state.unread);
  watched_ = EPOLLIN;
  worker_.loop().add(fd_.get(), watched_, this);
}

server::~server() { worker_.loop().remove(fd_.get()); }

void server::watch() {
  std::uint32_t wanted = 0;
  if (user_ == nullptr || user_->wants_more()) wanted |= EPOLLIN;
  if (!pending_.empty()) wanted |= EPOLLOUT;
  if (wanted == watched_) return;
  watched_ = wanted;
  worker_.loop().modify(fd_.get(), wanted, this);
}

void server::attach(server_user* user) {
  PGSLED_ASSERT(user_ == nullptr);
  user_ = user;
}

void server::detach() {
  user_ = nullptr;
  unnamed_portal.reset();
  portals.clear();
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
    const ssize_t sent = ::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN && errno != EINTR) {
      // The socket is readable (end of file or error) now: the loop tells the user.
      broken_ = true;
      return;
    }
    bytes.remove_prefix(sent > 0 ? static_cast<std::size_t>(sent) : 0);
    if (bytes.empty()) return;
  }
  if (pending_sent_ > 0) pending_.erase(0, std::exchange(pending_sent_, 0));
  pending_.append(bytes);
  watch();
}

void server::on_events(std::uint32_t events) {
  auto& owner = worker_;  // outlives this object, which may be deleted below
  if ((events & EPOLLOUT) != 0 && !pending_.empty()) {
    const ssize_t sent = ::send(fd_.get(), pending_.data() + pending_sent_,
                                pending_.size() - pending_sent_, MSG_NOSIGNAL);
    if (sent > 0) pending_sent_ += static_cast<std::size_t>(sent);
    if (pending_sent_ == pending_.size()) {
      pending_.clear();
      pending_.shrink_to_fit();
      pending_sent_ = 0;
    }
    if (sent < 0 && errno != EAGAIN && errno != EINTR) broken_ = true;
    watch();
    if (pending_.empty() && user_ != nullptr) user_->server_drained();
  }
  if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) read();
  owner.run_scheduled();
}

void server::read() {
  const auto buffer = worker_.read_buffer();
  const ssize_t got = ::recv(fd_.get(), buffer.data(), buffer.size(), 0);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (got <= 0) {
    lost(pg_error{"08006", "the server closed the connection unexpectedly (" + pool_.where() + ")",
                  "The transaction in progress is lost; if COMMIT had been sent its outcome is unknown.",
                  {}});
    return;
  }
  const byte_span fresh{buffer.data(), static_cast<std::size_t>(got)};
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
  if (user_ != nullptr) user_->server_error(body, proxy);
}
void server::dropped(const session::entry& gone) {
  // A statement that was to be closed is still there.
  if (gone.proxy && gone.kind == session::owed::close) dirty = true;
  if (gone.prepares) {
    // It was taken for prepared when the Parse was sent.
    const auto* lost_statement = reinterpret_cast<const statement*>(gone.tag);
    std::erase_if(present, [&](const auto& entry) { return entry.second.get() == lost_statement; });
    if (unnamed.get() == lost_statement) unnamed.reset();
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
  for (const auto& [name, statement] : present) {
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
