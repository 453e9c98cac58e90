#pragma once
#include <torch/nn/modules/batchnorm.h>

#include <utility>

#include "model/fused/rows.h"
#include "model/views.h"

namespace cellcam::model::fused {

// What a convolution reads: pixels, or what comes before a batch norm and an activation, which then are computed as they are read, for one value
// less to be written and kept.
struct ConvInput {
  Views x;
  torch::nn::BatchNorm2dImpl* norm = nullptr;  // in training mode
  Slope slope = 1;

  ConvInput(Views pixels) : x(std::move(pixels)) {}
  ConvInput(at::Tensor only) : x(std::move(only)) {}
  ConvInput(Views before, torch::nn::BatchNorm2dImpl& of, Slope then) : x(std::move(before)), norm(&of), slope(then) {}
};

}  // namespace cellcam::model::fused
