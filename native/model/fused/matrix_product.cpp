#include "model/fused/matrix_product.h"

#include <ATen/Functions.h>

#include <algorithm>
#include <atomic>
#include <deque>
#include <optional>
#include <thread>
#include <utility>

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

constexpr double kMostKept = .58;                      // of a matrix, for leaving out its zeros to pay: the rest is multiplied at about this rate
constexpr std::int64_t kLeastListed = 64;              // rows and depth of such a matrix, and columns for each thread
constexpr std::int64_t kWideListed = 160;              // columns in all, of deep ones for each thread: most are multiplied with five panels or six at a time
constexpr std::int64_t kDeepListed = 1024;             // for a result that is transposed afterwards to pay

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

  void list(const Range& rows, const Range& k, RowList* to) const {
    const ProductLoops& loops = *product_loops();
    (deep ? loops.list_rows : loops.list_columns)(at(rows.first, k.first), step, k.size(), rows.size(), to);
  }
  void pack_pieces(const Range& rows, const Range& k, float* to, std::int64_t apart) const {
    const ProductLoops& loops = *product_loops();
    (deep ? loops.transpose_pieces : loops.copy_pieces)(at(rows.first, k.first), step, k.size(), rows.size(), to, apart);
  }
  void pack_panels(const Range& columns, const Range& k, float* to, std::int64_t apart) const {
    const ProductLoops& loops = *product_loops();
    (deep ? loops.transpose_panels : loops.copy_panels)(at(columns.first, k.first), step, k.size(), columns.size(), to, apart);
  }
};

// Whether so many values of this left matrix are zeros, as behind a ReLU, that it pays to list what the others are. A few spots of it tell.
bool lists(const Operand& x, std::int64_t columns) {
  static const bool on = switched_on("CELLCAM_SKIP_ZEROS");
  if (!on || std::min(x.outer, x.depth) < kLeastListed || columns < std::max(kWideListed, kLeastListed * at::get_num_threads())) return false;
  constexpr std::int64_t kSpots = 16, kApart = 2;  // of kLeastListed values that lie together, and as many in the next row or column
  const std::int64_t rows = x.deep ? kApart : kLeastListed, depths = x.deep ? kLeastListed : kApart;
  std::int64_t kept = 0;
  for (std::int64_t s = 0; s < kSpots; ++s) {
    const std::int64_t row = (x.outer - rows) * s / (kSpots - 1), depth = (x.depth - depths) * (s * 5 % kSpots) / (kSpots - 1);
    for (std::int64_t i = 0; i < rows * depths; ++i) kept += *x.at(row + i % rows, depth + i / rows) != 0 ? 1 : 0;
  }
  return static_cast<double>(kept) < kMostKept * static_cast<double>(kSpots * rows * depths);
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

// Panels of the right matrix that are read together.
struct PanelGroup {
  const float* data;
  std::int64_t apart;
  Range panels;
};

// Rows of the left matrix of one block of depth, packed for the products with all panels: as pieces,
class Pieces {
 public:
  static constexpr std::int64_t kRows = kPiece, kPanels = kGroup;
  static std::int64_t floats_each(std::int64_t depth) { return kPiece * depth + kPieceSlack; }
  static std::int64_t products(const Range& panels, std::int64_t) { return panels.size(); }

  Pieces(const Operand& x, const Range& rows, const Range& k, float* memory) : k_(k), count_(parts(rows.size(), kRows)), memory_(memory) {
    x.pack_pieces(rows, k, memory, floats_each(k.size()));
  }
  // Calls before() and uses tile(number, panel, depths) for each.
  template <typename Before, typename Tile>
  void multiply(const PanelGroup& right, const Before& before, const Tile& tile) const {
    const auto multiply = product_loops()->multiply;
    for (std::int64_t j = 0; j < right.panels.size(); ++j) {
      for (std::int64_t i = 0; i < count_; ++i) {
        before();
        multiply(memory_ + i * floats_each(k_.size()), right.data + j * right.apart, k_.size(), tile(i, right.panels.first + j, k_));
      }
    }
  }

 private:
  Range k_;
  std::int64_t count_;
  const float* memory_;
};

// or as lists of what is not zero.
class Lists {
 public:
  static constexpr std::int64_t kRows = 16, kPanels = kWide;
  static std::int64_t floats_each(std::int64_t depth) { return kRows * parts(depth, kListed) * std::int64_t{sizeof(RowList) / sizeof(float)}; }
  static std::int64_t products(const Range& panels, std::int64_t depth) { return parts(panels.size(), kPanels) * parts(depth, kListed); }

  Lists(const Operand& x, const Range& rows, const Range& k, float* memory)
      : k_(k), count_(rows.size()), lists_(parts(k.size(), kListed)), memory_(reinterpret_cast<RowList*>(memory)) {
    for (std::int64_t l = 0; l < lists_; ++l) x.list(rows, k.cut(l, lists_), memory_ + l * count_);
  }
  template <typename Before, typename Tile>
  void multiply(const PanelGroup& right, const Before& before, const Tile& tile) const {
    const auto multiply = product_loops()->multiply_listed;
    for (std::int64_t l = 0; l < lists_; ++l) {
      const Range k = k_.cut(l, lists_);
      const float* panel = right.data + (k.first - k_.first) * kPanel;
      for (std::int64_t i = 0; i < count_; i += kRows) {
        before();
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
      const std::int64_t depth = a_.deep ? kDepth : std::clamp(kLeft / (mine.size() * rows_ + columns.size() * kPanel), kLeast, kDepth);
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
      : a_(a), sums_(c.data_ptr<float>()), columns_(c.size(1)), step_(c.stride(0)), after_(after), listed_(lists(a, columns_)),
        shared_(pieces(), longest(kDepth), threads_) {}

  // Rows are counted in pieces, or in as many as are listed together.
  Range pieces() const { return {0, parts(a_.outer, rows_)}; }
  // Those of such a depth that fit into the cache; of lists only half is written.
  std::int64_t longest(std::int64_t depth) const { return listed_ ? 2 * kLeft / Lists::floats_each(depth) : kLeft / Pieces::floats_each(depth); }

  void compute(Stretches& stretches, const Range& panels, const float* packed, std::int64_t most) const {
    if (listed_) return compute_by<Lists>(stretches, panels, packed, most);
    compute_by<Pieces>(stretches, panels, packed, most);
  }

  template <typename Left>
  void compute_by(Stretches& stretches, const Range& panels, const float* packed, std::int64_t most) const {
    const std::int64_t blocks = parts(a_.depth, most), depth = parts(a_.depth, blocks), groups = parts(panels.size(), Left::kPanels);
    const std::int64_t group = b_ ? Left::kPanels * kPanel * depth : 0;
    const at::Tensor memory = at::empty({stretches.longest() * Left::floats_each(depth) + group}, at::kFloat);
    float* right = memory.data_ptr<float>();
    const auto rows = [&](const Range& pieces) { return Range{pieces.first * Left::kRows, std::min(pieces.next * Left::kRows, a_.outer)}; };
    const auto block = [&](std::int64_t i) { return Range{0, a_.depth}.cut(i, blocks); };
    for (Range pieces = stretches.next(), following; pieces.size() > 0; pieces = following) {
      following = stretches.next();
      for (std::int64_t i = 0; i < blocks; ++i) {
        const Range k = block(i);
        const bool last = i + 1 == blocks;
        const std::int64_t products = pieces.size() * Left::products(panels, k.size());
        Ahead of_left(a_, rows(last ? following : pieces), block(last ? 0 : i + 1), products), of_right;
        if (b_ && !b_->deep && !last) of_right = Ahead(*b_, {panels.first * kPanel, panels.next * kPanel}, block(i + 1), products);
        const Left left(a_, rows(pieces), k, right + group);
        for (std::int64_t g = 0; g < groups; ++g) {
          const Range some = panels.cut(g, groups);
          PanelGroup read{right, k.size() * kPanel, some};
          if (b_) {
            b_->pack_panels({some.first * kPanel, some.next * kPanel}, k, right, read.apart);
          } else {
            read = {packed + (some.first * a_.depth + k.first) * kPanel, a_.depth * kPanel, some};
          }
          const auto before = [&] {
            of_left.ask();
            of_right.ask();
          };
          left.multiply(read, before, [&](std::int64_t piece, std::int64_t panel, const Range& depths) {
            return tile<Left::kRows>(pieces.first + piece, panel, depths);
          });
        }
      }
    }
  }

  template <std::int64_t rows>
  SumTile tile(std::int64_t piece, std::int64_t panel, const Range& k) const {
    const float* bias = k.next == a_.depth && after_.bias != nullptr ? after_.bias + panel * kPanel : nullptr;
    const std::int64_t row = piece * rows;
    return {sums_ + row * step_ + panel * kPanel, step_, std::min(rows, a_.outer - row), after_.added || k.first > 0, bias, after_.slope};
  }

  Operand a_;
  float* sums_;
  std::int64_t columns_, step_;
  AfterProduct after_;
  bool listed_;
  std::int64_t rows_ = listed_ ? Lists::kRows : Pieces::kRows, threads_ = at::get_num_threads(), down_ = 1;
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
  Panels panels(b);
  on_all_threads([&] { panels.pack(); });
  return panels.memory();
}

void multiply(const at::Tensor& a, const at::Tensor& b, const at::Tensor& c, const AfterProduct& after) { Product(a, b, c, after).compute(); }

void multiply(const std::vector<MatrixProduct>& products) {
  std::deque<Product> shared;
  std::vector<std::pair<at::Tensor, at::Tensor>> transposed;  // from what to where
  for (const MatrixProduct& p : products) {
    const std::int64_t columns = p.a.size(0);  // of the transposed product
    if (p.b.size(0) < kDeepListed || columns % kPanel != 0 || columns < kWideListed * at::get_num_threads() || !lists(Operand(p.b.t(), 0), columns)) {
      shared.emplace_back(p.a, p.b, p.c);
      continue;
    }
    // Zeros of the right matrix are those of the left one in the transposed product.
    transposed.emplace_back(at::empty({p.c.size(1), p.c.size(0)}, p.c.options()), p.c);
    shared.emplace_back(p.b.t(), p.a.t(), transposed.back().first);
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
