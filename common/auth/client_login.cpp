#include "common/auth/client_login.hpp"

#include "common/auth/scram_text.hpp"

namespace pgsled::auth {

namespace {

// Codes of the Authentication messages.
constexpr std::int32_t code_ok = 0, code_cleartext = 3, code_md5 = 5, code_sasl = 10,
                       code_sasl_continue = 11, code_sasl_final = 12;
constexpr std::size_t md5_salt_size = 4;

pg_error violation(std::string message) { return {"08P01", std::move(message), {}, {}}; }

}  // namespace

client_login::client_login(credentials who, std::string binding_data, std::string mock_seed)
    : credentials_(std::move(who)),
      binding_data_(std::move(binding_data)),
      mock_seed_(std::move(mock_seed)) {}

bool client_login::start(std::string& to_client) {
  if (step_ != step::begin) return false;
  const auto& method = credentials_.method;
  if (method == "trust" && credentials_.known) {
    step_ = step::over;
    wire::write_authentication(to_client, code_ok);
    return true;
  }
  if (method == "plain") {
    step_ = step::password;
    wire::write_authentication(to_client, code_cleartext);
  } else if (method == "md5" && (!credentials_.md5.empty() || credentials_.verifiers.empty())) {
    step_ = step::md5;
    md5_salt_ = random_bytes(md5_salt_size);
    wire::write_authentication(to_client, code_md5, md5_salt_);
  } else {
    step_ = step::sasl_mechanism;
    std::string list;
    if (!binding_data_.empty()) list.append(mechanism_plus).push_back('\0');
    list.append(mechanism_plain).push_back('\0');
    list.push_back('\0');
    wire::write_authentication(to_client, code_sasl, list);
  }
  return false;
}

client_login::outcome client_login::receive(byte_span body, std::string& to_client,
                                            pg_error& error) {
  const auto result = [&] {
    if (body.size() > wire::max_auth_length) {
      error = violation("the password message is too long");
      return check::bad;
    }
    switch (step_) {
      case step::password: return receive_password(body, error);
      case step::md5: return receive_md5(body, error);
      case step::sasl_mechanism: return receive_mechanism(body, to_client, error);
      case step::sasl_first: return receive_first(as_text(body), to_client, error);
      case step::sasl_final: return receive_final(as_text(body), to_client, error);
      case step::begin:
      case step::over: break;
    }
    error = violation("unexpected password message");
    return check::bad;
  }();
  if (result == check::more) return outcome::more;
  step_ = step::over;
  if (result == check::bad) return outcome::failed;
  wire::write_authentication(to_client, code_ok);
  return outcome::accepted;
}

client_login::check client_login::receive_password(byte_span body, pg_error& error) {
  const auto password = wire::read_query(body);  // the same layout: one String
  if (!password) {
    error = violation("invalid password packet size");
    return check::bad;
  }
  if (password->empty()) {
    error = {"28P01", "empty password returned by client", {}, {}};
    return check::bad;
  }
  // One PBKDF2 for all verifiers that share a salt, which is all of them in the usual case, and one
  // for an unknown user.
  bool good = false;
  scram_verifier made;
  for (const auto& each : verifiers()) {
    if (made.stored_key.empty() || made.salt != each.salt || made.iterations != each.iterations)
      made = make_verifier(*password, each.salt, each.iterations);
    const bool equal = equal_in_constant_time(made.stored_key, each.stored_key);
    good = good || equal;
  }
  const auto digest = md5_verifier(credentials_.user, *password);
  for (const auto& each : credentials_.md5) {
    const bool equal = !digest.empty() && equal_in_constant_time(digest, each);
    good = good || equal;
  }
  if (good && credentials_.known) return check::good;
  error = refusal();
  return check::bad;
}

client_login::check client_login::receive_md5(byte_span body, pg_error& error) {
  const auto response = wire::read_query(body);
  if (!response) {
    error = violation("invalid password packet size");
    return check::bad;
  }
  if (response->empty()) {
    error = {"28P01", "empty password returned by client", {}, {}};
    return check::bad;
  }
  auto verifiers = credentials_.md5;
  if (verifiers.empty())  // for the time it takes; nothing has this hash
    verifiers.push_back("md5" + std::string(32, '0'));
  bool good = false;
  for (const auto& each : verifiers) {
    const auto wanted = md5_response(each, md5_salt_);
    const bool equal = !wanted.empty() && equal_in_constant_time(wanted, *response);
    good = good || equal;
  }
  if (good && credentials_.known && !credentials_.md5.empty()) return check::good;
  error = refusal();
  return check::bad;
}

client_login::check client_login::receive_mechanism(byte_span body, std::string& to_client,
                                                    pg_error& error) {
  wire::reader from(body);
  mechanism_ = from.text();
  const auto length = from.i32();
  const auto data = from.rest();
  const bool absent = length == -1 && data.empty();
  if (!from.ok() || (!absent && (length < 0 || static_cast<std::size_t>(length) != data.size()))) {
    error = violation("invalid SASLInitialResponse message");
    return check::bad;
  }
  if (mechanism_ != mechanism_plain && (mechanism_ != mechanism_plus || binding_data_.empty())) {
    error = violation("client selected an invalid SASL authentication mechanism");
    return check::bad;
  }
  scram_ = std::make_unique<scram_server>(verifiers(), binding_data_);
  if (!absent) return receive_first(as_text(data), to_client, error);
  // The initial response is optional; the client is asked for it by an empty challenge.
  step_ = step::sasl_first;
  wire::write_authentication(to_client, code_sasl_continue);
  return check::more;
}

client_login::check client_login::receive_first(std::string_view client_first,
                                                std::string& to_client, pg_error& error) {
  const auto answer = scram_->first(mechanism_, client_first);
  if (!answer) {
    error = answer.error();
    return check::bad;
  }
  step_ = step::sasl_final;
  wire::write_authentication(to_client, code_sasl_continue, *answer);
  return check::more;
}

client_login::check client_login::receive_final(std::string_view client_final,
                                                std::string& to_client, pg_error& error) {
  const auto answer = scram_->final(client_final);
  if (answer && credentials_.known) {
    wire::write_authentication(to_client, code_sasl_final, *answer);
    return check::good;
  }
  error = answer || answer.error().sqlstate == "28P01" ? refusal() : answer.error();
  return check::bad;
}

std::vector<scram_verifier> client_login::verifiers() const {
  std::vector<scram_verifier> all;
  if (credentials_.known)
    for (const auto& text : credentials_.verifiers)
      if (auto verifier = parse_verifier(text)) all.push_back(std::move(*verifier));
  if (all.empty()) all.push_back(mock_verifier(credentials_.user, mock_seed_));
  return all;
}

pg_error client_login::refusal() const {
  return {"28P01", "password authentication failed for user \"" + credentials_.user + "\"", {}, {}};
}

}  // namespace pgsled::auth
