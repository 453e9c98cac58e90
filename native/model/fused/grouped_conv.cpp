#include "model/fused/grouped_conv.h"

#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <ATen/autocast_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "model/fused/grouped_loops.h"
#include "model/fused/pixels.h"
#include "model/switches.h"

namespace cellcam::model::fused {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr std::int64_t kChunk = 32;  // channels that are brought together at a time: two cache lines of a pixel
constexpr std::int64_t kBlocks = kChunk / kLanes;
constexpr std::int64_t kPacked = std::int64_t{1} << 15;  // floats of a strip: a quarter of a usual second-level cache

struct Size {
  std::int64_t images, height, width, channels;
  explicit Size(const at::Tensor& x) : images(x.size(0)), height(x.size(2)), width(x.size(3)), channels(x.size(1)) {}
};

// Rows of one image, of one chunk of its channels.
struct Strip {
  std::int64_t image, channel, first, rows;
};

// Calls f(strip, memory) for all of them, in parallel. `memory` holds the rows of a strip with their border, and `besides` floats for each row.
template <typename F>
void for_strips(const Size& s, std::int64_t besides, const F& f) {
  const std::int64_t row = (s.width + 2) * kChunk, most = std::max<std::int64_t>(1, (kPacked - 2 * row) / (row + besides));
  const std::int64_t strips = (s.height + most - 1) / most, rows = (s.height + strips - 1) / strips, chunks = s.channels / kChunk;
  at::parallel_for(0, s.images * chunks * strips, 1, [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> memory(static_cast<std::size_t>((rows + 2) * row + rows * besides));
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t first = i % strips * rows;
      const Strip strip{i / strips / chunks, i / strips % chunks * kChunk, first, std::min(rows, s.height - first)};
      if (strip.rows > 0) f(strip, memory.data());
    }
  });
}

// A strip of an NHWC tensor, and `border` pixels around it, as (block, row, column, lane); zeros for what lies outside the image.
void pack(const at::Tensor& x, const Size& s, const Strip& strip, std::int64_t border, float* out) {
  const std::int64_t columns = s.width + 2 * border, rows = strip.rows + 2 * border, block = rows * columns * kLanes;
  const float* image = x.const_data_ptr<float>() + strip.image * s.height * s.width * s.channels + strip.channel;
  const auto clear = [&](float* first, std::int64_t pixels) {
    for (std::int64_t b = 0; b < kBlocks; ++b) std::fill_n(first + b * block, pixels * kLanes, 0.0f);
  };
  for (std::int64_t r = 0; r < rows; ++r, out += columns * kLanes) {
    const std::int64_t from = strip.first - border + r;
    if (from < 0 || from >= s.height) {
      clear(out, columns);
      continue;
    }
    clear(out, border);
    clear(out + (border + s.width) * kLanes, border);
    const float* pixel = image + from * s.width * s.channels;
    for (std::int64_t c = border; c < border + s.width; ++c, pixel += s.channels) {
      for (std::int64_t b = 0; b < kBlocks; ++b) std::memcpy(out + b * block + c * kLanes, pixel + b * kLanes, sizeof(float) * kLanes);
    }
  }
}

std::int64_t block_weights(std::int64_t group) { return 9 * group * kLanes; }

// Calls f(index in (C, group, 3, 3), index in the loops' order of blocks) for all weights.
template <typename F>
void for_weights(std::int64_t channels, std::int64_t group, const F& f) {
  for (std::int64_t out = 0; out < channels; ++out) {
    for (std::int64_t in = 0; in < group; ++in) {
      for (std::int64_t place = 0; place < 9; ++place) {
        f((out * group + in) * 9 + place, out / kLanes * block_weights(group) + (place * group + in) * kLanes + out % kLanes);
      }
    }
  }
}

at::Tensor convolve(const at::Tensor& x, const at::Tensor& weight, const float* bias, Slope slope) {
  const Size s(x);
  const std::int64_t group = weight.size(1);
  const at::Tensor w = weight.contiguous(), ordered = at::empty({s.channels * group * 9}, w.options());
  const float* values = w.const_data_ptr<float>();
  float* weights = ordered.data_ptr<float>();
  for_weights(s.channels, group, [&](std::int64_t from, std::int64_t to) { weights[to] = values[from]; });

  const at::Tensor y = at::empty(x.sizes(), x.options().memory_format(kNhwc));
  for_strips(s, 0, [&](const Strip& strip, float* memory) {
    pack(x, s, strip, 1, memory);
    const std::int64_t row = (s.width + 2) * kLanes;
    for (std::int64_t b = 0; b < kBlocks; ++b) {
      const std::int64_t channel = strip.channel + b * kLanes;
      grouped_loops(group)->convolve(memory + b * (strip.rows + 2) * row, row, weights + channel / kLanes * block_weights(group),
                                bias == nullptr ? nullptr : bias + channel, slope, strip.rows, s.width,
                                y.data_ptr<float>() + (strip.image * s.height + strip.first) * s.width * s.channels + channel,
                                s.width * s.channels, s.channels);
    }
  });
  return y;
}

// The convolution that leads from the output's gradient to the input's has these weights.
at::Tensor transposed(const at::Tensor& weight) {
  return weight.contiguous().view({-1, weight.size(1), weight.size(1), 3, 3}).transpose(1, 2).flip({3, 4}).reshape(weight.sizes());
}

at::Tensor weight_gradient(const at::Tensor& x, const at::Tensor& dy, const at::Tensor& weight) {
  const Size s(x);
  const std::int64_t row = (s.width + 2) * kLanes, group = weight.size(1);
  std::vector<std::vector<float>> partial(static_cast<std::size_t>(at::get_num_threads()));
  for_strips(s, s.width * kChunk, [&](const Strip& strip, float* memory) {
    std::vector<float>& mine = partial[static_cast<std::size_t>(at::get_thread_num())];
    mine.resize(static_cast<std::size_t>(weight.numel()));
    float* gradients = memory + (strip.rows + 2) * row * kBlocks;
    pack(x, s, strip, 1, memory);
    pack(dy, s, strip, 0, gradients);
    for (std::int64_t b = 0; b < kBlocks; ++b) {
      grouped_loops(group)->gradient(memory + b * (strip.rows + 2) * row, row, gradients + b * strip.rows * s.width * kLanes, strip.rows, s.width,
                                mine.data() + (strip.channel / kLanes + b) * block_weights(group));
    }
  });
  const at::Tensor dw = at::zeros(weight.sizes(), weight.options());
  float* sum = dw.data_ptr<float>();
  for (const std::vector<float>& mine : partial) {
    if (!mine.empty()) for_weights(s.channels, group, [&](std::int64_t to, std::int64_t from) { sum[to] += mine[static_cast<std::size_t>(from)]; });
  }
  return dw.contiguous(weight.suggest_memory_format());
}

struct GroupedConv : torch::autograd::Function<GroupedConv> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& weight) {
    ctx->save_for_backward({x, weight});
    return convolve(x, weight, nullptr, 1);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1], dy = gradients[0].contiguous(kNhwc);
    at::Tensor dx, dw;
    if (ctx->needs_input_grad(0)) dx = convolve(dy, transposed(weight), nullptr, 1);
    if (ctx->needs_input_grad(1)) dw = weight_gradient(x, dy, weight);
    return {dx, dw};
  }
};

}  // namespace

bool groups_fit(const at::Tensor& x, const at::Tensor& weight, std::int64_t stride) {
  static const bool on = switched_on("CELLCAM_GROUPED_CONV");
  const auto fits = [](const at::Tensor& t) { return t.device().is_cpu() && t.scalar_type() == at::kFloat; };
  return on && stride == 1 && weight.sizes().slice(2) == at::IntArrayRef({3, 3}) && x.size(1) == weight.size(0) && weight.size(0) % kChunk == 0 && fits(x) &&
         fits(weight) && x.is_contiguous(kNhwc) && !at::autocast::is_autocast_enabled(at::kCPU) && grouped_loops(weight.size(1)) != nullptr;
}

at::Tensor grouped_conv(const at::Tensor& x, const at::Tensor& weight) { return GroupedConv::apply(x, weight); }

at::Tensor grouped_conv_act(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, Slope slope) {
  return convolve(x, weight, bias.const_data_ptr<float>(), slope);
}

}  // namespace cellcam::model::fused
