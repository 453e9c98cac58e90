#include "training/augment/augment.h"

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>

#include <cmath>

#include "check.h"
#include "emulated_gpu.h"
#include "error.h"
#include "training/augment/mix.h"
#include "training/augment/noise.h"
#include "training/augment/sampler.h"
#include "training/augment/warp.h"
#include "training/augment/window_median.h"

namespace cellcam::tests {
namespace {

using namespace training::augment;

at::Tensor smooth_images(std::int64_t count, std::int64_t size, std::int64_t channels) {
  at::manual_seed(1);
  const at::Tensor noise = at::rand({count, channels, size, size});
  return at::avg_pool2d(noise, {5, 5}, {1, 1}, {2, 2}).mul(255).to(at::kByte).permute({0, 2, 3, 1}).contiguous();
}

Recipe recipe_of(Op op, std::vector<double> values) { return {{op, std::move(values), {}}}; }

// At most 1 apart, in few places.
void check_same(const at::Tensor& got, const at::Tensor& want, double share, const std::string& what) {
  check(got.sizes() == want.sizes(), std::string(what).append(": another shape"));
  const at::Tensor apart = (got.to(at::kInt) - want.to(at::kInt)).abs();
  check(apart.max().item<int>() <= 1, std::string(what).append(": more than 1 apart"));
  check(apart.to(at::kDouble).mean().item<double>() <= share, std::string(what).append(": apart in too many places"));
}

// Pixels in the order in which ATen turns and flips them.
const Register geometry("crop, flip and quarter turns equal slicing, flip and rot90", [] {
  for (const std::int64_t channels : {3, 4}) {
    const at::Tensor images = at::arange(2 * 8 * 9 * channels).reshape({2, 8, 9, channels}).to(at::kByte);
    for (int turns = 0; turns < 4; ++turns) {
      for (const bool flip : {false, true}) {
        Recipe recipe{{Op::RandomCrop, {1, 3, 6, 5, 0, 0}, {}}};
        if (flip) recipe.push_back({Op::HorizontalFlip, {}, {}});
        recipe.push_back({Op::RandomRotate90, {static_cast<double>(turns)}, {}});
        at::Tensor want = images.slice(1, 1, 7).slice(2, 3, 8);
        if (flip) want = want.flip({2});
        want = at::rot90(want, turns, {1, 2});
        const std::string what = std::string("turns ").append(std::to_string(turns)).append(flip ? " flipped" : "");
        check(at::equal(apply_on_host(images, {recipe, recipe}), want), what);
        check(at::equal(apply_by_tensors(images, {recipe, recipe}), want), std::string(what).append(" by tensors"));
      }
    }
  }
});

const Register both_ways("recipes give the same on the CPU's way and by tensors, batched or one by one", [] {
  for (const std::int64_t channels : {2, 4}) {
    const at::Tensor images = smooth_images(64, 96, channels);
    std::vector<Recipe> recipes;
    for (std::uint64_t seed = 0; seed < 64; ++seed) recipes.push_back(draw(seed, 96, 96, {64, 64}, channels, {Level::full, {0, 0}, 0.3}));
    const at::Tensor host = apply_on_host(images, recipes);
    check_same(apply_by_tensors(images, recipes), host, 1e-3, "by tensors");
    for (std::int64_t i = 0; i < 64; ++i) {
      const std::vector<Recipe> own{recipes[static_cast<std::size_t>(i)]};
      check(at::equal(apply_on_host(images.narrow(0, i, 1), own)[0], host[i]), "an image alone differs from the same in a batch");
    }
  }
});

const Register medians("a GPU's median of a window, its threads emulated, equals the median of sorted values", [] {
  const EmulatedGpu gpu;
  for (const std::int64_t side : {3, 5, 7}) {
    const at::Tensor images = smooth_images(2, 12, 3).slice(1, 0, 9), planes = images.permute({0, 3, 1, 2}).to(at::kFloat);
    const std::int64_t margin = side / 2;
    const at::Tensor padded = at::replication_pad2d(planes, {margin, margin, margin, margin});
    const at::Tensor want = std::get<0>(padded.unfold(2, side, 1).unfold(3, side, 1).flatten(4).median(-1)).permute({0, 2, 3, 1});
    check(at::equal(window_median(images, side), want.to(at::kByte)), "side " + std::to_string(side));
  }
});

const Register resized("a resized crop of the whole image at its own size is the image", [] {
  const at::Tensor images = smooth_images(1, 64, 4);
  const Recipe whole = recipe_of(Op::RandomResizedCrop, {0, 0, 64, 64, 64});
  check(at::equal(apply_on_host(images, {whole}), images), "on the CPU");
  const Recipe part = recipe_of(Op::RandomResizedCrop, {10.25, 3.5, 32.5, 32.5, 48});
  check_same(apply_by_tensors(images, {part}), apply_on_host(images, {part}), 1e-3, "a part");
});

const Register noise_numbers("normal noise has mean 0, variance 1 and normal tails, the same by tensors", [] {
  constexpr std::int64_t kCount = 1 << 20;
  const at::Tensor field = normal_fields({7, 8}, kCount, at::kCPU);
  const float* z = field.data_ptr<float>();
  const NoiseKey key(7);
  bool same = true;
  for (std::int64_t i = 0; i < kCount; ++i) {
    same &= z[i] == normal_noise(noise_bits(static_cast<std::uint32_t>(i), key), half_normals().data_ptr<float>());
  }
  check(same, "tensors draw other numbers");
  for (std::int64_t row = 0; row < 2; ++row) {
    const at::Tensor x = field[row].to(at::kDouble);
    const double n = kCount;
    check(std::abs(x.mean().item<double>()) < 5 / std::sqrt(n), "mean");
    check(std::abs(x.square().mean().item<double>() - 1) < 5 * std::sqrt(2 / n), "variance");
    check(std::abs(x.pow(4).mean().item<double>() - 3) < 5 * std::sqrt(96 / n), "fourth moment");
    const double beyond = 0.0026997960632602;
    check(std::abs(x.abs().gt(3).to(at::kDouble).mean().item<double>() - beyond) < 5 * std::sqrt(beyond / n), "share beyond 3");
    check(std::abs((x.slice(0, 1) * x.slice(0, 0, -1)).mean().item<double>()) < 5 / std::sqrt(n), "neighbours are correlated");
  }
  check(std::abs((field[0] * field[1]).mean().item<double>()) < 5e-3, "two seeds are correlated");
});

const Register smoothing("smoothing by cosines equals the sum over the mirrored border", [] {
  const std::int64_t length = 60;
  const double sigma = 50;
  at::manual_seed(2);
  const at::Tensor field = at::rand({length, length}).mul(2).sub(1);
  const Smoothing s(length, sigma, at::kCPU);
  const at::Tensor got = smoothed(field, s, s).to(at::kDouble);
  at::Tensor matrix = at::zeros({length, length}, at::kDouble);
  double total = 0;
  for (std::int64_t j = -200; j <= 200; ++j) total += std::exp(-static_cast<double>(j * j) / (2 * sigma * sigma));
  for (std::int64_t i = 0; i < length; ++i) {
    for (std::int64_t j = -200; j <= 200; ++j) {
      std::int64_t at = i + j;
      while (at < 0 || at >= length) at = at < 0 ? -1 - at : 2 * length - 1 - at;
      matrix[i][at] += std::exp(-static_cast<double>(j * j) / (2 * sigma * sigma)) / total;
    }
  }
  const at::Tensor want = at::matmul(at::matmul(matrix, field.to(at::kDouble)), matrix.t());
  check((got - want).abs().max().item<double>() < 1e-5, "far from the sum");
});

const Register normalisation("normalised values equal (x / 255 - mean) / std", [] {
  for (const std::int64_t channels : {1, 4}) {
    const at::Tensor images = at::arange(256).to(at::kByte).reshape({1, 64 / channels, 4, channels});
    const Normalisation normalise(at::full({channels}, 0.485f), at::full({channels}, 0.229f));
    const at::Tensor out = normalise(images).permute({0, 2, 3, 1});
    const at::Tensor want = (at::arange(256, at::kDouble) / 255 - 0.485) / 0.229;
    check((out.flatten().to(at::kDouble) - want).abs().max().item<double>() < 1e-6, "far from the formula");
    at::Tensor memory;
    const at::Tensor first = prepare(images, {Recipe{}}, normalise, memory);
    check(at::equal(first, normalise(images)), "prepare differs");
    prepare(images.flip({1}), {Recipe{}}, normalise, memory);
    check(at::equal(first, normalise(images)), "memory that is still held was written to");
  }
});

const Register mixing("mixing blends or pastes the partner and its targets by the same share", [] {
  const at::Tensor images = at::arange(4).to(at::kFloat).view({4, 1, 1, 1}).expand({4, 1, 8, 8}).contiguous();
  const at::Tensor targets = at::eye(4);
  const std::vector<Mix> mixes{Mix{0.75}, Mix{0.5, true, 0, 0, 4, 8}, Mix{}, Mix{0.25}};
  const auto [pixels, labels] = mixed(images, targets, mixes, 0);
  check_near(pixels[0].max().item<double>(), 0.25, 1e-6, "a blend of 0 and 1");
  check_near(labels[0][1].item<double>(), 0.25, 1e-6, "its target");
  check_near(pixels[1].mean().item<double>(), 0.5, 1e-6, "half of 1 replaced by 0");
  check_near(labels[1][0].item<double>(), 0.5, 1e-6, "its target");
  check(at::equal(pixels[2], images[2]) && at::equal(labels[2], targets[2]), "an image that is not mixed changed");
  // From an odd place on, the partners are others and the ends have none.
  const at::Tensor shifted = mixed(images, targets, mixes, 1).first;
  check(at::equal(shifted[0], images[0]) && at::equal(shifted[3], images[3]), "an image without a partner changed");
});

const Register shares("the shares of mixing have the mean and variance of their Beta distribution", [] {
  Options options;
  options.mixup = 1;
  options.mix_alpha = 0.4;
  double sum = 0, squares = 0;
  constexpr int kDraws = 20000;
  for (int i = 0; i < kDraws; ++i) {
    const double share = draw_mix(static_cast<std::uint64_t>(i), 64, 64, options).share;
    sum += share, squares += (share - 0.5) * (share - 0.5);
  }
  const double variance = 0.25 / (2 * 0.4 + 1);
  check(std::abs(sum / kDraws - 0.5) < 5 * std::sqrt(variance / kDraws), "mean");
  check(std::abs(squares / kDraws / variance - 1) < 0.05, "variance");
});

const Register small_crop("a crop without room for the holes is refused", [] {
  try {
    draw(1, 64, 64, {24, 24}, 4, {});
  } catch (const Error& e) {
    return check(e.code() == "ERR_INVALID_ARG", "another code");
  }
  check(false, "no error");
});

}  // namespace
}  // namespace cellcam::tests
