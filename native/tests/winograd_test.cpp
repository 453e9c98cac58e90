// Convolutions by Winograd's minimal filtering against LibTorch's in float64.
#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include "check.h"
#include "model/fused/pixels.h"
#include "model/fused/winograd.h"
#include "model/fused/winograd_loops.h"
#include "reference.h"

namespace cellcam::tests {

namespace {

using model::Views;
using model::fused::kNhwc;

struct Case {
  std::int64_t images, in, out, groups, height, width;
};
// Whole tiles; fewer pixels than a tile at two edges; another number of outputs; groups of one panel, of two, and of different numbers in and
// out; weights that threads share, in one block of tiles and in several.
constexpr Case kCases[] = {{4, 16, 16, 1, 12, 16},  {3, 32, 32, 1, 13, 19},   {2, 16, 48, 1, 9, 30},  {2, 64, 64, 4, 14, 21},
                           {2, 128, 128, 4, 15, 18}, {2, 128, 64, 4, 17, 11}, {4, 128, 96, 1, 12, 11}, {5, 128, 128, 1, 30, 31}};

std::string text_of(const Case& c, const std::string& what) {
  std::ostringstream text;
  text << what << " of " << c.images << " x " << c.in << " x " << c.height << " x " << c.width << " to " << c.out << " channels in " << c.groups
       << " groups";
  return text.str();
}

void check_close(const at::Tensor& value, const at::Tensor& expected, const Case& c, const std::string& what) {
  const double error = distance(value, expected);  // up to 2e-6; of direct convolutions 1e-6
  check(error < 4e-6, text_of(c, what) + ": relative error " + std::to_string(error));  // NaN fails
}

at::Tensor parameter(at::IntArrayRef sizes) { return at::randn(sizes).contiguous(kNhwc).requires_grad_(true); }
at::Tensor in_float64(const at::Tensor& x) { return x.detach().to(at::kDouble).requires_grad_(true); }

void check_training(const Case& c) {
  const at::Tensor w = parameter({c.out, c.in / c.groups, 3, 3});
  const Views x(parameter({c.images, c.in, c.height, c.width}), parameter({2 * c.images, c.in, c.height / 2, c.width / 2}));
  check(model::fused::winograd_fits(x, w, 1, c.groups, false), text_of(c, "whether it fits"));
  const Views y = model::fused::winograd_conv(x, w, c.groups);
  const at::Tensor w64 = in_float64(w), whole64 = in_float64(x.whole), tiles64 = in_float64(x.tiles);
  const at::Tensor y64 = at::conv2d(whole64, w64, {}, 1, 1, 1, c.groups), of_tiles64 = at::conv2d(tiles64, w64, {}, 1, 1, 1, c.groups);
  check_close(y.whole, y64, c, "output");
  check_close(y.tiles, of_tiles64, c, "output of the tiles");

  const at::Tensor dy = at::randn(y.whole.sizes()), of_tiles = at::randn(y.tiles.sizes());  // NCHW, as a gradient may come
  const auto gradients = torch::autograd::grad({y.whole, y.tiles}, {w, x.whole, x.tiles}, {dy, of_tiles});
  const auto expected = torch::autograd::grad({y64, of_tiles64}, {w64, whole64, tiles64}, {dy.to(at::kDouble), of_tiles.to(at::kDouble)});
  check(gradients[0].is_contiguous(kNhwc), text_of(c, "order of the weight's gradient"));
  check_close(gradients[0], expected[0], c, "gradient of the weight");
  check_close(gradients[1], expected[1], c, "gradient of the input");
  check_close(gradients[2], expected[2], c, "gradient of the tiles");

  const Views one = model::fused::winograd_conv(x.whole, w, c.groups);  // a view by itself
  check(!one.tiles.defined(), "a second view out of one");
  check_close(one.whole, y64, c, "output of one view");
  const at::Tensor one64 = at::conv2d(whole64, w64, {}, 1, 1, 1, c.groups);
  const auto of_one = torch::autograd::grad({one.whole}, {w}, {dy}), expected_of_one = torch::autograd::grad({one64}, {w64}, {dy.to(at::kDouble)});
  check_close(of_one[0], expected_of_one[0], c, "gradient of the weight of one view");
}

void check_prediction(const Case& c) {
  const at::NoGradGuard no_gradients;
  const at::Tensor w = at::randn({c.out, c.in / c.groups, 3, 3}).contiguous(kNhwc), bias = at::randn({c.out});
  const at::Tensor x = at::randn({c.images, c.in, c.height, c.width}).contiguous(kNhwc);
  const at::Tensor residual = at::randn({c.images, c.out, c.height, c.width}).contiguous(kNhwc), transformed = model::fused::winograd_weight(w);
  const at::Tensor shifted = at::conv2d(x.to(at::kDouble), w.to(at::kDouble), bias.to(at::kDouble), 1, 1, 1, c.groups);
  for (const double slope : {0.0, 0.25, 1.0}) {
    const auto act = [&](const at::Tensor& added) {
      return model::fused::winograd_conv_act(x, transformed, bias, c.groups, static_cast<float>(slope), added);
    };
    check_close(act({}), at::leaky_relu(shifted, slope), c, "output with bias and activation");
    const at::Tensor sum = residual.clone();
    check(act(sum).is_same(sum), "the result does not lie in the residual");
    check_close(sum, at::leaky_relu(shifted + residual, slope), c, "output with bias, residual and activation");
  }
}

const Register minimal("convolutions by minimal filtering: outputs and gradients, on one thread and on several", [] {
  if (model::fused::winograd_loops() == nullptr) throw Skipped("this CPU has no AVX2, or has AVX-512");
  const int threads = at::get_num_threads();
  for (const int count : {1, 3}) {
    at::set_num_threads(count);
    for (const Case& c : kCases) {
      check_training(c);
      check_prediction(c);
    }
  }
  at::set_num_threads(threads);
});

const Register unfit("convolutions that minimal filtering does not take", [] {
  if (model::fused::winograd_loops() == nullptr) throw Skipped("this CPU has no AVX2, or has AVX-512");
  const auto image = [](std::int64_t channels, std::int64_t size) { return at::zeros({4, channels, size, size}).contiguous(kNhwc); };
  const auto weight = [](std::int64_t out, std::int64_t in, std::int64_t kernel = 3) { return at::zeros({out, in, kernel, kernel}).contiguous(kNhwc); };
  const auto fits = [](const Views& x, const at::Tensor& w, std::int64_t stride = 1, std::int64_t groups = 1, bool kept = false) {
    return model::fused::winograd_fits(x, w, stride, groups, kept);
  };
  const at::Tensor x = image(32, 16), w = weight(32, 32);
  check(fits(x, w), "the usual case");
  check(!fits(x, w, 2), "every other pixel");
  check(!fits(x, weight(32, 32, 1)), "1x1");
  check(!fits(image(24, 16), weight(32, 24)) && !fits(x, weight(24, 32)), "channels that leave part of a panel");
  check(!fits(x, weight(32, 8), 1, 4), "groups smaller than a panel");
  check(!fits(x.contiguous(), w) && !fits(x, weight(32, 32).contiguous()), "NCHW");
  check(!fits(x.to(at::kDouble), w.to(at::kDouble)), "float64");
  check(!fits(image(32, 7), w) && fits(image(32, 7), w, 1, 1, /*kept=*/true), "few pixels pay where the weight stays transformed");
  check(!fits(at::zeros({400, 32, 1, 1}).contiguous(kNhwc), w), "images much smaller than a tile");
});

}  // namespace

}  // namespace cellcam::tests
