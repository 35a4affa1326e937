#include "services/cli/run_dir.hpp"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>

namespace pgsled::cli {
namespace fs = std::filesystem;
namespace {

struct run_dir_test : ::testing::Test {
  fs::path base;
  void SetUp() override {
    std::string name = "/tmp/pgsled-test-XXXXXX";
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    base = name;
  }
  void TearDown() override { fs::remove_all(base); }

  static int bind_socket(const fs::path& path, int type) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strcpy(address.sun_path, path.c_str());
    const int fd = ::socket(AF_UNIX, type, 0);
    EXPECT_EQ(::bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    EXPECT_EQ(::listen(fd, 1), 0);
    return fd;
  }
  static unsigned mode_of(const fs::path& path) {
    struct stat info {};
    EXPECT_EQ(::stat(path.c_str(), &info), 0);
    return info.st_mode & 0777;
  }
};

TEST_F(run_dir_test, is_made_private_and_locked) {
  const auto path = base / "a" / "run";
  {
    const auto first = run_dir::open(path.string() + "/");
    ASSERT_TRUE(first) << first.error().message;
    EXPECT_EQ(first->path(), path.string());
    EXPECT_EQ(mode_of(path), 0700u);
    const auto second = run_dir::open(path);
    ASSERT_FALSE(second);
    EXPECT_EQ(second.error().message,
              fmt::format("run directory {} is in use by process {}", path.string(), ::getpid()));
  }
  EXPECT_TRUE(run_dir::open(path));  // free again
}

TEST_F(run_dir_test, only_directories_of_our_own_are_taken_over) {
  fs::create_directory(base / "empty");
  ::chmod((base / "empty").c_str(), 0755);
  EXPECT_TRUE(run_dir::open(base / "empty"));
  EXPECT_EQ(mode_of(base / "empty"), 0700u);

  fs::create_directory(base / "full");
  ::chmod((base / "full").c_str(), 0755);
  std::ofstream(base / "full" / "precious") << "x";
  const auto full = run_dir::open(base / "full");
  ASSERT_FALSE(full);
  EXPECT_THAT(full.error().message, ::testing::HasSubstr("not empty"));
  EXPECT_EQ(mode_of(base / "full"), 0755u);

  std::ofstream(base / "file") << "x";
  EXPECT_THAT(run_dir::open(base / "file").error().message,
              ::testing::HasSubstr("not a directory"));
  fs::create_directory_symlink(base / "empty", base / "link");
  EXPECT_FALSE(run_dir::open(base / "link"));
  EXPECT_THAT(run_dir::open(base / std::string(100, 'x')).error().message,
              ::testing::HasSubstr("too long"));
}

TEST_F(run_dir_test, sweeps_dead_sockets_only) {
  const auto opened = run_dir::open(base);
  ASSERT_TRUE(opened);
  ::close(bind_socket(base / "dead.stream", SOCK_STREAM));
  ::close(bind_socket(base / "dead.lease", SOCK_SEQPACKET));
  const int stream = bind_socket(base / "live.stream", SOCK_STREAM);
  const int packets = bind_socket(base / "live.lease", SOCK_SEQPACKET);
  std::ofstream(base / "file") << "x";
  EXPECT_EQ(opened->remove_stale_sockets(), 2);
  EXPECT_FALSE(fs::exists(base / "dead.stream"));
  EXPECT_FALSE(fs::exists(base / "dead.lease"));
  EXPECT_TRUE(fs::exists(base / "live.stream"));
  EXPECT_TRUE(fs::exists(base / "live.lease"));
  EXPECT_TRUE(fs::exists(base / "file"));
  ::close(stream);
  ::close(packets);
}

}  // namespace
}  // namespace pgsled::cli
