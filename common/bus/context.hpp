#pragma once
// The process's ZeroMQ context, and the one thread that answers "may this CURVE key come in?"
// (ZAP, RFC 27) for all hubs of the process. Sockets hold the context alive. Thread rule: any.

#include <map>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

namespace pgsled::bus {

class context {
 public:
  context();
  ~context();
  context(const context&) = delete;
  context& operator=(const context&) = delete;

  void* handle() const { return handle_; }
  // Starts the answering thread with the first domain. Keys are Z85; malformed ones are skipped.
  void allow(const std::string& domain, const std::vector<std::string>& keys);
  void forget(const std::string& domain);

 private:
  void answer_all(void* socket);
  bool admits(const std::string& domain, const std::string& key) const;

  void* handle_;
  mutable std::mutex mutex_;
  std::map<std::string, std::set<std::string>> allowed_;  // domain → binary keys
  std::thread thread_;
};

}  // namespace pgsled::bus
