#include "services/frontend/copy/shard_copy.hpp"

#include <algorithm>
#include <charconv>

#include "services/frontend/client/client.hpp"
#include "services/frontend/copy/shard_copy_leg.hpp"
#include "services/frontend/shards/transaction.hpp"
#include "services/frontend/statements/unit.hpp"
#include "services/frontend/worker/worker.hpp"

namespace pgsled::frontend {

namespace be = wire::backend;

namespace {


void add_field(std::string& to, char field, std::string_view value) {
  if (value.empty()) return;
  to.push_back(field);
  to.append(value).push_back('\0');
}

// The number after the table's name in PostgreSQL's "COPY t, line 3, column a: …", whatever the
// language. What stands behind it, or in the lines of a trigger's function before it, may be a value
// that looks like it.
std::string_view line_in(std::string_view context, const std::string& table) {
  std::size_t line = 0;
  const std::string ours = "COPY " + table;
  while (line != context.npos && !context.substr(line).starts_with(ours)) {
    line = context.find('\n', line);
    if (line != context.npos) ++line;
  }
  const auto at = line == context.npos ? context.find(table) : line + ours.size() - table.size();
  if (at == context.npos) return {};
  const auto begin = context.find_first_of("0123456789", at + table.size());
  if (begin == context.npos) return {};
  const auto end = context.find_first_not_of("0123456789", begin);
  return context.substr(begin, std::min(end, context.size()) - begin);
}

}  // namespace

shard_copy::shard_copy(worker& w, client& c) : worker_(w), client_(c) {}
shard_copy::~shard_copy() {
  worker_.loop().cancel(timer_);
  close_splitting();
}

void shard_copy::later(std::function<void()> task) {
  worker_.schedule([alive = std::weak_ptr<int>(alive_), task = std::move(task)] {
    if (!alive.expired()) task();
  });
}

// Where rows of the table may be. While they move between shards nothing is copied out at all
// (client::route).
std::vector<std::uint32_t> shard_copy::shards_of(const plan::plan& p, const client& c) {
  const auto& endpoint = *c.endpoint_;
  std::vector<std::uint32_t> all;
  const auto add = [&](std::uint32_t shard) { all.push_back(shard); };
  if (p.copy.key.empty()) {
    return c.holding_shards();
  } else if (p.rule.mapping == 0) {
    for (const auto shard : endpoint.owners->bucket_map) add(shard);
  } else {
    for (const auto& mapping : endpoint.database.mappings) {
      if (mapping.id != p.rule.mapping) continue;
      for (const auto& entry : mapping.list) add(entry.second);
      for (const auto& range : mapping.ranges) add(range.shard);
      if (mapping.fallback >= 0) add(static_cast<std::uint32_t>(mapping.fallback));
    }
  }
  std::sort(all.begin(), all.end());
  all.erase(std::unique(all.begin(), all.end()), all.end());
  return all;
}

void shard_copy::run(std::string unit_bytes, std::string sql, plan_ref planned, bool alone) {
  unit_ = std::move(unit_bytes);
  sql_ = std::move(sql);
  plan_ = std::move(planned);
  alone_ = alone;
  unit parsed;
  client_.read_unit(as_bytes(unit_), parsed);
  simple_ = parsed.simple;
  const auto shards = shards_of(plan_->plan, client_);
  if (shards.empty()) {
    fail({"57P03", "where the rows of table \"" + job().name + "\" belong is not known yet",
          "Try again.", {}});
    return;
  }
  for (const auto shard : shards) legs_[shard] = std::make_unique<leg>(*this, shard);
  // What it gives out is of one moment, as far as several servers have one.
  const char* begin = incoming() ? "BEGIN" : "BEGIN ISOLATION LEVEL REPEATABLE READ";
  client_.spread_->join(shards, alone ? std::string(begin) : client_.script_.sql(),
                        [this, alive = std::weak_ptr<int>(alive_)](const pg_error* why) {
                          if (!alive.expired()) joined(why);
                        });
}

void shard_copy::joined(const pg_error* why) {
  if (phase_ != phase::joining) return;
  client_.write(client_.spread_->take_asides());
  if (why != nullptr) {
    legs_.clear();
    return fail(*why);
  }
  for (auto& [shard, one] : legs_) one->lease = &client_.spread_->lend(shard, *one);
  phase_ = phase::columns;
  const auto sql = columns_sql();
  for (auto& [shard, one] : legs_) one->ask(sql);
}

namespace {

// Does column b.attnum of the table have a default that each shard would compute otherwise? The
// functions that PostgreSQL has built in are named in the expression only.
std::string computes_default(const std::string& table) {
  return "EXISTS (SELECT FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type of ON of.oid ="
         " a.atttypid LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum ="
         " a.attnum CROSS JOIN LATERAL (SELECT coalesce(d.adbin, of.typdefaultbin)::text AS tree) e"
         " WHERE a.attrelid = " +
         session::quote_literal(table) +
         "::pg_catalog.regclass AND a.attnum = b.attnum AND (a.attidentity <> '' OR e.tree ~"
         " 'SQLVALUEFUNCTION|NEXTVALUEEXPR' OR EXISTS (SELECT FROM pg_catalog.regexp_matches("
         "e.tree, 'funcid ([0-9]+)', 'g') AS m JOIN pg_catalog.pg_proc p ON p.oid ="
         " m[1]::pg_catalog.oid WHERE p.provolatile <> 'i')))";
}

// Triggers that may give each shard another row, or none.
std::string changes_rows(const std::string& table) {
  return "EXISTS (SELECT FROM pg_catalog.pg_trigger WHERE tgrelid = " +
         session::quote_literal(table) +
         "::pg_catalog.regclass AND NOT tgisinternal AND tgenabled IN ('O', 'A') AND"
         " tgtype & 7 = 7)";   // BEFORE INSERT, for each row
}

}  // namespace

// The columns as they are now and stay until the end of the transaction: the first statement locks
// the table as COPY will, and needs no more rights than COPY does. Types under all domains, as
// equality sees them.
std::string shard_copy::columns_sql() const {
  const auto& table = job().table;
  return std::string("EXPLAIN (COSTS OFF) ") +
         (incoming() ? "INSERT INTO " + table + " DEFAULT VALUES" : "SELECT FROM ONLY " + table) +
         ";WITH RECURSIVE base AS (SELECT attnum, attname, atttypid AS type, atttypmod AS modifier,"
         " attcollation AS collation FROM pg_catalog.pg_attribute WHERE attrelid = " +
         session::quote_literal(table) +
         "::pg_catalog.regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''"
         " UNION ALL SELECT b.attnum, b.attname, t.typbasetype, CASE WHEN b.modifier < 0 THEN"
         " t.typtypmod ELSE b.modifier END, b.collation FROM base b JOIN pg_catalog.pg_type t"
         " ON t.oid = b.type WHERE t.typtype = 'd') SELECT b.attname, CASE WHEN n.nspname ="
         " 'pg_catalog' THEN '' ELSE n.nspname || '.' END || t.typname, CASE WHEN t.oid ="
         " 'pg_catalog.varchar'::pg_catalog.regtype AND b.modifier >= 4 THEN b.modifier - 4 ELSE 0"
         " END, coalesce(c.collisdeterministic, true), " +
         (job().key.empty() ? computes_default(table) + ", " + changes_rows(table)
                            : "false, false") +
         " FROM base b JOIN pg_catalog.pg_type t ON"
         " t.oid = b.type JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace LEFT JOIN"
         " pg_catalog.pg_collation c ON c.oid = b.collation WHERE t.typtype <> 'd'"
         " ORDER BY b.attnum";
}

void shard_copy::leg_read(leg& one) {
  if (phase_ == phase::failing && one.copying) return give_up(one);
  if (phase_ != phase::starting || !incoming()) return;
  if (std::all_of(legs_.begin(), legs_.end(), [](const auto& each) {
        return each.second->copying;
      })) {
    begin_input();
  }
}

void shard_copy::leg_done(leg& one) {
  if (std::exchange(one.made_fail, false)) {
    one.error.reset();
    return legs_quiet();
  }
  if (const auto told = std::exchange(one.error, nullptr)) {
    // What we have made it say is nobody's news.
    const bool cancelled = told->sqlstate == "57014";
    if (cancelled && client_.spread_->take_victim()) return fail(shard_transaction::deadlock());
    if (!cancelled || !one.gave_up) return fail(std::move(*told));
  }
  if (phase_ == phase::columns && !any_running()) return columns_known();
  if (phase_ == phase::streaming && !incoming()) return next_output();
  if (phase_ == phase::starting || (phase_ == phase::streaming && incoming())) {
    return fail({"XX000", "a shard has ended a COPY by itself", {}, {}});
  }
  if ((phase_ == phase::ending || phase_ == phase::failing) && !any_running()) legs_quiet();
}

void shard_copy::columns_known() {
  const auto& first = legs_.begin()->second->rows;
  for (const auto& [shard, one] : legs_) {
    if (one->rows == first) continue;
    if (!job().columns.empty() && job().key.empty()) continue;   // named, and nothing to be placed
    return fail({"55000",
                 "table \"" + job().name + "\" has other columns, or in another order, on shard " +
                     std::to_string(shard) + " than on shard " +
                     std::to_string(legs_.begin()->first),
                 "Make the table the same on every shard.",
                 {}});
  }
  if (!incoming()) return next_output();
  pg_error why;
  if (!make_spec(why)) return fail(why);
  phase_ = phase::waiting;
  patience_ =
      worker_.loop().now() + std::chrono::milliseconds(worker_.settings().checkout_timeout);
  if (spec_.everywhere) return start();
  find_splitter();
}

void shard_copy::start() {
  phase_ = phase::starting;
  for (auto& [shard, one] : legs_) {
    client_.spread_->wrote(shard);
    one->ask(sql_);
  }
}

bool shard_copy::any_running() const {
  return std::any_of(legs_.begin(), legs_.end(),
                     [](const auto& one) { return one.second->running; });
}

void shard_copy::leg_lost(leg& one, const pg_error& why) {
  lost_ = true;
  const auto at = legs_.find(one.shard);
  gone_.push_back(std::move(at->second));
  legs_.erase(at);
  client_.spread_->lost_lent(one.shard);
  later([this] { gone_.clear(); });
  fail(why);
}

// --- errors ------------------------------------------------------------------------------------

shard_copy::told_error shard_copy::server_error(const leg& one, byte_span body) const {
  told_error told;
  std::string_view rest = as_text(body);
  while (!rest.empty() && rest.front() != '\0') {
    const char field = rest.front();
    const auto end = std::min(rest.find('\0', 1), rest.size());
    const auto value = rest.substr(1, end - 1);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    const auto number = field == 'W' && held_ ? line_in(value, job().name) : std::string_view{};
    if (field == 'C') told.sqlstate = value;
    if (number.empty()) {
      // A position in a text that the client has not sent is none.
      if (field != 'P' || phase_ != phase::columns) add_field(told.body, field, value);
      continue;
    }
    std::uint64_t line = 0;
    std::from_chars(number.data(), number.data() + number.size(), line);
    const auto clients = spec_.everywhere ? std::optional(line)
                                          : held_->client_line(one.shard, line);
    told.line = clients.value_or(0);
    const auto at = static_cast<std::size_t>(number.data() - value.data());
    std::string context(value.substr(0, at));
    context += clients ? std::to_string(*clients)
                       : std::string(number) + " of shard " + std::to_string(one.shard);
    context += value.substr(at + number.size());
    add_field(told.body, field, context);
  }
  return told;
}

shard_copy::told_error shard_copy::own_error(const pg_error& why, const std::string& context,
                                             std::uint64_t line) {
  told_error told;
  add_field(told.body, 'S', "ERROR");
  add_field(told.body, 'V', "ERROR");
  add_field(told.body, 'C', why.sqlstate);
  add_field(told.body, 'M', why.message);
  add_field(told.body, 'D', why.detail);
  add_field(told.body, 'H', why.hint);
  add_field(told.body, 'W', context);
  told.sqlstate = why.sqlstate;
  told.line = line;
  return told;
}

void shard_copy::fail(const pg_error& why, const std::string& context, std::uint64_t line) {
  fail(own_error(why, context, line));
}

void shard_copy::fail(told_error why) {
  if (phase_ == phase::finishing || phase_ == phase::over) return;
  // Of several errors the one that PostgreSQL would have met first; a server's own is the one that
  // it says.
  const bool earlier = error_ && why.line != 0 && (error_->line == 0 || why.line <= error_->line);
  if (!error_ || earlier) error_ = std::make_unique<told_error>(std::move(why));
  if (phase_ != phase::failing) {
    phase_ = phase::failing;
    close_splitting();
    for (auto& [shard, one] : legs_) {
      if (one->running && one->copying) give_up(*one);
    }
  }
  if (!any_running()) legs_quiet();
}

void shard_copy::give_up(leg& one) {
  if (!one.gave_up) one.send_failure("another shard, or the input of COPY, has failed");
}

void shard_copy::cancel() {
  if (phase_ == phase::joining) return client_.spread_->cancel();
  if (phase_ == phase::finishing || phase_ == phase::over) return;
  for (auto& [shard, one] : legs_) {
    auto* lease = one->lease;
    if (!one->running || lease == nullptr || lease->cancelling || lease->orphan || lease->unheard)
      continue;
    lease->cancelling = true;
    worker_.tell_pooler(lease->pooler(), lease::cancel{lease->id(), lease->generation()});
  }
  fail({"57014", "canceling statement due to user request", {}, {}});
}

void shard_copy::abandon() {
  phase_ = phase::over;
  close_splitting();
  alive_ = std::make_shared<int>(0);   // what is scheduled is nobody's
  for (auto& [shard, one] : legs_) gone_.push_back(std::move(one));
  legs_.clear();
}

// --- the end -----------------------------------------------------------------------------------

// No leg runs anything: the transaction has them back.
void shard_copy::legs_quiet() {
  if (!error_ && incoming() && spec_.everywhere) {
    for (const auto& [shard, one] : legs_) {
      if (one->tag == legs_.begin()->second->tag) continue;
      error_ = std::make_unique<told_error>(own_error(
          {"0A000", "COPY into table \"" + spec_.table + "\", which is on every shard, has not "
           "loaded the same rows on each", "Use INSERT.", {}}, {}, 0));
      break;
    }
  }
  const auto failed = [](const auto& each) { return each.second->lease->ledger.status() == 'E'; };
  if (!alone_ && error_ && !lost_ && !legs_.empty() &&
      std::none_of(legs_.begin(), legs_.end(), failed)) {
    // The error was ours: one of the servers must be in a failed transaction, too.
    auto& one = *legs_.begin()->second;
    if (one.lease->ledger.status() == 'T' && !std::exchange(forced_, true)) {
      one.made_fail = true;
      return one.ask(failing_statement);
    }
  }
  phase_ = phase::finishing;
  later([this] { end_transaction(); });
}

void shard_copy::end_transaction() {
  auto& transaction = *client_.spread_;
  for (auto& [shard, one] : legs_) {
    if (one->lease == nullptr) continue;
    const bool counts = incoming() && (!spec_.everywhere || shard == legs_.begin()->first);
    if (counts) {
      const auto space = one->tag.rfind(' ');
      std::uint64_t rows = 0;
      if (space != std::string::npos) {
        std::from_chars(one->tag.data() + space + 1, one->tag.data() + one->tag.size(), rows);
      }
      rows_ += rows;
    }
    one->lease = nullptr;
    transaction.park(shard);
  }
  if (!alone_) {
    if (error_) {
      client_.shadow_->failed();
      client_.virtual_status_ = 'E';
      if (transaction.size() == 0) client_.spread_.reset();
    } else {
      client_.virtual_status_ = 'T';
    }
    return answer();
  }
  const std::weak_ptr<int> alive = alive_;
  if (error_) {
    transaction.rollback([this, alive](const pg_error*) {
      if (!alive.expired()) answer();
    });
    return;
  }
  transaction.commit(client_.shadow_->current(), client_.endpoint_->commits_statement,
                     [this, alive](const pg_error* why, const std::string& warning) {
                       if (alive.expired()) return;
                       if (why != nullptr) {
                         error_ = std::make_unique<told_error>(own_error(*why, {}, 0));
                       }
                       answer(warning);
                     });
}

// ParseComplete and what else comes before the statement's own answer.
void shard_copy::answer_beginning() {
  if (std::exchange(begun_, true) || simple_) return;
  unit parsed;
  client_.read_unit(as_bytes(unit_), parsed);
  const auto execute = std::find_if(parsed.parts.begin(), parsed.parts.end(), [](const auto& part) {
    return part.type == wire::frontend::execute;
  });
  parsed.parts.erase(execute, parsed.parts.end());
  client_.answer_unit(parsed, {});
}

void shard_copy::answer(const std::string& warning) {
  auto& c = client_;
  phase_ = phase::over;
  const bool was_begun = begun_;
  answer_beginning();
  if (alone_) {
    if (error_) c.shadow_->failed();
    if (!c.shards_ended({}, error_ ? "ROLLBACK" : "COMMIT")) return;
  } else if (lost_) {
    return c.end(pg_error{"08006", "a server of the transaction is gone; it is lost", {}, {}});
  }
  std::string bytes;
  if (!warning.empty()) wire::write_notice(bytes, "WARNING", {"01000", warning, {}, {}});
  unit parsed;
  c.read_unit(as_bytes(unit_), parsed);
  if (error_) {
    ++c.counts_.errors;
    wire::writer(bytes, be::error_response).raw(error_->body).raw(std::string_view("\0", 1));
  } else {
    if (!incoming()) wire::write_empty(bytes, be::copy_done);
    wire::write_command_complete(bytes, "COPY " + std::to_string(rows_));
  }
  // A Sync that came before the data was read inside the COPY, and ignored as PostgreSQL does.
  const bool sync_counts = parsed.ends_with_sync && !(incoming() && was_begun);
  if (simple_ || sync_counts) {
    wire::write_ready(bytes, c.status());
  } else if (error_) {
    c.skip_to_sync_ = true;
  }
  // What is left of a CopyData message is nobody's.
  if (message_left_ > 0) {
    c.streaming_ = message_left_;
    c.dropping_ = true;
  }
  c.write(bytes);
  c.set_state(client::state::ready);
  later([this] {
    auto& owner = client_;
    auto self = std::move(owner.copy_);   // destroys this at the end
    if (owner.status() == 'I' && owner.ends_with_drain()) return;
    owner.resume();
    owner.watch();
  });
}

}  // namespace pgsled::frontend
