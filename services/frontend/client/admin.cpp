// The admin database: every statement is answered by the router, for the simple and the extended
// protocol alike.

#include <boost/json.hpp>

#include "common/wire/messages.hpp"
#include "services/frontend/client/client.hpp"
#include "services/frontend/statements/unit.hpp"
#include "services/frontend/worker/worker.hpp"

namespace pgsled::frontend {

namespace fe = wire::frontend;
namespace json = boost::json;

namespace {

struct table {
  std::vector<wire::column> columns;
  std::vector<std::vector<std::optional<std::string>>> rows;
  std::string tag = "SHOW", notice;
};

result<table> read_table(std::string_view text) {
  boost::system::error_code failed;
  const auto parsed = json::parse(json::string_view(text.data(), text.size()), failed);
  if (failed || !parsed.is_object()) return failure("08P01", "the router's answer cannot be read");
  const auto& object = parsed.as_object();
  const auto text_of = [](const json::value& v) { return std::string(v.as_string()); };
  table made;
  if (const auto* columns = object.if_contains("columns");
      columns != nullptr && columns->is_array()) {
    for (const auto& column : columns->as_array()) {
      const auto* fields = column.if_object();
      if (fields == nullptr) continue;
      wire::column next;
      if (const auto* name = fields->if_contains("name"); name != nullptr && name->is_string())
        next.name = text_of(*name);
      if (const auto* type = fields->if_contains("type"); type != nullptr && type->is_int64()) {
        next.type = static_cast<std::uint32_t>(type->as_int64());
      }
      made.columns.push_back(std::move(next));
    }
  }
  if (const auto* rows = object.if_contains("rows"); rows != nullptr && rows->is_array()) {
    for (const auto& row : rows->as_array()) {
      auto& values = made.rows.emplace_back();
      if (!row.is_array()) continue;
      for (const auto& value : row.as_array()) {
        if (value.is_string()) {
          values.emplace_back(text_of(value));
        } else if (value.is_null()) {
          values.emplace_back(std::nullopt);
        } else {
          values.emplace_back(json::serialize(value));
        }
      }
      values.resize(made.columns.size());
    }
  }
  if (const auto* tag = object.if_contains("tag"); tag != nullptr && tag->is_string())
    made.tag = text_of(*tag);
  if (const auto* notice = object.if_contains("notice"); notice != nullptr && notice->is_string()) {
    made.notice = text_of(*notice);
  }
  return made;
}

}  // namespace

client::routed client::admin(byte_span bytes) {
  unit now;
  if (!read_unit(bytes, now)) return routed::need_more;
  unit_left_ = now.bytes;
  std::string_view sql;
  bool wanted = false;
  for (const auto& part : now.parts) {
    if (part.type == fe::query) sql = wire::read_query(part.body).value_or("");
    if (part.target &&
        (part.type == fe::parse || part.type == fe::bind || part.type == fe::describe)) {
      sql = part.target->sql;
      if (part.type == fe::parse) {
        if (const auto sent = wire::read_parse(part.body); sent && !sent->name.empty()) {
          if (!has_room_for_name()) return routed::done;
          (*prepared_)[std::string(sent->name)] = part.target;
        } else {
          unnamed_ = part.target;
        }
      }
    }
    wanted =
        wanted || part.type == fe::query || part.type == fe::execute || part.type == fe::describe;
  }
  std::string unit_bytes(as_text(bytes.first(now.bytes)));
  if (!wanted) {
    admin_answer(unit_bytes, result<std::string>(std::string("{}")));
    return routed::done;
  }
  ++counts_.queries;
  const json::object request{{"user", endpoint_->user.name},
                             {"sql", json::string(sql.data(), sql.size())}};
  ask_router(bus::kind::admin_request, json::serialize(request), std::chrono::seconds(15),
             [this, unit_bytes](const result<bus::envelope>& reply) {
               set_state(state::ready);
               if (reply) {
                 admin_answer(unit_bytes, std::string(as_text(reply->payload)));
               } else {
                 admin_answer(unit_bytes, tl::unexpected<pg_error>(reply.error()));
               }
               resume();
             });
  return routed::done;
}

// What the client sends meanwhile waits. `then` is not called when it has gone.
void client::ask_router(bus::kind kind, const std::string& payload, std::chrono::seconds limit,
                        std::function<void(const result<bus::envelope>&)> then) {
  set_state(state::asking);
  worker_.router().ask(kind, as_bytes(payload), limit,
                       [&owner = worker_, pid = worker_.cancel_pid(slot_), serial = serial_,
                        then = std::move(then)](const result<bus::envelope>& reply) {
                         const auto* asker = owner.client_of(pid);
                         if (asker == nullptr || asker->serial_ != serial ||
                             asker->state_ != state::asking) {
                           return;
                         }
                         then(reply);
                         owner.run_scheduled();
                       });
}

void client::admin_answer(const std::string& unit_bytes, result<std::string> answered) {
  namespace be = wire::backend;
  unit now;
  read_unit(as_bytes(unit_bytes), now);
  result<table> made =
      answered ? read_table(*answered) : result<table>(tl::unexpected<pg_error>(answered.error()));
  if (!made) return refuse_unit(now, made.error());
  std::string bytes;
  const auto rows = [&] {
    for (const auto& row : made->rows) wire::write_data_row(bytes, row);
    wire::write_command_complete(bytes, made->tag);
  };
  const auto columns = [&] {
    if (made->columns.empty()) {
      wire::write_empty(bytes, be::no_data);
    } else {
      wire::write_row_description(bytes, made->columns);
    }
  };
  if (!made->notice.empty())
    wire::write_notice(bytes, "NOTICE", pg_error{"01000", made->notice, {}, {}});
  for (const auto& part : now.parts) {
    switch (part.type) {
      case fe::query:
        if (!made->columns.empty()) columns();
        rows();
        wire::write_ready(bytes, 'I');
        break;
      case fe::parse:
        wire::write_empty(bytes, be::parse_complete);
        break;
      case fe::bind:
        wire::write_empty(bytes, be::bind_complete);
        break;
      case fe::describe:
        if (const auto sent = wire::read_described(part.body); sent && sent->what == 'S') {
          wire::writer(bytes, be::parameter_description).i16(0);
        }
        columns();
        break;
      case fe::execute:
        rows();
        break;
      case fe::close:
        wire::write_empty(bytes, be::close_complete);
        break;
      case fe::sync:
        wire::write_ready(bytes, 'I');
        break;
      default:
        break;
    }
  }
  write(bytes);
}

}  // namespace pgsled::frontend
