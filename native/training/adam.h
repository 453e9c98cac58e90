#pragma once
#include <optional>

#include "checkpoint/state_dict.h"

namespace cellcam::training {

struct AdamOptions {
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
};

// Adam (arXiv 1412.6980) over all parameters in LibTorch's fused kernels.
class Adam {
 public:
  // Gradients of a float16 pass: their scale, and whether (1) or not (0) the step is to be left out. Both on the device.
  struct Scaled {
    at::Tensor scale;
    at::Tensor found_inf;
  };

  Adam(checkpoint::NamedTensors parameters, const AdamOptions& options);

  void zero_grad();
  std::vector<at::Tensor> gradients() const;  // of all parameters; a parameter without a gradient is an error
  void step(double learning_rate, const std::optional<Scaled>& scaled = std::nullopt);

  // Moments as `exp_avg.<name>` and `exp_avg_sq.<name>`, and `step`. Sharing storage with the optimiser.
  checkpoint::NamedTensors state() const;
  void load(const checkpoint::NamedTensors& state);

 private:
  AdamOptions options_;
  std::vector<std::string> names_;
  std::vector<at::Tensor> parameters_, exp_avg_, exp_avg_sq_;
  std::vector<at::Tensor> steps_;  // one float scalar a parameter, as the fused kernel wants them
};

}  // namespace cellcam::training
