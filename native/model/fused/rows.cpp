#include "model/fused/rows.h"

#include <bit>
#include <cstdint>
#include <type_traits>

#include "model/fused/cpu.h"
#include "model/fused/prefetch.h"

namespace cellcam::model::fused {

namespace {

namespace plain {
#include "model/fused/rows_loops.h"
}

#ifdef CELLCAM_WIDE_LOOPS
#pragma GCC push_options
#pragma GCC target("avx2,fma")
namespace avx2 {
#include "model/fused/rows_loops.h"
}
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,fma,prefer-vector-width=512")
namespace avx512 {
#include "model/fused/rows_loops.h"
}
#pragma GCC pop_options
#endif

template <typename T>
RowKernels<T> chosen() {
#ifdef CELLCAM_WIDE_LOOPS
  if (instructions() == Instructions::avx512) return avx512::kernels<T>();
  if (instructions() == Instructions::avx2) return avx2::kernels<T>();
#endif
  return plain::kernels<T>();
}

}  // namespace

const RowKernels<float>& row_kernels(float) {
  static const RowKernels<float> kernels = chosen<float>();
  return kernels;
}

const RowKernels<bf16>& row_kernels(bf16) {
  static const RowKernels<bf16> kernels = chosen<bf16>();
  return kernels;
}

}  // namespace cellcam::model::fused
