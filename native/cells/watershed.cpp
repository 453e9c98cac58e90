#include "cells/watershed.h"

#include <algorithm>
#include <array>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "cells/components.h"
#include "cells/flood_heap.h"
#include "error.h"

namespace cellcam::cells {

namespace {

constexpr std::int32_t kOutside = -1;

// Labels, kOutside where the mask is 0, and around them a border outside the mask, so that every pixel has four neighbours.
struct Flood {
  std::int64_t width;
  Labels labels;
  std::array<std::int64_t, 4> neighbours;  // up, left, right, down
  std::int64_t markers = 0, open = 0;  // pixels that have a label, and that wait for one

  Flood(const Labels& given, const Mask& mask)
      : width(given.width + 2), labels(given.height + 2, width, kOutside), neighbours{-width, -1, 1, width} {
    if (labels.size() >= FloodHeap::kPixels) throw Error("ERR_IMAGE", std::to_string(given.size()) + " pixels are more than 2^26");
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
    // From here on components only shrink and part, so that old ones can only say yes too often.
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
  int looks_ = 2;  // one takes as long as flooding some ten thousand pixels
};

// A flood from here on with a queue for each value: of one value first come, first served, markers first and in any order.
class Queues {
 public:
  Queues(Flood& flood, const Bytes& height, std::span<const std::uint64_t> entries) : flood_(flood), height_(height) {
    std::vector<std::uint64_t> others;
    for (const std::uint64_t entry : entries) {
      if (!FloodHeap::is_marker(entry)) {
        others.push_back(entry);
      } else if (!(entry & FloodHeap::kEnclosed)) {
        queues_[FloodHeap::value(entry)].put(FloodHeap::index(entry));
      }
    }
    for (Queue& queue : queues_) queue.markers = queue.pixels.size();
    std::sort(others.begin(), others.end());
    for (const std::uint64_t entry : others) queues_[FloodHeap::value(entry)].put(FloodHeap::index(entry));
    for (Queue& queue : queues_) queue.given = queue.pixels.size();
  }

  // Labels all that can be reached, or stops at a value of which the order of the markers matters, and returns it.
  std::optional<std::uint8_t> flow() {
    Ties ties(flood_);
    for (std::size_t v = 0; v < queues_.size(); ++v) {
      const auto value = static_cast<std::uint8_t>(v);
      const std::vector<std::int32_t>& pixels = queues_[value].pixels;
      if (ties.matter({pixels.data(), queues_[value].markers})) return value;
      for (std::size_t i = 0; i < pixels.size(); ++i) {
        spread(flood_, height_, pixels[i], value, [&](std::uint8_t at, std::int64_t to) { queues_[at].put(to); });
      }
    }
    return std::nullopt;
  }

  void undo() {
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
  FloodHeap heap(flood.labels.size());
  for (std::int64_t i = 0; i < flood.labels.size(); ++i) {
    if (flood.labels[i] > 0) heap.push(FloodHeap::entry(values[i], 0, i) | (flood.encloses(i) ? FloodHeap::kEnclosed : 0));
  }
  std::uint64_t age = 0;
  std::int64_t left = flood.markers;
  const auto spread_to_heap = [&](std::uint64_t entry) {
    if (entry & FloodHeap::kEnclosed) return;
    spread(flood, values, FloodHeap::index(entry), FloodHeap::value(entry),
           [&](std::uint8_t v, std::int64_t to) { heap.push(FloodHeap::entry(v, ++age, to)); });
  };
  const auto pop_up_to_markers_of = [&](int value) {
    while (left > 0 && FloodHeap::key(heap.top()) <= FloodHeap::key(FloodHeap::entry(value, 0, 0))) {
      if (!FloodHeap::is_marker(heap.top())) {
        spread_to_heap(heap.pop());
      } else {
        heap.pop_ties([&](std::uint64_t entry) {
          --left;
          spread_to_heap(entry);
        });
      }
    }
  };
  // Without the heap's order, unless it turns out to matter; where there is little to flood, the heap takes no longer than finding out.
  // A trial that fails takes the time of what it flooded.
  constexpr int kTrials = 3;
  for (int trials = flood.open > flood.markers ? kTrials : 0;; --trials) {
    if (trials == 0) pop_up_to_markers_of(255);
    Queues queues(flood, values, heap.entries());
    const std::optional<std::uint8_t> decided_by_heap = queues.flow();
    if (!decided_by_heap) return flood.inner();
    queues.undo();
    pop_up_to_markers_of(*decided_by_heap);
  }
}

Labels watershed_with_line(const Labels& markers, const Mask& mask) {
  Flood flood(markers, mask);
  struct Drop {
    std::int64_t index;
    std::int32_t label;
  };
  std::vector<Drop> queue;  // by age
  FloodHeap heap(5 * flood.markers);  // with the four that each may push; decides the order of the markers; the others follow them all
  for (std::int64_t i = 0; i < flood.labels.size(); ++i) {
    if (flood.labels[i] > 0) heap.push(FloodHeap::entry(0, 0, i));
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
      flow({FloodHeap::index(entry), flood.labels[FloodHeap::index(entry)]});
      for (std::size_t i = before; i < queue.size(); ++i) heap.push(FloodHeap::entry(0, i + 1, static_cast<std::uint64_t>(queue[i].index)));
    });
  }
  for (std::size_t i = 0; i < queue.size(); ++i) {
    const Drop next = queue[i];
    if (flood.labels[next.index] <= 0) flow(next);
  }
  return flood.inner();
}

}  // namespace cellcam::cells
