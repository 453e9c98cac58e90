#include "training/augment/sampler.h"

#include <algorithm>
#include <cmath>
#include <iterator>

#include "error.h"
#include "random.h"

namespace cellcam::training::augment {

namespace {

// Draws of one image, in the order of the stages.
class Draw {
 public:
  Draw(std::uint64_t seed, std::int64_t height, std::int64_t width) : random_(seed, "augmentation"), h_(height), w_(width) {}

  Recipe take() { return std::move(recipe_); }

  void crop(std::int64_t height, std::int64_t width) {
    const double v = random_.uniform(), u = random_.uniform();
    const double y = std::floor(static_cast<double>(h_ - height) * v), x = std::floor(static_cast<double>(w_ - width) * u);
    add(Op::RandomCrop, {y, x, static_cast<double>(height), static_cast<double>(width), v, u});
    h_ = height, w_ = width;
  }

  // A square whose area is a share of the image's shorter side squared.
  void resized_crop(std::array<double, 2> share, std::int64_t out) {
    const double side = std::sqrt(between(share[0], share[1])) * static_cast<double>(std::min(h_, w_));
    const double y = between(0, static_cast<double>(h_) - side), x = between(0, static_cast<double>(w_) - side);
    add(Op::RandomResizedCrop, {y, x, side, side, static_cast<double>(out)});
    h_ = w_ = out;
  }

  void noise() {
    if (!happens(0.5)) return;
    switch (random_.below(3)) {
      case 0: {
        const double variance = between(5, 30);
        return add(Op::GaussNoise, {variance, seed()});
      }
      case 1:
        return holes();
      default: {
        const double sigma = between(0.02 * 255, 0.05 * 255);
        return add(Op::IAAAdditiveGaussianNoise, {sigma, seed()});
      }
    }
  }

  void flip() {
    if (happens(0.5)) add(Op::HorizontalFlip, {});
  }

  void turn() { add(Op::RandomRotate90, {integer(0, 3)}); }

  void warp() {
    if (!happens(0.5)) return;
    constexpr double kOdds[] = {0.15, 0.75, 0.15, 0.10, 0.5};
    switch (pick(kOdds)) {
      case 0:
        return grid();
      case 1: {
        const double angle = between(-30, 30), scale = between(0.9, 1.1), dx = between(-0.05, 0.05);
        return add(Op::ShiftScaleRotate, {angle, scale, dx, between(-0.05, 0.05)});
      }
      case 2:
        return elastic();
      case 3:
        return add(Op::OpticalDistortion, {between(-0.05, 0.05)});
      default:
        return add(Op::IAAAffine, {between(-5, 5)});
    }
  }

  void blur() {
    if (!happens(0.5)) return;
    switch (random_.below(3)) {
      case 0:
        return add(Op::GaussianBlur, {random_.below(3) == 0 ? 3.0 : 5.0});  // 3, 4 or 5, and 4 becomes 5
      case 1:
        return motion();
      default:
        return add(Op::MedianBlur, {3.0 + 2.0 * integer(0, 2)});
    }
  }

  void tone() {
    if (!happens(0.25)) return;
    if (random_.below(2) == 0) return add(Op::RandomGamma, {integer(80, 120) / 100.0});
    const double alpha = 1 + between(-0.2, 0.2);
    add(Op::RandomBrightnessContrast, {alpha, between(-0.2, 0.2)});
  }

  void channels(double chance, std::int64_t channels) {
    if (chance > 0 && happens(chance)) add(Op::ChannelDropout, {integer(0, channels - 1)});
  }

 private:
  void add(Op op, std::vector<double> values) { recipe_.push_back({op, std::move(values), {}}); }
  bool happens(double chance) { return random_.uniform() < chance; }
  double between(double a, double b) { return a + (b - a) * random_.uniform(); }
  double integer(std::int64_t a, std::int64_t b) { return static_cast<double>(a + random_.below(b - a + 1)); }
  double seed() { return static_cast<double>(random_.next() >> 11); }  // 53 bits: a double holds them

  template <std::size_t N>
  std::size_t pick(const double (&odds)[N]) {
    double sum = 0;
    for (const double o : odds) sum += o;
    double u = random_.uniform() * sum;
    for (std::size_t i = 0; i < N - 1; ++i) {
      if (u < odds[i]) return i;
      u -= odds[i];
    }
    return N - 1;
  }

  void holes() {
    constexpr double kSide = 32;
    std::vector<double> values{0};
    for (int i = 0; i < 8; ++i) {
      const double y = integer(0, h_ - 32), x = integer(0, w_ - 32);
      values.insert(values.end(), {x, y, x + kSide, y + kSide});
    }
    add(Op::CoarseDropout, std::move(values));
  }

  void grid() {
    std::vector<double> values{5};
    for (int i = 0; i < 12; ++i) values.push_back(between(0.7, 1.3));
    add(Op::GridDistortion, std::move(values));
  }

  void elastic() {
    std::vector<double> values{1, 50, integer(0, 10000)};
    for (int i = 0; i < 6; ++i) values.push_back(static_cast<float>(between(-50, 50)));  // float32, as OpenCV takes points
    add(Op::ElasticTransform, std::move(values));
  }

  // A line between two different points: of one column, the rows differ.
  void motion() {
    const std::int64_t side = random_.below(2) == 0 ? 3 : 5;
    const std::int64_t x0 = random_.below(side), x1 = random_.below(side), y0 = random_.below(side);
    std::int64_t y1 = random_.below(x0 == x1 ? side - 1 : side);
    if (x0 == x1 && y1 >= y0) ++y1;
    std::vector<double> values;
    for (const std::int64_t v : {side, x0, y0, x1, y1}) values.push_back(static_cast<double>(v));
    add(Op::MotionBlur, std::move(values));
  }

  Random random_;
  std::int64_t h_, w_;
  Recipe recipe_;
};

}  // namespace

std::uint64_t image_seed(std::uint64_t seed, std::int64_t epoch, std::int64_t position) {
  const std::uint64_t of_epoch = Random(Random(seed, "augmentation").next() + static_cast<std::uint64_t>(epoch)).next();
  return Random(of_epoch + static_cast<std::uint64_t>(position)).next();
}

Recipe draw(std::uint64_t image_seed, std::int64_t height, std::int64_t width, std::array<std::int64_t, 2> crop,
            std::int64_t channels, const Options& options) {
  if (crop[0] > height || crop[1] > width || std::min(crop[0], crop[1]) < 32) {
    throw Error("ERR_INVALID_ARG", std::string("a crop must be 32 pixels or more and fit into the image of ")
                                       .append(std::to_string(height)).append(" x ").append(std::to_string(width)));
  }
  Draw d(image_seed, height, width);
  options.resized_crop[1] > 0 ? d.resized_crop(options.resized_crop, crop[0]) : d.crop(crop[0], crop[1]);
  if (options.level == Level::full) d.noise();
  if (options.level != Level::none) d.flip(), d.turn();
  if (options.level == Level::full) d.warp(), d.blur(), d.tone();
  d.channels(options.channel_dropout, channels);
  return d.take();
}

}  // namespace cellcam::training::augment
