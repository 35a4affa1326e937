#pragma once
// scatter: holds what a client has sent of a COPY until its cuts have come, and makes the messages
// for the shards of it; knows which line of the client's a line of a shard is. Pure. Thread rule:
// one owner. Bound: the owner's, by held().

#include <string>
#include <vector>

#include "common/copy/cut.hpp"
#include "common/copy/line_map.hpp"

namespace pgsled::copy {

class scatter {
 public:
  explicit scatter(std::size_t shards) : lines_(shards) {}

  void hold(byte_span payload) { held_.append(as_text(payload)); }
  // Not cut yet.
  std::size_t held() const { return held_.size() - done_; }
  // Held, and not yet given to who cuts it.
  byte_span unsent() const { return as_bytes(held_).subspan(sent_); }
  void sent(std::size_t bytes) { sent_ += bytes; }

  // Appends one CopyData message for each shard that gets something; `to` is indexed by shard.
  // False: the cuts are more than was sent, or name other shards; nothing has been done.
  bool apply(const cut_list&, std::vector<std::string>& to);
  std::optional<std::uint64_t> client_line(std::size_t shard, std::uint64_t line) const {
    return lines_[shard].client_line(line);
  }

 private:
  std::string held_;
  std::size_t done_ = 0, sent_ = 0;      // offsets in held_
  std::vector<line_map> lines_;
  std::vector<std::uint64_t> sizes_;     // scratch
};

// A CopyData message of so many bytes, which the caller appends.
void begin_copy_data(std::string& to, std::size_t bytes);

}  // namespace pgsled::copy
