#include "services/router/names/cluster_names.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace pgsled::router {

namespace {

bool of_pair(const file_cluster& one, const std::string& a, const std::string& b) {
  if (!one.first.record) return false;
  const auto& [name, other] = std::tie(one.first.record->name, one.first.record->other);
  return (name == a && other == b) || (name == b && other == a);
}

struct deciding {
  const std::vector<file_cluster>& clusters;
  names_decision made;

  const file_cluster* find(const std::string& name) const {
    const auto found = std::find_if(clusters.begin(), clusters.end(),
                                    [&](const auto& one) { return one.name == name; });
    return found == clusters.end() ? nullptr : &*found;
  }
  void refuse(const file_cluster& a, const file_cluster& b, const std::string& why) {
    made.refused[a.name] = made.refused[b.name] = why;
  }

  // What a single record says of the file: nothing wrong, or why it cannot be served so.
  std::string contradiction(const file_cluster& one) const {
    const served_record& record = *one.first.record;
    if (record.shard != 0 || record.epoch == 0) {
      return fmt::format("the first server of database \"{}\" says it is shard {} of \"{}\"",
                         one.name, record.shard, record.name);
    }
    if (record.name == one.name) return {};
    const bool explained = record.other == one.name && find(record.name) != nullptr;
    if (explained) return {};
    return fmt::format("the servers that the file gives to database \"{}\" have been database "
                       "\"{}\" since a move to another cluster; swap the hosts of the two in "
                       "[[databases]], or leave both in the file", one.name, record.name);
  }

  // `a` and `b` are of the file, and the record of one of them is of this pair.
  void pair(const file_cluster& a, const file_cluster& b) {
    const bool says_a = of_pair(a, a.name, b.name), says_b = of_pair(b, a.name, b.name);
    const file_cluster& newest =
        !says_a || (says_b && b.first.record->epoch > a.first.record->epoch) ? b : a;
    const file_cluster& elder = &newest == &a ? b : a;
    const bool elder_says = says_a && says_b;
    const served_record& record = *newest.first.record;
    cluster_pair known;
    known.database = record.token;
    known.other = record.token == record.name ? record.other : record.name;
    known.epoch = record.epoch;
    known.job = record.job;
    known.swapped = record.name != newest.name;
    if (elder_says) {
      const served_record& older = *elder.first.record;
      if (older.epoch == record.epoch &&
          (older.name == record.name || older.token != record.token)) {
        return refuse(a, b, fmt::format("the servers of databases \"{}\" and \"{}\" both say that "
                                        "they are \"{}\"", a.name, b.name, record.name));
      }
      if (known.job.empty()) known.job = older.job;
    } else if (!elder.first.reached) {
      // Only who has the token can have given it away without the other's knowing.
      if (record.name != record.token) {
        const auto why = fmt::format("whether database \"{}\" is where the first server of \"{}\" "
                                     "is cannot be known without it: {}", record.token, elder.name,
                                     elder.first.problem);
        made.unknown[a.name] = made.unknown[b.name] = why;
        return;
      }
    } else if (known.swapped) {
      return refuse(a, b, fmt::format("the servers that the file gives to database \"{}\" have "
                                      "been \"{}\" since a move to another cluster, and those it "
                                      "gives to \"{}\" know nothing of that", newest.name,
                                      record.name, elder.name));
    }
    made.pairs.push_back(std::move(known));
  }

  // A name whose servers are not reached, where other servers might claim it that are not either.
  void alone(const file_cluster& one) {
    if (one.first.reached || made.unknown.contains(one.name) || made.pair_of(one.name)) return;
    // One that has not been asked yet will be, in a moment.
    const auto partner = std::find_if(clusters.begin(), clusters.end(), [&](const auto& with) {
      return with.name != one.name && (!with.first.reached || !one.first.tried) &&
             !made.pair_of(with.name) && (with.resharding_only || one.resharding_only);
    });
    if (partner == clusters.end()) return;
    made.unknown[one.name] = fmt::format(
        "neither its first server nor that of \"{}\" is reached, and one of them knows which of "
        "them is \"{}\": {}", partner->name, one.name, one.first.problem);
  }
};

}  // namespace

std::string names_decision::served(const std::string& in_file) const {
  const cluster_pair* pair = pair_of(in_file);
  if (pair == nullptr || !pair->swapped) return in_file;
  return in_file == pair->database ? pair->other : pair->database;
}

const cluster_pair* names_decision::pair_of(const std::string& name) const {
  for (const cluster_pair& one : pairs) {
    if (one.database == name || one.other == name) return &one;
  }
  return nullptr;
}

names_decision decide_names(const std::vector<file_cluster>& clusters) {
  deciding all{clusters, {}};
  for (const file_cluster& one : clusters) {
    if (!one.first.record) continue;
    if (auto why = all.contradiction(one); !why.empty()) all.made.refused[one.name] = why;
  }
  for (const file_cluster& one : clusters) {
    if (!one.first.record || all.made.refused.contains(one.name)) continue;
    const served_record& record = *one.first.record;
    const file_cluster* other = all.find(record.name == one.name ? record.other : record.name);
    if (other == nullptr || all.made.pair_of(one.name) || all.made.unknown.contains(one.name)) {
      continue;
    }
    // The other's record may be of a later pair: then it must leave this name alone, which its own
    // turn finds out.
    const bool of_other_pair = other->first.record && !of_pair(*other, one.name, other->name);
    if (!of_other_pair) {
      if (!all.made.refused.contains(other->name) && !all.made.pair_of(other->name)) {
        all.pair(one, *other);
      }
    } else if (record.name != one.name) {
      all.refuse(one, *other,
                 fmt::format("the servers of databases \"{}\" and \"{}\" contradict each other",
                             one.name, other->name));
    }
  }
  for (const file_cluster& one : clusters) all.alone(one);
  for (const auto& [name, why] : all.made.refused) all.made.unknown.erase(name);
  return all.made;
}

config::configuration with_names(config::configuration file, const names_decision& names) {
  std::map<std::string, bool> only;   // by name: it stays with that
  for (const config::database& one : file.databases) only[one.name] = one.resharding_only;
  for (config::database& one : file.databases) {
    one.name = names.served(one.name);
    one.resharding_only = only[one.name];
  }
  for (config::sharded_table& one : file.sharded_tables) one.database = names.served(one.database);
  return file;
}

}  // namespace pgsled::router
