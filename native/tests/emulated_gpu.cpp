#include "emulated_gpu.h"

#include <barrier>
#include <cmath>
#include <functional>
#include <map>
#include <thread>

#include "model/fused/gpu/kernels.h"

namespace cellcam::tests {

namespace {

using namespace model::fused::gpu;

thread_local Extent threadIdx;
Extent blockIdx, blockDim, gridDim;
std::barrier<>* block = nullptr;

void __syncthreads() { block->arrive_and_wait(); }

struct Vector {
  float v[8];
};

using Kernel = std::function<void(void*)>;
template <typename A>
Kernel kernel(void (*f)(A)) {
  return [f](void* argument) { f(*static_cast<A*>(argument)); };
}

#define __device__
#define __shared__ static
#define CELLCAM_KERNEL void
#define CELLCAM_KERNELS(name, ...) __VA_ARGS__
// What the compiler for GPUs is given for each type of values.
#define CELLCAM_VALUES                                                            \
  using std::sqrt;                                                                \
  struct Packed {                                                                 \
    T v[8];                                                                       \
  };                                                                              \
  Packed fetch(const T* p) {                                                      \
    Packed out;                                                                   \
    for (int i = 0; i < 8; ++i) out.v[i] = p[i];                                  \
    return out;                                                                   \
  }                                                                               \
  Vector unpacked(const Packed& x) {                                              \
    Vector out;                                                                   \
    for (int i = 0; i < 8; ++i) out.v[i] = static_cast<float>(x.v[i]);            \
    return out;                                                                   \
  }                                                                               \
  void store(T* p, const Vector& x) {                                             \
    for (int i = 0; i < 8; ++i) p[i] = static_cast<T>(x.v[i]);                    \
  }
#define CELLCAM_NAMED(name) {#name, kernel(name)}
#define CELLCAM_ALL_KERNELS                                                                                                     \
  const std::map<std::string, Kernel> kernels{                                                                                  \
      CELLCAM_NAMED(moments),       CELLCAM_NAMED(scale_act),           CELLCAM_NAMED(gradient_sums),   CELLCAM_NAMED(gradient), \
      CELLCAM_NAMED(norm_gradient), CELLCAM_NAMED(added_gradient_sums), CELLCAM_NAMED(added_gradient),  CELLCAM_NAMED(max_pool), \
      CELLCAM_NAMED(image_sums),    CELLCAM_NAMED(excitation_gradient), CELLCAM_NAMED(statistics),      CELLCAM_NAMED(window_median), \
      CELLCAM_NAMED(max_pool_gradient)};

namespace float32 {
using T = float;
CELLCAM_VALUES
#include "model/fused/gpu/kernels.inl"
#include "model/fused/gpu/windows.inl"
CELLCAM_ALL_KERNELS
}  // namespace float32
namespace float16 {
using T = at::Half;
CELLCAM_VALUES
#include "model/fused/gpu/kernels.inl"
#include "model/fused/gpu/windows.inl"
CELLCAM_ALL_KERNELS
}  // namespace float16
namespace bfloat16 {
using T = at::BFloat16;
CELLCAM_VALUES
#include "model/fused/gpu/kernels.inl"
#include "model/fused/gpu/windows.inl"
CELLCAM_ALL_KERNELS
}  // namespace bfloat16

void run_block(const Kernel& kernel, void* argument) {
  std::barrier<> barrier(blockDim.x * blockDim.y);
  block = &barrier;
  std::vector<std::jthread> threads;
  for (unsigned y = 0; y < blockDim.y; ++y) {
    for (unsigned x = 0; x < blockDim.x; ++x) {
      threads.emplace_back([&, x, y] {
        threadIdx = {x, y, 0};
        kernel(argument);
      });
    }
  }
}

}  // namespace

void EmulatedGpu::launch(const char* name, at::ScalarType type, const Grid& grid, void* argument) {
  const auto& kernels = type == at::kFloat ? float32::kernels : type == at::kHalf ? float16::kernels : bfloat16::kernels;
  blockDim = grid.threads;
  gridDim = grid.blocks;
  for (unsigned z = 0; z < grid.blocks.z; ++z) {
    for (unsigned y = 0; y < grid.blocks.y; ++y) {
      for (unsigned x = 0; x < grid.blocks.x; ++x) {
        blockIdx = {x, y, z};
        run_block(kernels.at(name), argument);
      }
    }
  }
}

}  // namespace cellcam::tests
