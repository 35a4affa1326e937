#pragma once
// The directory of a suite's sockets: made, locked and swept before anything is started.

#include <string>

#include "common/base/result.hpp"

namespace pgsled::cli {

// Where `pgsled up` and `pgsled status` look when they are not told: $PGSLED_RUN_DIR, else
// /run/pgsled for root, $XDG_RUNTIME_DIR/pgsled, else /tmp/pgsled-<user id>.
std::string default_run_dir();

// Holds the lock for as long as it lives; the kernel frees it when the process dies.
class run_dir {
 public:
  // Makes the directory with mode 0700 and locks it. The error says what to do, and who holds the
  // lock if somebody does.
  static result<run_dir> open(const std::string& path);
  run_dir(run_dir&&) noexcept;
  run_dir& operator=(run_dir&&) = delete;
  ~run_dir();

  const std::string& path() const { return path_; }  // absolute
  // Removes sockets nobody listens on. Returns how many.
  int remove_stale_sockets() const;

 private:
  run_dir(std::string path, int fd) : path_(std::move(path)), lock_(fd) {}
  std::string path_;
  int lock_ = -1;
};

}  // namespace pgsled::cli
