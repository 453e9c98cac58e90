#pragma once
#include <memory>
#include <optional>

#include "checkpoint/state_dict.h"

namespace cellcam::training {

// Multiplies the learning rate of the parameters whose names begin with `prefix`; of several the first counts.
struct RateGroup {
  std::string prefix;
  double factor;
};

struct AdamOptions {
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  std::vector<RateGroup> groups;
};

// Adam (arXiv 1412.6980) over all parameters that are learned, in LibTorch's fused kernels.
class Adam {
 public:
  // Gradients of a float16 pass: their scale, and whether (1) or not (0) the step is to be left out. Both on the device.
  struct Scaled {
    at::Tensor scale;
    at::Tensor found_inf;
  };

  Adam(checkpoint::NamedTensors parameters, const AdamOptions& options);

  // While this lives, large parameters on the CPU take their step as soon as their gradient is there, and that goes: all gradients never exist at once.
  // step() is then the others'. CELLCAM_EARLY_STEPS=0 leaves all to it.
  class Early {
   public:
    // learning_rate as in step().
    Early(Adam& adam, const at::Tensor& learning_rate);
    ~Early();
    Early(const Early&) = delete;
    Early& operator=(const Early&) = delete;

   private:
    class Hook;
    Adam& adam_;
  };

  void zero_grad();
  std::vector<at::Tensor> gradients() const;  // of all that are learned; one without a gradient is an error
  // learning_rate: a scalar, read where the parameters are unless it lies on the CPU.
  void step(const at::Tensor& learning_rate, const std::optional<Scaled>& scaled = std::nullopt);

  // Moments as `exp_avg.<name>` and `exp_avg_sq.<name>`, which share storage with the optimiser, and `steps` in the same order.
  checkpoint::NamedTensors state() const;
  void load(const checkpoint::NamedTensors& state);

 private:
  // Parameters that share a learning rate.
  struct Group {
    double factor;
    std::vector<at::Tensor> parameters, gradients, exp_avg, exp_avg_sq, steps;
  };
  void add(std::size_t i, Group& group);
  // All that are learned and have not taken their step yet.
  std::vector<Group> groups();
  void step(const Group& group, const at::Tensor& learning_rate, const std::optional<Scaled>& scaled);
  double factor_of(const std::string& name) const;
  at::Tensor gradient(std::size_t i) const;

  AdamOptions options_;
  std::vector<std::string> names_;
  std::vector<at::Tensor> parameters_, exp_avg_, exp_avg_sq_;
  std::vector<at::Tensor> steps_;  // one float scalar a parameter, as the fused kernel wants them
  std::vector<bool> early_;        // those that took this step already
};

}  // namespace cellcam::training
