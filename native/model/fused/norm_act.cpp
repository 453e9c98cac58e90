#include "model/fused/norm_act.h"

#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cmath>
#include <optional>
#include <vector>

#include "model/fused/joint.h"
#include "model/switches.h"

namespace cellcam::model::fused {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr auto kNhwc = at::MemoryFormat::ChannelsLast;
constexpr std::int64_t kBlock = 64;  // pixels whose sums stay in float32

class Shape {
 public:
  std::int64_t images, pixels, channels;  // pixels of one image
  explicit Shape(const at::Tensor& x) : images(x.size(0)), pixels(x.size(2) * x.size(3)), channels(x.size(1)) {}
  std::int64_t rows() const { return images * pixels; }
  // All pixels as those of one image, where no image's own figures are wanted.
  Shape whole() const { return Shape(1, rows(), channels); }

 private:
  Shape(std::int64_t n, std::int64_t p, std::int64_t c) : images(n), pixels(p), channels(c) {}
};

// Calls f(T) with the tensor's type of value.
template <typename F>
auto with_type(const at::Tensor& x, F f) {
  return x.scalar_type() == at::kFloat ? f(float{}) : f(bf16{});
}

template <typename T>
T* data(const at::Tensor& x) {
  return x.defined() ? static_cast<T*>(x.data_ptr()) : nullptr;
}

const float* floats(const at::Tensor& x) { return x.const_data_ptr<float>(); }

// Calls f(image, first row, rows) for stretches of rows within one image, in parallel.
template <typename F>
void for_rows(const Shape& s, const F& f) {
  const std::int64_t grain = std::max<std::int64_t>(1, 32768 / s.channels);
  at::parallel_for(0, s.rows(), grain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end;) {
      const std::int64_t image = row / s.pixels, stop = std::min(end, (image + 1) * s.pixels);
      f(image, row, stop - row);
      row = stop;
    }
  });
}

// Two sums over each image's pixels, (images, channels) each: `add(first row, rows, sum, other)` adds those of some rows.
struct ImageSums {
  std::vector<double> sum, other;
};
template <typename F>
ImageSums image_sums(const Shape& s, const F& add) {
  const auto size = static_cast<std::size_t>(s.images * s.channels);
  std::vector<ImageSums> partial(static_cast<std::size_t>(at::get_num_threads()));
  for_rows(s, [&](std::int64_t image, std::int64_t first, std::int64_t count) {
    ImageSums& mine = partial[static_cast<std::size_t>(at::get_thread_num())];
    mine.sum.resize(size);
    mine.other.resize(size);
    std::vector<float> block(static_cast<std::size_t>(2 * s.channels));
    float *block_sum = block.data(), *block_other = block_sum + s.channels;
    for (std::int64_t row = first; row < first + count; row += kBlock) {
      std::fill(block.begin(), block.end(), 0.0f);
      add(row, std::min(kBlock, first + count - row), block_sum, block_other);
      double *sum = &mine.sum[static_cast<std::size_t>(image * s.channels)], *other = &mine.other[static_cast<std::size_t>(image * s.channels)];
      for (std::int64_t c = 0; c < s.channels; ++c) {
        sum[c] += block_sum[c];
        other[c] += block_other[c];
      }
    }
  });
  ImageSums total{std::vector<double>(size), std::vector<double>(size)};
  for (const ImageSums& mine : partial) {
    for (std::size_t i = 0; i < mine.sum.size(); ++i) {
      total.sum[i] += mine.sum[i];
      total.other[i] += mine.other[i];
    }
  }
  return total;
}

// The sum over images of (images, channels).
std::vector<double> over_images(const std::vector<double>& values, const Shape& s) {
  std::vector<double> total(static_cast<std::size_t>(s.channels));
  for (std::size_t i = 0; i < values.size(); ++i) total[i % total.size()] += values[i];
  return total;
}

// What the loops multiply by and add, (channels) or (images, channels). Plain arrays: so many small tensors would take longer than the pixels.
using Factors = std::vector<float>;

// The norm as y = x * scale + shift, (channels), by the batch's statistics.
struct BatchNorm {
  at::Tensor statistics;  // (2, channels) float32: mean and 1 / sqrt(variance + eps), for the backward pass
  Factors scale, shift;
  std::vector<double> image_offset;  // (images, channels): each image's mean less the batch's

  // Takes the batch's statistics, which move the norm's own. `s` says what an image is.
  BatchNorm(const at::Tensor& x, const Shape& s, torch::nn::BatchNorm2dImpl& norm)
      : statistics(at::empty({2, s.channels}, at::kFloat)), scale(static_cast<std::size_t>(s.channels)), shift(scale.size()) {
    // Sums of differences to the first pixel: nothing cancels where the mean is far from 0.
    Factors centre(static_cast<std::size_t>(s.channels));
    ImageSums sums;
    with_type(x, [&](auto type) {
      using T = decltype(type);
      const auto& kernels = row_kernels(type);
      const Factors zero(centre.size());
      Factors unused(centre.size());
      kernels.moments(data<T>(x), 1, s.channels, zero.data(), centre.data(), unused.data());
      sums = image_sums(s, [&](std::int64_t row, std::int64_t rows, float* sum, float* squares) {
        kernels.moments(data<T>(x) + row * s.channels, rows, s.channels, centre.data(), sum, squares);
      });
    });
    const std::vector<double> sum = over_images(sums.sum, s), squares = over_images(sums.other, s);
    const double n = static_cast<double>(s.rows()), momentum = *norm.options.momentum(), eps = norm.options.eps();
    const float *weight = floats(norm.weight), *bias = floats(norm.bias);
    float *mean = statistics.data_ptr<float>(), *inverse = mean + s.channels;
    float *running_mean = norm.running_mean.data_ptr<float>(), *running_var = norm.running_var.data_ptr<float>();
    image_offset = std::move(sums.sum);
    for (std::size_t c = 0; c < scale.size(); ++c) {
      const double offset = sum[c] / n, variance = std::max(0.0, squares[c] / n - offset * offset);
      const double exact_mean = centre[c] + offset, deviation = 1 / std::sqrt(variance + eps);
      mean[c] = static_cast<float>(exact_mean);
      inverse[c] = static_cast<float>(deviation);
      scale[c] = static_cast<float>(weight[c] * deviation);
      shift[c] = static_cast<float>(bias[c] - exact_mean * weight[c] * deviation);
      running_mean[c] += static_cast<float>(momentum * (exact_mean - running_mean[c]));
      running_var[c] += static_cast<float>(momentum * (variance * n / (n - 1) - running_var[c]));
      for (std::size_t i = c; i < image_offset.size(); i += scale.size()) {
        image_offset[i] = image_offset[i] / static_cast<double>(s.pixels) - offset;
      }
    }
    norm.running_mean.unsafeGetTensorImpl()->bump_version();
    norm.running_var.unsafeGetTensorImpl()->bump_version();
    norm.num_batches_tracked.add_(1);
  }
};

// y = act(x * scale + shift + residual).
void scale_act(const at::Tensor& x, const at::Tensor& residual, const Factors& scale, const Factors& shift, Slope slope,
               const at::Tensor& y) {
  const Shape s(x);
  const std::int64_t step = static_cast<std::int64_t>(scale.size()) == s.channels ? 0 : s.channels;
  with_type(x, [&](auto type) {
    using T = decltype(type);
    for_rows(s, [&](std::int64_t image, std::int64_t row, std::int64_t rows) {
      const std::int64_t at = row * s.channels;
      row_kernels(type).apply(data<T>(x) + at, residual.defined() ? data<T>(residual) + at : nullptr, rows, s.channels,
                              scale.data() + image * step, shift.data() + image * step, slope, data<T>(y) + at);
    });
  });
}

// Sums over each image of g and of g (x - centre), g being the gradient before the activation.
ImageSums gradient_sums(const at::Tensor& dy, const at::Tensor& y, const at::Tensor& x, const Shape& s, const float* centre,
                        Slope slope) {
  return with_type(x, [&](auto type) {
    using T = decltype(type);
    const auto& kernels = row_kernels(type);
    return image_sums(s, [&](std::int64_t row, std::int64_t rows, float* sum, float* products) {
      const std::int64_t at = row * s.channels;
      kernels.gradient_moments(data<T>(dy) + at, data<T>(y) + at, data<T>(x) + at, rows, s.channels, centre, slope, sum, products);
    });
  });
}

// dx = g a + x b + c, and g to `residual` where it is defined.
struct GradientFactors {
  Factors a, b, c;
  explicit GradientFactors(std::size_t size) : a(size), b(size), c(size) {}
};

void gradient(const at::Tensor& dy, const at::Tensor& y, const at::Tensor& x, const GradientFactors& f, Slope slope,
              const at::Tensor& dx, const at::Tensor& residual) {
  const Shape s(x);
  const std::int64_t step = static_cast<std::int64_t>(f.a.size()) == s.channels ? 0 : s.channels;
  with_type(x, [&](auto type) {
    using T = decltype(type);
    for_rows(s, [&](std::int64_t image, std::int64_t row, std::int64_t rows) {
      const std::int64_t at = row * s.channels, k = image * step;
      row_kernels(type).gradient(data<T>(dy) + at, data<T>(y) + at, data<T>(x) + at, rows, s.channels, f.a.data() + k,
                                 f.b.data() + k, f.c.data() + k, slope, data<T>(dx) + at,
                                 residual.defined() ? data<T>(residual) + at : nullptr);
    });
  });
}

// A norm's gradient from the sums over all pixels of the gradient dn of its output and of dn (x - mean): dx = dn a + x b + c.
struct NormGradient {
  std::vector<double> a, b, c;
  at::Tensor weight, bias;

  NormGradient(const std::vector<double>& sum, const std::vector<double>& products, const at::Tensor& weight_in,
               const at::Tensor& statistics, double n)
      : a(sum.size()), b(sum.size()), c(sum.size()), weight(at::empty_like(weight_in)), bias(at::empty_like(weight_in)) {
    const float *w = floats(weight_in), *mean = floats(statistics), *inverse = mean + sum.size();
    float *dw = weight.data_ptr<float>(), *db = bias.data_ptr<float>();
    for (std::size_t i = 0; i < sum.size(); ++i) {
      const double deviation = inverse[i];
      a[i] = w[i] * deviation;
      b[i] = -a[i] * deviation * deviation * products[i] / n;
      c[i] = -a[i] * sum[i] / n - b[i] * mean[i];
      dw[i] = static_cast<float>(products[i] * deviation);
      db[i] = static_cast<float>(sum[i]);
    }
  }
};

// Undefined tensors do not go through autograd; absent ones do.
using Maybe = std::optional<at::Tensor>;
Maybe maybe(const at::Tensor& x) { return x.defined() ? Maybe(x) : std::nullopt; }

variable_list to_list(const Views& x) { return x.tiles.defined() ? variable_list{x.whole, x.tiles} : variable_list{x.whole}; }
Views to_views(const variable_list& list) { return {list[0], list.size() > 1 ? list[1] : at::Tensor()}; }
Views nhwc(const variable_list& gradients) {
  return to_views(gradients).map([](const at::Tensor& g) { return g.contiguous(kNhwc); });
}

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

void add_to(at::Tensor& sum, const at::Tensor& term) { sum = sum.defined() ? sum.add_(term) : term; }

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
    return y;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    const Saved saved(ctx, 1, 3);
    const auto slope = static_cast<Slope>(ctx->saved_data["slope"].toDouble());
    const bool added = ctx->saved_data["residual"].toBool();
    const Views dy = nhwc(gradients), dx = joint_like(saved.views_of(0)), residual = !added ? Views() : slope == 1 ? dy : joint_like(dx);
    at::Tensor weight, bias;
    for (std::size_t v = 0; v < saved.views(); ++v) {
      const at::Tensor &x = saved.of(v, 0), &y = saved.of(v, 1), &statistics = saved.of(v, 2), &up = v == 0 ? dy.whole : dy.tiles;
      const ImageSums sums = gradient_sums(up, y, x, Shape(x).whole(), floats(statistics), slope);
      const NormGradient norm(sums.sum, sums.other, saved.common(0).detach(), statistics, static_cast<double>(Shape(x).rows()));
      GradientFactors f(norm.a.size());
      for (std::size_t i = 0; i < norm.a.size(); ++i) {
        f.a[i] = static_cast<float>(norm.a[i]);
        f.b[i] = static_cast<float>(norm.b[i]);
        f.c[i] = static_cast<float>(norm.c[i]);
      }
      gradient(up, y, x, f, slope, v == 0 ? dx.whole : dx.tiles, slope == 1 ? at::Tensor() : v == 0 ? residual.whole : residual.tiles);
      add_to(weight, norm.weight);
      add_to(bias, norm.bias);
    }
    return {dx.whole, dx.tiles, weight, bias, residual.whole, residual.tiles, {}, {}};
  }
};

// The small network of a squeeze-and-excitation with its own backward pass, in float32.
struct Excited {
  at::Tensor means, hidden, weights;  // (B, C), (B, squeezed), (B, C)

  Excited(const at::Tensor& image_means, const Excitation& w)
      : means(image_means),
        hidden(at::addmm(w.squeeze_bias, means, w.squeeze.flatten(1).t()).relu_()),
        weights(at::addmm(w.expand_bias, hidden, w.expand.flatten(1).t()).sigmoid_()) {}
  Excited(at::Tensor image_means, at::Tensor hidden_in, at::Tensor weights_in)
      : means(std::move(image_means)), hidden(std::move(hidden_in)), weights(std::move(weights_in)) {}

  struct Gradient {
    at::Tensor means, squeeze, squeeze_bias, expand, expand_bias;
    // The weights' gradients are sums over views.
    void add(const Gradient& other) {
      add_to(squeeze, other.squeeze);
      add_to(squeeze_bias, other.squeeze_bias);
      add_to(expand, other.expand);
      add_to(expand_bias, other.expand_bias);
    }
  };
  Gradient backward(const at::Tensor& of_weights, const at::Tensor& squeeze, const at::Tensor& expand) const {
    const at::Tensor dz = of_weights * weights * (1 - weights);
    const at::Tensor dh = at::mm(dz, expand.flatten(1)) * hidden.gt(0);
    return {at::mm(dh, squeeze.flatten(1)), at::mm(dh.t(), means).view_as(squeeze), dh.sum(0),
            at::mm(dz.t(), hidden).view_as(expand), dz.sum(0)};
  }
};

Excitation detached(const Excitation& w) {
  return {w.squeeze.detach(), w.squeeze_bias.detach(), w.expand.detach(), w.expand_bias.detach()};
}

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
    return y;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    const Saved saved(ctx, 4, 7);
    const Views dy = nhwc(gradients), dx = joint_like(saved.views_of(0)), residual = joint_like(dx);
    at::Tensor weight, bias;
    Excited::Gradient all;
    for (std::size_t v = 0; v < saved.views(); ++v) {
      const at::Tensor &x = saved.of(v, 0), &y = saved.of(v, 1), &statistics = saved.of(v, 2), &up = v == 0 ? dy.whole : dy.tiles;
      const Excited e(saved.of(v, 4), saved.of(v, 5), saved.of(v, 6));
      const Shape s(x);
      const ImageSums sums = gradient_sums(up, y, x, s, floats(statistics), 0);
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
      gradient(up, y, x, f, 0, v == 0 ? dx.whole : dx.tiles, v == 0 ? residual.whole : residual.tiles);
      add_to(weight, norm.weight);
      add_to(bias, norm.bias);
      all.add(g);
    }
    return {dx.whole,    dx.tiles,         weight,     bias,           residual.whole, residual.tiles,
            all.squeeze, all.squeeze_bias, all.expand, all.expand_bias, {}};
  }
};

Factors to_factors(const at::Tensor& x) { return {floats(x), floats(x) + x.numel()}; }

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
    const Views dy = nhwc(gradients), dx = joint_like(saved.views_of(0));
    Excited::Gradient all;
    for (std::size_t v = 0; v < saved.views(); ++v) {
      const at::Tensor &x = saved.of(v, 0), &up = v == 0 ? dy.whole : dy.tiles;
      const Excited e(saved.of(v, 1), saved.of(v, 2), saved.of(v, 3));
      const Shape s(x);
      const Factors zero(static_cast<std::size_t>(s.channels));
      const ImageSums sums = gradient_sums(up, x, x, s, zero.data(), 1);
      const Excited::Gradient g = e.backward(by_image(s, [&](std::size_t i, std::size_t) { return sums.other[i]; }),
                                             saved.common(0).detach(), saved.common(1).detach());
      GradientFactors f(sums.sum.size());
      f.a = to_factors(e.weights);
      for (std::size_t i = 0; i < f.c.size(); ++i) f.c[i] = floats(g.means)[i] / static_cast<float>(s.pixels);
      gradient(up, x, x, f, 1, v == 0 ? dx.whole : dx.tiles, {});
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
  return to_views(NormAct::apply(x.whole, maybe(x.tiles), norm.weight, norm.bias, maybe(residual.whole), maybe(residual.tiles), &norm,
                                 static_cast<double>(slope)));
}

Views norm_excite(const Views& x, torch::nn::BatchNorm2dImpl& norm, const Excitation& w, const Views& residual) {
  const WithoutAutocast fp32;
  return to_views(NormExcite::apply(x.whole, maybe(x.tiles), norm.weight, norm.bias, residual.whole, maybe(residual.tiles), w.squeeze,
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
  const Factors zero(static_cast<std::size_t>(s.channels));
  const ImageSums sums = with_type(x, [&](auto type) {
    using T = decltype(type);
    return image_sums(s, [&](std::int64_t row, std::int64_t rows, float* sum, float* squares) {
      row_kernels(type).moments(data<T>(x) + row * s.channels, rows, s.channels, zero.data(), sum, squares);
    });
  });
  return by_image(s, [&](std::size_t i, std::size_t) { return sums.sum[i] / static_cast<double>(s.pixels); });
}

at::Tensor channel_weights(const at::Tensor& means, const Excitation& w) {
  const WithoutAutocast fp32;
  return Excited(means, detached(w)).weights;
}

}  // namespace cellcam::model::fused
