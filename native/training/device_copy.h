#pragma once
#include <ATen/core/Tensor.h>
#include <c10/core/Event.h>

#include <array>
#include <cstddef>

namespace cellcam::training {

// Copies batches to a CUDA device on a stream of its own, through pinned memory, while the device works on earlier ones.
// Uses c10 streams only, so that it compiles without CUDA's headers.
class DeviceCopy {
 public:
  explicit DeviceCopy(c10::Device device);

  // host: contiguous, may be overwritten as soon as this returns. The result may be used on the current stream at once.
  at::Tensor copy(const at::Tensor& host);

 private:
  struct Staging {
    at::Tensor pinned;
    c10::Event copied;
    bool used = false;
  };
  c10::Device device_;
  c10::Stream stream_;
  std::array<Staging, 3> stagings_;  // one being filled, one on its way, one in reserve
  std::size_t next_ = 0;
};

}  // namespace cellcam::training
