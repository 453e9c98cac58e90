#pragma once
#include <cstdint>

// Where the compiler translates single functions for instructions that others of the same program do without.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define CELLCAM_WIDE_LOOPS
#endif

namespace cellcam::model::fused {

// What loops of our own may use of this CPU, or as much of it as ATEN_CPU_CAPABILITY=avx2|default asks for: plain where it has less than AVX2.
enum class Instructions { plain, avx2, avx512 };
Instructions instructions();

// How many floats a core's second cache holds; 512 KB where the system does not tell.
std::int64_t second_cache();

}  // namespace cellcam::model::fused
