#include "model/fused/batch_norm.h"

#include <ATen/Functions.h>

#include <cmath>

namespace cellcam::model::fused {

BatchNorm::BatchNorm(const at::Tensor& x, const Shape& s, torch::nn::BatchNorm2dImpl& norm)
    : statistics(at::empty({4, s.channels}, at::kFloat)), scale(static_cast<std::size_t>(s.channels)), shift(scale.size()) {
  // Sums of differences to the first pixel: nothing cancels where the mean is far from 0.
  const Factors centre = first_pixel(x);
  ImageSums sums = moments(x, s, centre);
  const std::vector<double> sum = over_images(sums.sum, s), squares = over_images(sums.other, s);
  const double n = static_cast<double>(s.rows()), momentum = *norm.options.momentum(), eps = norm.options.eps();
  const float *weight = floats(norm.weight), *bias = floats(norm.bias);
  float *mean = statistics.data_ptr<float>(), *inverse = mean + s.channels, *of_scale = inverse + s.channels, *of_shift = of_scale + s.channels;
  float *running_mean = norm.running_mean.data_ptr<float>(), *running_var = norm.running_var.data_ptr<float>();
  image_offset = std::move(sums.sum);
  for (std::size_t c = 0; c < scale.size(); ++c) {
    const double offset = sum[c] / n, variance = std::max(0.0, squares[c] / n - offset * offset);
    const double exact_mean = centre[c] + offset, deviation = 1 / std::sqrt(variance + eps);
    mean[c] = static_cast<float>(exact_mean);
    inverse[c] = static_cast<float>(deviation);
    scale[c] = static_cast<float>(weight[c] * deviation);
    shift[c] = static_cast<float>(bias[c] - exact_mean * weight[c] * deviation);
    of_scale[c] = scale[c];
    of_shift[c] = shift[c];
    running_mean[c] += static_cast<float>(momentum * (exact_mean - running_mean[c]));
    running_var[c] += static_cast<float>(momentum * (variance * n / (n - 1) - running_var[c]));
  }
  for_channels(s, [&](std::size_t i, std::size_t c) { image_offset[i] = image_offset[i] / static_cast<double>(s.pixels) - sum[c] / n; });
  norm.running_mean.unsafeGetTensorImpl()->bump_version();
  norm.running_var.unsafeGetTensorImpl()->bump_version();
  ++*norm.num_batches_tracked.data_ptr<std::int64_t>();
  norm.num_batches_tracked.unsafeGetTensorImpl()->bump_version();
}

NormGradient::NormGradient(const std::vector<double>& sum, const std::vector<double>& products, const at::Tensor& weight_in,
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

GradientFactors NormGradient::factors() const {
  GradientFactors f(a.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    f.a[i] = static_cast<float>(a[i]);
    f.b[i] = static_cast<float>(b[i]);
    f.c[i] = static_cast<float>(c[i]);
  }
  return f;
}

Activation activation_of(const at::Tensor& statistics, Slope slope) {
  const float* scale = floats(statistics) + 2 * statistics.size(1);
  return {scale, scale + statistics.size(1), slope};
}

NormActGradient norm_act_gradient(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& weight, const at::Tensor& statistics, Slope slope,
                                  const at::Tensor& dx) {
  const Shape s(x);
  const Activation act = activation_of(statistics, slope);
  const ImageSums sums = gradient_sums(dy, x, s.whole(), floats(statistics), act);
  const NormGradient norm(sums.sum, sums.other, weight, statistics, static_cast<double>(s.rows()));
  gradient(dy, x, act, norm.factors(), dx);
  return {norm.weight, norm.bias};
}

}  // namespace cellcam::model::fused
