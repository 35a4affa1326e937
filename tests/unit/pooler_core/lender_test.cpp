// The driver against a server of our own making: all three lanes, in one process.

#include <gtest/gtest.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/resource.h>
#include <unistd.h>

#include <condition_variable>
#include <deque>
#include <future>
#include <mutex>

#include "common/bus/hub.hpp"
#include "common/lease/relay_batch.hpp"
#include "services/pooler/lanes/lease_server.hpp"
#include "services/pooler/lanes/relay_server.hpp"
#include "tests/unit/pooler_core/fake_server.hpp"

namespace pgsled::pooler {

void fake_server::blocking(int fd) { ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) & ~O_NONBLOCK); }

namespace {

using namespace std::chrono_literals;
constexpr lease::pool_id pool_number = 7;

lease::give_back returned(const lease::grant& g, lease::condition how) {
  lease::give_back m;
  m.lease = g.lease;
  m.generation = g.generation;
  m.condition = how;
  return m;
}

bool wait_readable(int fd) {
  pollfd p{fd, POLLIN, 0};
  return ::poll(&p, 1, 5000) == 1;
}

// The pooler's insides on a thread of their own.
class rig {
 public:
  explicit rig(std::string lane = "auto", std::uint32_t budget = 2) {
    char name[] = "/tmp/pgsled_lender_XXXXXX";
    directory_ = ::mkdtemp(name);
    snap_.settings.tls_verify = "disabled";
    snap_.settings.lane = std::move(lane);
    snapshot::server_pool p;
    p.id = pool_number;
    p.host = "127.0.0.1";
    p.port = server.port();
    p.server_user = p.server_database = "u";
    p.budget = budget;
    snap_.pools = {p};
    thread_ = std::thread([this] { reactor.run(); });
    call([this] {
      meter_ = std::make_unique<probe>();
      lend = std::make_unique<lender>(reactor, *meter_, "pooler-1", 42);
      leases_ = std::make_unique<lease_server>(reactor, *lend, path());
      EXPECT_TRUE(leases_->start());
      relay_ = std::make_unique<relay_server>(reactor, *lend, bus, relay_endpoint(),
                                              bus::curve_keys{});
      EXPECT_TRUE(relay_->start());
    });
    apply();
  }
  ~rig() {
    call([this] {
      links.clear();
      relay_.reset();
      leases_.reset();
      lend.reset();
    });
    reactor.stop();
    thread_.join();
    ::unlink((directory_ + "/l.relay").c_str());
    ::rmdir(directory_.c_str());
  }
  void apply() {
    const auto done = begin_apply();
    EXPECT_EQ(done->next(), lender::counts{});
  }
  // What `done` is told, one after the other.
  struct told {
    std::optional<lender::counts> next() {
      std::unique_lock lock(guard);
      if (!came.wait_for(lock, 5s, [&] { return !all.empty(); })) return std::nullopt;
      auto first = std::move(all.front());
      all.pop_front();
      return first;
    }
    std::mutex guard;
    std::condition_variable came;
    std::deque<lender::counts> all;
  };
  std::shared_ptr<told> begin_apply() {
    const auto heard = std::make_shared<told>();
    reactor.post([this, heard] {
      lend->apply(snap_, [heard](lender::counts over) {
        const std::lock_guard lock(heard->guard);
        heard->all.push_back(std::move(over));
        heard->came.notify_one();
      });
    });
    return heard;
  }
  template <class F>
  void call(F f) {
    std::promise<void> done;
    reactor.post([&] {
      f();
      done.set_value();
    });
    done.get_future().wait();
  }
  std::string path() const { return directory_ + "/l.lease"; }
  std::string relay_endpoint() const { return "ipc://" + directory_ + "/l.relay"; }
  snapshot::pooler& snap() { return snap_; }

  fake_server server;
  net::reactor reactor;
  std::shared_ptr<bus::context> bus = bus::make_context();
  std::unique_ptr<lender> lend;
  std::vector<std::unique_ptr<bus::link>> links;

 private:
  std::string directory_;
  snapshot::pooler snap_;
  std::unique_ptr<probe> meter_;
  std::unique_ptr<lease_server> leases_;
  std::unique_ptr<relay_server> relay_;
  std::thread thread_;
};

// A holder on the socket lane.
class socket_holder {
 public:
  explicit socket_holder(const std::string& path, bool greet = true) {
    fd_ = std::move(*net::connect_unix(path, SOCK_SEQPACKET));
    if (!greet) return;
    say(lease::hello{"frontend-1.0", 1, "net", {}});
    EXPECT_TRUE(next<lease::welcome>());
  }
  void say(const lease::message& what) {
    std::string bytes;
    lease::encode(what, bytes);
    say_bytes(bytes);
  }
  void say_bytes(const std::string& bytes) {
    EXPECT_GT(net::send_with_fd(fd_.get(), as_bytes(bytes), -1), 0);
  }
  template <class T>
  std::optional<T> next() {
    if (!wait_readable(fd_.get())) return std::nullopt;
    std::vector<std::uint8_t> buffer(lease::max_message_bytes);
    const auto n = net::receive_with_fd(fd_.get(), buffer, passed);
    if (n <= 0) return std::nullopt;
    auto got = lease::decode(byte_span(buffer).first(static_cast<std::size_t>(n)));
    if (!got || !std::holds_alternative<T>(*got)) return std::nullopt;
    return std::get<T>(*got);
  }
  std::optional<lease::grant> ask() {
    say(lease::demand{pool_number, 1, 1});
    auto got = next<lease::grant>();
    EXPECT_EQ(passed.get() >= 0, got.has_value());
    return got;
  }
  void back(const lease::grant& g, lease::condition how = lease::condition::clean) {
    passed.reset();
    say(returned(g, how));
  }
  bool ended() {
    char byte;
    return wait_readable(fd_.get()) && ::recv(fd_.get(), &byte, 1, 0) <= 0;
  }
  void die() { fd_.reset(), passed.reset(); }
  void send_query(const std::string& sql) {
    std::string out;
    wire::write_query(out, sql);
    EXPECT_EQ(::send(passed.get(), out.data(), out.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(out.size()));
  }
  // Bytes up to and with ReadyForQuery; empty at end of file.
  std::string answer() {
    std::string all;
    std::vector<char> buffer(1 << 16);
    while (!all.ends_with(std::string("Z\0\0\0\5I", 6))) {
      if (!wait_readable(passed.get())) return "no answer";
      const auto n = ::recv(passed.get(), buffer.data(), buffer.size(), 0);
      if (n <= 0) return {};
      all.append(buffer.data(), static_cast<std::size_t>(n));
    }
    return all;
  }
  std::string query(const std::string& sql) { return send_query(sql), answer(); }

  net::unique_fd passed;

 private:
  net::unique_fd fd_;
};

class lender_on_sockets : public testing::TestWithParam<const char*> {};

TEST_P(lender_on_sockets, lends_and_takes_back) {
  rig r(GetParam());
  socket_holder h(r.path());
  auto g = h.ask();
  ASSERT_TRUE(g);
  EXPECT_EQ(g->pool, pool_number);
  EXPECT_EQ(g->generation, 1u);
  EXPECT_EQ(g->parameters.front().first, "server_version");
  EXPECT_EQ(h.query("select 1").front(), 'C');
  EXPECT_EQ(h.query("fail").front(), 'E');
  for (std::uint32_t turn = 2; turn < 50; ++turn) {
    h.back(*g);
    g = h.ask();
    ASSERT_TRUE(g);
    EXPECT_EQ(g->generation, turn);
    EXPECT_EQ(h.query("select 1").front(), 'C');
  }
  EXPECT_EQ(r.server.seen("connect"), 1);
}

TEST_P(lender_on_sockets, carries_large_answers_whole) {
  rig r(GetParam());
  socket_holder h(r.path());
  ASSERT_TRUE(h.ask());
  h.send_query("big 5000000");
  std::this_thread::sleep_for(50ms);  // what nobody reads must not be lost
  EXPECT_GT(h.answer().size(), 5'000'000u);
}

TEST_P(lender_on_sockets, cancels_what_runs_and_says_when_it_is_over) {
  rig r(GetParam());
  socket_holder h(r.path());
  const auto g = h.ask();
  ASSERT_TRUE(g);
  h.send_query("sleep");
  h.say(lease::cancel{g->lease, g->generation + 1});  // of another time: dropped
  h.say(lease::cancel{g->lease, g->generation});
  const auto done = h.next<lease::cancel_done>();
  ASSERT_TRUE(done);
  EXPECT_EQ(done->generation, g->generation);
  EXPECT_EQ(h.answer().front(), 'E');
  EXPECT_EQ(r.server.seen("cancel"), 1);
}

TEST_P(lender_on_sockets, ends_what_a_dead_holder_had) {
  rig r(GetParam());
  socket_holder h(r.path());
  ASSERT_TRUE(h.ask());
  h.send_query("sleep");
  ASSERT_TRUE(r.server.wait_for("sleep"));
  h.die();
  EXPECT_TRUE(r.server.wait_for("cancel"));
  EXPECT_TRUE(r.server.wait_for("end"));
}

TEST_P(lender_on_sockets, cleans_the_dirty_and_closes_the_broken) {
  rig r(GetParam());
  socket_holder h(r.path());
  auto g = h.ask();
  ASSERT_TRUE(g);
  h.back(*g, lease::condition::dirty);
  EXPECT_TRUE(r.server.wait_for("DISCARD ALL"));
  g = h.ask();
  ASSERT_TRUE(g);
  EXPECT_EQ(g->generation, 2u);
  h.back(*g, lease::condition::broken);
  EXPECT_TRUE(r.server.wait_for("end"));
  const auto next = h.ask();
  ASSERT_TRUE(next);
  EXPECT_NE(next->lease, g->lease);
}

TEST_P(lender_on_sockets, the_servers_end_reaches_the_holder) {
  rig r(GetParam());
  socket_holder h(r.path());
  const auto g = h.ask();
  ASSERT_TRUE(g);
  EXPECT_EQ(h.query("die"), "");
  h.back(*g, lease::condition::broken);
  EXPECT_TRUE(h.ask());
  EXPECT_EQ(r.server.seen("cancel"), 0);
}

// The server may have its bytes still: whoever came next could be hit.
TEST(lender, does_not_lend_on_what_a_cancel_may_still_reach) {
  rig r;
  r.server.hold_cancels = true;
  socket_holder h(r.path());
  const auto g = h.ask();
  ASSERT_TRUE(g);
  h.send_query("sleep");
  h.say(lease::cancel{g->lease, g->generation});
  EXPECT_NE(h.answer().find("57014"), std::string::npos);
  std::this_thread::sleep_for(1s);   // of the five that it waits for the cancel's end
  const auto retired = h.next<lease::retire>();
  ASSERT_TRUE(retired);
  EXPECT_EQ(retired->lease, g->lease);
  EXPECT_TRUE(h.next<lease::cancel_done>());
  r.server.hold_cancels = false;
  h.back(*g);
  EXPECT_TRUE(r.server.wait_for("end"));
}

// Sanitizers need some themselves.
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define PGSLED_SANITIZED
#endif
#endif

TEST(lender, lends_nothing_without_descriptors) {
#ifdef PGSLED_SANITIZED
  GTEST_SKIP() << "the sanitizers need descriptors themselves";
#endif
  rig r("pumped", 1);
  r.snap().pools[0].min_size = 1;
  r.apply();
  socket_holder h(r.path());
  const auto idle = [&] {
    bool found = false;
    r.call([&] {
      for (const auto& one : r.lend->connections()) {
        found = found || one.state.phase == connection_phase::idle;
      }
    });
    return found;
  };
  for (int i = 0; i < 500 && !idle(); ++i) std::this_thread::sleep_for(10ms);
  rlimit before{};
  ::getrlimit(RLIMIT_NOFILE, &before);
  const net::unique_fd next(::open("/dev/null", O_RDONLY));
  const rlimit none{static_cast<rlim_t>(next.get()), before.rlim_max};
  ::setrlimit(RLIMIT_NOFILE, &none);
  h.say(lease::demand{pool_number, 1, 1});
  EXPECT_TRUE(r.server.wait_for("end"));
  ::setrlimit(RLIMIT_NOFILE, &before);
  const auto failed = h.next<lease::pool_failed>();
  ASSERT_TRUE(failed);
  EXPECT_EQ(failed->error.sqlstate, "53000");
  EXPECT_TRUE(h.ask());
}

// A stricter demand on servers is not met by what the former one has left.
TEST(lender, other_tls_settings_that_cannot_be_used_leave_no_way_to_connect) {
  rig r;
  r.snap().settings.tls_verify = "prefer";
  r.apply();
  r.snap().settings.tls_verify = "verify_full";
  r.snap().settings.tls_server_ca_certificate = "/nowhere/ca.pem";
  r.apply();
  socket_holder h(r.path());
  h.say(lease::demand{pool_number, 1, 1});
  const auto failed = h.next<lease::pool_failed>();
  ASSERT_TRUE(failed);
  EXPECT_NE(failed->error.message.find("/nowhere/ca.pem"), std::string::npos)
      << failed->error.message;
}

INSTANTIATE_TEST_SUITE_P(lanes, lender_on_sockets, testing::Values("socket", "pumped"));

TEST(lender, tells_the_servers_own_error_and_its_host) {
  rig r;
  r.server.refuse_logins = true;
  socket_holder h(r.path());
  h.say(lease::demand{pool_number, 1, 1});
  const auto failed = h.next<lease::pool_failed>();
  ASSERT_TRUE(failed);
  EXPECT_EQ(failed->error.sqlstate, "28000");
  EXPECT_NE(failed->error.message.find("not today"), std::string::npos);
  EXPECT_NE(failed->error.message.find("127.0.0.1:"), std::string::npos);
  r.server.refuse_logins = false;
  EXPECT_TRUE(h.ask());
}

TEST(lender, ends_a_channel_that_breaks_the_rules) {
  rig r;
  socket_holder silent(r.path(), false);
  silent.say(lease::demand{pool_number, 1, 1});
  EXPECT_TRUE(silent.ended());
  socket_holder garbled(r.path());
  garbled.say_bytes("nonsense");
  EXPECT_TRUE(garbled.ended());
  socket_holder impostor(r.path());
  impostor.say(lease::retire{1});
  EXPECT_TRUE(impostor.ended());
  socket_holder honest(r.path());
  EXPECT_TRUE(honest.ask());
}

TEST(lender, serves_a_demand_that_came_before_its_pool) {
  rig r;
  socket_holder h(r.path());
  h.say(lease::demand{99, 1, 2});
  auto another = r.snap().pools[0];
  another.id = 99;
  std::this_thread::sleep_for(20ms);
  r.snap().pools.push_back(another);
  r.apply();
  const auto g = h.next<lease::grant>();
  ASSERT_TRUE(g);
  EXPECT_EQ(g->pool, 99u);
}

TEST(lender, a_demand_of_an_older_epoch_for_a_pool_that_has_gone_is_dropped) {
  rig r;
  const auto pool = r.snap().pools[0];
  socket_holder late(r.path()), newer(r.path());
  r.snap().epoch = 10;
  r.snap().pools.clear();
  r.apply();
  late.say(lease::demand{pool_number, 1, 9});
  newer.say(lease::demand{pool_number, 1, 11});
  std::this_thread::sleep_for(20ms);
  r.snap().epoch = 12;
  r.snap().pools = {pool};
  r.apply();
  EXPECT_TRUE(newer.next<lease::grant>()) << "it knew of the pool before the pooler did";
  r.call([&] {
    EXPECT_EQ(r.lend->pools()[0].machine->counters().lent, 1u) << "nobody waits there";
  });
}

TEST(lender, a_demand_that_waits_for_a_pool_is_dropped_when_a_newer_epoch_has_none) {
  rig r;
  const auto pool = r.snap().pools[0];
  socket_holder h(r.path());
  r.snap().epoch = 10;
  r.snap().pools.clear();
  r.apply();
  h.say(lease::demand{pool_number, 1, 11});
  std::this_thread::sleep_for(20ms);
  r.snap().epoch = 12;
  r.apply();
  r.snap().epoch = 13;
  r.snap().pools = {pool};
  r.apply();
  r.call([&] { EXPECT_EQ(r.lend->pools()[0].machine->counters().lent, 0u); });
}

TEST(lender, says_what_it_holds_beyond_its_budget_as_long_as_it_does) {
  rig r;
  socket_holder h(r.path());
  const auto one = h.ask(), two = h.ask();
  ASSERT_TRUE(one && two);
  r.call([&] { EXPECT_EQ(r.lend->held(), (lender::counts{{pool_number, 2}})); });
  r.snap().pools[0].budget = 0;
  const auto done = r.begin_apply();
  EXPECT_TRUE(h.next<lease::recall>());
  h.say(lease::recall_ack{pool_number});
  EXPECT_EQ(done->next(), (lender::counts{{pool_number, 2}})) << "after two seconds";
  r.call([&] { EXPECT_EQ(r.lend->held(), (lender::counts{{pool_number, 2}})); });
  h.back(*one);
  EXPECT_EQ(done->next(), (lender::counts{{pool_number, 1}}));
  h.back(*two);
  EXPECT_EQ(done->next(), lender::counts{});
  r.call([&] { EXPECT_EQ(r.lend->held(), (lender::counts{{pool_number, 0}})); });
}

TEST(lender, a_removed_pool_is_drained) {
  rig r;
  socket_holder h(r.path());
  const auto g = h.ask();
  ASSERT_TRUE(g);
  r.snap().pools.clear();
  std::thread giver([&] {
    EXPECT_TRUE(h.next<lease::recall>());
    h.say(lease::recall_ack{pool_number});
    h.back(*g);
  });
  r.apply();
  giver.join();
  EXPECT_TRUE(r.server.wait_for("terminate"));
  r.call([&] { EXPECT_TRUE(r.lend->pools().empty()); });
}

// A holder on the relay lane; what arrives is collected by the reactor's thread.
class relay_holder {
 public:
  explicit relay_holder(rig& r) : rig_(r) {
    bus::peer_options to;
    to.endpoint = r.relay_endpoint();
    to.instance = "frontend-9.0";
    r.call([&] {
      auto link = std::make_unique<bus::link>(r.reactor, r.bus, to,
                                              [this](const bus::envelope& e) { take(e); });
      link_ = link.get();
      r.links.push_back(std::move(link));
    });
    greet();
  }
  ~relay_holder() {
    rig_.call([&] { std::erase_if(rig_.links, [&](const auto& l) { return l.get() == link_; }); });
  }
  void greet() { say(lease::hello{"frontend-9.0", 1, "net", {}}); }
  void say(const lease::message& what) {
    std::string bytes;
    lease::encode(what, bytes);
    bus::header head;
    head.kind = bus::kind::lease;
    send(head, bytes);
  }
  void send(bus::header head, std::string bytes) {
    head.trace = incarnation;
    rig_.call([&] { EXPECT_TRUE(link_->send(head, as_bytes(bytes))); });
  }
  void send_stream(lease::relay_what what, const lease::grant& g, const std::string& bytes) {
    lease::relay_batch batch;
    batch.add(g.lease, g.generation, what, as_bytes(bytes));
    bus::header head;
    head.kind = bus::kind::relay;
    send(head, std::string(as_text(batch.payload())));
  }
  template <class Test>
  bool wait(Test test) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, 5s, test);
  }
  // A look at what has arrived; inside wait() the lock is held already.
  template <class Look>
  auto locked(Look look) {
    const std::lock_guard lock(mutex_);
    return look();
  }
  lease::grant grant_at(std::size_t at) {
    return locked([&] { return std::get<lease::grant>(messages[at]); });
  }

  std::atomic<std::uint64_t> incarnation{77};
  std::deque<lease::message> messages;
  std::deque<std::uint64_t> welcomes, endings;  // channels that were welcomed; traces of the ended
  std::string data;
  int ends = 0, credits = 0;

 private:
  void take(const bus::envelope& e) {
    const std::lock_guard lock(mutex_);
    if (e.header.kind == bus::kind::lease) {
      EXPECT_EQ(e.header.trace, incarnation);
      messages.push_back(std::move(*lease::decode(e.payload)));
      const bool welcome = std::holds_alternative<lease::welcome>(messages.back());
      if (welcome) welcomes.push_back(e.header.request);
    }
    if (e.header.request == 0) endings.push_back(e.header.trace);
    lease::relay_reader parts(e.header.kind == bus::kind::relay ? e.payload : byte_span{});
    while (const auto part = parts.next()) {
      if (part->what == lease::relay_what::data) data.append(as_text(part->bytes));
      if (part->what == lease::relay_what::end) ++ends;
      if (part->what == lease::relay_what::credit) ++credits;
    }
    changed_.notify_all();
  }
  rig& rig_;
  bus::link* link_ = nullptr;
  std::mutex mutex_;
  std::condition_variable changed_;
};

TEST(lender, relays_with_credit) {
  rig r("relay");
  relay_holder h(r);
  h.say(lease::demand{pool_number, 1, 1});
  ASSERT_TRUE(h.wait([&] { return h.messages.size() == 2; }));
  const auto g = h.grant_at(1);
  std::string out;
  wire::write_query(out, "big 1000000");
  h.send_stream(lease::relay_what::data, g, out);
  ASSERT_TRUE(h.wait([&] { return h.data.size() == relay_server::window; }));
  std::this_thread::sleep_for(50ms);
  EXPECT_EQ(h.locked([&] { return h.data.size(); }), relay_server::window);  // no byte more than it had credit for
  const auto complete = [&] { return h.data.ends_with(std::string("Z\0\0\0\5I", 6)); };
  while (!h.locked(complete)) {
    const auto before = h.locked([&] { return h.data.size(); });
    std::string credit(4, '\0');
    store_le(credit.data(), std::uint32_t{200'000});
    h.send_stream(lease::relay_what::credit, g, credit);
    ASSERT_TRUE(h.wait([&] { return h.data.size() > before; }));
  }
  // The other direction: credit comes back for what the server has taken.
  std::string chunk;
  wire::write_query(chunk, std::string(100'000, 'c'));
  h.send_stream(lease::relay_what::data, g, chunk);
  EXPECT_TRUE(h.wait([&] { return h.credits == 1; }));
  h.say(returned(g, lease::condition::clean));
  h.say(lease::demand{pool_number, 1, 1});
  ASSERT_TRUE(h.wait([&] { return h.messages.size() == 3; }));
  const auto again = h.grant_at(2);
  EXPECT_EQ(again.lease, g.lease);
  EXPECT_EQ(again.generation, g.generation + 1);
  h.locked([&] { h.data.clear(); });
  out.clear();
  wire::write_query(out, "die");
  h.send_stream(lease::relay_what::data, g, out);  // of the past: dropped
  std::this_thread::sleep_for(20ms);
  EXPECT_EQ(h.locked([&] { return h.ends; }), 0);
  h.send_stream(lease::relay_what::data, again, out);
  EXPECT_TRUE(h.wait([&] { return h.ends == 1; }));
}

TEST(lender, a_holder_that_ignores_its_credit_is_dropped) {
  rig r("relay");
  relay_holder h(r);
  h.say(lease::demand{pool_number, 1, 1});
  ASSERT_TRUE(h.wait([&] { return h.messages.size() == 2; }));
  const auto g = h.grant_at(1);
  h.send_stream(lease::relay_what::data, g, std::string(relay_server::window + 1, 'x'));
  EXPECT_TRUE(r.server.wait_for("end"));
}

TEST(lender, a_holder_whose_bytes_cannot_be_read_is_dropped) {
  rig r("relay");
  relay_holder h(r);
  h.say(lease::demand{pool_number, 1, 1});
  ASSERT_TRUE(h.wait([&] { return h.messages.size() == 2; }));
  bus::header head;
  head.kind = bus::kind::relay;
  h.send(head, "no parts of a batch");
  EXPECT_TRUE(r.server.wait_for("end"));
}

// It may have slept meanwhile, and believe that it has its leases still.
TEST(lender, a_holder_that_was_dropped_finds_out) {
  rig r("relay");
  relay_holder h(r);
  ASSERT_TRUE(h.wait([&] { return h.welcomes.size() == 1; }));
  bus::header head;
  head.kind = bus::kind::relay;
  h.send(head, "no parts of a batch");
  ASSERT_TRUE(h.wait([&] { return h.endings.size() == 1; }));
  h.say(lease::demand{pool_number, 1, 1});   // on a channel that is not there
  ASSERT_TRUE(h.wait([&] { return h.endings.size() == 2; }));
  h.greet();
  ASSERT_TRUE(h.wait([&] { return h.welcomes.size() == 2; }));
  EXPECT_NE(h.welcomes[0], h.welcomes[1]);
  EXPECT_EQ(h.endings, (std::deque<std::uint64_t>{77, 77}));
  EXPECT_EQ(r.server.seen("connect"), 0);
}

TEST(lender, what_another_incarnation_says_is_not_heard) {
  rig r("relay");
  relay_holder h(r);
  ASSERT_TRUE(h.wait([&] { return h.welcomes.size() == 1; }));
  h.incarnation = 78;
  h.say(lease::demand{pool_number, 1, 1});
  ASSERT_TRUE(h.wait([&] { return h.endings.size() == 1; }));
  EXPECT_EQ(h.endings[0], 78u);
  h.greet();
  ASSERT_TRUE(h.wait([&] { return h.welcomes.size() == 2; }));
  h.say(lease::demand{pool_number, 1, 1});
  ASSERT_TRUE(h.wait([&] { return h.messages.size() == 3; }));
  EXPECT_EQ(r.server.seen("connect"), 1);
}

}  // namespace
}  // namespace pgsled::pooler
