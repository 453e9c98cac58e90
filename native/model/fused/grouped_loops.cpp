#include "model/fused/grouped_loops.h"

#include "model/fused/cpu.h"
#include "model/fused/panel_loops.h"
#include "model/fused/prefetch.h"

#ifdef CELLCAM_WIDE_LOOPS
#include <immintrin.h>
#endif

namespace cellcam::model::fused {

#ifdef CELLCAM_WIDE_LOOPS
namespace {

#pragma GCC push_options
#pragma GCC target("avx2,fma")
namespace avx2 {
#include "model/fused/vectors/avx2.h"
#include "model/fused/vectors/grouped.h"
}  // namespace avx2
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx512vl,avx512bw,fma")
namespace avx512 {
#include "model/fused/vectors/avx512.h"
#include "model/fused/vectors/grouped.h"
}  // namespace avx512
#pragma GCC pop_options

}  // namespace
#endif

const GroupedLoops* grouped_loops([[maybe_unused]] std::int64_t group, [[maybe_unused]] std::int64_t stride) {
#ifdef CELLCAM_WIDE_LOOPS
  if (stride > 2 || (group != 4 && group != 8 && group % 16 != 0)) return nullptr;
  if (instructions() == Instructions::avx512) return &avx512::loops_for(group, stride);
  if (instructions() == Instructions::avx2) return &avx2::loops_for(group, stride);
#endif
  return nullptr;
}

}  // namespace cellcam::model::fused
