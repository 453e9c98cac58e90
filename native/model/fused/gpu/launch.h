#pragma once
#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

namespace cellcam::model::fused::gpu {

struct Extent {
  unsigned x = 1, y = 1, z = 1;
};

struct Grid {
  Extent blocks, threads;
};

// Runs the kernels of kernels.inl on one device.
class Launcher {
 public:
  virtual ~Launcher() = default;
  // `argument`: the kernel's struct of kernels.h. On the current stream; returns at once.
  virtual void launch(const char* kernel, at::ScalarType type, const Grid& grid, void* argument) = 0;
  // How many blocks of so many threads the device runs at the same time.
  virtual std::int64_t blocks_at_once(const char* kernel, at::ScalarType type, const Extent& threads) = 0;
};

// For a CUDA device: compiles the kernels when they are first used, by the run-time compiler that comes with LibTorch. Null where that is
// not to be had, after a warning that says why. Any other device has none but what use_launcher named.
Launcher* launcher(at::Device device);

// Puts a launcher in the place of a CPU's, and returns the one before.
Launcher* use_launcher_on_cpu(Launcher* launcher);

// The source for values of `type` (float32, float16, bfloat16).
std::string kernel_source(at::ScalarType type);

// Machine code of that for a device of compute capability major.minor. Throws Error ERR_NATIVE with the compiler's own words.
std::vector<char> compile(const std::string& source, int major, int minor);

}  // namespace cellcam::model::fused::gpu
