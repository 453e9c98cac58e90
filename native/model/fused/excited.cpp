#include "model/fused/excited.h"

#include <ATen/Functions.h>

#include <algorithm>
#include <vector>

#include "model/fused/matrix_product.h"
#include "model/fused/panel_loops.h"

namespace cellcam::model::fused {

namespace {

at::Tensor matrix(const at::Tensor& weight) { return weight.flatten(1); }

// Whether products of so few rows, for which others bring more into order than they multiply, are our own.
bool by_product(const at::Tensor& x, const at::Tensor& squeeze) {
  return x.is_cpu() && x.scalar_type() == at::kFloat && squeeze.scalar_type() == at::kFloat && squeeze.size(0) % kPanel == 0 &&
         squeeze.size(1) % kPanel == 0 && multiplies();
}

at::Tensor product(const at::Tensor& a, const at::Tensor& b, const AfterProduct& after = {}) {
  const at::Tensor c = at::empty({a.size(0), b.size(1)}, a.options());
  multiply(a, b, c, after);
  return c;
}

at::Tensor sum_of_rows(const at::Tensor& x) {
  if (!x.is_cpu()) return x.sum(0);
  const at::Tensor sum = at::empty({x.size(1)}, x.options());
  const float* row = x.const_data_ptr<float>();
  float* to = sum.data_ptr<float>();
  std::copy_n(row, x.size(1), to);
  for (std::int64_t r = 1; r < x.size(0); ++r) {
    row += x.size(1);
    for (std::int64_t c = 0; c < x.size(1); ++c) to[c] += row[c];
  }
  return sum;
}

}  // namespace

Excitation detached(const Excitation& w) { return {w.squeeze.detach(), w.squeeze_bias.detach(), w.expand.detach(), w.expand_bias.detach()}; }

Excited::Excited(const at::Tensor& image_means, const Excitation& w) : means(image_means) {
  const at::Tensor squeeze = matrix(w.squeeze).t(), expand = matrix(w.expand).t();
  if (by_product(means, w.squeeze)) {
    hidden = product(means, squeeze, {w.squeeze_bias.const_data_ptr<float>(), /*slope=*/0});
    weights = product(hidden, expand, {w.expand_bias.const_data_ptr<float>()});
  } else {
    hidden = at::_addmm_activation(w.squeeze_bias, means, squeeze);  // relu
    weights = at::addmm(w.expand_bias, hidden, expand);
  }
  weights.sigmoid_();
}

Excited::Excited(at::Tensor image_means, at::Tensor hidden_in, at::Tensor weights_in)
    : means(std::move(image_means)), hidden(std::move(hidden_in)), weights(std::move(weights_in)) {}

Excited::Gradient Excited::backward(const at::Tensor& of_weights, const at::Tensor& squeeze, const at::Tensor& expand) const {
  return of_logits(of_weights * weights * (1 - weights), squeeze, expand);
}

Excited::Gradient Excited::of_logits(const at::Tensor& dz, const at::Tensor& squeeze, const at::Tensor& expand) const {
  const bool own = by_product(dz, squeeze);
  const at::Tensor dh = at::threshold_backward(own ? product(dz, matrix(expand)) : at::mm(dz, matrix(expand)), hidden, 0);
  Gradient g{at::empty_like(means), at::empty_like(squeeze), sum_of_rows(dh), at::empty_like(expand), sum_of_rows(dz)};
  const std::vector<MatrixProduct> products{
      {dh, matrix(squeeze), g.means}, {dh.t(), means, matrix(g.squeeze)}, {dz.t(), hidden, matrix(g.expand)}};
  if (own) {
    multiply(products);
    return g;
  }
  for (MatrixProduct p : products) at::mm_out(p.c, p.a, p.b);
  return g;
}

}  // namespace cellcam::model::fused
