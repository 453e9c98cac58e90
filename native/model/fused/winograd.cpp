#include "model/fused/winograd.h"

#include <ATen/autocast_mode.h>

#include <algorithm>

#include "model/fused/conv_views.h"
#include "model/fused/joint.h"
#include "model/fused/pixels.h"
#include "model/fused/threads.h"
#include "model/fused/winograd_schedule.h"
#include "model/switches.h"

namespace cellcam::model::fused {

namespace {

using torch::autograd::variable_list;

constexpr std::int64_t kSets = 4;  // of panels of outputs, for each thread: with a set it goes through all inputs
constexpr std::int64_t kPart = 8;  // panels of outputs whose weights' gradients are summed up within a core's cache

// Transforms `panels` panels of tiles, which begin with `border` pixels more.
Matrices transformed(const Places<const float>& x, const Tile* tiles, std::int64_t count, std::int64_t first, std::int64_t panels, Scratch& scratch,
                     decltype(WinogradLoops::patch) transform, std::int64_t border) {
  const Matrices out(scratch, count, panels * kPanel);
  for_pairs(count, panels, [&](std::int64_t t, std::int64_t panel) {
    transform(x.data(tiles[t], first + panel, border), x.pixels(tiles[t], border), out.at(panel, t), out.apart());
  });
  return out;
}

// Where the weights of a panel of inputs begin in (out, 3, 3, in).
std::int64_t first_weight(const Group& group, std::int64_t panel) {
  const std::int64_t panels = group.in / kPanel;
  return panel / panels * group.out * 9 * group.in + panel % panels * kPanel;
}

// Weights (out, 3, 3, in) to be transformed: for the convolution, or for the one that leads from its output's gradient to its input's.
class Weights {
 public:
  Weights(const at::Tensor& weight, const Group& group, bool back) : weight_(weight), group_(group), back_(back) {}

  // Of the convolution that they are transformed for.
  Group group() const { return back_ ? group_.reversed() : group_; }

  // `count` rows of a panel from `first` on.
  void transform(std::int64_t panel, std::int64_t first, std::int64_t count, const Matrices& to, std::int64_t to_panel) const {
    const WinogradLoops& loops = *winograd_loops();
    const std::int64_t in = group_.in;
    float* out = to.at(to_panel, 0);
    if (back_) loops.weights_back(floats(weight_) + first_weight(group_, panel) + first * 9 * in, in, count, out, to.apart());
    else loops.weights(floats(weight_) + panel * kPanel * 9 * in + first, in, count, out, to.apart());
  }

  at::Tensor transformed() const {
    const std::int64_t rows = group().in, panels = weight_.size(0) / group_.out * group().out / kPanel;
    const at::Tensor memory = Matrices::memory(rows, panels * kPanel, weight_);
    const Matrices to(memory, rows);
    for_stretches(panels, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t p = begin; p < end; ++p) transform(p, 0, rows, to, p);
    });
    return memory;
  }

 private:
  const at::Tensor& weight_;
  Group group_;
  bool back_;
};

struct After {
  const float* bias = nullptr;
  Slope slope = 1;
  bool added = false;  // to what y holds
};

// y = act(conv(x) + bias + y), from transformed weights.
void convolve(const variable_list& x, const Schedule& schedule, const Group& group, const at::Tensor& weight, const variable_list& y,
              const After& after = {}) {
  const WinogradLoops& loops = *winograd_loops();
  const Matrices w(weight, group.in);
  const Places<const float> from(x);
  const Places<float> to(y);
  schedule.for_blocks([&](const Chunk& chunk, const Tile* tiles, std::int64_t count, Memory& memory) {
    const Matrices patches = transformed(from, tiles, count, chunk.first_in, chunk.in, memory.first, loops.patch, 1);
    const std::int64_t step = schedule.shared() ? chunk.out : 1;
    const Matrices sums(memory.second, count, step * kPanel);
    for (std::int64_t first = 0; first < chunk.out; first += step) {
      for_pairs(kPlaces, step, [&](std::int64_t place, std::int64_t p) {
        panel_loops()->multiply(patches.at(place, chunk.input_of(first + p, group), 0), count, group.in / kPanel,
                                w.at(place, chunk.first_out + first + p, 0), sums.at(place, p, 0), false);
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

// y = conv(x), from weights that are used this once. Where they are so many that threads share blocks, each thread transforms them a panel and some rows
// at a time into its cache, where the patches of those rows lie already.
void convolve(const variable_list& x, const Weights& weights, const variable_list& y) {
  const Group group = weights.group();
  const Schedule schedule(x, group);
  if (!schedule.shared()) return convolve(x, schedule, group, weights.transformed(), y);
  const WinogradLoops& loops = *winograd_loops();
  const Places<const float> from(x);
  const Places<float> to(y);
  schedule.for_blocks([&](const Chunk& chunk, const Tile* tiles, std::int64_t count, Memory& memory) {
    const Matrices patches = transformed(from, tiles, count, chunk.first_in, chunk.in, memory.first, loops.patch, 1);
    const std::int64_t most = std::max<std::int64_t>(1, own_block() / (kPlaces * (count + kPanel) * kPanel)), parts = (chunk.in + most - 1) / most;
    const std::int64_t sets = std::min(chunk.out, kSets * at::get_num_threads());
    Numbers numbers(sets);
    on_all_threads([&] {
      Memory own;
      numbers.each([&](std::int64_t set) {
        const std::int64_t begin = chunk.out * set / sets, end = chunk.out * (set + 1) / sets;
        const Matrices sums(own.first, count, (end - begin) * kPanel);
        for (std::int64_t part = 0; part < parts; ++part) {
          const std::int64_t first = chunk.in * part / parts, depth = chunk.in * (part + 1) / parts - first;
          const Matrices w(own.second, depth * kPanel, kPanel);
          for (std::int64_t p = begin; p < end; ++p) {
            weights.transform(chunk.first_out + p, first * kPanel, depth * kPanel, w, 0);
            for (std::int64_t place = 0; place < kPlaces; ++place) {
              panel_loops()->multiply(patches.at(place, first, 0), count, depth, w.at(place, 0, 0), sums.at(place, p - begin, 0), part > 0);
            }
            if (part + 1 < parts) continue;
            for (std::int64_t t = 0; t < count; ++t) {
              loops.outputs(sums.at(p - begin, t), sums.apart(), nullptr, nullptr, 1, to.data(tiles[t], chunk.first_out + p, 0), to.pixels(tiles[t], 0));
            }
          }
        }
      });
    });
  });
}

at::Tensor weight_gradient(const variable_list& x, const Group& group, const variable_list& dy, const at::Tensor& weight) {
  const WinogradLoops& loops = *winograd_loops();
  const Places<const float> from(x), to(dy);
  const std::int64_t out = group.out / kPanel, parts = (out + kPart - 1) / kPart;
  const at::Tensor dw = at::empty_like(weight);
  float* values = dw.data_ptr<float>();
  Schedule(x, group).for_chunks([&](const Chunk& chunk, const Tile* tiles, std::int64_t count, Memory& memory) {
    const Matrices patches = transformed(from, tiles, count, chunk.first_in, chunk.in, memory.first, loops.patch, 1);
    const Matrices gradients = transformed(to, tiles, count, chunk.first_out, chunk.out, memory.second, loops.spread, 0);
    const std::int64_t in = group.in / kPanel, pairs = (in + 1) / 2;  // of a group
    for_stretches(chunk.in / in * pairs * parts, [&](std::int64_t begin, std::int64_t end) {
      Scratch scratch;
      for (std::int64_t i = begin; i < end; ++i) {
        const std::int64_t pair = i / parts, panel = pair / pairs * in + pair % pairs * 2, panels = std::min<std::int64_t>(2, in - pair % pairs * 2);
        const std::int64_t first = out * (i % parts) / parts, next = out * (i % parts + 1) / parts;
        const Matrices sums(scratch, (next - first) * kPanel, panels * kPanel);
        for (std::int64_t place = 0; place < kPlaces; ++place) {
          for (std::int64_t p = first; p < next; ++p) {
            panel_loops()->multiply_transposed(gradients.at(place, chunk.input_of(panel, group.reversed()) + p, 0), patches.at(place, panel, 0), count,
                                               panels, sums.at(place, 0, (p - first) * kPanel), sums.at(1, 0) - sums.at(0, 0));
          }
        }
        for (std::int64_t q = 0; q < panels; ++q) {
          loops.weight_gradient(sums.at(q, 0), sums.apart(), (next - first) * kPanel, group.in, !chunk.begins,
                                values + first_weight(group, chunk.first_in + panel + q) + first * kPanel * 9 * group.in);
        }
      }
    });
  });
  return dw;
}

variable_list outputs_of(const variable_list& x, std::int64_t channels) { return to_list(joint_outputs(to_views(x), channels)); }

struct WinogradConv {
  static variable_list forward(const variable_list& x, const at::Tensor& weight, std::int64_t groups, const Activations&) {
    const variable_list y = outputs_of(x, weight.size(0));
    convolve(x, Weights(weight, Group(weight, groups), false), y);
    return y;
  }

  static ConvGradients backward(const variable_list& x, const at::Tensor& weight, std::int64_t groups, const Activations&, const variable_list& dy,
                                const Wanted& wanted) {
    const Group group(weight, groups);
    ConvGradients out;
    if (wanted.weight) out.weight = weight_gradient(x, group, dy, weight);
    if (!wanted.x) return out;
    out.x = outputs_of(dy, x[0].size(1));
    convolve(dy, Weights(weight, group, true), out.x);
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
  return Weights(weight, Group(weight.size(1), weight.size(0)), false).transformed();
}

at::Tensor winograd_conv_act(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, std::int64_t groups, Slope slope,
                             const at::Tensor& residual) {
  const variable_list y = residual.defined() ? variable_list{residual} : outputs_of({x}, bias.size(0));
  const Group group(x.size(1) / groups, bias.size(0) / groups);
  convolve({x}, Schedule({x}, group), group, weight, y, {floats(bias), slope, residual.defined()});
  return y[0];
}

}  // namespace cellcam::model::fused
