#include "model/fused/gpu/max_pool.h"

#include <ATen/Functions.h>
#include <torch/csrc/autograd/custom_function.h>

#include "model/fused/gpu/kernels.h"
#include "model/fused/gpu/launch.h"

namespace cellcam::model::fused::gpu {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr auto kNhwc = at::MemoryFormat::ChannelsLast;
constexpr std::int64_t kVector = 8;

int side(const at::Tensor& t, int dim) { return static_cast<int>(t.size(dim)); }

// A thread for 8 values of `like`.
template <typename Arguments>
void run(const char* kernel, const at::Tensor& like, Arguments arguments) {
  const auto blocks = static_cast<unsigned>((like.numel() / kVector + kThreads - 1) / kThreads);
  launcher(like.device())->launch(kernel, like.scalar_type(), {{blocks}, {kThreads}}, &arguments);
}

struct MaxPool : torch::autograd::Function<MaxPool> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x) {
    const auto half = [&](int dim) { return (x.size(dim) + 1) / 2; };
    const at::Tensor y = at::empty({x.size(0), x.size(1), half(2), half(3)}, x.options().memory_format(kNhwc));
    const at::Tensor which = at::empty_like(y, y.options().dtype(at::kByte));
    run("max_pool", y, MaxPoolArguments{side(x, 0), side(x, 2), side(x, 3), side(x, 1), side(y, 2), side(y, 3), x.const_data_ptr(), y.data_ptr(),
                                        which.data_ptr<std::uint8_t>()});
    ctx->save_for_backward({which});
    ctx->saved_data["height"] = x.size(2);
    ctx->saved_data["width"] = x.size(3);
    return y;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    const at::Tensor which = ctx->get_saved_variables()[0], dy = gradients[0].contiguous(kNhwc);
    const std::int64_t height = ctx->saved_data["height"].toInt(), width = ctx->saved_data["width"].toInt();
    const at::Tensor dx = at::empty({dy.size(0), dy.size(1), height, width}, dy.options().memory_format(kNhwc));
    run("max_pool_gradient", dx, MaxPoolGradientArguments{side(dx, 0), side(dx, 2), side(dx, 3), side(dx, 1), side(dy, 2), side(dy, 3),
                                                          dy.const_data_ptr(), which.const_data_ptr<std::uint8_t>(), dx.data_ptr()});
    return {dx};
  }
};

}  // namespace

at::Tensor max_pool(const at::Tensor& x) { return MaxPool::apply(x); }

}  // namespace cellcam::model::fused::gpu
