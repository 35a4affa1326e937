#include "services/router/admin/desk.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace pgsled::router {

std::vector<std::string> members_of(const control& truth,
                                    const std::vector<std::string>& services) {
  std::vector<std::string> names;
  for (const auto& [name, who] : truth.members().all()) {
    if (std::find(services.begin(), services.end(), who.hello.service) != services.end()) {
      names.push_back(name);
    }
  }
  return names;
}

void admin_desk::tick(std::int64_t now) {
  const auto period = truth_.configuration().general.stats_period;
  if (!window_.due(now, period)) return;
  const auto whom = members_of(truth_, {"frontend", "pooler"});
  if (whom.empty()) return;
  window_.taking(now, period);
  // When too many questions are open, this window is the longer one.
  questions_.ask(whom, R"({"what":"stats"})", now + gather_wait,
                 [this](gathered got) { window_.sample(read_rows(got), calls_.now()); });
}

void admin_desk::request(const std::string& from, std::uint64_t request, const std::string& sql) {
  const asker who{from, request};
  const auto read = read_admin_statement(sql);
  if (!read) return calls_.error(from, request, read.error());
  switch (read->verb) {
    case admin_statement::command::show: return show(who, *read);
    case admin_statement::command::reload: return reload(who, read->tag);
    case admin_statement::command::reshard: return reshard(who, *read);
    case admin_statement::command::follow: return follow(who, *read);
    case admin_statement::command::cutover:
      return tell_task(who, "cutover_move", "CUTOVER", read->what);
    case admin_statement::command::stop_task:
      return tell_task(who, "abort_move", "STOP_TASK", read->what);
    case admin_statement::command::shutdown: {
      admin_table done;
      done.has_result = false;
      done.tag = read->tag;
      give(who, std::move(done), {});
      return calls_.shutdown();
    }
    case admin_statement::command::quiet: {
      admin_table done;
      done.has_result = false;
      done.tag = read->tag;
      return give(who, std::move(done), {});
    }
    case admin_statement::command::select_one: {
      admin_table one;
      one.column("?column?", column_type::number);
      one.rows.push_back({"1"});
      one.tag = "SELECT 1";
      return give(who, std::move(one), {});
    }
  }
}

void admin_desk::show(const asker& who, const admin_statement& asked) {
  const std::string& what = asked.what;
  if (what == "version") return give(who, show_version(), asked.columns);
  if (what == "help") return give(who, show_help(), asked.columns);
  if (what == "config") return give(who, show_config(truth_.configuration()), asked.columns);
  if (what == "databases") return give(who, show_databases(truth_), asked.columns);
  if (what == "status") return give(who, show_status(truth_, calls_.self()), asked.columns);
  if (what == "transactions") {
    return give(who, show_transactions(calls_.transactions()), asked.columns);
  }
  if (what == "clients") return show_gathered(who, asked, {"frontend"});
  if (what == "tasks" || what == "replication_slots") {
    return show_gathered(who, asked, {"replicator"});
  }
  if (what == "servers") return show_gathered(who, asked, {"pooler"});
  if (what == "pools" || what == "stats" || what == "lists") {
    return show_gathered(who, asked, {"frontend", "pooler"});
  }
  admin_table parameter;
  if (show_parameter(what, parameter)) return give(who, std::move(parameter), {});
  calls_.error(who.name, who.request,
               {"42601", "unknown view or parameter \"" + what.substr(0, 64) + "\"",
                "SHOW HELP lists what this version knows.", {}});
}

void admin_desk::show_gathered(const asker& who, const admin_statement& asked,
                               std::vector<std::string> services) {
  const std::string what = asked.what;
  const auto columns = asked.columns;
  const bool begun = questions_.ask(
      members_of(truth_, services), "{\"what\":\"" + what + "\"}", calls_.now() + gather_wait,
      [this, who, what, columns](gathered got) {
        const auto rows = read_rows(got);
        admin_table made = what == "clients"   ? show_clients(rows)
                           : what == "servers" ? show_servers(truth_, rows)
                           : what == "pools"   ? show_pools(truth_, rows)
                           : what == "stats"   ? show_stats(truth_, rows, window_)
                           : what == "tasks"   ? show_tasks(rows)
                           : what == "replication_slots" ? show_replication_slots(rows)
                                               : show_lists(truth_, rows);
        std::sort(got.missing.begin(), got.missing.end());
        for (const std::string& name : got.missing) {
          made.notice += (made.notice.empty() ? "no answer from " : ", ") + name;
        }
        give(who, std::move(made), columns);
      });
  if (begun) return;
  calls_.error(who.name, who.request, {"53400", "too many views are being made", {}, {}});
}

void admin_desk::reshard(const asker& who, const admin_statement& asked) {
  move_order order;
  for (const auto& [name, member] : truth_.members().all()) {
    if (member.hello.service == "replicator" && !member.draining) order.replicators.push_back(name);
  }
  if (order.replicators.empty()) {
    return calls_.error(who.name, who.request, {"57P03", "no replicator is there", {}, {}});
  }
  const bool known = truth_.database(asked.database) != nullptr;
  if (!asked.to.empty()) {
    if (const auto why = cluster_objection(truth_, asked.database, asked.to)) {
      return calls_.error(who.name, who.request, *why);
    }
  } else if (!known) {
    return calls_.error(who.name, who.request, {"3D000", "there is no such database", {}, {}});
  }
  order.json = fmt::format(
      R"({{"what":"start_move","kind":"{}","database":{},"shard":"{}","to":{},"cutover":"{}"}})",
      asked.what, json_text(asked.database), asked.shard, json_text(asked.to), asked.cutover);
  order.tag = asked.tag;
  order.own_names = asked.what == "new-cluster";
  start_move(who, std::move(order));
}

// What the move does by itself anyway.
void admin_desk::follow(const asker& who, const admin_statement& asked) {
  const auto* state = truth_.state(asked.database);
  if (state != nullptr && state->leads && state->other == asked.to && !state->moving.empty()) {
    return give_task(who, state->moving, asked.tag, false);
  }
  calls_.error(who.name, who.request,
               {"55000", fmt::format("{}: no task moves database \"{}\" to \"{}\"", asked.tag,
                                     asked.database, asked.to),
                "COPY_DATA source destination publication copies, makes the indexes afterwards, and "
                "goes on to follow the source; CUTOVER sets the sequences.", {}});
}

void admin_desk::give_task(const asker& who, const std::string& job, const std::string& tag,
                           bool own_names) {
  admin_table made;
  made.column("task_id");
  made.rows.push_back({job});
  if (tag == "COPY_DATA") {
    made.column("replication_slot");
    made.rows.back().push_back("pgsled_" + job);
  }
  made.tag = tag;
  if (own_names) made.notice = "publications and slots have names of pgsled's own, which begin so";
  give(who, std::move(made), {});
}

// One replicator is asked after the other, until one is free. One that does not answer may have
// begun it, so that no other is asked then.
void admin_desk::start_move(const asker& who, move_order order) {
  const std::string to = order.replicators.front();
  const auto json = order.json;
  order.replicators.erase(order.replicators.begin());
  const bool begun = questions_.ask({to}, json, calls_.now() + gather_wait, [this, who, order](
                                                                                gathered got) {
    const auto rows = read_rows(got);
    if (rows.empty()) {
      return calls_.error(who.name, who.request,
                          {"57P03", "the replicator did not answer", "See SHOW TASKS.", {}});
    }
    const auto& said = rows.front();
    if (const auto why = said.text("error"); !why.empty()) {
      const auto sqlstate = said.text("sqlstate");
      const bool busy = sqlstate == "55006" || sqlstate == "57P01";
      if (busy && !order.replicators.empty()) return start_move(who, order);
      return calls_.error(who.name, who.request, {sqlstate, why, {}, {}});
    }
    give_task(who, said.text("job"), order.tag, order.own_names);
  });
  if (begun) return;
  calls_.error(who.name, who.request, {"53400", "too many views are being made", {}, {}});
}

void admin_desk::tell_move(const char* what, const std::string& job, const std::string& act,
                           std::function<void(std::optional<pg_error>)> done) {
  const auto json = fmt::format(R"({{"what":"{}","job":{},"do":"{}"}})", what, json_text(job), act);
  const bool begun = questions_.ask(
      members_of(truth_, {"replicator"}), json, calls_.now() + gather_wait,
      [job, done](gathered got) {
        const auto rows = read_rows(got);
        if (rows.empty()) {
          return done(pg_error{"42704",
                               job.empty() ? "no replicator runs such a move"
                                           : "no replicator runs the move " + job.substr(0, 64),
                               "SHOW TASKS and pgsled reshard status list them. One whose "
                               "replicator has died is taken over within seconds.", {}});
        }
        const auto why = rows.front().text("error");
        if (why.empty()) return done({});
        done(pg_error{rows.front().text("sqlstate"), why, {}, {}});
      });
  if (!begun) done(pg_error{"53400", "too many views are being made", {}, {}});
}

void admin_desk::tell_task(const asker& who, const char* what, const char* tag,
                           const std::string& id) {
  tell_move(what, id, {}, [this, who, tag](std::optional<pg_error> why) {
    if (why) return calls_.error(who.name, who.request, *why);
    admin_table done;
    done.has_result = false;
    done.tag = tag;
    give(who, std::move(done), {});
  });
}

void admin_desk::reload(const asker& who, const std::string& tag) {
  calls_.reload([this, who, tag](const std::string& mistakes,
                                 const std::vector<std::string>& behind) {
    if (!mistakes.empty()) {
      return calls_.error(who.name, who.request,
                          {"F0000", "the configuration was not reloaded: " + mistakes,
                           "Correct the files and RELOAD again; the old configuration stays.", {}});
    }
    admin_table done;
    done.has_result = false;
    done.tag = tag;
    for (const std::string& name : behind) {
      done.notice += (done.notice.empty() ? "not acknowledged by " : ", ") + name;
    }
    give(who, std::move(done), {});
  });
}

void admin_desk::give(const asker& who, admin_table made, const std::vector<std::string>& columns) {
  auto kept = only_columns(std::move(made), columns);
  if (!kept) return calls_.error(who.name, who.request, kept.error());
  calls_.answer(who.name, who.request, to_json(*kept));
}

}  // namespace pgsled::router
