#include "services/frontend/statements/unit.hpp"

#include <algorithm>

#include "services/frontend/statements/effects.hpp"

namespace pgsled::frontend {

namespace fe = wire::frontend;

namespace {
bool describes_statement(const unit::part& part) {
  if (part.type != fe::describe) return false;
  const auto sent = wire::read_described(part.body);
  return sent && sent->what == 'S';
}

// Describe or Close of a portal that none of the Binds before it makes.
bool asks_of_another_portal(const unit& now, const unit::part& asking) {
  if (asking.type != fe::describe && asking.type != fe::close) return false;
  const auto sent = wire::read_described(asking.body);
  if (!sent || sent->what != 'P') return false;
  for (const auto* part = &asking; part != now.parts.data(); --part) {
    if (part[-1].type != fe::bind) continue;
    const auto bound = wire::read_bind(part[-1].body);
    if (bound && bound->portal == sent->name) return false;
  }
  return true;
}
}  // namespace

bool runs_what_it_binds(const unit& now) {
  std::optional<std::string_view> bound;
  for (const auto& part : now.parts) {
    if (part.type == fe::bind) {
      const auto sent = wire::read_bind(part.body);
      if (!sent || bound) return false;
      bound = sent->portal;
    } else if (part.type == fe::execute) {
      const auto sent = wire::read_execute(part.body);
      if (!sent || bound != sent->portal) return false;
      bound.reset();
    }
  }
  return !bound;
}

bool binds_what_it_asks_of(const unit& now) {
  return std::all_of(now.parts.begin(), now.parts.end(), [&](const auto& part) {
    if (asks_of_another_portal(now, part)) return false;
    if (part.type != fe::parse && !describes_statement(part)) return true;
    return std::any_of(now.parts.begin(), now.parts.end(), [&](const auto& other) {
      return other.type == fe::bind && other.target != nullptr && other.target == part.target;
    });
  });
}

bool asks_of_statements(const unit& now) {
  return std::any_of(now.parts.begin(), now.parts.end(), [](const auto& part) {
    return part.type == fe::parse || part.type == fe::bind || part.type == fe::describe;
  });
}

bool only_prepares_an_end(const unit& now) {
  return std::all_of(now.parts.begin(), now.parts.end(), [](const auto& part) {
    if (part.type == fe::bind || (part.type == fe::describe && !describes_statement(part)))
      return false;
    if (part.type == fe::describe) return part.target && has_no_rows(part.target->effects);
    return part.type != fe::parse || (part.target && leaves_failure(part.target->effects));
  });
}

bool is_empty_query(const unit& now) {
  if (now.parts.front().type != fe::query) return false;
  const auto text = wire::read_query(now.parts.front().body);
  return text && is_blank(*text);
}

bool replaces_unnamed(char type, byte_span body) {
  return type == fe::query || (type == fe::parse && (body.empty() || body[0] == 0));
}

void cut_unit(unit& now, byte_span bytes) {
  const auto first = std::find_if(now.parts.begin(), now.parts.end(),
                                  [](const auto& part) { return part.type == fe::execute; });
  if (first != now.parts.end()) {
    now.bytes = static_cast<std::size_t>(first->body.data() + first->body.size() - bytes.data());
    now.parts.erase(first + 1, now.parts.end());
    now.executes = 1;
  } else if (now.ends_with_sync && now.parts.size() > 1) {
    now.bytes -= wire::header_size;
    now.parts.pop_back();
  } else {
    return;
  }
  now.ends_with_sync = false;
}

bool goes_on(const unit& now) {
  const auto first = std::find_if(now.parts.begin(), now.parts.end(),
                                  [](const auto& part) { return part.type == fe::execute; });
  return first != now.parts.end() && std::any_of(first + 1, now.parts.end(), [](const auto& part) {
           return part.type != fe::sync && part.type != fe::flush;
         });
}

pg_error aborted_transaction() {
  return {"25P02",
          "current transaction is aborted, commands ignored until end of transaction block",
          {},
          {}};
}

pg_error no_transactions() {
  return {"0A000", "transactions are not possible in statement pooling mode",
          "Use pooler_mode = \"transaction\".", {}};
}

pg_error two_shards(std::uint32_t first, std::uint32_t second) {
  return {"0A000",
          "the statements of one transaction go to different shards (" + std::to_string(first) +
              " and " + std::to_string(second) + ")",
          "Begin the transaction with BEGIN, or send Sync between statements for different shards.",
          {}};
}

}  // namespace pgsled::frontend
