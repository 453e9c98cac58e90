#include "model/fused/matrix_product.h"

#include <ATen/Functions.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <optional>

#include "model/fused/panel_loops.h"
#include "model/fused/pixels.h"
#include "model/fused/product_loops.h"
#include "model/switches.h"

namespace cellcam::model::fused {

namespace {

constexpr std::int64_t kDepth = 512;                   // of what is multiplied at a time: a panel of the size of a usual first cache
constexpr std::int64_t kLeast = 128;                   // of it where sums of many depths stay in the second cache
constexpr std::int64_t kLeft = std::int64_t{1} << 16;  // floats of packed pieces: half of a usual second cache
constexpr std::int64_t kGroup = 4;                     // panels that are packed at a time
constexpr std::int64_t kFewPieces = 8;                 // of a stretch: what is read of a panel pays only for several
constexpr std::int64_t kFewRows = 512;                 // up to so many, threads pack panels as they need them instead of all of them beforehand

std::int64_t parts(std::int64_t all, std::int64_t each) { return (all + each - 1) / each; }

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

  void pack_pieces(const Range& rows, const Range& k, float* to, std::int64_t apart) const {
    const ProductLoops& loops = *product_loops();
    (deep ? loops.transpose_pieces : loops.copy_pieces)(at(rows.first, k.first), step, k.size(), rows.size(), to, apart);
  }
  void pack_panels(const Range& columns, const Range& k, float* to, std::int64_t apart) const {
    const ProductLoops& loops = *product_loops();
    (deep ? loops.transpose_panels : loops.copy_panels)(at(columns.first, k.first), step, k.size(), columns.size(), to, apart);
  }
};

void ask_for([[maybe_unused]] const float* x) {
#ifdef __GNUC__  // other compilers have no loops of products
  __builtin_prefetch(x, 0, 2);
#endif
}

// Asks the memory for values that will be packed next, a few at a time between products, as packing by itself would wait for them.
class Ahead {
 public:
  Ahead() = default;
  Ahead(const Operand& x, const Range& outer, const Range& k, std::int64_t products)
      : row_(x.at(outer.first, k.first)), step_(x.step), rows_(x.deep ? outer.size() : k.size()), columns_(x.deep ? k.size() : outer.size()),
        each_(parts(rows_ * parts(columns_, kLine), products)) {}

  void ask() {
    for (std::int64_t i = 0; i < each_ && rows_ > 0; ++i) {
      ask_for(row_ + column_);
      column_ += kLine;
      if (column_ < columns_) continue;
      column_ = 0;
      row_ += step_;
      --rows_;
    }
  }

 private:
  static constexpr std::int64_t kLine = 16;  // floats of a cache line
  const float* row_ = nullptr;
  std::int64_t step_ = 0, rows_ = 0, columns_ = 0, each_ = 0, column_ = 0;
};

// Pieces of the left matrix, handed out some at a time. Threads that share them need not be equally fast.
class Stretches {
 public:
  Stretches(const Range& pieces, std::int64_t most) : pieces_(pieces), count_(parts(pieces.size(), most)) {}
  std::int64_t longest() const { return parts(pieces_.size(), count_); }
  // Empty when there are no more.
  Range next() {
    const std::int64_t i = taken_++;
    return i < count_ ? pieces_.cut(i, count_) : Range{0, 0};
  }

 private:
  Range pieces_;
  std::int64_t count_;
  std::atomic<std::int64_t> taken_ = 0;
};

class Product {
 public:
  // Of b, which is packed as panels or not at all.
  Product(const Operand& a, const float* panels, const at::Tensor& c, const AfterProduct& after)
      : a_(a), panels_(panels), sums_(c.data_ptr<float>()), columns_(c.size(1)), step_(c.stride(0)), after_(after) {}
  Product(const Operand& a, const Operand& b, const at::Tensor& c, const AfterProduct& after) : Product(a, nullptr, c, after) { b_ = b; }

  void compute() const {
    const std::int64_t threads = at::get_num_threads();
    const Range pieces{0, parts(a_.outer, kPiece)}, panels{0, columns_ / kPanel};
    if (!b_) {
      Stretches stretches(pieces, std::min(longest(kDepth), std::max(kFewPieces, pieces.size() / (8 * threads))));
      at::parallel_for(0, threads, 1, [&](std::int64_t, std::int64_t) { compute(stretches, panels, kDepth); });
      return;
    }
    // Rows and columns of its own for each thread, as few as can be of both together, as it packs them.
    std::int64_t down = 1;
    for (std::int64_t d = 2; d <= threads; ++d) {
      if (threads % d == 0 && a_.outer * (threads / d) + columns_ * d < a_.outer * (threads / down) + columns_ * down) down = d;
    }
    const std::int64_t across = threads / down;
    at::parallel_for(0, threads, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        const Range mine = pieces.cut(i / across, down), columns = panels.cut(i % across, across);
        if (mine.size() == 0 || columns.size() == 0) continue;
        const std::int64_t depth = a_.deep ? kDepth : std::clamp(kLeft / (mine.size() * kPiece + columns.size() * kPanel), kLeast, kDepth);
        Stretches stretches(mine, longest(depth));
        compute(stretches, columns, depth);
      }
    });
  }

 private:
  // Pieces of such a depth that fit into the cache.
  static std::int64_t longest(std::int64_t depth) { return kLeft / (kPiece * depth + kPieceSlack); }

  void compute(Stretches& stretches, const Range& panels, std::int64_t most) const {
    const std::int64_t blocks = parts(a_.depth, most), depth = parts(a_.depth, blocks), apart = kPiece * depth + kPieceSlack;
    const std::int64_t group = b_ ? kGroup * kPanel * depth : 0;
    const at::Tensor memory = at::empty({stretches.longest() * apart + group}, at::kFloat);
    float *right = memory.data_ptr<float>(), *left = right + group;
    const auto rows = [&](const Range& pieces) { return Range{pieces.first * kPiece, std::min(pieces.next * kPiece, a_.outer)}; };
    const auto block = [&](std::int64_t i) { return Range{0, a_.depth}.cut(i, blocks); };
    for (Range pieces = stretches.next(), following; pieces.size() > 0; pieces = following) {
      following = stretches.next();
      for (std::int64_t i = 0; i < blocks; ++i) {
        const Range k = block(i);
        const bool last = i + 1 == blocks;
        const std::int64_t products = pieces.size() * panels.size();
        Ahead of_left(a_, rows(last ? following : pieces), block(last ? 0 : i + 1), products), of_right;
        if (b_ && !b_->deep && !last) of_right = Ahead(*b_, {panels.first * kPanel, panels.next * kPanel}, block(i + 1), products);
        a_.pack_pieces(rows(pieces), k, left, apart);
        for (std::int64_t j = panels.first; j < panels.next; ++j) {
          const std::int64_t at = (j - panels.first) % kGroup;
          if (b_ && at == 0) b_->pack_panels({j * kPanel, std::min(j + kGroup, panels.next) * kPanel}, k, right, depth * kPanel);
          const float* panel = b_ ? right + at * depth * kPanel : panels_ + (j * a_.depth + k.first) * kPanel;
          for (std::int64_t p = pieces.first; p < pieces.next; ++p) {
            of_left.ask();
            of_right.ask();
            multiply_(left + (p - pieces.first) * apart, panel, k.size(), tile(p, j, k));
          }
        }
      }
    }
  }

  SumTile tile(std::int64_t piece, std::int64_t panel, const Range& k) const {
    const float* bias = k.next == a_.depth && after_.bias != nullptr ? after_.bias + panel * kPanel : nullptr;
    return {sums_ + piece * kPiece * step_ + panel * kPanel, step_, std::min(kPiece, a_.outer - piece * kPiece), after_.added || k.first > 0, bias,
            after_.slope};
  }

  Operand a_;
  std::optional<Operand> b_;
  const float* panels_;
  float* sums_;
  std::int64_t columns_, step_;
  AfterProduct after_;
  decltype(ProductLoops::multiply) multiply_ = product_loops()->multiply;
};

}  // namespace

bool multiplies() {
  static const bool on = switched_on("CELLCAM_MATRIX_PRODUCT");
  return on && product_loops() != nullptr;
}

at::Tensor packed(const at::Tensor& b) {
  const at::Tensor panels = at::empty({b.size(1) / kPanel, b.size(0), kPanel}, b.options());
  const Operand right(b, 1);
  const std::int64_t each = b.size(0) * kPanel;
  at::parallel_for(0, panels.size(0), std::max<std::int64_t>(1, 16384 / each), [&](std::int64_t begin, std::int64_t end) {
    right.pack_panels({begin * kPanel, end * kPanel}, {0, right.depth}, panels.data_ptr<float>() + begin * each, each);
  });
  return panels;
}

void multiply(const at::Tensor& a, const at::Tensor& b, const at::Tensor& c, const AfterProduct& after) {
  const Operand left(a, 0);
  if (left.deep && left.outer > kFewRows) return multiply_packed(a, packed(b), c, after);
  Product(left, Operand(b, 1), c, after).compute();
}

void multiply_packed(const at::Tensor& a, const at::Tensor& b, const at::Tensor& c, const AfterProduct& after) {
  Product(Operand(a, 0), floats(b), c, after).compute();
}

}  // namespace cellcam::model::fused
