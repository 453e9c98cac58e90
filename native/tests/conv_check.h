#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <string>

#include "model/views.h"

namespace cellcam::tests {

// Whole images, twice as many tiles of half the height and width, and a convolution of them with kernel / 2 pixels of zeros around.
struct ConvCase {
  std::int64_t images, in, out, kernel, stride, groups, height, width;
};
std::string text_of(const ConvCase& c, const std::string& what);

// Holds outputs and all gradients of convolutions of two views and of one to LibTorch's in float64, by relative errors.
using Conv = std::function<model::Views(const model::Views& x, const at::Tensor& weight)>;
void check_conv(const ConvCase& c, double tolerance, const Conv& conv);

// Likewise act(conv(x) + bias + residual) without gradients, whose result lies in the residual where there is one. Not all take one.
using ConvAct = std::function<at::Tensor(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, float slope, const at::Tensor& residual)>;
void check_conv_act(const ConvCase& c, double tolerance, const ConvAct& conv, bool takes_residual = true);

// Calls f with one thread and with several.
void with_threads(const std::function<void()>& f);

// Throws Skipped where float32 is not multiplied by loops of our own.
void need_avx2();

}  // namespace cellcam::tests
