#pragma once
// The matrices of a product as they lie in memory, cut and packed.
#include <ATen/core/Tensor.h>

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

// A matrix of which rows or columns lie together.
struct Operand {
  const float* data;
  std::int64_t outer, depth;  // its rows if it is the left one, its columns if it is the right one; what is summed over
  std::int64_t step;
  bool deep;  // whether what lies together is summed over

  Operand(const at::Tensor& x, int outer_at)
      : data(floats(x)), outer(x.size(outer_at)), depth(x.size(1 - outer_at)), step(x.stride(1) == 1 ? x.stride(0) : x.stride(1)),
        deep((x.stride(1) == 1) == (outer_at == 0)) {}

  const float* at(std::int64_t i, std::int64_t k) const { return data + (deep ? i * step + k : k * step + i); }

  void list(const Range& rows, const Range& k, RowList* to) const {
    const ProductLoops& loops = *product_loops();
    (deep ? loops.list_rows : loops.list_columns)(at(rows.first, k.first), step, k.size(), rows.size(), to);
  }
  void pack_pieces(const TileLoops& tiles, const Range& rows, const Range& k, float* to) const {
    (deep ? tiles.transpose_pieces : tiles.copy_pieces)(at(rows.first, k.first), step, k.size(), rows.size(), to, tiles.piece_size(k.size()));
  }
  void pack_panels(const TileLoops& tiles, const Range& panels, const Range& k, float* to, std::int64_t apart) const {
    (deep ? tiles.transpose_panels : tiles.copy_panels)(at(panels.first * kPanel, k.first), step, k.size(), panels.size() * kPanel, to, apart);
  }
  void add_to(Ahead& ahead, const Range& some, const Range& k) const {
    ahead.add(at(some.first, k.first), step, (deep ? some : k).size(), (deep ? k : some).size());
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
