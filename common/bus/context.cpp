#include "common/bus/context.hpp"

#include <csignal>
#include <zmq.h>

#include <array>
#include <stdexcept>

#include "common/bus/peer.hpp"
#include "common/log/log.hpp"

namespace pgsled::bus {
namespace {

constexpr std::size_t key_bytes = 32, key_text = 40;
constexpr std::chrono::seconds refusal_log_pause{10};

std::string from_z85(const std::string& text) {
  std::string key(key_bytes, '\0');
  if (text.size() != key_text ||
      zmq_z85_decode(reinterpret_cast<std::uint8_t*>(key.data()), text.c_str()) == nullptr)
    return {};
  return key;
}

// All frames of the next message; empty when the context is shutting down.
std::vector<std::string> receive(void* socket) {
  std::vector<std::string> frames;
  for (int more = 1; more != 0;) {
    zmq_msg_t part;
    zmq_msg_init(&part);
    int n;
    do n = zmq_msg_recv(&part, socket, 0);
    while (n < 0 && zmq_errno() == EINTR);
    if (n < 0) {
      zmq_msg_close(&part);
      return {};
    }
    frames.emplace_back(static_cast<const char*>(zmq_msg_data(&part)), zmq_msg_size(&part));
    more = zmq_msg_more(&part);
    zmq_msg_close(&part);
  }
  return frames;
}

}  // namespace

std::shared_ptr<context> make_context() { return std::make_shared<context>(); }

std::string endpoint_problem(const std::string& endpoint, const curve_keys& keys) {
  if (endpoint.starts_with("ipc://") || endpoint.starts_with("inproc://")) return {};
  if (!endpoint.starts_with("tcp://"))
    return fmt::format("endpoint \"{}\" must begin with ipc:// or tcp://", endpoint);
  if (keys.secret_key.empty())
    return fmt::format("endpoint \"{}\" is refused: tcp needs CURVE keys (--curve-dir)", endpoint);
  return {};
}

curve_keys make_curve_pair() {
  std::array<char, key_text + 1> open{}, secret{};
  if (zmq_curve_keypair(open.data(), secret.data()) != 0)
    throw std::runtime_error("this libzmq has no CURVE");
  return {open.data(), secret.data(), {}};
}

std::string curve_public(const std::string& secret_key) {
  std::array<char, key_text + 1> open{};
  if (from_z85(secret_key).empty() || zmq_curve_public(open.data(), secret_key.c_str()) != 0)
    return {};
  return open.data();
}

context::context() : handle_(zmq_ctx_new()) {
  if (handle_ == nullptr) throw std::runtime_error("no ZeroMQ context");
}

context::~context() {
  zmq_ctx_shutdown(handle_);  // ends the thread's blocking receive
  if (thread_.joinable()) thread_.join();
  while (zmq_ctx_term(handle_) != 0 && zmq_errno() == EINTR) {
  }
}

void context::allow(const std::string& domain, const std::vector<std::string>& keys) {
  std::set<std::string> binary;
  for (const auto& key : keys) {
    if (auto decoded = from_z85(key); !decoded.empty())
      binary.insert(std::move(decoded));
    else
      log::warn("bus", "a client key that is not 40 characters of Z85 was skipped");
  }
  const std::lock_guard lock(mutex_);
  allowed_[domain] = std::move(binary);
  if (thread_.joinable()) return;
  void* const socket = zmq_socket(handle_, ZMQ_REP);
  const int no_linger = 0;
  if (socket == nullptr || zmq_bind(socket, "inproc://zeromq.zap.01") != 0)
    throw std::runtime_error("could not start the check of CURVE keys");
  zmq_setsockopt(socket, ZMQ_LINGER, &no_linger, sizeof no_linger);
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, &before);  // signals are for the threads that expect them
  thread_ = std::thread([this, socket] { answer_all(socket); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void context::forget(const std::string& domain) {
  const std::lock_guard lock(mutex_);
  allowed_.erase(domain);
}

bool context::admits(const std::string& domain, const std::string& key) const {
  const std::lock_guard lock(mutex_);
  const auto found = allowed_.find(domain);
  return found != allowed_.end() && found->second.contains(key);
}

void context::answer_all(void* socket) {
  auto quiet_until = std::chrono::steady_clock::time_point::min();
  for (;;) {
    // version, request, domain, address, identity, mechanism, credentials…
    const auto frames = receive(socket);
    if (frames.empty()) break;
    const bool whole = frames.size() == 7 && frames[0] == "1.0" && frames[5] == "CURVE";
    const bool good = whole && admits(frames[2], frames[6]);
    if (const auto now = std::chrono::steady_clock::now(); !good && now >= quiet_until) {
      log::warn("bus", "a connection from {} was refused: its CURVE key is not known",
                frames.size() > 3 ? frames[3] : "?");
      quiet_until = now + refusal_log_pause;
    }
    // After a 400 libzmq's client does not try again by itself, but its owner does (channel.hpp),
    // and soon; a 300 would leave it waiting for the handshake's time limit.
    const std::string request = frames.size() > 1 ? frames[1] : "";
    const std::array<std::string_view, 6> answer{
        "1.0", request, good ? "200" : "400", good ? "OK" : "unknown key", "", ""};
    for (std::size_t i = 0; i < answer.size(); ++i)
      zmq_send(socket, answer[i].data(), answer[i].size(),
               i + 1 < answer.size() ? ZMQ_SNDMORE : 0);
  }
  zmq_close(socket);
}

}  // namespace pgsled::bus
