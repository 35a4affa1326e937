#pragma once
// fake_server: speaks just enough PostgreSQL for the pooler's tests, on threads of its own.
// Queries: "sleep" answers only when cancelled, "big N" answers with N bytes in one row, "fail" with an
// error, "die" closes the connection; anything else is answered at once.

#include <netinet/in.h>
#include <sys/socket.h>

#include <atomic>
#include <condition_variable>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "common/net/socket.hpp"
#include "common/wire/messages.hpp"

namespace pgsled::pooler {

class fake_server {
 public:
  fake_server() {
    listener_ = std::move(*net::listen_tcp("127.0.0.1", 0, false, 64));
    // Blocking: this side has threads.
    blocking(listener_.get());
    acceptor_ = std::thread([this] { accept_all(); });
  }
  ~fake_server() {
    stopping_ = true;
    ::shutdown(listener_.get(), SHUT_RDWR);
    acceptor_.join();
    {
      const std::lock_guard lock(mutex_);
      for (int fd : open_) ::shutdown(fd, SHUT_RDWR);
      changed_.notify_all();
    }
    for (auto& t : threads_) t.join();
  }
  std::uint16_t port() const { return net::local_port(listener_.get()); }

  // Counters, by name of what happened: connect, cancel, terminate, end, or the text of a query.
  int seen(const std::string& what) {
    const std::lock_guard lock(mutex_);
    return seen_[what];
  }
  bool wait_for(const std::string& what, int count = 1) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(5), [&] { return seen_[what] >= count; });
  }
  std::atomic<bool> refuse_logins{false};
  std::atomic<bool> hold_cancels{false};  // reads them, and does not close

 private:
  static void blocking(int fd);
  void accept_all() {
    for (;;) {
      net::unique_fd fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
      if (!fd || stopping_) return;
      const std::lock_guard lock(mutex_);
      open_.push_back(fd.get());
      threads_.emplace_back([this, fd = std::move(fd)]() mutable { serve(fd.get()); forget(fd); });
    }
  }
  void forget(net::unique_fd& fd) {
    const std::lock_guard lock(mutex_);
    std::erase(open_, fd.get());
    fd.reset();
  }
  void note(const std::string& what) {
    const std::lock_guard lock(mutex_);
    ++seen_[what];
    changed_.notify_all();
  }
  static bool read_exactly(int fd, std::string& into, std::size_t n) {
    into.resize(n);
    return n == 0 || ::recv(fd, into.data(), n, MSG_WAITALL) == static_cast<ssize_t>(n);
  }
  static void write_all(int fd, const std::string& bytes) {
    std::size_t done = 0;
    while (done < bytes.size()) {
      const auto n = ::send(fd, bytes.data() + done, bytes.size() - done, MSG_NOSIGNAL);
      if (n <= 0) return;
      done += static_cast<std::size_t>(n);
    }
  }

  void serve(int fd) {
    std::string head, body;
    if (!read_exactly(fd, head, 4)) return;
    if (!read_exactly(fd, body, load_be<std::uint32_t>(head.data()) - 4)) return;
    const auto code = load_be<std::uint32_t>(body.data());
    if (code == wire::cancel_request_code) return cancel(load_be<std::uint32_t>(body.data() + 4));
    note("connect");
    std::string out;
    if (refuse_logins) {
      wire::write_error(out, "FATAL", pg_error{"28000", "not today", "", ""});
      return write_all(fd, out);
    }
    const auto pid = ++last_pid_;
    wire::write_authentication(out, 0);
    wire::write_parameter_status(out, "server_version", "15.0");
    wire::write_parameter_status(out, "TimeZone", "UTC");
    wire::write_backend_key(out, pid, std::string("\1\2\3\4", 4));
    wire::write_ready(out, 'I');
    write_all(fd, out);
    talk(fd, pid);
    note("end");
  }

  void talk(int fd, std::uint32_t pid) {
    std::string head, body;
    while (read_exactly(fd, head, 5)) {
      if (!read_exactly(fd, body, load_be<std::uint32_t>(head.data() + 1) - 4)) return;
      if (head[0] == 'X') return note("terminate");
      if (head[0] != 'Q') continue;
      body.pop_back();
      note(body);
      if (body == "die") return;
      write_all(fd, answer(body, pid));
    }
  }

  std::string answer(const std::string& sql, std::uint32_t pid) {
    std::string out;
    if (sql == "sleep") {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return cancelled_[pid] || stopping_; });
      cancelled_[pid] = false;
      wire::write_error(out, "ERROR", pg_error{"57014", "cancelled", "", ""});
    } else if (sql == "fail") {
      wire::write_error(out, "ERROR", pg_error{"22012", "division by zero", "", ""});
    } else {
      if (sql.starts_with("big ")) {
        wire::write_data_row(out, {std::string(std::stoul(sql.substr(4)), 'x')});
      }
      wire::write_command_complete(out, "SELECT 1");
    }
    wire::write_ready(out, 'I');
    return out;
  }

  void cancel(std::uint32_t pid) {
    {
      const std::lock_guard lock(mutex_);
      cancelled_[pid] = true;
    }
    note("cancel");
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return !hold_cancels || stopping_; });
  }

  net::unique_fd listener_;
  std::atomic<bool> stopping_{false};
  std::atomic<std::uint32_t> last_pid_{100};
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, int> seen_;
  std::map<std::uint32_t, bool> cancelled_;
  std::vector<int> open_;
  std::vector<std::thread> threads_;
  std::thread acceptor_;
};

}  // namespace pgsled::pooler
