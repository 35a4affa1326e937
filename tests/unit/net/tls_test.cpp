#include "common/net/tls.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <signal.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "common/base/bytes.hpp"
#include "common/net/socket.hpp"

namespace pgsled::net {
namespace {

using io = tls_stream::io;
using testing::HasSubstr;

// A certificate signed by `issuer`, or by itself.
struct identity {
  EVP_PKEY* key = EVP_EC_gen("P-256");
  X509* certificate = X509_new();
  ~identity() {
    X509_free(certificate);
    EVP_PKEY_free(key);
  }
  identity(const std::string& name, const std::string& alternative, const identity* issuer,
           const EVP_MD* hash = EVP_sha256()) {
    static long serial = 0;
    X509_set_version(certificate, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(certificate), ++serial);
    X509_gmtime_adj(X509_getm_notBefore(certificate), -60);
    X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
    X509_set_pubkey(certificate, key);
    X509_NAME* const subject = X509_get_subject_name(certificate);
    X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC,
                               reinterpret_cast<const unsigned char*>(name.c_str()), -1, -1, 0);
    const identity& by = issuer != nullptr ? *issuer : *this;
    X509_set_issuer_name(certificate, X509_get_subject_name(by.certificate));
    extend(NID_basic_constraints, issuer != nullptr ? "CA:FALSE" : "CA:TRUE");
    if (!alternative.empty()) extend(NID_subject_alt_name, alternative);
    X509_sign(certificate, by.key, hash);
  }
  void extend(int what, const std::string& text) {
    X509_EXTENSION* const extension = X509V3_EXT_conf_nid(nullptr, nullptr, what, text.c_str());
    X509_add_ext(certificate, extension, -1);
    X509_EXTENSION_free(extension);
  }
  void write(const std::string& base) const {
    FILE* file = std::fopen((base + ".crt").c_str(), "w");
    PEM_write_X509(file, certificate);
    std::fclose(file);
    file = std::fopen((base + ".key").c_str(), "w");
    PEM_write_PrivateKey(file, key, nullptr, nullptr, 0, nullptr, nullptr);
    std::fclose(file);
  }
};

struct tls : testing::Test {
  tls() {
    ::signal(SIGPIPE, SIG_IGN);
    dir = ::mkdtemp(name.data());
    authority.write(dir + "/ca");
    server.write(dir + "/server");
    stranger.write(dir + "/stranger");
  }
  ~tls() override { std::filesystem::remove_all(dir); }

  std::shared_ptr<tls_context> server_context(const std::string& who = "server") const {
    auto made = tls_context::server(dir + "/" + who + ".crt", dir + "/" + who + ".key");
    EXPECT_TRUE(made) << made.error().message;
    return made.value_or(nullptr);
  }
  std::shared_ptr<tls_context> client_context(const std::string& verify) const {
    auto made = tls_context::client(verify, dir + "/ca.crt", "", "");
    EXPECT_TRUE(made) << made.error().message;
    return made.value_or(nullptr);
  }

  std::string name = "/tmp/pgsled-tls-XXXXXX", dir;
  identity authority{"test authority", "", nullptr};
  identity server{"db.example", "DNS:db.example,DNS:*.wild.example,IP:127.0.0.1", &authority};
  identity stranger{"db.example", "DNS:db.example", nullptr};
};

struct connected {
  connected(std::shared_ptr<tls_context> server_side, std::shared_ptr<tls_context> client_side,
            std::string host = "db.example")
      : ends(stream_pair()),
        server(std::move(server_side), ends.first.get()),
        client(std::move(client_side), ends.second.get(), std::move(host)) {}
  bool shake() {
    io s = io::want_read, c = io::want_read;
    for (int i = 0; i < 20 && (s != io::ok || c != io::ok); ++i) {
      if (c != io::ok) c = client.handshake();
      if (s != io::ok) s = server.handshake();
      if (c == io::failed || s == io::failed) {
        if (s != io::failed) server.handshake();  // sees the alert
        return false;
      }
    }
    return s == io::ok && c == io::ok;
  }
  std::pair<unique_fd, unique_fd> ends;
  tls_stream server, client;
};

TEST_F(tls, speaks_both_ways_and_agrees_on_the_protocol) {
  connected c(server_context(), client_context("verify_full"));
  ASSERT_TRUE(c.shake()) << c.client.error() << c.server.error();
  EXPECT_EQ(c.server.alpn(), "postgresql");
  EXPECT_EQ(c.client.alpn(), "postgresql");
  EXPECT_EQ(c.client.version(), "TLSv1.3");
  std::size_t n = 0;
  ASSERT_EQ(c.client.write(as_bytes("hello"), n), io::ok);
  EXPECT_EQ(n, 5u);
  std::array<std::uint8_t, 3> part{};
  ASSERT_EQ(c.server.read(part, n), io::ok);
  EXPECT_EQ(n, 3u);
  EXPECT_TRUE(c.server.pending());
  ASSERT_EQ(c.server.read(part, n), io::ok);
  EXPECT_EQ(n, 2u);
  EXPECT_FALSE(c.server.pending());
  EXPECT_EQ(c.server.read(part, n), io::want_read);
  c.client.shutdown();
  EXPECT_EQ(c.server.read(part, n), io::closed);
}

TEST_F(tls, a_cut_connection_is_closed_not_broken) {
  connected c(server_context(), client_context("prefer"));
  ASSERT_TRUE(c.shake());
  c.ends.second.reset();
  std::array<std::uint8_t, 3> part{};
  std::size_t n = 0;
  EXPECT_EQ(c.server.read(part, n), io::closed);
}

TEST_F(tls, both_roles_know_the_end_point_hash) {
  connected c(server_context(), client_context("prefer"));
  EXPECT_EQ(c.client.end_point_hash(), "");
  ASSERT_TRUE(c.shake());
  std::array<unsigned char, EVP_MAX_MD_SIZE> bytes{};
  unsigned length = 0;
  X509_digest(server.certificate, EVP_sha256(), bytes.data(), &length);
  const std::string expected(reinterpret_cast<char*>(bytes.data()), length);
  EXPECT_EQ(c.client.end_point_hash(), expected);
  EXPECT_EQ(c.server.end_point_hash(), expected);
}

TEST_F(tls, the_end_point_hash_follows_the_signature) {
  const identity strong("db.example", "", nullptr, EVP_sha512());
  strong.write(dir + "/strong");
  connected c(server_context("strong"), client_context("prefer"));
  ASSERT_TRUE(c.shake());
  EXPECT_EQ(c.client.end_point_hash().size(), 64u);
  EXPECT_EQ(c.client.end_point_hash(), c.server.end_point_hash());
}

TEST_F(tls, verification_follows_the_mode) {
  struct {
    const char *server, *verify, *host;
    bool good;
  } const cases[] = {
      {"server", "verify_full", "db.example", true},
      {"server", "verify_full", "a.wild.example", true},
      {"server", "verify_full", "127.0.0.1", true},
      {"server", "verify_full", "127.0.0.2", false},
      {"server", "verify_full", "other.example", false},
      {"server", "verify_full", "", false},
      {"server", "verify_ca", "other.example", true},
      {"stranger", "verify_ca", "db.example", false},
      {"stranger", "verify_full", "db.example", false},
      {"stranger", "prefer", "other.example", true},
  };
  for (const auto& one : cases) {
    connected c(server_context(one.server), client_context(one.verify), one.host);
    EXPECT_EQ(c.shake(), one.good) << one.server << " " << one.verify << " " << one.host;
    if (!one.good) {
      EXPECT_NE(c.client.error(), "");
    }
  }
}

TEST_F(tls, large_transfers_survive_full_buffers) {
  connected c(server_context(), client_context("prefer"));
  ASSERT_TRUE(c.shake());
  std::string data(3u << 20, '\0');
  for (std::size_t i = 0; i < data.size(); ++i) data[i] = static_cast<char>(i * 7 >> 3);
  std::string got;
  std::vector<std::uint8_t> buffer(10'000);
  std::size_t written = 0, n = 0, waits = 0;
  while (got.size() < data.size()) {
    const std::string moved = data.substr(written, 50'000);  // another buffer each time
    if (!moved.empty()) {
      const io w = c.client.write(as_bytes(moved), n);
      ASSERT_TRUE(w == io::ok || w == io::want_write) << c.client.error();
      waits += w == io::want_write;
      written += n;
    }
    if (waits % 3 == 1 && written < data.size() && waits++ < 100) continue;
    const io r = c.server.read(buffer, n);
    ASSERT_TRUE(r == io::ok || r == io::want_read) << c.server.error();
    got.append(reinterpret_cast<char*>(buffer.data()), n);
  }
  EXPECT_GT(waits, 0u);
  EXPECT_TRUE(got == data);
}

TEST_F(tls, plain_text_is_a_failure_with_words) {
  auto ends = stream_pair();
  tls_stream s(server_context(), ends.first.get());
  ASSERT_EQ(::write(ends.second.get(), "GET / HTTP/1.0\r\n\r\n", 18), 18);
  EXPECT_EQ(s.handshake(), io::failed);
  EXPECT_NE(s.error(), "");
  EXPECT_EQ(s.handshake(), io::failed);
}

struct raw_client {  // what tls_stream would never do
  raw_client(int fd, int highest, std::string_view alpn) {
    SSL_CTX_set_max_proto_version(context, highest);
    SSL_CTX_set_security_level(context, 0);
    SSL_CTX_set_min_proto_version(context, TLS1_VERSION);
    it = SSL_new(context);
    SSL_set_fd(it, fd);
    SSL_set_connect_state(it);
    if (!alpn.empty())
      SSL_set_alpn_protos(it, reinterpret_cast<const unsigned char*>(alpn.data()),
                          static_cast<unsigned>(alpn.size()));
  }
  ~raw_client() {
    SSL_free(it);
    SSL_CTX_free(context);
  }
  SSL_CTX* context = SSL_CTX_new(TLS_client_method());
  SSL* it = nullptr;
};

TEST_F(tls, old_versions_and_foreign_protocols_are_turned_away) {
  struct {
    int highest;
    std::string_view alpn;
    bool good;
  } const cases[] = {{TLS1_2_VERSION, "", true},
                     {TLS1_1_VERSION, "", false},
                     {TLS1_3_VERSION, "\x08http/1.1", false},
                     {TLS1_3_VERSION, "\x08http/1.1\x0apostgresql", true}};
  for (const auto& one : cases) {
    auto ends = stream_pair();
    tls_stream s(server_context(), ends.first.get());
    raw_client c(ends.second.get(), one.highest, one.alpn);
    io state = io::want_read;
    for (int i = 0; i < 10 && state != io::ok && state != io::failed; ++i) {
      SSL_do_handshake(c.it);
      state = s.handshake();
    }
    EXPECT_EQ(state == io::ok, one.good) << one.highest << " " << one.alpn;
    if (one.good) {
      EXPECT_EQ(s.alpn(), one.alpn.empty() ? "" : "postgresql");
    }
  }
}

TEST_F(tls, bad_files_are_named) {
  const auto missing = tls_context::server(dir + "/none.crt", dir + "/server.key");
  ASSERT_FALSE(missing);
  EXPECT_THAT(missing.error().message, HasSubstr("none.crt"));
  const auto mixed = tls_context::server(dir + "/server.crt", dir + "/ca.key");
  ASSERT_FALSE(mixed);
  EXPECT_THAT(mixed.error().message, HasSubstr("ca.key"));
  EXPECT_FALSE(tls_context::client("perhaps", "", "", ""));
  EXPECT_FALSE(tls_context::client("verify_ca", dir + "/none.crt", "", ""));
  EXPECT_TRUE(tls_context::client("verify_full", "", "", ""));
  EXPECT_TRUE(tls_context::client("prefer", "", dir + "/server.crt", dir + "/server.key"));
}

}  // namespace
}  // namespace pgsled::net
