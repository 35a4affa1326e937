#pragma once
// What one pass over a client's input sends to the server: runs of input that pass unchanged, and
// bytes of our own between them. A pass without any of ours is one send() from the read buffer.

#include <string>
#include <string_view>

#include "services/frontend/client/client.hpp"

namespace pgsled::frontend {

struct client::output {
  output(std::string& scratch, byte_span input) : scratch_(scratch), input_(input) {
    scratch_.clear();
  }

  std::size_t position() const { return position_; }
  void pass(std::size_t count) { position_ += count; }
  void skip(std::size_t count) {
    spill();
    position_ += count;
    run_start_ = position_;
  }
  // Bytes of ours, before what is passed next.
  std::string& own() {
    spill();
    return scratch_;
  }
  void flush(server* to) {
    if (to != nullptr) {
      if (scratch_.empty()) {
        to->send(as_text(input_.subspan(run_start_, position_ - run_start_)));
      } else {
        spill();
        to->send(scratch_);
      }
    }
    restart();
  }
  void restart() {
    scratch_.clear();
    run_start_ = position_;
  }

 private:
  void spill() {
    scratch_.append(as_text(input_.subspan(run_start_, position_ - run_start_)));
    run_start_ = position_;
  }
  std::string& scratch_;
  byte_span input_;
  std::size_t run_start_ = 0, position_ = 0;
};

}  // namespace pgsled::frontend
