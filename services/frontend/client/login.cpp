#include "services/frontend/client/login.hpp"

#include <sys/epoll.h>

#include "common/log/log.hpp"
#include "common/wire/messages.hpp"
#include "services/frontend/client/client.hpp"
#include "services/frontend/worker/worker.hpp"

namespace pgsled::frontend {

namespace {
constexpr std::uint8_t tls_handshake_record = 0x16;
}

std::size_t client::login_input(byte_span bytes) {
  std::size_t used = 0;
  while (login_ && state_ == state::login && used < bytes.size()) {
    const auto rest = bytes.subspan(used);
    if (login_->getting_parameters) break;
    if (!login_->authenticating) {
      const auto n = startup_packet(rest);
      if (n == 0) break;
      used += n;
      continue;
    }
    wire::frame frame;
    const auto shape = wire::peek(rest, frame);
    if (shape == wire::frame_state::partial_header) break;
    if (shape == wire::frame_state::bad_length || frame.type != wire::frontend::password ||
        frame.length > wire::max_auth_length) {
      worker_.counters().client_violations.add();
      refuse_login(pg_error{"08P01", "expected a password response", {}, {}});
      return bytes.size();
    }
    if (rest.size() < frame.total()) break;
    used += frame.total();
    std::string reply;
    pg_error why;
    const auto outcome =
        login_->exchange->receive(rest.subspan(wire::header_size, frame.length), reply, why);
    if (outcome == auth::client_login::outcome::failed) {
      refuse_login(why);
      return bytes.size();
    }
    if (!reply.empty()) write(reply);
    if (outcome == auth::client_login::outcome::accepted) authenticated();
  }
  return used;
}

// Bytes consumed, 0: more is needed (or the client is being closed).
std::size_t client::startup_packet(byte_span bytes) {
  if (bytes.size() < 4) return 0;
  const auto length = load_be<std::uint32_t>(bytes.data());
  if (length < 8 || length > wire::max_startup_length) {
    worker_.counters().client_violations.add();
    refuse_login(pg_error{"08P01", "invalid length of startup packet", {}, {}});
    return 0;
  }
  if (bytes.size() < length) return 0;
  const auto packet = wire::read_startup(bytes.subspan(4, length - 4));
  if (!packet) {
    worker_.counters().client_violations.add();
    refuse_login(pg_error{"08P01", "malformed startup packet", {}, {}});
    return 0;
  }
  switch (packet->code) {
    case wire::cancel_request_code:
      worker_.cancel(packet->cancel_pid, packet->cancel_secret, false);
      close("cancel request");
      return 0;
    case wire::gssenc_request_code:
      if (++login_->negotiations > 2) {
        violate("too many encryption requests");
        return 0;
      }
      write("N");
      return length;
    case wire::ssl_request_code:
      if (++login_->negotiations > 2) {
        violate("too many encryption requests");
        return 0;
      }
      if (worker_.lacks_tls() && !local_) {
        refuse_login(pg_error{"58000", "the certificate for TLS cannot be loaded",
                              "The log of the frontend says why.", {}});
        return 0;
      }
      if (transport_.tls() || local_ || !worker_.tls()) {
        write("N");
        return length;
      }
      if (bytes.size() > length) {
        // Bytes sent before the handshake could have been put there by somebody in between.
        violate("received unencrypted data after SSL request");
        return 0;
      }
      write("S");
      begin_tls(false);
      return length;
    default:
      break;
  }
  const auto major = packet->code >> 16;
  if (major != 3) {
    refuse_login(pg_error{"0A000",
                          "unsupported frontend protocol " + std::to_string(major) + "." +
                              std::to_string(packet->code & 0xffff) +
                              ": server supports 3.0 to 3.2",
                          {},
                          {}});
    return 0;
  }
  if (!worker_.configured()) {
    // The packet stays where it is until the router has told us who may come in.
    login_->waits_for_router = true;
    return 0;
  }
  login_->protocol = packet->code;
  start_session(packet->parameters);
  return length;
}

// Direct TLS begins with a handshake record instead of a startup packet; OpenSSL wants to read it
// from the socket itself. False: nothing has come yet.
bool client::look_at_first_byte() {
  std::uint8_t first = 0;
  const ssize_t got = ::recv(transport_.fd(), &first, 1, MSG_PEEK);
  if (got < 0) return false;
  login_->first_byte_seen = true;
  if (got == 1 && first == tls_handshake_record && worker_.tls() && !local_) begin_tls(true);
  return true;
}

void client::begin_tls(bool direct) {
  transport_.start_tls(worker_.tls());
  login_->in_tls_handshake = true;
  login_->direct_tls = direct;
}

// True when the handshake is over.
bool client::continue_tls() {
  switch (transport_.tls()->handshake()) {
    case net::tls_stream::io::ok:
      login_->in_tls_handshake = false;
      if (login_->direct_tls && transport_.tls()->alpn() != "postgresql") {
        worker_.counters().client_violations.add();
        refuse_login(pg_error{
            "08P01",
            "received direct SSL connection request without ALPN protocol negotiation extension",
            {},
            {}});
        return false;
      }
      if (watched_ != EPOLLIN) {
        watched_ = EPOLLIN;
        worker_.loop().modify(transport_.fd(), watched_, this);
      }
      return true;
    case net::tls_stream::io::want_write:
      watched_ = EPOLLIN | EPOLLOUT;
      worker_.loop().modify(transport_.fd(), watched_, this);
      return false;
    case net::tls_stream::io::want_read:
      if (watched_ != EPOLLIN) {
        watched_ = EPOLLIN;
        worker_.loop().modify(transport_.fd(), watched_, this);
      }
      return false;
    default:
      log::info("client", "TLS handshake failed: {}", transport_.tls()->error());
      close("TLS handshake failed");
      return false;
  }
}

void client::start_session(const std::vector<std::pair<std::string, std::string>>& parameters) {
  std::vector<std::string> unknown;
  for (const auto& [name, value] : parameters) {
    if (name == "user") login_->user = value;
    if (name == "database") login_->database = value;
    if (name.starts_with("_pq_.")) unknown.push_back(name);
    if (name == "replication" && value != "false" && value != "off" && value != "0") {
      return refuse_login(pg_error{"0A000", "replication connections are not supported", {}, {}});
    }
  }
  if (login_->user.empty()) {
    return refuse_login(
        pg_error{"28000", "no PostgreSQL user name specified in startup packet", {}, {}});
  }
  if (login_->database.empty()) login_->database = login_->user;
  const auto minor = login_->protocol & 0xffff;
  std::string reply;
  if (minor > 2 || !unknown.empty() || minor == 1) {
    wire::write_negotiate(reply, minor == 1 ? wire::protocol_3_0 : wire::protocol_3_2, unknown);
    write(reply);
    reply.clear();
    login_->protocol =
        minor == 1 ? wire::protocol_3_0 : std::min(login_->protocol, wire::protocol_3_2);
  }
  if (!session::startup_settings(parameters, login_->settings)) {
    return refuse_login(
        pg_error{"22023", "invalid command-line arguments in parameter \"options\"", {}, {}});
  }
  if (worker_.settings().tls_client_required && !transport_.tls() && !local_) {
    return refuse_login(pg_error{"28000",
                                 "connections without TLS are refused (tls_client_required)",
                                 "Use sslmode=require.",
                                 {}});
  }
  if (worker_.draining()) {
    return refuse_login(pg_error{"57P01", "the pooler is shutting down", {}, {}});
  }
  if (login_->refusal) return refuse_login(*login_->refusal);
  endpoint_ = worker_.find_endpoint(login_->user, login_->database);
  login_->user_known = endpoint_ != nullptr || worker_.knows_user(login_->user);
  login_->database_known = worker_.knows_database(login_->database);
  auth::credentials credentials;
  credentials.user = login_->user;
  credentials.known = login_->user_known;
  // A known user of another database is checked against the password it has there.
  const auto proof = endpoint_ ? endpoint_ : worker_.any_endpoint_of(login_->user);
  if (proof) {
    credentials.method = proof->user.auth;
    credentials.verifiers = proof->user.verifiers;
    credentials.md5 = proof->user.md5;
  } else {
    credentials.method = worker_.default_auth();
    if (credentials.method == "trust") credentials.method = "scram";
  }
  login_->exchange = std::make_unique<auth::client_login>(
      std::move(credentials), transport_.tls() ? transport_.tls()->end_point_hash() : std::string{},
      worker_.login_seed());
  login_->authenticating = true;
  const bool in = login_->exchange->start(reply);
  write(reply);
  if (in) authenticated();
}

void client::authenticated() {
  if (endpoint_ && endpoint_->stale) {
    endpoint_ = worker_.find_endpoint(login_->user, login_->database);
  }
  if (!endpoint_) {
    if (!login_->database_known) {
      return refuse_login(
          pg_error{"3D000", "database \"" + login_->database + "\" does not exist", {}, {}});
    }
    return refuse_login(pg_error{"28000", "user \"" + login_->user + "\" may not use database \"" +
                                              login_->database + "\"", {}, {}});
  }
  if (endpoint_->database.resharding_only) {
    return refuse_login(only_for_resharding(endpoint_->database.name));
  }
  slot_ = worker_.add_slot(this);
  if (slot_ == ~0u) {
    return refuse_login(pg_error{"53300", "sorry, too many clients already in one worker", {}, {}});
  }
  login_->getting_parameters = true;
  shadow_ = std::make_unique<session::shadow>(worker_.pairs().intern(std::move(login_->settings)));
  if (endpoint_->database.admin) {
    reported_ = worker_.pairs().intern({{"server_version", "15.0 (pgsled " PGSLED_VERSION ")"},
                                        {"server_encoding", "UTF8"},
                                        {"client_encoding", "UTF8"},
                                        {"DateStyle", "ISO, MDY"},
                                        {"integer_datetimes", "on"},
                                        {"standard_conforming_strings", "on"}});
    return finish_login();
  }
  get_parameters();
}

void client::get_parameters() {
  if (endpoint_->stale) {
    auto fresh = worker_.find_endpoint(login_->user, login_->database);
    if (!fresh || fresh->database.resharding_only) {
      return refuse_login(fresh ? only_for_resharding(login_->database)
                                : pg_error{"57P01", "user \"" + login_->user + "\" of database \"" +
                                                        login_->database + "\" was removed from "
                                                        "the configuration", {}, {}});
    }
    endpoint_ = std::move(fresh);
  }
  local_pool* pool = nullptr;
  for (auto* each : endpoint_->pools) pool = pool == nullptr ? each : pool;
  const auto shard = own_shard();
  if (shard < endpoint_->pools.size() && endpoint_->pools[shard] != nullptr)
    pool = endpoint_->pools[shard];
  if (pool == nullptr) {
    return refuse_login(
        pg_error{"57P03", "database \"" + login_->database + "\" has no host yet", {}, {}});
  }
  if ((reported_ = worker_.known_parameters(pool, shadow_->current()))) return finish_login();
  server* lent = pool->take(this);
  if (lent != nullptr && attach(*lent)) finish_login();
}

void client::finish_login() {
  if (server_ != nullptr) {
    reported_ = server_->parameters;
    worker_.learn_parameters(&server_->pool(), shadow_->current(), reported_);
  }
  std::string bytes;
  for (const auto& [name, value] : reported_->entries)
    wire::write_parameter_status(bytes, name, value);
  secret_ = auth::random_bytes(login_->protocol >= wire::protocol_3_2 ? 32 : 4);
  wire::write_backend_key(bytes, worker_.cancel_pid(slot_), secret_);
  wire::write_ready(bytes, 'I');
  if (worker_.settings().log_connections) {
    log::info("client", "client {} logged in as \"{}\" to \"{}\"", address(), endpoint_->user.name,
              endpoint_->database.name);
  }
  login_.reset();
  set_state(state::ready);
  write(bytes);
  if (endpoint_->mode != pool_mode::session && server_ != nullptr) let_go();
  resume();
}

void client::refuse_at_startup(const pg_error& why) {
  login_->refusal = std::make_unique<pg_error>(why);
}

void client::refuse_login(const pg_error& why) {
  worker_.counters().logins_failed.add();
  log::info("client", "client {} refused: {}", address(), why.message);
  end(why);
}

}  // namespace pgsled::frontend
