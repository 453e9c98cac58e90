#include "cells/watershed.h"

#include <algorithm>
#include <array>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include "cells/components.h"
#include "error.h"

namespace cellcam::cells {

namespace {

constexpr int kIndexBits = 28, kAgeBits = 28;
constexpr std::int64_t kPixels = 1 << (kIndexBits - 2);

// The binary heap of scikit-image's watershed. An entry is value, age and pixel in one word; only value and age are compared, so
// that entries of one value and age, which only markers have, leave in the order that the moves of this heap give them.
class Heap {
 public:
  static std::uint64_t entry(std::uint64_t value, std::uint64_t age, std::uint64_t index) {
    return value << (kAgeBits + kIndexBits) | age << kIndexBits | index;
  }
  static std::uint64_t key(std::uint64_t entry) { return entry >> kIndexBits; }
  static std::int64_t index(std::uint64_t entry) { return static_cast<std::int64_t>(entry & ((1ull << kIndexBits) - 1) & ~kEnclosed); }
  static std::uint8_t value(std::uint64_t entry) { return static_cast<std::uint8_t>(entry >> (kAgeBits + kIndexBits)); }
  static bool is_marker(std::uint64_t entry) { return (key(entry) & ((1ull << kAgeBits) - 1)) == 0; }

  // In an entry: none of the pixel's neighbours is to be labelled.
  static constexpr std::uint64_t kEnclosed = 1ull << (kIndexBits - 1);

  // Of at most `room` entries.
  explicit Heap(std::int64_t room) : entries_(std::make_unique_for_overwrite<std::uint64_t[]>(static_cast<std::size_t>(room) + 1)) {}

  void push(std::uint64_t entry) {
    std::uint64_t* const e = entries_.get();
    std::size_t child = size_++;
    e[size_] = kEnd;
    while (child > 0) {
      const std::size_t parent = (child - 1) / 2;
      if (key(entry) >= key(e[parent])) break;
      e[child] = e[parent];
      child = parent;
    }
    e[child] = entry;
  }

  std::uint64_t pop() {
    const std::uint64_t top = entries_[0], last = take_last();
    if (size_ > 0) sink(0, last);
    return top;
  }

  // Pops all markers of the value of the top, which is one, and hands each to use(entry), which may push what is greater.
  template <typename Use>
  void pop_ties(Use&& use) {
    ties_.clear();
    next_tie_ = 0;
    replaced_ = kEnd;
    pop_ties_below(0, key(top()), use);
  }

  bool empty() const { return size_ == 0; }
  std::uint64_t top() const { return entries_[0]; }
  // In no order.
  std::span<const std::uint64_t> entries() const { return {entries_.get(), size_}; }

 private:
  static constexpr std::uint64_t kEnd = ~0ull;  // behind the last: what a parent of one child reads as its other one

  std::uint64_t take_last() {
    const std::uint64_t last = entries_[--size_];
    entries_[size_] = kEnd;
    return last;
  }

  void sink(std::size_t at, std::uint64_t entry) {
    std::uint64_t* const e = entries_.get();
    for (std::size_t child = 2 * at + 1; child < size_; child = 2 * at + 1) {
      child += key(e[child + 1]) < key(e[child]);
      if (key(e[child]) >= key(entry)) break;
      e[at] = e[child];
      at = child;
    }
    e[at] = entry;
  }

  // Entries of the least key are a tree from the top down. A pop moves the left one of their children up, if there is one, else the
  // right one, and so on down, and into the lowest place sinks the last entry: they leave in preorder and their places are filled
  // in postorder. So nothing need be moved but the last entries, and most sink from far down. One that is itself of the least
  // key stays at the top, is the next to leave, and its place is none any more.
  template <typename Use>
  void pop_ties_below(std::size_t at, std::uint64_t tie, Use& use) {
    ties_.push_back(entries_[at]);
    const std::size_t left = 2 * at + 1, right = left + 1;
    if (left < size_ && key(entries_[left]) == tie) pop_ties_below(left, tie, use);
    if (right < size_ && key(entries_[right]) == tie) pop_ties_below(right, tie, use);
    for (bool filled = false; !filled;) {
      const std::uint64_t popped = replaced_ != kEnd ? std::exchange(replaced_, kEnd) : ties_[next_tie_++];
      const std::uint64_t last = take_last();
      if (key(last) != tie) {
        sink(at, last);
        filled = true;
      } else if (size_ == 0) {
        filled = true;
      } else {
        replaced_ = last;
        filled = size_ == at;
        if (filled) ties_.pop_back();
      }
      use(popped);
    }
  }

  std::unique_ptr<std::uint64_t[]> entries_;
  std::vector<std::uint64_t> ties_;  // those of the tree that have been reached on the way down
  std::size_t next_tie_ = 0;
  std::uint64_t replaced_ = kEnd;
  std::size_t size_ = 0;
};

constexpr std::int32_t kOutside = -1;

// Labels, kOutside where the mask is 0, and around them a border outside the mask, so that every pixel has four neighbours.
struct Flood {
  std::int64_t width;
  Labels labels;
  std::array<std::int64_t, 4> neighbours;  // up, left, right, down
  std::int64_t markers = 0, open = 0;  // pixels that have a label, and that wait for one

  Flood(const Labels& given, const Mask& mask)
      : width(given.width + 2), labels(given.height + 2, width, kOutside), neighbours{-width, -1, 1, width} {
    // A pixel can be pushed by each of its neighbours, and every push has an age of its own.
    if (labels.size() >= kPixels) throw Error("ERR_IMAGE", std::to_string(given.size()) + " pixels are more than 2^26");
    for (std::int64_t y = 0; y < given.height; ++y) {
      const std::int32_t* from = given.row(y);
      const std::uint8_t* within = mask.row(y);
      std::int32_t* to = labels.row(y + 1) + 1;
      std::int32_t labelled = 0, unlabelled = 0;
      for (std::int64_t x = 0; x < given.width; ++x) {
        to[x] = within[x] ? from[x] : kOutside;
        labelled += to[x] > 0;
        unlabelled += to[x] == 0;
      }
      markers += labelled;
      open += unlabelled;
    }
  }

  bool encloses(std::int64_t index) const {
    return std::all_of(neighbours.begin(), neighbours.end(), [&](std::int64_t step) { return labels[index + step] != 0; });
  }

  Labels inner() const {
    Labels out(labels.height - 2, width - 2);
    for (std::int64_t y = 0; y < out.height; ++y) {
      const std::int32_t* from = labels.row(y + 1) + 1;
      for (std::int64_t x = 0; x < out.width; ++x) out.row(y)[x] = std::max(from[x], 0);
    }
    return out;
  }
};

Bytes padded(const Bytes& image) {
  Bytes out(image.height + 2, image.width + 2);
  for (std::int64_t y = 0; y < image.height; ++y) std::copy_n(image.row(y), image.width, out.row(y + 1) + 1);
  return out;
}

// Labels the unlabelled neighbours of a pixel and hands each on as put(value, pixel).
template <typename Put>
void spread(Flood& flood, const Bytes& height, std::int64_t index, std::uint8_t value, Put&& put) {
  for (const std::int64_t step : flood.neighbours) {
    const std::int64_t to = index + step;
    if (flood.labels[to] != 0) continue;
    flood.labels[to] = flood.labels[index];
    put(std::max(height[to], value), to);
  }
}

// Tells whether the order of markers of one value can matter. Floods that no open pixels connect never meet; and markers of one
// label and value together reach the same pixels at the same values, before anything else gets its turn, in whatever order they come.
// So it can where two of different labels border on one component of the open pixels.
class Ties {
 public:
  explicit Ties(const Flood& flood) : flood_(flood) {}

  // Of markers whose value is the next one to be flooded. Sometimes true where it cannot.
  bool matter(std::span<const std::int32_t> markers) {
    if (!share_component(markers)) return false;
    if (looks_ == 0) return true;
    --looks_;
    // From here on components only shrink and part, so that old ones err on the safe side.
    open_ = components(map_grid<std::uint8_t>(flood_.labels, [](std::int32_t label) { return label == 0; }), Neighbours::four);
    return share_component(markers);
  }

 private:
  struct Border {
    std::int64_t turn;
    std::int32_t label;
  };

  bool share_component(std::span<const std::int32_t> markers) {
    ++turn_;
    for (const std::int64_t index : markers) {
      for (const std::int64_t step : flood_.neighbours) {
        if (flood_.labels[index + step] != 0) continue;
        const auto component = static_cast<std::size_t>(open_.size() > 0 ? open_[index + step] : 0);
        if (component >= borders_.size()) borders_.resize(2 * component + 1);
        Border& border = borders_[component];
        if (border.turn == turn_ && border.label != flood_.labels[index]) return true;
        border = {turn_, flood_.labels[index]};
      }
    }
    return false;
  }

  const Flood& flood_;
  Labels open_;  // the components when last looked at; none before
  std::vector<Border> borders_;
  std::int64_t turn_ = 0;
  int looks_ = 4;
};

// A flood from here on with a queue for each value: of one value first come, first served, markers first and in any order.
class Queues {
 public:
  Queues(Flood& flood, const Bytes& height, std::span<const std::uint64_t> entries) : flood_(flood), height_(height) {
    std::vector<std::uint64_t> others;
    for (const std::uint64_t entry : entries) {
      if (!Heap::is_marker(entry)) {
        others.push_back(entry);
      } else if (!(entry & Heap::kEnclosed)) {
        queues_[Heap::value(entry)].put(Heap::index(entry));
      }
    }
    for (Queue& queue : queues_) queue.markers = queue.pixels.size();
    std::sort(others.begin(), others.end());
    for (const std::uint64_t entry : others) queues_[Heap::value(entry)].put(Heap::index(entry));
    for (Queue& queue : queues_) queue.given = queue.pixels.size();
  }

  // Labels all that can be reached, or stops at a value of which the order of the markers matters, and returns it.
  std::optional<std::uint8_t> flow() {
    Ties ties(flood_);
    for (int value = 0; value < 256; ++value) {
      const std::vector<std::int32_t>& pixels = queues_[value].pixels;
      if (ties.matter({pixels.data(), queues_[value].markers})) return value;
      for (std::size_t i = 0; i < pixels.size(); ++i) {
        spread(flood_, height_, pixels[i], value, [&](std::uint8_t v, std::int64_t to) { queues_[v].put(to); });
      }
    }
    return std::nullopt;
  }

  void undo() const {
    for (const Queue& queue : queues_) {
      for (std::size_t i = queue.given; i < queue.pixels.size(); ++i) flood_.labels[queue.pixels[i]] = 0;
    }
  }

 private:
  struct Queue {
    std::vector<std::int32_t> pixels;
    std::size_t markers = 0, given = 0;  // how many of them are markers, and how many were there from the beginning

    void put(std::int64_t index) { pixels.push_back(static_cast<std::int32_t>(index)); }
  };

  Flood& flood_;
  const Bytes& height_;
  std::array<Queue, 256> queues_;
};

}  // namespace

Labels watershed(const Bytes& height, const Labels& markers, const Mask& mask) {
  Flood flood(markers, mask);
  const Bytes values = padded(height);
  Heap heap(flood.labels.size());
  for (std::int64_t i = 0; i < flood.labels.size(); ++i) {
    if (flood.labels[i] > 0) heap.push(Heap::entry(values[i], 0, i) | (flood.encloses(i) ? Heap::kEnclosed : 0));
  }
  std::uint64_t age = 0;
  std::int64_t left = flood.markers;
  const auto spread_to_heap = [&](std::uint64_t entry) {
    if (entry & Heap::kEnclosed) return;
    spread(flood, values, Heap::index(entry), Heap::value(entry),
           [&](std::uint8_t v, std::int64_t to) { heap.push(Heap::entry(v, ++age, to)); });
  };
  const auto pop_markers = [&](int value) {  // up to this value
    while (left > 0 && Heap::key(heap.top()) <= Heap::key(Heap::entry(value, 0, 0))) {
      if (!Heap::is_marker(heap.top())) {
        spread_to_heap(heap.pop());
      } else {
        heap.pop_ties([&](std::uint64_t entry) {
          --left;
          spread_to_heap(entry);
        });
      }
    }
  };
  // Without the heap's order, unless it turns out to matter. Where there is little to flood, the heap takes no longer than finding out.
  for (int trials = flood.open > flood.markers ? 3 : 0;; --trials) {
    if (trials == 0) pop_markers(255);
    Queues queues(flood, values, heap.entries());
    const std::optional<std::uint8_t> decided_by_heap = queues.flow();
    if (!decided_by_heap) return flood.inner();
    queues.undo();
    pop_markers(*decided_by_heap);
  }
}

Labels watershed_with_line(const Labels& markers, const Mask& mask) {
  Flood flood(markers, mask);
  struct Drop {
    std::int64_t index;
    std::int32_t label;
  };
  std::vector<Drop> queue;  // by age
  Heap heap(5 * flood.markers);  // with the four that each may push; decides the order of the markers; the others follow them all
  for (std::int64_t i = 0; i < flood.labels.size(); ++i) {
    if (flood.labels[i] > 0) heap.push(Heap::entry(0, 0, i));
  }
  const auto meets_another = [&](const Drop& d) {
    for (const std::int64_t step : flood.neighbours) {
      const std::int32_t label = flood.labels[d.index + step];
      if (label > 0 && label != d.label) return true;
    }
    return false;
  };
  const auto flow = [&](const Drop& d) {
    if (flood.labels[d.index] != kOutside) flood.labels[d.index] = meets_another(d) ? kOutside : d.label;
    for (const std::int64_t step : flood.neighbours) {
      if (flood.labels[d.index + step] == 0) queue.push_back({d.index + step, d.label});
    }
  };
  if (!heap.empty()) {
    heap.pop_ties([&](std::uint64_t entry) {
      const std::size_t before = queue.size();
      flow({Heap::index(entry), flood.labels[Heap::index(entry)]});
      for (std::size_t i = before; i < queue.size(); ++i) heap.push(Heap::entry(0, i + 1, static_cast<std::uint64_t>(queue[i].index)));
    });
  }
  for (std::size_t i = 0; i < queue.size(); ++i) {
    const Drop next = queue[i];
    if (flood.labels[next.index] <= 0) flow(next);
  }
  return flood.inner();
}

}  // namespace cellcam::cells
