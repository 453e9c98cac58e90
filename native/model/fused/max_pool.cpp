#include "model/fused/max_pool.h"

#include <ATen/Functions.h>
#include <torch/csrc/autograd/custom_function.h>

#include "model/fused/pixels.h"

namespace cellcam::model::fused {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

at::Tensor empty_pooled(const at::Tensor& x) {
  const auto half = [&](int dim) { return (x.size(dim) + 1) / 2; };
  return at::empty({x.size(0), x.size(1), half(2), half(3)}, x.options().memory_format(kNhwc));
}

struct MaxPool : torch::autograd::Function<MaxPool> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x) {
    const at::Tensor y = empty_pooled(x), which = at::empty_like(y, y.options().dtype(at::kByte));
    max_pool(x, y, which);
    ctx->save_for_backward({which});
    ctx->saved_data["height"] = x.size(2);
    ctx->saved_data["width"] = x.size(3);
    return y;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    const at::Tensor which = ctx->get_saved_variables()[0], dy = gradients[0].contiguous(kNhwc);
    const std::int64_t height = ctx->saved_data["height"].toInt(), width = ctx->saved_data["width"].toInt();
    const at::Tensor dx = at::empty({dy.size(0), dy.size(1), height, width}, dy.options().memory_format(kNhwc));
    max_pool_gradient(dy, which, dx);
    return {dx};
  }
};

}  // namespace

at::Tensor max_pool(const at::Tensor& x) {
  if (x.requires_grad()) return MaxPool::apply(x);
  const at::Tensor y = empty_pooled(x);
  max_pool(x, y, {});
  return y;
}

}  // namespace cellcam::model::fused
