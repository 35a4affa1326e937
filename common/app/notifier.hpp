#pragma once
// notifier: tells a service manager how the process fares, by systemd's protocol: one datagram of
// lines KEY=VALUE to the socket that $NOTIFY_SOCKET names. Without that variable nothing happens.
// Thread-safe: it holds nothing but the address. Internal to common/app.

#include <sys/socket.h>
#include <sys/un.h>

#include <string_view>

namespace pgsled::app {

class notifier {
 public:
  // `address`: an absolute path, or @ and a name of Linux's abstract sockets; what is neither, or
  // too long, is taken for none, as is an empty one.
  explicit notifier(std::string_view address);
  bool wanted() const { return length_ != 0; }
  // Best effort: a manager that does not listen is its own affair. `status` is what people read,
  // its first line only.
  void ready(std::string_view status) const;
  void starting(std::string_view status) const;
  void reloading() const;
  void stopping() const;

 private:
  void send(std::string_view lines) const;
  sockaddr_un to_{};
  socklen_t length_ = 0;
};

}  // namespace pgsled::app
