#include "model/backbones/folded_conv.h"

#include <ATen/Functions.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <utility>

#include "model/fused/gpu/norm_act.h"
#include "model/fused/grouped_conv.h"
#include "model/fused/pointwise_conv.h"
#include "model/fused/stem_conv.h"
#include "model/fused/winograd.h"

namespace cellcam::model {

namespace {

using Scalars = c10::List<std::optional<at::Scalar>>;
using Text = std::optional<std::string_view>;
using Bias = std::optional<at::Tensor>;

// What torch.compile uses for frozen convolutions; absent from builds without oneDNN.
struct OneDnn {
  template <typename F>
  using Op = std::optional<c10::TypedOperatorHandle<F>>;

  Op<at::Tensor(const at::Tensor&, at::IntArrayRef, at::IntArrayRef, at::IntArrayRef, std::int64_t, at::OptionalIntArrayRef)> pack;
  Op<at::Tensor(const at::Tensor&, const at::Tensor&, const Bias&, at::IntArrayRef, at::IntArrayRef, at::IntArrayRef, std::int64_t,
                std::string_view, Scalars, Text)>
      conv;
  Op<at::Tensor&(at::Tensor&, const at::Tensor&, const at::Tensor&, const Bias&, at::IntArrayRef, at::IntArrayRef, at::IntArrayRef,
                 std::int64_t, std::string_view, std::optional<at::Scalar>, Text, Scalars, Text)>
      conv_add;

  OneDnn() {
    find("mkldnn::_reorder_convolution_weight", "", pack);
    find("mkldnn::_convolution_pointwise", "", conv);
    find("mkldnn::_convolution_pointwise_", "binary", conv_add);
  }
  explicit operator bool() const { return pack && conv && conv_add; }

 private:
  template <typename F>
  static void find(const char* name, const char* overload, Op<F>& op) {
    if (const auto found = c10::Dispatcher::singleton().findSchema({name, overload})) op = found->typed<F>();
  }
};

const OneDnn& onednn() {
  static const OneDnn ops;
  return ops;
}

at::ScalarType arithmetic(const at::Tensor& weight) {
  const at::DeviceType type = weight.device().type();
  return at::autocast::is_autocast_enabled(type) ? at::autocast::get_autocast_dtype(type) : weight.scalar_type();
}

at::Tensor activate(at::Tensor y, float slope, const at::Tensor& residual) {
  if (residual.defined()) y.add_(residual);
  if (slope == 1) return y;
  return slope == 0 ? y.relu_() : at::leaky_relu_(y, slope);
}

bool is_nhwc(const at::Tensor& x) { return x.is_contiguous(at::MemoryFormat::ChannelsLast); }

// The residual in x's type and as NHWC, to be overwritten by the sum.
at::Tensor to_add_to(const at::Tensor& residual, const at::Tensor& x) {
  if (!residual.defined()) return residual;
  const bool as_it_is = residual.scalar_type() == x.scalar_type() && is_nhwc(residual) && residual.is_non_overlapping_and_dense();
  return as_it_is ? residual : residual.to(x.scalar_type(), false, true, at::MemoryFormat::ChannelsLast);
}

}  // namespace

at::Tensor FoldedConv::operator()(const at::Tensor& x_in, torch::nn::Conv2dImpl& conv, torch::nn::BatchNorm2dImpl& norm, float slope,
                                  const at::Tensor& residual) {
  const at::ScalarType dtype = arithmetic(conv.weight);
  const at::Tensor x = x_in.to(dtype);
  if (x.is_cuda()) {
    Unshifted sum = without_shift(x, conv, norm);
    if (fused::gpu::fits(sum.y)) {
      fused::gpu::shift_act_(sum.y, sum.shift, {}, residual, slope);
      return sum.y;
    }
    return activate(sum.y.add_(sum.shift.view({1, -1, 1, 1})), slope, residual);
  }
  Fold& folded = fold(conv, norm, dtype);
  if (!residual.defined() && fused::stem_fits(x, folded.weight, shape_.groups)) {
    return fused::stem_conv_act(x, folded.weight, folded.bias, shape_.stride, slope);
  }
  if (fused::winograd_fits(x, folded.weight, shape_.stride, shape_.groups, /*weight_kept=*/true)) {
    if (!folded.transformed.defined()) folded.transformed = fused::winograd_weight(folded.weight);
    return fused::winograd_conv_act(x, folded.transformed, folded.bias, shape_.groups, slope, to_add_to(residual, x));
  }
  if (fused::pointwise_fits(x, folded.weight, shape_.groups)) {
    if (!folded.packed_right.defined()) folded.packed_right = fused::pointwise_weight(folded.weight);
    return fused::pointwise_conv_act(x, folded.packed_right, folded.bias, shape_.stride, slope, to_add_to(residual, x));
  }
  if (!residual.defined() && fused::groups_fit(x, folded.weight, shape_.stride, shape_.groups)) {
    return fused::grouped_conv_act(x, folded.weight, folded.bias, shape_.stride, slope);
  }
  if (onednn() && is_nhwc(x) && (dtype == at::kFloat || dtype == at::kBFloat16)) return by_onednn(x, folded, slope, residual);
  return activate(at::conv2d(x, folded.weight, folded.bias, shape_.stride, shape_.padding(), 1, shape_.groups), slope, residual);
}

FoldedConv::Unshifted FoldedConv::without_shift(const at::Tensor& x_in, torch::nn::Conv2dImpl& conv, torch::nn::BatchNorm2dImpl& norm) {
  const at::ScalarType dtype = arithmetic(conv.weight);
  const at::Tensor x = x_in.to(dtype);
  const Fold& folded = fold(conv, norm, dtype);
  return {at::conv2d(x, folded.weight, {}, shape_.stride, shape_.padding(), 1, shape_.groups), folded.shift};
}

FoldedConv::Fold& FoldedConv::fold(torch::nn::Conv2dImpl& conv, torch::nn::BatchNorm2dImpl& norm, at::ScalarType dtype) {
  std::vector<Source> now;
  for (const at::Tensor* t : {&conv.weight, &norm.weight, &norm.bias, &norm.running_mean, &norm.running_var}) {
    now.push_back({t->const_data_ptr(), t->is_inference() ? 0 : static_cast<std::int64_t>(t->_version())});
  }
  Fold& folded = folds_[dtype];
  if (now == folded.made_of) return folded;
  const at::Tensor scale = norm.weight.to(at::kDouble) / (norm.running_var.to(at::kDouble) + norm.options.eps()).sqrt();
  folded.weight = (conv.weight.to(at::kDouble) * scale.view({-1, 1, 1, 1})).to(dtype).contiguous(conv.weight.suggest_memory_format());
  const at::Tensor shift = norm.bias.to(at::kDouble) - norm.running_mean * scale;
  folded.bias = shift.to(dtype);
  folded.shift = shift.to(at::kFloat);
  folded.packed = folded.transformed = folded.packed_right = at::Tensor();
  folded.made_of = std::move(now);
  return folded;
}

at::Tensor FoldedConv::by_onednn(const at::Tensor& x, Fold& folded, float slope, const at::Tensor& residual) const {
  const std::int64_t stride[] = {shape_.stride, shape_.stride}, padding[] = {shape_.padding(), shape_.padding()}, dilation[] = {1, 1};
  if (!folded.packed.defined()) folded.packed = onednn().pack->call(folded.weight, padding, stride, dilation, shape_.groups, x.sizes());
  Scalars scalars;
  if (!residual.defined()) {
    if (slope != 0 && slope != 1) scalars.push_back(at::Scalar(slope));
    const std::string_view act = slope == 1 ? "none" : slope == 0 ? "relu" : "leaky_relu";
    return onednn().conv->call(x, folded.packed, folded.bias, padding, stride, dilation, shape_.groups, act, scalars, std::nullopt);
  }
  at::Tensor sum = to_add_to(residual, x);
  const Text act = slope == 0 ? Text("relu") : std::nullopt;  // the only one that it knows behind a sum
  onednn().conv_add->call(sum, x, folded.packed, folded.bias, padding, stride, dilation, shape_.groups, "add", std::nullopt, act, scalars, std::nullopt);
  return slope == 0 || slope == 1 ? sum : at::leaky_relu_(sum, slope);
}

}  // namespace cellcam::model
