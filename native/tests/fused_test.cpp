// Batch norm fused with what follows it, and folded into the convolution before it, against the plain operations in float64.
#include <ATen/Functions.h>
#include <ATen/Version.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <functional>

#include "check.h"
#include "emulated_gpu.h"
#include "model/backbones/layers.h"
#include "model/block_cache.h"
#include "model/fused/gpu/norm_act.h"
#include "model/fused/joint.h"
#include "model/switches.h"
#include "reference.h"

namespace cellcam::tests {

namespace {

using model::fused::Excitation;
using model::fused::Slope;
using model::fused::gpu::Output;

constexpr std::int64_t kChannels = 35;  // no multiple of any vector

// How far apart: of float32, of float16 with its 11 bits, and of bfloat16 with its 8.
double tolerance(at::ScalarType dtype) { return dtype == at::kFloat ? 2e-6 : dtype == at::kHalf ? 1e-3 : 8e-3; }

// The CPU's fused norms, and a GPU's.
struct Fused {
  std::string name;
  std::int64_t channels;
  std::function<Output(const at::Tensor&, torch::nn::BatchNorm2dImpl&, Slope, const at::Tensor&)> norm_act;
  std::function<Output(const at::Tensor&, torch::nn::BatchNorm2dImpl&, const Excitation&, const at::Tensor&)> norm_excite;
  std::vector<at::ScalarType> dtypes;
  std::int64_t height = 9, width = 7;

  std::vector<std::int64_t> shape() const { return {3, channels, height, width}; }
};

const Fused on_cpu{"", kChannels,
                   [](const auto& x, auto& norm, Slope slope, const auto& residual) -> Output {
                     check(model::fused::fits(x), "the fused norm does not take it");
                     const model::Views y = model::fused::norm_act(x, norm, slope, residual);
                     return {y.whole, y.whole_again};
                   },
                   [](const auto& x, auto& norm, const auto& w, const auto& residual) -> Output {
                     const model::Views y = model::fused::norm_excite(x, norm, w, residual);
                     return {y.whole, y.whole_again};
                   },
                   {at::kFloat, at::kBFloat16}};

// Channels in one block of threads, and in two of which the second is not full.
Fused on_gpu(std::int64_t channels) {
  return {"GPU ", channels, model::fused::gpu::norm_act, model::fused::gpu::norm_excite, {at::kFloat, at::kHalf, at::kBFloat16}};
}

at::Tensor values(const std::string& key, at::IntArrayRef shape, at::ScalarType dtype, double offset = 0) {
  const at::Tensor u = (uniforms(key, 1, shape) * 2 - 1 + offset).to(dtype);
  return u.dim() == 4 ? u.contiguous(at::MemoryFormat::ChannelsLast) : u;
}

at::Tensor activated(const at::Tensor& x, Slope slope) { return at::where(x > 0, x, x * static_cast<double>(slope)); }

at::Tensor excitation(const at::Tensor& x, const Excitation& w) {
  const at::Tensor hidden = at::conv2d(x.mean({2, 3}, true), w.squeeze, w.squeeze_bias).relu();
  return at::conv2d(hidden, w.expand, w.expand_bias).sigmoid();
}

// Tensors that get gradients, as given and in float64.
struct Leaves {
  std::int64_t channels = kChannels;
  std::vector<at::Tensor> own{}, exact{};
  std::pair<at::Tensor, at::Tensor> add(const at::Tensor& value) {
    own.push_back(value.detach().requires_grad_());
    exact.push_back(value.detach().to(at::kDouble).requires_grad_());
    return {own.back(), exact.back()};
  }
  std::pair<Excitation, Excitation> add_excitation() {
    const std::int64_t squeezed = channels % 16 == 0 ? 16 : 4;  // whole panels of a product or not
    const auto [a, a64] = add(values("squeeze", {squeezed, channels, 1, 1}, at::kFloat));
    const auto [b, b64] = add(values("squeeze_bias", {squeezed}, at::kFloat));
    const auto [c, c64] = add(values("expand", {channels, squeezed, 1, 1}, at::kFloat));
    const auto [d, d64] = add(values("expand_bias", {channels}, at::kFloat));
    return {{a, b, c, d}, {a64, b64, c64, d64}};
  }
  void check_gradients(double limit, const std::string& what) const {
    for (std::size_t i = 0; i < own.size(); ++i) {
      check_close(own[i].grad(), exact[i].grad(), limit, what + ", gradient " + std::to_string(i));
    }
  }
};

void check_outputs(const at::Tensor& own, const at::Tensor& exact, double limit, const std::string& what) {
  const at::Tensor upstream = values("upstream", own.sizes(), own.scalar_type());
  check(own.is_contiguous(at::MemoryFormat::ChannelsLast), what + ": not NHWC");
  check_close(own, exact, limit, what);
  own.backward(upstream);
  exact.backward(upstream.to(at::kDouble));
}

// Who reads an output that has two readers.
enum class Readers { first, second, both };

void check_outputs(const Output& own, Readers readers, const at::Tensor& exact, double limit, const std::string& what) {
  if (readers == Readers::first || !own.again.defined()) return check_outputs(own.y, exact, limit, what);
  if (readers == Readers::second) return check_outputs(own.again, exact, limit, what);
  check(own.again.is_alias_of(own.y), what + ": a copy");
  const at::Tensor first = values("first", own.y.sizes(), own.y.scalar_type()), second = values("second", own.y.sizes(), own.y.scalar_type());
  torch::autograd::backward({own.y, own.again}, {first, second});
  exact.backward(first.to(at::kDouble) + second.to(at::kDouble));
}

torch::nn::BatchNorm2d norm_of(Leaves& leaves, std::vector<at::Tensor>& exact) {
  torch::nn::BatchNorm2d norm(leaves.channels);
  const auto [weight, weight64] = leaves.add(values("weight", {leaves.channels}, at::kFloat, 1.5));
  const auto [bias, bias64] = leaves.add(values("bias", {leaves.channels}, at::kFloat));
  norm->weight = weight;
  norm->bias = bias;
  exact = {weight64, bias64, at::zeros({leaves.channels}, at::kDouble), at::ones({leaves.channels}, at::kDouble)};
  return norm;
}

at::Tensor exact_norm(const at::Tensor& x, const std::vector<at::Tensor>& n) {
  return at::batch_norm(x, n[0], n[1], n[2], n[3], /*training=*/true, 0.1, 1e-5, false);
}

void norm_act_case(const Fused& fused, at::ScalarType dtype, Slope slope, bool with_residual, double offset, Readers readers = Readers::first) {
  std::ostringstream what;
  what << fused.name << "norm_act " << dtype << " slope " << slope << (with_residual ? " + residual" : "") << " around " << offset;
  Leaves leaves{fused.channels};
  std::vector<at::Tensor> n;
  auto norm = norm_of(leaves, n);
  const auto [x, x64] = leaves.add(values("x", fused.shape(), dtype, offset));
  at::Tensor residual, residual64;
  if (with_residual) std::tie(residual, residual64) = leaves.add(values("residual", fused.shape(), dtype));
  const Output y = fused.norm_act(x, *norm, slope, residual);
  at::Tensor sum = exact_norm(x64, n);
  if (with_residual) sum = sum + residual64;
  // Values of float32 around 1000 are known to 6e-5 only: that is what is left of their differences.
  const double limit = offset == 0 ? tolerance(dtype) : 2e-4;
  check_outputs(y, readers, activated(sum, slope), limit, what.str());
  leaves.check_gradients(dtype == at::kFloat ? 10 * limit : 2 * limit, what.str());
  check_close(norm->running_mean, n[2], 1e-6, what.str() + ": running mean");
  check_close(norm->running_var, n[3], 1e-5, what.str() + ": running variance");
  check(norm->num_batches_tracked.item<std::int64_t>() == 1, what.str() + ": batches tracked");
}

void norm_act_cases(const Fused& fused) {
  for (const auto dtype : fused.dtypes) {
    for (const Slope slope : {1.0f, 0.0f, 0.01f}) {
      for (const bool residual : {false, true}) norm_act_case(fused, dtype, slope, residual, 0);
    }
  }
  norm_act_case(fused, at::kFloat, 1, false, 1000);  // no ReLU: the signs of values so rounded are chance
}

void norm_excite_cases(const Fused& fused, Readers readers = Readers::first) {
  for (const auto dtype : fused.dtypes) {
    std::ostringstream what;
    what << fused.name << "norm_excite " << dtype;
    Leaves leaves{fused.channels};
    std::vector<at::Tensor> n;
    auto norm = norm_of(leaves, n);
    const auto [x, x64] = leaves.add(values("x", fused.shape(), dtype));
    const auto [residual, residual64] = leaves.add(values("residual", fused.shape(), dtype));
    const auto [w, w64] = leaves.add_excitation();
    const Output y = fused.norm_excite(x, *norm, w, residual);
    const at::Tensor exact = exact_norm(x64, n);
    check_outputs(y, readers, (exact * excitation(exact, w64) + residual64).relu(), tolerance(dtype), what.str());
    leaves.check_gradients(dtype == at::kFloat ? 2e-5 : 2e-2, what.str());
    check_close(norm->running_mean, n[2], 1e-6, what.str() + ": running mean");
    check_close(norm->running_var, n[3], 1e-5, what.str() + ": running variance");
  }
}

void readers_cases(const Fused& fused, at::ScalarType dtype) {
  for (const Readers readers : {Readers::first, Readers::second, Readers::both}) {
    for (const Slope slope : {1.0f, 0.0f, 0.01f}) norm_act_case(fused, dtype, slope, true, 0, readers);
    norm_excite_cases(fused, readers);
  }
}

const Register on_the_cpu("fused norms: outputs, gradients and running statistics", [] {
  if (!model::switched_on("CELLCAM_FUSED_NORM")) throw Skipped("CELLCAM_FUSED_NORM=0");
  norm_act_cases(on_cpu);
  norm_excite_cases(on_cpu);
  Fused in_panels = on_cpu;
  in_panels.channels = 48;
  norm_excite_cases(in_panels);
  readers_cases(on_cpu, at::kFloat);
});

const Register on_a_gpu("a GPU's fused norms, its threads emulated: outputs, gradients and running statistics", [] {
  const EmulatedGpu gpu;
  norm_act_cases(on_gpu(40));
  norm_act_case(on_gpu(264), at::kFloat, 0, true, 0);
  Fused in_slices = on_gpu(40);
  in_slices.height = 33;
  in_slices.width = 31;
  norm_act_case(in_slices, at::kFloat, 0, false, 0);
  norm_excite_cases(in_slices, Readers::both);
  readers_cases(on_gpu(40), at::kHalf);
});

const Register shifted("a GPU's shift, weights, residual and activation of predictions, its threads emulated", [] {
  const EmulatedGpu gpu;
  for (const auto dtype : {at::kFloat, at::kHalf, at::kBFloat16}) {
    for (const bool excited : {false, true}) {
      const at::Tensor x = values("x", {3, 40, 7, 9}, dtype).contiguous(at::MemoryFormat::ChannelsLast);
      const at::Tensor shift = values("shift", {40}, at::kFloat), added = values("added", {3, 40, 7, 9}, dtype);
      const at::Tensor weights = excited ? values("weights", {3, 40}, at::kFloat) : at::Tensor();
      at::Tensor exact = x.to(at::kDouble) + shift.view({1, -1, 1, 1});
      if (excited) exact = exact * weights.view({3, 40, 1, 1});
      exact = at::leaky_relu(exact + added.to(at::kDouble), 0.01);
      at::Tensor own = x.clone();
      model::fused::gpu::shift_act_(own, shift, weights, added, 0.01f);
      check_close(own, exact, dtype == at::kFloat ? 1e-6 : 1e-2, "shift_act_");
    }
  }
});

// Both views through a block of all fused operations: 1x1 convolution, norm, 3x3 convolution, norm and excitation, added to the input.
void two_views_case(at::ScalarType dtype, std::int64_t width) {
  using model::Views;
  const std::string what = std::string(dtype == at::kFloat ? "float32" : "bfloat16") + " views of " + std::to_string(width) + " channels";
  Leaves leaves;
  std::vector<at::Tensor> n;
  auto norm = norm_of(leaves, n);
  const auto [w, w64] = leaves.add_excitation();
  const auto [narrow, narrow64] = leaves.add(values("narrow", {width, kChannels, 1, 1}, dtype) / 6);
  const auto [widen, widen64] = leaves.add(values("widen", {kChannels, width, 1, 1}, dtype) / std::sqrt(static_cast<double>(width)));
  const auto [whole, whole64] = leaves.add(values("whole", {2, kChannels, 8, 6}, dtype));
  const auto [tiles, tiles64] = leaves.add(values("tiles", {8, kChannels, 4, 3}, dtype));
  const Views x(whole, tiles);
  if (!model::switched_on("CELLCAM_JOINT_CONV")) throw Skipped("CELLCAM_JOINT_CONV=0");
  check(model::fused::joins(x), what + ": are not taken");
  const Views y = model::fused::excite(model::fused::joint_conv(model::fused::joint_conv(x, narrow), widen), w);
  check(model::fused::joint_rows(y).is_alias_of(y.whole), what + ": lie apart");
  const Views z = model::fused::norm_excite(model::fused::norm_act(y, *norm, 0, x), *norm, w, y);
  std::vector<at::Tensor> exact;
  for (const at::Tensor& view : {whole64, tiles64}) {
    const at::Tensor v = at::conv2d(at::conv2d(view, narrow64), widen64);
    exact.push_back(v * excitation(v, w64));
  }
  // Layer by layer: the running statistics move in this order.
  const at::Tensor inner[] = {(exact_norm(exact[0], n) + whole64).relu(), (exact_norm(exact[1], n) + tiles64).relu()};
  for (std::size_t i = 0; i < 2; ++i) {
    const at::Tensor outer = exact_norm(inner[i], n);
    exact[i] = (outer * excitation(outer, w64) + exact[i]).relu();
  }
  const double limit = dtype == at::kFloat ? 1e-5 : 3e-2;
  const at::Tensor up = values("up", z.whole.sizes(), dtype), up_tiles = values("up_tiles", z.tiles.sizes(), dtype);
  check_close(z.whole, exact[0], limit, what + ": whole");
  check_close(z.tiles, exact[1], limit, what + ": tiles");
  ((z.whole * up).sum() + (z.tiles * up_tiles).sum()).backward();
  ((exact[0] * up).sum() + (exact[1] * up_tiles).sum()).backward();
  leaves.check_gradients(dtype == at::kFloat ? 5e-5 : 8e-2, what);
  check_close(norm->running_mean, n[2], dtype == at::kFloat ? 1e-5 : 1e-2, what + ": running mean");
  check_close(norm->running_var, n[3], dtype == at::kFloat ? 1e-5 : 1e-2, what + ": running variance");
}

const Register two_views("two views at once: outputs, gradients and running statistics", [] {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    two_views_case(dtype, 40);
    two_views_case(dtype, 15000);  // enough weights for the matrix product
  }
});

const Register spatial_cases("convolutions of both views with one gradient of their weight", [] {
  if (!model::switched_on("CELLCAM_JOINT_CONV")) throw Skipped("CELLCAM_JOINT_CONV=0");
  struct Case {
    std::int64_t kernel, stride, in, out;
    at::ScalarType type;
  };
  for (const Case& c : {Case{3, 1, 240, 256, at::kBFloat16}, Case{3, 2, 240, 256, at::kBFloat16}, Case{1, 2, 1024, 512, at::kBFloat16},
                        Case{3, 1, 240, 256, at::kFloat}, Case{3, 2, 240, 256, at::kFloat}}) {
    if (c.type == at::kFloat && at::get_cpu_capability() != "AVX2") continue;
    const double limit = c.type == at::kFloat ? 2e-5 : 8e-3;
    const std::string what = std::string(at::toString(c.type)) + ", kernel " + std::to_string(c.kernel) + ", stride " + std::to_string(c.stride);
    Leaves leaves;
    const at::Tensor initial = values("spatial", {c.out, c.in, c.kernel, c.kernel}, c.type) / std::sqrt(static_cast<double>(c.in * c.kernel * c.kernel));
    const auto [weight, weight64] = leaves.add(initial);
    const auto [whole, whole64] = leaves.add(values("whole", {2, c.in, 8, 6}, c.type));
    const auto [tiles, tiles64] = leaves.add(values("tiles", {8, c.in, 4, 3}, c.type));
    check(model::fused::joins_spatially({whole, tiles}, weight, c.stride, 1), what + ": are not taken");
    const model::Views y = model::fused::joint_spatial_conv({whole, tiles}, weight, c.stride, c.kernel / 2);
    const model::Views exact{at::conv2d(whole64, weight64, {}, c.stride, c.kernel / 2), at::conv2d(tiles64, weight64, {}, c.stride, c.kernel / 2)};
    check_close(y.whole, exact.whole, limit, what + ", whole images");
    check_close(y.tiles, exact.tiles, limit, what + ", tiles");
    const at::Tensor up[] = {values("up", y.whole.sizes(), c.type), values("up tiles", y.tiles.sizes(), c.type)};
    torch::autograd::backward({y.whole, y.tiles}, {up[0], up[1]});
    torch::autograd::backward({exact.whole, exact.tiles}, {up[0].to(at::kDouble), up[1].to(at::kDouble)});
    leaves.check_gradients(limit, what);
    check(weight.grad().is_contiguous(at::MemoryFormat::ChannelsLast), what + ": the gradient lies in memory otherwise than the weight");
  }
});

const Register excite_cases("excitation alone: outputs and gradients", [] {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    const std::string what = dtype == at::kFloat ? "excite float32" : "excite bfloat16";
    Leaves leaves;
    const auto [x, x64] = leaves.add(values("x", {3, kChannels, 9, 7}, dtype));
    const auto [w, w64] = leaves.add_excitation();
    check_outputs(model::fused::excite(x, w).whole, x64 * excitation(x64, w64), tolerance(dtype), what);
    leaves.check_gradients(dtype == at::kFloat ? 2e-5 : 2e-2, what);
  }
});

const Register folded("a folded norm: every activation, with and without residual, and after the weights have changed", [] {
  const at::NoGradGuard no_grad;
  struct Whole : torch::nn::Module {} parent;
  constexpr std::int64_t in = 32, out = 48;
  model::ConvNorm layer(parent, "layer", {in, out, 3, 2, 4});
  for (auto& p : parent.named_parameters()) p.value().copy_(state_tensor(p.key(), 1, p.value()));
  for (auto& b : parent.named_buffers()) b.value().copy_(state_tensor(b.key(), 2, b.value()));
  parent.eval();
  const auto parameters = parent.named_parameters();
  const auto buffers = parent.named_buffers();
  const auto get = [](const auto& dict, const std::string& name) { return dict[name].to(at::kDouble); };
  const at::Tensor x = values("x", {2, in, 10, 6}, at::kFloat), residual = values("residual", {2, out, 5, 3}, at::kFloat);
  for (int round = 0; round < 2; ++round) {
    const at::Tensor plain = at::batch_norm(at::conv2d(x.to(at::kDouble), get(parameters, "layer.conv.weight"), {}, 2, 1, 1, 4),
                                            get(parameters, "layer.bn.weight"), get(parameters, "layer.bn.bias"),
                                            get(buffers, "layer.bn.running_mean"), get(buffers, "layer.bn.running_var"), false, 0.1, 1e-5, false);
    for (const Slope slope : {1.0f, 0.0f, 0.01f}) {
      check_close(layer(x, slope).whole, activated(plain, slope), 1e-6, "folded");
      check_close(layer(x, slope, residual.clone(at::MemoryFormat::ChannelsLast)).whole, activated(plain + residual, slope), 1e-6, "folded + residual");
      check_close(layer(x.contiguous(), slope, residual.contiguous()).whole, activated(plain + residual, slope), 1e-6, "folded, NCHW");
    }
    at::Tensor(parameters["layer.conv.weight"]).mul_(1.5);
    at::Tensor(buffers["layer.bn.running_var"]).add_(1);
  }
});

// Maps of one pixel count as NHWC whatever the others are.
const Register mixed("a step may fuse the norm of one view and not that of the other", [] {
  struct Whole : torch::nn::Module {} parent;
  constexpr std::int64_t in = 16, out = 24;
  model::ConvNorm layer(parent, "layer", {in, out, 3});
  for (auto& p : parent.named_parameters()) p.value().data().copy_(state_tensor(p.key(), 1, p.value()));
  const auto& norm = *layer.norm();
  const at::Tensor weight = parent.named_parameters()["layer.conv.weight"], x = values("x", {3, in, 2, 2}, at::kFloat).contiguous();
  const at::Tensor tiles = values("tiles", {12, in, 1, 1}, at::kFloat), w = weight.detach().to(at::kDouble).requires_grad_(true);
  at::Tensor mean = norm.running_mean.to(at::kDouble, false, true), var = norm.running_var.to(at::kDouble, false, true);
  const auto exact = [&](const at::Tensor& view) {
    return at::batch_norm(at::conv2d(view.to(at::kDouble), w, {}, 1, 1), norm.weight.to(at::kDouble), norm.bias.to(at::kDouble), mean, var, true, 0.1, 1e-5, false).relu();
  };
  const at::Tensor first = exact(x), second = exact(tiles);  // in this order move the running statistics
  const at::Tensor expected = first.square().sum() + second.square().sum();
  const at::Tensor of_whole = layer(x, 0).whole, of_tiles = layer(tiles, 0).whole;
  check(!of_whole.is_contiguous(at::MemoryFormat::ChannelsLast) && model::fused::fits(of_tiles), "both or none are fused");
  const at::Tensor found = of_whole.square().sum() + of_tiles.square().sum();
  expected.backward();
  found.backward();
  check_near(found.item<double>(), expected.item<double>(), 1e-5, "sum");
  check_close(weight.grad(), w.grad(), 2e-5, "gradient of the weight");
  check_close(norm.running_mean, mean, 1e-6, "running mean");
  check_close(norm.running_var, var, 1e-5, "running variance");
  check(norm.num_batches_tracked.item<std::int64_t>() == 2, "two batches were seen");
});

const Register blocks("large tensors' memory is used again while somebody wants that, and right in size", [] {
  std::vector<void*> seen;
  const model::BlockCache cache;
  for (int i = 0; i < 3; ++i) {
    const at::Tensor x = at::full({3000, 1000}, i, at::kFloat);
    check(x.sum().item<double>() == 3e6 * i, "a block's contents");
    seen.push_back(x.data_ptr());
  }
  if (model::switched_on("CELLCAM_BLOCK_CACHE")) check(seen[0] == seen[1] && seen[1] == seen[2], "a block was not used again");
  at::Tensor grown = at::ones({100}, at::kFloat);
  grown.resize_({400000}).fill_(2);
  check(grown.sum().item<double>() == 800000, "a tensor that grew over the smallest block");
});

}  // namespace

}  // namespace cellcam::tests
