// Our own loops over pixels on the CPU: their threads, and convolutions in groups of a few channels against LibTorch's in float64.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>

#include <atomic>

#include "check.h"
#include "conv_check.h"
#include "model/fused/grouped_conv.h"
#include "model/fused/grouped_loops.h"
#include "model/fused/pixels.h"
#include "model/fused/threads.h"

namespace cellcam::tests {

namespace {

using model::Views;
using model::fused::kNhwc;

constexpr double kTolerance = 1e-6;

// In groups of 4, 8, 16 and 32. Images of few pixels, with tiles of one; narrower than what one loop takes; several loops in a row, the last of them
// shorter; several strips of an image; even and odd sizes where every other pixel is seen.
constexpr ConvCase kCases[] = {{1, 32, 32, 3, 1, 8, 2, 2},    {2, 64, 64, 3, 1, 16, 5, 3},   {3, 128, 128, 3, 1, 32, 13, 29}, {2, 32, 32, 3, 1, 8, 150, 41},
                               {1, 32, 32, 3, 1, 4, 2, 2},    {2, 64, 64, 3, 1, 8, 5, 3},    {3, 128, 128, 3, 1, 16, 13, 29}, {2, 32, 32, 3, 1, 4, 150, 41},
                               {1, 32, 32, 3, 2, 8, 2, 2},    {2, 32, 32, 3, 2, 4, 7, 10},   {2, 64, 64, 3, 2, 8, 150, 41},   {1, 32, 32, 3, 2, 2, 2, 3},
                               {2, 64, 64, 3, 2, 4, 12, 12},  {2, 64, 64, 3, 2, 2, 9, 30},   {1, 32, 32, 3, 2, 1, 151, 44}};

const Register grouped("convolutions in groups of a few channels: outputs and gradients", [] {
  if (model::fused::grouped_loops(4, 1) == nullptr) throw Skipped("this CPU has no AVX2");
  with_threads([] {
    for (const ConvCase& c : kCases) {
      check_conv(c, kTolerance, [&](const Views& x, const at::Tensor& w) {
        check(model::fused::groups_fit(x, w, c.stride, c.groups), text_of(c, "whether groups fit"));
        const Views y = model::fused::grouped_conv(x, w, c.stride);
        check(y.whole.is_contiguous(kNhwc), text_of(c, "order of the output"));
        return y;
      });
      check_conv_act(
          c, kTolerance,
          [&](const at::Tensor& x, const at::Tensor& w, const at::Tensor& bias, float slope, const at::Tensor&) {
            return model::fused::grouped_conv_act(x, w, bias, c.stride, slope);
          },
          /*takes_residual=*/false);
    }
  });
});

const Register unfit("convolutions in groups that are left to others", [] {
  if (model::fused::grouped_loops(8, 1) == nullptr) throw Skipped("this CPU has no AVX2");
  const auto fits = [](std::int64_t channels, std::int64_t group, std::int64_t stride, std::int64_t kernel = 3) {
    const at::Tensor x = at::zeros({1, channels, 6, 6}).contiguous(kNhwc), w = at::zeros({channels, group, kernel, kernel});
    return model::fused::groups_fit(x, w, stride, channels / group);
  };
  check(fits(64, 8, 1) && fits(64, 16, 2), "the usual cases");
  check(!fits(64, 16, 1) && !fits(64, 64, 2), "groups that others are faster at");
  check(!fits(48, 8, 1) && !fits(96, 12, 2), "part of a chunk");
  check(!fits(64, 8, 3) && !fits(64, 8, 1, 1), "another stride or kernel");
});

const Register in_parallel("loops over pixels run on several threads, whose number moves no sum", [] {
  const int threads = at::get_num_threads();
  const at::Tensor x = at::randn({3, 24, 31, 31}, at::make_generator<at::CPUGeneratorImpl>(5)).contiguous(kNhwc);
  std::atomic<int> others{0};
  const auto sums = [&](int count) {
    at::set_num_threads(count);
    model::fused::on_all_threads([&] { others += at::get_thread_num() > 0 ? 1 : 0; });
    return model::fused::moments(x, model::fused::Shape(x), model::fused::Factors(24));
  };
  const auto one = sums(1), three = sums(3);
  at::set_num_threads(threads);
#if defined(__GNUC__) && !defined(__clang__)  // with other compilers loops run on one thread (CMakeLists.txt)
  if (model::fused::all_threads()) check(others > 0, "at::parallel_for ran on one thread: OpenMP is missing from the compiler's options");
  else check(others == 0, "CELLCAM_ALL_THREADS=0 left loops on other threads");
#endif
  for (std::size_t i = 0; i < one.sum.size(); ++i) {
    check(three.sum[i] == one.sum[i], "sum over the pixels of an image by three threads");
    check(three.other[i] == one.other[i], "sum of squares by three threads");
  }
});

}  // namespace

}  // namespace cellcam::tests
