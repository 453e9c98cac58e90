#include "model/fused/gpu/max_pool.h"

#include "model/fused/gpu/kernels.h"
#include "model/fused/gpu/launch.h"
#include "model/fused/max_pool_function.h"

namespace cellcam::model::fused::gpu {

namespace {

constexpr std::int64_t kVector = 8;

int side(const at::Tensor& t, int dim) { return static_cast<int>(t.size(dim)); }

// A thread for 8 values of `like`.
template <typename Arguments>
void run(const char* kernel, const at::Tensor& like, Arguments arguments) {
  const auto blocks = static_cast<unsigned>((like.numel() / kVector + kThreads - 1) / kThreads);
  launcher(like.device())->launch(kernel, like.scalar_type(), {{blocks}, {kThreads}}, &arguments);
}

void pool(const at::Tensor& x, const at::Tensor& y, const at::Tensor& which) {
  run("max_pool", y, MaxPoolArguments{side(x, 0), side(x, 2), side(x, 3), side(x, 1), side(y, 2), side(y, 3), x.const_data_ptr(), y.data_ptr(),
                                      which.data_ptr<std::uint8_t>()});
}

void gradient(const at::Tensor& dy, const at::Tensor& which, const at::Tensor& dx) {
  run("max_pool_gradient", dx, MaxPoolGradientArguments{side(dx, 0), side(dx, 2), side(dx, 3), side(dx, 1), side(dy, 2), side(dy, 3),
                                                        dy.const_data_ptr(), which.const_data_ptr<std::uint8_t>(), dx.data_ptr()});
}

}  // namespace

at::Tensor max_pool(const at::Tensor& x) { return MaxPool<pool, gradient>::apply(x); }

}  // namespace cellcam::model::fused::gpu
