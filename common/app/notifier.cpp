#include "common/app/notifier.hpp"

#include <sys/socket.h>

#include <chrono>
#include <cstddef>
#include <cstring>
#include <string>

#include <fmt/format.h>

#include "common/net/socket.hpp"

namespace pgsled::app {
namespace {

// A line feed would begin another assignment.
std::string_view first_line(std::string_view text) {
  constexpr std::size_t longest = 1000;
  return text.substr(0, std::min(text.find_first_of("\r\n"), longest));
}

}  // namespace

notifier::notifier(std::string_view address) {
  const bool path = address.starts_with('/'), abstract = address.starts_with('@');
  if ((!path && !abstract) || address.size() < 2 || address.size() >= sizeof to_.sun_path) return;
  to_.sun_family = AF_UNIX;
  std::memcpy(to_.sun_path, address.data(), address.size());
  if (abstract) to_.sun_path[0] = '\0';
  length_ = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + address.size());
}

void notifier::ready(std::string_view status) const {
  send(fmt::format("READY=1\nSTATUS={}", first_line(status)));
}
void notifier::starting(std::string_view status) const {
  send(fmt::format("STATUS={}", first_line(status)));
}
void notifier::reloading() const {
  // steady_clock is CLOCK_MONOTONIC, which the protocol asks for.
  const auto now = std::chrono::duration_cast<std::chrono::microseconds>(
      std::chrono::steady_clock::now().time_since_epoch());
  send(fmt::format("RELOADING=1\nMONOTONIC_USEC={}\nSTATUS=reloading", now.count()));
}
void notifier::stopping() const { send("STOPPING=1\nSTATUS=draining"); }

void notifier::send(std::string_view lines) const {
  if (!wanted()) return;
  const net::unique_fd fd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!fd) return;
  [[maybe_unused]] const auto sent =
      ::sendto(fd.get(), lines.data(), lines.size(), MSG_NOSIGNAL | MSG_DONTWAIT,
               reinterpret_cast<const sockaddr*>(&to_), length_);
}

}  // namespace pgsled::app
