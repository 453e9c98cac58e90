#include "model/fused/matrix_product.h"

#include <ATen/Functions.h>

#include <algorithm>
#include <atomic>
#include <deque>
#include <optional>
#include <thread>

#include "model/fused/panel_loops.h"
#include "model/fused/pixels.h"
#include "model/fused/prefetch.h"
#include "model/fused/product_loops.h"
#include "model/fused/threads.h"
#include "model/switches.h"

namespace cellcam::model::fused {

namespace {

constexpr std::int64_t kDepth = 512;                   // of what is multiplied at a time: a panel of the size of a usual first cache
constexpr std::int64_t kLeast = 128;                   // of it where sums of many depths stay in the second cache
constexpr std::int64_t kLeft = std::int64_t{1} << 16;  // floats of packed pieces: half of a usual second cache
constexpr std::int64_t kGroup = 4;                     // panels that are packed at a time
constexpr std::int64_t kFewPieces = 2;                 // of a stretch that threads share: what is read of a panel pays only for several
constexpr std::int64_t kShares = 4;                    // stretches of what is left, for each thread
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

// Asks the memory for values that will be packed next, a few at a time between products, as packing by itself would wait for them.
class Ahead {
 public:
  Ahead() = default;
  Ahead(const Operand& x, const Range& outer, const Range& k, std::int64_t products)
      : row_(x.at(outer.first, k.first)), step_(x.step), rows_(x.deep ? outer.size() : k.size()), columns_(x.deep ? k.size() : outer.size()),
        each_(parts(rows_ * parts(columns_, kLine), products)) {}

  void ask() {
    for (std::int64_t i = 0; i < each_ && rows_ > 0; ++i) {
      ask_for<2>(row_ + column_);
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

// Pieces of the left matrix, handed out some at a time: to one thread nearly equal stretches, to several ever shorter ones, so that none waits long for
// the others in the end.
class Stretches {
 public:
  Stretches(const Range& pieces, std::int64_t most, std::int64_t threads) : most_(most), threads_(threads), next_(pieces.next), taken_(pieces.first) {}
  std::int64_t longest() const { return some_of(next_ - taken_); }
  // Empty when there are no more.
  Range next() {
    std::int64_t first = taken_;
    while (first < next_) {
      const std::int64_t count = some_of(next_ - first);
      if (taken_.compare_exchange_weak(first, first + count)) return {first, first + count};
    }
    return {0, 0};
  }

 private:
  std::int64_t some_of(std::int64_t left) const {
    if (threads_ == 1) return parts(left, parts(left, most_));
    return std::min({left, most_, std::max(kFewPieces, left / (kShares * threads_))});
  }

  std::int64_t most_, threads_, next_;
  std::atomic<std::int64_t> taken_;
};

// A right matrix as panels, packed by all threads that come to multiply by it.
class Panels {
 public:
  explicit Panels(const at::Tensor& b)
      : memory_(at::empty({b.size(1) / kPanel, b.size(0), kPanel}, b.options())), right_(b, 1), groups_(parts(memory_.size(0), kGroup)) {}

  void pack() {
    const std::int64_t each = right_.depth * kPanel;
    groups_.each([&](std::int64_t i) {
      const Range panels{i * kGroup, std::min((i + 1) * kGroup, memory_.size(0))};
      right_.pack_panels({panels.first * kPanel, panels.next * kPanel}, {0, right_.depth}, memory_.data_ptr<float>() + panels.first * each, each);
      packed_.fetch_add(1, std::memory_order_release);
    });
  }
  // Once other threads are through with what they took.
  const float* data() const {
    while (packed_.load(std::memory_order_acquire) < groups_.count()) std::this_thread::yield();
    return memory_.const_data_ptr<float>();
  }
  const at::Tensor& memory() const { return memory_; }

 private:
  at::Tensor memory_;
  Operand right_;
  Numbers groups_;
  std::atomic<std::int64_t> packed_ = 0;
};

// A product that threads share: each calls pack(), and work() any time later.
class Product {
 public:
  Product(const at::Tensor& a, const at::Tensor& b, const at::Tensor& c, const AfterProduct& after = {}) : Product(Operand(a, 0), c, after) {
    if (a_.deep && a_.outer > kFewRows) {
      panels_.emplace(b);
      return;
    }
    b_ = Operand(b, 1);
    // Rows and columns of its own for each thread, as few as can be of both together, as it packs them.
    const std::int64_t threads = threads_;
    for (std::int64_t d = 2; d <= threads; ++d) {
      if (threads % d == 0 && a_.outer * (threads / d) + columns_ * d < a_.outer * (threads / down_) + columns_ * down_) down_ = d;
    }
  }
  // By panels that are packed already.
  Product(const at::Tensor& a, const float* packed, const at::Tensor& c, const AfterProduct& after) : Product(Operand(a, 0), c, after) { packed_ = packed; }

  void pack() {
    if (panels_) panels_->pack();
  }

  void work() {
    const Range panels{0, columns_ / kPanel};
    if (!b_) return compute(shared_, panels, panels_ ? panels_->data() : packed_, kDepth);
    const std::int64_t across = threads_ / down_;
    cells_.each([&](std::int64_t i) {
      const Range mine = pieces().cut(i / across, down_), columns = panels.cut(i % across, across);
      if (mine.size() == 0 || columns.size() == 0) return;
      const std::int64_t depth = a_.deep ? kDepth : std::clamp(kLeft / (mine.size() * kPiece + columns.size() * kPanel), kLeast, kDepth);
      Stretches stretches(mine, longest(depth), 1);
      compute(stretches, columns, nullptr, depth);
    });
  }

  void compute() {
    on_all_threads([&] {
      pack();
      work();
    });
  }

 private:
  Product(const Operand& a, const at::Tensor& c, const AfterProduct& after)
      : a_(a), sums_(c.data_ptr<float>()), columns_(c.size(1)), step_(c.stride(0)), after_(after), shared_(pieces(), longest(kDepth), threads_) {}

  Range pieces() const { return {0, parts(a_.outer, kPiece)}; }
  // Pieces of such a depth that fit into the cache.
  static std::int64_t longest(std::int64_t depth) { return kLeft / (kPiece * depth + kPieceSlack); }

  void compute(Stretches& stretches, const Range& panels, const float* packed, std::int64_t most) const {
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
          const float* panel = b_ ? right + at * depth * kPanel : packed + (j * a_.depth + k.first) * kPanel;
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
  float* sums_;
  std::int64_t columns_, step_;
  AfterProduct after_;
  std::int64_t threads_ = at::get_num_threads(), down_ = 1;
  // Either the right matrix in cells of the result, or its panels, packed now or before, and stretches of the left one.
  std::optional<Operand> b_;
  std::optional<Panels> panels_;
  const float* packed_ = nullptr;
  Numbers cells_{threads_};
  Stretches shared_;
  decltype(ProductLoops::multiply) multiply_ = product_loops()->multiply;
};

}  // namespace

bool multiplies() {
  static const bool on = switched_on("CELLCAM_MATRIX_PRODUCT");
  return on && product_loops() != nullptr;
}

at::Tensor packed(const at::Tensor& b) {
  Panels panels(b);
  on_all_threads([&] { panels.pack(); });
  return panels.memory();
}

void multiply(const at::Tensor& a, const at::Tensor& b, const at::Tensor& c, const AfterProduct& after) { Product(a, b, c, after).compute(); }

void multiply(const std::vector<MatrixProduct>& products) {
  std::deque<Product> shared;
  for (const MatrixProduct& p : products) shared.emplace_back(p.a, p.b, p.c);
  on_all_threads([&] {
    for (Product& p : shared) p.pack();
    for (Product& p : shared) p.work();
  });
}

void multiply_packed(const at::Tensor& a, const at::Tensor& b, const at::Tensor& c, const AfterProduct& after) {
  Product(a, floats(b), c, after).compute();
}

}  // namespace cellcam::model::fused
