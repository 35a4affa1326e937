# pgsled_library(name DEPS …): common/<name> (or a service's own parts) as a static library.
# pgsled_program(name DEPS …): services/<name>, binary as given.
# pgsled_unit_tests(folder): tests/unit/<library>/*_test.cpp as one GoogleTest binary.
# pgsled_fuzz_target(source): tests/fuzz/<library>_<what>_fuzz.cpp; a service's
# library goes without its _core.

add_library(pgsled_flags INTERFACE)
target_include_directories(pgsled_flags INTERFACE ${CMAKE_SOURCE_DIR})
target_compile_options(pgsled_flags INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wnon-virtual-dtor -Wold-style-cast -Werror)
target_compile_definitions(pgsled_flags INTERFACE
  FMT_HEADER_ONLY=0 PGSLED_VERSION="${PROJECT_VERSION}" BOOST_ASIO_SEPARATE_COMPILATION
  BOOST_ASIO_NO_DEPRECATED)
target_link_libraries(pgsled_flags INTERFACE fmt::fmt Threads::Threads)
target_include_directories(pgsled_flags SYSTEM INTERFACE ${BOOST_INCLUDE} ${EXPECTED_INCLUDE})
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # g++ 12 reports false positives of these in inlined standard-library code at -O2.
  target_compile_options(pgsled_flags INTERFACE
    -Wno-maybe-uninitialized -Wno-stringop-overflow -Wno-array-bounds -Wno-restrict)
endif()
if(CMAKE_CXX_COMPILER_ID MATCHES "Clang")
  # A precompiled header out of the cache is good for headers of the same content, whatever their age.
  target_compile_options(pgsled_flags INTERFACE "SHELL:-Xclang -fno-pch-timestamp")
endif()
if(PGSLED_SANITIZE)
  target_compile_options(pgsled_flags INTERFACE
    -fsanitize=${PGSLED_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  target_link_options(pgsled_flags INTERFACE -fsanitize=${PGSLED_SANITIZE})
  if(PGSLED_SANITIZE MATCHES thread)
    target_compile_definitions(pgsled_flags INTERFACE BOOST_ASIO_DISABLE_FENCED_BLOCK)
  endif()
endif()

file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/pch_anchor.cpp
  CONTENT "// carries the precompiled header\n" @ONLY)  # written when it changes, not each time
add_library(pgsled_pch STATIC ${CMAKE_BINARY_DIR}/pch_anchor.cpp)
target_link_libraries(pgsled_pch PUBLIC pgsled_flags)
target_precompile_headers(pgsled_pch PRIVATE
  <algorithm> <array> <chrono> <cstdint> <cstring> <deque> <functional> <map> <memory> <optional>
  <span> <string> <string_view> <system_error> <unordered_map> <utility> <variant> <vector>
  <fmt/format.h> <tl/expected.hpp>)

function(pgsled_library name)
  cmake_parse_arguments(arg "" "" "DEPS" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cpp)
  list(FILTER sources EXCLUDE REGEX "/main\\.cpp$")
  file(GLOB_RECURSE headers CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.hpp)
  if(NOT sources)  # headers only, so far: an empty anchor keeps every library of one kind
    set(sources ${CMAKE_BINARY_DIR}/${name}_anchor.cpp)
    file(CONFIGURE OUTPUT ${sources} CONTENT "// ${name} has headers only\n" @ONLY)
  endif()
  add_library(${name} STATIC ${sources})
  target_link_libraries(${name} PUBLIC pgsled_flags ${arg_DEPS})
  target_precompile_headers(${name} REUSE_FROM pgsled_pch)
  target_sources(${name} PUBLIC
    FILE_SET HEADERS BASE_DIRS ${CMAKE_SOURCE_DIR} FILES ${headers})
  set_target_properties(${name} PROPERTIES VERIFY_INTERFACE_HEADER_SETS ON)
endfunction()

function(pgsled_program name)
  cmake_parse_arguments(arg "" "" "DEPS" ${ARGN})
  if(NOT EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/main.cpp)
    return()
  endif()
  add_executable(${name} ${CMAKE_CURRENT_SOURCE_DIR}/main.cpp)
  target_link_libraries(${name} PRIVATE pgsled_flags ${arg_DEPS})
  target_precompile_headers(${name} REUSE_FROM pgsled_pch)
endfunction()

function(pgsled_unit_tests folder)
  get_filename_component(library ${folder} NAME)
  file(GLOB sources CONFIGURE_DEPENDS ${folder}/*.cpp)
  if(NOT sources OR NOT TARGET ${library})
    return()
  endif()
  add_executable(unit_${library} ${sources})
  target_link_libraries(unit_${library} PRIVATE ${library} GTest::gtest GTest::gmock GTest::gtest_main)
  target_precompile_headers(unit_${library} REUSE_FROM pgsled_pch)
  if(library STREQUAL "config")   # its tests read files of the source
    target_compile_definitions(unit_config PRIVATE PGSLED_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
  endif()
  add_test(NAME unit_${library} COMMAND unit_${library})
  set_tests_properties(unit_${library} PROPERTIES LABELS unit TIMEOUT 600)
endfunction()

function(pgsled_fuzz_target source)
  get_filename_component(name ${source} NAME_WE)
  string(REGEX REPLACE "_.*$" "" library ${name})
  if(NOT TARGET ${library})
    set(library ${library}_core)   # of a service
  endif()
  add_executable(${name} ${source})
  target_link_libraries(${name} PRIVATE ${library})
  target_link_options(${name} PRIVATE -fsanitize=fuzzer)
endfunction()
