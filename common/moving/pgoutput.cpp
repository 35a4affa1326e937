#include "common/moving/pgoutput.hpp"

#include <fmt/format.h>

#include <charconv>

namespace pgsled::moving {

namespace {

constexpr std::size_t most_columns = 1664;   // MaxTupleAttributeNumber

// Reads fields one after the other; the first that is not there makes all later ones empty.
class reader {
 public:
  explicit reader(byte_span bytes) : rest_(bytes) {}

  template <class Integer>
  Integer number() {
    if (rest_.size() < sizeof(Integer)) return fail<Integer>();
    const auto value = load_be<Integer>(rest_.data());
    rest_ = rest_.subspan(sizeof(Integer));
    return value;
  }
  char letter() { return static_cast<char>(number<std::uint8_t>()); }
  std::string_view text() {              // ends with a zero byte
    const auto all = as_text(rest_);
    const auto end = all.find('\0');
    if (end == std::string_view::npos) return fail<std::string_view>();
    rest_ = rest_.subspan(end + 1);
    return all.substr(0, end);
  }
  std::string_view bytes(std::uint32_t size) {
    if (rest_.size() < size) return fail<std::string_view>();
    const auto got = as_text(rest_.first(size));
    rest_ = rest_.subspan(size);
    return got;
  }
  std::size_t left() const { return rest_.size(); }
  bool ok() const { return ok_; }
  void refuse() { ok_ = false; }
  bool complete() const { return ok_ && rest_.empty(); }
  byte_span rest() const { return rest_; }

 private:
  template <class T>
  T fail() {
    ok_ = false;
    rest_ = {};
    return T{};
  }
  byte_span rest_;
  bool ok_ = true;
};

wal::tuple tuple_of(reader& from) {
  const std::size_t count = from.number<std::uint16_t>();
  wal::tuple to;
  if (count > most_columns || count > from.left()) {
    from.refuse();
    return to;
  }
  to.reserve(count);
  for (std::size_t i = 0; i < count && from.ok(); ++i) {
    wal::field one;
    switch (const char kind = from.letter(); kind) {
      case 'n':
      case 'u': one.what = static_cast<wal::field::kind>(kind); break;
      case 't':
      case 'b':
        one.what = static_cast<wal::field::kind>(kind);
        one.value = from.bytes(from.number<std::uint32_t>());
        break;
      default: from.refuse();
    }
    to.push_back(one);
  }
  return to;
}

wal::relation relation_of(reader& from) {
  wal::relation to;
  to.id = from.number<std::uint32_t>();
  to.schema = from.text();
  to.name = from.text();
  to.identity = from.letter();
  const std::size_t count = from.number<std::uint16_t>();
  if (count > most_columns || count > from.left()) {
    from.refuse();
    return to;
  }
  for (std::size_t i = 0; i < count && from.ok(); ++i) {
    wal::column one;
    one.in_identity = (from.number<std::uint8_t>() & 1) != 0;
    one.name = from.text();
    one.type = from.number<std::uint32_t>();
    one.modifier = from.number<std::int32_t>();
    to.columns.push_back(one);
  }
  return to;
}

void must_be(reader& from, char wanted) {
  if (from.letter() != wanted) from.refuse();
}

wal::update update_of(reader& from) {
  wal::update to;
  to.relation = from.number<std::uint32_t>();
  char kind = from.letter();
  if (kind == 'K' || kind == 'O') {
    to.old_kind = kind;
    to.old = tuple_of(from);
    kind = from.letter();
  }
  if (kind != 'N') from.refuse();
  to.row = tuple_of(from);
  return to;
}

wal::erase erase_of(reader& from) {
  wal::erase to;
  to.relation = from.number<std::uint32_t>();
  to.old_kind = from.letter();
  if (to.old_kind != 'K' && to.old_kind != 'O') from.refuse();
  to.old = tuple_of(from);
  return to;
}

wal::truncate truncate_of(reader& from) {
  wal::truncate to;
  const std::size_t count = from.number<std::uint32_t>();
  from.number<std::uint8_t>();   // CASCADE, RESTART IDENTITY: nothing that rows depend on
  if (count > from.left() / sizeof(std::uint32_t)) {
    from.refuse();
    return to;
  }
  for (std::size_t i = 0; i < count; ++i) to.relations.push_back(from.number<std::uint32_t>());
  return to;
}

wal::message message_of(reader& from) {
  wal::message to;
  to.transactional = (from.number<std::uint8_t>() & 1) != 0;
  to.position = from.number<std::uint64_t>();
  to.prefix = from.text();
  to.content = from.bytes(from.number<std::uint32_t>());
  return to;
}

std::optional<wal::any> read(char kind, reader& from) {
  switch (kind) {
    case 'B': {
      wal::begin to;
      to.final_position = from.number<std::uint64_t>();
      to.committed_at = from.number<std::int64_t>();
      to.transaction = from.number<std::uint32_t>();
      return to;
    }
    case 'C': {
      wal::commit to;
      from.number<std::uint8_t>();
      to.position = from.number<std::uint64_t>();
      to.end = from.number<std::uint64_t>();
      to.committed_at = from.number<std::int64_t>();
      return to;
    }
    case 'O': {
      wal::origin to;
      to.position = from.number<std::uint64_t>();
      to.name = from.text();
      return to;
    }
    case 'R': return relation_of(from);
    case 'Y':
      from.number<std::uint32_t>();
      from.text();
      from.text();
      return wal::type{};
    case 'I': {
      wal::insert to;
      to.relation = from.number<std::uint32_t>();
      must_be(from, 'N');
      to.row = tuple_of(from);
      return to;
    }
    case 'U': return update_of(from);
    case 'D': return erase_of(from);
    case 'T': return truncate_of(from);
    case 'M': return message_of(from);
    default: return std::nullopt;
  }
}

}  // namespace

std::string lsn_to_text(lsn of) {
  return fmt::format("{:X}/{:X}", of >> 32, of & 0xffff'ffff);
}

std::optional<lsn> lsn_from_text(std::string_view text) {
  const auto slash = text.find('/');
  if (slash == std::string_view::npos) return std::nullopt;
  const auto half = [](std::string_view digits) -> std::optional<std::uint32_t> {
    std::uint32_t value = 0;
    const auto end = digits.data() + digits.size();
    const auto [at, ec] = std::from_chars(digits.data(), end, value, 16);
    if (ec != std::errc() || at != end) return std::nullopt;
    return value;
  };
  const auto high = half(text.substr(0, slash)), low = half(text.substr(slash + 1));
  if (!high || !low) return std::nullopt;
  return lsn{*high} << 32 | *low;
}

result<wal::any> wal::decode(byte_span bytes) {
  reader from(bytes);
  const char kind = from.letter();
  auto got = read(kind, from);
  if (!got || !from.complete()) {
    return failure("08P01", fmt::format("a message of the server's log of kind {:#x} with {} "
                                        "bytes cannot be read", kind, bytes.size()));
  }
  return std::move(*got);
}

result<wal_frame> decode_frame(byte_span bytes) {
  reader from(bytes);
  wal_frame to;
  const char kind = from.letter();
  if (kind == 'w') {
    to.data = true;
    to.start = from.number<std::uint64_t>();
    to.server_end = from.number<std::uint64_t>();
    from.number<std::int64_t>();
    to.payload = from.rest();
    if (from.ok() && !to.payload.empty()) return to;
  } else if (kind == 'k') {
    to.server_end = from.number<std::uint64_t>();
    from.number<std::int64_t>();
    to.wants_reply = from.number<std::uint8_t>() != 0;
    if (from.complete()) return to;
  }
  return failure("08P01", fmt::format("a frame of a server's log with {} bytes cannot be read",
                                      bytes.size()));
}

std::string encode_status(lsn applied, std::int64_t microseconds_since_2000) {
  std::string to(34, '\0');
  to[0] = 'r';
  for (const std::size_t at : {std::size_t{1}, std::size_t{9}, std::size_t{17}}) {
    store_be(to.data() + at, applied);
  }
  store_be(to.data() + 25, microseconds_since_2000);
  return to;
}

}  // namespace pgsled::moving
