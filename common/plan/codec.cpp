// Layout: fields (common/base/fields.hpp) in the order of the structs. The version is the
// envelope's.
#include "common/plan/plan.hpp"

#include "common/base/fields.hpp"
#include "common/copy/spec.hpp"

namespace pgsled::plan {
namespace {

constexpr const char* subject = "plan message";
constexpr std::size_t least_key = 20;

void write(field_writer& w, const key& from) {
  w.integer(static_cast<std::uint8_t>(from.source));
  w.integer(from.number);
  w.flag(from.negated);
  w.integer(from.constant);
  w.integer(from.limit);
  w.text(from.text);
}

key read_key(field_reader& r) {
  key from;
  from.source = r.enumeration(key_source::none, key_source::constant);
  from.number = r.integer<std::uint16_t>();
  from.negated = r.flag();
  from.constant = r.integer<std::int64_t>();
  from.limit = r.integer<std::uint32_t>();
  from.text = r.text();
  return from;
}

void write(field_writer& w, const placement::rule& from) {
  w.integer(static_cast<std::uint8_t>(from.type));
  w.integer(static_cast<std::uint8_t>(from.hasher));
  w.integer(from.mapping);
}

placement::rule read_rule(field_reader& r) {
  using namespace placement;
  placement::rule from;
  from.type = r.enumeration(key_type::bigint, key_type::varchar);
  from.hasher = r.enumeration(hasher::postgres, hasher::sha1);
  from.mapping = r.integer<std::uint64_t>();
  return from;
}

}  // namespace

void encode(const request& r, std::string& to) {
  field_writer w{to};
  w.text(r.database);
  w.text(r.user);
  w.text(r.search_path);
  w.text(r.sql);
  w.list(r.parameter_types, [&](std::uint32_t oid) { w.integer(oid); });
  w.list(r.literal_offsets, [&](std::uint32_t offset) { w.integer(offset); });
  w.text(r.tree);
  w.texts(r.unsettled);
}

void encode(const answer& a, std::string& to) {
  field_writer w{to};
  w.integer(a.epoch);
  w.integer(static_cast<std::uint8_t>(a.plan.destination));
  w.integer(static_cast<std::uint8_t>(a.plan.access));
  write(w, a.plan.key);
  write(w, a.plan.rule);
  w.list(a.plan.also_equal, [&](const key& k) { write(w, k); });
  w.flag(a.plan.changes_catalog);
  w.texts(a.plan.unsettles);
  w.flag(a.plan.own_transaction);
  w.texts(a.plan.spread_sequences_of);
  w.text(a.plan.rows.table);
  w.text(a.plan.rows.reference);
  w.flag(a.plan.rows.returning);
  w.flag(a.plan.rows.repeatable);
  w.flag(a.plan.rows.locks);
  w.text(a.plan.error.sqlstate);
  w.text(a.plan.error.message);
  w.text(a.plan.error.hint);
  w.text(a.plan.error.detail);
  const auto& copy = a.plan.copy;
  w.text(copy.table);
  w.text(copy.name);
  w.text(copy.key);
  w.texts(copy.columns);
  std::string options;
  copy::encode(copy.options, options);
  w.text(options);
}

tl::expected<request, std::string> decode_request(byte_span bytes) {
  field_reader r{bytes, subject};
  request q;
  q.database = r.text();
  q.user = r.text();
  q.search_path = r.text();
  q.sql = r.text();
  q.parameter_types = r.list<std::uint32_t>(4, [&] { return r.integer<std::uint32_t>(); });
  q.literal_offsets = r.list<std::uint32_t>(4, [&] { return r.integer<std::uint32_t>(); });
  q.tree = r.text();
  q.unsettled = r.texts();
  return r.finish(std::move(q));
}

tl::expected<answer, std::string> decode_answer(byte_span bytes) {
  field_reader r{bytes, subject};
  answer a;
  a.epoch = r.integer<std::uint64_t>();
  a.plan.destination = r.enumeration(destination::one_shard, destination::copy_out);
  a.plan.access = r.enumeration(access::read, access::write);
  a.plan.key = read_key(r);
  a.plan.rule = read_rule(r);
  a.plan.also_equal = r.list<key>(least_key, [&] { return read_key(r); });
  a.plan.changes_catalog = r.flag();
  a.plan.unsettles = r.texts();
  a.plan.own_transaction = r.flag();
  a.plan.spread_sequences_of = r.texts();
  a.plan.rows.table = r.text();
  a.plan.rows.reference = r.text();
  a.plan.rows.returning = r.flag();
  a.plan.rows.repeatable = r.flag();
  a.plan.rows.locks = r.flag();
  a.plan.error.sqlstate = r.text();
  a.plan.error.message = r.text();
  a.plan.error.hint = r.text();
  a.plan.error.detail = r.text();
  auto& copy = a.plan.copy;
  copy.table = r.text();
  copy.name = r.text();
  copy.key = r.text();
  copy.columns = r.texts();
  const std::string said = r.text();
  auto options = copy::decode_options(as_bytes(said));
  if (options) copy.options = std::move(*options);
  if (!options) r.fail("has options of COPY that cannot be read");
  return r.finish(std::move(a));
}

}  // namespace pgsled::plan
