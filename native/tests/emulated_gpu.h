#pragma once
#include "model/fused/gpu/launch.h"

namespace cellcam::tests {

// Runs the GPU's kernels on CPU tensors: the same source as C++, each thread of a block a thread of the CPU, one block after the other.
// While it lives, model::fused::gpu takes it for CPU tensors.
class EmulatedGpu : public model::fused::gpu::Launcher {
 public:
  EmulatedGpu() : before_(model::fused::gpu::use_launcher_on_cpu(this)) {}
  ~EmulatedGpu() override { model::fused::gpu::use_launcher_on_cpu(before_); }
  void launch(const char* kernel, at::ScalarType type, const model::fused::gpu::Grid& grid, void* argument) override;
  std::int64_t blocks_at_once(const char*, at::ScalarType, const model::fused::gpu::Extent&) override { return 12; }

 private:
  Launcher* before_;
};

}  // namespace cellcam::tests
