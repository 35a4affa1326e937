#include "common/auth/scram.hpp"

#include <gtest/gtest.h>

namespace pgsled::auth {
namespace {

const std::string rfc_client_nonce = "rOprNGfwEbeRWgbNEkqO";
const std::string rfc_server_nonce = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
const std::string rfc_client_first = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
const std::string rfc_server_first =
    "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
const std::string rfc_client_final =
    "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
    "p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
const std::string rfc_server_final = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

scram_verifier rfc_verifier() {
  return make_verifier("pencil", decode_base64("W22ZaJ0SNY7soEsUEjb6gQ==").value());
}

TEST(base64, both_ways) {
  for (const std::string text : {"", "f", "fo", "foo", "foob", "fooba", "foobar"})
    EXPECT_EQ(decode_base64(encode_base64(text)), text);
  EXPECT_EQ(encode_base64("fooba"), "Zm9vYmE=");
  std::string all;
  for (int i = 0; i < 256; ++i) all += static_cast<char>(i);
  EXPECT_EQ(decode_base64(encode_base64(all)), all);
  for (const std::string wrong : {"Z", "Zg", "Zg=", "Zg =", "=Zg=", "====", "Zh==", "Zm9=",
                                  "Zm9v\n", "Zg==Zg==", "Zm-v"})
    EXPECT_FALSE(decode_base64(wrong)) << wrong;
}

TEST(verifier, format_of_pg_authid) {
  const auto text = format_verifier(rfc_verifier());
  EXPECT_TRUE(text.starts_with("SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$")) << text;
  const auto again = parse_verifier(text);
  ASSERT_TRUE(again);
  EXPECT_EQ(format_verifier(*again), text);
  EXPECT_TRUE(matches(*again, "pencil"));
  EXPECT_FALSE(matches(*again, "Pencil"));
  for (std::size_t length = 0; length < text.size(); ++length)
    EXPECT_FALSE(parse_verifier(std::string_view(text).substr(0, length))) << length;
  EXPECT_FALSE(parse_verifier(text + "A"));
  EXPECT_FALSE(parse_verifier("md5" + text));
  const auto tail = text.substr(text.find(':'));
  for (const std::string count : {"", "0", "-1", "+1", "1x", "2147483648", "99999999999999999999"})
    EXPECT_FALSE(parse_verifier("SCRAM-SHA-256$" + count + tail)) << count;
}

TEST(verifier, mock_is_stable_by_name_and_never_matches) {
  const std::string seed(16, 's');
  EXPECT_EQ(format_verifier(mock_verifier("a", seed)), format_verifier(mock_verifier("a", seed)));
  EXPECT_NE(mock_verifier("a", seed).salt, mock_verifier("b", seed).salt);
  EXPECT_NE(mock_verifier("a", seed).salt, mock_verifier("a", std::string(16, 't')).salt);
  EXPECT_EQ(mock_verifier("a", seed).salt.size(), 16U);
  EXPECT_FALSE(matches(mock_verifier("a", seed), ""));
}

TEST(scram, vector_of_rfc_7677) {
  scram_client client("pencil", "", rfc_client_nonce);
  ASSERT_EQ(client.choose({"SCRAM-SHA-256"}).value(), "SCRAM-SHA-256");
  EXPECT_EQ(client.first("user"), rfc_client_first);
  scram_server server({rfc_verifier()}, "", rfc_server_nonce);
  EXPECT_EQ(server.first("SCRAM-SHA-256", rfc_client_first).value(), rfc_server_first);
  EXPECT_EQ(client.proof(rfc_server_first).value(), rfc_client_final);
  EXPECT_EQ(server.final(rfc_client_final).value(), rfc_server_final);
  EXPECT_TRUE(client.verify(rfc_server_final).value());
}

struct ends {
  std::string server_final, sqlstate;  // of the server's end
};
ends run(scram_client& client, scram_server& server, const std::vector<std::string>& offered) {
  const auto mechanism = client.choose(offered);
  if (!mechanism) return {"", mechanism.error().sqlstate};
  const auto first = server.first(*mechanism, client.first());
  if (!first) return {"", first.error().sqlstate};
  const auto proof = client.proof(*first);
  if (!proof) return {"", proof.error().sqlstate};
  const auto last = server.final(*proof);
  if (!last) return {"", last.error().sqlstate};
  return {*last, ""};
}

TEST(scram, channel_binding) {
  const std::vector<std::string> both = {"SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"};
  {
    scram_client client("pencil", "hash");
    scram_server server({rfc_verifier()}, "hash");
    const auto end = run(client, server, both);
    EXPECT_EQ(end.sqlstate, "");
    EXPECT_TRUE(client.verify(end.server_final).value());
  }
  {  // another certificate: somebody in the middle
    scram_client client("pencil", "hash");
    scram_server server({rfc_verifier()}, "other");
    EXPECT_EQ(run(client, server, both).sqlstate, "28000");
  }
  {  // the offer was taken out
    scram_client client("pencil", "hash");
    scram_server server({rfc_verifier()}, "hash");
    EXPECT_EQ(run(client, server, {"SCRAM-SHA-256"}).sqlstate, "28000");
  }
  {  // a client that cannot bind may log in without
    scram_client client("pencil", "");
    scram_server server({rfc_verifier()}, "hash");
    EXPECT_EQ(run(client, server, both).sqlstate, "");
  }
  {  // 'y' is right where nothing was offered
    scram_client client("pencil", "hash");
    scram_server server({rfc_verifier()}, "");
    EXPECT_EQ(run(client, server, {"SCRAM-SHA-256"}).sqlstate, "");
  }
  scram_client client("pencil", "");
  EXPECT_EQ(client.choose({"SCRAM-SHA-256-PLUS", "SCRAM-SHA-1"}).error().sqlstate, "08006");
  EXPECT_EQ(client.choose({}).error().sqlstate, "08006");
}

TEST(scram, several_passwords_share_a_salt) {
  const std::string salt(16, 'x');
  const std::vector<scram_verifier> verifiers = {
      make_verifier("one", salt, 5), make_verifier("two", salt, 5),
      make_verifier("other salt", std::string(16, 'y'), 5), make_verifier("six", salt, 6)};
  for (const std::string password : {"one", "two"}) {
    scram_client client(password, "");
    scram_server server(verifiers, "");
    const auto end = run(client, server, {"SCRAM-SHA-256"});
    EXPECT_EQ(end.sqlstate, "");
    EXPECT_TRUE(client.verify(end.server_final).value());
  }
  for (const std::string password : {"three", "other salt", "six", ""}) {
    scram_client client(password, "");
    scram_server server(verifiers, "");
    EXPECT_EQ(run(client, server, {"SCRAM-SHA-256"}).sqlstate, "28P01");
  }
  scram_client client("one", "");
  scram_server nobody({}, "");
  EXPECT_EQ(run(client, nobody, {"SCRAM-SHA-256"}).sqlstate, "28P01");
}

TEST(scram_server, refuses_a_first_message) {
  const auto state = [](const std::string& mechanism, const std::string& text,
                        const std::string& binding) {
    scram_server server({rfc_verifier()}, binding);
    const auto answer = server.first(mechanism, text);
    return answer ? "ok" : answer.error().sqlstate;
  };
  const std::string plain = "SCRAM-SHA-256", plus = "SCRAM-SHA-256-PLUS";
  EXPECT_EQ(state(plain, "n,,n=,r=abc", ""), "ok");
  EXPECT_EQ(state(plain, "n,,n=,r=abc,x=extension", ""), "ok");
  EXPECT_EQ(state(plain, "y,,n=,r=abc", ""), "ok");
  EXPECT_EQ(state(plain, "y,,n=,r=abc", "b"), "28000");
  EXPECT_EQ(state(plus, "p=tls-server-end-point,,n=,r=abc", "b"), "ok");
  EXPECT_EQ(state(plus, "p=tls-server-end-point,,n=,r=abc", ""), "08P01");
  EXPECT_EQ(state(plus, "p=tls-unique,,n=,r=abc", "b"), "08P01");
  EXPECT_EQ(state(plus, "n,,n=,r=abc", "b"), "08P01");
  EXPECT_EQ(state(plain, "p=tls-server-end-point,,n=,r=abc", "b"), "08P01");
  EXPECT_EQ(state("SCRAM-SHA-1", "n,,n=,r=abc", ""), "08P01");
  EXPECT_EQ(state("", "", ""), "08P01");
  EXPECT_EQ(state(plain, "n,a=me,n=,r=abc", ""), "0A000");
  EXPECT_EQ(state(plain, "n,,m=x,n=,r=abc", ""), "0A000");
  for (const std::string wrong : {"", "n", "n,", "n,,", "nn,,n=,r=abc", "q,,n=,r=abc", "n,,r=abc",
                                  "n,,n=", "n,,n=,", "n,,n=,r=", "n,,n=,r=a b", "n,,n=,r=\x80", "y",
                                  "p", "p=", "n,x,n=,r=abc"})
    EXPECT_EQ(state(plain, wrong, ""), "08P01") << wrong;
  EXPECT_EQ(state(plain, "n,,n=,r=" + std::string(2000, 'r'), ""), "08P01");
}

TEST(scram_server, refuses_a_final_message) {
  const auto state = [](const std::string& text) {
    scram_server server({rfc_verifier()}, "", rfc_server_nonce);
    EXPECT_TRUE(server.first("SCRAM-SHA-256", rfc_client_first));
    const auto answer = server.final(text);
    return answer ? "ok" : answer.error().sqlstate;
  };
  EXPECT_EQ(state(rfc_client_final), "ok");
  for (std::size_t length = 0; length < rfc_client_final.size(); ++length)
    EXPECT_EQ(state(rfc_client_final.substr(0, length)), "08P01") << length;
  auto other = rfc_client_final;
  other[other.size() - 5] = 'A';
  EXPECT_EQ(state(other), "28P01");
  EXPECT_EQ(state(rfc_client_final + ",x=y"), "08P01");
  EXPECT_EQ(state("c=eSws" + rfc_client_final.substr(6)), "08P01");
  other = rfc_client_final;
  other.replace(other.find("r=rOpr"), 6, "r=xOpr");
  EXPECT_EQ(state(other), "08P01");
  // Signed together with an extension that was not there when the proof was made.
  other = rfc_client_final;
  other.insert(other.find(",p="), ",x=y");
  EXPECT_EQ(state(other), "28P01");

  scram_server early({rfc_verifier()}, "");
  EXPECT_EQ(early.final(rfc_client_final).error().sqlstate, "08P01");
}

TEST(scram_client, refuses_a_server) {
  const auto state = [](const std::string& server_first) {
    scram_client client("pencil", "", rfc_client_nonce);
    EXPECT_TRUE(client.choose({"SCRAM-SHA-256"}));
    client.first("user");
    const auto proof = client.proof(server_first);
    return proof ? "ok" : proof.error().sqlstate;
  };
  const std::string nonce = "r=" + rfc_client_nonce;
  EXPECT_EQ(state(rfc_server_first), "ok");
  EXPECT_EQ(state(nonce + "x,s=AAAA,i=1"), "ok");
  EXPECT_EQ(state(nonce + ",s=AAAA,i=1"), "08P01");  // nothing of the server's
  EXPECT_EQ(state("r=other,s=AAAA,i=1"), "08P01");
  for (const std::string wrong : {"", ",i=1", "=,i=1", "*,i=1", "AAAA", "AAAA,i=", "AAAA,i=x",
                                  "AAAA,i=1x", "AAAA,i=1,", "AAAA,i=1,m=x", "AAAA,i=-1"}) {
    EXPECT_EQ(state(nonce + "x,s=" + wrong), "08P01") << wrong;
  }
  for (const std::string count : {"0", "1000001", "4294967297", "99999999999999999999999"})
    EXPECT_EQ(state(nonce + "x,s=AAAA,i=" + count), "08006") << count;
  EXPECT_EQ(state(nonce + std::string(2000, 'x') + ",s=AAAA,i=1"), "08P01");
}

TEST(scram_client, wants_the_servers_proof) {
  const auto state = [](const std::string& server_final) {
    scram_client client("pencil", "", rfc_client_nonce);
    EXPECT_TRUE(client.choose({"SCRAM-SHA-256"}));
    client.first("user");
    EXPECT_TRUE(client.proof(rfc_server_first));
    const auto verified = client.verify(server_final);
    return verified ? "ok" : verified.error().sqlstate;
  };
  EXPECT_EQ(state(rfc_server_final), "ok");
  EXPECT_EQ(state("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G5="), "08P01");  // loose bits
  EXPECT_EQ(state("v=7rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="), "08006");
  EXPECT_EQ(state("v="), "08006");
  EXPECT_EQ(state(""), "08P01");
  EXPECT_EQ(state("e=other-error"), "08006");
  EXPECT_EQ(state(rfc_server_final + ",x=y"), "08P01");
  scram_client early("pencil", "");
  EXPECT_EQ(early.verify(rfc_server_final).error().sqlstate, "08P01");
  EXPECT_EQ(early.proof(rfc_server_first).error().sqlstate, "08P01");
}

TEST(md5, as_postgresql) {
  // select 'md5' || md5('pencil' || 'user')
  const auto verifier = md5_verifier("user", "pencil");
  EXPECT_EQ(verifier, "md520c46e3762c864548e296b33c3406aa9") << verifier;
  EXPECT_TRUE(md5_response("SCRAM", "salt").empty());
  EXPECT_EQ(md5_response(verifier, "salt").size(), 35U);
  EXPECT_NE(md5_response(verifier, "salt"), md5_response(verifier, "Salt"));
}

TEST(compare, in_constant_time) {
  EXPECT_TRUE(equal_in_constant_time("", ""));
  EXPECT_TRUE(equal_in_constant_time("abc", "abc"));
  EXPECT_FALSE(equal_in_constant_time("abc", "abd"));
  EXPECT_FALSE(equal_in_constant_time("abc", "ab"));
  EXPECT_NE(random_bytes(16), random_bytes(16));
}

}  // namespace
}  // namespace pgsled::auth
