#include "inference/predictor.h"

#include <ATen/Functions.h>
#include <ATen/core/grad_mode.h>

#include "model/memory_format.h"

namespace cellcam::inference {

namespace {

std::vector<std::shared_ptr<model::PuzzleCam>> prepared(std::vector<std::shared_ptr<model::PuzzleCam>> models, model::Precision precision) {
  for (auto& m : models) model::in_fastest_format(m, precision, /*training=*/false)->eval();
  return models;
}

}  // namespace

Predictor::Predictor(std::vector<std::shared_ptr<model::PuzzleCam>> models, model::Precision precision,
                     std::vector<float> mean, std::vector<float> std)
    : models_(prepared(std::move(models), precision)),
      precision_(precision),
      normalise_(at::tensor(mean).to(models_.front()->device()), at::tensor(std).to(models_.front()->device())),
      recorded_(models_.front()->device()) {}

Prediction Predictor::predict(const at::Tensor& images, bool flips) {
  const model::CancellationScope scope(cancel_);
  const c10::InferenceMode inference;
  const auto work = [&](const model::Recorded::Tensors& inputs) { return passes(inputs[0], flips); };
  const model::Recorded::Tensors out = recorded_(key(flips), {images.to(models_.front()->device())}, work);
  return {out[0].cpu(), out[1].cpu().contiguous()};
}

model::Recorded::Tensors Predictor::passes(const at::Tensor& images, bool flips) {
  const model::Autocast autocast(models_.front()->device(), precision_);
  const at::Tensor input = normalise_(images);
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
  return {logits.mul_(share), maps.mul_(share)};
}

std::vector<std::int64_t> Predictor::key(bool flips) const {
  std::vector<std::int64_t> key{flips};
  const auto add = [&](const at::Tensor& t) {
    key.push_back(reinterpret_cast<std::intptr_t>(t.const_data_ptr()));
    key.push_back(t.is_inference() ? 0 : static_cast<std::int64_t>(t._version()));
  };
  for (const auto& m : models_) {
    for (const at::Tensor& t : m->parameters()) add(t);
    for (const at::Tensor& t : m->buffers()) add(t);
  }
  return key;
}

}  // namespace cellcam::inference
