// The splitter of COPYs as workers meet it: over a real line, one batch after the other.

#include "services/replicator/split_server.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

namespace pgsled::replicator {
namespace {

using namespace std::chrono_literals;
using bus::kind;

constexpr std::uint16_t last = 1;

// Table t (id, note), sharded by id: 0 … 9, each on the shard of its number.
std::string table() {
  copy::spec s;
  s.table = "t";
  s.columns = {"id", "note"};
  s.encoding = placement::encoding::utf8;
  s.shards = 10;
  placement::mapping m;
  m.type = "bigint";
  for (std::uint32_t i = 0; i < 10; ++i) m.list.emplace_back(std::to_string(i), i);
  m.id = placement::id_of(m);
  s.rule.mapping = m.id;
  s.mappings = {m};
  std::string text;
  encode(s, text);
  return text;
}

struct splitting : testing::Test {
  splitting() { dir = ::mkdtemp(name.data()); }
  ~splitting() override { std::filesystem::remove_all(dir); }

  void start(net::duration silence = split_server::usual_silence) {
    server = std::make_unique<split_server>(loop, zmq, "ipc://" + dir + "/split", bus::curve_keys{},
                                            silence);
    ASSERT_TRUE(server->start());
  }
  bool until(const std::function<bool()>& done, std::chrono::milliseconds limit = 5s) {
    const auto end = net::clock::now() + limit;
    while (!done() && net::clock::now() < end) {
      loop.after(1ms, [&] { loop.stop(); });
      loop.run();
    }
    return done();
  }

  // A worker, and what it has heard: "number kind content".
  struct worker {
    worker(splitting& of, const std::string& instance, std::uint64_t number)
        : bench(of), incarnation(number) {
      bus::peer_options o;
      o.endpoint = "ipc://" + of.dir + "/split";
      o.instance = instance;
      line.emplace(of.loop, of.zmq, o, [this](const bus::envelope& e) { hear(e); },
                   [this](bool now) { up = now; });
      EXPECT_TRUE(of.until([&] { return up; }));
    }
    void hear(const bus::envelope& e) {
      std::string told = std::to_string(e.header.request);
      if (e.header.kind == kind::copy_cuts) {
        told += (e.header.flags & last) != 0 ? " end" : " cuts";
        const auto cuts = copy::decode_cuts(e.payload);
        if (!cuts) told += " malformed";
        for (const auto& one : cuts.value_or(copy::cut_list())) {
          told += " " + std::to_string(one.bytes) + ">" +
                  (one.shard == copy::to_nobody ? "-" : std::to_string(one.shard));
        }
      } else if (e.header.kind == kind::copy_failed) {
        const auto why = copy::decode_split_error(e.payload);
        told += why ? " " + why->error.sqlstate : " malformed";
      } else if (e.header.kind == kind::heartbeat) {
        told += " beat";
      }
      heard.push_back(told);
    }
    void say(kind what, std::uint64_t number, std::string_view payload, std::uint16_t flags = 0) {
      bus::header h;
      h.kind = what;
      h.request = number;
      h.trace = incarnation;
      h.flags = flags;
      EXPECT_TRUE(line->send(h, as_bytes(payload)));
    }
    void open(std::uint64_t number) { say(kind::copy_open, number, table()); }
    // All that is heard from now on until a heartbeat has come back.
    std::vector<std::string> answers() {
      say(kind::heartbeat, 0, {});
      EXPECT_TRUE(bench.until([&] { return !heard.empty() && heard.back() == "0 beat"; }));
      heard.pop_back();
      return std::exchange(heard, {});
    }
    splitting& bench;
    std::uint64_t incarnation;
    bool up = false;
    std::vector<std::string> heard;
    std::optional<bus::link> line;
  };

  using said = std::vector<std::string>;
  std::string name = "/tmp/pgsled-split-XXXXXX", dir;
  net::reactor loop;
  std::shared_ptr<bus::context> zmq = bus::make_context();
  std::unique_ptr<split_server> server;
};

TEST_F(splitting, batches_are_answered_in_order_until_the_last) {
  start();
  worker one(*this, "frontend-1.0", 1);
  one.open(7);
  one.say(kind::copy_batch, 7, "1\ta\n2");
  one.say(kind::copy_batch, 7, "\tb\n");
  one.say(kind::copy_batch, 7, "3\tc\n", last);
  EXPECT_EQ(one.answers(), (said{"7 cuts 4>1", "7 cuts 4>2", "7 end 4>3"}));
  EXPECT_EQ(server->active(), 0u);
  one.say(kind::copy_batch, 7, "4\td\n");
  EXPECT_EQ(one.answers(), (said{"7 57P01"})) << "it is over";
}

TEST_F(splitting, an_error_in_the_input_ends_that_copy_alone) {
  start();
  worker one(*this, "frontend-1.0", 1);
  one.open(1);
  one.open(2);
  one.say(kind::copy_batch, 1, "1\ta\nx\tb\n");
  one.say(kind::copy_batch, 2, "5\ta\n");
  // The row that has no place is whole in some shard's input when its error is said.
  EXPECT_EQ(one.answers(), (said{"1 cuts 4>1 4>0", "1 22P02", "2 cuts 4>5"}));
  EXPECT_EQ(server->active(), 1u);
}

TEST_F(splitting, what_is_no_copy_is_refused) {
  start();
  worker one(*this, "frontend-1.0", 1);
  one.say(kind::copy_open, 1, "nonsense");
  one.say(kind::copy_batch, 9, "1\ta\n");
  one.open(2);
  one.say(kind::copy_batch, 2, std::string(split_server::max_batch + 1, 'x'));
  EXPECT_EQ(one.answers(), (said{"1 08P01", "9 57P01", "2 cuts", "2 08P01"}));
  EXPECT_EQ(server->active(), 0u);
}

TEST_F(splitting, a_copy_that_is_closed_or_opened_anew_is_forgotten) {
  start();
  worker one(*this, "frontend-1.0", 1);
  one.open(1);
  one.open(2);
  one.say(kind::copy_batch, 2, "1");
  one.open(2);   // the half row is gone
  one.say(kind::copy_close, 1, {});
  one.say(kind::copy_close, 1, {});
  one.say(kind::copy_batch, 2, "2\tb\n");
  EXPECT_EQ(one.answers(), (said{"2 cuts", "2 cuts 4>2"}));
  EXPECT_EQ(server->active(), 1u);
}

TEST_F(splitting, copies_of_two_workers_have_their_own_numbers) {
  start();
  worker one(*this, "frontend-1.0", 1), other(*this, "frontend-1.1", 1);
  one.open(1);
  other.open(1);
  one.say(kind::copy_batch, 1, "1\ta\n2");
  other.say(kind::copy_batch, 1, "3\tb\n4");
  EXPECT_EQ(one.answers(), (said{"1 cuts 4>1"}));
  EXPECT_EQ(other.answers(), (said{"1 cuts 4>3"}));
  EXPECT_EQ(server->active(), 2u);
}

TEST_F(splitting, a_line_made_anew_has_no_copies) {
  start();
  worker one(*this, "frontend-1.0", 1);
  one.open(1);
  one.say(kind::copy_batch, 1, "1\ta\n");
  EXPECT_EQ(one.answers(), (said{"1 cuts 4>1"}));
  one.incarnation = 2;
  one.say(kind::copy_batch, 1, "2\ta\n");
  EXPECT_EQ(one.answers(), (said{"1 57P01"})) << "what it was in the middle of is not known";
  EXPECT_EQ(server->active(), 0u);
}

TEST_F(splitting, no_more_than_so_many_and_none_while_draining) {
  start();
  worker one(*this, "frontend-1.0", 1);
  for (std::uint64_t i = 0; i < split_server::max_copies; ++i) one.open(i);
  one.open(1000);
  EXPECT_EQ(one.answers(), (said{"1000 53400"}));
  one.say(kind::copy_close, 0, {});
  one.open(1001);
  EXPECT_EQ(one.answers(), said());
  server->drain();
  one.say(kind::copy_close, 1, {});
  one.open(1002);
  one.say(kind::copy_batch, 1001, "1\ta\n", last);
  EXPECT_EQ(one.answers(), (said{"1002 57P01", "1001 end 4>1"})) << "what has begun goes on";
  EXPECT_EQ(server->active(), split_server::max_copies - 2);
}

TEST_F(splitting, a_worker_that_is_silent_is_forgotten) {
  start(1500ms);
  worker gone(*this, "frontend-1.0", 1), there(*this, "frontend-1.1", 1);
  gone.open(1);
  there.open(1);
  gone.answers();
  EXPECT_TRUE(until([&] {
    there.say(kind::heartbeat, 0, {});
    return server->active() == 1;
  }, 10s));
  there.heard.clear();
  there.say(kind::copy_batch, 1, "1\ta\n");
  EXPECT_TRUE(until([&] {
    return std::count(there.heard.begin(), there.heard.end(), "1 cuts 4>1") == 1;
  }));
}

}  // namespace
}  // namespace pgsled::replicator
