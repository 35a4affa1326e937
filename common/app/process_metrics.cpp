#include "common/app/process_metrics.hpp"

#include <sys/resource.h>
#include <unistd.h>

#include <ctime>
#include <filesystem>
#include <fstream>

#include "common/metrics/metrics.hpp"

namespace pgsled::app {
namespace {

using metrics::description;
using metrics::type;

constexpr description build_info{"pgsled_build_info", type::gauge, "1, with the version as label."};
constexpr description start_time{"process_start_time_seconds", type::gauge,
                                 "When the process began, seconds since 1970."};
constexpr description cpu_seconds{"process_cpu_seconds_total", type::counter,
                                  "Processor time used, user and system."};
constexpr description resident{"process_resident_memory_bytes", type::gauge,
                               "Memory resident now."};
constexpr description open_fds{"process_open_fds", type::gauge, "Descriptors open now."};
constexpr description max_fds{"process_max_fds", type::gauge, "Descriptors allowed."};

double used_seconds() {
  timespec used{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
  return static_cast<double>(used.tv_sec) + static_cast<double>(used.tv_nsec) / 1e9;
}
double resident_bytes() {
  std::ifstream file("/proc/self/statm");
  double all = 0, pages = 0;
  file >> all >> pages;
  return pages * static_cast<double>(::sysconf(_SC_PAGESIZE));
}
double descriptors() {
  std::error_code ec;
  double n = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd", ec)) {
    static_cast<void>(entry);
    ++n;
  }
  return n;
}
double descriptor_limit() {
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  return static_cast<double>(limit.rlim_cur);
}

}  // namespace

std::vector<std::shared_ptr<void>> register_process_metrics() {
  auto& to = metrics::process_registry();
  const auto began = static_cast<double>(std::time(nullptr));
  std::vector<std::shared_ptr<void>> tokens;
  tokens.push_back(to.add(build_info, {{"version", PGSLED_VERSION}}, [] { return 1.0; }));
  tokens.push_back(to.add(start_time, {}, [began] { return began; }));
  tokens.push_back(to.add(cpu_seconds, {}, used_seconds));
  tokens.push_back(to.add(resident, {}, resident_bytes));
  tokens.push_back(to.add(open_fds, {}, descriptors));
  tokens.push_back(to.add(max_fds, {}, descriptor_limit));
  return tokens;
}

}  // namespace pgsled::app
