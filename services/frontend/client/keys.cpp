// From the key a plan names to the shard: the value in this statement's literals or parameters, as
// PostgreSQL would store it, and the rule of its table.

#include <algorithm>
#include <cctype>

#include "common/placement/rule.hpp"
#include "common/sql/shape.hpp"
#include "services/frontend/client/client.hpp"
#include "services/frontend/leases/server.hpp"
#include "services/frontend/worker/worker.hpp"

namespace pgsled::frontend {

using placement::encoding;
using placement::key_type;

// What the server will make of the bytes of a text, as far as that is certain now: a change of
// client_encoding that is under way makes it uncertain. (A statement refused while replies are
// owed is looked at again when they have come.)
encoding client::key_encoding() const {
  if (!reported_ || encoding_uncertain_) return encoding::converted;
  if (server_ != nullptr && server_->ledger.effects_pending()) return encoding::converted;
  if (server_ == nullptr && local_settings_) {
    // SET LOCAL that waits for the transaction's shard: only its text is there.
    std::string text = script_.sql();
    std::transform(text.begin(), text.end(), text.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    for (const char* hint : {"encoding", "names", "\\"}) {
      if (text.find(hint) != text.npos) return encoding::converted;
    }
  }
  const auto* theirs = reported_->find("client_encoding");
  const auto* servers = reported_->find("server_encoding");
  if (theirs == nullptr || servers == nullptr) return encoding::converted;
  return placement::encoding_between(*theirs, *servers);
}

namespace {

pg_error no_key() {
  return {"XX000", "the plan names a sharding key that the statement does not have", {}, {}};
}

// A literal's bytes: in the statement itself unless doubled quotes have to be undone.
std::string_view bytes_of(std::string_view sql, const sql::literal& at, std::string& room) {
  auto raw = sql.substr(at.offset, at.length);
  if (!at.quoted || raw.size() < 2) return raw;
  raw = raw.substr(1, raw.size() - 2);
  if (raw.find('\'') == raw.npos) return raw;
  room = sql::literal_value(sql, at);
  return room;
}

}  // namespace

// `room` holds the text when it is in no message. Numbers and uuids allocate nothing.
result<placement::value> client::key_value(const plan::key& key, const placement::rule& rule,
                                           std::string_view sql, const byte_span* bind_body,
                                           std::string& room) {
  placement::text_rules texts{encoding::converted, key.limit};
  if (rule.type == key_type::varchar) {
    texts.encoding = key_encoding();
    // The file is in UTF-8, and so are constants that the parser has decoded.
    const bool needs_utf8 = rule.mapping != 0 || key.source == plan::key_source::constant;
    if (needs_utf8 && texts.encoding != encoding::utf8) texts.encoding = encoding::converted;
  }
  switch (key.source) {
    case plan::key_source::constant:
      if (rule.type == key_type::bigint) return placement::value{rule.type, key.constant, {}, {}};
      return placement::normalise(rule.type, placement::form::text, key.text, texts);
    case plan::key_source::literal: {
      // The shape's literals are those of this text: the plan may come from another text's shape.
      if (!worker_.is_shaped(sql)) sql::find_shape(sql, standard_strings(), worker_.shape());
      const auto& literals = worker_.shape().literals;
      if (key.number >= literals.size()) return tl::unexpected(no_key());
      const auto bytes = bytes_of(sql, literals[key.number], room);
      auto value = placement::normalise(rule.type, placement::form::text, bytes, texts);
      // Only numbers have a sign before them, and digits alone are never less than zero.
      if (value && key.negated) value->number = -value->number;
      return value;
    }
    case plan::key_source::parameter: {
      if (bind_body == nullptr) {
        return failure("42P02", "there is no parameter $" + std::to_string(key.number + 1));
      }
      const auto sent = wire::read_bind(*bind_body);
      if (!sent) return tl::unexpected(no_key());
      const auto parameter = wire::bind_parameter(*sent, key.number);
      if (!parameter.present) {
        return failure("0A000", "the sharding key is NULL",
                       "A row is placed by its key: give parameter $" +
                           std::to_string(key.number + 1) + " a value.");
      }
      const auto form = parameter.binary ? placement::form::binary : placement::form::text;
      return placement::normalise(rule.type, form, as_text(parameter.value), texts);
    }
    case plan::key_source::none: break;
  }
  return tl::unexpected(no_key());
}

bool client::key_shard(const plan::plan& planned, std::string_view sql, const byte_span* bind_body,
                       std::uint32_t& shard, bool& fenced, pg_error& why) {
  const auto fail = [&](pg_error error) {
    why = std::move(error);
    return false;
  };
  const auto& rule = planned.rule;
  std::string room, other_room;
  auto value = key_value(planned.key, rule, sql, bind_body, room);
  if (!value) return fail(std::move(value.error()));
  for (const auto& other : planned.also_equal) {
    auto same = key_value(other, rule, sql, bind_body, other_room);
    if (!same) return fail(std::move(same.error()));
    if (*same != *value) return fail(planned.error);
  }
  const auto& database = endpoint_->database;
  if (rule.mapping == 0) {
    const auto& owners = *endpoint_->owners;
    if (owners.bucket_map.empty()) {
      return fail({"57P03", "the shard map of database \"" + database.name + "\" is not known yet",
                   "The router reads it from the shards; see its log if this lasts.", {}});
    }
    const auto bucket = placement::hash_of(rule.hasher, *value) % owners.bucket_map.size();
    shard = owners.bucket_map[bucket];
    fenced = owners.is_fenced(bucket);
  } else {
    const auto& all = *endpoint_->mappings;
    const auto mapping = std::find_if(all.begin(), all.end(),
                                      [&](const auto& one) { return one.id() == rule.mapping; });
    if (mapping == all.end()) {
      return fail({"57P03", "the lists and ranges of a table have just changed", "Try again.", {}});
    }
    const auto found = mapping->find(*value);
    if (!found) {
      return fail({"0A000", "no shard is given for this value of the sharding key",
                   "Add it to a list, a range or the default of the table in pgdog.toml.", {}});
    }
    shard = *found;
  }
  if (shard >= endpoint_->pools.size()) {
    return fail({"57P03", "database \"" + database.name + "\" has no shard " +
                              std::to_string(shard), {}, {}});
  }
  return true;
}

}  // namespace pgsled::frontend
