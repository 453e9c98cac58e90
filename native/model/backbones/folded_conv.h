#pragma once
#include <torch/nn/modules/batchnorm.h>
#include <torch/nn/modules/conv.h>

#include <map>
#include <vector>

namespace cellcam::model {

struct ConvShape {
  std::int64_t in, out, kernel, stride = 1, groups = 1;
  std::int64_t padding() const { return kernel / 2; }
};

// A convolution whose weight and bias contain the batch norm behind it, made when it is first used and again when the weights or the
// arithmetic have changed since. On the CPU oneDNN, or a convolution of ours, adds the residual and applies the activation as it writes; on a
// GPU one kernel of ours adds it and the bias. One thread at a time.
class FoldedConv {
 public:
  explicit FoldedConv(const ConvShape& shape) : shape_(shape) {}

  const ConvShape& shape() const { return shape_; }

  // act(norm(conv(x)) + residual) in evaluation mode, without gradients, in autocast's type where that is on. `slope` as in
  // fused/rows.h; the result may lie in `residual`.
  at::Tensor operator()(const at::Tensor& x, torch::nn::Conv2dImpl& conv, torch::nn::BatchNorm2dImpl& norm, float slope,
                        const at::Tensor& residual);

  // norm(conv(x)) as y + shift, shift (C) in float32.
  struct Unshifted {
    at::Tensor y, shift;
  };
  Unshifted without_shift(const at::Tensor& x, torch::nn::Conv2dImpl& conv, torch::nn::BatchNorm2dImpl& norm);

 private:
  struct Source {
    const void* data;
    std::int64_t version;
    bool operator==(const Source&) const = default;
  };
  struct Fold {
    std::vector<Source> made_of;
    at::Tensor weight, bias;
    at::Tensor shift;   // the bias in float32
    at::Tensor packed, transformed, packed_right;  // the weight as oneDNN, fused/winograd and fused/pointwise_conv want it, once it was wanted
  };
  Fold& fold(torch::nn::Conv2dImpl& conv, torch::nn::BatchNorm2dImpl& norm, at::ScalarType dtype);
  at::Tensor by_onednn(const at::Tensor& x, Fold& folded, float slope, const at::Tensor& residual) const;

  ConvShape shape_;
  std::map<at::ScalarType, Fold> folds_;  // one for each arithmetic: a recording may hold on to its own
};

}  // namespace cellcam::model
