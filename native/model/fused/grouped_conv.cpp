#include "model/fused/grouped_conv.h"

#include <ATen/Functions.h>
#include <ATen/autocast_mode.h>

#include <algorithm>
#include <vector>

#include "model/fused/conv_views.h"
#include "model/fused/grouped_loops.h"
#include "model/fused/joint.h"
#include "model/fused/threads.h"
#include "model/switches.h"

namespace cellcam::model::fused {

namespace {

using torch::autograd::variable_list;

constexpr std::int64_t kPacked = std::int64_t{1} << 15;  // floats of a strip: a quarter of a usual second-level cache
constexpr std::int64_t kKernel = 3;
constexpr std::int64_t kParts = 16;  // of all pixels and chunks, at least, for threads to share
constexpr std::int64_t kMostUnstrided = 8;  // channels of a group of which every pixel is seen

struct Size {
  std::int64_t images, height, width, channels;
  explicit Size(const at::Tensor& x) : images(x.size(0)), height(x.size(2)), width(x.size(3)), channels(x.size(1)) {}
  std::int64_t at(std::int64_t image, std::int64_t row, std::int64_t column) const { return ((image * height + row) * width + column) * channels; }
};

struct Group {
  std::int64_t channels, stride;
  const GroupedLoops* loops;
  Group(const at::Tensor& weight, std::int64_t stride_) : channels(weight.size(1)), stride(stride_), loops(grouped_loops(channels, stride)) {}
  std::int64_t lanes() const { return loops->lanes; }
  std::int64_t blocks() const { return (channels + lanes() - 1) / lanes(); }
  // Where an output channel is in its block (grouped_loops.h).
  std::int64_t lane(std::int64_t channel) const {
    const std::int64_t groups = std::max<std::int64_t>(1, lanes() / channels), place = channel % lanes();
    return groups == 1 ? place : place % channels * groups + place / channels;
  }
  // The first of the blocks that lead to a block.
  std::int64_t first_block(std::int64_t block) const { return block / blocks() * blocks(); }
  std::int64_t outputs(std::int64_t inputs) const { return (inputs - 1) / stride + 1; }
  std::int64_t seen(std::int64_t outputs) const { return (outputs - 1) * stride + kKernel; }
};

// Rows of one image of a view, of one chunk of its channels.
struct Strip {
  std::size_t view;
  std::int64_t image, first, rows, channel;
};

// The rows of all images of some views, cut so short that `floats(rows, width)`, which are wanted for a strip, are not too many.
class Strips {
 public:
  template <typename Floats>
  Strips(const variable_list& views, const Floats& floats) : chunks_(views[0].size(1) / kChunk) {
    for (std::size_t v = 0; v < views.size(); ++v) {
      const Size s(views[v]);
      std::int64_t longest = s.height;
      while (longest > 1 && floats(longest, s.width) > kPacked) longest = (longest + 1) / 2;
      most_ = std::max(most_, floats(longest, s.width));
      for (std::int64_t image = 0; image < s.images; ++image) {
        for (std::int64_t row = 0; row < s.height; row += longest) list_.push_back({v, image, row, std::min(longest, s.height - row), 0});
      }
    }
  }
  std::int64_t chunks() const { return chunks_; }
  std::int64_t count() const { return static_cast<std::int64_t>(list_.size()); }

  // Calls f(strip, memory) for all of them and all chunks of channels.
  template <typename F>
  void each(const F& f) const {
    Numbers numbers(count() * chunks_);
    on_all_threads([&] {
      std::vector<float> memory(static_cast<std::size_t>(most_));
      numbers.each([&](std::int64_t i) { f(of_chunk(i / chunks_, i % chunks_), memory.data()); });
    });
  }

  // The same for parts that have a chunk for themselves: f(part, strip, memory), and begin(part, first channel) before.
  template <typename Begin, typename F>
  void each_in_parts(std::int64_t parts, const Begin& begin, const F& f) const {
    Numbers numbers(parts * chunks_);
    on_all_threads([&] {
      std::vector<float> memory(static_cast<std::size_t>(most_));
      numbers.each([&](std::int64_t n) {
        const std::int64_t part = n / chunks_, chunk = n % chunks_;
        begin(part, chunk * kChunk);
        for (std::int64_t i = count() * part / parts; i < count() * (part + 1) / parts; ++i) f(part, of_chunk(i, chunk), memory.data());
      });
    });
  }

 private:
  Strip of_chunk(std::int64_t i, std::int64_t chunk) const {
    Strip strip = list_[static_cast<std::size_t>(i)];
    strip.channel = chunk * kChunk;
    return strip;
  }

  std::vector<Strip> list_;
  std::int64_t chunks_, most_ = 0;
};

// Pixels from a row and a column of an image on.
struct Window {
  std::int64_t row, column, rows, columns, lanes;
  std::int64_t blocks() const { return kChunk / lanes; }
  std::int64_t block() const { return rows * columns * lanes; }
  std::int64_t floats() const { return blocks() * block(); }
};

const Activation* of_view(const Activations& all, std::size_t view) { return all.empty() ? nullptr : &all[view]; }

// A window of a strip's chunk of an NHWC tensor as (block, row, column, lane), activated if `before` is not null; zeros for what lies outside the image.
void pack(const at::Tensor& x, const Strip& strip, const Window& w, const GroupedLoops& loops, float* out, const Activation* before = nullptr) {
  const Activation of_chunk = before == nullptr ? Activation{} : Activation{before->scale + strip.channel, before->shift + strip.channel, before->slope};
  const Size s(x);
  const std::int64_t first = std::clamp<std::int64_t>(-w.column, 0, w.columns), next = std::clamp<std::int64_t>(s.width - w.column, first, w.columns);
  const auto clear = [&](float* pixels, std::int64_t count) {
    for (std::int64_t b = 0; b < w.blocks(); ++b) std::fill_n(pixels + b * w.block(), count * w.lanes, 0.0f);
  };
  for (std::int64_t r = 0; r < w.rows; ++r, out += w.columns * w.lanes) {
    if (w.row + r < 0 || w.row + r >= s.height) {
      clear(out, w.columns);
      continue;
    }
    clear(out, first);
    clear(out + next * w.lanes, w.columns - next);
    loops.gather(floats(x) + s.at(strip.image, w.row + r, w.column + first) + strip.channel, s.channels, next - first, out + first * w.lanes, w.block(),
                 before == nullptr ? nullptr : &of_chunk);
  }
}

// A kernel's place, and where what it is multiplied by lies from the first pixel on.
struct Tap {
  std::int64_t place, row, column;
};
using TapList = std::vector<Tap>;

Taps taps_of(const TapList& list, const Window& w, const Group& group) {
  Taps taps{w.columns * w.lanes, group.blocks(), w.block(), static_cast<std::int64_t>(list.size()), {}};
  for (std::size_t t = 0; t < list.size(); ++t) taps.offset[t] = list[t].row * taps.row + list[t].column * w.lanes;
  return taps;
}

// Of outputs that see 3 x 3 pixels, `turned` as the input's gradient does where the stride is 1.
TapList all_taps(bool turned = false) {
  TapList list;
  for (std::int64_t i = 0; i < kMostTaps; ++i) list.push_back({turned ? kMostTaps - 1 - i : i, i / kKernel, i % kKernel});
  return list;
}

// Calls f(index in the weight, index in the loops' order) for all weights of these taps. `backward`: for outputs' gradients that lead to inputs'.
template <typename F>
void for_weights(const at::Tensor& weight, const Group& order, const TapList& taps, bool backward, const F& f) {
  const std::int64_t lanes = order.lanes(), group = weight.size(1), block = std::min(group, lanes), count = static_cast<std::int64_t>(taps.size());
  std::int64_t places[kMostTaps];
  for (std::size_t t = 0; t < taps.size(); ++t) places[t] = taps[t].place / kKernel * weight.stride(2) + taps[t].place % kKernel * weight.stride(3);
  const std::int64_t of_out = weight.stride(0), of_in = weight.stride(1);
  for_stretches(weight.size(0) / lanes, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t to = begin * lanes; to < end * lanes; ++to) {
      const std::int64_t fixed = backward ? to / group * group * of_out + to % group * of_in : to * of_out, step = backward ? of_out : of_in;
      for (std::int64_t from = 0; from < group; ++from) {
        const std::int64_t first = (to / lanes * (group / block) + from / block) * count * block * lanes + from % block * lanes + order.lane(to);
        for (std::int64_t t = 0; t < count; ++t) f(fixed + from * step + places[t], first + t * block * lanes);
      }
    }
  });
}

std::vector<float> ordered(const at::Tensor& weight, const Group& group, const TapList& taps, bool backward) {
  std::vector<float> out(static_cast<std::size_t>(weight.size(0) * weight.size(1)) * taps.size());
  const float* values = floats(weight);
  for_weights(weight, group, taps, backward, [&](std::int64_t from, std::int64_t to) { out[static_cast<std::size_t>(to)] = values[from]; });
  return out;
}

// Where the weights of a block of outputs, from a channel on, begin among those of `taps` taps.
std::int64_t first_weight(const Group& group, std::int64_t taps, std::int64_t channel) { return channel * group.channels * taps; }

// The window that a strip of outputs sees.
Window seen_by(const Strip& strip, std::int64_t width, const Group& group) {
  return {strip.first * group.stride - 1, -1, group.seen(strip.rows), group.seen(width), group.lanes()};
}

// What a convolution computes besides sums.
struct How {
  Activations before{};         // of x, as it is read
  const float* bias = nullptr;  // then an activation follows
  Slope slope = 1;
  bool backward = false;        // for outputs' gradients that lead to inputs', where the stride is 1
};

// y = act(conv(before(x)) + bias), the views in one memory.
variable_list convolve(const variable_list& x, const at::Tensor& weight, std::int64_t stride, const How& how) {
  const Group group(weight, stride);
  const TapList list = all_taps(/*turned=*/how.backward);
  const std::vector<float> weights = ordered(weight, group, list, how.backward);
  const variable_list y = to_list(joint_outputs(to_views(x), x[0].size(1), stride));
  const auto room = [&](std::int64_t rows, std::int64_t width) { return kChunk * group.seen(rows) * group.seen(width); };
  Strips(y, room).each([&](const Strip& strip, float* memory) {
    const at::Tensor& out = y[strip.view];
    const Size s(out);
    const Window window = seen_by(strip, s.width, group);
    const Taps taps = taps_of(list, window, group);
    pack(x[strip.view], strip, window, *group.loops, memory, of_view(how.before, strip.view));
    for (std::int64_t b = 0; b < window.blocks(); ++b) {
      const std::int64_t channel = strip.channel + b * window.lanes;
      group.loops->convolve(memory + group.first_block(b) * window.block(), taps, weights.data() + first_weight(group, taps.count, channel),
                            how.bias == nullptr ? nullptr : how.bias + channel, how.slope, strip.rows, s.width,
                            out.data_ptr<float>() + s.at(strip.image, strip.first, 0) + channel, s.width * s.channels, s.channels);
    }
  });
  return y;
}

// Input pixels of one of the two parities in a direction see the outputs' gradients by these taps of a line of the kernel: (place, pixel).
std::vector<std::pair<std::int64_t, std::int64_t>> line_of(std::int64_t parity) {
  if (parity == 0) return {{1, 0}};
  return {{0, 1}, {2, 0}};
}

// The gradients of inputs of which outputs see every other pixel: four convolutions, one for each parity of rows and columns.
variable_list spread_gradient(const variable_list& x, const variable_list& dy, const at::Tensor& weight) {
  const Group group(weight, 1);
  struct Phase {
    std::int64_t row, column;
    TapList taps;
    std::vector<float> weights;
  };
  std::vector<Phase> phases;
  for (const std::int64_t row : {0, 1}) {
    for (const std::int64_t column : {0, 1}) {
      TapList taps;
      for (const auto& [r, from_row] : line_of(row)) {
        for (const auto& [c, from_column] : line_of(column)) taps.push_back({r * kKernel + c, from_row, from_column});
      }
      phases.push_back({row, column, taps, ordered(weight, group, taps, /*backward=*/true)});
    }
  }
  const variable_list dx = to_list(joint_like(to_views(x)));
  const auto room = [&](std::int64_t rows, std::int64_t width) { return kChunk * (rows + 1) * (width + 1); };
  Strips(dy, room).each([&](const Strip& strip, float* memory) {
    const Size s(x[strip.view]);
    const Window window{strip.first, 0, strip.rows + 1, dy[strip.view].size(3) + 1, group.lanes()};
    pack(dy[strip.view], strip, window, *group.loops, memory);
    for (const Phase& p : phases) {
      const Taps taps = taps_of(p.taps, window, group);
      const std::int64_t row = 2 * strip.first + p.row, rows = std::min(strip.rows, (s.height - row + 1) / 2), width = (s.width - p.column + 1) / 2;
      if (rows <= 0 || width <= 0) continue;
      for (std::int64_t b = 0; b < window.blocks(); ++b) {
        const std::int64_t channel = strip.channel + b * window.lanes;
        group.loops->convolve(memory + group.first_block(b) * window.block(), taps, p.weights.data() + first_weight(group, taps.count, channel), nullptr, 1,
                              rows, width, dx[strip.view].data_ptr<float>() + s.at(strip.image, row, p.column) + channel, 2 * s.width * s.channels,
                              2 * s.channels);
      }
    }
  });
  return dx;
}

at::Tensor weight_gradient(const variable_list& x, const Activations& before, const variable_list& dy, const at::Tensor& weight, std::int64_t stride) {
  const Group group(weight, stride);
  const TapList list = all_taps();
  const Strips strips(dy, [&](std::int64_t rows, std::int64_t width) { return kChunk * (group.seen(rows) * group.seen(width) + rows * width); });
  // So many for any number of threads, of which sums are not to depend.
  const std::int64_t parts = std::clamp<std::int64_t>(kParts / strips.chunks(), 1, strips.count());
  const at::Tensor partial = at::empty({parts, weight.numel()}, weight.options().memory_format(c10::nullopt));
  const auto sums_of = [&](std::int64_t part, std::int64_t channel) {
    return partial.data_ptr<float>() + part * weight.numel() + first_weight(group, kMostTaps, channel);
  };
  const auto begin = [&](std::int64_t part, std::int64_t channel) {
    std::fill_n(sums_of(part, channel), first_weight(group, kMostTaps, kChunk), 0.0f);
  };
  strips.each_in_parts(parts, begin, [&](std::int64_t part, const Strip& strip, float* memory) {
    const std::int64_t width = dy[strip.view].size(3);
    const Window window = seen_by(strip, width, group), of_dy{strip.first, 0, strip.rows, width, group.lanes()};
    const Taps taps = taps_of(list, window, group);
    float* gradients = memory + window.floats();
    pack(x[strip.view], strip, window, *group.loops, memory, of_view(before, strip.view));
    pack(dy[strip.view], strip, of_dy, *group.loops, gradients);
    for (std::int64_t b = 0; b < window.blocks(); ++b) {
      group.loops->gradient(memory + group.first_block(b) * window.block(), taps, gradients + b * of_dy.block(), strip.rows, width,
                            sums_of(part, strip.channel + b * window.lanes));
    }
  });
  const at::Tensor dw = at::empty_like(weight);
  float* sums = dw.data_ptr<float>();
  const float* of_part = floats(partial);
  for_weights(dw, group, list, /*backward=*/false, [&](std::int64_t to, std::int64_t from) {
    float sum = 0;
    for (std::int64_t part = 0; part < parts; ++part) sum += of_part[part * weight.numel() + from];
    sums[to] = sum;
  });
  return dw;
}

struct GroupedConv {
  static variable_list forward(const variable_list& x, const at::Tensor& weight, std::int64_t stride, const Activations& activations) {
    return convolve(x, weight, stride, {.before = activations});
  }

  static ConvGradients backward(const variable_list& x, const at::Tensor& weight, std::int64_t stride, const Activations& activations,
                                const variable_list& dy, const Wanted& wanted) {
    ConvGradients out;
    if (wanted.weight) out.weight = weight_gradient(x, activations, dy, weight, stride);
    if (wanted.x) out.x = stride == 1 ? convolve(dy, weight, stride, {.backward = true}) : spread_gradient(x, dy, weight);
    return out;
  }
};

}  // namespace

bool groups_fit(const Views& x, const at::Tensor& weight, std::int64_t stride, std::int64_t groups) {
  static const bool on = switched_on("CELLCAM_GROUPED_CONV");
  const auto fits = [](const at::Tensor& t) { return t.device().is_cpu() && t.scalar_type() == at::kFloat && t.numel() > 0 && t.is_contiguous(kNhwc); };
  const std::int64_t group = weight.size(1);
  return on && weight.sizes().slice(2) == at::IntArrayRef({kKernel, kKernel}) && weight.size(0) == group * groups && weight.size(0) % kChunk == 0 &&
         kChunk % group == 0 && (group <= kMostUnstrided || stride == 2) && weight.device().is_cpu() && weight.scalar_type() == at::kFloat && fits(x.whole) &&
         (!x.tiles.defined() || fits(x.tiles)) && !at::autocast::is_autocast_enabled(at::kCPU) && grouped_loops(group, stride) != nullptr;
}

Views grouped_conv(const ConvInput& x, const at::Tensor& weight, std::int64_t stride) { return apply_conv<GroupedConv>(weight, stride, x); }

at::Tensor grouped_conv_act(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, std::int64_t stride, Slope slope) {
  return convolve({x}, weight, stride, {.bias = floats(bias), .slope = slope})[0];
}

}  // namespace cellcam::model::fused
