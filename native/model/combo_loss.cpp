#include "model/combo_loss.h"

#include <ATen/Functions.h>

#include "error.h"

namespace cellcam::model {

namespace {

at::Tensor bce(const at::Tensor& logits, const at::Tensor& targets) {
  return at::binary_cross_entropy_with_logits(logits, targets);
}

std::string shape_of(const at::Tensor& t) {
  std::string text;
  for (const std::int64_t n : t.sizes()) text += (text.empty() ? "(" : ", ") + std::to_string(n);
  return text + ")";
}

at::Tensor map_distance(const PuzzleOutput& output) {
  if (output.maps.sizes() != output.tiled_maps.sizes()) {
    throw Error("ERR_INVALID_ARG", "Expected images whose height and width are multiples of 64, so that the maps of image and "
                                   "tiles agree in size, but the maps are " +
                                       shape_of(output.maps) + " and " + shape_of(output.tiled_maps));
  }
  return (output.maps - output.tiled_maps).abs().mean();
}

}  // namespace

ComboLossValue combo_loss(const PuzzleOutput& output, const at::Tensor& targets, const ComboLossOptions& options) {
  const at::Tensor y = targets.to(output.logits.scalar_type());
  const at::Tensor zero = at::zeros({}, output.logits.options());
  const bool tiled = output.tiled_logits.defined();
  ComboLossValue value{zero, bce(output.logits, y), zero, zero};
  value.total = options.alpha * value.full;
  if (tiled && options.beta > 0) {
    value.tiled = bce(output.tiled_logits, y);
    value.total = value.total + options.beta * value.tiled;
  }
  if (tiled && options.gamma > 0) {
    value.l1 = map_distance(output);
    value.total = value.total + options.gamma * value.l1;
  }
  return value;
}

}  // namespace cellcam::model
