// Convolutions of few channels by loops of our own against LibTorch's in float64.

#include <ATen/Functions.h>
#include <torch/csrc/autograd/autograd.h>

#include "check.h"
#include "conv_check.h"
#include "model/fused/pixels.h"
#include "model/fused/stem_conv.h"
#include "model/tiles.h"
#include "reference.h"

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

// Quarters of the whole images, whose pixels see the same but for those beside the cuts: several strips of a half, the last one shorter; strides 1 and
// 2; small ones; a kernel that sees nothing beyond a cut.
constexpr ConvCase kQuarters[] = {{2, 4, 64, 7, 2, 1, 192, 200}, {3, 4, 32, 3, 2, 1, 24, 32},  {1, 3, 16, 5, 1, 1, 40, 230},
                                  {2, 4, 16, 7, 1, 1, 28, 30},   {2, 4, 16, 7, 2, 1, 28, 30}, {1, 8, 16, 1, 1, 1, 6, 8}};

const Register quarters("convolutions of few channels of images and their quarters, on one thread and on several", [] {
  need_avx2();
  with_threads([] {
    for (const ConvCase& c : kQuarters) {
      const at::Tensor whole = at::randn({c.images, c.in, c.height, c.width}).contiguous(model::fused::kNhwc);
      const model::Views x(whole, model::cut_tiles(whole).contiguous(model::fused::kNhwc));
      const at::Tensor w = at::randn({c.out, c.in, c.kernel, c.kernel}).contiguous(model::fused::kNhwc).requires_grad_();
      const at::Tensor w64 = w.detach().to(at::kDouble).requires_grad_();
      const auto reference = [&](const at::Tensor& view) {
        return at::conv2d(view.to(at::kDouble), w64, {}, at::IntArrayRef{c.stride, c.stride}, at::IntArrayRef{c.kernel / 2, c.kernel / 2});
      };
      const model::Views y = model::fused::stem_conv(x, w, c.stride), expected(reference(x.whole), reference(x.tiles));
      check_close(y.whole, expected.whole, 2e-6, text_of(c, "output"));
      check_close(y.tiles, expected.tiles, 2e-6, text_of(c, "output of the quarters"));
      const at::Tensor dy = at::randn(y.whole.sizes()), of_tiles = at::randn(y.tiles.sizes());
      const at::Tensor found = torch::autograd::grad({y.whole, y.tiles}, {w}, {dy, of_tiles})[0];
      const at::Tensor wanted = torch::autograd::grad({expected.whole, expected.tiles}, {w64}, {dy.to(at::kDouble), of_tiles.to(at::kDouble)})[0];
      check_close(found, wanted, 2e-6, text_of(c, "gradient of the weight"));
    }
  });
});

}  // namespace

}  // namespace cellcam::tests
