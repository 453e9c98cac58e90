#include "model/fused/gpu/norm_act.h"

#include <ATen/Functions.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <bit>
#include <optional>

#include "model/fused/gpu/kernels.h"
#include "model/fused/gpu/launch.h"
#include "model/switches.h"

namespace cellcam::model::fused::gpu {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Maybe = std::optional<at::Tensor>;

constexpr auto kNhwc = at::MemoryFormat::ChannelsLast;
constexpr std::int64_t kVector = 8, kWarp = 32;
// A thread has that many pixels at least, and a launch that many turns of as many blocks as the device runs at once at most.
constexpr std::int64_t kLeastPixels = 8, kMostTurns = 4;

template <typename N>
constexpr N divided_up(N value, N by) {
  return (value + by - 1) / by;
}

const void* data(const at::Tensor& t) { return t.defined() ? t.const_data_ptr() : nullptr; }
const float* floats(const at::Tensor& t) { return t.defined() ? t.const_data_ptr<float>() : nullptr; }
float* writable(const at::Tensor& t) { return t.defined() ? t.data_ptr<float>() : nullptr; }

// The work on images like x, cut into threads: as many over channels as a warp has or there are. Where images do not matter by themselves they
// count as one.
struct Work {
  std::int64_t images, pixels, channels;
  at::ScalarType type;
  at::TensorOptions floats;
  Launcher* launcher_;
  std::int64_t across;
  Extent threads;

  Work(const at::Tensor& x, bool by_image)
      : images(by_image ? x.size(0) : 1), pixels(x.numel() / (images * x.size(1))), channels(x.size(1)), type(x.scalar_type()),
        floats(at::TensorOptions(x.device()).dtype(at::kFloat)), launcher_(launcher(x.device())), across(divided_up(channels / kVector, kWarp)) {
    const std::int64_t wide = divided_up(channels / kVector, across);
    threads = {static_cast<unsigned>(wide), std::bit_floor(static_cast<unsigned>(kThreads / wide))};
  }

  // Slices of an image for a kernel over pixels: such that the device is busy to the end of its last turn.
  Pixels cut(const char* kernel) const {
    const std::int64_t at_once = launcher_->blocks_at_once(kernel, type, threads), each = across * images;
    const std::int64_t most = divided_up<std::int64_t>(pixels, threads.y * kLeastPixels);
    std::int64_t best = 1;
    double best_share = 0;
    for (std::int64_t turns = 1; turns <= kMostTurns && best_share < 0.9; ++turns) {
      const std::int64_t slices = std::clamp<std::int64_t>(turns * at_once / each, 1, most);
      const double share = static_cast<double>(slices * each) / static_cast<double>(turns * at_once);
      if (share > best_share) best = slices, best_share = share;
    }
    return {pixels, static_cast<int>(channels), static_cast<int>(best)};
  }

  double count() const { return static_cast<double>(images * pixels); }

  // For kernels over pixels; arguments.size is of `cut`.
  template <typename Arguments>
  void run(const char* kernel, Arguments arguments) const {
    const auto to_unsigned = [](std::int64_t n) { return static_cast<unsigned>(n); };
    launcher_->launch(kernel, type, {{to_unsigned(across), to_unsigned(arguments.size.slices), to_unsigned(images)}, threads}, &arguments);
  }
  // For kernels over the rows of sums.
  template <typename Arguments>
  void run_over_rows(const char* kernel, Arguments arguments) const {
    const auto across = static_cast<unsigned>(divided_up(channels, kWarp));
    launcher_->launch(kernel, type, {{across}, {kWarp, kRowThreads / kWarp}}, &arguments);
  }
  // For kernels with a thread a number.
  template <typename Arguments>
  void run_over(std::int64_t numbers, const char* kernel, Arguments arguments) const {
    const auto blocks = static_cast<unsigned>(divided_up<std::int64_t>(numbers, kThreads));
    launcher_->launch(kernel, type, {{blocks}, {kThreads}}, &arguments);
  }
};

int to_int(std::int64_t n) { return static_cast<int>(n); }

// (images, slices, 2, channels), for the sums of `size`.
at::Tensor empty_partial(const Work& work, const Pixels& size) { return at::empty({work.images, size.slices, 2, work.channels}, work.floats); }

// (images, 2, channels).
at::Tensor by_image(const at::Tensor& partial, const Work& work) {
  if (partial.size(1) == 1) return partial.squeeze(1);
  const at::Tensor sums = at::empty({work.images, 2, work.channels}, work.floats);
  work.run_over(sums.numel(), "image_sums", ImageSumsArguments{to_int(work.images), to_int(partial.size(1)), to_int(work.channels),
                                                               floats(partial), writable(sums)});
  return sums;
}

at::Tensor moments(const at::Tensor& x, const Work& work) {
  const Pixels size = work.cut("moments");
  const at::Tensor partial = empty_partial(work, size);
  work.run("moments", MomentsArguments{size, data(x), writable(partial)});
  return partial;
}

const std::uint8_t* bytes(const at::Tensor& t) { return t.defined() ? t.const_data_ptr<std::uint8_t>() : nullptr; }

// ScaleArguments::positive of x.
at::Tensor empty_bits(const at::Tensor& x) { return at::empty({x.numel() / kVector}, at::TensorOptions(x.device()).dtype(at::kByte)); }

// What comes back to y, as it was given to one reader or to two (norm_act.h).
struct OfOutput {
  at::Tensor dy, again;

  explicit OfOutput(const variable_list& gradients) {
    for (const at::Tensor& g : gradients) {
      if (g.defined()) (dy.defined() ? again : dy) = g.contiguous(kNhwc);
    }
  }
};

// `statistics` as they come from below.
at::Tensor gradient_sums(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& statistics, Slope slope, const Work& work) {
  const Pixels size = work.cut("gradient_sums");
  const at::Tensor partial = empty_partial(work, size);
  work.run("gradient_sums", GradientSumsArguments{size, data(dy), data(x), floats(statistics[2]), floats(statistics[3]), floats(statistics[0]),
                                                  slope, writable(partial)});
  return partial;
}

// Writes the residual's gradient g.
at::Tensor added_gradient_sums(const OfOutput& up, const at::Tensor& x, const at::Tensor& positive, const at::Tensor& statistics, Slope slope,
                               const at::Tensor& g, const Work& work) {
  const Pixels size = work.cut("added_gradient_sums");
  const at::Tensor partial = empty_partial(work, size);
  work.run("added_gradient_sums", AddedGradientSumsArguments{size, data(up.dy), data(up.again), data(x), bytes(positive), floats(statistics[0]),
                                                             slope, writable(partial), g.data_ptr()});
  return partial;
}

int rows_of(const at::Tensor& sums) { return to_int(sums.numel() / (2 * sums.size(-1))); }

// Mean, 1 / deviation, scale and shift, one row each; moves the running statistics. `offset` and `means` as in StatisticsArguments.
at::Tensor statistics(const at::Tensor& x, const at::Tensor& sums, torch::nn::BatchNorm2dImpl& norm, const Work& work,
                      const at::Tensor& offset = {}, const at::Tensor& means = {}) {
  const at::Tensor out = at::empty({4, work.channels}, work.floats);
  auto* const tracked = reinterpret_cast<long long*>(norm.num_batches_tracked.data_ptr<std::int64_t>());
  work.run_over_rows("statistics", StatisticsArguments{rows_of(sums), to_int(work.channels), work.count(), norm.options.eps(),
                                                       *norm.options.momentum(), data(x), floats(sums), floats(norm.weight), floats(norm.bias),
                                                       writable(out[0]), writable(out[1]), writable(out[2]), writable(out[3]),
                                                       writable(norm.running_mean), writable(norm.running_var), tracked, writable(offset),
                                                       writable(means)});
  for (const at::Tensor& t : {norm.running_mean, norm.running_var, norm.num_batches_tracked}) t.unsafeGetTensorImpl()->bump_version();
  return out;
}

// Gradients by a squeeze-and-excitation's weights of what is normalised; all undefined without one.
struct OfImages {
  at::Tensor weights, of_means, offset;
};

// a, b and c of GradientArguments and the gradients of weight and bias, one row each.
at::Tensor norm_gradient(const at::Tensor& sums, const at::Tensor& weight, const at::Tensor& statistics, const OfImages& e, const Work& work) {
  const at::Tensor out = at::empty({5, work.channels}, work.floats);
  work.run_over_rows("norm_gradient", NormGradientArguments{rows_of(sums), to_int(work.channels), work.count(), floats(sums), floats(weight),
                                                            floats(statistics[1]), floats(e.weights), floats(e.of_means), floats(e.offset),
                                                            writable(out[0]), writable(out[1]), writable(out[2]), writable(out[3]),
                                                            writable(out[4])});
  return out;
}

// `f` of norm_gradient.
void gradient(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& f, const at::Tensor& statistics, Slope slope, const at::Tensor& dx,
              const Work& work) {
  work.run("gradient", GradientArguments{work.cut("gradient"), data(dy), data(x), floats(statistics[2]), floats(statistics[3]),
                                         floats(statistics[0]), slope, floats(f[0]), floats(f[1]), floats(f[2]), dx.data_ptr()});
}

void added_gradient(const at::Tensor& g, const at::Tensor& x, const at::Tensor& f, const at::Tensor& statistics, const OfImages& e,
                    const at::Tensor& dx, const Work& work) {
  work.run("added_gradient", AddedGradientArguments{work.cut("added_gradient"), data(g), data(x), floats(statistics[0]), floats(f[0]), floats(f[1]),
                                                    floats(f[2]), floats(e.weights), floats(e.of_means), dx.data_ptr()});
}

// y for a second reader, whose gradient comes back by itself: the same memory, but to autograd an output of its own.
at::Tensor again(const at::Tensor& y) { return y.variable_data(); }

struct NormAct : torch::autograd::Function<NormAct> {
  // y, and with a residual y again.
  static variable_list forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& weight, const at::Tensor& /*bias*/,
                               const Maybe& residual_in, torch::nn::BatchNorm2dImpl* norm, double slope) {
    const Work work(x, /*by_image=*/false);
    const at::Tensor s = statistics(x, moments(x, work), *norm, work), y = at::empty_like(x);
    const at::Tensor residual = residual_in ? residual_in->to(x.scalar_type()).contiguous(kNhwc) : at::Tensor();
    const at::Tensor positive = residual.defined() ? empty_bits(x) : at::Tensor();
    work.run("scale_act", ScaleArguments{work.cut("scale_act"), data(x), data(residual), floats(s[2]), floats(s[3]), nullptr,
                                         static_cast<float>(slope), y.data_ptr(), positive.defined() ? positive.data_ptr<std::uint8_t>() : nullptr});
    ctx->save_for_backward({x, positive, weight, s});
    ctx->saved_data["slope"] = slope;
    ctx->set_materialize_grads(false);
    return residual.defined() ? variable_list{y, again(y)} : variable_list{y};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &positive = saved[1], &s = saved[3], weight = saved[2].detach(), dx = at::empty_like(x);
    const auto slope = static_cast<Slope>(ctx->saved_data["slope"].toDouble());
    const OfOutput up(gradients);
    const Work work(x, /*by_image=*/false);
    if (!positive.defined()) {
      const at::Tensor f = norm_gradient(gradient_sums(up.dy, x, s, slope, work), weight, s, {}, work);
      gradient(up.dy, x, f, s, slope, dx, work);
      return {dx, f[3], f[4], {}, {}, {}};
    }
    const at::Tensor residual = at::empty_like(x);
    const at::Tensor f = norm_gradient(added_gradient_sums(up, x, positive, s, slope, residual, work), weight, s, {}, work);
    added_gradient(residual, x, f, s, {}, dx, work);
    return {dx, f[3], f[4], residual, {}, {}};
  }
};

struct NormExcite : torch::autograd::Function<NormExcite> {
  // y, and y again.
  static variable_list forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                               const at::Tensor& residual_in, const at::Tensor& squeeze, const at::Tensor& squeeze_bias, const at::Tensor& expand,
                               const at::Tensor& expand_bias, torch::nn::BatchNorm2dImpl* norm) {
    const Work work(x, /*by_image=*/true);
    const at::Tensor offset = at::empty({work.images, work.channels}, work.floats), means = at::empty_like(offset), y = at::empty_like(x);
    const at::Tensor s = statistics(x, by_image(moments(x, work), work), *norm, work, offset, means);
    const Excited e(means, detached({squeeze, squeeze_bias, expand, expand_bias}));
    const at::Tensor residual = residual_in.to(x.scalar_type()).contiguous(kNhwc);
    const at::Tensor positive = empty_bits(x);
    work.run("scale_act", ScaleArguments{work.cut("scale_act"), data(x), data(residual), floats(s[2]), floats(s[3]), floats(e.weights), 0,
                                         y.data_ptr(), positive.data_ptr<std::uint8_t>()});
    ctx->save_for_backward({x, positive, weight, bias, squeeze, expand, s, offset, e.means, e.hidden, e.weights});
    ctx->set_materialize_grads(false);
    return {y, again(y)};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &s = saved[6], weight = saved[2].detach(), dx = at::empty_like(x), residual = at::empty_like(x);
    const Excited e(saved[8], saved[9], saved[10]);
    const Work work(x, /*by_image=*/true);
    const at::Tensor sums = by_image(added_gradient_sums(OfOutput(gradients), x, saved[1], s, 0, residual, work), work);
    const at::Tensor of_logits = at::empty_like(e.weights);
    work.run_over(of_logits.numel(), "excitation_gradient",
                  ExcitationGradientArguments{to_int(work.images), to_int(work.channels), floats(sums), floats(weight), floats(saved[3].detach()),
                                              floats(s[1]), floats(e.weights), writable(of_logits)});
    const Excited::Gradient g = e.of_logits(of_logits, saved[4].detach(), saved[5].detach());
    const OfImages of_images{e.weights, g.means, saved[7]};
    const at::Tensor f = norm_gradient(sums, weight, s, of_images, work);
    added_gradient(residual, x, f, s, of_images, dx, work);
    return {dx, f[3], f[4], residual, g.squeeze, g.squeeze_bias, g.expand, g.expand_bias, {}};
  }
};

// The sums above are of float32; autocast would have the small products of channel weights in half precision.
struct WithoutAutocast {
  c10::impl::ExcludeDispatchKeyGuard guard{c10::autocast_dispatch_keyset};
};

}  // namespace

bool fits(const at::Tensor& x) {
  static const bool on = switched_on("CELLCAM_FUSED_NORM");
  const at::ScalarType type = x.scalar_type();
  return on && x.is_cuda() && (type == at::kFloat || type == at::kHalf || type == at::kBFloat16) && x.dim() == 4 && x.numel() > x.size(1) &&
         x.size(1) % kVector == 0 && x.is_contiguous(kNhwc) && reinterpret_cast<std::uintptr_t>(x.const_data_ptr()) % 16 == 0 &&
         launcher(x.device()) != nullptr;
}

Output norm_act(const at::Tensor& x, torch::nn::BatchNorm2dImpl& norm, Slope slope, const at::Tensor& residual) {
  const WithoutAutocast fp32;
  const variable_list y =
      NormAct::apply(x, norm.weight, norm.bias, residual.defined() ? Maybe(residual) : std::nullopt, &norm, static_cast<double>(slope));
  return {y[0], y.size() > 1 ? y[1] : at::Tensor()};
}

Output norm_excite(const at::Tensor& x, torch::nn::BatchNorm2dImpl& norm, const Excitation& w, const at::Tensor& residual) {
  const WithoutAutocast fp32;
  const variable_list y = NormExcite::apply(x, norm.weight, norm.bias, residual, w.squeeze, w.squeeze_bias, w.expand, w.expand_bias, &norm);
  return {y[0], y[1]};
}

void shift_act_(at::Tensor& x, const at::Tensor& shift, const at::Tensor& weights, const at::Tensor& residual_in, Slope slope) {
  const Work work(x, /*by_image=*/weights.defined());
  const at::Tensor residual = residual_in.defined() ? residual_in.to(x.scalar_type()).contiguous(kNhwc) : at::Tensor();
  work.run("scale_act", ScaleArguments{work.cut("scale_act"), data(x), data(residual), nullptr, floats(shift), floats(weights), slope, x.data_ptr(),
                                       nullptr});
}

}  // namespace cellcam::model::fused::gpu
