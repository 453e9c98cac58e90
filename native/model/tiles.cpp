#include "model/tiles.h"

#include "error.h"

namespace cellcam::model {

at::Tensor cut_tiles(const at::Tensor& images, std::int64_t side) {
  const std::int64_t b = images.size(0), c = images.size(1), h = images.size(2), w = images.size(3);
  if (side < 1 || h % side != 0 || w % side != 0) {
    throw Error("ERR_INVALID_ARG", "Expected a height and width that " + std::to_string(side) +
                                       " divides for tiling but received " + std::to_string(h) + "x" + std::to_string(w));
  }
  return images.reshape({b, c, side, h / side, side, w / side})
      .permute({2, 4, 0, 1, 3, 5})
      .reshape({side * side * b, c, h / side, w / side});
}

at::Tensor merge_tiles(const at::Tensor& tiles, std::int64_t side) {
  const std::int64_t n = tiles.size(0), c = tiles.size(1), h = tiles.size(2), w = tiles.size(3);
  if (side < 1 || n % (side * side) != 0) {
    throw Error("ERR_INVALID_ARG", "Expected a multiple of " + std::to_string(side * side) +
                                       " tiles to merge but received " + std::to_string(n));
  }
  const std::int64_t b = n / (side * side);
  return tiles.reshape({side, side, b, c, h, w}).permute({2, 3, 0, 4, 1, 5}).reshape({b, c, side * h, side * w});
}

}  // namespace cellcam::model
