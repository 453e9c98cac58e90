#include "model/fused/cpu.h"

#include <ATen/Version.h>
#if __has_include(<unistd.h>)
#include <unistd.h>
#endif

#include <algorithm>
#include <string>

namespace cellcam::model::fused {

Instructions instructions() {
#ifdef CELLCAM_WIDE_LOOPS
  static const std::string names = at::get_cpu_capability();
  if (names == "AVX512") return Instructions::avx512;
  if (names == "AVX2") return Instructions::avx2;
#endif
  return Instructions::plain;
}

std::int64_t second_cache() {
  constexpr std::int64_t kUsual = std::int64_t{1} << 19, kLargest = std::int64_t{1} << 21;
  std::int64_t bytes = 0;
#ifdef _SC_LEVEL2_CACHE_SIZE
  static const long told = sysconf(_SC_LEVEL2_CACHE_SIZE);
  bytes = told;
#endif
  return (bytes > 0 ? std::clamp(bytes, kUsual, kLargest) : kUsual) / std::int64_t{sizeof(float)};
}

}  // namespace cellcam::model::fused
