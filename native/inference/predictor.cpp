#include "inference/predictor.h"

#include <ATen/Functions.h>
#include <ATen/core/grad_mode.h>

namespace cellcam::inference {

Predictor::Predictor(std::vector<std::shared_ptr<model::PuzzleCam>> models, model::Precision precision,
                     std::vector<float> mean, std::vector<float> std)
    : models_(std::move(models)),
      precision_(precision),
      normalise_(at::tensor(mean).to(models_.front()->device()), at::tensor(std).to(models_.front()->device())) {
  for (const auto& m : models_) m->eval();
}

Prediction Predictor::predict(const at::Tensor& images, bool flips) const {
  const model::CancellationScope scope(cancel_);
  const c10::InferenceMode inference;
  const at::Device device = models_.front()->device();
  const model::Autocast autocast(device, precision_);
  const at::Tensor input = normalise_(images.to(device));
  const std::vector<std::vector<std::int64_t>> views = flips ? std::vector<std::vector<std::int64_t>>{{}, {3}, {2}, {2, 3}}
                                                             : std::vector<std::vector<std::int64_t>>{{}};
  at::Tensor logits, maps;
  for (const auto& m : models_) {
    for (const auto& axes : views) {
      const model::PuzzleOutput out = m->forward(input.flip(axes), /*tiled=*/false);
      const at::Tensor turned_back = out.maps.flip(axes);
      logits = logits.defined() ? logits.add_(out.logits) : out.logits;
      maps = maps.defined() ? maps.add_(turned_back) : turned_back;
    }
  }
  const double share = 1.0 / static_cast<double>(models_.size() * views.size());
  return {logits.mul_(share).cpu(), maps.mul_(share).cpu().contiguous()};
}

}  // namespace cellcam::inference
