// The driver with real peers on a bus of its own: no PostgreSQL, no processes.
#include "services/router/router_service.hpp"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <zmq.h>

#include <fstream>
#include <thread>

#include "common/bus/peer.hpp"
#include "common/net/socket.hpp"
#include "common/snapshot/snapshot.hpp"
#include "services/router/control/configuration.hpp"

namespace pgsled::router {
namespace {

using namespace std::chrono_literals;
using bus::kind;

struct directory {
  std::string path;
  directory() {
    char name[] = "/tmp/pgsled-router-XXXXXX";
    path = ::mkdtemp(name);
  }
  ~directory() {
    const int ignored = std::system(("rm -rf " + path).c_str());
    static_cast<void>(ignored);
  }
  void write(const std::string& name, const std::string& text) const {
    std::ofstream(path + "/" + name) << text;
  }
};

struct running_router {
  directory& in;
  app::process process;
  router_service service;
  app::hooks hooks;
  int status = -1;
  std::thread thread;   // last: it uses the others

  static app::options options(const directory& in) {
    app::options to;
    to.service = "router";
    to.instance = "router";
    to.router = "ipc://" + in.path + "/bus";
    to.run_dir = in.path;
    to.config = in.path + "/pgdog.toml";
    to.users = in.path + "/users.toml";
    to.log_level = "error";
    return to;
  }
  explicit running_router(directory& where) : running_router(where, options(where)) {}
  running_router(directory& where, const app::options& given)
      : in(where),
        process(given),
        service(process, *load_or_report(where.path + "/pgdog.toml", where.path + "/users.toml")),
        hooks(service.hooks()),
        thread([this] { status = hooks.run(); }) {}
  ~running_router() {
    hooks.drain();
    if (thread.joinable()) thread.join();
  }
};

struct fake {
  std::vector<std::string> snapshots;
  std::vector<std::uint64_t> epochs;
  std::function<std::string(const std::string&)> on_gather;
  std::string cancelled;
  std::vector<std::string> commands;
  bool acknowledges = true;
  std::unique_ptr<bus::peer> peer;
};

struct peers {
  net::reactor loop;
  std::shared_ptr<bus::context> context = bus::make_context();
  std::map<std::string, fake> all;
  std::string endpoint;
  bus::curve_keys curve;

  fake& join(const std::string& service, const std::string& name, const std::string& life = "1") {
    fake& one = all[name];
    bus::peer_options options;
    options.endpoint = endpoint;
    options.instance = name;
    options.heartbeat = 100ms;
    options.curve = curve;
    bus::peer::callbacks calls;
    calls.hello = [service, name, life] {
      snapshot::hello said;
      said.service = service;
      said.instance = name;
      said.boot = name + "-" + life;
      said.pid = 42;
      return snapshot::to_json(said);
    };
    calls.snapshot = [&one](byte_span json, std::uint64_t epoch) {
      one.snapshots.emplace_back(as_text(json));
      one.epochs.push_back(epoch);
      if (one.acknowledges) one.peer->acknowledge(epoch);
    };
    calls.link = [](bool) {};
    calls.message = [&one](const bus::envelope& got) {
      if (got.header.kind == kind::gather && one.on_gather) {
        const std::string json = one.on_gather(std::string(as_text(got.payload)));
        one.peer->tell(kind::gather_answer, as_bytes(json), got.header.request);
      }
      if (got.header.kind == kind::cancel) one.cancelled = as_text(got.payload);
      if (got.header.kind == kind::command) one.commands.emplace_back(as_text(got.payload));
    };
    one.peer = std::make_unique<bus::peer>(loop, context, options, std::move(calls));
    one.peer->start();
    return one;
  }
  template <class Condition>
  bool until(Condition holds, std::chrono::milliseconds bound = 5000ms) {
    const auto end = net::clock::now() + bound;
    std::function<void()> look = [&] {
      if (holds() || net::clock::now() > end) return loop.stop();
      loop.after(5ms, look);
    };
    look();
    loop.run();
    return holds();
  }
  std::string admin(fake& by, const std::string& sql) {
    std::string answer;
    by.peer->ask(kind::admin_request, as_bytes(R"({"user":"admin","sql":")" + sql + "\"}"), 12s,
                 [&](result<bus::envelope> got) {
                   answer = got ? std::string(as_text(got->payload))
                                : got.error().sqlstate + " " + got.error().message;
                 });
    until([&] { return !answer.empty(); }, 12s);
    return answer;
  }
};

constexpr const char* configuration_text = R"(
[general]
default_pool_size = 7
[admin]
password = "root"
[[databases]]
name = "plain"
host = "127.0.0.1"
)";
constexpr const char* users_text = R"(
[[users]]
name = "ann"
password = "secret"
database = "plain"
)";

struct router_service_test : ::testing::Test {
  directory in;
  std::unique_ptr<running_router> router;
  peers others;
  void SetUp() override {
    in.write("pgdog.toml", configuration_text);
    in.write("users.toml", users_text);
    router = std::make_unique<running_router>(in);
    others.endpoint = "ipc://" + in.path + "/bus";
  }
};

TEST_F(router_service_test, welcomes_and_tells_frontends_of_poolers) {
  fake& f = others.join("frontend", "f.0");
  ASSERT_TRUE(others.until([&] { return !f.snapshots.empty(); }));
  fake& p = others.join("pooler", "p");
  ASSERT_TRUE(others.until([&] { return f.snapshots.size() == 2 && !p.snapshots.empty(); }));
  const auto seen = snapshot::from_json<snapshot::frontend>(f.snapshots.back());
  ASSERT_TRUE(seen.has_value());
  EXPECT_EQ(seen->pools.at(0).targets.at(0).budget, 7u);
  EXPECT_EQ(seen->epoch, f.epochs.back());
  EXPECT_EQ(snapshot::from_json<snapshot::pooler>(p.snapshots.back())->pools.at(0).budget, 7u);
}

TEST_F(router_service_test, a_restarted_router_is_found_by_its_peers) {
  fake& f = others.join("frontend", "f.0");
  ASSERT_TRUE(others.until([&] { return !f.snapshots.empty(); }));
  const auto before = *snapshot::from_json<snapshot::frontend>(f.snapshots.back());
  router.reset();
  router = std::make_unique<running_router>(in);
  ASSERT_TRUE(others.until([&] { return f.snapshots.size() >= 2; }));
  const auto after = *snapshot::from_json<snapshot::frontend>(f.snapshots.back());
  EXPECT_GT(after.epoch, before.epoch);
  EXPECT_EQ(after.holder, before.holder);
  EXPECT_EQ(after.pools.at(0).id, before.pools.at(0).id);
}

TEST_F(router_service_test, cancels_reach_the_worker_in_the_key) {
  fake& a = others.join("frontend", "a.0");
  fake& b = others.join("frontend", "b.0");
  ASSERT_TRUE(others.until([&] { return !a.snapshots.empty() && !b.snapshots.empty(); }));
  const auto holder = snapshot::from_json<snapshot::frontend>(b.snapshots.back())->holder;
  std::string payload(4, '\0');
  store_le<std::uint32_t>(payload.data(), (holder << 20) | 5u);
  payload += "secret!!";
  a.peer->tell(kind::cancel, as_bytes(payload));
  ASSERT_TRUE(others.until([&] { return !b.cancelled.empty(); }));
  EXPECT_EQ(b.cancelled, payload);
  EXPECT_TRUE(a.cancelled.empty());
}

TEST_F(router_service_test, views_are_joined_and_name_who_is_missing) {
  fake& f = others.join("frontend", "f.0");
  fake& p = others.join("pooler", "p");
  ASSERT_TRUE(others.until([&] { return !p.snapshots.empty() && !f.snapshots.empty(); }));
  const auto id = snapshot::from_json<snapshot::pooler>(p.snapshots.back())->pools.at(0).id;
  f.on_gather = [&](const std::string&) {
    return R"({"rows":[{"pool":)" + std::to_string(id) +
           R"(,"cl_waiting":3,"cl_active":2,"sv_idle_xact":1,"maxwait":1500000}]})";
  };
  p.on_gather = [&](const std::string&) {
    return R"({"rows":[{"pool":)" + std::to_string(id) + R"(,"sv_idle":4,"sv_total":6}]})";
  };
  EXPECT_EQ(others.admin(f, "SHOW POOLS database, cl_waiting, sv_active, sv_idle_xact, sv_idle, "
                            "sv_total, maxwait, maxwait_us"),
            R"({"columns":[{"name":"database","type":25},{"name":"cl_waiting","type":20},)"
            R"({"name":"sv_active","type":20},{"name":"sv_idle_xact","type":20},)"
            R"({"name":"sv_idle","type":20},{"name":"sv_total","type":20},)"
            R"({"name":"maxwait","type":20},{"name":"maxwait_us","type":20}],)"
            R"("rows":[["plain","3","1","1","4","6","1","500000"]],"tag":"SHOW"})");
  p.on_gather = nullptr;
  const std::string late = others.admin(f, "SHOW POOLS sv_total");
  EXPECT_NE(late.find(R"("rows":[["0"]])"), std::string::npos) << late;
  EXPECT_NE(late.find("no answer from p"), std::string::npos) << late;
  EXPECT_NE(others.admin(f, "SHOW STATUS instance, state").find(R"(["f.0","ready"])"),
            std::string::npos);
  EXPECT_EQ(others.admin(f, "SHOW NONSENSE").substr(0, 5), "42601");
  EXPECT_EQ(others.admin(f, "SHOW VERSION version"),
            R"({"columns":[{"name":"version","type":25}],"rows":[["pgsled )" PGSLED_VERSION
            R"("]],"tag":"SHOW"})");
}

TEST_F(router_service_test, reload_returns_when_all_have_acknowledged) {
  fake& f = others.join("frontend", "f.0");
  fake& p = others.join("pooler", "p");
  ASSERT_TRUE(others.until([&] { return !p.snapshots.empty() && f.snapshots.size() >= 1; }));
  others.until([] { return false; }, 200ms);
  in.write("pgdog.toml", std::string(configuration_text) + "\n[[databases]]\nname = \"more\"\n"
                                                           "host = \"127.0.0.1\"\n");
  in.write("users.toml", std::string(users_text) + "\n[[users]]\nname = \"bob\"\n"
                                                   "password = \"b\"\ndatabase = \"more\"\n");
  f.acknowledges = false;
  std::string answer;
  f.peer->ask(kind::admin_request, as_bytes(R"({"user":"admin","sql":"RELOAD"})"), 12s,
              [&](result<bus::envelope> got) { answer = got ? as_text(got->payload) : "error"; });
  EXPECT_FALSE(others.until([&] { return !answer.empty(); }, 500ms));
  EXPECT_EQ(snapshot::from_json<snapshot::frontend>(f.snapshots.back())->databases.size(), 3u);
  f.peer->acknowledge(f.epochs.back());
  EXPECT_TRUE(others.until([&] { return !answer.empty(); }, 1000ms));
  EXPECT_EQ(answer, R"({"tag":"RELOAD"})");
  f.acknowledges = true;
  in.write("pgdog.toml", "[general]\nport = \"x\"\n");
  answer = others.admin(f, "RELOAD;");
  EXPECT_EQ(answer.substr(0, 5), "F0000");
  EXPECT_NE(answer.find("pgdog.toml:2"), std::string::npos) << answer;
}

TEST_F(router_service_test, shutdown_reaches_everybody_and_ends_the_router) {
  fake& f = others.join("frontend", "f.0");
  fake& p = others.join("pooler", "p");
  ASSERT_TRUE(others.until([&] { return !p.snapshots.empty() && !f.snapshots.empty(); }));
  EXPECT_EQ(others.admin(f, "SHUTDOWN"), R"({"tag":"SHUTDOWN"})");
  ASSERT_TRUE(others.until([&] { return !f.commands.empty() && !p.commands.empty(); }));
  EXPECT_EQ(p.commands[0], R"({"command":"shutdown"})");
  f.peer->tell(kind::bye, {});
  p.peer->tell(kind::bye, {});
  others.until([] { return false; }, 100ms);
  f.peer.reset();
  p.peer.reset();
  router->thread.join();
  EXPECT_EQ(router->status, 0);
}

TEST_F(router_service_test, shutdown_does_not_wait_for_what_a_supervisor_starts_again) {
  fake& f = others.join("frontend", "f.0");
  ASSERT_TRUE(others.until([&] { return !f.snapshots.empty(); }));
  EXPECT_EQ(others.admin(f, "SHUTDOWN"), R"({"tag":"SHUTDOWN"})");
  ASSERT_TRUE(others.until([&] { return !f.commands.empty(); }));
  const auto began = net::clock::now();
  f.peer->tell(kind::bye, {});
  others.until([] { return false; }, 100ms);
  f.peer.reset();
  f.snapshots.clear();
  others.join("frontend", "f.0", "2");
  others.until([] { return false; }, 1000ms);
  EXPECT_TRUE(f.snapshots.empty()) << "not welcomed";
  router->thread.join();
  EXPECT_EQ(router->status, 0);
  EXPECT_LT(net::clock::now() - began, 4s);
}

TEST_F(router_service_test, tcp_needs_keys_and_admits_known_ones_only) {
  router.reset();
  auto given = running_router::options(in);
  {
    const auto probe = net::listen_tcp("127.0.0.1", 0, true, 1);
    given.router = "tcp://127.0.0.1:" + std::to_string(net::local_port(probe->get()));
  }
  {
    running_router without(in, given);
    without.thread.join();
    EXPECT_NE(without.status, 0) << "tcp without keys";
  }
  std::map<std::string, bus::curve_keys> pairs;
  for (const char* name : {"server", "client", "stranger"}) {
    char z85_public[41], z85_secret[41];
    ASSERT_EQ(zmq_curve_keypair(z85_public, z85_secret), 0);
    pairs[name] = {z85_public, z85_secret, {}};
    if (std::string(name) == "stranger") continue;
    in.write(std::string(name) + ".public", pairs[name].public_key + "\n");
    in.write(std::string(name) + ".secret", pairs[name].secret_key + "\n");
    ::chmod((in.path + "/" + name + ".secret").c_str(), 0600);
  }
  given.curve_dir = in.path;
  router = std::make_unique<running_router>(in, given);
  others.endpoint = given.router;
  others.curve = pairs["client"];
  others.curve.server_public_key = pairs["server"].public_key;
  fake& f = others.join("frontend", "f.0");
  EXPECT_TRUE(others.until([&] { return !f.snapshots.empty(); }));
  others.curve = pairs["stranger"];
  others.curve.server_public_key = pairs["server"].public_key;
  fake& s = others.join("frontend", "s.0");
  EXPECT_FALSE(others.until([&] { return !s.snapshots.empty(); }, 700ms));
}

TEST_F(router_service_test, unknown_database_and_malformed_plan_requests_get_errors) {
  fake& f = others.join("frontend", "f.0");
  ASSERT_TRUE(others.until([&] { return !f.snapshots.empty(); }));
  std::string answer;
  f.peer->ask(kind::plan_request, as_bytes("rubbish"), 2s, [&](result<bus::envelope> got) {
    answer = got ? "accepted" : got.error().sqlstate;
  });
  others.until([&] { return !answer.empty(); });
  EXPECT_EQ(answer, "08P01");
}

}  // namespace
}  // namespace pgsled::router
