# What is installed, and the Debian package made of it: cpack -G DEB --config build/release/CPackConfig.cmake
# Manual pages are made of --help when they are installed, so that no build waits for them.
set(programs pgsled pgsled-router pgsled-frontend pgsled-pooler pgsled-replicator)
install(TARGETS ${programs} RUNTIME DESTINATION bin)
install(CODE "
  execute_process(COMMAND ${CMAKE_SOURCE_DIR}/deploy/man/make_man
    ${CMAKE_RUNTIME_OUTPUT_DIRECTORY} ${CMAKE_BINARY_DIR}/man COMMAND_ERROR_IS_FATAL ANY)")
install(DIRECTORY ${CMAKE_BINARY_DIR}/man/ DESTINATION share/man)
file(GLOB units ${CMAKE_SOURCE_DIR}/deploy/systemd/*.service ${CMAKE_SOURCE_DIR}/deploy/systemd/*.target)
install(FILES ${units} DESTINATION lib/systemd/system)
install(FILES ${CMAKE_SOURCE_DIR}/deploy/pgdog.example.toml DESTINATION /etc/pgsled RENAME pgdog.toml)
install(FILES ${CMAKE_SOURCE_DIR}/deploy/users.example.toml DESTINATION /etc/pgsled RENAME users.toml)
set(doc share/doc/pgsled)
install(FILES ${CMAKE_SOURCE_DIR}/README.md ${CMAKE_SOURCE_DIR}/ARCHITECTURE.md
  ${CMAKE_SOURCE_DIR}/CHANGELOG.md DESTINATION ${doc})
install(FILES ${CMAKE_SOURCE_DIR}/LICENSE DESTINATION ${doc} RENAME copyright)
install(DIRECTORY ${CMAKE_SOURCE_DIR}/docs DESTINATION ${doc})
install(DIRECTORY ${CMAKE_SOURCE_DIR}/deploy/observability DESTINATION ${doc}
  PATTERN make_dashboard EXCLUDE PATTERN __pycache__ EXCLUDE)

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME pgsled)
set(CPACK_PACKAGE_CONTACT "pgsled")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_INSTALL_DEFAULT_DIRECTORY_PERMISSIONS
  OWNER_READ OWNER_WRITE OWNER_EXECUTE GROUP_READ GROUP_EXECUTE WORLD_READ WORLD_EXECUTE)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION database)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_DEPENDS "passwd")
set(CPACK_DEBIAN_PACKAGE_RECOMMENDS "postgresql-client")  # pg_dump, for shards that join
set(CPACK_DEBIAN_PACKAGE_DESCRIPTION "pools, balances and shards PostgreSQL
 Four services that pool connections of PostgreSQL, spread tables over several
 servers and move rows between them while clients write. Reads the
 configuration files of PgDog.")
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
set(CPACK_DEBIAN_PACKAGE_CONTROL_EXTRA
  ${CMAKE_SOURCE_DIR}/deploy/debian/conffiles ${CMAKE_SOURCE_DIR}/deploy/debian/postinst
  ${CMAKE_SOURCE_DIR}/deploy/debian/prerm ${CMAKE_SOURCE_DIR}/deploy/debian/postrm)
include(CPack)
