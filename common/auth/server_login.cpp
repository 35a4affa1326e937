#include "common/auth/server_login.hpp"

#include <algorithm>

namespace pgsled::auth {

namespace {

constexpr std::size_t max_taken = std::size_t{1} << 20;
constexpr std::size_t max_parameters = 1'000;  // PostgreSQL reports about 15
constexpr std::size_t max_mechanisms = 64;
constexpr std::size_t max_old_error = 4'096;
constexpr std::string_view no_reason = "the server refused the connection without a reason";

// Codes of the Authentication messages.
enum : std::int32_t {
  code_ok = 0, code_kerberos_v5 = 2, code_cleartext = 3, code_md5 = 5, code_gss = 7,
  code_gss_continue = 8, code_sspi = 9, code_sasl = 10, code_sasl_continue = 11,
  code_sasl_final = 12
};

bool refuse(pg_error& error, std::string sqlstate, std::string message, std::string hint = {}) {
  error = {std::move(sqlstate), std::move(message), std::move(hint), {}};
  return false;
}

bool refuse_form(pg_error& error, std::string_view what) {
  return refuse(error, "08P01", "the server sent a malformed " + std::string(what) + " message");
}

bool refuse_order(pg_error& error, std::string_view what) {
  return refuse(error, "08P01", "the server sent " + std::string(what) + " out of order");
}

bool is_sqlstate(std::string_view text) {
  return text.size() == 5 && std::all_of(text.begin(), text.end(), [](char character) {
           return (character >= '0' && character <= '9') || (character >= 'A' && character <= 'Z');
         });
}

bool refuse_as_server(pg_error& error, byte_span body) {
  const auto sent = wire::read_error(body);
  if (!sent) return refuse_form(error, "ErrorResponse");
  error.sqlstate = is_sqlstate(sent->sqlstate) ? sent->sqlstate : "08006";
  error.message = sent->message.empty() ? no_reason : sent->message;
  error.hint = sent->hint;
  error.detail = sent->detail;
  return false;
}

// Most a message of this type may be long; 0 for a type that has no place in a start-up.
std::size_t max_length(char type) {
  switch (type) {
    case wire::backend::authentication: return wire::max_auth_length;
    case wire::backend::parameter_status: return wire::max_auth_length;
    case wire::backend::backend_key_data: return 4 + wire::max_cancel_secret;
    case wire::backend::ready_for_query: return 1;
    case wire::backend::error_response: return wire::max_auth_length;
    case wire::backend::notice_response: return wire::max_auth_length;
    case wire::backend::negotiate_protocol_version: return wire::max_auth_length;
    default: return 0;
  }
}

// A postmaster that cannot start a process says so in the form of protocol 2: 'E', text, a zero
// byte, without a length. 1 when `error` has been set, 0 when more bytes are needed, -1 otherwise.
int read_old_error(byte_span bytes, pg_error& error) {
  if (bytes.empty() || bytes[0] != 'E') return -1;
  if (bytes.size() < wire::header_size) return 0;
  const auto length = load_be<std::uint32_t>(bytes.data() + 1);
  if (length >= 8 && length <= 30'000) return -1;  // libpq tells the two apart by the same bounds
  const auto text = as_text(bytes.subspan(1));
  const auto end = text.find('\0');
  if (end == 0) return -1;
  if (end == std::string_view::npos) return bytes.size() < max_old_error ? 0 : -1;
  auto line = text.substr(0, std::min(end, max_old_error));
  while (line.ends_with('\n')) line.remove_suffix(1);
  refuse(error, "08006", std::string(line.empty() ? no_reason : line));
  return 1;
}

}  // namespace

server_login::server_login(server_identity identity, std::string binding_data)
    : identity_(std::move(identity)), binding_data_(std::move(binding_data)) {}

void server_login::start(std::string& to_server) {
  PGSLED_ASSERT(step_ == step::begin);
  std::vector<std::pair<std::string, std::string>> parameters = {
      {"user", identity_.user}, {"database", identity_.database}};
  parameters.insert(parameters.end(), identity_.startup.begin(), identity_.startup.end());
  wire::write_startup(to_server, wire::protocol_3_0, parameters);
  step_ = step::authentication;
}

server_login::outcome server_login::receive(byte_span bytes, std::size_t& consumed,
                                            std::string& to_server, pg_error& error) {
  consumed = 0;
  const auto fail = [this] {
    step_ = step::over;
    return outcome::failed;
  };
  while (step_ != step::over && step_ != step::begin) {
    const auto rest = bytes.subspan(consumed);
    if (first_message_) {
      const int old = read_old_error(rest, error);
      if (old == 0) return outcome::more;
      if (old == 1) return fail();
    }
    wire::frame message;
    const auto state = wire::peek(rest, message);
    if (state == wire::frame_state::partial_header) return outcome::more;
    const auto allowed = max_length(static_cast<char>(rest[0]));
    if (allowed == 0) {
      refuse(error, "08P01", "the server sent a message that has no place in a start-up",
             "Is it a PostgreSQL server?");
      return fail();
    }
    // Before the body is waited for, so that nobody reserves room for it.
    if (state == wire::frame_state::bad_length || message.length > allowed ||
        message.total() > max_taken - taken_) {
      refuse(error, "08P01", "the server sent a message of an invalid length, or too many of them");
      return fail();
    }
    if (rest.size() < message.total()) return outcome::more;
    taken_ += message.total();
    consumed += message.total();
    first_message_ = false;
    if (!handle(message.type, rest.subspan(wire::header_size, message.length), to_server, error))
      return fail();
    if (ready_) {
      step_ = step::over;
      return outcome::ready;
    }
  }
  refuse(error, "08P01", "the start-up of this server connection is over or has not begun");
  return fail();
}

bool server_login::handle(char type, byte_span body, std::string& to_server, pg_error& error) {
  switch (type) {
    case wire::backend::error_response:
      return refuse_as_server(error, body);
    case wire::backend::notice_response:
      return wire::read_error(body) ? true : refuse_form(error, "NoticeResponse");
    case wire::backend::authentication:
      return handle_authentication(body, to_server, error);
    case wire::backend::negotiate_protocol_version:
      return handle_negotiate(body, error);
    default: break;
  }
  if (step_ != step::parameters) return refuse_order(error, "session data before AuthenticationOk");
  if (type == wire::backend::parameter_status) return handle_parameter(body, error);
  if (type == wire::backend::backend_key_data) return handle_key(body, error);
  // ReadyForQuery. A session that begins inside a transaction is nobody's to use.
  if (body.size() != 1 || body[0] != 'I') return refuse_form(error, "ReadyForQuery");
  ready_ = true;
  return true;
}

bool server_login::handle_authentication(byte_span body, std::string& to_server, pg_error& error) {
  wire::reader from(body);
  const auto code = from.i32();
  if (!from.ok()) return refuse_form(error, "Authentication");
  const auto data = from.rest();
  switch (code) {
    case code_ok:
      if (!data.empty()) return refuse_form(error, "AuthenticationOk");
      if (step_ != step::authentication && step_ != step::password_sent &&
          step_ != step::sasl_done)
        return refuse_order(error, "AuthenticationOk");
      step_ = step::parameters;
      scram_.reset();
      return true;
    case code_cleartext: return answer_cleartext(data, to_server, error);
    case code_md5: return answer_md5(data, to_server, error);
    case code_sasl: return answer_sasl(data, to_server, error);
    case code_sasl_continue: return continue_sasl(data, to_server, error);
    case code_sasl_final: {
      if (step_ != step::sasl_final_sent) return refuse_order(error, "AuthenticationSASLFinal");
      const auto verified = scram_->verify(as_text(data));
      if (!verified) {
        error = verified.error();
        return false;
      }
      step_ = step::sasl_done;
      return true;
    }
    default: break;
  }
  const std::string name = code == code_gss || code == code_gss_continue ? "GSSAPI"
                           : code == code_sspi                           ? "SSPI"
                           : code == code_kerberos_v5                    ? "Kerberos V5"
                                                   : "unknown (" + std::to_string(code) + ")";
  return refuse(error, "08006",
                "the server asks for an authentication method that is not supported: " + name,
                "Use scram-sha-256, md5, password or trust for this user in pg_hba.conf.");
}

bool server_login::needs_password(pg_error& error) const {
  if (!identity_.password.empty()) return true;
  return refuse(error, "28P01",
                "the server asks for a password of user \"" + identity_.user +
                    "\", and none is configured");
}

bool server_login::answer_cleartext(byte_span data, std::string& to_server, pg_error& error) {
  if (!data.empty()) return refuse_form(error, "AuthenticationCleartextPassword");
  if (step_ != step::authentication) return refuse_order(error, "a second request for a password");
  if (!needs_password(error)) return false;
  wire::writer(to_server, wire::frontend::password).text(identity_.password);
  step_ = step::password_sent;
  return true;
}

bool server_login::answer_md5(byte_span data, std::string& to_server, pg_error& error) {
  if (data.size() != 4) return refuse_form(error, "AuthenticationMD5Password");
  if (step_ != step::authentication) return refuse_order(error, "a second request for a password");
  if (!needs_password(error)) return false;
  const auto verifier = md5_verifier(identity_.user, identity_.password);
  const auto response = md5_response(verifier, as_text(data));
  if (response.empty())
    return refuse(error, "08006", "the server asks for MD5, which the crypto library forbids");
  wire::writer(to_server, wire::frontend::password).text(response);
  step_ = step::password_sent;
  return true;
}

bool server_login::answer_sasl(byte_span data, std::string& to_server, pg_error& error) {
  if (step_ != step::authentication) return refuse_order(error, "a second request for a password");
  std::vector<std::string> mechanisms;
  wire::reader from(data);
  for (;;) {
    const auto name = from.text();
    if (!from.ok() || mechanisms.size() > max_mechanisms)
      return refuse_form(error, "AuthenticationSASL");
    if (name.empty()) break;
    mechanisms.emplace_back(name);
  }
  if (!from.finished()) return refuse_form(error, "AuthenticationSASL");
  if (!needs_password(error)) return false;
  scram_ = std::make_unique<scram_client>(identity_.password, binding_data_);
  const auto mechanism = scram_->choose(mechanisms);
  if (!mechanism) {
    error = mechanism.error();
    return false;
  }
  const auto first = scram_->first();
  wire::writer(to_server, wire::frontend::password)
      .text(*mechanism)
      .i32(static_cast<std::int32_t>(first.size()))
      .raw(first);
  step_ = step::sasl_first_sent;
  return true;
}

bool server_login::continue_sasl(byte_span data, std::string& to_server, pg_error& error) {
  if (step_ != step::sasl_first_sent) return refuse_order(error, "AuthenticationSASLContinue");
  const auto proof = scram_->proof(as_text(data));
  if (!proof) {
    error = proof.error();
    return false;
  }
  wire::writer(to_server, wire::frontend::password).raw(*proof);
  step_ = step::sasl_final_sent;
  return true;
}

bool server_login::handle_parameter(byte_span body, pg_error& error) {
  const auto pair = wire::read_parameter_status(body);
  if (!pair || pair->first.empty()) return refuse_form(error, "ParameterStatus");
  for (auto& [name, value] : parameters_) {
    if (name != pair->first) continue;
    value = pair->second;
    return true;
  }
  if (parameters_.size() == max_parameters)
    return refuse(error, "08P01", "the server reports more parameters than any server has");
  parameters_.emplace_back(pair->first, pair->second);
  return true;
}

bool server_login::handle_key(byte_span body, pg_error& error) {
  wire::reader from(body);
  const auto pid = from.u32();
  if (!from.ok() || from.left() < wire::min_cancel_secret || from.left() > wire::max_cancel_secret)
    return refuse_form(error, "BackendKeyData");
  if (key_seen_) return refuse_order(error, "a second BackendKeyData");
  key_seen_ = true;
  pid_ = pid;
  secret_ = as_text(from.rest());
  return true;
}

bool server_login::handle_negotiate(byte_span body, pg_error& error) {
  if (step_ != step::authentication) return refuse_order(error, "NegotiateProtocolVersion");
  wire::reader from(body);
  const auto newest = from.u32();
  const auto count = from.i32();
  std::string options;
  // A name takes a byte at least, so the walk is bounded by the message whatever the count says.
  for (std::int32_t i = 0; i < count && from.ok(); ++i) {
    if (!options.empty()) options += ", ";
    options += from.text();
  }
  if (!from.finished() || count < 0) return refuse_form(error, "NegotiateProtocolVersion");
  if (newest >> 16 != wire::protocol_3_0 >> 16)
    return refuse(error, "08006", "the server does not speak version 3 of the protocol");
  if (count > 0)
    return refuse(error, "08006", "the server does not know these start-up options: " + options);
  return true;
}

}  // namespace pgsled::auth
