#pragma once
#include <torch/csrc/autograd/custom_function.h>

#include "model/fused/pixels.h"
#include "model/views.h"

namespace cellcam::model::fused {

// Within functions of autograd: what they call need not find out at every tensor that there is nothing to record.
using Unrecorded = at::AutoDispatchBelowADInplaceOrView;

// One view or both as what functions of autograd take and give; convolutions of them as such functions: forward(context, weight, option, whole
// images, tiles or nothing).

inline torch::autograd::variable_list to_list(const Views& x) {
  return x.tiles.defined() ? torch::autograd::variable_list{x.whole, x.tiles} : torch::autograd::variable_list{x.whole};
}
inline Views to_views(const torch::autograd::variable_list& list) { return {list[0], list.size() > 1 ? list[1] : at::Tensor()}; }

inline torch::autograd::variable_list list_of(const at::Tensor& whole, const std::optional<at::Tensor>& tiles) {
  return tiles ? torch::autograd::variable_list{whole, *tiles} : torch::autograd::variable_list{whole};
}

template <typename Conv>
Views apply_conv(const at::Tensor& weight, std::int64_t option, const Views& x) {
  const auto y = Conv::apply(weight, option, x.whole, x.tiles.defined() ? std::optional(x.tiles) : std::nullopt);
  return y.size() == 1 ? Views(y[0]) : Views(y[0], y[1]);
}

inline void save(torch::autograd::AutogradContext* ctx, const at::Tensor& weight, std::int64_t option, torch::autograd::variable_list x) {
  x.push_back(weight);
  ctx->save_for_backward(std::move(x));
  ctx->saved_data["option"] = option;
}

// What was saved, and the gradients of the outputs in NHWC.
struct SavedConv {
  torch::autograd::variable_list x, dy;
  at::Tensor weight;
  std::int64_t option;

  SavedConv(torch::autograd::AutogradContext* ctx, const torch::autograd::variable_list& gradients)
      : x(ctx->get_saved_variables()), weight(x.back()), option(ctx->saved_data["option"].toInt()) {
    x.pop_back();
    for (const at::Tensor& g : gradients) dy.push_back(g.contiguous(kNhwc));
  }
};

}  // namespace cellcam::model::fused
