#include "model/fused/joint.h"

#include <ATen/Functions.h>
#include <ATen/autocast_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include "model/fused/cpu.h"
#include "model/fused/matrix_product.h"
#include "model/fused/panel_loops.h"
#include "model/switches.h"

namespace cellcam::model::fused {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// From so many bfloat16 weights on, oneDNN's matrix product takes half to nearly all of the time of its convolution; in float32, where
// MKL's takes its place, it is slower with AVX-512 (docs/performance.md).
constexpr std::int64_t kManyWeights = std::int64_t{1} << 19;
bool by_product(const at::Tensor& weight) { return weight.scalar_type() == at::kBFloat16 && weight.numel() >= kManyWeights; }

at::Tensor product(const at::Tensor& a, const at::Tensor& b) {
  if (a.scalar_type() != at::kFloat || b.size(1) % kPanel != 0 || !multiplies()) return at::mm(a, b);
  const at::Tensor c = at::empty({a.size(0), b.size(1)}, a.options());
  multiply(a, b, c);
  return c;
}

std::int64_t rows_in(const at::Tensor& x) { return x.size(0) * x.size(2) * x.size(3); }

at::Tensor view_of(const at::Tensor& rows, std::int64_t first, std::int64_t images, std::int64_t height, std::int64_t width) {
  const std::int64_t row = rows.stride(0);
  return rows.as_strided({images, rows.size(1), height, width}, {height * width * row, rows.stride(1), width * row, row}, rows.storage_offset() + first * row);
}

at::Tensor rows_of(const at::Tensor& x) { return x.contiguous(kNhwc).permute({0, 2, 3, 1}).reshape({-1, x.size(1)}); }

// (pixels, channels) as an NHWC image of one row.
at::Tensor as_image(const at::Tensor& rows) { return rows.view({1, 1, rows.size(0), rows.size(1)}).permute({0, 3, 1, 2}); }
at::Tensor as_rows(const at::Tensor& image) { return image.permute({0, 2, 3, 1}).reshape({-1, image.size(1)}); }

struct JointConv : torch::autograd::Function<JointConv> {
  static variable_list forward(AutogradContext* ctx, const at::Tensor& whole, const at::Tensor& tiles, const at::Tensor& weight) {
    const at::Tensor rows = joint_rows({whole, tiles});
    const at::Tensor y = by_product(weight) ? at::mm(rows, weight.flatten(1).t())
                                            : as_rows(at::conv2d(as_image(rows), weight));
    ctx->save_for_backward({whole, tiles, weight});
    const Views out = from_rows(y, {whole, tiles});
    return {out.whole, out.tiles};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    const variable_list saved = ctx->get_saved_variables();
    const Views shape{saved[0], saved[1]};
    const at::Tensor x = joint_rows(shape), dy = joint_rows({gradients[0], gradients[1]});
    const at::Tensor& weight = saved[2];
    const bool wants_x = ctx->needs_input_grad(0), wants_weight = ctx->needs_input_grad(2);
    at::Tensor dx, dw;
    if (by_product(weight)) {
      if (wants_x) dx = at::mm(dy, weight.flatten(1));
      if (wants_weight) dw = at::mm(dy.t(), x).view_as(weight);
    } else {
      std::tie(dx, dw, std::ignore) = at::convolution_backward(as_image(dy), as_image(x), weight, at::nullopt, {1, 1}, {0, 0}, {1, 1}, false, {0, 0},
                                                               1, {wants_x, wants_weight, false});
      if (wants_x) dx = as_rows(dx);
    }
    const Views of_x = wants_x ? from_rows(dx, shape) : Views();
    return {of_x.whole, of_x.tiles, dw};
  }
};

// What a k x k kernel sees at each output pixel, (pixels, k * k * channels), written to `rows`.
void write_windows(const at::Tensor& x, const std::int64_t (&sizes)[6], std::int64_t stride, std::int64_t padding, at::Tensor rows) {
  const at::Tensor padded = at::constant_pad_nd(x.permute({0, 2, 3, 1}), {0, 0, padding, padding, padding, padding}).contiguous();
  const std::int64_t b = padded.stride(0), h = padded.stride(1), w = padded.stride(2);
  const std::int64_t strides[] = {b, stride * h, stride * w, h, w, 1};
  rows.view(sizes).copy_(padded.as_strided(sizes, strides));
}

struct JointSpatialConv : torch::autograd::Function<JointSpatialConv> {
  static variable_list forward(AutogradContext* ctx, const at::Tensor& whole, const at::Tensor& tiles, const at::Tensor& weight,
                               std::int64_t stride, std::int64_t padding) {
    const std::int64_t kernel = weight.size(2), channels = weight.size(1);
    const auto outputs = [&](std::int64_t n) { return (n + 2 * padding - kernel) / stride + 1; };
    const at::Tensor* const views[] = {&whole, &tiles};
    std::int64_t pixels[2];
    for (int v = 0; v < 2; ++v) pixels[v] = views[v]->size(0) * outputs(views[v]->size(2)) * outputs(views[v]->size(3));
    const at::Tensor windows = at::empty({pixels[0] + pixels[1], kernel * kernel * channels}, weight.options().memory_format(c10::nullopt));
    for (int v = 0; v < 2; ++v) {
      const at::Tensor& x = *views[v];
      write_windows(x, {x.size(0), outputs(x.size(2)), outputs(x.size(3)), kernel, kernel, channels}, stride, padding,
                    windows.narrow(0, v == 0 ? 0 : pixels[0], pixels[v]));
    }
    const at::Tensor y = product(windows, weight.permute({0, 2, 3, 1}).reshape({weight.size(0), -1}).t());
    ctx->save_for_backward({whole, tiles, weight, windows});
    ctx->saved_data["stride"] = stride;
    ctx->saved_data["padding"] = padding;
    const auto view = [&](int v) {
      const at::Tensor& x = *views[v];
      return view_of(y, v == 0 ? 0 : pixels[0], x.size(0), outputs(x.size(2)), outputs(x.size(3)));
    };
    return {view(0), view(1)};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor &weight = saved[2], &windows = saved[3];
    const std::int64_t stride = ctx->saved_data["stride"].toInt(), padding = ctx->saved_data["padding"].toInt(), kernel = weight.size(2);
    at::Tensor dx[2];
    for (std::size_t v = 0; v < 2; ++v) {
      if (!ctx->needs_input_grad(v)) continue;
      dx[v] = std::get<0>(at::convolution_backward(gradients[v], saved[v], weight, at::nullopt, {stride, stride}, {padding, padding}, {1, 1}, false,
                                                   {0, 0}, 1, {true, false, false}));
    }
    at::Tensor dw;
    if (ctx->needs_input_grad(2)) {
      const at::Tensor rows = product(joint_rows({gradients[0], gradients[1]}).t(), windows);
      dw = rows.view({weight.size(0), kernel, kernel, weight.size(1)}).permute({0, 3, 1, 2});
    }
    return {dx[0], dx[1], dw, {}, {}};
  }
};

// Both views and the weight in the type that autocast asks for.
std::pair<Views, at::Tensor> cast(const Views& x, const at::Tensor& weight) {
  if (!at::autocast::is_autocast_enabled(at::kCPU)) return {x, weight};
  const auto to = [](const at::Tensor& t) { return at::autocast::cached_cast(at::autocast::get_autocast_dtype(at::kCPU), t, at::kCPU); };
  return {x.map(to), to(weight)};
}

}  // namespace

Views joint_like(const Views& x) {
  if (!x.tiles.defined()) return at::empty_like(x.whole, x.whole.options(), kNhwc);
  return from_rows(at::empty({rows_in(x.whole) + rows_in(x.tiles), x.whole.size(1)}, x.whole.options()), x);
}

Views joint_outputs(const Views& x, std::int64_t channels, std::int64_t stride) {
  const auto outputs = [&](std::int64_t inputs) { return (inputs - 1) / stride + 1; };
  const auto pixels = [&](const at::Tensor& t) { return t.defined() ? t.size(0) * outputs(t.size(2)) * outputs(t.size(3)) : 0; };
  const at::Tensor rows = at::empty({pixels(x.whole) + pixels(x.tiles), channels}, x.whole.options().memory_format(c10::nullopt));
  const auto view = [&](std::int64_t first, const at::Tensor& t) { return view_of(rows, first, t.size(0), outputs(t.size(2)), outputs(t.size(3))); };
  return {view(0, x.whole), x.tiles.defined() ? view(pixels(x.whole), x.tiles) : at::Tensor()};
}

at::Tensor joint_rows(const Views& x) {
  const at::Tensor &a = x.whole, &b = x.tiles;
  if (!b.defined()) return rows_of(a);
  const std::int64_t channels = a.size(1);
  if (a.is_contiguous(kNhwc) && b.is_contiguous(kNhwc) && a.is_alias_of(b) && b.storage_offset() == a.storage_offset() + a.numel()) {
    return a.as_strided({rows_in(a) + rows_in(b), channels}, {channels, 1}, a.storage_offset());
  }
  return at::cat({rows_of(a), rows_of(b)});
}

Views from_rows(const at::Tensor& rows, const Views& shape) {
  const auto view = [&](std::int64_t first, const at::Tensor& t) { return view_of(rows, first, t.size(0), t.size(2), t.size(3)); };
  return {view(0, shape.whole), shape.tiles.defined() ? view(rows_in(shape.whole), shape.tiles) : at::Tensor()};
}

bool joins(const Views& x) {
  static const bool on = switched_on("CELLCAM_JOINT_CONV");
  const auto fits = [](const at::Tensor& t) {
    return t.device().is_cpu() && (t.scalar_type() == at::kFloat || t.scalar_type() == at::kBFloat16) && t.suggest_memory_format() == kNhwc;
  };
  return on && x.tiles.defined() && fits(x.whole) && fits(x.tiles);
}

Views joint_conv(const Views& x_in, const at::Tensor& weight_in) {
  const auto [x, weight] = cast(x_in, weight_in);
  const c10::impl::ExcludeDispatchKeyGuard as_it_is(c10::autocast_dispatch_keyset);
  const variable_list y = JointConv::apply(x.whole, x.tiles, weight);
  return {y[0], y[1]};
}

bool joins_spatially(const Views& x, const at::Tensor& weight, std::int64_t stride, std::int64_t groups) {
  const bool casts = at::autocast::is_autocast_enabled(at::kCPU);
  const at::ScalarType type = casts ? at::autocast::get_autocast_dtype(at::kCPU) : weight.scalar_type();
  return groups == 1 && weight.numel() >= kManyWeights && weight.is_contiguous(kNhwc) && joins(x) && (type == at::kBFloat16 || instructions() != Instructions::plain) &&
         rows_in(x.whole) + rows_in(x.tiles) <= weight.size(0) * stride * stride;
}

Views joint_spatial_conv(const Views& x_in, const at::Tensor& weight_in, std::int64_t stride, std::int64_t padding) {
  const auto [x, weight] = cast(x_in, weight_in);
  const c10::impl::ExcludeDispatchKeyGuard as_it_is(c10::autocast_dispatch_keyset);
  const variable_list y = JointSpatialConv::apply(x.whole, x.tiles, weight, stride, padding);
  return {y[0], y[1]};
}

}  // namespace cellcam::model::fused
