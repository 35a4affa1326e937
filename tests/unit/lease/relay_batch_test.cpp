#include "common/lease/relay_batch.hpp"

#include <gtest/gtest.h>

#include <vector>

namespace pgsled::lease {
namespace {

struct seen {
  lease_id lease;
  std::uint32_t generation;
  relay_what what;
  std::string bytes;
  bool operator==(const seen&) const = default;
};

std::vector<seen> read(byte_span payload, bool& good) {
  relay_reader parts(payload);
  std::vector<seen> all;
  while (const auto part = parts.next()) {
    all.push_back({part->lease, part->generation, part->what, std::string(as_text(part->bytes))});
  }
  good = parts.good();
  return all;
}

relay_batch example() {
  relay_batch batch;
  batch.add(7, 1, relay_what::data, as_bytes("some bytes"));
  batch.add_credit(1ull << 40, 2, 0x01020304);
  batch.add(7, 1, relay_what::end, {});
  return batch;
}

TEST(relay_batch, is_read_as_it_was_written) {
  const auto batch = example();
  bool good = false;
  const std::vector<seen> expected{{7, 1, relay_what::data, "some bytes"},
                                   {1ull << 40, 2, relay_what::credit, "\x04\x03\x02\x01"},
                                   {7, 1, relay_what::end, ""}};
  EXPECT_EQ(read(batch.payload(), good), expected);
  EXPECT_TRUE(good);
  EXPECT_TRUE(read({}, good).empty());
  EXPECT_TRUE(good);
}

TEST(relay_batch, cut_anywhere_but_between_parts_is_malformed) {
  const auto batch = example();
  const std::size_t borders[] = {0, 27, 48, 65};
  for (std::size_t size = 0; size <= batch.size(); ++size) {
    bool good = false;
    read(batch.payload().first(size), good);
    EXPECT_EQ(good, std::count(std::begin(borders), std::end(borders), size) == 1) << size;
  }
}

TEST(relay_batch, parts_that_cannot_be_are_malformed) {
  const auto refused = [](relay_what what, std::string_view bytes) {
    relay_batch batch;
    batch.add(1, 1, what, as_bytes(bytes));
    bool good = true;
    return read(batch.payload(), good).empty() && !good;
  };
  EXPECT_TRUE(refused(relay_what::credit, "123"));
  EXPECT_TRUE(refused(relay_what::credit, "12345"));
  EXPECT_TRUE(refused(relay_what::end, "1"));
  EXPECT_TRUE(refused(static_cast<relay_what>(3), ""));
}

}  // namespace
}  // namespace pgsled::lease
