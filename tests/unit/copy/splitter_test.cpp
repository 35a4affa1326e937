#include "common/copy/splitter.hpp"

#include <gtest/gtest.h>

#include <map>
#include <random>

namespace pgsled::copy {
namespace {

using namespace std::string_literals;

// Table t (name, id, note), sharded by id in ten shards of a list-like map: shard = id of 0 … 9.
spec table(format f = format::text) {
  spec s;
  s.options.format = f;
  if (f == format::csv) {
    s.options.delimiter = ',';
    s.options.null_text = "";
  }
  s.table = "t";
  s.columns = {"name", "id", "note"};
  s.key = 1;
  s.encoding = placement::encoding::utf8;
  s.shards = 10;
  placement::mapping m;
  m.type = "bigint";
  for (std::uint32_t i = 0; i < 10; ++i) m.list.emplace_back(std::to_string(i), i);
  m.id = placement::id_of(m);
  s.rule.mapping = m.id;
  s.mappings = {m};
  return s;
}

struct outcome {
  std::map<std::uint32_t, std::string> got;   // by shard; to_nobody as well
  std::map<std::uint32_t, std::pair<std::uint64_t, std::uint64_t>> lines;
  std::string error, context;
  bool operator==(const outcome&) const = default;
};

outcome run(const spec& s, std::string_view input, const std::vector<std::size_t>& borders = {}) {
  const auto machine = make_splitter(s);
  cut_list cuts;
  std::size_t at = 0;
  bool good = true;
  for (std::size_t i = 0; i <= borders.size() && good; ++i) {
    const auto end = i < borders.size() ? borders[i] : input.size();
    good = machine->feed(as_bytes(input.substr(at, end - at)), cuts);
    at = end;
  }
  good = good && machine->finish(cuts);
  outcome out;
  std::size_t from = 0;
  std::string travelled;
  encode(cuts, travelled);
  const auto again = decode_cuts(as_bytes(travelled));
  EXPECT_TRUE(again && *again == cuts);
  for (const auto& each : cuts) {
    const auto piece = input.substr(from, each.bytes);
    from += each.bytes;
    for (std::uint32_t shard = 0; shard < s.shards; ++shard) {
      if (each.shard == to_all || each.shard == shard) {
        out.got[shard] += piece;
        out.lines[shard].first += each.lines;
        out.lines[shard].second += each.shard_lines;
      }
    }
    if (each.shard == to_nobody) out.got[to_nobody] += piece;
  }
  if (good) {
    EXPECT_EQ(from, input.size()) << "every byte has been cut";
  }
  if (!good) {
    out.error = machine->failed()->error.sqlstate + " " + machine->failed()->error.message;
    out.context = machine->failed()->context;
    // How much of the rows before an error has been cut depends on where the input was.
  }
  std::erase_if(out.got, [](const auto& one) { return one.second.empty(); });
  std::erase_if(out.lines, [](const auto& one) { return one.second.first == 0; });
  return out;
}

// The same however the input is cut: in two at every byte, and into single bytes.
outcome everywhere(const spec& s, std::string_view input) {
  const outcome whole = run(s, input);
  const auto same = [&](const outcome& other, const std::string& how) {
    EXPECT_EQ(whole.error, other.error) << how;
    EXPECT_EQ(whole.context, other.context) << how;
    if (whole.error.empty()) {
      EXPECT_EQ(whole.got, other.got) << how;
      EXPECT_EQ(whole.lines, other.lines) << how;
    }
  };
  for (std::size_t at = 0; at <= input.size(); ++at) {
    same(run(s, input, {at}), "cut at " + std::to_string(at));
  }
  std::vector<std::size_t> all;
  for (std::size_t at = 0; at <= input.size(); ++at) all.push_back(at);
  same(run(s, input, all), "in single bytes");
  return whole;
}

TEST(text, rows_go_by_key) {
  const auto out = everywhere(table(), "a\t1\tx\nb\t2\ty\nc\t1\tz\n");
  EXPECT_EQ(out.error, "");
  EXPECT_EQ(out.got.at(1), "a\t1\tx\nc\t1\tz\n");
  EXPECT_EQ(out.got.at(2), "b\t2\ty\n");
  EXPECT_EQ(out.lines.at(1), std::pair(std::uint64_t{2}, std::uint64_t{2}));
}

TEST(text, escapes_hide_delimiters_and_line_ends) {
  EXPECT_EQ(everywhere(table(), "a\\\tb\t\\3\tx\\\ny\nc\t\\x32\tz\n").error,
            "22P02 invalid input for the sharding key, type bigint: \"\3\"");
  const auto out = everywhere(table(), "a\\\tb\t\\63\tx\\\ny\nc\t\\x32\t\\\\.\n");
  EXPECT_EQ(out.error, "");
  EXPECT_EQ(out.got.at(3), "a\\\tb\t\\63\tx\\\ny\n");
  EXPECT_EQ(out.got.at(2), "c\t\\x32\t\\\\.\n");
}

TEST(text, line_ends) {
  EXPECT_EQ(everywhere(table(), "a\t1\tx\r\nb\t2\ty\r\n").got.at(2), "b\t2\ty\r\n");
  EXPECT_EQ(everywhere(table(), "a\t1\tx\rb\t2\ty\r").got.at(2), "b\t2\ty\r");
  EXPECT_EQ(everywhere(table(), "a\t1\tx\rb\t2\ty").got.at(2), "b\t2\ty");
  EXPECT_EQ(everywhere(table(), "a\t1\tx\nb\t2\ty\r\n").error,
            "22P04 literal carriage return found in data");
  EXPECT_EQ(everywhere(table(), "a\t1\tx\r\nb\t2\ty\n").error,
            "22P04 literal newline found in data");
  EXPECT_EQ(everywhere(table(), "a\t1\tx\rb\t2\ty\n").error,
            "22P04 literal newline found in data");
  EXPECT_EQ(everywhere(table(), "a\t1\tx\r\nb\t2\ty\r").error,
            "22P04 literal carriage return found in data");
}

TEST(text, end_marker) {
  auto out = everywhere(table(), "a\t1\tx\n\\.\ngarbage \\ \t\n\r");
  EXPECT_EQ(out.error, "");
  EXPECT_EQ(out.got.at(1), "a\t1\tx\n");
  EXPECT_EQ(out.got.at(to_nobody), "\\.\ngarbage \\ \t\n\r");
  out = everywhere(table(), "a\t1\tx\\.\nb\t2\ty\n");   // what is before it is a row
  EXPECT_EQ(out.got.at(1), "a\t1\tx");
  EXPECT_EQ(out.got.count(2), 0u);
  EXPECT_EQ(everywhere(table(), "a\t1\tx\n\\.").error, "22P04 end-of-copy marker corrupt");
  EXPECT_EQ(everywhere(table(), "a\t1\tx\n\\.x\n").error, "22P04 end-of-copy marker corrupt");
  EXPECT_EQ(everywhere(table(), "a\t1\tx\r\n\\.\n").error,
            "22P04 end-of-copy marker does not match previous newline style");
  EXPECT_EQ(everywhere(table(), "a\t1\tx\n\\.\r\n").error,
            "22P04 end-of-copy marker does not match previous newline style");
  EXPECT_EQ(everywhere(table(), "a\t1\tx\r\n\\.\r\nz").error, "");
  EXPECT_EQ(everywhere(table(), "\\.\r\n").error, "");
  auto newer = table();
  newer.server_major = 18;
  EXPECT_EQ(everywhere(newer, "a\t1\tx\\.\nb\t2\ty\n").error,
            "22P04 end-of-copy marker is not alone on its line");
  EXPECT_EQ(everywhere(newer, "a\t1\tx\n\\.\nz").error, "");
}

TEST(text, null_marker_is_compared_before_escapes_are_undone) {
  EXPECT_EQ(everywhere(table(), "a\t\\N\tx\n").error,
            "23502 null value in the sharding key, column \"id\" of table \"t\"");
  auto s = table();
  s.options.null_text = "7";
  EXPECT_EQ(everywhere(s, "a\t\\7\tx\n").error.substr(0, 5), "22P02");   // is \007
  EXPECT_EQ(everywhere(s, "a\t\\67\tx\n").got.at(7), "a\t\\67\tx\n");
  EXPECT_EQ(everywhere(s, "a\t7\tx\n").error.substr(0, 5), "23502");
}

TEST(text, errors_name_their_line) {
  auto out = everywhere(table(), "a\t1\tx\nb\t2\n");
  EXPECT_EQ(out.error, "22P04 missing data for column \"note\"");
  EXPECT_EQ(out.context, "COPY t, line 2");
  EXPECT_EQ(everywhere(table(), "a\n").error, "22P04 missing data for column \"id\"");
  EXPECT_EQ(everywhere(table(), "\n").error, "22P04 missing data for column \"id\"");
  EXPECT_EQ(everywhere(table(), "a\tbad\tc\td\n").error,
            "22P04 extra data after last expected column");
  out = everywhere(table(), "a\t1\tx\na\t2\tx\nb\thello\tz\n");
  EXPECT_EQ(out.error, "22P02 invalid input for the sharding key, type bigint: \"hello\"");
  EXPECT_EQ(out.context, "COPY t, line 3, column id: \"hello\"");
  EXPECT_EQ(everywhere(table(), "a\t99999999999999999999\tx\n").error.substr(0, 5), "22003");
  EXPECT_EQ(everywhere(table(), "a\t11\tx\n").error,
            "0A000 no shard is given for this value of the sharding key");
}

TEST(text, rows_before_an_error_are_cut) {
  EXPECT_EQ(run(table(), "a\t1\tx\nb\tbad\ty\n").got.at(1), "a\t1\tx\n");
  // The one that has it, too: a server may have an error of a value before to tell.
  EXPECT_EQ(run(table(), "a\t1\tx\nb\tbad\ty\n").got.at(0), "b\tbad\ty\n");
  EXPECT_EQ(run(table(), "a\t1\tx\nb\tbad\ty\n").got.size(), 2u);
  EXPECT_EQ(run(table(), "a\t1\tx\nb\t2\n").got.at(2), "b\t2\n");
  EXPECT_EQ(run(table(), "b\n").got.at(0), "b\n");
}

TEST(text, a_row_is_cut_as_soon_as_its_key_is_known) {
  const auto machine = make_splitter(table());
  cut_list cuts;
  ASSERT_TRUE(machine->feed(as_bytes("some na"), cuts));
  EXPECT_TRUE(cuts.empty());
  ASSERT_TRUE(machine->feed(as_bytes("me\t4\tbegin\\"), cuts));
  ASSERT_EQ(cuts.size(), 1u);
  EXPECT_EQ(cuts[0], (cut{17, 4, 1, 1}));   // but the backslash, which may begin a marker
  cuts.clear();
  ASSERT_TRUE(machine->feed(as_bytes(".\nrest"), cuts));
  ASSERT_TRUE(machine->finish(cuts));
  ASSERT_EQ(cuts.size(), 1u);
  EXPECT_EQ(cuts[0], (cut{7, to_nobody, 0, 0}));
}

TEST(text, header_goes_to_all) {
  auto s = table();
  s.options.header = true;
  const auto out = everywhere(s, "name\tid\tnote\na\t1\tx\n");
  EXPECT_EQ(out.got.at(1), "name\tid\tnote\na\t1\tx\n");
  EXPECT_EQ(out.got.at(9), "name\tid\tnote\n");
  EXPECT_EQ(everywhere(s, "name").got.at(5), "name");
  EXPECT_EQ(everywhere(s, "").got.size(), 0u);
  EXPECT_EQ(everywhere(s, "x\\.\nmore").got.at(5), "x");
}

TEST(text, default_marker_places_nothing) {
  auto s = table();
  s.options.has_default = true;
  s.options.default_text = "\\D";
  EXPECT_EQ(everywhere(s, "a\t\\D\tx\n").error.substr(0, 5), "0A000");
  EXPECT_EQ(everywhere(s, "\\D\t1\t\\D\n").got.at(1), "\\D\t1\t\\D\n");
}

TEST(csv, quotes_hide_everything) {
  const auto out = everywhere(table(format::csv),
                              "\"a,\n\"\"b\",1,x\nc,\"2\",\"y\nz\"\nd,1,\"\"\n");
  EXPECT_EQ(out.error, "");
  EXPECT_EQ(out.got.at(1), "\"a,\n\"\"b\",1,x\nd,1,\"\"\n");
  EXPECT_EQ(out.got.at(2), "c,\"2\",\"y\nz\"\n");
  // The first shard's first line end stands in quotes: PostgreSQL counts only \r before it knows.
  EXPECT_EQ(out.lines.at(1), std::pair(std::uint64_t{2}, std::uint64_t{2}));
  EXPECT_EQ(out.lines.at(2), std::pair(std::uint64_t{2}, std::uint64_t{1}));
}

TEST(csv, an_escape_of_its_own) {
  auto s = table(format::csv);
  s.options.escape = '\\';
  const auto out = everywhere(s, "\"a\\\",\n\",1,x\nb,\"\\2\",\"\\\\\"\nc,3,\\\"x\"\n");
  EXPECT_EQ(out.error.substr(0, 5), "22P02");
  EXPECT_EQ(everywhere(s, "\"a\\\",\n\",1,x\n").got.at(1), "\"a\\\",\n\",1,x\n");
}

TEST(csv, null_matches_only_what_is_not_quoted) {
  EXPECT_EQ(everywhere(table(format::csv), "a,,x\n").error.substr(0, 5), "23502");
  EXPECT_EQ(everywhere(table(format::csv), "a,\"\",x\n").error.substr(0, 5), "22P02");
  auto s = table(format::csv);
  s.options.null_text = "3";
  EXPECT_EQ(everywhere(s, "a,\"3\",x\n").got.at(3), "a,\"3\",x\n");
  EXPECT_EQ(everywhere(s, "a,3,x\n").error.substr(0, 5), "23502");
  s.options.not_null = {"id"};
  EXPECT_EQ(everywhere(s, "a,3,x\n").got.at(3), "a,3,x\n");
  s.options.not_null = {};
  s.options.null = {"id"};
  EXPECT_EQ(everywhere(s, "a,\"3\",x\n").error.substr(0, 5), "23502");
}

TEST(csv, errors) {
  EXPECT_EQ(everywhere(table(format::csv), "a,1,\"x\n").error,
            "22P04 unterminated CSV quoted field");
  EXPECT_EQ(everywhere(table(format::csv), "a,1,x\nb,2,y\rz\n").error,
            "22P04 unquoted carriage return found in data");
  EXPECT_EQ(everywhere(table(format::csv), "\"a\nb\",1,x\nc,2\n").context, "COPY t, line 2");
  EXPECT_EQ(everywhere(table(format::csv), "c,2,x\n\"a\nb\",1,x\nc,2\n").context,
            "COPY t, line 4");
}

TEST(csv, end_marker_stands_alone) {
  auto out = everywhere(table(format::csv), "a,1,x\n\\.\nb,2,y\n");
  EXPECT_EQ(out.got.at(to_nobody), "\\.\nb,2,y\n");
  out = everywhere(table(format::csv), "\\.,1,x\n\\,2,\\.\n");
  EXPECT_EQ(out.got.at(1), "\\.,1,x\n");
  EXPECT_EQ(out.got.at(2), "\\,2,\\.\n");
  EXPECT_EQ(everywhere(table(format::csv), "a,1,x\n\\.").error,
            "22P04 missing data for column \"id\"");
  EXPECT_EQ(everywhere(table(format::csv), "a,1,x\r\n\\.\r\nz").error, "");
  EXPECT_EQ(everywhere(table(format::csv), "a,1,x\r\n\\.\rz").error,
            "22P04 unquoted carriage return found in data");
  auto s = table(format::csv);
  s.server_major = 18;
  EXPECT_EQ(everywhere(s, "a,1,x\n\\.\n").error, "22P04 missing data for column \"id\"");
}

std::string be16(int n) { return {static_cast<char>(n >> 8), static_cast<char>(n)}; }
std::string be32(int n) { return be16(n >> 16) + be16(n & 0xffff); }
std::string field(std::string_view bytes) {
  return be32(static_cast<int>(bytes.size())) + std::string(bytes);
}
const std::string binary_header = "PGCOPY\n\377\r\n\0"s + be32(0) + be32(3) + "ext";
std::string binary_row(int id) {
  return be16(3) + field("name") + field(be32(id)) + be32(-1);
}

TEST(binary, rows_header_and_trailer) {
  const auto out = everywhere(table(format::binary),
                              binary_header + binary_row(1) + binary_row(2) + binary_row(1) +
                                  be16(-1));
  EXPECT_EQ(out.error, "");
  EXPECT_EQ(out.got.at(1), binary_header + binary_row(1) + binary_row(1) + be16(-1));
  EXPECT_EQ(out.got.at(2), binary_header + binary_row(2) + be16(-1));
  EXPECT_EQ(out.got.at(3), binary_header + be16(-1));
  EXPECT_EQ(everywhere(table(format::binary), binary_header + binary_row(1)).error, "");
}

TEST(binary, errors) {
  const auto error = [](const std::string& input) {
    return everywhere(table(format::binary), input).error;
  };
  EXPECT_EQ(error("PGCOPY\n\377\r\n1"), "22P04 COPY file signature not recognized");
  EXPECT_EQ(error(""), "22P04 COPY file signature not recognized");
  EXPECT_EQ(error("PGCOPY\n\377\r\n\0\0\0"s), "22P04 invalid COPY file header (missing flags)");
  EXPECT_EQ(error("PGCOPY\n\377\r\n\0"s + be32(1 << 16) + be32(0)),
            "22P04 invalid COPY file header (WITH OIDS)");
  EXPECT_EQ(error("PGCOPY\n\377\r\n\0"s + be32(1 << 17) + be32(0)),
            "22P04 unrecognized critical flags in COPY file header");
  EXPECT_EQ(error("PGCOPY\n\377\r\n\0"s + be32(1) + be32(-1)),
            "22P04 invalid COPY file header (missing length)");
  EXPECT_EQ(error("PGCOPY\n\377\r\n\0"s + be32(1) + be32(5) + "abc"),
            "22P04 invalid COPY file header (wrong length)");
  EXPECT_EQ(error(binary_header + be16(2)), "22P04 row field count is 2, expected 3");
  EXPECT_EQ(error(binary_header + be16(3) + be32(-2)), "22P04 invalid field size");
  EXPECT_EQ(error(binary_header + be16(3) + be32(5) + "ab"), "22P04 unexpected EOF in COPY data");
  EXPECT_EQ(error(binary_header + be16(3) + be32(0) + be32(-1)),
            "23502 null value in the sharding key, column \"id\" of table \"t\"");
  EXPECT_EQ(error(binary_header + be16(3) + be32(0) + field("abc")).substr(0, 5), "22P03");
  EXPECT_EQ(error(binary_header + be16(-1) + "x"), "22P04 received copy data after EOF marker");
}

// What any input is made of, put together anyhow: never a crash, and the same however it is cut.
TEST(any_input, is_cut_the_same_wherever_its_borders_are) {
  std::mt19937 random(7);
  const std::vector<std::string> parts{"a", "1", "2", "\t", ",", "\n", "\r\n", "\r", "\\", "\\.",
                                       "\"", "\\N", "\\x31", "b\t3\tc\n", "b,3,c\n", "\\.\n", "\""};
  for (int n = 0; n < 4000; ++n) {
    auto s = table(n % 2 == 0 ? format::text : format::csv);
    s.options.header = n % 5 == 0;
    if (n % 3 == 0) s.options.escape = '\\';
    std::string input;
    for (unsigned i = random() % 16; i > 0; --i) input += parts[random() % parts.size()];
    SCOPED_TRACE(testing::PrintToString(input) + (n % 2 == 0 ? " text" : " csv"));
    everywhere(s, input);
    if (HasFailure()) return;
  }
}

TEST(description, travels) {
  auto s = table(format::csv);
  s.options.null = {"a", "b"};
  s.options.encoding = "utf-8";
  std::string bytes;
  encode(s, bytes);
  const auto again = decode_spec(as_bytes(bytes));
  ASSERT_TRUE(again) << again.error();
  std::string twice;
  encode(*again, twice);
  EXPECT_EQ(bytes, twice);
  for (std::size_t cut = 0; cut < bytes.size(); ++cut) {
    EXPECT_FALSE(decode_spec(as_bytes(bytes).first(cut)));
  }
  s.mappings[0].list[0].second = 10;
  bytes.clear();
  encode(s, bytes);
  EXPECT_FALSE(decode_spec(as_bytes(bytes)));
}

TEST(description, names_characters_only_where_they_matter) {
  auto s = table();
  std::string plain, wide;
  encode(s, plain);
  s.characters = characters::gb18030;
  encode(s, wide);
  EXPECT_EQ(wide.size(), plain.size() + 1) << "an older replicator refuses it";
  const auto again = decode_spec(as_bytes(wide));
  ASSERT_TRUE(again) << again.error();
  EXPECT_EQ(again->characters, characters::gb18030);
  for (const char wrong : {'\0', '\5'}) {
    wide.back() = wrong;
    EXPECT_FALSE(decode_spec(as_bytes(wide)));
  }
}

TEST(encodings, are_known_by_all_their_names) {
  EXPECT_EQ(encoding_name("utf-8"), "UTF8");
  EXPECT_EQ(encoding_name("iso_8859-1"), "LATIN1");
  EXPECT_EQ(encoding_name("Windows-932"), "SJIS");
  EXPECT_EQ(encoding_name("mskanji"), "SJIS");
  EXPECT_EQ(encoding_name("shift_jis_2004"), "SHIFT_JIS_2004");
  EXPECT_EQ(encoding_name("no such"), "");
  EXPECT_EQ(characters_of("SJIS", "UTF8"), characters::shift_jis);
  EXPECT_EQ(characters_of("BIG5", "EUC_TW"), characters::two_bytes);
  EXPECT_EQ(characters_of("GB18030", "UTF8"), characters::gb18030);
  EXPECT_EQ(characters_of("EUC_JP", "UTF8"), characters::bytes);
  EXPECT_EQ(characters_of("SJIS", "SQL_ASCII"), characters::bytes) << "nothing is converted";
}

spec wide_table(characters kind, format f = format::text) {
  auto s = table(f);
  s.characters = kind;
  s.encoding = placement::encoding::converted;
  return s;
}

TEST(wide_characters, hide_backslash_delimiter_and_quote) {
  // 0x5c is a backslash, 0x7c a bar, 0x40 an at sign.
  auto s = wide_table(characters::shift_jis);
  s.options.delimiter = '|';
  auto out = everywhere(s, "\x95\x5c|1|\x83\x5c\n\x81\x7c|2|\x95\x5c\n\\\x95\x5c|3|\xb1\\|\n");
  EXPECT_EQ(out.error, "");
  EXPECT_EQ(out.got.at(1), "\x95\x5c|1|\x83\x5c\n");
  EXPECT_EQ(out.got.at(2), "\x81\x7c|2|\x95\x5c\n");
  EXPECT_EQ(out.got.at(3), "\\\x95\x5c|3|\xb1\\|\n") << "half-width katakana are one byte";
  s = wide_table(characters::two_bytes, format::csv);
  s.options.quote = s.options.escape = '@';
  out = everywhere(s, "\xa4\x40,1,@x\xa4\x40,\n\xa4\x40@\n@\xa4\x40@,2,z\n");
  EXPECT_EQ(out.error, "");
  EXPECT_EQ(out.got.at(1), "\xa4\x40,1,@x\xa4\x40,\n\xa4\x40@\n");
  EXPECT_EQ(out.got.at(2), "@\xa4\x40@,2,z\n");
}

TEST(wide_characters, of_gb18030_have_two_bytes_or_four) {
  auto s = wide_table(characters::gb18030);
  s.options.delimiter = '0';
  const auto out = everywhere(s, "\x81\x30\x89\x38""010\xd5\x5c\nx020\x81\x30\x89\x38\n");
  EXPECT_EQ(out.error, "");
  EXPECT_EQ(out.got.at(1), "\x81\x30\x89\x38""010\xd5\x5c\n");
  EXPECT_EQ(out.got.at(2), "x020\x81\x30\x89\x38\n");
}

// A server says what is wrong with such bytes: all of them have to reach one.
TEST(wide_characters, that_are_none_go_to_a_shard) {
  const auto s = wide_table(characters::two_bytes);
  auto out = everywhere(s, "a\t1\tx\xa4");
  EXPECT_EQ(out.error.substr(0, 5), "22021") << "half a character at the end";
  EXPECT_EQ(out.context, "COPY t, line 1");
  out = everywhere(s, "a\t1\tx\xa4\nb\t2\ty\n");
  EXPECT_EQ(out.error, "22P04 extra data after last expected column");
  EXPECT_EQ(out.got.at(1), "a\t1\tx\xa4\nb\t2\ty\n");
  EXPECT_EQ(everywhere(wide_table(characters::gb18030), "b\x81").error.substr(0, 5), "22021");
}

TEST(wide_characters, are_no_keys_and_their_escapes_are_none) {
  EXPECT_EQ(everywhere(wide_table(characters::shift_jis), "a\t\x95\x5c\tx\n").error.substr(0, 5),
            "22P02");
  auto s = wide_table(characters::shift_jis);
  s.options.null_text = "\x95\x5c";
  EXPECT_EQ(everywhere(s, "a\t\x95\x5c\tx\n").error.substr(0, 5), "23502");
}

}  // namespace
}  // namespace pgsled::copy
