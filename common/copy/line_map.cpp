#include "common/copy/line_map.hpp"

#include "common/copy/varint.hpp"

namespace pgsled::copy {

void line_map::take(std::uint64_t lines, std::uint64_t shard_lines) {
  if (lines == 0 && shard_lines == 0) return;
  if (blocks_.empty() || blocks_.back().runs.size() >= block_bytes) {
    if (blocks_.size() == max_blocks) blocks_.pop_front();
    blocks_.push_back({shard_, client_, {}});
    blocks_.back().runs.reserve(block_bytes + 20);
  }
  auto& runs = blocks_.back().runs;
  put_varint(runs, zigzag(gap_));
  put_varint(runs, shard_lines);
  client_ += static_cast<std::uint64_t>(gap_) + shard_lines;
  shard_ += shard_lines;
  // What the shard did not count is between this run and the next.
  gap_ = static_cast<std::int64_t>(lines - shard_lines);
}

std::optional<std::uint64_t> line_map::client_line(std::uint64_t shard_line) const {
  if (shard_line == 0 || shard_ == 0) return std::nullopt;
  if (shard_line > shard_) {
    // In a row that is not at its end yet and has lines in it.
    return gap_ == 0 ? std::optional(client_ + (shard_line - shard_)) : std::nullopt;
  }
  for (auto at = blocks_.rbegin(); at != blocks_.rend(); ++at) {
    if (shard_line <= at->shard) continue;
    std::uint64_t shard = at->shard, client = at->client;
    byte_span runs = as_bytes(at->runs);
    std::uint64_t gap = 0, lines = 0;
    while (take_varint(runs, gap) && take_varint(runs, lines)) {
      client += static_cast<std::uint64_t>(unzigzag(gap));
      if (shard_line <= shard + lines) return client + (shard_line - shard);
      shard += lines;
      client += lines;
    }
    return std::nullopt;
  }
  return std::nullopt;
}

}  // namespace pgsled::copy
