// The splitter: never a crash, and the same cuts and the same error wherever the input was cut in
// pieces; the same as well if each character of several bytes is replaced by as many that look like
// nothing. First byte: format and options; second one: size of the pieces, and characters.
#include <cstdlib>

#include "common/copy/splitter.hpp"

namespace {

using namespace pgsled;

struct outcome {
  std::string to;       // who gets each byte
  std::string error;
};

outcome run(const copy::spec& s, byte_span input, std::size_t piece) {
  const auto machine = copy::make_splitter(s);
  copy::cut_list cuts;
  bool good = true;
  for (std::size_t at = 0; at < input.size() && good; at += piece) {
    good = machine->feed(input.subspan(at, std::min(piece, input.size() - at)), cuts);
  }
  good = good && machine->finish(cuts);
  outcome out;
  for (const auto& each : cuts) {
    if (each.bytes > input.size() - out.to.size()) std::abort();
    out.to.append(each.bytes, static_cast<char>(each.shard == copy::to_all      ? 'a'
                                                : each.shard == copy::to_nobody ? 'n'
                                                                                : '0' + each.shard));
  }
  if (good != !machine->failed()) std::abort();
  if (good && out.to.size() != input.size()) std::abort();
  if (!good) {
    out.to.clear();
    out.error = machine->failed()->error.sqlstate + machine->failed()->context;
  }
  return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 2) return 0;
  static_cast<void>(copy::decode_cuts({data, size}));
  static_cast<void>(copy::decode_spec({data, size}));
  copy::spec s;
  s.options.format = static_cast<copy::format>(1 + data[0] % 3);
  s.options.header = data[0] & 4;
  if (data[0] & 8) s.options.escape = '\\';
  if (data[0] & 16) s.options.null_text.clear();
  s.options.delimiter = data[0] & 32 ? ',' : '\t';
  s.rule.type = data[0] & 64 ? placement::key_type::varchar : placement::key_type::bigint;
  s.server_major = data[0] & 128 ? 18 : 15;
  s.characters = static_cast<copy::characters>((data[1] >> 4) % 5);
  s.encoding = s.characters == copy::characters::bytes ? placement::encoding::utf8
                                                       : placement::encoding::converted;
  s.table = "t";
  s.columns = {"a", "b"};
  s.key = 1;
  s.shards = 3;
  s.bucket_map = {0, 1, 2};
  const byte_span input{data + 2, size - 2};
  const auto whole = run(s, input, input.size() + 1);
  const auto pieces = run(s, input, 1 + data[1] % 16);
  if (whole.to != pieces.to || whole.error != pieces.error) std::abort();
  if (s.characters == copy::characters::bytes || s.options.format == copy::format::binary) return 0;
  std::string plain;
  for (const auto text = as_text(input); plain.size() < text.size();) {
    const auto length = copy::length_at(s.characters, text, plain.size());
    if (length > 1) {
      plain.append(length, '\xff');
    } else {
      plain.push_back(text[plain.size()]);
    }
  }
  s.characters = copy::characters::bytes;
  const auto same = run(s, as_bytes(plain), plain.size() + 1);
  if (whole.error.starts_with("22021")) return 0;   // half a character at the end
  if (whole.to != same.to || whole.error.substr(0, 5) != same.error.substr(0, 5)) std::abort();
  return 0;
}
