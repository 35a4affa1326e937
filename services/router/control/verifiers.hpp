#pragma once
// verifier_book: what frontends check passwords with. Deriving a SCRAM verifier costs a
// millisecond or two, so one is made once for each (user, password) and kept while the router
// runs: a reload or a joining frontend costs nothing. Thread rule: one thread.

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "common/config/config.hpp"
#include "common/snapshot/snapshot.hpp"

namespace pgsled::router {

class verifier_book {
 public:
  // Of the salts: what frontends derive those of names that do not exist from.
  explicit verifier_book(std::string seed = {}) : seed_(std::move(seed)) {}
  const std::string& seed() const { return seed_; }
  // Fills auth, verifiers and md5 of `to` for the method ("scram", "md5", "plain", "trust").
  // All verifiers of a user share one salt, which SCRAM needs to accept any of several passwords.
  void fill(snapshot::user& to, const std::string& method,
            const std::vector<std::string>& passwords, const std::string& password_hash);
  // Drops what the last round of fill() calls did not use (passwords that were taken away).
  void sweep();

 private:
  struct entry {
    std::string text;
    bool used = false;
  };
  const std::string& verifier(const std::string& user, const std::string& password,
                              const std::string& salt, std::uint32_t iterations);
  std::string seed_;
  std::map<std::vector<std::string>, entry> made_;             // user, password, salt
};

}  // namespace pgsled::router
