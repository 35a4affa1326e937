#include "common/copy/scatter.hpp"

#include "common/base/result.hpp"

namespace pgsled::copy {

void begin_copy_data(std::string& to, std::size_t bytes) {
  char header[5] = {'d'};
  store_be(header + 1, static_cast<std::uint32_t>(bytes + 4));
  to.append(header, sizeof header);
}

bool scatter::apply(const cut_list& cuts, std::vector<std::string>& to) {
  const std::size_t shards = lines_.size();
  PGSLED_ASSERT(to.size() == shards);
  sizes_.assign(shards, 0);
  std::uint64_t total = 0;
  for (const cut& each : cuts) {
    if (each.bytes > sent_ - done_ - total) return false;
    total += each.bytes;
    if (each.shard == to_all) {
      for (auto& size : sizes_) size += each.bytes;
    } else if (each.shard != to_nobody) {
      if (each.shard >= shards) return false;
      sizes_[each.shard] += each.bytes;
    }
  }
  for (std::size_t i = 0; i < shards; ++i) {
    if (sizes_[i] > 0) begin_copy_data(to[i], sizes_[i]);
  }
  std::string_view rest = std::string_view(held_).substr(done_);
  for (const cut& each : cuts) {
    const auto piece = rest.substr(0, each.bytes);
    rest.remove_prefix(each.bytes);
    for (std::size_t i = 0; i < shards; ++i) {
      if (each.shard != to_all && each.shard != i) {
        if (each.lines > 0) lines_[i].skip(each.lines);
        continue;
      }
      to[i].append(piece);
      lines_[i].take(each.lines, each.shard_lines);
    }
  }
  done_ += total;
  if (done_ == held_.size()) {
    constexpr std::size_t keep = 2u << 20;
    held_.clear();
    if (held_.capacity() > keep) held_.shrink_to_fit();
    done_ = sent_ = 0;
  } else if (done_ > held_.size() / 2) {
    held_.erase(0, done_);
    sent_ -= done_;
    done_ = 0;
  }
  return true;
}

}  // namespace pgsled::copy
