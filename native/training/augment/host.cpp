// The recipes of a batch on the CPU: one image at a time on each core, in two buffers that stay in the cache.
#include <ATen/Functions.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <utility>

#include "model/fused/threads.h"
#include "training/augment/augment.h"
#include "training/augment/host_image.h"
#include "training/augment/noise.h"
#include "training/augment/warp.h"

namespace cellcam::training::augment {

namespace {

void holes(const Operation& o, Image& image) {
  for (std::size_t i = 1; i + 3 < o.values.size(); i += 4) {
    const std::int64_t x1 = std::clamp<std::int64_t>(o.whole(i), 0, image.width), x2 = std::clamp<std::int64_t>(o.whole(i + 2), x1, image.width);
    const std::int64_t y1 = std::clamp<std::int64_t>(o.whole(i + 1), 0, image.height), y2 = std::clamp<std::int64_t>(o.whole(i + 3), y1, image.height);
    for (std::int64_t y = y1; y < y2; ++y) {
      std::memset(image.row(y) + x1 * image.channels, static_cast<int>(o.value(0)), static_cast<std::size_t>((x2 - x1) * image.channels));
    }
  }
}

// ---- flip and quarter turns

// out[y, x] = in[row + y * row_y + x * row_x, col + y * col_y + x * col_x]
void rearrange(bool flip, std::int64_t turns, const Image& in, Image& out) {
  const bool odd = turns % 2 == 1;
  out.reshape(odd ? in.width : in.height, odd ? in.height : in.width, in.channels);
  std::int64_t row = 0, row_y = 1, row_x = 0, col = 0, col_y = 0, col_x = 1;
  // From the last turn to the first: out[y, x] = in[x, last - y], where `last` is the last row of what comes out of that turn.
  for (std::int64_t k = turns; k > 0; --k) {
    const std::int64_t last = (k % 2 == 1 ? in.width : in.height) - 1;
    const std::int64_t r = row, ry = row_y, rx = row_x;
    row = col, row_y = col_y, row_x = col_x;
    col = last - r, col_y = -ry, col_x = -rx;
  }
  if (flip) col = in.width - 1 - col, col_y = -col_y, col_x = -col_x;
  const std::int64_t c = in.channels, step = (row_x * in.width + col_x) * c;
  for (std::int64_t y = 0; y < out.height; ++y) {
    const std::uint8_t* from = in.pixels.data() + ((row + y * row_y) * in.width + col + y * col_y) * c;
    std::uint8_t* to = out.row(y);
    if (c == 4) {
      for (std::int64_t x = 0; x < out.width; ++x, from += step, to += 4) std::memcpy(to, from, 4);
    } else {
      for (std::int64_t x = 0; x < out.width; ++x, from += step, to += c) std::memcpy(to, from, static_cast<std::size_t>(c));
    }
  }
}

// ---- sampling

// Mirrors coordinates into [0, n - 1] and splits them into the left neighbour and the weight of the right one.
CELLCAM_WIDEN void split(const float* source, std::int64_t count, std::int64_t n, std::int32_t* left, float* weight) {
  if (n == 1) {
    std::fill_n(left, count, 0), std::fill_n(weight, count, 0.0f);
    return;
  }
  const float last = static_cast<float>(n - 1), period = 2 * last, share = 1 / period, most = static_cast<float>(n - 2);
  for (std::int64_t i = 0; i < count; ++i) {
    const float turns = source[i] * share;
    const float whole = static_cast<float>(static_cast<std::int32_t>(turns)) - (turns < 0 ? 1.0f : 0.0f);
    const float x = source[i] - whole * period;
    const float inside = std::min(std::max(x > last ? period - x : x, 0.0f), last);
    const float first = std::min(static_cast<float>(static_cast<std::int32_t>(inside)), most);
    left[i] = static_cast<std::int32_t>(first);
    weight[i] = inside - first;
  }
}

struct Row {
  std::vector<float> x, y, right, below;
  std::vector<std::int32_t> left, top;
  explicit Row(std::int64_t width)
      : x(static_cast<std::size_t>(width)), y(x), right(x), below(x), left(x.size()), top(x.size()) {}
};

// What lies at a row's sources, any number of channels.
void blend_row(const Image& in, const Row& row, std::int64_t count, std::uint8_t* to) {
  const std::int64_t c = in.channels, next = in.width > 1 ? c : 0, under = in.height > 1 ? in.width * c : 0;
  for (std::int64_t i = 0; i < count; ++i, to += c) {
    const auto at = static_cast<std::size_t>(i);
    const std::uint8_t* p = in.pixels.data() + (row.top[at] * in.width + row.left[at]) * c;
    for (std::int64_t k = 0; k < c; ++k) {
      const float a = p[k], b = p[next + k], d = p[under + k], e = p[under + next + k];
      const float upper = a + row.right[at] * (b - a), lower = d + row.right[at] * (e - d);
      to[k] = static_cast<std::uint8_t>((upper + row.below[at] * (lower - upper) + kRound) - kRound);
    }
  }
}

#if defined(__GNUC__)
// The same for four channels, the usual number: a pixel is one vector.
using Bytes16 = std::uint8_t __attribute__((vector_size(16)));
using Floats4 = float __attribute__((vector_size(16)));
using Integers4 = std::int32_t __attribute__((vector_size(16)));

inline Floats4 load4(const std::uint8_t* p) {
  std::int32_t word;
  std::memcpy(&word, p, 4);
  const auto bytes = reinterpret_cast<Bytes16>(Integers4{word, 0, 0, 0});
  const Bytes16 none{};
  const Bytes16 wide = __builtin_shufflevector(bytes, none, 0, 16, 16, 16, 1, 16, 16, 16, 2, 16, 16, 16, 3, 16, 16, 16);
  return __builtin_convertvector(reinterpret_cast<Integers4>(wide), Floats4);
}

// After kRound was added, the lowest byte of each float is the number, 0 to 255.
inline void store4(Floats4 shifted, std::uint8_t* to) {
  const auto bytes = reinterpret_cast<Bytes16>(shifted);
  const Bytes16 low = __builtin_shufflevector(bytes, bytes, 0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12);
  const std::int32_t word = reinterpret_cast<Integers4>(low)[0];
  std::memcpy(to, &word, 4);
}

CELLCAM_WIDEN void blend_row4(const std::uint8_t* in, std::int64_t width, std::int64_t under, const Row& row, std::int64_t count, std::uint8_t* to) {
  const std::int32_t *left = row.left.data(), *top = row.top.data();
  const float *right = row.right.data(), *below = row.below.data();
  for (std::int64_t i = 0; i < count; ++i, to += 4) {
    const std::uint8_t* p = in + (top[i] * width + left[i]) * 4;
    const Floats4 a = load4(p), b = load4(p + 4), d = load4(p + under), e = load4(p + under + 4);
    const Floats4 upper = a + right[i] * (b - a), lower = d + right[i] * (e - d);
    store4(upper + below[i] * (lower - upper) + kRound, to);
  }
}
#endif

// Samples rows of `out` (its size is set) from where `source` says: source(y, xs, ys) fills the coordinates of row y.
template <typename Source>
void sample(const Image& in, const Source& source, Image& out) {
  Row row(out.width);
  for (std::int64_t y = 0; y < out.height; ++y) {
    source(y, row.x.data(), row.y.data());
    split(row.x.data(), out.width, in.width, row.left.data(), row.right.data());
    split(row.y.data(), out.width, in.height, row.top.data(), row.below.data());
#if defined(__GNUC__)
    if (in.channels == 4 && in.width > 1 && in.height > 1) {
      blend_row4(in.pixels.data(), in.width, in.width * 4, row, out.width, out.row(y));
      continue;
    }
#endif
    blend_row(in, row, out.width, out.row(y));
  }
}

void sample(const Image& in, const Sampling& s, Image& out) {
  const std::int64_t width = out.width;
  switch (s.kind) {
    case Sampling::Kind::affine:
      return sample(in, [&](std::int64_t y, float* xs, float* ys) {
        const double row_x = s.affine[1] * static_cast<double>(y) + s.affine[2], row_y = s.affine[4] * static_cast<double>(y) + s.affine[5];
        for (std::int64_t x = 0; x < width; ++x) {
          xs[x] = static_cast<float>(row_x + s.affine[0] * static_cast<double>(x));
          ys[x] = static_cast<float>(row_y + s.affine[3] * static_cast<double>(x));
        }
      }, out);
    case Sampling::Kind::axes:
      return sample(in, [&](std::int64_t y, float* xs, float* ys) {
        std::copy(s.map_x.begin(), s.map_x.end(), xs);
        std::fill_n(ys, width, s.map_y[static_cast<std::size_t>(y)]);
      }, out);
    case Sampling::Kind::radial:
      return sample(in, [&](std::int64_t y, float* xs, float* ys) {
        for (std::int64_t x = 0; x < width; ++x) {
          const auto at = radial_source(static_cast<double>(x), static_cast<double>(y), s.k, static_cast<double>(in.height), static_cast<double>(in.width));
          xs[x] = static_cast<float>(at[0]), ys[x] = static_cast<float>(at[1]);
        }
      }, out);
  }
}

// field: (2, height, width), dx before dy.
void displace(const Image& in, const float* field, Image& out) {
  const std::int64_t width = out.width, plane = out.height * out.width;
  sample(in, [&](std::int64_t y, float* xs, float* ys) {
    for (std::int64_t x = 0; x < width; ++x) {
      xs[x] = static_cast<float>(x) + field[y * width + x];
      ys[x] = static_cast<float>(y) + field[plane + y * width + x];
    }
  }, out);
}

// ---- tone

void apply_table(const Operation& o, Image& image) {
  const std::array<std::uint8_t, 256> table = tone_table(o);
  for (std::uint8_t& v : image.pixels) v = table[v];
}

void drop_channels(const Operation& o, Image& image) {
  for (std::size_t i = 0; i < o.values.size(); ++i) {
    for (std::size_t at = static_cast<std::size_t>(o.whole(i)); at < image.pixels.size(); at += static_cast<std::size_t>(image.channels)) image.pixels[at] = 0;
  }
}

// ---- one image

class Bench {
 public:
  // `field`: the displacements of an ElasticTransform, else nullptr.
  const Image& run(const std::uint8_t* pixels, std::array<std::int64_t, 3> shape, const Recipe& recipe, const float* field) {
    begin(pixels, shape, recipe);
    const Operation *flip = find_stage(recipe, Stage::flip), *turn = find_stage(recipe, Stage::turn);
    if (const Operation* o = find_stage(recipe, Stage::noise)) noise(*o);
    if (flip || (turn && turn->whole(0) != 0)) {
      rearrange(flip != nullptr, turn ? turn->whole(0) : 0, now_, other_);
      std::swap(now_, other_);
    }
    if (const Operation* o = find_stage(recipe, Stage::warp)) warp(*o, field);
    if (const Operation* o = find_stage(recipe, Stage::blur)) blur(*o);
    if (const Operation* o = find_stage(recipe, Stage::tone)) apply_table(*o, now_);
    if (const Operation* o = find_stage(recipe, Stage::channels)) drop_channels(*o, now_);
    return now_;
  }

 private:
  void begin(const std::uint8_t* pixels, std::array<std::int64_t, 3> shape, const Recipe& recipe) {
    const auto [h, w, c] = shape;
    const Operation* crop = find_stage(recipe, Stage::crop);
    if (crop && crop->op == Op::RandomResizedCrop) {
      other_.reshape(h, w, c);
      std::memcpy(other_.pixels.data(), pixels, other_.pixels.size());
      now_.reshape(crop->whole(4), crop->whole(4), c);
      return sample(other_, *sampling_of(*crop, h, w), now_);
    }
    const std::int64_t y1 = crop ? crop->whole(0) : 0, x1 = crop ? crop->whole(1) : 0;
    now_.reshape(crop ? crop->whole(2) : h, crop ? crop->whole(3) : w, c);
    for (std::int64_t y = 0; y < now_.height; ++y) {
      std::memcpy(now_.row(y), pixels + ((y1 + y) * w + x1) * c, static_cast<std::size_t>(now_.width * c));
    }
  }

  void noise(const Operation& o) {
    if (o.op == Op::GaussNoise) return gauss_noise(o, now_);
    if (o.op == Op::CoarseDropout) return holes(o, now_);
    shared_noise(o, now_);
  }

  void warp(const Operation& o, const float* field) {
    if (const auto sampling = sampling_of(o, now_.height, now_.width)) {
      other_.reshape(now_.height, now_.width, now_.channels);
      sample(now_, *sampling, other_);
      std::swap(now_, other_);
    }
    if (o.op != Op::ElasticTransform) return;
    other_.reshape(now_.height, now_.width, now_.channels);
    displace(now_, field, other_);
    std::swap(now_, other_);
  }

  void blur(const Operation& o) {
    blur_on_host(o, now_, padded_, other_);
    std::swap(now_, other_);
  }

  Image now_, other_, padded_;
};

// The displacements of the images that need them: (n, 2, h, w) and each image's place in there.
struct Fields {
  at::Tensor values;
  std::vector<std::int64_t> place;

  Fields(const std::vector<Recipe>& recipes, std::int64_t height, std::int64_t width) : place(recipes.size(), -1) {
    std::vector<const Operation*> elastic;
    std::array<std::int64_t, 2> size{height, width};
    for (std::size_t i = 0; i < recipes.size(); ++i) {
      const Operation* o = find_stage(recipes[i], Stage::warp);
      if (o == nullptr || o->op != Op::ElasticTransform) continue;
      place[i] = static_cast<std::int64_t>(elastic.size());
      elastic.push_back(o);
      size = size_before(recipes[i], Stage::warp, height, width);
    }
    if (!elastic.empty()) values = displacements(elastic, size[0], size[1], at::kCPU).contiguous();
  }

  const float* of(std::size_t image) const {
    return place[image] < 0 ? nullptr : values.data_ptr<float>() + place[image] * values.stride(0);
  }
};

// A median costs more than all else together, and grows with its side.
std::vector<std::int64_t> costly_first(const std::vector<Recipe>& recipes) {
  std::vector<std::int64_t> order(recipes.size());
  std::iota(order.begin(), order.end(), 0);
  const auto side = [&](std::int64_t i) {
    const Operation* blur = find_stage(recipes[static_cast<std::size_t>(i)], Stage::blur);
    return blur && blur->op == Op::MedianBlur ? blur->value(0) : 0;
  };
  std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) { return side(a) > side(b); });
  return order;
}

// Runs the recipes and hands each result to finish(image, result).
template <typename Finish>
void for_each_image(const at::Tensor& images, const std::vector<Recipe>& recipes, const Finish& finish) {
  const std::int64_t h = images.size(1), w = images.size(2), c = images.size(3);
  const Fields fields(recipes, h, w);
  half_normals();  // made by one thread
  // Images differ in cost, so threads take them one by one instead of by equal shares, the costly ones first.
  const std::vector<std::int64_t> order = costly_first(recipes);
  model::fused::Numbers turns(images.size(0));
  model::fused::on_all_threads([&] {
    Bench bench;
    turns.each([&](std::int64_t turn) {
      const std::int64_t i = order[static_cast<std::size_t>(turn)];
      const auto image = static_cast<std::size_t>(i);
      finish(i, bench.run(images.const_data_ptr<std::uint8_t>() + i * images.stride(0), {h, w, c}, recipes[image], fields.of(image)));
    });
  });
}

std::array<std::int64_t, 4> size_after(const at::Tensor& images, const std::vector<Recipe>& recipes) {
  const auto size = size_before(recipes.front(), Stage::count, images.size(1), images.size(2));
  return {images.size(0), size[0], size[1], images.size(3)};
}

}  // namespace

at::Tensor apply_on_host(const at::Tensor& given, const std::vector<Recipe>& recipes) {
  const at::Tensor images = given.contiguous(), out = at::empty(size_after(images, recipes), at::kByte);
  for_each_image(images, recipes, [&](std::int64_t i, const Image& result) {
    std::memcpy(out.data_ptr<std::uint8_t>() + i * out.stride(0), result.pixels.data(), result.pixels.size());
  });
  return out;
}

at::Tensor prepare_on_host(const at::Tensor& given, const std::vector<Recipe>& recipes, const Normalisation& normalise,
                           at::Tensor& memory) {
  const at::Tensor images = given.contiguous();
  const auto size = size_after(images, recipes);
  const bool free = memory.defined() && memory.storage().use_count() == 1 && memory.sizes() == at::IntArrayRef(size);
  if (!free) memory = at::empty(size, at::kFloat);
  const at::Tensor& out = memory;
  for_each_image(images, recipes, [&](std::int64_t i, const Image& result) {
    normalise.on_host(result.pixels.data(), result.height * result.width, out.data_ptr<float>() + i * out.stride(0));
  });
  return out.permute({0, 3, 1, 2});
}

}  // namespace cellcam::training::augment
