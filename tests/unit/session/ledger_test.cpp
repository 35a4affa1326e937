// The ledger by scripts of server bytes. The recorder writes what reaches the client as one string,
// with what happens in between in angle brackets, so that order is part of every comparison.

#include "common/session/ledger.hpp"

#include <gtest/gtest.h>

#include <random>

#include "common/wire/messages.hpp"

namespace pgsled::session {
namespace {

struct recorder final : ledger_events {
  // One letter per whole message that is forwarded; `raw` has the bytes.
  std::string raw, seen, events;
  std::string partial;

  void forward(byte_span bytes) override {
    EXPECT_FALSE(bytes.empty());
    raw += as_text(bytes);
    letters(as_text(bytes));
  }
  void inject(std::string_view bytes) override {
    raw += bytes;
    seen += "+";
    letters(bytes);
  }
  void command_complete(const sql::statement* done, std::string_view tag, bool proxy) override {
    events += "C(" + std::string(tag) + (proxy ? ",proxy" : "") + (done ? "," + done->name : "") +
        ")";
  }
  void error(const entry* head, byte_span body, bool proxy) override {
    const auto fields = wire::read_error(body);
    mark("E:" + (fields ? std::string(fields->sqlstate) : "?") + (head ? "" : ":nobody") +
         (proxy ? ":proxy" : ""));
    last_error_size = body.size();
  }
  bool rewrite_error(const entry*, byte_span body, std::string& replacement) override {
    const auto fields = wire::read_error(body);
    if (!fields || fields->message != "rewrite") return false;
    wire::write_error(replacement, "ERROR", pg_error{"22012", "rewritten", {}, {}});
    return true;
  }
  void dropped(const entry& gone) override {
    events += "dropped(" + std::to_string(gone.tag) + ")";
  }
  void parameter(std::string_view name, std::string_view value) override {
    mark("S:" + std::string(name) + "=" + std::string(value));
  }
  void ready(char status, bool proxy) override { mark(std::string("Z:") + status + (proxy ? ":proxy"
      : "")); }
  void copy_in() override { mark("copy"); }

  void mark(const std::string& what) {
    EXPECT_TRUE(partial.empty()) << "an event inside of a message";
    seen += "<" + what + ">";
    raw += "<" + what + ">";
  }
  void letters(std::string_view bytes) {
    partial += bytes;
    wire::frame frame;
    while (wire::peek(as_bytes(partial), frame) == wire::frame_state::complete &&
           partial.size() >= frame.total()) {
      seen.push_back(frame.type);
      partial.erase(0, frame.total());
    }
  }
  std::size_t last_error_size = 0;
};

std::string empty(char type) {
  std::string bytes;
  wire::write_empty(bytes, type);
  return bytes;
}
std::string command(std::string_view tag) {
  std::string bytes;
  wire::write_command_complete(bytes, tag);
  return bytes;
}
std::string ready(char status = 'I') {
  std::string bytes;
  wire::write_ready(bytes, status);
  return bytes;
}
std::string error(std::string_view message = "no", std::string_view severity = "ERROR") {
  std::string bytes;
  wire::write_error(bytes, severity, pg_error{"22012", std::string(message), {}, {}});
  return bytes;
}
std::string notice() {
  std::string bytes;
  wire::write_notice(bytes, "NOTICE", pg_error{"00000", "well", {}, {}});
  return bytes;
}
std::string row(std::size_t size = 3) {
  std::string bytes;
  wire::write_data_row(bytes, {std::string(size, 'x')});
  return bytes;
}
std::string columns() {
  std::string bytes;
  wire::write_row_description(bytes, {{"a", 23}});
  return bytes;
}
std::string parameter(std::string_view name, std::string_view value) {
  std::string bytes;
  wire::write_parameter_status(bytes, name, value);
  return bytes;
}
std::string message(char type, std::string_view body) {
  std::string bytes;
  { wire::writer(bytes, type).raw(body); }
  return bytes;
}
const std::string copy_in = message('G', std::string_view("\0\0\0", 3));
const std::string copy_out = message('H', std::string_view("\0\0\0", 3));
const std::string types = message('t', std::string_view("\0\0", 2));
const std::string notification = message('A', std::string_view("\0\0\0\1c\0p\0", 8));

entry plain(owed kind, std::uint64_t tag = 0) { return entry{kind, false, false, 0, tag}; }
entry ours(owed kind, std::uint64_t tag = 0) { return entry{kind, true, false, 0, tag}; }

// Feeds all of it as a server object does: what is not consumed comes again with more behind it.
void feed(ledger& book, recorder& to, std::string_view bytes, std::size_t chunk = ~std::size_t{0}) {
  std::string carry;
  while (!bytes.empty() && !book.violated()) {
    const auto piece = bytes.substr(0, chunk);
    bytes.remove_prefix(piece.size());
    carry += piece;
    while (!carry.empty()) {
      const auto used = book.receive(as_bytes(carry), to);
      ASSERT_LE(used, carry.size());
      carry.erase(0, used);
      if (used == 0 || book.violated()) break;
    }
  }
}

struct script {
  explicit script(std::vector<entry> sent) {
    for (auto& each : sent) EXPECT_TRUE(book.add(std::move(each)));
  }
  std::string gets(const std::string& bytes) {
    to.seen.clear();
    feed(book, to, bytes);
    return to.seen;
  }
  ledger book;
  recorder to;
};

#define EXPECT_QUIET(s)               \
  EXPECT_TRUE((s).book.empty());      \
  EXPECT_FALSE((s).book.violated());  \
  EXPECT_FALSE((s).book.doubtful());  \
  EXPECT_FALSE((s).book.skipping());  \
  EXPECT_FALSE((s).book.mid_message()); \
  EXPECT_FALSE((s).book.copying_in())

TEST(ledger, simple_query_with_several_results) {
  script s({plain(owed::query)});
  EXPECT_EQ(s.gets(columns() + row() + row() + command("SELECT 2") + command("SET") + empty('I') +
      ready('T')),
            "TDDCCIZ<Z:T>");
  EXPECT_QUIET(s);
  EXPECT_EQ(s.book.status(), 'T');
}

TEST(ledger, every_kind_of_the_extended_protocol) {
  script s({plain(owed::parse), plain(owed::bind), plain(owed::describe_statement),
      plain(owed::describe_statement),
            plain(owed::describe_portal), plain(owed::describe_portal), plain(owed::execute),
                plain(owed::execute),
            plain(owed::execute), plain(owed::close), plain(owed::sync)});
  EXPECT_EQ(s.gets(empty('1') + empty('2') + types + columns() + types + empty('n') + columns() +
      empty('n') +
                   row() + empty('s') + row() + command("SELECT 1") + empty('I') + empty('3')),
            "12tTtnTnDsDCI3");
  EXPECT_EQ(s.book.size(), 1U);
  EXPECT_EQ(s.gets(ready()), "Z<Z:I>");
  EXPECT_QUIET(s);
}

TEST(ledger, function_call) {
  script s({plain(owed::function_call), plain(owed::function_call)});
  EXPECT_EQ(s.gets(message('V', std::string_view("\0\0\0\1x", 5)) + ready() + error() + ready()),
            "VZ<Z:I><E:22012>EZ<Z:I>");
  EXPECT_QUIET(s);
}

TEST(ledger, injected_entries_are_swallowed) {
  script s({ours(owed::query), ours(owed::parse), ours(owed::close), plain(owed::bind),
      plain(owed::execute),
            plain(owed::sync), ours(owed::sync)});
  EXPECT_EQ(s.gets(columns() + row() + notice() + command("SELECT 1") + ready() + empty('1') +
      empty('3') + empty('2') +
                   row() + command("SELECT 1") + ready() + ready()),
            "<Z:I:proxy>2DCZ<Z:I><Z:I:proxy>");
  EXPECT_EQ(s.to.events, "C(SELECT 1,proxy)");
  EXPECT_QUIET(s);
}

TEST(ledger, an_injected_query_that_fails_is_ours_alone) {
  script s({ours(owed::query), plain(owed::query)});
  EXPECT_EQ(s.gets(error() + ready() + command("SET") + ready()),
      "<E:22012:proxy><Z:I:proxy>CZ<Z:I>");
}

TEST(ledger, an_injected_parse_that_fails_is_the_clients_failure) {
  script s({ours(owed::parse, 7), plain(owed::bind, 8), plain(owed::execute, 9),
      plain(owed::sync)});
  EXPECT_EQ(s.gets(error() + ready('E')), "<E:22012>EZ<Z:E>");
  EXPECT_EQ(s.to.events, "dropped(7)dropped(8)dropped(9)");
  EXPECT_QUIET(s);
}

TEST(ledger, replies_nobody_sends_come_in_order) {
  script s({plain(owed::virtual_parse), plain(owed::bind), plain(owed::virtual_close),
      plain(owed::execute),
            plain(owed::virtual_parse), plain(owed::virtual_close), plain(owed::sync)});
  EXPECT_EQ(s.gets(empty('2')), "+12+3");
  EXPECT_EQ(s.gets(row() + command("SELECT 1")), "DC+1+3");
  EXPECT_EQ(s.gets(notice()), "N");
  EXPECT_EQ(s.gets(ready()), "Z<Z:I>");
  EXPECT_QUIET(s);
}

TEST(ledger, replies_nobody_sends_come_before_a_notice_and_never_inside_a_message) {
  script s({plain(owed::virtual_close), plain(owed::query), plain(owed::virtual_parse)});
  EXPECT_EQ(s.gets(notice()), "+3N");
  // A large one is done for the book when it begins.
  const auto large = message('T', std::string(ledger::max_inspected, 'x'));
  script t({plain(owed::describe_portal), plain(owed::virtual_parse)});
  EXPECT_EQ(t.gets(large.substr(0, 50)), "");
  t.book.flush_virtual(t.to);
  EXPECT_EQ(t.gets(large.substr(50)), "T+1");
  EXPECT_EQ(s.gets(command("SELECT 1") + ready()), "CZ<Z:I>+1");
  EXPECT_TRUE(s.book.empty());
}

TEST(ledger, flush_makes_replies_only_when_their_turn_has_come) {
  script s({plain(owed::bind), plain(owed::virtual_close)});
  s.book.flush_virtual(s.to);
  EXPECT_EQ(s.to.seen, "");
  EXPECT_EQ(s.gets(empty('2')), "2+3");   // without being asked: who waits for it may send nothing
  EXPECT_TRUE(s.book.add(plain(owed::virtual_parse)));
  s.book.flush_virtual(s.to);
  EXPECT_EQ(s.to.seen, "2+3+1");
  EXPECT_TRUE(s.book.empty());
}

TEST(ledger, a_virtual_reply_before_the_error_of_what_follows) {
  script s({plain(owed::virtual_parse, 1), plain(owed::bind, 2), plain(owed::virtual_parse, 3),
      plain(owed::sync)});
  EXPECT_EQ(s.gets(error() + ready()), "+1<E:22012>EZ<Z:I>");
  EXPECT_EQ(s.to.events, "dropped(2)dropped(3)");
}

TEST(ledger, an_error_skips_to_sync) {
  script s({plain(owed::parse, 1), plain(owed::bind, 2), plain(owed::execute, 3)});
  EXPECT_EQ(s.gets(error()), "<E:22012>E");
  EXPECT_EQ(s.to.events, "dropped(1)dropped(2)dropped(3)");
  EXPECT_TRUE(s.book.skipping());
  for (const auto kind : {owed::parse, owed::bind, owed::execute, owed::query, owed::function_call,
      owed::close,
                          owed::describe_portal, owed::describe_statement, owed::virtual_parse,
                              owed::virtual_close}) {
    EXPECT_FALSE(s.book.add(plain(kind)));
  }
  s.book.copy_ended();
  EXPECT_TRUE(s.book.empty());
  EXPECT_TRUE(s.book.add(plain(owed::sync)));
  EXPECT_FALSE(s.book.skipping());
  EXPECT_TRUE(s.book.add(plain(owed::query)));
  EXPECT_EQ(s.gets(ready() + command("SET") + ready()), "Z<Z:I>CZ<Z:I>");
  EXPECT_QUIET(s);
}

TEST(ledger, an_error_may_be_rewritten) {
  script s({plain(owed::bind), plain(owed::sync), plain(owed::query), ours(owed::query)});
  const auto asked = error("rewrite");
  EXPECT_EQ(s.gets(asked + ready() + asked + ready() + asked + ready()),
            "<E:22012>+EZ<Z:I><E:22012>+EZ<Z:I><E:22012:proxy><Z:I:proxy>");
  EXPECT_NE(s.to.raw.find("rewritten"), std::string::npos);
  EXPECT_QUIET(s);
}

TEST(ledger, pipelines_of_several_syncs_fail_piece_by_piece) {
  script s({plain(owed::bind), plain(owed::execute), plain(owed::sync), plain(owed::bind),
      plain(owed::execute),
            plain(owed::sync), plain(owed::sync), plain(owed::query)});
  EXPECT_EQ(s.gets(empty('2') + row() + error() + ready() + empty('2') + command("INSERT 0 1") +
      ready() + ready() +
                   error() + ready()),
            "2D<E:22012>EZ<Z:I>2CZ<Z:I>Z<Z:I><E:22012>EZ<Z:I>");
  EXPECT_QUIET(s);
}

TEST(ledger, an_error_at_sync_is_the_failed_commit) {
  script s({plain(owed::bind), plain(owed::execute), plain(owed::sync), plain(owed::query)});
  EXPECT_EQ(s.gets(empty('2') + command("INSERT 0 1") + error() + ready() + command("SET") +
      ready()),
            "2C<E:22012>EZ<Z:I>CZ<Z:I>");
  EXPECT_QUIET(s);
}

TEST(ledger, an_error_in_the_middle_of_several_statements) {
  script s({plain(owed::query)});
  EXPECT_EQ(s.gets(command("BEGIN") + columns() + row() + error() + ready('E')),
      "CTD<E:22012>EZ<Z:E>");
  EXPECT_EQ(s.book.status(), 'E');
  EXPECT_TRUE(s.book.empty());
}

TEST(ledger, a_failed_transaction_is_left_with_its_rollback_not_with_the_next_ready) {
  script s({plain(owed::query)});
  s.gets(error() + ready('E'));
  EXPECT_TRUE(s.book.failed());
  for (const auto what : {sql::effect::savepoint, sql::effect::rollback}) {
    auto found = std::make_shared<std::vector<sql::statement>>(1);
    found->front().effect = what;
    entry sent{owed::execute};
    sent.effects = found;
    s.book.add(std::move(sent));
    s.gets(command("ROLLBACK"));
    EXPECT_EQ(s.book.failed(), what == sql::effect::savepoint);
    EXPECT_EQ(s.book.status(), 'E');
  }
  s.book.add(plain(owed::sync));
  s.gets(ready('E'));
  EXPECT_TRUE(s.book.failed());
}

TEST(ledger, effects_follow_their_statements) {
  auto found = std::make_shared<std::vector<sql::statement>>();
  found->push_back({sql::effect::set, 0, 0, "a", "1"});
  found->push_back({sql::effect::none, 0, 0, "", ""});
  found->push_back({sql::effect::set, 0, 0, "b", "2"});
  entry sent = plain(owed::query);
  sent.effects = found;
  script s({sent, plain(owed::query)});
  s.gets(command("SET") + columns() + row() + command("SELECT 1") + command("SET") + ready() +
      command("SET") + ready());
  EXPECT_EQ(s.to.events, "C(SET,a)C(SELECT 1,)C(SET,b)");
}

TEST(ledger, a_statement_of_ours_among_the_clients) {
  auto found = std::make_shared<std::vector<sql::statement>>();
  found->push_back({sql::effect::reset, 0, 0, "a", ""});
  found->emplace_back().injected = true;
  found->push_back({sql::effect::none, 0, 0, "", ""});
  entry sent = plain(owed::query);
  sent.effects = found;
  script s({sent});
  EXPECT_EQ(s.gets(command("RESET") + parameter("a", "b") + columns() + row() +
                   command("SELECT 1") + columns() + row() + row() + command("SELECT 2") + ready()),
            "C<S:a=b>TDDCZ<Z:I>");
  EXPECT_EQ(s.to.events, "C(RESET,a)C(SELECT 2,)");
  EXPECT_QUIET(s);
  // Its failure is that of the client's query.
  script fails({sent});
  EXPECT_EQ(fails.gets(command("RESET") + columns() + row() + error() + ready('E')),
            "C<E:22012>EZ<Z:E>");
  EXPECT_QUIET(fails);
}

TEST(ledger, effects_of_an_execute) {
  auto found = std::make_shared<std::vector<sql::statement>>();
  found->push_back({sql::effect::set, 0, 0, "a", "1"});
  entry sent = plain(owed::execute);
  sent.effects = found;
  script s({sent, plain(owed::execute), plain(owed::sync)});
  s.gets(command("SET") + command("SET") + ready());
  EXPECT_EQ(s.to.events, "C(SET,a)");
}

TEST(ledger, asynchronous_messages_anywhere) {
  const auto any = notice() + notification + parameter("TimeZone", "UTC");
  const std::string seen = "NA<S:TimeZone=UTC>";
  script idle({});
  EXPECT_EQ(idle.gets(any), seen);
  script s({plain(owed::parse), plain(owed::bind), plain(owed::execute), plain(owed::sync)});
  EXPECT_EQ(s.gets(any + empty('1') + any + empty('2') + any + row() + any + command("SELECT 1") +
      any + ready() + any),
            seen + "1" + seen + "2" + seen + "D" + seen + "C" + seen + "Z<Z:I>" + seen);
  EXPECT_QUIET(s);
  // Of ours only the notice is swallowed.
  script injected({ours(owed::query)});
  EXPECT_EQ(injected.gets(any), "A<S:TimeZone=UTC>");
}

TEST(ledger, a_fatal_error_while_nothing_is_owed) {
  script s({});
  EXPECT_EQ(s.gets(error("bye", "FATAL")), "<E:22012:nobody>E");
  EXPECT_FALSE(s.book.violated());
  EXPECT_FALSE(s.book.skipping());
}

TEST(ledger, nothing_behind_a_ready_is_taken_in_the_same_turn_when_nothing_is_owed) {
  ledger book;
  recorder to;
  ASSERT_TRUE(book.add(plain(owed::query)));
  const auto bytes = command("SET") + ready();
  EXPECT_EQ(book.receive(as_bytes(bytes + notice()), to), bytes.size());
}

// --- COPY --------------------------------------------------------------------------------------

TEST(ledger, copy_in_by_a_simple_query) {
  script s({plain(owed::query)});
  EXPECT_EQ(s.gets(copy_in), "<copy>G");
  EXPECT_TRUE(s.book.copying_in());
  s.book.copy_ended();
  EXPECT_FALSE(s.book.copying_in());
  EXPECT_EQ(s.gets(command("COPY 2") + copy_in), "C<copy>G");
  s.book.copy_ended();
  EXPECT_EQ(s.gets(command("COPY 2") + ready()), "CZ<Z:I>");
  EXPECT_QUIET(s);
}

TEST(ledger, a_copy_that_fails_in_a_simple_query) {
  script s({plain(owed::query)});
  s.gets(copy_in);
  EXPECT_EQ(s.gets(error() + ready()), "<E:22012>EZ<Z:I>");
  EXPECT_QUIET(s);
  s.book.copy_ended();  // the client had not seen it yet
  EXPECT_QUIET(s);
}

TEST(ledger, copy_in_by_execute_with_the_sync_after_the_data) {
  script s({plain(owed::parse), plain(owed::bind), plain(owed::execute)});
  EXPECT_EQ(s.gets(empty('1') + empty('2') + copy_in), "12<copy>G");
  s.book.copy_ended();
  EXPECT_TRUE(s.book.add(plain(owed::sync)));
  EXPECT_EQ(s.gets(command("COPY 1") + ready()), "CZ<Z:I>");
  EXPECT_QUIET(s);
}

// As libpq does: Sync behind Execute, which the COPY ignores, and another behind CopyDone.
TEST(ledger, a_sync_sent_inside_a_copy_is_not_answered) {
  for (const bool before_response : {true, false}) {
    script s({plain(owed::bind), plain(owed::execute)});
    if (before_response) {
      EXPECT_TRUE(s.book.add(plain(owed::sync)));
    }
    s.gets(empty('2') + copy_in);
    if (!before_response) {
      EXPECT_FALSE(s.book.add(plain(owed::sync)));
    }
    EXPECT_FALSE(s.book.add(plain(owed::sync)));
    s.book.copy_ended();
    EXPECT_TRUE(s.book.add(plain(owed::sync)));
    EXPECT_EQ(s.gets(command("COPY 1") + ready()), "CZ<Z:I>");
    EXPECT_QUIET(s);
  }
}

TEST(ledger, data_end_and_sync_sent_before_the_server_asks_for_them) {
  script s({plain(owed::bind), plain(owed::execute)});
  s.book.copy_ended();
  EXPECT_TRUE(s.book.add(plain(owed::sync)));
  EXPECT_TRUE(s.book.add(plain(owed::query)));
  EXPECT_EQ(s.gets(empty('2') + copy_in + command("COPY 1") + ready() + command("SET") + ready()),
            "2<copy>GCZ<Z:I>CZ<Z:I>");
  EXPECT_QUIET(s);
}

TEST(ledger, two_copies_of_one_pipeline) {
  script s({plain(owed::execute), plain(owed::sync)});  // this Sync is read inside the first COPY
  s.book.copy_ended();
  EXPECT_TRUE(s.book.add(plain(owed::execute)));
  s.book.copy_ended();
  EXPECT_TRUE(s.book.add(plain(owed::sync)));
  EXPECT_EQ(s.gets(copy_in + command("COPY 1") + copy_in + command("COPY 1") + ready()),
      "<copy>GC<copy>GCZ<Z:I>");
  EXPECT_QUIET(s);
}

TEST(ledger, the_end_of_a_copy_that_was_none) {
  script s({plain(owed::execute)});
  s.book.copy_ended();
  EXPECT_TRUE(s.book.add(plain(owed::sync)));
  EXPECT_TRUE(s.book.add(plain(owed::execute)));
  EXPECT_TRUE(s.book.add(plain(owed::sync)));
  EXPECT_EQ(s.gets(command("SELECT 0") + ready() + error() + ready()), "CZ<Z:I><E:22012>EZ<Z:I>");
  EXPECT_QUIET(s);
}

TEST(ledger, a_failing_copy_with_a_sync_inside_leaves_doubt) {
  for (const bool counted : {false, true}) {
    script s({plain(owed::bind), plain(owed::execute), plain(owed::sync)});
    EXPECT_EQ(s.gets(empty('2') + copy_in + error()), "2<copy>G<E:22012>E");
    EXPECT_TRUE(s.book.doubtful());
    EXPECT_TRUE(s.book.skipping());
    s.book.copy_ended();
    if (counted) {
      EXPECT_EQ(s.gets(ready()), "Z<Z:I>");
    }
    EXPECT_TRUE(s.book.add(plain(owed::sync)));
    EXPECT_EQ(s.gets(ready()), "Z<Z:I>");
    EXPECT_TRUE(s.book.empty());
    EXPECT_FALSE(s.book.violated());
    EXPECT_TRUE(s.book.doubtful()) << "for good";
  }
}

TEST(ledger, a_failing_copy_without_a_sync_inside_leaves_none) {
  script s({plain(owed::bind), plain(owed::execute)});
  s.gets(empty('2') + copy_in + error());
  EXPECT_FALSE(s.book.doubtful());
  s.book.copy_ended();
  EXPECT_TRUE(s.book.add(plain(owed::sync)));
  EXPECT_EQ(s.gets(ready()), "Z<Z:I>");
  EXPECT_QUIET(s);
}

TEST(ledger, copy_out) {
  script s({plain(owed::query), plain(owed::execute), plain(owed::sync)});
  const auto data = message('d', "1\tx\n");
  EXPECT_EQ(s.gets(copy_out + data + data + empty('c') + command("COPY 2") + ready() + copy_out +
      data + error() +
                   ready()),
            "HddcCZ<Z:I>Hd<E:22012>EZ<Z:I>");
  EXPECT_QUIET(s);
}

// --- the implicit transaction --------------------------------------------------------------------

TEST(ledger, knows_whether_a_batch_is_open) {
  script s({plain(owed::parse), plain(owed::describe_statement)});
  EXPECT_TRUE(s.book.unsynced());
  s.gets(empty('1') + types + empty('n'));
  EXPECT_TRUE(s.book.empty());
  EXPECT_TRUE(s.book.unsynced()) << "owes nothing, but its transaction is open";
  EXPECT_TRUE(s.book.add(plain(owed::sync)));
  EXPECT_FALSE(s.book.unsynced());
  s.gets(ready());
  EXPECT_TRUE(s.book.add(plain(owed::virtual_parse)));
  EXPECT_FALSE(s.book.unsynced()) << "the server has not seen it";
  EXPECT_TRUE(s.book.add(plain(owed::execute)));
  EXPECT_TRUE(s.book.add(plain(owed::query)));
  EXPECT_FALSE(s.book.unsynced()) << "a simple query ends it as well";
}

TEST(ledger, a_sync_ignored_by_a_copy_does_not_close_the_batch) {
  for (const bool before_response : {true, false}) {
    script s({plain(owed::execute)});
    if (before_response) {
      EXPECT_TRUE(s.book.add(plain(owed::sync)));
    }
    s.gets(copy_in);
    if (!before_response) {
      EXPECT_FALSE(s.book.add(plain(owed::sync)));
    }
    EXPECT_TRUE(s.book.unsynced());
    s.book.copy_ended();
    s.gets(command("COPY 1"));
    EXPECT_TRUE(s.book.empty() && s.book.unsynced()) << "its transaction is open";
    EXPECT_TRUE(s.book.add(plain(owed::sync)));
    s.gets(ready());
    EXPECT_QUIET(s);
  }
  script simple({plain(owed::query), plain(owed::sync)});
  simple.gets(copy_in);
  simple.book.copy_ended();
  simple.gets(command("COPY 1") + ready());
  EXPECT_QUIET(simple);
}

TEST(ledger, what_is_held_back_until_a_sync_or_flush) {
  script s({plain(owed::execute)});
  EXPECT_TRUE(s.book.may_hold_back());
  EXPECT_TRUE(s.book.add(plain(owed::sync)));
  EXPECT_FALSE(s.book.may_hold_back());
  s.book.copy_ended();
  EXPECT_TRUE(s.book.may_hold_back()) << "the Sync was read inside the COPY, perhaps";
}

// --- large messages ------------------------------------------------------------------------------

constexpr std::size_t beyond = ledger::max_inspected + 1000;

TEST(ledger, large_messages_stream) {
  for (const char type : {'D', 'd', 'T', 'N', 'A', 'E', 'V', 't'}) {
    SCOPED_TRACE(type);
    script s({plain(type == 'V' ? owed::function_call : type == 't' ? owed::describe_statement
        : owed::query)});
    std::string bytes = type == 'E' ? error(std::string(beyond, 'e')) : message(type,
        std::string(beyond, 'z'));
    const auto first = bytes.substr(0, ledger::max_inspected);
    EXPECT_EQ(s.book.receive(as_bytes(first), s.to), first.size());
    EXPECT_TRUE(s.book.mid_message());
    s.to.seen.clear();
    EXPECT_EQ(s.book.receive(as_bytes(bytes).subspan(first.size()), s.to),
        bytes.size() - first.size());
    EXPECT_EQ(s.to.seen, std::string(1, type));
    EXPECT_FALSE(s.book.mid_message());
    EXPECT_FALSE(s.book.violated());
  }
}

TEST(ledger, large_messages_of_ours_are_swallowed_in_pieces) {
  script s({ours(owed::query)});
  const auto bytes = row(beyond);
  feed(s.book, s.to, bytes, 100);
  EXPECT_EQ(s.to.raw, "");
  EXPECT_FALSE(s.book.mid_message());
}

TEST(ledger, of_a_large_error_the_fields_that_come_first_are_read) {
  for (const std::size_t chunk : {std::size_t{1000}, beyond * 2}) {
    script s({plain(owed::parse, 5), plain(owed::sync)});
    feed(s.book, s.to, error(std::string(beyond, 'e')) + ready(), chunk);
    EXPECT_EQ(s.to.seen, "<E:22012>EZ<Z:I>");
    EXPECT_EQ(s.to.events, "dropped(5)");
    EXPECT_LE(s.to.last_error_size, ledger::max_inspected);
    EXPECT_QUIET(s);
  }
}

TEST(ledger, an_error_cut_anywhere_is_well_formed) {
  // The cut falls on every byte around the border between two fields.
  for (std::size_t shift = 0; shift < 12; ++shift) {
    script s({plain(owed::query)});
    std::string bytes;
    wire::write_error(bytes, "ERROR",
                      pg_error{"22012", std::string(ledger::max_inspected - 40 + shift, 'm'),
                          "hint", "detail"});
    bytes.insert(bytes.size() - 1, "W" + std::string(200, 'w') + std::string(1, '\0'));
    const auto length = load_be<std::uint32_t>(bytes.data() + 1) + 202;
    store_be(bytes.data() + 1, length);
    feed(s.book, s.to, bytes);
    EXPECT_EQ(s.to.seen, "<E:22012>E");
  }
}

TEST(ledger, what_must_be_read_whole_may_not_be_large) {
  for (const char type : {'C', 'S', 'Z', '1', '2', '3', 'G', 'H', 'n', 's', 'I', 'c'}) {
    SCOPED_TRACE(type);
    for (const std::size_t chunk : {std::size_t{10}, beyond * 2}) {
      script s({plain(owed::query)});
      feed(s.book, s.to, message(type, std::string(beyond, '\0')), chunk);
      EXPECT_TRUE(s.book.violated());
      EXPECT_EQ(s.to.raw, "");
    }
  }
}

// --- violations ----------------------------------------------------------------------------------

// For each kind of entry at the head: the messages of a server that are in order.
TEST(ledger, every_unexpected_type_in_every_state_is_a_violation) {
  struct state {
    owed head;
    std::string_view allowed;
  };
  const std::vector<state> states{
      {owed::query, "TDCIGHdcEZNSA"},  {owed::function_call, "VEZNSA"}, {owed::parse, "1ENSA"},
      {owed::bind, "2ENSA"},           {owed::close, "3ENSA"},          {owed::describe_statement,
          "tTnENSA"},
      {owed::describe_portal, "TnENSA"}, {owed::execute, "DCsIGHdcENSA"}, {owed::sync, "ZENSA"},
  };
  const auto sample = [](char type) {
    switch (type) {
      case 'Z': return ready();
      case 'E': return error();
      case 'C': return command("SELECT 1");
      case 'S': return parameter("a", "b");
      case '1': case '2': case '3': case 'n': case 's': case 'I': case 'c': return empty(type);
      default: return message(type, std::string_view("\0\0\0\0", 4));
    }
  };
  for (const auto& each : states) {
    for (int type = 0; type < 256; ++type) {
      for (const bool proxy : {false, true}) {
        script s({proxy ? ours(each.head) : plain(each.head)});
        feed(s.book, s.to, sample(static_cast<char>(type)));
        const bool fine = type != 0 && each.allowed.find(static_cast<char>(type)) !=
            std::string_view::npos;
        EXPECT_EQ(s.book.violated(), !fine) << "type " << type << " with head "
            << static_cast<int>(each.head);
        if (!fine) {
          EXPECT_EQ(s.to.raw, "");
        }
      }
    }
  }
  for (int type = 0; type < 256; ++type) {
    script s({});
    feed(s.book, s.to, sample(static_cast<char>(type)));
    const bool fine = type != 0 && std::string_view("ENSA").find(static_cast<char>(type)) !=
        std::string_view::npos;
    EXPECT_EQ(s.book.violated(), !fine) << "type " << type << " while nothing is owed";
  }
}

TEST(ledger, bad_lengths) {
  for (const std::uint32_t length : {0U, 3U, 0x40000000U, 0x80000000U, 0xffffffffU}) {
    std::string bytes = "D1234";
    store_be(bytes.data() + 1, length);
    script s({plain(owed::query)});
    EXPECT_EQ(s.gets(row() + bytes), "D") << "what came before it is the client's";
    EXPECT_TRUE(s.book.violated());
  }
  for (const char type : {'1', '2', '3', 'n', 's', 'I', 'c'}) {
    script s({plain(type == '1' ? owed::parse : type == '2' ? owed::bind : type == '3'
        ? owed::close :
                    type == 'n' ? owed::describe_portal : owed::execute)});
    feed(s.book, s.to, message(type, "x"));
    EXPECT_TRUE(s.book.violated()) << type;
  }
  for (const auto& body : {std::string(), std::string("x"), std::string("II"), std::string("\0",
      1)}) {
    script s({plain(owed::sync)});
    feed(s.book, s.to, message('Z', body));
    EXPECT_TRUE(s.book.violated());
  }
  for (const auto& body : {std::string(), std::string("no end"), std::string("a\0b\0", 4)}) {
    script s({plain(owed::execute)});
    feed(s.book, s.to, message('C', body));
    EXPECT_TRUE(s.book.violated());
    EXPECT_EQ(s.to.events, "");
  }
  for (const auto& body : {std::string(), std::string("a\0b", 3), std::string("a\0", 2)}) {
    script s({});
    feed(s.book, s.to, message('S', body));
    EXPECT_TRUE(s.book.violated());
  }
}

TEST(ledger, a_violation_is_final) {
  script s({plain(owed::parse), plain(owed::sync)});
  feed(s.book, s.to, empty('2'));
  ASSERT_TRUE(s.book.violated());
  const auto more = empty('1') + ready();
  EXPECT_EQ(s.book.receive(as_bytes(more), s.to), 0U);
  EXPECT_TRUE(s.book.violated());
  EXPECT_EQ(s.to.raw, "");
}

// --- the property: how bytes are cut on their way changes nothing --------------------------------

struct scenario {
  std::vector<entry> sent;
  std::string bytes;
};

// A random conversation as a real server would have it, sometimes with a mistake in it.
scenario random_scenario(std::mt19937& random) {
  const auto dice = [&](unsigned sides) { return random() % sides == 0; };
  scenario s;
  bool skipping = false;
  const auto some = [&](std::string text) {
    if (dice(8)) s.bytes += notice();
    if (dice(12)) s.bytes += parameter("TimeZone", "UTC");
    if (dice(12)) s.bytes += notification;
    if (dice(40)) s.bytes += message('N', std::string(beyond, 'n'));
    s.bytes += text;
  };
  const auto count = 1 + random() % 12;
  for (std::size_t i = 0; i < count; ++i) {
    const bool proxy = dice(4);
    auto kind = static_cast<owed>(random() % 11);
    const auto fails = [&] {
      if (!dice(6)) return false;
      some(error(dice(6) ? std::string(beyond, 'e') : "no"));
      return true;
    };
    if (skipping && kind != owed::sync) {
      s.sent.push_back({kind, false, false, 0, i});
      continue;
    }
    s.sent.push_back({kind, proxy && kind < owed::virtual_parse, false, 0, i});
    switch (kind) {
      case owed::query:
        if (fails()) {
        } else if (dice(3)) {
          some(copy_out);
          for (auto n = random() % 4; n > 0; --n) some(message('d', std::string(dice(9) ? beyond
              : 9, 'd')));
          some(empty('c') + command("COPY 1"));
        } else {
          some(columns());
          for (auto n = random() % 4; n > 0; --n) some(row(dice(9) ? beyond : 9));
          some(command("SELECT 1"));
        }
        some(ready());
        break;
      case owed::function_call:
        if (!fails()) some(message('V', std::string(dice(9) ? beyond : 9, 'v')));
        some(ready('T'));
        break;
      case owed::parse: (skipping = fails()) ? void() : some(empty('1')); break;
      case owed::bind: (skipping = fails()) ? void() : some(empty('2')); break;
      case owed::close: (skipping = fails()) ? void() : some(empty('3')); break;
      case owed::describe_statement: (skipping = fails()) ? void() : some(types +
          empty('n')); break;
      case owed::describe_portal: (skipping = fails()) ? void() : some(columns()); break;
      case owed::execute:
        some(row(dice(9) ? beyond : 9));
        (skipping = fails()) ? void() : some(dice(2) ? empty('s') : command("SELECT 1"));
        break;
      case owed::sync:
        skipping = false;
        some(ready());
        break;
      default: break;
    }
  }
  if (!skipping) {
    s.sent.push_back({owed::sync});
    s.bytes += ready();
  }
  if (dice(5)) s.bytes[random() % s.bytes.size()] = static_cast<char>(random());
  return s;
}

struct outcome {
  std::string raw, seen, events;
  bool violated = false, doubtful = false, skipping = false;
  std::size_t left = 0;
  bool operator==(const outcome&) const = default;
};

outcome run(const scenario& s, std::size_t chunk) {
  ledger book;
  recorder to;
  for (const auto& each : s.sent) book.add(each);
  feed(book, to, s.bytes, chunk);
  return {to.raw, to.seen, to.events, book.violated(), book.doubtful(), book.skipping(),
      book.size()};
}

TEST(ledger, chunks_of_any_size_give_the_same) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  std::size_t clean = 0;
  for (int i = 0; i < 400; ++i) {
    const auto s = random_scenario(random);
    const auto at_once = run(s, ~std::size_t{0});
    clean += !at_once.violated && at_once.left == 0;
    for (const std::size_t chunk : {std::size_t{2}, std::size_t{7}, std::size_t{100},
        std::size_t{65536}}) {
      // the bytes that wait are copied each time
      if (chunk < 100 && s.bytes.size() > 5000) continue;
      EXPECT_TRUE(run(s, chunk) == at_once) << "chunk " << chunk << " of scenario " << i;
    }
    if (s.bytes.size() < 2000) {
      EXPECT_TRUE(run(s, 1) == at_once) << "scenario " << i;
    }
  }
  EXPECT_GT(clean, 250U);
}

TEST(ledger, counts_the_batches_that_are_answered) {
  ledger book;
  recorder to;
  book.add({owed::parse});
  book.add({owed::sync});
  book.add({owed::bind});
  EXPECT_EQ(book.batch(), 1u);
  EXPECT_EQ(book.answered(), 0u);
  const auto first = empty(wire::backend::parse_complete) + ready();
  book.receive(as_bytes(first), to);
  EXPECT_EQ(book.answered(), 1u);
  book.add({owed::sync});
  const auto failed = error() + ready();
  book.receive(as_bytes(failed), to);
  EXPECT_EQ(book.answered(), 2u) << "what an error skips is answered by its Sync";
  book.add({owed::query});
  const auto simple = command("SET") + ready();
  book.receive(as_bytes(simple), to);
  EXPECT_EQ(book.answered(), 2u);
  EXPECT_EQ(book.batch(), 2u);
}

}  // namespace
}  // namespace pgsled::session
