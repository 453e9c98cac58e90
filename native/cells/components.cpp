#include "cells/components.h"

#include <algorithm>
#include <cstring>

namespace cellcam::cells {

namespace {

// Provisional numbers and what each was found to be the same component as. A root is the smallest number of its component, and
// numbers are given out in row-major order, so roots in ascending order are components in the order of their first pixels.
class Forest {
 public:
  std::int32_t grow() {
    parent_.push_back(static_cast<std::int32_t>(parent_.size()));
    return parent_.back();
  }

  std::int32_t root(std::int32_t a) {
    while (parent_[a] != a) a = parent_[a] = parent_[parent_[a]];
    return a;
  }

  std::int32_t join(std::int32_t a, std::int32_t b) {
    a = root(a);
    b = root(b);
    const std::int32_t low = std::min(a, b);
    return parent_[std::max(a, b)] = low;
  }

  // From provisional to final numbers, 1, 2, …
  std::vector<std::int32_t> numbering() {
    std::vector<std::int32_t> out(parent_.size(), 0);
    std::int32_t next = 0;
    for (std::int32_t a = 1; a < static_cast<std::int32_t>(parent_.size()); ++a) out[a] = parent_[a] == a ? ++next : out[parent_[a]];
    return out;
  }

 private:
  std::vector<std::int32_t> parent_{0};
};

// Pixels of one row and value next to each other, and the component that they were given first.
struct Run {
  std::int64_t row, start, end;
  std::int32_t component;
};

// The first pixel from x on that is not `value`, eight bytes at a time.
template <typename T>
std::int64_t end_of_run(const T* row, std::int64_t x, std::int64_t width, T value) {
  constexpr std::int64_t kStep = sizeof(std::uint64_t) / sizeof(T);
  T repeated[kStep];
  std::fill_n(repeated, kStep, value);
  while (x + kStep <= width && std::memcmp(row + x, repeated, sizeof repeated) == 0) x += kStep;
  while (x < width && row[x] == value) ++x;
  return x;
}

// The components of an image by runs, which are far fewer than pixels. Of a mask's components also those of its background.
template <typename T>
class RunComponents {
 public:
  // `wanted` tells which values have components.
  template <typename Wanted>
  RunComponents(const Grid<T>& image, Neighbours neighbours, Wanted&& wanted) {
    const std::int64_t reach = neighbours == Neighbours::eight ? 1 : 0;
    std::size_t above = 0;  // the first run of the row above
    for (std::int64_t y = 0; y < image.height; ++y) {
      const T* row = image.row(y);
      const std::size_t first = runs_.size();
      std::size_t meets = above;
      for (std::int64_t x = 0; x < image.width;) {
        const std::int64_t start = x;
        x = end_of_run(row, x + 1, image.width, row[start]);
        if (!wanted(row[start])) continue;
        while (meets < first && runs_[meets].end + reach <= start) ++meets;
        std::int32_t found = 0;
        for (std::size_t k = meets; k < first && runs_[k].start < x + reach; ++k) {
          if (image.row(y - 1)[runs_[k].start] != row[start]) continue;
          found = found == 0 ? runs_[k].component : forest_.join(found, runs_[k].component);
        }
        runs_.push_back({y, start, x, found == 0 ? forest_.grow() : found});
      }
      above = first;
    }
    numbers_ = forest_.numbering();
  }

  // use(run, number of its component).
  template <typename Use>
  void each(Use&& use) const {
    for (const Run& run : runs_) use(run, numbers_[run.component]);
  }

  // One more than the largest number.
  std::size_t numbers() const { return static_cast<std::size_t>(*std::max_element(numbers_.begin(), numbers_.end())) + 1; }

  std::vector<std::int64_t> areas() const {
    std::vector<std::int64_t> out(numbers(), 0);
    each([&](const Run& run, std::int32_t number) { out[number] += run.end - run.start; });
    return out;
  }

 private:
  Forest forest_;
  std::vector<Run> runs_;
  std::vector<std::int32_t> numbers_;
};

constexpr auto kForeground = [](auto value) { return value != 0; };
constexpr auto kBackground = [](auto value) { return value == 0; };

template <typename T>
Labels number_components(const Grid<T>& image, Neighbours neighbours) {
  Labels out(image.height, image.width);
  RunComponents<T>(image, neighbours, kForeground).each([&](const Run& run, std::int32_t number) {
    std::fill(out.row(run.row) + run.start, out.row(run.row) + run.end, number);
  });
  return out;
}

// Sets the components of `found` with fewer than `minimum` pixels to `value`.
void overwrite_small(Mask& mask, const RunComponents<std::uint8_t>& found, std::int64_t minimum, std::uint8_t value) {
  const std::vector<std::int64_t> area = found.areas();
  found.each([&](const Run& run, std::int32_t number) {
    if (area[number] < minimum) std::fill(mask.row(run.row) + run.start, mask.row(run.row) + run.end, value);
  });
}

}  // namespace

Labels components(const Labels& image, Neighbours neighbours) { return number_components(image, neighbours); }
Labels components(const Mask& image, Neighbours neighbours) { return number_components(image, neighbours); }

std::vector<std::int64_t> areas(const Labels& labels) {
  std::vector<std::int64_t> count(static_cast<std::size_t>(*std::max_element(labels.values.begin(), labels.values.end())) + 1, 0);
  for (std::int64_t y = 0; y < labels.height; ++y) {
    const std::int32_t* row = labels.row(y);
    for (std::int64_t x = 0; x < labels.width;) {
      const std::int64_t start = x;
      x = end_of_run(row, x + 1, labels.width, row[start]);
      count[row[start]] += x - start;
    }
  }
  return count;
}

void remove_small_labels(Labels& labels, std::int64_t minimum) {
  const std::vector<std::int64_t> area = areas(labels);
  if (std::all_of(area.begin() + 1, area.end(), [&](std::int64_t n) { return n == 0 || n >= minimum; })) return;
  for (std::int32_t& label : labels.values) {
    if (area[label] < minimum) label = 0;
  }
}

void remove_small(Mask& mask, std::int64_t minimum, Neighbours neighbours) {
  overwrite_small(mask, RunComponents<std::uint8_t>(mask, neighbours, kForeground), minimum, 0);
}

void fill_small_holes(Mask& mask, std::int64_t maximum) {
  overwrite_small(mask, RunComponents<std::uint8_t>(mask, Neighbours::four, kBackground), maximum, 1);
}

void fill_holes(Mask& mask) {
  const RunComponents<std::uint8_t> background(mask, Neighbours::four, kBackground);
  std::vector<std::uint8_t> outside(background.numbers(), 0);
  background.each([&](const Run& run, std::int32_t number) {
    if (run.row == 0 || run.row == mask.height - 1 || run.start == 0 || run.end == mask.width) outside[number] = 1;
  });
  background.each([&](const Run& run, std::int32_t number) {
    if (!outside[number]) std::fill(mask.row(run.row) + run.start, mask.row(run.row) + run.end, std::uint8_t{1});
  });
}

}  // namespace cellcam::cells
