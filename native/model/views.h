#pragma once
#include <ATen/core/Tensor.h>

namespace cellcam::model {

// What passes through a network: whole images and, where both views of Puzzle-CAM are wanted, their tiles. Both go through a layer
// together, so that its weights are read, and their gradients summed, once. The tiles are undefined where only one view is wanted.
struct Views {
  at::Tensor whole, tiles;

  Views() = default;
  Views(at::Tensor only) : whole(std::move(only)) {}  // one view is the plain case
  Views(at::Tensor first, at::Tensor second) : whole(std::move(first)), tiles(std::move(second)) {}

  bool defined() const { return whole.defined(); }

  // f of each, the whole images first: their batch statistics move the running ones before the tiles' do.
  template <typename F>
  Views map(F f) const {
    at::Tensor first = f(whole);
    return {std::move(first), tiles.defined() ? f(tiles) : at::Tensor()};
  }
};

}  // namespace cellcam::model
