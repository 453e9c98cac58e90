#pragma once
// What max poolings on the CPU and on a GPU have in common.
#include <ATen/Functions.h>
#include <torch/csrc/autograd/custom_function.h>

namespace cellcam::model::fused {

// An output of max_pool2d(x, 3, 2, 1), in NHWC.
inline at::Tensor empty_pooled(const at::Tensor& x) {
  const auto half = [&](int dim) { return (x.size(dim) + 1) / 2; };
  return at::empty({x.size(0), x.size(1), half(2), half(3)}, x.options().memory_format(at::MemoryFormat::ChannelsLast));
}

// `pool` (x, y, which) writes the outputs and which of the nine values is the largest, a byte each; `gradient` (dy, which, dx) the input's gradient.
template <void (*pool)(const at::Tensor&, const at::Tensor&, const at::Tensor&), void (*gradient)(const at::Tensor&, const at::Tensor&, const at::Tensor&)>
struct MaxPool : torch::autograd::Function<MaxPool<pool, gradient>> {
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& x) {
    const at::Tensor y = empty_pooled(x), which = at::empty_like(y, y.options().dtype(at::kByte));
    pool(x, y, which);
    ctx->save_for_backward({which});
    ctx->saved_data["height"] = x.size(2);
    ctx->saved_data["width"] = x.size(3);
    return y;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx, const torch::autograd::variable_list& gradients) {
    constexpr auto kFormat = at::MemoryFormat::ChannelsLast;
    const at::Tensor which = ctx->get_saved_variables()[0], dy = gradients[0].contiguous(kFormat);
    const std::int64_t height = ctx->saved_data["height"].toInt(), width = ctx->saved_data["width"].toInt();
    const at::Tensor dx = at::empty({dy.size(0), dy.size(1), height, width}, dy.options().memory_format(kFormat));
    gradient(dy, which, dx);
    return {dx};
  }
};

}  // namespace cellcam::model::fused
