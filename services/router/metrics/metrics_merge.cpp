#include "services/router/metrics/metrics_merge.hpp"

#include <map>

namespace pgsled::router {

namespace {

struct family {
  std::string comments, series;
};

class merger {
 public:
  void add(const process_metrics& from) {
    labels_ = "service=\"" + from.service + "\",instance=\"" + from.instance + "\"";
    current_.clear();
    std::string_view rest = from.text;
    while (!rest.empty() && bytes_ < max_metrics_bytes) {
      const std::size_t end = std::min(rest.find('\n'), rest.size());
      line(rest.substr(0, end));
      rest.remove_prefix(std::min(end + 1, rest.size()));
    }
  }

  std::string text(std::string_view more, bool openmetrics) const {
    std::string to;
    to.reserve(bytes_ + more.size());
    for (const std::string& name : order_) {
      const family& one = families_.at(name);
      to += one.comments;
      to += one.series;
    }
    to += more;
    if (openmetrics) to += "# EOF\n";
    return to;
  }

 private:
  void line(std::string_view text) {
    if (text.empty() || text == "# EOF") return;
    if (text.front() == '#') return comment(text);
    const std::size_t end = text.find_first_of("{ ");
    if (end == std::string_view::npos || end == 0) return;
    const std::string_view name = text.substr(0, end);
    // Series of a histogram or a counter have the family's name and a suffix.
    if (current_.empty() || !name.starts_with(current_)) open(std::string(name));
    std::string& to = families_[current_].series;
    const std::size_t before = to.size();
    to.append(name).append("{").append(labels_);
    std::string_view rest = text.substr(end);
    if (rest.front() == '{') {
      rest.remove_prefix(1);
      if (!rest.starts_with('}')) to += ',';
    } else {
      to += '}';
    }
    to.append(rest).append("\n");
    bytes_ += to.size() - before;
  }

  // "# HELP name …", "# TYPE name …", "# UNIT name …": kept from the process that came first.
  void comment(std::string_view text) {
    if (text.size() < 8 || text[6] != ' ') return;
    const std::string_view rest = text.substr(7);
    const std::string name(rest.substr(0, rest.find(' ')));
    if (current_ != name) open(name);
    family& to = families_[name];
    const std::string start = std::string(text.substr(0, 7)) + name;
    if (to.comments.find(start) != std::string::npos) return;
    to.comments.append(start).append(rest.substr(name.size())).append("\n");
  }

  void open(const std::string& name) {
    current_ = name;
    if (families_.try_emplace(name).second) order_.push_back(name);
  }

  std::string labels_, current_;
  std::map<std::string, family> families_;
  std::vector<std::string> order_;
  std::size_t bytes_ = 0;
};

}  // namespace

std::string merge_metrics(const std::vector<process_metrics>& from, std::string_view more,
                          bool openmetrics) {
  merger all;
  for (const process_metrics& one : from) all.add(one);
  return all.text(more, openmetrics);
}

std::string process_instance(const std::string& service, const std::string& instance) {
  if (service != "frontend") return instance;
  const std::size_t dot = instance.rfind('.');
  if (dot == std::string::npos || dot == 0 || dot + 1 == instance.size()) return instance;
  return instance.find_first_not_of("0123456789", dot + 1) == std::string::npos
             ? instance.substr(0, dot)
             : instance;
}

}  // namespace pgsled::router
