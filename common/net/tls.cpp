#include "common/net/tls.hpp"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include <array>
#include <cerrno>
#include <cstring>

#include <fmt/format.h>

namespace pgsled::net {
namespace {

constexpr std::string_view protocol = "postgresql";
// As ALPN sends it: a length before the name.
constexpr std::array<unsigned char, 11> offered{10,  'p', 'o', 's', 't', 'g',
                                                'r', 'e', 's', 'q', 'l'};

// The oldest entry of this thread's queue is the cause; the queue is emptied, because the next
// call of any stream would take a left-over for its own.
std::string take_error() {
  std::string text;
  while (const unsigned long code = ERR_get_error()) {
    if (!text.empty()) continue;
    std::array<char, 256> words{};
    const char* const reason = ERR_reason_error_string(code);
    ERR_error_string_n(code, words.data(), words.size());
    text = reason != nullptr ? reason : words.data();
  }
  return text;
}

bool is_address(const std::string& host) {
  in6_addr spare{};
  return ::inet_pton(AF_INET, host.c_str(), &spare) == 1 ||
         ::inet_pton(AF_INET6, host.c_str(), &spare) == 1;
}

int choose_protocol(SSL*, const unsigned char** out, unsigned char* out_length,
                    const unsigned char* in, unsigned in_length, void*) {
  // A client that asks for other protocols only must be turned away, as PostgreSQL does it:
  // that is what protects against connections meant for another service.
  for (unsigned at = 0; at < in_length;) {
    const unsigned length = in[at++];
    if (length > in_length - at) break;
    if (std::string_view(reinterpret_cast<const char*>(in + at), length) == protocol) {
      *out = in + at;
      *out_length = static_cast<unsigned char>(length);
      return SSL_TLSEXT_ERR_OK;
    }
    at += length;
  }
  return SSL_TLSEXT_ERR_ALERT_FATAL;
}

// An encrypted key would make OpenSSL ask for its password on the terminal.
int no_password(char*, int, int, void*) { return 0; }

}  // namespace

struct tls_context::state {
  SSL_CTX* it = nullptr;
  bool is_server = false, verify_name = false;
  ~state() { SSL_CTX_free(it); }

  result<bool> open(bool server) {
    is_server = server;
    ERR_clear_error();
    it = SSL_CTX_new(server ? TLS_server_method() : TLS_client_method());
    if (it == nullptr) return failure("F0000", "no TLS: " + take_error());
    SSL_CTX_set_min_proto_version(it, TLS1_2_VERSION);
    // Most peers hang up without a close_notify; PostgreSQL's messages have lengths, so a cut
    // stream cannot be taken for a whole one.
    SSL_CTX_set_options(it, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                                SSL_OP_IGNORE_UNEXPECTED_EOF);
    SSL_CTX_set_mode(it, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    if (server) {
      // Buffers are freed while a connection is idle: thousands of idle clients must stay small.
      SSL_CTX_set_mode(it, SSL_MODE_RELEASE_BUFFERS);
    } else {
      // Connections to servers are few and busy: a record costs one read, not one for its header
      // and one for the rest, and nothing is allocated for it.
      SSL_CTX_set_read_ahead(it, 1);
    }
    SSL_CTX_set_session_cache_mode(it, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_default_passwd_cb(it, no_password);
    if (server) {
      SSL_CTX_set_alpn_select_cb(it, choose_protocol, nullptr);
      SSL_CTX_set_num_tickets(it, 0);
      SSL_CTX_set_options(it, SSL_OP_NO_TICKET);  // as PostgreSQL: no resumption
    }
    return true;
  }

  result<bool> load(const std::string& certificate, const std::string& key) {
    ERR_clear_error();
    if (SSL_CTX_use_certificate_chain_file(it, certificate.c_str()) != 1)
      return failure("F0000", fmt::format("could not load the certificate \"{}\": {}", certificate,
                                          take_error()));
    if (SSL_CTX_use_PrivateKey_file(it, key.c_str(), SSL_FILETYPE_PEM) != 1)
      return failure("F0000",
                     fmt::format("could not load the private key \"{}\": {}", key, take_error()),
                     "The key must be PEM, without a password, and belong to the certificate.");
    if (SSL_CTX_check_private_key(it) != 1)
      return failure("F0000", fmt::format("the private key \"{}\" does not belong to \"{}\": {}",
                                          key, certificate, take_error()));
    return true;
  }

  result<bool> trust(const std::string& ca) {
    SSL_CTX_set_verify(it, SSL_VERIFY_PEER, nullptr);
    ERR_clear_error();
    const bool good = ca.empty() ? SSL_CTX_set_default_verify_paths(it) == 1
                                 : SSL_CTX_load_verify_file(it, ca.c_str()) == 1;
    if (good) return true;
    return failure("F0000", fmt::format("could not load the CA certificates \"{}\": {}", ca,
                                        take_error()));
  }
};

tls_context::tls_context(std::unique_ptr<state> from) : state_(std::move(from)) {}
tls_context::~tls_context() = default;

result<std::shared_ptr<tls_context>> tls_context::server(const std::string& certificate_path,
                                                         const std::string& key_path) {
  auto made = std::make_unique<state>();
  auto done = made->open(true);
  if (done) done = made->load(certificate_path, key_path);
  if (!done) return tl::unexpected(std::move(done.error()));
  return std::shared_ptr<tls_context>(new tls_context(std::move(made)));
}

result<std::shared_ptr<tls_context>> tls_context::client(const std::string& verify,
                                                         const std::string& ca_path,
                                                         const std::string& certificate_path,
                                                         const std::string& key_path) {
  const bool verified = verify == "verify_ca" || verify == "verify_full";
  if (!verified && verify != "disabled" && verify != "prefer")
    return failure("F0000", fmt::format("\"{}\" is no way to verify a server", verify),
                   "Use disabled, prefer, verify_ca or verify_full.");
  auto made = std::make_unique<state>();
  auto done = made->open(false);
  if (done && verified) done = made->trust(ca_path);
  if (done && !certificate_path.empty()) done = made->load(certificate_path, key_path);
  if (!done) return tl::unexpected(std::move(done.error()));
  made->verify_name = verify == "verify_full";
  return std::shared_ptr<tls_context>(new tls_context(std::move(made)));
}

struct tls_stream::state {
  std::shared_ptr<tls_context> context;
  SSL* it = nullptr;
  bool is_server = false, verify_name = false, broken = false;
  std::string host, problem;

  ~state() { SSL_free(it); }

  void open(int fd) {
    if (it == nullptr || SSL_set_fd(it, fd) != 1) return fail(take_error());
    if (is_server) return SSL_set_accept_state(it);
    SSL_set_connect_state(it);
    SSL_set_alpn_protos(it, offered.data(), static_cast<unsigned>(offered.size()));
    const bool address = is_address(host);
    if (!host.empty() && !address)  // OpenSSL's macro for this has an old-style cast
      SSL_ctrl(it, SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name, host.data());
    if (!verify_name) return;
    if (host.empty()) return fail("verify_full needs the name of the host");
    SSL_set_hostflags(it, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    const int set = address ? X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(it), host.c_str())
                            : SSL_set1_host(it, host.c_str());
    if (set != 1) fail(take_error());
  }

  void fail(std::string why) {
    broken = true;
    problem = why.empty() ? "TLS failed" : std::move(why);
  }

  io outcome(int returned, int error) {
    switch (SSL_get_error(it, returned)) {
      case SSL_ERROR_NONE: return io::ok;
      case SSL_ERROR_WANT_READ: return io::want_read;
      case SSL_ERROR_WANT_WRITE: return io::want_write;
      case SSL_ERROR_ZERO_RETURN: return io::closed;
      case SSL_ERROR_SYSCALL: {
        const std::string why = take_error();
        fail(!why.empty() ? why : error != 0 ? std::strerror(error) : "connection closed");
        break;
      }
      default: {
        std::string why = take_error();
        const long verdict = SSL_get_verify_result(it);
        const bool verified = (SSL_get_verify_mode(it) & SSL_VERIFY_PEER) != 0;
        if (verdict != X509_V_OK && verified && !SSL_is_init_finished(it))
          why = fmt::format("certificate verify failed: {}",
                            X509_verify_cert_error_string(verdict));
        fail(std::move(why));
      }
    }
    return io::failed;
  }

  template <class Call>
  io attempt(Call call) {
    if (broken) return io::failed;
    ERR_clear_error();
    errno = 0;
    const int returned = call();
    return returned > 0 ? io::ok : outcome(returned, errno);
  }
};

tls_stream::tls_stream(std::shared_ptr<tls_context> context, int fd, std::string host)
    : state_(std::make_unique<state>()) {
  state& s = *state_;
  ERR_clear_error();
  s.it = SSL_new(context->state_->it);
  s.is_server = context->state_->is_server;
  s.verify_name = context->state_->verify_name;
  s.context = std::move(context);
  s.host = std::move(host);
  s.open(fd);
}
tls_stream::~tls_stream() = default;
tls_stream::tls_stream(tls_stream&&) noexcept = default;
tls_stream& tls_stream::operator=(tls_stream&&) noexcept = default;

tls_stream::io tls_stream::handshake() {
  return state_->attempt([this] { return SSL_do_handshake(state_->it); });
}

tls_stream::io tls_stream::read(std::span<std::uint8_t> into, std::size_t& n) {
  n = 0;
  return state_->attempt([&] { return SSL_read_ex(state_->it, into.data(), into.size(), &n); });
}

tls_stream::io tls_stream::write(std::span<const std::uint8_t> from, std::size_t& n) {
  n = 0;
  if (from.empty()) return state_->broken ? io::failed : io::ok;
  return state_->attempt([&] { return SSL_write_ex(state_->it, from.data(), from.size(), &n); });
}

void tls_stream::shutdown() {
  if (state_->broken || state_->it == nullptr || !SSL_is_init_finished(state_->it)) return;
  ERR_clear_error();
  SSL_shutdown(state_->it);
  ERR_clear_error();
}

bool tls_stream::pending() const {
  return state_->it != nullptr && SSL_has_pending(state_->it) == 1;
}

std::string tls_stream::end_point_hash() const {
  const state& s = *state_;
  if (s.it == nullptr || !SSL_is_init_finished(s.it)) return {};
  X509* const certificate =
      s.is_server ? SSL_get_certificate(s.it) : SSL_get0_peer_certificate(s.it);
  if (certificate == nullptr) return {};
  // RFC 5929, 4.1: the hash of the certificate's signature, but SHA-256 for MD5 and SHA-1.
  int digest = NID_undef;
  if (X509_get_signature_info(certificate, &digest, nullptr, nullptr, nullptr) != 1 ||
      digest == NID_undef)
    return {};
  const EVP_MD* const hash = digest == NID_md5 || digest == NID_sha1 ? EVP_sha256()
                                                                     : EVP_get_digestbynid(digest);
  std::array<unsigned char, EVP_MAX_MD_SIZE> bytes{};
  unsigned length = 0;
  if (hash == nullptr || X509_digest(certificate, hash, bytes.data(), &length) != 1) return {};
  return {reinterpret_cast<const char*>(bytes.data()), length};
}

std::string tls_stream::alpn() const {
  const unsigned char* name = nullptr;
  unsigned length = 0;
  if (state_->it != nullptr) SSL_get0_alpn_selected(state_->it, &name, &length);
  return name == nullptr ? std::string() : std::string(reinterpret_cast<const char*>(name), length);
}

std::string tls_stream::version() const {
  return state_->it == nullptr ? std::string() : SSL_get_version(state_->it);
}
std::string tls_stream::cipher() const {
  return state_->it == nullptr ? std::string() : SSL_get_cipher_name(state_->it);
}
std::string tls_stream::error() const { return state_->problem; }

}  // namespace pgsled::net
