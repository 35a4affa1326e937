# Every third-party package, with what differs between Debian 12 and 13 kept in this one file.
find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)
find_package(OpenSSL 3.0 REQUIRED)
find_package(fmt REQUIRED)
find_package(spdlog REQUIRED)
find_package(prometheus-cpp REQUIRED)
pkg_check_modules(ZeroMQ REQUIRED IMPORTED_TARGET libzmq)
# libzmq names the include folders of what only it includes, in a form that CMake takes for folders
# when it configures first and for options when it does so again: every command line would change,
# and everything be built twice.
set_target_properties(PkgConfig::ZeroMQ PROPERTIES
  INTERFACE_COMPILE_OPTIONS "" INTERFACE_INCLUDE_DIRECTORIES "${ZeroMQ_INCLUDEDIR}")
pkg_check_modules(LibIDN REQUIRED IMPORTED_TARGET libidn)
pkg_check_modules(LibPQ REQUIRED IMPORTED_TARGET libpq)
find_package(PgQuery REQUIRED)
find_path(BOOST_INCLUDE boost/asio.hpp REQUIRED)
find_path(TOML11_INCLUDE toml.hpp REQUIRED)
find_path(EXPECTED_INCLUDE tl/expected.hpp REQUIRED)
find_path(CLI11_INCLUDE CLI/CLI.hpp REQUIRED)
if(PGSLED_TESTS)
  find_package(GTest REQUIRED)
endif()
