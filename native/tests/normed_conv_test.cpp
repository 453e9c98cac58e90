// Convolutions that compute a batch norm and an activation as they read, held to float64.
#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/autograd.h>

#include "check.h"
#include "conv_check.h"
#include "model/fused/grouped_conv.h"
#include "model/fused/grouped_loops.h"
#include "model/fused/integer_loops.h"
#include "model/fused/pixels.h"
#include "model/fused/pointwise_conv.h"
#include "model/precision.h"
#include "reference.h"

namespace cellcam::tests {

namespace {

using model::Views;
using model::fused::ConvInput;
using model::fused::kNhwc;
using torch::autograd::variable_list;

constexpr double kTolerance = 1e-5;

using NormedConv = std::function<Views(const ConvInput& x, const at::Tensor& weight)>;

// `bias` of the norm: far below 0 most values behind a ReLU are zero, which products then leave out.
void check_normed(const ConvCase& c, float slope, double bias, double tolerance, const NormedConv& conv) {
  const std::string what = text_of(c, "normed") + ", slope " + std::to_string(slope) + ", bias " + std::to_string(bias) + ": ";
  const auto leaf = [](const at::Tensor& value) { return value.detach().requires_grad_(); };
  const auto image = [&](std::int64_t images, std::int64_t height, std::int64_t width) {
    return leaf((at::randn({images, c.in, height, width}) * 2 + 1).contiguous(kNhwc));
  };
  const at::Tensor w = leaf(at::randn({c.out, c.in / c.groups, c.kernel, c.kernel}).contiguous(kNhwc));
  torch::nn::BatchNorm2d norm(c.in);
  norm->weight = leaf(at::rand({c.in}) + .5);
  norm->bias = leaf(at::randn({c.in}) * .1 + bias);
  const Views both(image(c.images, c.height, c.width), image(2 * c.images, (c.height + 1) / 2, c.width / 2));
  for (const Views& x : {both, Views(both.whole)}) {
    norm->reset_running_stats();
    const auto list = [](const Views& v) { return v.tiles.defined() ? variable_list{v.whole, v.tiles} : variable_list{v.whole}; };
    variable_list leaves = list(x), exact_leaves, exact;
    leaves.insert(leaves.end(), {w, norm->weight, norm->bias});
    for (const at::Tensor& t : leaves) exact_leaves.push_back(leaf(t.to(at::kDouble)));
    const std::size_t views = leaves.size() - 3;
    const at::Tensor *w64 = &exact_leaves[views], mean = at::zeros({c.in}, at::kDouble), var = at::ones({c.in}, at::kDouble);
    for (std::size_t v = 0; v < views; ++v) {
      const at::Tensor n = at::batch_norm(exact_leaves[v], w64[1], w64[2], mean, var, true, .1, 1e-5, false);
      exact.push_back(at::conv2d(at::where(n > 0, n, n * static_cast<double>(slope)), w64[0], {}, c.stride, c.kernel / 2, 1, c.groups));
    }
    const variable_list y = list(conv(ConvInput(x, *norm, slope), w));
    check(y.size() == views, what + "number of views");
    variable_list up, up64;
    for (std::size_t v = 0; v < views; ++v) {
      check_close(y[v], exact[v], tolerance, what + "output");
      check(y[v].is_contiguous(kNhwc), what + "order in memory");
      up.push_back(at::randn(y[v].sizes()));  // NCHW, as a gradient may come
      up64.push_back(up.back().to(at::kDouble));
    }
    check_close(norm->running_mean, mean, 1e-6, what + "running mean");
    check_close(norm->running_var, var, 1e-6, what + "running variance");
    check(norm->num_batches_tracked.item<std::int64_t>() == static_cast<std::int64_t>(views), what + "batches counted");
    const variable_list gradients = torch::autograd::grad(y, leaves, up), expected = torch::autograd::grad(exact, exact_leaves, up64);
    for (std::size_t i = 0; i < leaves.size(); ++i) check_close(gradients[i], expected[i], tolerance, what + "gradient " + std::to_string(i));
  }
}

NormedConv pointwise(const ConvCase& c) {
  return [&c](const ConvInput& x, const at::Tensor& w) {
    check(model::fused::pointwise_fits(x.x, w, 1), text_of(c, "whether it fits"));
    return model::fused::pointwise_conv(x, w, 1);
  };
}

// Views that end within a piece; several blocks of depth; so wide and deep that zeros are left out forward and for the weight.
constexpr ConvCase kPointwise[] = {{1, 16, 32, 1, 1, 1, 3, 4}, {3, 48, 64, 1, 1, 1, 9, 7}, {1, 608, 32, 1, 1, 1, 6, 5}, {4, 144, 512, 1, 1, 1, 24, 31}};

const Register pointwise_normed("1x1 convolutions that compute a norm as they read", [] {
  need_avx2();
  with_threads([] {
    for (const ConvCase& c : kPointwise) {
      check_normed(c, 0.25f, 0, kTolerance, pointwise(c));
      check_normed(c, 0, -1.2, kTolerance, pointwise(c));
    }
  });
});

const Register rounded_normed("1x1 convolutions that compute a norm as they read, with gradients of integers", [] {
  if (model::fused::integer_loops() == nullptr) throw Skipped("this CPU has no such loops");
  for (const ConvCase& c : {kPointwise[1], kPointwise[3]}) {
    check_normed(c, 0, 0, 4e-4, [&](const ConvInput& x, const at::Tensor& w) {
      const model::Autocast scope(c10::Device(c10::kCPU), model::Precision::int16);
      return model::fused::pointwise_conv(x, w, 1);
    });
  }
});

// Groups of 8, 4, 16 and 32, each pixel and every other one: zeros around the image are zeros behind the norm.
constexpr ConvCase kGrouped[] = {
    {2, 64, 64, 3, 1, 8, 5, 6}, {1, 96, 96, 3, 1, 24, 13, 30}, {2, 64, 64, 3, 2, 8, 7, 10}, {1, 64, 64, 3, 2, 4, 12, 12}, {1, 64, 64, 3, 2, 2, 9, 14}};

const Register grouped_normed("convolutions in groups that compute a norm as they read", [] {
  if (model::fused::grouped_loops(4, 1) == nullptr) throw Skipped("this CPU has no AVX2");
  with_threads([] {
    for (const ConvCase& c : kGrouped) {
      for (const float slope : {0.0f, 0.25f}) {
        check_normed(c, slope, .3, kTolerance, [&](const ConvInput& x, const at::Tensor& w) {
          check(model::fused::groups_fit(x.x, w, c.stride, c.groups), text_of(c, "whether groups fit"));
          return model::fused::grouped_conv(x, w, c.stride);
        });
      }
    }
  });
});

}  // namespace

}  // namespace cellcam::tests
