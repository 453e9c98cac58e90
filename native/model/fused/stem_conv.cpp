#include "model/fused/stem_conv.h"

#include <ATen/Functions.h>
#include <ATen/autocast_mode.h>

#include <algorithm>
#include <vector>

#include "model/fused/conv_views.h"
#include "model/fused/panel_loops.h"
#include "model/fused/pixels.h"
#include "model/fused/prefetch.h"
#include "model/fused/stem_loops.h"
#include "model/fused/threads.h"
#include "model/switches.h"

namespace cellcam::model::fused {

namespace {

using torch::autograd::variable_list;

constexpr std::int64_t kParts = 16;                     // of all strips, for threads to share
constexpr std::int64_t kStrip = std::int64_t{1} << 16;  // floats of the output of a strip: half of a usual second-level cache

struct Kernel {
  std::int64_t out, in, size, stride;
  Kernel(const at::Tensor& weight, std::int64_t stride_) : out(weight.size(0)), in(weight.size(1)), size(weight.size(2)), stride(stride_) {}
  std::int64_t panels() const { return out / kPanel; }
  std::int64_t length() const { return size * in; }
  std::int64_t panel() const { return size * length() * kPanel; }  // floats of one
  std::int64_t outputs(std::int64_t inputs) const { return (inputs - 1) / stride + 1; }
  std::int64_t seen(std::int64_t outputs) const { return (outputs - 1) * stride + size; }
};

// Rows of output of one image of a view.
struct Strip {
  std::size_t view;
  std::int64_t image, first, rows;
};

std::vector<Strip> strips_of(const variable_list& y) {
  std::vector<Strip> strips;
  for (std::size_t v = 0; v < y.size(); ++v) {
    const std::int64_t height = y[v].size(2), longest = std::clamp<std::int64_t>(kStrip / (y[v].size(3) * y[v].size(1)), 1, height);
    for (std::int64_t image = 0; image < y[v].size(0); ++image) {
      for (std::int64_t row = 0; row < height; row += longest) strips.push_back({v, image, row, std::min(longest, height - row)});
    }
  }
  return strips;
}

// The pixels that a strip sees, with zeros for what lies outside the image.
class Seen {
 public:
  Seen(const at::Tensor& x, const Strip& strip, std::int64_t outputs, const Kernel& k)
      : kernel_(k), columns_(k.seen(outputs)), pixels_(static_cast<std::size_t>(k.seen(strip.rows) * columns_ * k.in)) {
    const std::int64_t height = x.size(2), width = x.size(3), padding = k.size / 2, count = std::min(width, columns_ - padding);
    for (std::int64_t r = 0; r < k.seen(strip.rows); ++r) {
      const std::int64_t row = strip.first * k.stride - padding + r;
      if (row < 0 || row >= height) continue;
      std::copy_n(floats(x) + (strip.image * height + row) * width * k.in, count * k.in, pixels_.data() + (r * columns_ + padding) * k.in);
    }
  }
  // Those that the pixels of an output row see.
  Windows of_row(std::int64_t row) const {
    return {pixels_.data() + row * kernel_.stride * columns_ * kernel_.in, kernel_.stride * kernel_.in, columns_ * kernel_.in, kernel_.size,
            kernel_.length()};
  }

 private:
  const Kernel& kernel_;
  std::int64_t columns_;
  std::vector<float> pixels_;
};

std::int64_t at_row(const at::Tensor& y, const Strip& strip, std::int64_t row) {
  return (strip.image * y.size(2) + strip.first + row) * y.size(3) * y.size(1);
}

// y = act(conv(x) + bias); `bias` may be null.
variable_list convolve(const variable_list& x, const at::Tensor& weight, std::int64_t stride, const float* bias, Slope slope) {
  const Kernel k(weight, stride);
  const at::Tensor panels = weight.permute({2, 3, 1, 0}).reshape({k.size * k.length(), k.panels(), kPanel}).transpose(0, 1).contiguous();
  variable_list y;
  for (const at::Tensor& view : x) y.push_back(at::empty({view.size(0), k.out, k.outputs(view.size(2)), k.outputs(view.size(3))}, view.options(), kNhwc));
  const std::vector<Strip> strips = strips_of(y);
  Numbers numbers(static_cast<std::int64_t>(strips.size()));
  on_all_threads([&] {
    numbers.each([&](std::int64_t i) {
      const Strip& strip = strips[static_cast<std::size_t>(i)];
      const at::Tensor& out = y[strip.view];
      const Seen seen(x[strip.view], strip, out.size(3), k);
      for (std::int64_t p = 0; p < k.panels(); ++p) {
        for (std::int64_t row = 0; row < strip.rows; ++row) {
          stem_loops()->convolve(seen.of_row(row), floats(panels) + p * k.panel(), bias == nullptr ? nullptr : bias + p * kPanel, slope, out.size(3),
                                 out.data_ptr<float>() + at_row(out, strip, row) + p * kPanel, k.out);
        }
      }
    });
  });
  return y;
}

// Pixels in panels, (panels, pixels, kPanel).
void gather(const float* pixels, std::int64_t count, std::int64_t channels, float* panels) {
  constexpr std::int64_t kAhead = 8;  // pixels that are asked for before they are read
  for (std::int64_t i = 0; i < count; ++i, pixels += channels) {
    for (std::int64_t c = 0; c < channels; c += kPanel) {
      ask_for<1>(pixels + kAhead * channels + c);
      std::copy_n(pixels + c, kPanel, panels + (c / kPanel * count + i) * kPanel);
    }
  }
}

at::Tensor weight_gradient(const variable_list& x, const variable_list& dy, const at::Tensor& weight, std::int64_t stride) {
  const Kernel k(weight, stride);
  const std::vector<Strip> strips = strips_of(dy);
  // (panels, rows and columns of the kernel, kPanel) for each part of the strips: as many for any number of threads, of which sums are not to depend.
  const auto count = static_cast<std::int64_t>(strips.size()), parts = std::min(count, kParts);
  const at::Tensor sums = at::zeros({parts, k.panels(), k.panel()}, x[0].options());
  Numbers numbers(parts);
  on_all_threads([&] {
    std::vector<float> gradients;
    numbers.each([&](std::int64_t part) {
      for (std::int64_t i = count * part / parts; i < count * (part + 1) / parts; ++i) {
        const Strip& strip = strips[static_cast<std::size_t>(i)];
        const std::int64_t width = dy[strip.view].size(3);
        const Seen seen(x[strip.view], strip, width, k);
        gradients.resize(static_cast<std::size_t>(width * k.out));
        for (std::int64_t row = 0; row < strip.rows; ++row) {
          gather(floats(dy[strip.view]) + at_row(dy[strip.view], strip, row), width, k.out, gradients.data());
          for (std::int64_t p = 0; p < k.panels(); ++p) {
            stem_loops()->gradient(seen.of_row(row), gradients.data() + p * width * kPanel, width,
                                   sums.data_ptr<float>() + part * sums.stride(0) + p * sums.stride(1));
          }
        }
      }
    });
  });
  const at::Tensor all = sums.sum(0).view({k.panels(), k.size, k.size, k.in, kPanel}).permute({0, 4, 3, 1, 2});
  return all.reshape(weight.sizes()).contiguous(weight.suggest_memory_format());
}

struct StemConv {
  static variable_list forward(const variable_list& x, const at::Tensor& weight, std::int64_t stride, const Activations&) {
    return convolve(x, weight, stride, nullptr, 1);
  }

  static ConvGradients backward(const variable_list& x, const at::Tensor& weight, std::int64_t stride, const Activations&, const variable_list& dy,
                                const Wanted& wanted) {
    const std::int64_t padding = weight.size(2) / 2;
    ConvGradients out;
    if (wanted.weight) out.weight = weight_gradient(x, dy, weight, stride);
    for (std::size_t v = 0; wanted.x && v < x.size(); ++v) {  // images want none when a network is trained
      out.x.push_back(std::get<0>(at::convolution_backward(dy[v], x[v], weight, at::nullopt, {stride, stride}, {padding, padding}, {1, 1}, false, {0, 0}, 1,
                                                           {true, false, false})));
    }
    return out;
  }
};

}  // namespace

bool stem_fits(const Views& x, const at::Tensor& weight, std::int64_t groups) {
  static const bool on = switched_on("CELLCAM_STEM_CONV");
  const auto fits = [](const at::Tensor& t) { return t.device().is_cpu() && t.scalar_type() == at::kFloat && t.numel() > 0 && t.is_contiguous(kNhwc); };
  return on && groups == 1 && weight.size(1) <= kMostChannels && weight.size(0) % kPanel == 0 && weight.size(2) % 2 == 1 &&
         weight.size(2) == weight.size(3) && fits(x.whole) && (!x.tiles.defined() || fits(x.tiles)) && weight.scalar_type() == at::kFloat &&
         !at::autocast::is_autocast_enabled(at::kCPU) && stem_loops() != nullptr;
}

Views stem_conv(const Views& x, const at::Tensor& weight, std::int64_t stride) {
  return apply_conv<StemConv>(weight, stride, x);
}

at::Tensor stem_conv_act(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, std::int64_t stride, Slope slope) {
  return convolve({x}, weight, stride, floats(bias), slope)[0];
}

}  // namespace cellcam::model::fused
