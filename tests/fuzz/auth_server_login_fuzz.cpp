// A hostile server while we log in to it. Input: one byte (1: over TLS, with channel binding; 2: no
// password is configured), then steps, each of one byte of kind and one of length with as many
// bytes. A step is raw bytes of the stream, or a SCRAM message as a server would send it that takes
// the bytes for the password: else no input would ever get beyond the nonce. Bytes arrive in the
// portions that the steps make of them. SCRAM must not end well on a wrong password.

#include <cstdlib>

#include "common/auth/server_login.hpp"

namespace {

using namespace pgsled;

void require(bool condition) {
  if (!condition) std::abort();
}

constexpr std::string_view good_password = "secret";

// A server's half of SCRAM, fed with what the machine has sent last.
struct scripted_server {
  std::optional<auth::scram_server> scram;
  bool right = false;

  // SASLContinue for the SASLInitialResponse in `sent`; its verifier is made of `password`.
  std::string challenge(std::string_view sent, std::string password, const std::string& binding) {
    wire::frame message;
    if (wire::peek(as_bytes(sent), message) != wire::frame_state::complete) return {};
    wire::reader from(as_bytes(sent).subspan(wire::header_size));
    const auto mechanism = from.text();
    from.i32();
    right = password == good_password;
    scram.emplace(
        std::vector<auth::scram_verifier>{auth::make_verifier(password, "0123456789abcdef", 2)},
        binding);
    const auto answer = scram->first(mechanism, as_text(from.rest()));
    std::string bytes;
    if (answer) wire::write_authentication(bytes, 11, *answer);
    return bytes;
  }
  // SASLFinal for the SASLResponse in `sent`.
  std::string signature(std::string_view sent) {
    if (!scram || sent.size() < wire::header_size) return {};
    const auto answer = scram->final(sent.substr(wire::header_size));
    std::string bytes;
    if (answer) wire::write_authentication(bytes, 12, *answer);
    return bytes;
  }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string binding = (data[0] & 1) != 0 ? "binding" : "";
  const std::string password((data[0] & 2) != 0 ? "" : good_password);
  auth::server_login login({"alice", password, "db", {}}, binding);
  scripted_server server;
  std::string sent, last_sent, buffered;
  login.start(sent);
  sent.clear();

  byte_span rest(data + 1, size - 1);
  bool over = false, proven = false;
  while (rest.size() >= 2) {
    const auto kind = rest[0] % 3;
    const auto bytes = rest.subspan(2, std::min<std::size_t>(rest[1], rest.size() - 2));
    rest = rest.subspan(2 + bytes.size());
    if (kind == 0) {
      buffered += as_text(bytes);
    } else if (kind == 1) {
      buffered += server.challenge(last_sent, std::string(as_text(bytes)), binding);
    } else {
      const auto message = server.signature(last_sent);
      proven = proven || !message.empty();
      buffered += message;
    }
    // An exact copy, so that the sanitizer sees a look beyond the end.
    const std::vector<std::uint8_t> copy(buffered.begin(), buffered.end());
    std::size_t consumed = 0;
    pg_error error;
    const auto outcome = login.receive(byte_span(copy), consumed, sent, error);
    require(consumed <= copy.size());
    require(!over || outcome == auth::server_login::outcome::failed);
    if (outcome == auth::server_login::outcome::failed)
      require(error.sqlstate.size() == 5 && !error.message.empty());
    if (outcome == auth::server_login::outcome::ready && proven) require(server.right);
    over = over || outcome != auth::server_login::outcome::more;
    buffered.erase(0, consumed);
    if (!sent.empty()) last_sent = std::exchange(sent, {});
  }
  require(login.parameters().size() <= 1'000 && login.secret().size() <= 256);
  return 0;
}
