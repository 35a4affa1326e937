#include "common/bus/envelope.hpp"

#include <gtest/gtest.h>

#include <set>

#include "common/bus/error_payload.hpp"

namespace pgsled::bus {
namespace {

std::string hex(const std::string& bytes) {
  std::string out;
  for (const char c : bytes) out += fmt::format("{:02x}", static_cast<unsigned char>(c));
  return out;
}

header sample() {
  header h;
  h.kind = kind::plan_request;
  h.flags = 0x0102;
  h.request = 0x1122334455667788;
  h.epoch = 7;
  h.trace = 0xAABB;
  h.deadline_ms = 5000;
  return h;
}

TEST(envelope, has_the_bytes_of_the_document) {
  std::string out;
  encode(sample(), as_bytes("hi"), out);
  EXPECT_EQ(hex(out),
            "534c4544"          // magic: "SLED"
            "0100" "3000"       // version 1, header of 48 bytes
            "0600" "0201"       // plan_request, flags
            "88130000"          // 5000 ms
            "8877665544332211"  // request
            "0700000000000000"  // epoch
            "bbaa000000000000"  // trace
            "02000000" "00000000"  // payload length, reserved
            "6869");
  const auto back = decode(as_bytes(out));
  ASSERT_TRUE(back);
  EXPECT_EQ(back->header.kind, kind::plan_request);
  EXPECT_EQ(back->header.flags, 0x0102);
  EXPECT_EQ(back->header.request, 0x1122334455667788u);
  EXPECT_EQ(back->header.epoch, 7u);
  EXPECT_EQ(back->header.trace, 0xAABBu);
  EXPECT_EQ(back->header.deadline_ms, 5000u);
  EXPECT_EQ(as_text(back->payload), "hi");
}

TEST(envelope, a_longer_header_of_a_newer_process_is_accepted) {
  std::string out;
  encode(sample(), {}, out);
  store_le(out.data() + 6, std::uint16_t{56});
  store_le(out.data() + 40, std::uint32_t{2});
  out += "newfieldhi";
  const auto back = decode(as_bytes(out));
  ASSERT_TRUE(back);
  EXPECT_EQ(as_text(back->payload), "hi");
}

TEST(envelope, every_wrong_length_is_refused) {
  std::string good;
  encode(sample(), as_bytes("payload"), good);
  for (std::size_t n = 0; n < good.size(); ++n) {
    const auto cut = decode(as_bytes(std::string_view(good).substr(0, n)));
    ASSERT_FALSE(cut) << n;
    EXPECT_EQ(cut.error(), envelope_error::truncated);
  }
  EXPECT_EQ(decode(as_bytes(good + "x")).error(), envelope_error::bad_length);
  auto bad = good;
  bad[0] = 'X';
  EXPECT_EQ(decode(as_bytes(bad)).error(), envelope_error::bad_magic);
  bad = good;
  bad[4] = 2;
  EXPECT_EQ(decode(as_bytes(bad)).error(), envelope_error::bad_version);
  bad = good;
  bad[6] = 47;
  EXPECT_EQ(decode(as_bytes(bad)).error(), envelope_error::bad_length);
  bad = good;
  store_le(bad.data() + 6, std::uint16_t{0xFFFF});
  EXPECT_EQ(decode(as_bytes(bad)).error(), envelope_error::truncated);
  bad = good;
  store_le(bad.data() + 40, std::uint32_t{0xFFFFFFFF});
  EXPECT_EQ(decode(as_bytes(bad)).error(), envelope_error::too_large);
}

TEST(envelope, kinds_that_nobody_has_defined_are_unknown) {
  std::set<unsigned> defined;
  for (unsigned k = 0; k < 0x10000; ++k)
    if (known(static_cast<kind>(k))) defined.insert(k);
  EXPECT_EQ(defined, (std::set<unsigned>{1,  2,  3,  4,  5,  6,  7,  8,  9,  10,
                                         11, 12, 13, 14, 15, 16, 20, 21, 25, 26, 30,
                                         31, 32, 33, 34}));
}

TEST(error_payload, survives_the_trip_and_bad_input) {
  const pg_error sent{"28P01", "no \"entry\"\n", "a hint", "a detail"};
  const auto text = error_json(sent);
  const auto back = error_from_json(as_bytes(text));
  EXPECT_EQ(back.sqlstate, sent.sqlstate);
  EXPECT_EQ(back.message, sent.message);
  EXPECT_EQ(back.hint, sent.hint);
  EXPECT_EQ(back.detail, sent.detail);
  EXPECT_EQ(error_from_json(as_bytes("{")).sqlstate, "XX000");
  EXPECT_EQ(error_from_json(as_bytes(R"({"sqlstate":5})")).sqlstate, "XX000");
  const auto latin1 = error_json({"XX000", "gr\xF6\xDF" "er", "", ""});
  EXPECT_EQ(error_from_json(as_bytes(latin1)).message, "gr??er");
}

}  // namespace
}  // namespace pgsled::bus
