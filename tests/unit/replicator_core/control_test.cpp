#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <thread>

#include "services/replicator/control/protocol.hpp"
#include "services/replicator/control/server.hpp"

namespace pgsled::replicator {
namespace {

using testing::HasSubstr;

status_report sample() {
  status_report s;
  s.instance = "replicator-1";
  s.state = "ready";
  s.connected = true;
  s.epoch = 4;
  return s;
}

std::string ask(control_protocol& p, std::string_view text) {
  std::string out;
  p.feed(as_bytes(text), out);
  return out;
}

TEST(control_protocol, status_and_version) {
  control_protocol p(sample);
  EXPECT_EQ(ask(p, "{\"id\":1,\"request\":\"version\"}\n"),
            "{\"id\":1,\"result\":{\"version\":\"" PGSLED_VERSION "\",\"protocol\":1}}\n");
  const auto status = ask(p, "{\"id\":\"x\",\"request\":\"status\"}\r\n");
  EXPECT_THAT(status, HasSubstr("\"id\":\"x\""));
  EXPECT_THAT(status, HasSubstr("\"instance\":\"replicator-1\""));
  EXPECT_THAT(status, HasSubstr("\"connected\":true,\"epoch\":4}"));
}

struct pretended {
  std::vector<move_progress> moves;
  std::string started, aborted, acted;
  bool list_waits = false;
  std::function<void(result<bool>)> abort_far;
  std::function<void(bool, std::vector<std::string>)> list_far;

  reshard_hooks hooks() {
    reshard_hooks to;
    to.start = [this](const reshard_order& order) -> result<std::string> {
      if (order.database != "app") return failure("3D000", "no such database");
      started = order.database + (order.dry_run ? " dry" : "");
      if (!order.to.empty()) {
        started += " to " + order.to + (order.automatic_cutover ? "" : " wait");
        return std::string("j1");
      }
      if (order.kind != moving::goal_kind::add_shard || order.shard) {
        started += " " + moving::in_words({order.kind, order.shard.value_or(0)});
      }
      move_progress one;
      one.job = "j1";
      one.database = order.database;
      one.outcome = "running";
      moves.push_back(one);
      return std::string("j1");
    };
    to.abort = [this](const std::string& job, std::function<void(result<bool>)> done) {
      if (job == "far") return abort_far = std::move(done), void();
      if (job != "j1") return done(failure("42704", "not run here"));
      aborted = job;
      done(true);
    };
    to.act = [this](const std::string& job, job_runner::wish what,
                    const std::function<void(result<bool>)>& done) {
      if (job != "j1") return done(failure("42704", "not run here"));
      acted += what == job_runner::wish::cut_over ? "c"
               : what == job_runner::wish::finish ? "f" : "r";
      done(true);
    };
    to.list = [this] { return moves; };
    to.list_all = [this](std::function<void(bool, std::vector<std::string>)> done) {
      std::vector<std::string> all;
      for (const auto& one : moves) all.push_back(to_json(one));
      if (list_waits) return list_far = std::move(done), void();
      done(true, std::move(all));
    };
    return to;
  }
};

TEST(control_protocol, moves_are_begun_listed_and_aborted) {
  pretended moves;
  control_protocol p(sample, moves.hooks());
  EXPECT_EQ(ask(p, R"({"id":1,"request":"reshard-start","kind":"add-shard","database":"app"})"
                   "\n"),
            "{\"id\":1,\"result\":{\"job\":\"j1\"}}\n");
  EXPECT_EQ(moves.started, "app");
  EXPECT_THAT(ask(p, R"({"request":"reshard-start","kind":"add-shard","database":"x"})" "\n"),
              HasSubstr("3D000"));
  EXPECT_THAT(ask(p, R"({"request":"reshard-start","kind":"shrink","database":"app"})" "\n"),
              HasSubstr("0A000"));
  EXPECT_THAT(ask(p, "{\"request\":\"status\"}\n"), HasSubstr("\"jobs\":[{\"job\":\"j1\""));
  EXPECT_THAT(ask(p, "{\"request\":\"reshard-list\"}\n"), HasSubstr("\"outcome\":\"running\""));
  EXPECT_THAT(ask(p, R"({"request":"reshard-abort","job":"j2"})" "\n"), HasSubstr("42704"));
  EXPECT_THAT(ask(p, R"({"request":"reshard-abort","job":"j1"})" "\n"), HasSubstr("result"));
  EXPECT_EQ(moves.aborted, "j1");
  ask(p, R"({"request":"reshard-start","kind":"add-shard","database":"app","dry_run":true})" "\n");
  EXPECT_EQ(moves.started, "app dry");
}

TEST(control_protocol, goals_and_their_shards) {
  pretended moves;
  control_protocol p(sample, moves.hooks());
  const auto begin = [&](const std::string& more) {
    return ask(p, R"({"request":"reshard-start","database":"app",)" + more + "}\n");
  };
  EXPECT_THAT(begin(R"("kind":"remove-shard","shard":2)"), HasSubstr("\"job\""));
  EXPECT_EQ(moves.started, "app remove-shard 2");
  EXPECT_THAT(begin(R"("kind":"remove-shard")"), HasSubstr("22023"));
  EXPECT_THAT(begin(R"("kind":"remove-shard","shard":-1)"), HasSubstr("22023"));
  EXPECT_THAT(begin(R"("kind":"remove-shard","shard":"2")"), HasSubstr("22023"));
  EXPECT_THAT(begin(R"("kind":"remove-shard","shard":1024)"), HasSubstr("22023"));
  EXPECT_THAT(begin(R"("kind":"add-shard","shard":3)"), HasSubstr("\"job\""));
  EXPECT_EQ(moves.started, "app add-shard 3");
  EXPECT_THAT(begin(R"("kind":"rebalance")"), HasSubstr("\"job\""));
  EXPECT_EQ(moves.started, "app rebalance");
}

TEST(control_protocol, moves_to_other_servers) {
  pretended moves;
  control_protocol p(sample, moves.hooks());
  const auto begin = [&](const std::string& more) {
    return ask(p, R"({"request":"reshard-start","kind":"new-cluster","database":"app")" + more +
                      "}\n");
  };
  EXPECT_THAT(begin(R"(,"to":"app_new")"), HasSubstr("\"job\""));
  EXPECT_EQ(moves.started, "app to app_new");
  EXPECT_THAT(begin(R"(,"to":"app_new","cutover":"wait")"), HasSubstr("\"job\""));
  EXPECT_EQ(moves.started, "app to app_new wait");
  EXPECT_THAT(begin(""), HasSubstr("22023"));
  EXPECT_THAT(begin(R"(,"to":"app_new","cutover":"now")"), HasSubstr("22023"));
  for (const char* one : {"cutover", "roll-back", "finish"}) {
    const auto request = [&](const std::string& job) {
      return ask(p, "{\"request\":\"reshard-" + std::string(one) + "\",\"job\":\"" + job +
                        "\"}\n");
    };
    EXPECT_THAT(request("j1"), HasSubstr("result"));
    EXPECT_THAT(request("j2"), HasSubstr("42704"));
  }
  EXPECT_EQ(moves.acted, "crf");
}

TEST(control_protocol, answers_that_come_later_keep_the_order) {
  pretended moves;
  moves.list_waits = true;
  control_protocol p(sample, moves.hooks());
  std::string out = ask(p, "{\"id\":1,\"request\":\"reshard-list\"}\n"
                           "{\"id\":2,\"request\":\"version\"}\n{\"id\":3,\"reque");
  EXPECT_EQ(out, "");
  EXPECT_TRUE(p.waiting());
  moves.list_far(true, {R"({"job":"b","outcome":"running","began":5})",
                        R"({"job":"a","outcome":"done","began":3})",
                        R"({"job":"b","outcome":"waiting","began":9})", "no JSON"});
  p.tick(out);
  EXPECT_THAT(out, testing::StartsWith(
      R"({"id":1,"result":{"jobs":[{"job":"a","outcome":"done","began":3},)"
      R"({"job":"b","outcome":"running","began":5}],"complete":true}})" "\n" R"({"id":2,)"));
  EXPECT_FALSE(p.waiting());
  EXPECT_THAT(ask(p, "st\":\"version\"}\n"), HasSubstr("\"id\":3"));
  {
    control_protocol gone(sample, moves.hooks());
    ask(gone, R"({"request":"reshard-abort","job":"far"})" "\n");
  }
  moves.abort_far(true);   // its connection is closed: nothing happens
}

TEST(control_protocol, a_watched_move_tells_what_changes_and_how_it_ended) {
  pretended moves;
  control_protocol p(sample, moves.hooks());
  EXPECT_THAT(ask(p, R"({"id":7,"request":"reshard-watch","job":"j1"})" "\n"), HasSubstr("42704"));
  EXPECT_FALSE(p.watching());
  EXPECT_THAT(ask(p, R"({"id":7,"request":"reshard-watch"})" "\n"), HasSubstr("22023"));
  ask(p, R"({"id":1,"request":"reshard-start","kind":"add-shard","database":"app"})" "\n");
  EXPECT_THAT(ask(p, R"({"id":"w","request":"reshard-watch","job":"j1"})" "\n"),
              HasSubstr(R"({"id":"w","event":{"job":"j1")"));
  EXPECT_THAT(ask(p, R"({"id":8,"request":"reshard-watch","job":"j1"})" "\n"), HasSubstr("55006"));
  std::string more;
  p.tick(more);
  EXPECT_EQ(more, "") << "nothing has changed";
  moves.moves[0].rows = 5;
  p.tick(more);
  EXPECT_THAT(more, HasSubstr("\"rows\":5"));
  more.clear();
  moves.moves[0].outcome = "failed";
  moves.moves[0].sqlstate = "55000";
  moves.moves[0].error = "no \"way\"";
  p.tick(more);
  EXPECT_THAT(more, testing::AllOf(HasSubstr(R"({"id":"w","result":{)"),
                                   HasSubstr(R"("message":"no \"way\"")")));
  EXPECT_FALSE(p.watching());
  more.clear();
  p.tick(more);
  EXPECT_EQ(more, "");
}

TEST(control_protocol, any_cut_gives_the_same_answers) {
  const std::string_view text =
      "{\"id\":1,\"request\":\"version\"}\n\n  \n{\"id\":2,\"request\":\"nope\"}\n{bad\n";
  control_protocol whole(sample);
  const auto expected = ask(whole, text);
  EXPECT_EQ(std::count(expected.begin(), expected.end(), '\n'), 3);
  for (std::size_t cut = 0; cut <= text.size(); ++cut) {
    control_protocol p(sample);
    auto got = ask(p, text.substr(0, cut));
    got += ask(p, text.substr(cut));
    EXPECT_EQ(got, expected) << cut;
  }
}

TEST(control_protocol, mistakes_are_answered_with_their_state) {
  control_protocol p(sample);
  for (const auto& [line, state] : std::vector<std::pair<std::string, std::string>>{
           {"{", "22032"}, {"nonsense", "22032"}, {"[1]", "22023"}, {"{}", "22023"},
           {"{\"request\":5}", "22023"}, {"{\"id\":[],\"request\":\"status\"}", "22023"},
           {"{\"id\":7,\"request\":\"explode\"}", "0A000"}, {"\"\xFF\"", "22032"},
           {std::string(5000, '['), "22032"}}) {
    const auto out = ask(p, line + "\n");
    EXPECT_THAT(out, HasSubstr("\"sqlstate\":\"" + state + "\"")) << line.substr(0, 40);
    EXPECT_EQ(std::count(out.begin(), out.end(), '\n'), 1);
  }
  EXPECT_THAT(ask(p, "{\"id\":7,\"request\":\"explode\"}\n"), HasSubstr("\"id\":7"));
}

TEST(control_protocol, an_endless_line_is_refused_once_and_skipped) {
  control_protocol p(sample);
  const std::string chunk(10'000, 'x');
  std::string out;
  for (int i = 0; i < 50; ++i) out += ask(p, chunk);
  EXPECT_THAT(out, HasSubstr("54000"));
  EXPECT_EQ(std::count(out.begin(), out.end(), '\n'), 1);
  EXPECT_THAT(ask(p, "x\n{\"id\":1,\"request\":\"version\"}\n"), HasSubstr("\"result\""));
  const std::string longest = "{\"id\":1,\"request\":\"version\"}" +
                              std::string(control_protocol::max_line - 28, ' ');
  EXPECT_THAT(ask(p, longest + "\n"), HasSubstr("\"result\""));
}

struct control_socket : testing::Test {
  control_socket() {
    dir = ::mkdtemp(name.data());
    server = std::make_unique<control_server>(loop, dir + "/r.control", sample);
    EXPECT_TRUE(server->start());
  }
  ~control_socket() override {
    server.reset();
    EXPECT_FALSE(std::filesystem::exists(dir + "/r.control"));
    std::filesystem::remove_all(dir);
  }
  net::unique_fd dial() const {
    auto fd = net::connect_unix(dir + "/r.control", SOCK_STREAM);
    EXPECT_TRUE(fd);
    return fd ? std::move(*fd) : net::unique_fd();
  }
  void turn(std::chrono::milliseconds time = std::chrono::milliseconds(20)) {
    loop.after(time, [&] { loop.stop(); });
    loop.run();
  }
  static std::string drain(int fd, bool* ended = nullptr) {
    std::string out;
    char buffer[65536];
    ssize_t n;
    while ((n = ::read(fd, buffer, sizeof buffer)) > 0)
      out.append(buffer, static_cast<std::size_t>(n));
    if (ended != nullptr) *ended = n == 0;
    return out;
  }
  std::string name = "/tmp/pgsled-control-XXXXXX", dir;
  net::reactor loop;
  std::unique_ptr<control_server> server;
};

TEST_F(control_socket, answers_and_has_mode_0600) {
  struct stat status {};
  ASSERT_EQ(::stat((dir + "/r.control").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600u);
  const auto fd = dial();
  ASSERT_EQ(::write(fd.get(), "{bad\n{\"id\":1,\"request\":\"status\"}\n", 34), 34);
  turn();
  const auto out = drain(fd.get());
  EXPECT_THAT(out, HasSubstr("22032"));
  EXPECT_THAT(out, HasSubstr("\"state\":\"ready\""));
}

TEST_F(control_socket, the_seventeenth_is_refused_and_a_freed_place_is_used) {
  std::vector<net::unique_fd> held;
  for (int i = 0; i < 16; ++i) held.push_back(dial());
  turn();
  const auto extra = dial();
  turn();
  bool ended = false;
  EXPECT_THAT(drain(extra.get(), &ended), HasSubstr("53300"));
  EXPECT_TRUE(ended);
  held.pop_back();
  turn();
  const auto next = dial();
  ASSERT_EQ(::write(next.get(), "{\"request\":\"version\"}\n", 22), 22);
  turn();
  EXPECT_THAT(drain(next.get()), HasSubstr("\"protocol\":1"));
}

TEST_F(control_socket, who_does_not_read_is_not_read_from) {
  const auto fd = dial();
  std::string many;
  for (int i = 0; i < 1000; ++i) many += "{\"id\":1,\"request\":\"status\"}\n";
  std::size_t sent = 0;
  for (int i = 0; i < 400; ++i) {
    const ssize_t n = ::send(fd.get(), many.data(), many.size(), MSG_NOSIGNAL);
    if (n > 0) sent += static_cast<std::size_t>(n);
    turn(std::chrono::milliseconds(1));
  }
  EXPECT_LT(sent, 8u << 20);
  const auto other = dial();
  ASSERT_EQ(::write(other.get(), "{\"request\":\"version\"}\n", 22), 22);
  turn();
  EXPECT_THAT(drain(other.get()), HasSubstr("\"protocol\":1"));
}

}  // namespace
}  // namespace pgsled::replicator
