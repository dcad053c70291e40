# What CMake includes behind each project() while make install compiles llama-cpp-python: it halves the time.

if(PROJECT_NAME STREQUAL "llama_cpp")
    # The library for pictures and sound has 55 small files that include the same headers.
    set(CMAKE_UNITY_BUILD ON)
    set(CMAKE_UNITY_BUILD_BATCH_SIZE 16)
    # These two refuse to be compiled behind the headers of the others. The folder of mtmd is read later.
    set(mtmd "${CMAKE_CURRENT_SOURCE_DIR}/vendor/llama.cpp/tools/mtmd")
    cmake_language(
        DEFER CALL set_source_files_properties "${mtmd}/mtmd-helper.cpp" "${mtmd}/mtmd-helper-gen.cpp"
        DIRECTORY "${mtmd}" PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON
    )
elseif(PROJECT_NAME STREQUAL "llama.cpp")
    set(CMAKE_UNITY_BUILD OFF)
    # What llama.cpp's own programs share: none of them is built.
    set(LLAMA_BUILD_COMMON OFF)
endif()
