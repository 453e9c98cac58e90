// Convolutions of few channels by loops of our own against LibTorch's in float64.

#include "check.h"
#include "conv_check.h"
#include "model/fused/stem_conv.h"

namespace cellcam::tests {

namespace {

// The stems of ResNets and RegNets; one row of many pixels; images smaller than the kernel; several strips of an image.
constexpr ConvCase kCases[] = {
    {3, 4, 64, 7, 2, 1, 40, 52}, {2, 4, 32, 3, 2, 1, 31, 33}, {1, 3, 16, 5, 1, 1, 21, 230}, {2, 4, 16, 7, 2, 1, 2, 3}, {2, 8, 32, 5, 2, 1, 13, 17}};

const Register stem("convolutions of few channels: outputs and gradients, on one thread and on several", [] {
  need_avx2();
  with_threads([] {
    for (const ConvCase& c : kCases) {
      check_conv(c, 2e-6, [&](const model::Views& x, const at::Tensor& w) {
        check(model::fused::stem_fits(x, w, 1), text_of(c, "whether it fits"));
        return model::fused::stem_conv(x, w, c.stride);
      });
      check_conv_act(
          c, 2e-6,
          [&](const at::Tensor& x, const at::Tensor& w, const at::Tensor& bias, float slope, const at::Tensor&) {
            return model::fused::stem_conv_act(x, w, bias, c.stride, slope);
          },
          /*takes_residual=*/false);
    }
  });
});

}  // namespace

}  // namespace cellcam::tests
