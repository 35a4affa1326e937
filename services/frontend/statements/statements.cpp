#include "services/frontend/statements/statements.hpp"

#include <openssl/sha.h>

#include "common/sql/statement.hpp"

namespace pgsled::frontend {

const lease::statement_id& statement::id() const {
  if (server_name_.empty()) {
    std::string content = types;
    content.push_back('\0');
    content += context;
    content.push_back('\0');
    content += sql;
    unsigned char digest[SHA256_DIGEST_LENGTH];
    SHA256(reinterpret_cast<const unsigned char*>(content.data()), content.size(), digest);
    std::copy_n(digest, id_.size(), id_.begin());
    static constexpr char hex[] = "0123456789abcdef";
    server_name_ = "__pgsled_";
    for (const auto byte : id_) {
      server_name_.push_back(hex[byte >> 4]);
      server_name_.push_back(hex[byte & 15]);
    }
  }
  return id_;
}

const std::string& statement::server_name() const {
  id();
  return server_name_;
}

statement_ref statement_cache::find_or_add(std::string_view sql, byte_span types,
                                           std::string_view context, bool standard_strings) {
  const auto found = index_.find(key{sql, as_text(types), context});
  if (found != index_.end()) {
    recent_.splice(recent_.begin(), recent_, found->second);
    return *found->second;
  }
  auto made = std::make_shared<statement>();
  made->sql = sql;
  made->types = as_text(types);
  made->context = context;
  if (sql::may_affect_session(sql)) {
    scratch_.clear();
    sql::find_statements(sql, standard_strings, scratch_);
    const auto matters = [](const sql::statement& s) { return s.effect != sql::effect::none; };
    if (std::any_of(scratch_.begin(), scratch_.end(), matters)) {
      made->effects = std::make_shared<const std::vector<sql::statement>>(scratch_);
    }
  }
  recent_.push_front(made);
  index_.emplace(key{made->sql, made->types, made->context}, recent_.begin());
  bytes_ += made->bytes();
  if (bytes_ > limit_) trim();
  probe_.statement_cache_bytes.set(bytes_);
  return made;
}

void statement_cache::trim() {
  while (bytes_ > limit_ && recent_.size() > 1) {
    const auto& oldest = *recent_.back();
    index_.erase(key{oldest.sql, oldest.types, oldest.context});
    bytes_ -= oldest.bytes();
    recent_.pop_back();
    probe_.statement_cache_evictions.add();
  }
}

}  // namespace pgsled::frontend
