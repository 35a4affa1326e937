#pragma once
// line_map: from the line of what one shard was sent, as its errors count, to the line of the
// client's input. Runs of lines in about two bytes each; only the newest are kept, which is enough
// because a server is never further behind than windows and buffers let it. Pure. Bound: 1 MiB.

#include <cstdint>
#include <deque>
#include <optional>
#include <string>

namespace pgsled::copy {

class line_map {
 public:
  static constexpr std::size_t block_bytes = 16 * 1024, max_blocks = 64;

  // The shard gets nothing of these lines of the input.
  void skip(std::uint64_t lines) { gap_ += static_cast<std::int64_t>(lines); }
  // It gets these: `lines` of the input, which it counts as `shard_lines`.
  void take(std::uint64_t lines, std::uint64_t shard_lines);
  // Both count from 1. Nothing: never sent, or too long ago. A line behind the last one sent is of
  // the last row, which has line ends in quotes and of which only a part has been sent.
  std::optional<std::uint64_t> client_line(std::uint64_t shard_line) const;

 private:
  struct block {
    std::uint64_t shard = 0, client = 0;  // lines before it
    std::string runs;                     // gap (zigzag), lines
  };
  std::deque<block> blocks_;
  std::uint64_t shard_ = 0, client_ = 0;  // lines so far, client_ without gap_
  std::int64_t gap_ = 0;
};

}  // namespace pgsled::copy
