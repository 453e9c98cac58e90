#pragma once
#include <ATen/core/Tensor.h>

#include <vector>

namespace cellcam::training {

// Dynamic loss scaling for float16 gradients (arXiv 1710.03740), as torch.amp.GradScaler: all of it stays on the device.
class GradScaler {
 public:
  struct Options {
    double init_scale = 65536.0;
    double growth_factor = 2.0;
    double backoff_factor = 0.5;
    std::int64_t growth_interval = 2000;
  };
  struct State {
    double scale;
    std::int64_t growth_tracker;
  };

  GradScaler(at::Device device, const Options& options);

  at::Tensor scale(const at::Tensor& loss) const { return loss * scale_; }
  const at::Tensor& scale_tensor() const { return scale_; }
  // 1 if any gradient is infinite or NaN, else 0; a float scalar on the device. The gradients stay scaled.
  at::Tensor found_inf(std::vector<at::Tensor>& gradients) const;
  void update(const at::Tensor& found_inf);

  State state() const;
  void load(const State& state);

 private:
  Options options_;
  at::Tensor scale_;           // float scalar
  at::Tensor growth_tracker_;  // int scalar
};

}  // namespace cellcam::training
