// The watersheds against scikit-image's, move by move, on images full of ties.
#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "cells/flood_heap.h"
#include "cells/watershed.h"
#include "check.h"
#include "random.h"

namespace cellcam::tests {
namespace {

using namespace cells;

struct Entry {
  int value;
  std::int64_t age, pixel;
  std::int32_t source;
  bool before(const Entry& other) const { return value != other.value ? value < other.value : age < other.age; }
};

// With swaps, as the books have it.
class PlainHeap {
 public:
  void push(const Entry& entry) {
    entries_.push_back(entry);
    for (std::size_t at = entries_.size() - 1; at > 0 && entries_[at].before(entries_[(at - 1) / 2]); at = (at - 1) / 2) {
      std::swap(entries_[at], entries_[(at - 1) / 2]);
    }
  }

  Entry pop() {
    const Entry top = entries_[0];
    entries_[0] = entries_.back();
    entries_.pop_back();
    for (std::size_t at = 0;;) {
      std::size_t least = at;
      for (const std::size_t child : {2 * at + 1, 2 * at + 2}) {
        if (child < entries_.size() && entries_[child].before(entries_[least])) least = child;
      }
      if (least == at) return top;
      std::swap(entries_[at], entries_[least]);
      at = least;
    }
  }

  bool empty() const { return entries_.empty(); }

 private:
  std::vector<Entry> entries_;
};

Labels plain_watershed(const Bytes& height, const Labels& markers, Mask mask, bool line) {
  const std::int64_t h = height.height, w = height.width;
  Labels labels = map_grids<std::int32_t>(markers, mask, [](std::int32_t label, std::uint8_t in) { return in ? label : 0; });
  PlainHeap heap;
  for (std::int64_t i = 0; i < labels.size(); ++i) {
    if (labels[i] != 0) heap.push({height[i], 0, i, labels[i]});
  }
  for (std::int64_t age = 0; !heap.empty();) {
    const Entry entry = heap.pop();
    std::vector<std::int64_t> near;  // up, left, right, down
    if (entry.pixel >= w) near.push_back(entry.pixel - w);
    if (entry.pixel % w > 0) near.push_back(entry.pixel - 1);
    if (entry.pixel % w < w - 1) near.push_back(entry.pixel + 1);
    if (entry.pixel < (h - 1) * w) near.push_back(entry.pixel + w);
    if (line) {
      if (labels[entry.pixel] != 0 && entry.age > 0) continue;
      const bool meets = std::any_of(near.begin(), near.end(), [&](std::int64_t to) {
        return mask[to] && labels[to] != 0 && labels[to] != entry.source;
      });
      if (mask[entry.pixel]) labels[entry.pixel] = meets ? 0 : entry.source;
      if (meets) mask[entry.pixel] = 0;
    }
    for (const std::int64_t to : near) {
      if (!mask[to] || labels[to] != 0) continue;
      if (!line) labels[to] = entry.source;
      heap.push({std::max<int>(height[to], entry.value), ++age, to, entry.source});
    }
  }
  return labels;
}

struct Scene {
  Bytes height;
  Labels markers;
  Mask mask;

  // Heights of few or many values, in places smooth; disks as markers, some of one label, some inside others; a mask with holes, or
  // one that leaves but pockets.
  explicit Scene(std::uint64_t seed) {
    Random random(seed, "scene");
    const std::int64_t h = 1 + random.below(40), w = 1 + random.below(40);
    const std::int64_t values = std::int64_t{1} << random.below(9), smooth = 1 + random.below(6);
    height = Bytes(h, w);
    markers = Labels(h, w);
    mask = Mask(h, w, 1);
    const double holes = static_cast<double>(random.below(4)) * 0.15;
    for (std::int64_t y = 0; y < h; ++y) {
      for (std::int64_t x = 0; x < w; ++x) {
        const bool repeats = x % smooth > 0 && x > 0;
        height.row(y)[x] = repeats ? height.row(y)[x - 1] : static_cast<std::uint8_t>(random.below(values));
        mask.row(y)[x] = random.uniform() >= holes;
      }
    }
    const std::int64_t disks = random.below(random.below(2) ? 8 : 40), radius = 1 + random.below(random.below(2) ? 3 : 15);
    for (std::int64_t k = 0; k < disks; ++k) {
      const std::int64_t cy = random.below(h), cx = random.below(w), r = random.below(radius);
      const auto label = static_cast<std::int32_t>(1 + random.below(disks));
      for (std::int64_t y = std::max<std::int64_t>(0, cy - r); y <= std::min(h - 1, cy + r); ++y) {
        for (std::int64_t x = std::max<std::int64_t>(0, cx - r); x <= std::min(w - 1, cx + r); ++x) {
          if ((y - cy) * (y - cy) + (x - cx) * (x - cx) <= r * r) markers.row(y)[x] = label;
        }
      }
    }
  }
};

const Register flood_cases("the watershed is that of a binary heap, ties included", [] {
  for (std::uint64_t seed = 0; seed < 3000; ++seed) {
    const Scene s(seed);
    check(watershed(s.height, s.markers, s.mask).values == plain_watershed(s.height, s.markers, s.mask, false).values,
          "scene " + std::to_string(seed));
  }
});

const Register tie_cases("ties popped in one walk come as they do one by one, also when others are pushed in between", [] {
  for (std::uint64_t seed = 0; seed < 500; ++seed) {
    Random random(seed, "ties");
    const std::int64_t markers = 1 + random.below(200), values = 1 + random.below(6);
    FloodHeap whole(2 * markers), single(2 * markers);
    for (std::int64_t i = 0; i < markers; ++i) {
      const auto entry = FloodHeap::entry(static_cast<std::uint64_t>(random.below(values)), 0, static_cast<std::uint64_t>(i));
      whole.push(entry);
      single.push(entry);
    }
    std::uint64_t age = 0;
    const std::string name = "seed " + std::to_string(seed);
    const auto pop_single = [&](std::uint64_t expected) {
      check(!single.empty() && single.pop() == expected, name);
      if (!FloodHeap::is_marker(expected) || random.uniform() < 0.5) return;
      const auto value = FloodHeap::value(expected) + static_cast<std::uint64_t>(random.below(2));
      ++age;
      const auto pushed = FloodHeap::entry(value, age, static_cast<std::uint64_t>(markers) + age);
      whole.push(pushed);
      single.push(pushed);
    };
    while (!whole.empty()) {
      if (FloodHeap::is_marker(whole.top())) whole.pop_ties(pop_single);
      else pop_single(whole.pop());
    }
    check(single.empty(), name);
  }
});

const Register line_cases("the watershed with a line is that of a binary heap", [] {
  for (std::uint64_t seed = 0; seed < 3000; ++seed) {
    const Scene s(seed);
    const Bytes flat(s.height.height, s.height.width);
    check(watershed_with_line(s.markers, s.mask).values == plain_watershed(flat, s.markers, s.mask, true).values,
          "scene " + std::to_string(seed));
  }
});

}  // namespace
}  // namespace cellcam::tests
