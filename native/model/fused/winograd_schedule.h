#pragma once
// How the work of minimal filtering (winograd_loops.h) is cut, and the memory that it takes.
#include <ATen/Functions.h>

#include <algorithm>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "model/fused/cpu.h"
#include "model/fused/threads.h"
#include "model/fused/winograd_loops.h"

namespace cellcam::model::fused {

constexpr std::int64_t kPadding = 16;  // floats: without them the 36 places of a value would share one set of the cache

// Floats of what is transformed at a time. Where the weights are few enough, threads take blocks of their own, which fill half of a core's second
// cache; else they share each block, which has as many as the weights, that are read once for each.
inline std::int64_t own_block() { return second_cache() / 2; }
inline std::int64_t own_weights() { return second_cache() * 2; }
constexpr std::int64_t kSharedBlock = std::int64_t{1} << 19;
constexpr std::int64_t kFewest = 6;  // tiles of a block
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

inline std::vector<Tile> tiles_of(const std::vector<at::Tensor>& views) {
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
  explicit Places(const std::vector<at::Tensor>& views) {
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
  bool begins;  // with the first of its blocks of tiles
  // The first panel of inputs, from first_in on, that lead to a panel of outputs.
  std::int64_t input_of(std::int64_t output, const Group& group) const { return output / (group.out / kPanel) * (group.in / kPanel); }
};

struct Memory {
  Scratch first, second;
};

// How a convolution's work is cut into chunks of channels and blocks of tiles.
class Schedule {
 public:
  Schedule(const std::vector<at::Tensor>& x, const Group& group) : group_(group), tiles_(tiles_of(x)) {
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
    if (next > first) f(Chunk{chunk * in, in, chunk * out, out, first == 0}, tiles_.data() + first, next - first, memory);
  }

  Group group_;
  std::vector<Tile> tiles_;
  std::int64_t each_, chunks_, weights_;  // groups of a chunk, chunks, transformed weights of one
};

}  // namespace cellcam::model::fused
