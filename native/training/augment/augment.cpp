#include "training/augment/augment.h"

#include <ATen/Functions.h>

#include "error.h"
#include "model/fused/threads.h"

namespace cellcam::training::augment {

namespace {

void check(const at::Tensor& images, const std::vector<Recipe>& recipes) {
  if (static_cast<std::int64_t>(recipes.size()) != images.size(0)) throw Error("ERR_NATIVE", "every image needs a recipe");
}

}  // namespace

at::Tensor apply(const at::Tensor& images, const std::vector<Recipe>& recipes) {
  check(images, recipes);
  return images.is_cpu() ? apply_on_host(images, recipes) : apply_by_tensors(images, recipes);
}

Normalisation::Normalisation(const at::Tensor& mean, const at::Tensor& std)
    : scale_((255.0f * std).reciprocal()), shift_(mean / std) {}

void Normalisation::on_host(const std::uint8_t* values, std::int64_t pixels, float* out) const {
  const float *scale = scale_.const_data_ptr<float>(), *shift = shift_.const_data_ptr<float>();
  const std::int64_t c = channels();
  if (c != 4) {
    for (std::int64_t i = 0; i < pixels * c; ++i) out[i] = static_cast<float>(values[i]) * scale[i % c] - shift[i % c];
    return;
  }
  const float a[4] = {scale[0], scale[1], scale[2], scale[3]}, b[4] = {shift[0], shift[1], shift[2], shift[3]};
  for (std::int64_t i = 0; i < pixels; ++i) {
    for (std::int64_t k = 0; k < 4; ++k) out[4 * i + k] = static_cast<float>(values[4 * i + k]) * a[k] - b[k];
  }
}

at::Tensor Normalisation::operator()(const at::Tensor& images) const {
  if (!images.is_cpu()) return images.to(at::kFloat).mul_(scale_).sub_(shift_).permute({0, 3, 1, 2});
  const at::Tensor pixels = images.contiguous(), out = at::empty(images.sizes(), at::kFloat);
  model::fused::for_stretches(pixels.numel() / channels(), [&](std::int64_t first, std::int64_t last) {
    on_host(pixels.const_data_ptr<std::uint8_t>() + first * channels(), last - first, out.data_ptr<float>() + first * channels());
  });
  return out.permute({0, 3, 1, 2});
}

at::Tensor prepare(const at::Tensor& images, const std::vector<Recipe>& recipes, const Normalisation& normalise,
                   at::Tensor& memory) {
  check(images, recipes);
  return images.is_cpu() ? prepare_on_host(images, recipes, normalise, memory)
                         : normalise(apply_by_tensors(images, recipes));
}

}  // namespace cellcam::training::augment
