#include "model/fused/norm_act.h"

#include <ATen/Functions.h>

#include <optional>
#include <vector>

#include "model/fused/batch_norm.h"
#include "model/fused/conv_views.h"
#include "model/fused/excited.h"
#include "model/fused/joint.h"
#include "model/switches.h"

namespace cellcam::model::fused {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Undefined tensors do not go through autograd; absent ones do.
using Maybe = std::optional<at::Tensor>;
Maybe maybe(const at::Tensor& x) { return x.defined() ? Maybe(x) : std::nullopt; }

// All views, then all of them again for a second reader, whose gradients come back by themselves: the same memory, but to autograd outputs of
// their own.
variable_list twice(const variable_list& y) {
  variable_list all = y;
  for (const at::Tensor& view : y) all.push_back(view.variable_data());
  return all;
}
Views both_readers(const variable_list& list) {
  const std::size_t views = list.size() / 2;
  Views out = to_views({list.begin(), list.begin() + static_cast<std::ptrdiff_t>(views)});
  out.whole_again = list[views];
  if (views > 1) out.tiles_again = list[views + 1];
  return out;
}

// The gradients of a view's output that came back: of one reader or of both.
struct OfOutput {
  at::Tensor dy, again;
  OfOutput(const variable_list& gradients, std::size_t view, std::size_t views, const at::Tensor& x) {
    for (std::size_t i = view; i < gradients.size(); i += views) {
      if (gradients[i].defined()) (dy.defined() ? again : dy) = gradients[i].contiguous(kNhwc);
    }
    if (!dy.defined()) dy = at::zeros_like(x);
  }
};

// What a function saved: first what belongs to all views, then the same number of tensors for each view.
class Saved {
 public:
  Saved(AutogradContext* ctx, std::size_t common, std::size_t each) : list_(ctx->get_saved_variables()), common_(common), each_(each) {}
  std::size_t views() const { return (list_.size() - common_) / each_; }
  const at::Tensor& common(std::size_t i) const { return list_[i]; }
  const at::Tensor& of(std::size_t view, std::size_t i) const { return list_[common_ + view * each_ + i]; }
  Views views_of(std::size_t i) const { return {of(0, i), views() > 1 ? of(1, i) : at::Tensor()}; }

 private:
  variable_list list_;
  std::size_t common_, each_;
};

struct NormAct : torch::autograd::Function<NormAct> {
  static variable_list forward(AutogradContext* ctx, const at::Tensor& whole, const Maybe& tiles, const at::Tensor& weight,
                               const at::Tensor& /*bias*/, const Maybe& residual, const Maybe& residual_of_tiles,
                               torch::nn::BatchNorm2dImpl* norm, double slope) {
    const Unrecorded unrecorded;
    const variable_list x = to_list({whole, tiles.value_or(at::Tensor())}), y = to_list(joint_like(to_views(x)));
    const Maybe* residuals[] = {&residual, &residual_of_tiles};
    variable_list saved{weight};
    for (std::size_t v = 0; v < x.size(); ++v) {
      const BatchNorm batch(x[v], Shape(x[v]).whole(), *norm);
      scale_act(x[v], residuals[v]->value_or(at::Tensor()), batch.scale, batch.shift, static_cast<Slope>(slope), y[v]);
      saved.insert(saved.end(), {x[v], residual ? y[v] : x[v], batch.statistics});
    }
    ctx->save_for_backward(saved);
    ctx->saved_data["slope"] = slope;
    ctx->saved_data["residual"] = residual.has_value();
    ctx->set_materialize_grads(false);
    return residual ? twice(y) : y;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    const Unrecorded unrecorded;
    const Saved saved(ctx, 1, 3);
    const auto slope = static_cast<Slope>(ctx->saved_data["slope"].toDouble());
    const bool added = ctx->saved_data["residual"].toBool();
    const variable_list dx = to_list(joint_like(saved.views_of(0))), residual = added ? to_list(joint_like(to_views(dx))) : variable_list();
    at::Tensor weight, bias;
    for (std::size_t v = 0; v < saved.views(); ++v) {
      const at::Tensor &x = saved.of(v, 0), &y = saved.of(v, 1), &statistics = saved.of(v, 2);
      const OfOutput up(gradients, v, saved.views(), x);
      NormActGradient of_norm;
      if (added) {
        const Shape s(x);
        const ImageSums sums = added_gradient_sums(up.dy, up.again, y, x, s.whole(), floats(statistics), slope, residual[v]);
        const NormGradient norm(sums.sum, sums.other, saved.common(0), statistics, static_cast<double>(s.rows()));
        added_gradient(residual[v], x, norm.factors(), dx[v]);
        of_norm = {norm.weight, norm.bias};
      } else {
        of_norm = norm_act_gradient(up.dy, x, saved.common(0), statistics, slope, dx[v]);
      }
      add_to(weight, of_norm.weight);
      add_to(bias, of_norm.bias);
    }
    const Views of_x = to_views(dx), of_residual = added ? to_views(residual) : Views();
    return {of_x.whole, of_x.tiles, weight, bias, of_residual.whole, of_residual.tiles, {}, {}};
  }
};

// (images, channels) float32 for all images of one view or both, as the small network of an excitation takes and gives.
class ByImage {
 public:
  explicit ByImage(const variable_list& views)
      : ByImage(at::empty({views[0].size(0) + (views.size() > 1 ? views[1].size(0) : 0), views[0].size(1)}, at::kFloat), views) {}
  ByImage(const at::Tensor& all, const variable_list& views) : all_(all), of_second_(views[0].size(0) * all.size(1)) {}
  const at::Tensor& all() const { return all_; }
  float* write(std::size_t view) const { return all_.data_ptr<float>() + first(view); }
  const float* read(std::size_t view) const { return floats(all_) + first(view); }
  // Those of a view.
  Factors factors(const at::Tensor& x, std::size_t view) const { return {read(view), read(view) + x.size(0) * all_.size(1)}; }

 private:
  std::int64_t first(std::size_t view) const { return view == 0 ? 0 : of_second_; }
  at::Tensor all_;
  std::int64_t of_second_;
};

struct NormExcite : torch::autograd::Function<NormExcite> {
  static variable_list forward(AutogradContext* ctx, const at::Tensor& whole, const Maybe& tiles, const at::Tensor& weight,
                               const at::Tensor& bias, const at::Tensor& residual, const Maybe& residual_of_tiles,
                               const at::Tensor& squeeze, const at::Tensor& squeeze_bias, const at::Tensor& expand,
                               const at::Tensor& expand_bias, torch::nn::BatchNorm2dImpl* norm) {
    const Unrecorded unrecorded;
    const variable_list x = to_list({whole, tiles.value_or(at::Tensor())}), y = to_list(joint_like(to_views(x)));
    const ByImage offsets(x), means(x);
    const float* shift = floats(bias);
    std::vector<BatchNorm> batches;
    for (std::size_t v = 0; v < x.size(); ++v) {
      const BatchNorm& batch = batches.emplace_back(x[v], Shape(x[v]), *norm);
      float *offset = offsets.write(v), *mean = means.write(v);
      for_channels(Shape(x[v]), [&](std::size_t i, std::size_t c) {
        offset[i] = static_cast<float>(batch.image_offset[i]);
        mean[i] = static_cast<float>(batch.image_offset[i] * batch.scale[c] + shift[c]);
      });
    }
    const Excited e(means.all(), detached({squeeze, squeeze_bias, expand, expand_bias}));
    const ByImage weights(e.weights, x);
    variable_list saved{weight, bias, squeeze, expand, offsets.all(), e.means, e.hidden, e.weights};
    for (std::size_t v = 0; v < x.size(); ++v) {
      const float* w = weights.read(v);
      Factors scales(batches[v].image_offset.size()), shifts(scales.size());
      for_channels(Shape(x[v]), [&](std::size_t i, std::size_t c) {
        scales[i] = batches[v].scale[c] * w[i];
        shifts[i] = batches[v].shift[c] * w[i];
      });
      scale_act(x[v], v == 0 ? residual : *residual_of_tiles, scales, shifts, 0, y[v]);
      saved.insert(saved.end(), {x[v], y[v], batches[v].statistics});
    }
    ctx->save_for_backward(saved);
    ctx->set_materialize_grads(false);
    return twice(y);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    const Unrecorded unrecorded;
    const Saved saved(ctx, 8, 3);
    const variable_list x = to_list(saved.views_of(0)), dx = to_list(joint_like(to_views(x))), residual = to_list(joint_like(to_views(dx)));
    const float *scale = floats(saved.common(0)), *shift = floats(saved.common(1));
    const Excited e(saved.common(5), saved.common(6), saved.common(7));
    const ByImage offsets(saved.common(4), x), weights(e.weights, x), of_weights(x);
    std::vector<ImageSums> sums;
    for (std::size_t v = 0; v < x.size(); ++v) {
      const at::Tensor &y = saved.of(v, 1), &statistics = saved.of(v, 2);
      const OfOutput up(gradients, v, x.size(), x[v]);
      const ImageSums& of_view = sums.emplace_back(added_gradient_sums(up.dy, up.again, y, x[v], Shape(x[v]), floats(statistics), 0, residual[v]));
      // The output is relu(n w + residual) with n = scale (x - mean) / deviation + shift; w depends on the image's mean of n.
      const float* inverse = floats(statistics) + x[v].size(1);
      float* of_weight = of_weights.write(v);
      for_channels(Shape(x[v]), [&](std::size_t i, std::size_t c) {
        of_weight[i] = static_cast<float>(of_view.other[i] * scale[c] * inverse[c] + of_view.sum[i] * shift[c]);
      });
    }
    const Excited::Gradient g = e.backward(of_weights.all(), saved.common(2).detach(), saved.common(3).detach());
    const ByImage means(g.means, x);
    at::Tensor weight, bias;
    for (std::size_t v = 0; v < x.size(); ++v) {
      const Shape s(x[v]);
      const float *w = weights.read(v), *of_means = means.read(v), *offset = offsets.read(v);
      std::vector<double>&sum = sums[v].sum, &products = sums[v].other;
      for (std::size_t i = 0; i < sum.size(); ++i) {
        sum[i] = sum[i] * w[i] + of_means[i];
        products[i] = products[i] * w[i] + static_cast<double>(of_means[i]) * offset[i];
      }
      const NormGradient norm(over_images(sum, s), over_images(products, s), saved.common(0), saved.of(v, 2),
                              static_cast<double>(s.rows()));
      GradientFactors f(sum.size());
      for_channels(s, [&](std::size_t i, std::size_t c) {
        f.a[i] = static_cast<float>(norm.a[c] * w[i]);
        f.b[i] = static_cast<float>(norm.b[c]);
        f.c[i] = static_cast<float>(norm.c[c] + norm.a[c] * of_means[i] / static_cast<double>(s.pixels));
      });
      added_gradient(residual[v], x[v], f, dx[v]);
      add_to(weight, norm.weight);
      add_to(bias, norm.bias);
    }
    const Views of_x = to_views(dx), of_residual = to_views(residual);
    return {of_x.whole, of_x.tiles,     weight,    bias,           of_residual.whole, of_residual.tiles,
            g.squeeze,  g.squeeze_bias, g.expand, g.expand_bias, {}};
  }
};

struct Excite : torch::autograd::Function<Excite> {
  static variable_list forward(AutogradContext* ctx, const at::Tensor& whole, const Maybe& tiles, const at::Tensor& squeeze,
                               const at::Tensor& squeeze_bias, const at::Tensor& expand, const at::Tensor& expand_bias) {
    const Unrecorded unrecorded;
    const variable_list x = to_list({whole, tiles.value_or(at::Tensor())}), y = to_list(joint_like(to_views(x)));
    variable_list means;
    for (const at::Tensor& view : x) means.push_back(image_means(view));
    const Excited e(at::cat(means), detached({squeeze, squeeze_bias, expand, expand_bias}));
    const ByImage weights(e.weights, x);
    for (std::size_t v = 0; v < x.size(); ++v) {
      const Factors scale = weights.factors(x[v], v);
      scale_act(x[v], {}, scale, Factors(scale.size()), 1, y[v]);
    }
    variable_list saved{squeeze, expand, e.means, e.hidden, e.weights};
    saved.insert(saved.end(), x.begin(), x.end());
    ctx->save_for_backward(saved);
    return y;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    const Unrecorded unrecorded;
    const Saved saved(ctx, 5, 1);
    const variable_list x = to_list(saved.views_of(0)), dx = to_list(joint_like(to_views(x)));
    const Excited e(saved.common(2), saved.common(3), saved.common(4));
    const ByImage weights(e.weights, x), of_weights(x);
    variable_list up;
    for (std::size_t v = 0; v < x.size(); ++v) {
      up.push_back(gradients[v].contiguous(kNhwc));
      const Factors zero(static_cast<std::size_t>(x[v].size(1)));
      const ImageSums sums = gradient_sums(up[v], x[v], Shape(x[v]), zero.data(), {zero.data(), zero.data(), 1});
      float* of_weight = of_weights.write(v);
      for_channels(Shape(x[v]), [&](std::size_t i, std::size_t) { of_weight[i] = static_cast<float>(sums.other[i]); });
    }
    const Excited::Gradient g = e.backward(of_weights.all(), saved.common(0).detach(), saved.common(1).detach());
    const ByImage means(g.means, x);
    for (std::size_t v = 0; v < x.size(); ++v) {
      GradientFactors f(static_cast<std::size_t>(x[v].size(0) * x[v].size(1)));
      f.a = weights.factors(x[v], v);
      for (std::size_t i = 0; i < f.c.size(); ++i) f.c[i] = means.read(v)[i] / static_cast<float>(Shape(x[v]).pixels);
      added_gradient(up[v], x[v], f, dx[v]);
    }
    const Views of_x = to_views(dx);
    return {of_x.whole, of_x.tiles, g.squeeze, g.squeeze_bias, g.expand, g.expand_bias};
  }
};

// The sums above are of float32; autocast would have the small products of channel weights in bfloat16.
struct WithoutAutocast {
  c10::impl::ExcludeDispatchKeyGuard guard{c10::autocast_dispatch_keyset};
};

}  // namespace

bool fits(const at::Tensor& x) {
  static const bool on = switched_on("CELLCAM_FUSED_NORM");
  return on && x.device().is_cpu() && (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16) && x.dim() == 4 &&
         x.numel() > x.size(1) && x.is_contiguous(kNhwc);
}

bool fits(const Views& x) { return fits(x.whole) && (!x.tiles.defined() || fits(x.tiles)); }

Views norm_act(const Views& x, torch::nn::BatchNorm2dImpl& norm, Slope slope, const Views& residual) {
  const WithoutAutocast fp32;
  const variable_list y = NormAct::apply(x.whole, maybe(x.tiles), norm.weight, norm.bias, maybe(residual.whole), maybe(residual.tiles), &norm,
                                         static_cast<double>(slope));
  return residual.defined() ? both_readers(y) : to_views(y);
}

Views norm_excite(const Views& x, torch::nn::BatchNorm2dImpl& norm, const Excitation& w, const Views& residual) {
  const WithoutAutocast fp32;
  return both_readers(NormExcite::apply(x.whole, maybe(x.tiles), norm.weight, norm.bias, residual.whole, maybe(residual.tiles), w.squeeze,
                                        w.squeeze_bias, w.expand, w.expand_bias, &norm));
}

Views excite(const Views& x, const Excitation& w) {
  const WithoutAutocast fp32;
  return to_views(Excite::apply(x.whole, maybe(x.tiles), w.squeeze, w.squeeze_bias, w.expand, w.expand_bias));
}

void scale_act_(at::Tensor& x, const at::Tensor& scale, const at::Tensor& residual, Slope slope) {
  scale_act(x, residual, to_factors(scale), Factors(static_cast<std::size_t>(scale.numel())), slope, x);
}

at::Tensor image_means(const at::Tensor& x) {
  const Shape s(x);
  const ImageSums sums = moments(x, s, Factors(static_cast<std::size_t>(s.channels)));
  const at::Tensor means = at::empty({s.images, s.channels}, at::kFloat);
  float* mean = means.data_ptr<float>();
  for (std::size_t i = 0; i < sums.sum.size(); ++i) mean[i] = static_cast<float>(sums.sum[i] / static_cast<double>(s.pixels));
  return means;
}

at::Tensor channel_weights(const at::Tensor& means, const Excitation& w) {
  const WithoutAutocast fp32;
  return Excited(means, detached(w)).weights;
}

}  // namespace cellcam::model::fused