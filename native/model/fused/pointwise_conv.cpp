#include "model/fused/pointwise_conv.h"

#include <ATen/Functions.h>
#include <ATen/autocast_mode.h>

#include <vector>

#include "model/fused/conv_views.h"
#include "model/fused/joint.h"
#include "model/fused/matrix_product.h"
#include "model/fused/panel_loops.h"
#include "model/precision.h"

namespace cellcam::model::fused {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Every stride-th pixel of every stride-th row.
at::Tensor sparse(const at::Tensor& x, std::int64_t stride) { return x.slice(2, 0, x.size(2), stride).slice(3, 0, x.size(3), stride); }

// The pixels that a convolution with this stride sees.
Views seen(const Views& x, std::int64_t stride) {
  if (stride == 1) return x;
  const Views from = x.map([&](const at::Tensor& view) { return sparse(view, stride); }), to = joint_like(from);
  to.whole.copy_(from.whole);
  if (to.tiles.defined()) to.tiles.copy_(from.tiles);
  return to;
}

at::Tensor empty_rows(const at::Tensor& like, std::int64_t channels) { return at::empty({like.size(0), channels}, like.options()); }

struct PointwiseConv : torch::autograd::Function<PointwiseConv> {
  static variable_list forward(AutogradContext* ctx, const at::Tensor& weight, std::int64_t stride, const at::Tensor& whole,
                               const std::optional<at::Tensor>& tiles) {
    const Unrecorded unrecorded;
    const variable_list x = list_of(whole, tiles);
    const Views views = seen(to_views(x), stride);
    const at::Tensor rows = joint_rows(views), y = empty_rows(rows, weight.size(0));
    multiply(rows, weight.flatten(1).t(), y);
    save(ctx, weight, stride, x);
    ctx->saved_data["rounds"] = stride == 1 && rounds_gradients();  // shortcuts with stride have too few products to gain anything
    return to_list(from_rows(y, views));
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    const Unrecorded unrecorded;
    const auto [x, dy_views, weight, stride] = SavedConv(ctx, gradients);
    const Views views = seen(to_views(x), stride);
    const at::Tensor dy = joint_rows(to_views(dy_views));
    variable_list out(4);
    std::vector<MatrixProduct> products;
    if (ctx->needs_input_grad(0)) {
      out[0] = at::empty_like(weight);
      products.push_back({dy.t(), joint_rows(views), out[0].flatten(1)});
    }
    const at::Tensor rows = empty_rows(dy, weight.size(1));
    const bool wants_x = ctx->needs_input_grad(1);
    if (wants_x) products.push_back({dy, weight.flatten(1), rows});
    multiply(products, ctx->saved_data["rounds"].toBool() ? Arithmetic::int16 : Arithmetic::float32);
    if (wants_x) {
      const variable_list dx = to_list(from_rows(rows, views));
      for (std::size_t v = 0; v < x.size(); ++v) {
        out[v + 2] = dx[v];
        if (stride == 1) continue;
        out[v + 2] = at::empty(x[v].sizes(), x[v].options(), kNhwc).zero_();
        sparse(out[v + 2], stride).copy_(dx[v]);
      }
    }
    return out;
  }
};

}  // namespace

bool pointwise_fits(const Views& x, const at::Tensor& weight, std::int64_t groups) {
  const auto fits = [](const at::Tensor& t) { return t.device().is_cpu() && t.scalar_type() == at::kFloat && t.numel() > 0 && t.is_contiguous(kNhwc); };
  return groups == 1 && weight.size(2) == 1 && weight.size(3) == 1 && weight.size(0) % kPanel == 0 && weight.size(1) % kPanel == 0 &&
         weight.scalar_type() == at::kFloat && fits(x.whole) && (!x.tiles.defined() || fits(x.tiles)) && !at::autocast::is_autocast_enabled(at::kCPU) &&
         multiplies();
}

Views pointwise_conv(const Views& x, const at::Tensor& weight, std::int64_t stride) { return apply_conv<PointwiseConv>(weight, stride, x); }

at::Tensor pointwise_weight(const at::Tensor& weight) { return packed(weight.flatten(1).t()); }

at::Tensor pointwise_conv_act(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, std::int64_t stride, Slope slope,
                              const at::Tensor& residual) {
  const Views pixels = seen(x, stride);
  const at::Tensor rows = joint_rows(pixels), y = residual.defined() ? joint_rows(residual) : empty_rows(rows, bias.size(0));
  multiply_packed(rows, weight, y, {floats(bias), slope, residual.defined()});
  return residual.defined() ? residual : from_rows(y, pixels).whole;
}

}  // namespace cellcam::model::fused
