#pragma once
#include <torch/csrc/autograd/custom_function.h>
#include <torch/nn/modules/batchnorm.h>

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "model/fused/batch_norm.h"
#include "model/fused/conv_input.h"
#include "model/fused/excited.h"
#include "model/fused/pixels.h"
#include "model/precision.h"
#include "model/views.h"

namespace cellcam::model::fused {

// Within functions of autograd: what they call need not find out at every tensor that there is nothing to record.
using Unrecorded = at::AutoDispatchBelowADInplaceOrView;

// One view or both as what functions of autograd take and give.

inline torch::autograd::variable_list to_list(const Views& x) {
  return x.tiles.defined() ? torch::autograd::variable_list{x.whole, x.tiles} : torch::autograd::variable_list{x.whole};
}
inline Views to_views(const torch::autograd::variable_list& list) { return {list[0], list.size() > 1 ? list[1] : at::Tensor()}; }

inline torch::autograd::variable_list list_of(const at::Tensor& whole, const std::optional<at::Tensor>& tiles) {
  return tiles ? torch::autograd::variable_list{whole, *tiles} : torch::autograd::variable_list{whole};
}

// What becomes of each view's pixels as they are read; empty: nothing.
using Activations = std::vector<Activation>;

struct Wanted {
  bool weight, x;  // gradients
  bool rounded;    // factors, behind a pass with int16 (model/precision.h)
};

struct ConvGradients {
  at::Tensor weight;
  torch::autograd::variable_list x;
};

// A convolution Conv as a function of autograd: Conv::forward(x, weight, option, activations) and
// Conv::backward(x, weight, option, activations, dy in NHWC, what is wanted).
template <typename Conv>
struct ConvFunction : torch::autograd::Function<ConvFunction<Conv>> {
  using variable_list = torch::autograd::variable_list;

  static variable_list forward(torch::autograd::AutogradContext* ctx, const at::Tensor& weight, std::int64_t option, const at::Tensor& whole,
                               const std::optional<at::Tensor>& tiles, const std::optional<at::Tensor>& norm_weight,
                               const std::optional<at::Tensor>& /*norm_bias*/, torch::nn::BatchNorm2dImpl* norm, double slope) {
    const Unrecorded unrecorded;
    const variable_list x = list_of(whole, tiles);
    variable_list saved = x, statistics;
    if (norm != nullptr) {
      for (const at::Tensor& view : x) statistics.push_back(BatchNorm(view, Shape(view).whole(), *norm).statistics);
      saved.insert(saved.end(), statistics.begin(), statistics.end());
      saved.push_back(*norm_weight);
    }
    saved.push_back(weight);
    ctx->save_for_backward(std::move(saved));
    ctx->saved_data["option"] = option;
    ctx->saved_data["slope"] = slope;
    ctx->saved_data["rounds"] = rounds_gradients();
    return Conv::forward(x, weight, option, activations(statistics, slope));
  }

  static variable_list backward(torch::autograd::AutogradContext* ctx, const variable_list& gradients) {
    const Unrecorded unrecorded;
    const variable_list saved = ctx->get_saved_variables();
    const auto views = static_cast<std::ptrdiff_t>(gradients.size());
    const bool normed = saved.size() > gradients.size() + 1;
    const variable_list x(saved.begin(), saved.begin() + views);
    const variable_list statistics = normed ? variable_list(saved.begin() + views, saved.begin() + 2 * views) : variable_list();
    const double slope = ctx->saved_data["slope"].toDouble();
    variable_list dy;
    for (const at::Tensor& g : gradients) dy.push_back(g.contiguous(kNhwc));
    const Wanted wanted{ctx->needs_input_grad(0), normed || ctx->needs_input_grad(1), ctx->saved_data["rounds"].toBool()};
    const ConvGradients g = Conv::backward(x, saved.back(), ctx->saved_data["option"].toInt(), activations(statistics, slope), dy, wanted);
    variable_list out(8);
    out[0] = g.weight;
    std::copy(g.x.begin(), g.x.end(), out.begin() + 2);
    for (std::size_t v = 0; v < statistics.size(); ++v) {
      const NormActGradient of_norm = norm_act_gradient(g.x[v], x[v], saved[saved.size() - 2], statistics[v], static_cast<Slope>(slope), g.x[v]);
      add_to(out[4], of_norm.weight);
      add_to(out[5], of_norm.bias);
    }
    return out;
  }

 private:
  static Activations activations(const variable_list& statistics, double slope) {
    Activations out;
    for (const at::Tensor& s : statistics) out.push_back(activation_of(s, static_cast<Slope>(slope)));
    return out;
  }
};

template <typename Conv>
Views apply_conv(const at::Tensor& weight, std::int64_t option, const ConvInput& in) {
  const auto maybe = [](const at::Tensor& t) { return t.defined() ? std::optional(t) : std::nullopt; };
  return to_views(ConvFunction<Conv>::apply(weight, option, in.x.whole, maybe(in.x.tiles), in.norm ? maybe(in.norm->weight) : std::nullopt,
                                            in.norm ? maybe(in.norm->bias) : std::nullopt, in.norm, static_cast<double>(in.slope)));
}

}  // namespace cellcam::model::fused
