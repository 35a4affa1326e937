// Layout: fields (common/base/fields.hpp) in the order of the structs.
#include "common/copy/spec.hpp"

#include <algorithm>

#include "common/base/fields.hpp"

namespace pgsled::copy {
namespace {

constexpr const char* subject = "description of a COPY";

void write(field_writer& w, const options& o) {
  w.integer(static_cast<std::uint8_t>(o.format));
  for (const char one : {o.delimiter, o.quote, o.escape}) w.integer(one);
  for (const bool one : {o.header, o.has_default, o.all_not_null, o.all_null}) w.flag(one);
  w.text(o.null_text);
  w.text(o.default_text);
  w.text(o.encoding);
  w.texts(o.not_null);
  w.texts(o.null);
}

options read_options(field_reader& r) {
  options o;
  o.format = r.enumeration(format::text, format::binary);
  for (char* one : {&o.delimiter, &o.quote, &o.escape}) *one = r.integer<char>();
  for (bool* one : {&o.header, &o.has_default, &o.all_not_null, &o.all_null}) *one = r.flag();
  o.null_text = r.text();
  o.default_text = r.text();
  o.encoding = r.text();
  o.not_null = r.texts();
  o.null = r.texts();
  return o;
}

void write(field_writer& w, const placement::mapping& m) {
  w.integer(m.id);
  w.text(m.type);
  w.list(m.list, [&](const auto& entry) {
    w.text(entry.first);
    w.integer(entry.second);
  });
  w.list(m.ranges, [&](const placement::mapping_range& range) {
    w.text(range.start);
    w.text(range.end);
    w.flag(range.has_start);
    w.flag(range.has_end);
    w.integer(range.shard);
  });
  w.integer(m.fallback);
}

placement::mapping read_mapping(field_reader& r) {
  placement::mapping m;
  m.id = r.integer<std::uint64_t>();
  m.type = r.text();
  m.list = r.list<std::pair<std::string, std::uint32_t>>(8, [&] {
    std::pair<std::string, std::uint32_t> entry;
    entry.first = r.text();
    entry.second = r.integer<std::uint32_t>();
    return entry;
  });
  m.ranges = r.list<placement::mapping_range>(14, [&] {
    placement::mapping_range range;
    range.start = r.text();
    range.end = r.text();
    range.has_start = r.flag();
    range.has_end = r.flag();
    range.shard = r.integer<std::uint32_t>();
    return range;
  });
  m.fallback = r.integer<std::int64_t>();
  return m;
}

bool names_only(const spec& s) {
  const auto fits = [&](std::uint32_t shard) { return shard < s.shards; };
  if (!std::all_of(s.bucket_map.begin(), s.bucket_map.end(), fits)) return false;
  for (const auto& m : s.mappings) {
    if (m.fallback >= static_cast<std::int64_t>(s.shards)) return false;
    for (const auto& entry : m.list) {
      if (!fits(entry.second)) return false;
    }
    for (const auto& range : m.ranges) {
      if (!fits(range.shard)) return false;
    }
  }
  return true;
}

}  // namespace

void encode(const options& from, std::string& to) {
  field_writer w{to};
  write(w, from);
}

tl::expected<options, std::string> decode_options(byte_span bytes) {
  field_reader r{bytes, subject};
  options o = read_options(r);
  return r.finish(std::move(o));
}

void encode(const spec& s, std::string& to) {
  field_writer w{to};
  write(w, s.options);
  w.text(s.table);
  w.texts(s.columns);
  w.integer(s.key);
  w.flag(s.everywhere);
  w.integer(static_cast<std::uint8_t>(s.rule.type));
  w.integer(static_cast<std::uint8_t>(s.rule.hasher));
  w.integer(s.rule.mapping);
  w.integer(s.limit);
  w.integer(static_cast<std::uint8_t>(s.encoding));
  w.integer(s.server_major);
  w.integer(s.shards);
  w.list(s.bucket_map, [&](std::uint32_t shard) { w.integer(shard); });
  w.list(s.mappings, [&](const placement::mapping& one) { write(w, one); });
  // Left out where an older replicator can do without it.
  if (s.characters != characters::bytes) w.integer(static_cast<std::uint8_t>(s.characters));
}

tl::expected<spec, std::string> decode_spec(byte_span bytes) {
  using namespace placement;
  field_reader r{bytes, subject};
  spec s;
  s.options = read_options(r);
  s.table = r.text();
  s.columns = r.texts();
  s.key = r.integer<std::uint32_t>();
  s.everywhere = r.flag();
  s.rule.type = r.enumeration(key_type::bigint, key_type::varchar);
  s.rule.hasher = r.enumeration(hasher::postgres, hasher::sha1);
  s.rule.mapping = r.integer<std::uint64_t>();
  s.limit = r.integer<std::uint32_t>();
  s.encoding = r.enumeration(encoding::converted, encoding::multi_byte);
  s.server_major = r.integer<std::uint32_t>();
  s.shards = r.integer<std::uint32_t>();
  s.bucket_map = r.list<std::uint32_t>(4, [&] { return r.integer<std::uint32_t>(); });
  s.mappings = r.list<mapping>(28, [&] { return read_mapping(r); });
  if (!r.over()) s.characters = r.enumeration(characters::two_bytes, characters::gb18030);
  constexpr std::uint32_t most_shards = 1u << 16;
  if (s.shards == 0 || s.shards > most_shards || !names_only(s)) r.fail("names shards wrongly");
  if (!s.everywhere && s.key >= s.columns.size()) r.fail("has no column for the key");
  const bool placed = s.everywhere || (s.rule.mapping == 0 ? !s.bucket_map.empty()
                                                           : s.mappings.size() == 1);
  if (!placed) r.fail("does not say where rows go");
  return r.finish(std::move(s));
}

std::string encoding_name(std::string_view as_written) {
  // As PostgreSQL compares them: letters and digits only, in lower case.
  static constexpr std::pair<const char*, const char*> names[] = {
      {"sjis", "SJIS"}, {"mskanji", "SJIS"}, {"shiftjis", "SJIS"}, {"win932", "SJIS"},
      {"windows932", "SJIS"}, {"shiftjis2004", "SHIFT_JIS_2004"}, {"big5", "BIG5"},
      {"win950", "BIG5"}, {"windows950", "BIG5"}, {"gbk", "GBK"}, {"win936", "GBK"},
      {"windows936", "GBK"}, {"uhc", "UHC"}, {"win949", "UHC"}, {"windows949", "UHC"},
      {"johab", "JOHAB"}, {"gb18030", "GB18030"},
      {"sqlascii", "SQL_ASCII"}, {"eucjp", "EUC_JP"}, {"euccn", "EUC_CN"}, {"euckr", "EUC_KR"},
      {"euctw", "EUC_TW"}, {"eucjis2004", "EUC_JIS_2004"}, {"utf8", "UTF8"},
      {"unicode", "UTF8"}, {"muleinternal", "MULE_INTERNAL"},
      {"latin1", "LATIN1"}, {"latin2", "LATIN2"}, {"latin3", "LATIN3"}, {"latin4", "LATIN4"},
      {"latin5", "LATIN5"}, {"latin6", "LATIN6"}, {"latin7", "LATIN7"}, {"latin8", "LATIN8"},
      {"latin9", "LATIN9"}, {"latin10", "LATIN10"}, {"iso88591", "LATIN1"},
      {"iso88592", "LATIN2"}, {"iso88593", "LATIN3"}, {"iso88594", "LATIN4"},
      {"iso88595", "ISO_8859_5"}, {"iso88596", "ISO_8859_6"}, {"iso88597", "ISO_8859_7"},
      {"iso88598", "ISO_8859_8"}, {"iso88599", "LATIN5"}, {"iso885910", "LATIN6"},
      {"iso885913", "LATIN7"}, {"iso885914", "LATIN8"}, {"iso885915", "LATIN9"},
      {"iso885916", "LATIN10"}, {"koi8", "KOI8R"}, {"koi8r", "KOI8R"}, {"koi8u", "KOI8U"},
      {"win", "WIN1251"}, {"win866", "WIN866"}, {"windows866", "WIN866"}, {"alt", "WIN866"},
      {"win874", "WIN874"}, {"windows874", "WIN874"}, {"win1250", "WIN1250"},
      {"windows1250", "WIN1250"}, {"win1251", "WIN1251"}, {"windows1251", "WIN1251"},
      {"win1252", "WIN1252"}, {"windows1252", "WIN1252"}, {"win1253", "WIN1253"},
      {"windows1253", "WIN1253"}, {"win1254", "WIN1254"}, {"windows1254", "WIN1254"},
      {"win1255", "WIN1255"}, {"windows1255", "WIN1255"}, {"win1256", "WIN1256"},
      {"windows1256", "WIN1256"}, {"win1257", "WIN1257"}, {"windows1257", "WIN1257"},
      {"win1258", "WIN1258"}, {"windows1258", "WIN1258"}, {"abc", "WIN1258"},
      {"tcvn", "WIN1258"}, {"tcvn5712", "WIN1258"}, {"vscii", "WIN1258"},
  };
  std::string plain;
  for (const char c : as_written) {
    if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9')) plain += c;
    if (c >= 'A' && c <= 'Z') plain += static_cast<char>(c + ('a' - 'A'));
  }
  for (const auto& [known, name] : names) {
    if (plain == known) return name;
  }
  return {};
}

characters characters_of(std::string_view name, std::string_view server) {
  if (server == "SQL_ASCII") return characters::bytes;
  if (name == "SJIS" || name == "SHIFT_JIS_2004") return characters::shift_jis;
  if (name == "BIG5" || name == "GBK" || name == "UHC") return characters::two_bytes;
  if (name == "JOHAB") return characters::johab;
  return name == "GB18030" ? characters::gb18030 : characters::bytes;
}

}  // namespace pgsled::copy
