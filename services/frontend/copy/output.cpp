// COPY TO STDOUT of a sharded table: the shards one after the other, with one header and one
// trailer.

#include <algorithm>
#include <charconv>

#include "services/frontend/client/client.hpp"
#include "services/frontend/copy/shard_copy_leg.hpp"
#include "services/frontend/worker/worker.hpp"

namespace pgsled::frontend {

namespace be = wire::backend;

namespace {

constexpr std::size_t binary_header = 19;   // signature, flags, an empty extension
constexpr std::string_view binary_trailer{"\377\377", 2};
constexpr std::size_t looked_at = 64;       // the beginning of a message that is looked at

}  // namespace

pg_error shard_copy::on_two_shards() {
  return {"55006", "rows of the table may be on two shards while rows are being moved",
          "Try again when it is over: pgsled reshard status.", {}};
}

// A move may have begun since the statement was let in. With a transaction of its own all shards
// have their snapshots when the first is read; in another each shard is read as it is by then.
void shard_copy::next_output() {
  const bool snapshots = alone_ && phase_ == phase::streaming;
  if (client_.endpoint_->owners->moving && !snapshots) return fail(on_two_shards());
  if (phase_ != phase::streaming) {
    phase_ = phase::streaming;
    for (const auto& [shard, one] : legs_) order_.push_back(shard);
  } else {
    first_output_ = false;
    const auto& tag = legs_.at(order_.front())->tag;
    const auto space = tag.rfind(' ');
    std::uint64_t rows = 0;
    if (space != std::string::npos) {
      std::from_chars(tag.data() + space + 1, tag.data() + tag.size(), rows);
    }
    rows_ += rows;
    order_.erase(order_.begin());
  }
  if (order_.empty()) return legs_quiet();
  legs_.at(order_.front())->ask(sql_);
}

// Messages of the server that is being read; long ones pass in pieces.
void shard_copy::output(leg& one, byte_span bytes) {
  const bool binary = job().options.format == copy::format::binary;
  const bool last = order_.size() == 1;
  std::string out;
  one.carry.append(as_text(bytes));
  std::string_view rest = one.carry;
  while (!rest.empty()) {
    if (one.passing > 0) {
      const auto count = std::min<std::uint64_t>(one.passing, rest.size());
      out.append(rest.substr(0, count));
      rest.remove_prefix(count);
      one.passing -= count;
      continue;
    }
    if (one.skipping > 0) {
      const auto count = std::min<std::uint64_t>(one.skipping, rest.size());
      rest.remove_prefix(count);
      one.skipping -= count;
      continue;
    }
    wire::frame frame;
    if (wire::peek(as_bytes(rest), frame) != wire::frame_state::complete) break;
    if (frame.type != be::copy_data) {
      if (rest.size() < frame.total()) break;
      const auto whole = rest.substr(0, frame.total());
      if (frame.type == be::copy_out_response) {
        if (first_output_) {
          answer_beginning();
          out.append(whole);
        }
      } else {
        one.read(frame.type, as_bytes(whole).subspan(wire::header_size), whole);
      }
      rest.remove_prefix(frame.total());
      continue;
    }
    if (rest.size() < std::min(frame.total(), wire::header_size + looked_at)) break;
    const bool first = std::exchange(one.first_message, false);
    std::size_t skip = 0;   // bytes of the message's beginning that the client does not get
    if (first && !first_output_) {
      if (binary) skip = std::min<std::size_t>(binary_header, frame.length);
      else if (job().options.header) skip = frame.length;
    }
    const auto body = rest.substr(wire::header_size);
    const auto own_header = binary && first ? binary_header : 0;
    const bool trailer = binary && frame.length == own_header + binary_trailer.size() &&
                         body.substr(own_header, 2) == binary_trailer;
    const std::size_t cut = trailer && !last ? binary_trailer.size() : 0;
    const auto left = frame.length - skip - cut;
    rest.remove_prefix(wire::header_size);
    if (left == 0) {
      one.skipping = frame.length;
      continue;
    }
    copy::begin_copy_data(out, left);
    rest.remove_prefix(skip);
    one.passing = left;
    if (cut > 0) {   // short, and whole
      out.append(rest.substr(0, left));
      rest.remove_prefix(left + cut);
      one.passing = 0;
    }
  }
  one.carry.erase(0, one.carry.size() - rest.size());
  if (!out.empty()) client_.write(out);
}

void shard_copy::client_paced() {
  for (auto& [shard, one] : legs_) {
    if (one->running && one->lease != nullptr) one->lease->resume_reading();
  }
}

}  // namespace pgsled::frontend
