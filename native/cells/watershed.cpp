#include "cells/watershed.h"

#include <algorithm>
#include <array>
#include <string>

#include "error.h"

namespace cellcam::cells {

namespace {

constexpr int kIndexBits = 28, kAgeBits = 28;

// The binary heap of scikit-image's watershed. An entry is value, age and pixel in one word; only value and age are compared, so
// that entries of one value and age leave in the order that the moves of this heap give them.
class Heap {
 public:
  static std::uint64_t entry(std::uint64_t value, std::uint64_t age, std::uint64_t index) {
    return value << (kAgeBits + kIndexBits) | age << kIndexBits | index;
  }
  static std::uint64_t key(std::uint64_t entry) { return entry >> kIndexBits; }
  static std::int64_t index(std::uint64_t entry) { return static_cast<std::int64_t>(entry & ((1ull << kIndexBits) - 1)); }
  static std::uint8_t value(std::uint64_t entry) { return static_cast<std::uint8_t>(entry >> (kAgeBits + kIndexBits)); }
  static bool is_marker(std::uint64_t entry) { return (key(entry) & ((1ull << kAgeBits) - 1)) == 0; }

  explicit Heap(std::int64_t room) { entries_.reserve(static_cast<std::size_t>(room) + 1); }

  void push(std::uint64_t entry) {
    std::size_t child = size_++;
    entries_.resize(size_ + 1, kEnd);
    entries_[size_] = kEnd;
    std::uint64_t* const e = entries_.data();
    while (child > 0) {
      const std::size_t parent = (child - 1) / 2;
      if (key(entry) >= key(e[parent])) break;
      e[child] = e[parent];
      child = parent;
    }
    e[child] = entry;
  }

  std::uint64_t pop() {
    std::uint64_t* const e = entries_.data();
    const std::uint64_t top = e[0], last = e[--size_];
    e[size_] = kEnd;  // what a parent of one child reads as its other one
    std::size_t at = 0;
    for (std::size_t child = 1; child < size_; child = 2 * at + 1) {
      child += key(e[child + 1]) < key(e[child]);
      if (key(e[child]) >= key(last)) break;
      e[at] = e[child];
      at = child;
    }
    if (size_ > 0) e[at] = last;
    return top;
  }

  // What is left, by value and age.
  std::vector<std::uint64_t> drain() {
    entries_.resize(size_);
    std::sort(entries_.begin(), entries_.end());
    return std::move(entries_);
  }

 private:
  static constexpr std::uint64_t kEnd = ~0ull;
  std::vector<std::uint64_t> entries_;
  std::size_t size_ = 0;
};

constexpr std::int32_t kOutside = -1;

// Labels, kOutside where the mask is 0, and around them a border outside the mask, so that every pixel has four neighbours.
struct Flood {
  std::int64_t width;
  Labels labels;
  std::array<std::int64_t, 4> neighbours;  // up, left, right, down
  std::int64_t markers = 0;

  Flood(const Labels& given, const Mask& mask)
      : width(given.width + 2), labels(given.height + 2, width, kOutside), neighbours{-width, -1, 1, width} {
    // A pixel can be pushed by each of its neighbours, and every push has an age of its own.
    if (labels.size() >= 1ll << (kAgeBits - 2)) throw Error("ERR_IMAGE", std::to_string(given.size()) + " pixels are more than 2^26");
    for (std::int64_t y = 0; y < given.height; ++y) {
      const std::int32_t* from = given.row(y);
      const std::uint8_t* within = mask.row(y);
      std::int32_t* to = labels.row(y + 1) + 1;
      for (std::int64_t x = 0; x < given.width; ++x) {
        to[x] = within[x] ? from[x] : kOutside;
        markers += to[x] > 0;
      }
    }
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

// Pixels by value, and of one value first come, first served. No value may be less than the last one taken.
class Buckets {
 public:
  void put(std::uint8_t value, std::int64_t index) { buckets_[value].push_back(static_cast<std::int32_t>(index)); }

  // The next pixel and its value, or −1.
  std::int64_t take(std::uint8_t& value) {
    while (read_ == buckets_[current_].size()) {
      if (current_ == 255) return -1;
      buckets_[current_] = {};
      read_ = 0;
      ++current_;
    }
    value = static_cast<std::uint8_t>(current_);
    return buckets_[current_][read_++];
  }

 private:
  std::array<std::vector<std::int32_t>, 256> buckets_;
  std::size_t current_ = 0, read_ = 0;
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

}  // namespace

Labels watershed(const Bytes& height, const Labels& markers, const Mask& mask) {
  Flood flood(markers, mask);
  const Bytes values = padded(height);
  Heap heap(flood.labels.size());
  for (std::int64_t i = 0; i < flood.labels.size(); ++i) {
    if (flood.labels[i] > 0) heap.push(Heap::entry(values[i], 0, i));
  }
  std::uint64_t age = 0;
  for (std::int64_t left = flood.markers; left > 0;) {
    const std::uint64_t top = heap.pop();
    left -= Heap::is_marker(top);
    spread(flood, values, Heap::index(top), Heap::value(top),
           [&](std::uint8_t value, std::int64_t to) { heap.push(Heap::entry(value, ++age, to)); });
  }
  // Without markers every age is different, and any queue gives the heap's order.
  Buckets buckets;
  for (const std::uint64_t entry : heap.drain()) buckets.put(Heap::value(entry), Heap::index(entry));
  std::uint8_t value = 0;
  for (std::int64_t index = buckets.take(value); index >= 0; index = buckets.take(value)) {
    spread(flood, values, index, value, [&](std::uint8_t v, std::int64_t to) { buckets.put(v, to); });
  }
  return flood.inner();
}

Labels watershed_with_line(const Labels& markers, const Mask& mask) {
  Flood flood(markers, mask);
  struct Drop {
    std::int64_t index;
    std::int32_t label;
  };
  std::vector<Drop> queue;  // by age
  Heap heap(flood.markers);  // decides the order of the markers; the others follow them all
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
  for (std::int64_t left = flood.markers; left > 0; --left) {
    const std::int64_t index = Heap::index(heap.pop());
    const std::size_t before = queue.size();
    flow({index, flood.labels[index]});
    for (std::size_t i = before; i < queue.size(); ++i) heap.push(Heap::entry(0, i + 1, static_cast<std::uint64_t>(queue[i].index)));
  }
  for (std::size_t i = 0; i < queue.size(); ++i) {
    const Drop next = queue[i];
    if (flood.labels[next.index] <= 0) flow(next);
  }
  return flood.inner();
}

}  // namespace cellcam::cells
