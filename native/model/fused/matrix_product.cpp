#include "model/fused/matrix_product.h"

#include <ATen/Functions.h>

#include <algorithm>
#include <atomic>
#include <deque>
#include <optional>
#include <thread>
#include <utility>

#include "model/fused/integer_loops.h"
#include "model/fused/operand.h"
#include "model/fused/pixels.h"
#include "model/fused/product_loops.h"
#include "model/fused/threads.h"
#include "model/switches.h"

namespace cellcam::model::fused {

namespace {

constexpr std::int64_t kLeast = 128;                   // of depth at a time where sums of many depths stay in the second cache
constexpr std::int64_t kLeft = std::int64_t{1} << 16;  // floats of packed pieces: half of a usual second cache
constexpr std::int64_t kGroup = 4;                     // panels that are packed at a time
constexpr std::int64_t kFewPieces = 2;                 // of a stretch that threads share: what is read of a panel pays only for several
constexpr std::int64_t kShares = 4;                    // stretches of what is left, for each thread
constexpr std::int64_t kFewRows = 512;                 // up to so many, threads pack panels as they need them instead of all of them beforehand

constexpr std::int64_t kLeastListed = 64;              // rows of such a matrix, and columns for each thread
constexpr std::int64_t kWideListed = 160;              // columns in all, of deep ones for each thread: most are multiplied with five panels or six at a time
constexpr std::int64_t kDeepListed = 1024;             // for a result that is transposed afterwards to pay

// Whether so many values of this left matrix are zeros, as behind a ReLU, that it pays to list what the others are. A few spots of it tell.
bool lists(const Operand& x, std::int64_t columns) {
  static const bool on = switched_on("CELLCAM_SKIP_ZEROS");
  if (!on || x.outer < kLeastListed || x.depth < product_loops()->least_listed) return false;
  if (columns < std::max(kWideListed, kLeastListed * at::get_num_threads())) return false;
  constexpr std::int64_t kSpots = 16, kApart = 2;  // of kLeastListed values that lie together, and as many in the next row or column
  const std::int64_t rows = x.deep ? kApart : kLeastListed, depths = x.deep ? kLeastListed : kApart;
  std::int64_t kept = 0;
  for (std::int64_t s = 0; s < kSpots; ++s) {
    const std::int64_t row = (x.outer - rows) * s / (kSpots - 1), depth = (x.depth - depths) * (s * 5 % kSpots) / (kSpots - 1);
    for (std::int64_t i = 0; i < rows * depths; ++i) kept += x.value(row + i % rows, depth + i / rows) != 0 ? 1 : 0;
  }
  return static_cast<double>(kept) < product_loops()->most_kept * static_cast<double>(kSpots * rows * depths);
}

const TileLoops& loops_of(Arithmetic arithmetic) { return arithmetic == Arithmetic::int16 ? *integer_loops() : product_loops()->tiles; }

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
  Panels(const Operand& right, const TileLoops& tiles)
      : tiles_(tiles), right_(right), blocks_(right_.depth, tiles.depth), each_(blocks_.begin(tiles, blocks_.count())),
        memory_(at::empty({right_.outer / kPanel, each_}, at::kFloat)), groups_(parts(memory_.size(0), kGroup)) {}

  void pack() {
    groups_.each([&](std::int64_t i) {
      const Range panels{i * kGroup, std::min((i + 1) * kGroup, memory_.size(0))};
      for (std::int64_t k = 0; k < blocks_.count(); ++k) {
        right_.pack_panels(tiles_, panels, blocks_[k], memory_.data_ptr<float>() + panels.first * each_ + blocks_.begin(tiles_, k), each_);
      }
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
  const TileLoops& tiles_;
  Operand right_;
  Blocks blocks_;
  std::int64_t each_;
  at::Tensor memory_;
  Numbers groups_;
  std::atomic<std::int64_t> packed_ = 0;
};

// Panels of the right matrix that are read together.
struct PanelGroup {
  const float* data;
  std::int64_t apart;
  Range panels;
};

// Rows of the left matrix of one block of depth, packed for the products with all panels: as pieces,
class Pieces {
 public:
  static std::int64_t panels() { return kGroup; }
  static std::int64_t floats_each(const TileLoops& tiles, std::int64_t depth) { return tiles.piece_size(depth); }
  static std::int64_t products(const Range& panels, std::int64_t) { return panels.size(); }

  Pieces(const TileLoops& tiles, const Operand& x, const Range& rows, const Range& k, float* memory)
      : tiles_(tiles), k_(k), count_(parts(rows.size(), tiles.rows)), memory_(memory) {
    x.pack_pieces(tiles, rows, k, memory);
  }
  // Uses tile(number, panel, depths) for each.
  template <typename Tile>
  void multiply(const PanelGroup& right, const Tile& tile) const {
    const auto multiply = tiles_.multiply;
    const std::int64_t each = tiles_.piece_size(k_.size());
    const auto product = [&](std::int64_t i, std::int64_t j) {
      multiply(memory_ + i * each, right.data + j * right.apart, k_.size(), tile(i, right.panels.first + j, k_));
    };
    // The larger one of a piece and a panel stays in the first cache.
    if (tiles_.rows > kPanel) {
      for (std::int64_t i = 0; i < count_; ++i) {
        for (std::int64_t j = 0; j < right.panels.size(); ++j) product(i, j);
      }
    } else {
      for (std::int64_t j = 0; j < right.panels.size(); ++j) {
        for (std::int64_t i = 0; i < count_; ++i) product(i, j);
      }
    }
  }

 private:
  const TileLoops& tiles_;
  Range k_;
  std::int64_t count_;
  const float* memory_;
};

// or as lists of what is not zero.
class Lists {
 public:
  static constexpr std::int64_t kRows = 16;
  static std::int64_t panels() { return product_loops()->wide; }
  static std::int64_t floats_each(const TileLoops&, std::int64_t depth) { return kRows * parts(depth, kListed) * std::int64_t{sizeof(RowList) / sizeof(float)}; }
  static std::int64_t products(const Range& panels, std::int64_t depth) { return parts(panels.size(), Lists::panels()) * parts(depth, kListed); }

  Lists(const TileLoops&, const Operand& x, const Range& rows, const Range& k, float* memory)
      : k_(k), count_(rows.size()), lists_(parts(k.size(), kListed)), memory_(reinterpret_cast<RowList*>(memory)) {
    for (std::int64_t l = 0; l < lists_; ++l) x.list(rows, k.cut(l, lists_), memory_ + l * count_);
  }
  template <typename Tile>
  void multiply(const PanelGroup& right, const Tile& tile) const {
    const auto multiply = product_loops()->multiply_listed;
    for (std::int64_t l = 0; l < lists_; ++l) {
      const Range k = k_.cut(l, lists_);
      const float* panel = right.data + (k.first - k_.first) * kPanel;
      for (std::int64_t i = 0; i < count_; i += kRows) {
        multiply(memory_ + l * count_ + i, panel, right.apart, right.panels.size(), tile(i / kRows, right.panels.first, k));
      }
    }
  }

 private:
  Range k_;
  std::int64_t count_, lists_;
  RowList* memory_;
};

// A product that threads share: each calls pack(), and work() any time later.
class Product {
 public:
  Product(const MatrixProduct& p, Arithmetic arithmetic, const AfterProduct& after = {})
      : Product(Operand(p.a, 0, p.before_a), p.c, arithmetic, after) {
    const Operand right(p.b, 1, p.before_b);
    if (a_.deep && a_.outer > kFewRows) {
      panels_.emplace(right, tiles_);
      return;
    }
    b_ = right;
    // Rows and columns of its own for each thread, as few as can be of both together, as it packs them.
    const std::int64_t threads = threads_;
    for (std::int64_t d = 2; d <= threads; ++d) {
      if (threads % d == 0 && a_.outer * (threads / d) + columns_ * d < a_.outer * (threads / down_) + columns_ * down_) down_ = d;
    }
  }
  // By panels that are packed already.
  Product(const at::Tensor& a, const float* packed, const at::Tensor& c, const AfterProduct& after) : Product(Operand(a, 0), c, Arithmetic::float32, after) {
    packed_ = packed;
  }

  void pack() {
    if (panels_) panels_->pack();
  }

  void work() {
    const Range panels{0, columns_ / kPanel};
    if (!b_) return compute(shared_, panels, panels_ ? panels_->data() : packed_, tiles_.depth);
    const std::int64_t across = threads_ / down_;
    cells_.each([&](std::int64_t i) {
      const Range mine = pieces().cut(i / across, down_), columns = panels.cut(i % across, across);
      if (mine.size() == 0 || columns.size() == 0) return;
      const bool whole = a_.deep || a_.depth <= tiles_.depth;  // if cut, sums of rows that do not lie together would be read again
      const std::int64_t depth = whole ? tiles_.depth : std::clamp(kLeft / (mine.size() * rows_ + columns.size() * kPanel), kLeast, tiles_.depth);
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
  Product(const Operand& a, const at::Tensor& c, Arithmetic arithmetic, const AfterProduct& after)
      : tiles_(loops_of(arithmetic)), a_(a), sums_(c.data_ptr<float>()), columns_(c.size(1)), step_(c.stride(0)), after_(after),
        listed_(arithmetic == Arithmetic::float32 && lists(a, columns_)), shared_(pieces(), longest(tiles_.depth), threads_) {}

  // Rows are counted in pieces, or in as many as are listed together.
  Range pieces() const { return {0, parts(a_.outer, rows_)}; }
  // Those of such a depth that fit into the cache; of lists only half is written.
  std::int64_t longest(std::int64_t depth) const {
    return listed_ ? 2 * kLeft / Lists::floats_each(tiles_, depth) : kLeft / Pieces::floats_each(tiles_, depth);
  }

  void compute(Stretches& stretches, const Range& panels, const float* packed, std::int64_t most) const {
    if (listed_) return compute_by<Lists>(stretches, panels, packed, most);
    compute_by<Pieces>(stretches, panels, packed, most);
  }

  template <typename Left>
  void compute_by(Stretches& stretches, const Range& panels, const float* packed, std::int64_t most) const {
    const Blocks blocks(a_.depth, most);
    const std::int64_t groups = parts(panels.size(), Left::panels()), whole = packed != nullptr ? blocks.begin(tiles_, blocks.count()) : 0;
    const std::int64_t group = b_ ? Left::panels() * tiles_.panel_size(blocks.longest()) : 0;
    const at::Tensor memory = at::empty({stretches.longest() * Left::floats_each(tiles_, blocks.longest()) + group}, at::kFloat);
    float* right = memory.data_ptr<float>();
    const auto rows = [&](const Range& pieces) { return Range{pieces.first * rows_, std::min(pieces.next * rows_, a_.outer)}; };
    for (Range pieces = stretches.next(), following; pieces.size() > 0; pieces = following) {
      following = stretches.next();
      for (std::int64_t i = 0; i < blocks.count(); ++i) {
        const Range k = blocks[i];
        const bool last = i + 1 == blocks.count();
        const Left left(tiles_, a_, rows(pieces), k, right + group);
        for (std::int64_t g = 0; g < groups; ++g) {
          const Range some = panels.cut(g, groups), next = g + 1 < groups ? panels.cut(g + 1, groups) : last ? Range{0, 0} : panels.cut(0, groups);
          Ahead ahead;
          a_.add_to(ahead, rows(last ? following : pieces).cut(g, groups), blocks[last ? 0 : i + 1]);
          if (b_) b_->add_to(ahead, {next.first * kPanel, next.next * kPanel}, g + 1 < groups ? k : blocks[last ? 0 : i + 1]);
          ahead.share(pieces.size() * Left::products(some, k.size()));
          PanelGroup read{right, tiles_.panel_size(k.size()), some};
          if (b_) {
            b_->pack_panels(tiles_, some, k, right, read.apart);
          } else {
            read = {packed + some.first * whole + blocks.begin(tiles_, i), whole, some};
          }
          left.multiply(read, [&](std::int64_t piece, std::int64_t panel, const Range& depths) {
            return tile(pieces.first + piece, panel, depths, ahead);
          });
        }
      }
    }
  }

  SumTile tile(std::int64_t piece, std::int64_t panel, const Range& k, Ahead& ahead) const {
    const float* bias = k.next == a_.depth && after_.bias != nullptr ? after_.bias + panel * kPanel : nullptr;
    const std::int64_t row = piece * rows_;
    return {sums_ + row * step_ + panel * kPanel, step_, std::min(rows_, a_.outer - row), after_.added || k.first > 0, bias, after_.slope, &ahead};
  }

  const TileLoops& tiles_;
  Operand a_;
  float* sums_;
  std::int64_t columns_, step_;
  AfterProduct after_;
  bool listed_;
  std::int64_t rows_ = listed_ ? Lists::kRows : tiles_.rows, threads_ = at::get_num_threads(), down_ = 1;
  // Either the right matrix in cells of the result, or its panels, packed now or before, and stretches of the left one.
  std::optional<Operand> b_;
  std::optional<Panels> panels_;
  const float* packed_ = nullptr;
  Numbers cells_{threads_};
  Stretches shared_;
};

// Of a matrix with rows by kPanel.
void transpose(const at::Tensor& from, const at::Tensor& to) {
  const float* x = floats(from);
  float* y = to.data_ptr<float>();
  for_stretches(from.size(0) / kPanel, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin * kPanel; i < end * kPanel; i += kPanel) {
      product_loops()->transpose(x + i * from.stride(0), from.stride(0), from.size(1), kPanel, y + i, to.stride(0));
    }
  });
}

}  // namespace

bool multiplies() {
  static const bool on = switched_on("CELLCAM_MATRIX_PRODUCT");
  return on && product_loops() != nullptr;
}

at::Tensor packed(const at::Tensor& b) {
  Panels panels(Operand(b, 1), product_loops()->tiles);
  on_all_threads([&] { panels.pack(); });
  return panels.memory();
}

void multiply(const at::Tensor& a, const at::Tensor& b, const at::Tensor& c, const AfterProduct& after) {
  Product({a, b, c}, Arithmetic::float32, after).compute();
}

void multiply(const std::vector<MatrixProduct>& products, Arithmetic arithmetic) {
  std::deque<Product> shared;
  std::vector<std::pair<at::Tensor, at::Tensor>> transposed;  // from what to where
  for (const MatrixProduct& p : products) {
    const std::int64_t columns = p.a.size(0);  // of the transposed product
    const bool deep = p.b.size(0) >= kDeepListed && columns % kPanel == 0 && columns >= kWideListed * at::get_num_threads();
    if (arithmetic == Arithmetic::int16 || !deep || !lists(Operand(p.b.t(), 0, p.before_b), columns)) {
      shared.emplace_back(p, arithmetic);
      continue;
    }
    // Zeros of the right matrix are those of the left one in the transposed product.
    transposed.emplace_back(at::empty({p.c.size(1), p.c.size(0)}, p.c.options()), p.c);
    shared.emplace_back(MatrixProduct{p.b.t(), p.a.t(), transposed.back().first, p.before_b, p.before_a}, arithmetic);
  }
  on_all_threads([&] {
    for (Product& p : shared) p.pack();
    for (Product& p : shared) p.work();
  });
  for (const auto& [from, to] : transposed) transpose(from, to);
}

void multiply_packed(const at::Tensor& a, const at::Tensor& b, const at::Tensor& c, const AfterProduct& after) {
  Product(a, floats(b), c, after).compute();
}

}  // namespace cellcam::model::fused
