#pragma once
// The matrices of a product as they lie in memory, cut and packed.
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "model/fused/matrix_product.h"
#include "model/fused/panel_loops.h"
#include "model/fused/pixels.h"
#include "model/fused/prefetch.h"
#include "model/fused/product_loops.h"

namespace cellcam::model::fused {

inline std::int64_t parts(std::int64_t all, std::int64_t each) { return (all + each - 1) / each; }

struct Range {
  std::int64_t first, next;
  std::int64_t size() const { return next - first; }
  // The i-th of `count` nearly equal stretches.
  Range cut(std::int64_t i, std::int64_t count) const { return {first + size() * i / count, first + size() * (i + 1) / count}; }
};

// A matrix of which rows or columns lie together, perhaps activated as it is packed.
struct Operand {
  const float* data;
  std::int64_t outer, depth;  // its rows if it is the left one, its columns if it is the right one; what is summed over
  std::int64_t step;
  bool deep;  // whether what lies together is summed over
  const Activated* before;

  Operand(const at::Tensor& x, int outer_at, const Activated* activated = nullptr)
      : data(floats(x)), outer(x.size(outer_at)), depth(x.size(1 - outer_at)), step(x.stride(1) == 1 ? x.stride(0) : x.stride(1)),
        deep((x.stride(1) == 1) == (outer_at == 0)), before(activated) {}

  const float* at(std::int64_t i, std::int64_t k) const { return data + (deep ? i * step + k : k * step + i); }

  float value(std::int64_t i, std::int64_t k) const {
    if (before == nullptr) return *at(i, k);
    const Activation& act = before->of[(deep ? i : k) < before->split ? 0 : 1];
    const std::int64_t channel = deep ? k : i;
    const float y = *at(i, k) * act.scale[channel] + act.shift[channel];
    return y > 0 ? y : act.slope * y;
  }

  void list(const Range& rows, const Range& k, RowList* to) const {
    const auto list_of = deep ? product_loops()->list_rows : product_loops()->list_columns;
    if (before == nullptr) return list_of(at(rows.first, k.first), step, k.size(), rows.size(), to);
    for_some(rows, kActivatedRows, [&](const Range& some) {
      const Block x = activated(some, k);
      list_of(x.data, x.step, k.size(), some.size(), to + (some.first - rows.first));
    });
  }
  void pack_pieces(const TileLoops& tiles, const Range& rows, const Range& k, float* to) const {
    const std::int64_t each = tiles.piece_size(k.size());
    const Pack pack = deep ? tiles.transpose_pieces : tiles.copy_pieces;
    if (before == nullptr) return pack(at(rows.first, k.first), step, k.size(), rows.size(), to, each);
    for_some(rows, tiles.rows, [&](const Range& some) {
      const Block x = activated(some, k);
      pack(x.data, x.step, k.size(), some.size(), to + (some.first - rows.first) / tiles.rows * each, each);
    });
  }
  void pack_panels(const TileLoops& tiles, const Range& panels, const Range& k, float* to, std::int64_t apart) const {
    const Range columns{panels.first * kPanel, panels.next * kPanel};
    const Pack pack = deep ? tiles.transpose_panels : tiles.copy_panels;
    if (before == nullptr) return pack(at(columns.first, k.first), step, k.size(), columns.size(), to, apart);
    for_some(k, tiles.scaled ? k.size() : kActivatedDepth, [&](const Range& some) {
      const Block x = activated(columns, some);
      pack(x.data, x.step, some.size(), columns.size(), to + (some.first - k.first) * kPanel, apart);
    });
  }
  void add_to(Ahead& ahead, const Range& some, const Range& k) const {
    ahead.add(at(some.first, k.first), step, (deep ? some : k).size(), (deep ? k : some).size());
  }

 private:
  static constexpr std::int64_t kActivatedRows = 16, kActivatedDepth = 32;  // at a time, for the first cache

  struct Block {
    const float* data;
    std::int64_t step;
  };
  template <typename F>
  static void for_some(const Range& all, std::int64_t most, const F& f) {
    for (std::int64_t first = all.first; first < all.next; first += most) f(Range{first, std::min(first + most, all.next)});
  }
  // A part of it, activated, in memory of this thread.
  Block activated(const Range& some, const Range& k) const {
    constexpr std::int64_t kVector = 8;
    static thread_local std::vector<float> memory;
    const Range &pixels = deep ? some : k, &channels = deep ? k : some;
    const std::int64_t row = parts(channels.size(), kVector) * kVector, cut = std::clamp(before->split, pixels.first, pixels.next);
    memory.resize(std::max(memory.size(), static_cast<std::size_t>(pixels.size() * row)));
    float* to = memory.data();
    for (const auto& [act, rows] : {std::pair(before->of[0], Range{pixels.first, cut}), std::pair(before->of[1], Range{cut, pixels.next})}) {
      if (rows.size() == 0) continue;
      product_loops()->scale_act(data + rows.first * step + channels.first, step, rows.size(), channels.size(), act.scale + channels.first,
                                 act.shift + channels.first, act.slope, to, row);
      to += rows.size() * row;
    }
    return {memory.data(), row};
  }
};

// Depth as it is multiplied, a block at a time.
class Blocks {
 public:
  Blocks(std::int64_t depth, std::int64_t most) : depth_(depth), count_(parts(depth, most)) {}
  std::int64_t count() const { return count_; }
  std::int64_t longest() const { return parts(depth_, count_); }
  Range operator[](std::int64_t i) const { return Range{0, depth_}.cut(i, count_); }
  // Where the i-th block of a panel that is packed as a whole begins, or it ends.
  std::int64_t begin(const TileLoops& tiles, std::int64_t i) const {
    std::int64_t sum = 0;
    for (std::int64_t b = 0; b < i; ++b) sum += tiles.panel_size((*this)[b].size());
    return sum;
  }

 private:
  std::int64_t depth_, count_;
};

}  // namespace cellcam::model::fused
