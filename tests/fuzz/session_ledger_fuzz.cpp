// A ledger with any entries, fed any bytes in pieces of any size, as a program: the first byte says
// how many operations follow, two bytes each, and the rest is what the server sends. It never
// forwards more than it was given, never consumes more, and a violation is final.

#include <algorithm>
#include <cstdlib>

#include "common/session/ledger.hpp"

namespace {

using namespace pgsled;

void require(bool condition) {
  if (!condition) std::abort();
}

struct counter final : session::ledger_events {
  std::size_t forwarded = 0;
  std::string stream;  // what the client sees

  void forward(byte_span bytes) override {
    forwarded += bytes.size();
    stream += as_text(bytes);
  }
  void inject(std::string_view bytes) override { stream += bytes; }
  void command_complete(const sql::statement*, std::string_view, bool) override {}
  void error(const session::entry*, byte_span body, bool) override {
    require(body.size() <= session::ledger::max_inspected);
  }
  bool rewrite_error(const session::entry*, byte_span, std::string&) override { return false; }
  void dropped(const session::entry&) override {}
  void parameter(std::string_view name, std::string_view value) override {
    stream.append(name).append("=").append(value);
  }
  void ready(char status, bool) override { require(status == 'I' || status == 'T' || status ==
      'E'); }
  void copy_in() override {}
};

void act(session::ledger& book, counter& to, std::uint8_t what, std::uint8_t more) {
  constexpr int kinds = static_cast<int>(session::owed::virtual_close) + 1;
  const auto before = book.size();
  switch (const int kind = what % (kinds + 2)) {
    case kinds:
      book.copy_ended();
      break;
    case kinds + 1:
      book.flush_virtual(to);
      require(book.size() <= before);
      break;
    default:
      const bool taken =
          book.add({static_cast<session::owed>(kind), (more & 1) != 0, (more & 2) != 0, 0, more});
      require(book.size() == before + (taken ? 1 : 0));
      require(taken || book.skipping() || book.copying_in());
  }
}

struct state {
  std::string stream;
  bool violated, doubtful, skipping;
  std::size_t left;
  bool operator==(const state&) const = default;
};

// All operations first, then the bytes in pieces of one size.
state run(byte_span operations, byte_span bytes, std::size_t piece) {
  session::ledger book;
  counter to;
  for (std::size_t i = 0; i + 1 < operations.size(); i += 2) act(book, to, operations[i],
      operations[i + 1]);
  std::size_t at = 0, end = 0;
  while (end < bytes.size() && !book.violated()) {
    end = std::min(bytes.size(), end + piece);
    while (at < end) {
      const auto used = book.receive(bytes.subspan(at, end - at), to);
      require(used <= end - at);
      at += used;
      if (used == 0 || book.violated()) break;
    }
  }
  require(to.forwarded <= at);
  require(!(book.empty() && book.head_is_proxy()));
  if (book.violated()) {
    const auto forwarded = to.forwarded;
    require(book.receive(bytes, to) == 0 && book.violated() && to.forwarded == forwarded);
  }
  return {to.stream, book.violated(), book.doubtful(), book.skipping(), book.size()};
}

// Operations between the pieces.
void interleave(byte_span operations, byte_span bytes) {
  session::ledger book;
  counter to;
  std::size_t at = 0, end = 0, step = 0;
  while (end < bytes.size() && !book.violated()) {
    if (step + 1 < operations.size()) act(book, to, operations[step], operations[step + 1]);
    const std::size_t piece = step < operations.size() ? operations[step] % 23 : bytes.size();
    step += 2;
    end = std::min(bytes.size(), end + piece);
    const auto used = book.receive(bytes.subspan(at, end - at), to);
    require(used <= end - at);
    at += used;
    require(to.forwarded <= at);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const auto count = std::min<std::size_t>(std::size_t{data[0]} * 2, size - 1);
  const byte_span operations{data + 1, count}, bytes{data + 1 + count, size - 1 - count};
  const auto at_once = run(operations, bytes, bytes.size() + 1);
  require(run(operations, bytes, 1) == at_once);
  require(run(operations, bytes, 7) == at_once);
  interleave(operations, bytes);
  return 0;
}
