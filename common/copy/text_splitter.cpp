#include "common/copy/text_splitter.hpp"

#include <algorithm>

namespace pgsled::copy {
namespace {

bool named(const std::vector<std::string>& list, const std::string& column) {
  return std::find(list.begin(), list.end(), column) != list.end();
}

int octal(char c) { return c >= '0' && c <= '7' ? c - '0' : -1; }
int hex(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

}  // namespace

text_splitter::text_splitter(spec s) : splitter(std::move(s)) {
  const auto& o = spec_.options;
  const auto mark = [](std::array<bool, 256>& table, char c) {
    table[static_cast<unsigned char>(c)] = true;
  };
  for (const char c : {'\n', '\r', '\\', o.delimiter}) mark(special_, c);
  if (csv()) {
    mark(special_, o.quote);
    for (const char c : {'\n', '\r', '\\', o.quote, o.escape}) mark(special_quoted_, c);
  }
  if (spec_.characters != characters::bytes) {
    std::fill(special_.begin() + 0x80, special_.end(), true);
    std::fill(special_quoted_.begin() + 0x80, special_quoted_.end(), true);
  }
  force_not_null_ = o.all_not_null || named(o.not_null, key_column());
  force_null_ = o.all_null || named(o.null, key_column());
  header_ = o.header;
  seen_.resize(spec_.shards);
  line_ = 1;
}

bool text_splitter::feed(byte_span bytes, cut_list& to) {
  chunk_ = bytes;
  chunk_at_ = offset_;
  std::size_t i = 0;
  while (i < bytes.size() && !failed_ && state_ != state::ended) {
    if (character_left_ > 0 || second_tells_) {
      i = skip_character(bytes, i);
      continue;
    }
    if (state_ == state::plain) {
      while (i < bytes.size() && !special_[bytes[i]]) ++i;
    } else if (state_ == state::quoted) {
      while (i < bytes.size() && !special_quoted_[bytes[i]]) ++i;
    }
    if (i == bytes.size()) break;
    step(static_cast<char>(bytes[i]), chunk_at_ + i, to);
    const auto length = length_of(spec_.characters, bytes[i]);
    second_tells_ = length == 0;
    character_left_ = std::max<std::size_t>(length, 1) - 1;
    ++i;
  }
  offset_ += bytes.size();
  if (failed_) return false;
  if (state_ == state::ended) {
    cut_to(offset_, to_nobody, to);
    return true;
  }
  if (field_ == spec_.key && !header_ && !shard_) {
    const auto from = std::max(field_begin_, chunk_at_);
    if (from < offset_) raw_.append(as_text(bytes.subspan(from - chunk_at_)));
    if (raw_.size() > max_key) {
      fail("54000", "the sharding key is longer than " + std::to_string(max_key) + " bytes");
      return false;
    }
  }
  // What is certain to be the row's need not wait for its end.
  const bool doubtful = state_ == state::escaped || state_ == state::carriage ||
                        state_ == state::backslash || state_ == state::marker ||
                        state_ == state::marker_carriage;
  const auto certain = doubtful ? doubt_ : offset_;
  if ((shard_ || header_) && certain > cut_) {
    row_lines_ += line_begin_ >= cut_ ? 1 : 0;
    row_shard_lines_ += line_begin_ >= cut_ ? 1 : 0;
    cut_to(certain, header_ ? to_all : *shard_, to);
  }
  return true;
}

// What is behind a character's first byte is part of it, whatever it looks like.
std::size_t text_splitter::skip_character(byte_span bytes, std::size_t from) {
  if (std::exchange(second_tells_, false)) character_left_ = length_by_second(bytes[from]) - 1;
  const auto count = std::min(character_left_, bytes.size() - from);
  character_left_ -= count;
  return from + count;
}

void text_splitter::step(char c, std::uint64_t at, cut_list& to) {
  switch (state_) {
    case state::plain: return plain(c, at, to);
    case state::escaped:
      if (c == '.') {
        before_marker_ = state::plain;
        state_ = state::marker;
      } else {
        state_ = state::plain;  // whatever it is, it is data
      }
      return;
    case state::quoted: return quoted(c);
    case state::quote_escape:
      state_ = state::quoted;
      if (c == spec_.options.quote || c == spec_.options.escape) return;
      return quoted(c);
    case state::quote_quote:
      if (c == spec_.options.quote) {
        state_ = state::quoted;
        return;
      }
      state_ = state::plain;
      return plain(c, at, to);
    case state::carriage:
      if (c == '\n') {
        end_ = line_end::both;
        return end_line(doubt_, at + 1, to);
      }
      if (end_ == line_end::both) return literal_end("carriage return");
      end_ = line_end::carriage;
      end_line(doubt_, at, to);
      if (failed_ || state_ == state::ended) return;
      return plain(c, at, to);
    case state::backslash:
      if (c == '.') {
        state_ = state::marker;
        return;
      }
      state_ = before_marker_;
      return step(c, at, to);
    case state::marker:
    case state::marker_carriage: return marker(c, at, to);
    case state::ended: return;
  }
}

void text_splitter::plain(char c, std::uint64_t at, cut_list& to) {
  const auto& o = spec_.options;
  if (csv() && c == o.quote) {
    state_ = state::quoted;
    if (field_ == spec_.key) key_unquoted_ = false;
  } else if (c == '\r') {
    if (end_ == line_end::newline) return literal_end("carriage return");
    if (end_ == line_end::carriage) return end_line(at, at + 1, to);
    doubt_ = at;
    state_ = state::carriage;
    return;
  } else if (c == '\n') {
    if (end_ == line_end::carriage || end_ == line_end::both) return literal_end("newline");
    end_ = line_end::newline;
    return end_line(at, at + 1, to);
  } else if (c == '\\' && !csv()) {
    doubt_ = at;
    state_ = state::escaped;
    return;
  }
  if (c == o.delimiter && state_ == state::plain) {
    end_field(at);
    ++field_;
    field_begin_ = at + 1;
    key_unquoted_ = true;
  }
  // In CSV only a line that is \. alone ends the input, from PostgreSQL 18 on not even that.
  if (c == '\\' && csv() && at == line_begin_ && spec_.server_major < 18) {
    doubt_ = at;
    before_marker_ = state_;
    state_ = state::backslash;
  }
}

void text_splitter::quoted(char c) {
  const auto& o = spec_.options;
  // How PostgreSQL counts lines depends on the ends it has met so far; a shard may have met none.
  if (c == (end_ == line_end::newline ? '\n' : '\r')) ++line_ends_, ++line_;
  if (c == '\r') ++carriages_;
  if (c == o.quote) {
    state_ = o.escape == o.quote ? state::quote_quote : state::plain;
  } else if (c == o.escape) {
    state_ = state::quote_escape;
  }
}

// Behind \. comes what the lines' ends are made of, or it is an error; in CSV it is data then.
void text_splitter::marker(char c, std::uint64_t at, cut_list& to) {
  if (state_ == state::marker && end_ == line_end::both) {
    if (c == '\r') {
      state_ = state::marker_carriage;
      return;
    }
    if (csv()) return no_marker(c, at, to);
    return fail("22P04", c == '\n' ? "end-of-copy marker does not match previous newline style"
                                   : "end-of-copy marker corrupt");
  }
  if (c != '\r' && c != '\n') {
    if (csv()) return no_marker(c, at, to);
    return fail("22P04", "end-of-copy marker corrupt");
  }
  const bool wanted = end_ == line_end::unknown || c == (end_ == line_end::carriage ? '\r' : '\n');
  if (!wanted) return fail("22P04", "end-of-copy marker does not match previous newline style");
  end_marker(at + 1, to);
}

// The line only begins like the marker: what was read ahead is read again as data.
void text_splitter::no_marker(char c, std::uint64_t at, cut_list& to) {
  const bool carriage = state_ == state::marker_carriage;
  state_ = before_marker_;
  const auto again = [&](char ahead, std::uint64_t where) {
    if (!failed_ && state_ != state::ended) step(ahead, where, to);
  };
  again('.', doubt_ + 1);
  if (carriage) again('\r', at - 1);
  again(c, at);
}

void text_splitter::end_marker(std::uint64_t at, cut_list& to) {
  if (doubt_ > line_begin_ && spec_.server_major >= 18) {
    return fail("22P04", "end-of-copy marker is not alone on its line");
  }
  // What stands before it is the last row.
  if (doubt_ > line_begin_ || header_) end_line(doubt_, doubt_, to);
  if (failed_) return;
  row_lines_ = row_shard_lines_ = 0;
  state_ = state::ended;
  cut_to(at, to_nobody, to);
}

void text_splitter::end_field(std::uint64_t at) {
  if (field_ != spec_.key || header_) return;
  if (field_begin_ >= chunk_at_) {
    read_key(as_text(chunk_.subspan(field_begin_ - chunk_at_, at - field_begin_)));
    return;
  }
  if (at > chunk_at_) raw_.append(as_text(chunk_.first(at - chunk_at_)));
  raw_.resize(at - field_begin_);
  read_key(raw_);
}

void text_splitter::read_key(std::string_view raw) {
  const auto& o = spec_.options;
  const auto unplaced = [&](const char* sqlstate, std::string message, std::string hint) {
    unplaced_ = {sqlstate, std::move(message), std::move(hint), {}};
    value_.assign(raw);
  };
  const auto is_null = [&] {
    unplaced("23502", "null value in the sharding key, column \"" + key_column() +
                          "\" of table \"" + spec_.table + "\"",
             "A row is placed by its key: give it a value.");
  };
  bool null = key_unquoted_ && raw == o.null_text;
  if (!null && o.has_default && key_unquoted_ && raw == o.default_text) {
    return unplaced("0A000", "the sharding key is the marker of its default, which only a shard "
                             "can make a value of",
                    "Give the key a value.");
  }
  std::string_view value;
  if (null && csv() && force_not_null_) {
    value = o.null_text;
    null = false;
  } else if (!null) {
    value = csv() ? undo_csv(raw) : undo_text(raw);
    if (csv() && force_null_ && value == o.null_text) null = true;
  }
  if (null) return is_null();
  shard_ = place(placement::form::text, value);
  if (!shard_) value_ = std::string(value);
}

// The place of its last byte.
std::size_t text_splitter::take_character(std::string_view raw, std::size_t at) {
  const auto length = length_at(spec_.characters, raw, at);
  value_.append(raw.substr(at, length));
  return at + length - 1;
}

std::string_view text_splitter::undo_text(std::string_view raw) {
  if (raw.find('\\') == raw.npos) return raw;
  value_.clear();
  for (std::size_t i = 0; i < raw.size(); ++i) {
    if (raw[i] != '\\') {
      i = take_character(raw, i);
      continue;
    }
    if (++i == raw.size()) break;
    const auto digit = [&](int (*read)(char)) {
      return i + 1 < raw.size() ? read(raw[i + 1]) : -1;
    };
    if (const int first = octal(raw[i]); first >= 0) {
      int code = first;
      for (int more = 0; more < 2 && digit(octal) >= 0; ++more) code = code * 8 + octal(raw[++i]);
      value_ += static_cast<char>(code & 0xff);
      continue;
    }
    if (raw[i] == 'x' && digit(hex) >= 0) {
      int code = hex(raw[++i]);
      if (digit(hex) >= 0) code = code * 16 + hex(raw[++i]);
      value_ += static_cast<char>(code & 0xff);
      continue;
    }
    switch (raw[i]) {
      case 'b': value_ += '\b'; break;
      case 'f': value_ += '\f'; break;
      case 'n': value_ += '\n'; break;
      case 'r': value_ += '\r'; break;
      case 't': value_ += '\t'; break;
      case 'v': value_ += '\v'; break;
      default: i = take_character(raw, i);
    }
  }
  return value_;
}

std::string_view text_splitter::undo_csv(std::string_view raw) {
  const auto& o = spec_.options;
  if (raw.find(o.quote) == raw.npos) return raw;
  value_.clear();
  bool inside = false;
  for (std::size_t i = 0; i < raw.size(); ++i) {
    const char c = raw[i];
    if (inside && c == o.escape && i + 1 < raw.size() &&
        (raw[i + 1] == o.escape || raw[i + 1] == o.quote)) {
      value_ += raw[++i];
    } else if (c == o.quote) {
      inside = !inside;
    } else {
      i = take_character(raw, i);
    }
  }
  return value_;
}

// The line in hand ends at `from`, the next one begins at `behind`.
void text_splitter::end_line(std::uint64_t from, std::uint64_t behind, cut_list& to) {
  end_field(from);
  const bool begun = cut_ > line_begin_;   // a part of it has been cut, and its line been said
  row_lines_ += line_ends_ + (begun ? 0 : 1);
  if (header_) {
    header_ = false;
    row_shard_lines_ = row_lines_;
    std::fill(seen_.begin(), seen_.end(), true);
    cut_to(behind, to_all, to);
    return begin_line(behind);
  }
  // Such a row is loaded nowhere, but a server may have more to say: of bytes that are no characters,
  // of values before the key or before those that are missing. So one of them gets it.
  const auto let_it_say = [&] {
    row_shard_lines_ = row_lines_;
    cut_to(behind, shard_.value_or(any_shard()), to);
  };
  if (field_ + 1 > spec_.columns.size()) {
    let_it_say();
    return fail("22P04", "extra data after last expected column");
  }
  if (unplaced_) {
    let_it_say();
    return fail(std::move(*unplaced_), &key_column(), &value_);
  }
  if (field_ + 1 < spec_.columns.size()) {
    let_it_say();
    return fail(pg_error{"22P04",
                         "missing data for column \"" + spec_.columns[field_ + 1] + "\"", {}, {}});
  }
  const bool first = !seen_[*shard_];
  seen_[*shard_] = true;
  row_shard_lines_ += (first ? carriages_ : line_ends_) + (begun ? 0 : 1);
  cut_to(behind, *shard_, to);
  begin_line(behind);
}

void text_splitter::begin_line(std::uint64_t at) {
  state_ = state::plain;
  line_begin_ = field_begin_ = at;
  field_ = 0;
  shard_.reset();
  unplaced_.reset();
  raw_.clear();
  key_unquoted_ = true;
  carriages_ = line_ends_ = 0;
  ++line_;
}

void text_splitter::literal_end(const char* what) {
  const bool newline = what[0] == 'n';
  fail("22P04", std::string(csv() ? "unquoted " : "literal ") + what + " found in data",
       csv() ? std::string("Use quoted CSV field to represent ") + what + "."
             : std::string("Use \"") + (newline ? "\\n" : "\\r") + "\" to represent " + what + ".");
}

bool text_splitter::finish(cut_list& to) {
  if (failed_) return false;
  chunk_ = {};
  chunk_at_ = offset_;
  if (state_ != state::ended && (character_left_ > 0 || second_tells_)) {
    fail("22021", "invalid byte sequence: the last character of the input is not whole");
    return false;
  }
  switch (state_) {
    case state::ended: return true;
    case state::carriage:
      // Nothing follows: the \r ends the line where no line has ended otherwise.
      if (end_ == line_end::both) {
        literal_end("carriage return");
        return false;
      }
      end_line(doubt_, offset_, to);
      return !failed_;
    case state::marker:
    case state::marker_carriage:
      if (!csv()) {
        fail("22P04", "end-of-copy marker corrupt");
        return false;
      }
      break;  // data
    default: break;
  }
  const bool read_ahead = state_ == state::marker || state_ == state::backslash ||
                          state_ == state::marker_carriage;
  const auto last = read_ahead ? before_marker_ : state_;
  if (state_ == state::marker_carriage) {
    literal_end("carriage return");
  } else if (!header_ && (last == state::quoted || last == state::quote_escape)) {
    fail("22P04", "unterminated CSV quoted field");
  } else if (offset_ > line_begin_) {
    end_line(offset_, offset_, to);
  }
  return !failed_;
}

}  // namespace pgsled::copy
