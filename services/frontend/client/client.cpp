#include "services/frontend/client/client.hpp"

#include <netdb.h>
#include <netinet/in.h>
#include <sys/epoll.h>

#include "common/log/log.hpp"
#include "common/wire/messages.hpp"
#include "services/frontend/client/login.hpp"
#include "services/frontend/client/output.hpp"
#include "services/frontend/copy/shard_copy.hpp"
#include "services/frontend/shards/transaction.hpp"
#include "services/frontend/statements/query_steps.hpp"
#include "services/frontend/statements/unit.hpp"
#include "services/frontend/worker/worker.hpp"

namespace pgsled::frontend {

namespace {
// While a client cannot be served it may send this much more before we stop reading.
constexpr std::size_t max_pending_while_suspended = 256 * 1024;
// A single message that must be seen whole (Query, Parse, a Bind that is routed).
constexpr std::size_t max_whole_message = 256u << 20;
// Messages up to a Sync that are routed together.
constexpr std::size_t max_routed_batch = 16u << 20;
}  // namespace

client::client(worker& w, net::unique_fd fd, bool local)
    : worker_(w),
      transport_(std::move(fd)),
      login_(std::make_unique<login_state>()),
      local_(local) {
  connected_at_ = last_request_ = w.loop().now();
  serial_ = w.next_serial();
  watched_ = EPOLLIN;
  worker_.loop().add(transport_.fd(), watched_, this);
}

client::~client() {
  PGSLED_ASSERT(server_ == nullptr);
  if (state_ != state::closed) worker_.loop().remove(transport_.fd());
}

void client::set_state(state next) {
  if (state_ == state::closed) return;
  state_ = next;
  if (next == state::spreading || next == state::copying) last_request_ = worker_.loop().now();
}

bool client::suspended() const {
  if (state_ != state::ready) return true;
  return (server_ != nullptr && server_->blocked()) || transport_.blocked();
}

char client::status() const {
  if (server_ != nullptr) return server_->ledger.status();
  return virtual_status_;
}

bool client::in_transaction() const {
  return status() != 'I' || (server_ != nullptr && !server_->quiet());
}

// In a batch the server's last status is older than a COMMIT that it holds: what comes behind that
// is one transaction up to the Sync. The script knows. When the server owes nothing.
bool client::in_block() const { return status() != 'I' && script_.open(); }

void client::watch() {
  if (state_ == state::closed || (login_ && login_->in_tls_handshake)) return;
  std::uint32_t wanted = 0;
  const bool full = pending_.size() > max_pending_while_suspended && suspended();
  const bool server_full = server_ != nullptr && server_->blocked();
  if (!full && !server_full) wanted |= EPOLLIN;
  if (transport_.blocked()) wanted |= EPOLLOUT;
  if (wanted == 0) wanted = EPOLLRDHUP;
  if (wanted == watched_) return;
  watched_ = wanted;
  worker_.loop().modify(transport_.fd(), wanted, this);
}

void client::on_events(std::uint32_t events) {
  auto& owner = worker_;
  if ((events & (EPOLLERR | EPOLLHUP)) != 0 && (events & EPOLLIN) == 0) {
    close("client disconnected");
  } else {
    if ((events & EPOLLOUT) != 0) {
      if (!transport_.flush()) {
        close("client disconnected");
      } else if (!transport_.blocked()) {
        written_at_ = owner.loop().now();
        if (server_ != nullptr) server_->resume_reading();
        if (copy_) copy_->client_paced();
        if (state_ == state::ready) resume();
      }
    }
    const bool shakes_hands = login_ && login_->in_tls_handshake;   // it may wait to write
    const auto read = EPOLLIN | (shakes_hands ? EPOLLOUT : 0u);
    if (state_ != state::closed && (events & read) != 0) read_input();
    if (state_ != state::closed && (events & EPOLLRDHUP) != 0 && (events & EPOLLIN) == 0) {
      close("client disconnected");
    }
    watch();
  }
  owner.run_scheduled();
}

void client::read_input() {
  do {
    if (login_ && !login_->first_byte_seen && !look_at_first_byte()) return;
    if (login_ && login_->in_tls_handshake && !continue_tls()) return;
    std::size_t n = 0;
    const auto buffer = worker_.read_buffer();
    switch (transport_.read(buffer, n)) {
      case transport::status::again:
        return;
      case transport::status::closed:
        close("client disconnected");
        return;
      case transport::status::ok:
        break;
    }
    counts_.received += n;
    worker_.counters().bytes_from_clients.add(n);
    consume(byte_span(buffer.data(), n));
  } while (state_ != state::closed && transport_.has_buffered_input() &&
           pending_.size() <= max_pending_while_suspended);
}

void client::consume(byte_span fresh) {
  if (processing_) {
    pending_.append(as_text(fresh));
    return;
  }
  processing_ = true;
  take_input(fresh);
  while (steps_ && next_step()) take_input({});
  processing_ = false;
}

void client::take_input(byte_span fresh) {
  std::size_t used = 0;
  if (pending_.empty()) {
    used = process(fresh);
    if (used < fresh.size() && state_ != state::closed)
      pending_.assign(as_text(fresh.subspan(used)));
  } else {
    pending_.append(as_text(fresh));
    used = process(as_bytes(pending_));
    if (used == pending_.size()) {
      pending_.clear();
      if (pending_.capacity() > 256) pending_.shrink_to_fit();
    } else {
      pending_.erase(0, used);
    }
  }
  steps_left_ -= std::min(steps_left_, used);
}

void client::resume() {
  if (resume_scheduled_ || state_ == state::closed || (pending_.empty() && !steps_)) return;
  resume_scheduled_ = true;
  worker_.schedule([this] {
    resume_scheduled_ = false;
    if (state_ != state::closed) {
      consume({});
      watch();
    }
  });
}

std::size_t client::process(byte_span bytes) {
  if (login_) {
    const auto used = login_input(bytes);
    // What follows the StartupMessage exchange in the same read is ordinary input.
    if (login_ || state_ != state::ready || used == bytes.size()) return used;
    return used + process(bytes.subspan(used));
  }
  if (state_ == state::copying) return copy_->input(bytes);
  output out(worker_.server_out(), bytes);
  while (!suspended() && out.position() < bytes.size()) {
    // What is behind the step in hand comes after all of them.
    if (steps_ && streaming_ == 0 && out.position() >= steps_left_) break;
    const auto rest = bytes.subspan(out.position());
    if (streaming_ != 0) {
      const auto count = std::min<std::uint64_t>(streaming_, rest.size());
      streaming_ -= count;
      unit_left_ -= std::min<std::size_t>(unit_left_, count);
      if (dropping_) {
        out.skip(count);
        dropping_ = streaming_ != 0;
      } else {
        out.pass(count);
      }
      continue;
    }
    wire::frame frame;
    const auto shape = wire::peek(rest, frame);
    if (shape == wire::frame_state::partial_header) break;
    if (shape == wire::frame_state::bad_length) {
      violate("invalid message length");
      return bytes.size();
    }
    if (frame.type == wire::frontend::terminate) {
      out.flush(server_);
      close("client ended the session");
      return bytes.size();
    }
    const auto limit = worker_.settings().query_size_limit;
    if (limit >= 0 && !skip_to_sync_ && frame.total() > static_cast<std::size_t>(limit) &&
        (frame.type == wire::frontend::query || frame.type == wire::frontend::parse)) {
      out.flush(server_);
      if (server_ != nullptr && !server_->ledger.empty()) {
        settle();
        break;
      }
      const pg_error why{
          "54000", "query is longer than query_size_limit (" + std::to_string(limit) + " bytes)",
          "Send less in one statement, or raise query_size_limit.", {}};
      const bool simple = frame.type == wire::frontend::query;
      if (server_ != nullptr && server_->ledger.skipping()) {
        // The server would throw it away.
      } else if (simple && batch_) {
        if (undo_batch(why) == routed::suspended) break;
      } else {
        if (replaces_unnamed(frame.type, rest.subspan(wire::header_size))) unnamed_ = nullptr;
        refuse(why, simple);
      }
      streaming_ = frame.total();
      dropping_ = true;
      continue;
    }
    // The snapshot may have changed while this client waited for a plan: its map is the one to use.
    if (endpoint_->stale && unit_left_ == 0) {
      if (leaves_old_shards(out)) break;
      snapshot_changed();
    }
    if (state_ == state::closed) return bytes.size();
    if (endpoint_->owners->guarded && unit_left_ == 0 && held_back(frame.type, out)) break;
    const bool ends_batch = batch_ && frame.type == wire::frontend::sync;
    bool asks = planned();
    if (asks && unit_left_ == 0 && (!skip_to_sync_ || ends_batch) &&
        !wire::frontend::is_copy(frame.type)) {
      out.flush(server_);
      out.restart();
      if (rest.size() < unit_need_) break;
      unit_need_ = 0;
      const auto outcome = endpoint_->database.admin ? admin(rest) : route(rest);
      if (outcome == routed::need_more) {
        const bool too_long =
            rest.size() > max_whole_message || unit_need_ > max_whole_message ||
            (rest.size() > max_routed_batch && unit_need_ < frame.total() + max_routed_batch &&
             frame.total() < max_routed_batch);
        if (!too_long) break;
        if (endpoint_->planned) {
          violate("a batch without Sync is too long to be routed");
          break;
        }
        asks = false;   // it need not be looked at to be sent where it goes
        unit_need_ = 0;
      }
      if (outcome == routed::suspended) break;
      if (outcome == routed::done) {
        out.skip(unit_left_);
        unit_left_ = 0;
        continue;
      }
    }
    const bool whole = rest.size() >= frame.total();
    const bool streams = frame.type == wire::frontend::copy_data ||
                         frame.type == wire::frontend::function_call ||
                         (frame.type == wire::frontend::bind && !asks &&
                          frame.total() > worker_.read_buffer().size());
    if (!whole && !(streams && rest.size() >= 1024)) {
      if (frame.total() > max_whole_message && !streams) {
        violate("message is longer than " + std::to_string(max_whole_message) + " bytes");
        return bytes.size();
      }
      break;
    }
    const auto size = std::min<std::size_t>(frame.total(), rest.size());
    const auto body = rest.subspan(wire::header_size, size - wire::header_size);
    const auto at = out.position();
    if (!message(frame.type, body, rest.first(size), out)) break;  // suspended, or closed
    if (state_ == state::closed) return bytes.size();
    const bool forwarded = out.position() != at;
    if (!forwarded) out.skip(size);
    unit_left_ -= std::min(unit_left_, size);
    if (!whole) {
      // What was not sent on, or skipped after an error, takes its rest along: a server would read
      // that as messages.
      streaming_ = frame.total() - size;
      dropping_ = !forwarded;
    }
  }
  out.flush(server_);
  if (state_ == state::closed) return bytes.size();
  // Replies that only we owe do not wait for the server.
  if (server_ != nullptr && state_ == state::ready) flush_to_client();
  if (may_let_go()) let_go();
  return out.position();
}

void client::write(std::string_view bytes) {
  if (state_ == state::closed) return;
  std::string passed;
  if (steps_) {
    steps_->pass(bytes, passed);
    if (steps_->over()) steps_.reset();
    bytes = passed;
    if (bytes.empty()) return;
  }
  written_at_ = worker_.loop().now();
  counts_.sent += bytes.size();
  worker_.counters().bytes_to_clients.add(bytes.size());
  if (!transport_.write(bytes)) {
    // Not now: this may run inside the server's read, which must not lose the server under it.
    worker_.schedule([this] { close("client disconnected"); });
    return;
  }
  if (transport_.blocked()) {
    watch();
    if (server_ != nullptr) server_->resume_reading();
    if (copy_) copy_->client_paced();
  }
}

void client::from_server(byte_span bytes) {
  auto& out = worker_.client_out();
  out.append(as_text(bytes));
  // Large results leave in pieces of the read buffer's size.
  if (out.size() >= 32 * 1024) flush_to_client();
}

void client::flush_to_client() {
  auto& out = worker_.client_out();
  if (out.empty()) return;
  write(out);
  out.clear();
}

bool client::wants_more() const { return !transport_.blocked(); }

void client::server_drained() {
  watch();
  resume();
}

void client::cancel() {
  worker_.counters().cancels.add();
  const pg_error cancelled{"57014", "canceling statement due to user request", {}, {}};
  if (state_ == state::waiting) {
    leave_pools();
    not_granted(cancelled);
    return;
  }
  // What the server still runs is meant, not what waits behind it.
  const bool runs = server_ != nullptr && !server_->ledger.empty();
  if (!runs && (state_ == state::planning || state_ == state::fenced)) {
    set_state(state::waiting);
    not_granted(cancelled);
    return;
  }
  if (state_ == state::spreading) return spread_->cancel();
  if (state_ == state::copying) return copy_->cancel();
  // What runs while settings are applied is ours, and short.
  if (state_ == state::applying || state_ == state::refusing) return;
  if (server_ == nullptr || server_->ledger.empty() || server_->cancelling || server_->orphan ||
      server_->unheard)
    return;
  server_->cancelling = true;
  worker_.tell_pooler(server_->pooler(), lease::cancel{server_->id(), server_->generation()});
}

void client::check_timeouts(net::time_point now) {
  const auto past = [&](net::time_point since, std::int64_t limit_ms) {
    return limit_ms >= 0 && now - since >= std::chrono::milliseconds(limit_ms);
  };
  if (login_) {
    if (past(connected_at_, worker_.settings().client_login_timeout)) {
      refuse_login(pg_error{"08P01", "login was not finished within client_login_timeout", {}, {}});
    } else if (login_->waits_for_router &&
               past(connected_at_, worker_.settings().checkout_timeout)) {
      refuse_login(pg_error{"57P03", "the router is not there yet", "Try again in a moment.", {}});
    }
    return;
  }
  if (state_ == state::fenced && past(fenced_since_, worker_.settings().checkout_timeout)) {
    set_state(state::waiting);
    const auto& held = endpoint_->owners->held;
    not_granted(pg_error{"57P03",
                         (!held.empty() ? held
                                        : "rows of database \"" + endpoint_->database.name +
                                              "\" are being moved between shards") +
                             "; waited " +
                             std::to_string(worker_.settings().checkout_timeout) +
                             " ms (checkout_timeout)",
                         "Try again.",
                         {}});
    return;
  }
  if (draining_) {
    drain();
    if (state_ == state::closed) return;
  }
  const auto& user = endpoint_->user;
  const bool quiet = state_ == state::ready && !transport_.blocked() &&
                     (server_ == nullptr || server_->ledger.empty());
  const auto idle_since = std::max(last_request_, written_at_);
  if (quiet && status() == 'I' && past(idle_since, user.client_idle_timeout)) {
    end(pg_error{"57P05", "terminating connection due to client_idle_timeout", {}, {}});
  } else if (quiet && status() != 'I' && past(idle_since, user.idle_in_transaction_timeout)) {
    end(pg_error{
        "25P03", "terminating connection due to client_idle_in_transaction_timeout", {}, {}});
  } else if (spread_ && spread_->must_finish()) {
    // Where all shards decide at once that is told within seconds.
    if (!spread_->one_by_one() || !past(last_request_, user.query_timeout)) return;
    end(pg_error{"08007", "query_timeout has passed while one shard commits after the other; they "
                          "go on", {}, "Look at the shards before you say it again."});
  } else if ((state_ == state::spreading || state_ == state::copying ||
              (server_ != nullptr && !server_->ledger.empty())) &&
             past(last_request_, user.query_timeout)) {
    end(pg_error{"57014", "canceling statement due to query_timeout", {}, {}});
  }
}

void client::end(const pg_error& fatal) {
  if (state_ == state::closed) return;
  worker_.counters().errors.add(fatal.sqlstate);
  std::string bytes;
  wire::write_error(bytes, "FATAL", fatal);
  write(bytes);
  close(fatal.message);
}

void client::violate(std::string_view what) {
  worker_.counters().client_violations.add();
  end(pg_error{"08P01", "protocol violation: " + std::string(what), {}, {}});
}

void client::close(std::string_view reason) {
  if (state_ == state::closed) return;
  if ((state_ == state::waiting || login_) && endpoint_) leave_pools();
  if (copy_) copy_->abandon();
  if (spread_) {
    server_ = nullptr;  // a leg's
    // What has been decided is carried out.
    if (spread_->must_finish()) {
      spread_->forget_client();
      worker_.carry_on(std::move(spread_));
    }
    spread_.reset();
  }
  if (pinned_) worker_.counters().pinned.subtract();
  if (worker_.settings().log_disconnections) {
    log::info("client", "client {} disconnected: {}", address(), reason);
  }
  worker_.loop().remove(transport_.fd());
  state_ = state::closed;
  if (transport_.tls() != nullptr) transport_.tls()->shutdown();
  if (server_ != nullptr) {
    if (pinned_) server_->dirty = true;
    // In a transaction, or owed replies: release() finds it not quiet and gives it back broken.
    server* used = std::exchange(server_, nullptr);
    used->pool().release(*used);
  }
  worker_.client_gone(this);
}

std::string client::address() const {
  if (local_) return "[local]";
  sockaddr_storage name{};
  socklen_t length = sizeof name;
  if (::getpeername(transport_.fd(), reinterpret_cast<sockaddr*>(&name), &length) != 0) return "?";
  char host[NI_MAXHOST], port[NI_MAXSERV];
  if (::getnameinfo(reinterpret_cast<const sockaddr*>(&name), length, host, sizeof host, port,
                    sizeof port, NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
    return "?";
  }
  return std::string(host) + ":" + port;
}

std::string client::application_name() const {
  const auto* name = reported_ ? reported_->find("application_name") : nullptr;
  return name != nullptr ? *name : std::string{};
}

}  // namespace pgsled::frontend
