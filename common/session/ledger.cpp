#include "common/session/ledger.hpp"

#include <algorithm>
#include <array>

#include "common/wire/messages.hpp"

namespace pgsled::session {

namespace be = wire::backend;

namespace {

constexpr std::array<char, 5> parse_complete{be::parse_complete, 0, 0, 0, 4};
constexpr std::array<char, 5> close_complete{be::close_complete, 0, 0, 0, 4};

// Messages of which nothing inside matters to us, whatever their size.
bool only_passes(char type) {
  switch (type) {
    case be::data_row:
    case be::copy_data:
    case be::row_description:
    case be::parameter_description:
    case be::function_call_response:
    case be::notice_response:
    case be::notification_response:
      return true;
    default:
      return false;
  }
}

bool has_no_body(char type) {
  switch (type) {
    case be::parse_complete:
    case be::bind_complete:
    case be::close_complete:
    case be::no_data:
    case be::portal_suspended:
    case be::empty_query_response:
    case be::copy_done:
      return true;
    default:
      return false;
  }
}

// The beginning of an ErrorResponse with the field it was cut in, and itself, brought to an end.
std::string well_formed(byte_span beginning) {
  std::string whole(as_text(beginning));
  whole.append(beginning.back() == 0 ? 1 : 2, '\0');
  return whole;
}

bool is_virtual(owed kind) { return kind == owed::virtual_parse || kind == owed::virtual_close; }

bool ends_batch(owed kind) {
  return kind == owed::sync || kind == owed::query || kind == owed::function_call;
}

bool may_raise_event(char type) {
  return type == be::error_response || type == be::ready_for_query ||
         type == be::parameter_status || type == be::copy_in_response;
}

}  // namespace

bool ledger::add(entry sent) {
  if (sent.kind == owed::sync) {
    if (client_copies_ && !sent.proxy) {
      // The server ignores a Sync that it reads inside a COPY; if the COPY fails before it is
      // read, it counts. Which of the two cannot be known then.
      sync_inside_copy_ = true;
      return false;
    }
    skipping_ = false;
  } else if (skipping_) {
    return false;
  }
  if (ends_batch(sent.kind)) {
    unsynced_ = false;
  } else if (!is_virtual(sent.kind)) {
    unsynced_ = true;
  }
  if (sent.kind == owed::sync) ++batch_;
  queue_.push_back(std::move(sent));
  return true;
}

void ledger::copy_ended() {
  if (client_copies_) {
    client_copies_ = false;
  } else if (!queue_.empty() && !skipping_) {
    queue_.push_back({owed::copy_end});
  }
}

bool ledger::swallows() const {
  if (queue_.empty()) return false;
  const auto& head = queue_.front();
  return head.proxy || (head.effects && head.next_effect < head.effects->size() &&
                        (*head.effects)[head.next_effect].injected);
}

// Markers of a COPY's end that was no COPY's (the server ignored it) go with what is before them.
void ledger::pop() {
  queue_.pop_front();
  while (head_is(owed::copy_end)) queue_.pop_front();
}

void ledger::flush_virtual(ledger_events& events) {
  if (streaming_ != 0) return;   // not into the middle of a message
  while (!queue_.empty()) {
    const auto kind = queue_.front().kind;
    if (kind == owed::virtual_parse) {
      events.inject({parse_complete.data(), parse_complete.size()});
    } else if (kind == owed::virtual_close) {
      events.inject({close_complete.data(), close_complete.size()});
    } else {
      return;
    }
    pop();
  }
}

// Keeps the run of bytes that go to the client unchanged, so that they leave in one piece.
struct ledger::walk {
  byte_span bytes;
  ledger_events& events;
  std::size_t run_start = 0, position = 0;

  void flush() {
    if (position > run_start) events.forward(bytes.subspan(run_start, position - run_start));
    run_start = position;
  }
  // Replies of ours that come before the next message leave before it.
  void flush_ours(ledger& book) {
    if (book.queue_.empty() || !is_virtual(book.queue_.front().kind)) return;
    flush();
    book.flush_virtual(events);
  }
  void take(std::size_t count, bool forwarded) {
    if (!forwarded) flush();
    position += count;
    if (!forwarded) run_start = position;
  }
};

std::size_t ledger::receive(byte_span bytes, ledger_events& events) {
  walk at{bytes, events};
  while (at.position < bytes.size() && !violated_) {
    const auto rest = bytes.subspan(at.position);
    if (streaming_ != 0) {
      const auto count = std::min(streaming_, rest.size());
      streaming_ -= count;
      at.take(count, streaming_forward_);
      continue;
    }
    at.flush_ours(*this);
    wire::frame frame;
    const auto state = wire::peek(rest, frame);
    if (state == wire::frame_state::partial_header) break;
    if (state == wire::frame_state::bad_length) {
      violated_ = true;
      break;
    }
    const bool whole = rest.size() >= frame.total();
    if (frame.type == be::data_row || frame.type == be::copy_data) {
      if (!head_runs()) {
        violated_ = true;
        break;
      }
      streaming_forward_ = !swallows();
      if (whole) {
        at.take(frame.total(), streaming_forward_);
      } else {
        streaming_ = frame.total();
      }
      continue;
    }
    const bool large = frame.total() > max_inspected;
    const bool fails = frame.type == be::error_response;
    if ((large && !fails && !only_passes(frame.type)) ||
        (frame.length != 0 && has_no_body(frame.type))) {
      violated_ = true;
      break;
    }
    // However a message was cut on its way, the same beginning of it is looked at.
    const auto needed = large ? (fails ? max_inspected : wire::header_size) : frame.total();
    if (rest.size() < needed) break;
    auto body = rest.subspan(wire::header_size, needed - wire::header_size);
    std::string beginning;
    if (large && fails) {
      beginning = well_formed(body);
      body = as_bytes(beginning);
    }
    bool forwarded = true;
    // What is behind us must have left before an event may inject something.
    if (may_raise_event(frame.type)) at.flush();
    if (!handle(frame.type, body, !large, events, forwarded)) {
      violated_ = true;
      break;
    }
    if (whole) {
      at.take(frame.total(), forwarded);
    } else {
      streaming_ = frame.total();
      streaming_forward_ = forwarded;
    }
    if (frame.type == be::ready_for_query) {
      // The owner may give the connection away now: nothing behind this message belongs to it yet.
      at.flush();
      events.ready(status_, !forwarded);
      if (at.position < bytes.size() && queue_.empty()) break;
    }
  }
  at.flush();
  // What only we owe behind that must not wait for more of the server, which may never come.
  if (!violated_) flush_virtual(events);
  return at.position;
}

bool ledger::handle(char type, byte_span body, bool whole, ledger_events& events, bool& forwarded) {
  forwarded = !(type == be::ready_for_query ? head_is_proxy() : swallows());
  switch (type) {
    case be::command_complete:
    case be::empty_query_response:
      return (type != be::command_complete || !body.empty()) && complete(body, events, forwarded);
    case be::portal_suspended:
      if (!head_is(owed::execute)) return false;
      pop();
      return true;
    case be::bind_complete:
      if (!head_is(owed::bind)) return false;
      pop();
      return true;
    case be::parse_complete:
      if (!head_is(owed::parse)) return false;
      pop();
      return true;
    case be::close_complete:
      if (!head_is(owed::close)) return false;
      pop();
      return true;
    case be::parameter_description:
      return head_is(owed::describe_statement);
    case be::row_description:
    case be::no_data:
      if (head_is(owed::query)) return type == be::row_description;
      if (!head_is(owed::describe_statement) && !head_is(owed::describe_portal)) return false;
      pop();
      return true;
    case be::copy_in_response:
      if (!head_runs()) return false;
      begin_copy(events);
      return true;
    case be::copy_out_response:
      return head_runs();
    case be::copy_done:
      return head_runs();
    case be::function_call_response:
      return head_is(owed::function_call);
    case be::error_response:
      return fail(body, whole, events, forwarded);
    case be::ready_for_query:
      return ready(body, events);
    case be::parameter_status: {
      const auto parameter = wire::read_parameter_status(body);
      if (!parameter) return false;
      // Whether the client is told is the owner's to decide.
      forwarded = false;
      events.parameter(parameter->first, parameter->second);
      return true;
    }
    case be::notification_response:
      forwarded = true;
      return true;
    case be::notice_response:
      return true;
    default:
      return false;
  }
}

// Syncs that were sent between the statement and the end of its data are read inside the COPY, and
// ignored there; those behind it count.
void ledger::begin_copy(ledger_events& events) {
  head_copies_ = client_copies_ = true;
  bool ignored = false;
  for (auto it = queue_.begin() + 1; it != queue_.end();) {
    if (it->kind == owed::copy_end) {
      client_copies_ = false;
      queue_.erase(it);
      break;
    }
    if (it->kind == owed::sync) {
      sync_inside_copy_ = ignored = true;
      ++answered_;
      it = queue_.erase(it);
    } else {
      ++it;
    }
  }
  if (ignored) {
    // It has not ended the implicit transaction, then.
    const auto last = std::find_if(queue_.rbegin(), queue_.rend(), [](const entry& one) {
      return !is_virtual(one.kind) && one.kind != owed::copy_end;
    });
    unsynced_ = !ends_batch(last->kind);
  }
  events.copy_in();
}

bool ledger::may_hold_back() const {
  return unsynced_ || std::any_of(queue_.begin(), queue_.end(), [](const entry& one) {
           return one.kind == owed::copy_end;   // Syncs before it may be read inside the COPY
         });
}

bool leaves_failure(const sql::statement& one) {
  using enum sql::effect;
  return one.effect == commit || one.effect == rollback || one.effect == rollback_to;
}

bool ledger::complete(byte_span body, ledger_events& events, bool& forwarded) {
  if (!head_runs()) return false;
  auto& head = queue_.front();
  std::string_view tag = as_text(body);
  if (!tag.empty()) {
    if (tag.find('\0') != tag.size() - 1) return false;
    tag.remove_suffix(1);
  }
  const sql::statement* done = nullptr;
  if (head.effects && head.next_effect < head.effects->size()) {
    done = &(*head.effects)[head.next_effect++];
    if (done->injected) {
      forwarded = false;
      return true;
    }
    left_failure_ = left_failure_ || leaves_failure(*done);
  }
  if (done != nullptr || head.proxy) events.command_complete(done, tag, head.proxy);
  if (head_copies_) {
    head_copies_ = client_copies_ = false;
    sync_inside_copy_ = false;
  }
  if (head.kind == owed::execute) pop();
  return true;
}

bool ledger::fail(byte_span body, bool whole, ledger_events& events, bool& forwarded) {
  const entry* head = queue_.empty() ? nullptr : &queue_.front();
  const bool proxy = head != nullptr && head->proxy;
  // A failed injected message of the extended protocol is the client's own failure: its Bind
  // would have failed the same way.
  const bool extended =
      head != nullptr && head->kind != owed::query && head->kind != owed::function_call;
  forwarded = !proxy || extended;
  events.error(head, body, proxy && !extended);
  if (forwarded && whole) {
    std::string replacement;
    if (events.rewrite_error(head, body, replacement)) {
      events.inject(replacement);
      forwarded = false;
    }
  }
  if (head_copies_) {
    if (sync_inside_copy_) doubtful_ = true;
    head_copies_ = client_copies_ = sync_inside_copy_ = false;
  }
  if (head == nullptr || !extended || head->kind == owed::sync) return true;
  while (!queue_.empty() && queue_.front().kind != owed::sync) {
    if (queue_.front().kind != owed::copy_end) events.dropped(queue_.front());
    queue_.pop_front();
  }
  skipping_ = queue_.empty();
  return true;
}

bool ledger::ready(byte_span body, ledger_events&) {
  if (body.size() != 1) return false;
  const char status = static_cast<char>(body[0]);
  if (status != 'I' && status != 'T' && status != 'E') return false;
  if (queue_.empty() && doubtful_) {
    // The Sync inside the failed COPY did count after all.
    skipping_ = false;
  } else if (!queue_.empty() && ends_batch(queue_.front().kind)) {
    if (head_is(owed::sync)) ++answered_;
    pop();
  } else {
    return false;
  }
  status_ = status;
  left_failure_ = false;
  return true;
}

}  // namespace pgsled::session
