#include "conv_check.h"

#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include "check.h"
#include "model/fused/panel_loops.h"
#include "model/fused/pixels.h"
#include "reference.h"

namespace cellcam::tests {

namespace {

using model::Views;
using model::fused::kNhwc;

at::Tensor nhwc(at::IntArrayRef sizes) { return at::randn(sizes).contiguous(kNhwc); }
at::Tensor in_float64(const at::Tensor& x) { return x.detach().to(at::kDouble).requires_grad_(true); }

at::Tensor reference(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, const ConvCase& c) {
  return at::conv2d(x, weight, bias, c.stride, c.kernel / 2, 1, c.groups);
}

class Close {
 public:
  Close(const ConvCase& c, double tolerance) : case_(c), tolerance_(tolerance) {}
  void operator()(const at::Tensor& value, const at::Tensor& expected, const std::string& what) const {
    const double error = distance(value, expected);
    check(error < tolerance_, text_of(case_, what) + ": relative error " + std::to_string(error));  // NaN fails
  }

 private:
  const ConvCase& case_;
  double tolerance_;
};

}  // namespace

std::string text_of(const ConvCase& c, const std::string& what) {
  std::ostringstream text;
  text << what << " of " << c.images << " x " << c.in << " x " << c.height << " x " << c.width << " to " << c.out << " channels in " << c.groups
       << " groups, kernel " << c.kernel << ", stride " << c.stride;
  return text.str();
}

void check_conv(const ConvCase& c, double tolerance, const Conv& conv) {
  const Close close(c, tolerance);
  const auto parameter = [](at::IntArrayRef sizes) { return nhwc(sizes).requires_grad_(true); };
  const at::Tensor w = parameter({c.out, c.in / c.groups, c.kernel, c.kernel});
  const Views x(parameter({c.images, c.in, c.height, c.width}), parameter({2 * c.images, c.in, c.height / 2, c.width / 2}));
  const Views y = conv(x, w);
  const at::Tensor w64 = in_float64(w), whole64 = in_float64(x.whole), tiles64 = in_float64(x.tiles);
  const at::Tensor y64 = reference(whole64, w64, {}, c), of_tiles64 = reference(tiles64, w64, {}, c);
  close(y.whole, y64, "output");
  close(y.tiles, of_tiles64, "output of the tiles");

  const at::Tensor dy = at::randn(y.whole.sizes()), of_tiles = at::randn(y.tiles.sizes());  // NCHW, as a gradient may come
  const auto gradients = torch::autograd::grad({y.whole, y.tiles}, {w, x.whole, x.tiles}, {dy, of_tiles});
  const auto expected = torch::autograd::grad({y64, of_tiles64}, {w64, whole64, tiles64}, {dy.to(at::kDouble), of_tiles.to(at::kDouble)});
  check(gradients[0].is_contiguous(kNhwc), text_of(c, "order of the weight's gradient"));
  close(gradients[0], expected[0], "gradient of the weight");
  close(gradients[1], expected[1], "gradient of the input");
  close(gradients[2], expected[2], "gradient of the tiles");

  const Views one = conv(x.whole, w);
  check(!one.tiles.defined(), text_of(c, "a second view out of one"));
  close(one.whole, y64, "output of one view");
  const at::Tensor one64 = reference(whole64, w64, {}, c);
  const auto of_one = torch::autograd::grad({one.whole}, {w, x.whole}, {dy}), expected_of_one = torch::autograd::grad({one64}, {w64, whole64}, {dy.to(at::kDouble)});
  close(of_one[0], expected_of_one[0], "gradient of the weight of one view");
  close(of_one[1], expected_of_one[1], "gradient of one view");
}

void check_conv_act(const ConvCase& c, double tolerance, const ConvAct& conv, bool takes_residual) {
  const at::NoGradGuard no_gradients;
  const Close close(c, tolerance);
  const at::Tensor w = nhwc({c.out, c.in / c.groups, c.kernel, c.kernel}), bias = at::randn({c.out}), x = nhwc({c.images, c.in, c.height, c.width});
  const at::Tensor shifted = reference(x.to(at::kDouble), w.to(at::kDouble), bias.to(at::kDouble), c), residual = nhwc(shifted.sizes());
  for (const double slope : {0.0, 0.25, 1.0}) {
    close(conv(x, w, bias, static_cast<float>(slope), {}), at::leaky_relu(shifted, slope), "output with bias and activation");
    if (!takes_residual) continue;
    const at::Tensor sum = residual.clone();
    check(conv(x, w, bias, static_cast<float>(slope), sum).is_same(sum), text_of(c, "whether the result lies in the residual"));
    close(sum, at::leaky_relu(shifted + residual, slope), "output with bias, residual and activation");
  }
}

void with_threads(const std::function<void()>& f) {
  const int threads = at::get_num_threads();
  for (const int count : {1, 3}) {
    at::set_num_threads(count);
    f();
  }
  at::set_num_threads(threads);
}

void need_avx2() {
  if (model::fused::panel_loops() == nullptr) throw Skipped("this CPU has no AVX2");
}

}  // namespace cellcam::tests
