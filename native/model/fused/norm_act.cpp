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
    const variable_list x = to_list({whole, tiles.value_or(at::Tensor())}), y = to_list(joint_like(to_views(x)));
    const Maybe* residuals[] = {&residual, &residual_of_tiles};
    variable_list saved{weight};
    for (std::size_t v = 0; v < x.size(); ++v) {
      const BatchNorm batch(x[v], Shape(x[v]).whole(), *norm);
      scale_act(x[v], residuals[v]->value_or(at::Tensor()), batch.scale, batch.shift, static_cast<Slope>(slope), y[v]);
      // Where nothing is cut off the sign of the output does not matter.
      saved.insert(saved.end(), {x[v], slope == 1 ? x[v] : y[v], batch.statistics});
    }
    ctx->save_for_backward(saved);
    ctx->saved_data["slope"] = slope;
    ctx->saved_data["residual"] = residual.has_value();
    ctx->set_materialize_grads(false);
    return residual ? twice(y) : y;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    const Saved saved(ctx, 1, 3);
    const auto slope = static_cast<Slope>(ctx->saved_data["slope"].toDouble());
    const bool added = ctx->saved_data["residual"].toBool();
    const variable_list dx = to_list(joint_like(saved.views_of(0)));
    variable_list residual = added ? to_list(joint_like(to_views(dx))) : dx;  // g, which dx is made of in place where nobody wants it
    at::Tensor weight, bias;
    for (std::size_t v = 0; v < saved.views(); ++v) {
      const at::Tensor &x = saved.of(v, 0), &y = saved.of(v, 1), &statistics = saved.of(v, 2);
      const OfOutput up(gradients, v, saved.views(), x);
      const bool as_it_is = slope == 1 && !up.again.defined();
      if (as_it_is) residual[v] = up.dy;
      const ImageSums sums = gradient_sums(up.dy, up.again, y, x, Shape(x).whole(), floats(statistics), slope, as_it_is ? at::Tensor() : residual[v]);
      const NormGradient norm(sums.sum, sums.other, saved.common(0).detach(), statistics, static_cast<double>(Shape(x).rows()));
      GradientFactors f(norm.a.size());
      for (std::size_t i = 0; i < norm.a.size(); ++i) {
        f.a[i] = static_cast<float>(norm.a[i]);
        f.b[i] = static_cast<float>(norm.b[i]);
        f.c[i] = static_cast<float>(norm.c[i]);
      }
      gradient(residual[v], x, f, dx[v]);
      add_to(weight, norm.weight);
      add_to(bias, norm.bias);
    }
    const Views of_x = to_views(dx), of_residual = added ? to_views(residual) : Views();
    return {of_x.whole, of_x.tiles, weight, bias, of_residual.whole, of_residual.tiles, {}, {}};
  }
};

// (images, channels) float32 of f(image * channels + channel, channel).
template <typename F>
at::Tensor by_image(const Shape& s, const F& f) {
  at::Tensor out = at::empty({s.images, s.channels}, at::kFloat);
  float* values = out.data_ptr<float>();
  for (std::int64_t i = 0; i < out.numel(); ++i) values[i] = static_cast<float>(f(static_cast<std::size_t>(i), static_cast<std::size_t>(i % s.channels)));
  return out;
}

struct NormExcite : torch::autograd::Function<NormExcite> {
  static variable_list forward(AutogradContext* ctx, const at::Tensor& whole, const Maybe& tiles, const at::Tensor& weight,
                               const at::Tensor& bias, const at::Tensor& residual, const Maybe& residual_of_tiles,
                               const at::Tensor& squeeze, const at::Tensor& squeeze_bias, const at::Tensor& expand,
                               const at::Tensor& expand_bias, torch::nn::BatchNorm2dImpl* norm) {
    const variable_list x = to_list({whole, tiles.value_or(at::Tensor())}), y = to_list(joint_like(to_views(x)));
    variable_list saved{weight, bias, squeeze, expand};
    for (std::size_t v = 0; v < x.size(); ++v) {
      const Shape s(x[v]);
      const BatchNorm batch(x[v], s, *norm);
      const float* shift = floats(bias);
      const at::Tensor offset = by_image(s, [&](std::size_t i, std::size_t) { return batch.image_offset[i]; });
      const at::Tensor means = by_image(s, [&](std::size_t i, std::size_t c) { return batch.image_offset[i] * batch.scale[c] + shift[c]; });
      const Excited e(means, detached({squeeze, squeeze_bias, expand, expand_bias}));
      const float* w = floats(e.weights);
      Factors scales(batch.image_offset.size()), shifts(scales.size());
      for (std::size_t i = 0; i < scales.size(); ++i) {
        scales[i] = batch.scale[i % batch.scale.size()] * w[i];
        shifts[i] = batch.shift[i % batch.shift.size()] * w[i];
      }
      scale_act(x[v], v == 0 ? residual : *residual_of_tiles, scales, shifts, 0, y[v]);
      saved.insert(saved.end(), {x[v], y[v], batch.statistics, offset, e.means, e.hidden, e.weights});
    }
    ctx->save_for_backward(saved);
    ctx->set_materialize_grads(false);
    return twice(y);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    const Saved saved(ctx, 4, 7);
    const Views dx = joint_like(saved.views_of(0)), residual = joint_like(dx);
    at::Tensor weight, bias;
    Excited::Gradient all;
    for (std::size_t v = 0; v < saved.views(); ++v) {
      const at::Tensor &x = saved.of(v, 0), &y = saved.of(v, 1), &statistics = saved.of(v, 2), &g_of_view = v == 0 ? residual.whole : residual.tiles;
      const OfOutput up(gradients, v, saved.views(), x);
      const Excited e(saved.of(v, 4), saved.of(v, 5), saved.of(v, 6));
      const Shape s(x);
      const ImageSums sums = gradient_sums(up.dy, up.again, y, x, s, floats(statistics), 0, g_of_view);
      // The output is relu(n w + residual) with n = scale (x - mean) / deviation + shift; w depends on the image's mean of n.
      const float *scale = floats(saved.common(0)), *shift = floats(saved.common(1)), *inverse = floats(statistics) + s.channels;
      const at::Tensor of_weights = by_image(s, [&](std::size_t i, std::size_t c) {
        return sums.other[i] * scale[c] * inverse[c] + sums.sum[i] * shift[c];
      });
      const Excited::Gradient g = e.backward(of_weights, saved.common(2).detach(), saved.common(3).detach());
      const float *w = floats(e.weights), *of_means = floats(g.means), *offset = floats(saved.of(v, 3));
      std::vector<double> sum(sums.sum.size()), products(sums.sum.size());
      for (std::size_t i = 0; i < sum.size(); ++i) {
        sum[i] = sums.sum[i] * w[i] + of_means[i];
        products[i] = sums.other[i] * w[i] + static_cast<double>(of_means[i]) * offset[i];
      }
      const NormGradient norm(over_images(sum, s), over_images(products, s), saved.common(0).detach(), statistics,
                              static_cast<double>(s.rows()));
      GradientFactors f(sum.size());
      for (std::size_t i = 0; i < sum.size(); ++i) {
        const std::size_t c = i % norm.a.size();
        f.a[i] = static_cast<float>(norm.a[c] * w[i]);
        f.b[i] = static_cast<float>(norm.b[c]);
        f.c[i] = static_cast<float>(norm.c[c] + norm.a[c] * of_means[i] / static_cast<double>(s.pixels));
      }
      gradient(g_of_view, x, f, v == 0 ? dx.whole : dx.tiles);
      add_to(weight, norm.weight);
      add_to(bias, norm.bias);
      all.add(g);
    }
    return {dx.whole,    dx.tiles,         weight,     bias,           residual.whole, residual.tiles,
            all.squeeze, all.squeeze_bias, all.expand, all.expand_bias, {}};
  }
};

struct Excite : torch::autograd::Function<Excite> {
  static variable_list forward(AutogradContext* ctx, const at::Tensor& whole, const Maybe& tiles, const at::Tensor& squeeze,
                               const at::Tensor& squeeze_bias, const at::Tensor& expand, const at::Tensor& expand_bias) {
    const variable_list x = to_list({whole, tiles.value_or(at::Tensor())}), y = to_list(joint_like(to_views(x)));
    variable_list saved{squeeze, expand};
    for (std::size_t v = 0; v < x.size(); ++v) {
      const Excited e(image_means(x[v]), detached({squeeze, squeeze_bias, expand, expand_bias}));
      scale_act(x[v], {}, to_factors(e.weights), Factors(static_cast<std::size_t>(e.weights.numel())), 1, y[v]);
      saved.insert(saved.end(), {x[v], e.means, e.hidden, e.weights});
    }
    ctx->save_for_backward(saved);
    return y;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    const Saved saved(ctx, 2, 4);
    const Views dx = joint_like(saved.views_of(0));
    Excited::Gradient all;
    for (std::size_t v = 0; v < saved.views(); ++v) {
      const at::Tensor &x = saved.of(v, 0), up = gradients[v].contiguous(kNhwc);
      const Excited e(saved.of(v, 1), saved.of(v, 2), saved.of(v, 3));
      const Shape s(x);
      const Factors zero(static_cast<std::size_t>(s.channels));
      const ImageSums sums = gradient_sums(up, {}, x, x, s, zero.data(), 1, {});
      const Excited::Gradient g = e.backward(by_image(s, [&](std::size_t i, std::size_t) { return sums.other[i]; }),
                                             saved.common(0).detach(), saved.common(1).detach());
      GradientFactors f(sums.sum.size());
      f.a = to_factors(e.weights);
      for (std::size_t i = 0; i < f.c.size(); ++i) f.c[i] = floats(g.means)[i] / static_cast<float>(s.pixels);
      gradient(up, x, f, v == 0 ? dx.whole : dx.tiles);
      all.add(g);
    }
    return {dx.whole, dx.tiles, all.squeeze, all.squeeze_bias, all.expand, all.expand_bias};
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
  return by_image(s, [&](std::size_t i, std::size_t) { return sums.sum[i] / static_cast<double>(s.pixels); });
}

at::Tensor channel_weights(const at::Tensor& means, const Excitation& w) {
  const WithoutAutocast fp32;
  return Excited(means, detached(w)).weights;
}

}  // namespace cellcam::model::fused