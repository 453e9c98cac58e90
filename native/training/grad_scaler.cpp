#include "training/grad_scaler.h"

#include <ATen/Functions.h>

namespace cellcam::training {

GradScaler::GradScaler(at::Device device, const Options& options)
    : options_(options),
      scale_(at::full({1}, options.init_scale, at::TensorOptions(at::kFloat).device(device))),
      growth_tracker_(at::zeros({1}, at::TensorOptions(at::kInt).device(device))) {}

at::Tensor GradScaler::found_inf(std::vector<at::Tensor>& gradients) const {
  at::Tensor found = at::zeros_like(scale_);
  at::_amp_foreach_non_finite_check_and_unscale_(gradients, found, at::ones_like(scale_));
  return found;
}

void GradScaler::update(const at::Tensor& found_inf) {
  at::_amp_update_scale_(scale_, growth_tracker_, found_inf, options_.growth_factor, options_.backoff_factor,
                         options_.growth_interval);
}

GradScaler::State GradScaler::state() const { return {scale_.item<double>(), growth_tracker_.item<std::int64_t>()}; }

void GradScaler::load(const State& state) {
  scale_.fill_(state.scale);
  growth_tracker_.fill_(state.growth_tracker);
}

}  // namespace cellcam::training
