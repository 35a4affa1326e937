#include "common/copy/binary_splitter.hpp"

#include <algorithm>

namespace pgsled::copy {
namespace {

constexpr std::string_view signature{"PGCOPY\n\377\r\n\0", 11};
constexpr std::uint32_t with_oids = 1u << 16, critical = 0xffff0000;
constexpr const char* bad_format = "22P04";

}  // namespace

bool binary_splitter::collect(std::size_t wanted, byte_span& from) {
  const auto count = std::min(wanted - have_, from.size());
  std::copy_n(from.begin(), count, small_.begin() + static_cast<std::ptrdiff_t>(have_));
  have_ += count;
  from = from.subspan(count);
  if (have_ < wanted) return false;
  have_ = 0;
  return true;
}

bool binary_splitter::feed(byte_span bytes, cut_list& to) {
  chunk_ = bytes;
  byte_span rest = bytes;
  while (!rest.empty() && !failed_) take(rest, to);
  offset_ += bytes.size();
  chunk_ = {};
  if (failed_) return false;
  // What is certain to be the row's need not wait for its end.
  if (shard_ && offset_ > cut_) {
    if (!std::exchange(line_said_, true)) row_lines_ = row_shard_lines_ = 1;
    cut_to(offset_, *shard_, to);
  }
  return true;
}

void binary_splitter::take(byte_span& rest, cut_list& to) {
  switch (state_) {
    case state::signature:
      if (!collect(signature.size(), rest)) return;
      if (as_text(small_) != signature) {
        return fail(bad_format, "COPY file signature not recognized");
      }
      state_ = state::flags;
      return;
    case state::flags: {
      if (!collect(4, rest)) return;
      const auto flags = load_be<std::uint32_t>(small_.data());
      if (flags & with_oids) return fail(bad_format, "invalid COPY file header (WITH OIDS)");
      if (flags & critical) {
        return fail(bad_format, "unrecognized critical flags in COPY file header");
      }
      state_ = state::extension;
      return;
    }
    case state::extension: {
      if (!collect(4, rest)) return;
      const auto length = load_be<std::int32_t>(small_.data());
      if (length < 0) return fail(bad_format, "invalid COPY file header (missing length)");
      left_ = static_cast<std::uint64_t>(length);
      state_ = left_ == 0 ? state::count : state::skipping;
      if (left_ == 0) cut_to(at(rest), to_all, to);
      return;
    }
    case state::skipping:
    case state::field: {
      const auto count = std::min<std::uint64_t>(left_, rest.size());
      if (state_ == state::field && field_ == spec_.key) {
        key_.append(as_text(rest.first(count)));
      }
      rest = rest.subspan(count);
      left_ -= count;
      if (left_ > 0) return;
      if (state_ == state::field) {
        row_end_ = at(rest);
        return end_field(to);
      }
      state_ = state::count;
      return cut_to(at(rest), to_all, to);
    }
    case state::count:
      if (!collect(2, rest)) return;
      row_end_ = at(rest);
      return begin_row(load_be<std::int16_t>(small_.data()), to);
    case state::length:
      if (!collect(4, rest)) return;
      row_end_ = at(rest);
      return begin_field(load_be<std::int32_t>(small_.data()), to);
    case state::ended:
      return fail(bad_format, "received copy data after EOF marker");
  }
}

void binary_splitter::begin_row(std::int16_t fields, cut_list& to) {
  ++line_;
  if (fields == -1) {
    state_ = state::ended;
    return cut_to(row_end_, to_all, to);
  }
  if (fields < 0 || static_cast<std::size_t>(fields) != spec_.columns.size()) {
    return fail(bad_format, "row field count is " + std::to_string(fields) + ", expected " +
                                std::to_string(spec_.columns.size()));
  }
  field_ = 0;
  state_ = state::length;
}

void binary_splitter::begin_field(std::int32_t length, cut_list& to) {
  if (length < -1) {
    return fail({bad_format, "invalid field size", {}, {}}, &spec_.columns[field_]);
  }
  const bool is_key = field_ == spec_.key;
  if (length == -1 && is_key) {
    let_it_say(row_end_, to);
    return fail({"23502",
                 "null value in the sharding key, column \"" + key_column() + "\" of table \"" +
                     spec_.table + "\"",
                 "A row is placed by its key: give it a value.",
                 {}},
                &key_column());
  }
  if (is_key && static_cast<std::size_t>(length) > max_key) {
    return fail("54000", "the sharding key is longer than " + std::to_string(max_key) + " bytes");
  }
  key_.clear();
  if (length <= 0) return end_field(to);
  left_ = static_cast<std::uint64_t>(length);
  state_ = state::field;
}

void binary_splitter::end_field(cut_list& to) {
  if (field_ == spec_.key) {
    shard_ = place(placement::form::binary, key_);
    if (!shard_) {
      let_it_say(row_end_, to);
      return fail(std::move(*unplaced_), &key_column());
    }
  }
  if (++field_ < spec_.columns.size()) {
    state_ = state::length;
    return;
  }
  state_ = state::count;
  if (!std::exchange(line_said_, false)) row_lines_ = row_shard_lines_ = 1;
  cut_to(row_end_, *shard_, to);
  shard_.reset();
}

// A row that is loaded nowhere: a server may have something to say of the fields up to here.
void binary_splitter::let_it_say(std::uint64_t end, cut_list& to) {
  if (!std::exchange(line_said_, true)) row_lines_ = row_shard_lines_ = 1;
  cut_to(end, shard_.value_or(any_shard()), to);
}

bool binary_splitter::finish(cut_list& to) {
  if (failed_) return false;
  switch (state_) {
    case state::signature: fail(bad_format, "COPY file signature not recognized"); break;
    case state::flags: fail(bad_format, "invalid COPY file header (missing flags)"); break;
    case state::extension: fail(bad_format, "invalid COPY file header (missing length)"); break;
    case state::skipping: fail(bad_format, "invalid COPY file header (wrong length)"); break;
    case state::length:
    case state::field:
      let_it_say(offset_, to);
      fail({bad_format, "unexpected EOF in COPY data", {}, {}}, &spec_.columns[field_]);
      break;
    // The input may end without a trailer, even with half a count: as PostgreSQL has it.
    case state::count: cut_to(offset_, to_nobody, to); break;
    case state::ended: break;
  }
  return !failed_;
}

}  // namespace pgsled::copy
