#include "common/auth/server_login.hpp"

#include <gtest/gtest.h>

namespace pgsled::auth {
namespace {

using namespace std::string_literals;
using outcome = server_login::outcome;

server_identity alice() { return {"alice", "secret", "db", {{"application_name", "t"}}}; }

std::string authentication(std::int32_t code, const std::string& data = {}) {
  std::string bytes;
  wire::write_authentication(bytes, code, data);
  return bytes;
}
std::string message(char type, const std::string& body) {
  std::string bytes;
  wire::writer(bytes, type).raw(body);
  return bytes;
}
std::string session_data() {
  std::string bytes;
  wire::write_parameter_status(bytes, "TimeZone", "UTC");
  wire::write_parameter_status(bytes, "server_version", "15.7");
  wire::write_backend_key(bytes, 4711, "abcd");
  wire::write_parameter_status(bytes, "TimeZone", "CET");
  return bytes;
}
std::string ready() { return "Z\0\0\0\5I"s; }

struct end {
  outcome what = outcome::more;
  std::size_t consumed = 0;
  pg_error error;
};
end feed(server_login& login, const std::string& bytes, std::string& out) {
  // An exact copy, so that the sanitizer sees a read past the end.
  const std::vector<std::uint8_t> copy(bytes.begin(), bytes.end());
  end result;
  result.what = login.receive(byte_span(copy), result.consumed, out, result.error);
  return result;
}
// One server that says all this at once.
end against(const std::string& bytes, server_identity who = alice()) {
  server_login login(std::move(who), "");
  std::string out;
  login.start(out);
  return feed(login, bytes, out);
}
void expect_failure(const std::string& bytes, const std::string& sqlstate) {
  const auto seen = against(bytes);
  EXPECT_EQ(seen.what, outcome::failed);
  EXPECT_EQ(seen.error.sqlstate, sqlstate) << seen.error.message;
  EXPECT_FALSE(seen.error.message.empty());
}

std::string last_body(std::string& out) {
  wire::frame sent;
  EXPECT_EQ(wire::peek(as_bytes(out), sent), wire::frame_state::complete);
  EXPECT_EQ(sent.type, 'p');
  auto body = out.substr(wire::header_size, sent.length);
  out.erase(0, sent.total());
  EXPECT_EQ(out, "");
  return body;
}

TEST(server_login, sends_the_startup_message) {
  server_login login(alice(), "");
  std::string out;
  login.start(out);
  const auto sent = wire::read_startup(as_bytes(out).subspan(4));
  ASSERT_TRUE(sent);
  EXPECT_EQ(sent->code, wire::protocol_3_0);
  ASSERT_EQ(sent->parameters.size(), 3U);
  EXPECT_EQ(sent->parameters[0].second, "alice");
  EXPECT_EQ(sent->parameters[1].second, "db");
  EXPECT_EQ(sent->parameters[2].first, "application_name");
}

TEST(server_login, trust_byte_by_byte_and_all_at_once) {
  const auto script = message('N', "SNOTICE\0Mhello\0\0"s) + authentication(0) + session_data() +
                      ready();
  const auto trailing = script + "T and what comes after"s;
  const auto whole = against(trailing);
  EXPECT_EQ(whole.what, outcome::ready);
  EXPECT_EQ(whole.consumed, script.size());

  server_login login(alice(), "");
  std::string out, buffered;
  login.start(out);
  for (std::size_t i = 0; i < script.size(); ++i) {
    buffered += script[i];
    const auto seen = feed(login, buffered, out);
    ASSERT_EQ(seen.what, i + 1 == script.size() ? outcome::ready : outcome::more) << i;
    buffered.erase(0, seen.consumed);
  }
  EXPECT_EQ(login.backend_pid(), 4711U);
  EXPECT_EQ(login.secret(), "abcd");
  ASSERT_EQ(login.parameters().size(), 2U);
  EXPECT_EQ(login.parameters()[0].second, "CET");
  EXPECT_EQ(feed(login, ready(), out).error.sqlstate, "08P01");
}

TEST(server_login, without_a_key) {
  EXPECT_EQ(against(authentication(0) + ready()).what, outcome::ready);
}

TEST(server_login, cleartext_and_md5) {
  {
    server_login login(alice(), "");
    std::string out;
    login.start(out);
    out.clear();
    EXPECT_EQ(feed(login, authentication(3), out).what, outcome::more);
    EXPECT_EQ(last_body(out), "secret\0"s);
    EXPECT_EQ(feed(login, authentication(0) + ready(), out).what, outcome::ready);
  }
  {
    server_login login(alice(), "");
    std::string out;
    login.start(out);
    out.clear();
    EXPECT_EQ(feed(login, authentication(5, "salt"), out).what, outcome::more);
    EXPECT_EQ(last_body(out), md5_response(md5_verifier("alice", "secret"), "salt") + '\0');
    EXPECT_EQ(feed(login, authentication(0) + ready(), out).what, outcome::ready);
  }
}

struct scram_session {
  server_login login{alice(), ""};
  scram_server server{{make_verifier("secret", "0123456789abcdef", 10)}, ""};
  std::string out, server_final;

  // Up to the point at which the server owes its signature.
  void up_to_proof() {
    login.start(out);
    out.clear();
    EXPECT_EQ(feed(login, authentication(10, "X\0SCRAM-SHA-256\0\0"s), out).what, outcome::more);
    const auto initial = last_body(out);
    wire::reader from(as_bytes(initial));
    EXPECT_EQ(from.text(), "SCRAM-SHA-256");
    const auto length = from.i32();
    EXPECT_EQ(static_cast<std::size_t>(length), from.left());
    const auto first = server.first("SCRAM-SHA-256", as_text(from.rest())).value();
    EXPECT_EQ(feed(login, authentication(11, first), out).what, outcome::more);
    server_final = server.final(last_body(out)).value();
  }
};

TEST(server_login, scram) {
  scram_session session;
  session.up_to_proof();
  const auto rest = authentication(12, session.server_final) + authentication(0) + session_data();
  EXPECT_EQ(feed(session.login, rest + ready(), session.out).what, outcome::ready);
}

TEST(server_login, scram_without_the_servers_proof) {
  const auto state = [](const std::function<std::string(const std::string&)>& lie) {
    scram_session session;
    session.up_to_proof();
    const auto seen = feed(session.login, lie(session.server_final), session.out);
    EXPECT_EQ(seen.what, outcome::failed);
    return seen.error.sqlstate;
  };
  EXPECT_EQ(state([](auto&) { return authentication(0); }), "08P01");
  EXPECT_EQ(state([](auto&) { return authentication(3); }), "08P01");
  EXPECT_EQ(state([](auto&) { return authentication(11, "r=x"); }), "08P01");
  EXPECT_EQ(state([](auto&) { return authentication(12); }), "08P01");
  EXPECT_EQ(state([](auto&) { return ready(); }), "08P01");
  EXPECT_EQ(state([](auto good) {
    good[2] = good[2] == 'A' ? 'B' : 'A';
    return authentication(12, good);
  }), "08006");
  EXPECT_EQ(state([](auto good) {
    return authentication(12, good) + authentication(12, good);
  }), "08P01");
}

TEST(server_login, scram_out_of_order_or_out_of_bounds) {
  expect_failure(authentication(11, "r=x,s=AAAA,i=1"), "08P01");
  expect_failure(authentication(12, "v=AAAA"), "08P01");
  expect_failure(authentication(10, "SCRAM-SHA-256\0\0"s) + authentication(0), "08P01");
  expect_failure(authentication(10, "SCRAM-SHA-256\0\0"s) + authentication(12, "v=AAAA"), "08P01");
  expect_failure(authentication(10, "SCRAM-SHA-256"), "08P01");
  expect_failure(authentication(10, "SCRAM-SHA-256\0"s), "08P01");
  expect_failure(authentication(10, "SCRAM-SHA-256\0\0x"s), "08P01");
  expect_failure(authentication(10, "OTHER\0\0"s), "08006");
  expect_failure(authentication(10, "\0"s), "08006");
  std::string many;
  for (int i = 0; i < 200; ++i) many += "M\0"s;
  expect_failure(authentication(10, many + "\0"s), "08P01");

  scram_session session;
  session.login.start(session.out);
  session.out.clear();
  feed(session.login, authentication(10, "SCRAM-SHA-256\0\0"s), session.out);
  const auto initial = last_body(session.out);
  const auto nonce = initial.substr(initial.find("r="));
  const auto seen = feed(session.login, authentication(11, nonce + "x,s=AAAA,i=2000000000"),
                         session.out);
  EXPECT_EQ(seen.error.sqlstate, "08006");
}

TEST(server_login, methods_that_are_refused) {
  for (const std::int32_t code : {2, 6, 7, 8, 9, 13, -1, 1 << 30})
    expect_failure(authentication(code), "08006");
  expect_failure(authentication(0, "x"), "08P01");
  expect_failure(authentication(3, "x"), "08P01");
  expect_failure(authentication(5, "sal"), "08P01");
  expect_failure(authentication(5, "salty"), "08P01");
  expect_failure(authentication(3) + authentication(3), "08P01");
  expect_failure(authentication(0) + authentication(0), "08P01");
  expect_failure(authentication(0) + authentication(3), "08P01");
  expect_failure(message('R', "\0\0\0"s), "08P01");
}

TEST(server_login, no_password) {
  for (const auto& bytes : {authentication(3), authentication(5, "salt"),
                            authentication(10, "SCRAM-SHA-256\0\0"s)}) {
    const auto seen = against(bytes, {"alice", "", "db", {}});
    EXPECT_EQ(seen.what, outcome::failed);
    EXPECT_EQ(seen.error.sqlstate, "28P01");
  }
}

TEST(server_login, order_and_form_of_session_data) {
  expect_failure(session_data(), "08P01");
  expect_failure(ready(), "08P01");
  const auto ok = authentication(0);
  expect_failure(ok + "Z\0\0\0\5T"s, "08P01");
  expect_failure(ok + "Z\0\0\0\4"s, "08P01");
  expect_failure(ok + "Z\0\0\0\6II"s, "08P01");
  expect_failure(ok + message('K', "\0\0\0\1abc"s), "08P01");
  expect_failure(ok + message('K', "\0\0\0\1"s + std::string(257, 'k')), "08P01");
  expect_failure(ok + message('K', "\0\0\0\1abcd"s) + message('K', "\0\0\0\1abcd"s), "08P01");
  EXPECT_EQ(against(ok + message('K', "\0\0\0\1"s + std::string(256, 'k')) + ready()).what,
            outcome::ready);
  expect_failure(ok + message('S', "a\0b"s), "08P01");
  expect_failure(ok + message('S', "\0b\0"s), "08P01");
  expect_failure(ok + message('N', "Mx"), "08P01");
  for (const char type : "TDCIG1st\0"s) expect_failure(ok + message(type, "x"), "08P01");
}

TEST(server_login, bounds) {
  expect_failure("R\0\0\0\3"s, "08P01");
  expect_failure("R\x7f\xff\xff\xff"s, "08P01");  // before any of the body has come
  expect_failure("S\0\x10\0\0"s, "08P01");
  expect_failure("HTTP/1.1 400 Bad Request\r\n", "08P01");

  const auto endless = [](const std::string& one, int limit) {
    server_login login(alice(), "");
    std::string out;
    login.start(out);
    EXPECT_EQ(feed(login, authentication(0), out).what, outcome::more);
    for (int i = 0; i < limit; ++i) {
      auto bytes = one;
      if (bytes[0] == 'S') bytes = message('S', std::to_string(i) + "\0v\0"s);
      const auto seen = feed(login, bytes, out);
      if (seen.what == outcome::failed) return seen.error.sqlstate;
    }
    return "never"s;
  };
  EXPECT_EQ(endless("S", 1'001), "08P01");
  EXPECT_EQ(endless(message('N', "M" + std::string(60'000, 'n') + "\0\0"s), 20), "08P01");
}

TEST(server_login, errors_of_the_server) {
  auto seen = against(message('E', "SFATAL\0VFATAL\0C3D000\0Mno db\0Hcreate it\0Dwhy\0\0"s));
  EXPECT_EQ(seen.what, outcome::failed);
  EXPECT_EQ(seen.error.sqlstate, "3D000");
  EXPECT_EQ(seen.error.message, "no db");
  EXPECT_EQ(seen.error.hint, "create it");
  EXPECT_EQ(seen.error.detail, "why");
  expect_failure(message('E', "Mno code\0\0"s), "08006");
  expect_failure(message('E', "C28\0M\0\0"s), "08006");
  expect_failure(message('E', "Cabcde\0M\0\0"s), "08006");
  expect_failure(message('E', "\0"s), "08006");
  expect_failure(message('E', ""), "08P01");
  expect_failure(message('E', "Mcut"), "08P01");
  expect_failure(authentication(0) + message('E', "C57P03\0Mlater\0\0"s), "57P03");

  seen = against("Ecould not fork new process: no memory\n\0"s);  // form of protocol 2
  EXPECT_EQ(seen.error.sqlstate, "08006");
  EXPECT_EQ(seen.error.message, "could not fork new process: no memory");
  EXPECT_EQ(against("Ecould not fork").what, outcome::more);
  expect_failure("E\n\n\n\n\n\n\n\0"s, "08006");
  expect_failure("E" + std::string(5'000, 'x'), "08P01");
}

TEST(server_login, negotiation) {
  const auto v = message('v', "\0\3\0\0\0\0\0\0"s);
  EXPECT_EQ(against(v + authentication(0) + ready()).what, outcome::ready);
  expect_failure(message('v', "\0\3\0\0\0\0\0\1_pq_.x\0"s), "08006");
  expect_failure(message('v', "\0\2\0\0\0\0\0\0"s), "08006");
  expect_failure(message('v', "\0\3\0\0\0\0\0\2_pq_.x\0"s), "08P01");
  expect_failure(message('v', "\0\3\0\0\x7f\xff\xff\xff"s), "08P01");
  expect_failure(message('v', "\0\3\0\0\xff\xff\xff\xff"s), "08P01");
  expect_failure(message('v', "\0\3\0\0"s), "08P01");
  expect_failure(authentication(0) + v, "08P01");
}

}  // namespace
}  // namespace pgsled::auth
