#include "model/fused/pointwise_conv.h"

#include <ATen/Functions.h>
#include <ATen/autocast_mode.h>

#include <vector>

#include "model/fused/conv_views.h"
#include "model/fused/joint.h"
#include "model/fused/matrix_product.h"
#include "model/fused/panel_loops.h"

namespace cellcam::model::fused {

namespace {

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

// How all pixels of one view or both are activated.
class Before {
 public:
  Before(const variable_list& x, const Activations& of) : none_(of.empty()) {
    if (!none_) activated_ = {Shape(x[0]).rows(), {of.front(), of.back()}};
  }
  operator const Activated*() const { return none_ ? nullptr : &activated_; }

 private:
  bool none_;
  Activated activated_{};
};

struct PointwiseConv {
  static variable_list forward(const variable_list& x, const at::Tensor& weight, std::int64_t stride, const Activations& activations) {
    const Before before(x, activations);
    const Views views = seen(to_views(x), stride);
    const at::Tensor rows = joint_rows(views), y = empty_rows(rows, weight.size(0));
    multiply({{rows, weight.flatten(1).t(), y, before}});
    return to_list(from_rows(y, views));
  }

  static ConvGradients backward(const variable_list& x, const at::Tensor& weight, std::int64_t stride, const Activations& activations,
                                const variable_list& dy_views, const Wanted& wanted) {
    const Before before(x, activations);
    const Views views = seen(to_views(x), stride);
    const at::Tensor dy = joint_rows(to_views(dy_views));
    ConvGradients out;
    std::vector<MatrixProduct> products;
    if (wanted.weight) {
      out.weight = at::empty_like(weight);
      products.push_back({dy.t(), joint_rows(views), out.weight.flatten(1), nullptr, before});
    }
    const at::Tensor rows = empty_rows(dy, weight.size(1));
    if (wanted.x) products.push_back({dy, weight.flatten(1), rows});
    const bool rounded = wanted.rounded && stride == 1;  // shortcuts with stride have too few products to gain anything
    multiply(products, rounded ? Arithmetic::int16 : Arithmetic::float32);
    if (!wanted.x) return out;
    out.x = to_list(from_rows(rows, views));
    if (stride == 1) return out;
    for (std::size_t v = 0; v < x.size(); ++v) {
      const at::Tensor dx = at::empty(x[v].sizes(), x[v].options(), kNhwc).zero_();
      sparse(dx, stride).copy_(out.x[v]);
      out.x[v] = dx;
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

Views pointwise_conv(const ConvInput& x, const at::Tensor& weight, std::int64_t stride) { return apply_conv<PointwiseConv>(weight, stride, x); }

at::Tensor pointwise_weight(const at::Tensor& weight) { return packed(weight.flatten(1).t()); }

at::Tensor pointwise_conv_act(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, std::int64_t stride, Slope slope,
                              const at::Tensor& residual) {
  const Views pixels = seen(x, stride);
  const at::Tensor rows = joint_rows(pixels), y = residual.defined() ? joint_rows(residual) : empty_rows(rows, bias.size(0));
  multiply_packed(rows, weight, y, {floats(bias), slope, residual.defined()});
  return residual.defined() ? residual : from_rows(y, pixels).whole;
}

}  // namespace cellcam::model::fused
