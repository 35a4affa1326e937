#include "common/auth/client_login.hpp"

#include <gtest/gtest.h>

namespace pgsled::auth {
namespace {

using namespace std::string_literals;
using outcome = client_login::outcome;

const std::string seed(32, 'm');
const std::string salt(16, 'x');

credentials user_with(const std::string& method) {
  credentials who;
  who.user = "alice";
  who.method = method;
  who.verifiers = {format_verifier(make_verifier("first", salt, 10)),
                   format_verifier(make_verifier("second", salt, 10))};
  who.md5 = {md5_verifier("alice", "first"), md5_verifier("alice", "second")};
  return who;
}

// What the machine has sent since the last call: code and data of the one Authentication message
// at its front.
struct sent {
  std::int32_t code = -1;
  std::string data;
};
sent take(std::string& from) {
  wire::frame message;
  if (wire::peek(as_bytes(from), message) != wire::frame_state::complete) return {};
  EXPECT_EQ(message.type, 'R');
  wire::reader body(as_bytes(from).subspan(wire::header_size, message.length));
  sent answer;
  answer.code = body.i32();
  answer.data = as_text(body.rest());
  from.erase(0, message.total());
  return answer;
}

std::string initial_response(const std::string& mechanism, const std::string& data) {
  std::string body = mechanism + '\0';
  char length[4];
  store_be(length, static_cast<std::int32_t>(data.size()));
  return body.append(length, 4) + data;
}

struct end {
  outcome what = outcome::more;
  pg_error error;
};

end answer(client_login& login, const std::string& body, std::string& to_client) {
  end result;
  result.what = login.receive(as_bytes(body), to_client, result.error);
  return result;
}

end run_scram(const credentials& who, const std::string& password, bool optional_response = false) {
  client_login login(who, "", seed);
  std::string out;
  EXPECT_FALSE(login.start(out));
  const auto offer = take(out);
  EXPECT_EQ(offer.code, 10);
  EXPECT_EQ(offer.data, "SCRAM-SHA-256\0\0"s);
  scram_client client(password, "");
  EXPECT_TRUE(client.choose({"SCRAM-SHA-256"}));
  end step;
  if (optional_response) {
    step = answer(login, "SCRAM-SHA-256\0\xff\xff\xff\xff"s, out);
    EXPECT_EQ(step.what, outcome::more);
    const auto challenge = take(out);
    EXPECT_EQ(challenge.code, 11);
    EXPECT_EQ(challenge.data, "");
    step = answer(login, client.first(), out);
  } else {
    step = answer(login, initial_response("SCRAM-SHA-256", client.first()), out);
  }
  EXPECT_EQ(step.what, outcome::more) << step.error.message;
  const auto server_first = take(out);
  EXPECT_EQ(server_first.code, 11);
  const auto proof = client.proof(server_first.data);
  if (!proof) return {outcome::failed, proof.error()};
  step = answer(login, *proof, out);
  if (step.what == outcome::accepted) {
    const auto server_final = take(out);
    EXPECT_EQ(server_final.code, 12);
    EXPECT_TRUE(client.verify(server_final.data));
    EXPECT_EQ(take(out).code, 0);
  }
  EXPECT_EQ(out, "");
  EXPECT_EQ(answer(login, "x", out).error.sqlstate, "08P01");  // it is over, either way
  return step;
}

end run_password(const credentials& who, const std::string& body) {
  client_login login(who, "", seed);
  std::string out;
  EXPECT_FALSE(login.start(out));
  EXPECT_EQ(take(out).code, 3);
  const auto step = answer(login, body, out);
  if (step.what == outcome::accepted) {
    EXPECT_EQ(take(out).code, 0);
  }
  EXPECT_EQ(out, "");
  return step;
}

end run_md5(const credentials& who, const std::string& user, const std::string& password) {
  client_login login(who, "", seed);
  std::string out;
  EXPECT_FALSE(login.start(out));
  const auto asked = take(out);
  EXPECT_EQ(asked.code, 5);
  EXPECT_EQ(asked.data.size(), 4U);
  const auto step =
      answer(login, md5_response(md5_verifier(user, password), asked.data) + '\0', out);
  if (step.what == outcome::accepted) {
    EXPECT_EQ(take(out).code, 0);
  }
  EXPECT_EQ(out, "");
  return step;
}

void expect_refused(const end& seen) {
  EXPECT_EQ(seen.what, outcome::failed);
  EXPECT_EQ(seen.error.sqlstate, "28P01");
  EXPECT_EQ(seen.error.message, "password authentication failed for user \"alice\"");
}

TEST(client_login, trust) {
  std::string out;
  EXPECT_TRUE(client_login(user_with("trust"), "", seed).start(out));
  EXPECT_EQ(take(out).code, 0);
  auto unknown = user_with("trust");
  unknown.known = false;
  expect_refused(run_scram(unknown, "first"));
}

TEST(client_login, scram) {
  EXPECT_EQ(run_scram(user_with("scram"), "first").what, outcome::accepted);
  EXPECT_EQ(run_scram(user_with("scram"), "second").what, outcome::accepted);
  EXPECT_EQ(run_scram(user_with("scram"), "second", true).what, outcome::accepted);
  EXPECT_EQ(run_scram(user_with("anything else"), "second").what, outcome::accepted);
  expect_refused(run_scram(user_with("scram"), "third"));
  auto who = user_with("scram");
  who.known = false;
  expect_refused(run_scram(who, "first"));
  who.verifiers.clear();
  expect_refused(run_scram(who, "first"));
  who = user_with("scram");
  who.verifiers = {"not a verifier"};
  expect_refused(run_scram(who, "first"));
}

TEST(client_login, plain) {
  auto who = user_with("plain");
  EXPECT_EQ(run_password(who, "first\0"s).what, outcome::accepted);
  EXPECT_EQ(run_password(who, "second\0"s).what, outcome::accepted);
  expect_refused(run_password(who, "third\0"s));
  EXPECT_EQ(run_password(who, "\0"s).error.sqlstate, "28P01");
  EXPECT_EQ(run_password(who, "\0"s).error.message, "empty password returned by client");
  EXPECT_EQ(run_password(who, ""s).error.sqlstate, "08P01");
  EXPECT_EQ(run_password(who, "first"s).error.sqlstate, "08P01");
  EXPECT_EQ(run_password(who, "first\0x"s).error.sqlstate, "08P01");
  EXPECT_EQ(run_password(who, std::string(70'000, 'x') + '\0').error.sqlstate, "08P01");
  who.verifiers.clear();  // md5 verifiers do as well
  EXPECT_EQ(run_password(who, "second\0"s).what, outcome::accepted);
  expect_refused(run_password(who, "third\0"s));
  who.known = false;
  expect_refused(run_password(who, "second\0"s));
  who.md5.clear();
  who.known = true;
  expect_refused(run_password(who, "first\0"s));
}

TEST(client_login, md5) {
  auto who = user_with("md5");
  EXPECT_EQ(run_md5(who, "alice", "first").what, outcome::accepted);
  EXPECT_EQ(run_md5(who, "alice", "second").what, outcome::accepted);
  expect_refused(run_md5(who, "alice", "third"));
  expect_refused(run_md5(who, "bob", "first"));
  who.known = false;
  expect_refused(run_md5(who, "alice", "first"));
  who.md5.clear();
  who.verifiers.clear();
  expect_refused(run_md5(who, "alice", "first"));
  who = user_with("md5");
  who.md5.clear();  // as PostgreSQL: SCRAM for whom there are only such verifiers
  EXPECT_EQ(run_scram(who, "first").what, outcome::accepted);
}

TEST(client_login, two_logins_have_two_salts) {
  std::string one, two;
  client_login(user_with("md5"), "", seed).start(one);
  client_login(user_with("md5"), "", seed).start(two);
  EXPECT_NE(one, two);
}

TEST(client_login, offers_plus_where_it_can_bind) {
  client_login login(user_with("scram"), "hash", seed);
  std::string out;
  login.start(out);
  EXPECT_EQ(take(out).data, "SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0"s);
  scram_client client("first", "hash");
  const auto mechanism = client.choose({"SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"}).value();
  EXPECT_EQ(answer(login, initial_response(mechanism, client.first()), out).what, outcome::more);
  const auto proof = client.proof(take(out).data);
  ASSERT_TRUE(proof);
  EXPECT_EQ(answer(login, *proof, out).what, outcome::accepted);
}

TEST(client_login, malformed_sasl) {
  const auto state = [](const std::string& body) {
    client_login login(user_with("scram"), "", seed);
    std::string out;
    login.start(out);
    return answer(login, body, out).error.sqlstate;
  };
  EXPECT_EQ(state(""), "08P01");
  EXPECT_EQ(state("SCRAM-SHA-256"), "08P01");
  EXPECT_EQ(state("SCRAM-SHA-256\0"s), "08P01");
  EXPECT_EQ(state("SCRAM-SHA-256\0\0\0\0"s), "08P01");
  EXPECT_EQ(state("SCRAM-SHA-256\0\0\0\0\x09n,,"s), "08P01");
  EXPECT_EQ(state("SCRAM-SHA-256\0\0\0\0\1n,,"s), "08P01");
  EXPECT_EQ(state("SCRAM-SHA-256\0\xff\xff\xff\xffn,,"s), "08P01");
  EXPECT_EQ(state("SCRAM-SHA-256\0\xff\xff\xff\xfe"s), "08P01");
  EXPECT_EQ(state("SCRAM-SHA-256\0\x7f\xff\xff\xff"s), "08P01");
  const std::string bound = "p=tls-server-end-point,,n=,r=a";
  EXPECT_EQ(state(initial_response("SCRAM-SHA-256-PLUS", bound)), "08P01");
  EXPECT_EQ(state(initial_response("PLAIN", "x")), "08P01");
  EXPECT_EQ(state("secret\0"s), "08P01");

  client_login not_begun(user_with("scram"), "", seed);
  std::string out;
  EXPECT_EQ(answer(not_begun, "x", out).error.sqlstate, "08P01");
  EXPECT_FALSE(not_begun.start(out));
  EXPECT_EQ(out, "");
}

TEST(client_login, an_unknown_name_always_has_the_same_salt) {
  const auto challenge = [] {
    credentials who;
    who.user = "nobody";
    who.known = false;
    client_login login(who, "", seed);
    std::string out;
    login.start(out);
    take(out);
    answer(login, initial_response("SCRAM-SHA-256", "n,,n=,r=abc"), out);
    const auto text = take(out).data;
    return text.substr(text.find(",s="));
  };
  EXPECT_EQ(challenge(), challenge());
  EXPECT_TRUE(challenge().ends_with(",i=4096"));
}

}  // namespace
}  // namespace pgsled::auth
