#pragma once
#include <ATen/core/Tensor.h>

namespace cellcam::model {

// What passes through a network: whole images and, where both views of Puzzle-CAM are wanted, their tiles. Both go through a layer
// together, so that its weights are read, and their gradients summed, once. The tiles are undefined where only one view is wanted.
struct Views {
  at::Tensor whole, tiles;
  at::Tensor whole_again, tiles_again;  // of again()

  Views() = default;
  Views(at::Tensor only) : whole(std::move(only)) {}  // one view is the plain case
  Views(at::Tensor first, at::Tensor second) : whole(std::move(first)), tiles(std::move(second)) {}

  // The same values, for the second of two readers. Where what made them takes the gradients of both by themselves, this saves adding them.
  Views again() const { return {whole_again.defined() ? whole_again : whole, tiles_again.defined() ? tiles_again : tiles}; }

  bool defined() const { return whole.defined(); }

  // f of each, the whole images first: their batch statistics move the running ones before the tiles' do.
  template <typename F>
  Views map(F f) const {
    at::Tensor first = f(whole);
    return {std::move(first), tiles.defined() ? f(tiles) : at::Tensor()};
  }
};

}  // namespace cellcam::model
