// Max pooling against LibTorch's in float64.
#include <ATen/Functions.h>

#include <cmath>
#include <limits>

#include "check.h"
#include "emulated_gpu.h"
#include "model/fused/gpu/max_pool.h"
#include "model/fused/max_pool.h"
#include "model/fused/norm_act.h"
#include "reference.h"

namespace cellcam::tests {

namespace {

constexpr auto kNhwc = at::MemoryFormat::ChannelsLast;

at::Tensor values(const std::string& key, at::IntArrayRef shape) { return uniforms(key, 1, shape) * 2 - 1; }

// Images of a few values, so that several are the largest.
at::Tensor images(std::int64_t channels, std::int64_t side, at::ScalarType dtype) {
  return (values("x", {2, channels, side, side + 2}) * 3).round().to(dtype).contiguous(kNhwc);
}

template <typename Pool>
void check_pool(const at::Tensor& x, const Pool& pool) {
  const at::Tensor own = x.clone().requires_grad_(), exact = x.to(at::kDouble).requires_grad_(), expected = at::max_pool2d(exact, 3, 2, 1);
  const at::Tensor y = pool(own), dy = values("dy", expected.sizes()).to(x.scalar_type());
  check(y.is_contiguous(kNhwc), "max_pool: not NHWC");
  check(at::allclose(y.to(at::kDouble), expected, 0, 0, /*equal_nan=*/true), "max_pool");
  y.backward(dy);
  expected.backward(dy.to(at::kDouble));
  check_close(own.grad(), exact.grad(), x.scalar_type() == at::kFloat ? 1e-7 : 1e-2, "max_pool, gradient");
}

const Register on_cpu("max pooling: outputs and gradients of LibTorch's, NaN among them", [] {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    for (const std::int64_t channels : {64, 35}) {
      for (const std::int64_t side : {8, 11}) {
        const at::Tensor x = images(channels, side, dtype);
        x[1][3][4][5] = std::nan("");
        x[1][5].fill_(-std::numeric_limits<double>::infinity());
        check(model::fused::fits(x), "the max pooling does not take it");
        check_pool(x, [](const at::Tensor& own) {
          const at::Tensor y = model::fused::max_pool(own);
          check(at::allclose(y, model::fused::max_pool(own.detach()), 0, 0, /*equal_nan=*/true), "max_pool without a gradient");
          return y;
        });
      }
    }
  }
});

const Register on_gpu("a GPU's max pooling, its threads emulated: outputs and gradients of LibTorch's", [] {
  const EmulatedGpu gpu;
  for (const auto dtype : {at::kFloat, at::kHalf, at::kBFloat16}) {
    for (const std::int64_t side : {8, 11}) check_pool(images(16, side, dtype), model::fused::gpu::max_pool);
  }
});

}  // namespace

}  // namespace cellcam::tests
