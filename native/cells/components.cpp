#include "cells/components.h"

#include <algorithm>

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

template <typename T>
Labels number_components(const Grid<T>& image, Neighbours neighbours) {
  const bool eight = neighbours == Neighbours::eight;
  Labels out(image.height, image.width);
  Forest forest;
  for (std::int64_t y = 0; y < image.height; ++y) {
    const T* row = image.row(y);
    const T* up = y > 0 ? image.row(y - 1) : nullptr;
    std::int32_t* label = out.row(y);
    const std::int32_t* above = y > 0 ? out.row(y - 1) : nullptr;
    for (std::int64_t x = 0; x < image.width; ++x) {
      const T value = row[x];
      if (value == 0) continue;
      std::int32_t found = x > 0 && row[x - 1] == value ? label[x - 1] : 0;
      const auto meet = [&](std::int64_t at) {
        if (up[at] == value && above[at] != found) found = found == 0 ? above[at] : forest.join(found, above[at]);
      };
      if (up != nullptr) {
        meet(x);
        if (eight && x > 0) meet(x - 1);
        if (eight && x + 1 < image.width) meet(x + 1);
      }
      label[x] = found == 0 ? forest.grow() : found;
    }
  }
  const std::vector<std::int32_t> numbers = forest.numbering();
  for (std::int32_t& label : out.values) label = numbers[label];
  return out;
}

Mask inverse(const Mask& mask) {
  return map_grid<std::uint8_t>(mask, [](std::uint8_t v) { return v == 0; });
}

}  // namespace

Labels components(const Labels& image, Neighbours neighbours) { return number_components(image, neighbours); }
Labels components(const Mask& image, Neighbours neighbours) { return number_components(image, neighbours); }

std::vector<std::int64_t> areas(const Labels& labels) {
  std::vector<std::int64_t> count(static_cast<std::size_t>(*std::max_element(labels.values.begin(), labels.values.end())) + 1, 0);
  // Neighbours mostly share a label: a run at a time does not wait for the count just written.
  for (std::int64_t i = 0; i < labels.size();) {
    const std::int64_t start = i;
    const std::int32_t label = labels[i];
    while (i < labels.size() && labels[i] == label) ++i;
    count[label] += i - start;
  }
  return count;
}

void remove_small_labels(Labels& labels, std::int64_t minimum) {
  const std::vector<std::int64_t> area = areas(labels);
  for (std::int32_t& label : labels.values) {
    if (area[label] < minimum) label = 0;
  }
}

void remove_small(Mask& mask, std::int64_t minimum) {
  Labels labels = components(mask, Neighbours::four);
  remove_small_labels(labels, minimum);
  for (std::int64_t i = 0; i < mask.size(); ++i) mask[i] = labels[i] != 0;
}

void fill_small_holes(Mask& mask, std::int64_t maximum) {
  Mask background = inverse(mask);
  remove_small(background, maximum);
  mask = inverse(background);
}

void fill_holes(Mask& mask) {
  const Labels background = components(inverse(mask), Neighbours::four);
  std::vector<std::uint8_t> outside(areas(background).size(), 0);
  const auto mark = [&](std::int64_t y, std::int64_t x) { outside[background.row(y)[x]] = 1; };
  for (std::int64_t x = 0; x < mask.width; ++x) mark(0, x), mark(mask.height - 1, x);
  for (std::int64_t y = 0; y < mask.height; ++y) mark(y, 0), mark(y, mask.width - 1);
  outside[0] = 0;
  for (std::int64_t i = 0; i < mask.size(); ++i) mask[i] = !outside[background[i]];
}

}  // namespace cellcam::cells
