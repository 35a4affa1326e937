// Layout: integers little-endian, strings and lists with a 32-bit count before them, fields in the
// order of the structs. The version is the envelope's.
#include "common/plan/plan.hpp"

#include "common/copy/spec.hpp"

namespace pgsled::plan {
namespace {

class writer {
 public:
  explicit writer(std::string& to) : to_(to) {}

  template <class Integer>
  void integer(Integer value) {
    char bytes[sizeof value];
    store_le(bytes, value);
    to_.append(bytes, sizeof value);
  }
  void text(const std::string& value) {
    integer(static_cast<std::uint32_t>(value.size()));
    to_ += value;
  }
  template <class List, class Each>
  void list(const List& values, Each each) {
    integer(static_cast<std::uint32_t>(values.size()));
    for (const auto& value : values) each(value);
  }
  void place(const key& from) {
    integer(static_cast<std::uint8_t>(from.source));
    integer(from.number);
    integer(static_cast<std::uint8_t>(from.negated));
    integer(from.constant);
    integer(from.limit);
    text(from.text);
  }
  void rule(const placement::rule& from) {
    integer(static_cast<std::uint8_t>(from.type));
    integer(static_cast<std::uint8_t>(from.hasher));
    integer(from.mapping);
  }

 private:
  std::string& to_;
};

// Sticky error: after the first one every read gives zero, and the caller asks once at the end.
class reader {
 public:
  explicit reader(byte_span bytes) : rest_(bytes) {}

  template <class Integer>
  Integer integer() {
    if (rest_.size() < sizeof(Integer)) return fail("ends too early"), Integer{};
    const auto value = load_le<Integer>(rest_.data());
    rest_ = rest_.subspan(sizeof(Integer));
    return value;
  }
  template <class Enum>
  Enum enumeration(Enum lowest, Enum highest) {
    const auto value = static_cast<Enum>(integer<std::uint8_t>());
    if (value < lowest || value > highest) {
      fail("value out of range");
      return lowest;
    }
    return value;
  }
  bool boolean() { return enumeration<std::uint8_t>(0, 1) != 0; }
  std::string text() {
    const auto size = integer<std::uint32_t>();
    if (size > rest_.size()) return fail("string longer than the message"), std::string{};
    std::string value{as_text(rest_.first(size))};
    rest_ = rest_.subspan(size);
    return value;
  }
  // `least` is the size of the smallest element: a count that cannot fit allocates nothing.
  template <class T, class Each>
  std::vector<T> list(std::size_t least, Each each) {
    const auto count = integer<std::uint32_t>();
    std::vector<T> values;
    if (count > rest_.size() / least) return fail("list longer than the message"), values;
    values.reserve(count);
    for (std::uint32_t i = 0; i < count && error_.empty(); ++i) values.push_back(each());
    return values;
  }
  key place() {
    key from;
    from.source = enumeration(key_source::none, key_source::constant);
    from.number = integer<std::uint16_t>();
    from.negated = boolean();
    from.constant = integer<std::int64_t>();
    from.limit = integer<std::uint32_t>();
    from.text = text();
    return from;
  }
  static constexpr std::size_t least_key = 20;
  placement::rule rule() {
    using namespace placement;
    placement::rule from;
    from.type = enumeration(key_type::bigint, key_type::varchar);
    from.hasher = enumeration(hasher::postgres, hasher::sha1);
    from.mapping = integer<std::uint64_t>();
    return from;
  }

  template <class T>
  tl::expected<T, std::string> finish(T value) {
    if (error_.empty() && !rest_.empty()) fail("has bytes left over");
    if (!error_.empty()) return tl::unexpected<std::string>(error_);
    return value;
  }

  void fail(const char* why) {
    if (error_.empty()) error_ = std::string{"plan message "} + why;
    rest_ = {};
  }

 private:
  byte_span rest_;
  std::string error_;
};

}  // namespace

void encode(const request& r, std::string& to) {
  writer w{to};
  w.text(r.database);
  w.text(r.user);
  w.text(r.search_path);
  w.text(r.sql);
  w.list(r.parameter_types, [&](std::uint32_t oid) { w.integer(oid); });
  w.list(r.literal_offsets, [&](std::uint32_t offset) { w.integer(offset); });
  w.text(r.tree);
}

void encode(const answer& a, std::string& to) {
  writer w{to};
  w.integer(a.epoch);
  w.integer(static_cast<std::uint8_t>(a.plan.destination));
  w.integer(static_cast<std::uint8_t>(a.plan.access));
  w.place(a.plan.key);
  w.rule(a.plan.rule);
  w.list(a.plan.also_equal, [&](const key& k) { w.place(k); });
  w.integer(static_cast<std::uint8_t>(a.plan.changes_catalog));
  w.integer(static_cast<std::uint8_t>(a.plan.own_transaction));
  w.list(a.plan.spread_sequences_of, [&](const std::string& name) { w.text(name); });
  w.text(a.plan.error.sqlstate);
  w.text(a.plan.error.message);
  w.text(a.plan.error.hint);
  w.text(a.plan.error.detail);
  const auto& copy = a.plan.copy;
  w.text(copy.table);
  w.text(copy.name);
  w.text(copy.key);
  w.list(copy.columns, [&](const std::string& name) { w.text(name); });
  std::string options;
  copy::encode(copy.options, options);
  w.text(options);
}

tl::expected<request, std::string> decode_request(byte_span bytes) {
  reader r{bytes};
  request q;
  q.database = r.text();
  q.user = r.text();
  q.search_path = r.text();
  q.sql = r.text();
  q.parameter_types = r.list<std::uint32_t>(4, [&] { return r.integer<std::uint32_t>(); });
  q.literal_offsets = r.list<std::uint32_t>(4, [&] { return r.integer<std::uint32_t>(); });
  q.tree = r.text();
  return r.finish(std::move(q));
}

tl::expected<answer, std::string> decode_answer(byte_span bytes) {
  reader r{bytes};
  answer a;
  a.epoch = r.integer<std::uint64_t>();
  a.plan.destination = r.enumeration(destination::one_shard, destination::copy_out);
  a.plan.access = r.enumeration(access::read, access::write);
  a.plan.key = r.place();
  a.plan.rule = r.rule();
  a.plan.also_equal = r.list<key>(reader::least_key, [&] { return r.place(); });
  a.plan.changes_catalog = r.boolean();
  a.plan.own_transaction = r.boolean();
  a.plan.spread_sequences_of = r.list<std::string>(4, [&] { return r.text(); });
  a.plan.error.sqlstate = r.text();
  a.plan.error.message = r.text();
  a.plan.error.hint = r.text();
  a.plan.error.detail = r.text();
  auto& copy = a.plan.copy;
  copy.table = r.text();
  copy.name = r.text();
  copy.key = r.text();
  copy.columns = r.list<std::string>(4, [&] { return r.text(); });
  const std::string said = r.text();
  auto options = copy::decode_options(as_bytes(said));
  if (options) copy.options = std::move(*options);
  if (!options) r.fail("has options of COPY that cannot be read");
  return r.finish(std::move(a));
}

}  // namespace pgsled::plan
