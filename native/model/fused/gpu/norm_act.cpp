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
// Blocks of a launch: as many as large GPUs run at once. Fewer where threads would have less than kLeastPixels.
constexpr std::int64_t kBlocks = 512, kLeastPixels = 8;

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
  Grid grid;
  Pixels size;

  Work(const at::Tensor& x, bool by_image)
      : images(by_image ? x.size(0) : 1), pixels(x.numel() / (images * x.size(1))), channels(x.size(1)), type(x.scalar_type()),
        floats(at::TensorOptions(x.device()).dtype(at::kFloat)), launcher_(launcher(x.device())) {
    const std::int64_t vectors = channels / kVector, across = divided_up(vectors, kWarp), wide = divided_up(vectors, across);
    const auto high = static_cast<std::int64_t>(std::bit_floor(static_cast<std::uint64_t>(kThreads / wide)));
    const std::int64_t slices = std::clamp<std::int64_t>(kBlocks / (across * images), 1, divided_up(pixels, high * kLeastPixels));
    grid = {{static_cast<unsigned>(across), static_cast<unsigned>(slices), static_cast<unsigned>(images)},
            {static_cast<unsigned>(wide), static_cast<unsigned>(high)}};
    size = {pixels, static_cast<int>(channels), static_cast<int>(slices)};
  }

  double count() const { return static_cast<double>(images * pixels); }

  template <typename Arguments>
  void run(const char* kernel, Arguments arguments) const {
    launcher_->launch(kernel, type, grid, &arguments);
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

// (images, slices, 2, channels), of MomentsArguments or GradientSumsArguments.
at::Tensor empty_partial(const Work& work) { return at::empty({work.images, work.size.slices, 2, work.channels}, work.floats); }

// (images, 2, channels).
at::Tensor by_image(const at::Tensor& partial, const Work& work) {
  if (work.size.slices == 1) return partial.squeeze(1);
  const at::Tensor sums = at::empty({work.images, 2, work.channels}, work.floats);
  work.run_over(sums.numel(), "image_sums",
                ImageSumsArguments{to_int(work.images), work.size.slices, to_int(work.channels), floats(partial), writable(sums)});
  return sums;
}

at::Tensor moments(const at::Tensor& x, const Work& work) {
  const at::Tensor partial = empty_partial(work);
  work.run("moments", MomentsArguments{work.size, data(x), writable(partial)});
  return partial;
}

const std::uint8_t* bytes(const at::Tensor& t) { return t.defined() ? t.const_data_ptr<std::uint8_t>() : nullptr; }

// ScaleArguments::positive of x.
at::Tensor empty_bits(const at::Tensor& x) { return at::empty({x.numel() / kVector}, at::TensorOptions(x.device()).dtype(at::kByte)); }

// `positive` undefined where there is no residual; `statistics` as they come from below.
Upstream upstream(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& positive, const at::Tensor& statistics, Slope slope) {
  return {data(dy), data(x), bytes(positive), floats(statistics[2]), floats(statistics[3]), slope};
}

at::Tensor gradient_sums(const Upstream& up, const at::Tensor& statistics, const Work& work) {
  const at::Tensor partial = empty_partial(work);
  work.run("gradient_sums", GradientSumsArguments{work.size, up, floats(statistics[0]), writable(partial)});
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

// `f` of norm_gradient; residual may be undefined.
void gradient(const Upstream& up, const at::Tensor& f, const at::Tensor& statistics, const OfImages& e, const at::Tensor& dx,
              const at::Tensor& residual, const Work& work) {
  work.run("gradient", GradientArguments{work.size, up, floats(f[0]), floats(f[1]), floats(f[2]), floats(statistics[0]), floats(e.weights),
                                         floats(e.of_means), dx.data_ptr(), residual.defined() ? residual.data_ptr() : nullptr});
}

struct NormAct : torch::autograd::Function<NormAct> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& weight, const at::Tensor& /*bias*/,
                            const Maybe& residual_in, torch::nn::BatchNorm2dImpl* norm, double slope) {
    const Work work(x, /*by_image=*/false);
    const at::Tensor s = statistics(x, moments(x, work), *norm, work), y = at::empty_like(x);
    const at::Tensor residual = residual_in ? residual_in->to(x.scalar_type()).contiguous(kNhwc) : at::Tensor();
    const at::Tensor positive = residual.defined() && slope != 1 ? empty_bits(x) : at::Tensor();
    work.run("scale_act", ScaleArguments{work.size, data(x), data(residual), floats(s[2]), floats(s[3]), nullptr, static_cast<float>(slope),
                                         y.data_ptr(), positive.defined() ? positive.data_ptr<std::uint8_t>() : nullptr});
    ctx->save_for_backward({x, positive, weight, s});
    ctx->saved_data["slope"] = slope;
    ctx->saved_data["residual"] = residual.defined();
    return y;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &s = saved[3], dy = gradients[0].contiguous(kNhwc), dx = at::empty_like(x);
    const auto slope = static_cast<Slope>(ctx->saved_data["slope"].toDouble());
    const Work work(x, /*by_image=*/false);
    const Upstream up = upstream(dy, x, saved[1], s, slope);
    const at::Tensor f = norm_gradient(gradient_sums(up, s, work), saved[2].detach(), s, {}, work);
    const bool added = ctx->saved_data["residual"].toBool();
    const at::Tensor residual = added && slope != 1 ? at::empty_like(x) : at::Tensor();
    gradient(up, f, s, {}, dx, residual, work);
    return {dx, f[3], f[4], added && slope == 1 ? dy : residual, {}, {}};
  }
};

struct NormExcite : torch::autograd::Function<NormExcite> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, const at::Tensor& residual_in,
                            const at::Tensor& squeeze, const at::Tensor& squeeze_bias, const at::Tensor& expand, const at::Tensor& expand_bias,
                            torch::nn::BatchNorm2dImpl* norm) {
    const Work work(x, /*by_image=*/true);
    const at::Tensor offset = at::empty({work.images, work.channels}, work.floats), means = at::empty_like(offset), y = at::empty_like(x);
    const at::Tensor s = statistics(x, by_image(moments(x, work), work), *norm, work, offset, means);
    const Excited e(means, detached({squeeze, squeeze_bias, expand, expand_bias}));
    const at::Tensor residual = residual_in.to(x.scalar_type()).contiguous(kNhwc);
    const at::Tensor positive = empty_bits(x);
    work.run("scale_act", ScaleArguments{work.size, data(x), data(residual), floats(s[2]), floats(s[3]), floats(e.weights), 0, y.data_ptr(),
                                         positive.data_ptr<std::uint8_t>()});
    ctx->save_for_backward({x, positive, weight, bias, squeeze, expand, s, offset, e.means, e.hidden, e.weights});
    return y;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &s = saved[6], dy = gradients[0].contiguous(kNhwc);
    const at::Tensor weight = saved[2].detach(), dx = at::empty_like(x), residual = at::empty_like(x);
    const Excited e(saved[8], saved[9], saved[10]);
    const Work work(x, /*by_image=*/true);
    const Upstream up = upstream(dy, x, saved[1], s, 0);
    const at::Tensor sums = by_image(gradient_sums(up, s, work), work), of_logits = at::empty_like(e.weights);
    work.run_over(of_logits.numel(), "excitation_gradient",
                  ExcitationGradientArguments{to_int(work.images), to_int(work.channels), floats(sums), floats(weight), floats(saved[3].detach()),
                                              floats(s[1]), floats(e.weights), writable(of_logits)});
    const Excited::Gradient g = e.of_logits(of_logits, saved[4].detach(), saved[5].detach());
    const OfImages of_images{e.weights, g.means, saved[7]};
    const at::Tensor f = norm_gradient(sums, weight, s, of_images, work);
    gradient(up, f, s, of_images, dx, residual, work);
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

void shift_act_(at::Tensor& x, const at::Tensor& shift, const at::Tensor& weights, const at::Tensor& residual_in, Slope slope) {
  const Work work(x, /*by_image=*/weights.defined());
  const at::Tensor residual = residual_in.defined() ? residual_in.to(x.scalar_type()).contiguous(kNhwc) : at::Tensor();
  work.run("scale_act", ScaleArguments{work.size, data(x), data(residual), nullptr, floats(shift), floats(weights), slope, x.data_ptr(), nullptr});
}

}  // namespace cellcam::model::fused::gpu
