// Our own loops over pixels on the CPU: their threads, and convolutions in groups of four and eight channels against LibTorch's in float64.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include <atomic>

#include "check.h"
#include "model/fused/grouped_conv.h"
#include "model/fused/grouped_loops.h"
#include "model/fused/pixels.h"
#include "reference.h"

namespace cellcam::tests {

namespace {

using model::fused::kNhwc;

struct Case {
  std::int64_t images, channels, group, height, width;
};
// One pixel; narrower than what one loop takes; several loops in a row, the last of them shorter; several strips of an image.
constexpr Case kCases[] = {{1, 32, 4, 1, 1}, {2, 64, 4, 5, 3}, {3, 128, 4, 13, 29}, {2, 32, 4, 150, 41},
                           {1, 32, 8, 1, 1}, {2, 64, 8, 5, 3}, {3, 128, 8, 13, 29}, {2, 32, 8, 150, 41}};

void check_close(const at::Tensor& value, const at::Tensor& expected, const Case& c, const std::string& what) {
  std::ostringstream text;
  text << what << " of " << c.images << " x " << c.channels << " x " << c.height << " x " << c.width << " in groups of " << c.group << ": relative error "
       << distance(value, expected);
  check(distance(value, expected) < 1e-6, text.str());  // NaN fails
}

const Register grouped("convolutions in groups of four and eight: outputs and gradients", [] {
  if (model::fused::grouped_loops(4) == nullptr) throw Skipped("this CPU has no AVX2");
  for (const Case& c : kCases) {
    if (model::fused::grouped_loops(c.group) == nullptr) continue;  // eight with AVX2 only
    const at::Tensor x = at::randn({c.images, c.channels, c.height, c.width}).contiguous(kNhwc).requires_grad_(true);
    const at::Tensor w = at::randn({c.channels, c.group, 3, 3}).contiguous(kNhwc).requires_grad_(true), bias = at::randn({c.channels});
    check(model::fused::groups_fit(x, w, 1) && !model::fused::groups_fit(x, w, 2), "whether groups fit");
    const at::Tensor x64 = x.detach().to(at::kDouble).requires_grad_(true), w64 = w.detach().to(at::kDouble).requires_grad_(true);
    const at::Tensor y = model::fused::grouped_conv(x, w), y64 = at::conv2d(x64, w64, {}, 1, 1, 1, c.channels / c.group);
    check(y.is_contiguous(kNhwc), "the output is not in NHWC");
    check_close(y, y64, c, "output");

    const at::Tensor dy = at::randn(y.sizes());  // NCHW, as a gradient may come
    const auto gradients = torch::autograd::grad({y}, {x, w}, {dy}), expected = torch::autograd::grad({y64}, {x64, w64}, {dy.to(at::kDouble)});
    check_close(gradients[0], expected[0], c, "gradient of the input");
    check_close(gradients[1], expected[1], c, "gradient of the weight");

    const at::Tensor shifted = (y64 + bias.to(at::kDouble).view({1, -1, 1, 1})).detach();
    const at::NoGradGuard no_gradients;
    for (const double slope : {0.0, 0.25, 1.0}) {
      const at::Tensor acted = model::fused::grouped_conv_act(x, w, bias, static_cast<float>(slope));
      check_close(acted, at::leaky_relu(shifted, slope), c, "output with bias and activation");
    }
  }
});

const Register in_parallel("loops over pixels run on several threads, whose number moves sums by float64's rounding only", [] {
  const int threads = at::get_num_threads();
  const at::Tensor x = at::randn({3, 24, 31, 31}, at::make_generator<at::CPUGeneratorImpl>(5)).contiguous(kNhwc);
  std::atomic<int> others{0};
  const auto sums = [&](int count) {
    at::set_num_threads(count);
    at::parallel_for(0, count, 1, [&](std::int64_t, std::int64_t) { others += at::get_thread_num() > 0 ? 1 : 0; });
    return model::fused::moments(x, model::fused::Shape(x), model::fused::Factors(24));
  };
  const auto one = sums(1), three = sums(3);
  at::set_num_threads(threads);
#if defined(__GNUC__) && !defined(__clang__)  // with other compilers loops run on one thread (CMakeLists.txt)
  check(others > 0, "at::parallel_for ran on one thread: OpenMP is missing from the compiler's options");
#endif
  for (std::size_t i = 0; i < one.sum.size(); ++i) {
    check_near(three.sum[i], one.sum[i], 1e-13, "sum over the pixels of an image by three threads");
    check_near(three.other[i], one.other[i], 1e-13, "sum of squares by three threads");
  }
});

}  // namespace

}  // namespace cellcam::tests
