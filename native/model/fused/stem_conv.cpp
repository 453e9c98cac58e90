#include "model/fused/stem_conv.h"

#include <ATen/Functions.h>
#include <ATen/autocast_mode.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <functional>
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

// Outputs from `first` to before `next`, along one axis.
struct Outputs {
  std::int64_t first, next;
  bool has(std::int64_t i) const { return i >= first && i < next; }
};

// Tiles that are the quarters of the whole images, as Puzzle-CAM cuts them (model/tiles.h). Outputs of both see the same there, but for those beside a
// cut, beyond which a tile has zeros.
class Quarters {
 public:
  Quarters(const variable_list& x, const Kernel& k) : kernel_(k) {
    static const bool on = switched_on("CELLCAM_SHARED_STEM");
    if (!on || x.size() < 2 || x[1].size(0) != 4 * x[0].size(0) || x[0].size(2) != 2 * x[1].size(2) || x[0].size(3) != 2 * x[1].size(3)) return;
    for (const int axis : {2, 3}) {
      const std::int64_t inputs = x[1].size(axis);
      if (inputs % k.stride != 0 || inputs < 2 * k.size) return;
    }
    there_ = same_pixels(x[0], x[1]);
  }
  bool there() const { return there_; }

  // Of `outputs` of a tile that lies in this half along an axis with so many inputs, those that see nothing beyond the cut.
  Outputs inside(std::int64_t half, std::int64_t outputs, std::int64_t inputs) const {
    const std::int64_t padding = kernel_.size / 2;
    return half == 0 ? Outputs{0, (inputs - 1 - padding) / kernel_.stride + 1} : Outputs{(padding + kernel_.stride - 1) / kernel_.stride, outputs};
  }

 private:
  static bool same_pixels(const at::Tensor& whole, const at::Tensor& tiles) {
    const std::int64_t images = whole.size(0), height = tiles.size(2), row = tiles.size(3) * tiles.size(1);
    std::atomic<bool> same = true;
    for_stretches(tiles.size(0) * height, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end && same; ++i) {
        const std::int64_t tile = i / height, quarter = tile / images;
        const float* from = floats(whole) + (((tile % images * 2 + quarter / 2) * height + i % height) * 2 + quarter % 2) * row;
        if (std::memcmp(from, floats(tiles) + i * row, static_cast<std::size_t>(row) * sizeof(float)) != 0) same = false;
      }
    });
    return same;
  }

  const Kernel& kernel_;
  bool there_ = false;
};

// Rows of output of one image of a view.
struct Strip {
  std::size_t view;
  std::int64_t image, first, rows;

  // Of a whole image, the half it lies in, and the same rows of the quarter in this half of the columns.
  std::int64_t half(std::int64_t height) const { return first / height; }
  Strip of_quarter(std::int64_t column, const at::Tensor& whole, const at::Tensor& tiles) const {
    const std::int64_t height = tiles.size(2);
    return {1, (half(height) * 2 + column) * whole.size(0) + image, first % height, rows};
  }
};

// Those of all views, or of the whole images alone, with none in both halves of one.
std::vector<Strip> strips_of(const variable_list& y, bool quarters) {
  std::vector<Strip> strips;
  for (std::size_t v = 0; v < (quarters ? 1 : y.size()); ++v) {
    const std::int64_t height = y[v].size(2), end = quarters ? height / 2 : height;
    const std::int64_t longest = std::clamp<std::int64_t>(kStrip / (y[v].size(3) * y[v].size(1)), 1, end);
    for (std::int64_t image = 0; image < y[v].size(0); ++image) {
      for (std::int64_t part = 0; part < height; part += end) {
        for (std::int64_t row = 0; row < end; row += longest) strips.push_back({v, image, part + row, std::min(longest, end - row)});
      }
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
  // Those that the pixels of an output row see, or those of a column from this row on.
  Windows of_row(std::int64_t row) const { return windows(row, 0, kernel_.in); }
  Windows of_column(std::int64_t column, std::int64_t row) const { return windows(row, column, columns_ * kernel_.in); }

 private:
  Windows windows(std::int64_t row, std::int64_t column, std::int64_t apart) const {
    const std::int64_t first = (row * columns_ + column) * kernel_.stride * kernel_.in;
    return {pixels_.data() + first, kernel_.stride * apart, columns_ * kernel_.in, kernel_.size, kernel_.length()};
  }

  const Kernel& kernel_;
  std::int64_t columns_;
  std::vector<float> pixels_;
};

std::int64_t at_row(const at::Tensor& y, const Strip& strip, std::int64_t row) {
  return (strip.image * y.size(2) + strip.first + row) * y.size(3) * y.size(1);
}

// A strip of a quarter: calls row(r) for those of its rows that lie beside a cut, shared(r, columns) for the columns of the others that do not, and
// column(c, r, rows) for the rest of those rows, which lie together.
template <typename Row, typename Shared, typename Column>
void for_quarter(const Quarters& quarters, const at::Tensor& x, const at::Tensor& y, const Strip& strip, std::int64_t half, std::int64_t column_half,
                 const Row& row, const Shared& shared, const Column& column) {
  const Outputs rows = quarters.inside(half, y.size(2), x.size(2)), columns = quarters.inside(column_half, y.size(3), x.size(3));
  std::int64_t first = 0, count = 0;
  for (std::int64_t r = 0; r < strip.rows; ++r) {
    if (!rows.has(strip.first + r)) {
      row(r);
      continue;
    }
    if (count++ == 0) first = r;
    shared(r, columns);
  }
  for (std::int64_t c = 0; count > 0 && c < y.size(3); ++c) {
    if (!columns.has(c)) column(c, first, count);
  }
}

// y = act(conv(x) + bias); `bias` may be null.
variable_list convolve(const variable_list& x, const at::Tensor& weight, std::int64_t stride, const float* bias, Slope slope) {
  const Kernel k(weight, stride);
  const at::Tensor panels = weight.permute({2, 3, 1, 0}).reshape({k.size * k.length(), k.panels(), kPanel}).transpose(0, 1).contiguous();
  variable_list y;
  for (const at::Tensor& view : x) y.push_back(at::empty({view.size(0), k.out, k.outputs(view.size(2)), k.outputs(view.size(3))}, view.options(), kNhwc));
  const Quarters quarters(x, k);
  const std::vector<Strip> strips = strips_of(y, quarters.there());
  const auto at = [&](const Strip& strip, std::int64_t row, std::int64_t column) {
    return y[strip.view].data_ptr<float>() + at_row(y[strip.view], strip, row) + column * k.out;
  };
  const auto write = [&](std::int64_t p, const Windows& windows, std::int64_t pixels, float* to, std::int64_t step) {
    stem_loops()->convolve(windows, floats(panels) + p * k.panel(), bias == nullptr ? nullptr : bias + p * kPanel, slope, pixels, to + p * kPanel, step);
  };
  const auto write_all = [&](const Windows& windows, std::int64_t pixels, float* to, std::int64_t step) {
    for (std::int64_t p = 0; p < k.panels(); ++p) write(p, windows, pixels, to, step);
  };
  const auto write_quarter = [&](const Strip& strip, std::int64_t side) {
    const std::int64_t width = y[1].size(3);
    const Strip tile = strip.of_quarter(side, y[0], y[1]);
    const Seen seen(x[1], tile, width, k);
    for_quarter(
        quarters, x[1], y[1], tile, strip.half(y[1].size(2)), side, [&](std::int64_t row) { write_all(seen.of_row(row), width, at(tile, row, 0), k.out); },
        [&](std::int64_t row, const Outputs& columns) {
          std::copy(at(strip, row, side * width + columns.first), at(strip, row, side * width + columns.next), at(tile, row, columns.first));
        },
        [&](std::int64_t column, std::int64_t row, std::int64_t rows) {
          write_all(seen.of_column(column, row), rows, at(tile, row, column), width * k.out);
        });
  };
  Numbers numbers(static_cast<std::int64_t>(strips.size()));
  on_all_threads([&] {
    numbers.each([&](std::int64_t i) {
      const Strip& strip = strips[static_cast<std::size_t>(i)];
      const std::int64_t width = y[strip.view].size(3);
      const Seen seen(x[strip.view], strip, width, k);
      for (std::int64_t p = 0; p < k.panels(); ++p) {
        for (std::int64_t row = 0; row < strip.rows; ++row) write(p, seen.of_row(row), width, at(strip, row, 0), k.out);
      }
      for (std::int64_t side = 0; quarters.there() && side < 2; ++side) write_quarter(strip, side);
    });
  });
  return y;
}

// Adds the products of what output pixels see and of their gradients to sums (panels, rows and columns of the kernel, kPanel).
class WeightSums {
 public:
  WeightSums(const Kernel& k, const variable_list& x, const variable_list& dy, float* sums) : kernel_(k), x_(x), dy_(dy), sums_(sums) {}

  void add(const Strip& strip) {
    const Seen seen = seen_by(strip);
    for (std::int64_t row = 0; row < strip.rows; ++row) add_row(seen, strip, row);
  }

  // Of a whole image and of the two quarters that lie there: pixels that see the same have one gradient, the sum of both.
  void add(const Strip& strip, const Quarters& quarters) {
    const std::int64_t width = dy_[1].size(3), half = strip.half(dy_[1].size(2));
    const Strip own[] = {strip.of_quarter(0, dy_[0], dy_[1]), strip.of_quarter(1, dy_[0], dy_[1])};
    const Outputs rows = quarters.inside(half, dy_[1].size(2), x_[1].size(2));
    const Seen seen = seen_by(strip);
    for (std::int64_t row = 0; row < strip.rows; ++row) {
      gather(at(strip, row, 0), kernel_.out, 2 * width);
      for (std::int64_t side = 0; side < 2 && rows.has(own[side].first + row); ++side) {
        const Outputs columns = quarters.inside(side, width, x_[1].size(3));
        gather_more(side * width + columns.first, at(own[side], row, columns.first), columns.next - columns.first);
      }
      multiply(seen.of_row(row));
    }
    for (std::int64_t side = 0; side < 2; ++side) {
      const Strip& tile = own[side];
      const Seen seen_by_tile = seen_by(tile);
      for_quarter(
          quarters, x_[1], dy_[1], tile, half, side, [&](std::int64_t row) { add_row(seen_by_tile, tile, row); }, [](std::int64_t, const Outputs&) {},
          [&](std::int64_t column, std::int64_t row, std::int64_t pixels) {
            gather(at(tile, row, column), width * kernel_.out, pixels);
            multiply(seen_by_tile.of_column(column, row));
          });
    }
  }

 private:
  static constexpr std::int64_t kAhead = 8;  // pixels that are asked for before they are read

  Seen seen_by(const Strip& strip) const { return Seen(x_[strip.view], strip, dy_[strip.view].size(3), kernel_); }

  const float* at(const Strip& strip, std::int64_t row, std::int64_t column) const {
    return floats(dy_[strip.view]) + at_row(dy_[strip.view], strip, row) + column * kernel_.out;
  }

  void add_row(const Seen& seen, const Strip& strip, std::int64_t row) {
    gather(at(strip, row, 0), kernel_.out, dy_[strip.view].size(3));
    multiply(seen.of_row(row));
  }

  // Calls f(from, to) for each panel of pixels that begin `step` floats after each other.
  template <typename F>
  void for_panels(std::int64_t first, const float* pixels, std::int64_t step, std::int64_t count, const F& f) {
    float* to = gathered_.data() + first * kPanel;
    for (std::int64_t i = 0; i < count; ++i, pixels += step, to += kPanel) {
      for (std::int64_t p = 0; p < kernel_.panels(); ++p) {
        ask_for<1>(pixels + kAhead * step + p * kPanel);
        f(pixels + p * kPanel, to + p * pixels_ * kPanel);
      }
    }
  }
  // Pixels in panels, (panels, pixels, kPanel).
  void gather(const float* pixels, std::int64_t step, std::int64_t count) {
    pixels_ = count;
    gathered_.resize(static_cast<std::size_t>(count * kernel_.out));
    for_panels(0, pixels, step, count, [](const float* from, float* to) { std::copy_n(from, kPanel, to); });
  }
  // More of them, to be added to those from `first` on.
  void gather_more(std::int64_t first, const float* pixels, std::int64_t count) {
    for_panels(first, pixels, kernel_.out, count, [](const float* from, float* to) { std::transform(from, from + kPanel, to, to, std::plus()); });
  }
  void multiply(const Windows& windows) {
    for (std::int64_t p = 0; p < kernel_.panels(); ++p) {
      stem_loops()->gradient(windows, gathered_.data() + p * pixels_ * kPanel, pixels_, sums_ + p * kernel_.panel());
    }
  }

  const Kernel& kernel_;
  const variable_list &x_, &dy_;
  float* sums_;
  std::vector<float> gathered_;
  std::int64_t pixels_ = 0;
};

at::Tensor weight_gradient(const variable_list& x, const variable_list& dy, const at::Tensor& weight, std::int64_t stride) {
  const Kernel k(weight, stride);
  const Quarters quarters(x, k);
  const std::vector<Strip> strips = strips_of(dy, quarters.there());
  // For each part of the strips: as many for any number of threads, of which sums are not to depend.
  const auto count = static_cast<std::int64_t>(strips.size()), parts = std::min(count, kParts);
  const at::Tensor sums = at::zeros({parts, k.panels(), k.panel()}, x[0].options());
  Numbers numbers(parts);
  on_all_threads([&] {
    numbers.each([&](std::int64_t part) {
      WeightSums of_part(k, x, dy, sums.data_ptr<float>() + part * sums.stride(0));
      for (std::int64_t i = count * part / parts; i < count * (part + 1) / parts; ++i) {
        const Strip& strip = strips[static_cast<std::size_t>(i)];
        if (quarters.there()) of_part.add(strip, quarters);
        else of_part.add(strip);
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
