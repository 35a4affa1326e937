// A hostile client while it logs in. Input: one byte that chooses method and user, then steps, each
// of one byte of kind and one of length with as many bytes. A step is a raw message body, or what a
// client would send that knows SCRAM and takes the bytes for its password: else no input would ever
// get beyond the nonce. Only the right password of a known user may let anybody in.

#include <cstdlib>

#include "common/auth/client_login.hpp"

namespace {

using namespace pgsled;

void require(bool condition) {
  if (!condition) std::abort();
}

constexpr std::string_view good_password = "secret";

auth::credentials credentials_of(std::uint8_t choice) {
  // Few iterations: the fuzzer is to try the states, not PBKDF2.
  static const std::string verifier =
      auth::format_verifier(auth::make_verifier(good_password, "0123456789abcdef", 2));
  static const std::string digest = auth::md5_verifier("alice", good_password);
  static const char* const methods[] = {"scram", "md5", "plain", "trust"};
  auth::credentials who;
  who.user = "alice";
  who.method = methods[choice & 3];
  who.known = (choice & 4) == 0;
  if ((choice & 8) == 0) who.verifiers.push_back(verifier);
  if ((choice & 16) == 0) who.md5.push_back(digest);
  return who;
}

// The challenge of the one Authentication message in `sent`.
std::string_view challenge_in(std::string_view sent) {
  constexpr std::size_t before = wire::header_size + sizeof(std::int32_t);
  return sent.size() < before ? std::string_view() : sent.substr(before);
}

std::string initial_response(auth::scram_client& client, bool plus) {
  if (!client.choose({plus ? "SCRAM-SHA-256-PLUS" : "SCRAM-SHA-256"})) return {};
  const auto first = client.first();
  std::string bytes;
  wire::writer(bytes, 'p')
      .text(plus ? "SCRAM-SHA-256-PLUS" : "SCRAM-SHA-256")
      .i32(static_cast<std::int32_t>(first.size()))
      .raw(first);
  return bytes.substr(wire::header_size);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const auto who = credentials_of(data[0]);
  const std::string binding = (data[0] & 32) != 0 ? "binding" : "";
  auth::client_login login(who, binding, std::string(32, 'm'));
  std::string sent;
  const bool in = login.start(sent);
  require(in == (who.method == "trust" && who.known));

  bool over = in, right = false;
  std::optional<auth::scram_client> client;
  byte_span rest(data + 1, size - 1);
  while (rest.size() >= 2) {
    const auto kind = rest[0] % 3;
    const auto bytes = rest.subspan(2, std::min<std::size_t>(rest[1], rest.size() - 2));
    rest = rest.subspan(2 + bytes.size());
    std::string body(as_text(bytes));
    if (kind == 1) {
      client.emplace(body, binding);
      right = body == good_password;
      body = initial_response(*client, !binding.empty());
    } else if (kind == 2 && client) {
      body = client->proof(challenge_in(sent)).value_or("");
    } else if (who.method == "plain" || who.method == "md5") {
      right = true;  // the body may be the password itself
    }
    sent.clear();
    pg_error error;
    const auto outcome = login.receive(as_bytes(body), sent, error);
    require(!over || outcome == auth::client_login::outcome::failed);
    if (outcome == auth::client_login::outcome::failed)
      require(error.sqlstate.size() == 5 && !error.message.empty() && sent.empty());
    if (outcome == auth::client_login::outcome::accepted) require(who.known && right);
    over = over || outcome != auth::client_login::outcome::more;
  }
  return 0;
}
