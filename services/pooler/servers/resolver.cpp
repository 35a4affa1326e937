#include "services/pooler/servers/resolver.hpp"

#include <netdb.h>
#include <netinet/in.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <condition_variable>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <thread>

namespace pgsled::pooler {
namespace {

constexpr std::size_t max_hosts_waiting = 1024;
constexpr std::size_t max_helpers = 4;   // a name server that is silent for one host delays few

tl::unexpected<pg_error> no_such_host(const std::string& host, int code) {
  return failure("08001",
                 fmt::format("could not resolve host \"{}\": {}", host, ::gai_strerror(code)));
}

result<std::vector<address>> look_up(const std::string& host, int flags) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = flags;
  addrinfo* list = nullptr;
  const int code = ::getaddrinfo(host.c_str(), nullptr, &hints, &list);
  if (code != 0) return no_such_host(host, code);
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> owner(list, ::freeaddrinfo);
  std::vector<address> found;
  for (const auto* at = list; at != nullptr && found.size() < 16; at = at->ai_next) {
    if (at->ai_addrlen > sizeof(sockaddr_storage)) continue;
    address one;
    std::memcpy(&one.storage, at->ai_addr, at->ai_addrlen);
    one.length = at->ai_addrlen;
    found.push_back(one);
  }
  if (found.empty()) return no_such_host(host, EAI_NODATA);
  return found;
}

void set_port(std::vector<address>& list, std::uint16_t port) {
  for (auto& one : list) {
    if (one.storage.ss_family == AF_INET) {
      reinterpret_cast<sockaddr_in&>(one.storage).sin_port = htons(port);
    } else if (one.storage.ss_family == AF_INET6) {
      reinterpret_cast<sockaddr_in6&>(one.storage).sin6_port = htons(port);
    }
  }
}

// A directory as libpq takes it: the socket is <directory>/.s.PGSQL.<port>.
result<std::vector<address>> socket_file(const std::string& directory, std::uint16_t port) {
  const auto path = fmt::format("{}/.s.PGSQL.{}", directory, port);
  address one;
  auto& file = reinterpret_cast<sockaddr_un&>(one.storage);
  if (path.size() >= sizeof file.sun_path) {
    return failure("08001", fmt::format("socket path \"{}\" is too long", path));
  }
  file.sun_family = AF_UNIX;
  std::memcpy(file.sun_path, path.data(), path.size());
  one.length = sizeof file;
  return std::vector<address>{one};
}

std::optional<std::vector<address>> shared_socket(const std::string& sockets,
                                                  const std::string& host, std::uint16_t port) {
  if (sockets.empty() || host.empty() || host.front() == '.' ||
      host.find('/') != std::string::npos) {
    return std::nullopt;
  }
  auto found = socket_file(sockets + "/" + host, port);
  if (!found) return std::nullopt;
  const auto& file = reinterpret_cast<const sockaddr_un&>(found->front().storage);
  struct stat there {};
  if (::stat(file.sun_path, &there) != 0 || !S_ISSOCK(there.st_mode)) return std::nullopt;
  return std::move(*found);
}

}  // namespace

struct resolver::shared : std::enable_shared_from_this<resolver::shared> {
  struct asked {
    std::uint16_t port;
    answer call;
  };

  std::mutex mutex;
  std::condition_variable wake;
  net::reactor* reactor = nullptr;  // null: the resolver is gone
  std::deque<std::string> todo;
  std::size_t helpers = 0, idle = 0;   // threads, and those that wait for work

  std::map<std::string, std::vector<asked>> waiting;  // the reactor's thread only

  void run() {
    for (;;) {
      std::string host;
      {
        std::unique_lock lock(mutex);
        ++idle;
        wake.wait(lock, [&] { return reactor == nullptr || !todo.empty(); });
        --idle;
        if (reactor == nullptr) return;
        host = std::move(todo.front());
        todo.pop_front();
      }
      auto found = std::make_shared<result<std::vector<address>>>(look_up(host, AI_ADDRCONFIG));
      const std::lock_guard lock(mutex);
      if (reactor == nullptr) return;
      reactor->post([self = weak_from_this(), host, found] {
        if (const auto me = self.lock()) me->tell(host, *found);
      });
    }
  }

  void tell(const std::string& host, const result<std::vector<address>>& found) {
    auto node = waiting.extract(host);
    if (node.empty()) return;
    for (auto& [port, call] : node.mapped()) {
      auto copy = found;
      if (copy) set_port(*copy, port);
      call(std::move(copy));
    }
  }
};

resolver::resolver(net::reactor& r, std::string sockets)
    : sockets_(std::move(sockets)), shared_(std::make_shared<shared>()) {
  shared_->reactor = &r;
}

resolver::~resolver() {
  const std::lock_guard lock(shared_->mutex);
  shared_->reactor = nullptr;
  shared_->wake.notify_all();
}

void resolver::resolve(const std::string& host, std::uint16_t port, answer call) {
  if (host.starts_with('/')) return call(socket_file(host, port));
  if (auto near = shared_socket(sockets_, host, port)) return call(std::move(*near));
  if (auto numeric = look_up(host, AI_NUMERICHOST)) {
    set_port(*numeric, port);
    return call(std::move(numeric));
  }
  auto& waiting = shared_->waiting;
  const auto at = waiting.find(host);
  if (at == waiting.end() && waiting.size() >= max_hosts_waiting) {
    return call(failure("53400", "too many host names are being resolved"));
  }
  waiting[host].push_back({port, std::move(call)});
  if (at != waiting.end()) return;
  const std::lock_guard lock(shared_->mutex);
  shared_->todo.push_back(host);
  if (shared_->todo.size() > shared_->idle && shared_->helpers < max_helpers) {
    ++shared_->helpers;
    // Detached: getaddrinfo cannot be interrupted, and nobody shall wait for it at the end.
    std::thread([state = shared_] { state->run(); }).detach();
  }
  shared_->wake.notify_one();
}

}  // namespace pgsled::pooler
