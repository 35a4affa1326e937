#include "services/frontend/statements/query_steps.hpp"

#include <algorithm>
#include <charconv>

#include "common/wire/messages.hpp"

namespace pgsled::frontend {

namespace be = wire::backend;

query_steps::query_steps(std::string sql, std::vector<std::pair<std::size_t, std::size_t>> parts,
                         counted how)
    : sql_(std::move(sql)), parts_(std::move(parts)), counted_(how) {}

std::string_view query_steps::next_text() const {
  return std::string_view(sql_).substr(parts_[at_].first, parts_[at_].second);
}

void query_steps::take(std::string& to, bool implicit) {
  holds_ = implicit && last();
  wire::write_query(to, next_text());
  for (; counted_to_ < parts_[at_].first; ++counted_to_) {
    const auto byte = static_cast<unsigned char>(sql_[counted_to_]);
    if (counted_ == counted::bytes || (byte & 0xc0) != 0x80) ++shift_;
  }
  ++at_;
}

void query_steps::pass(std::string_view bytes, std::string& to) {
  while (!bytes.empty()) {
    if (passing_ > 0) {
      const auto count = std::min(passing_, bytes.size());
      to.append(bytes.substr(0, count));
      passing_ -= count;
      bytes.remove_prefix(count);
      continue;
    }
    if (kept_.size() < wire::header_size) {
      const auto count = std::min(wire::header_size - kept_.size(), bytes.size());
      kept_.append(bytes.substr(0, count));
      bytes.remove_prefix(count);
      if (kept_.size() < wire::header_size) return;
    }
    const auto length = load_be<std::uint32_t>(as_bytes(kept_).data() + 1);
    const auto total = std::max<std::size_t>(1 + std::size_t{length}, wire::header_size);
    const char type = kept_[0];
    const bool held = holds_ && type == be::command_complete;
    if (!held && type != be::error_response && type != be::notice_response &&
        type != be::ready_for_query) {
      passing_ = total - wire::header_size;
      to.append(std::exchange(kept_, {}));
      continue;
    }
    const auto count = std::min(total - kept_.size(), bytes.size());
    kept_.append(bytes.substr(0, count));
    bytes.remove_prefix(count);
    if (kept_.size() == total) whole(to);
  }
}

void query_steps::whole(std::string& to) {
  const auto message = std::exchange(kept_, {});
  const char type = message[0];
  if (type == be::command_complete) {
    held_ = message;
    return;
  }
  if (type == be::ready_for_query) {
    if (ending_) to.append(std::exchange(held_, {})).append(message);
    over_ = ending_;
    return;
  }
  if (type == be::error_response) held_.clear();
  failed_ = failed_ || type == be::error_response;
  if (shift_ == 0) {
    to.append(message);
    return;
  }
  std::string fields;
  auto rest = std::string_view(message).substr(wire::header_size);
  while (!rest.empty() && rest.front() != '\0') {
    const auto end = std::min(rest.find('\0'), rest.size() - 1);
    const auto field = rest.substr(0, end + 1);
    rest.remove_prefix(end + 1);
    std::size_t position = 0;
    if (field.front() == 'P') {
      std::from_chars(field.data() + 1, field.data() + end, position);
      if (counted_ == counted::unknown || position == 0) continue;
      fields.append("P" + std::to_string(position + shift_)).push_back('\0');
    } else {
      fields.append(field);
    }
  }
  fields.push_back('\0');
  wire::writer(to, type).raw(fields);
}

}  // namespace pgsled::frontend
