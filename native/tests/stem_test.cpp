// Convolutions of few channels, whose weight's gradient is our own, against LibTorch's in float64.
#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/autograd.h>

#include <limits>

#include "check.h"
#include "model/fused/panel_loops.h"
#include "model/fused/pixels.h"
#include "model/fused/stem_conv.h"
#include "reference.h"

namespace cellcam::tests {

namespace {

using model::Views;
using model::fused::kNhwc;

struct Case {
  std::int64_t images, in, out, kernel, stride, height, width;
};
// The stems of ResNets and RegNets; one row in several pieces; images smaller than the kernel; a row of the kernel that fills a panel.
constexpr Case kCases[] = {
    {3, 4, 64, 7, 2, 40, 52}, {2, 4, 32, 3, 2, 31, 33}, {1, 3, 16, 5, 1, 21, 230}, {2, 4, 16, 7, 2, 2, 3}, {2, 8, 32, 5, 2, 13, 17}};

void check_case(const Case& c) {
  const auto parameter = [](at::IntArrayRef sizes) { return at::randn(sizes).contiguous(kNhwc).requires_grad_(true); };
  const auto in_float64 = [](const at::Tensor& x) { return x.detach().to(at::kDouble).requires_grad_(true); };
  const auto close = [&](const at::Tensor& value, const at::Tensor& expected, const std::string& what) {
    std::ostringstream text;
    text << what << " of " << c.images << " x " << c.in << " x " << c.height << " x " << c.width << ", kernel " << c.kernel << ": relative error "
         << distance(value, expected);
    check(distance(value, expected) < 2e-6, text.str());  // NaN fails
  };
  const at::Tensor w = parameter({c.out, c.in, c.kernel, c.kernel});
  const Views x(parameter({c.images, c.in, c.height, c.width}), parameter({2 * c.images, c.in, c.height / 2, c.width / 2}));
  check(model::fused::stem_fits(x, w, 1), "whether it fits");
  const at::Tensor w64 = in_float64(w), whole64 = in_float64(x.whole), tiles64 = in_float64(x.tiles);
  const Views y = model::fused::stem_conv(x, w, c.stride);
  const at::Tensor y64 = at::conv2d(whole64, w64, {}, c.stride, c.kernel / 2), of_tiles64 = at::conv2d(tiles64, w64, {}, c.stride, c.kernel / 2);
  close(y.whole, y64, "output");
  close(y.tiles, of_tiles64, "output of the tiles");

  const at::Tensor dy = at::randn(y.whole.sizes()), of_tiles = at::randn(y.tiles.sizes());  // NCHW, as a gradient may come
  const auto gradients = torch::autograd::grad({y.whole, y.tiles}, {w, x.whole, x.tiles}, {dy, of_tiles});
  const auto expected = torch::autograd::grad({y64, of_tiles64}, {w64, whole64, tiles64}, {dy.to(at::kDouble), of_tiles.to(at::kDouble)});
  check(gradients[0].is_contiguous(kNhwc), "order of the weight's gradient");
  close(gradients[0], expected[0], "gradient of the weight");
  close(gradients[1], expected[1], "gradient of the image");
  close(gradients[2], expected[2], "gradient of the tiles");
}

const Register stem("weights' gradients of convolutions of few channels, on one thread and on several", [] {
  if (model::fused::panel_loops() == nullptr) throw Skipped("this CPU has no AVX2, or has AVX-512");
  const int threads = at::get_num_threads();
  for (const int count : {1, 3}) {
    at::set_num_threads(count);
    for (const Case& c : kCases) check_case(c);
  }
  at::set_num_threads(threads);
});

const Register gathered("rows are gathered in panels without what lies behind them", [] {
  if (model::fused::panel_loops() == nullptr) throw Skipped("this CPU has no AVX2, or has AVX-512");
  std::vector<float> x(3 * 40, std::numeric_limits<float>::quiet_NaN()), panels(2 * 3 * 16);
  for (int row = 0; row < 3; ++row) {
    for (int column = 0; column < 21; ++column) x[static_cast<std::size_t>(row * 40 + column)] = static_cast<float>(100 * row + column);
  }
  model::fused::panel_loops()->gather(x.data(), 40, 3, 21, panels.data());
  for (int row = 0; row < 3; ++row) {
    for (int column = 0; column < 32; ++column) {
      const float value = panels[static_cast<std::size_t>((column / 16 * 3 + row) * 16 + column % 16)];
      const float expected = column < 21 ? static_cast<float>(100 * row + column) : 0.0f;
      check(value == expected, "row " + std::to_string(row) + ", column " + std::to_string(column));
    }
  }
});

}  // namespace

}  // namespace cellcam::tests
