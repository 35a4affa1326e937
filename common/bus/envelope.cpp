#include "common/bus/envelope.hpp"

namespace pgsled::bus {
namespace {

// Offsets of the fields. Never move one: a process may talk to its successor or predecessor.
namespace at {
constexpr std::size_t magic = 0;
constexpr std::size_t version = 4;
constexpr std::size_t header_length = 6;
constexpr std::size_t kind = 8;
constexpr std::size_t flags = 10;
constexpr std::size_t deadline_ms = 12;
constexpr std::size_t request = 16;
constexpr std::size_t epoch = 24;
constexpr std::size_t trace = 32;
constexpr std::size_t payload_length = 40;
constexpr std::size_t reserved = 44;
}  // namespace at

static_assert(header::size == 48);
static_assert(at::reserved + sizeof(std::uint32_t) == header::size);
static_assert(at::request % 8 == 0 && at::epoch % 8 == 0 && at::trace % 8 == 0);
static_assert(sizeof(bus::kind) == 2);
static_assert(max_payload_bytes <= 0xFFFFFFFFu);

}  // namespace

bool known(bus::kind value) {
  switch (value) {
    case kind::hello:
    case kind::welcome:
    case kind::heartbeat:
    case kind::config:
    case kind::ack:
    case kind::plan_request:
    case kind::plan_answer:
    case kind::error:
    case kind::admin_request:
    case kind::admin_answer:
    case kind::gather:
    case kind::gather_answer:
    case kind::cancel:
    case kind::bye:
    case kind::command:
    case kind::command_answer:
    case kind::lease:
    case kind::relay:
    case kind::move_request:
    case kind::move_answer:
    case kind::copy_open:
    case kind::copy_batch:
    case kind::copy_cuts:
    case kind::copy_failed:
    case kind::copy_close: return true;
  }
  return false;
}

void encode_header(const header& from, std::size_t payload_bytes, std::uint8_t* to) {
  store_le(to + at::magic, header::magic);
  store_le(to + at::version, header::version);
  store_le(to + at::header_length, static_cast<std::uint16_t>(header::size));
  store_le(to + at::kind, static_cast<std::uint16_t>(from.kind));
  store_le(to + at::flags, from.flags);
  store_le(to + at::deadline_ms, from.deadline_ms);
  store_le(to + at::request, from.request);
  store_le(to + at::epoch, from.epoch);
  store_le(to + at::trace, from.trace);
  store_le(to + at::payload_length, static_cast<std::uint32_t>(payload_bytes));
  store_le(to + at::reserved, std::uint32_t{0});
}

void encode(const header& from, byte_span payload, std::string& to) {
  const std::size_t start = to.size();
  to.resize(start + header::size);
  encode_header(from, payload.size(), reinterpret_cast<std::uint8_t*>(to.data() + start));
  to.append(as_text(payload));
}

tl::expected<envelope, envelope_error> decode(byte_span message) {
  if (message.size() < header::size) return tl::unexpected(envelope_error::truncated);
  const std::uint8_t* const from = message.data();
  if (load_le<std::uint32_t>(from + at::magic) != header::magic)
    return tl::unexpected(envelope_error::bad_magic);
  if (load_le<std::uint16_t>(from + at::version) != header::version)
    return tl::unexpected(envelope_error::bad_version);
  const std::size_t header_length = load_le<std::uint16_t>(from + at::header_length);
  if (header_length < header::size) return tl::unexpected(envelope_error::bad_length);
  if (header_length > message.size()) return tl::unexpected(envelope_error::truncated);
  const std::size_t payload_length = load_le<std::uint32_t>(from + at::payload_length);
  if (payload_length > max_payload_bytes) return tl::unexpected(envelope_error::too_large);
  const std::size_t present = message.size() - header_length;
  if (payload_length > present) return tl::unexpected(envelope_error::truncated);
  if (payload_length < present) return tl::unexpected(envelope_error::bad_length);

  envelope out;
  out.header.kind = static_cast<bus::kind>(load_le<std::uint16_t>(from + at::kind));
  out.header.flags = load_le<std::uint16_t>(from + at::flags);
  out.header.deadline_ms = load_le<std::uint32_t>(from + at::deadline_ms);
  out.header.request = load_le<std::uint64_t>(from + at::request);
  out.header.epoch = load_le<std::uint64_t>(from + at::epoch);
  out.header.trace = load_le<std::uint64_t>(from + at::trace);
  out.payload = message.subspan(header_length);
  return out;
}

}  // namespace pgsled::bus
