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
Extent blockIdx, blockDim;
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
#define CELLCAM_KERNELS(...)                                                                             \
  using std::sqrt;                                                                                       \
  struct Packed {                                                                                        \
    T v[8];                                                                                              \
  };                                                                                                     \
  Packed fetch(const T* p) {                                                                             \
    Packed out;                                                                                          \
    for (int i = 0; i < 8; ++i) out.v[i] = p[i];                                                         \
    return out;                                                                                          \
  }                                                                                                      \
  Vector unpacked(const Packed& x) {                                                                     \
    Vector out;                                                                                          \
    for (int i = 0; i < 8; ++i) out.v[i] = static_cast<float>(x.v[i]);                                   \
    return out;                                                                                          \
  }                                                                                                      \
  void store(T* p, const Vector& x) {                                                                    \
    for (int i = 0; i < 8; ++i) p[i] = static_cast<T>(x.v[i]);                                           \
  }                                                                                                      \
  __VA_ARGS__                                                                                            \
  const std::map<std::string, Kernel> kernels{                                                           \
      {"moments", kernel(moments)},           {"scale_act", kernel(scale_act)},                          \
      {"gradient_sums", kernel(gradient_sums)}, {"gradient", kernel(gradient)},                          \
      {"image_sums", kernel(image_sums)},     {"statistics", kernel(statistics)},                        \
      {"norm_gradient", kernel(norm_gradient)}, {"excitation_gradient", kernel(excitation_gradient)}, \
      {"max_pool", kernel(max_pool)},         {"max_pool_gradient", kernel(max_pool_gradient)}};

namespace float32 {
using T = float;
#include "model/fused/gpu/kernels.inl"
}  // namespace float32
namespace float16 {
using T = at::Half;
#include "model/fused/gpu/kernels.inl"
}  // namespace float16
namespace bfloat16 {
using T = at::BFloat16;
#include "model/fused/gpu/kernels.inl"
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
