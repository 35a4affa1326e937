# libpg_query ships neither a CMake nor a pkg-config file. The shared library exports the
# protobuf-c symbols it needs, so libprotobuf-c is used for its header only.
find_path(PgQuery_INCLUDE_DIR pg_query.h)
find_path(ProtobufC_INCLUDE_DIR protobuf-c/protobuf-c.h)
find_library(PgQuery_LIBRARY NAMES pg_query)
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(
  PgQuery REQUIRED_VARS PgQuery_LIBRARY PgQuery_INCLUDE_DIR ProtobufC_INCLUDE_DIR)
if(PgQuery_FOUND AND NOT TARGET PgQuery::PgQuery)
  add_library(PgQuery::PgQuery UNKNOWN IMPORTED)
  set_target_properties(PgQuery::PgQuery PROPERTIES
    IMPORTED_LOCATION ${PgQuery_LIBRARY}
    INTERFACE_INCLUDE_DIRECTORIES "${PgQuery_INCLUDE_DIR};${PgQuery_INCLUDE_DIR}/pg_query;${ProtobufC_INCLUDE_DIR}")
endif()
