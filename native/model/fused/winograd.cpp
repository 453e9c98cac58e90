#include "model/fused/winograd.h"

#include <ATen/Functions.h>
#include <ATen/autocast_mode.h>

#include <algorithm>
#include <type_traits>
#include <vector>

#include "model/fused/conv_views.h"
#include "model/fused/cpu.h"
#include "model/fused/pixels.h"
#include "model/fused/threads.h"
#include "model/fused/winograd_loops.h"
#include "model/switches.h"

namespace cellcam::model::fused {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr std::int64_t kPadding = 16;  // floats: without them the 36 places of a value would share one set of the cache
// Floats of what is transformed at a time. Where the weights are few enough, threads take blocks of their own, which fill half of a core's second
// cache; else they share each block, which has as many as the weights, that are read once for each.
std::int64_t own_block() { return second_cache() / 2; }
std::int64_t own_weights() { return second_cache() * 2; }
constexpr std::int64_t kSharedBlock = std::int64_t{1} << 19;
constexpr std::int64_t kFewest = 6;  // tiles of a block
constexpr std::int64_t kPart = 8;    // panels of outputs whose weights' gradients are summed up within a core's cache
constexpr std::int64_t kChunk = 2;   // panels that a thread takes at least, where there are groups: two cache lines of a pixel

// Memory for one thing after the other.
class Scratch {
 public:
  float* floats(std::int64_t count) {
    if (!memory_.defined() || memory_.numel() < count) memory_ = at::empty({count}, at::kFloat);
    return memory_.data_ptr<float>();
  }

 private:
  at::Tensor memory_;
};

// The 36 matrices (panels, rows, kPanel) of winograd_loops.h.
class Matrices {
 public:
  Matrices(Scratch& scratch, std::int64_t rows, std::int64_t channels) : Matrices(rows, channels) {
    data_ = scratch.floats(kPlaces * apart_);
  }
  // Of weights, which keep their memory.
  Matrices(const at::Tensor& memory, std::int64_t rows) : data_(memory.data_ptr<float>()), rows_(rows), apart_(memory.size(1)) {}

  static at::Tensor memory(std::int64_t rows, std::int64_t channels, const at::Tensor& like) {
    return at::empty({kPlaces, Matrices(rows, channels).apart_}, like.options().memory_format(c10::nullopt));
  }

  std::int64_t apart() const { return apart_; }
  float* at(std::int64_t panel, std::int64_t row) const { return data_ + (panel * rows_ + row) * kPanel; }
  float* at(std::int64_t place, std::int64_t panel, std::int64_t row) const { return at(panel, row) + place * apart_; }

 private:
  Matrices(std::int64_t rows, std::int64_t channels) : rows_(rows), apart_(rows * channels + kPadding) {}

  float* data_ = nullptr;
  std::int64_t rows_, apart_;
};

// 4 x 4 pixels of an image of a view, fewer at its lower and right edges.
struct Tile {
  std::size_t view;
  std::int64_t image, row, column;
};

std::vector<Tile> tiles_of(const variable_list& views) {
  std::vector<Tile> tiles;
  for (std::size_t v = 0; v < views.size(); ++v) {
    for (std::int64_t image = 0; image < views[v].size(0); ++image) {
      for (std::int64_t row = 0; row < views[v].size(2); row += kTile) {
        for (std::int64_t column = 0; column < views[v].size(3); column += kTile) tiles.push_back({v, image, row, column});
      }
    }
  }
  return tiles;
}

// Where a panel of a tile begins, with `border` pixels around it, in NHWC tensors that are read (const float) or written (float).
template <typename T>
class Places {
 public:
  explicit Places(const variable_list& views) {
    for (const at::Tensor& x : views) views_.push_back({data_of(x), x.size(1), x.size(2), x.size(3)});
  }

  T* data(const Tile& t, std::int64_t panel, std::int64_t border) const {
    const View& v = views_[t.view];
    return v.data + ((t.image * v.height + t.row - border) * v.width + t.column - border) * v.channels + panel * kPanel;
  }

  Pixels pixels(const Tile& t, std::int64_t border) const {
    const View& v = views_[t.view];
    const auto first = [&](std::int64_t position) { return std::max<std::int64_t>(0, border - position); };
    return {v.width * v.channels, v.channels, first(t.row), v.height - t.row + border, first(t.column), v.width - t.column + border};
  }

 private:
  struct View {
    T* data;
    std::int64_t channels, height, width;
  };
  static T* data_of(const at::Tensor& x) {
    if constexpr (std::is_const_v<T>) return x.const_data_ptr<float>();
    else return x.mutable_data_ptr<float>();
  }
  std::vector<View> views_;
};

// f(i, j) for i below `first` and j below `second`, in parallel.
template <typename F>
void for_pairs(std::int64_t first, std::int64_t second, const F& f) {
  for_stretches(first * second, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) f(i / second, i % second);
  });
}

// The channels of a group, by panels.
struct Group {
  std::int64_t in, out;

  Group(const at::Tensor& weight, std::int64_t groups) : in(weight.size(1)), out(weight.size(0) / groups) {}
  Group(std::int64_t in_, std::int64_t out_) : in(in_), out(out_) {}
  Group reversed() const { return {out, in}; }
};

// Panels of channels that have nothing to do with others: whole groups.
struct Chunk {
  std::int64_t first_in, in, first_out, out;
  // The first panel of inputs, from first_in on, that lead to a panel of outputs.
  std::int64_t input_of(std::int64_t output, const Group& group) const { return output / (group.out / kPanel) * (group.in / kPanel); }
};

struct Memory {
  Scratch first, second;
};

// How a convolution's work is cut into chunks of channels and blocks of tiles.
class Schedule {
 public:
  Schedule(const variable_list& x, const Group& group) : group_(group), tiles_(tiles_of(x)) {
    const std::int64_t in = group.in / kPanel, groups = x[0].size(1) / group.in;
    each_ = std::min(groups, (kChunk + in - 1) / in);
    chunks_ = groups / each_;
    weights_ = each_ * kPlaces * group.in * group.out;
  }

  // Whether threads share blocks.
  bool shared() const { return chunks_ == 1 && weights_ > own_weights(); }

  // f(chunk, tiles, how many, memory) for all of them. Where threads share blocks, work is to be shared within f; else one of them does it all.
  template <typename F>
  void for_blocks(const F& f) const {
    if (shared()) return for_shared(f);
    const std::int64_t threads = at::get_num_threads(), blocks = (blocks_of(own_block(), group_.in) + threads - 1) / threads * threads;
    Numbers numbers(chunks_ * blocks);
    on_all_threads([&] {
      Memory memory;
      numbers.each([&](std::int64_t i) { run(i / blocks, i % blocks, blocks, memory, f); });
    });
  }

  // The same where no thread may work on the weights of another: only a single chunk is shared.
  template <typename F>
  void for_chunks(const F& f) const {
    if (chunks_ == 1) return for_shared(f);
    const std::int64_t blocks = blocks_of(own_block(), group_.in);
    Numbers numbers(chunks_);
    on_all_threads([&] {
      Memory memory;
      numbers.each([&](std::int64_t chunk) {
        for (std::int64_t i = 0; i < blocks; ++i) run(chunk, i, blocks, memory, f);
      });
    });
  }

 private:
  std::int64_t count() const { return static_cast<std::int64_t>(tiles_.size()); }
  std::int64_t shared_blocks() const { return blocks_of(std::max(kSharedBlock, weights_), group_.in + group_.out); }

  // Blocks of so many floats, of the transforms of so many channels of a group.
  std::int64_t blocks_of(std::int64_t floats, std::int64_t channels) const {
    const std::int64_t most = std::max(kFewest, floats / (kPlaces * each_ * channels));
    return (count() + most - 1) / most;
  }

  template <typename F>
  void for_shared(const F& f) const {
    const std::int64_t blocks = shared_blocks();
    Memory memory;
    for (std::int64_t i = 0; i < blocks; ++i) run(0, i, blocks, memory, f);
  }

  // One of a chunk's blocks.
  template <typename F>
  void run(std::int64_t chunk, std::int64_t i, std::int64_t blocks, Memory& memory, const F& f) const {
    const std::int64_t in = each_ * group_.in / kPanel, out = each_ * group_.out / kPanel, first = count() * i / blocks, next = count() * (i + 1) / blocks;
    if (next > first) f(Chunk{chunk * in, in, chunk * out, out}, tiles_.data() + first, next - first, memory);
  }

  Group group_;
  std::vector<Tile> tiles_;
  std::int64_t each_, chunks_, weights_;  // groups of a chunk, chunks, transformed weights of one
};

// Transforms `panels` panels of tiles, which begin with `border` pixels more.
Matrices transformed(const Places<const float>& x, const Tile* tiles, std::int64_t count, std::int64_t first, std::int64_t panels, Scratch& scratch,
                     decltype(WinogradLoops::patch) transform, std::int64_t border) {
  const Matrices out(scratch, count, panels * kPanel);
  for_pairs(count, panels, [&](std::int64_t t, std::int64_t panel) {
    transform(x.data(tiles[t], first + panel, border), x.pixels(tiles[t], border), out.at(panel, t), out.apart());
  });
  return out;
}

struct After {
  const float* bias = nullptr;
  Slope slope = 1;
  bool added = false;  // to what y holds
};

// y = act(conv(x) + bias + y), from transformed weights.
void convolve(const variable_list& x, const Group& group, const at::Tensor& weight, const variable_list& y, const After& after = {}) {
  const WinogradLoops& loops = *winograd_loops();
  const Matrices w(weight, group.in);
  const Places<const float> from(x);
  const Places<float> to(y);
  const Schedule schedule(x, group);
  schedule.for_blocks([&](const Chunk& chunk, const Tile* tiles, std::int64_t count, Memory& memory) {
    const Matrices patches = transformed(from, tiles, count, chunk.first_in, chunk.in, memory.first, loops.patch, 1);
    const std::int64_t step = schedule.shared() ? chunk.out : 1;
    const Matrices sums(memory.second, count, step * kPanel);
    for (std::int64_t first = 0; first < chunk.out; first += step) {
      for_pairs(kPlaces, step, [&](std::int64_t place, std::int64_t p) {
        panel_loops()->multiply(patches.at(place, chunk.input_of(first + p, group), 0), count, group.in / kPanel,
                                w.at(place, chunk.first_out + first + p, 0), sums.at(place, p, 0));
      });
      for_pairs(count, step, [&](std::int64_t t, std::int64_t p) {
        const std::int64_t panel = chunk.first_out + first + p;
        float* values = to.data(tiles[t], panel, 0);
        const float* bias = after.bias == nullptr ? nullptr : after.bias + panel * kPanel;
        loops.outputs(sums.at(p, t), sums.apart(), bias, after.added ? values : nullptr, after.slope, values, to.pixels(tiles[t], 0));
      });
    }
  });
}

// Where the weights of a panel of inputs begin in (out, 3, 3, in).
std::int64_t first_weight(const Group& group, std::int64_t panel) {
  const std::int64_t panels = group.in / kPanel;
  return panel / panels * group.out * 9 * group.in + panel % panels * kPanel;
}

at::Tensor backward_weight(const Group& group, const at::Tensor& weight, std::int64_t in) {
  const at::Tensor memory = Matrices::memory(group.out, in, weight);
  const Matrices u(memory, group.out);
  for_stretches(in / kPanel, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t p = begin; p < end; ++p) {
      winograd_loops()->weights_back(floats(weight) + first_weight(group, p), group.out, group.in, u.at(p, 0), u.apart());
    }
  });
  return memory;
}

at::Tensor weight_gradient(const variable_list& x, const Group& group, const variable_list& dy, const at::Tensor& weight) {
  const WinogradLoops& loops = *winograd_loops();
  const Places<const float> from(x), to(dy);
  const std::int64_t out = group.out / kPanel, parts = (out + kPart - 1) / kPart;
  const at::Tensor dw = at::zeros_like(weight);
  float* values = dw.data_ptr<float>();
  Schedule(x, group).for_chunks([&](const Chunk& chunk, const Tile* tiles, std::int64_t count, Memory& memory) {
    const Matrices patches = transformed(from, tiles, count, chunk.first_in, chunk.in, memory.first, loops.patch, 1);
    const Matrices gradients = transformed(to, tiles, count, chunk.first_out, chunk.out, memory.second, loops.spread, 0);
    for_stretches(chunk.in * parts, [&](std::int64_t begin, std::int64_t end) {
      Scratch scratch;
      for (std::int64_t i = begin; i < end; ++i) {
        const std::int64_t panel = i / parts, first = out * (i % parts) / parts, next = out * (i % parts + 1) / parts;
        const Matrices sums(scratch, (next - first) * kPanel, kPanel);
        for (std::int64_t place = 0; place < kPlaces; ++place) {
          for (std::int64_t p = first; p < next; ++p) {
            panel_loops()->multiply_transposed(gradients.at(place, chunk.input_of(panel, group.reversed()) + p, 0), patches.at(place, panel, 0), count,
                                               false, sums.at(place, 0, (p - first) * kPanel));
          }
        }
        loops.weight_gradient(sums.at(0, 0), sums.apart(), (next - first) * kPanel, group.in,
                              values + first_weight(group, chunk.first_in + panel) + first * kPanel * 9 * group.in);
      }
    });
  });
  return dw;
}

// NHWC tensors for what leads to `channels` channels.
variable_list empty_like(const variable_list& views, std::int64_t channels) {
  variable_list out;
  for (const at::Tensor& x : views) out.push_back(at::empty({x.size(0), channels, x.size(2), x.size(3)}, x.options().memory_format(kNhwc)));
  return out;
}

struct WinogradConv : torch::autograd::Function<WinogradConv> {
  static variable_list forward(AutogradContext* ctx, const at::Tensor& weight, std::int64_t groups, const at::Tensor& whole,
                               const std::optional<at::Tensor>& tiles) {
    const Unrecorded unrecorded;
    const variable_list x = list_of(whole, tiles), y = empty_like(x, weight.size(0));
    convolve(x, Group(weight, groups), winograd_weight(weight), y);
    save(ctx, weight, groups, x);
    return y;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    const Unrecorded unrecorded;
    const auto [x, dy, weight, groups] = SavedConv(ctx, gradients);
    const Group group(weight, groups);
    variable_list out(4);
    if (ctx->needs_input_grad(0)) out[0] = weight_gradient(x, group, dy, weight);
    if (ctx->needs_input_grad(1)) {
      const variable_list dx = empty_like(dy, x[0].size(1));
      convolve(dy, group.reversed(), backward_weight(group, weight, x[0].size(1)), dx);
      std::copy(dx.begin(), dx.end(), out.begin() + 2);
    }
    return out;
  }
};

}  // namespace

bool winograd_fits(const Views& x, const at::Tensor& weight, std::int64_t stride, std::int64_t groups, bool weight_kept) {
  static const bool on = switched_on("CELLCAM_WINOGRAD");
  const auto fits = [](const at::Tensor& t) { return t.device().is_cpu() && t.scalar_type() == at::kFloat && t.is_contiguous(kNhwc); };
  if (!on || stride != 1 || weight.sizes().slice(2) != at::IntArrayRef({3, 3}) || weight.size(1) % kPanel != 0 ||
      weight.size(0) / groups % kPanel != 0 || !fits(weight) || !fits(x.whole) || (x.tiles.defined() && !fits(x.tiles)) ||
      at::autocast::is_autocast_enabled(at::kCPU) || winograd_loops() == nullptr) {
    return false;
  }
  std::int64_t pixels = 0, covered = 0;
  for (const at::Tensor* view : {&x.whole, &x.tiles}) {
    if (!view->defined()) continue;
    const auto tiles = [](std::int64_t n) { return (n + kTile - 1) / kTile; };
    pixels += view->size(0) * view->size(2) * view->size(3);
    covered += view->size(0) * tiles(view->size(2)) * tiles(view->size(3)) * kTile * kTile;
  }
  return pixels * 2 > covered && pixels >= (weight_kept ? 128 : 256);
}

Views winograd_conv(const Views& x, const at::Tensor& weight, std::int64_t groups) {
  return apply_conv<WinogradConv>(weight, groups, x);
}

at::Tensor winograd_weight(const at::Tensor& weight) {
  const std::int64_t out = weight.size(0), in = weight.size(1);
  const at::Tensor memory = Matrices::memory(in, out, weight);
  const Matrices u(memory, in);
  const float* w = floats(weight);
  for_stretches(out / kPanel, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t p = begin; p < end; ++p) winograd_loops()->weights(w + p * kPanel * 9 * in, in, u.at(p, 0), u.apart());
  });
  return memory;
}

at::Tensor winograd_conv_act(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, std::int64_t groups, Slope slope,
                             const at::Tensor& residual) {
  const variable_list y = residual.defined() ? variable_list{residual} : empty_like({x}, bias.size(0));
  convolve({x}, Group(x.size(1) / groups, bias.size(0) / groups), weight, y, {floats(bias), slope, residual.defined()});
  return y[0];
}

}  // namespace cellcam::model::fused
