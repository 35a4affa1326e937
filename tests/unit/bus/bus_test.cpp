#include <gtest/gtest.h>
#include <unistd.h>
#include <zmq.h>

#include <filesystem>
#include <set>
#include <thread>

#include "common/bus/hub.hpp"
#include "common/bus/meter.hpp"
#include "common/bus/peer.hpp"

namespace pgsled::bus {
namespace {

using namespace std::chrono_literals;

struct bench : testing::Test {
  bench() { dir = ::mkdtemp(name.data()); }
  ~bench() override { std::filesystem::remove_all(dir); }

  std::string endpoint() const { return "ipc://" + dir + "/router.bus"; }
  // Runs the loop until `done`, or for two seconds.
  bool until(const std::function<bool()>& done, std::chrono::milliseconds limit = 2s) {
    const auto end = net::clock::now() + limit;
    while (!done() && net::clock::now() < end) {
      loop.after(1ms, [&] { loop.stop(); });
      loop.run();
    }
    return done();
  }
  peer_options options(const std::string& who, std::chrono::milliseconds heartbeat = 50ms) const {
    peer_options o;
    o.endpoint = endpoint();
    o.instance = who;
    o.heartbeat = heartbeat;
    return o;
  }

  std::string name = "/tmp/pgsled-bus-XXXXXX", dir;
  net::reactor loop;
  std::shared_ptr<context> zmq = make_context();
};

// A router that welcomes and answers heartbeats, or keeps silent.
struct router {
  router(bench& b, std::uint64_t number, hub_options o = {})
      : boot(number),
        end(b.loop, b.zmq, fill(b, std::move(o)), [this](auto& f, auto& e) { take(f, e); }) {
    const auto bound = end.bind();
    EXPECT_TRUE(bound) << bound.error().message;
    if (bound) address = *bound;
  }
  static hub_options fill(const bench& b, hub_options o) {
    if (o.endpoint.empty()) o.endpoint = b.endpoint();
    return o;
  }
  void take(const std::string& from, const envelope& e) {
    names.insert(from);
    kinds.push_back(e.header.kind);
    last_epoch = e.header.epoch;
    if (silent) return;
    header h;
    h.trace = boot;
    h.request = e.header.request;
    if (e.header.kind == kind::hello) {
      ++hellos;
      h.kind = kind::welcome;
      h.epoch = 9;
      end.send(from, h, as_bytes("{\"n\":1}"));
    } else if (e.header.kind == kind::heartbeat) {
      h.kind = kind::heartbeat;
      end.send(from, h, {});
    } else if (e.header.kind == kind::plan_request && answer_plans) {
      h.kind = kind::plan_answer;
      end.send(from, h, e.payload);
    } else if (e.header.kind == kind::admin_request && answer_plans) {
      h.kind = kind::error;
      end.send(from, h, as_bytes(R"({"sqlstate":"42501","message":"no"})"));
    }
  }
  std::uint64_t boot;
  int hellos = 0;
  bool silent = false, answer_plans = true;
  std::uint64_t last_epoch = 0;
  std::vector<kind> kinds;
  std::set<std::string> names;
  std::string address;
  hub end;
};

struct client {
  client(bench& b, peer_options o)
      : it(b.loop, b.zmq, std::move(o),
           {[] { return std::string("{}"); },
            [this](byte_span json, std::uint64_t epoch) {
              snapshots.emplace_back(as_text(json));
              last_epoch = epoch;
            },
            [this](const envelope& e) { messages.push_back(e.header.kind); },
            [this](bool up) { links.push_back(up); }}) {}
  std::vector<std::string> snapshots;
  std::uint64_t last_epoch = 0;
  std::vector<kind> messages;
  std::vector<bool> links;
  peer it;
};

TEST_F(bench, a_peer_is_welcomed_and_asks_are_answered) {
  router r(*this, 1);
  client c(*this, options("frontend-1.0"));
  c.it.start();
  ASSERT_TRUE(until([&] { return !c.snapshots.empty(); }));
  EXPECT_EQ(c.links, std::vector<bool>{true});
  EXPECT_EQ(c.last_epoch, 9u);
  c.it.acknowledge(9);
  std::string echoed;
  c.it.ask(kind::plan_request, as_bytes("select"), 1s, [&](result<envelope> a) {
    ASSERT_TRUE(a);
    echoed = as_text(a->payload);
  });
  std::string refused;
  c.it.ask(kind::admin_request, as_bytes("x"), 1s, [&](result<envelope> a) {
    ASSERT_FALSE(a);
    refused = a.error().sqlstate;
  });
  ASSERT_TRUE(until([&] { return !refused.empty() && !echoed.empty(); }));
  EXPECT_EQ(echoed, "select");
  EXPECT_EQ(refused, "42501");
  EXPECT_EQ(r.last_epoch, 9u);
  EXPECT_EQ(std::count(r.kinds.begin(), r.kinds.end(), kind::ack), 1);
}

TEST_F(bench, the_peer_may_come_first) {
  client c(*this, options("frontend-1.0"));
  c.it.start();
  bool answered = false;
  c.it.ask(kind::plan_request, as_bytes("early"), 2s,
           [&](result<envelope> a) { answered = a.has_value(); });
  until([] { return false; }, 100ms);
  EXPECT_FALSE(c.it.connected());
  router r(*this, 1);
  EXPECT_TRUE(until([&] { return answered; }));
}

TEST_F(bench, without_a_router_an_ask_ends_at_its_deadline) {
  client c(*this, options("frontend-1.0"));
  c.it.start();
  std::string state;
  int calls = 0;
  c.it.ask(kind::plan_request, {}, 50ms, [&](result<envelope> a) {
    state = a.error().sqlstate;
    ++calls;
  });
  ASSERT_TRUE(until([&] { return calls > 0; }));
  EXPECT_EQ(state, "57P03");
  until([] { return false; }, 50ms);
  EXPECT_EQ(calls, 1);
}

TEST_F(bench, a_restarted_router_gets_a_hello_and_the_plans_under_way) {
  auto first = std::make_unique<router>(*this, 1);
  first->answer_plans = false;
  client c(*this, options("pooler-1"));
  c.it.start();
  ASSERT_TRUE(until([&] { return c.it.connected(); }));
  bool planned = false;
  std::string admin;
  c.it.ask(kind::plan_request, as_bytes("p"), 3s,
           [&](result<envelope> a) { planned = a.has_value(); });
  c.it.ask(kind::admin_request, as_bytes("a"), 3s,
           [&](result<envelope> a) { admin = a.error().sqlstate; });
  until([] { return false; }, 20ms);
  first.reset();
  router second(*this, 2);
  ASSERT_TRUE(until([&] { return planned && !admin.empty(); }));
  EXPECT_GE(second.hellos, 1);
  EXPECT_EQ(admin, "57P03");
  EXPECT_GE(c.snapshots.size(), 2u);
}

TEST_F(bench, another_boot_in_a_heartbeat_is_enough_for_a_new_hello) {
  router r(*this, 1);
  client c(*this, options("pooler-1"));
  c.it.start();
  ASSERT_TRUE(until([&] { return c.it.connected(); }));
  r.boot = 2;
  ASSERT_TRUE(until([&] { return c.snapshots.size() == 2; }));
  EXPECT_EQ(c.links, std::vector<bool>{true});
}

TEST_F(bench, a_silent_router_is_lost_after_three_heartbeats_and_found_again) {
  router r(*this, 1);
  client c(*this, options("pooler-1"));
  c.it.start();
  ASSERT_TRUE(until([&] { return c.it.connected(); }));
  r.silent = true;
  ASSERT_TRUE(until([&] { return !c.it.connected(); }));
  r.silent = false;
  ASSERT_TRUE(until([&] { return c.it.connected(); }));
  EXPECT_EQ(c.links, (std::vector<bool>{true, false, true}));
}

TEST_F(bench, presence_counts_from_when_the_answered_heartbeat_was_sent) {
  router r(*this, 1);
  client c(*this, options("frontend-1.0", 100ms));
  c.it.start();
  ASSERT_TRUE(until([&] { return c.it.present(); }));
  r.silent = true;
  std::this_thread::sleep_for(310ms);   // the loop stands still: nothing has told it the time
  EXPECT_TRUE(c.it.connected());
  EXPECT_FALSE(c.it.present());
  // What an answer to an old heartbeat says was so when that was sent.
  header late;
  late.kind = kind::heartbeat;
  late.trace = r.boot;
  late.request = 1;
  r.end.send("frontend-1.0", late, {});
  ASSERT_TRUE(until([&] { return !c.it.connected(); }));
  EXPECT_FALSE(c.it.present());
  r.silent = false;
  ASSERT_TRUE(until([&] { return c.it.present(); }));
}

TEST_F(bench, a_restarted_peer_takes_over_its_name) {
  router r(*this, 1);
  client old(*this, options("pooler-1"));
  old.it.start();
  ASSERT_TRUE(until([&] { return old.it.connected(); }));
  client young(*this, options("pooler-1"));
  young.it.start();
  ASSERT_TRUE(until([&] { return young.it.connected(); }));
}

TEST_F(bench, unknown_kinds_are_answered_with_an_error) {
  router r(*this, 1);
  std::vector<kind> got;
  std::string text;
  peer_options o = options("worker");
  link l(loop, zmq, o, [&](const envelope& e) {
    got.push_back(e.header.kind);
    text = as_text(e.payload);
  });
  header h;
  h.kind = static_cast<kind>(999);
  h.request = 5;
  EXPECT_TRUE(l.send(h, {}));
  ASSERT_TRUE(until([&] { return !got.empty(); }));
  EXPECT_EQ(got[0], kind::error);
  EXPECT_NE(text.find("0A000"), std::string::npos);
}

TEST_F(bench, what_is_no_envelope_is_dropped_and_counted) {
  router r(*this, 1);
  void* const other = zmq_ctx_new();
  void* const raw = zmq_socket(other, ZMQ_DEALER);
  const int zero = 0;
  zmq_setsockopt(raw, ZMQ_LINGER, &zero, sizeof zero);
  zmq_connect(raw, endpoint().c_str());
  auto& meter = meter_of(role::hub);
  const auto before = meter.malformed.load();
  const std::string longer(60, 'x');
  for (const std::string& text : {std::string(), std::string("short"), longer})
    zmq_send(raw, text.data(), text.size(), 0);
  zmq_send(raw, "a", 1, ZMQ_SNDMORE);
  zmq_send(raw, "b", 1, ZMQ_SNDMORE);
  zmq_send(raw, "c", 1, 0);
  EXPECT_TRUE(until([&] { return meter.malformed.load() == before + 4; }));
  client c(*this, options("frontend-1.0"));
  c.it.start();
  EXPECT_TRUE(until([&] { return c.it.connected(); }));
  zmq_close(raw);
  zmq_ctx_term(other);
}

TEST_F(bench, many_messages_go_through_in_order_and_others_are_served_between) {
  std::vector<std::uint64_t> seen;
  hub_options o;
  o.endpoint = endpoint();
  hub h(loop, zmq, o,
        [&](const std::string&, const envelope& e) { seen.push_back(e.header.request); });
  ASSERT_TRUE(h.bind());
  bool up = false;
  link l(loop, zmq, options("worker"), [](const envelope&) {}, [&](bool now) { up = now; });
  ASSERT_TRUE(until([&] { return up; }));
  header head;
  head.kind = kind::relay;
  for (std::uint64_t i = 0; i < 5000; ++i) {
    head.request = i;
    ASSERT_TRUE(l.send(head, as_bytes("x")));
  }
  ASSERT_TRUE(until([&] { return seen.size() == 5000; }));
  EXPECT_TRUE(std::is_sorted(seen.begin(), seen.end()));
}

TEST_F(bench, a_full_queue_refuses_and_says_so) {
  hub_options o;
  o.endpoint = endpoint();
  o.high_water_mark = 10;
  std::string who;
  hub h(loop, zmq, o, [&](const std::string& from, const envelope&) { who = from; });
  ASSERT_TRUE(h.bind());
  // A peer that says one thing and then never reads, because its loop never runs.
  void* const other = zmq_ctx_new();
  void* const raw = zmq_socket(other, ZMQ_DEALER);
  const int mark = 10;
  zmq_setsockopt(raw, ZMQ_RCVHWM, &mark, sizeof mark);
  zmq_setsockopt(raw, ZMQ_ROUTING_ID, "slow", 4);
  zmq_connect(raw, endpoint().c_str());
  std::string hello;
  header head;
  head.kind = kind::hello;
  encode(head, {}, hello);
  zmq_send(raw, hello.data(), hello.size(), 0);
  ASSERT_TRUE(until([&] { return who == "slow"; }));
  const std::string big(256u << 10, 'x');
  int sent = 0;
  while (sent < 1000 && h.send("slow", head, as_bytes(big))) ++sent;
  EXPECT_LT(sent, 1000);
  EXPECT_FALSE(h.send("nobody", head, {}));
  const int zero = 0;
  zmq_setsockopt(raw, ZMQ_LINGER, &zero, sizeof zero);
  zmq_close(raw);
  zmq_ctx_term(other);
}

TEST_F(bench, too_many_asks_are_refused) {
  client c(*this, options("frontend-1.0"));
  c.it.start();
  int refused = 0, late = 0;
  for (int i = 0; i < 4100; ++i)
    c.it.ask(kind::plan_request, {}, 100ms, [&](result<envelope> a) {
      (a.error().sqlstate == "53400" ? refused : late) += 1;
    });
  ASSERT_TRUE(until([&] { return refused + late == 4100; }));
  EXPECT_EQ(refused, 4);
}

TEST_F(bench, tcp_without_keys_is_refused) {
  hub_options o;
  o.endpoint = "tcp://127.0.0.1:*";
  hub h(loop, zmq, o, [](const std::string&, const envelope&) {});
  const auto bound = h.bind();
  ASSERT_FALSE(bound);
  EXPECT_NE(bound.error().message.find("CURVE"), std::string::npos);
  auto p = options("x");
  p.endpoint = "tcp://127.0.0.1:1";
  client c(*this, p);
  EXPECT_THROW(c.it.start(), std::runtime_error);
  link l(loop, zmq, p, [](const envelope&) {});
  EXPECT_FALSE(l.send({}, {}));
}

TEST_F(bench, only_known_curve_keys_get_in) {
  const auto server = make_curve_pair(), good = make_curve_pair(), bad = make_curve_pair();
  EXPECT_EQ(curve_public(good.secret_key), good.public_key);
  EXPECT_EQ(curve_public("short"), "");
  hub_options o;
  o.endpoint = "tcp://127.0.0.1:*";
  o.curve = server;
  o.allowed_client_keys = {good.public_key};
  router r(*this, 1, o);
  auto with = [&](const std::string& who, const curve_keys& keys) {
    auto p = options(who);
    p.endpoint = r.address;
    p.curve = {keys.public_key, keys.secret_key, server.public_key};
    return p;
  };
  client friendly(*this, with("good", good)), stranger(*this, with("bad", bad));
  friendly.it.start();
  stranger.it.start();
  ASSERT_TRUE(until([&] { return friendly.it.connected(); }));
  until([] { return false; }, 300ms);
  EXPECT_FALSE(stranger.it.connected());
  EXPECT_EQ(r.names, std::set<std::string>{"good"});
  r.end.allow({good.public_key, bad.public_key});
  EXPECT_TRUE(until([&] { return stranger.it.connected(); }));
}

TEST_F(bench, a_link_whose_key_is_allowed_later_gets_in_then) {
  hub_options o;
  o.endpoint = "tcp://127.0.0.1:*";
  o.curve = make_curve_pair();
  router r(*this, 1, o);
  auto p = options("worker");
  p.endpoint = r.address;
  p.curve = make_curve_pair();
  p.curve.server_public_key = o.curve.public_key;
  bool up = false;
  link l(loop, zmq, p, [](const envelope&) {}, [&](bool now) { up = now; });
  header head;
  head.kind = kind::lease;
  EXPECT_TRUE(l.send(head, as_bytes("kept")));
  until([] { return false; }, 200ms);
  EXPECT_FALSE(up);
  r.end.allow({p.curve.public_key});
  EXPECT_TRUE(until([&] { return up && !r.kinds.empty(); }));
}

TEST_F(bench, a_plain_peer_gets_nothing_from_a_curve_hub) {
  hub_options o;
  o.endpoint = endpoint();
  o.curve = make_curve_pair();
  router r(*this, 1, o);
  client c(*this, options("plain"));
  c.it.start();
  until([] { return false; }, 300ms);
  EXPECT_FALSE(c.it.connected());
  EXPECT_TRUE(r.kinds.empty());
}

TEST_F(bench, a_peer_may_be_destroyed_from_its_own_callback) {
  router r(*this, 1);
  std::unique_ptr<peer> p;
  bool gone = false;
  p = std::make_unique<peer>(loop, zmq, options("x"),
                             peer::callbacks{{}, [&](byte_span, std::uint64_t) {
                                               p.reset();
                                               gone = true;
                                             }, {}, {}});
  p->start();
  EXPECT_TRUE(until([&] { return gone; }));
  until([] { return false; }, 50ms);
}

}  // namespace
}  // namespace pgsled::bus
