// Matrix products of our own, and 1x1 convolutions by them, against LibTorch's in float64.
#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <torch/csrc/autograd/autograd.h>

#include <limits>

#include "check.h"
#include "conv_check.h"
#include "model/fused/matrix_product.h"
#include "model/fused/pixels.h"
#include "model/fused/pointwise_conv.h"
#include "model/precision.h"
#include "reference.h"

namespace cellcam::tests {

namespace {

using model::Views;
using model::fused::kNhwc;

constexpr double kTolerance = 2e-6;

struct Size {
  std::int64_t rows, depth, columns;
};
// One value of depth; pieces of fewer rows; depths that are no multiple of a vector, and that take several blocks; fewer rows than threads;
// enough rows for panels packed beforehand; more columns than rows.
constexpr Size kSizes[] = {{1, 1, 16}, {7, 13, 32}, {64, 1100, 48}, {2, 600, 16}, {1030, 40, 80}, {700, 1030, 32}, {20, 9, 400}, {100, 300, 208}};

// The same values with NaN around them in memory, whose rows or columns lie together.
at::Tensor framed(const at::Tensor& x, bool by_columns) {
  const at::Tensor values = by_columns ? x.t() : x;
  const at::Tensor frame = at::full({values.size(0) + 2, values.size(1) + 5}, std::numeric_limits<float>::quiet_NaN());
  const at::Tensor inner = frame.narrow(0, 1, values.size(0)).narrow(1, 2, values.size(1));
  inner.copy_(values);
  return by_columns ? inner.t() : inner;
}

std::string text_of(const Size& s, bool a_by_columns, bool b_by_columns) {
  return std::to_string(s.rows) + " x " + std::to_string(s.depth) + " x " + std::to_string(s.columns) +
         (a_by_columns ? ", the left one by columns" : "") + (b_by_columns ? ", the right one by columns" : "");
}

void check_product(const Size& s, bool a_by_columns, bool b_by_columns) {
  const std::string what = text_of(s, a_by_columns, b_by_columns);
  const at::Tensor a = at::randn({s.rows, s.depth}), b = at::randn({s.depth, s.columns}), bias = at::randn({s.columns});
  const at::Tensor left = framed(a, a_by_columns), right = framed(b, b_by_columns), before = at::randn({s.rows, s.columns});
  const at::Tensor expected = at::mm(a.to(at::kDouble), b.to(at::kDouble)), c = at::empty({s.rows, s.columns}), added = before.clone();
  model::fused::multiply(left, right, c);
  check_close(c, expected, kTolerance, what);
  model::fused::multiply(left, right, added, {bias.const_data_ptr<float>(), 0.25f, true});
  check_close(added, at::leaky_relu(expected + before + bias, 0.25), kTolerance, what + ", added with bias and activation");
}

const Register products("matrix products, on one thread and on several", [] {
  need_avx2();
  with_threads([] {
    for (const Size& s : kSizes) {
      for (const bool a : {false, true}) {
        for (const bool b : {false, true}) check_product(s, a, b);
      }
    }
  });
});

// Half or more of the left matrix zero: the last rows and panels fewer than are multiplied together; a depth that is no multiple of a vector; several
// blocks of it; enough rows for panels packed beforehand. Those deep enough have as many zeros to the right.
constexpr Size kSparse[] = {{64, 64, 336}, {83, 109, 352}, {83, 141, 352}, {70, 1109, 336}, {1031, 600, 368}, {528, 1500, 336}};

void check_zeros(const Size& s, double share, bool a_by_columns, bool b_by_columns) {
  const std::string what = text_of(s, a_by_columns, b_by_columns) + ", a share of " + std::to_string(share) + " zero";
  const auto some = [&](std::int64_t rows, std::int64_t columns) { return at::randn({rows, columns}).mul_(at::rand({rows, columns}).ge(share)); };
  const at::Tensor a = some(s.rows, s.depth), b = at::randn({s.depth, s.columns});
  const at::Tensor bias = at::randn({s.columns}), before = at::randn({s.rows, s.columns});
  const at::Tensor left = framed(a, a_by_columns), right = framed(b, b_by_columns);
  const at::Tensor expected = at::mm(a.to(at::kDouble), b.to(at::kDouble)), c = at::empty({s.rows, s.columns}), added = before.clone();
  model::fused::multiply(left, right, c);
  check_close(c, expected, kTolerance, what);
  model::fused::multiply_packed(left, model::fused::packed(right), added, {bias.const_data_ptr<float>(), 0.25f, true});
  check_close(added, at::leaky_relu(expected + before + bias, 0.25), kTolerance, what + ", packed, added with bias and activation");
  if (s.rows % 16 != 0) return;
  const at::Tensor d = at::randn({s.rows, s.depth}), e = some(s.depth, s.columns), f = at::empty({s.rows, s.columns});
  model::fused::multiply({{left, right, c}, {framed(d, a_by_columns), framed(e, b_by_columns), f}});
  check_close(c, expected, kTolerance, what + ", the first of two");
  check_close(f, at::mm(d.to(at::kDouble), e.to(at::kDouble)), kTolerance, what + ", of the right one");
}

const Register zeros("matrix products without what is zero, on one thread and on several", [] {
  need_avx2();
  with_threads([] {
    for (const Size& s : kSparse) {
      for (const double share : {.5, .6, .9, .99}) {
        for (const bool a : {false, true}) {
          for (const bool b : {false, true}) check_zeros(s, share, a, b);
        }
      }
    }
  });
});

const Register nothing("matrix products keep what is not a number", [] {
  need_avx2();
  const at::Tensor a = at::zeros({8, 20}), b = at::zeros({20, 16}), c = at::zeros({8, 16}), bias = at::zeros({16});
  a[3][5] = std::numeric_limits<float>::quiet_NaN();
  model::fused::multiply(a, b, c, {bias.const_data_ptr<float>(), 0, false});
  check(c[3].isnan().all().item<bool>() && c.isnan().sum().item<std::int64_t>() == 16, "NaN in one row alone");
  const at::Tensor sparse = at::zeros({70, 140}), some = at::ones({140, 336}), sums = at::zeros({70, 336});
  sparse[3][5] = std::numeric_limits<float>::quiet_NaN();
  model::fused::multiply(sparse, some, sums);
  check(sums[3].isnan().all().item<bool>() && sums.isnan().sum().item<std::int64_t>() == 336, "NaN in one row alone, among zeros");
});

constexpr double kRounded = 3e-4;  // of two factors of some 12 bits each

using model::fused::Arithmetic;

void need_int16() {
  if (!model::cpu_has_int16()) throw Skipped("this CPU has no AVX2, or AVX-512 without VNNI");
}

double relative(const at::Tensor& found, const at::Tensor& expected) {
  return ((found.to(at::kDouble) - expected).norm() / expected.norm()).item<double>();
}

void check_rounded(const Size& s, bool a_by_columns, bool b_by_columns) {
  const std::string what = text_of(s, a_by_columns, b_by_columns);
  const at::Tensor a = at::randn({s.rows, s.depth}), b = at::randn({s.depth, s.columns});
  const at::Tensor left = framed(a, a_by_columns), right = framed(b, b_by_columns), c = at::empty({s.rows, s.columns}), again = at::empty_like(c);
  const at::Tensor expected = at::mm(a.to(at::kDouble), b.to(at::kDouble));
  model::fused::multiply({{left, right, c}, {left, right, again}}, Arithmetic::int16);
  check(relative(c, expected) < kRounded, what + ": " + std::to_string(relative(c, expected)));
  check(at::equal(c, again), what + ", two of them");
}

const Register rounded("matrix products of integers, on one thread and on several", [] {
  need_int16();
  with_threads([] {
    for (const Size& s : kSizes) {
      for (const bool a : {false, true}) {
        for (const bool b : {false, true}) check_rounded(s, a, b);
      }
    }
  });
});

// Rows for which sums are as large as they can be, for which one value says it all, and for which squares have no float.
const Register extremes("matrix products of integers of extreme sizes", [] {
  need_int16();
  for (const std::int64_t depth : {3, 256, 700}) {
    for (const bool by_columns : {false, true}) {
      const at::Tensor a = at::ones({9, depth}), b = at::ones({depth, 32});
      a[1].fill_(-3);
      a[2].zero_()[depth / 2] = 1e3;
      a[3].zero_();
      a[4].mul_(1e-28);
      a[5].mul_(1e28);
      a[6].slice(0, 1).mul_(1e-2);
      b.select(1, 7).mul_(1e-25);
      b.select(1, 8).zero_();
      const at::Tensor c = at::empty({9, 32}), expected = at::mm(a.to(at::kDouble), b.to(at::kDouble));
      model::fused::multiply({{framed(a, by_columns), framed(b, by_columns), c}}, Arithmetic::int16);
      const at::Tensor wrong = (c.to(at::kDouble) - expected).abs() > expected.abs() * 1e-3 + 1e-40;
      check(!wrong.any().item<bool>(), "a depth of " + std::to_string(depth));
      a[4][depth - 1] = std::numeric_limits<float>::infinity();
      a[6][0] = std::numeric_limits<float>::quiet_NaN();
      model::fused::multiply({{framed(a, by_columns), framed(b, by_columns), c}}, Arithmetic::int16);
      check(c[4].isnan().all().item<bool>() && c[6].isnan().all().item<bool>() && c.isnan().sum().item<std::int64_t>() == 64, "NaN in two rows alone");
    }
  }
});

const Register pointwise_rounded("1x1 convolutions with gradients of integers", [] {
  need_int16();
  const at::Tensor w = at::randn({32, 48, 1, 1}).requires_grad_(), x = at::randn({2, 48, 9, 7}).contiguous(kNhwc).requires_grad_();
  const at::Tensor dy = at::randn({2, 32, 9, 7}).contiguous(kNhwc);
  const auto gradients = [&](const at::Tensor& y, const at::Tensor& from, const at::Tensor& weight) {
    return torch::autograd::grad({y}, {from, weight}, {dy.to(y.scalar_type())});
  };
  at::Tensor y, plain;
  {
    const model::Autocast scope(c10::Device(c10::kCPU), model::Precision::int16);
    y = model::fused::pointwise_conv(x, w, 1).whole;
  }
  plain = model::fused::pointwise_conv(x, w, 1).whole;
  const at::Tensor x64 = x.detach().to(at::kDouble).requires_grad_(), w64 = w.detach().to(at::kDouble).requires_grad_();
  const at::Tensor expected = at::conv2d(x64, w64);
  check(relative(y.detach(), expected.detach()) < kTolerance && at::equal(y, plain), "outputs are those of float32");
  const auto found = gradients(y, x, w), wanted = gradients(expected, x64, w64);
  check(relative(found[0], wanted[0]) < kRounded && relative(found[1], wanted[1]) < kRounded, "gradients, computed behind the scope");
  check(relative(found[0], wanted[0]) > 1e-5 && relative(found[1], wanted[1]) > 1e-5, "gradients rounded at all");
  const auto exact = gradients(plain, x, w);
  check(relative(exact[0], wanted[0]) < kTolerance && relative(exact[1], wanted[1]) < kTolerance, "gradients of a pass behind the scope");
  const auto strided = [&](model::Precision precision) {
    const model::Autocast scope(c10::Device(c10::kCPU), precision);
    const at::Tensor out = model::fused::pointwise_conv(x, w, 2).whole;
    return torch::autograd::grad({out}, {x, w}, {at::ones_like(out)});
  };
  const auto rounds = strided(model::Precision::int16), full = strided(model::Precision::fp32);
  check(at::equal(rounds[0], full[0]) && at::equal(rounds[1], full[1]), "gradients with stride are those of float32");
});

// Few pixels and many; every other pixel of odd sizes; more channels than are summed up at a time.
constexpr ConvCase kConvs[] = {{1, 16, 32, 1, 1, 1, 2, 3}, {4, 64, 48, 1, 1, 1, 24, 31}, {3, 32, 64, 1, 2, 1, 13, 18}, {2, 1040, 32, 1, 1, 1, 6, 5}};

const Register pointwise("1x1 convolutions by matrix products: outputs and gradients, on one thread and on several", [] {
  need_avx2();
  with_threads([] {
    for (const ConvCase& c : kConvs) {
      check_conv(c, kTolerance, [&](const Views& x, const at::Tensor& w) {
        check(model::fused::pointwise_fits(x, w, 1), text_of(c, "whether it fits"));
        return model::fused::pointwise_conv(x, w, c.stride);
      });
      check_conv_act(c, kTolerance, [&](const at::Tensor& x, const at::Tensor& w, const at::Tensor& bias, float slope, const at::Tensor& residual) {
        return model::fused::pointwise_conv_act(x, model::fused::pointwise_weight(w), bias, c.stride, slope, residual);
      });
    }
  });
});

const Register unfit("1x1 convolutions that are left to oneDNN", [] {
  need_avx2();
  const auto image = [](std::int64_t channels) { return at::zeros({2, channels, 4, 4}).contiguous(kNhwc); };
  const auto weight = [](std::int64_t out, std::int64_t in, std::int64_t kernel = 1) { return at::zeros({out, in, kernel, kernel}); };
  const at::Tensor x = image(32), w = weight(48, 32);
  check(model::fused::pointwise_fits(x, w, 1), "the usual case");
  check(!model::fused::pointwise_fits(x, weight(48, 32, 3), 1), "3x3");
  check(!model::fused::pointwise_fits(x, weight(48, 16), 2), "groups");
  check(!model::fused::pointwise_fits(x, weight(19, 32), 1) && !model::fused::pointwise_fits(image(24), weight(48, 24), 1), "part of a panel");
  check(!model::fused::pointwise_fits(x.contiguous(), w, 1), "NCHW");
  check(!model::fused::pointwise_fits(x.narrow(0, 0, 0), w, 1), "no image");
  check(!model::fused::pointwise_fits(x.to(at::kDouble), w.to(at::kDouble), 1), "float64");
});

}  // namespace

}  // namespace cellcam::tests
