#include "common/copy/splitter.hpp"

#include "common/copy/binary_splitter.hpp"
#include "common/copy/text_splitter.hpp"

namespace pgsled::copy {

splitter::splitter(spec s) : spec_(std::move(s)) {
  if (!spec_.mappings.empty()) mapping_.emplace(spec_.mappings.front());
}

std::optional<std::uint32_t> splitter::place(placement::form how, std::string_view bytes) {
  using placement::encoding;
  using placement::key_type;
  placement::text_rules texts{spec_.encoding, spec_.limit};
  // Lists and ranges are the file's, in UTF-8.
  if (spec_.rule.mapping != 0 && texts.encoding != encoding::utf8) {
    texts.encoding = encoding::converted;
  }
  if (how == placement::form::binary && spec_.rule.type == key_type::uuid && bytes.size() != 16) {
    unplaced_ = {"22P03", "incorrect binary data format for the sharding key, type uuid", {}, {}};
    return std::nullopt;
  }
  const auto value = placement::normalise(spec_.rule.type, how, bytes, texts);
  if (!value) {
    unplaced_ = value.error();
    const bool digits = spec_.rule.type == key_type::bigint && how == placement::form::text &&
                        bytes.find_first_not_of(" \t\n\v\f\r+-0123456789") == bytes.npos &&
                        bytes.find_first_of("0123456789") != bytes.npos &&
                        bytes.find_last_of("+-") == bytes.find_first_of("+-");
    // Of a number that is none but in size PostgreSQL says so.
    if (digits && unplaced_->sqlstate == "22P02" && bytes.size() > 18) {
      unplaced_->sqlstate = "22003";
      unplaced_->message = "value \"" + std::string(bytes.substr(0, 64)) +
                           "\" is out of range for the sharding key, type bigint";
    }
    if (how == placement::form::binary && unplaced_->sqlstate == "22P02") {
      unplaced_->sqlstate = "22P03";
    }
    return std::nullopt;
  }
  if (spec_.rule.mapping == 0) {
    return placement::shard_of(placement::hash_of(spec_.rule.hasher, *value), spec_.bucket_map);
  }
  const auto found = mapping_->find(*value);
  if (!found) {
    unplaced_ = {"0A000", "no shard is given for this value of the sharding key",
                 "Add it to a list, a range or the default of the table in pgdog.toml.", {}};
  }
  return found;
}

std::uint32_t splitter::any_shard() const {
  if (!spec_.bucket_map.empty()) return spec_.bucket_map.front();
  const auto& rows = spec_.mappings.front();
  return !rows.list.empty()     ? rows.list.front().second
         : !rows.ranges.empty() ? rows.ranges.front().shard
                                : static_cast<std::uint32_t>(std::max<std::int64_t>(
                                      rows.fallback, 0));
}

void splitter::fail(pg_error why, const std::string* column, const std::string* value) {
  if (failed_) return;
  std::string context = "COPY " + spec_.table + ", line " + std::to_string(line_);
  if (column != nullptr) context += ", column " + *column;
  if (value != nullptr) {
    constexpr std::size_t longest = 100;  // as PostgreSQL cuts them
    context += ": \"" + value->substr(0, longest) + (value->size() > longest ? "..." : "") + "\"";
  }
  failed_ = {std::move(why), std::move(context), line_};
}

void splitter::fail(std::string sqlstate, std::string message, std::string hint) {
  fail(pg_error{std::move(sqlstate), std::move(message), std::move(hint), {}});
}

void splitter::cut_to(std::uint64_t end, std::uint32_t to, cut_list& list) {
  PGSLED_ASSERT(end >= cut_);
  const cut next{end - cut_, to, std::exchange(row_lines_, 0), std::exchange(row_shard_lines_, 0)};
  cut_ = end;
  if (next.bytes == 0 && next.lines == 0 && next.shard_lines == 0) return;
  const bool even = next.lines == next.shard_lines;
  if (even && !list.empty() && list.back().shard == to &&
      list.back().lines == list.back().shard_lines) {
    list.back().bytes += next.bytes;
    list.back().lines += next.lines;
    list.back().shard_lines += next.shard_lines;
    return;
  }
  list.push_back(next);
}

void encode(const split_error& from, std::string& to) {
  for (const auto* text : {&from.error.sqlstate, &from.error.message, &from.error.hint,
                           &from.error.detail, &from.context}) {
    char size[4];
    store_le(size, static_cast<std::uint32_t>(text->size()));
    to.append(size, sizeof size).append(*text);
  }
  char line[8];
  store_le(line, from.line);
  to.append(line, sizeof line);
}

std::optional<split_error> decode_split_error(byte_span bytes) {
  split_error out;
  for (auto* text : {&out.error.sqlstate, &out.error.message, &out.error.hint, &out.error.detail,
                     &out.context}) {
    if (bytes.size() < 4) return std::nullopt;
    const auto size = load_le<std::uint32_t>(bytes.data());
    bytes = bytes.subspan(4);
    if (size > bytes.size()) return std::nullopt;
    *text = as_text(bytes.first(size));
    bytes = bytes.subspan(size);
  }
  if (bytes.size() != 8 || out.error.sqlstate.size() != 5) return std::nullopt;
  out.line = load_le<std::uint64_t>(bytes.data());
  return out;
}

std::unique_ptr<splitter> make_splitter(spec s) {
  if (s.options.format == format::binary) return std::make_unique<binary_splitter>(std::move(s));
  return std::make_unique<text_splitter>(std::move(s));
}

}  // namespace pgsled::copy
