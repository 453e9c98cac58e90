#include "model/fused/stem_conv.h"

#include <ATen/Functions.h>
#include <ATen/autocast_mode.h>

#include <algorithm>
#include <vector>

#include "model/fused/conv_views.h"
#include "model/fused/panel_loops.h"
#include "model/fused/pixels.h"
#include "model/fused/threads.h"
#include "model/switches.h"

namespace cellcam::model::fused {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr std::int64_t kParts = 16;     // of all rows, for threads to share
constexpr std::int64_t kLongest = 96;  // output pixels of a row at a time: with what the kernel sees of them less than a usual cache

// A kernel's rows, each filled up to whole panels.
struct Kernel {
  std::int64_t out, in, size, row, panels;  // floats of a row, panels of one
  explicit Kernel(const at::Tensor& weight)
      : out(weight.size(0)), in(weight.size(1)), size(weight.size(2)), row(size * in), panels((row + kPanel - 1) / kPanel) {}
  std::int64_t all_panels() const { return size * panels; }
};

// Output pixels next to each other.
struct Run {
  std::size_t view;
  std::int64_t image, row, column, length;
};

std::vector<Run> runs_of(const variable_list& y) {
  std::vector<Run> runs;
  for (std::size_t v = 0; v < y.size(); ++v) {
    const std::int64_t width = y[v].size(3), pieces = (width + kLongest - 1) / kLongest;
    for (std::int64_t row = 0; row < y[v].size(0) * y[v].size(2); ++row) {
      for (std::int64_t p = 0; p < pieces; ++p) {
        const std::int64_t first = width * p / pieces;
        runs.push_back({v, row / y[v].size(2), row % y[v].size(2), first, width * (p + 1) / pieces - first});
      }
    }
  }
  return runs;
}

std::int64_t longest(const std::vector<Run>& runs) {
  std::int64_t most = 0;
  for (const Run& run : runs) most = std::max(most, run.length);
  return most;
}

// What a kernel sees of runs, one after the other.
class Windows {
 public:
  Windows(const variable_list& x, const Kernel& kernel, std::int64_t stride, std::int64_t longest)
      : x_(x),
        kernel_(kernel),
        stride_(stride),
        rows_(size(kernel.size * columns(longest) * kernel.in)),
        panels_(size(kernel.all_panels() * longest * kPanel)) {}

  // In panels, (panels of the kernel, pixels, kPanel).
  const float* of(const Run& run) {
    const std::int64_t row = columns(run.length) * kernel_.in;
    copy_rows(run, columns(run.length));
    for (std::int64_t r = 0; r < kernel_.size; ++r) {
      panel_loops()->gather(rows_.data() + r * row, stride_ * kernel_.in, run.length, kernel_.row,
                            panels_.data() + r * kernel_.panels * run.length * kPanel);
    }
    return panels_.data();
  }

 private:
  static std::size_t size(std::int64_t floats) { return static_cast<std::size_t>(floats); }
  std::int64_t columns(std::int64_t outputs) const { return (outputs - 1) * stride_ + kernel_.size; }

  // The rows of pixels that are seen, with zeros for what lies outside the image.
  void copy_rows(const Run& run, std::int64_t columns) {
    const at::Tensor& x = x_[run.view];
    const std::int64_t height = x.size(2), width = x.size(3), in = kernel_.in, padding = kernel_.size / 2;
    const std::int64_t left = run.column * stride_ - padding, first = std::max<std::int64_t>(0, left), next = std::min(width, left + columns);
    float* to = rows_.data();
    for (std::int64_t r = 0; r < kernel_.size; ++r, to += columns * in) {
      const std::int64_t row = run.row * stride_ - padding + r;
      if (row < 0 || row >= height || first >= next) {
        std::fill_n(to, columns * in, 0.0f);
        continue;
      }
      std::fill_n(to, (first - left) * in, 0.0f);
      std::copy_n(floats(x) + ((run.image * height + row) * width + first) * in, (next - first) * in, to + (first - left) * in);
      std::fill_n(to + (next - left) * in, (columns - (next - left)) * in, 0.0f);
    }
  }

  const variable_list& x_;
  const Kernel& kernel_;
  std::int64_t stride_;
  std::vector<float> rows_, panels_;
};

const float* at_run(const at::Tensor& y, const Run& run) {
  return floats(y) + ((run.image * y.size(2) + run.row) * y.size(3) + run.column) * y.size(1);
}

at::Tensor weight_gradient(const variable_list& x, const variable_list& dy, const at::Tensor& weight, std::int64_t stride) {
  const Kernel k(weight);
  const std::vector<Run> runs = runs_of(dy);
  const std::int64_t most = longest(runs);
  // (panels of the kernel, outputs, kPanel) for each part of the runs: as many for any number of threads, of which sums are not to depend.
  const auto count = static_cast<std::int64_t>(runs.size()), parts = std::min(count, kParts);
  const at::Tensor sums = at::zeros({parts, k.all_panels(), k.out, kPanel}, x[0].options());
  Numbers numbers(parts);
  on_all_threads([&] {
    Windows windows(x, k, stride, most);
    std::vector<float> gradients(static_cast<std::size_t>(k.out * most));
    numbers.each([&](std::int64_t part) {
      float* of_part = sums.data_ptr<float>() + part * sums.stride(0);
      for (std::int64_t i = count * part / parts; i < count * (part + 1) / parts; ++i) {
        const Run& run = runs[static_cast<std::size_t>(i)];
        const float* seen = windows.of(run);
        panel_loops()->gather(at_run(dy[run.view], run), k.out, run.length, k.out, gradients.data());
        for (std::int64_t first = 0; first < k.out; first += kPanel) {
          for (std::int64_t p = 0; p < k.all_panels(); ++p) {
            panel_loops()->multiply_transposed(gradients.data() + first * run.length, seen + p * run.length * kPanel, run.length, true,
                                               of_part + (p * k.out + first) * kPanel);
          }
        }
      }
    });
  });
  const at::Tensor rows = sums.sum(0).view({k.size, k.panels, k.out, kPanel}).permute({2, 0, 1, 3}).reshape({k.out, k.size, -1});
  return rows.narrow(2, 0, k.row).reshape({k.out, k.size, k.size, k.in}).permute({0, 3, 1, 2}).contiguous(weight.suggest_memory_format());
}

struct StemConv : torch::autograd::Function<StemConv> {
  static variable_list forward(AutogradContext* ctx, const at::Tensor& weight, std::int64_t stride, const at::Tensor& whole,
                               const std::optional<at::Tensor>& tiles) {
    const variable_list x = list_of(whole, tiles);
    variable_list y;
    for (const at::Tensor& view : x) y.push_back(at::conv2d(view, weight, {}, stride, weight.size(2) / 2));
    save(ctx, weight, stride, x);
    return y;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    const auto [x, dy, weight, stride] = SavedConv(ctx, gradients);
    const std::int64_t padding = weight.size(2) / 2;
    variable_list out(4);
    if (ctx->needs_input_grad(0)) out[0] = weight_gradient(x, dy, weight, stride);
    for (std::size_t v = 0; v < x.size(); ++v) {  // images want none when a network is trained
      if (!ctx->needs_input_grad(v + 1)) continue;
      out[v + 2] = std::get<0>(at::convolution_backward(dy[v], x[v], weight, at::nullopt, {stride, stride}, {padding, padding}, {1, 1}, false,
                                                        {0, 0}, 1, {true, false, false}));
    }
    return out;
  }
};

}  // namespace

bool stem_fits(const Views& x, const at::Tensor& weight, std::int64_t groups) {
  static const bool on = switched_on("CELLCAM_STEM_CONV");
  const auto fits = [](const at::Tensor& t) { return t.device().is_cpu() && t.scalar_type() == at::kFloat && t.is_contiguous(kNhwc); };
  return on && groups == 1 && weight.size(1) <= kMostChannels && weight.size(0) % kPanel == 0 && weight.size(2) % 2 == 1 &&
         weight.size(2) == weight.size(3) && fits(x.whole) && (!x.tiles.defined() || fits(x.tiles)) && weight.scalar_type() == at::kFloat &&
         !at::autocast::is_autocast_enabled(at::kCPU) && panel_loops() != nullptr;
}

Views stem_conv(const Views& x, const at::Tensor& weight, std::int64_t stride) {
  return apply_conv<StemConv>(weight, stride, x);
}

}  // namespace cellcam::model::fused
