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
constexpr std::int64_t kVector = 8, kWarp = 32, kLeastPixels = 16;

template <typename N>
constexpr N divided_up(N value, N by) {
  return (value + by - 1) / by;
}

const void* data(const at::Tensor& t) { return t.defined() ? t.const_data_ptr() : nullptr; }
const float* floats(const at::Tensor& t) { return t.const_data_ptr<float>(); }
float* writable(const at::Tensor& t) { return t.data_ptr<float>(); }

// The work on images like x, cut into threads: as many over channels as a warp has or there are, and at least kLeastPixels pixels each.
struct Work {
  std::int64_t images, pixels, channels;
  at::ScalarType type;
  Launcher* launcher_;
  Grid grid;
  Pixels size;

  explicit Work(const at::Tensor& x)
      : images(x.size(0)), pixels(x.size(2) * x.size(3)), channels(x.size(1)), type(x.scalar_type()), launcher_(launcher(x.device())) {
    const std::int64_t vectors = channels / kVector, across = divided_up(vectors, kWarp), wide = divided_up(vectors, across);
    const auto high = static_cast<std::int64_t>(std::bit_floor(static_cast<std::uint64_t>(kThreads / wide)));
    const std::int64_t slices = divided_up(pixels, high * kLeastPixels);
    grid = {{static_cast<unsigned>(across), static_cast<unsigned>(slices), static_cast<unsigned>(images)},
            {static_cast<unsigned>(wide), static_cast<unsigned>(high)}};
    size = {pixels, static_cast<int>(channels), static_cast<int>(slices)};
  }

  double count() const { return static_cast<double>(images * pixels); }
  at::TensorOptions floats_on(const at::Tensor& x) const { return x.options().dtype(at::kFloat).memory_format(std::nullopt); }

  template <typename Arguments>
  void run(const char* kernel, Arguments arguments) const {
    launcher_->launch(kernel, type, grid, &arguments);
  }
  // For kernels over the rows of sums.
  template <typename Arguments>
  void run_over_rows(const char* kernel, Arguments arguments) const {
    const auto across = static_cast<unsigned>(divided_up(channels, kWarp));
    launcher_->launch(kernel, type, {{across}, {kWarp, kThreads / kWarp}}, &arguments);
  }
};

// (images, slices, 2, channels), of MomentsArguments or GradientSumsArguments.
at::Tensor partial_like(const at::Tensor& x, const Work& work) {
  return at::empty({work.images, work.size.slices, 2, work.channels}, work.floats_on(x));
}

// (images, 2, channels).
at::Tensor by_image(const at::Tensor& partial, const Work& work) {
  const at::Tensor sums = at::empty({work.images, 2, work.channels}, partial.options());
  ImageSumsArguments a{static_cast<int>(work.images), work.size.slices, static_cast<int>(work.channels), floats(partial), writable(sums)};
  const auto blocks = static_cast<unsigned>(divided_up<std::int64_t>(sums.numel(), kThreads));
  work.launcher_->launch("image_sums", work.type, {{blocks}, {kThreads}}, &a);
  return sums;
}

at::Tensor moments(const at::Tensor& x, const Work& work) {
  const at::Tensor partial = partial_like(x, work);
  work.run("moments", MomentsArguments{work.size, data(x), writable(partial)});
  return partial;
}

at::Tensor gradient_sums(const at::Tensor& dy, const at::Tensor& y, const at::Tensor& x, const at::Tensor& mean, Slope slope, const Work& work) {
  const at::Tensor partial = partial_like(x, work);
  work.run("gradient_sums", GradientSumsArguments{work.size, data(dy), data(y), data(x), floats(mean), slope, writable(partial)});
  return partial;
}

int rows_of(const at::Tensor& sums) { return static_cast<int>(sums.numel() / (2 * sums.size(-1))); }

// Mean, 1 / deviation, scale and shift, one row each; moves the running statistics.
at::Tensor statistics(const at::Tensor& x, const at::Tensor& sums, torch::nn::BatchNorm2dImpl& norm, const Work& work) {
  const at::Tensor out = at::empty({4, work.channels}, sums.options());
  work.run_over_rows("statistics", StatisticsArguments{rows_of(sums), static_cast<int>(work.channels), work.count(), norm.options.eps(),
                                                       *norm.options.momentum(), data(x), floats(sums), floats(norm.weight), floats(norm.bias),
                                                       writable(out[0]), writable(out[1]), writable(out[2]), writable(out[3]),
                                                       writable(norm.running_mean), writable(norm.running_var)});
  norm.running_mean.unsafeGetTensorImpl()->bump_version();
  norm.running_var.unsafeGetTensorImpl()->bump_version();
  norm.num_batches_tracked.add_(1);
  return out;
}

// a, b and c of GradientArguments and the gradients of weight and bias, one row each.
at::Tensor norm_gradient(const at::Tensor& sums, const at::Tensor& weight, const at::Tensor& statistics, const Work& work) {
  const at::Tensor out = at::empty({5, work.channels}, sums.options());
  work.run_over_rows("norm_gradient", NormGradientArguments{rows_of(sums), static_cast<int>(work.channels), work.count(), floats(sums), floats(weight),
                                                            floats(statistics[1]), writable(out[0]), writable(out[1]),
                                                            writable(out[2]), writable(out[3]), writable(out[4])});
  return out;
}

struct NormAct : torch::autograd::Function<NormAct> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& weight, const at::Tensor& /*bias*/,
                            const Maybe& residual_in, torch::nn::BatchNorm2dImpl* norm, double slope) {
    const Work work(x);
    const at::Tensor s = statistics(x, moments(x, work), *norm, work), y = at::empty_like(x);
    const at::Tensor residual = residual_in ? residual_in->to(x.scalar_type()).contiguous(kNhwc) : at::Tensor();
    work.run("scale_act", ScaleArguments{work.size, data(x), data(residual), floats(s[2]), floats(s[3]), 0, static_cast<float>(slope), y.data_ptr()});
    // Where nothing is cut off the sign of the output does not matter.
    ctx->save_for_backward({x, slope == 1 ? x : y, weight, s});
    ctx->saved_data["slope"] = slope;
    ctx->saved_data["residual"] = residual.defined();
    return y;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &y = saved[1], &s = saved[3], dy = gradients[0].contiguous(kNhwc), dx = at::empty_like(x);
    const auto slope = static_cast<Slope>(ctx->saved_data["slope"].toDouble());
    const Work work(x);
    const at::Tensor f = norm_gradient(gradient_sums(dy, y, x, s[0], slope, work), saved[2].detach(), s, work);
    at::Tensor residual;
    if (ctx->saved_data["residual"].toBool()) residual = slope == 1 ? dy : at::empty_like(x);
    work.run("gradient", GradientArguments{work.size, data(dy), data(y), data(x), floats(f[0]), floats(f[1]), floats(f[2]), floats(s[0]), 0, slope, dx.data_ptr(),
                                           slope == 1 || !residual.defined() ? nullptr : residual.data_ptr()});
    return {dx, f[3], f[4], residual, {}, {}};
  }
};

struct NormExcite : torch::autograd::Function<NormExcite> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, const at::Tensor& residual_in,
                            const at::Tensor& squeeze, const at::Tensor& squeeze_bias, const at::Tensor& expand, const at::Tensor& expand_bias,
                            torch::nn::BatchNorm2dImpl* norm) {
    const Work work(x);
    const at::Tensor sums = by_image(moments(x, work), work), s = statistics(x, sums, *norm, work);
    // Of each image's mean from the batch's: the sums are of differences to the first pixel.
    const at::Tensor first = x.permute({0, 2, 3, 1}).flatten(0, 2)[0].to(at::kFloat);
    const at::Tensor offset = sums.select(1, 0) / static_cast<double>(work.pixels) + (first - s[0]);
    const Excited e(offset * s[2] + bias.detach(), detached({squeeze, squeeze_bias, expand, expand_bias}));
    const at::Tensor scale = s[2] * e.weights, shift = s[3] * e.weights, y = at::empty_like(x);
    const at::Tensor residual = residual_in.to(x.scalar_type()).contiguous(kNhwc);
    work.run("scale_act", ScaleArguments{work.size, data(x), data(residual), floats(scale), floats(shift), 1, 0, y.data_ptr()});
    ctx->save_for_backward({x, y, weight, bias, squeeze, expand, s, offset, e.means, e.hidden, e.weights});
    return y;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &y = saved[1], &s = saved[6], &offset = saved[7], dy = gradients[0].contiguous(kNhwc);
    const at::Tensor weight = saved[2].detach(), dx = at::empty_like(x), residual = at::empty_like(x);
    const Excited e(saved[8], saved[9], saved[10]);
    const Work work(x);
    const at::Tensor sums = by_image(gradient_sums(dy, y, x, s[0], 0, work), work);
    // The output is relu(n w + residual) with n = weight (x - mean) / deviation + bias; w depends on the image's mean of n.
    const at::Tensor of_weights = sums.select(1, 1) * (weight * s[1]) + sums.select(1, 0) * saved[3].detach();
    const Excited::Gradient g = e.backward(of_weights, saved[4].detach(), saved[5].detach());
    const at::Tensor of_n = at::stack({sums.select(1, 0) * e.weights + g.means, sums.select(1, 1) * e.weights + g.means * offset}, 1);
    const at::Tensor f = norm_gradient(of_n, weight, s, work);
    const at::Tensor a = f[0] * e.weights, c = f[2] + f[0] * g.means / static_cast<double>(work.pixels);
    work.run("gradient", GradientArguments{work.size, data(dy), data(y), data(x), floats(a), floats(f[1]), floats(c), floats(s[0]), 1, 0, dx.data_ptr(),
                                           residual.data_ptr()});
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

at::Tensor norm_act(const at::Tensor& x, torch::nn::BatchNorm2dImpl& norm, Slope slope, const at::Tensor& residual) {
  const WithoutAutocast fp32;
  return NormAct::apply(x, norm.weight, norm.bias, residual.defined() ? Maybe(residual) : std::nullopt, &norm, static_cast<double>(slope));
}

at::Tensor norm_excite(const at::Tensor& x, torch::nn::BatchNorm2dImpl& norm, const Excitation& w, const at::Tensor& residual) {
  const WithoutAutocast fp32;
  return NormExcite::apply(x, norm.weight, norm.bias, residual, w.squeeze, w.squeeze_bias, w.expand, w.expand_bias, &norm);
}

}  // namespace cellcam::model::fused::gpu
