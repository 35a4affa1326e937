// Which replicator is asked to begin a move.

#include "services/router/admin/desk.hpp"

#include <gtest/gtest.h>

namespace pgsled::router {
namespace {

config::configuration one_database() {
  config::configuration made;
  config::database one;
  one.name = one.database_name = "shop";
  one.host = "127.0.0.1";
  made.databases = {one};
  config::user user;
  user.name = "ann";
  user.databases = {"shop"};
  user.passwords = {"secret"};
  made.users = {user};
  return made;
}

struct desk {
  desk() {
    truth.configure(one_database());
    for (const char* name : {"replicator-1", "replicator-2"}) {
      snapshot::hello said;
      said.service = "replicator";
      said.instance = name;
      said.boot = "1";
      const auto json = snapshot::to_json(said);
      EXPECT_NE(truth.hello(name, as_bytes(json), 0, 0).what, membership::greeting::refused);
    }
    admin_desk::callbacks calls;
    calls.answer = [this](const auto&, auto, const std::string& json) { told = json; };
    calls.error = [this](const auto&, auto, const pg_error& why) {
      told = why.sqlstate + " " + why.message;
    };
    calls.now = [] { return std::int64_t{0}; };
    it.emplace(truth, questions, std::move(calls));
  }
  void begin() {
    asked.clear();
    told.clear();
    it->request("frontend-1.0", 5, "RESHARD ADD SHARD shop");
  }
  void answer(const std::string& row) {
    questions.answer(asked.back().first, asked.back().second, "{\"rows\":[" + row + "]}");
  }

  control truth{1000, 0};
  std::vector<std::pair<std::string, std::uint64_t>> asked;
  gatherer questions{[this](const std::string& to, std::uint64_t request, const std::string&) {
    asked.emplace_back(to, request);
    return true;
  }};
  std::optional<admin_desk> it;
  std::string told;
};

constexpr const char* busy = R"({"sqlstate":"55006","error":"this replicator runs the move x"})";

TEST(admin_desk, one_that_is_busy_is_passed_over) {
  desk d;
  d.begin();
  ASSERT_EQ(d.asked.size(), 1u);
  d.answer(busy);
  ASSERT_EQ(d.asked.size(), 2u);
  EXPECT_NE(d.asked[0].first, d.asked[1].first);
  EXPECT_EQ(d.told, "");
  d.answer(R"({"job":"0123456789abcdef"})");
  EXPECT_NE(d.told.find("0123456789abcdef"), std::string::npos) << d.told;
}

TEST(admin_desk, all_are_busy) {
  desk d;
  d.begin();
  d.answer(busy);
  d.answer(busy);
  EXPECT_EQ(d.told, "55006 this replicator runs the move x");
}

TEST(admin_desk, what_another_would_say_too_is_said_at_once) {
  desk d;
  d.begin();
  d.answer(R"({"sqlstate":"3D000","error":"no such database"})");
  EXPECT_EQ(d.told, "3D000 no such database");
  EXPECT_EQ(d.asked.size(), 1u);
}

TEST(admin_desk, one_that_does_not_answer_may_have_begun) {
  desk d;
  d.begin();
  d.questions.failed(d.asked[0].first, d.asked[0].second);
  EXPECT_EQ(d.told.substr(0, 5), "57P03");
  EXPECT_EQ(d.asked.size(), 1u);
}

}  // namespace
}  // namespace pgsled::router
