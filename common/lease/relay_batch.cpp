#include "common/lease/relay_batch.hpp"

#include <array>

namespace pgsled::lease {

void relay_batch::add(lease_id lease, std::uint32_t number, relay_what what, byte_span bytes) {
  std::array<std::uint8_t, part_header> head;
  store_le(head.data(), lease);
  store_le(head.data() + 8, number);
  head[12] = static_cast<std::uint8_t>(what);
  store_le(head.data() + 13, static_cast<std::uint32_t>(bytes.size()));
  bytes_.append(as_text(head)).append(as_text(bytes));
}

void relay_batch::add_credit(lease_id lease, std::uint32_t number, std::uint32_t bytes) {
  std::array<std::uint8_t, 4> value;
  store_le(value.data(), bytes);
  add(lease, number, relay_what::credit, value);
}

void relay_batch::clear() {
  constexpr std::size_t keep = 256 * 1024;
  bytes_.clear();
  if (bytes_.capacity() > keep) bytes_.shrink_to_fit();
}

std::optional<relay_part> relay_reader::next() {
  if (rest_.empty() || !good_) return std::nullopt;
  good_ = false;
  if (rest_.size() < relay_batch::part_header) return std::nullopt;
  relay_part part;
  part.lease = load_le<std::uint64_t>(rest_.data());
  part.generation = load_le<std::uint32_t>(rest_.data() + 8);
  const auto what = rest_[12];
  const auto length = load_le<std::uint32_t>(rest_.data() + 13);
  rest_ = rest_.subspan(relay_batch::part_header);
  if (what > static_cast<std::uint8_t>(relay_what::end) || length > rest_.size()) {
    return std::nullopt;
  }
  part.what = static_cast<relay_what>(what);
  if (part.what == relay_what::credit && length != 4) return std::nullopt;
  if (part.what == relay_what::end && length != 0) return std::nullopt;
  part.bytes = rest_.first(length);
  rest_ = rest_.subspan(length);
  good_ = true;
  return part;
}

}  // namespace pgsled::lease
