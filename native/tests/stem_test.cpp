// Convolutions of few channels, whose weight's gradient is our own, against LibTorch's in float64.
#include <limits>

#include "check.h"
#include "conv_check.h"
#include "model/fused/panel_loops.h"
#include "model/fused/stem_conv.h"

namespace cellcam::tests {

namespace {

// The stems of ResNets and RegNets; one row in several pieces; images smaller than the kernel; a row of the kernel that fills a panel.
constexpr ConvCase kCases[] = {
    {3, 4, 64, 7, 2, 1, 40, 52}, {2, 4, 32, 3, 2, 1, 31, 33}, {1, 3, 16, 5, 1, 1, 21, 230}, {2, 4, 16, 7, 2, 1, 2, 3}, {2, 8, 32, 5, 2, 1, 13, 17}};

const Register stem("weights' gradients of convolutions of few channels, on one thread and on several", [] {
  need_avx2();
  with_threads([] {
    for (const ConvCase& c : kCases) {
      check_conv(c, 2e-6, [&](const model::Views& x, const at::Tensor& w) {
        check(model::fused::stem_fits(x, w, 1), text_of(c, "whether it fits"));
        return model::fused::stem_conv(x, w, c.stride);
      });
    }
  });
});

const Register gathered("rows are gathered in panels without what lies behind them", [] {
  need_avx2();
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
