#include "services/router/control/verifiers.hpp"

#include "common/auth/scram.hpp"

namespace pgsled::router {

const std::string& verifier_book::verifier(const std::string& user, const std::string& password,
                                           const std::string& salt, std::uint32_t iterations) {
  entry& kept = made_[{user, password, salt, std::to_string(iterations)}];
  if (kept.text.empty()) {
    kept.text = auth::format_verifier(auth::make_verifier(password, salt, iterations));
  }
  kept.used = true;
  return kept.text;
}

void verifier_book::fill(snapshot::user& to, const std::string& method,
                         const std::vector<std::string>& passwords,
                         const std::string& password_hash) {
  to.auth = method;
  if (method == "trust") return;
  std::string salt = auth::mock_verifier(to.name, seed_).salt;
  std::uint32_t iterations = 4096;
  if (!password_hash.empty()) {
    to.verifiers.push_back(password_hash);
    if (const auto given = auth::parse_verifier(password_hash)) {
      salt = given->salt;
      iterations = given->iterations;
    }
    // A verifier is all there is: md5 cannot be answered from it, SCRAM can.
    if (method == "md5" && passwords.empty()) to.auth = "scram";
  }
  for (const std::string& password : passwords) {
    if (password.empty()) continue;
    to.verifiers.push_back(verifier(to.name, password, salt, iterations));
    if (method == "md5") to.md5.push_back(auth::md5_verifier(to.name, password));
  }
}

void verifier_book::sweep() {
  for (auto it = made_.begin(); it != made_.end();) {
    if (!it->second.used) {
      it = made_.erase(it);
    } else {
      it->second.used = false;
      ++it;
    }
  }
}

}  // namespace pgsled::router
