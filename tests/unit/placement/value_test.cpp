#include "common/placement/value.hpp"

#include <gtest/gtest.h>

#include <limits>

namespace pgsled::placement {
namespace {

TEST(value, bigint_from_text) {
  const std::pair<const char*, std::optional<std::int64_t>> cases[] = {
      {"0", 0}, {"-0", 0}, {"+5", 5}, {" \t\n\v\f\r42\r\n ", 42}, {"-42", -42},
      {"9223372036854775807", 9223372036854775807}, {"00000000000000000000000000000012", 12},
      {"-9223372036854775808", std::numeric_limits<std::int64_t>::min()},
      {"9223372036854775808", {}}, {"-9223372036854775809", {}}, {"", {}}, {" ", {}}, {"-", {}},
      {"+", {}}, {"+-5", {}}, {"--5", {}}, {"- 5", {}}, {"5 5", {}}, {"5.0", {}}, {"5e1", {}},
      {"0x10", {}}, {"0b1", {}}, {"0o7", {}}, {"1_000", {}}, {"abc", {}}, {"5a", {}},
      {"\xc2\xa0" "5", {}}};
  for (const auto& [text, value] : cases) EXPECT_EQ(bigint_from_text(text), value) << text;
  EXPECT_EQ(bigint_from_text(std::string_view{"5\0", 2}), std::nullopt);
}

TEST(value, bigint_from_binary) {
  const std::uint8_t bytes[] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe};
  EXPECT_EQ(bigint_from_binary({bytes, 8}), -2);
  EXPECT_EQ(bigint_from_binary({bytes, 4}), -1);
  EXPECT_EQ(bigint_from_binary({bytes, 2}), -1);
  EXPECT_EQ(bigint_from_binary({bytes + 6, 2}), -2);
  for (std::size_t size : {0u, 1u, 3u, 5u, 6u, 7u}) {
    EXPECT_EQ(bigint_from_binary({bytes, size}), std::nullopt);
  }
}

constexpr std::string_view some_uuid = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";

TEST(value, uuid_from_text) {
  const auto expected = uuid_from_text(some_uuid);
  ASSERT_TRUE(expected);
  EXPECT_EQ(uuid_to_text(*expected), some_uuid);
  // The spellings of PostgreSQL's manual.
  for (const char* text :
       {"A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}",
        "a0eebc999c0b4ef8bb6d6bb9bd380a11", "a0ee-bc99-9c0b-4ef8-bb6d-6bb9-bd38-0a11",
        "{a0eebc99-9c0b4ef8-bb6d6bb9-bd380a11}", "{A0EEBC999C0B4EF8BB6D6BB9BD380a11}"}) {
    EXPECT_EQ(uuid_from_text(text), expected) << text;
  }
  for (const char* text :
       {"", "{", "}", "{}", "-", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1",
        "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a111", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11-",
        "-a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "a0eebc99--9c0b-4ef8-bb6d-6bb9bd380a11",
        "a0-eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", " a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11 ", "{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}", "{{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}}",
        "{-a0eebc999c0b4ef8bb6d6bb9bd380a11}", "{a0eebc999c0b4ef8bb6d6bb9bd380a11-}",
        "g0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "0xa0eebc999c0b4ef8bb6d6bb9bd380a1"}) {
    EXPECT_EQ(uuid_from_text(text), std::nullopt) << text;
  }
}

TEST(value, uuid_in_both_forms) {
  const auto expected = *uuid_from_text(some_uuid);
  const std::string_view raw = as_text(expected);
  EXPECT_EQ(normalise(key_type::uuid, form::text, some_uuid)->uuid, expected);
  EXPECT_EQ(normalise(key_type::uuid, form::binary, raw)->uuid, expected);
  EXPECT_EQ(normalise(key_type::uuid, form::binary, some_uuid)->uuid, expected);
  EXPECT_FALSE(normalise(key_type::uuid, form::text, raw));
  EXPECT_FALSE(normalise(key_type::uuid, form::binary, raw.substr(1)));
  EXPECT_EQ(normalise(key_type::uuid, form::text, "x").error().sqlstate, "22P02");
}

TEST(value, bigint_in_both_forms) {
  EXPECT_EQ(normalise(key_type::bigint, form::text, " +7 ")->number, 7);
  EXPECT_EQ(normalise(key_type::bigint, form::binary, {"\0\0\0\7", 4})->number, 7);
  EXPECT_EQ(normalise(key_type::bigint, form::binary, "7").error().sqlstate, "22P02");
  EXPECT_EQ(normalise(key_type::bigint, form::text, "seven").error().sqlstate, "22P02");
}

std::string cut(std::string_view text, encoding how, std::uint32_t limit) {
  const auto made = normalise(key_type::varchar, form::text, text, {how, limit});
  return made ? std::string(made->text) : made.error().sqlstate;
}

// As varchar(3) stores it: only spaces beyond the third character are taken off.
TEST(value, text_is_cut_as_its_column_would) {
  for (const auto how : {encoding::converted, encoding::single_byte, encoding::utf8,
                         encoding::multi_byte}) {
    EXPECT_EQ(cut("ab", how, 3), "ab");
    EXPECT_EQ(cut("ab ", how, 3), "ab ");
    EXPECT_EQ(cut("ab    ", how, 3), "ab ");
    EXPECT_EQ(cut("      ", how, 3), "   ");
    EXPECT_EQ(cut("ab    ", how, 0), "ab    ");
    EXPECT_EQ(cut("abcd", how, 3), "abcd");      // the server refuses it
    EXPECT_EQ(cut("abc d ", how, 3), "abc d ");
    EXPECT_EQ(cut("", how, 3), "");
  }
  EXPECT_EQ(cut("äöü  ", encoding::utf8, 3), "äöü");
  EXPECT_EQ(cut("äöü  ", encoding::utf8, 4), "äöü ");
  EXPECT_EQ(cut("äöü  ", encoding::utf8, 5), "äöü  ");
  EXPECT_EQ(cut("äöüß  ", encoding::utf8, 3), "äöüß  ");
  EXPECT_EQ(cut("\xe4\xf6\xfc  ", encoding::single_byte, 3), "\xe4\xf6\xfc");
  EXPECT_EQ(cut("\xe4\xf6\xfc  ", encoding::multi_byte, 3), "0A000");
  EXPECT_EQ(cut("\xe4\xf6\xfc  ", encoding::multi_byte, 5), "\xe4\xf6\xfc  ");
}

TEST(value, text_beyond_ascii_needs_the_servers_encoding) {
  EXPECT_EQ(cut("ä", encoding::converted, 0), "0A000");
  EXPECT_EQ(cut("ä", encoding::multi_byte, 0), "ä");
  EXPECT_EQ(cut(std::string_view("a\0b", 3), encoding::utf8, 0), "22021");
  EXPECT_EQ(encoding_between("UTF8", "UTF8"), encoding::utf8);
  EXPECT_EQ(encoding_between("SQL_ASCII", "UTF8"), encoding::utf8);
  EXPECT_EQ(encoding_between("LATIN1", "UTF8"), encoding::converted);
  EXPECT_EQ(encoding_between("UTF8", "LATIN1"), encoding::converted);
  EXPECT_EQ(encoding_between("LATIN1", "LATIN1"), encoding::single_byte);
  EXPECT_EQ(encoding_between("UTF8", "SQL_ASCII"), encoding::single_byte);
  EXPECT_EQ(encoding_between("EUC_JP", "EUC_JP"), encoding::multi_byte);
  EXPECT_EQ(encoding_between("", ""), encoding::converted);
}

}  // namespace
}  // namespace pgsled::placement
